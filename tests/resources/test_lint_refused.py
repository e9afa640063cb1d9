"""What stands beside an object that is refused is checked all the same, and nothing is told that only follows from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshproxy.cli.lint import diagnose

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: a, command: [a]}]}
"""
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
"""
LOOSE = """
apiVersion: split.smi-spec.io/v1alpha2
kind: TrafficSplit
metadata: {name: s}
spec: {service: web, backends: [{service: web-v2, weight: 1}]}
---
apiVersion: v1
kind: Service
metadata: {name: other}
spec: {selector: {app: nobody}, ports: [{port: 80}]}
---
apiVersion: flagger.app/v1beta1
kind: Canary
metadata: {name: gone}
spec:
  targetRef: {kind: Deployment, name: gone}
  service: {port: 80}
  analysis: {interval: 10s, threshold: 2, stepWeight: 10}
---
apiVersion: access.smi-spec.io/v1alpha3
kind: TrafficTarget
metadata: {name: t}
spec:
  destination: {kind: ServiceAccount, name: nobody}
  sources: [{kind: ServiceAccount, name: default}]
  rules: [{kind: HTTPRouteGroup, name: books}]
"""
# What is wrong between the objects of LOOSE.
FINDINGS = {
    "Service web-v2 does not exist",
    "selects no pod of any Deployment",
    "Deployment gone does not exist",
    "no pod has the service account nobody",
    "HTTPRouteGroup books does not exist",
}


def told(path: Path, **files: str) -> list[str]:
    """Messages of a directory of these files."""
    for name, text in files.items():
        (path / f"{name}.yaml").write_text(text)
    return [f"{one.severity} {one.field}: {one.message}" for one in diagnose(path)[0]]


def findings(lines: list[str]) -> set[str]:
    return {known for known in FINDINGS for line in lines if known in line}


CONFIG = "apiVersion: v1\nkind: ConfigMap\n"


@pytest.mark.parametrize(
    "broken",
    [
        CONFIG + "metadata: {name: a}\ndata: {x: 1}\n",
        CONFIG + 'metadata: {}\ndata: {x: "1"}\n',
        CONFIG + 'metadata: {name: A_1}\ndata: {x: "1"}\n',
        CONFIG + 'metadata: {name: a}\ndata: {x: "1", x: "2"}\n',
        CONFIG + "metadata: {name: a\n",
        DEPLOYMENT.replace("web", "db").replace("spec:\n", "spec:\n  replica: 2\n", 1),
        DEPLOYMENT.replace("web", "db").replace("command: [a]", "image: a"),
        "- 1\n",
    ],
    ids=["field", "no name", "wrong name", "given twice", "no YAML", "Deployment", "no command", "no object"],
)
@pytest.mark.parametrize("together", [False, True], ids=["two files", "one file"])
def test_one_mistake_hides_nothing_that_is_wrong_elsewhere(tmp_path: Path, broken: str, together: bool) -> None:
    good = "---".join([DEPLOYMENT, SERVICE, LOOSE])
    files = {"a": good + "---\n" + broken} if together else {"a": good, "b": broken}
    lines = told(tmp_path, **files)
    assert sum(line.startswith("error") for line in lines) == 1
    assert findings(lines) == FINDINGS
    assert len(lines) == len(FINDINGS) + 1


def test_what_is_refused_is_not_said_to_be_missing(tmp_path: Path) -> None:
    canary = LOOSE.split("---")[2].replace("gone", "web")
    split = LOOSE.split("---")[0].replace("web-v2", "web")
    lines = told(
        tmp_path,
        a=DEPLOYMENT.replace("spec:\n", "spec:\n  replica: 2\n", 1),
        b=SERVICE.replace("port: 80", "port: http"),
        c=canary,
        d=split,
    )
    assert [line.split(": ")[0] for line in lines] == ["error spec.replica", "error spec.ports[0].port"]


MISSPELT = [
    ("kind: Deployment", "kind: Deploymnet", "warning kind"),
    ("apiVersion: apps/v1", "apiVersion: extensions/v1beta1", "warning kind"),
    ("apiVersion: apps/v1", "apiVersion: apps/v1beta2", "error apiVersion"),
    ("labels: {app: web}", "label: {app: web}", "error spec.template.metadata.label"),
    ("metadata: {name: web}", "metadata: {nam: web}", "error metadata.name"),
    ("metadata: {name: web}", "metadata: {name: web", "error "),
]


@pytest.mark.parametrize(("before", "after", "told_first"), MISSPELT)
def test_a_service_is_not_told_that_its_pods_are_missing_where_their_deployment_is_misspelt(
    tmp_path: Path, before: str, after: str, told_first: str
) -> None:
    canary = LOOSE.split("---")[2].replace("gone", "web")
    lines = told(tmp_path, a=DEPLOYMENT.replace(before, after), b=SERVICE, c="" if "nam: " in after else canary)
    assert lines[0].startswith(told_first)
    assert [line for line in lines if not line.startswith(told_first) and "label" not in line] == []


def test_of_a_refused_deployment_its_labels_count(tmp_path: Path) -> None:
    refused = DEPLOYMENT.replace("spec:\n", "spec:\n  replica: 2\n", 1)
    lines = told(tmp_path, a=refused, b=SERVICE, c=SERVICE.replace("name: web", "name: wob").replace("app: web", "app: wob"))
    assert lines == [
        "error spec.replica: unknown field of spec",
        "warning spec.selector: selects no pod of any Deployment",
    ]


def test_of_a_file_that_cannot_be_read_to_its_end_what_comes_before_counts(tmp_path: Path) -> None:
    text = "---".join([DEPLOYMENT, SERVICE]) + "---\nkind: [\n"
    (line,) = told(tmp_path, a=text)
    assert "not valid YAML" in line
    lines = told(tmp_path, a=text, b=SERVICE.replace("web", "wob"))
    assert [one for one in lines if "selects no pod" in one] == ["warning spec.selector: selects no pod of any Deployment"]

"""`meshproxy lint`, as a process: what it prints and how it exits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

GOOD = """
apiVersion: v1
kind: ConfigMap
metadata: {name: a}
data: {x: "1"}
"""


def lint(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = "from meshproxy.cli import main; main(prog_name='meshproxy')"
    return subprocess.run(
        [sys.executable, "-c", program, "lint", *map(str, arguments)], capture_output=True, text=True, timeout=60
    )


def test_a_clean_directory_exits_0(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD)
    result = lint(tmp_path)
    assert result.returncode == 0
    assert result.stdout == "1 file, 1 document: 0 errors, 0 warnings\n"


def test_warnings_are_shown_and_exit_0(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: a}\n")
    result = lint(tmp_path)
    assert result.returncode == 0
    assert f"{tmp_path}/a.yaml:2: warning: kind: ignored:" in result.stdout


def test_every_mistake_of_every_file_is_shown_and_exits_1(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD.replace('"1"', "1").replace("name: a", "name: z"))
    (tmp_path / "b.yaml").write_text(GOOD)
    (tmp_path / "c.yaml").write_text(GOOD)
    (tmp_path / "d.yaml").write_text("kind: [")
    result = lint(tmp_path)
    assert result.returncode == 1
    lines = result.stdout.splitlines()
    assert lines[0] == f"{tmp_path}/a.yaml:5: error: data.x: found the number 1, expected a string (put it in quotes)"
    assert "is also in" in lines[1]
    assert "is also in" in lines[2]
    assert "not valid YAML" in lines[3]
    assert lines[4] == "4 files, 3 documents: 4 errors, 0 warnings"
    assert result.stderr == ""


def test_what_only_shows_between_files_has_the_line_of_the_field(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "apiVersion: split.smi-spec.io/v1alpha2\nkind: TrafficSplit\nmetadata: {name: s}\nspec:\n  service: web\n"
        "  backends:\n  - service: web\n    weight: 0\n"
    )
    (tmp_path / "b.yaml").write_text("apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  clusterIP: None\n")
    result = lint(tmp_path)
    assert f"{tmp_path}/a.yaml:6: warning: spec.backends: all weights are 0" in result.stdout


def test_json_is_for_programs(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD.replace('"1"', "1"))
    result = lint(tmp_path, "-o", "json")
    assert result.returncode == 1
    (found,) = json.loads(result.stdout)
    assert (found["severity"], found["line"], found["field"], found["object"]) == ("error", 5, "data.x", "ConfigMap default/a")


def test_one_file_may_be_named_instead_of_a_directory(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD)
    (tmp_path / "b.yaml").write_text("{")
    assert lint(tmp_path / "a.yaml").returncode == 0


def test_wrong_usage_exits_2(tmp_path: Path) -> None:
    assert lint(tmp_path / "nowhere").returncode == 2
    assert lint(tmp_path, "-o", "xml").returncode == 2
    empty = lint(tmp_path)
    assert empty.returncode == 2
    assert "no manifests" in empty.stderr


def test_a_mistake_in_a_deployment_is_told_once_and_not_again_by_its_service(tmp_path: Path) -> None:
    deployment = (
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  replica: 2\n"
        "  selector: {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web}}\n"
        "    spec: {containers: [{name: a, command: [a]}]}\n"
    )
    service = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {app: web}, ports: [{port: 80}]}\n"
    (tmp_path / "a.yaml").write_text(f"{deployment}---\n{service}")
    result = lint(tmp_path)
    assert result.returncode == 1
    line, _ = result.stdout.splitlines()
    assert "replica: unknown field" in line


def test_strict_lets_warnings_fail(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("apiVersion: apps/v1\nkind: Deploymnet\nmetadata: {name: a}\n")
    assert lint(tmp_path).returncode == 0
    result = lint("--strict", tmp_path)
    assert result.returncode == 1
    assert "did you mean Deployment" in result.stdout
    assert result.stdout.splitlines()[-1] == "1 file, 1 document: 0 errors, 1 warning (--strict: they fail)"


GROUP = """
apiVersion: specs.smi-spec.io/v1alpha4
kind: HTTPRouteGroup
metadata: {name: g%s}
spec:
  matches:
  - {name: open, pathRegex: /admin}
  - {name: exact, pathRegex: /admin$}
  - {name: below, pathRegex: '/admin/.*'}
  - {name: some, pathRegex: '/v[0-9]'}
"""


def test_a_path_that_fits_more_than_it_shows_is_an_info_and_never_fails(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GROUP % "")
    result = lint("--strict", tmp_path)
    assert result.returncode == 0
    first, second, summary = result.stdout.splitlines()
    assert first.startswith(f"{tmp_path}/a.yaml:7: info: spec.matches[0].pathRegex: ")
    assert "also /adminx" in first
    assert "meshproxy.dev/path-match: full" in first
    assert "a.yaml:10: info: spec.matches[3].pathRegex: " in second
    assert summary == "1 file, 1 document: 0 errors, 0 warnings"


def test_a_group_whose_paths_are_whole_has_no_such_info(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GROUP % ", annotations: {meshproxy.dev/path-match: full}")
    assert lint(tmp_path).stdout == "1 file, 1 document: 0 errors, 0 warnings\n"

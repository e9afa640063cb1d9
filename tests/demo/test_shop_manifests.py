"""The shop's manifests are ones that kubectl would take."""

from __future__ import annotations

from importlib.resources import as_file, files

import kubernetes_validate
import pytest
import yaml

from control.store.files import FileStore

MANIFESTS = files("examples.shop") / "manifests"
CUSTOM = {"Canary"}  # not in Kubernetes' own schemas


def documents():
    for file in sorted(MANIFESTS.iterdir(), key=lambda entry: entry.name):
        for document in yaml.safe_load_all(file.read_text()):
            yield pytest.param(document, id=f"{document['kind']}-{document['metadata']['name']}")


@pytest.mark.parametrize("document", [p for p in documents() if p.values[0]["kind"] not in CUSTOM])
@pytest.mark.parametrize("version", ["1.28", "1.34"])
def test_the_kubernetes_schemas_accept_each_manifest(document, version):
    kubernetes_validate.validate(document, version, strict=True)


def test_the_canary_has_what_the_flagger_schema_demands():
    (canary,) = [p.values[0] for p in documents() if p.values[0]["kind"] == "Canary"]
    analysis = canary["spec"]["analysis"]
    assert canary["apiVersion"] == "flagger.app/v1beta1"
    assert canary["spec"]["targetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "catalogue"}
    # oneOf: interval + threshold + exactly one of iterations, stepWeight, stepWeights
    assert {"interval", "threshold"} < set(analysis)
    assert sum(way in analysis for way in ("iterations", "stepWeight", "stepWeights")) == 1
    assert analysis["stepWeights"] == sorted(analysis["stepWeights"])
    assert [metric["name"] for metric in analysis["metrics"]] == ["request-success-rate", "request-duration"]


def test_every_deployment_finds_its_own_pods_and_its_account():
    found = [p.values[0] for p in documents()]
    accounts = {o["metadata"]["name"] for o in found if o["kind"] == "ServiceAccount"}
    deployments = [o for o in found if o["kind"] == "Deployment"]
    selectors = [o["spec"]["selector"]["matchLabels"].items() for o in deployments]
    for deployment in deployments:
        template = deployment["spec"]["template"]
        labels = template["metadata"]["labels"].items()
        assert [selector for selector in selectors if selector <= labels] == [
            deployment["spec"]["selector"]["matchLabels"].items()
        ]
        assert template["spec"]["serviceAccountName"] in accounts


def test_our_own_validation_has_nothing_to_say(tmp_path):
    with as_file(MANIFESTS) as directory, FileStore(directory, tmp_path / "state", "control", accepting=True) as store:
        store.refresh()
        assert [str(diagnostic) for diagnostic in store.diagnostics()] == []
        assert len(store.all()) == sum(1 for _ in documents())

"""The scratch copy: what the edits of the demonstration do to the manifests that are shipped."""

from __future__ import annotations

import kubernetes_validate
import pytest
import yaml

from meshproxy.demo.scratch import RELAY_SLICE, V2, V3, V3_HEALTHY, Edit, EditError, Scratch, relay_manifest


@pytest.fixture
def scratch(tmp_path):
    return Scratch.copy(tmp_path / "shop", tmp_path / "ledger")


def catalogue(scratch):
    """Template labels and environment of the catalogue."""
    documents = yaml.safe_load_all((scratch.directory / "catalogue.yaml").read_text())
    (deployment,) = [document for document in documents if document["kind"] == "Deployment"]
    template = deployment["spec"]["template"]
    env = {entry["name"]: entry.get("value") for entry in template["spec"]["containers"][0]["env"]}
    return template["metadata"]["labels"], env


def test_every_app_writes_to_the_ledger_of_the_run(scratch, tmp_path):
    ledgers = []
    for file in scratch.directory.glob("*.yaml"):
        for document in yaml.safe_load_all(file.read_text()):
            if document["kind"] == "Deployment":
                env = document["spec"]["template"]["spec"]["containers"][0]["env"]
                ledgers += [entry["value"] for entry in env if entry["name"] == "LEDGER"]
    assert ledgers == [str(tmp_path / "ledger")] * 4


def test_v2_is_a_new_version_and_nothing_else(scratch):
    diff = scratch.edit("catalogue.yaml", V2)
    labels, env = catalogue(scratch)
    assert (labels["version"], env["VERSION"], env["FAIL_RATE"], env["DELAY_MS"]) == ("v2", "v2", "0", "0")
    assert [line for line in diff if line[0] in "+-"] == [
        "--- a/catalogue.yaml",
        "+++ b/catalogue.yaml",
        "-        version: v1",
        "+        version: v2",
        '-              value: "v1"',
        '+              value: "v2"',
    ]


def test_v3_fails_a_fifth_of_its_requests_and_is_slow(scratch):
    scratch.edit("catalogue.yaml", V2)
    scratch.edit("catalogue.yaml", V3)
    labels, env = catalogue(scratch)
    assert (labels["version"], env["VERSION"], env["FAIL_RATE"], env["DELAY_MS"]) == ("v3", "v3", "0.2", "1500")
    limit = yaml.safe_load_all((scratch.directory / "catalogue.yaml").read_text())
    (canary,) = [document for document in limit if document["kind"] == "Canary"]
    allowed = {metric["name"]: metric["thresholdRange"] for metric in canary["spec"]["analysis"]["metrics"]}
    assert allowed["request-duration"]["max"] < 1500
    assert allowed["request-success-rate"]["min"] > 80


def test_a_healthy_v3_differs_only_in_its_version(scratch):
    scratch.edit("catalogue.yaml", V2)
    scratch.edit("catalogue.yaml", V3_HEALTHY)
    labels, env = catalogue(scratch)
    assert (labels["version"], env["FAIL_RATE"], env["DELAY_MS"]) == ("v3", "0", "0")


def test_an_edit_that_does_not_apply_changes_nothing_and_says_what_it_looked_for(scratch):
    before = (scratch.directory / "catalogue.yaml").read_text()
    with pytest.raises(EditError, match=r"expected to find 'replicas: 99'"):
        scratch.edit("catalogue.yaml", [Edit("version: v1", "version: v2"), Edit("replicas: 99", "replicas: 1")])
    assert (scratch.directory / "catalogue.yaml").read_text() == before
    assert not list(scratch.directory.glob(".*"))


def test_the_relays_slice_is_one_that_kubectl_would_take(scratch):
    scratch.add(RELAY_SLICE, relay_manifest("127.80.0.240", "prices-7d9-x2", 9090))
    document = yaml.safe_load((scratch.directory / RELAY_SLICE).read_text())
    kubernetes_validate.validate(document, "1.34", strict=True)
    assert document["endpoints"][0]["targetRef"]["name"] == "prices-7d9-x2"

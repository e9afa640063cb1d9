"""Each way of breaking the demonstration changes what it says, in manifests that are still valid."""

from __future__ import annotations

import kubernetes_validate
import pytest
import yaml

from meshproxy.demo.breakage import Break
from meshproxy.demo.scratch import V2, Scratch


def templates(scratch):
    """Deployment name -> (annotations of the template, environment); each manifest validated."""
    found = {}
    for file in sorted(scratch.directory.glob("*.yaml")):
        for document in yaml.safe_load_all(file.read_text()):
            if document["kind"] != "Canary":
                kubernetes_validate.validate(document, "1.34", strict=True)
            if document["kind"] == "Deployment":
                template = document["spec"]["template"]
                env = {entry["name"]: entry.get("value") for entry in template["spec"]["containers"][0]["env"]}
                found[document["metadata"]["name"]] = (template["metadata"].get("annotations", {}), env)
    return found


@pytest.fixture
def scratch(tmp_path):
    return Scratch.copy(tmp_path / "shop", tmp_path / "ledger")


def test_without_mtls_prices_has_no_sidecar_and_the_others_take_plaintext(scratch):
    Break.MTLS_OFF.apply(scratch)
    annotations = {name: found for name, (found, _) in templates(scratch).items()}
    assert annotations["prices"] == annotations["prices-slow"] == {"linkerd.io/inject": "disabled"}
    assert annotations["web"] == annotations["catalogue"] == {"meshproxy.dev/default-inbound-policy": "all-unauthenticated"}
    scratch.edit("catalogue.yaml", V2)


def test_with_the_split_ignored_web_asks_the_primary(scratch):
    Break.SPLIT_IGNORED.apply(scratch)
    assert templates(scratch)["web"][1]["CATALOGUE_URL"] == "http://catalogue-primary.shop"


def test_a_healthy_v3_is_the_only_difference_of_its_breakage(scratch):
    before = templates(scratch)
    Break.V3_HEALTHY.apply(scratch)
    assert templates(scratch) == before
    scratch.edit("catalogue.yaml", V2)
    scratch.edit("catalogue.yaml", Break.V3_HEALTHY.v3)
    env = templates(scratch)["catalogue"][1]
    assert (env["VERSION"], env["FAIL_RATE"], env["DELAY_MS"]) == ("v3", "0", "0")


def test_nothing_is_broken_by_default(scratch):
    before = templates(scratch)
    Break("").apply(scratch)
    assert templates(scratch) == before

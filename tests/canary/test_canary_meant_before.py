"""What is declared stops to mean anything in the middle of a release: it goes on as it was declared, and can be ended."""

from __future__ import annotations

import pytest
from canary_cluster import CANARY, deployment
from test_canary_controller import Numbers, step, stepper

from control.canary.declared.commands import ANNOTATION_ABORT, Command
from control.canary.machine.status import Phase

POLICY = {
    "apiVersion": "meshproxy.dev/v1alpha1",
    "kind": "ReleasePolicy",
    "metadata": {"name": "podinfo", "namespace": "test"},
}


async def annotated(cluster, **annotations: str) -> None:
    """By hand, not in a manifest."""
    metadata = {"name": "podinfo", "namespace": "test", "annotations": annotations}
    await cluster.cli.apply({"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": metadata})
    cluster.refresh()


async def gate_mistaken(cluster) -> str:
    await annotated(cluster, **{"meshproxy.dev/confirm": "lunch"})
    return "'lunch' is no gate"


async def policy_unfit(cluster) -> str:
    cluster.write({**POLICY, "spec": {"evidence": {"baseline": True}}})
    cluster.refresh()
    return "spec.evidence.baseline"


@pytest.mark.parametrize("mistaken", [gate_mistaken, policy_unfit])
async def test_a_release_under_way_goes_on_as_it_was_declared_and_can_be_aborted(cluster, mistaken):
    mirrored = {"mirror": True, "iterations": 0, "stepWeight": 10} if mistaken is policy_unfit else {"stepWeight": 10}
    cluster.begin(analysis={"interval": "10s", **mirrored})
    controller = await stepper(cluster, Numbers())
    await step(cluster, controller, 2)
    cluster.write(deployment("v2"))
    await step(cluster, controller, 4)
    assert cluster.status().phase is Phase.PROGRESSING
    before = cluster.status().canary_weight
    expected = await mistaken(cluster)
    await step(cluster, controller, 2)
    assert cluster.status().phase is Phase.PROGRESSING
    assert cluster.status().canary_weight > before
    said = [event["message"] for event in cluster.store.events(CANARY)]
    assert any(expected in text and text.endswith("its release goes on as it was declared before") for text in said)
    order = str(Command(cluster.status().last_applied, cluster.now))
    metadata = {"name": "podinfo", "namespace": "test", "annotations": {ANNOTATION_ABORT: order}}
    if mistaken is gate_mistaken:
        metadata["annotations"]["meshproxy.dev/confirm"] = "lunch"
    await annotated(cluster, **metadata["annotations"])
    await step(cluster, controller, 2)
    assert (cluster.status().phase, cluster.status().canary_weight) == (Phase.FAILED, 0)

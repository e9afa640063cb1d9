"""Every manifest in examples/canary loads without an error, is promoted when all is well, and rolled back when it is not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from control.canary.simulate.given import Given, load
from control.canary.simulate.model import Fault
from control.canary.simulate.timeline import Outcome, Timeline
from control.canary.simulate.world import World
from meshproxy.cli.lint import diagnose

SAMPLES = sorted((Path(__file__).parents[2] / "examples" / "canary").glob("*.yaml"))


def play(path: Path, *faults: Fault) -> Timeline:
    objects = load(path)
    return asyncio.run(World(objects, Given(faults=[("", fault) for fault in faults])).run())


def own_metrics(path: Path) -> list[str]:
    """Those that are not built in: what fails requests does not fail them."""
    objects = load(path)
    named = [metric for obj in objects if obj["kind"] == "Canary" for metric in obj["spec"]["analysis"].get("metrics") or ()]
    named += [
        check
        for obj in objects
        if obj["kind"] == "ReleasePolicy"
        for step in obj["spec"].get("steps") or ()
        for check in step.get("checks") or ()
    ]
    return [metric["name"] for metric in named if metric.get("templateRef") or metric.get("query")]


def test_there_are_samples_of_every_kind():
    text = "".join(path.read_text() for path in SAMPLES)
    for word in (
        "stepWeights",
        "stepWeightPromotion",
        "iterations",
        "match:",
        "mirror: true",
        "sessionAffinity",
        "templateRef",
        "webhooks",
        "AlertProvider",
        "gatewayapi:v1",
        "smi:v1alpha2",
        "linkerd",
        "provider: kubernetes",
        "evidence:",
        "baseline: true",
        "members:",
        "windows:",
    ):
        assert word in text


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_has_no_errors(path: Path):
    found, documents, files = diagnose(path)
    assert [str(diagnostic) for diagnostic in found if diagnostic.severity == "error"] == []
    assert (documents > 0, files) == (True, 1)


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_is_promoted_when_all_is_well(path: Path):
    timeline = play(path)
    assert timeline.outcome is Outcome.PROMOTED, timeline.waits_for


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_is_rolled_back_when_requests_fail(path: Path):
    timeline = play(path, Fault("errors", 0.3))
    assert set(timeline.outcomes.values()) == {Outcome.ROLLED_BACK}, timeline.waits_for
    assert all(entries[-1].weight == 0 for name in timeline.outcomes if (entries := timeline.of(name)))


@pytest.mark.parametrize(
    ("path", "metric"),
    [(path, name) for path in SAMPLES for name in own_metrics(path)],
    ids=lambda value: value.stem if isinstance(value, Path) else value,
)
def test_a_sample_is_rolled_back_by_each_metric_of_its_own(path: Path, metric: str):
    assert play(path, Fault("bad", metric=metric)).outcome is Outcome.ROLLED_BACK

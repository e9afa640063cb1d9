"""ReleasePolicy: what it means, what is refused and in which words, what lint says of it; when its windows are open."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from canary_cluster import Cluster, deployment, service
from canary_plays import canary_object

from control.canary.declared.fields import SpecError
from control.canary.declared.metric import Metric
from control.canary.declared.opening import opens, said
from control.canary.declared.policy import EvidencePolicy, PolicyStep, ReleasePolicy, parse
from control.store.store import Key
from meshproxy.cli.lint import diagnose


def policy_object(name: str = "podinfo", **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "test"}
    return {"apiVersion": "meshproxy.dev/v1alpha1", "kind": "ReleasePolicy", "metadata": metadata, "spec": spec}


def policy(**spec: Any) -> ReleasePolicy:
    parsed = parse(policy_object(**spec))
    assert parsed is not None
    return parsed


def test_every_field_is_read():
    check = {"name": "checkout-errors", "interval": "30s", "query": "vector(0)", "thresholdRange": {"max": 1}}
    found = policy(
        steps=[
            {"weight": 0.5, "duration": "2m", "minRequests": 100, "pause": True, "checks": [check]},
            {"weight": 50},
        ],
        promotionSteps=[{"weight": 60, "duration": "30s", "pause": True, "checks": [check]}, {"weight": 90}],
        warmUp="15s",
        windows=[{"days": ["Mon", "Fri"], "from": "09:00", "to": "17:30", "timeZone": "Europe/Berlin"}],
        evidence={"alpha": 0.05, "failureMargin": 0.5, "slowMargin": 3, "minRequests": 40, "baseline": True},
        onInconclusive="rollback",
        maxWait="2h",
        members=["cart"],
    )
    metric = Metric("checkout-errors", 30.0, None, 1.0, query="vector(0)")
    assert found.steps == (PolicyStep(0.5, 120.0, 100, True, (metric,)), PolicyStep(50.0))
    assert found.promotion_steps == (PolicyStep(60.0, 30.0, 0, True, (metric,)), PolicyStep(90.0))
    assert found.warm_up_s == 15.0
    assert [(sorted(w.days), w.begin, w.end, w.zone.key) for w in found.windows] == [([0, 4], 540, 1050, "Europe/Berlin")]
    assert found.evidence == EvidencePolicy(0.05, 0.005, 0.03, 40, baseline=True)
    assert (found.on_inconclusive, found.max_wait_s, found.members) == ("rollback", 7200.0, ("cart",))


def test_an_empty_evidence_takes_the_defaults():
    found = policy(evidence={})
    assert found.evidence == EvidencePolicy(alpha=0.01, failure_margin=0.01, slow_margin=0.02, min_requests=0, baseline=False)
    assert (found.on_inconclusive, found.max_wait_s) == ("hold", 3600.0)


def test_an_object_that_only_keeps_the_history_is_no_policy():
    assert parse({**policy_object(), "spec": None, "status": {"decisions": []}}) is None


WRONG = [
    ({"steps": [{"weight": 0}]}, "spec.steps[0].weight: found the number 0, expected a number from 0.01 to 100"),
    ({"steps": [{"weight": 0.015}]}, "spec.steps[0].weight: found 0.015, expected a multiple of 0.01 percent"),
    ({"steps": [{"weight": 5}, {"weight": 1}]}, "spec.steps[1].weight: found 1 after 5, expected weights that do not fall"),
    ({"steps": [{}]}, "spec.steps[0].weight: is missing, expected a number from 0.01 to 100"),
    ({"steps": [{"weight": 1, "duration": "soon"}]}, "spec.steps[0].duration: found 'soon', expected a duration"),
    ({"steps": [{"weight": 1, "durations": "1m"}]}, "unknown field of spec.steps[0] (did you mean duration?)"),
    ({"steps": [{"weight": 1, "checks": [{"name": "x", "query": "y"}]}]}, "spec.steps[0].checks[0]: has no threshold"),
    (
        {"promotionSteps": [{"weight": 1, "checks": [{"name": "x", "query": "y"}]}]},
        "promotionSteps[0].checks[0]: has no thresh",
    ),
    (
        {"promotionSteps": [{"weight": 1, "checks": [{"name": "x", "thresholdRange": {"max": 1}}]}]},
        "spec.promotionSteps[0].checks[0]",
    ),
    ({"promotionSteps": [{"weight": 1, "minRequests": 9}]}, "unknown field of spec.promotionSteps[0]"),
    ({"steps": [{"weight": 1}] * 101}, "spec.steps: has 101 items, expected at most 100"),
    ({"windows": [{"from": "9:00"}]}, 'spec.windows[0].from: found "9:00", expected a time from "00:00" to "24:00"'),
    ({"windows": [{"to": "24:30"}]}, 'spec.windows[0].to: found "24:30", expected a time'),
    ({"windows": [{"from": "09:00", "to": "09:00"}]}, "from and to are both 09:00: it would never be open"),
    ({"windows": [{"days": ["Monday"]}]}, 'spec.windows[0].days[0]: found the string "Monday", expected one of Fri, Mon'),
    (
        {"windows": [{"timeZone": "Mars/Olympus"}]},
        'spec.windows[0].timeZone: found "Mars/Olympus", expected the name of a time',
    ),
    ({"members": ["podinfo"]}, "podinfo is the Canary of this policy itself"),
    ({"members": ["cart", "cart"]}, "cart is in the list twice"),
    ({"evidence": {"alpha": 1}}, "spec.evidence.alpha: found the number 1, expected a number above 0 and below 1"),
    ({"onInconclusive": "wait"}, "expected one of approve, hold, rollback"),
    ({"maxWait": "1 hour"}, "spec.maxWait: found '1 hour', expected a duration"),
]


@pytest.mark.parametrize(("spec", "text"), WRONG, ids=[text[:40] for _, text in WRONG])
def test_what_cannot_be_meant_is_refused_with_field_value_and_what_was_expected(spec, text):
    with pytest.raises(SpecError) as error:
        parse(policy_object(**spec))
    assert str(error.value).startswith("ReleasePolicy podinfo: spec.")
    assert text in str(error.value)


async def test_the_store_takes_a_policy_and_refuses_a_wrong_one_by_line(tmp_path: Path):
    cluster = Cluster(tmp_path)
    cluster.write(deployment(), service(), canary_object(), policy_object(steps=[{"weight": 1}]))
    key = Key("meshproxy.dev", "ReleasePolicy", "test", "podinfo")
    found = parse(cluster.store.get(key))
    assert found is not None
    assert found.steps == (PolicyStep(1.0),)
    cluster.write(policy_object(steps=[{"weight": 200}]))
    assert parse(cluster.store.get(key)) == found, "the last good one stays in force"
    cluster.store.close()


def test_lint_says_what_is_wrong_with_a_policy_and_what_it_names(tmp_path: Path):
    documents = [
        deployment(),
        service(),
        canary_object(),
        policy_object(steps=[{"weight": 5}], members=["cart"], maxWait="1h"),
        policy_object("elsewhere", steps=[{"weight": 5}]),
    ]
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(documents))
    found = {diagnostic.message for diagnostic in diagnose(tmp_path)[0]}
    assert "has no effect without spec.evidence" in found
    assert "Canary cart does not exist: there is nothing to release with podinfo" in found
    assert "there is no Canary elsewhere in namespace test: the policy says nothing about any" in found


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


WEEKDAYS = {"days": ["Mon", "Tue", "Wed", "Thu", "Fri"], "from": "09:00", "to": "17:00", "timeZone": "Europe/Berlin"}
NIGHT = {"days": ["Sat"], "from": "22:00", "to": "04:00"}

MOMENTS = [
    (WEEKDAYS, "2026-01-05T09:00:00+01:00", None),
    (WEEKDAYS, "2026-01-05T16:59:59+01:00", None),
    (WEEKDAYS, "2026-01-05T17:00:00+01:00", "2026-01-06T09:00:00+01:00"),
    (WEEKDAYS, "2026-01-09T18:00:00+01:00", "2026-01-12T09:00:00+01:00"),  # Friday evening -> Monday
    (WEEKDAYS, "2026-03-29T12:00:00+02:00", "2026-03-30T09:00:00+02:00"),  # the night the clock went forward
    (NIGHT, "2026-01-10T23:00:00+00:00", None),
    (NIGHT, "2026-01-11T03:59:00+00:00", None),  # Sunday morning still belongs to Saturday's window
    (NIGHT, "2026-01-11T04:00:00+00:00", "2026-01-17T22:00:00+00:00"),
    ({}, "2026-01-11T04:00:00+00:00", None),  # every day, all day
    ({"days": ["Sun"]}, "2026-01-11T00:00:00+00:00", None),
    ({"days": ["Sun"]}, "2026-01-12T00:00:00+00:00", "2026-01-18T00:00:00+00:00"),
]


@pytest.mark.parametrize(("window", "now", "expected"), MOMENTS, ids=[now for _, now, _ in MOMENTS])
def test_a_window_is_open_or_says_when_it_opens(window, now, expected):
    windows = policy(windows=[window]).windows
    assert opens(windows, at(now)) == (expected and at(expected))


def test_of_several_windows_the_next_to_open_counts():
    windows = policy(windows=[WEEKDAYS, NIGHT]).windows
    opening = opens(windows, at("2026-01-09T18:00:00+01:00"))
    assert opening == at("2026-01-10T22:00:00+00:00")
    assert said(windows, opening) == "Sat 2026-01-10 23:00 CET"
    assert opens((), at("2026-01-09T18:00:00+01:00")) is None

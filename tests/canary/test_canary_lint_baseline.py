"""Lint, and the store, tell where a ReleasePolicy asks of a Canary what that cannot have; the controller refuses just those."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from canary_cluster import deployment, service
from canary_plays import canary_object
from click.testing import CliRunner
from test_canary_policy import policy_object

from control.canary.declared.fields import SpecError
from control.canary.declared.spec import parse
from control.canary.policies import policy_for
from control.store.files import FileStore
from control.store.store import Diagnostic
from meshproxy.cli import main
from meshproxy.cli.lint import diagnose

BASELINE = {"baseline": True}


def named(name: str, analysis: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    made = canary_object(analysis, **spec)
    made["metadata"] = {"name": name, "namespace": "test"}
    if "targetRef" not in spec:
        made["spec"]["targetRef"]["name"] = name
    return made


def told(path: Path, *objects: dict[str, Any], of: str = "spec.evidence.baseline") -> list[Diagnostic]:
    for obj in objects:
        obj["metadata"].pop("uid", None)  # nobody writes one
    (path / "all.yaml").write_text(yaml.safe_dump_all([deployment(), service(), *objects], sort_keys=False))
    return [one for one in diagnose(path)[0] if one.field == of]


def refused(path: Path, name: str) -> bool:
    """Does the controller refuse the pair?"""
    store = FileStore(path, path / "state", "canary", accepting=True)
    store.refresh()
    try:
        (canary,) = [one for one in store.list("flagger.app", "Canary") if one["metadata"]["name"] == name]
        policy_for(store, parse(canary))
    except SpecError:
        return True
    finally:
        store.close()
    return False


MATCH = [{"headers": {"x": {"exact": "y"}}}]
UNFIT = [
    ({"iterations": 3}, {}, "analysis.iterations gives the canary all or none"),
    ({"match": MATCH}, {}, "analysis.match chooses who gets the canary"),
    ({"mirror": True}, {}, "analysis.mirror gives the canary copies"),
    ({"sessionAffinity": {"cookieName": "c"}}, {}, "analysis.sessionAffinity keeps users with the canary"),
    ({}, {"provider": "kubernetes"}, "provider kubernetes shares no requests out"),
]


@pytest.mark.parametrize(("analysis", "spec", "why"), UNFIT)
def test_a_baseline_for_a_canary_that_cannot_have_one_is_told_with_the_reason(tmp_path, analysis, spec, why):
    (found,) = told(tmp_path, canary_object(analysis, **spec), policy_object(evidence=BASELINE))
    assert found.severity == "error"
    assert found.message.startswith("found true, and Canary podinfo cannot have a baseline, so it is not run: ")
    assert why in found.message
    assert "compared with the primary" in found.hint
    text = (tmp_path / "all.yaml").read_text().splitlines()
    assert "baseline: true" in text[found.line - 1]
    assert refused(tmp_path, "podinfo")


def test_a_daemon_sets_canary_cannot_have_one(tmp_path):
    target = {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "podinfo"}
    (found,) = told(tmp_path, canary_object(targetRef=target), policy_object(evidence=BASELINE))
    assert "a DaemonSet has a pod on every node" in found.message


@pytest.mark.parametrize(
    ("canary", "evidence"),
    [
        (canary_object(), BASELINE),
        (canary_object({"mirror": True}), {"baseline": False}),
        (canary_object({"mirror": True}), {}),
    ],
)
def test_nothing_is_said_where_there_can_be_one_or_none_is_asked_for(tmp_path, canary, evidence):
    assert told(tmp_path, canary, policy_object(evidence=evidence)) == []
    assert not refused(tmp_path, "podinfo")


def test_a_baseline_where_nothing_is_analysed_has_no_effect(tmp_path):
    (found,) = told(tmp_path, canary_object(skipAnalysis=True), policy_object(evidence=BASELINE))
    assert found.severity == "warning"
    assert found.message == "has no effect on Canary podinfo: it says skipAnalysis, so nothing is compared"
    assert not refused(tmp_path, "podinfo")


def test_a_member_without_a_policy_of_its_own_is_told_of_its_groups(tmp_path):
    cart = named("cart", {"sessionAffinity": {"cookieName": "c"}})
    group = policy_object(members=["cart"], evidence=BASELINE)
    (found,) = told(tmp_path, canary_object(), cart, group)
    assert "Canary cart cannot have a baseline" in found.message
    assert refused(tmp_path, "cart")
    assert not refused(tmp_path, "podinfo")
    assert told(tmp_path, canary_object(), cart, group, policy_object("cart", evidence={})) == []
    assert not refused(tmp_path, "cart")


@pytest.mark.parametrize(
    ("analysis", "spec", "field"),
    [
        ({"iterations": 3}, {}, "spec.analysis.iterations"),
        ({}, {"provider": "kubernetes"}, "spec.provider"),
        ({}, {"skipAnalysis": True}, "spec.skipAnalysis"),
    ],
)
def test_a_member_that_goes_by_no_weights_is_told(tmp_path, analysis, spec, field):
    (found,) = told(
        tmp_path,
        canary_object(),
        named("cart", analysis, **spec),
        named("web"),
        policy_object(members=["web", "cart"]),
        of="spec.members[1]",
    )
    assert found.severity == "error"
    assert found.message.startswith(f"Canary cart has {field}, and what is released together goes by weights: it is not run")
    assert [refused(tmp_path, name) for name in ("podinfo", "web", "cart")] == [False, False, True]


def test_the_policys_own_canary_is_told_as_well(tmp_path):
    (found,) = told(
        tmp_path, canary_object({"iterations": 3}), named("cart"), policy_object(members=["cart"]), of="spec.members"
    )
    assert found.message.startswith("Canary podinfo has spec.analysis.iterations")


def test_a_canary_that_is_released_with_two_others_is_told_and_refused(tmp_path):
    groups = [policy_object("podinfo", members=["cart"]), policy_object("web", members=["cart"])]
    (found,) = told(tmp_path, canary_object(), named("cart"), named("web"), *groups, of="spec.members[0]")
    assert (found.severity, found.key.name) == ("error", "web")
    assert found.message == "Canary cart is also released with ReleasePolicy podinfo, so it is not run"
    assert [refused(tmp_path, name) for name in ("podinfo", "web", "cart")] == [False, False, True]


def test_a_canary_that_is_not_run_fails_lint_without_strict(tmp_path):
    told(tmp_path, canary_object({"match": MATCH}), policy_object(evidence=BASELINE))
    result = CliRunner().invoke(main, ["lint", str(tmp_path)])
    assert result.exit_code == 1
    assert "1 error" in result.output.splitlines()[-1]


def test_a_mesh_that_runs_says_so_too_and_not_that_the_manifest_is_refused(tmp_path):
    told(tmp_path, canary_object({"match": MATCH}), policy_object(evidence=BASELINE))
    store = FileStore(tmp_path, tmp_path / "state", "control", accepting=True)
    try:
        store.refresh()
        (found,) = [one for one in store.diagnostics() if one.severity == "error"]
        assert found.field == "spec.evidence.baseline"
        assert [one for one in store.manifest_diagnostics() if one.severity == "error"] == []
    finally:
        store.close()


def compared(path: Path, *objects: dict[str, Any]) -> list[str]:
    return [one.message for one in told(path, *objects, of="spec.analysis.metrics") if one.severity == "info"]


def test_thresholds_that_evidence_takes_the_place_of_are_told_and_are_no_warning(tmp_path):
    (found,) = told(tmp_path, canary_object(), policy_object(evidence={}), of="spec.analysis.metrics")
    assert (found.severity, found.key.kind) == ("info", "Canary")
    assert found.message.startswith("request-success-rate")
    assert "compared with the primary instead (spec.evidence of ReleasePolicy podinfo)" in found.message
    result = CliRunner().invoke(main, ["lint", str(tmp_path)])
    assert "info" in result.output
    assert "0 warnings" in result.output.splitlines()[-1]


def test_thresholds_that_hold_are_not_told_of(tmp_path):
    query = {"name": "lost", "query": "sum(lost)", "thresholdRange": {"max": 1}}
    assert compared(tmp_path, canary_object(), policy_object(warmUp="10s")) == []
    assert compared(tmp_path, canary_object({"metrics": [query]}), policy_object(evidence={})) == []
    blue_green = {"iterations": 3, "stepWeight": None, "maxWeight": None}
    assert compared(tmp_path, canary_object(blue_green), policy_object(evidence={})) == []
    assert len(compared(tmp_path, canary_object({**blue_green, "mirror": True}), policy_object(evidence={}))) == 1

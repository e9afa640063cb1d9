"""Every verb of `meshproxy canary` in every phase does something or says truly why it would not; what `status` says at once."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from canary_cluster import CANARY, PRIMARY, TARGET, condition, deployment
from canary_plays import canary_object
from test_canary_cli import Shell, released
from test_canary_cli import shell as shell  # the fixture
from test_canary_policy import policy_object

from control.canary.declared.spec import DURATION, SUCCESS_RATE
from control.canary.machine.analysis import Measurement
from control.canary.machine.status import Phase, Status

NAMED = ("podinfo", "-n", "test")
VERBS = ("approve", "pause", "resume", "retry", "abort", "promote")

# What each verb answers where it is refused; "" where it is obeyed.  In the order of VERBS.
NONE = "it waits at no gate"
NOT_PAUSED = "canary podinfo is not paused"
NO_RELEASE = "there is no release to "
NOT_FAILED = "there is no failed release to retry"
IN_PHASE: dict[str, tuple[str, ...]] = {
    "Initializing": (NONE, "", NOT_PAUSED, NOT_FAILED, NO_RELEASE + "abort", NO_RELEASE + "promote"),
    "Initialized": (NONE, "", NOT_PAUSED, NOT_FAILED, NO_RELEASE + "abort", NO_RELEASE + "promote"),
    "Waiting": ("", "", NOT_PAUSED, NOT_FAILED, "", ""),
    "Progressing": (NONE, "", NOT_PAUSED, NOT_FAILED, "", ""),
    "WaitingPromotion": ("", "", NOT_PAUSED, NOT_FAILED, "", ""),
    "Promoting": (NONE, "", NOT_PAUSED, NOT_FAILED, "too late to abort", "it is being promoted already"),
    "Finalising": (NONE, "", NOT_PAUSED, NOT_FAILED, "too late to abort", "it is being promoted already"),
    "Succeeded": (NONE, "", NOT_PAUSED, NOT_FAILED, NO_RELEASE + "abort", NO_RELEASE + "promote"),
    "Failed": (NONE, "", NOT_PAUSED, "", NO_RELEASE + "abort", "`retry` releases the same revision once more"),
    "Failed promotion": (NONE, "", NOT_PAUSED, "`promote` tries that again", "its promotion failed", ""),
    "Terminating": (NONE, "it is being deleted", NOT_PAUSED, NOT_FAILED, NO_RELEASE + "abort", NO_RELEASE + "promote"),
}
GATES = {"Waiting": "rollout", "WaitingPromotion": "promotion"}


async def put(shell: Shell, status: Status) -> None:
    await shell.cluster.store.status(CANARY, status.to_object())
    shell.cluster.refresh()


@pytest.mark.parametrize("where", list(IN_PHASE))
async def test_a_verb_that_would_do_nothing_in_a_phase_is_refused_and_says_why(shell, where):
    confirm = {"meshproxy.dev/confirm": GATES[where]} if where in GATES else {}
    await released(shell, annotations=confirm)
    phase = Phase(where.partition(" ")[0])
    weight = 100 if where == "Failed promotion" else 0
    await put(shell, replace(shell.cluster.status(), phase=phase, canary_weight=weight))
    for verb, why_not in zip(VERBS, IN_PHASE[where], strict=True):
        before = shell.cluster.store.get(CANARY)["metadata"].get("annotations")
        said = shell.run(verb, *NAMED, code=1 if why_not else 0).output
        assert why_not in said, verb
        after = shell.cluster.store.get(CANARY)["metadata"].get("annotations")
        assert (before == after) == bool(why_not), verb
        if verb == "pause" and not why_not:
            shell.run("resume", *NAMED)


async def test_no_order_is_given_twice_in_one_run(shell):
    await released(shell)
    shell.run("pause", *NAMED, "--by", "ann", "--reason", "lunch")
    assert "Error: canary podinfo is already paused (by ann: lunch)" in shell.run("pause", *NAMED, "--by", "bob", code=1).output
    assert shell.commands().pause_signature.by == "ann"
    shell.run("resume", *NAMED)
    assert "Error: canary podinfo is not paused (Progressing)" in shell.run("resume", *NAMED, code=1).output
    shell.run("promote", *NAMED, "--by", "ann")
    assert "its promotion is ordered already (by ann)" in shell.run("promote", *NAMED, code=1).output
    shell.run("abort", *NAMED, "--by", "ann", "--reason", "no")
    assert "its abort is ordered already (by ann: no)" in shell.run("abort", *NAMED, code=1).output
    assert "its abort is ordered and not done yet" in shell.run("retry", *NAMED, code=1).output
    await shell.cluster.tick()
    shell.run("retry", *NAMED)
    assert "its retry is ordered already" in shell.run("retry", *NAMED, code=1).output


async def giving_back(shell: Shell, *steps: dict[str, object]) -> None:
    """At the first of these promotion steps, past its time."""
    shell.cluster.write(policy_object(steps=[{"weight": 50}], promotionSteps=list(steps)))
    await released(shell)
    while shell.cluster.weights() != (25, 75):
        await shell.cluster.tick()
    await shell.cluster.tick()


async def test_a_promotion_step_with_a_pause_is_approved_and_paused_and_says_what_it_waits_for(shell):
    await giving_back(shell, {"weight": 75, "pause": True}, {"weight": 90})
    said = shell.run("status", *NAMED, "-o", "wide").output
    assert "Waiting for approval of promotion step 1." in said
    assert "back 1/2 (waits)" in said
    assert shell.run("pause", *NAMED, "--by", "ann", "--reason", "lunch").output == "canary.flagger.app/podinfo paused\n"
    assert "Paused (by ann: lunch)." in shell.run("status", *NAMED).output
    held = "canary.flagger.app/podinfo approved (promotion step 1; paused: its weight stays until it is resumed)\n"
    assert shell.run("approve", *NAMED, "--by", "bob").output == held
    assert "promotion step 1 is approved already (by bob)" in shell.run("approve", *NAMED, code=1).output
    await shell.cluster.tick()
    assert shell.cluster.weights() == (25, 75)
    soon = "from the next look on, within 10s"
    assert shell.run("resume", *NAMED).output == f"canary.flagger.app/podinfo resumed ({soon})\n"
    assert "Approved promotion step 1 (by bob): goes on" in shell.run("status", *NAMED).output
    await shell.cluster.tick()
    assert shell.cluster.weights() == (10, 90)
    history = shell.run("history", *NAMED).output
    assert "is paused at weight 25 (by ann: lunch)" in history
    assert "Promotion step 1 of podinfo.test approved (by bob)" in history


async def test_a_pause_of_a_promotion_that_a_person_ordered_says_that_it_holds_nothing(shell):
    shell.cluster.write(policy_object(steps=[{"weight": 50}], promotionSteps=[{"weight": 75}, {"weight": 90}]))
    await released(shell, ticks=2)
    shell.run("promote", *NAMED)
    while shell.cluster.weights() != (25, 75):
        await shell.cluster.tick()
    assert "its promotion is not held: the next release will wait" in shell.run("pause", *NAMED).output
    await shell.cluster.tick()
    assert shell.cluster.weights() == (10, 90)


async def test_a_second_approval_does_not_take_the_first_ones_reason_away(shell):
    shell.cluster.write(policy_object(steps=[{"weight": 5, "pause": True}, {"weight": 50}]))
    await released(shell, ticks=5)
    said = shell.run("approve", *NAMED, "--by", "ann", "--reason", "fine").output
    assert said == "canary.flagger.app/podinfo approved (step 1)\n"
    assert "step 1 is approved already (by ann: fine)" in shell.run("approve", *NAMED, "--by", "bob", code=1).output
    await shell.cluster.tick()
    assert "Step 1 of podinfo.test approved (by ann: fine)" in shell.run("history", *NAMED).output


async def test_an_approval_of_what_is_paused_says_that_the_weight_stays(shell):
    await released(shell, annotations={"meshproxy.dev/confirm": "rollout"})
    shell.run("pause", *NAMED, "--by", "ann")
    assert message(shell) == "Waiting for approval of rollout. Paused (by ann)."
    said = shell.run("approve", *NAMED).output
    assert said == "canary.flagger.app/podinfo approved (rollout; paused: its weight stays until it is resumed)\n"
    for _ in range(4):
        await shell.cluster.tick()
    assert (shell.cluster.status().phase, shell.cluster.status().canary_weight) == (Phase.PROGRESSING, 0)


async def test_a_retry_within_the_second_of_the_abort_is_not_aborted_by_it(shell):
    await released(shell)
    shell.cluster.now = int(time.time()) + 0.0
    shell.run("abort", *NAMED)
    await shell.cluster.tick()
    assert shell.cluster.status().phase is Phase.FAILED
    shell.cluster.now = shell.cluster.status().transitioned
    shell.run("retry", *NAMED)
    assert shell.commands().abort is None
    shell.cluster.now = shell.cluster.status().transitioned
    for _ in range(4):
        await shell.cluster.tick()
    assert shell.cluster.status().phase is Phase.PROGRESSING


@pytest.mark.parametrize("verb", ["abort", "promote"])
async def test_an_order_for_a_target_that_has_just_changed_is_refused(shell, verb):
    await released(shell)
    shell.cluster.write(deployment("v3"))
    assert "its target has just changed" in shell.run(verb, *NAMED, code=1).output
    await shell.cluster.tick()
    shell.run(verb, *NAMED)
    await shell.cluster.tick()
    assert shell.cluster.status().phase is not Phase.PROGRESSING


async def suspended(shell: Shell) -> None:
    """In the middle of a release."""
    await released(shell, suspend=False)
    canary = shell.cluster.store.get(CANARY)
    metadata = {"name": "podinfo", "namespace": "test"}
    spec = {**canary["spec"], "suspend": True}
    shell.cluster.write({**{k: canary[k] for k in ("apiVersion", "kind")}, "metadata": metadata, "spec": spec})


async def test_a_suspended_canary_takes_no_order_but_abort_and_stays_suspended(shell):
    await suspended(shell)
    assert "suspended (spec.suspend): no order is obeyed but `abort`" in shell.run("promote", *NAMED, code=1).output
    said = shell.run("status", "-n", "test").output
    assert "Progressing (suspended)" in said
    assert "Suspended (spec.suspend): nothing is decided about it. New revision detected" in said
    order = shell.run("abort", *NAMED, "--by", "ann", "--reason", "it burns").output
    assert order == "canary.flagger.app/podinfo aborting (it stays suspended)\n"
    assert "nothing is decided about it. Aborting (by ann: it burns)." in shell.run("status", "-n", "test").output
    await shell.cluster.tick()
    assert (shell.cluster.status().phase, shell.cluster.weights(), shell.cluster.replicas(TARGET)) == (
        Phase.FAILED,
        (0, 100),
        0,
    )
    assert "Failed (suspended)" in shell.run("status", "-n", "test").output
    assert "aborted by hand (by ann: it burns)" in shell.run("history", *NAMED).output
    assert "no order is obeyed but `abort`" in shell.run("retry", *NAMED, code=1).output


@pytest.mark.parametrize("member_suspended", [True, False])
async def test_a_suspended_member_of_a_release_is_aborted_with_the_one_that_is(shell, member_suspended):
    """One that is not suspended hears of it by itself."""
    other = canary_object(suspend=member_suspended)
    other["metadata"]["name"] = other["spec"]["targetRef"]["name"] = "cart"
    shell.cluster.write(other, policy_object(steps=[{"weight": 10}, {"weight": 20}], members=["cart"]))
    await released(shell)
    cart = replace(CANARY, name="cart")
    await shell.cluster.store.status(cart, {**shell.cluster.status().to_object(), "lastAppliedSpec": "v7"})
    shell.cluster.refresh()
    said = shell.run("abort", *NAMED).output.splitlines()
    assert said == ["canary.flagger.app/podinfo aborting"] + (
        ["canary.flagger.app/cart aborting (it stays suspended)"] if member_suspended else []
    )
    orders = shell.cluster.store.get(cart)["metadata"].get("annotations") or {}
    assert [order.split()[0] for order in orders.values()] == (["v7"] if member_suspended else [])


async def test_a_suspended_release_whose_target_was_edited_since_can_be_aborted(shell):
    await suspended(shell)
    shell.cluster.write(deployment("v3"))
    shell.run("abort", *NAMED)
    await shell.cluster.tick()
    assert (shell.cluster.status().phase, shell.cluster.weights()) == (Phase.FAILED, (0, 100))


async def test_what_is_not_run_while_it_waits_cannot_be_aborted_and_says_why(shell):
    await released(shell, annotations={"meshproxy.dev/confirm": "rollout"})
    assert shell.cluster.status().phase is Phase.WAITING
    metadata = {"name": "podinfo", "namespace": "test", "annotations": {"meshproxy.dev/confirm": "lunch"}}
    await shell.cluster.cli.apply({"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": metadata})
    assert "'lunch' is no gate" in shell.run("abort", *NAMED, code=1).output


async def test_approve_where_nothing_waits_for_a_person_says_what_is_waited_for(shell):
    shell.cluster.write(policy_object(windows=[{"from": "03:00", "to": "03:00"}], steps=[{"weight": 5}]))
    await released(shell)
    now = shell.cluster.status()
    await put(shell, now.says("Waiting for its window, which opens Mon 03:00 UTC.", shell.cluster.now))
    said = shell.run("approve", *NAMED, code=1).output
    assert "it waits at no gate that a person opens. Waiting for its window, which opens Mon 03:00 UTC." in said
    shell.run("pause", *NAMED)
    assert "it is paused, and `resume` lets it go on" in shell.run("approve", *NAMED, code=1).output


# ---------------------------------------------------------------- what status says at once


def message(shell: Shell) -> str:
    table = shell.run("status", "-n", "test").output.splitlines()
    return table[1][table[0].index("MESSAGE") :]


async def test_status_says_what_a_verb_did_before_the_next_look(shell):
    await released(shell)
    shell.run("pause", *NAMED, "--by", "ann", "--reason", "lunch")
    assert message(shell) == "Paused (by ann: lunch)."
    await shell.cluster.tick()
    assert message(shell) == "Paused (by ann: lunch)."
    said = shell.run("resume", *NAMED, "--by", "bob").output
    assert said == "canary.flagger.app/podinfo resumed (from the next look on, within 10s)\n"
    assert message(shell) == "Resumed (by bob), from the next look on, within 10s."
    await shell.cluster.tick()
    assert message(shell) == "New revision detected, progressing canary analysis."
    shell.run("abort", *NAMED, "--by", "ann", "--reason", "enough")
    assert message(shell) == "Aborting (by ann: enough)."
    await shell.cluster.tick()
    assert message(shell) == "Canary analysis failed, Deployment scaled to zero: aborted by hand (by ann: enough)"
    shell.run("retry", *NAMED, "--by", "bob")
    assert message(shell) == "Releasing once more (by bob)."


async def test_status_says_that_a_gate_is_approved_before_the_next_look(shell):
    await released(shell, ticks=4, annotations={"meshproxy.dev/confirm": "traffic-increase"})
    assert message(shell) == "Waiting for approval of traffic-increase at weight 0."
    shell.run("approve", *NAMED, "--by", "ann")
    said = "Approved traffic-increase at weight 0 (by ann): goes on from the next look on, within 10s, if its checks pass."
    assert message(shell) == said
    shell.run("pause", *NAMED, "--by", "ann")
    assert message(shell) == "Paused (by ann)."
    shell.run("resume", *NAMED)
    await shell.cluster.tick()
    assert message(shell) == "New revision detected, progressing canary analysis."
    assert shell.cluster.status().canary_weight == 10
    shell.run("promote", *NAMED, "--by", "ann")
    assert message(shell) == "Promoting, as ordered (by ann)."


async def test_status_says_that_the_next_release_will_wait_and_what_a_release_failed_of(shell):
    await released(shell)
    shell.cluster.measurements = {SUCCESS_RATE: Measurement(75.0, 40), DURATION: Measurement(1.0, 40)}
    while shell.cluster.status().phase is not Phase.FAILED:
        await shell.cluster.tick()
    failed = "Canary analysis failed, Deployment scaled to zero: failed checks threshold reached 2, success rate 75.00% < 99%"
    assert message(shell) == failed
    shell.run("pause", *NAMED, "--by", "ann")
    assert message(shell) == f"{failed} The next release will wait: paused (by ann)."


# ---------------------------------------------------------------- one approval, two gates


async def test_status_says_once_what_a_promotion_failed_of(shell):
    await released(shell)
    while shell.cluster.status().phase is not Phase.PROMOTING:
        await shell.cluster.tick()
    late = condition("Progressing", "False", "ProgressDeadlineExceeded", shell.cluster.now)
    primary = shell.cluster.store.get(PRIMARY)
    assert primary is not None
    said = {"observedGeneration": primary["metadata"]["generation"], "updatedReplicas": 0, "conditions": [late]}
    await shell.cluster.runtime.status(PRIMARY, said)
    shell.cluster.refresh()
    await shell.cluster.tick()
    assert shell.cluster.status().phase is Phase.FAILED
    why = 'deployment "podinfo-primary" exceeded its progress deadline'
    assert message(shell) == f"Promotion failed, primary not ready; all traffic is on the canary: {why}"


async def test_status_says_once_which_check_of_the_new_primary_its_promotion_failed_of(shell):
    check = {"name": "request-success-rate", "interval": "1m", "thresholdRange": {"min": 99}}
    await giving_back(shell, {"weight": 75, "duration": "60s", "checks": [check]})
    shell.cluster.measurements = {SUCCESS_RATE: Measurement(75.0, 40), DURATION: Measurement(1.0, 40)}
    for _ in range(5):
        await shell.cluster.tick()
    assert shell.cluster.status().phase is Phase.FAILED
    told = "Promotion failed, the new primary fails its checks; all traffic is on the canary"
    assert message(shell) == f"{told}: success rate 75.00% < 99%"


async def test_a_step_with_a_pause_and_gates_besides_goes_on_by_an_approval_each(shell):
    shell.cluster.write(policy_object(steps=[{"weight": 5, "pause": True}, {"weight": 50, "pause": True}]))
    await released(shell, annotations={"meshproxy.dev/confirm": "traffic-increase,promotion"})
    said = []
    for _ in range(20):
        if shell.cluster.status().phase is Phase.SUCCEEDED:
            break
        if message(shell).startswith("Waiting for approval"):
            said.append(shell.run("approve", *NAMED).output.split("approved ")[1].strip())
        await shell.cluster.tick()
    assert shell.cluster.store.get(TARGET) is not None
    assert said == ["(traffic-increase at weight 0)", "(step 1)", "(traffic-increase at weight 5)", "(step 2)", "(promotion)"]
    assert shell.cluster.status().phase is Phase.SUCCEEDED


async def test_a_gate_of_traffic_cannot_be_opened_where_the_traffic_does_not_grow_any_more(shell):
    await released(shell, annotations={"meshproxy.dev/confirm": "traffic-increase"})
    await put(shell, replace(shell.cluster.status(), canary_weight=50))
    assert "it waits at no gate" in shell.run("approve", *NAMED, code=1).output

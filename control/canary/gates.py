"""At which gate does a release wait that a person opens (`meshproxy canary approve`)?

Waiting            rollout                  the annotation meshproxy.dev/confirm on the Canary names the first three
Progressing        traffic-increase/<weight>
WaitingPromotion   promotion
Progressing        step/<number>            a step of its ReleasePolicy with `pause: true`
Progressing        evidence/<weight>        the policy says `onInconclusive: approve`, and maxWait is over

An approval names the gate, so that it opens one and only once.  Gates that are webhooks are opened where the webhook is.
"""

from __future__ import annotations

from control.canary.policy import ReleasePolicy
from control.canary.progress import State, progress
from control.canary.spec import CanarySpec
from control.canary.status import PROMOTED, Phase, Status
from control.canary.steps import gate

WAITS_FOR_EVIDENCE = "Waiting for approval: the evidence is inconclusive."


def evidence_gate(status: Status) -> str:
    """By which a person lets a release go on from this weight though the numbers do not suffice."""
    return f"evidence/{status.canary_weight:g}"


def gate_it_waits_at(spec: CanarySpec, status: Status, policy: ReleasePolicy | None = None) -> str:
    """Its name, "" if it waits at none."""
    named = {Phase.WAITING: "rollout", Phase.WAITING_PROMOTION: "promotion"}.get(status.phase, "")
    if named:
        return named if named in spec.gates else ""
    if status.phase is not Phase.PROGRESSING:
        return ""
    said = status.condition(PROMOTED)
    if said is not None and said.message == WAITS_FOR_EVIDENCE:
        return evidence_gate(status)
    at = progress(status)
    waiting = at is not None and at.step > 0 and at.state is State.WAITING
    if at is not None and waiting and policy is not None and policy.steps and policy.step(at.step - 1).pause:
        return gate(at.step)
    return f"traffic-increase/{status.canary_weight:g}" if "traffic-increase" in spec.gates else ""

"""At which gate does a release wait that a person opens (`meshproxy canary approve`)?

Waiting            rollout                  the annotation meshproxy.dev/confirm on the Canary names the first three
Progressing        traffic-increase/<weight>
WaitingPromotion   promotion
Progressing        step/<number>            a step of its ReleasePolicy with `pause: true`
Progressing        evidence/<weight>        the policy says `onInconclusive: approve`, and maxWait is over
Promoting          promotion-step/<number>  a promotion step with `pause: true`

An approval names the gate, so that it opens one and only once.  There is room for one: of a step with a pause that waits at
another gate as well, the second approval stands for the first too (stepping.py).  Gates that are webhooks are opened where the
webhook is; the status says which one it is that a release waits for (`waits_for`, `hooks_it_waits_for`).
"""

from __future__ import annotations

from control.canary.declared.hooks import CONFIRM_PROMOTION, CONFIRM_ROLLOUT, CONFIRM_TRAFFIC_INCREASE, Webhook
from control.canary.declared.policy import ReleasePolicy
from control.canary.declared.spec import CanarySpec
from control.canary.machine.progress import State, progress
from control.canary.machine.status import PROMOTED, Phase, Status
from control.canary.machine.steps import ahead, gate, promotion_gate
from control.canary.machine.strategy import Strategy, routing, strategy

TRAFFIC_INCREASE = "traffic-increase"
WAITS_FOR_EVIDENCE = "Waiting for approval: the evidence is inconclusive."


_HOOKS = {
    Phase.WAITING: CONFIRM_ROLLOUT,
    Phase.PROGRESSING: CONFIRM_TRAFFIC_INCREASE,
    Phase.WAITING_PROMOTION: CONFIRM_PROMOTION,
}


def waits_for(gate: str, weight: float | None = None) -> str:
    """How the status says that a gate, an annotation's or a webhook's, is closed."""
    return f"Waiting for approval of {gate}" + (f" at weight {weight:g}." if weight is not None else ".")


def hooks_it_waits_for(spec: CanarySpec, status: Status) -> tuple[Webhook, ...]:
    """The webhook that said no, by what the status says; more than one where they have one name."""
    said = status.condition(PROMOTED)
    texts = (said.message, said.message.rpartition(" at weight ")[0] + ".") if said is not None else ()
    return tuple(hook for hook in spec.webhooks if hook.type == _HOOKS.get(status.phase) and waits_for(hook.name) in texts)


def evidence_gate(status: Status) -> str:
    """By which a person lets a release go on from this weight though the numbers do not suffice."""
    return f"evidence/{status.canary_weight:g}"


def increase_gate(status: Status) -> str:
    """By which a person lets the weight grow from this one."""
    return f"{TRAFFIC_INCREASE}/{status.canary_weight:g}"


def gate_it_waits_at(spec: CanarySpec, status: Status, policy: ReleasePolicy | None = None) -> str:
    """Its name, "" if it waits at none."""
    named = {Phase.WAITING: "rollout", Phase.WAITING_PROMOTION: "promotion"}.get(status.phase, "")
    if named:
        return named if named in spec.gates else ""
    if status.phase is Phase.PROMOTING:
        back = progress(status)
        return promotion_gate(back.step) if back is not None and back.promoting and back.state is State.WAITING else ""
    if status.phase is not Phase.PROGRESSING:
        return ""
    said = status.condition(PROMOTED)
    if said is not None and said.message == WAITS_FOR_EVIDENCE:
        return evidence_gate(status)
    if said is not None and said.message == waits_for(TRAFFIC_INCREASE, status.canary_weight):
        return increase_gate(status)
    at = progress(status)
    step = policy.step(at.step - 1) if policy is not None and policy.steps and at is not None and at.step > 0 else None
    if at is not None and step is not None and step.pause:
        return gate(at.step) if at.state is State.WAITING else ""
    return increase_gate(status) if TRAFFIC_INCREASE in spec.gates and _grows(spec, status, policy) else ""


def _grows(spec: CanarySpec, status: Status, policy: ReleasePolicy | None) -> bool:
    """Is what comes after this weight another weight?  For all else there is no such gate."""
    if strategy(spec) is not Strategy.CANARY or routing(spec, status).mirrored:
        return False
    if policy is not None and policy.steps:
        at = progress(status)
        return ahead(policy.steps, at.step if at is not None else 0, status.canary_weight) < len(policy.steps)
    return status.canary_weight < spec.top_weight

"""A release judged by evidence: what the machine does with a comparison of canary and primary.

    at every look     harm                         -> roll back at once; while promoting: all requests stay on the canary
    at a tick         source lost, few requests    -> hold (nothing is counted as failed)
    at the promotion  not all within the margin    -> hold, and say how many more requests it takes
    either            for max_wait_s               -> onInconclusive: hold | rollback | approve

The built-in metrics of the Canary are not held against their thresholds then: the same numbers are judged, against the primary
instead.  Its other metrics are, as ever, and so is all that a step of the policy asks for (`checks`).
"""

from __future__ import annotations

from typing import NoReturn

from control.canary.declared.alerts import ERROR, WARN
from control.canary.evidence.judge import Assessment, Finding, Verdict
from control.canary.evidence.standing import Compared
from control.canary.machine import failure, promotion
from control.canary.machine.analysis import Check, Outcome
from control.canary.machine.draft import Draft, Stop
from control.canary.machine.gates import WAITS_FOR_EVIDENCE, evidence_gate
from control.canary.machine.status import ANALYSED, PROMOTED, Phase, Status

_WAITS = "Waiting for evidence: "  # how the message of a release that holds begins


def pull(draft: Draft) -> None:
    """Evidence of harm ends the release in whichever tick it is there."""
    compared, phase = draft.facts.compared, draft.status.phase
    if compared is None or not compared.harmful or draft.revision != draft.status.last_applied:
        return
    if phase in ANALYSED and promotion.copied(draft):
        return  # the primary is the same revision already, if the status does not say so yet
    draft.checks = checks(compared.verdict)
    text = f"evidence of harm: {compared.verdict.text}"
    if phase in ANALYSED:
        failure.roll_back(draft, f"Rolling back {draft.spec.full_name} {text}", ERROR, f"Rolling back, {text}")
    if phase is Phase.PROMOTING:
        failure.failed_promotion(draft, compared.verdict.text, "the new primary is worse than the canary")


def go_on(draft: Draft) -> None:
    """Ends the tick unless there is enough to look at for the next step."""
    compared = draft.facts.compared
    if compared is None:
        return
    draft.checks = (*draft.checks, *checks(compared.verdict))
    if not draft.approved(evidence_gate(draft.status)):
        if compared.lost_since is not None:
            _hold(draft, compared, compared.lost_since, "the source of evidence does not answer")
        if compared.requests < compared.min_requests:
            why = f"more requests at weight {draft.status.canary_weight:g} needed"
            so_far = f"the canary has {compared.requests} of {compared.min_requests}"
            _hold(draft, compared, draft.status.transitioned, why, so_far)
    if _waits(draft.status):
        draft.status = draft.status.says("", draft.now)


def suffice(draft: Draft) -> None:
    """Ends the tick unless the canary is certainly within every margin."""
    compared = draft.facts.compared
    if compared is None or compared.verdict.finding is Finding.SAFE:
        return
    if draft.approved(evidence_gate(draft.status)):
        said, command = draft.status.condition(PROMOTED), draft.facts.commands.approve
        if said is not None and said.message == WAITS_FOR_EVIDENCE and command is not None:
            draft.status = draft.status.says("", draft.now)
            name, weight = draft.spec.full_name, draft.status.canary_weight
            draft.record(f"Evidence of {name} at weight {weight:g} approved as it is{command.signature.suffix}")
        return
    why = f"not certain yet at weight {draft.status.canary_weight:g} that it is within its margins"
    _hold(draft, compared, draft.status.transitioned, why, compared.verdict.text)


def _hold(draft: Draft, compared: Compared, since: float, why: str, numbers: str = "") -> NoReturn:
    """`why` does not change while it waits; `numbers` may, look after look."""
    name, waited = draft.spec.full_name, draft.now - since
    detail = f"{why} ({numbers})" if numbers else why
    if waited >= compared.max_wait_s and compared.on_inconclusive == "rollback":
        text = f"inconclusive after {waited:.0f} s: {detail}"
        failure.roll_back(draft, f"Rolling back {name} {text}", ERROR, f"Rolling back, {text}")
    if waited >= compared.max_wait_s and compared.on_inconclusive == "approve":
        before = draft.status
        draft.status = before.says(WAITS_FOR_EVIDENCE, draft.now)
        text, news = f"Halt {name} advancement waiting for approval {evidence_gate(draft.status)}", draft.status != before
        if news:
            draft.alert(WARN, f"Canary evidence is inconclusive, waiting for approval: {detail}")
    else:
        news = not _waits(draft.before, why)
        draft.status = draft.status.says(f"{_WAITS}{detail}.", draft.now)
        text = f"Halt {name} advancement: {why}"
    # One Event, and one entry of the history that has the numbers of the last time: they change at each look, and would
    # crowd out all else that was told.
    draft.record(text, warning=True, told=news)
    raise Stop


def _waits(status: Status, why: str = "") -> bool:
    """Does it say that it waits for evidence, and for this?"""
    said = status.condition(PROMOTED)
    return said is not None and said.message.startswith(f"{_WAITS}{why}")


def checks(verdict: Verdict) -> tuple[Check, ...]:
    """As the history keeps numbers: percent of the canary's requests, at most the primary's and the margin."""
    return tuple(_check(one) for one in verdict.assessments)


def _check(one: Assessment) -> Check:
    counts = one.counts
    outcome = {Finding.HARM: Outcome.FAILED, Finding.SAFE: Outcome.PASSED, Finding.OPEN: Outcome.WARMING}[one.finding]
    value = 100.0 * counts.canary_failed / counts.canary if counts.canary else None
    most = 100.0 * (counts.primary_failed / counts.primary + one.margin) if counts.primary else None
    return Check(one.metric, outcome, value, counts.canary, None, most, one.text)

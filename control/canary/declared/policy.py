"""What a ReleasePolicy asks for, typed, with its defaults: beyond what a Canary can say.

    ReleasePolicy object --parse--> ReleasePolicy      None if it only keeps the history (no spec)

steps            weights of the canary, instead of stepWeight, stepWeights and maxWeight
promotion_steps  weights of the primary while it takes the traffic back, instead of stepWeightPromotion
windows          outside of them a release holds: no weight grows, nothing is promoted; what is bad is still rolled back
evidence         judged by comparison with the primary (evidence/), not only by thresholds
members          other Canaries of the namespace, released with this one or not at all
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from control.canary.declared.fields import SpecError
from control.canary.declared.metric import Metric, parse_metrics
from control.canary.declared.opening import Window
from control.canary.declared.spec import CanarySpec
from control.resources import releasepolicy as resource
from control.resources.documents import Document, Path, without_nulls
from control.resources.quantity import seconds
from control.resources.shape import Report, check_shape

API_VERSION = resource.API_VERSION
GROUP = resource.GROUP
KIND = resource.KIND


@dataclass(frozen=True, slots=True)
class PolicyStep:
    """One weight, and what must be before the next."""

    weight: float  # percent to the canary, 0.01 .. 100 in steps of 0.01; of a promotion step: percent to the primary
    duration_s: float | None = None  # at least this long; None: the Canary's interval
    min_requests: int = 0  # that the canary must have answered in this step
    pause: bool = False  # until a person approves it
    checks: tuple[Metric, ...] = ()  # besides those of the Canary; of a promotion step: all there are, of the primary


@dataclass(frozen=True, slots=True)
class EvidencePolicy:
    """Non-inferiority of canary to primary.  Shares of 1, not percent."""

    alpha: float = 0.01  # chance, a release, of a roll back without a difference; divided over what is compared
    failure_margin: float = 0.01  # more failures than the primary's that are put up with
    slow_margin: float = 0.02  # more successes slower than the primary's p50, p90 and p99
    min_requests: int = 0  # of the canary in each step that says no other number
    baseline: bool = False  # compare with an equal-sized copy of the primary rather than with the primary


@dataclass(frozen=True, slots=True)
class ReleasePolicy:
    namespace: str
    name: str
    steps: tuple[PolicyStep, ...] = ()
    promotion_steps: tuple[PolicyStep, ...] = ()
    warm_up_s: float = 0.0  # after the first weight: seen, but not judged
    windows: tuple[Window, ...] = ()
    evidence: EvidencePolicy | None = None
    on_inconclusive: str = "hold"  # after max_wait_s at the last weight: hold | rollback | approve (wait for a person)
    max_wait_s: float = 3600.0
    members: tuple[str, ...] = ()

    @property
    def counts(self) -> bool:
        """Does it ask how many requests there were?"""
        return any(step.min_requests for step in self.steps)

    def step(self, index: int) -> PolicyStep:
        """Step `index`, from 0; beyond the last (the policy was edited) the last."""
        return self.steps[min(index, len(self.steps) - 1)]


def parse(obj: Mapping[str, Any]) -> ReleasePolicy | None:
    """The typed form; None for an object without spec.  Raises SpecError on the first value that cannot be meant."""
    whole = without_nulls(dict(obj))
    if whole.get("spec") is None:
        return None
    report = Report(Document(whole))
    check_shape(whole, resource.PolicyShape, report)
    if not report.failed:
        resource.check_policy(whole, report)
    for diagnostic in report.diagnostics:
        if diagnostic.severity == "error":
            hint = f" ({diagnostic.hint})" if diagnostic.hint else ""
            raise SpecError(f"ReleasePolicy {whole['metadata']['name']}: {diagnostic.field}: {diagnostic.message}{hint}")
    spec = resource.parse(whole).spec
    assert spec is not None
    metadata = whole["metadata"]
    namespace = metadata.get("namespace") or "default"
    return ReleasePolicy(
        namespace=namespace,
        name=metadata["name"],
        steps=_steps(whole["spec"], "steps", namespace, metadata["name"]),
        promotion_steps=_steps(whole["spec"], "promotionSteps", namespace, metadata["name"]),
        warm_up_s=seconds(spec.warm_up),
        windows=tuple(_window(window) for window in spec.windows),
        evidence=_evidence(spec.evidence) if spec.evidence is not None else None,
        on_inconclusive=spec.on_inconclusive,
        max_wait_s=seconds(spec.max_wait),
        members=spec.members,
    )


def steps_of(spec: CanarySpec) -> tuple[PolicyStep, ...]:
    """The weights that a Canary says itself (stepWeight, stepWeights, maxWeight), as steps."""
    weights: list[int] = []
    while (last := weights[-1] if weights else 0) < spec.top_weight and (spec.step_weight or spec.step_weights):
        weights.append(spec.next_weight(last))
    return tuple(PolicyStep(float(weight)) for weight in weights)


def in_force(spec: CanarySpec, own: ReleasePolicy | None, group: ReleasePolicy | None = None) -> ReleasePolicy | None:
    """What holds for a Canary: its own policy, else that of the release it is a member of; the steps are the first of its own,
    the group's, and those the Canary says itself.  None: the Canary is all there is."""
    policy = own or group
    if policy is None:
        return None
    steps = policy.steps or (group.steps if group else ()) or steps_of(spec)
    members = () if group is None else tuple(name for name in (group.name, *group.members) if name != spec.name)
    return replace(policy, steps=steps, members=members)


@dataclass(frozen=True, slots=True)
class Misfit:
    """Why a Canary is not run under the ReleasePolicies that name it."""

    text: str  # as the controller says it
    policy: str  # the ReleasePolicy that asks for it
    path: Path  # its field
    what: str  # of that field
    hint: str


def misfit(spec: CanarySpec, own: ReleasePolicy | None, groups: Sequence[ReleasePolicy]) -> Misfit | None:
    """The one place that decides it, for the controller and for lint.  groups: all that release it together with others."""
    if len(groups) > 1:
        names = " and ".join(group.name for group in groups)
        text = f"Canary {spec.name} is a member of two releases, ReleasePolicy {names}; it can be in one"
        what = f"Canary {spec.name} is also released with ReleasePolicy {groups[0].name}, so it is not run"
        return Misfit(text, groups[1].name, _member(spec, groups[1]), what, "one release each: take it out of one of them")
    group = groups[0] if groups else None
    if group is not None and (field := not_by_weights(spec)):
        text = f"Canary {spec.name} is released with others by ReleasePolicy {group.name}"
        text += f": that goes by weights, and not with {field}"
        what = f"Canary {spec.name} has {field}, and what is released together goes by weights: it is not run"
        hint = "make it go by weights (stepWeight or stepWeights), or release it alone"
        return Misfit(text, group.name, _member(spec, group), what, hint)
    policy = own or group
    if policy is not None and policy.evidence is not None and policy.evidence.baseline and (why := unfit(spec)):
        text = f"ReleasePolicy {policy.name}: spec.evidence.baseline: {why}"
        what = f"found true, and Canary {spec.name} cannot have a baseline, so it is not run: {why}"
        hint = "or take baseline out: then it is compared with the primary"
        return Misfit(text, policy.name, ("spec", "evidence", "baseline"), what, hint)
    return None


def _member(spec: CanarySpec, group: ReleasePolicy) -> Path:
    path: Path = ("spec", "members")
    return (*path, group.members.index(spec.name)) if spec.name in group.members else path


def unfit(spec: CanarySpec) -> str:
    """Why a release of this Canary cannot have a baseline, and what to do; "" if it can.  The Canary is not run then."""
    if not spec.routed:
        return "provider kubernetes shares no requests out, so it would have none; use another provider"
    if spec.iterations or spec.match:
        what = (
            "analysis.match chooses who gets the canary" if spec.match else "analysis.iterations gives the canary all or none"
        )
        return f"{what}: a baseline needs weights (stepWeight, stepWeights, or steps)"
    if spec.mirror:
        return "analysis.mirror gives the canary copies, and the baseline would have none; leave one of the two out"
    if spec.routes.affinity is not None:
        return (
            "analysis.sessionAffinity keeps users with the canary, so the shares would not be equal; leave one of the two out"
        )
    if spec.target_kind != "Deployment":
        return f"a {spec.target_kind} has a pod on every node, so there is none of the canary's size; use a Deployment"
    return ""


def not_by_weights(spec: CanarySpec) -> str:
    """The field that keeps this Canary from being released together with others, "" if none does: their steps are weights."""
    if spec.iterations:
        return "spec.analysis.iterations" if spec.routed else "spec.provider"
    return "spec.skipAnalysis" if spec.skip_analysis else ""


def _steps(spec: Mapping[str, Any], field: str, namespace: str, name: str) -> tuple[PolicyStep, ...]:
    steps = enumerate(spec.get(field) or ())
    return tuple(_step(step, f"ReleasePolicy {name}: spec.{field}[{index}]", namespace) for index, step in steps)


def _step(step: Mapping[str, Any], where: str, namespace: str) -> PolicyStep:
    checks = parse_metrics(step.get("checks"), f"{where}.checks", namespace)
    return PolicyStep(
        float(step["weight"]),
        _seconds(step.get("duration") or ""),
        int(step.get("minRequests") or 0),
        bool(step.get("pause")),
        checks,
    )


def _seconds(text: str) -> float | None:
    return seconds(text) if text else None


def _window(window: resource.Window) -> Window:
    days = window.days or resource.DAYS
    return Window(
        frozenset(resource.DAYS.index(day) for day in days),
        resource.clock(window.begin),
        resource.clock(window.to),
        resource.zone(window.time_zone),
    )


def _evidence(evidence: resource.Evidence) -> EvidencePolicy:
    return EvidencePolicy(
        alpha=evidence.alpha,
        failure_margin=evidence.failure_margin / 100,
        slow_margin=evidence.slow_margin / 100,
        min_requests=evidence.min_requests,
        baseline=evidence.baseline,
    )

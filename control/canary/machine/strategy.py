"""What comes next in a release, by its strategy; pure.

    canary       weight 0 [-> mirrored] -> step, step, ... -> maxWeight -> promote
    ab-testing   everybody who matches to the canary, n iterations -> promote
    blue-green   nobody (or copies: mirrored), n iterations -> everybody, once more analysed -> promote

`status.canaryWeight` is what the router's objects say, in every strategy; Flagger leaves it at 0 in the last two.
`status.iterations` counts analysed rounds; with weights it is 1 while requests are mirrored, else 0.  So the status alone
says where a release is, and routing() is the one place that reads it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from control.canary.declared.spec import CanarySpec
from control.canary.machine.routing import TO_CANARY, TO_PRIMARY, Routing
from control.canary.machine.status import ANALYSED, Status


class Strategy(StrEnum):
    """By Flagger's names, which are the values of the label deployment_strategy."""

    CANARY = "canary"
    AB_TESTING = "ab-testing"
    BLUE_GREEN = "blue-green"


@dataclass(frozen=True, slots=True)
class Advance:
    """Make the routing so and count so many iterations.  `gated`: confirm-promotion comes first."""

    routing: Routing
    iterations: int
    text: str  # of the Event, "" for none
    gated: bool = False


@dataclass(frozen=True, slots=True)
class Promote:
    """The analysis is over."""


Step = Advance | Promote


def strategy(spec: CanarySpec) -> Strategy:
    if spec.iterations > 0:
        return Strategy.AB_TESTING if spec.match else Strategy.BLUE_GREEN
    return Strategy.CANARY


def begins(status: Status) -> bool:
    """No request has reached the canary yet: pre-rollout hooks now, and nothing to measure."""
    return status.canary_weight == 0 and status.iterations == 0


def routing(spec: CanarySpec, status: Status) -> Routing:
    """What the router's objects must say, as the status has it."""
    if not spec.routed:
        return TO_PRIMARY
    mirrored = spec.mirror and status.phase in ANALYSED and status.canary_weight == 0 and status.iterations > 0
    shared = Routing(status.canary_weight, mirrored, everyone=bool(spec.routes.trial) and status.left_to_canary)
    return shared.beside() if status.beside_baseline else shared


def coherent(spec: CanarySpec, status: Status) -> bool:
    """Could this strategy have written this status?  If not, the analysis was changed to another strategy while it ran, and
    the weight means something else now (all who match, all): it must begin again."""
    weighted, counted = status.canary_weight > 0, status.iterations
    match strategy(spec):
        case Strategy.CANARY:
            return not (weighted and counted)
        case Strategy.AB_TESTING:
            return weighted == (counted > 0)
    return weighted == (counted > spec.iterations) or not spec.routed


def next_step(spec: CanarySpec, status: Status) -> Step:
    """What follows a round of analysis that passed."""
    done, wanted = status.iterations, spec.iterations
    match strategy(spec):
        case Strategy.CANARY:
            return _next_weight(spec, status)
        case Strategy.AB_TESTING:
            if done >= wanted:
                return Promote()
            return Advance(TO_CANARY, done + 1, _iteration(spec, done + 1))
    if done < wanted:
        return Advance(Routing(0, mirrored=spec.mirror), done + 1, _iteration(spec, done + 1))
    if done > wanted:
        return Promote()
    if not spec.routed:  # pods are all there is to look at: one more round, and no switch
        return Advance(TO_PRIMARY, done + 1, "", gated=True)
    text = "Stop traffic mirroring and route all traffic to canary" if spec.mirror else "Routing all traffic to canary"
    return Advance(TO_CANARY, done + 1, text, gated=True)


def _next_weight(spec: CanarySpec, status: Status) -> Step:
    weight = status.canary_weight
    if weight >= spec.top_weight:
        return Promote()
    if spec.mirror and begins(status):
        return Advance(Routing(0, mirrored=True), 1, _weight(spec, 0))
    after = Routing(spec.next_weight(weight))
    return Advance(after, 0, _weight(spec, after.canary))


def _weight(spec: CanarySpec, weight: float) -> str:
    return f"Advance {spec.full_name} canary weight {weight:g}"


def _iteration(spec: CanarySpec, number: int) -> str:
    return f"Advance {spec.full_name} canary iteration {number}/{spec.iterations}"

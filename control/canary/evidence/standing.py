"""Where the comparison of one release stands, look after look; pure.

    begin(run) -> Standing -- look(arms, weight, now) --> Standing ...      arms None: the source does not know

A step begins with each other weight; the time of `warm_up_s` after the first weight teaches the primary's rates and nothing
about the canary.  While the primary is promoted the roles change: the canary is what was proved, the primary is new.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from control.canary.evidence.arms import ArmCounts, Block, block
from control.canary.evidence.judge import Evidence, Finding, Terms, Verdict, judge
from control.canary.evidence.record import from_object, to_object
from control.canary.evidence.sequence import LOOK_S

LONGEST_S = 10.0  # of a block

Arms = tuple[ArmCounts, ArmCounts]  # the new revision's, and what it is compared with


@dataclass(frozen=True, slots=True)
class Standing:
    """`run` names the revision and the attempt at it; another one begins anew.  Times are Unix seconds."""

    run: str
    evidence: Evidence = field(default_factory=Evidence)
    weight: float = 0.0  # percent, of the step that is looked at
    before: int = 0  # requests of the canary before this step
    warm_until: float = 0.0
    lost_since: float | None = None  # since when the source does not answer
    last: Arms | None = None  # where the present block began ...
    since: float = 0.0  # ... and when

    @property
    def requests(self) -> int:
        """Of the canary since the step began, after the warm-up."""
        return self.evidence.requests - self.before

    def look(
        self,
        arms: Arms | None,
        weight: float,
        now: float,
        terms: Terms,
        warm_up_s: float = 0.0,
        primary: ArmCounts | None = None,
    ) -> Standing:
        """After one more look, with `weight` percent at the canary.  `primary`: what it did, where the arms are the canary's
        and a baseline's.  That is as new as the canary: its warm-up teaches nothing either, and where slow begins is the
        primary's to say."""
        after = self
        if weight != self.weight:
            warm_until = now + warm_up_s if not self.weight else self.warm_until
            after = replace(after, weight=weight, before=self.evidence.requests, warm_until=warm_until)
        if arms is None:
            return replace(after, lost_since=now if self.lost_since is None else self.lost_since, last=None)
        evidence = after.evidence
        new, seconds, moved = block(*arms, *(self.last or (None, None))), now - self.since, weight != self.weight
        judged = bool(self.weight) and self.since >= after.warm_until
        if new is not None and not moved and not _closed(new, judged, seconds):
            return replace(after, lost_since=None)
        if new is not None:
            evidence = (
                evidence.observe(new, terms, seconds) if judged else evidence.learn(new, terms) if primary is None else evidence
            )
        if moved or not evidence.marks.at:
            evidence = evidence.begin_step((primary or arms[1]).latency)
        if moved:
            after = replace(after, before=evidence.requests)
        return replace(after, evidence=evidence, lost_since=None, last=arms, since=now)

    def verdict(self, terms: Terms) -> Verdict:
        return judge(self.evidence, terms)

    def to_object(self) -> dict[str, Any]:
        """To be kept; without what was seen last, which another process of the source would not continue."""
        place = {"run": self.run, "weight": self.weight, "before": self.before, "warmUntil": round(self.warm_until, 3)}
        return {**place, **to_object(self.evidence)}


def _closed(new: Block, judged: bool, seconds: float) -> bool:
    """A block ends when it is long enough and both arms had requests: what the primary did while the canary had none would
    be lost to the comparison.  After a while it ends anyway: rates change."""
    if seconds < LOOK_S or not (new.canary.requests or new.primary.requests):
        return False
    return not judged or seconds >= LONGEST_S or bool(new.canary.requests and new.primary.requests)


def resume(obj: Mapping[str, Any] | None, run: str) -> Standing:
    """What was kept of this run; a fresh one if nothing was, or another's, or something that cannot be read."""
    if not obj or obj.get("run") != run:
        return Standing(run)
    try:
        place = float(obj["weight"]), int(obj["before"]), float(obj["warmUntil"])
        return Standing(run, from_object(obj), *place)
    except (KeyError, TypeError, ValueError):
        return Standing(run)


@dataclass(frozen=True, slots=True)
class Compared:
    """Facts: the comparison as it stands, and what the policy wants of it."""

    verdict: Verdict
    requests: int  # of the canary since the step began
    lost_since: float | None = None  # since when the source does not answer
    min_requests: int = 1  # in a step; never 0, for a canary that nobody uses is not known to be good
    on_inconclusive: str = "hold"
    max_wait_s: float = 3600.0

    @property
    def harmful(self) -> bool:
        return self.verdict.finding is Finding.HARM

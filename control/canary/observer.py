"""Looks at both arms of each release that is judged by evidence, ten times a second, and remembers where it stands.

    source.counts --look()--> Standing of each Canary --compared()--> facts for the machine
                                   |          ^
                              record()     resume, after a crash
                                   v          |
                              ReleasePolicy.status.evidence

Looking changes nothing in the world; that the evidence calls for a roll back is for the machine to decide, in the tick that
the controller starts because of it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from control.canary import history
from control.canary.declared.hooks import checksum
from control.canary.declared.policy import EvidencePolicy, ReleasePolicy
from control.canary.declared.spec import CanarySpec
from control.canary.evidence.arms import ArmCounts
from control.canary.evidence.judge import Terms, Verdict
from control.canary.evidence.standing import Compared, Standing, resume
from control.canary.machine.status import ANALYSED, Phase, Status
from control.canary.machine.strategy import Strategy, routing, strategy
from control.canary.measuring.source import Arms, MetricSource, Subject
from control.store.store import Key, Store

LOOK_S = 0.1  # between looks: a look without news costs some 50 us, and each one delays a roll back by half of this
RECORD_S = 10.0  # between records: that much evidence is lost in a crash, of both arms


@dataclass(slots=True)
class _Kept:
    standing: Standing
    recorded_at: float
    recorded: Standing | None = None
    verdict: Verdict | None = None  # of the evidence of `standing`, by `terms`
    terms: Terms = field(default_factory=Terms)
    looking: asyncio.Lock = field(default_factory=asyncio.Lock)  # answers must not overtake each other


class Observer:
    """One for a controller.  All it holds can be lost but for what was counted since the last record."""

    def __init__(self, store: Store, source: MetricSource) -> None:
        self._store = store
        self._source = source
        self._kept: dict[Key, _Kept] = {}

    async def look(self, key: Key, spec: CanarySpec, status: Status, policy: ReleasePolicy, now: float) -> Compared:
        """`policy` has evidence.  Raises StoreError only when a record cannot be written."""
        assert policy.evidence is not None
        run = run_of(status)
        kept = self._kept.get(key)
        if kept is None or kept.standing.run != run:
            kept = self._kept[key] = _Kept(self._resume(key, run), now)
        async with kept.looking:
            arms = await self._source.counts(Subject.of(spec))
            pair, primary = _pair(arms, status)
            terms = terms_of(policy.evidence, status)
            share, before = _share(spec, status), kept.standing
            kept.standing = before.look(pair, share, now, terms, policy.warm_up_s, primary)
            if kept.verdict is None or before.evidence is not kept.standing.evidence or terms != kept.terms:
                kept.verdict, kept.terms = kept.standing.verdict(terms), terms
        if now - kept.recorded_at >= RECORD_S:
            await self.record(key, now)
        return self._compared(kept.standing, kept.verdict, policy)

    async def record(self, key: Key, now: float) -> None:
        """Write down where it stands.  Raises StoreError."""
        kept = self._kept.get(key)
        policy = history.policy_key(key.namespace, key.name)
        current = self._store.get(policy)
        if kept is None or current is None or kept.recorded is kept.standing:
            return
        kept.recorded_at, kept.recorded = now, kept.standing
        await self._store.status(policy, {**(current.get("status") or {}), "evidence": kept.standing.to_object()})

    def keep_only(self, keys: frozenset[Key]) -> None:
        for key in self._kept.keys() - keys:
            del self._kept[key]

    def _resume(self, key: Key, run: str) -> Standing:
        policy = self._store.get(history.policy_key(key.namespace, key.name))
        return resume(((policy or {}).get("status") or {}).get("evidence"), run)

    @staticmethod
    def _compared(standing: Standing, verdict: Verdict, policy: ReleasePolicy) -> Compared:
        assert policy.evidence is not None
        return Compared(
            verdict,
            standing.requests,
            standing.lost_since,
            max(1, policy.evidence.min_requests),
            policy.on_inconclusive,
            policy.max_wait_s,
        )


def is_judged(spec: CanarySpec, status: Status, policy: ReleasePolicy | None) -> bool:
    """Is there anything to compare?  Not in blue/green without mirroring: there the arms never serve at the same time."""
    if policy is None or policy.evidence is None or spec.suspend or spec.skip_analysis:
        return False
    if strategy(spec) is Strategy.BLUE_GREEN and not spec.mirror:
        return False
    return status.phase in (*ANALYSED, Phase.PROMOTING)


def _share(spec: CanarySpec, status: Status) -> float:
    """Percent of the requests that the canary answers now, copies included; another share is another step."""
    now = routing(spec, status)
    return 100.0 if now.mirrored else now.canary


def run_of(status: Status) -> str:
    """The revision, its configuration, which attempt at it, and in which role."""
    role = "promoting" if status.phase is Phase.PROMOTING else "baseline" if status.beside_baseline else "canary"
    return f"{checksum(status.tracked, status.last_applied)}-{status.run_started:.0f}-{role}"


def _pair(arms: Arms | None, status: Status) -> tuple[tuple[ArmCounts, ArmCounts] | None, ArmCounts | None]:
    """What is compared with what, and the primary's where it is neither."""
    if arms is None:
        return None, None
    if status.phase is Phase.PROMOTING:
        return (arms.primary, arms.canary), None
    if not status.beside_baseline:
        return (arms.canary, arms.primary), None
    return ((arms.canary, arms.baseline) if arms.baseline is not None else None), arms.primary


def terms_of(evidence: EvidencePolicy, status: Status) -> Terms:
    judged, beside = "canary", "baseline" if status.beside_baseline else "primary"
    if status.phase is Phase.PROMOTING:
        judged, beside = "new primary", "canary"
    return Terms(evidence.alpha, _margin(evidence.failure_margin), _margin(evidence.slow_margin), judged, beside)


def _margin(share: float) -> float:
    """Within what can be shown at all: that nothing is worse by nothing would take for ever."""
    return min(max(share, 1e-4), 0.99)

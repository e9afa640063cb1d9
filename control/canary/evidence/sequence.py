r"""Two arms compared while the numbers come in: is the canary's share more than `margin` above the primary's, or certainly not?

Each question is a game of bets (an e-process).  One coin is staked against the claim "p_canary <= p_primary + margin"; the
odds are fair if the claim is true, so that whoever plays, however long, and stops whenever he likes, holds 1 / alpha coins at
any time with a chance of alpha at most (Ville's inequality).  That many coins are a proof.

    block (failures f and requests n of both arms)
      │      a bettor for each suspicion: the primary fails a0 (as it did so far), the canary a1 = a0 + margin + excess
      ▼
    wealth *= P(block | a0, a1) / P(block | q, q + margin)        q: the innocent explanation that comes nearest
      │
      ├─ at most 3.8-fold in half a second (12-fold in the first 10 s): it may be one event (a connection lost with all on it)
      ├─ a part goes round to all again: who bet against a good canary for an hour still has a coin when it breaks
      ▼
    harm.wealth >= 1 / alpha: worse than the margin allows          safe.wealth >= 1 / alpha: certainly within the margin

Two-proportion e-process of Turner, Ly and Gruenwald (2024), with a linear null.  `q` is the closest point of the claim in the
sense of Kullback and Leibler; with it the expected factor is at most 1 for every pair of rates that obeys the claim, in each
block anew: the rates may change as they like from block to block, as long as both arms are hit alike.

Who bets against a good canary loses, so a bettor for harm who is losing stops.  He goes on on paper, and bets again when he
would have won:

    betting ── paper < WAKE ──▶ watching        paper: what he would have won lately, never below 0 (Page's CUSUM, 1954)
       ▲                            │
       └────── paper >= WAKE ───────┘

Why all of it is fair: the cap only takes away from a factor, what goes round is neither more nor less, and who bets is settled
by earlier blocks alone.  Who does not bet has the factor 1, who bets one of at most 1 in expectation.  So the wealth of all
together is a supermartingale that begins at 1, which is all that Ville's inequality asks for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import acos, ceil, copysign, cos, exp, inf, log, log1p, pi, sqrt

EXCESSES = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64)  # suspected beyond the margin: from barely to all
ODDS = (1.0, 2.0, 3.0, 4.0, 5.0, 4.0, 2.0)  # how the coin is divided between them: what is grave must be found at once
LATER_ODDS = (2.0, 3.0, 4.0, 3.0, 2.0, 1.0, 1.0)  # ... and what goes round: what begins late and is grave is seen anyway
HARMLESS = (0.0, 0.5)  # suspected of a good canary: no worse at all, or by half the margin
CASH = 0.05  # of the coin is not bet: what is left when all bettors are wrong
LOOK_S = 0.5  # the shortest block that counts whole
FIRST_BLOCKS = 20  # so long nothing speaks for the canary: what is bad now has been since it began, most likely
FIRST_CAP = log(12.0)  # by how much such a block may multiply a bettor's wealth: it takes three bad looks to roll back
LATER_CAP = log(3.8)  # ... and a later one: it takes more of them, for passing events hit good canaries, too
SAFE_CAP = log(6.0)  # ... and the wealth of who bets that the canary is harmless
WAKE = log(4.0)  # whoever would have won so much bets: a little more than one later look can bring
PAPER = 2.0 * WAKE  # as if won before the beginning: all bet at once, and one stops when half of it is lost
SPREAD = 50.0  # at block t a share of 1 / (t + 50) goes round: early bets are left alone, late ones always possible
MEMORY = 0.99  # of the arms' rates, a block: what was a few minutes ago says little about now
PRIOR_REQUESTS = 20.0  # the rate expected beforehand weighs as much as so many requests
LEAST_RATE = 1e-5  # no bettor is certain: one surprise would ruin him
SURPLUS = log(20.0)  # coins beyond what the proof of safety needs are dropped, so that a canary cannot live on its past

Logs = tuple[float, ...]


def _stakes(odds: Sequence[float]) -> Logs:
    return (log(CASH), *(log((1.0 - CASH) * one / sum(odds)) for one in odds))


HARM_STAKES = _stakes(ODDS)
LATER_STAKES = _stakes(LATER_ODDS)
HARM_PAPER = (PAPER,) * len(EXCESSES)
SAFE_STAKES = _stakes((1.0,) * len(HARMLESS))


@dataclass(frozen=True, slots=True)
class Counts:
    """One block of one metric: how many of `requests` failed (or were slow), in each arm."""

    canary_failed: int
    canary: int
    primary_failed: int
    primary: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is known of one metric after some blocks.  Immutable; `observe` gives the next."""

    margin: float
    expected: float  # the primary's rate as far as one knows beforehand
    harm: Logs = ()  # logarithms of each bettor's wealth, cash first
    safe: Logs = ()
    paper: Logs = ()  # what each bettor for harm would have won lately, on paper; a logarithm, >= 0
    peak_harm: float = 0.0  # the greatest log_harm there ever was: what is once proved stays proved
    blocks: int = 0
    recent: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)  # as in Counts, fading
    total: Counts = field(default=Counts(0, 0, 0, 0))

    @classmethod
    def of(cls, margin: float, expected: float = 0.001) -> Comparison:
        """`margin` in (0, 1): how much worse is put up with; `expected` in [0, 1].  Raises ValueError."""
        if not 0.0 < margin < 1.0:
            raise ValueError(f"a margin lies between 0 and 1, not {margin}")
        if not 0.0 <= expected <= 1.0:
            raise ValueError(f"a rate lies between 0 and 1, not {expected}")
        return cls(margin, expected, HARM_STAKES, SAFE_STAKES, HARM_PAPER)

    @property
    def log_harm(self) -> float:
        """Logarithm of the coins against the canary: at log(1 / alpha) it is worse than the margin allows."""
        return _log_sum(self.harm)

    @property
    def log_safe(self) -> float:
        """Logarithm of the coins for it: at log(1 / alpha) it is within the margin."""
        return _log_sum(self.safe)

    def observe(self, counts: Counts, log_goal: float, seconds: float = LOOK_S) -> Comparison:
        """After one more block of so many seconds.  `log_goal` = log(1 / alpha) of the proof of safety: far more than it is
        not kept."""
        if not counts.canary or not counts.primary:  # nothing to compare; but the primary's rate is remembered
            return replace(self, recent=_fade(self.recent, counts))
        rate = min(max(self.rates()[1], LEAST_RATE), 1.0 - self.margin - LEAST_RATE)
        room = 1.0 - LEAST_RATE - rate - self.margin
        harm = [rate + self.margin + min(excess, room * (k + 1) / len(EXCESSES)) for k, excess in enumerate(EXCESSES)]
        safe = [rate + self.margin * part for part in HARMLESS]
        blocks = self.blocks + 1
        length, share = max(1.0, seconds / LOOK_S), 1.0 / (blocks + SPREAD)
        cap = length * (FIRST_CAP if blocks <= FIRST_BLOCKS else LATER_CAP)
        against = _gains(counts, rate, harm, self.margin, cap)
        stronger = _bet(self.harm, [gain if won >= WAKE else 0.0 for gain, won in zip(against, self.paper, strict=True)])
        calmer = _bet(self.safe, _gains(counts, rate, safe, self.margin, length * SAFE_CAP))
        return replace(
            self,
            harm=_round(stronger, LATER_STAKES, share, inf),
            peak_harm=max(self.peak_harm, _log_sum(stronger)),
            safe=_round(calmer, SAFE_STAKES, share, log_goal + SURPLUS),
            paper=tuple(max(0.0, won + gain) for won, gain in zip(self.paper, against, strict=True)),
            blocks=blocks,
            recent=_fade(self.recent, counts),
            total=add(self.total, counts),
        )

    def rates(self) -> tuple[float, float]:
        """(canary, primary) as of late, drawn towards `expected` while there is little to go by."""
        failed, requests, primary_failed, primary = self.recent
        guess = self.expected * PRIOR_REQUESTS
        return (failed + guess) / (requests + PRIOR_REQUESTS), (primary_failed + guess) / (primary + PRIOR_REQUESTS)

    def more_for_safe(self, log_goal: float) -> int | None:
        """About so many more canary requests until it is certain that the canary is within the margin, if all goes on as of
        late; None if that would not show it."""
        missing = log_goal - self.log_safe
        if missing <= 0.0:
            return 0
        canary, primary = self.rates()
        if canary >= primary + self.margin or not self.recent[1] or not self.recent[3]:
            return None
        per_request = growth(canary, primary, self.recent[3] / self.recent[1], self.margin)
        return ceil(missing / per_request) if per_request > 1e-12 else None


def growth(canary: float, primary: float, ratio: float, margin: float) -> float:
    """What one canary request (with `ratio` of the primary's) adds to the logarithm of the wealth of a bettor who knows the
    true rates: the divergence of the truth from the boundary of the claim."""
    canary, primary = (min(max(rate, LEAST_RATE), 1.0 - LEAST_RATE) for rate in (canary, primary))
    q = nearest(canary, 1.0, primary, ratio, margin)
    return max(0.0, ratio * _divergence(primary, q) + _divergence(canary, q + margin))


def nearest(canary: float, canary_weight: float, primary: float, primary_weight: float, margin: float) -> float:
    """The q for which (q + margin, q) comes nearest to the rates (canary, primary): least weighted divergence.

    The restricted estimate of Farrington and Manning (1990): the middle root of a cubic, and one step of Newton's against the
    rounding of its cosine.  Weights are positive; rates and margin lie strictly between 0 and 1."""
    low, high = sorted((primary, canary - margin))
    low, high = max(low, 1e-12), min(high, 1.0 - margin - 1e-12)
    if high - low < 1e-14:
        return min(max(low, 1e-12), 1.0 - margin - 1e-12)
    theta = primary_weight / canary_weight
    a = 1.0 + theta
    b = -(1.0 + theta + canary + theta * primary + margin * (theta + 2.0)) / a
    c = (margin * margin + margin * (2.0 * canary + theta + 1.0) + canary + theta * primary) / a
    d = -canary * margin * (1.0 + margin) / a
    v = b * b * b / 27.0 - b * c / 6.0 + d / 2.0
    u = copysign(sqrt(max(b * b / 9.0 - c / 3.0, 0.0)), v)
    angle = acos(min(1.0, max(-1.0, v / u**3))) if u else 0.0
    q = 2.0 * u * cos((pi + angle) / 3.0) - b / 3.0 - margin
    q = min(max(q, low), high)
    p, spread_q = q + margin, q * (1.0 - q)
    spread_p = p * (1.0 - p)
    slope = theta * (q - primary) / spread_q + (p - canary) / spread_p
    bend = theta * (primary / (q * q) + (1.0 - primary) / (1.0 - q) ** 2) + canary / (p * p) + (1.0 - canary) / (1.0 - p) ** 2
    return min(max(q - slope / bend, low), high)


def _divergence(truth: float, claim: float) -> float:
    """Kullback-Leibler, of one request."""
    return truth * log(truth / claim) + (1.0 - truth) * (log1p(-truth) - log1p(-claim))


def _gains(counts: Counts, primary: float, suspicions: Sequence[float], margin: float, cap: float) -> list[float]:
    """By how much, in logarithms, the block multiplies the wealth of those who bet on each suspicion."""
    gains = []
    f0, f1 = counts.primary_failed, counts.canary_failed
    g0, g1 = counts.primary - f0, counts.canary - f1
    for canary in suspicions:
        q = nearest(canary, counts.canary, primary, counts.primary, margin)
        gain = f0 * log(primary / q) + g0 * (log1p(-primary) - log1p(-q))
        gain += f1 * log(canary / (q + margin)) + g1 * (log1p(-canary) - log1p(-q - margin))
        gains.append(min(gain, cap))
    return gains


def _bet(wealth: Sequence[float], gains: Sequence[float]) -> Logs:
    """Everybody's logarithm of wealth after the block, before any of it goes round; cash stays what it is."""
    return wealth[0], *(one + gain for one, gain in zip(wealth[1:], gains, strict=True))


def _round(wealth: Sequence[float], stakes: Sequence[float], share: float, most: float) -> Logs:
    """A share of all wealth is dealt out anew, by `stakes`; what lies above `most` is dropped."""
    total = _log_sum(wealth)
    spare = min(0.0, most - total)
    kept, dealt = log1p(-share) + spare, log(share) + total + spare
    return tuple(_log_sum((one + kept, dealt + stake)) for one, stake in zip(wealth, stakes, strict=True))


def _log_sum(logs: Sequence[float]) -> float:
    greatest = max(logs)
    return greatest + log(sum(exp(one - greatest) for one in logs))


def _fade(recent: tuple[float, float, float, float], counts: Counts) -> tuple[float, float, float, float]:
    failed, requests, primary_failed, primary = recent
    return (
        failed * MEMORY + counts.canary_failed,
        requests * MEMORY + counts.canary,
        primary_failed * MEMORY + counts.primary_failed,
        primary * MEMORY + counts.primary,
    )


def add(total: Counts, counts: Counts) -> Counts:
    """Both together."""
    return Counts(
        total.canary_failed + counts.canary_failed,
        total.canary + counts.canary,
        total.primary_failed + counts.primary_failed,
        total.primary + counts.primary,
    )

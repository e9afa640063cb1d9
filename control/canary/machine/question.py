"""What a tick must know before it can go on, and cannot know from the store: asked of the world by the controller.

    tick(facts) -> Decision.asks = (question,) -> controller gets the answer -> tick(facts + answer) -> ... -> Decision

A Decision that asks does nothing else: no action, event or status of it counts, so a crash in between loses nothing and all
is asked again.  The same question of the same tick has the same answer, however often the tick is repeated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from control.canary.declared.hooks import HookResult, Webhook
from control.canary.declared.metric import Metric
from control.canary.machine.analysis import Measurement


@dataclass(frozen=True, slots=True)
class AskHook:
    """What does this webhook say?  Answer: HookResult.  `phase` is what it is told."""

    hook: Webhook
    phase: str


@dataclass(frozen=True, slots=True)
class AskMetrics:
    """What do the metrics of the spec, and those besides, say as of now?  Answer: a Measurement for each Metric (absent: not
    measured).  `of_primary`: only those besides, and the built-in ones among them of the primary's pods."""

    besides: tuple[Metric, ...] = ()
    of_primary: bool = False


Question = AskHook | AskMetrics
Answer = HookResult | Mapping[Metric, Measurement]

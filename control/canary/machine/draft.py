"""A decision while it is being written: what a tick knows, what it has decided so far, and the ways to end it.

    Draft(spec, status, facts, now) -- event, halt, alert, do, route ... --> .decision()
                                    -- ask() without an answer ---------------> a decision that only asks

The other modules of the machine (setup.py, approval.py, promotion.py, failure.py, termination.py) are functions that write on
one.  Each either returns, and the tick goes on, or ends the tick by raising Stop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from control.canary.declared.alerts import WARN, Alert
from control.canary.declared.commands import Command
from control.canary.declared.hooks import HookResult, Webhook
from control.canary.declared.metric import Metric
from control.canary.declared.spec import CanarySpec
from control.canary.facts import Facts
from control.canary.machine import progress, strategy
from control.canary.machine.analysis import Check, Measurement
from control.canary.machine.decision import Action, Decision, Event, Notice, Record, SetRouting
from control.canary.machine.question import AskHook, AskMetrics, Question
from control.canary.machine.routing import Routing
from control.canary.machine.status import ANALYSED, PRIMARY_READY, Phase, Status
from control.canary.objects import baseline
from control.canary.routers.affinity import with_cookies


class Stop(Exception):
    """This tick is over; what was gathered so far is the decision."""


class Draft:
    def __init__(self, spec: CanarySpec, status: Status, facts: Facts, now: float) -> None:
        self.spec = spec
        self.before = status
        self.status = status
        self.facts = facts
        self.now = now
        self.actions: list[Action] = []
        self.events: list[Event] = []
        self.records: list[Record] = []
        self.notices: list[Notice] = []
        self.asks: list[Question] = []
        self.checks: tuple[Check, ...] = ()
        self.finished = ""

    def decision(self) -> Decision:
        if self.asks:
            return Decision((), self.before, (), (), asks=tuple(self.asks))
        return Decision(
            tuple(self.actions),
            self.status,
            tuple(self.events),
            tuple(self.records),
            self.finished,
            notices=tuple(self.notices),
        )

    # -- asking

    def hook(self, hook: Webhook, phase: str) -> HookResult:
        """What a webhook says.  Ends the tick if that is not known yet."""
        question = AskHook(hook, phase)
        answer = self.facts.answers.get(question)
        if not isinstance(answer, HookResult):
            self._ask(question)
        return answer

    def measurements(self, extra: Sequence[Metric] = ()) -> Mapping[Metric, Measurement]:
        """What the metrics of the spec, and `extra` ones, say.  Ends the tick if that is not known yet."""
        if not self.spec.metrics and not extra:
            return {}
        return self._measured(AskMetrics(tuple(extra)))

    def measurements_of_primary(self, metrics: Sequence[Metric]) -> Mapping[Metric, Measurement]:
        """What these alone say; the built-in ones of the primary.  Ends the tick if that is not known yet."""
        return self._measured(AskMetrics(tuple(metrics), of_primary=True))

    def _measured(self, question: AskMetrics) -> Mapping[Metric, Measurement]:
        answer = self.facts.answers.get(question)
        if not isinstance(answer, Mapping):
            self._ask(question)
        return answer

    def _ask(self, question: Question) -> NoReturn:
        self.asks.append(question)
        raise Stop

    # -- deciding

    def do(self, *actions: Action) -> None:
        self.actions += actions

    def to(self, phase: Phase, message: str = "", **changes: Any) -> None:
        if phase not in (*ANALYSED, Phase.PROMOTING):
            self.status = progress.without(self.status)
        if phase is not Phase.PROMOTING:
            self.status = self.status.without_condition(PRIMARY_READY)
        beside, self.status = self.status.beside_baseline, baseline.kept(self.status, phase)
        self.status = self.status.to(phase, self.now, message, kind=self.spec.target_kind, **changes)
        if beside and phase is Phase.PROMOTING and not self.routed:  # what the baseline had is the primary's again
            self.route(strategy.routing(self.spec, self.status))

    def noted(self, **changes: Any) -> None:
        self.status = self.status.noted(self.now, **changes)

    def route(self, routing: Routing) -> None:
        """The router's objects say `routing`, with the baseline's share where there is one; the status follows it, cookies
        of session affinity included."""
        if self.status.beside_baseline:
            routing = routing.beside()
        if self.spec.routed:
            self.do(SetRouting(routing))
        self.status = with_cookies(self.spec, self.status, routing)
        self.noted(canary_weight=routing.canary)

    @property
    def routed(self) -> bool:
        """Has this tick moved requests already?"""
        return any(isinstance(action, SetRouting) for action in self.actions)

    # -- telling

    def event(self, text: str) -> None:
        self.events.append(Event(False, text))

    def warn(self, text: str) -> None:
        self.events.append(Event(True, text))

    def stop(self, text: str) -> NoReturn:
        self.event(text)
        raise Stop

    def stop_warning(self, text: str) -> NoReturn:
        self.warn(text)
        raise Stop

    def halt(self, text: str) -> None:
        self.record(text, warning=True)

    def wait(self, text: str, *, alert: bool) -> NoReturn:
        """Say what is waited for; people are told once."""
        before = self.status
        self.status = before.says(f"Waiting for {text}.", self.now)
        self.halt(f"Halt {self.spec.full_name} advancement waiting for {text}")
        if alert and self.status != before:
            self.alert(WARN, f"Canary is waiting for {text}.")
        raise Stop

    def record(self, text: str, *, warning: bool = False, told: bool = True) -> None:
        """An event that is also kept in the history, with the checks made so far in this tick.  `told`: as an event too."""
        if told:
            self.events.append(Event(warning, text))
        status = self.status
        weight = strategy.routing(self.spec, status).canary
        self.records.append(
            Record(self.now, status.phase.value, weight, status.failed_checks, status.last_applied, text, self.checks)
        )

    def alert(self, severity: str, text: str, *, about: bool = False) -> None:
        """`about`: with what the Canary is, for who reads it without knowing it."""
        self.notices.append(Alert(severity, text, alert_fields(self.spec) if about else ()))

    # -- what several parts need

    @property
    def revision(self) -> str:
        """The target's."""
        assert self.facts.target is not None
        return self.facts.target.revision

    def ordered(self, command: Command | None) -> bool:
        """An order counts if it names the revision being released and was given since that release began."""
        if command is None or self.facts.target is None or command.revision != self.revision:
            return False
        return self.of_this_run(command)

    def of_this_run(self, command: Command) -> bool:
        """The same, whatever the target says by now."""
        return command.revision == self.status.last_applied and command.at >= self.status.run_started

    def approved(self, gate: str) -> bool:
        command = self.facts.commands.approve
        return command is not None and command.gate == gate and self.ordered(command)


def alert_fields(spec: CanarySpec) -> tuple[tuple[str, str], ...]:
    """Flagger's names and words."""
    fields = [
        ("Target", f"{spec.target_kind}/{spec.full_target}"),
        ("Failed checks threshold", str(spec.threshold)),
        ("Progress deadline", f"{spec.progress_deadline_s:g}s"),
    ]
    match strategy.strategy(spec):
        case strategy.Strategy.AB_TESTING:
            fields.append(("Traffic routing", "A/B Testing"))
        case strategy.Strategy.BLUE_GREEN:
            fields.append(("Traffic routing", "Blue/Green"))
        case _ if spec.step_weight:
            fields.append(("Traffic routing", f"Weight step: {spec.step_weight} max: {spec.max_weight}"))
        case _ if spec.step_weights:
            steps = ",".join(map(str, spec.step_weights))
            fields.append(("Traffic routing", f"Weight steps: {steps} max: {spec.top_weight}"))
    return tuple(fields)

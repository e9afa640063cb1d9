"""The cells of `meshproxy canary status`, as a table and as lines that go on under one header.

Canary, its ReleasePolicy, its orders --Form.cells--> cells --Form.table--> every column as wide as it must be
                                                            --Lines.after--> what differs from the last look, in columns that
                                                                             were wide from the beginning
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from meshproxy.cli import canary_objects, canary_standing
from meshproxy.cli.common import age, columns

if TYPE_CHECKING:
    from control.canary.declared.policy import ReleasePolicy
    from control.store.store import Object, Store

# Of a table that grows, in characters: what fits most (the longest status is "WaitingPromotion (suspended)").  What is longer
# widens its column for the lines after it.
_WIDTHS = {"NAMESPACE": 12, "NAME": 20, "STATUS": 28, "LASTTRANSITION": 14, "TARGET": 20, "STEP": 14, "STEPWEIGHTS": 24}


class Form:
    """Which columns there are, and what stands in them."""

    def __init__(self, store: Store, *, wide: bool, everywhere: bool) -> None:
        self._store = store
        self._wide = wide
        self._everywhere = everywhere
        self.header = [*(["NAMESPACE"] if everywhere else []), "NAME", "STATUS", "WEIGHT", "FAILEDCHECKS", "LASTTRANSITION"]
        if wide:
            self.header += ["TARGET", "INTERVAL", "STEP", "STEPWEIGHT", "STEPWEIGHTS", "MAXWEIGHT", "PAUSED"]
        self.header.append("MESSAGE")

    def table(self, canaries: Sequence[Object]) -> str:
        return columns(self.header, map(self.cells, canaries))

    def cells(self, canary: Object) -> list[str]:
        now, metadata = canary.get("status") or {}, canary["metadata"]
        paused = canary_standing.commands_of(canary).pause
        cells = [metadata["namespace"]] if self._everywhere else []
        cells += [
            metadata["name"],
            (now.get("phase") or "<none>") + _held(canary, paused),
            _weight(now),
            str(now.get("failedChecks", 0)),
            f"{age(now.get('lastTransitionTime'))} ago" if now.get("lastTransitionTime") else "<none>",
        ]
        if self._wide:
            cells += [*self._details(canary, now), "yes" if paused else ""]
        return [*cells, canary_standing.message(self._store, canary)]

    def _details(self, canary: Object, now: Object) -> list[str]:
        spec = canary.get("spec") or {}
        analysis = spec.get("analysis") or {}
        policy: ReleasePolicy | None = None
        own = [
            str(analysis.get("stepWeight", "")),
            ",".join(str(step) for step in analysis.get("stepWeights") or ()),
            str(analysis.get("maxWeight", "")),
        ]
        try:
            read, policy = canary_objects.read(self._store, canary)
        except click.ClickException:  # nothing holds that can be read; the message, or an Event, says what is wrong
            weights = own
        else:
            from control.canary.declared.policy import steps_of
            from control.canary.machine.strategy import Strategy, strategy

            weighted = strategy(read) is Strategy.CANARY
            if policy is not None and weighted and policy.steps and policy.steps != steps_of(read):
                weights = ["", ",".join(f"{step.weight:g}" for step in policy.steps) + " (ReleasePolicy)", ""]
            else:
                weights = own
        target = str((spec.get("targetRef") or {}).get("name", ""))
        return [target, str(analysis.get("interval", "60s")), _step(now, policy), *weights]


class Lines:
    """A table that grows: the header once, then a line for each Canary that is new, another than before, or gone."""

    def __init__(self, form: Form) -> None:
        self._form = form
        self._widths = [max(len(name), _WIDTHS.get(name, 0)) for name in form.header]
        self._age = form.header.index("LASTTRANSITION")  # grows without anything happening
        self._shown: dict[tuple[str, str], list[str]] = {}
        self._begun = False

    def after(self, canaries: Sequence[Object]) -> Iterator[str]:
        """The lines that this look adds."""
        present = {(obj["metadata"]["namespace"], obj["metadata"]["name"]): self._form.cells(obj) for obj in canaries}
        if present and not self._begun:
            self._begun = True
            yield self._line(self._form.header)
        for key, cells in present.items():
            if self._without_age(self._shown.get(key)) != self._without_age(cells):
                yield self._line(cells)
        for key in self._shown.keys() - present.keys():
            cells = self._shown[key]
            cells[self._form.header.index("STATUS")] = "(deleted)"
            yield self._line([*cells[:-1], ""])
        self._shown = present

    def _without_age(self, cells: list[str] | None) -> list[str] | None:
        return None if cells is None else [*cells[: self._age], *cells[self._age + 1 :]]

    def _line(self, cells: Sequence[str]) -> str:
        self._widths = [max(width, len(cell)) for cell, width in zip(cells, self._widths, strict=True)]
        return "   ".join(cell.ljust(width) for cell, width in zip(cells, self._widths, strict=True)).rstrip()


def _held(canary: Object, paused: bool) -> str:
    if canary_standing.is_suspended(canary):
        return " (suspended)"
    return " (paused)" if paused else ""


def check(seen: Object) -> str:
    """One check of a decision: what was measured, over how much, and what is allowed."""
    from control.canary.machine.number import form, of_requests

    value, number = seen.get("value"), form(seen["metric"], seen.get("requests"))
    said = "no data" if value is None else number(value)
    requests = of_requests(seen.get("requests"))
    allowed = [f"at least {number(seen['min'])}"] if "min" in seen else []
    allowed += [f"at most {number(seen['max'])}"] if "max" in seen else []
    limits = f" ({', '.join(allowed)})" if allowed else ""
    return f"{seen['metric']} {said}{requests}{limits}"


def _weight(now: Object) -> str:
    """Exact where a policy's steps say so: the object itself has whole percent."""
    from control.canary.machine.status import Status

    try:
        return f"{Status.of(now).canary_weight:g}"
    except ValueError:  # another controller's phase
        return str(now.get("canaryWeight", 0))


def _step(now: Object, policy: ReleasePolicy | None) -> str:
    """Of a ReleasePolicy's steps: which of how many, and whether something else is waited for."""
    from control.canary.machine.progress import State, progress
    from control.canary.machine.status import Status

    try:
        at = progress(Status.of(now))
    except ValueError:
        return ""
    if at is None:
        return ""
    steps = () if policy is None else policy.promotion_steps if at.promoting else policy.steps
    of = f"/{len(steps)}" if at.step <= len(steps) else ""
    return f"{'back ' if at.promoting else ''}{at.step}{of}{'' if at.state is State.LOOKED_AT else ' (waits)'}"

"""ReleasePolicy (meshproxy.dev/v1alpha1): what a release is to do beyond what a Canary can say, under the Canary's name.

    Canary "web" -- the same namespace and name -- ReleasePolicy "web"

Here its shape and what the shape cannot say; `control.canary.declared.policy` reads an object into what the release
machine takes.  docs/canary.md has a table of the fields.
"""

# ruff: noqa: RUF012 - msgspec copies an empty default

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta

from control.resources.canary import Duration, Metric
from control.resources.core import Count, ObjectMeta
from control.resources.documents import Path, without_nulls
from control.resources.quantity import seconds
from control.resources.shape import Report, Shape, words
from control.store.store import Object

GROUP = "meshproxy.dev"
VERSIONS = ("v1alpha1",)
API_VERSION = "meshproxy.dev/v1alpha1"
KIND = "ReleasePolicy"

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")

MAX_STEPS = 100  # one for each percent; a person reads them
MAX_CHECKS = 20  # of a step: each is asked of a source at every look
MAX_WINDOWS = 50
MAX_MEMBERS = 20  # every member looks at all others at every tick
GRAIN = Fraction(1, 100)  # percent: what the weights of a split can express (of 10,000)

Weight = Annotated[float, Meta(ge=0.01, le=100)]
Text = Annotated[str, Meta(min_length=1)]

_CLOCK = re.compile(r"([01][0-9]|2[0-4]):([0-5][0-9])\Z")


class Step(Shape, frozen=True, kw_only=True):
    weight: Weight
    duration: Duration = ""  # absent: the Canary's interval
    min_requests: Count = 0
    pause: bool = False
    checks: tuple[Metric, ...] = ()


class PromotionStep(Shape, frozen=True, kw_only=True):
    weight: Weight
    duration: Duration = ""
    pause: bool = False
    checks: tuple[Metric, ...] = ()


class Window(Shape, frozen=True, kw_only=True):
    days: tuple[Literal["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"], ...] = ()  # absent: every day
    # `from` is a word of Python's; the field's name in the manifest is "from".
    begin: Annotated[str, Meta(extra={"expected": 'a time such as "09:00"'})] = msgspec.field(name="from", default="00:00")
    to: Annotated[str, Meta(extra={"expected": 'a time such as "17:00"'})] = "24:00"
    time_zone: Text = "UTC"


class Evidence(Shape, frozen=True, kw_only=True):
    alpha: Annotated[float, Meta(gt=0, lt=1)] = 0.01
    failure_margin: Annotated[float, Meta(ge=0, le=100)] = 1.0
    slow_margin: Annotated[float, Meta(ge=0, le=100)] = 2.0
    min_requests: Count = 0
    baseline: bool = False


class PolicySpec(Shape, frozen=True, kw_only=True):
    steps: tuple[Step, ...] = ()
    promotion_steps: tuple[PromotionStep, ...] = ()
    warm_up: Duration = "0s"
    windows: tuple[Window, ...] = ()
    evidence: Evidence | None = None
    on_inconclusive: Literal["hold", "rollback", "approve"] = "hold"
    max_wait: Duration = "1h"
    members: tuple[Text, ...] = ()


class PolicyShape(Shape, frozen=True, kw_only=True):
    """The typed view.  `spec` is None for an object that only keeps a release's history."""

    unread = words("apiVersion kind")
    metadata: ObjectMeta
    spec: PolicySpec | None = None
    status: dict[str, Any] = {}


def parse(obj: Object) -> PolicyShape:
    """The typed view of an accepted object.  Raises msgspec.ValidationError (a ValueError) on one never checked."""
    return msgspec.convert(without_nulls(obj), PolicyShape)


def clock(text: str) -> int:
    """Minutes since midnight of "HH:MM", 0 .. 1440.  Raises ValueError."""
    match = _CLOCK.match(text)
    minutes = int(match.group(1)) * 60 + int(match.group(2)) if match else 1441
    if minutes > 1440:
        raise ValueError(f'"{text}", expected a time from "00:00" to "24:00"')
    return minutes


def zone(name: str) -> ZoneInfo:
    """Raises ValueError if this machine knows no such zone."""
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError) as error:  # KeyError: ZoneInfoNotFoundError
        raise ValueError(f'"{name}", expected the name of a time zone such as UTC or Europe/Berlin') from error


def check_policy(obj: Object, report: Report) -> None:
    """What the shape cannot say."""
    spec = obj.get("spec")
    if spec is None:
        report.error(("spec",), "is missing, expected a map", "without it the policy says nothing")
        return
    _steps(spec.get("steps") or [], ("spec", "steps"), report)
    _steps(spec.get("promotionSteps") or [], ("spec", "promotionSteps"), report)
    for name in ("warmUp", "maxWait"):
        _duration(spec, name, ("spec",), report)
    _limit(spec.get("windows") or [], MAX_WINDOWS, ("spec", "windows"), report)
    for index, window in enumerate(spec.get("windows") or []):
        _window(window, ("spec", "windows", index), report)
    _members(spec.get("members") or [], obj["metadata"]["name"], report)
    if spec.get("evidence") is None:
        counted = any(step.get("minRequests") for step in spec.get("steps") or [])
        for name in ("onInconclusive",) if counted else ("onInconclusive", "maxWait"):
            if spec.get(name) is not None:
                report.warning(("spec", name), "has no effect without spec.evidence", "evidence: {} takes its defaults")


def _steps(steps: list[Any], path: Path, report: Report) -> None:
    _limit(steps, MAX_STEPS, path, report)
    before = 0.0
    for index, step in enumerate(steps):
        here: Path = (*path, index)
        weight = step["weight"]
        if Fraction(str(weight)) % GRAIN:
            report.error((*here, "weight"), f"found {weight}, expected a multiple of 0.01 percent")
        if weight < before:
            report.error((*here, "weight"), f"found {weight} after {before:g}, expected weights that do not fall")
        before = weight
        _duration(step, "duration", here, report)
        checks = step.get("checks") or []
        _limit(checks, MAX_CHECKS, (*here, "checks"), report)
        for number, check in enumerate(checks):
            where: Path = (*here, "checks", number)
            _duration(check, "interval", where, report)
            limits = check.get("thresholdRange") or {}
            if check.get("threshold") is None and limits.get("min") is None and limits.get("max") is None:
                report.error(where, "has no threshold", "give thresholdRange with min or max")


def _window(window: Object, path: Path, report: Report) -> None:
    read: dict[str, int] = {}
    for name, default in (("from", "00:00"), ("to", "24:00")):
        try:
            read[name] = clock(window.get(name, default))
        except ValueError as mistake:
            report.error((*path, name), f"found {mistake}")
    if len(read) == 2 and read["from"] == read["to"]:
        report.error(path, f"from and to are both {window.get('from', '00:00')}: it would never be open")
    try:
        zone(window.get("timeZone", "UTC"))
    except ValueError as mistake:
        report.error((*path, "timeZone"), f"found {mistake}")


def _members(members: list[str], own: str, report: Report) -> None:
    _limit(members, MAX_MEMBERS, ("spec", "members"), report)
    for index, name in enumerate(members):
        where: Path = ("spec", "members", index)
        if name == own:
            report.error(where, f"{name} is the Canary of this policy itself", "list only the others")
        elif name in members[:index]:
            report.error(where, f"{name} is in the list twice", "keep one")


def _limit(items: list[Any], most: int, path: Path, report: Report) -> None:
    if len(items) > most:
        report.error(path, f"has {len(items)} items, expected at most {most}")


def _duration(holder: Object, field: str, path: Path, report: Report) -> None:
    value = holder.get(field)
    if value is None:
        return
    try:
        seconds(value)
    except ValueError as mistake:
        report.error((*path, field), f"found {mistake}")

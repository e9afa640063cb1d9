"""A timeline for a terminal: a row a tick, and a line of bars for the weight and for each metric.

TIME   PHASE        WEIGHT  CHECKS                                    WHAT
+0:10  Progressing  10 %    request-success-rate 100 % of 4 requests  Advance podinfo.test canary weight 10

weight                ▁▂▃▄▅▆█▁  0 .. 50 %
request-success-rate  ██▅▅▅     95 .. 100 %, at least 99 %
"""

from __future__ import annotations

from collections.abc import Sequence

from control.canary.machine.number import form, of_requests
from control.canary.simulate.timeline import Entry, Outcome, Said, Seen, Timeline

BARS = "▁▂▃▄▅▆▇█"
_STARTING = "Starting canary analysis"
_ANEW = ("New revision detected!", "Analysis changed")
WIDTH = 100  # columns of a line of bars; more ticks than that are put together


def clock(seconds: float) -> str:
    """+1:05, +2:00:05 or, of initialisation, -0:10."""
    whole = round(abs(seconds))
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
    return ("-" if seconds < 0 else "+") + text


def rows(timeline: Timeline) -> tuple[list[str], list[list[str]]]:
    """Header and cells; the name of the Canary is a column if there are several."""
    several = len(timeline.outcomes) > 1
    header = ["TIME", *(["CANARY"] if several else []), "PHASE", "WEIGHT", "CHECKS", "WHAT"]
    body: list[list[str]] = []
    begun: set[str] = set()  # Canaries whose analysis was told to start; it is so at each look before the first weight
    for entry, again in _joined(timeline.entries):
        told = [one for one in entry.said if not (one.text.startswith(_STARTING) and entry.canary in begun)]
        begun |= {entry.canary for one in told if one.text.startswith(_STARTING)}
        if any(one.text.startswith(_ANEW) for one in told):
            begun.discard(entry.canary)
        said = [f"{'! ' if one.warning else ''}{one.text}" for one in told] or [""]
        checks = [_check(seen) for seen in entry.seen]
        for line in range(max(len(said), len(checks), 1)):
            first = line == 0
            cells = [clock(entry.at), *([entry.canary] if several else []), entry.phase, _weight(entry)] if first else None
            body.append(
                [
                    *(cells or [""] * (4 if several else 3)),
                    checks[line] if line < len(checks) else "",
                    said[line] if line < len(said) else "",
                ]
            )
        if again:
            times = f"the same {len(again)} more time{'s' if len(again) > 1 else ''}, until {clock(again[-1].at)}"
            body.append([*[""] * (4 if several else 3), "", f"  ({times})"])
    return header, body


def _joined(entries: Sequence[Entry]) -> list[tuple[Entry, list[Entry]]]:
    """Entries, each with those of its Canary that follow and say the same, or nothing: looked at, and nothing changed."""
    found: list[tuple[Entry, list[Entry]]] = []
    last: dict[str, tuple[Entry, list[Entry]]] = {}
    for entry in entries:
        before = last.get(entry.canary)
        if before is not None and _gist(before[0]) in (_gist(entry), _gist(entry, before[0].said)):
            before[1].append(entry)
            continue
        last[entry.canary] = (entry, [])
        found.append(last[entry.canary])
    return found


def _gist(entry: Entry, silent: tuple[Said, ...] = ()) -> object:
    """`silent`: what an entry that says nothing is taken to say."""
    return entry.phase, entry.weight, entry.iteration, entry.said or silent, [seen.good for seen in entry.seen]


def _weight(entry: Entry) -> str:
    share = f"{entry.weight:g} %{', mirrored' if entry.mirrored else ''}"
    return f"{share}, iteration {entry.iteration}" if entry.iteration > 0 else share


def _check(seen: Seen) -> str:
    value = "no data" if seen.value is None else form(seen.metric, seen.requests)(seen.value)
    requests = "" if seen.requests is None or seen.value is None else of_requests(round(seen.requests))
    return f"{'' if seen.good else '! '}{seen.metric} {value}{requests}"


def bars(timeline: Timeline) -> list[tuple[str, str, str]]:
    """(what, bars, range) for the weight of each Canary and for each of its metrics."""
    lines: list[tuple[str, str, str]] = []
    for canary in timeline.outcomes:
        entries = timeline.of(canary)
        mark = f"{canary} " if len(timeline.outcomes) > 1 else ""
        weights = [entry.weight for entry in entries]
        if weights:
            lines.append((f"{mark}weight", sparkline(weights, 0.0, max(*weights, 1.0)), f"0 .. {max(weights):g} %"))
        for metric in dict.fromkeys(seen.metric for entry in entries for seen in entry.seen):
            found = [next((seen for seen in entry.seen if seen.metric == metric), None) for entry in entries]
            lines.append((f"{mark}{metric}", *_metric_line(found)))
    return lines


def _metric_line(found: Sequence[Seen | None]) -> tuple[str, str]:
    values = [seen.value for seen in found if seen is not None and seen.value is not None]
    limits = [limit for seen in found if seen is not None for limit in (seen.minimum, seen.maximum) if limit is not None]
    if not values:
        return "", "no data"
    low, high = min(*values, *limits, values[0]), max(*values, *limits, values[0])
    one = next(seen for seen in found if seen is not None)
    number = form(one.metric, next((seen.requests for seen in found if seen is not None and seen.requests is not None), None))
    allowed = [f"at least {number(one.minimum)}"] if one.minimum is not None else []
    allowed += [f"at most {number(one.maximum)}"] if one.maximum is not None else []
    said = ", ".join([f"{number(min(values)).removesuffix(' %')} .. {number(max(values))}", *allowed])
    return sparkline([None if seen is None else seen.value for seen in found], low, high), said


def sparkline(values: Sequence[float | None], low: float, high: float) -> str:
    """One character a value, a space for none; at most WIDTH of them (the greatest of those put together)."""
    each = -(-len(values) // WIDTH) or 1
    groups = [[v for v in values[i : i + each] if v is not None] for i in range(0, len(values), each)]
    span = high - low or 1.0
    top = len(BARS) - 1
    return "".join(
        BARS[min(top, max(0, round((max(group) - low) / span * top)))] if group else " " for group in groups
    ).rstrip()


def verdict(timeline: Timeline) -> str:
    """The last line: how it ended, and when."""
    ends = {name: timeline.of(name)[-1] for name in timeline.outcomes if timeline.of(name)}
    said = []
    for name, outcome in timeline.outcomes.items():
        when = f" after {clock(ends[name].at)[1:]}" if name in ends else ""
        said.append(f"{name} is {outcome.value}{when}")
    text = "; ".join(said)
    return f"{text}. {timeline.waits_for}" if timeline.outcome is Outcome.UNDECIDED and timeline.waits_for else text

"""Do client, proxies and app agree on what happened?   Pure: counters in, lines out.

    client --begun--> outbound exchanges --attempts--> inbound requests --> app
              1         |            |        2               |         3
                        4            4        4               4

    1  client begun = outbound exchanges                     for each port, and so are the answered and the cancelled
    2  outbound exchanges + retries = outbound attempts = inbound received (+ refused there)
    3  inbound received = app
    4  every request that began has ended, in exactly one outcome
    5  nothing was refused, nothing escaped, the app saw no violation

Where streams are cancelled on purpose 3 is a bound: a request may be cancelled after the inbound proxy counted it and before it
was sent to the app.  The load cancels on ports of their own, so that all others are equations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.soak.app import PORTS
from benchmarks.soak.load import Book
from meshproxy.telemetry.golden import Page

CANCELLING = {PORTS["cancel"], PORTS["leave"]}
ESCAPED = "meshproxy_internal_errors_total"
COLUMNS = ("", "client", "exchanges", "retries", "attempts", "inbound", "app")


@dataclass(frozen=True)
class Facts:
    """`books`: of the client, by kind.  Pages: what each counter of an outbound, an inbound proxy grew by.  `app`: by port."""

    books: Mapping[str, Book]
    outbound: Sequence[Page]
    inbound: Sequence[Page]
    app: Mapping[str, int]


@dataclass(frozen=True)
class Line:
    what: str
    said: str
    agrees: bool


def audit(facts: Facts) -> list[Line]:
    found = []
    for name, port in PORTS.items():
        found += list(_port(facts, name, port))
    refused = sum(_total(page, "meshproxy_refused_total") for page in [*facts.outbound, *facts.inbound])
    pages = [*facts.outbound, *facts.inbound]
    escaped = sum(_total(page, ESCAPED) for page in pages)
    counted = all(any(name == ESCAPED for name, _ in page) for page in pages)  # a counter that is not there says nothing
    violations = facts.app.get("violations", 0)
    found.append(Line("refused by a proxy", f"{refused:.0f}", refused == 0))
    found.append(
        Line(f"exceptions that escaped ({ESCAPED})", f"{escaped:.0f}" if counted else "not counted", counted and not escaped)
    )
    found.append(Line("violations of HTTP the app saw", f"{violations}", violations == 0))
    return found


def _port(facts: Facts, name: str, port: int) -> Iterator[Line]:
    kinds = [book for book in facts.books.values() if book.port == port]
    begun, answered = sum(book.begun for book in kinds), sum(book.answered for book in kinds)
    cancelled = sum(book.cancelled for book in kinds)
    out = _Side(facts.outbound, port, "outbound")
    into = _Side(facts.inbound, port, "inbound")
    app = facts.app.get(str(port), 0)
    yield _equal(f"{name}: client begun = outbound exchanges", begun, out.exchanges)
    yield _equal(f"{name}: client answered = outbound exchanges answered", answered, out.exchanges_answered)
    yield _equal(f"{name}: client cancelled = outbound exchanges cancelled", cancelled, out.exchanges_cancelled)
    yield _equal(f"{name}: outbound exchanges + retries = outbound attempts", out.exchanges + out.retries, out.attempts)
    yield _equal(f"{name}: outbound attempts = inbound received", out.attempts, into.attempts)
    if port in CANCELLING:
        least = into.attempts - into.cancelled
        said = f"{least:.0f} <= {app} <= {into.attempts:.0f}"
        yield Line(
            f"{name}: inbound received but those cancelled <= app <= inbound received", said, least <= app <= into.attempts
        )
    else:
        yield _equal(f"{name}: inbound received = app", into.attempts, app)
    for side in (out, into):
        yield _equal(f"{name}: {side.direction} attempts all ended", side.attempts, side.ended)
    yield _equal(f"{name}: outbound exchanges all ended", out.exchanges, out.exchanges_ended)


def table(facts: Facts) -> list[tuple[str, ...]]:
    """One row a port: what each of them counted."""
    rows: list[tuple[str, ...]] = [COLUMNS]
    for name, port in PORTS.items():
        out, into = _Side(facts.outbound, port, "outbound"), _Side(facts.inbound, port, "inbound")
        begun = sum(book.begun for book in facts.books.values() if book.port == port)
        counts = (begun, out.exchanges, out.retries, out.attempts, into.attempts, facts.app.get(str(port), 0))
        rows.append((name, *(f"{count:.0f}" for count in counts)))
    return rows


class _Side:
    """The counters of one direction for one port."""

    def __init__(self, pages: Sequence[Page], port: int, direction: str) -> None:
        self.direction = direction

        def total(name: str, **labels: str) -> float:
            return sum(_total(page, name, port, direction=direction, **labels) for page in pages)

        self.exchanges = total("route_request_total")
        self.exchanges_answered = total("route_response_total", classification="success")
        self.exchanges_cancelled = total("meshproxy_route_cancelled_total")
        self.exchanges_ended = total("route_response_total") + self.exchanges_cancelled
        self.retries = total("route_retry_total")
        # Probes come in without an identity and go to the app as well: only the mesh's own are compared.
        self.attempts = total("request_total", tls="true")
        self.cancelled = total("meshproxy_cancelled_total", tls="true")
        self.ended = total("response_total", tls="true") + self.cancelled


def _total(page: Page, name: str, port: int | None = None, **labels: str) -> float:
    """The sum of the series of `name` with these labels; `port`: the Service's (outbound) or the app's (inbound)."""
    found = 0.0
    for (series, pairs), value in page.items():
        if series == name:
            own = dict(pairs)
            if (
                port is not None
                and own.get("target_port") != str(port)
                and own.get("authority", "").rpartition(":")[2] != str(port)
            ):
                continue
            if labels.items() <= own.items():
                found += value
    return found


def _equal(what: str, left: float, right: float) -> Line:
    return Line(what, f"{left:.0f} = {right:.0f}" if left == right else f"{left:.0f} and {right:.0f}", left == right)


def growth(samples: Sequence[tuple[float, int]]) -> float:
    """How much a line fitted through (time, bytes) rises from the first to the last, as a part of where it begins."""
    if len(samples) < 2 or samples[0][0] == samples[-1][0]:
        return 0.0
    times, values = [time for time, _ in samples], [value for _, value in samples]
    mean_time, mean_value = sum(times) / len(times), sum(values) / len(values)
    slope = sum((t - mean_time) * (v - mean_value) for t, v in samples) / sum((t - mean_time) ** 2 for t in times)
    begin = mean_value - slope * (mean_time - times[0])
    return slope * (times[-1] - times[0]) / begin if begin > 0 else 0.0

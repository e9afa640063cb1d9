"""The auditor of the soak sees every kind of disagreement.  (A real mesh: tests/mesh_e2e/test_e2e_books.py.)"""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks.soak.app import PORTS
from benchmarks.soak.books import ESCAPED, Facts, audit, growth, table
from benchmarks.soak.load import Book
from meshproxy.telemetry.golden import Page

PORT = PORTS["http"]
AUTHORITY = ("authority", f"soak.soak.svc.cluster.local:{PORT}")
OUT, IN = ("direction", "outbound"), ("direction", "inbound")
TLS = ("tls", "true")
GOOD = ("classification", "success")
TARGET = ("target_port", str(PORT))
EXCHANGES = ("route_request_total", (AUTHORITY, OUT))
ANSWERED = ("route_response_total", (AUTHORITY, GOOD, OUT))
SENT = ("request_total", (AUTHORITY, OUT, TLS))
SENT_ENDED = ("response_total", (AUTHORITY, GOOD, OUT, TLS))
RECEIVED = ("request_total", (IN, TARGET, TLS))
RECEIVED_ENDED = ("response_total", (GOOD, IN, TARGET, TLS))
REFUSED = ("meshproxy_refused_total", (OUT, ("reason", "x")))
NONE_ESCAPED = (ESCAPED, ())


def facts() -> Facts:
    """100 requests, one of them retried, so 101 attempts."""
    outbound: Page = {EXCHANGES: 100, ANSWERED: 100, SENT: 101, SENT_ENDED: 101, NONE_ESCAPED: 0}
    outbound["route_retry_total", (AUTHORITY, OUT)] = 1
    inbound: Page = {RECEIVED: 101, RECEIVED_ENDED: 101, NONE_ESCAPED: 0}
    inbound["request_total", (IN, TARGET, ("tls", "no_identity"))] = 7  # probes
    return Facts({"http": Book(PORT, begun=100, answered=100)}, [outbound], [inbound], {str(PORT): 101})


def differing(found: Facts) -> set[str]:
    return {line.what for line in audit(found) if not line.agrees}


def test_books_that_agree_have_nothing_to_say() -> None:
    assert differing(facts()) == set()
    assert ("http", "100", "100", "1", "101", "101", "101") in table(facts())


@pytest.mark.parametrize(
    ("where", "series", "what"),
    [
        ("outbound", EXCHANGES, "http: client begun = outbound exchanges"),
        ("outbound", ANSWERED, "http: client answered = outbound exchanges answered"),
        ("outbound", SENT, "http: outbound attempts = inbound received"),
        ("outbound", SENT_ENDED, "http: outbound attempts all ended"),
        ("inbound", RECEIVED, "http: inbound received = app"),
        ("inbound", RECEIVED_ENDED, "http: inbound attempts all ended"),
        ("outbound", REFUSED, "refused by a proxy"),
        ("inbound", NONE_ESCAPED, f"exceptions that escaped ({ESCAPED})"),
    ],
)
def test_one_more_on_one_side_is_a_difference(where: str, series: tuple[str, tuple[tuple[str, str], ...]], what: str) -> None:
    found = facts()
    page = getattr(found, where)[0]
    page[series] = page.get(series, 0) + 1
    assert what in differing(found)


def test_a_request_the_app_never_saw_and_one_it_saw_twice_are_differences() -> None:
    for count in (100, 102):
        assert differing(dataclasses.replace(facts(), app={str(PORT): count})) == {"http: inbound received = app"}


def test_a_violation_the_app_saw_is_a_difference() -> None:
    found = facts()
    assert differing(dataclasses.replace(found, app={**found.app, "violations": 1})) == {"violations of HTTP the app saw"}


def test_a_counter_that_is_not_there_is_not_taken_for_zero() -> None:
    found = facts()
    del found.inbound[0][NONE_ESCAPED]
    assert differing(found) == {f"exceptions that escaped ({ESCAPED})"}


@pytest.mark.parametrize(("app", "agrees"), [(94, False), (95, True), (100, True), (101, False)])
def test_cancelled_requests_may_but_need_not_have_reached_the_app(app: int, agrees: bool) -> None:
    port = str(PORTS["cancel"])
    inbound: Page = {NONE_ESCAPED: 0}
    inbound["request_total", (IN, ("target_port", port), TLS)] = 100
    inbound["meshproxy_cancelled_total", (IN, ("target_port", port), TLS)] = 5
    lines = [line for line in audit(Facts({}, [], [inbound], {port: app})) if "but those cancelled" in line.what]
    assert [line.agrees for line in lines if line.what.startswith("cancel:")] == [agrees]


def test_growth_is_what_a_fitted_line_rises_by_and_one_spike_does_not_matter_much() -> None:
    flat = [(float(t), 100_000_000) for t in range(100)]
    assert growth(flat) == 0
    assert growth([(t, 100_000_000 + int(t * 200_000)) for t, _ in flat]) == pytest.approx(0.198, abs=0.001)
    spike = [(t, 150_000_000 if t == 50 else value) for t, value in flat]
    assert abs(growth(spike)) < 0.02
    assert growth([]) == growth([(1.0, 5)]) == 0

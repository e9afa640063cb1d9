"""The rows of test_http2_client_musts.py again: a server plays them at a running `forward`, with either engine.

    RawClient --HTTP/2--> forward --http2-engine ENGINE --HTTP/2--> Backend, which plays the row that is set

The engines alone are judged there; here: what the server gets back from the proxy, and that no client takes a malformed
answer for a good one.  Each row has a connection of its own, closed behind it, and is played to a POST: a GET would be tried
again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from forward_process import DEADLINE_S, Forward, until
from http2_differences import FINE, Outcome, expected, seen
from http2_harness import END_HEADERS, END_STREAM, HEADERS, RST_STREAM, Raw, frame
from http2_peer import CANCEL, PING, RawClient, get, literals
from http2_rows import ask_answered, ask_nothing, ask_open, ask_reset_by_peer, ask_reset_by_us, u32
from scripted_backend import Connection, Ended, Http2Connection, ScriptedBackend
from test_http2_client_musts import COLUMNS, FRAMES, STATES

Before = Callable[[Raw], object]
FOR_HEAD = "8.1.1 a length and no DATA is right for HEAD"


class Backend(ScriptedBackend):
    """Brings about `before`, plays `data` to the request of a connection, and notes what comes back."""

    def __init__(self) -> None:
        super().__init__({})
        self.failures: list[BaseException] = []
        self.set(ask_nothing, b"")

    def set(self, before: Before, data: bytes) -> None:
        self.before = before
        self.data = data
        self.outcome: Outcome = None
        self.played = 0
        self.over = threading.Event()

    def serve(self, connection: Connection) -> None:
        peer = Http2Connection(connection)
        assert peer.next_request() == (1, "/")
        self.played += 1
        if self.before is ask_answered:
            peer.head(1, end=True)
        elif self.before is ask_reset_by_peer:
            peer.send(frame(RST_STREAM, 0, 1, u32(CANCEL)))
        elif self.before is ask_reset_by_us:
            peer.until(lambda: peer.resets.pop(1, 0) != 0)
        try:
            peer.send(self.data + frame(PING, 0, 0, b"barrier!"))
            peer.until(lambda: b"barrier!" in peer.pings or peer.goaway >= 0)
            self.outcome = ("reset", peer.resets[1]) if 1 in peer.resets else FINE
            if peer.goaway >= 0:
                self.outcome = ("goaway", peer.goaway)
            connection.fin()  # waits until the proxy has let go of this connection, too
        except Ended:
            pass
        finally:
            self.over.set()


@pytest.fixture(scope="module")
def backend(which: str) -> Iterator[Backend]:
    made = Backend()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def forward(backend: Backend, which: str) -> Iterator[Forward]:
    made = Forward(backend.port, "--upstream", "http2", "--http2-engine", which)
    yield made
    made.stop()


def check(
    forward: Forward, backend: Backend, before: Before, data: bytes, wanted: Outcome, malformed: bool, method: bytes
) -> None:
    backend.set(before, data)
    with RawClient(forward.port) as client:
        end = END_STREAM if before is not ask_open else 0
        client.send(frame(HEADERS, END_HEADERS | end, 1, literals(get(b"/", method=method))))
        if before is ask_reset_by_us:
            until(lambda: backend.played == 1, "the request at the backend")
            client.send(frame(RST_STREAM, 0, 1, u32(CANCEL)))
        assert backend.over.wait(DEADLINE_S)
        assert backend.outcome == seen(wanted)
        if malformed:
            client.wait(1)
            assert client.status.get(1) != 200 or 1 in client.resets, "taken for a good answer"
        assert client.alive()
    assert backend.played == 1


@pytest.mark.parametrize("rule", list(FRAMES))
def test_frames(which: str, forward: Forward, backend: Backend, rule: str) -> None:
    before, data, ours = FRAMES[rule]
    malformed = ours != FINE and before not in (ask_answered, ask_reset_by_peer, ask_reset_by_us)
    method = b"HEAD" if rule == FOR_HEAD else b"POST"
    check(forward, backend, before, data, expected(which, "client", rule, ours), malformed, method)


@pytest.mark.parametrize("column", list(COLUMNS))
@pytest.mark.parametrize("state", [state for state, (before, _) in STATES.items() if before is not ask_nothing])
def test_stream_states(which: str, forward: Forward, backend: Backend, state: str, column: str) -> None:
    before, row = STATES[state]
    wanted = expected(which, "client", f"5.1 {state}: {column}", row[list(COLUMNS).index(column)])
    check(forward, backend, before, COLUMNS[column], wanted, False, b"POST")

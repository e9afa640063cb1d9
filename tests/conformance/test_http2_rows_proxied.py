"""The rows of test_http2_musts.py and test_hpack_musts.py again, played at a running `forward`, with either engine.

    RawClient --frames--> forward --http2-engine ENGINE --HTTP/1.1--> Backend

The engines alone are judged there; here the whole proxy is: what the client gets back, that the connection and its HPACK state
are right afterwards, and that nothing malformed reaches the backend.  Each head carries the number of its row as a field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from forward_process import Forward, until
from http2_differences import FINE, Outcome, expected
from http2_harness import DATA, END_HEADERS, END_STREAM, GET, HEADERS, POST, RST_STREAM, Raw, block, frame
from http2_peer import CANCEL, PING, RawClient, get
from http2_rows import (
    WHOLE,
    answered,
    half_closed_remote,
    nothing,
    opened,
    passed_over,
    reset_by_peer,
    reset_by_us,
    tunnel,
    u32,
)
from scripted_backend import Connection, ScriptedBackend
from test_hpack_musts import BLOCKS
from test_http2_musts import BODIES, COLUMNS, FRAMES, HEADS, STATES


class Backend(ScriptedBackend):
    """/ and *       reads until it is cut off, and notes the rows     /cut   ends in the middle of its answer
    /whole        notes that a whole request came                   svc.test:80   a tunnel that says nothing"""

    def __init__(self) -> None:
        super().__init__({"/": self.hang, "*": self.hang, "/cut": self.cut, "/whole": self.whole, "svc.test:80": self.tunnel})
        self.rows: set[int] = set()
        self.wholes = 0

    def hang(self, connection: Connection) -> None:
        for line in connection.head.lower().split(b"\r\n"):
            if line.startswith(b"x-row:"):
                self.rows.add(int(line[6:]))
        connection.until_closed()
        connection.fin()

    def cut(self, connection: Connection) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        connection.fin()

    def whole(self, connection: Connection) -> None:
        connection.read_body()
        self.wholes += 1
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    def tunnel(self, connection: Connection) -> None:
        self.hang(connection) if b"x-row" in connection.head.lower() else connection.send(b"HTTP/1.1 200 OK\r\n\r\n")
        connection.until_closed()
        connection.fin()


@pytest.fixture(scope="module")
def backend(which: str) -> Iterator[Backend]:
    made = Backend()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def forward(backend: Backend, which: str) -> Iterator[Forward]:
    made = Forward(backend.port, "--http2-engine", which)
    yield made
    made.stop()


def begin(client: RawClient, fields: list[tuple[bytes, bytes]], end: bool, stream_id: int = 1) -> None:
    client.send(frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream_id, block(fields)))


def bring_about(client: RawClient, before: Callable[[Raw], None]) -> None:
    """What the function of http2_rows.py does to an engine, at the proxy: stream 1 is in that state."""
    if before is opened:
        begin(client, POST, False)
    elif before is half_closed_remote:
        begin(client, GET, True)
    elif before is answered:
        begin(client, get(b"/answer"), True)
        client.wait(1)
        assert client.status[1] == 200
    elif before is reset_by_peer:
        begin(client, GET, True)
        client.send(frame(RST_STREAM, 0, 1, u32(CANCEL)))
    elif before is reset_by_us:
        begin(client, get(b"/cut", method=b"POST"), False)
        client.wait(1)
        assert client.resets.pop(1, 0) != 0
    elif before is passed_over:
        begin(client, POST, False, 3)
    elif before is tunnel:
        begin(client, [(b":method", b"CONNECT"), (b":authority", b"svc.test:80")], False)
        client.until(lambda: 1 in client.status)
        assert client.status[1] == 200
    else:
        assert before is nothing


def outcome(client: RawClient, data: bytes) -> Outcome:
    """Of these frames, for stream 1.  A PING behind them tells that they have been read."""
    client.send(data + frame(PING, 0, 0, b"barrier!"))
    client.until(lambda: b"barrier!" in client.pings or client.goaway >= 0)
    if client.goaway >= 0:
        return ("goaway", client.until_killed())
    assert not client.ended, "closed without a word"
    return ("reset", client.resets[1]) if 1 in client.resets else FINE


def check(client: RawClient, data: bytes, wanted: Outcome) -> None:
    """The outcome, and that an error of one stream leaves the connection right."""
    got = outcome(client, data)
    if wanted[0] == "status":
        client.wait(1)
        got = ("status", client.status[1])
    assert got == wanted
    if wanted[0] != "goaway":
        client.request(101, get(b"/next"))
        client.wait(101)
        assert (client.status[101], client.bodies[101]) == (200, b"/next")


@pytest.mark.parametrize("rule", list(FRAMES))
def test_frames(which: str, forward: Forward, rule: str) -> None:
    before, data, ours = FRAMES[rule]
    wanted = expected(which, "server", rule, ours)
    with RawClient(forward.port) as client:
        bring_about(client, before)
        if rule == "5.1.1 ids may be passed over":
            assert outcome(client, data) == wanted
        else:
            check(client, data, wanted)


@pytest.mark.parametrize("column", list(COLUMNS))
@pytest.mark.parametrize("state", list(STATES))
def test_stream_states(which: str, forward: Forward, state: str, column: str) -> None:
    before, row = STATES[state]
    data = COLUMNS[column]
    if state == "open" and column == "HEADERS":
        data = frame(HEADERS, WHOLE, 1, block([(b"x", b"y")]))  # trailers
    with RawClient(forward.port) as client:
        bring_about(client, before)
        check(client, data, expected(which, "server", f"5.1 {state}: {column}", row[list(COLUMNS).index(column)]))


@pytest.mark.parametrize("rule", list(HEADS))
def test_heads(which: str, forward: Forward, backend: Backend, rule: str) -> None:
    fields, ours = HEADS[rule]
    row = list(HEADS).index(rule)
    with RawClient(forward.port) as client:
        data = frame(HEADERS, WHOLE, 1, block([*fields, (b"x-row", b"%d" % row)]))
        check(client, data, expected(which, "server", rule, ours))
        if ours == FINE:
            until(lambda: row in backend.rows, "the request at the backend")


@pytest.mark.parametrize("rule", list(BODIES))
def test_bodies(which: str, forward: Forward, backend: Backend, rule: str) -> None:
    declared, sizes, ours = BODIES[rule]
    with RawClient(forward.port) as client:
        head = block([*get(b"/whole", method=b"POST"), (b"content-length", b"%d" % declared)])
        data = frame(HEADERS, END_HEADERS, 1, head)
        for i, size in enumerate(sizes):
            data += frame(DATA, END_STREAM if i == len(sizes) - 1 else 0, 1, bytes(size))
        check(client, data, expected(which, "server", rule, ours))
        if ours == FINE:
            client.wait(1)
            assert client.status[1] == 200


@pytest.mark.parametrize("rule", list(BLOCKS))
def test_blocks(which: str, forward: Forward, rule: str) -> None:
    data, ours = BLOCKS[rule]
    with RawClient(forward.port) as client:
        got = outcome(client, frame(HEADERS, WHOLE, 1, data))
        assert got == expected(which, "hpack", rule, ours)


def test_nothing_malformed_has_reached_the_backend(backend: Backend) -> None:
    """The last of this module: whatever was on its way has arrived by now.  A request of no content is whole when its head is,
    whatever DATA its client sends for it."""
    well_formed = {i for i, (_, outcome) in enumerate(HEADS.values()) if outcome == FINE}
    assert backend.rows <= well_formed
    assert backend.wholes <= len([rule for rule, (declared, _, ours) in BODIES.items() if ours == FINE or declared == 0])

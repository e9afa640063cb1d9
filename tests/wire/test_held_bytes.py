"""What an engine says it holds (Host.on_held) is what it holds, and nothing is held by a connection that is gone.

Random lives of connections: data in and out, windows, a socket that is full and takes again, resets, the end.
"""

from __future__ import annotations

from typing import Any

import http2_harness
import pytest
from http2_differences import CLIENTS, SERVERS
from http2_harness import DATA, END_HEADERS, HEADERS, POST, RST_STREAM, WINDOW_UPDATE, Log, Raw, block, frame
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st
from recorder import Recorder, RecordingSink, request, response

from meshproxy.wire.engine import CANCEL
from meshproxy.wire.http1 import Http1Client, Http1Server
from meshproxy.wire.limits import Limits
from meshproxy.wire.message import Field
from meshproxy.wire.opaque import OpaqueClient, OpaqueServer

STREAMS = 3

HTTP2_ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, STREAMS - 1), st.integers(0, 50_000)),
        st.tuples(st.just("end"), st.integers(0, STREAMS - 1), st.integers(0, 1000)),
        st.tuples(st.just("trailers"), st.integers(0, STREAMS - 1), st.just(0)),
        st.tuples(st.just("window"), st.integers(-1, STREAMS - 1), st.integers(1, 60_000)),
        st.tuples(st.just("reset"), st.integers(0, STREAMS - 1), st.just(0)),
        st.tuples(st.just("rst"), st.integers(0, STREAMS - 1), st.just(0)),
        st.tuples(st.just("data"), st.integers(0, STREAMS - 1), st.integers(0, 5000)),
        st.tuples(st.just("socket"), st.just(0), st.integers(0, 1)),
    ),
    max_size=30,
)


def held_by(engine: Any, streams: list[Any]) -> int:
    """Our queues are of bytes, those of the reference engine of (bytes, end)."""
    pieces = [piece for stream in streams for piece in stream.queue or ()]
    return engine.unsent + sum(len(piece[0] if isinstance(piece, tuple) else piece) for piece in pieces)


@pytest.mark.parametrize("make", [*SERVERS.values(), *CLIENTS.values()])
@profile(max_examples=120, deadline=None)
@given(actions=HTTP2_ACTIONS, end=st.sampled_from(["lost", "eof", "fault", "streams"]))
def test_http2_tells_of_every_byte_that_waits(make: Any, actions: list[tuple[str, int, int]], end: str) -> None:
    host = http2_harness.Recorder()
    engine: Any = make(host, Limits())
    server = engine.server
    raw = Raw(engine, (4, 10_000))
    raw.settle()
    streams: list[Any] = []
    for i in range(STREAMS):
        if server:
            raw.headers(2 * i + 1, POST, end=False)
            streams.append(host.requests[i].stream)
            streams[i].send_head(http2_harness.response(), [], False)
        else:
            streams.append(engine.open())
            streams[i].sink = Log()
            streams[i].send_head(http2_harness.request(b"POST"), [], False)
            raw.send(frame(HEADERS, END_HEADERS, 2 * i + 1, block([(b":status", b"200")])))
    for what, which, amount in actions:
        stream, sid = streams[which], 2 * which + 1
        if what == "send":
            stream.send_data(bytes(amount), False)
        elif what == "end":
            stream.send_data(bytes(amount), True)
        elif what == "trailers":
            stream.send_trailers([Field(b"x-sum", b"1")])
        elif what == "window":
            raw.send(frame(WINDOW_UPDATE, 0, sid if which >= 0 else 0, amount.to_bytes(4, "big")))
        elif what == "reset":
            stream.reset(CANCEL)
        elif what == "rst" and not stream.closed:
            raw.send(frame(RST_STREAM, 0, sid, CANCEL.to_bytes(4, "big")))
        elif what == "data" and not stream.closed:
            raw.send(frame(DATA, 0, sid, bytes(amount)))
        elif what == "socket":
            engine.socket_blocked() if amount else engine.socket_unblocked()
        assert host.waiting == engine.held == held_by(engine, streams)
    if end == "streams":
        for stream in streams:
            stream.reset(CANCEL)
        engine.socket_unblocked()
    elif end == "fault":
        raw.send(frame(DATA, 0, 0, b"x"))
        assert engine.closing
        engine.lost()
    elif end == "eof":
        engine.receive_eof()
    else:
        engine.lost()
    assert host.waiting == 0
    assert held_by(engine, streams) == 0


PLAIN_ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("in"), st.integers(0, 5)),
        st.tuples(st.just("answer"), st.integers(0, 2)),
        st.tuples(st.just("send"), st.integers(0, 50_000)),
        st.tuples(st.just("end"), st.integers(0, 100)),
        st.tuples(st.just("pause"), st.integers(0, 1)),
        st.tuples(st.just("socket"), st.integers(0, 1)),
        st.tuples(st.just("reset"), st.just(0)),
        st.tuples(st.just("eof"), st.just(0)),
    ),
    max_size=20,
)

REQUESTS = [
    b"GET / HTTP/1.1\r\nHost: svc.test\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: svc.test\r\n\r\n" * 20,
    b"POST / HTTP/1.1\r\nHost: svc.test\r\nContent-Length: 10\r\n\r\n01234",
    b"CONNECT svc.test:1 HTTP/1.1\r\nHost: svc.test:1\r\n\r\nearly bytes",
    b"GET / HTTP/1.1\r\nHo",
    b"56789",
]


@pytest.mark.parametrize("opaque", [False, True], ids=["http1", "opaque"])
@profile(max_examples=120, deadline=None)
@given(actions=PLAIN_ACTIONS)
def test_a_server_tells_of_every_byte_that_waits(opaque: bool, actions: list[tuple[str, int]]) -> None:
    host = Recorder()
    engine: Any = OpaqueServer(host, b"svc.test:1") if opaque else Http1Server(host, Limits())
    host.attach(engine)
    full = False
    for what, amount in actions:
        stream = host.requests[-1].stream if host.requests else None
        before = host.waiting
        if what == "in":
            engine.receive(REQUESTS[amount], 0.0)
        elif what == "socket":
            full = amount == 1
            engine.socket_blocked() if full else engine.socket_unblocked()
        elif what == "eof":
            engine.receive_eof()
        elif stream is None:
            continue
        elif what == "answer":
            stream.send_head(response((200, 204, 101)[amount]), [], False)
        elif what == "send":
            size = sum(map(len, engine.out))
            stream.send_data(bytes(amount), False)
            if full:
                assert host.waiting - before == sum(map(len, engine.out)) - size
        elif what == "end":
            stream.send_data(bytes(amount), True)
        elif what == "pause":
            stream.pause() if amount else stream.resume()
        elif what == "reset":
            stream.reset(CANCEL)
        if not opaque:
            assert host.waiting == len(engine.buffer) + engine.held_out
    engine.lost()
    assert host.waiting == 0


ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel",
    b"HTTP/1.1 200 OK\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 2",
    b"lo",
]


@pytest.mark.parametrize("kind", ["http1", "upgrade", "opaque"])
@profile(max_examples=120, deadline=None)
@given(actions=PLAIN_ACTIONS)
def test_a_client_tells_of_every_byte_that_waits(kind: str, actions: list[tuple[str, int]]) -> None:
    host = Recorder()
    engine: Any = OpaqueClient(host) if kind == "opaque" else Http1Client(host, Limits())
    host.attach(engine)
    stream: Any = None
    for what, amount in actions:
        if what == "in":
            engine.receive(ANSWERS[amount], 0.0)
        elif what == "socket":
            engine.socket_blocked() if amount else engine.socket_unblocked()
        elif what == "eof":
            engine.receive_eof()
        elif stream is None or what == "answer":
            if engine.capacity() == 0:
                continue
            stream = engine.open()
            stream.sink = RecordingSink()
            head = request(b"POST" if kind == "http1" else b"GET")
            if kind == "upgrade":
                head.protocol = b"websocket"
            stream.send_head(head, [], False)
        elif what == "send":
            stream.send_data(bytes(amount), False)
        elif what == "end":
            stream.send_data(bytes(amount), True)
        elif what == "pause":
            stream.pause() if amount else stream.resume()
        elif what == "reset":
            stream.reset(CANCEL)
        if kind != "opaque":
            assert host.waiting == len(engine.buffer) + engine.held_out + sum(map(len, engine.withheld))
    engine.lost()
    assert host.waiting == 0


def test_pipelined_requests_that_wait_for_an_answer_are_held() -> None:
    host = Recorder()
    engine = Http1Server(host, Limits())
    host.attach(engine)
    engine.receive(REQUESTS[0] * 3, 0.0)
    assert host.waiting == 2 * len(REQUESTS[0])
    for left in (1, 0):
        host.requests[-1].stream.send_head(response(204), [], True)
        assert host.waiting == left * len(REQUESTS[0])


def test_what_a_server_says_before_it_is_asked_is_held_until_it_is() -> None:
    host = Recorder()
    engine = OpaqueClient(host)
    host.attach(engine)
    engine.receive(b"220 ready\r\n", 0.0)
    assert host.waiting == 11
    stream = engine.open()
    stream.sink = sink = RecordingSink()
    stream.send_head(request(b"CONNECT", b"", b"svc.test:25"), [], False)
    assert host.waiting == 0
    assert sink.body == b"220 ready\r\n"

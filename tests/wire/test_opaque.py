"""Opaque connections: bytes both ways, half-closes, back-pressure, ends."""

from __future__ import annotations

import pytest
from http1_play import Relay
from recorder import Recorder, RecordingSink, Request, request, response

from meshproxy.wire.engine import AWAITING_NOTHING, AWAITING_US, CANCEL, CONNECT_ERROR, Stream
from meshproxy.wire.opaque import OpaqueClient, OpaqueServer

CONNECT = request(b"CONNECT", b"", b"db.test:5432")


def server() -> tuple[OpaqueServer, Recorder, Request]:
    host = Recorder()
    engine = OpaqueServer(host, b"db.test:5432")
    host.attach(engine)
    return engine, host, host.requests[0]


def client() -> tuple[OpaqueClient, Recorder, Stream, RecordingSink]:
    host = Recorder()
    engine = OpaqueClient(host)
    host.attach(engine)
    stream = engine.open()
    stream.sink = sink = RecordingSink()
    return engine, host, stream, sink


def test_a_connection_is_reported_as_connect_and_its_grant_writes_nothing() -> None:
    engine, host, asked = server()
    assert (asked.head.method, asked.head.authority, asked.end) == (b"CONNECT", b"db.test:5432", False)
    engine.receive(b"hello", 0.0)
    assert asked.sink.events == [("request_data", b"hello", False)]
    asked.stream.send_head(response(200), [], False)
    assert host.take() == b""
    asked.stream.send_data(b"answer", False)
    assert host.take() == b"answer"
    assert engine.awaiting() == AWAITING_US


@pytest.mark.parametrize("status", [403, 502, 101 + 200])
def test_anything_but_2xx_closes_without_a_byte(status: int) -> None:
    engine, host, asked = server()
    asked.stream.send_head(response(status), [], False)
    asked.stream.send_data(b"forbidden\n", True)
    assert host.take() == b""
    assert engine.closing
    assert engine.active() == 0


def test_each_direction_ends_alone_in_either_order() -> None:
    engine, host, asked = server()
    asked.stream.send_head(response(200), [], False)
    engine.receive_eof()
    assert asked.sink.events == [("request_data", b"", True)]
    assert not engine.closing
    asked.stream.send_data(b"bye", True)
    assert engine.closing
    assert host.take() == b"bye"

    engine, host, asked = server()
    asked.stream.send_head(response(200), [], False)
    asked.stream.send_data(b"bye", True)
    assert engine.half_close
    assert not engine.closing
    asked.stream.send_data(b"late", False)
    assert host.take() == b"bye"
    engine.receive(b"more", 0.0)
    engine.receive_eof()
    assert asked.sink.events == [("request_data", b"more", False), ("request_data", b"", True)]
    assert engine.closing


def test_a_reset_aborts_and_a_loss_resets_once() -> None:
    engine, _, asked = server()
    asked.stream.reset(CANCEL)
    assert engine.closing
    assert engine.abort
    engine.lost()
    assert asked.sink.events == []

    engine, _, asked = server()
    engine.lost()
    engine.lost()
    assert asked.sink.events == [("request_reset", CONNECT_ERROR)]


def test_the_client_reports_200_at_once_and_carries_bytes() -> None:
    engine, host, stream, sink = client()
    assert engine.capacity() == 0
    stream.send_head(CONNECT, [], False)
    assert sink.head is not None
    assert sink.head.status == 200
    stream.send_data(b"hello", False)
    assert host.take() == b"hello"
    engine.receive(b"answer", 0.0)
    stream.send_data(b"", True)
    assert engine.half_close
    engine.receive_eof()
    assert sink.body == b"answer"
    assert sink.ended
    assert engine.closing
    assert engine.capacity() == 0


def test_a_server_that_speaks_first_is_held_until_someone_listens() -> None:
    engine, host, stream, sink = client()
    engine.receive(b"220 mail", 0.0)
    engine.receive(b".test\r\n", 0.0)
    assert host.holding
    engine.receive_eof()
    assert sink.events == []
    stream.send_head(CONNECT, [], False)
    assert not host.holding
    assert sink.names() == ["response_head", "response_data", "response_data"]
    assert sink.body == b"220 mail.test\r\n"
    assert sink.ended


def test_a_lost_client_is_unprocessed_only_before_it_began() -> None:
    engine, _, stream, sink = client()
    engine.lost()
    assert sink.events == [("response_reset", CONNECT_ERROR, True)]
    engine, _, stream, sink = client()
    stream.send_head(CONNECT, [], False)
    engine.lost()
    assert sink.events[-1] == ("response_reset", CONNECT_ERROR, False)


def test_pause_holds_the_reader_and_the_end_lets_go() -> None:
    engine, host, asked = server()
    asked.stream.pause()
    asked.stream.pause()
    assert host.holding
    asked.stream.resume()
    assert not host.holding
    asked.stream.pause()
    engine.lost()
    assert not host.holding


def test_a_full_socket_blocks_its_sender_once() -> None:
    engine, _, asked = server()
    asked.stream.send_head(response(200), [], False)
    engine.socket_blocked()
    asked.stream.send_data(b"x", False)
    engine.socket_unblocked()
    assert asked.sink.names() == ["response_blocked", "response_unblocked"]
    engine, _, stream, sink = client()
    stream.send_head(CONNECT, [], False)
    engine.socket_blocked()
    engine.socket_unblocked()
    assert sink.names() == ["response_head", "request_blocked", "request_unblocked"]


def test_drain_waits_for_the_tunnel_and_an_unused_client_closes() -> None:
    engine, _, _ = server()
    engine.drain()
    assert not engine.closing
    host = Recorder()
    unused = OpaqueClient(host)
    host.attach(unused)
    assert unused.capacity() == 1
    assert unused.awaiting() == AWAITING_NOTHING
    unused.drain()
    assert unused.closing
    with pytest.raises(RuntimeError, match="capacity"):
        unused.open()


def test_two_engines_back_to_back_are_a_wire() -> None:
    up_host = Recorder()
    up = OpaqueClient(up_host)
    up_host.attach(up)

    def forward(asked: Request) -> None:
        stream = up.open()
        relay = Relay(asked.stream, stream)
        asked.stream.sink = relay
        stream.sink = relay
        stream.send_head(asked.head, [], asked.end)

    down_host = Recorder(forward)
    down = OpaqueServer(down_host, b"db.test:5432")
    down_host.attach(down)
    down.receive(b"ping", 0.0)
    assert up_host.take() == b"ping"
    up.receive(b"pong", 0.0)
    assert down_host.take() == b"pong"
    down.receive_eof()
    assert up.half_close
    up.receive(b"last", 0.0)
    up.receive_eof()
    assert down_host.take() == b"last"
    assert up.closing
    assert down.closing


def test_small_pieces_for_a_socket_that_is_full_are_joined_and_go_when_it_takes_more() -> None:
    engine, host, request = server()
    request.stream.send_head(response(200), [], False)
    engine.socket_blocked()
    for _ in range(10_000):
        request.stream.send_data(b"x", False)
    assert len(engine.out) < 10
    assert b"".join(engine.out) == b"x" * 10_000
    woken = host.wakes
    engine.socket_unblocked()
    assert host.wakes == woken + 1

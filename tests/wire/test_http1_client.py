"""The client role of HTTP/1.1: requests out, responses in, hostile servers, reuse, tunnels."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from http1_play import bytewise, client, exchange, halves
from recorder import Recorder, RecordingSink, request

from meshproxy.wire.engine import (
    AWAITING_BODY,
    AWAITING_HEAD,
    AWAITING_NOTHING,
    AWAITING_US,
    CANCEL,
    CONNECT_ERROR,
    INTERNAL_ERROR,
    NO_ERROR,
    PROTOCOL_ERROR,
    Stream,
)
from meshproxy.wire.http1 import Http1Client
from meshproxy.wire.limits import Limits
from meshproxy.wire.message import CACHES, Field, Head, add_field

CL5 = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
GET = request()


def asked(head: Head = GET, end: bool = True) -> tuple[Http1Client, Recorder, Stream, RecordingSink]:
    """A client whose request was sent and taken by the socket."""
    engine, host = client()
    stream, sink = exchange(engine)
    stream.send_head(head, [], end)
    host.take()
    return engine, host, stream, sink


def upgrade() -> Head:
    head = request(b"GET", b"/chat", b"svc.test", (b"Sec-WebSocket-Key", b"k"))
    head.protocol = b"websocket"
    return head


def connect() -> Head:
    return request(b"CONNECT", b"", b"db.test:5432")


# -- requests


def test_requests_are_framed_by_length_by_chunks_or_not_at_all() -> None:
    engine, host = client()
    for head, data, trailers, expected in (
        (GET, b"", None, b"GET / HTTP/1.1\r\nhost: svc.test\r\n\r\n"),
        (request(b"POST"), b"", None, b"POST / HTTP/1.1\r\nhost: svc.test\r\ncontent-length: 0\r\n\r\n"),
        (
            request(b"PUT", b"/a", b"svc.test", (b"Content-Length", b"2")), b"ok", None,
            b"PUT /a HTTP/1.1\r\nhost: svc.test\r\nContent-Length: 2\r\n\r\nok",
        ),
        (
            request(b"PUT"), b"ok", [Field(b"x-sum", b"1"), Field(b"host", b"evil")],
            b"PUT / HTTP/1.1\r\nhost: svc.test\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n",
        ),
        (request(b"OPTIONS", b"*"), b"", None, b"OPTIONS * HTTP/1.1\r\nhost: svc.test\r\n\r\n"),
    ):  # fmt: skip
        stream, sink = exchange(engine)
        stream.send_head(head, [], not data)
        if data:
            stream.send_data(data, trailers is None)
        if trailers:
            stream.send_trailers(trailers)
        assert host.take() == expected
        engine.receive(CL5, 0.0)
        assert sink.body == b"hello"
        assert engine.capacity() == 1


def test_what_the_head_asks_of_the_next_hop_is_written_and_mesh_fields_only_as_extra() -> None:
    head = request(b"POST", b"/", b"svc.test", (b"X-Case", b"Kept"), (b"Mesh-Target-Port", b"1"), (b"Content-Length", b"0"))
    head.expect_continue = True
    head.trailers_ok = True
    engine, host = client()
    stream, _ = exchange(engine)
    stream.send_head(head, [Field(b"mesh-client-id", b"spiffe://a/ns/b/sa/c")], True)
    assert host.take() == (
        b"POST / HTTP/1.1\r\nhost: svc.test\r\nX-Case: Kept\r\nContent-Length: 0\r\nconnection: te\r\nte: trailers\r\n"
        b"expect: 100-continue\r\nmesh-client-id: spiffe://a/ns/b/sa/c\r\n\r\n"
    )


def test_one_head_sent_with_and_without_body_is_framed_anew_each_time() -> None:
    head = request(b"POST")
    for _ in range(2):
        engine, host = client()
        stream, _ = exchange(engine)
        stream.send_head(head, [], True)
        assert host.take().endswith(b"content-length: 0\r\n\r\n")
        engine, host = client()
        stream, _ = exchange(engine)
        stream.send_head(head, [], False)
        assert host.take().endswith(b"transfer-encoding: chunked\r\n\r\n")


# -- responses

RESPONSES = [
    (CL5, b"hello", []),
    (b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello", b"hello", []),
    (CHUNKED + b"2;x=1\r\nhe\r\n3\r\nllo\r\n0\r\nX-Sum: 9\r\n\r\n", b"hello", [(b"x-sum", b"9")]),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"", []),
    (b"HTTP/1.1 204 No Content\r\n\r\n", b"", []),
    (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b"", []),
    (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + CL5, b"hello", []),
    (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello", b"hello", []),
]  # fmt: skip


@pytest.mark.parametrize("caches", [True, False], ids=["memo", "no memo"])
@pytest.mark.parametrize(("data", "body", "trailers"), RESPONSES)
def test_a_self_delimited_response_leaves_the_connection_free(
    data: bytes, body: bytes, trailers: list[tuple[bytes, bytes]], caches: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CACHES, "enabled", caches)
    for pieces in ([data], [data], bytewise(data), *halves(data)):
        engine, host, _stream, sink = asked()
        for piece in pieces:
            engine.receive(piece, 0.0)
        assert sink.ended
        assert (sink.body, sink.trailers) == (body, trailers)
        assert sink.names().count("response_interim") == data.count(b"HTTP/1.1 1")
        assert engine.capacity() == 1
        assert host.events[-1] == ("on_capacity",)
        engine.lost()
        assert "response_reset" not in sink.names()


def test_an_answer_to_head_has_no_body_whatever_it_declares() -> None:
    engine, _host, _stream, sink = asked(request(b"HEAD"))
    engine.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 0.0)
    assert sink.events[0][2] is True
    assert sink.head is not None
    assert sink.head.content_length == 5
    assert engine.capacity() == 1


def test_the_next_stream_can_be_opened_inside_the_event_that_ends_the_last_one() -> None:
    engine, host = client()
    opened: list[Stream] = []

    class Next(RecordingSink):
        def response_data(self, data: bytes, end: bool) -> None:
            super().response_data(data, end)
            stream = engine.open()
            stream.send_head(GET, [], True)
            opened.append(stream)

    stream = engine.open()
    stream.sink = sink = Next()
    stream.send_head(GET, [], True)
    host.take()
    engine.receive(CL5, 0.0)
    assert sink.ended
    assert host.take() == b"GET / HTTP/1.1\r\nhost: svc.test\r\n\r\n"
    assert ("on_capacity",) not in host.events
    second = opened[0].sink = RecordingSink()
    engine.receive(CL5, 0.0)
    assert second.body == b"hello"


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ],
)
def test_a_response_that_closes_or_whose_framing_is_doubtful_ends_the_connection(data: bytes) -> None:
    engine, host, _stream, sink = asked()
    engine.receive(data, 0.0)
    assert (sink.body, sink.ended) == (b"hello", True)
    assert engine.closing
    assert ("on_goaway", NO_ERROR) in host.events
    assert ("on_capacity",) not in host.events
    if b"chunked" in data:
        assert sink.head is not None
        assert sink.head.content_length == -1
        assert sink.head.field(b"content-length") is None


def test_a_response_without_length_ends_cleanly_only_with_the_end_of_input() -> None:
    engine, _, _, sink = asked()
    engine.receive(b"HTTP/1.0 200 OK\r\n\r\nhel", 0.0)
    engine.receive(b"lo", 0.0)
    assert not sink.ended
    engine.receive_eof()
    assert sink.events[-1] == ("response_data", b"", True)
    assert sink.body == b"hello"
    assert engine.closing

    engine, _host, _stream, sink = asked()
    engine.receive(b"HTTP/1.1 200 OK\r\n\r\nhel", 0.0)
    engine.lost()
    assert sink.events[-1] == ("response_reset", CONNECT_ERROR, False)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    ],
)
@pytest.mark.parametrize("end", ["receive_eof", "lost"])
def test_a_response_cut_short_is_never_a_clean_end(data: bytes, end: str) -> None:
    engine, _host, _stream, sink = asked()
    if data:
        engine.receive(data, 0.0)
    getattr(engine, end)()
    assert sink.events[-1] == ("response_reset", CONNECT_ERROR, False)
    assert not sink.ended
    assert engine.closing


BAD = [
    (b"SSH-2.0-x\r\n\r\n", "h1_status_line"),
    (b"HTTP/2.0 200 OK\r\n\r\n", "h1_status_line"),
    (b"HTTP/1.1 20 OK\r\n\r\n", "h1_status_line"),
    (b"HTTP/1.1 +20 OK\r\n\r\n", "h1_status_line"),
    (b"HTTP/1.1 600 X\r\n\r\n", "h1_status_line"),
    (b"HTTP/1.1 2000 OK\r\n\r\n", "h1_status_line"),
    (b"HTTP/1.1 200 O\x00K\r\n\r\n", "h1_status_line"),
    (b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", "h1_line_end"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", "h1_field"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello", "h1_field"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\nhello", "h1_field"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\nhello", "h1_field"),
    (b"HTTP/1.1 200 OK\r\nX: y\r\n folded\r\n\r\n", "h1_field"),
    (b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n", "h1_field"),
    (b"HTTP/1.1 200 OK\r\nX: y\x00\r\n\r\n", "h1_field"),
    (b"HTTP/1.1 200 OK\r\nX: y\rZ: 1\r\n\r\n", "h1_field"),
    (b"HTTP/1.1 200 OK\r\nX: " + b"a" * (1 << 20), "h1_head_too_large"),
    (b"HTTP/1.1 200 " + b"a" * 9000, "h1_head_too_large"),
    (b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: 1\r\n" % i for i in range(3000)) + b"\r\n", "h1_too_many_fields"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "h1_chunk"),
    (b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", "h1_unexpected_101"),
    (b"HTTP/1.1 103 Early Hints\r\n\r\n" * 17, "h1_too_many_interim"),
]


@pytest.mark.parametrize(("data", "label"), BAD)
def test_a_bad_response_resets_the_exchange_and_is_named(data: bytes, label: str) -> None:
    for pieces in ([data], [data[i : i + 501] for i in range(0, len(data), 501)]):
        engine, host, _stream, sink = asked()
        for piece in pieces:
            engine.receive(piece, 0.0)
        assert sink.events[-1] == ("response_reset", PROTOCOL_ERROR, False)
        assert sink.names().count("response_reset") == 1
        assert host.violations == [label]
        assert engine.closing
        assert len(engine.buffer) <= 64 * 1024


def test_fields_named_by_connection_are_removed_from_a_response() -> None:
    engine, _host, _stream, sink = asked()
    engine.receive(b"HTTP/1.1 204 No Content\r\nConnection: close, X-Internal\r\nX-Internal: 1\r\nX-End: 2\r\n\r\n", 0.0)
    assert sink.head is not None
    assert [f.name for f in sink.head.fields] == [b"x-end"]


# -- reuse


@pytest.mark.parametrize("first", [CL5, b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\n\r\n"])
def test_bytes_after_a_complete_response_close_the_connection_and_reach_nobody(first: bytes) -> None:
    engine, host, _stream, sink = asked()
    engine.receive(first + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", 0.0)
    assert sink.ended
    assert b"evil" not in sink.body
    assert engine.closing
    assert engine.capacity() == 0
    assert host.violations == ["h1_extra_bytes"]


def test_bytes_while_no_request_is_in_progress_close_the_connection() -> None:
    engine, host = client()
    engine.receive(b"HTTP/1.1 408 Request Timeout\r\n\r\n", 0.0)
    assert engine.closing
    assert engine.capacity() == 0
    assert host.violations == ["h1_unasked_response"]


def test_bytes_before_the_request_left_us_are_not_its_response_and_it_may_be_sent_again() -> None:
    engine, _host = client()
    stream, sink = exchange(engine)
    stream.send_head(GET, [], True)  # still in `out`
    engine.receive(CL5, 0.0)
    assert sink.events == [("response_reset", PROTOCOL_ERROR, True)]


def test_a_lost_connection_is_unprocessed_only_while_nothing_was_handed_to_the_socket() -> None:
    for end in ("receive_eof", "lost"):
        engine, host = client()
        stream, sink = exchange(engine)
        getattr(engine, end)()
        assert sink.events == [("response_reset", CONNECT_ERROR, True)]

        engine, host = client()
        stream, sink = exchange(engine)
        stream.send_head(request(b"POST"), [], False)
        stream.send_data(b"x", False)
        getattr(engine, end)()
        assert sink.events == [("response_reset", CONNECT_ERROR, True)]

        engine, host = client()
        stream, sink = exchange(engine)
        stream.send_head(request(b"POST"), [], False)
        host.take()
        stream.send_data(b"x", False)
        getattr(engine, end)()
        assert sink.events == [("response_reset", CONNECT_ERROR, False)]


def test_an_early_response_goes_through_and_ends_the_connection() -> None:
    engine, host, stream, sink = asked(request(b"POST"), end=False)
    stream.send_data(b"part", False)
    host.take()
    engine.receive(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno", 0.0)
    assert (sink.body, sink.ended) == (b"no", True)
    assert engine.closing
    stream.send_data(b"more", True)
    assert host.take() == b""
    assert ("on_capacity",) not in host.events


def test_a_stream_given_up_before_its_request_costs_no_connection_and_after_it_does() -> None:
    engine, _host = client()
    stream, sink = exchange(engine)
    stream.reset(CANCEL)
    assert not engine.closing
    assert engine.capacity() == 1
    stream, sink = exchange(engine)
    stream.send_head(GET, [], True)
    stream.reset(CANCEL)
    assert engine.closing
    engine.receive(CL5, 0.0)
    assert sink.events == []


def test_a_request_body_that_is_not_as_long_as_declared_is_not_completed() -> None:
    engine, _host, stream, sink = asked(request(b"PUT", b"/", b"a", (b"Content-Length", b"5")), end=False)
    stream.send_data(b"abc", True)
    assert engine.closing
    assert sink.names() == ["response_reset"]


def test_open_without_capacity_is_our_mistake_and_raises() -> None:
    engine, _host, _stream, _sink = asked()
    with pytest.raises(RuntimeError, match="capacity"):
        engine.open()


def test_drain_takes_no_new_streams_and_closes_when_idle() -> None:
    engine, _ = client()
    engine.drain()
    assert engine.closing
    engine, _host, _stream, sink = asked()
    engine.drain()
    assert engine.capacity() == 0
    assert not engine.closing
    engine.receive(CL5, 0.0)
    assert sink.body == b"hello"
    assert engine.closing


def test_awaiting_and_holding_follow_the_response() -> None:
    engine, host = client()
    assert engine.awaiting() == AWAITING_NOTHING
    stream, sink = exchange(engine)
    stream.send_head(GET, [], True)
    host.take()
    assert engine.awaiting() == AWAITING_US
    engine.receive(CL5[:10], 0.0)
    assert engine.awaiting() == AWAITING_HEAD
    engine.receive(CL5[10:-2], 0.0)
    assert engine.awaiting() == AWAITING_BODY
    stream.pause()
    assert host.holding
    assert engine.awaiting() == AWAITING_US
    engine.receive(CL5[-2:], 0.0)  # was in flight
    assert sink.ended
    assert not host.holding
    assert engine.awaiting() == AWAITING_NOTHING


def test_a_full_socket_blocks_the_request() -> None:
    engine, _host, stream, sink = asked(request(b"POST"), end=False)
    engine.socket_blocked()
    assert sink.names() == ["request_blocked"]
    stream.send_data(b"x", False)
    engine.socket_unblocked()
    assert sink.names() == ["request_blocked", "request_unblocked"]


@pytest.mark.parametrize("blocked", [False, True])
def test_a_request_given_up_to_a_server_that_takes_nothing_ends_at_once(blocked: bool) -> None:
    engine, _host, stream, _ = asked(request(b"POST"), end=False)
    stream.send_data(b"x", False)
    if blocked:
        engine.socket_blocked()
    stream.reset(CANCEL)
    assert engine.closing
    assert engine.abort is blocked, "what is written goes first, unless nobody takes it"


# -- tunnels


def test_an_upgrade_is_asked_for_and_its_bytes_wait_for_101() -> None:
    engine, host = client()
    stream, sink = exchange(engine)
    stream.send_head(upgrade(), [], False)
    stream.send_data(b"early", False)
    stream.send_data(b" bird", False)
    assert host.take() == (
        b"GET /chat HTTP/1.1\r\nhost: svc.test\r\nSec-WebSocket-Key: k\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    )
    assert sink.names() == ["request_blocked"]
    engine.receive(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n\x81\x00", 0.0)
    assert host.take() == b"early bird"
    assert sink.names() == ["request_blocked", "response_head", "request_unblocked", "response_data"]
    assert sink.body == b"\x81\x00"
    stream.send_data(b"raw", True)
    assert host.take() == b"raw"
    assert engine.half_close
    assert not engine.closing
    engine.receive_eof()
    assert sink.events[-1] == ("response_data", b"", True)
    assert engine.closing


def test_extended_connect_becomes_an_upgrade() -> None:
    head = extended_connect()
    engine, host = client()
    stream, sink = exchange(engine)
    stream.send_head(head, [], False)
    assert host.take().startswith(b"GET /chat HTTP/1.1\r\nhost: svc.test\r\n")
    engine.receive(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 0.0)
    assert sink.head is not None
    assert sink.head.status == 101


def test_connect_becomes_a_tunnel_and_framing_fields_of_its_2xx_mean_nothing() -> None:
    engine, _host, stream, sink = asked(connect(), end=False)
    engine.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef", 0.0)
    assert (sink.body, sink.ended) == (b"abcdef", False)
    engine.receive_eof()
    assert sink.ended
    assert not engine.closing
    stream.send_data(b"", True)
    assert engine.closing


def extended_connect() -> Head:
    head = upgrade()
    head.method = b"CONNECT"
    head.version = 20
    return head


@pytest.mark.parametrize("make", [extended_connect, connect])
def test_a_length_is_never_announced_where_connect_asks_for_a_tunnel(make: Callable[[], Head]) -> None:
    head = make()
    add_field(head, Field(b"content-length", b"40"))  # whoever made it: what follows may be another's request
    engine, host = client()
    stream, _ = exchange(engine)
    stream.send_head(head, [], False)
    assert b"content-length" not in host.take()


@pytest.mark.parametrize("head", [upgrade(), connect()], ids=["upgrade", "connect"])
def test_a_declined_tunnel_never_sends_the_bytes_that_waited(head: Head) -> None:
    engine, host, stream, sink = asked(head, end=False)
    stream.send_data(b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", False)
    engine.receive(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", 0.0)
    assert (sink.body, sink.ended) == (b"no", True)
    stream.send_data(b"more", True)
    assert host.take() == b""
    assert engine.capacity() == 1
    stream, sink = exchange(engine)
    stream.send_head(GET, [], True)
    assert host.take().startswith(b"GET / ")


def executes() -> Head:
    head = request(b"POST", b"/exec", b"svc.test", (b"Content-Length", b"5"))
    head.protocol = b"tcp"
    return head


GRANTED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"


def test_the_content_of_an_upgrade_goes_at_once_and_what_follows_waits_for_101() -> None:
    engine, host = client()
    stream, sink = exchange(engine)
    stream.send_head(executes(), [], False)
    stream.send_data(b"he", False)
    assert sink.names() == []
    stream.send_data(b"lloraw", False)
    assert host.take() == (
        b"POST /exec HTTP/1.1\r\nhost: svc.test\r\nconnection: upgrade\r\nupgrade: tcp\r\ncontent-length: 5\r\n\r\nhello"
    )
    assert sink.names() == ["request_blocked"]
    engine.receive(GRANTED, 0.0)
    assert host.take() == b"raw"
    assert sink.names() == ["request_blocked", "response_head", "request_unblocked"]


def test_an_upgrade_that_is_declined_after_its_content_leaves_the_connection_free() -> None:
    engine, host, stream, sink = asked(executes(), end=False)
    stream.send_data(b"hello", False)
    stream.send_data(b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", False)
    assert host.take() == b"hello"
    engine.receive(CL5, 0.0)
    assert (sink.ended, engine.capacity()) == (True, 1)
    stream, sink = exchange(engine)
    stream.send_head(connect(), [], False)
    host.take()
    stream.send_data(b"raw", False)
    assert host.take() == b"", "what is left of one request is no other's"


def test_of_an_upgrade_that_is_declined_early_the_content_still_goes_and_nothing_else() -> None:
    engine, host, stream, sink = asked(executes(), end=False)
    stream.send_data(b"he", False)
    engine.receive(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nn", 0.0)
    stream.send_data(b"lloGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", False)
    stream.send_data(b"more", False)
    assert host.take() == b"hello"
    engine.receive(b"o", 0.0)
    assert (sink.body, sink.ended, engine.capacity()) == (b"no", True, 1)
    stream, sink = exchange(engine)
    stream.send_head(executes(), [], False)
    stream.send_data(b"helloraw", False)
    host.take()
    engine.receive(GRANTED, 0.0)
    assert host.take() == b"raw", "the next one is not declined"


def test_a_connection_whose_answer_came_before_the_content_was_whole_is_not_used_again() -> None:
    engine, _host, stream, sink = asked(executes(), end=False)
    stream.send_data(b"he", False)
    engine.receive(CL5, 0.0)
    assert (sink.ended, engine.closing) == (True, True)


def test_content_that_ends_before_its_length_is_never_whole() -> None:
    for early in (b"", b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n"):
        engine, host, stream, sink = asked(executes(), end=False)
        engine.receive(early, 0.0)
        stream.send_data(b"he", True)
        assert host.take() == b""
        assert engine.closing
        assert sink.events[-1] == ("response_reset", INTERNAL_ERROR, False)


def test_101_before_the_content_is_whole_lets_everything_through() -> None:
    engine, host, stream, _sink = asked(executes(), end=False)
    stream.send_data(b"he", False)
    engine.receive(GRANTED, 0.0)
    stream.send_data(b"llo", False)
    stream.send_data(b"raw", True)
    assert host.take() == b"helloraw"
    assert engine.half_close


def test_a_full_socket_holds_the_content_of_an_upgrade_only_while_it_is_full() -> None:
    engine, _host, stream, sink = asked(executes(), end=False)
    engine.socket_blocked()
    stream.send_data(b"he", False)
    assert sink.names() == ["request_blocked"]
    engine.socket_unblocked()
    assert sink.names() == ["request_blocked", "request_unblocked"]
    stream.send_data(b"lloraw", False)
    assert sink.names() == ["request_blocked", "request_unblocked", "request_blocked"]
    engine.socket_blocked()
    engine.socket_unblocked()
    assert sink.names()[3:] == []


@pytest.mark.parametrize("protocol", [b"h2c", b"other", b"", b"websocket\r\nUpgrade: other", b"other\r\nUpgrade: websocket"])
def test_101_to_another_protocol_than_asked_is_a_bad_response(protocol: bytes) -> None:
    engine, _host, _stream, sink = asked(upgrade(), end=False)
    line = b"Upgrade: " + protocol + b"\r\n" if protocol else b""
    engine.receive(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n" + line + b"\r\n", 0.0)
    assert sink.events == [("response_reset", PROTOCOL_ERROR, False)]


def test_101_may_say_its_protocol_twice() -> None:
    engine, _host, _stream, sink = asked(upgrade(), end=False)
    line = b"Upgrade: websocket\r\n"
    engine.receive(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n" + line + line + b"\r\n", 0.0)
    assert sink.names() == ["response_head"]


def test_a_socket_that_unblocks_before_101_does_not_let_the_sender_go_on() -> None:
    engine, _host, stream, sink = asked(upgrade(), end=False)
    stream.send_data(b"x", False)
    engine.socket_blocked()
    engine.socket_unblocked()
    assert sink.names() == ["request_blocked"]
    engine.receive(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 0.0)
    assert sink.names() == ["request_blocked", "response_head", "request_unblocked"]


def test_a_lost_tunnel_is_reset_and_a_reset_tunnel_aborts() -> None:
    engine, _, stream, sink = asked(connect(), end=False)
    engine.receive(b"HTTP/1.1 200 OK\r\n\r\n", 0.0)
    engine.lost()
    assert sink.events[-1] == ("response_reset", CONNECT_ERROR, False)

    engine, _host, stream, sink = asked(connect(), end=False)
    engine.receive(b"HTTP/1.1 200 OK\r\n\r\n", 0.0)
    stream.reset(CANCEL)
    assert engine.closing
    assert engine.abort


def test_limits_of_interim_responses_have_a_passing_control() -> None:
    engine, _host, _stream, sink = asked()
    engine.receive(b"HTTP/1.1 103 Early Hints\r\n\r\n" * Limits().interim_responses + CL5, 0.0)
    assert sink.body == b"hello"

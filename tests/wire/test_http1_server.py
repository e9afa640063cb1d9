"""The server role of HTTP/1.1: order, framing of responses, refusals, tunnels, reading held back, ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from http1_play import answering, bytewise, server, split_head, whole
from recorder import Recorder, RecordingSink, Request, response

from meshproxy.wire.engine import (
    AWAITING_BODY,
    AWAITING_HEAD,
    AWAITING_NOTHING,
    AWAITING_US,
    CANCEL,
    PROTOCOL_ERROR,
)
from meshproxy.wire.http1 import Http1Server
from meshproxy.wire.limits import Limits
from meshproxy.wire.message import Field

GET = b"GET / HTTP/1.1\r\nHost: svc.test\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: svc.test\r\nContent-Length: 5\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: svc.test\r\nTransfer-Encoding: chunked\r\n\r\n"
OK = response(200, (b"Content-Length", b"2"))
UPGRADE = b"GET /chat HTTP/1.1\r\nHost: svc.test\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n"
CONNECT = b"CONNECT db.test:5432 HTTP/1.1\r\nHost: db.test:5432\r\n\r\n"


def get(*lines: bytes, method: bytes = b"GET", version: bytes = b"HTTP/1.1") -> bytes:
    return method + b" / " + version + b"\r\nHost: svc.test\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


# -- order


def test_the_next_pipelined_request_is_reported_when_the_response_before_it_is_done() -> None:
    engine, host = server()
    engine.receive(GET + POST + b"hello" + GET, 0.0)
    assert len(host.requests) == 1
    host.requests[0].stream.send_head(OK, [], False)
    host.requests[0].stream.send_data(b"a", False)
    assert len(host.requests) == 1
    host.requests[0].stream.send_data(b"b", True)
    assert len(host.requests) == 2
    assert host.requests[1].sink.body == b"hello"
    host.requests[1].stream.send_head(response(204), [], True)
    assert len(host.requests) == 3
    assert host.take() == b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabHTTP/1.1 204 No Content\r\n\r\n"


def test_thousands_of_pipelined_requests_answered_at_once_do_not_recurse() -> None:
    engine, host = answering(Limits())
    out = host.feed([GET * 5000])
    assert out.count(b"HTTP/1.1 200 OK") == 5000
    assert engine.awaiting() == AWAITING_NOTHING


def test_unread_pipelined_input_is_bounded_by_holding_the_reader() -> None:
    limits = Limits()
    limits.pipelined_bytes = 200
    engine, host = server(limits)
    engine.receive(GET, 0.0)
    engine.receive(GET, 0.0)
    assert not host.holding
    engine.receive(GET * 5, 0.0)
    assert host.holding
    for _ in range(6):
        host.requests[-1].stream.send_head(response(204), [], True)
    assert not host.holding
    assert len(host.requests) == 7
    assert [event[0] for event in host.events] == ["hold_reading", "resume_reading"]


def test_a_late_call_on_a_finished_stream_does_nothing_to_the_next_exchange() -> None:
    engine, host = server()
    engine.receive(GET + GET, 0.0)
    first = host.requests[0].stream
    first.send_head(response(204), [], True)
    host.take()
    first.send_head(OK, [], False)
    first.send_data(b"xx", True)
    first.send_trailers([])
    first.send_interim(response(103))
    first.pause()
    first.reset(CANCEL)
    assert host.take() == b""
    assert not engine.closing
    assert not host.holding
    host.requests[1].stream.send_head(response(204), [], True)
    assert host.take().startswith(b"HTTP/1.1 204 ")


# -- framing of responses


def test_a_response_without_a_length_is_chunked_and_can_carry_trailers() -> None:
    engine, host = server()
    engine.receive(GET, 0.0)
    stream = host.requests[0].stream
    stream.send_head(response(200), [Field(b"x-request-id", b"7")], False)
    stream.send_data(b"", False)  # an empty chunk would end the body
    stream.send_data(b"hello", False)
    stream.send_data(b"A" * 26, False)
    stream.send_trailers([Field(b"x-sum", b"9"), Field(b"content-length", b"5"), Field(b"mesh-client-id", b"evil")])
    assert host.take() == (
        b"HTTP/1.1 200 OK\r\nx-request-id: 7\r\ntransfer-encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n1a\r\n" + b"A" * 26 + b"\r\n0\r\nx-sum: 9\r\n\r\n"
    )
    assert not engine.closing


@pytest.mark.parametrize("status", [200, 204, 304, 404])
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_a_response_that_ends_with_its_head_says_so(method: bytes, status: int) -> None:
    engine, host = server()
    engine.receive(get(method=method), 0.0)
    host.requests[0].stream.send_head(response(status), [], True)
    _, fields, rest = split_head(host.take())
    assert rest == b""
    assert fields == ({} if method == b"HEAD" or status in (204, 304) else {b"content-length": b"0"})
    assert engine.active() == 0


def test_head_and_304_keep_their_length_and_lose_their_body_and_204_has_neither() -> None:
    for method, status, length in ((b"HEAD", 200, True), (b"GET", 304, True), (b"GET", 204, False)):
        engine, host = server()
        engine.receive(get(method=method), 0.0)
        host.requests[0].stream.send_head(response(status, (b"Content-Length", b"5")), [], False)
        host.requests[0].stream.send_data(b"hello", True)
        _, fields, rest = split_head(host.take())
        assert rest == b""
        assert (b"content-length" in fields) is length
        assert not engine.closing


def test_more_or_fewer_body_bytes_than_declared_close_the_connection() -> None:
    for data in (b"a", b"abc"):
        engine, host = server()
        engine.receive(GET + GET, 0.0)
        host.requests[0].stream.send_head(OK, [], False)
        host.requests[0].stream.send_data(data, True)
        assert engine.closing
        assert host.requests[0].sink.names() == ["request_reset"]
        assert len(host.requests) == 1
        assert host.take().endswith(b"\r\n\r\n")


def test_interim_responses_precede_the_final_one() -> None:
    engine, host = server()
    engine.receive(GET, 0.0)
    stream = host.requests[0].stream
    stream.send_interim(response(100))
    stream.send_interim(response(103, (b"Link", b"</a>")))
    stream.send_head(OK, [], False)
    stream.send_interim(response(103))  # too late: nothing
    stream.send_data(b"ok", True)
    assert host.take() == (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    )


def test_the_same_head_is_framed_for_each_peer_and_end_flag_anew() -> None:
    """One shared head, sent to a 1.1 client, a 1.0 client, in answer to HEAD, and with the end flag: no memo leaks framing."""
    head = response(200, (b"X-A", b"1"))

    def start(request: bytes, end: bool) -> bytes:
        engine, host = server()
        engine.receive(request, 0.0)
        host.requests[0].stream.send_head(head, [], end)
        return host.take()

    for _ in range(2):
        assert start(GET, False) == b"HTTP/1.1 200 OK\r\nX-A: 1\r\ntransfer-encoding: chunked\r\n\r\n"
        assert start(GET, True) == b"HTTP/1.1 200 OK\r\nX-A: 1\r\ncontent-length: 0\r\n\r\n"
        assert start(get(version=b"HTTP/1.0"), False) == b"HTTP/1.1 200 OK\r\nX-A: 1\r\nconnection: close\r\n\r\n"
        assert start(get(method=b"HEAD"), False) == b"HTTP/1.1 200 OK\r\nX-A: 1\r\n\r\n"
        assert start(get(b"Connection: close"), True).endswith(b"content-length: 0\r\nconnection: close\r\n\r\n")


# -- HTTP/1.0


def test_a_1_0_client_gets_a_body_that_ends_with_the_connection_and_no_interim() -> None:
    engine, host = server()
    engine.receive(get(b"Connection: keep-alive", version=b"HTTP/1.0"), 0.0)
    stream = host.requests[0].stream
    stream.send_interim(response(103))
    stream.send_head(response(200), [], False)
    stream.send_data(b"he", False)
    assert not engine.closing
    stream.send_trailers([Field(b"x-sum", b"9")])
    assert engine.closing
    assert not engine.abort
    assert host.take() == b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhe"


def test_a_1_0_client_keeps_the_connection_only_if_it_asks() -> None:
    engine, host = answering()
    out = host.feed([get(b"Connection: Keep-Alive", version=b"HTTP/1.0") * 2])
    assert out.count(b"connection: keep-alive\r\n") == 2
    assert not engine.closing
    out = host.feed([get(version=b"HTTP/1.0")])
    assert b"connection: close\r\n" in out
    assert engine.closing


def test_a_1_0_request_needs_no_host() -> None:
    engine, host = server()
    engine.receive(b"GET /a HTTP/1.0\r\n\r\n", 0.0)
    assert host.requests[0].head.authority == b""


def test_a_reset_aborts_where_closing_would_look_like_the_end_of_the_body() -> None:
    for request, abort in ((get(version=b"HTTP/1.0"), True), (GET, False)):
        engine, host = server()
        engine.receive(request, 0.0)
        host.requests[0].stream.send_head(response(200), [], False)
        host.requests[0].stream.send_data(b"half", False)
        host.requests[0].stream.reset(CANCEL)
        assert engine.closing
        assert engine.abort is abort
        assert b"0\r\n\r\n" not in host.take()
        assert host.requests[0].sink.events == []


# -- heads


@pytest.mark.parametrize(
    ("target", "scheme", "authority", "path"),
    [
        (b"/a?b=c", b"http", b"h", b"/a?b=c"),
        (b"http://svc.test", b"http", b"svc.test", b"/"),
        (b"HTTPS://svc.test:8443/a/b?c", b"https", b"svc.test:8443", b"/a/b?c"),
        (b"http://svc.test?q=/x", b"http", b"svc.test", b"/?q=/x"),
        (b"http://[::1]:80/", b"http", b"[::1]:80", b"/"),
        (b"http://svc.test:", b"http", b"svc.test", b"/"),
        (b"http://[::1]:?q", b"http", b"[::1]", b"/?q"),
    ],
)
def test_the_forms_of_a_target(target: bytes, scheme: bytes, authority: bytes, path: bytes) -> None:
    engine, host = server()
    engine.receive(b"GET " + target + b" HTTP/1.1\r\nHost: h\r\n\r\n", 0.0)
    head = host.requests[0].head
    assert (head.scheme, head.authority, head.path) == (scheme, authority, path)


def test_options_of_a_server_in_absolute_form_is_the_asterisk() -> None:
    engine, host = server()
    engine.receive(b"OPTIONS http://svc.test HTTP/1.1\r\nHost: h\r\n\r\n", 0.0)
    assert host.requests[0].head.path == b"*"


@pytest.mark.parametrize(
    "target",
    [
        b"ftp://a/",
        b"http://",
        b"http:///",
        b"http://u@a/",
        b"http://a b/",
        b"//",
        b"http://a/#f",
        b"/\x80",
        b"/\x7f",
        b"*",
        b"a/",
        b"",
    ],
)
def test_a_target_that_two_hops_could_read_differently_is_refused(target: bytes) -> None:
    engine, host = server()
    if target == b"//":  # a path that begins with an empty segment is a path
        engine.receive(b"GET // HTTP/1.1\r\nHost: h\r\n\r\n", 0.0)
        assert host.requests[0].head.path == b"//"
        return
    engine.receive(b"GET " + target + b" HTTP/1.1\r\nHost: h\r\n\r\n", 0.0)
    assert host.requests == []
    assert host.take().startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    ("value", "authority"), [(b"svc.test:", b"svc.test"), (b"[::1]:", b"[::1]"), (b"127.0.0.1:", b"127.0.0.1")]
)
@pytest.mark.parametrize("again", [1, 3])  # whatever is known from the times before
def test_a_port_that_is_empty_is_left_out(value: bytes, authority: bytes, again: int) -> None:
    """RFC 3986 3.2.3, 6.2.3: it may be empty, and is then better left out."""
    engine, host = server()
    for number in range(again):
        engine.receive(b"GET /%d HTTP/1.1\r\nHost: %b\r\n\r\n" % (number, value), 0.0)
        host.requests[-1].stream.send_head(response(204), [], True)
    assert [request.head.authority for request in host.requests] == [authority] * again


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"a,b",
        b"a:99999",
        b"a::",
        b"a:80:",
        b"[::1",
        b"[::1]:8:",
        b"::1:",
        b":",
        b":80",
        b"a/b",
        b"a%40b",
        b"a:8 0",
        b"a\tb",
        b"\xe4",
    ],
)
@pytest.mark.parametrize("target", [b"/", b"http://svc.test/"])
def test_a_host_that_is_no_authority_is_refused_also_under_an_absolute_target(value: bytes, target: bytes) -> None:
    engine, host = server()
    engine.receive(b"GET " + target + b" HTTP/1.1\r\nHost: " + value + b"\r\n\r\n", 0.0)
    assert host.requests == []
    assert host.violations == ["h1_host"]


def test_hop_by_hop_fields_and_those_named_by_connection_do_not_pass() -> None:
    engine, host = server()
    engine.receive(
        get(
            b"Connection: keep-alive, x-hop, Content-Length, host, mesh-target-port, x-request-id",
            b"Keep-Alive: timeout=5", b"Proxy-Connection: x", b"X-Hop: 1", b"X-End: 2", b"Content-Length: 0",
            b"X-Request-ID: 7",
            b"Mesh-Target-Port: 80", b"Mesh_Client_Id: evil", b"TE: trailers",
        ),
        0.0,
    )  # fmt: skip
    head = host.requests[0].head
    assert [f.line for f in head.fields] == [b"X-End: 2\r\n", b"Content-Length: 0\r\n", b"X-Request-ID: 7\r\n"]
    assert [f.name for f in head.mesh] == [b"mesh-target-port"]
    assert head.authority == b"svc.test"
    assert head.trailers_ok
    assert not head.close


@pytest.mark.parametrize(
    ("data", "status", "label"),
    [
        (get(b"X: " + b"a" * 70_000), 431, "h1_head_too_large"),
        (get(*[b"X-%d: 1" % i for i in range(128)]), 431, "h1_too_many_fields"),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n", 414, "h1_uri_too_long"),
        (b"GET / HTTP/3.0\r\n\r\n", 505, "h1_version"),
        (b"GET / FTP/1.1\r\n\r\n", 400, "h1_request_line"),
        (b"G\xe4T / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "h1_request_line"),
        (b"\r\n\r\nGET / HTTP/1.1\r\n", 400, "h1_request_line"),
        (get(b"Transfer-Encoding: gzip, chunked"), 400, "h1_field"),
        (get(b"Transfer-Encoding: chunked", b"Content-Length: 3"), 400, "h1_framing"),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n", 400, "h1_framing"),
        (b"CONNECT /a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "h1_target"),
        (CHUNKED + b"1" * 2000, 400, "h1_chunk"),
        (CHUNKED + b"0\r\nX: " + b"a" * 20_000, 431, "h1_trailers"),
        (CHUNKED + b"0\r\nX : a\r\n\r\n", 400, "h1_trailers"),
        (CHUNKED + b"0\r\nX: a\n", 400, "h1_line_end"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("cut", [False, True], ids=["whole", "in pieces"])
def test_every_refusal_names_itself_to_client_and_operator(data: bytes, status: int, label: str, cut: bool) -> None:
    engine, host = server()
    pieces = [data[i : i + 997] for i in range(0, len(data), 997)] if cut else [data]
    for piece in pieces:
        engine.receive(piece, 0.0)
    start, fields, body = split_head(host.take())
    assert start.startswith(b"HTTP/1.1 %d " % status)
    assert fields[b"mesh-error"] == label.encode()
    assert fields[b"connection"] == b"close"
    assert body.startswith(label.encode())
    assert host.violations == [label]
    assert engine.closing
    assert engine.linger
    for request in host.requests:
        assert request.sink.events[-1] == ("request_reset", PROTOCOL_ERROR)


@pytest.mark.parametrize("odd", range(256))
def test_a_value_may_hold_any_byte_but_a_control_character(odd: int) -> None:
    """RFC 9110 5.5; the tab is none.  In the middle, so that white space is not trimmed."""
    engine, host = server()
    engine.receive(get(b"X: a" + bytes([odd]) + b"b"), 0.0)
    if (odd < 32 and odd != 9) or odd == 127:
        assert host.requests == []
        assert host.take().startswith(b"HTTP/1.1 400 ")
    else:
        assert host.requests[0].head.field(b"x") == b"a" + bytes([odd]) + b"b"


@pytest.mark.parametrize("pieces", [whole, bytewise])
@pytest.mark.parametrize(
    ("line", "served"),
    [
        (b"5".rjust(1024, b"0"), True),
        (b"5".rjust(1025, b"0"), False),
        (b"5;a=b".rjust(1024, b"0"), True),
        (b"5 ;a=b".rjust(40, b"0"), True),
        (b"5 ".rjust(40, b"0"), False),
        (b"0x5".rjust(40, b"0"), False),
        (b"5".rjust(40, b"0") + b"g", False),
        (b"0" * 20 + b"1" * 16, False),
        (b"1" * 16, False),
    ],
    ids=lambda value: f"{value[:4]!r} to {value[-6:]!r}, {len(value)} bytes" if isinstance(value, bytes) else "",
)
def test_zeros_before_the_size_of_a_chunk_are_bounded_by_its_line(
    line: bytes, served: bool, pieces: Callable[[bytes], list[bytes]]
) -> None:
    engine, host = server()
    for piece in pieces(get(b"Transfer-Encoding: chunked", method=b"POST") + line + b"\r\nhello\r\n" + b"0" * 30 + b"\r\n\r\n"):
        engine.receive(piece, 0.0)
    assert host.requests[0].complete == served
    assert engine.closing != served
    assert host.requests[0].sink.body == (b"hello" if served else b"")


def test_limits_have_passing_controls() -> None:
    for data in (
        get(b"X: " + b"a" * 60_000),
        get(*[b"X-%d: 1" % i for i in range(127)]),
        b"GET /" + b"a" * 8170 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        CHUNKED + b"1;" + b"e" * 1000 + b"\r\nx\r\n0\r\nX: " + b"a" * 16_000 + b"\r\n\r\n",
    ):
        engine, host = answering()
        assert host.feed([data]).startswith(b"HTTP/1.1 200 ")
        assert not engine.closing


def test_small_limits_hold_also_for_heads_that_others_had_accepted() -> None:
    head = get(*[b"X-%d: 1" % i for i in range(10)])
    engine, host = answering()
    assert host.feed([head, head]).count(b"200 OK") == 2
    limits = Limits()
    limits.head_fields = 5
    engine, host = answering(limits)
    assert b" 431 " in host.feed([head])
    assert engine.closing


def test_the_host_can_refuse_a_slow_head_by_the_same_way() -> None:
    engine, host = server()
    engine.receive(b"GET / HT", 0.0)
    engine.refuse(408, "header_timeout", "the head did not arrive in time")
    assert host.take().startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert engine.closing


# -- bodies, early answers, ends


def test_an_early_response_goes_through_and_the_connection_is_not_reused() -> None:
    engine, host = server()
    engine.receive(POST + b"he", 0.0)
    request = host.requests[0]
    request.stream.send_head(response(413), [], True)
    _, fields, _ = split_head(host.take())
    assert fields[b"connection"] == b"close"
    assert engine.closing
    assert engine.linger
    events = list(request.sink.events)
    engine.receive(b"llo" + GET, 0.0)
    assert request.sink.events == events
    assert len(host.requests) == 1
    assert host.take() == b""


def test_a_response_that_begins_early_but_ends_after_the_request_leaves_the_connection_usable() -> None:
    engine, host = server()
    engine.receive(POST, 0.0)
    host.requests[0].stream.send_head(OK, [], False)
    engine.receive(b"hello", 0.0)
    host.requests[0].stream.send_data(b"ok", True)
    assert not engine.closing
    engine.receive(GET, 0.0)
    assert len(host.requests) == 2


def test_a_body_error_behind_a_begun_response_only_closes() -> None:
    engine, host = server()
    engine.receive(get(b"Transfer-Encoding: chunked", method=b"POST"), 0.0)
    host.requests[0].stream.send_head(response(200), [], False)
    host.take()
    engine.receive(b"zz\r\n", 0.0)
    assert host.take() == b""
    assert engine.closing
    assert host.requests[0].sink.events == [("request_reset", PROTOCOL_ERROR)]


def test_a_client_that_waits_for_100_owes_nothing_until_it_is_told() -> None:
    engine, host = server()
    engine.receive(get(b"Expect: 100-Continue", b"Content-Length: 5", method=b"POST"), 0.0)
    assert host.requests[0].head.expect_continue
    assert engine.awaiting() == AWAITING_US
    host.requests[0].stream.send_interim(response(100))
    assert engine.awaiting() == AWAITING_BODY
    assert host.take() == b"HTTP/1.1 100 Continue\r\n\r\n"


def test_a_refusal_instead_of_100_says_that_the_connection_closes_and_arrives() -> None:
    """The body was never asked for, so whatever comes next on the connection may be it or a new request."""
    engine, host = server()
    engine.receive(get(b"Expect: 100-continue", b"Content-Length: 5", method=b"POST"), 0.0)
    stream = host.requests[0].stream
    stream.send_head(response(417, (b"Content-Length", b"2")), [], False)
    stream.send_data(b"no", True)
    assert host.take() == b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\nconnection: close\r\n\r\nno"
    assert engine.closing
    assert engine.linger
    engine.receive(GET, 0.0)
    assert len(host.requests) == 1


@pytest.mark.parametrize("after", ["100", "body"])
def test_an_answer_after_100_or_after_the_body_began_leaves_the_connection_open(after: str) -> None:
    engine, host = server()
    engine.receive(get(b"Expect: 100-continue", b"Content-Length: 5", method=b"POST"), 0.0)
    stream = host.requests[0].stream
    if after == "100":
        stream.send_interim(response(100))
    else:
        engine.receive(b"he", 0.0)
    stream.send_head(OK, [], False)
    engine.receive(b"hello" if after == "100" else b"llo", 0.0)
    stream.send_data(b"ok", True)
    assert b"connection: close" not in host.take()
    assert not engine.closing


@pytest.mark.parametrize("lines", [(), (b"Content-Length: 0",), (b"Connection: upgrade", b"Upgrade: foo")])
def test_who_has_no_content_to_wait_with_is_not_taken_to_wait_for_100(lines: tuple[bytes, ...]) -> None:
    """RFC 9110 10.1.1: a client must not say it then.  Nobody is asked for content that will not come."""
    engine, host = server()
    expect = b"Expect: 100-continue"
    for requests in (
        (get(b"X: 1", *lines, expect), get(expect, *lines)),
        (get(b"X: 1", expect, *lines), get(b"X: 1", expect, *lines, b"Y: 2")),  # the second begins like the first
        (get(b"X: 1", b"Y: 1", *lines, b"Z: 1"), get(b"X: 1", b"Y: 1", *lines, b"Z: 2"), get(b"X: 1", b"Y: 1", *lines, expect)),
    ):
        for data in requests:
            engine.receive(data, 0.0)
            request = host.requests[-1]
            assert not request.head.expect_continue
            assert request.head.field(b"expect") is None
            request.stream.send_head(OK, [], False)
            request.stream.send_data(b"ok", True)
    assert len(host.requests) == 7


def test_who_waits_for_100_is_known_also_where_its_length_comes_in_another_line_than_with_the_others() -> None:
    engine, host = server()
    for number in range(6):
        lines = (b"A: 1", b"Expect: 100-continue", b"Content-Length: %d" % number)
        engine.receive(get(*lines, method=b"POST"), 0.0)
        request = host.requests[-1]
        assert request.head.expect_continue == (number > 0)
        engine.receive(b"x" * number, 0.0)
        request.stream.send_head(OK, [], False)
        request.stream.send_data(b"ok", True)
    assert len(host.requests) == 6


def test_a_1_0_client_is_not_taken_to_wait_for_100() -> None:
    engine, host = server()
    engine.receive(get(b"Expect: 100-continue", b"Content-Length: 5", method=b"POST", version=b"HTTP/1.0"), 0.0)
    assert not host.requests[0].head.expect_continue
    assert engine.awaiting() == AWAITING_BODY


@pytest.mark.parametrize(
    ("value", "asked"),
    [
        (b"trailers", True),
        (b"gzip, Trailers", True),
        (b"deflate,trailers ", True),
        (b"xtrailers", False),
        (b"trailers-x", False),
    ],
)
def test_te_asks_for_trailers_by_that_token_only(value: bytes, asked: bool) -> None:
    engine, host = server()
    engine.receive(get(b"TE: " + value, b"Connection: TE"), 0.0)
    assert host.requests[0].head.trailers_ok is asked


def test_awaiting_names_whose_move_it_is() -> None:
    engine, host = server()
    assert engine.awaiting() == AWAITING_NOTHING
    engine.receive(b"\r\n", 0.0)
    assert engine.awaiting() == AWAITING_NOTHING
    engine.receive(POST[:10], 0.0)
    assert engine.awaiting() == AWAITING_HEAD
    engine.receive(POST[10:], 0.0)
    assert engine.awaiting() == AWAITING_BODY
    host.requests[0].stream.pause()
    assert host.holding
    assert engine.awaiting() == AWAITING_US
    host.requests[0].stream.resume()
    assert not host.holding
    assert engine.awaiting() == AWAITING_BODY
    engine.receive(b"hello", 0.0)
    assert engine.awaiting() == AWAITING_US
    host.requests[0].stream.send_head(response(204), [], True)
    assert engine.awaiting() == AWAITING_NOTHING


def test_a_stream_paused_at_its_end_lets_the_next_request_be_read() -> None:
    engine, host = server()
    engine.receive(POST, 0.0)
    host.requests[0].stream.pause()
    engine.receive(b"hello", 0.0)  # in flight when the reader was held: still delivered
    assert host.requests[0].sink.body == b"hello"
    host.requests[0].stream.send_head(response(204), [], True)
    assert not host.holding


def test_a_client_that_goes_away_in_its_body_resets_the_request() -> None:
    for end in ("receive_eof", "lost"):
        engine, host = server()
        engine.receive(POST + b"he", 0.0)
        getattr(engine, end)()
        assert host.requests[0].sink.events[-1] == ("request_reset", CANCEL)
        assert engine.closing
        assert host.take() == b""


def test_a_half_closed_client_gets_the_answers_to_all_it_asked() -> None:
    engine, host = server()
    engine.receive(GET + GET + b"GET / HT", 0.0)
    engine.receive_eof()
    assert not engine.closing
    host.requests[0].stream.send_head(response(204), [], True)
    assert not engine.closing
    host.requests[1].stream.send_head(response(204), [], True)
    assert engine.closing
    assert host.take().count(b"204 No Content") == 2
    assert host.requests[1].sink.events == []


def test_a_half_closed_clients_answer_has_begun_with_an_interim_one_and_each_request_is_judged_by_its_own() -> None:
    engine, host = server()
    engine.receive(GET + GET + GET, 0.0)
    assert not engine.unanswered()
    engine.receive_eof()
    assert engine.unanswered()
    host.requests[0].stream.send_interim(response(103))
    assert not engine.unanswered()
    host.requests[0].stream.send_head(response(204), [], True)
    assert engine.unanswered()
    host.requests[1].stream.send_head(response(200), [], False)
    assert not engine.unanswered()
    host.requests[1].stream.send_data(b"x", True)
    assert engine.unanswered()
    host.requests[2].stream.send_head(response(204), [], True)
    assert not engine.unanswered()


def test_a_client_of_1_0_gets_no_interim_answer_so_its_answer_has_not_begun() -> None:
    engine, host = server()
    engine.receive(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n", 0.0)
    engine.receive_eof()
    host.requests[0].stream.send_interim(response(103))
    assert engine.unanswered()


def test_an_idle_or_partial_connection_closes_silently_at_the_end_of_input() -> None:
    for data in (b"", b"GET / HT"):
        engine, host = server()
        engine.receive(data, 0.0)
        engine.receive_eof()
        assert engine.closing
        assert host.take() == b""


def test_a_lost_connection_resets_its_one_exchange_once() -> None:
    engine, host = server()
    engine.receive(GET, 0.0)
    engine.lost()
    engine.lost()
    assert host.requests[0].sink.events == [("request_reset", CANCEL)]
    host.requests[0].stream.send_head(OK, [], True)
    assert host.take() == b""


def test_drain_closes_an_idle_connection_at_once_and_a_busy_one_after_its_answer() -> None:
    engine, host = server()
    engine.drain()
    assert engine.closing
    engine, host = server()
    engine.receive(GET + GET, 0.0)
    engine.drain()
    assert not engine.closing
    host.requests[0].stream.send_head(response(204), [], True)
    assert b"connection: close\r\n" in host.take()
    assert engine.closing
    assert len(host.requests) == 1


def test_a_full_socket_blocks_the_response_once_and_only_while_there_is_one() -> None:
    engine, host = server()
    engine.socket_blocked()
    engine.socket_unblocked()
    engine.receive(GET, 0.0)
    sink = host.requests[0].sink
    engine.socket_blocked()
    assert sink.events == []  # nothing is being sent yet
    host.requests[0].stream.send_head(response(200), [], False)
    host.requests[0].stream.send_data(b"a", False)
    host.requests[0].stream.send_data(b"b", False)
    assert sink.names() == ["response_blocked"]
    engine.socket_unblocked()
    assert sink.names() == ["response_blocked", "response_unblocked"]
    engine.socket_blocked()
    assert sink.names() == ["response_blocked", "response_unblocked", "response_blocked"]


# -- tunnels


def test_connect_becomes_a_tunnel_with_2xx() -> None:
    engine, host = server()
    engine.receive(CONNECT + b"early", 0.0)
    request = host.requests[0]
    assert (request.head.method, request.head.authority, request.head.path, request.end) == (
        b"CONNECT",
        b"db.test:5432",
        b"",
        False,
    )
    assert request.sink.events == []
    request.stream.send_head(response(200, (b"Content-Length", b"5")), [], False)
    assert host.take() == b"HTTP/1.1 200 OK\r\n\r\n"
    assert request.sink.events == [("request_data", b"early", False)]
    request.stream.send_data(b"raw", False)
    engine.receive(b"GET / HTTP/1.1\r\n\r\n", 0.0)
    assert request.sink.body == b"earlyGET / HTTP/1.1\r\n\r\n"
    assert host.take() == b"raw"
    assert engine.awaiting() == AWAITING_US


def test_each_direction_of_a_tunnel_ends_alone() -> None:
    engine, host = server()
    engine.receive(CONNECT, 0.0)
    stream, sink = host.requests[0].stream, host.requests[0].sink
    stream.send_head(response(200), [], False)
    engine.receive_eof()
    assert sink.events == [("request_data", b"", True)]
    assert not engine.closing
    stream.send_data(b"bye", True)
    assert engine.closing
    assert not engine.abort

    engine, host = server()
    engine.receive(CONNECT, 0.0)
    stream, sink = host.requests[0].stream, host.requests[0].sink
    stream.send_head(response(200), [], False)
    stream.send_data(b"bye", True)
    assert engine.half_close
    assert not engine.closing
    engine.receive(b"more", 0.0)
    engine.receive_eof()
    assert sink.events == [("request_data", b"more", False), ("request_data", b"", True)]
    assert engine.closing


def test_a_half_close_before_the_tunnel_is_granted_is_passed_on() -> None:
    engine, host = server()
    engine.receive(CONNECT + b"all of it", 0.0)
    engine.receive_eof()
    host.requests[0].stream.send_head(response(200), [], False)
    assert host.requests[0].sink.body == b"all of it"
    assert host.requests[0].sink.events[-1] == ("request_data", b"", True)
    host.requests[0].stream.send_data(b"answer", True)
    assert engine.closing


def test_an_upgrade_becomes_a_tunnel_with_101() -> None:
    engine, host = server()
    engine.receive(UPGRADE, 0.0)
    request = host.requests[0]
    assert (request.head.protocol, request.end) == (b"websocket", False)
    head = response(101, (b"Sec-WebSocket-Accept", b"x"))
    request.stream.send_head(head, [], False)
    _, fields, rest = split_head(host.take())
    assert fields == {b"sec-websocket-accept": b"x", b"connection": b"upgrade", b"upgrade": b"websocket"}
    assert rest == b""
    engine.receive(b"\x81\x00", 0.0)
    assert request.sink.body == b"\x81\x00"


def test_a_2xx_from_extended_connect_is_101_to_the_client() -> None:
    engine, host = server()
    engine.receive(UPGRADE, 0.0)
    host.requests[0].stream.send_head(response(200, version=20), [], False)
    assert host.take().startswith(b"HTTP/1.1 101 Switching Protocols\r\n")


@pytest.mark.parametrize("data", [UPGRADE, CONNECT])
def test_a_declined_tunnel_was_an_ordinary_request(data: bytes) -> None:
    engine, host = server()
    engine.receive(data, 0.0)
    host.requests[0].stream.send_head(response(403), [], True)
    assert host.take() == b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n"
    assert not engine.closing
    engine.receive(GET, 0.0)
    assert len(host.requests) == 2


@pytest.mark.parametrize("data", [UPGRADE, CONNECT])
def test_bytes_sent_in_hope_of_a_tunnel_are_never_taken_for_a_request(data: bytes) -> None:
    engine, host = server()
    engine.receive(data + GET, 0.0)
    host.requests[0].stream.send_head(response(403), [], True)
    assert engine.closing
    assert len(host.requests) == 1


@pytest.mark.parametrize(
    "lines",
    [
        (b"Upgrade: websocket",),
        (b"Connection: upgrade", b"Upgrade: h2c"),
        (b"Connection: upgrade", b"Upgrade: H2C"),
        (b"Connection: upgrade", b"Upgrade: h2c", b"Content-Length: 3"),
        (b"Connection: upgrade", b"Upgrade: websocket", b"Transfer-Encoding: chunked"),
    ],
)
def test_an_upgrade_we_do_not_pass_on_is_an_ordinary_request(lines: tuple[bytes, ...]) -> None:
    engine, host = server()
    content = b"" if len(lines) < 3 else b"abc" if b"Length" in lines[2] else b"3\r\nabc\r\n0\r\n\r\n"
    engine.receive(get(*lines) + content, 0.0)
    request = host.requests[0]
    assert request.head.protocol == b""
    assert request.complete


EXEC = get(b"Connection: Upgrade", b"Upgrade: tcp", b"Content-Length: 5", method=b"POST")


@pytest.mark.parametrize("pieces", [whole, bytewise])
def test_what_follows_the_content_of_an_upgrade_waits_until_it_is_granted(pieces: Callable[[bytes], list[bytes]]) -> None:
    engine, host = server()
    for piece in pieces(EXEC + b"helloraw"):
        engine.receive(piece, 0.0)
    request = host.requests[0]
    assert (request.head.protocol, request.head.content_length) == (b"tcp", 5)
    assert (request.sink.body, request.complete) == (b"hello", False)
    request.stream.send_head(response(101), [], False)
    assert request.sink.body == b"helloraw"
    engine.receive_eof()
    assert request.sink.ended


def test_an_upgrade_that_is_declined_after_its_content_leaves_the_connection_as_it_was() -> None:
    engine, host = server()
    engine.receive(EXEC + b"hello", 0.0)
    host.requests[0].stream.send_head(response(404), [], True)
    assert host.take() == b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"
    engine.receive(GET, 0.0)
    assert [request.head.method for request in host.requests] == [b"POST", b"GET"]


@pytest.mark.parametrize("before", [b"", b"he", b"hello"])
def test_what_comes_after_the_content_of_a_declined_upgrade_is_never_taken_for_a_request(before: bytes) -> None:
    engine, host = server()
    engine.receive(EXEC + before + (GET if before == b"hello" else b""), 0.0)
    stream = host.requests[0].stream
    stream.send_head(response(413, (b"Content-Length", b"2")), [], False)
    engine.receive(b"hello"[len(before) :] + GET if before != b"hello" else GET, 0.0)
    stream.send_data(b"no", True)
    out = host.take()
    assert out.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close\r\n" in out
    assert engine.closing
    assert len(host.requests) == 1
    assert host.requests[0].sink.body == b"hello"


def test_an_upgrade_granted_before_its_content_is_whole_passes_on_what_comes_as_it_comes() -> None:
    engine, host = server()
    engine.receive(EXEC + b"he", 0.0)
    request = host.requests[0]
    request.stream.send_head(response(101), [], False)
    engine.receive(b"llo" + GET, 0.0)
    assert request.sink.body == b"hello" + GET
    engine.receive_eof()
    assert (request.sink.ended, len(host.requests)) == (True, 1)


def test_a_client_that_leaves_in_the_content_of_an_upgrade_is_gone() -> None:
    engine, host = server()
    engine.receive(EXEC + b"he", 0.0)
    assert engine.awaiting() == AWAITING_BODY
    engine.receive_eof()
    assert host.requests[0].sink.events[-1] == ("request_reset", CANCEL)
    assert not host.requests[0].complete


def test_the_first_protocol_that_may_pass_is_chosen() -> None:
    engine, host = server()
    engine.receive(get(b"Connection: upgrade", b"Upgrade: h2c, WebSocket"), 0.0)
    assert host.requests[0].head.protocol == b"websocket"


@pytest.mark.parametrize(
    ("lines", "chosen"),
    [
        ((b"foo", b"bar"), b"foo"),
        ((b"h2c", b"foo, bar"), b"foo"),
        ((b"", b"foo"), b"foo"),
        ((b"foo", b""), b"foo"),
        ((b"TLS/1.0, h2c", b"HTTP/2.0"), b""),
    ],
)
def test_several_upgrade_lines_are_one_list_in_their_order(lines: tuple[bytes, ...], chosen: bytes) -> None:
    engine, host = server()
    engine.receive(get(b"Connection: upgrade", *[b"Upgrade: " + line for line in lines]), 0.0)
    assert host.requests[0].head.protocol == chosen


def test_101_that_nobody_asked_for_never_reaches_the_client() -> None:
    engine, host = server()
    engine.receive(GET, 0.0)
    host.requests[0].stream.send_head(response(101), [], False)
    assert host.take().startswith(b"HTTP/1.1 502 ")
    assert engine.closing


def test_resetting_a_tunnel_aborts_it() -> None:
    engine, host = server()
    engine.receive(CONNECT, 0.0)
    host.requests[0].stream.send_head(response(200), [], False)
    host.requests[0].stream.reset(CANCEL)
    assert engine.closing
    assert engine.abort


# -- the host's side of the contract


def test_a_request_may_be_answered_or_reset_inside_on_request() -> None:
    def answer(request: Request) -> None:
        if request.head.path == b"/reset":
            request.stream.reset(CANCEL)
        else:
            request.stream.send_head(response(503), [], True)

    host = Recorder(answer)
    engine = Http1Server(host, Limits())
    host.attach(engine)
    engine.receive(GET * 3 + b"GET /reset HTTP/1.1\r\nHost: a\r\n\r\n" + GET, 0.0)
    assert len(host.requests) == 4
    assert host.take().count(b"HTTP/1.1 503 ") == 3
    assert engine.closing


def test_the_host_is_woken_once_for_what_one_turn_puts_out() -> None:
    engine, host = answering()
    engine.receive(GET * 10, 0.0)
    assert host.wakes == 1
    host.take()
    engine.receive(GET, 0.0)
    assert host.wakes == 2


def test_a_sink_may_reset_its_stream_inside_any_event() -> None:
    class Resetting(RecordingSink):
        def request_data(self, data: bytes, end: bool) -> None:
            super().request_data(data, end)
            host.requests[0].stream.reset(CANCEL)

    engine, host = server()
    engine.receive(POST, 0.0)
    sink = host.requests[0].stream.sink = Resetting()
    for piece in bytewise(b"hello" + GET):
        engine.receive(piece, 0.0)
    assert sink.events == [("request_data", b"h", False)]
    assert engine.closing


def test_small_pieces_for_a_socket_that_is_full_are_joined_and_go_when_it_takes_more() -> None:
    host = Recorder()
    engine = Http1Server(host, Limits())
    host.attach(engine)
    engine.receive(GET, 0.0)
    stream = host.requests[0].stream
    stream.send_head(response(200), [], False)
    engine.out = []
    engine.socket_blocked()
    for _ in range(10_000):
        stream.send_data(b"x", False)
    assert len(engine.out) < 50
    waiting = b"".join(engine.out)
    assert waiting == b"1\r\nx\r\n" * 10_000
    woken = host.wakes
    engine.socket_unblocked()
    assert host.wakes == woken + 1

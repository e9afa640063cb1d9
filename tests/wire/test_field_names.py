"""Names with "_": an app behind WSGI or CGI reads it as "-".  What could be taken there for a field that frames a message or
says who asks does not pass, and never breaks a message; all else passes as it came."""

from __future__ import annotations

from typing import Any

import pytest
from http1_play import client, exchange, server
from http2_harness import END_HEADERS, END_STREAM, GET, HEADERS, POST, Log, Raw, Recorder, block, frame, pairs
from http2_harness import request as request2
from recorder import request, response

from meshproxy.wire.h2_adapter import H2Client, H2Server
from meshproxy.wire.http2 import Http2Client, Http2Server
from meshproxy.wire.limits import Limits
from meshproxy.wire.message import CACHES

SERVERS: dict[str, Any] = {"ours": Http2Server, "h2": H2Server}
CLIENTS: dict[str, Any] = {"ours": Http2Client, "h2": H2Client}

DROPPED = [
    b"content_length",
    b"transfer_encoding",
    b"keep_alive",
    b"proxy_connection",
    b"http2_settings",
    b"mesh_client_id",
    b"mesh_client-id",
    b"mesh-client_id",
    b"l5d_client_id",
    b"l5d_x",
]
PASSED = [
    b"x_request_id",
    b"content_type",
    b"set_cookie",
    b"last_modified",
    b"grpc_timeout",
    b"grpc_status",
    b"max_forwards",
    b"x_forwarded_for",
    b"x_envoy_expected_rq_timeout_ms",
    b"trace_parent",
    b"http_host",
    b"meshed_by",
    b"_",
    b"a_b-c",
    b"transfer-encoding_",  # another name, also with "-" for "_"
]
FIELDS = [(name, b"7") for pair in zip(DROPPED, PASSED, strict=False) for name in pair]
FIELDS += [(name, b"7") for name in PASSED[len(DROPPED) :]]
LEFT = [(name, b"7") for name in PASSED]
LINES = b"".join(b"%b: %b\r\n" % (name.title(), value) for name, value in FIELDS)
CHUNK = b"1\r\nx\r\n0\r\n"
TE = b"Transfer-Encoding: chunked\r\n"


@pytest.fixture(params=[True, False], ids=["memo", "no memo"], autouse=True)
def caches(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CACHES, "enabled", request.param)


def test_in_a_request_over_http1() -> None:
    engine, host = server()
    for _ in range(3):  # the third time they are known
        engine.receive(b"GET / HTTP/1.1\r\nHost: a\r\n" + LINES + b"\r\n", 0.0)
        seen = host.requests[-1]
        assert pairs(seen.head.fields) == LEFT
        assert [field.name for field in seen.head.mesh] == [b"mesh-client_id"]  # taken off as every mesh-* is
        assert seen.head.request_id == b""
        assert seen.complete
        seen.stream.send_head(response(204), [], True)


def test_in_an_answer_over_http1() -> None:
    engine, host = client()
    for _ in range(3):
        stream, sink = exchange(engine)
        stream.send_head(request(), [], True)
        host.take()
        engine.receive(b"HTTP/1.1 200 OK\r\n" + LINES + b"Content-Length: 0\r\n\r\n", 0.0)
        (event,) = sink.named("response_head")
        assert pairs(event[1].fields) == [*LEFT, (b"content-length", b"0")]


def test_in_trailers_over_http1() -> None:
    engine, host = server()
    engine.receive(b"POST / HTTP/1.1\r\nHost: a\r\n" + TE + b"\r\n" + CHUNK + LINES + b"\r\n", 0.0)
    assert host.requests[0].sink.trailers == LEFT
    up, up_host = client()
    stream, sink = exchange(up)
    stream.send_head(request(), [], True)
    up_host.take()
    up.receive(b"HTTP/1.1 200 OK\r\n" + TE + b"\r\n" + CHUNK + LINES + b"\r\n", 0.0)
    assert sink.trailers == LEFT


@pytest.mark.parametrize("which", SERVERS)
def test_in_a_request_over_http2(which: str) -> None:
    host = Recorder()
    raw = Raw(SERVERS[which](host, Limits()))
    raw.settle()
    for number in (1, 3, 5):
        raw.headers(number, [*GET, *FIELDS])
        seen = host.requests[-1]
        assert len(host.requests) == (number + 1) // 2
        assert pairs(seen.head.fields) == LEFT
        assert [field.name for field in seen.head.mesh] == [b"mesh-client_id"]
        assert seen.head.request_id == b""
    assert (raw.resets(), host.violations) == ({}, [])


@pytest.mark.parametrize("which", SERVERS)
def test_in_trailers_over_http2(which: str) -> None:
    host = Recorder()
    raw = Raw(SERVERS[which](host, Limits()))
    raw.settle()
    raw.headers(1, POST, end=False)
    raw.headers(1, FIELDS)
    assert host.requests[0].log.trailers == LEFT
    assert (raw.resets(), host.violations) == ({}, [])


@pytest.mark.parametrize("which", CLIENTS)
def test_in_an_answer_and_its_trailers_over_http2(which: str) -> None:
    host = Recorder()
    raw = Raw(CLIENTS[which](host, Limits()))
    raw.settle()
    stream = raw.engine.open()
    stream.sink = log = Log()
    stream.send_head(request2(), [], True)
    raw.send(frame(HEADERS, END_HEADERS, 1, block([(b":status", b"103"), *FIELDS])))
    raw.send(frame(HEADERS, END_HEADERS, 1, block([(b":status", b"200"), *FIELDS])))
    raw.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, block(FIELDS)))
    assert log.head is not None
    assert pairs(log.interim[0].fields) == pairs(log.head.fields) == log.trailers == LEFT
    assert (raw.resets(), host.violations) == ({}, [])


@pytest.mark.parametrize("which", SERVERS)
@pytest.mark.parametrize("name", [b"keep-alive", b"transfer-encoding", b"proxy-connection", b"http2-settings"])
def test_their_namesakes_are_still_malformed_in_http2(which: str, name: bytes) -> None:
    host = Recorder()
    raw = Raw(SERVERS[which](host, Limits()))
    raw.settle()
    raw.headers(1, [*GET, (name, b"1")])
    assert (raw.resets(), host.violations, host.requests) == ({1: 1}, ["h2_malformed"], [])

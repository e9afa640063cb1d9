"""Ends that are said in time: answers that stop in their heads, refusals of requests that are not whole."""

from __future__ import annotations

import pytest
from http1_play import client, exchange, server, split_head
from recorder import Recorder, RecordingSink, request, response

from meshproxy.wire.engine import PROTOCOL_ERROR
from meshproxy.wire.http1 import Http1Client

CL5 = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
POST = b"POST / HTTP/1.1\r\nHost: svc.test\r\nContent-Length: 5\r\n\r\n"


def asked() -> tuple[Http1Client, Recorder, RecordingSink]:
    """A client whose request was sent and taken by the socket."""
    engine, host = client()
    stream, sink = exchange(engine)
    stream.send_head(request(), [], True)
    host.take()
    return engine, host, sink


@pytest.mark.parametrize("data", [b"hello", b"H ", b"HTTP/2", b"http/1.1 200 OK"])
def test_what_is_no_beginning_of_an_answer_is_refused_at_once(data: bytes) -> None:
    engine, host, sink = asked()
    engine.receive(data, 0.0)
    assert sink.events == [("response_reset", PROTOCOL_ERROR, False)]
    assert host.violations == ["h1_status_line"]
    assert engine.closing


def test_every_beginning_of_an_answer_is_waited_for() -> None:
    engine, host, sink = asked()
    for at in range(len(CL5)):
        engine.receive(CL5[at : at + 1], 0.0)
    assert sink.body == b"hello"
    assert host.violations == []


@pytest.mark.parametrize("blocked", [False, True])
def test_a_head_that_takes_too_long_ends_its_exchange_and_nothing_else_does(blocked: bool) -> None:
    engine, host, sink = asked()
    engine.head_overdue()  # there is none
    assert not sink.events
    engine.receive(CL5[:10], 0.0)
    if blocked:
        engine.socket_blocked()
    engine.head_overdue()
    assert sink.events[-1] == ("response_reset", PROTOCOL_ERROR, False)
    assert host.violations == ["slow_response_head"]
    assert engine.closing
    assert engine.abort == blocked  # what a server does not take would keep the connection


@pytest.mark.parametrize("status", [302, 413, 502])
def test_a_refusal_of_an_unfinished_request_says_that_the_connection_closes_and_it_does(status: int) -> None:
    """RFC 9112 9.6, also where the answer's end comes after its head, or after the request's"""
    for rest in (b"", b"llo"):
        engine, host = server()
        engine.receive(POST + b"he", 0.0)
        stream = host.requests[0].stream
        stream.send_head(response(status, (b"Content-Length", b"2")), [], False)
        assert split_head(host.take())[1][b"connection"] == b"close"
        assert not engine.closing
        if rest:
            engine.receive(rest, 0.0)
        stream.send_data(b"no", True)
        assert host.take() == b"no"
        assert engine.closing
        assert engine.linger == (rest == b"")


def test_a_refusal_of_a_whole_request_leaves_the_connection_usable() -> None:
    engine, host = server()
    engine.receive(POST + b"hello", 0.0)
    host.requests[0].stream.send_head(response(413, (b"Content-Length", b"2")), [], False)
    assert b"connection" not in split_head(host.take())[1]
    host.requests[0].stream.send_data(b"no", True)
    assert not engine.closing

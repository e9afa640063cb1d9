"""What mesh peers say to each other about an Upgrade, and what is made of it (proxy/upgrade.py)."""

from __future__ import annotations

import pytest

from meshproxy.policy.access import request_method
from meshproxy.proxy.upgrade import declined, telling, told, undeclined
from meshproxy.wire.message import Field, Head


def connect(protocol: bytes = b"tcp") -> Head:
    head = Head()
    head.method = b"CONNECT"
    head.protocol = protocol
    head.path = b"/attach"
    head.version = 20
    return head


@pytest.mark.parametrize("method", [b"GET", b"POST", b"M-SEARCH"])
def test_access_rules_judge_the_method_that_the_app_will_see(method: bytes) -> None:
    head = connect()
    asked = told(head, method)
    assert (asked.method, asked.protocol, asked.path) == (method, b"tcp", b"/attach")
    assert request_method(asked) == method
    assert head.method == b"CONNECT"  # heads are shared
    assert told(asked, b"DELETE").method == method  # the first one counts


@pytest.mark.parametrize("method", [b"", b"A B", b"GET\t", b"x\x80", b"CONNECT", b"HEAD", b"OPTIONS", b"TRACE", b"P" * 65])
def test_a_method_that_cannot_be_is_not_believed(method: bytes) -> None:
    head = connect()
    assert told(head, method) is head


def test_only_extended_connect_has_a_method_to_be_told() -> None:
    for head in (connect(b""), Head()):
        assert told(head, b"POST") is head


def test_a_request_with_content_arrives_with_its_length() -> None:
    head = Head()
    head.method = b"POST"
    head.protocol = b"tcp"
    for length, said in ((-1, b"POST"), (0, b"POST"), (41, b"POST 41")):
        head.content_length = length
        assert [(field.name, field.value) for field in telling(head)] == [(b"mesh-upgrade", said)]
    asked = told(connect(), b"POST 41")
    assert (asked.method, asked.content_length, asked.field(b"content-length")) == (b"POST", 41, b"41")
    assert told(connect(), b"POST").content_length == -1


@pytest.mark.parametrize("length", [b"", b"0", b"041", b"-1", b"+1", b"4 1", b"41 ", b"0x4", b"1" * 19])
def test_a_length_that_cannot_be_is_not_believed(length: bytes) -> None:
    head = connect()
    assert told(head, b"POST " + length) is head


@pytest.mark.parametrize("value", [b"", b"2000", b"20", b"101", b"301", b"500", b"2x0", b"-20"])
def test_a_status_that_declines_nothing_is_not_believed(value: bytes) -> None:
    head = Head()
    head.status = 501
    head.mesh = [Field(b"mesh-status", value)]
    assert undeclined(head) is head


def test_what_was_declined_comes_back_as_it_was() -> None:
    asked = told(connect(), b"POST")
    page = Head()
    page.status = 206
    page.fields = [Field(b"content-length", b"4")]
    page.content_length = 4
    carried = declined(asked, page)
    assert (carried.status, carried.content_length, carried.field(b"mesh-status")) == (501, 4, b"206")
    arrived = Head()
    arrived.version = 20
    arrived.status = carried.status
    arrived.fields = carried.fields[:-1]
    arrived.mesh = carried.fields[-1:]
    answer = undeclined(arrived)
    assert (answer.status, answer.version, answer.field(b"content-length"), arrived.status) == (206, 11, b"4", 501)

"""gRPC without I/O: each row of its tables."""

from __future__ import annotations

import grpc
import hpack
import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from control.api import mesh_pb2, workload_pb2
from meshproxy.mesh.rpc import (
    CERTIFY,
    DETAILS_MAX,
    PREFIX_BYTES,
    WATCH,
    MessageBuffer,
    Method,
    RpcError,
    StatusCode,
    check_head,
    check_trailers,
    frame,
    grpc_error,
    request_head,
    reset_error,
)
from meshproxy.mesh.spire import FETCH_X509_SVID
from meshproxy.policy.deadline import parse_timeout
from meshproxy.wire.hpack.encoder import Encoder
from meshproxy.wire.http2.heads import response_head
from meshproxy.wire.message import Field, MalformedField


def test_the_codes_are_those_of_grpc() -> None:
    assert {code.name: code.value for code in StatusCode} == {code.name: code.value[0] for code in grpc.StatusCode}


@pytest.mark.parametrize(
    ("method", "service"),
    [
        (WATCH, mesh_pb2.DESCRIPTOR.services_by_name["Configuration"]),
        (CERTIFY, mesh_pb2.DESCRIPTOR.services_by_name["Identity"]),
        (FETCH_X509_SVID, workload_pb2.DESCRIPTOR.services_by_name["SpiffeWorkloadAPI"]),
    ],
)
def test_the_methods_are_those_of_the_proto_files(method: Method[Message, Message], service: object) -> None:
    found = service.methods_by_name[method.path.rpartition("/")[2]]  # type: ignore[attr-defined]
    assert method.path == f"/{found.containing_service.full_name}/{found.name}"
    assert (found.input_type, found.output_type) == (method.request.DESCRIPTOR, method.response.DESCRIPTOR)


# ---------------------------------------------------------------- the request


def test_a_request_says_what_the_specification_asks_for() -> None:
    head = request_head("/a.B/C", "https", "name", 1.5, [("workload.spiffe.io", "true")])
    assert (head.method, head.scheme, head.authority, head.path) == (b"POST", b"https", b"name", b"/a.B/C")
    assert head.field(b"content-type") == b"application/grpc"
    assert head.field(b"grpc-accept-encoding") == b"identity"
    assert head.field(b"workload.spiffe.io") == b"true"
    assert parse_timeout(head.field(b"grpc-timeout") or b"") == 1.5
    block = hpack.Decoder().decode(Encoder().head(head, []))
    assert ("te", "trailers") in [(str(name), str(value)) for name, value in block]


def test_a_request_without_a_deadline_names_none() -> None:
    assert request_head("/a.B/C", "http", "name", None, []).field(b"grpc-timeout") is None


def test_metadata_that_no_header_can_hold_is_refused() -> None:
    with pytest.raises(MalformedField):
        request_head("/a.B/C", "http", "name", None, [("x", "a\nb")])


# ---------------------------------------------------------------- messages


@given(st.lists(st.binary(max_size=40), max_size=12), st.lists(st.integers(1, 30), min_size=1))
def test_messages_come_out_as_they_went_in_however_they_are_cut(messages: list[bytes], cuts: list[int]) -> None:
    stream, buffer, taken = b"".join(frame(message) for message in messages), MessageBuffer(40), []
    turn = 0
    while stream:
        size = cuts[turn % len(cuts)]
        buffer.feed(stream[:size])
        stream = stream[size:]
        turn += 1
        if turn % 2 or not stream:
            while (message := buffer.take()) is not None:
                taken.append(message)
    assert taken == messages
    assert buffer.held == 0


def test_a_message_is_ready_with_its_last_byte_and_an_empty_one_with_its_prefix() -> None:
    buffer = MessageBuffer(10)
    buffer.feed(frame(b"abc")[:-1])
    assert (buffer.ready, buffer.take(), buffer.held) == (False, None, PREFIX_BYTES + 2)
    buffer.feed(b"c" + frame(b""))
    assert buffer.ready
    assert (buffer.take(), buffer.take(), buffer.take(), buffer.held) == (b"abc", b"", None, 0)


@pytest.mark.parametrize(
    ("prefix", "code", "said"),
    [
        (b"\1\0\0\0\1", StatusCode.INTERNAL, "a message is compressed, which was not offered"),
        (b"\2\0\0\0\1", StatusCode.INTERNAL, "a message has the flag 2"),
        (b"\0\0\0\0\x0b", StatusCode.RESOURCE_EXHAUSTED, "a message of 11 bytes; at most 10 are taken"),
        (b"\0\xff\xff\xff\xff", StatusCode.RESOURCE_EXHAUSTED, "a message of 4294967295 bytes"),
    ],
)
def test_what_may_not_come_is_refused_by_its_prefix(prefix: bytes, code: StatusCode, said: str) -> None:
    with pytest.raises(RpcError) as first:
        MessageBuffer(10).feed(prefix)
    behind = MessageBuffer(10)
    behind.feed(frame(b"good") + prefix)
    assert behind.take() == b"good"  # what came before it counts
    with pytest.raises(RpcError) as second:
        behind.take()
    for raised in (first.value, second.value):
        assert raised.code == code
        assert raised.details.startswith(said)


def test_a_message_of_the_largest_size_is_taken() -> None:
    buffer = MessageBuffer(10)
    buffer.feed(frame(b"0123456789"))
    assert buffer.take() == b"0123456789"


def test_what_is_no_such_message_is_an_internal_error() -> None:
    with pytest.raises(RpcError, match=r"INTERNAL: the answer to /meshproxy.v1.Identity/Certify is no meshproxy.v1.Cert"):
        CERTIFY.decode(b"\xff\xff")


# ---------------------------------------------------------------- statuses


def head_of(status: bytes = b"200", kind: bytes = b"application/grpc", **more: bytes) -> list[Field]:
    fields = [Field(b":status", status)] + ([Field(b"content-type", kind)] if kind else [])
    return fields + [Field(name.replace("_", "-").encode(), value) for name, value in more.items()]


HEADS = [
    (head_of(), False, False, None),
    (head_of(kind=b"application/grpc+proto"), False, False, None),
    (head_of(), True, True, "UNKNOWN: the answer ended with its head, and without a grpc-status"),
    (head_of(grpc_status=b"0"), True, True, None),
    (head_of(grpc_status=b"7", grpc_message=b"not%20you"), True, True, "PERMISSION_DENIED: not you"),
    (head_of(b"500", b"text/plain", grpc_status=b"5"), True, True, "NOT_FOUND: no details"),
    (head_of(kind=b"text/html"), False, True, "UNKNOWN: content-type text/html; application/grpc was expected"),
    (head_of(kind=b"application/grpc-web"), False, True, "UNKNOWN: content-type application/grpc-web; application/grpc was"),
    (head_of(kind=b""), False, True, "UNKNOWN: content-type none"),
    *(
        (head_of(b"%d" % status, b"text/html"), end, True, f"{name}: HTTP status {status} and no grpc-status; is that a gRPC")
        for end in (False, True)
        for status, name in (
            (400, "INTERNAL"),
            (401, "UNAUTHENTICATED"),
            (403, "PERMISSION_DENIED"),
            (404, "UNIMPLEMENTED"),
            (429, "UNAVAILABLE"),
            (502, "UNAVAILABLE"),
            (503, "UNAVAILABLE"),
            (504, "UNAVAILABLE"),
            (204, "UNKNOWN"),
            (302, "UNKNOWN"),
            (500, "UNKNOWN"),
        )
    ),
]


@pytest.mark.parametrize(("fields", "end", "over", "said"), HEADS)
def test_what_a_head_says(fields: list[Field], end: bool, over: bool, said: str | None) -> None:
    ended, error = check_head(response_head(fields), end)
    assert ended == over
    assert (error is None) == (said is None)
    assert error is None or str(error).startswith(said or "")


@pytest.mark.parametrize(
    ("status", "message", "said"),
    [
        (b"0", b"ignored", None),
        (b"00", b"", None),
        (b"16", b"unknown: no such token", "UNAUTHENTICATED: unknown: no such token"),
        (b"14", b"", "UNAVAILABLE: no details"),
        (b"17", b"new", "UNKNOWN: grpc-status 17: new"),
        (b"9999999999", b"", "UNKNOWN: grpc-status '9999999999' is no number"),
        (b"-1", b"", "UNKNOWN: grpc-status '-1' is no number"),
        (b"abc", b"x", "UNKNOWN: grpc-status 'abc' is no number"),
        (b"2", b"50%25 %C3%A4", "UNKNOWN: 50% \u00e4"),
        (b"2", b"bad %zz %4", "UNKNOWN: bad %zz %4"),  # not decodable: as it came, the specification asks for it
        (b"2", b"%FF%0Atwo%1b[1m", "UNKNOWN: \ufffd\ufffdtwo\ufffd[1m"),  # one line, and nothing for a terminal
        (b"2", b"a" * 10_000, "UNKNOWN: " + "a" * DETAILS_MAX),
    ],
)
def test_what_a_grpc_status_says(status: bytes, message: bytes, said: str | None) -> None:
    error = grpc_error(status, message)
    assert (None if error is None else str(error)) == said
    trailers = [Field(b"x", b"y"), Field(b"grpc-status", status), Field(b"grpc-message", message)]
    by_trailers = check_trailers(trailers)
    assert (None if by_trailers is None else str(by_trailers)) == said


def test_trailers_without_a_status_are_an_error() -> None:
    error = check_trailers([Field(b"grpc-message", b"x")])
    assert error is not None
    assert str(error) == "UNKNOWN: the answer ended without a grpc-status"


@pytest.mark.parametrize(
    ("code", "violation", "said"),
    [
        (0x0, "", "INTERNAL: the server reset the stream: NO_ERROR"),
        (0x1, "", "INTERNAL: the server reset the stream: PROTOCOL_ERROR"),
        (0x2, "", "INTERNAL: the server reset the stream: INTERNAL_ERROR"),
        (0x3, "", "INTERNAL: the server reset the stream: FLOW_CONTROL_ERROR"),
        (0x4, "", "INTERNAL: the server reset the stream: SETTINGS_TIMEOUT"),
        (0x5, "", "UNKNOWN: the server reset the stream: STREAM_CLOSED"),
        (0x6, "", "INTERNAL: the server reset the stream: FRAME_SIZE_ERROR"),
        (0x7, "", "UNAVAILABLE: the server reset the stream: REFUSED_STREAM"),
        (0x8, "", "CANCELLED: the server reset the stream: CANCEL"),
        (0x9, "", "INTERNAL: the server reset the stream: COMPRESSION_ERROR"),
        (0xA, "", "INTERNAL: the server reset the stream: CONNECT_ERROR"),
        (0xB, "", "RESOURCE_EXHAUSTED: the server reset the stream: ENHANCE_YOUR_CALM"),
        (0xC, "", "PERMISSION_DENIED: the server reset the stream: INADEQUATE_SECURITY"),
        (0xD, "", "INTERNAL: the server reset the stream: HTTP_1_1_REQUIRED"),
        (0xFF, "", "UNKNOWN: the server reset the stream: error 255"),
        (0x1, "h2_malformed", "INTERNAL: the server broke HTTP/2's rules: h2_malformed"),
    ],
)
def test_what_a_reset_says(code: int, violation: str, said: str) -> None:
    assert str(reset_error(code, False, violation)) == said


def test_a_stream_above_the_last_of_a_goaway_was_not_looked_at() -> None:
    assert str(reset_error(0x0, True, "")) == "UNAVAILABLE: the server says GOAWAY (NO_ERROR)"
    assert str(reset_error(0x7, True, "")) == "UNAVAILABLE: the server reset the stream: REFUSED_STREAM"

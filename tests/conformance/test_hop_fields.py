"""What a hop says of itself, and what it only carries: Via, x-forwarded-for, x-request-id, W3C trace context."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from forward_process import Answer, Forward, Reader, connect, free_port, send
from http2_peer import Http2Client, get
from recorders import Http1Recorder, Http2Recorder, RecordingBackend, Request

TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
STATE = b"rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"


class Hops:
    """edge (names itself) => inner (names itself) -> backend, and plain (does not) -> backend."""

    def __init__(self, kind: type[Http1Recorder] | type[Http2Recorder]) -> None:
        self.backend = RecordingBackend(kind)
        to_backend = "http1" if kind is Http1Recorder else "http2"
        self.inner = Forward(self.backend.port, "--upstream", to_backend, "--via", "inner", "--forwarded-for")
        self.edge = Forward(self.inner.port, "--upstream", "http2", "--via", "edge", "--forwarded-for")
        self.plain = Forward(self.backend.port, "--upstream", to_backend)

    def stop(self) -> None:
        for forward in (self.edge, self.inner, self.plain):
            forward.stop()
        self.backend.stop()

    def ask1(self, port: int, *lines: bytes, version: bytes = b"1.1") -> tuple[Answer, Request]:
        mark = self.backend.mark()
        with connect(port) as sock:
            head = [b"GET / HTTP/" + version, b"Host: svc.test", *lines, b"Connection: close", b"", b""]
            send(sock, b"\r\n".join(head))
            answer = Reader(sock).answer()
        assert answer is not None
        assert answer.status == 200
        self.backend.settle()
        (request,) = self.backend.since(mark)
        return answer, request

    def ask2(self, port: int, *fields: tuple[bytes, bytes]) -> tuple[dict[bytes, bytes], Request]:
        mark = self.backend.mark()
        with Http2Client(port) as client:
            answer = client.ask(get(b"/", *fields))
        assert answer.status == 200
        self.backend.settle()
        (request,) = self.backend.since(mark)
        return answer.fields, request


@pytest.fixture(scope="module", params=[Http1Recorder, Http2Recorder], ids=["http1 backend", "http2 backend"])
def hops(request: pytest.FixtureRequest) -> Iterator[Hops]:
    made = Hops(request.param)
    yield made
    made.stop()


def listed(request: Request, name: bytes) -> bytes:
    return b", ".join(request.values(name))


def test_each_hop_appends_its_name_with_the_version_in_which_it_received(hops: Hops) -> None:
    received = b"1.1" if hops.backend.kind is Http1Recorder else b"2"
    answer, request = hops.ask1(hops.edge.port, b"Via: 1.0 fred")
    assert listed(request, b"via") == b"1.0 fred, 1.1 edge, 2 inner"
    assert [line for line in answer.head.lower().split(b"\r\n") if line.startswith(b"via:")] == [
        b"via: " + received + b" inner",
        b"via: 2 edge",
    ]
    _, request = hops.ask1(hops.edge.port, version=b"1.0")
    assert listed(request, b"via") == b"1.0 edge, 2 inner"
    fields, request = hops.ask2(hops.edge.port, (b"via", b"1.0 fred"))
    assert listed(request, b"via") == b"1.0 fred, 2 edge, 2 inner"
    assert fields[b"via"] == b"2 edge"  # the last line of two


def test_the_clients_address_is_appended_behind_what_clients_claim(hops: Hops) -> None:
    for _ in range(2):  # the second time the head is known already
        _, request = hops.ask1(hops.edge.port, b"X-Forwarded-For: 192.0.2.1")
        assert request.values(b"x-forwarded-for") == [b"192.0.2.1", b"127.0.0.1", b"127.0.0.1"]
    _, request = hops.ask2(hops.edge.port)
    assert request.values(b"x-forwarded-for") == [b"127.0.0.1", b"127.0.0.1"]


def test_a_proxy_that_was_not_told_to_name_itself_does_not(hops: Hops) -> None:
    answer, request = hops.ask1(hops.plain.port, b"Via: 1.0 fred")
    assert listed(request, b"via") == b"1.0 fred"
    assert b"via" not in answer.fields
    assert request.values(b"x-forwarded-for") == []
    fields, request = hops.ask2(hops.plain.port, (b"x-forwarded-for", b"192.0.2.1"))
    assert listed(request, b"x-forwarded-for") == b"192.0.2.1"
    assert b"via" not in fields


def test_trace_context_and_a_request_id_pass_unchanged_and_a_missing_id_is_made_once(hops: Hops) -> None:
    for port in (hops.plain.port, hops.edge.port):
        _, request = hops.ask1(port, b"traceparent: " + TRACE, b"tracestate: " + STATE, b"X-Request-ID: mine")
        assert request.values(b"traceparent") == [TRACE]
        assert request.values(b"tracestate") == [STATE]
        assert request.values(b"x-request-id") == [b"mine"]
        _, request = hops.ask2(port, (b"traceparent", TRACE), (b"tracestate", STATE), (b"x-request-id", b"mine"))
        assert request.values(b"traceparent") == [TRACE]
        assert request.values(b"tracestate") == [STATE]
        assert request.values(b"x-request-id") == [b"mine"]
        made = {hops.ask1(port)[1].values(b"x-request-id")[0] for _ in range(3)}
        assert len(made) == 3
        _, request = hops.ask2(port)
        assert len(request.values(b"x-request-id")) == 1
        assert request.values(b"traceparent") == []


def test_a_request_id_that_says_nothing_is_none(hops: Hops) -> None:
    """Two lines would be read as a list, or the empty one first."""
    for port in (hops.plain.port, hops.edge.port):
        for _ in range(3):  # the third time the head, or what it has in common with others, is known
            _, request = hops.ask1(port, b"X-Request-Id:")
            (made,) = request.values(b"x-request-id")
            assert made
            _, request = hops.ask2(port, (b"x-request-id", b""))
            (made,) = request.values(b"x-request-id")
            assert made
        _, request = hops.ask1(port, b"X-Request-Id:", b"X-Request-Id: mine", b"X-Request-Id: another")
        assert request.values(b"x-request-id") == [b"mine"]


def test_names_with_an_underscore_pass_but_for_those_an_app_could_take_for_what_the_mesh_says(hops: Hops) -> None:
    passed = [(b"x_request_id", b"1"), (b"content_type", b"2"), (b"grpc_timeout", b"3"), (b"max_forwards", b"4")]
    dropped = [(b"content_length", b"5"), (b"transfer_encoding", b"6"), (b"mesh_client_id", b"7"), (b"l5d_client_id", b"8")]
    fields = [*dropped, *passed]
    for port in (hops.plain.port, hops.edge.port):
        for _ in range(3):  # the third time the head, or what it has in common with others, is known
            _, request = hops.ask2(port, *fields)
            assert [(name, request.values(name)) for name, _ in fields if request.values(name)] == [(n, [v]) for n, v in passed]
            _, request = hops.ask1(port, *[name + b": " + value for name, value in fields])
            assert [(name, request.values(name)) for name, _ in fields if request.values(name)] == [(n, [v]) for n, v in passed]


@pytest.mark.parametrize("name", ["two words", "a,b", "ü", "x\r\ny: z"])
def test_a_name_that_is_no_token_is_refused_at_start(name: str) -> None:
    command = [sys.executable, "-m", "meshproxy", "forward", f"127.0.0.1:{free_port()}", "127.0.0.1:9", "--via", name]
    ended = subprocess.run(command, capture_output=True, timeout=30, check=False)
    assert ended.returncode == 2
    assert b"is not a name for Via" in ended.stderr


def test_each_of_several_workers_names_the_proxy() -> None:
    backend = RecordingBackend()
    try:
        forward = Forward(backend.port, "--workers", "2", "--via", "edge", "--forwarded-for")
        try:
            for _ in range(6):
                with connect(forward.port) as sock:
                    send(sock, b"GET / HTTP/1.1\r\nHost: svc.test\r\nConnection: close\r\n\r\n")
                    answer = Reader(sock).answer()
                assert answer is not None
                assert answer.fields[b"via"] == b"1.1 edge"
            backend.settle()
            seen = backend.since({})
            assert [listed(request, b"via") for request in seen] == [b"1.1 edge"] * 6
            assert [listed(request, b"x-forwarded-for") for request in seen] == [b"127.0.0.1"] * 6
        finally:
            forward.stop()
    finally:
        backend.stop()

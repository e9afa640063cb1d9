"""Backends that speak HTTP/2 and break off (RS-21, RS-22, and what a server may not do at all), in front of both versions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from forward_process import DEADLINE_S, Answer, Forward, ask
from http2_peer import (
    CANCEL,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADERS,
    INTERNAL_ERROR,
    PUSH_PROMISE,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Answer2,
    Http2Client,
    frame,
    get,
    literals,
    u32,
)
from scripted_backend import Connection, Ended, Http2Connection, Http2Script


@contextmanager
def served(scripts: dict) -> Iterator[tuple[Forward, Http2Script]]:
    backend = Http2Script(scripts)
    try:
        forward = Forward(backend.port, "--upstream", "http2")
        try:
            yield forward, backend
        finally:
            forward.stop()
    finally:
        backend.stop()


def both(forward: Forward, path: str, method: str = "GET") -> tuple[Answer | None, Answer2]:
    """What clients of either version get."""
    with Http2Client(forward.port) as client:
        return ask(forward.port, path, method), client.ask(get(path.encode(), method=method.encode()))


def control(forward: Forward) -> None:
    for answer in both(forward, "/control"):
        assert answer is not None
        assert (answer.status, answer.body, answer.complete) == (200, b"/control", True)


def goaway(last_id: int, code: int = 0) -> bytes:
    return frame(GOAWAY, 0, 0, u32(last_id) + u32(code))


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_above_goaways_last_id_is_sent_again_whatever_its_method(method: str) -> None:
    """RS-21: it was certainly not processed.  On the second connection it is answered."""

    def leaves(peer: Http2Connection, stream_id: int) -> None:
        if peer.connection.number % 2 == 0:
            peer.send(goaway(stream_id - 2 if stream_id > 1 else 0))
            peer.connection.until_closed()
            raise Ended
        peer.answer(stream_id, b"second")

    with served({"/it": leaves}) as (forward, backend):
        for answer in both(forward, "/it", method):
            assert answer is not None
            assert (answer.status, answer.body) == (200, b"second")
        assert [path for _, path in backend.served].count("/it") >= 3


def test_a_request_at_or_below_goaways_last_id_finishes_there() -> None:
    """RS-21: the connection takes nothing new, but what it has it answers."""

    def leaves(peer: Http2Connection, stream_id: int) -> None:
        peer.head(stream_id)
        peer.body(stream_id, b"some", False)
        peer.send(goaway(stream_id))
        peer.body(stream_id, b" more", True)

    with served({"/it": leaves}) as (forward, backend):
        for answer in both(forward, "/it"):
            assert answer is not None
            assert (answer.status, answer.body, answer.complete) == (200, b"some more", True)
        control(forward)
        for number in {number for number, path in backend.served if path == "/it"}:
            assert [path for known, path in backend.served if known == number][-1] == "/it"


def test_a_request_is_not_sent_for_ever_to_a_server_that_always_leaves() -> None:
    def leaves(peer: Http2Connection, stream_id: int) -> None:
        peer.send(goaway(0))
        peer.connection.until_closed()
        raise Ended

    with served({"/it": leaves}) as (forward, backend):
        for answer in both(forward, "/it"):
            assert answer is not None
            assert answer.status in (502, 503)
        assert len(backend.served) <= 20


REFUSED, CUT = "refused", "cut"
HEAD = frame(HEADERS, END_HEADERS, 1, literals([(b":status", b"200")]))


def on(stream_id: int, data: bytes) -> bytes:
    """The frames of `data` that name stream 1, renamed."""
    out = b""
    while data:
        size = int.from_bytes(data[:3], "big")
        named = int.from_bytes(data[5:9], "big")
        out += data[:5] + u32(stream_id if named == 1 else named) + data[9 : 9 + size]
        data = data[9 + size :]
    return out


def reset(code: int) -> bytes:
    return frame(RST_STREAM, 0, 1, u32(code))


def block(*fields: tuple[bytes, bytes], flags: int = END_HEADERS) -> bytes:
    return frame(HEADERS, flags, 1, literals(list(fields)))


OK = (b":status", b"200")
# name: (frames, what a client sees, whether the connection survives it)
BROKEN: dict[str, tuple[bytes, object, bool]] = {
    "RS-22 reset at once": (reset(INTERNAL_ERROR), REFUSED, True),
    "RS-22 reset after headers": (HEAD + reset(INTERNAL_ERROR), CUT, True),
    "RS-22 reset in the middle of data": (HEAD + frame(DATA, 0, 1, b"some") + reset(CANCEL), CUT, True),
    "RS-22 NO_ERROR in the middle of data": (HEAD + frame(DATA, 0, 1, b"some") + reset(0), CUT, True),
    "RS-22 reset after all data": (HEAD + frame(DATA, END_STREAM, 1, b"all") + reset(0), (200, b"all"), True),
    "a malformed status": (block((b":status", b"20x")), REFUSED, True),
    "no status": (block((b"x", b"y")), REFUSED, True),
    "status 101": (block((b":status", b"101")), REFUSED, True),
    "an upper-case name": (block(OK, (b"X-Up", b"1")), REFUSED, True),
    "CR LF in a value": (block(OK, (b"x", b"a\r\nset-cookie: b")), REFUSED, True),
    "a CR LF in a name": (block(OK, (b"x: a\r\ny", b"b")), REFUSED, True),
    "transfer-encoding": (block(OK, (b"transfer-encoding", b"chunked")), REFUSED, True),
    "connection": (block(OK, (b"connection", b"close")), REFUSED, True),
    "a request's pseudo field": (block(OK, (b":path", b"/")), REFUSED, True),
    "two lengths": (block(OK, (b"content-length", b"1"), (b"content-length", b"2")), REFUSED, True),
    "more data than declared": (block(OK, (b"content-length", b"2")) + frame(DATA, END_STREAM, 1, b"three"), CUT, True),
    "less data than declared": (block(OK, (b"content-length", b"9")) + frame(DATA, END_STREAM, 1, b"three"), CUT, True),
    "data before headers": (frame(DATA, END_STREAM, 1, b"all"), REFUSED, True),
    "a pseudo field in trailers": (HEAD + frame(DATA, 0, 1, b"some") + block(OK, flags=END_HEADERS | END_STREAM), CUT, True),
    "H2A-38 a push promise": (frame(PUSH_PROMISE, END_HEADERS, 1, u32(2) + literals(get())), REFUSED, False),
    "a stream of the server's own": (frame(HEADERS, END_HEADERS | END_STREAM, 2, literals([OK])), REFUSED, False),
    "a block that cannot be decoded": (frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\xff\xff\xff\xff"), REFUSED, False),
    "an interrupted block": (frame(HEADERS, 0, 1, literals([OK])) + frame(DATA, 0, 1, b"x"), REFUSED, False),
    "endless continuation": (frame(HEADERS, 0, 1) + frame(CONTINUATION, 0, 1, bytes(16384)) * 100, REFUSED, False),
    "a frame of 2^24-1 bytes": (frame(DATA, 0, 1, b"x", 2**24 - 1), REFUSED, False),
    "a window above 2^31-1": (frame(WINDOW_UPDATE, 0, 0, u32(2**31 - 1)), REFUSED, False),
    "SETTINGS of five bytes": (frame(SETTINGS, 0, 0, b"12345"), REFUSED, False),
    "a head of 1 MiB": (
        frame(HEADERS, 0, 1, literals([OK]))
        + frame(CONTINUATION, 0, 1, literals([(b"x", b"a" * 16000)])) * 7
        + frame(CONTINUATION, END_HEADERS, 1, literals([(b"x", b"a" * 16000)])),
        REFUSED,
        True,
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_a_server_breaks_is_a_refusal_or_a_cut(name: str) -> None:
    frames, outcome, survives = BROKEN[name]

    def breaks(peer: Http2Connection, stream_id: int) -> None:
        peer.send(on(stream_id, frames))
        if not survives:
            peer.connection.until_closed()
            raise Ended

    with served({"/it": breaks}) as (forward, backend):
        control(forward)
        first, second = both(forward, "/it")
        if outcome == REFUSED:
            for answer in (first, second):
                assert answer is not None
                assert (answer.status, answer.complete) == (502, True)
                assert answer.fields[b"mesh-error"] in (b"upstream_malformed", b"upstream_reset", b"upstream_exhausted")
        elif outcome == CUT:
            assert first is not None
            assert not first.complete
            assert not second.complete
            assert second.reset >= 0
        else:
            for answer in (first, second):
                assert answer is not None
                assert (answer.status, answer.body) == outcome
                assert answer.complete
        control(forward)
        assert (len(backend.connections) == 1) == survives


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_refused_stream_is_sent_again(method: str) -> None:
    seen: list[int] = []

    def refuses(peer: Http2Connection, stream_id: int) -> None:
        seen.append(stream_id)
        if len(seen) % 2:
            peer.send(frame(RST_STREAM, 0, stream_id, u32(REFUSED_STREAM)))
        else:
            peer.answer(stream_id, b"second")

    with served({"/it": refuses}) as (forward, _):
        for answer in both(forward, "/it", method):
            assert answer is not None
            assert (answer.status, answer.body) == (200, b"second")
        assert len(seen) == 4


def test_a_grpc_client_gets_the_status_in_the_trailers_and_a_reset_as_one() -> None:
    """RS-22: with headers already out the stream is reset; before them the refusal is a gRPC status."""

    def ends(peer: Http2Connection, stream_id: int) -> None:
        peer.head(stream_id, (b"content-type", b"application/grpc"))
        peer.body(stream_id, b"\0\0\0\0\0", False)
        trailers = literals([(b"grpc-status", b"7"), (b"grpc-message", b"no")])
        peer.send(frame(HEADERS, END_HEADERS | END_STREAM, stream_id, trailers))

    def resets(peer: Http2Connection, stream_id: int) -> None:
        peer.send(frame(RST_STREAM, 0, stream_id, u32(INTERNAL_ERROR)))

    call = ((b"content-type", b"application/grpc"), (b"te", b"trailers"))
    with served({"/ends": ends, "/resets": resets}) as (forward, _), Http2Client(forward.port) as client:
        answer = client.ask(get(b"/ends", *call, method=b"POST"), b"\0\0\0\0\0")
        assert (answer.status, answer.body, answer.complete) == (200, b"\0\0\0\0\0", True)
        assert answer.trailers == {b"grpc-status": b"7", b"grpc-message": b"no"}
        answer = client.ask(get(b"/resets", *call, method=b"POST"), b"\0\0\0\0\0")
        assert (answer.status, answer.fields[b"grpc-status"], answer.complete) == (200, b"13", True)


def test_push_is_switched_off_towards_servers() -> None:
    """H2A-38."""
    said: list[dict[int, int]] = []

    def looks(peer: Http2Connection, stream_id: int) -> None:
        said.append(peer.peer_settings)
        peer.answer(stream_id, b"ok")

    with served({"/it": looks}) as (forward, _):
        both(forward, "/it")
        assert said[0][2] == 0


def test_a_server_that_allows_few_streams_is_never_given_more() -> None:
    """H2A-33, client side: the rest waits or goes to another connection; nobody is refused."""
    most: list[int] = []
    answered: set[tuple[int, int]] = set()

    class Limited(Http2Script):
        """Answers no one before it has looked for one request more than it allows."""

        def serve(self, connection: Connection) -> None:
            peer = Http2Connection(connection, b"\0\3" + u32(2))
            while True:
                peer.until(lambda: bool(peer.requests))
                connection.sock.settimeout(0.05)
                with suppress(TimeoutError):
                    peer.until(lambda: len(peer.requests) > 2)
                connection.sock.settimeout(DEADLINE_S)
                most.append(len(peer.requests))
                for stream_id, path in peer.requests:
                    answered.add((connection.number, stream_id))
                    peer.answer(stream_id, path.encode())
                peer.requests.clear()

    backend = Limited({})
    forward = Forward(backend.port, "--upstream", "http2")
    try:
        with Http2Client(forward.port) as client:
            warm = client.ask(get(b"/warm"))
            assert warm.status == 200
            streams = [client.start(get(b"/%d" % i)) for i in range(60)]
            for i, stream_id in enumerate(streams):
                answer = client.wait(stream_id)
                assert (answer.status, answer.body) == (200, b"/%d" % i)
        assert len(answered) == 61
        assert max(most) == 2
        assert len(backend.connections) <= 4
    finally:
        forward.stop()
        backend.stop()


def test_a_frame_size_error_is_named_to_the_server() -> None:
    told: list[bytes] = []

    def breaks(peer: Http2Connection, stream_id: int) -> None:
        peer.send(frame(DATA, 0, stream_id, b"x", 2**24 - 1))
        try:
            while True:
                told.append(peer.connection.read())
        finally:
            raise Ended

    with served({"/it": breaks}) as (forward, _):
        ask(forward.port, "/it")
        control(forward)
    assert any(goaway(0, FRAME_SIZE_ERROR) in data for data in told)

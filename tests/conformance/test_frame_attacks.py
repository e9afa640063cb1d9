"""Attacks with HTTP/2 frames on a running proxy (the catalogue's H2A rows), each beside an honest connection.

"Killed" is GOAWAY ENHANCE_YOUR_CALM and the end of that connection; the honest one must not notice, the backend must not be
left working, and the proxy must not grow.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
from forward_process import Forward, ask, until
from http2_differences import expected, strangers
from http2_peer import (
    CANCEL,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    HEADERS,
    PING,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Http2Client,
    RawClient,
    frame,
    get,
    length,
    literals,
    u32,
)
from recorders import Http2Recorder, RecordingBackend
from scripted_backend import Connection, ScriptedBackend

GROWTH = 64 << 20  # bytes; the catalogue's bound for one attacker
STREAM = 256 << 10  # what a stalled stream may make the proxy hold, kernel buffers apart


class Backend(ScriptedBackend):
    """/hang  reads until it is cut off        /flood  sends without end        /deaf  never reads       else: honest"""

    def __init__(self) -> None:
        super().__init__({"/hang": self.hang, "/flood": self.flood, "/deaf": self.deaf})
        self.working = 0
        self.flooded = 0
        self.lock = threading.Lock()
        self.over = threading.Event()

    def hang(self, connection: Connection) -> None:
        with self.lock:
            self.working += 1
        try:
            connection.until_closed()
            connection.fin()
        finally:
            with self.lock:
                self.working -= 1

    def flood(self, connection: Connection) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (1 << 40))
        while True:
            connection.send(bytes(65536))
            self.flooded += 65536

    def deaf(self, connection: Connection) -> None:
        self.over.wait(20)
        connection.fin()

    def stop(self) -> None:
        self.over.set()
        super().stop()


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    made = Backend()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def forward(backend: Backend, which: str) -> Iterator[Forward]:
    made = Forward(backend.port, "--http2-engine", which)
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def _beside(forward: Forward, backend: Backend) -> Iterator[None]:
    """An honest connection opened before the attack serves after it; nothing is left working; memory is where it was."""
    with Http2Client(forward.port) as honest:
        assert honest.ask(get(b"/before")).body == b"/before"
        before = forward.resident_bytes()
        yield
        assert honest.ask(get(b"/behind")).body == b"/behind"
    answer = ask(forward.port, "/fresh")
    assert answer is not None
    assert answer.body == b"/fresh"
    until(lambda: backend.working == 0, "the backend is left in peace")
    assert forward.resident_bytes() - before < GROWTH


def request(stream_id: int, path: bytes = b"/hang", method: bytes = b"GET", end: bool = True) -> bytes:
    flags = END_HEADERS | (END_STREAM if end else 0)
    return frame(HEADERS, flags, stream_id, literals(get(path, method=method)))


PROVOKED = {
    "H2A-01 RST_STREAM by the client": lambda i: frame(RST_STREAM, 0, i, u32(CANCEL)),
    "H2A-04 WINDOW_UPDATE of 0": lambda i: frame(WINDOW_UPDATE, 0, i, u32(0)),
    "H2A-05 PRIORITY of 4 bytes": lambda i: frame(PRIORITY, 0, i, u32(0)),
    "H2A-05 PRIORITY on itself": lambda i: frame(PRIORITY, 0, i, u32(i) + b"\0"),
    "H2A-07 window above 2^31-1": lambda i: frame(WINDOW_UPDATE, 0, i, u32(2**31 - 1)),
    "H2A-08 HEADERS after END_STREAM": lambda i: request(i),
    "H2A-08 DATA after END_STREAM": lambda i: frame(DATA, 0, i, b"x"),
}


@pytest.mark.parametrize("name", PROVOKED)
def test_requests_that_are_reset_as_fast_as_they_are_made_end_the_connection(
    which: str, forward: Forward, backend: Backend, name: str
) -> None:
    """Whoever sends the RST_STREAM: the client, or the proxy because the client made it (MadeYouReset)."""
    before = len(backend.served)
    with RawClient(forward.port) as client:
        for i in range(1, 40_000, 2):
            if not client.send(request(i) + PROVOKED[name](i)):
                break
        wanted = expected(which, "attacks", name, ENHANCE_YOUR_CALM)
        assert client.until_killed() in (wanted, -1)  # RST may overtake the GOAWAY that is still unread
        assert client.ended
    assert len(backend.served) - before < 1000


def test_rapid_reset_is_told_why(forward: Forward) -> None:
    with RawClient(forward.port) as client:
        for i in range(1, 1001, 2):  # few enough for the answer to be read
            client.send(request(i) + frame(RST_STREAM, 0, i, u32(CANCEL)))
        assert client.until_killed() == ENHANCE_YOUR_CALM


def test_a_continuation_flood_is_killed(forward: Forward) -> None:
    """H2A-10."""
    with RawClient(forward.port) as client:
        client.send(frame(HEADERS, 0, 1, literals(get())))
        for _ in range(6400):
            if not client.send(frame(CONTINUATION, 0, 1, bytes(16384))):
                break
        else:
            raise AssertionError("100 MiB of header block were taken")
        assert client.until_killed() in (ENHANCE_YOUR_CALM, -1)


def indexed(position: int, count: int) -> bytes:
    return (bytes((0x80 | position,)) if position < 127 else b"\xff" + length(position - 127)[0:]) * count


def entry(name: bytes, value: bytes) -> bytes:
    """A literal with incremental indexing: it becomes entry 62 (RFC 7541 6.2.1)."""
    return b"\x40" + length(len(name)) + name + length(len(value)) + value


BOMBS = {
    "H2A-13 a header list of 1 MiB": (entry(b"x", b"a" * 3900), 270),
    "H2A-14 a large entry 2,000 times": (entry(b"x", b"a" * 3900), 2000),
    "H2A-15 a tiny entry 1,500 times": (entry(b"x", b""), 1500),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_head_that_unpacks_beyond_the_limit_is_431_and_the_table_stays_right(which: str, forward: Forward, name: str) -> None:
    make, times = BOMBS[name]
    with RawClient(forward.port, (4, 0)) as client:
        client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, literals(get()) + make))
        for i in range(100):
            block = literals(get()) + indexed(62, times)
            client.send(frame(HEADERS, END_HEADERS | END_STREAM, 3 + 2 * i, block))
        client.send(frame(HEADERS, END_HEADERS | END_STREAM, 301, literals(get(b"/after")) + indexed(62, 1)))
        wanted = expected(which, "attacks", name, 431)
        if wanted != 431:
            assert client.until_killed() == wanted
            assert 301 not in client.status
            return
        client.until(lambda: 301 in client.status)
        assert client.status[301] == 200
        assert {client.status[3 + 2 * i] for i in range(100)} == {431}


def test_a_head_of_many_plain_bytes_is_431_and_the_next_is_served(which: str, forward: Forward) -> None:
    """H2A-13, without compression: up to the bound on CONTINUATION frames the stream is answered, not the connection ended."""
    parts = [literals([(b"x-%d" % i, b"a" * 15_000)]) for i in range(7)]
    with RawClient(forward.port) as client:
        client.send(frame(HEADERS, END_STREAM, 1, literals(get())))
        for i, part in enumerate(parts):
            client.send(frame(CONTINUATION, END_HEADERS if i == len(parts) - 1 else 0, 1, part))
        client.request(3, get(b"/after"))
        client.wait(3)
        wanted = expected(which, "attacks", "H2A-13 a head of many plain bytes", 431)
        assert (client.status, client.goaway) == (({1: 431, 3: 200}, -1) if wanted == 431 else ({}, wanted))


def test_control_ninety_cookie_crumbs_and_fifteen_fields_are_served(forward: Forward) -> None:
    """H2A-17."""
    crumbs = [(b"cookie", b"crumb%d=value" % i) for i in range(90)]
    others = [(b"x-field-%d" % i, b"value") for i in range(15)]
    with RawClient(forward.port) as client:
        client.request(1, get(b"/crumbs", *crumbs, *others))
        client.wait(1)
        assert (client.status[1], client.bodies[1]) == (200, b"/crumbs")


FLOODS = {
    "H2A-18 SETTINGS": (b"", frame(SETTINGS, 0, 0, b"\0\3\0\0\0\x64")),
    "H2A-19 PING": (b"", frame(PING, 0, 0, b"12345678")),
    "H2A-21 empty DATA": (request(1, method=b"POST", end=False), frame(DATA, 0, 1)),
    "H2A-21 padding only": (request(1, method=b"POST", end=False), frame(DATA, 8, 1, b"\0")),
    "H2A-24 PRIORITY": (b"", frame(PRIORITY, 0, 99, bytes(5))),
    "WINDOW_UPDATE": (request(1), frame(WINDOW_UPDATE, 0, 1, u32(1))),
    "unknown frames": (b"", frame(0xBE, 0, 0, b"nothing")),
}


@pytest.mark.parametrize("name", FLOODS)
def test_frames_that_bring_nothing_are_killed(forward: Forward, name: str) -> None:
    """10,000 of a kind, and never a look at what comes back."""
    before, flood = FLOODS[name]
    with RawClient(forward.port, receive_buffer=4096) as client:
        client.send(before)
        for _ in range(100):
            if not client.send(flood * 100):
                break
        assert client.until_killed() in (ENHANCE_YOUR_CALM, -1)
        assert client.ended


def test_tiny_data_for_a_backend_that_does_not_read_is_bounded(which: str, forward: Forward, backend: Backend) -> None:
    """H2A-22: one byte a frame, as many as the windows allow, on as many streams; fewer for the slow engine."""
    backend.over.clear()
    with RawClient(forward.port) as client:
        for i in range(1, 41, 2) if which == "ours" else (1, 3, 5):
            client.send(request(i, b"/deaf", b"POST", end=False))
            for _ in range(65 if which == "ours" else 3):
                client.send(frame(DATA, 0, i, b"x") * 1000)
    backend.over.set()


def test_a_stalled_download_stops_the_backend(forward: Forward, backend: Backend) -> None:
    """H2A-27: the window opens a byte at a time, so that is the rate of it all."""
    backend.flooded = 0
    with RawClient(forward.port, (4, 0)) as client:
        before = forward.resident_bytes()
        client.request(1, get(b"/flood"))
        client.until(lambda: 1 in client.status)
        for i in range(100):
            client.send(frame(WINDOW_UPDATE, 0, 1, u32(1)))
            client.until(lambda i=i: len(client.bodies.get(1, b"")) > i)
        assert client.bodies[1] == bytes(100)
        assert client.alive()
        assert backend.flooded < 32 << 20  # what fits into two socket buffers
        assert forward.resident_bytes() - before < 16 << 20


def test_a_huge_table_offered_to_our_encoder_is_not_used(forward: Forward) -> None:
    """H2A-30."""
    with RawClient(forward.port, (1, 2**32 - 1)) as client:
        client.decoder.max_allowed_table_size = 2**32 - 1
        for i in range(1, 201, 2):
            client.request(i, get(b"/%d" % i))
            client.wait(i)
            assert client.status[i] == 200
        assert client.decoder.header_table_size <= 4096


KILLED = {
    "H2A-31 connection window above 2^31-1": (frame(WINDOW_UPDATE, 0, 0, u32(2**31 - 1)), FLOW_CONTROL_ERROR),
    "H2A-34 a frame of 2^24-1 bytes": (frame(DATA, 0, 1, b"", 2**24 - 1), FRAME_SIZE_ERROR),
    "H2A-38 PUSH_PROMISE": (frame(PUSH_PROMISE, END_HEADERS, 1, u32(2) + literals(get())), PROTOCOL_ERROR),
}


@pytest.mark.parametrize("name", KILLED)
def test_one_frame_that_breaks_the_connection_is_named(forward: Forward, name: str) -> None:
    data, code = KILLED[name]
    with RawClient(forward.port) as client:
        client.send(request(1) + data)
        assert client.until_killed() == code


def test_the_stream_above_the_limit_is_refused_and_no_other(forward: Forward) -> None:
    """H2A-33."""
    with RawClient(forward.port) as client:
        limit = client.settings[3]
        assert limit == 100
        for i in range(limit + 1):
            client.request(1 + 2 * i, get(b"/hang"))
        last = 1 + 2 * limit
        client.wait(last)
        assert client.resets == {last: REFUSED_STREAM}
        client.send(frame(RST_STREAM, 0, 1, u32(CANCEL)))
        client.request(last + 2, get(b"/room"))
        client.wait(last + 2)
        assert client.status == {last + 2: 200}


def test_uploads_that_fail_leak_no_window(which: str) -> None:
    """H2A-35: 20 MiB of bodies for an endpoint that cannot be reached, through a connection whose window is 16 MiB."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        nobody = int(unused.getsockname()[1])
    forward = Forward(nobody, "--http2-engine", which)
    try:
        with RawClient(forward.port) as client:
            for i in range(1, 1281, 2):
                client.send(request(i, b"/up", b"POST", end=False))
                for _ in range(2):
                    client.send(frame(DATA, 0, i, bytes(16384)))
                client.wait(i)
                assert client.status[i] == 502
            assert client.alive()
            assert sum(client.granted) >= 640 * 32768 - (8 << 20), "half of the window may be outstanding"
    finally:
        forward.stop()


def test_uploads_cancelled_half_way_leak_no_window_upstream(which: str) -> None:
    """H2A-36: one HTTP/2 connection to the backend outlives all of them, and its window is 64 KiB."""
    recorder = RecordingBackend(Http2Recorder)
    forward = Forward(recorder.port, "--upstream", "http2", "--http2-engine", which)
    try:
        for _ in range(4):
            with RawClient(forward.port) as client:
                for i in range(1, 301, 2):
                    client.send(request(i, b"/up", b"POST", end=False))
                    for _ in range(3):
                        client.send(frame(DATA, 0, i, bytes(16384)))
                    client.send(frame(RST_STREAM, 0, i, u32(CANCEL)))
                assert client.alive()
        with Http2Client(forward.port) as honest:
            stream_id = honest.start(get(b"/whole", method=b"POST"), end=False)
            left = 1 << 20
            while left:
                room = min(left, honest.engine.local_flow_control_window(stream_id), 16384)
                if room:
                    left -= room
                    honest.engine.send_data(stream_id, bytes(room), end_stream=not left)
                    honest.flush()
                else:
                    honest.read()
            assert honest.wait(stream_id).body == b"echo POST /whole %d" % (1 << 20)
        recorder.settle()
        assert [r.faults for r in recorder.recorders] == [[]]
    finally:
        forward.stop()
        recorder.stop()


def test_a_malformed_request_among_fifty_fails_alone(which: str, forward: Forward) -> None:
    """H2A-37."""
    with RawClient(forward.port) as client:
        for i in range(1, 101, 2):
            client.send(request(i, b"/%d" % i, b"POST", end=False))
        client.request(101, get(b"/bad", (b"connection", b"close")))
        for i in range(1, 101, 2):
            client.send(frame(DATA, END_STREAM, i, b""))
        wanted = expected(which, "attacks", "H2A-37 a malformed request among fifty", "alone")
        if wanted != "alone":
            assert client.until_killed() == wanted
            return
        for i in range(1, 101, 2):
            client.wait(i)
            assert (client.status[i], client.bodies[i]) == (200, b"/%d" % i)
        assert client.resets == {101: PROTOCOL_ERROR}
        assert client.alive()


def test_every_known_difference_under_attack_is_one_of_a_row() -> None:
    single = ["H2A-13 a head of many plain bytes", "H2A-37 a malformed request among fifty"]
    assert strangers("attacks", PROVOKED, BOMBS, single) == set()

"""A request's body that stops coming over HTTP/2: its stream is told apart from all others, by both engines."""

from __future__ import annotations

import pytest
from http2_harness import DATA, END_HEADERS, HEADERS, POST, Log, Raw, Recorder, block, frame, response

from meshproxy.wire.engine import CANCEL, Engine
from meshproxy.wire.h2_adapter import H2Server
from meshproxy.wire.http2 import Http2Server
from meshproxy.wire.limits import Limits

BODY_S = 60.0
STALL_S = 300.0


class Asked(Log):
    """Notes how it was asked, and lets the client take its time."""

    def __init__(self) -> None:
        super().__init__()
        self.silent: list[bool] = []

    def request_silent(self, begun: bool) -> bool:
        self.silent.append(begun)
        return True


class Server:
    """Its clock moves by `wait` alone, a sweep a second."""

    def __init__(self, engine: Engine, host: Recorder) -> None:
        self.host = host
        self.engine = engine
        self.raw = Raw(engine)
        self.raw.settle()
        self.now = 1000.0

    def post(self, stream_id: int, *fields: tuple[bytes, bytes]) -> Asked:
        self.raw.send(frame(HEADERS, END_HEADERS, stream_id, block([*POST, *fields])))
        sink = Asked()
        self.stream(stream_id).sink = sink
        return sink

    def stream(self, stream_id: int):
        return self.host.requests[stream_id // 2].stream

    def wait(self, seconds: int, body_s: float = BODY_S) -> None:
        for _ in range(seconds):
            self.now += 1.0
            self.engine.sweep(self.now, STALL_S, body_s)


@pytest.fixture(params=[Http2Server, H2Server], ids=["ours", "h2"])
def server(request: pytest.FixtureRequest) -> Server:
    host = Recorder()
    return Server(request.param(host, Limits()), host)


def test_only_the_stream_that_is_silent_is_told_and_again_after_as_long(server: Server) -> None:
    silent, ended = server.post(1), server.post(3)
    server.raw.data(1, b"x")
    server.raw.data(3, b"all", end=True)
    server.wait(40)
    later = server.post(5)
    server.wait(22)
    assert (silent.silent, later.silent, ended.silent) == ([True], [], [])
    server.wait(61)
    assert (silent.silent, later.silent, ended.silent) == ([True, True], [False], [])
    assert server.host.violations == []
    assert server.raw.resets() == {}


@pytest.mark.parametrize("frames", [1, 2])
@pytest.mark.parametrize("engine", [Http2Server, H2Server], ids=["ours", "h2"])
def test_who_waits_while_another_body_comes_is_not_silent(engine: type[Engine], frames: int) -> None:
    """A slow link, and a client that sends one body after the other.  With two frames between sweeps the connection's window
    is granted again each time, and looks as it did."""
    limits, host = Limits(), Recorder()
    limits.connection_window = 65536
    server = Server(engine(host, limits), host)
    busy, waiting, begun = server.post(1), server.post(3), server.post(5)
    server.raw.data(5, b"x" * 16384)
    server.raw.data(5, b"x" * 16384)
    for _ in range(200):
        for _ in range(frames):
            server.raw.data(1, bytes(16384))
        server.wait(1)
    server.raw.data(1, b"", end=True)
    assert (busy.ended, waiting.silent, begun.silent) == (True, [], [])
    server.raw.data(3, b"and now the next")
    server.wait(59)
    assert (waiting.silent, begun.silent) == ([], [True]), "it has had its four times, or nobody has moved"
    server.wait(3)
    assert (waiting.silent, begun.silent) == ([True], [True])


def test_a_body_that_comes_in_small_whole_requests_is_progress_too(server: Server) -> None:
    waiting = server.post(1)
    for stream_id in range(3, 183, 2):
        server.post(stream_id)
        server.raw.data(stream_id, b"all", end=True)
        server.wait(2)
    assert waiting.silent == []
    server.wait(61)
    assert waiting.silent == [False]


def test_one_body_that_trickles_keeps_no_others_open_for_ever(server: Server) -> None:
    trickling = server.post(1)
    silent = [server.post(stream_id) for stream_id in range(3, 23, 2)]
    for _ in range(8):
        server.wait(30)
        server.raw.data(1, b"x")
    assert [sink.silent for sink in silent] == [[]] * 10
    server.wait(3)
    assert [sink.silent for sink in silent] == [[False]] * 10
    assert trickling.silent == []
    for _ in range(9):
        server.raw.data(1, b"x")
        server.wait(30)
    assert [sink.silent for sink in silent] == [[False, True]] * 10


def test_a_stream_that_nobody_answers_for_is_reset_and_no_other(server: Server) -> None:
    server.post(1)
    other = server.post(3)
    server.stream(1).sink = forgotten = Log()
    server.wait(62)
    assert forgotten.reset == (CANCEL, False)
    assert server.raw.resets() == {1: CANCEL}
    assert server.host.violations == ["slow_body"]
    server.raw.data(3, b"x", end=True)
    assert other.ended


def test_who_was_stopped_by_us_or_is_not_read_is_not_silent(server: Server) -> None:
    sink = server.post(1)
    server.raw.data(1, b"x")
    server.stream(1).pause()
    server.wait(200)
    server.stream(1).resume()
    server.wait(200, body_s=0.0)
    assert sink.silent == []
    server.wait(62)
    assert sink.silent == [True]


def test_an_answer_that_has_begun_makes_it_a_conversation_and_a_tunnel_is_one(server: Server) -> None:
    sink = server.post(1)
    server.stream(1).send_head(response(), [], False)
    server.raw.send(frame(HEADERS, END_HEADERS, 3, block([(b":method", b"CONNECT"), (b":authority", b"svc.test:80")])))
    tunnel = Asked()
    server.stream(3).sink = tunnel
    server.wait(500)
    assert (sink.silent, tunnel.silent) == ([], [])


def test_who_was_not_asked_yet_for_a_body_is_told_apart(server: Server) -> None:
    waiting, invited = (server.post(stream_id, (b"expect", b"100-continue")) for stream_id in (1, 3))
    server.wait(40)
    server.stream(3).send_interim(response(100))
    server.wait(40)
    assert (waiting.silent, invited.silent) == ([False], [])
    server.wait(22)
    assert (waiting.silent, invited.silent) == ([False], [True])
    server.wait(22)
    assert waiting.silent == [False, True], "nobody may wait for it for ever"


def test_100_that_goes_out_late_gives_all_the_time_again(server: Server) -> None:
    waiting = server.post(1, (b"expect", b"100-continue"))
    server.wait(100)
    server.stream(1).send_interim(response(100))
    server.wait(59)
    assert waiting.silent == [False]
    server.wait(4)
    assert waiting.silent == [False, True]


def test_a_frame_that_comes_byte_by_byte_is_not_silence() -> None:
    """A full frame at 200 bytes a second takes longer than a body may be silent.  (h2 tells of whole frames only.)"""
    host = Recorder()
    server = Server(Http2Server(host, Limits()), host)
    slow, other = server.post(1), server.post(3)
    data = frame(DATA, 0, 1, bytes(16384))
    for at in range(0, len(data) - 1, 200):
        server.engine.receive(data[at : min(at + 200, len(data) - 1)], server.now)
        server.wait(1)
    assert (slow.silent, other.silent) == ([], []), "and the other one waits for it"
    server.wait(62)  # and now its last byte does not come
    assert (slow.silent, other.silent) == ([False], [False])
    server.engine.receive(data[-1:], server.now)
    assert slow.body == bytes(16384)

"""Large bodies over HTTP/2: frames that arrive together go on together, what is cut on the way out is cut once, and not a byte
changes its place."""

from __future__ import annotations

import random

import pytest
from http2_harness import (
    DATA,
    END_STREAM,
    PADDED,
    POST,
    WINDOW_UPDATE,
    Raw,
    Recorder,
    frame,
    frames,
    request,
    response,
    take,
)
from http2_harness import Log as Sunk
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from meshproxy.wire.engine import FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR
from meshproxy.wire.http2 import Http2Client, Http2Server
from meshproxy.wire.limits import Limits


def numbered(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def uploads(count: int) -> tuple[Raw, Recorder]:
    host = Recorder()
    raw = Raw(Http2Server(host, Limits()))
    raw.settle()
    for number in range(count):
        raw.headers(2 * number + 1, POST, end=False)
    return raw, host


def data(stream_id: int, payload: bytes, flags: int = 0) -> bytes:
    return frame(DATA, flags, stream_id, payload)


def test_frames_of_a_stream_that_arrive_in_one_read_are_handed_on_as_one() -> None:
    raw, host = uploads(1)
    body = numbered(40_000)
    raw.send(
        data(1, body[:8192]) + data(1, body[8192:16_384]) + data(1, body[16_384:32_768]) + data(1, body[32_768:], END_STREAM)
    )
    log = host.requests[0].log
    assert log.chunks == [40_000]
    assert log.body == body
    assert log.ended


def test_an_empty_frame_that_ends_the_stream_goes_with_those_before_it() -> None:
    raw, host = uploads(1)
    raw.send(data(1, bytes(5000)) + data(1, b"", END_STREAM))
    assert host.requests[0].log.chunks == [5000]
    assert host.requests[0].log.ended


def test_about_64_kib_are_handed_on_at_a_time_and_no_more() -> None:
    raw, host = uploads(1)
    for _ in range(8):  # the window grows while it is read
        raw.send(data(1, bytes(16_000)) * 2)
    raw.send(data(1, bytes(16_000)) * 8)
    assert max(host.requests[0].log.chunks) == 5 * 16_000, "the frame that passes 64 KiB is the last"
    assert sum(host.requests[0].log.chunks) == 24 * 16_000


def test_other_streams_and_small_and_padded_frames_are_each_for_themselves() -> None:
    raw, host = uploads(2)
    padded = frame(DATA, PADDED, 1, b"\x03" + b"p" * 2000 + bytes(3))
    raw.send(data(1, b"a" * 3000) + data(3, b"b" * 3000) + data(1, b"c" * 3000) + data(1, b"d" * 100) + data(1, b"e" * 3000))
    raw.send(data(1, b"f" * 3000) + padded + data(1, b"g" * 3000) + data(1, b"h" * 2000, END_STREAM))
    assert host.requests[0].log.chunks == [3000, 3000, 100, 3000, 3000, 2000, 5000]
    assert [part[:1] for part in host.requests[0].log.body.split(b"c" * 3000)] == [b"a", b"d"]
    assert host.requests[1].log.chunks == [3000]


def test_a_run_is_held_to_the_content_length_as_its_frames_are() -> None:
    raw, host = uploads(0)
    raw.headers(1, [*POST, (b"content-length", b"9000")], end=False)
    raw.send(data(1, bytes(5000)) + data(1, bytes(4001), END_STREAM))
    assert raw.resets() == {1: 1}
    assert host.requests[0].log.reset is not None


def test_a_run_that_is_a_whole_body_is_held_to_the_streams_window() -> None:
    raw, host = uploads(1)
    raw.send(data(1, bytes(16_000)) * 4 + data(1, bytes(Limits().stream_window - 64_000 + 1), END_STREAM))
    assert raw.resets() == {1: FLOW_CONTROL_ERROR}
    assert host.requests[0].log.body == b""


def test_a_frame_that_is_too_large_ends_the_connection_also_in_a_run() -> None:
    raw, host = uploads(1)
    raw.send(data(1, bytes(5000)) + data(1, bytes(16_385)))
    assert raw.goaway() == FRAME_SIZE_ERROR
    assert host.requests[0].log.chunks == [5000]


SENT = st.lists(st.tuples(st.sampled_from([1, 3]), st.integers(0, 9000), st.booleans()), min_size=1, max_size=12)


@given(SENT, st.randoms(use_true_random=False))
@profile(max_examples=150, deadline=None)
def test_bodies_are_the_same_however_frames_and_reads_are_cut(sent: list[tuple[int, int, bool]], chance: random.Random) -> None:
    raw, host = uploads(2)
    bodies = {1: b"", 3: b""}
    said = b""
    for stream_id, size, padded in sent:
        piece = numbered(size, len(said))
        if sum(map(len, bodies.values())) + size > 60_000:
            break
        bodies[stream_id] += piece
        said += frame(DATA, PADDED, stream_id, b"\x05" + piece + bytes(5)) if padded else data(stream_id, piece)
    said += data(1, b"", END_STREAM) + data(3, b"x", END_STREAM)
    at = 0
    while at < len(said):
        step = chance.choice([1, 5, 9, 300, 9000, 100_000])
        raw.send(said[at : at + step])
        at += step
    assert [seen.log.body for seen in host.requests] == [bodies[1], bodies[3] + b"x"]
    assert all(seen.log.ended for seen in host.requests)
    assert raw.goaway() is None


def answering(*values: tuple[int, int]) -> tuple[Raw, Recorder]:
    host = Recorder()
    raw = Raw(Http2Server(host, Limits()), *values)
    raw.settle()
    raw.headers(1)
    host.requests[0].stream.send_head(response(), [], False)
    raw.read()
    return raw, host


@pytest.mark.parametrize("largest", [16_384, 20_000, 65_536])
def test_a_large_answer_is_cut_into_the_frames_that_its_reader_takes(largest: int) -> None:
    raw, host = answering((4, 1 << 20), (5, largest))
    raw.send(frame(WINDOW_UPDATE, 0, 0, (1 << 20).to_bytes(4, "big")))
    raw.read()
    body = numbered(200_001)
    host.requests[0].stream.send_data(body, True)
    got = frames(take(raw.engine))
    assert b"".join(payload for *_, payload in got) == body
    assert [len(payload) for *_, payload in got[:-1]] == [largest] * (200_001 // largest)
    assert [flags for _, flags, _, _ in got] == [0] * (len(got) - 1) + [END_STREAM]
    assert host.waiting == 0


def test_an_answer_that_waits_for_window_arrives_whole_and_what_waits_is_known_to_the_byte() -> None:
    raw, host = answering((4, 10_000))
    body = numbered(300_000)
    host.requests[0].stream.send_data(body[:256_000], False)
    host.requests[0].stream.send_data(body[256_000:], True)
    got = b""
    chance = random.Random(7)
    for _ in range(1000):
        for kind, _, _, payload in raw.read():
            if kind == DATA:
                got += payload
        assert host.waiting == len(body) - len(got)
        if len(got) == len(body):
            break
        raw.send(frame(WINDOW_UPDATE, 0, 0, (200_000).to_bytes(4, "big")) * (chance.random() < 0.05))
        raw.send(frame(WINDOW_UPDATE, 0, 1, chance.choice([1, 500, 16_384, 16_385, 70_000]).to_bytes(4, "big")))
    assert got == body
    assert raw.engine.active() == 0


def test_a_download_in_pieces_of_any_size_is_the_same_at_the_other_end() -> None:
    """Both roles, the client's windows as they are."""
    up_host, down_host = Recorder(), Recorder()
    client, server = Http2Client(up_host, Limits()), Http2Server(down_host, Limits())
    client.start()
    server.start()

    def settle() -> None:
        for _ in range(200):
            there, back = take(client), take(server)
            if not there and not back:
                return
            for at in range(0, len(there), 256_000):
                server.receive(there[at : at + 256_000], 0.0)
            for at in range(0, len(back), 256_000):
                client.receive(back[at : at + 256_000], 0.0)
        raise AssertionError("never silent")

    settle()
    stream = client.open()
    stream.sink = log = Sunk()
    stream.send_head(request(), [], True)
    settle()
    answer = down_host.requests[0].stream
    answer.send_head(response(), [], False)
    body = b""
    for size in (1, 70_000, 16_384, 256_000, 0, 16_385, 3, 655_360):
        piece = numbered(size, size)
        body += piece
        answer.send_data(piece, False)
        settle()
    answer.send_data(b"", True)
    settle()
    assert log.body == body
    assert log.ended
    assert down_host.waiting == 0

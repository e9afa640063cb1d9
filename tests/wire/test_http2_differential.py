"""Random exchanges give the same result whichever engine is at either end and wherever the bytes are cut, with caches and
without; and bytes changed at random never raise, never lose a stream, and never end one twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from http2_harness import Log, Recorder, Seen, pairs, pump, request, response, take
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshproxy.wire.engine import Stream
from meshproxy.wire.h2_adapter import H2Client, H2Server
from meshproxy.wire.http2 import Http2Client, Http2Server
from meshproxy.wire.limits import Limits
from meshproxy.wire.message import CACHES, CONTROLS, Field

PAIRINGS: dict[str, tuple[Any, Any]] = {
    "ours-ours": (Http2Client, Http2Server),
    "ours-h2": (Http2Client, H2Server),
    "h2-ours": (H2Client, Http2Server),
    "h2-h2": (H2Client, H2Server),
}

Pairs = tuple[tuple[bytes, bytes], ...]
NAMES = st.sampled_from([b"accept", b"user-agent", b"x-a", b"x-b", b"cookie", b"date", b"authorization", b"cache-control"])
VALUES = st.one_of(
    st.sampled_from([b"", b"1", b"gzip", b"v" * 300]),
    st.binary(max_size=12).map(lambda raw: raw.translate(None, CONTROLS).strip(b" \t")),
)
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=5, unique_by=lambda pair: pair[0]).map(tuple)
BODY = st.lists(st.binary(max_size=40) | st.integers(1, 90_000).map(bytes), max_size=4).map(tuple)
TRAILERS = st.none() | st.lists(
    st.tuples(st.sampled_from([b"x-sum", b"grpc-status"]), st.sampled_from([b"0", b"1"])), max_size=2
)


@dataclass(frozen=True)
class Message:
    fields: Pairs
    body: tuple[bytes, ...]
    trailers: list[tuple[bytes, bytes]] | None


@dataclass(frozen=True)
class Exchange:
    method: bytes
    path: bytes
    request: Message
    interims: tuple[int, ...]
    status: int
    response: Message


MESSAGES = st.builds(Message, FIELDS, BODY, TRAILERS)
EXCHANGES = st.builds(
    Exchange,
    st.sampled_from([b"GET", b"POST", b"PUT", b"PATCH"]),
    st.sampled_from([b"/", b"/a", b"/a?b=%20"]),
    MESSAGES,
    st.lists(st.sampled_from([100, 103]), max_size=2).map(tuple),
    st.sampled_from([200, 201, 404, 503]),
    MESSAGES,
)


def send_message(stream: Stream, head: Any, message: Message) -> None:
    simple = not message.body and message.trailers is None
    stream.send_head(head, [], simple)
    if simple:
        return
    for at, part in enumerate(message.body):
        stream.send_data(part, message.trailers is None and at == len(message.body) - 1)
    if message.trailers is not None:
        stream.send_trailers([Field(name, value) for name, value in message.trailers])


def result(head: Any, log: Log) -> tuple[object, ...]:
    assert log.ended
    assert log.reset is None
    return (head.method, head.path, head.status, tuple(pairs(head.fields)), log.body, log.trailers or None)


def wanted(exchange: Exchange) -> tuple[object, ...]:
    asked, answered = exchange.request, exchange.response
    return (
        (exchange.method, exchange.path, 0, asked.fields, b"".join(asked.body), asked.trailers or None),
        (b"", b"", exchange.status, answered.fields, b"".join(answered.body), answered.trailers or None),
        exchange.interims,
    )


def play(pairing: str, exchanges: list[Exchange], sizes: list[int]) -> list[tuple[object, ...]]:
    """All exchanges at once on one connection; each answer is sent when its request is complete."""
    client_class, server_class = PAIRINGS[pairing]
    up, down = Recorder(), Recorder()
    client, server = client_class(up, Limits()), server_class(down, Limits())

    def cut(data: bytes) -> list[bytes]:
        pieces = []
        turn = 0
        while data:
            size = sizes[turn % len(sizes)]
            turn += 1
            pieces.append(data[:size])
            data = data[size:]
        return pieces

    server.start()
    client.start()
    pump(client, server, cut)
    logs = []
    for index, exchange in enumerate(exchanges):
        stream = client.open()
        stream.sink = log = Log()
        logs.append(log)
        asked = request(exchange.method, exchange.path, fields=(*exchange.request.fields, (b"x-request-id", b"%d" % index)))
        send_message(stream, asked, exchange.request)
        if index % 2:
            pump(client, server, cut)
    pump(client, server, cut)
    seen: dict[int, Seen] = {int(item.head.request_id): item for item in down.requests}
    for index, exchange in enumerate(exchanges):
        stream = seen[index].stream
        for status in exchange.interims:
            stream.send_interim(response(status))
        send_message(stream, response(exchange.status, exchange.response.fields), exchange.response)
    pump(client, server, cut)
    assert (client.active(), server.active()) == (0, 0)
    assert not client.closing
    assert not server.closing
    results = []
    for index in range(len(exchanges)):
        head = seen[index].head
        head.fields = [field for field in head.fields if field.name != b"x-request-id"]
        answer = logs[index]
        interims = tuple(interim.status for interim in answer.interim)
        results.append((result(head, seen[index].log), result(answer.head, answer), interims))
    return results


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(EXCHANGES, min_size=1, max_size=6), st.lists(st.integers(40, 20_000), min_size=1, max_size=4), st.booleans())
def test_random_exchanges_come_out_the_same_on_every_pairing(exchanges: list[Exchange], sizes: list[int], caches: bool) -> None:
    CACHES.enabled = caches
    try:
        expected = [wanted(exchange) for exchange in exchanges]
        for pairing in PAIRINGS:
            assert play(pairing, exchanges, sizes) == expected, pairing
    finally:
        CACHES.enabled = True


def test_one_byte_at_a_time_changes_nothing() -> None:
    message = Message(((b"x-a", b"1"),), (b"hello", b"world"), [(b"x-sum", b"2")])
    exchanges = [Exchange(b"POST", b"/a", message, (103,), 200, message)] * 3
    for pairing in PAIRINGS:
        assert play(pairing, exchanges, [1]) == [wanted(exchange) for exchange in exchanges]


def record(exchanges: list[Exchange]) -> tuple[bytes, bytes]:
    """What our client and our server say to each other."""
    up, down = Recorder(), Recorder()
    client, server = Http2Client(up, Limits()), Http2Server(down, Limits())
    server.start()
    client.start()
    said = [b"", b""]

    def carry() -> None:
        for _ in range(100):
            there, back = take(client), take(server)
            if not there and not back:
                return
            said[0] += there
            said[1] += back
            server.receive(there, 0.0)
            client.receive(back, 0.0)

    carry()
    for exchange in exchanges:
        send_message(client.open(), request(exchange.method, exchange.path, fields=exchange.request.fields), exchange.request)
    carry()
    for seen, exchange in zip(down.requests, exchanges, strict=True):
        send_message(seen.stream, response(exchange.status, exchange.response.fields), exchange.response)
    carry()
    return said[0], said[1]


@pytest.mark.parametrize("engine", ["ours", "h2"])
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(exchanges=st.lists(EXCHANGES, min_size=1, max_size=3), data=st.data())
def test_changed_bytes_never_raise_and_every_stream_ends_once(
    engine: str, exchanges: list[Exchange], data: st.DataObject
) -> None:
    there, back = record(exchanges)
    for server_side in (True, False):
        valid = bytearray(there if server_side else back)
        for _ in range(data.draw(st.integers(1, 6))):
            at = data.draw(st.integers(0, min(len(valid) - 1, 600)))
            what = data.draw(st.sampled_from(["set", "cut", "insert"]))
            if what == "set":
                valid[at] = data.draw(st.integers(0, 255))
            elif what == "cut":
                del valid[at : at + data.draw(st.integers(1, 12))]
            else:
                valid[at:at] = data.draw(st.binary(min_size=1, max_size=12))
        host = Recorder()
        logs = []
        if server_side:
            subject: Any = (Http2Server if engine == "ours" else H2Server)(host, Limits())
            subject.start()
        else:
            subject = (Http2Client if engine == "ours" else H2Client)(host, Limits())
            subject.start()
        size = data.draw(st.integers(1, 3000))
        for at in range(0, len(valid), size):
            subject.receive(bytes(valid[at : at + size]), 0.0)
            take(subject)
            if not server_side and len(logs) < len(exchanges) and subject.capacity() > 0:
                stream = subject.open()
                stream.sink = log = Log()
                logs.append(log)
                stream.send_head(request(), [], True)
        closed_by_peer_error = subject.closing
        assert not closed_by_peer_error or host.violations
        subject.lost()
        logs += [seen.log for seen in host.requests]
        assert subject.active() == 0
        for log in logs:  # Log itself refuses a second end
            assert log.reset is not None or log.ended


def test_events_of_good_frames_survive_a_bad_one_in_the_same_read() -> None:
    message = Message((), (), None)
    there, _ = record([Exchange(b"GET", b"/good", message, (), 200, message)])
    for engine in (Http2Server, H2Server):
        host = Recorder()
        subject = engine(host, Limits())
        subject.start()
        subject.receive(there + b"\0\0\x01\x06\0\0\0\0\0\0", 0.0)  # a PING of one byte
        assert [seen.head.path for seen in host.requests] == [b"/good"]
        assert subject.closing
        assert host.requests[0].log.reset is not None

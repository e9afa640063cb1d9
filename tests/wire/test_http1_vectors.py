"""The catalogue of request vectors (tests/vectors/http1.json) against the server engine, and through both engines.

A vector is fed whole, byte by byte and cut in two at every byte; the outcome must not depend on it.  Accepted requests
are sent on through the client engine and must be unambiguous to another implementation (h11).
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import h11
import pytest
from http1_play import answering, bytewise, client, exchange, halves, split_head, whole
from recorder import Request

from meshproxy.wire.message import CACHES

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "http1.json").read_text())["vectors"]
BY_ID = {vector["id"]: vector for vector in VECTORS}
SECOND = b"GET /second HTTP/1.1\r\nHost: svc.test\r\n\r\n"

# Requests that must be served.  Every other vector is refused: where the catalogue leaves the choice, we refuse
# (but zeros before a chunk size, which no two read differently).
SERVED = {
    "SM-25": 1, "SM-26": 1, "CL-01": 1, "CL-03": 1, "CL-10": 1, "CL-17": 1, "CH-15": 1, "CH-17": 1, "CH-18": 1, "CH-24": 2,
    "RL-01": 1, "RL-07": 1, "RL-15": 1, "RL-16": 1, "HB-01": 1, "HB-03": 1, "HB-05": 3, "HB-07": 1,
}  # fmt: skip
CLOSES = {"HB-01"}  # served, with Connection: close


def data_of(vector: dict[str, str]) -> bytes:
    return vector["bytes"].encode("latin-1")


def allowed_statuses(verdict: str) -> set[int]:
    named = {int(number) for number in re.findall(r"\b[45]\d\d\b", verdict)}
    return named or {400}


def play(pieces: list[bytes]) -> tuple[list[Request], bytes, bool]:
    engine, host = answering()
    out = host.feed(pieces)
    return host.complete, out, engine.closing


def check(vector: dict[str, str], pieces: list[bytes]) -> None:
    served = SERVED.get(vector["id"], 0)
    complete, out, closing = play(pieces)
    assert len(complete) == served
    if served:
        assert out.count(b"HTTP/1.1 200 OK\r\n") == served
        assert closing == (vector["id"] in CLOSES)
    else:
        start, fields, body = split_head(out)
        assert int(start.split(b" ")[1]) in allowed_statuses(vector["verdict"])
        assert fields[b"connection"] == b"close"
        assert fields[b"mesh-error"].startswith(b"h1_")
        assert len(body) == int(fields[b"content-length"])
        assert closing


def test_the_table_agrees_with_the_catalogue() -> None:
    for vector in VECTORS:
        verdict = vector["verdict"]
        if verdict.startswith("REJ") and "ONE" not in verdict:
            assert vector["id"] not in SERVED
        if verdict.startswith(("ONE", "OK")) and "505" not in verdict:
            assert vector["id"] in SERVED
    assert len(VECTORS) == 83


@pytest.mark.parametrize("caches", [True, False], ids=["memo", "no memo"])
@pytest.mark.parametrize("identity", BY_ID)
def test_a_vector_has_its_verdict_however_it_arrives(identity: str, caches: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CACHES, "enabled", caches)
    vector = BY_ID[identity]
    data = data_of(vector)
    check(vector, whole(data))
    check(vector, whole(data))  # and when its head is known already
    check(vector, bytewise(data))
    if len(data) <= 500:
        for pieces in halves(data):
            check(vector, pieces)


@pytest.mark.parametrize("identity", BY_ID)
def test_a_request_behind_a_vector_gets_its_own_answer_or_none(identity: str) -> None:
    data = data_of(BY_ID[identity])
    for pieces in (whole(data + SECOND), [data, SECOND], bytewise(data + SECOND)):
        complete, out, _ = play(pieces)
        second = [request for request in complete if request.head.path == b"/second"]
        if identity in SERVED and identity not in CLOSES:
            assert len(complete) == SERVED[identity] + 1
            assert len(second) == 1
            assert out.endswith(b"\r\n\r\necho /second ")
        else:
            assert not second
            assert b"/second" not in out


@pytest.mark.parametrize("identity", SERVED)
def test_what_is_forwarded_is_unambiguous_to_another_parser(identity: str) -> None:
    data = data_of(BY_ID[identity])
    complete, _, _ = play([data])
    for request in complete:
        engine, host = client()
        stream, _ = exchange(engine)
        stream.send_head(request.head, [], request.end)
        for event in request.sink.events:
            if event[0] == "request_data":
                stream.send_data(event[1], event[2])
            elif event[0] == "request_trailers":
                stream.send_trailers([])
        sent = host.take()
        peer = h11.Connection(h11.SERVER)
        peer.receive_data(sent)
        head = peer.next_event()
        assert isinstance(head, h11.Request)
        assert head.method == request.head.method
        assert head.target == request.head.path
        hosts = [value for name, value in head.headers if name == b"host"]
        assert hosts == [request.head.authority]
        body = b""
        event = peer.next_event()
        while isinstance(event, h11.Data):
            body += event.data
            event = peer.next_event()
        assert isinstance(event, h11.EndOfMessage)
        assert body == request.sink.body
        assert peer.trailing_data == (b"", False)
        names = [name for name, _ in head.headers]
        for dropped in (b"x-secret", b"upgrade", b"http2-settings", b"connection", b"transfer_encoding"):
            assert dropped not in names


def test_details_of_the_served_vectors() -> None:
    absolute = play([data_of(BY_ID["RL-16"])])[0][0].head
    assert (absolute.scheme, absolute.authority, absolute.path) == (b"http", b"svc.test", b"/")
    assert play([data_of(BY_ID["CH-18"])])[0][0].sink.trailers == []
    assert play([data_of(BY_ID["HB-03"])])[0][0].head.protocol == b""
    assert play([data_of(BY_ID["SM-26"])])[0][0].sink.body == b"hello"
    assert play([data_of(BY_ID["CL-01"])])[0][0].head.field(b"content-length") == b"5"
    assert play([data_of(BY_ID["CL-03"])])[0][0].head.field(b"content-length") == b"5"
    assert [r.head.path for r in play([data_of(BY_ID["HB-05"])])[0]] == [b"/1", b"/2", b"/3"]


ODD_BYTES = [*range(0x21), 0x7F, 0x80, 0x85, 0xA0, 0xFF]
FRAMING = [(b"Transfer-Encoding", b"chunked", b"0\r\n\r\n"), (b"Content-Length", b"05", b"hello"), (b"Host", b"svc.test", b"")]


@pytest.mark.parametrize(("name", "value", "body"), FRAMING, ids=["transfer-encoding", "content-length", "host"])
@pytest.mark.parametrize("odd", ODD_BYTES)
def test_an_odd_byte_in_a_framing_field_never_changes_what_is_served(name: bytes, value: bytes, body: bytes, odd: int) -> None:
    """One byte put before, inside and after the name and the value.  Either the request is refused, or the byte was harmless:
    white space around the value, or part of a name that is then no framing field and is forwarded as it came."""
    b = bytes([odd])
    other = b"" if name == b"Host" else b"Host: svc.test\r\n"
    for place in range(6):
        n, v = name, value
        if place == 0:
            n = b + n
        elif place == 1:
            n = n[:3] + b + n[3:]
        elif place == 2:
            n = n + b
        elif place == 3:
            v = b + v
        elif place == 4:
            v = v[:1] + b + v[1:]
        else:
            v = v + b
        complete, out, closing = play([b"POST / HTTP/1.1\r\n" + other + n + b": " + v + b"\r\n\r\n" + body + SECOND])
        harmless = place in (3, 5) and odd in (9, 32)
        if harmless:
            assert [r.head.path for r in complete] == [b"/", b"/second"]
            assert not closing
        else:
            assert complete == []
            assert closing
            assert out.startswith(b"HTTP/1.1 400 ")


LINE_ENDS = [b"\n", b"\r", b"\rX", b"\r\r", b"", b"XX"]


@pytest.mark.parametrize("end", LINE_ENDS)
@pytest.mark.parametrize("place", ["size", "extension", "data", "last size", "last"])
def test_chunk_games_are_refused_or_never_complete(end: bytes, place: str) -> None:
    """Each line end of a chunked body replaced, with a request hidden where a laxer parser would find it (the families
    TERM.EXT, EXT.TERM, TERM.SPILL, SPILL.TERM of the published chunk scanners)."""
    ends = dict.fromkeys(("size", "extension", "data", "last size", "last"), b"\r\n")
    ends[place] = end
    body = (
        b"5"
        + ends["size"]
        + b"hello"
        + ends["data"]
        + b"3;x=y"
        + ends["extension"]
        + b"abc\r\n0"
        + ends["last size"]
        + ends["last"]
    )
    hidden = b"GET /hidden HTTP/1.1\r\nHost: svc.test\r\n\r\n"
    complete, _, closing = play([b"POST / HTTP/1.1\r\nHost: svc.test\r\nTransfer-Encoding: chunked\r\n\r\n" + body + hidden])
    assert complete == []
    assert closing

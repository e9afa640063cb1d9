"""What is kept of heads, lines and names: what repeats, within bounds, and never a verdict that would change."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from meshproxy.wire.http1.head import LINE_MEMO, MEMO_LINES, parse_field
from meshproxy.wire.http1.reader import MEMO_HEADS, REQUEST_MEMO, HeadReader
from meshproxy.wire.limits import Limits
from meshproxy.wire.message import (
    ALIAS,
    CACHES,
    CONTROLS,
    HOST,
    KINDS,
    MESH,
    NAMES,
    NAMES_MAX,
    PLAIN,
    PSEUDO,
    Caches,
    Field,
    MalformedField,
)

NAMES_AND_KINDS = {
    **KINDS,
    b"x-anything": PLAIN,
    b"x_anything": PLAIN,
    b"mesh-target-port": MESH,
    b"l5d-client-id": MESH,
    b"mesh_client_id": ALIAS,
    b"mesh_client-id": ALIAS,
    b"l5d_client_id": ALIAS,
    b"transfer_encoding": ALIAS,
    b"x_request_id": PLAIN,
    b"set_cookie": PLAIN,
    b":path": PSEUDO,
}


@pytest.fixture(autouse=True)
def empty_memos(eager_memos: None) -> Iterator[None]:
    """These tests draw lots, as the proxy does."""
    CACHES.eager = False
    CACHES.state = 0
    for memo in (REQUEST_MEMO, LINE_MEMO, NAMES):
        memo.clear()
    yield
    for memo in (REQUEST_MEMO, LINE_MEMO, NAMES):
        memo.clear()


def request(path: int, trace: int = 0) -> bytes:
    return b"GET /%d HTTP/1.1\r\nHost: a\r\nAccept: */*\r\nX-Trace: %d" % (path, trace)


def test_a_head_that_repeats_is_soon_parsed_once() -> None:
    reader = HeadReader(Limits(), True)
    heads = [reader.parse(request(1)) for _ in range(400)]
    assert len({id(head) for head in heads}) < 200
    assert heads[-1] is heads[-2]


def test_a_head_that_repeats_is_found_among_others_that_do_not_whatever_the_rhythm() -> None:
    """One of every two, three … requests is the same."""
    for every in range(2, 40):
        reader = HeadReader(Limits(), True)
        repeated = [reader.parse(request(0 if n % every == 0 else n)) for n in range(400 * every)][::every]
        assert len({id(head) for head in repeated}) < 200, every


def test_what_comes_once_takes_little_room() -> None:
    for n in range(2000):
        HeadReader(Limits(), True).parse(request(n, n))
    assert len(REQUEST_MEMO) < 2000 / 8
    assert len(LINE_MEMO) < 2000 / 8
    assert b"Accept: */*" in LINE_MEMO


@pytest.mark.parametrize("every", [1, 2, 3, 7, 12, 16, 32, 64, 128])
def test_lots_have_no_rhythm(every: int) -> None:
    """Of every second, third … something, wherever it begins, one in 16 is kept, and never long none."""
    caches = Caches()
    drawn = [caches.draw() for _ in range(700 * every)]
    for phase in range(every):
        lots = drawn[phase::every]
        assert 15 < lots.count(True) < 90
        assert max(map(len, "".join("01"[lot] for lot in lots).split("1"))) < 250


def test_memos_are_bounded() -> None:
    CACHES.eager = True
    reader = HeadReader(Limits(), True)
    for n in range(5000):
        reader.parse(request(n, n))
        Field(b"x-%d" % n, b"")
        Field(b"x-%d-" % n + b"n" * 64, b"")
        assert len(REQUEST_MEMO) <= MEMO_HEADS
        assert len(LINE_MEMO) <= MEMO_LINES
        assert len(NAMES) <= NAMES_MAX
        assert all(len(name) <= 64 for name in NAMES)


@pytest.mark.parametrize("caches", [True, False], ids=["memo", "no memo"])
@pytest.mark.parametrize(("name", "kind"), NAMES_AND_KINDS.items())
def test_a_name_means_the_same_at_every_sight(name: bytes, kind: int, caches: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CACHES, "enabled", caches)
    assert [Field(name, b"1").kind for _ in range(3)] == [kind] * 3
    assert (name in NAMES) == caches


@pytest.mark.parametrize("caches", [True, False], ids=["memo", "no memo"])
@pytest.mark.parametrize("name", [b"", b"X-Trace", b"a b", b"a:", b"a\n", b"\xe4", b"a" * 100 + b"("])
def test_what_is_no_name_is_refused_at_every_sight(name: bytes, caches: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CACHES, "enabled", caches)
    for _ in range(3):
        with pytest.raises(MalformedField):
            Field(name, b"1")
    assert name not in NAMES


def test_every_control_character_is_refused_wherever_it_stands_and_nothing_else_is() -> None:
    for byte in range(256):
        one = bytes((byte,))
        for value in (one, b"a" + one, one + b"1", b"a" + one + b"1", b"=" + one):
            for _ in range(2):
                if byte in CONTROLS:
                    with pytest.raises(MalformedField):
                        Field(b"x-trace", value)
                else:
                    assert Field(b"x-trace", value).value == value


@pytest.mark.parametrize(
    ("value", "valid"),
    [(b"a", 1), (b"a:80", 1), (b"[::1]:80", 1), (b"", 0), (b"a b", 0), (b"a,b", 0), (b"a:65536", 0), (b"u@a", 0), (b"a/", 0)],
)
def test_a_host_field_knows_whether_it_names_a_host(value: bytes, valid: int) -> None:
    field = Field(b"host", value)
    assert (field.kind, field.number) == (HOST, valid)


def test_a_line_is_written_as_it_was_spelled_from_the_memo_too() -> None:
    CACHES.eager = True
    for _ in range(2):
        for line in (b"X-Trace: 1", b"x-trace:1", b"X-TRACE: \t1 "):
            field = parse_field(line)
            assert (field.name, field.value) == (b"x-trace", b"1")
            assert field.line == line.split(b":")[0] + b": 1\r\n"

"""The TLS layer by itself: what goes in at one end comes out at the other, however the socket cuts it, with as few calls of
OpenSSL as there are records."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from test_tls_forward import Mesh

from meshproxy.proxy.tls import OPEN, TlsFailure, TlsLayer


class Counting:
    """Stands before an SSLObject and counts what is asked of it."""

    def __init__(self, layer: TlsLayer) -> None:
        self.object = layer.object
        self.reads = 0
        layer.object = self

    def read(self, *arguments):
        self.reads += 1
        return self.object.read(*arguments)

    def __getattr__(self, name):
        return getattr(self.object, name)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[TlsLayer, TlsLayer]:
    """A client and a server that have shaken hands."""
    mesh = Mesh(tmp_path)
    client, server = TlsLayer(mesh.client("a", []), False, "b"), TlsLayer(mesh.server("b"), True, None)
    client.start()
    for _ in range(4):
        server.receive(client.pull())
        client.receive(server.pull())
    assert client.state == server.state == OPEN
    return client, server


@pytest.mark.parametrize("size", [1, 300, 16_000])
def test_a_record_is_read_by_one_call(pair: tuple[TlsLayer, TlsLayer], size: int) -> None:
    client, server = pair
    sealed = client.seal(b"x" * size)
    calls = Counting(server)
    assert server.receive(sealed) == b"x" * size
    assert calls.reads == 1


def test_a_read_in_bulk_takes_one_call_a_record(pair: tuple[TlsLayer, TlsLayer]) -> None:
    client, server = pair
    body = random.Random(1).randbytes(15 * 16_384)
    sealed = client.seal(body)
    calls = Counting(server)
    assert server.receive(sealed) == body
    assert calls.reads == 15


@pytest.mark.parametrize("step", [1, 7, 1000, 16_384, 16_406, 65_536, 256_000])
def test_what_is_sealed_arrives_however_the_socket_cuts_it(pair: tuple[TlsLayer, TlsLayer], step: int) -> None:
    client, server = pair
    chance = random.Random(step)
    sent = [chance.randbytes(size) for size in (1, 100, 16_384, 16_385, 5, 40_000, 0, 70_001)]
    sealed = b"".join(client.seal(piece) for piece in sent if piece)
    if step < 1000:
        sent = sent[:3]
        sealed = sealed[: sum(map(len, sent)) + 3 * 22]
    got = b"".join(server.receive(sealed[at : at + step]) for at in range(0, len(sealed), step))
    assert got == b"".join(sent)
    assert not server.eof


def test_more_than_any_buffer_in_one_call_arrives(pair: tuple[TlsLayer, TlsLayer]) -> None:
    client, server = pair
    body = random.Random(2).randbytes(3_000_001)
    assert server.receive(client.seal(body)) == body


def test_the_rest_of_a_large_record_comes_with_a_small_read(pair: tuple[TlsLayer, TlsLayer]) -> None:
    """What is read is then larger than what arrived."""
    client, server = pair
    sealed = client.seal(b"y" * 16_000) + client.seal(b"z" * 50)
    assert server.receive(sealed[:15_000]) == b""
    assert server.receive(sealed[15_000:]) == b"y" * 16_000 + b"z" * 50


@pytest.mark.parametrize("size", [0, 10, 20_000])
def test_the_peers_end_is_seen_behind_its_last_bytes(pair: tuple[TlsLayer, TlsLayer], size: int) -> None:
    client, server = pair
    sealed = client.seal(b"w" * size) if size else b""
    client.close()
    assert server.receive(sealed + client.pull()) == b"w" * size
    assert server.eof
    assert client.receive(server.seal(b"still here")) == b"still here", "each direction ends on its own"


def test_nothing_is_read_of_nothing(pair: tuple[TlsLayer, TlsLayer]) -> None:
    _, server = pair
    assert server.receive(b"") == b""
    assert not server.eof


@pytest.mark.parametrize("before", [0, 10, 20_000])
def test_a_damaged_record_is_a_failure_and_what_came_before_it_is_not_lost(
    pair: tuple[TlsLayer, TlsLayer], before: int
) -> None:
    client, server = pair
    sealed = client.seal(b"v" * before) if before else b""
    damaged = bytearray(client.seal(b"u" * 100))
    damaged[50] ^= 1
    if before:
        assert server.receive(sealed + bytes(damaged)) == b"v" * before
        assert server.eof
        assert server.failure is not None
    else:
        with pytest.raises(TlsFailure):
            server.receive(sealed + bytes(damaged))

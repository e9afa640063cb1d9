"""ID-30: a connection does not outlive the certificates it was opened with."""

from __future__ import annotations

import asyncio
import ssl
import time

import pytest
from forge import Forged
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, ResponseReceived, StreamReset
from http2_harness import frames
from identity_pair import GRACE, PRICES, WEB, Pair, svid_of
from proxy_peers import until

from certs.context import mesh_contexts
from meshproxy.policy.service import OPAQUE
from meshproxy.proxy.tls import END, LEAVE, STAY, TlsLayer

LIFE = 1000.0  # s, of a certificate; the proxies' clocks are set forward
NEARLY, OVER = 0.95 * LIFE, LIFE + 1


# ---------------------------------------------------------------- when: pure


def layer() -> TlsLayer:
    return TlsLayer(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), True, None)


@pytest.mark.parametrize(
    ("server", "wall", "expected"),
    [
        (True, 1000.0, STAY),
        (True, 1099.9, STAY),
        (True, 1100.0, LEAVE),
        (False, 1000.0, STAY),
        (False, 1089.9, STAY),
        (False, 1090.0, LEAVE),  # 90 % of the 100 s that were left
        (False, 1100.0, LEAVE),
    ],
)
def test_the_client_leaves_before_the_end_and_the_server_at_it(server: bool, wall: float, expected: int) -> None:
    tls = layer()
    tls.expires(1100.0, server, 1000.0)
    assert tls.due(wall, 50.0, 10.0) == expected


@pytest.mark.parametrize("server", [True, False])
def test_after_the_grace_it_is_cut(server: bool) -> None:
    tls = layer()
    tls.expires(1100.0, server, 1000.0)
    assert [tls.due(1100.0, 50.0, 10.0), tls.due(1109.0, 59.9, 10.0), tls.due(1110.0, 60.0, 10.0)] == [LEAVE, LEAVE, END]


def test_a_clock_set_forward_ends_nothing_without_the_grace() -> None:
    tls = layer()
    tls.expires(1100.0, True, 1000.0)
    assert tls.due(1100.0 + 26 * 3600, 50.0, 10.0) == LEAVE


def test_connections_without_certificates_that_end_stay() -> None:
    assert layer().due(1e12, 1e12, 10.0) == STAY


def test_who_cannot_renew_does_not_leave_each_new_connection_at_once() -> None:
    """With a tenth of the day left it is a tenth of that, and so on: a handful of connections until the end."""
    wall, opened = 0.0, 0
    while wall < 86400.0 - 1.0:
        tls = layer()
        tls.expires(86400.0, False, wall)
        opened += 1
        wall = tls.leave_at
    assert opened == 5


# ---------------------------------------------------------------- two sidecars


async def test_the_client_moves_to_a_new_connection_before_a_certificate_ends_and_no_request_notices(pair: Pair) -> None:
    pair.show(pair.prices, PRICES, LIFE)
    assert await pair.get() == (200, "")
    (first,) = pair.connections()
    pair.show(pair.prices, PRICES)  # renewed, as it is at 70 % of a life
    pair.later = 0.85 * LIFE
    await pair.sweeps()
    assert pair.connections() == [first]
    pair.later = NEARLY

    async def moved() -> bool:
        assert await pair.get() == (200, "")
        return first not in pair.connections()

    await until(moved, "the first connection to be left")
    assert await pair.get() == (200, "")  # it may have gone after the last one
    assert len(pair.connections()) == 1
    assert pair.outlived(pair.client) == {"drained outbound": 1}
    assert pair.outlived(pair.server) == {}


async def test_it_leaves_too_when_its_own_certificate_ends(pair: Pair) -> None:
    pair.show(pair.web, WEB, LIFE)
    assert await pair.get() == (200, "")
    pair.show(pair.web, WEB)
    pair.later = NEARLY

    async def left() -> bool:
        return pair.connections() == []

    await until(left, "the connection to be closed")
    assert pair.outlived(pair.client) == {"drained outbound": 1}
    assert await pair.get() == (200, "")


async def test_what_is_under_way_finishes_on_the_old_connection(pair: Pair) -> None:
    pair.show(pair.prices, PRICES, LIFE)
    slow = asyncio.create_task(pair.get("/hang"))

    async def at_work() -> bool:
        return pair.app.hanging == 1

    async def drained() -> bool:
        return pair.outlived(pair.client) == {"drained outbound": 1}

    await until(at_work, "the request to be at work")
    pair.show(pair.prices, PRICES)
    pair.later = NEARLY
    await until(drained, "the connection to be left")
    assert await pair.get() == (200, "")  # by another connection
    assert len(pair.connections()) == 2
    pair.app.released.set()
    assert await slow == (200, "")


async def test_what_takes_longer_than_the_grace_is_cut_and_the_caller_is_told(pair: Pair) -> None:
    pair.show(pair.prices, PRICES, LIFE)
    slow = asyncio.create_task(pair.get("/hang", "POST"))  # a GET would be tried again, on a new connection

    async def at_work() -> bool:
        return pair.app.hanging == 1

    await until(at_work, "the request to be at work")
    pair.later = OVER
    assert await slow == (502, "upstream_reset")
    assert "cut outbound" in pair.outlived(pair.client) or "cut inbound" in pair.outlived(pair.server)

    async def nobody_works() -> bool:
        return pair.connections() == []

    await until(nobody_works, "the connection to be gone")


async def test_a_tunnel_ends_with_the_certificate(pair: Pair) -> None:
    pair.declare(OPAQUE, OPAQUE)
    pair.show(pair.web, WEB, LIFE)
    reader, writer = await asyncio.open_connection("127.0.0.1", pair.outbound)
    writer.write(b"\x00\x01 no HTTP")
    started = asyncio.create_task(reader.read())

    async def tunnelled() -> bool:
        return len(pair.connections()) == 1

    await until(tunnelled, "the tunnel")
    pair.later = OVER
    with pytest.raises(ConnectionError):  # a reset: a FIN would look like the server's own end
        await asyncio.wait_for(started, 10)
    writer.close()


# ---------------------------------------------------------------- the server role, against a peer that stays


class Stayer:
    """A client with a mesh certificate that never leaves a connection by itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.h2 = H2Connection(H2Configuration(client_side=True))
        self.h2.initiate_connection()
        self.events: list[object] = []
        self.after = b""  # what came after GOAWAY: h2 takes nothing more then

    def ask(self, method: str, path: str, port: int) -> int:
        stream_id = self.h2.get_next_available_stream_id()
        fields = [(":method", method), (":authority", "prices.shop:80"), ("mesh-target-port", str(port))]
        if method != "CONNECT":
            fields[1:1] = [(":path", path), (":scheme", "http")]
        self.h2.send_headers(stream_id, fields, end_stream=method != "CONNECT")
        self.flush()
        return stream_id

    def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())

    async def until(self, *kinds: type) -> None:
        async with asyncio.timeout(15):
            while not any(isinstance(event, kinds) for event in self.events):
                if not await self.more():
                    raise AssertionError(f"closed; {self.events}")

    async def until_closed(self) -> None:
        async with asyncio.timeout(15):
            while await self.more():
                pass

    async def more(self) -> bool:
        try:
            data = await self.reader.read(65536)
        except OSError:
            return False
        if any(isinstance(event, ConnectionTerminated) for event in self.events):
            self.after += data
        elif data:
            self.events += self.h2.receive_data(data)
            self.flush()
        return bool(data)


async def stayer(pair: Pair, leaf: Forged) -> Stayer:
    context = mesh_contexts(svid_of(leaf, WEB), pair.issuer.bundle).client
    return Stayer(*await asyncio.open_connection("127.0.0.1", pair.inbound, ssl=context))


async def test_a_peer_that_stays_is_told_to_go_and_then_cut(pair: Pair) -> None:
    peer = await stayer(pair, pair.issuer.leaf(WEB, LIFE))
    try:
        peer.ask("GET", "/hang", pair.app_port)
        pair.later = NEARLY
        await pair.sweeps()
        assert pair.outlived(pair.server) == {}  # it is the client's to leave early
        pair.later = OVER
        await peer.until(ConnectionTerminated)  # GOAWAY, with the request still under way
        told = time.monotonic()
        assert pair.app.hanging == 1
        await peer.until_closed()
        assert time.monotonic() - told >= GRACE / 2
    finally:
        peer.writer.close()
    assert pair.outlived(pair.server) == {"drained inbound": 1, "cut inbound": 1}

    async def nobody_works() -> bool:
        return pair.connections() == []

    await until(nobody_works, "the connection to be gone")


async def test_a_peers_tunnel_is_cut_too(pair: Pair) -> None:
    pair.declare(OPAQUE, OPAQUE)
    peer = await stayer(pair, pair.issuer.leaf(WEB, LIFE))
    try:
        peer.ask("CONNECT", "", pair.app_port)
        await peer.until(ResponseReceived)
        pair.later = OVER
        await peer.until_closed()
    finally:
        peer.writer.close()
    assert not any(isinstance(event, StreamReset) for event in peer.events)
    assert pair.outlived(pair.server) == {"drained inbound": 1, "cut inbound": 1}


async def test_a_peer_whose_work_ends_in_the_grace_is_not_cut(pair: Pair) -> None:
    peer = await stayer(pair, pair.issuer.leaf(WEB, LIFE))
    try:
        peer.ask("GET", "/hang", pair.app_port)
        pair.later = OVER
        await peer.until(ConnectionTerminated)
        pair.app.released.set()
        await peer.until_closed()
    finally:
        peer.writer.close()
    assert (0, 1, 1, b"ok") in frames(peer.after)  # DATA, the end of stream 1
    assert pair.outlived(pair.server) == {"drained inbound": 1}


async def test_who_comes_back_with_an_ended_certificate_is_refused_by_name(pair: Pair) -> None:
    late = await stayer(pair, pair.issuer.leaf(WEB, -1))
    try:
        late.flush()
        await late.until_closed()
    finally:
        late.writer.close()
    assert pair.failures(pair.server) == {"expired inbound": 1}

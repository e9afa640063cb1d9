"""A port that is declared to carry HTTP carries nothing else: what is not read could claim to be anyone."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from identity_pair import Pair
from proxy_peers import DEADLINE_S, until

from meshproxy.policy.service import DETECT, HTTP1, HTTP2, OPAQUE
from meshproxy.proxy.server import SNIFFING
from meshproxy.wire.detect import PREFACE

BYTES = b"\x00\x01 mesh-client-id: spiffe://example/admin\r\n\r\n"


class Echo:
    """An app that speaks no HTTP: what it hears comes back."""

    async def start(self, pair: Pair) -> None:
        self.heard = b""
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        pair.app_port = self.server.sockets[0].getsockname()[1]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            self.heard += data
            writer.write(data)
        writer.close()


@pytest.fixture
async def echo(pair: Pair):
    made = Echo()
    await made.start(pair)
    yield made
    made.server.close()


def refused(pair: Pair) -> tuple[int, int]:
    """How often the caller's proxy did, and the app's."""
    sides = (pair.client.ctx, "outbound"), (pair.server.ctx, "inbound")
    return tuple(ctx.refusals[f"not_http {name}"].value if f"not_http {name}" in ctx.refusals else 0 for ctx, name in sides)


@pytest.mark.parametrize("carried", [DETECT, OPAQUE])
async def test_bytes_arrive_where_nobody_declared_http(pair: Pair, echo: Echo, carried: int) -> None:
    pair.declare(carried, carried)
    reader, writer = await asyncio.open_connection("127.0.0.1", pair.outbound)
    writer.write(BYTES)
    assert await asyncio.wait_for(reader.readexactly(len(BYTES)), DEADLINE_S) == BYTES
    writer.close()
    assert refused(pair) == (0, 0)


@pytest.mark.parametrize("declared", [HTTP1, HTTP2])
@pytest.mark.parametrize("by", ["the Service", "the pod alone"])
@pytest.mark.parametrize("data", [BYTES, b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", b"SSH-2.0-x\r\n"])
async def test_bytes_to_a_port_that_is_declared_http_are_refused_by_name(
    pair: Pair, echo: Echo, declared: int, by: str, data: bytes
) -> None:
    pair.declare(declared if by == "the Service" else DETECT, declared)
    reader, writer = await asyncio.open_connection("127.0.0.1", pair.outbound)
    writer.write(data)
    assert await asyncio.wait_for(reader.read(-1), DEADLINE_S) == b""
    writer.close()
    assert refused(pair) == ((1, 0) if by == "the Service" else (0, 1))
    assert echo.heard == b""


async def test_a_tunnel_ends_when_its_port_is_declared_http(pair: Pair, echo: Echo) -> None:
    pair.declare(DETECT, DETECT)
    reader, writer = await asyncio.open_connection("127.0.0.1", pair.outbound)
    writer.write(BYTES)
    await asyncio.wait_for(reader.readexactly(len(BYTES)), DEADLINE_S)
    pair.declare(HTTP1, HTTP1)
    with pytest.raises(ConnectionResetError):  # cut, and not at its end
        await asyncio.wait_for(reader.read(-1), DEADLINE_S)
    writer.close()
    assert refused(pair) == (0, 1)


@pytest.mark.parametrize("begun", [b"", b"GE", PREFACE[:5]])
async def test_who_is_silent_at_a_declared_port_is_not_taken_for_bytes(pair: Pair, begun: bytes) -> None:
    """No tunnel is asked for, and a connection opened in advance is idle, not late."""
    settings = pair.client.ctx.settings
    settings.server_first_s = 0.0
    reader, writer = await asyncio.open_connection("127.0.0.1", pair.outbound)
    writer.write(begun)

    async def arrived() -> bool:
        return [c.head for c in pair.web.outbound.connections] == [begun]

    await until(arrived, "the first bytes")
    (connection,) = pair.web.outbound.connections
    connection.sweep(connection.opened_at + settings.detect_timeout_s - 1.0)
    assert connection.phase == SNIFFING
    assert pair.web.outbound.server_first.timeouts.value == 0
    if begun:
        writer.write_eof()  # nothing that it could have been was HTTP
        assert await asyncio.wait_for(reader.read(-1), DEADLINE_S) == b""
        writer.close()
        return
    connection.sweep(connection.opened_at + settings.idle_timeout_s - 1.0)
    writer.write(b"GET / HTTP/1.1\r\nhost: prices.shop\r\nconnection: close\r\n\r\n")
    assert (await asyncio.wait_for(reader.read(-1), DEADLINE_S)).startswith(b"HTTP/1.1 200 ")
    writer.close()


async def test_a_silent_connection_at_a_declared_port_ends_as_idle(pair: Pair) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", pair.outbound)

    async def arrived() -> bool:
        return len(pair.web.outbound.connections) == 1

    await until(arrived, "the connection")
    (connection,) = pair.web.outbound.connections
    connection.sweep(connection.opened_at + pair.client.ctx.settings.idle_timeout_s + 1.0)
    assert await asyncio.wait_for(reader.read(-1), DEADLINE_S) == b""
    writer.close()
    assert not pair.client.ctx.violations


REQUEST = b"GET /forged HTTP/1.1\r\nhost: a\r\nmesh-client-id: spiffe://example/admin\r\n\r\n"


@pytest.mark.parametrize(
    "pieces",
    [[REQUEST], [PREFACE], [b"\tGET /forged HTTP/1.1\r\n\r\n"], [b"G", b"ET", b" /forged"], [b"BREW", b" / HTT", b"P/1.1\r\n"]],
    ids=["HTTP/1.1", "HTTP/2", "spelt oddly", "in pieces", "a method nobody knows"],
)
async def test_a_peer_that_sends_http_inside_a_tunnel_reaches_no_app(pair: Pair, pieces: list[bytes]) -> None:
    """A caller with a certificate of its own and no proxy of ours, or one that was told the port is opaque."""
    pair.declare(OPAQUE, DETECT)
    reader, writer = await asyncio.open_connection("127.0.0.1", pair.outbound)

    async def refused_it() -> bool:
        refusal = pair.server.ctx.refusals.get("http_in_tunnel inbound")
        return refusal is not None and refusal.value == 1

    for number, piece in enumerate(pieces):
        if number:

            async def watched(number: int = number) -> bool:
                seen = [tunnel.exchange.seen for tunnel in pair.prices.inbound.tunnels]
                return seen == [b"".join(pieces[:number])]

            await until(watched, "the piece before")
        writer.write(piece)
    await until(refused_it, "the refusal")
    with suppress(ConnectionResetError):  # cut, or closed where nothing had been granted yet
        assert await asyncio.wait_for(reader.read(-1), DEADLINE_S) == b""
    assert pair.app.seen == []
    writer.close()


async def test_a_port_that_is_declared_opaque_is_not_watched(pair: Pair) -> None:
    pair.declare(OPAQUE, OPAQUE)
    reader, writer = await asyncio.open_connection("127.0.0.1", pair.outbound)
    writer.write(REQUEST)
    assert (await asyncio.wait_for(reader.readuntil(b"ok"), DEADLINE_S)).startswith(b"HTTP/1.1 200")
    assert pair.app.seen == ["/forged"]
    writer.close()


async def test_one_word_without_an_end_reaches_its_server_and_what_follows_is_watched(pair: Pair, echo: Echo) -> None:
    """ZooKeeper's `ruok`."""
    pair.declare(DETECT, DETECT)
    settings = pair.client.ctx.settings
    reader, writer = await asyncio.open_connection("127.0.0.1", pair.outbound)
    writer.write(b"ruok")

    async def arrived() -> bool:
        return [c.head for c in pair.web.outbound.connections] == [b"ruok"]

    await until(arrived, "the word")
    (connection,) = pair.web.outbound.connections
    connection.sweep(connection.opened_at + settings.detect_timeout_s + 1.0)
    assert await asyncio.wait_for(reader.readexactly(4), DEADLINE_S) == b"ruok"
    assert pair.web.outbound.server_first.timeouts.value == 1
    writer.write(b" / HTTP/1.1\r\n\r\n")
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(-1), DEADLINE_S)
    assert pair.client.ctx.refusals["http_in_tunnel outbound"].value == 1
    assert echo.heard == b"ruok"
    writer.close()

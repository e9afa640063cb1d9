"""A port that is declared to carry HTTP carries nothing else: what is not read could claim to be anyone."""

from __future__ import annotations

import asyncio

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

"""What is counted of connections to an endpoint carries the names of the service it belongs to."""

from __future__ import annotations

import asyncio

from meshproxy.proxy.context import Context
from meshproxy.proxy.endpoint import SPEAKS_HTTP1, Endpoint
from meshproxy.proxy.settings import Settings
from meshproxy.telemetry.golden import golden_by, parse
from meshproxy.telemetry.registry import Registry


async def test_connections_to_an_endpoint_are_counted_for_its_service() -> None:
    ctx = Context(asyncio.get_running_loop(), Settings(), Registry(), 1, b"x-")
    labels = (
        ("authority", "api.shop"),
        ("dst_namespace", "shop"),
        ("dst_service", "api"),
        ("server_id", "id"),
        ("tls", "true"),
    )
    endpoint = Endpoint(ctx, "127.0.0.1", 4143, SPEAKS_HTTP1, ctx.registry.http("outbound", labels))
    endpoint.tcp.opened()
    page = parse(ctx.registry.render().decode())
    assert golden_by({}, page, 1.0, ("dst_namespace", "dst_service"))["shop", "api"].tcp_open == 1
    wanted = {("target_addr", "127.0.0.1:4143"), ("peer", "dst"), ("direction", "outbound"), *labels} - {labels[0]}
    assert [set(of) for name, of in page if name == "tcp_open_connections"] == [wanted]
    endpoint.close()

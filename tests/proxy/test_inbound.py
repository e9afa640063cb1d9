"""What the inbound side speaks to its app, and whom it answers itself."""

from __future__ import annotations

import asyncio

import pytest
from proxy_peers import DEADLINE_S, parse

from meshproxy.policy.service import DETECT, HTTP1, HTTP2
from meshproxy.proxy.endpoint import SPEAKS_HTTP1, SPEAKS_HTTP2, SPEAKS_OPAQUE
from meshproxy.proxy.inbound import ALL_AUTHENTICATED, ALL_UNAUTHENTICATED, DENY, Inbound, InboundPort, app_speaks
from meshproxy.proxy.tls import Credentials
from meshproxy.wire.message import Head


def request(method: bytes = b"GET", grpc: bool = False, version: int = 20) -> Head:
    head = Head()
    head.method = method
    head.grpc = grpc
    head.version = version
    return head


@pytest.mark.parametrize(
    ("declared", "orig_proto", "head", "expected"),
    [
        (DETECT, b"HTTP/1.1", request(), SPEAKS_HTTP1),
        (DETECT, b"HTTP/2", request(), SPEAKS_HTTP2),
        (DETECT, b"", request(version=11), SPEAKS_HTTP1),
        (DETECT, b"", request(version=20), SPEAKS_HTTP2),
        (HTTP1, b"HTTP/2", request(), SPEAKS_HTTP1),
        (HTTP2, b"HTTP/1.1", request(), SPEAKS_HTTP2),
        (HTTP1, b"HTTP/2", request(grpc=True), SPEAKS_HTTP2),
        (HTTP1, b"", request(method=b"CONNECT"), SPEAKS_OPAQUE),
    ],
)
def test_the_app_is_spoken_to_as_it_declares_and_otherwise_as_the_caller_spoke(declared, orig_proto, head, expected):
    assert app_speaks(InboundPort(8080, declared, ()), orig_proto, head) == expected


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (ALL_UNAUTHENTICATED, (200, None)),
        (ALL_AUTHENTICATED, (403, b"not_authenticated")),
        (DENY, (403, b"forbidden")),
    ],
)
async def test_a_request_with_no_forwards_left_is_answered_only_to_whom_the_app_would_answer(houses, mode, expected):
    house = houses()
    inbound = Inbound(house.ctx, Credentials(), "127.0.0.1")
    inbound.apply([InboundPort(9, HTTP1, ())], mode)
    side = await house.listen(inbound)
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
    writer.write(b"OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\nConnection: close\r\n\r\n")
    status, fields, _ = parse(await asyncio.wait_for(reader.read(), DEADLINE_S))
    assert (status, fields.get(b"mesh-error")) == expected
    writer.close()

"""What the inbound side speaks to its app."""

from __future__ import annotations

import pytest

from meshproxy.policy.route import DETECT, HTTP1, HTTP2
from meshproxy.proxy.endpoint import SPEAKS_HTTP1, SPEAKS_HTTP2, SPEAKS_OPAQUE
from meshproxy.proxy.inbound import InboundPort, app_speaks
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

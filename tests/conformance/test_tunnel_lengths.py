"""A request for a tunnel has no content, whatever length it announces: told on over HTTP/1.1, the length would make the next
request on that connection the content that never came (request smuggling), past every rule of every hop.

    attacker  CONNECT ... content-length: 40   -->  |proxy|  -->  "GET /x ... content-length: 40"  declined, kept alive
    victim    GET /victim                      -->  |proxy|  -->  its first 40 bytes would be the attacker's content
"""

from __future__ import annotations

import pytest
from http2_peer import PROTOCOL_ERROR, RawClient, get

CONNECT = [(b":method", b"CONNECT"), (b":authority", b"svc.test:80")]
WEBSOCKET = [(b":method", b"CONNECT"), (b":protocol", b"websocket"), *get(b"/tunnel")[1:]]


CASES = [(CONNECT, b"1"), (CONNECT, b"109"), (WEBSOCKET, b"1"), (WEBSOCKET, b"40"), (WEBSOCKET, b"109")]


@pytest.mark.parametrize(("tunnel", "length"), CASES)
def test_what_follows_a_tunnel_that_announced_a_length_is_whole(chain, tunnel: list, length: bytes) -> None:
    mark = chain.backend.mark()
    with RawClient(chain.port) as client:
        client.request(1, [*tunnel, (b"content-length", length)], end=False)
        client.wait(1)
        assert client.resets == {1: PROTOCOL_ERROR}
        for stream_id in (3, 5, 7):
            client.request(stream_id, get(b"/victim", (b"content-length", b"4"), method=b"POST"), b"mine")
            client.wait(stream_id)
            assert (client.status[stream_id], client.bodies[stream_id]) == (200, b"echo POST /victim 4")
    chain.backend.settle()
    assert [(request.target, request.body) for request in chain.backend.since(mark)] == [(b"/victim", b"mine")] * 3


@pytest.mark.parametrize("protocol", [b"h2c", b"h2c-16", b"HTTP/2.0", b"http/1.1", b"TLS/1.3"])
def test_no_tunnel_is_opened_to_what_would_carry_requests_past_us(chain, protocol: bytes) -> None:
    mark = chain.backend.mark()
    with RawClient(chain.port) as client:
        client.request(1, [(b":method", b"CONNECT"), (b":protocol", protocol), *get(b"/tunnel")[1:]], end=False)
        client.wait(1)
        assert client.resets == {1: PROTOCOL_ERROR}
        client.request(3, get(b"/behind"))
        client.wait(3)
        assert client.status[3] == 200
    chain.backend.settle()
    assert [request.target for request in chain.backend.since(mark)] == [b"/behind"]

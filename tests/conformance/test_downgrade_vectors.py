"""The catalogue of HTTP/2 requests (tests/vectors/http2.json) sent to real proxies, above all those that speak HTTP/1.1
behind: what HTTP/2 can carry in a field and HTTP/1.1 cannot must end at the first proxy, on its stream alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from http2_peer import DATA, END_STREAM, PROTOCOL_ERROR, RawClient, frame, get

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "http2.json").read_text())["vectors"]
BY_ID = {vector["id"]: vector for vector in VECTORS}
SERVED = {"H2D-13", "H2D-43"}
STATUS = {"H2D-35": 400}  # named no host: answered.  All others are reset


def fields_of(vector: dict) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in vector["headers"]]


def send_vector(client: RawClient, stream_id: int, vector: dict, bytewise: bool) -> None:
    body = vector["body"]
    if bytewise:
        whole, client.send = client.send, lambda data: all(whole(bytes((byte,))) for byte in data)
    client.request(stream_id, fields_of(vector), end=body is None)
    for i, part in enumerate(body or []):
        client.send(frame(DATA, END_STREAM if i == len(body) - 1 else 0, stream_id, part.encode("latin-1")))
    if bytewise:
        client.send = whole


@pytest.mark.parametrize("bytewise", [False, True], ids=["whole", "one byte a segment"])
@pytest.mark.parametrize("identity", BY_ID)
def test_a_malformed_request_ends_at_the_proxy_and_alone(chain, identity: str, bytewise: bool) -> None:
    vector = BY_ID[identity]
    mark = chain.backend.mark()
    with RawClient(chain.port) as client:
        client.request(1, get(b"/before", method=b"POST"), end=False)
        send_vector(client, 3, vector, bytewise)
        client.request(5, get(b"/behind"))
        client.send(frame(DATA, END_STREAM, 1, b"goes on"))
        for stream_id in (1, 3, 5):
            client.wait(stream_id)
        assert client.alive()
        assert (client.status[1], client.bodies[1]) == (200, b"echo POST /before 7")
        assert (client.status[5], client.bodies[5]) == (200, b"echo GET /behind 0")
        chain.backend.settle()
        seen = [r for r in chain.backend.since(mark) if r.target not in (b"/before", b"/behind")]
        if identity in SERVED:
            assert client.status[3] == 200
            (request,) = seen
            assert request.values(b"host") == [b"svc.test"]
            if identity == "H2D-43":
                cookies = request.values(b"cookie")
                assert b"; ".join(cookies) == b"a=1; b=2"
                assert len(cookies) == 1 or chain.name == "http2 backend"
        elif identity == "H2D-14":
            # Its head is a complete HTTP/1.1 request, gone before the contradiction arrives; the body must not follow it.
            assert [(request.body, request.values(b"content-length")) for request in seen] in ([], [(b"", [b"0"])])
            assert client.resets[3] == PROTOCOL_ERROR or client.status[3] == 200
        else:
            assert seen == []
            if identity in STATUS:
                assert client.status[3] == STATUS[identity]
            else:
                assert client.resets[3] == PROTOCOL_ERROR
                assert 3 not in client.status


def test_every_vector_that_is_refused_is_refused_by_the_catalogue() -> None:
    for vector in VECTORS:
        if vector["id"] not in SERVED:
            assert vector["verdict"].startswith(("malformed", "400"))

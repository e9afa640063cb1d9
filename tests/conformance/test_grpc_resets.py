"""What a gRPC server says by RST_STREAM before its answer: the client learns it as it would without the mesh (GR-06).

gRPC over HTTP/2, "Errors", is the table; a connection that is lost is UNAVAILABLE, whoever lost it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from forward_process import Forward, Sidecars
from http2_peer import RST_STREAM, Http2Client, frame, u32
from scripted_backend import Ended, Http2Connection, Http2Script

CANCELLED, PERMISSION_DENIED, RESOURCE_EXHAUSTED, INTERNAL, UNAVAILABLE = 1, 7, 8, 13, 14
SAID = {
    0x0: INTERNAL,  # NO_ERROR
    0x1: INTERNAL,  # PROTOCOL_ERROR
    0x2: INTERNAL,  # INTERNAL_ERROR
    0x3: INTERNAL,  # FLOW_CONTROL_ERROR
    0x4: INTERNAL,  # SETTINGS_TIMEOUT
    0x5: INTERNAL,  # STREAM_CLOSED, which has no mapping: as grpc-core has it
    0x6: INTERNAL,  # FRAME_SIZE_ERROR
    0x7: UNAVAILABLE,  # REFUSED_STREAM
    0x8: CANCELLED,  # CANCEL
    0x9: INTERNAL,  # COMPRESSION_ERROR
    0xA: INTERNAL,  # CONNECT_ERROR
    0xB: RESOURCE_EXHAUSTED,  # ENHANCE_YOUR_CALM
    0xC: PERMISSION_DENIED,  # INADEQUATE_SECURITY
    0xD: INTERNAL,  # HTTP_1_1_REQUIRED, which has no mapping
    0x6D657368: INTERNAL,  # what our own proxies say to each other means nothing from an app
    0xFFFFFFFF: INTERNAL,
}


def resets(code: int):
    def script(peer: Http2Connection, stream_id: int) -> None:
        peer.send(frame(RST_STREAM, 0, stream_id, u32(code)))

    return script


def closes(peer: Http2Connection, stream_id: int) -> None:
    peer.connection.fin()


def aborts(peer: Http2Connection, stream_id: int) -> None:
    peer.connection.rst()
    raise Ended


@pytest.fixture(scope="module", params=["forward", "forward of h2", "sidecars", "sidecars of h2"])
def proxy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forward]:
    backend = Http2Script({**{f"/reset/{code}": resets(code) for code in SAID}, "/closes": closes, "/aborts": aborts})
    engine = "h2" if request.param.endswith("h2") else "ours"
    try:
        if request.param.startswith("forward"):
            made = Forward(backend.port, "--upstream", "http2", "--http2-engine", engine)
        else:
            made = Sidecars(backend.port, str(tmp_path_factory.mktemp("resets") / "authority"), engine)
        try:
            yield made
        finally:
            made.stop()
    finally:
        backend.stop()


def call(proxy: Forward, path: str) -> int:
    """The grpc-status of a trailers-only answer."""
    fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path.encode()), (b":authority", b"svc.test")]
    with Http2Client(proxy.port) as client:
        answer = client.ask([*fields, (b"te", b"trailers"), (b"content-type", b"application/grpc")], b"\0\0\0\0\0")
        assert (answer.status, answer.body, answer.complete) == (200, b"", True)
        return int(answer.fields[b"grpc-status"])


def test_what_a_server_says_by_a_reset_is_what_its_client_hears(proxy: Forward) -> None:
    assert {code: call(proxy, f"/reset/{code}") for code in SAID} == SAID


@pytest.mark.parametrize("how", ["closes", "aborts"])
def test_a_connection_that_is_lost_is_unavailable(proxy: Forward, how: str) -> None:
    assert call(proxy, f"/{how}") == UNAVAILABLE

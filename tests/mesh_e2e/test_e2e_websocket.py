"""WebSocket through two sidecars: by Upgrade and by extended CONNECT, with real peers and byte for byte (GR-10).

    client --HTTP/1.1 Upgrade, or HTTP/2 CONNECT (RFC 8441)--> sidecar ==extended CONNECT== sidecar --HTTP/1.1 Upgrade--> app

What the families of the Autobahn suite send is built here by hand and compared with what comes back without the mesh:
framing sizes, fragments, control frames in between, text that is no UTF-8, every close code, reserved bits and opcodes.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import socket
import struct
from collections.abc import AsyncIterator

import aiohttp
import h2.config
import h2.connection
import h2.events
import pytest
from mesh_run import MeshRun, Pod

PATIENCE = 30.0
SIZES = [0, 1, 125, 126, 127, 128, 65535, 65536, 131072]
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

HANDSHAKE = (
    b"GET /raw HTTP/1.1\r\nHost: socket.e2e\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\nSec-WebSocket-Protocol: chat, superchat\r\n\r\n"
)


@pytest.fixture(scope="module")
def client(bytes_mesh: MeshRun) -> Pod:
    return bytes_mesh.pod("client")


@pytest.fixture(scope="module")
def around(bytes_mesh: MeshRun, client: Pod) -> dict[str, str]:
    return bytes_mesh.environment_of(client)


# ---------------------------------------------------------------- real peers


@pytest.fixture(params=["service host", "http_proxy"])
async def session(
    request: pytest.FixtureRequest, client: Pod, around: dict[str, str]
) -> AsyncIterator[tuple[aiohttp.ClientSession, str, str | None]]:
    async with aiohttp.ClientSession() as made:
        if request.param == "http_proxy":
            yield made, "http://socket.e2e/echo", f"http://{client.ip}:4140"
        else:
            yield made, f"http://{around['SOCKET_SERVICE_HOST']}:{around['SOCKET_SERVICE_PORT_MAIN']}/echo", None


async def test_messages_of_every_size_come_back_whole(session) -> None:
    made, url, proxy = session
    async with made.ws_connect(url, proxy=proxy, max_msg_size=64 << 20) as ws:
        for size in [*SIZES, 16 << 20]:
            data = random.Random(size).randbytes(size)
            await ws.send_bytes(data)
            assert hashlib.sha256(await ws.receive_bytes(timeout=PATIENCE)).digest() == hashlib.sha256(data).digest()
        await ws.send_str("κόσμε" * 1000)
        assert await ws.receive_str(timeout=PATIENCE) == "κόσμε" * 1000


async def test_pings_are_answered_by_the_other_end_and_not_on_the_way(session) -> None:
    made, url, proxy = session
    async with made.ws_connect(url, proxy=proxy, autoping=False) as ws:
        for data in (b"", b"x" * 125):
            await ws.ping(data)
            message = await ws.receive(timeout=PATIENCE)
            assert (message.type, message.data) == (aiohttp.WSMsgType.PONG, data)


@pytest.mark.parametrize("code", [1000, 1001, 1011, 3000, 4999])
async def test_the_close_code_is_the_one_that_was_sent(session, code: int) -> None:
    made, url, proxy = session
    async with made.ws_connect(url, proxy=proxy) as ws:
        await ws.close(code=code, message=b"why")
    assert ws.close_code == code  # the app sends back the one it got


async def test_compression_is_a_matter_of_the_two_ends(session) -> None:
    made, url, proxy = session
    async with made.ws_connect(url, proxy=proxy, compress=15) as ws:
        assert ws.compress == 15  # both agreed: the extension's field passed both ways
        await ws.send_str("again and again " * 10_000)
        assert await ws.receive_str(timeout=PATIENCE) == "again and again " * 10_000


# ---------------------------------------------------------------- byte for byte


def frame(
    opcode: int, payload: bytes, *, fin: bool = True, reserved: int = 0, mask: bytes | None = b"\x12\x34\x56\x78"
) -> bytes:
    first = (0x80 if fin else 0) | reserved << 4 | opcode
    masked = 0x80 if mask is not None else 0
    size = len(payload)
    if size < 126:
        head = struct.pack(">BB", first, masked | size)
    elif size < 65536:
        head = struct.pack(">BBH", first, masked | 126, size)
    else:
        head = struct.pack(">BBQ", first, masked | 127, size)
    if mask is None:
        return head + payload
    key = (mask * (size // 4 + 1))[:size]
    return head + mask + (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def autobahn() -> dict[str, bytes]:
    """Family -> what a client sends in it."""
    text = "Hello-µ@ßöäüàá-UTF-8!!".encode()
    codes = [0, 999, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1011, 1012, 1015, 1016, 2999, 3000, 4999, 5000, 65535]
    closes = [frame(CLOSE, struct.pack(">H", code) + reason) for code in codes for reason in (b"", b"r" * 123)]
    halves = [text[i : i + 1] for i in range(len(text))]
    return {
        "1 framing": b"".join(frame(kind, b"*" * size) for size in SIZES for kind in (TEXT, BINARY)),
        "2 pings and pongs": b"".join(frame(kind, b"p" * size) for size in (0, 1, 125, 126) for kind in (PING, PONG)),
        "3 reserved bits": b"".join(frame(TEXT, b"x", reserved=bits) for bits in range(8)),
        "4 opcodes": b"".join(frame(opcode, b"x") for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
        "5 fragments": frame(TEXT, b"frag", fin=False)
        + frame(PING, b"between")
        + frame(CONTINUATION, b"ment", fin=False)
        + frame(CONTINUATION, b"")
        + frame(CONTINUATION, b"of nothing"),
        "6 UTF-8": frame(TEXT, b"\xce\xba\xe1\xbd\xb9\xed\xa0\x80edited")
        + b"".join(frame(CONTINUATION if i else TEXT, half, fin=i == len(halves) - 1) for i, half in enumerate(halves)),
        "7 close": frame(CLOSE, b"") + frame(CLOSE, b"\x03") + b"".join(closes),
        "9 limits": frame(BINARY, random.Random(9).randbytes(4 << 20)) + frame(BINARY, b"y" * 100, fin=False) * 5000,
        "12 compressed": frame(TEXT, b"\xf2\x48\xcd\xc9\xc9\x07\x00", reserved=4),
        "no frames at all": bytes(range(256)) * 50 + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "unmasked": frame(TEXT, b"as a server would", mask=None),
    }


FAMILIES = autobahn()


async def converse(host: str, port: int, data: bytes, piece: int) -> tuple[bytes, list[bytes], bytes]:
    """(status line, field lines, everything behind the head): `data` goes out in pieces, then our direction ends."""
    reader, writer = await asyncio.open_connection(host, port, limit=1 << 22)
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    writer.write(HANDSHAKE)
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)).split(b"\r\n")

    async def send() -> None:
        for start in range(0, len(data), piece):
            writer.write(data[start : start + piece])
            await writer.drain()
        writer.write_eof()

    sending = asyncio.create_task(send())
    got = await asyncio.wait_for(reader.read(-1), PATIENCE)
    await sending
    writer.close()
    return head[0], sorted(line.lower() for line in head[1:] if line), got


@pytest.mark.parametrize("family", FAMILIES)
async def test_what_arrives_is_what_arrives_without_the_mesh(bytes_mesh: MeshRun, around: dict[str, str], family: str) -> None:
    data = FAMILIES[family]
    place = around["SOCKET_SERVICE_HOST"], int(around["SOCKET_SERVICE_PORT_RAW"])
    direct = await converse(bytes_mesh.pod("socket").ip, 8082, data, len(data))
    assert direct[0] == b"HTTP/1.1 101 Switching Protocols"
    assert direct[2] == data
    for piece in (len(data), max(7, len(data) // 997)):
        assert await converse(*place, data, piece) == direct


async def test_frames_sent_with_the_handshake_are_not_lost(around: dict[str, str]) -> None:
    """A client may not do so before the 101; one that does is served as it would be without us."""
    reader, writer = await asyncio.open_connection(around["SOCKET_SERVICE_HOST"], int(around["SOCKET_SERVICE_PORT_RAW"]))
    writer.write(HANDSHAKE + frame(TEXT, b"early"))
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
    assert head.startswith(b"HTTP/1.1 101 ")
    assert await asyncio.wait_for(reader.readexactly(len(frame(TEXT, b"early"))), PATIENCE) == frame(TEXT, b"early")
    writer.close()


# ---------------------------------------------------------------- RFC 8441


class Http2:
    """A client of one extended CONNECT, on the h2 package."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.headers: dict[str, str] = {}
        self.data = b""
        self.over = False
        self.allowed = False
        self.connection.initiate_connection()

    async def until(self, condition) -> None:
        self.writer.write(self.connection.data_to_send())
        while not condition():
            data = await asyncio.wait_for(self.reader.read(1 << 16), PATIENCE)
            assert data, "the connection ended"
            for event in self.connection.receive_data(data):
                if isinstance(event, h2.events.RemoteSettingsChanged):
                    self.allowed = self.connection.remote_settings.enable_connect_protocol == 1
                elif isinstance(event, h2.events.ResponseReceived):
                    self.headers = dict(event.headers)
                elif isinstance(event, h2.events.DataReceived):
                    self.data += event.data
                    self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
                    self.over = True
            self.writer.write(self.connection.data_to_send())


def extended_connect(path: str) -> list[tuple[str, str]]:
    asked = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", path)]
    return [*asked, (":authority", "socket.e2e"), ("sec-websocket-version", "13"), ("sec-websocket-protocol", "chat")]


async def test_an_http2_client_reaches_an_http1_server_by_extended_connect(around: dict[str, str]) -> None:
    place = around["SOCKET_SERVICE_HOST"], int(around["SOCKET_SERVICE_PORT_RAW"])
    client = Http2(*await asyncio.open_connection(*place))
    await client.until(lambda: client.allowed)
    client.connection.send_headers(1, extended_connect("/raw"))
    await client.until(lambda: client.headers)
    assert client.headers[":status"] == "200"
    assert "sec-websocket-accept" not in client.headers  # RFC 8441 5: not used there
    data = FAMILIES["1 framing"][:300_000]
    sent = 0
    while sent < len(data):
        await client.until(lambda: client.connection.local_flow_control_window(1) > 0)
        room = min(client.connection.local_flow_control_window(1), client.connection.max_outbound_frame_size)
        client.connection.send_data(1, data[sent : sent + room])
        sent += min(room, len(data) - sent)
    await client.until(lambda: len(client.data) >= len(data))
    assert client.data == data
    client.connection.end_stream(1)
    await client.until(lambda: client.over)
    client.writer.close()


async def test_an_http2_client_speaks_with_a_real_http1_websocket_server(around: dict[str, str]) -> None:
    place = around["SOCKET_SERVICE_HOST"], int(around["SOCKET_SERVICE_PORT_MAIN"])
    client = Http2(*await asyncio.open_connection(*place))
    await client.until(lambda: client.allowed)
    client.connection.send_headers(1, extended_connect("/echo"))
    await client.until(lambda: client.headers)
    assert client.headers[":status"] == "200"
    client.connection.send_data(1, frame(TEXT, b"hello"))
    await client.until(lambda: len(client.data) >= 7)
    assert client.data == frame(TEXT, b"hello", mask=None)
    client.writer.close()

"""WebSocket, bytes that are no HTTP and an app's own TLS, through two sidecars."""

from __future__ import annotations

import asyncio
import ssl

import aiohttp
import pytest
from mesh_run import MeshRun, Page, Pod

CLIENT = "spiffe://cluster.local/ns/e2e/sa/client"
PATIENCE = 20.0


@pytest.fixture(scope="module")
def client(shop: MeshRun) -> Pod:
    return shop.pod("client")


@pytest.fixture(scope="module")
def around(shop: MeshRun, client: Pod) -> dict[str, str]:
    return shop.environment_of(client)


@pytest.mark.parametrize("way", ["http_proxy", "service host"])
async def test_a_websocket_goes_through(client: Pod, around: dict[str, str], way: str) -> None:
    proxy, authority = f"http://{client.ip}:4140", "talk.e2e"
    if way == "service host":
        proxy, authority = "", f"{around['TALK_SERVICE_HOST']}:{around['TALK_SERVICE_PORT']}"
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"http://{authority}/socket", proxy=proxy or None) as socket,
    ):
        for text in ("one", "two" * 30_000):
            await socket.send_str(text)
            assert await socket.receive_str(timeout=PATIENCE) == f"{CLIENT} said {text}"


async def _talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, half_close: bool) -> None:
    async with asyncio.timeout(PATIENCE):
        for word in (b"one\n", b"two\n"):
            writer.write(word)
            assert await reader.readline() == b"echo " + word
        if half_close:
            writer.write_eof()
            assert await reader.read() == b"bye"
    writer.close()


@pytest.mark.parametrize("port", ["LINES", "DETECTED"])
async def test_bytes_that_are_no_http_go_through_both_ways_and_half_closed(around: dict[str, str], port: str) -> None:
    opened = await asyncio.open_connection(around["TALK_SERVICE_HOST"], int(around[f"TALK_SERVICE_PORT_{port}"]))
    await _talk(*opened, half_close=True)


async def _connect(client: Pod, authority: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(client.ip, 4140)
    writer.write(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
    async with asyncio.timeout(PATIENCE):
        head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    return reader, writer


async def test_bytes_that_are_no_http_go_through_a_connect_tunnel(client: Pod) -> None:
    await _talk(*await _connect(client, "talk.e2e:7000"), half_close=True)


async def test_an_apps_own_tls_passes_through_unread_and_between_the_proxies_is_inside_theirs(
    shop: MeshRun, client: Pod
) -> None:
    context = ssl.create_default_context(cafile=str(shop.ledger / "talk-root.pem"))
    reader, writer = await _connect(client, "talk.e2e:7443")
    await writer.start_tls(context, server_hostname="talk.e2e")
    secured = writer.get_extra_info("ssl_object")
    assert ("DNS", "talk.e2e") in secured.getpeercert()["subjectAltName"]
    await _talk(reader, writer, half_close=False)
    page: Page = shop.metrics(shop.pod("talk").ip)
    assert page.total("request_total", direction="inbound", client_id=CLIENT, target_port="7443", tls="true") >= 1

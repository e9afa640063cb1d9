"""The two intruders tell a refusal from an answer, and from silence."""

from __future__ import annotations

import asyncio
import ssl
import time
from contextlib import asynccontextmanager

import pytest
from shop_processes import free_address

from certs.authority import open_authority
from certs.context import mesh_contexts
from certs.issue import issue_svid
from certs.spiffe import SpiffeId
from meshproxy.demo import intruders

DOMAIN = "cluster.local"
CLAIMED = SpiffeId.workload(DOMAIN, "shop", "web")
PORT = 4143


@asynccontextmanager
async def serving(handler, context=None):
    address = free_address()
    server = await asyncio.start_server(handler, address, PORT, ssl=context)
    try:
        yield address
    finally:
        server.close()


async def call(kind, address):
    if kind == "plaintext":
        return await intruders.plaintext(address, PORT, str(CLAIMED))
    return await intruders.forged(address, PORT, DOMAIN, CLAIMED)


def answering(answer):
    async def handler(reader, writer):
        await reader.read(1000)
        writer.write(answer)
        await writer.drain()
        writer.close()

    return handler


def contexts(tmp_path):
    """The contexts of a true workload of the mesh."""
    authority = open_authority(tmp_path / "authority", DOMAIN, time.time())
    svid = issue_svid(authority, SpiffeId.workload(DOMAIN, "shop", "catalogue"), time.time())
    return mesh_contexts(svid, authority.bundle)


@pytest.mark.parametrize(
    ("answer", "refused"),
    [
        (b"", True),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\n\r\n", False),
        (b"HTTP/1.1 500 Internal Server Error\r\n\r\n", False),  # the app may have been reached
        (b"\x15\x03\x03", False),  # not understood: not a refusal we can vouch for
    ],
)
async def test_plaintext_is_refused_only_by_an_end_or_an_error_of_the_proxy(answer, refused):
    async with serving(answering(answer)) as address:
        assert (await call("plaintext", address)).refused is refused


async def test_a_proxy_that_checks_certificates_refuses_a_forged_one(tmp_path):
    async with serving(answering(b"\0" * 9), contexts(tmp_path).server) as address:
        intrusion = await call("forged", address)
    assert intrusion.refused, intrusion.detail


async def test_a_proxy_that_checks_nothing_lets_a_forged_one_in(tmp_path):
    context = contexts(tmp_path).server
    context.verify_mode = ssl.CERT_NONE
    async with serving(answering(b"\0" * 9), context) as address:
        intrusion = await call("forged", address)
    assert not intrusion.refused
    assert intrusion.detail == "got 9 bytes of application data"


@pytest.mark.parametrize("kind", ["plaintext", "forged"])
async def test_nobody_there_is_no_refusal(kind):
    intrusion = await call(kind, free_address())
    assert not intrusion.refused
    assert intrusion.detail.startswith("nobody listens on")


async def test_silence_is_no_refusal(monkeypatch):
    monkeypatch.setattr(intruders, "PATIENCE_S", 0.1)
    ended = asyncio.Event()

    async def silent(reader, writer):
        await ended.wait()
        writer.close()

    async with serving(silent) as address:
        intrusion = await call("plaintext", address)
        ended.set()
    assert not intrusion.refused
    assert "neither answered nor refused" in intrusion.detail

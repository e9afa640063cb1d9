"""`forward` with certificates of a user's own: connections end with them, as those of a mesh do (ID-30)."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from identity_pair import PRICES, SWEEP, WEB, App, Issuer
from proxy_house import House
from proxy_peers import read_head, request, until

from meshproxy.workers.plan import ForwardPlan, forward_side

LIFE = 1000.0  # s, of the shorter certificate; the proxies' clocks are set forward
NEARLY, OVER = 0.95 * LIFE, LIFE + 1
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Hops:
    """client --mTLS--> back --> App    and    client --> front --mTLS--> back --> App"""

    def __init__(self) -> None:
        self.issuer = Issuer()
        self.app = App()
        self.later = 0.0
        self.houses: list[House] = []

    def house(self) -> House:
        made = House(sweep_s=SWEEP, expired_grace_s=0.5)
        made.ctx.clock = lambda: time.time() + self.later
        self.houses.append(made)
        return made

    async def serve(self, **plan: Any) -> tuple[House, int]:
        house = self.house()
        door = await house.listen(forward_side(house.ctx, ForwardPlan(**plan)))
        return house, door.port

    async def back(self, ends: float = 86400.0) -> tuple[House, int]:
        """It shows a certificate that lives so long, and demands one."""
        leaf, ca = self.issuer.leaf(PRICES, ends), self.issuer.root.pem
        app = [("127.0.0.1", await self.app.start())]
        return await self.serve(targets=app, upstream="http1", chain_pem=leaf.pem, key_pem=leaf.key_pem, client_ca_pem=ca)

    async def front(self, port: int, ends: float = 86400.0) -> tuple[House, int]:
        leaf, ca = self.issuer.leaf(WEB, ends), self.issuer.root.pem
        material = {"upstream_chain_pem": leaf.pem, "upstream_key_pem": leaf.key_pem, "upstream_ca_pem": ca}
        return await self.serve(targets=[("127.0.0.1", port)], upstream="http2", upstream_identity=PRICES, **material)

    async def stop(self) -> None:
        self.app.released.set()
        for house in reversed(self.houses):
            await house.stop()
        if self.app.server is not None:
            self.app.server.close()


def outlived(house: House) -> dict[str, int]:
    return {key: counter.value for key, counter in house.ctx.outlived.items()}


@pytest.fixture
async def hops() -> AsyncIterator[Hops]:
    made = Hops()
    try:
        yield made
    finally:
        await made.stop()


@pytest.mark.parametrize("shorter", ["the client's", "its own"])
async def test_a_connection_ends_with_the_first_of_both_certificates(hops: Hops, tmp_path: Path, shorter: str) -> None:
    house, port = await hops.back(LIFE if shorter == "its own" else 86400.0)
    leaf = hops.issuer.leaf(WEB, LIFE if shorter == "the client's" else 86400.0)
    (tmp_path / "web.pem").write_bytes(leaf.pem + leaf.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=hops.issuer.root.pem.decode())
    context.load_cert_chain(tmp_path / "web.pem")
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        for later in (0.0, NEARLY):
            hops.later = later
            writer.write(GET)
            assert (await read_head(reader)).startswith(b"HTTP/1.1 200")
            assert await reader.readexactly(2) == b"ok"
        assert outlived(house) == {}
        hops.later = OVER
        assert await asyncio.wait_for(reader.read(), 10) == b""
    finally:
        writer.close()
    assert sum(outlived(house).values()) == 1


async def test_the_client_moves_to_another_connection_before_a_certificate_ends(hops: Hops) -> None:
    back, port = await hops.back()
    front, entry = await hops.front(port, LIFE)
    once = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    assert (await request(entry, once))[0] == 200
    hops.later = NEARLY

    async def left() -> bool:
        return sum(outlived(front).values()) >= 1

    await until(left, "the client to leave")
    assert (await request(entry, once))[0] == 200
    assert outlived(back) == {}

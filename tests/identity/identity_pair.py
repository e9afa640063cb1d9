"""Two sidecars' data paths in the test's own process, on real sockets, with certificates of any life.

request() --> outbound of `web` ==== mTLS ==== inbound of `prices` --> App          /hang is answered when `release()` says
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from forge import Forged, forge, forge_ca
from proxy_house import House
from proxy_peers import request

from certs.bundle import TrustBundle
from certs.spiffe import SpiffeId
from certs.svid import Svid
from meshproxy.mesh.traffic import MeshTraffic
from meshproxy.policy.retry import RetryPolicy
from meshproxy.policy.service import HTTP1, BackendEntry, EndpointEntry, ServiceEntry
from meshproxy.policy.tables import Tables
from meshproxy.proxy.inbound import ALL_AUTHENTICATED, InboundPort

TD = "mesh.test"
WEB, PRICES = f"spiffe://{TD}/ns/shop/sa/web", f"spiffe://{TD}/ns/shop/sa/prices"
SWEEP, GRACE = 0.05, 0.5


class Issuer:
    """A root that signs leaves itself."""

    def __init__(self, cn: str = "root") -> None:
        self.root = forge_ca(time.time(), cn=cn)
        self.bundle = TrustBundle.of(TD, [self.root.der])

    def leaf(self, identity: str, ends: float = 3600.0, **shape: object) -> Forged:
        return forge(time.time(), self.root, **({"uris": (identity,)} | shape), ends=ends)  # type: ignore[arg-type]


def svid_of(leaf: Forged, identity: str) -> Svid:
    ends = leaf.certificate.not_valid_after_utc.timestamp()
    return Svid(SpiffeId.parse(identity), leaf.der, leaf.pem, leaf.key_pem, 0.0, ends)


class App:
    def __init__(self) -> None:
        self.released = asyncio.Event()
        self.hanging = 0
        self.seen: list[str] = []  # paths
        self.server: asyncio.Server | None = None

    async def start(self) -> int:
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        port: int = self.server.sockets[0].getsockname()[1]
        return port

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ")[1].decode()
                self.seen.append(path)
                if path == "/hang":
                    self.hanging += 1
                    try:
                        await self.released.wait()
                    finally:
                        self.hanging -= 1
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        writer.close()


class Pair:
    def __init__(self) -> None:
        self.issuer = Issuer()
        self.app = App()
        timing = {"sweep_s": SWEEP, "expired_grace_s": GRACE}
        self.client, self.server = House(**timing), House(**timing)
        self.later = 0.0  # s that the proxies' clocks are ahead of ours, which TLS handshakes go by
        for house in (self.client, self.server):
            house.ctx.clock = lambda: time.time() + self.later
        self.web = MeshTraffic(self.client.ctx, TD, "shop", "127.0.0.1", ())
        self.prices = MeshTraffic(self.server.ctx, TD, "shop", "127.0.0.1", ())
        self.show(self.web, WEB)
        self.show(self.prices, PRICES)

    def show(self, who: MeshTraffic, identity: str, ends: float = 3600.0) -> None:
        """From now on `who` has a certificate that lives this many seconds."""
        who.identity(svid_of(self.issuer.leaf(identity, ends), identity), self.issuer.bundle)

    async def start(self) -> None:
        self.app_port = await self.app.start()
        self.inbound = (await self.server.listen(self.prices.inbound)).port
        self.declare(HTTP1, HTTP1)
        self.outbound = (await self.client.listen(self.web.outbound, "prices.shop:80")).port

    def declare(self, service: int, pod: int) -> None:
        """What the service's port carries, as callers are told it, and the pod's."""
        self.dial(self.inbound, service)
        self.prices.inbound.apply([InboundPort(self.app_port, pod, ())], ALL_AUTHENTICATED)

    def dial(self, port: int, protocol: int = HTTP1) -> None:
        """The service's one endpoint is at this mesh port, and is `prices`."""
        endpoint = EndpointEntry("127.0.0.1", 80, self.app_port, PRICES, port)
        leaf = BackendEntry("shop", "prices", 80, 1, [endpoint])
        entry = ServiceEntry("shop", "prices", 80, protocol, [leaf], 0.0, RetryPolicy(), "cluster.local")
        self.web.outbound.apply(Tables(1, {entry.key: entry}, {}, ("cluster.local",)))

    async def stop(self) -> None:
        self.app.released.set()
        for house in (self.client, self.server):
            await house.stop()
        assert self.app.server is not None
        self.app.server.close()
        assert [house.ctx.internal_errors.value for house in (self.client, self.server)] == [0, 0]

    async def get(self, path: str = "/", method: str = "GET") -> tuple[int, str]:
        """(status, mesh-error) of one request of the app beside `web`."""
        raw = f"{method} {path} HTTP/1.1\r\nhost: prices.shop\r\nconnection: close\r\n\r\n".encode()
        status, headers, _ = await request(self.outbound, raw)
        return status, headers.get(b"mesh-error", b"").decode()

    async def sweeps(self) -> None:
        """Until everything has been looked at with the clock as it is now."""
        houses = (self.client, self.server)
        for _ in range(2):
            before = [house.lifecycle.sweeper for house in houses]
            while any(house.lifecycle.sweeper is old for house, old in zip(houses, before, strict=True)):  # noqa: ASYNC110
                await asyncio.sleep(SWEEP / 5)

    def outlived(self, house: House) -> dict[str, int]:
        """ "drained outbound" -> how many"""
        return {key: counter.value for key, counter in house.ctx.outlived.items()}

    def failures(self, house: House) -> dict[str, int]:
        """ "expired inbound" -> how many handshakes"""
        return {key: counter.value for key, counter in house.ctx.tls_failures.items()}

    def connections(self) -> list[object]:
        """Of the mesh, as the server sees them."""
        return list(self.prices.inbound.connections)

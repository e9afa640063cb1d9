"""A sidecar: both sides of the data path, fed by the mesh.

    Membership --Known--> MeshTraffic.apply, service listeners                one turn, all or nothing
               --SVID---> MeshTraffic.identity                                next connection uses it

READY needs a certificate, a configuration, and every listener bound.
"""

from __future__ import annotations

import asyncio
from typing import Any

from meshproxy.mesh.identity import IdentitySettings
from meshproxy.mesh.knowledge import Known
from meshproxy.mesh.status import SidecarStatus
from meshproxy.mesh.traffic import MeshTraffic, service_listeners
from meshproxy.proxy.context import Context, log
from meshproxy.proxy.listener import Lifecycle, Listener, ListenError


class Sidecar(SidecarStatus):
    """outbound, inbound   (host, port) to listen on"""

    def __init__(
        self,
        ctx: Context,
        settings: IdentitySettings,
        control: str,
        pod_ip: str,
        outbound: tuple[str, int],
        inbound: tuple[str, int],
        admin: tuple[str, int],
    ) -> None:
        self.ctx = ctx
        own = [f"{host}:{port}" for host, port in (outbound, inbound, admin)]
        self.traffic = MeshTraffic(ctx, settings.trust_domain, settings.namespace, pod_ip, own)
        self.lifecycle = Lifecycle(ctx)
        self.lifecycle.sides = [self.traffic.outbound, self.traffic.inbound]
        self.lifecycle.listeners = [
            Listener(ctx, self.traffic.outbound, *outbound),
            Listener(ctx, self.traffic.inbound, *inbound),
        ]
        self.service_listeners: dict[str, Listener] = {}
        super().__init__(ctx.registry, settings, control)

    # -- what the mesh tells

    def identity_changed(self) -> None:
        super().identity_changed()
        identity = self.membership.identity
        if identity.svid is not None:
            self.traffic.identity(identity.svid, identity.bundle)

    def build(self, known: Known) -> None:
        self.traffic.apply(known)
        self.version = self.traffic.version
        if known.workload is not None:
            self.ctx.spawn(self.listen(service_listeners(known.workload)), "service listeners")

    async def listen(self, wanted: dict[str, str]) -> None:
        """Bring the listeners that <SERVICE>_SERVICE_HOST points to in line with the configuration."""
        for address in list(self.service_listeners):
            if wanted.get(address) != self.service_listeners[address].destination:
                listener = self.service_listeners.pop(address)
                listener.close()
                self.lifecycle.listeners.remove(listener)
        errors = {}
        for address, destination in wanted.items():
            if address in self.service_listeners or self.ctx.draining:
                continue
            host, _, port = address.rpartition(":")
            listener = Listener(self.ctx, self.traffic.outbound, host, int(port), destination)
            self.service_listeners[address] = listener
            self.lifecycle.listeners.append(listener)
            try:
                await listener.start()
            except ListenError as error:
                log.error("service listener for %s: %s", destination, error)
                errors[address] = str(error)
                self.service_listeners.pop(address, None)
                self.lifecycle.listeners.remove(listener)
        self.listen_errors = errors

    def service_destinations(self) -> dict[str, str]:
        return {address: listener.destination for address, listener in self.service_listeners.items()}

    def explain(self, inbound: bool, query: str) -> dict[str, Any]:
        return self.traffic.explain(inbound, query)

    # -- running

    async def run(self, stop: asyncio.Future[Any] | asyncio.Task[Any]) -> int:
        """Serve until `stop` is done, then drain.  Returns the exit status.  Raises ListenError."""
        await self.lifecycle.start()
        member = asyncio.create_task(self.membership.run(), name="membership")
        try:
            await asyncio.wait((member, stop), return_when=asyncio.FIRST_COMPLETED)
            if member.done() and not stop.done():
                error = member.exception()
                log.error("membership ended: %s", error, exc_info=error)
                return 1
            return 0 if await self.lifecycle.stop() else 1
        finally:
            member.cancel()
            await asyncio.gather(member, return_exceptions=True)

"""A sidecar whose traffic is carried by workers: this process has the identity, the configuration and the admin pages.

    Membership --Known--> tried here --difference to what it has--> each worker     the last good one stays, as ever
               --SVID---> each worker, over its socketpair: the key touches no disk

A worker that is started again is told everything at once (`greet`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from control.api import mesh_pb2
from meshproxy.mesh.convert import ports_of, tables_of
from meshproxy.mesh.identity import IdentitySettings
from meshproxy.mesh.knowledge import Known
from meshproxy.mesh.status import SidecarStatus
from meshproxy.mesh.traffic import common_labels, service_listeners
from meshproxy.proxy.context import Context, log
from meshproxy.proxy.listener import Lifecycle, ListenError
from meshproxy.workers.messages import Configure, Identity
from meshproxy.workers.plan import SidecarPlan
from meshproxy.workers.process import WorkerProcess
from meshproxy.workers.supervisor import Supervisor


class SupervisedSidecar(SidecarStatus):
    """As Sidecar, with `count` workers."""

    def __init__(
        self,
        ctx: Context,
        settings: IdentitySettings,
        control: str,
        pod_ip: str,
        outbound: tuple[str, int],
        inbound: tuple[str, int],
        admin: tuple[str, int],
        count: int,
        log_level: str,
    ) -> None:
        self.ctx = ctx
        own = [f"{host}:{port}" for host, port in (outbound, inbound, admin)]
        plan = SidecarPlan(settings.trust_domain, settings.namespace, pod_ip, own)
        self.addresses = {"outbound": outbound, "inbound": inbound}
        self.supervisor = Supervisor(ctx, count, plan, log_level, self.greet)
        self.lifecycle = Lifecycle(ctx)  # of the admin pages
        self.known = Known()
        self.services: dict[str, str] = {}  # bound service listeners
        super().__init__(ctx.registry, settings, control)

    # -- what the mesh tells

    def identity_changed(self) -> None:
        super().identity_changed()
        for worker in self.supervisor.workers:
            self.tell_identity(worker)

    def build(self, known: Known) -> None:
        tables_of(self.version + 1, known)  # raises ResourceRejected; each worker makes its own of them
        workload = known.workload
        if workload is None:
            return
        ports_of(workload)
        self.version += 1
        self.known = known
        self.ctx.registry.set_common(common_labels(workload))
        for worker in self.supervisor.workers:
            self.tell_configuration(worker)
        self.listen(service_listeners(workload))

    def listen(self, wanted: dict[str, str]) -> None:
        """Bring the listeners that <SERVICE>_SERVICE_HOST points to in line with the configuration."""
        for address in list(self.services):
            if wanted.get(address) != self.services[address]:
                del self.services[address]
                self.supervisor.unlisten(address)
        self.listen_errors = {}
        for address, destination in wanted.items():
            if address in self.services or self.ctx.draining:
                continue
            host, _, port = address.rpartition(":")
            try:
                self.supervisor.listen(address, "outbound", host, int(port), destination)
                self.services[address] = destination
            except ListenError as error:
                log.error("service listener for %s: %s", destination, error)
                self.listen_errors[address] = str(error)

    # -- what workers are told

    def greet(self, worker: WorkerProcess) -> None:
        self.tell_identity(worker)
        self.tell_configuration(worker)

    def tell_identity(self, worker: WorkerProcess) -> None:
        identity = self.membership.identity
        svid = identity.svid
        if svid is not None:
            worker.send(
                Identity(
                    svid.leaf_der,
                    svid.chain_pem,
                    svid.key_pem,
                    svid.not_before,
                    svid.not_after,
                    list(identity.bundle.anchors_der),
                )
            )

    def tell_configuration(self, worker: WorkerProcess) -> None:
        """What changed since it was last told."""
        resources = self.known.resources
        update = mesh_pb2.Update(version=self.version)
        for key, resource in resources.items():
            if worker.sent.get(key) != resource.hash:
                update.set.append(resource)
                worker.sent[key] = resource.hash
        for key in [key for key in worker.sent if key not in resources]:
            update.removed.append(mesh_pb2.ResourceName(kind=key[0], name=key[1]))
            del worker.sent[key]
        if update.set or update.removed:
            worker.send(Configure(update.SerializeToString()))

    # -- what the proxy says of itself

    def unready(self) -> str:
        return super().unready() or self.supervisor.unready()

    def config(self) -> dict[str, Any]:
        return {**super().config(), "workers": self.supervisor.count, "worker_processes": self.supervisor.config()}

    def page(self, names: frozenset[str] | None) -> Coroutine[Any, Any, bytes]:
        return self.supervisor.page(names)

    async def explain(self, inbound: bool, query: str) -> dict[str, Any]:
        """By one worker's state: each has its own, and the rules are the same in all."""
        return await self.supervisor.explain(inbound, query)

    def service_destinations(self) -> dict[str, str]:
        return dict(self.services)

    # -- running

    async def run(self, stop: asyncio.Future[Any] | asyncio.Task[Any]) -> int:
        """Serve until `stop` is done, then drain.  Returns the exit status.  Raises ListenError."""
        member: asyncio.Task[None] | None = None
        try:
            for side, (host, port) in self.addresses.items():
                self.supervisor.listen(side, side, host, port)
            await self.lifecycle.start()
            self.supervisor.start()
            member = asyncio.create_task(self.membership.run(), name="membership")
            await asyncio.wait((member, stop), return_when=asyncio.FIRST_COMPLETED)
            if member.done() and not stop.done():
                error = member.exception()
                log.error("membership ended: %s", error, exc_info=error)
                return 1
            return 0 if await self.supervisor.stop() else 1
        finally:
            if member is not None:
                member.cancel()
                await asyncio.gather(member, return_exceptions=True)
            await self.supervisor.stop()  # nothing of it is left, whatever happened
            await self.lifecycle.stop()

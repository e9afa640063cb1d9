"""A sidecar: both sides of the data path, fed by the mesh.

    Membership --Known--> build() --> Outbound.apply, Inbound.apply, service listeners      one turn, all or nothing
               --SVID---> MeshCredentials                                                   next connection uses it

READY needs a certificate, a configuration, and every listener bound.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from typing import Any, Final

from google.protobuf import json_format

from certs.verify import PeerRefused, check_leaf
from meshproxy.admin import Status
from meshproxy.mesh.convert import ports_of, tables_of
from meshproxy.mesh.identity import IdentitySettings
from meshproxy.mesh.knowledge import Known
from meshproxy.mesh.membership import Membership
from meshproxy.proxy.context import Context, log
from meshproxy.proxy.inbound import Inbound
from meshproxy.proxy.listener import Lifecycle, Listener, ListenError
from meshproxy.proxy.outbound import Outbound
from meshproxy.proxy.tls import Credentials, TlsFailure

# Pod labels of the configuration that become labels of every series.
COMMON_LABELS: Final = ("namespace", "deployment", "pod", "serviceaccount", "version")


class MeshCredentials(Credentials):
    """The mesh's mTLS, as of now.  Raises TlsFailure("no_identity") before the first certificate."""

    def __init__(self, trust_domain: str) -> None:
        self.trust_domain = trust_domain
        self.server: ssl.SSLContext | None = None
        self.client: ssl.SSLContext | None = None

    def server_context(self) -> ssl.SSLContext:
        if self.server is None:
            raise TlsFailure("no_identity", "this proxy has no certificate yet")
        return self.server

    def client_context(self) -> ssl.SSLContext:
        if self.client is None:
            raise TlsFailure("no_identity", "this proxy has no certificate yet")
        return self.client

    def verify(self, leaf_der: bytes) -> str:
        try:
            return str(check_leaf(leaf_der, self.trust_domain))
        except PeerRefused as refusal:
            raise TlsFailure(refusal.reason, refusal.detail) from refusal

    def check_alpn(self, protocol: str) -> None:
        if protocol != "meshproxy/1":
            raise TlsFailure("alpn_mismatch", f"expected a mesh peer (ALPN meshproxy/1), it chose {protocol or 'nothing'!r}")


class Sidecar(Status):
    """outbound, inbound   (host, port) to listen on; inbound None: a gateway without an app of its own"""

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
        self.credentials = MeshCredentials(settings.trust_domain)
        own = frozenset(f"{host}:{port}" for host, port in (outbound, inbound, admin))
        self.outbound = Outbound(ctx, self.credentials, settings.namespace, own)
        self.inbound = Inbound(ctx, self.credentials, pod_ip)
        self.lifecycle = Lifecycle(ctx)
        self.lifecycle.sides = [self.outbound, self.inbound]
        self.lifecycle.listeners = [
            Listener(ctx, self.outbound, *outbound),
            Listener(ctx, self.inbound, *inbound),
        ]
        self.service_listeners: dict[str, Listener] = {}
        self.listen_errors: dict[str, str] = {}
        self.version = 0
        self.membership = Membership(settings, control, self.build)
        self.membership.identity.on_change(self.identity_changed)
        self.expiration = ctx.registry.cert_expiration()
        self.gauges = {
            name: ctx.registry.gauge(name, text)
            for name, text in (
                ("identity_cert_refresh_count", "Certificates received."),
                ("identity_cert_refresh_failures", "Attempts to get a certificate that failed."),
                ("meshproxy_control_connected", "1 while the configuration stream is up."),
                ("meshproxy_control_stale_seconds", "How long this proxy has been on its own, 0 when it is not."),
                ("meshproxy_configuration_version", "Updates put in force."),
                ("meshproxy_configuration_rejected", "Resources rejected because this proxy cannot use them."),
            )
        }
        ctx.registry.on_scrape(self.measure)

    # -- what the mesh tells

    def identity_changed(self) -> None:
        identity = self.membership.identity
        contexts = identity.contexts
        if contexts is not None and identity.svid is not None:
            self.credentials.server = contexts.server
            self.credentials.client = contexts.client
            self.expiration.value = identity.svid.not_after

    def build(self, known: Known) -> None:
        """Put a state of knowledge in force.  Everything that can fail is done before anything is swapped."""
        workload = known.workload
        tables = tables_of(self.version + 1, known)
        if workload is None:
            return
        ports = ports_of(workload)
        self.version += 1
        self.ctx.registry.set_common(
            tuple((name, workload.labels[name]) for name in COMMON_LABELS if workload.labels.get(name))
        )
        self.outbound.apply(tables)
        self.inbound.apply(ports, workload.inbound_mode)
        wanted = {listener.address: f"{service_host(listener.service)}:{listener.port}" for listener in workload.listeners}
        self.ctx.spawn(self.listen(wanted), "service listeners")

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
            listener = Listener(self.ctx, self.outbound, host, int(port), destination)
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

    # -- what the proxy says of itself

    def unready(self) -> str:
        ready, why = self.membership.ready(time.time())
        if not ready:
            return why
        return next(iter(self.listen_errors.values()), "")

    def notes(self) -> str:
        _, why = self.membership.ready(time.time())
        return "" if why == "ready" else why

    def measure(self) -> None:
        identity, watch, knowledge = self.membership.identity, self.membership.watch, self.membership.knowledge
        values = {
            "identity_cert_refresh_count": identity.renewals,
            "identity_cert_refresh_failures": identity.failures,
            "meshproxy_control_connected": watch.connected_since is not None,
            "meshproxy_control_stale_seconds": time.time() - watch.stale_since if watch.stale_since is not None else 0.0,
            "meshproxy_configuration_version": self.version,
            "meshproxy_configuration_rejected": knowledge.rejected,
        }
        for name, value in values.items():
            self.gauges[name].value = float(value)

    def config(self) -> dict[str, Any]:
        known = self.membership.knowledge.known
        svid = self.membership.identity.svid
        resources = [
            {"kind": kind, "name": name, "hash": resource.hash, "content": json_format.MessageToDict(resource)}
            for (kind, name), resource in sorted(known.resources.items())
        ]
        return {
            "identity": str(self.membership.identity.spiffe_id),
            "certificate_expires_unix": svid.not_after if svid is not None else None,
            "version": self.version,
            "resources": resources,
            "service_listeners": {a: listener.destination for a, listener in self.service_listeners.items()},
        }

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


def service_host(service: str) -> str:
    """ "shop/prices" -> "prices.shop.svc" """
    namespace, _, name = service.partition("/")
    return f"{name}.{namespace}.svc"

"""A sidecar's data path: both sides and the mesh's mTLS, without whatever keeps them informed.

    Known --apply()--> Outbound.apply, Inbound.apply                 one turn, all or nothing
    SVID, anchors --identity()--> MeshCredentials                    next connection uses it

Who informs it: this process' own Membership (sidecar.py), or a parent process (worker.py).  No grpc here.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Any, Final

from certs.bundle import TrustBundle
from certs.context import mesh_contexts
from certs.svid import Svid
from certs.verify import PeerRefused, check_leaf, read_leaf
from control.api import mesh_pb2
from meshproxy.mesh.convert import access_of, ports_of, tables_of
from meshproxy.mesh.knowledge import Known
from meshproxy.proxy.context import Context
from meshproxy.proxy.inbound import Inbound
from meshproxy.proxy.outbound import Outbound
from meshproxy.proxy.tls import NEVER, Credentials, TlsFailure

# Pod labels of the configuration that become labels of every series.
COMMON_LABELS: Final = ("namespace", "deployment", "pod", "serviceaccount", "version")


class MeshCredentials(Credentials):
    """The mesh's mTLS, as of now.  Raises TlsFailure("no_identity") before the first certificate."""

    def __init__(self, trust_domain: str) -> None:
        self.trust_domain = trust_domain
        self.server: ssl.SSLContext | None = None
        self.client: ssl.SSLContext | None = None
        self.not_after = NEVER  # of our own certificate

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

    def until(self, leaf_der: bytes) -> float:
        return min(self.not_after, read_leaf(leaf_der, self.trust_domain).not_after)  # remembered by `verify`

    def check_alpn(self, protocol: str) -> None:
        if protocol != "meshproxy/1":
            raise TlsFailure("alpn_mismatch", f"expected a mesh peer (ALPN meshproxy/1), it chose {protocol or 'nothing'!r}")


class MeshTraffic:
    """`own`: "host:port" of this proxy's listeners; a request to one of them is a loop."""

    def __init__(self, ctx: Context, trust_domain: str, namespace: str, pod_ip: str, own: Iterable[str]) -> None:
        self.ctx = ctx
        self.credentials = MeshCredentials(trust_domain)
        self.outbound = Outbound(ctx, self.credentials, namespace, frozenset(own))
        self.inbound = Inbound(ctx, self.credentials, pod_ip)
        self.spiffe_id = ""  # ours; "" before the first certificate
        self.version = 0  # updates put in force
        self.access_sent: bytes | None = None  # what the inbound side's Access was made of

    def identity(self, svid: Svid, bundle: TrustBundle) -> None:
        contexts = mesh_contexts(svid, bundle)
        self.credentials.server = contexts.server
        self.credentials.client = contexts.client
        self.credentials.not_after = svid.not_after
        self.spiffe_id = str(svid.spiffe_id)

    def explain(self, inbound: bool, query: str) -> dict[str, Any]:
        """One of the trails of meshproxy/explain/page.py.  Raises ValueError where the query asks about no request."""
        from meshproxy.explain.page import inbound_page, outbound_page  # what most sidecars never need

        if not inbound:
            return outbound_page(self.outbound, self.spiffe_id, query)
        side = self.inbound
        return inbound_page(side.ports, side.mode, side.access, side.limit.gate if side.limit is not None else None, query)

    def apply(self, known: Known) -> None:
        """Put a state of knowledge in force.  Everything that can fail is done before anything is swapped.
        Raises ResourceRejected."""
        workload = known.workload
        tables = tables_of(self.version + 1, known)
        if workload is None:
            return
        ports = ports_of(workload)
        sent = workload.access.SerializeToString(deterministic=True) if workload.HasField("access") else None
        # The same rules again: what they have remembered stays.  Most updates are of other things.
        access = self.inbound.access if sent == self.access_sent else access_of(workload)
        self.version += 1
        self.ctx.registry.set_common(common_labels(workload))
        self.outbound.apply(tables)
        room = workload.concurrency
        self.inbound.apply(ports, workload.inbound_mode, access, room.limit, room.adaptive)
        self.access_sent = sent
        self.let_ask(workload.explain)

    def let_ask(self, allowed: bool) -> None:
        """May the pod's own app ask why a request of its goes where it goes?"""
        if not allowed:
            self.outbound.explainer = None
        elif self.outbound.explainer is None:
            from meshproxy.explain.header import LiveExplainer  # what most sidecars never need

            self.outbound.explainer = LiveExplainer(self.outbound)


def common_labels(workload: mesh_pb2.Workload) -> tuple[tuple[str, str], ...]:
    return tuple((name, workload.labels[name]) for name in COMMON_LABELS if workload.labels.get(name))


def service_listeners(workload: mesh_pb2.Workload) -> dict[str, str]:
    """Where <SERVICE>_SERVICE_HOST points to: "host:port" of this pod -> "name.namespace.svc:port"."""
    return {listener.address: f"{service_host(listener.service)}:{listener.port}" for listener in workload.listeners}


def service_host(service: str) -> str:
    """ "shop/prices" -> "prices.shop.svc" """
    namespace, _, name = service.partition("/")
    return f"{name}.{namespace}.svc"

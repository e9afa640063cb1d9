"""What a sidecar's worker carries: the data path, informed by the parent and not by the control plane.

    parent --Configure(mesh_pb2.Update)--> Knowledge --Known--> MeshTraffic.apply        as the stream does in one process
           --Identity--------------------> MeshTraffic.identity

protobuf is imported here; the channel to the control plane is the parent's alone.
"""

from __future__ import annotations

import logging
from typing import Any

from certs.bundle import TrustBundle
from certs.spiffe import SpiffeId
from certs.svid import Svid
from certs.verify import read_leaf
from control.api import mesh_pb2
from meshproxy.mesh.knowledge import Knowledge
from meshproxy.mesh.traffic import MeshTraffic
from meshproxy.proxy.context import Context
from meshproxy.workers.messages import Configure, Identity
from meshproxy.workers.plan import SidecarPlan
from meshproxy.workers.worker import Traffic

log = logging.getLogger("meshproxy.mesh.worker")


class SidecarTraffic(Traffic):
    def __init__(self, ctx: Context, plan: SidecarPlan) -> None:
        super().__init__()
        self.traffic = MeshTraffic(ctx, plan.trust_domain, plan.namespace, plan.pod_ip, plan.own)
        self.trust_domain = plan.trust_domain
        self.knowledge = Knowledge(self.traffic.apply)
        self.problem = ""
        self.sides["outbound"] = self.traffic.outbound
        self.sides["inbound"] = self.traffic.inbound

    def identity(self, message: Identity) -> None:
        name: SpiffeId = read_leaf(message.leaf_der, self.trust_domain).spiffe_id
        svid = Svid(
            name, message.leaf_der, message.chain_pem, message.key_pem, message.not_before, message.not_after
        )  # fits its key: the parent has checked that
        self.traffic.identity(svid, TrustBundle(self.trust_domain, tuple(message.anchors_der)))

    def configure(self, message: Configure) -> None:
        """The parent has tried it; that it is refused here is a bug, and makes this worker unready until it is cured."""
        rejected = self.knowledge.apply(mesh_pb2.Update.FromString(message.update))
        self.problem = f"configuration rejected: {rejected[0].name.name}: {rejected[0].reason}" if rejected else ""

    def explain(self, inbound: bool, query: str) -> dict[str, Any]:
        return self.traffic.explain(inbound, query)

    def unready(self) -> str:
        if self.traffic.credentials.server is None:
            return "no certificate yet"
        if self.traffic.version == 0:
            return self.problem or "no configuration yet"
        return self.problem

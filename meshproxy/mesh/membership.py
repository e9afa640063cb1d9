"""Membership of the mesh in one object: identity, configuration stream and knowledge, wired together.

ProxyIdentity --SVID--> ConfigurationWatch --Update--> Knowledge --Known--> build (the proxy's tables)
      ^                                                    |
      `------------- anchors, issuer pushed ---------------'
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from control.api import mesh_pb2
from meshproxy.mesh.identity import IdentityClient, IdentitySettings, ProxyIdentity
from meshproxy.mesh.knowledge import Knowledge, Known, ResourceRejected
from meshproxy.mesh.watch import ConfigurationWatch


def identity_of(settings: IdentitySettings, clock: Callable[[], float]) -> ProxyIdentity:
    """Where the settings say that certificates come from."""
    if settings.spire:
        from meshproxy.mesh.spire import SpireIdentity  # most proxies never need it

        return SpireIdentity(settings, clock)
    return IdentityClient(settings, clock)


class Membership:
    """`control` is host:port of Watch.  `build(known)` puts a state of knowledge in force in one assignment and may raise
    ResourceRejected; it is called on the loop.  Raises BundleError or SpiffeError for unusable settings."""

    def __init__(
        self,
        settings: IdentitySettings,
        control: str,
        build: Callable[[Known], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._build = build
        self.identity = identity_of(settings, clock)
        self.knowledge = Knowledge(self._put_in_force)
        self.watch = ConfigurationWatch(
            control, settings.namespace, settings.pod, self.identity, self.knowledge.held, self.knowledge.apply, clock
        )

    async def run(self) -> None:
        """Until cancelled.  Neither half ends by itself; if one ever does by a bug, this raises and ends the other."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.identity.run(), name="identity")
            group.create_task(self.watch.run(), name="configuration")

    def ready(self, now: float) -> tuple[bool, str]:
        """Whether this proxy can serve, and a line that says why or why not (for /ready).  A proxy that lost the control
        plane is ready as long as its certificate lives, and says since when it is on its own."""
        if self.identity.svid is None:
            return False, f"no certificate yet: {self.identity.last_error or 'asking'}"
        if not self.identity.valid(now):
            return False, f"the certificate has expired: {self.identity.last_error or 'asking for another'}"
        if self.knowledge.known.workload is None:
            return False, f"no configuration yet: {self.watch.last_error or 'connecting'}"
        if self.watch.stale_since is not None:
            return True, f"no control plane for {now - self.watch.stale_since:.0f} s; the last configuration stays in force"
        return True, "ready"

    def _put_in_force(self, known: Known) -> None:
        trust = known.trust
        if trust is not None and trust.trust_domain != self.identity.settings.trust_domain:
            reason = f"anchors of {trust.trust_domain!r}; this proxy is of {self.identity.settings.trust_domain!r}"
            raise ResourceRejected((int(mesh_pb2.TRUST), ""), reason)
        self._build(known)
        if trust is not None:
            self.identity.set_bundle(trust)
            self.identity.set_issuer(known.resources[int(mesh_pb2.TRUST), ""].trust.issuer_key_id)

"""This proxy's identity: a key made here, certified by the control plane, renewed while it lives.

    NONE --Certify--> VALID --due (renewal.py)--> asking --+--> VALID (new key, new contexts, listener called)
      ^                                                    |
      |                  failed: back-off, keep asking <---+      (due also soon after the issuer has changed)
      +-- not_after passed: EXPIRED, new handshakes fail; asking goes on

The key never leaves this object except into TLS contexts (in memory) and the worker's channel credentials; a new one is
made for each certificate.  The token is read from its file at each attempt and never kept.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from certs.bundle import BundleError, TrustBundle
from certs.context import MeshContexts, mesh_contexts
from certs.csr import make_csr, new_key
from certs.spiffe import SpiffeId
from certs.svid import Svid, SvidMismatch
from certs.verify import PeerRefused, verify_peer
from control.api import mesh_pb2
from meshproxy.mesh.channel import open_channel
from meshproxy.mesh.renewal import RenewalSchedule
from meshproxy.mesh.rpc import CERTIFY, RpcError

log = logging.getLogger("meshproxy.mesh.identity")

CERTIFY_TIMEOUT: Final = 5.0  # s; issuing takes a millisecond, so more means that nobody is there
LONGEST_SLEEP: Final = 5.0  # s; timers stop while a laptop sleeps and certificates do not, so look at the clock now and then


class CertifyFailed(Exception):
    """No certificate this time; `str()` says why and never holds the token."""


@dataclass(frozen=True, slots=True)
class IdentitySettings:
    """Who this proxy is and whom it asks."""

    target: str  # host:port of Certify
    namespace: str
    service_account: str
    pod: str
    trust_domain: str
    bundle_file: Path  # anchors to begin with, PEM
    token_file: Path
    spire: str = ""  # unix:///... of a SPIFFE Workload API that certificates come from instead of Certify

    @property
    def spiffe_id(self) -> SpiffeId:
        return SpiffeId.workload(self.trust_domain, self.namespace, self.service_account)


class ProxyIdentity:
    """What the rest of the proxy sees: `svid`, `bundle` and `contexts`, kept current by `run()` until it is cancelled.

    Listeners are called on the loop after each change of them.  Raises BundleError if the bundle file is not usable at
    the start, SpiffeError for a bad name.  Subclasses say where certificates come from."""

    def __init__(self, settings: IdentitySettings, clock: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self.spiffe_id = settings.spiffe_id
        self.bundle = TrustBundle.read(settings.trust_domain, settings.bundle_file)
        self.svid: Svid | None = None
        self.contexts: MeshContexts | None = None  # None until the first certificate
        self.renewals = 0  # certificates received
        self.failures = 0  # attempts that failed
        self.last_error = ""
        self.renewed_at = 0.0  # Unix seconds, of the last certificate
        self._clock = clock
        self._listeners: list[Callable[[], None]] = []
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        raise NotImplementedError

    def set_bundle(self, bundle: TrustBundle) -> None:
        """Anchors pushed by the control plane.  Raises BundleError for another trust domain."""
        raise NotImplementedError

    def set_issuer(self, key_id: bytes) -> None:
        """Who issues now, as the control plane says (AuthorityKeyIdentifier of its leaves; b"": not known)."""

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each new certificate or bundle."""
        self._listeners.append(listener)

    def valid(self, now: float) -> bool:
        """There is a certificate and it has not ended."""
        return self.svid is not None and now <= self.svid.not_after

    async def wait_svid(self) -> Svid:
        """The current certificate, once there is one."""
        while self.svid is None:
            self._changed.clear()
            await self._changed.wait()
        return self.svid

    def control_bundle(self) -> TrustBundle:
        """Anchors to check the control plane with: those in force and those of the file.  After a long partition the
        roots may have changed, and then the file is what the operator (or the runtime) has put there since."""
        try:
            file = TrustBundle.read(self.settings.trust_domain, self.settings.bundle_file)
            return TrustBundle.of(file.trust_domain, (*self.bundle.anchors_der, *file.anchors_der))
        except BundleError:
            return self.bundle  # gone or half-written: what is in force will do

    def received(self, svid: Svid, bundle: TrustBundle) -> None:
        """A new certificate, checked."""
        self.svid, self.bundle = svid, bundle
        self.renewals += 1
        self.last_error = ""
        self.renewed_at = self._clock()

    def _apply(self) -> None:
        if self.svid is not None:
            self.contexts = mesh_contexts(self.svid, self.bundle)
        self._changed.set()
        for listener in self._listeners:
            listener()


class IdentityClient(ProxyIdentity):
    """Certificates of the mesh's control plane, for a token."""

    def __init__(
        self,
        settings: IdentitySettings,
        clock: Callable[[], float] = time.time,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        super().__init__(settings, clock)
        self._schedule = RenewalSchedule(uniform)
        self._issuer_key_id = b""  # in force, as far as we were told
        self._hastened = b""  # the one for which we have asked early already
        self._earlier = asyncio.Event()  # the next attempt is due earlier than it was

    def set_bundle(self, bundle: TrustBundle) -> None:
        """In force for new connections from now on."""
        if bundle.trust_domain != self.settings.trust_domain:
            raise BundleError(f"anchors of {bundle.trust_domain!r}; this proxy is of {self.settings.trust_domain!r}")
        if bundle != self.bundle:
            self.bundle = bundle
            self._apply()

    def set_issuer(self, key_id: bytes) -> None:
        """A leaf of somebody else is renewed soon, once."""
        self._issuer_key_id = key_id
        svid = self.svid
        if svid is None or not key_id or key_id in (self._hastened, svid.issuer_key_id):
            return
        self._hastened = key_id
        self._schedule.hasten(self._clock(), svid.not_after)
        self._earlier.set()
        log.info("the mesh has a new issuer: the certificate is renewed in %.1f s", self._schedule.wait(self._clock()))

    async def run(self) -> None:
        """Certify now and renew until cancelled."""
        while True:
            while (wait := self._schedule.wait(self._clock())) > 0:
                self._earlier.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._earlier.wait(), min(wait, LONGEST_SLEEP))
            try:
                svid, bundle = await self.certify()
            except CertifyFailed as failure:
                self.failures += 1
                if self._schedule.failures in (0, 5) or self._schedule.failures % 50 == 0:  # each 7 minutes at the cap
                    log.warning("no certificate for %s: %s; trying again", self.spiffe_id, failure)
                self.last_error = str(failure)
                self._schedule.failed(self._clock())
                continue
            self.received(svid, bundle)
            self._schedule.succeeded(self.renewed_at, svid.not_after)
            self.set_issuer(self._issuer_key_id)
            self._apply()

    async def certify(self) -> tuple[Svid, TrustBundle]:
        """One attempt: a new key, a CSR, the token; what comes back is checked before it is believed.
        Raises CertifyFailed."""
        token = self._read_token()
        key = new_key()
        request = mesh_pb2.CertifyRequest(
            namespace=self.settings.namespace,
            service_account=self.settings.service_account,
            pod=self.settings.pod,
            token=token,
            csr_der=make_csr(key, self.spiffe_id),
        )
        try:
            async with open_channel(self.settings.target, self.control_bundle()) as channel:
                answer = await channel.unary(CERTIFY, request, CERTIFY_TIMEOUT)
        except RpcError as error:
            raise CertifyFailed(f"Certify at {self.settings.target}: {error}") from None
        try:
            bundle = TrustBundle.of(answer.trust.trust_domain, answer.trust.anchors_der, "the answer to Certify")
            found = verify_peer(answer.leaf_der, list(answer.intermediates_der), bundle, self._clock())
            svid = Svid.of(key, answer.leaf_der, list(answer.intermediates_der), self.settings.trust_domain)
        except (BundleError, PeerRefused, SvidMismatch) as error:
            raise CertifyFailed(f"the certificate from {self.settings.target} is not usable: {error}") from None
        if found != self.spiffe_id:
            raise CertifyFailed(f"the certificate from {self.settings.target} names {found}, not {self.spiffe_id}")
        return svid, bundle

    def _read_token(self) -> str:
        try:
            token = self.settings.token_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not text"
            raise CertifyFailed(f"{self.settings.token_file}: the token cannot be read: {reason}") from None
        if not token:
            raise CertifyFailed(f"{self.settings.token_file}: empty; an identity token was expected")
        return token

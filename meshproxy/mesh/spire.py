"""Certificates of a SPIFFE Workload API (SPIRE's agent): `--identity-source spire:unix:///run/spire/sockets/agent.sock`.

    ASKING --stream opens--> HOLDING: every response is a whole new state (key, chain, anchors), taken if it holds our identity
      ^                         |
      `-- back-off 0.1 .. 10 s -'  lost, refused, or not usable: what we have stays in force

The agent makes the key, knows us by our process (no token) and pushes renewals; so there is no schedule here.  Anchors are
the agent's as well, and those that the control plane pushes are not taken: who vouches for peers is one party's to say.
The control plane itself is checked with the agent's anchors and those of the bundle file (control_bundle).
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_der_private_key

from certs.bundle import BundleError, TrustBundle
from certs.svid import Svid, SvidMismatch
from certs.verify import PeerRefused, verify_peer
from control.api import workload_pb2
from meshproxy.mesh.channel import open_local_channel
from meshproxy.mesh.identity import IdentitySettings, ProxyIdentity
from meshproxy.mesh.rpc import Method, RpcError, StatusCode

log = logging.getLogger("meshproxy.mesh.spire")

BACKOFF_FIRST: Final = 0.1  # s
BACKOFF_MAX: Final = 10.0  # s
METADATA: Final = (("workload.spiffe.io", "true"),)  # the specification's guard against forged requests (section 3)
MAX_RESPONSE_BYTES: Final = 1 << 20  # a workload has a handful of SVIDs of some kB
FETCH_X509_SVID: Final = Method(
    "/SpiffeWorkloadAPI/FetchX509SVID", workload_pb2.X509SVIDRequest, workload_pb2.X509SVIDResponse, MAX_RESPONSE_BYTES
)


class NotUsable(Exception):
    """The agent's answer cannot be taken; `str()` says why and never holds a key."""


class SpireIdentity(ProxyIdentity):
    """`settings.spire` is the socket, "unix:///path"."""

    def __init__(
        self,
        settings: IdentitySettings,
        clock: Callable[[], float] = time.time,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        super().__init__(settings, clock)
        self._uniform = uniform

    def set_bundle(self, bundle: TrustBundle) -> None:
        """Not taken: the agent says whom to trust."""
        if bundle.trust_domain != self.settings.trust_domain:
            raise BundleError(f"anchors of {bundle.trust_domain!r}; this proxy is of {self.settings.trust_domain!r}")

    async def run(self) -> None:
        in_a_row = 0
        while True:
            renewals = self.renewals
            self.last_error = await self._stream()
            self.failures += 1
            in_a_row = 1 if self.renewals > renewals else in_a_row + 1
            if in_a_row in (1, 5) or in_a_row % 50 == 0:
                log.warning("workload API at %s: %s; trying again", self.settings.spire, self.last_error)
            delay = min(BACKOFF_MAX, BACKOFF_FIRST * 2 ** min(in_a_row - 1, 10))
            await asyncio.sleep(self._uniform(delay / 2, delay))

    async def _stream(self) -> str:
        """One stream, to its end; returns why it ended."""
        try:
            async with open_local_channel(self.settings.spire) as channel:
                call = await channel.start(FETCH_X509_SVID, metadata=METADATA)
                await call.write(workload_pb2.X509SVIDRequest(), last=True)
                while (response := await call.read()) is not None:
                    self._take(response)
                return "the agent closed the stream"
        except RpcError as error:
            if error.code == StatusCode.PERMISSION_DENIED:
                return f"the agent knows no identity for this process ({error.details}); register {self.spiffe_id}"
            return str(error)
        except NotUsable as problem:
            return str(problem)

    def _take(self, response: workload_pb2.X509SVIDResponse) -> None:
        found = next((entry for entry in response.svids if entry.spiffe_id == str(self.spiffe_id)), None)
        if found is None:
            names = ", ".join(entry.spiffe_id for entry in response.svids[:5]) or "nothing"
            raise NotUsable(f"the agent offers {names}; {self.spiffe_id} was expected")
        try:
            bundle = TrustBundle.of(self.settings.trust_domain, split_der(found.bundle), "the agent's bundle")
            leaf, *between = split_der(found.x509_svid)
            key = load_der_private_key(found.x509_svid_key, None)
            if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
                raise NotUsable("the agent's key is neither ECDSA nor RSA")
            seen = verify_peer(leaf, between, bundle, self._clock())
            svid = Svid.of(key, leaf, between, self.settings.trust_domain)
        except (BundleError, PeerRefused, SvidMismatch) as error:
            raise NotUsable(f"the agent's certificate is not usable: {error}") from None
        except (ValueError, TypeError, UnsupportedAlgorithm):  # the text of these may quote the input: not repeated
            raise NotUsable("the agent's certificate or key is not DER") from None
        if seen != self.spiffe_id:
            raise NotUsable(f"the agent's certificate names {seen}, not {self.spiffe_id}")
        self.received(svid, bundle)
        self._apply()


def split_der(data: bytes) -> list[bytes]:
    """DER values written one after the other.  Raises ValueError."""
    found, at = [], 0
    while at < len(data):
        if len(data) < at + 2 or data[at] != 0x30:  # SEQUENCE, as every certificate is
            raise ValueError("not a DER sequence")
        length, head = data[at + 1], 2
        if length & 0x80:
            digits = length & 0x7F
            if not 0 < digits <= 4:
                raise ValueError("a DER length of more than 4 octets")
            length, head = int.from_bytes(data[at + 2 : at + 2 + digits], "big"), 2 + digits
        end = at + head + length
        if end > len(data):
            raise ValueError("cut off")
        found.append(data[at:end])
        at = end
    if not found:
        raise ValueError("empty")
    return found

"""Identity.Certify: a token and a CSR in, a short-lived certificate out.

A straight line of checks, each with its own status; the token is used up by the last of them, so a mistake in the request
does not cost it:

    names well formed       INVALID_ARGUMENT     bad_request
    token known, unused     UNAUTHENTICATED      unknown, used, expired, wrong_audience, damaged
    token is for this pod   FAILED_PRECONDITION  other_identity
    pod exists, as that     FAILED_PRECONDITION  unknown_pod
    CSR: key, proof         INVALID_ARGUMENT     malformed, bad_signature, bad_key
    CSR: names              FAILED_PRECONDITION  bad_names
    rate of this pod        RESOURCE_EXHAUSTED   rate
    burn the token          UNAUTHENTICATED      used
    issue, look again       UNAVAILABLE          issuer
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

import grpc

from certs.authority import Authority
from certs.csr import MAX_CSR_BYTES, CsrRefused, check_csr
from certs.issue import Issued, IssueError, issue_for_csr
from certs.spiffe import SpiffeError, SpiffeId
from control.api import mesh_pb2, mesh_pb2_grpc
from control.serve.metrics import ServeMetrics
from control.serve.source import ConfigSource, identity_of
from control.serve.tokens import MAX_TOKEN_CHARACTERS, TokenRefused, burn, peek

log = logging.getLogger("meshproxy.control.identity")

MAX_NAME_CHARACTERS: Final = 253  # a Kubernetes name


class Refused(Exception):
    """The request ends with this status; `reason` is a metric label, `str()` goes to the proxy."""

    def __init__(self, code: grpc.StatusCode, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.code = code
        self.reason = reason


class PodRate:
    """A token bucket for each pod: `burst` certificates at once, then one each `interval` seconds.

    A proxy asks once in a lifetime; one in a crash loop asks at each start.  At most `MAX_PODS` buckets: full ones are
    forgotten first, because a forgotten bucket is a full one."""

    MAX_PODS: Final = 4096

    def __init__(self, burst: int = 10, interval: float = 2.0) -> None:
        self._burst, self._interval = burst, interval
        self._buckets: dict[tuple[str, str], tuple[float, float]] = {}  # pod -> (tokens, as of)

    def allow(self, namespace: str, pod: str, now: float) -> bool:
        """Take one; False if there is none."""
        level = self._level((namespace, pod), now)
        if level < 1:
            return False
        if len(self._buckets) >= self.MAX_PODS:
            self._buckets = {key: b for key, b in self._buckets.items() if self._level(key, now) < self._burst}
            if len(self._buckets) >= self.MAX_PODS:
                return False
        self._buckets[namespace, pod] = (level - 1, now)
        return True

    def _level(self, key: tuple[str, str], now: float) -> float:
        tokens, at = self._buckets.get(key, (float(self._burst), now))
        return min(float(self._burst), tokens + max(0.0, now - at) / self._interval)


class Identity(mesh_pb2_grpc.IdentityServicer):
    """`authority` is asked at each request, `clock` gives Unix seconds, `lifetime` is of the leaves in seconds."""

    def __init__(
        self,
        authority: Callable[[], Authority],
        source: ConfigSource,
        tokens_dir: Path,
        clock: Callable[[], float],
        lifetime: float,
        metrics: ServeMetrics,
    ) -> None:
        self._authority = authority
        self._source = source
        self._tokens_dir = tokens_dir
        self._clock = clock
        self._lifetime = lifetime
        self._metrics = metrics
        self._rate = PodRate()

    async def Certify(
        self, request: mesh_pb2.CertifyRequest, context: grpc.aio.ServicerContext
    ) -> mesh_pb2.CertifyResponse | None:
        """The RPC.  Neither the token nor the CSR is ever logged."""
        try:
            with self._metrics.certify_duration.time():
                issued = self._certify(request, self._clock())
        except Refused as refused:
            self._metrics.certify_refused.labels(refused.reason).inc()
            whose = f"{request.namespace[:MAX_NAME_CHARACTERS]!r}/{request.pod[:MAX_NAME_CHARACTERS]!r}"
            log.warning("no certificate for %s at %s: %s", whose, context.peer(), refused)
            await context.abort(refused.code, str(refused))
            return None  # not reached: abort raises
        self._metrics.certificates.inc()
        authority = self._authority()
        bundle = authority.bundle
        return mesh_pb2.CertifyResponse(
            leaf_der=issued.leaf_der,
            intermediates_der=issued.intermediates_der,
            not_after_unix=int(issued.not_after),
            trust=mesh_pb2.TrustBundle(
                trust_domain=bundle.trust_domain, anchors_der=bundle.anchors_der, issuer_key_id=authority.key_id
            ),
        )

    def _certify(self, request: mesh_pb2.CertifyRequest, now: float) -> Issued:
        authority = self._authority()
        identity = self._requested(request, authority.trust_domain)
        self._prove(request, now)
        self._check_pod(request, identity)
        try:
            check_csr(request.csr_der, identity)
        except CsrRefused as refused:
            foreign = refused.reason == "bad_names"
            code = grpc.StatusCode.FAILED_PRECONDITION if foreign else grpc.StatusCode.INVALID_ARGUMENT
            raise Refused(code, refused.reason, refused.detail) from None
        if not self._rate.allow(request.namespace, request.pod, now):
            raise Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "rate", "this pod asks too often; try again in a few seconds")
        try:
            burn(self._tokens_dir, request.token)
        except TokenRefused as refused:
            raise Refused(grpc.StatusCode.UNAUTHENTICATED, refused.reason, refused.detail) from None
        try:
            return issue_for_csr(authority, request.csr_der, identity, now, self._lifetime)
        except IssueError as error:
            log.error("the issuer cannot issue: %s", error)
            raise Refused(grpc.StatusCode.UNAVAILABLE, "issuer", str(error)) from None

    def _requested(self, request: mesh_pb2.CertifyRequest, trust_domain: str) -> SpiffeId:
        code = grpc.StatusCode.INVALID_ARGUMENT
        for field in ("namespace", "service_account", "pod"):
            if not 0 < len(getattr(request, field)) <= MAX_NAME_CHARACTERS:
                raise Refused(code, "bad_request", f"{field}: 1 to {MAX_NAME_CHARACTERS} characters were expected")
        if not 0 < len(request.token) <= MAX_TOKEN_CHARACTERS:
            raise Refused(code, "bad_request", f"token: 1 to {MAX_TOKEN_CHARACTERS} characters were expected")
        if not 0 < len(request.csr_der) <= MAX_CSR_BYTES:
            raise Refused(code, "bad_request", f"csr_der: 1 to {MAX_CSR_BYTES} bytes were expected")
        try:
            return SpiffeId.workload(trust_domain, request.namespace, request.service_account)
        except SpiffeError as error:
            raise Refused(code, "bad_request", str(error)) from None

    def _prove(self, request: mesh_pb2.CertifyRequest, now: float) -> None:
        try:
            claims = peek(self._tokens_dir, request.token, now)
        except TokenRefused as refused:
            raise Refused(grpc.StatusCode.UNAUTHENTICATED, refused.reason, refused.detail) from None
        proven = (claims.namespace, claims.service_account, claims.pod)
        if proven != (request.namespace, request.service_account, request.pod):
            detail = "the token is for another namespace, service account or pod than the request"
            raise Refused(grpc.StatusCode.FAILED_PRECONDITION, "other_identity", detail)

    def _check_pod(self, request: mesh_pb2.CertifyRequest, identity: SpiffeId) -> None:
        wanted = self._source.resources_for(request.namespace, request.pod)
        if identity_of(wanted, request.namespace, request.pod) != str(identity):
            detail = f"no pod {request.namespace}/{request.pod} with a sidecar and this service account is known (yet)"
            raise Refused(grpc.StatusCode.FAILED_PRECONDITION, "unknown_pod", detail)

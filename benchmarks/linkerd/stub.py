"""Linkerd's destination, policy and identity services with fixed answers: what one measurement needs and nothing else.

    linkerd2-proxy --Certify-------------> Identity      a leaf for its CSR, from our own `certs`
                   --WatchPort-----------> inbound       any port: HTTP detected, callers named in the table may come in
                   --Watch, GetProfile---> outbound      one Service: routes, balancer (peak EWMA), timeout, retries
                   --Get-----------------> Destination   its endpoints, with identity and HTTP/2 between the proxies

`python -m benchmarks.linkerd.stub TABLE.json HOST:PORT`, on loopback and in plaintext: there the proxy asks for no TLS of its
control plane.  What it answers is what Linkerd's own control plane answers for a Service with an
HTTPRoute that has a timeout and retries.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from benchmarks.linkerd.api import (
    destination_pb2,
    destination_pb2_grpc,
    http_route_pb2,
    identity_pb2,
    identity_pb2_grpc,
    inbound_pb2,
    inbound_pb2_grpc,
    meta_pb2,
    net_pb2,
    outbound_pb2,
    outbound_pb2_grpc,
)
from certs.authority import load_authority
from certs.issue import issue_leaf
from certs.spiffe import SpiffeId

SERVICE = meta_pb2.Metadata(resource=meta_pb2.Resource(group="core", kind="Service", name="bench", namespace="bench", port=80))
ROUTE = meta_pb2.Metadata(
    resource=meta_pb2.Resource(group="gateway.networking.k8s.io", kind="HTTPRoute", name="bench", namespace="bench")
)


@dataclass(frozen=True)
class Table:
    """authority       directory of the issuer (certs.authority)
    trust_domain    its trust domain
    service         the one Service: "10.0.0.1:80", as a caller addresses it
    name            its name, "bench.bench.svc.cluster.local:80"
    endpoints       "ip:port" of each endpoint
    server          identity of the endpoints' proxy; "" = they have none, plaintext
    identities      DNS-like identity -> SPIFFE ID of each proxy that may ask for a certificate
    clients         identities the inbound lets in (as the certificate's first name says: the SPIFFE ID)
    admin           ports of the proxies' own admin servers: anyone may read metrics there
    h2              between the proxies HTTP/2, whatever the app spoke (Linkerd's own upgrade)
    timeout_s       of a request
    """

    authority: str
    trust_domain: str
    service: str
    name: str
    endpoints: list[str]
    server: str
    identities: dict[str, str]
    clients: list[str]
    admin: list[int]
    h2: bool = True
    timeout_s: int = 15

    def write(self, path: Path) -> Path:
        path.write_text(json.dumps(asdict(self)))
        return path


def seconds(value: float) -> Duration:
    return Duration(seconds=int(value), nanos=int(value % 1 * 1e9))


def tcp_address(address: str) -> net_pb2.TcpAddress:
    host, _, port = address.rpartition(":")
    return net_pb2.TcpAddress(ip=net_pb2.IPAddress(ipv4=int(ipaddress.IPv4Address(host))), port=int(port))


async def held_open() -> None:
    """The proxies hold their watches open; an ended one would be asked for again."""
    await asyncio.Event().wait()


class Identity(identity_pb2_grpc.IdentityServicer):
    def __init__(self, table: Table) -> None:
        self.table = table
        self.authority = load_authority(Path(table.authority), table.trust_domain, time.time())

    async def Certify(self, request: Any, context: Any) -> Any:
        spiffe_id = self.table.identities.get(request.identity)
        if spiffe_id is None:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"unknown identity {request.identity}")
        csr = x509.load_der_x509_csr(request.certificate_signing_request)
        key = csr.public_key()
        if not csr.is_signature_valid or not isinstance(key, ec.EllipticCurvePublicKey):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not a CSR signed by its own P-256 key")
        assert spiffe_id is not None  # abort() does not return
        assert isinstance(key, ec.EllipticCurvePublicKey)
        issued = issue_leaf(self.authority, key, SpiffeId.parse(spiffe_id), time.time(), dns_name=request.identity)
        return identity_pb2.CertifyResponse(
            leaf_certificate=issued.leaf_der,
            intermediate_certificates=issued.intermediates_der,
            valid_until=Timestamp(seconds=int(issued.not_after)),
        )


class Destination(destination_pb2_grpc.DestinationServicer):
    def __init__(self, table: Table) -> None:
        self.table = table

    async def Get(self, request: Any, context: Any) -> AsyncIterator[Any]:
        yield endpoints(self.table, request.path)
        await held_open()

    async def GetProfile(self, request: Any, context: Any) -> AsyncIterator[Any]:
        yield profile(self.table, request.path)
        await held_open()


def endpoints(table: Table, path: str) -> destination_pb2.Update:
    if path != table.name:
        return destination_pb2.Update(no_endpoints=destination_pb2.NoEndpoints(exists=False))
    labels = {"namespace": "bench", "deployment": "bench"}
    return destination_pb2.Update(
        add=destination_pb2.WeightedAddrSet(
            addrs=[endpoint(table, address) for address in table.endpoints], metric_labels=labels
        )
    )


def endpoint(table: Table, address: str) -> destination_pb2.WeightedAddr:
    weighted = destination_pb2.WeightedAddr(
        addr=tcp_address(address), weight=10_000, metric_labels={"pod": f"bench-{address.rpartition(':')[2]}"}
    )
    if table.server:
        name = destination_pb2.TlsIdentity.DnsLikeIdentity(name=table.server)
        weighted.tls_identity.CopyFrom(destination_pb2.TlsIdentity(dns_like_identity=name, server_name=name))
    if table.h2:
        weighted.protocol_hint.CopyFrom(destination_pb2.ProtocolHint(h2=destination_pb2.ProtocolHint.H2()))
    return weighted


def profile(table: Table, path: str) -> destination_pb2.DestinationProfile:
    if path not in (table.service, table.name):
        return destination_pb2.DestinationProfile()
    return destination_pb2.DestinationProfile(
        fully_qualified_name=table.name.rpartition(":")[0],
        retry_budget=destination_pb2.RetryBudget(retry_ratio=0.2, min_retries_per_second=10, ttl=seconds(10)),
        parent_ref=SERVICE,
    )


class Outbound(outbound_pb2_grpc.OutboundPoliciesServicer):
    def __init__(self, table: Table) -> None:
        self.table = table

    async def Get(self, request: Any, context: Any) -> Any:
        return await self.policy(request, context)

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        yield await self.policy(request, context)
        await held_open()

    async def policy(self, request: Any, context: Any) -> outbound_pb2.OutboundPolicy:
        if request.addr != tcp_address(self.table.service) and request.authority != self.table.name:
            await context.abort(grpc.StatusCode.NOT_FOUND, "only one Service is known here")
        return outbound_policy(self.table)


def outbound_policy(table: Table) -> outbound_pb2.OutboundPolicy:
    """As Linkerd's policy controller writes it (linkerd2, policy-controller/grpc/src/outbound)."""
    backend = outbound_pb2.Backend(
        metadata=SERVICE,
        queue=outbound_pb2.Queue(capacity=100, failfast_timeout=seconds(3)),
        balancer=outbound_pb2.Backend.BalanceP2c(
            discovery=outbound_pb2.Backend.EndpointDiscovery(
                dst=outbound_pb2.Backend.EndpointDiscovery.DestinationGet(path=table.name)
            ),
            peak_ewma=outbound_pb2.Backend.BalanceP2c.PeakEwma(default_rtt=seconds(0.03), decay=seconds(10)),
        ),
    )
    http = outbound_pb2.HttpRoute
    rule = http.Rule(
        matches=[http_route_pb2.HttpRouteMatch(path=http_route_pb2.PathMatch(prefix="/"))],
        backends=http.Distribution(
            first_available=http.Distribution.FirstAvailable(backends=[http.RouteBackend(backend=backend)])
        ),
        timeouts=http_route_pb2.Timeouts(request=seconds(table.timeout_s)),
        retry=http.Retry(
            max_retries=1,
            max_request_bytes=64 * 1024,
            conditions=http.Retry.Conditions(status_ranges=[http.Retry.Conditions.StatusRange(start=502, end=504)]),
            backoff=outbound_pb2.ExponentialBackoff(min_backoff=seconds(0.025), max_backoff=seconds(0.25), jitter_ratio=1.0),
        ),
    )
    route = http(metadata=ROUTE, rules=[rule])
    opaque = outbound_pb2.OpaqueRoute
    to_backend = opaque.Distribution(
        first_available=opaque.Distribution.FirstAvailable(backends=[opaque.RouteBackend(backend=backend)])
    )
    # The breaker that the annotation `balancer.linkerd.io/failure-accrual: consecutive` switches on, with its defaults.
    breaker = outbound_pb2.FailureAccrual(
        consecutive_failures=outbound_pb2.FailureAccrual.ConsecutiveFailures(
            max_failures=7,
            backoff=outbound_pb2.ExponentialBackoff(min_backoff=seconds(1), max_backoff=seconds(60), jitter_ratio=0.5),
        )
    )
    kinds = outbound_pb2.ProxyProtocol
    return outbound_pb2.OutboundPolicy(
        metadata=SERVICE,
        protocol=kinds(
            detect=kinds.Detect(
                timeout=seconds(10),
                http1=kinds.Http1(routes=[route], failure_accrual=breaker),
                http2=kinds.Http2(routes=[route], failure_accrual=breaker),
                opaque=kinds.Opaque(routes=[opaque(metadata=SERVICE, rules=[opaque.Rule(backends=to_backend)])]),
            )
        ),
    )


class Inbound(inbound_pb2_grpc.InboundServerPoliciesServicer):
    def __init__(self, table: Table) -> None:
        self.table = table

    async def GetPort(self, request: Any, context: Any) -> Any:
        return inbound_policy(self.table, request.port)

    async def WatchPort(self, request: Any, context: Any) -> AsyncIterator[Any]:
        yield inbound_policy(self.table, request.port)
        await held_open()


def inbound_policy(table: Table, port: int) -> inbound_pb2.Server:
    everywhere = net_pb2.IPNetwork(ip=net_pb2.IPAddress(ipv4=0), prefix_len=0)
    tls = inbound_pb2.Authn.PermitMeshTLS
    identities = tls.PermitClientIdentities(identities=[inbound_pb2.Identity(name=name) for name in table.clients])
    if port in table.admin:
        permit = inbound_pb2.Authn(unauthenticated=inbound_pb2.Authn.PermitUnauthenticated())
    else:
        permit = inbound_pb2.Authn(meshTLS=tls(identities=identities))
    authorization = inbound_pb2.Authz(
        networks=[inbound_pb2.Network(net=everywhere)],
        authentication=permit,
        metadata=meta_pb2.Metadata(
            resource=meta_pb2.Resource(group="policy.linkerd.io", kind="AuthorizationPolicy", name="bench", namespace="bench")
        ),
    )
    route = inbound_pb2.HttpRoute(
        metadata=meta_pb2.Metadata(default="default"),
        authorizations=[authorization],
        rules=[inbound_pb2.HttpRoute.Rule(matches=[http_route_pb2.HttpRouteMatch(path=http_route_pb2.PathMatch(prefix="/"))])],
    )
    detect = inbound_pb2.ProxyProtocol.Detect(timeout=seconds(10), http_routes=[route])
    return inbound_pb2.Server(
        protocol=inbound_pb2.ProxyProtocol(detect=detect),
        authorizations=[authorization],
        labels={"group": "policy.linkerd.io", "kind": "server", "name": "bench"},
    )


async def serve(table: Table, address: str) -> None:
    server = grpc.aio.server()
    identity_pb2_grpc.add_IdentityServicer_to_server(Identity(table), server)
    destination_pb2_grpc.add_DestinationServicer_to_server(Destination(table), server)
    outbound_pb2_grpc.add_OutboundPoliciesServicer_to_server(Outbound(table), server)
    inbound_pb2_grpc.add_InboundServerPoliciesServicer_to_server(Inbound(table), server)
    server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(Table(**json.loads(Path(sys.argv[1]).read_text())), sys.argv[2]))

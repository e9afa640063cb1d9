"""The control plane's two gRPC ports.

    port      Configuration.Watch   TLS 1.3, client certificate required      proxies that have an SVID
    port + 1  Identity.Certify      TLS 1.3, server certificate only          proxies that want one

Two, because grpcio can demand a client certificate or not ask, and nothing between (`ssl_server_credentials`).
The server's own certificate is issued here, lives an hour and is replaced at half of it: grpc asks `_Credentials` at each
handshake, so a change of anchors counts from the next connection on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
from prometheus_client import CollectorRegistry

from certs.authority import Authority
from certs.issue import LIFETIME, IssueError, issue_svid
from certs.rotation import Peer
from certs.spiffe import SpiffeId
from certs.svid import Svid
from control.api import mesh_pb2_grpc
from control.api.names import CERTIFY_PORT_OFFSET, CONTROL_DNS_NAME, MAX_MESSAGE_BYTES
from control.serve.identity import Identity
from control.serve.issuer import CurrentAuthority
from control.serve.metrics import AuthorityCollector, ServeMetrics
from control.serve.source import ConfigSource
from control.serve.stream import Configuration

log = logging.getLogger("meshproxy.control.server")

SERVER_LIFETIME: Final = 3600.0  # s, of the server's own leaf
SYSTEM_NAMESPACE: Final = "meshproxy"
MAX_STREAMS: Final = 10_000  # concurrent RPCs a port; above it grpc answers RESOURCE_EXHAUSTED
_OPTIONS: Final[list[tuple[str, int]]] = [
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),  # two control planes on one port would share the proxies between them, silently
    ("grpc.max_concurrent_streams", 16),  # of one connection: a proxy needs one
    # Proxies ping a silent stream every 20 s, to learn that the machine on the other side is gone.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),  # of those received, whatever its name in C says
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
]


class ControlServerError(Exception):
    """The server cannot start; `str()` says why and what to do."""


@dataclass(frozen=True, slots=True)
class Ports:
    watch: int
    certify: int


class ControlServer:
    """Serves `source` and issues from `authority`.  `clock` gives Unix seconds; `lifetime` is of proxies' leaves, seconds."""

    def __init__(
        self,
        authority: CurrentAuthority,
        source: ConfigSource,
        tokens_dir: Path,
        lifetime: float = LIFETIME,
        clock: Callable[[], float] = time.time,
        registry: CollectorRegistry | None = None,
    ) -> None:
        self.metrics = ServeMetrics(registry if registry is not None else CollectorRegistry())
        self.metrics.registry.register(AuthorityCollector(authority, clock))
        self._credentials = _Credentials(authority, clock)
        self._configuration = Configuration(source, authority.bundle, clock, self.metrics)
        self._identity = Identity(authority, source, tokens_dir, clock, lifetime, self.metrics)
        self._servers: list[grpc.aio.Server] = []

    async def start(self, host: str, port: int) -> Ports:
        """Listen on `port` and the one after; 0 takes two free ones, not always neighbours.  Raises ControlServerError."""
        return await self.start_on(host, port, port + CERTIFY_PORT_OFFSET if port else 0)

    async def start_on(self, host: str, watch_port: int, certify_port: int) -> Ports:
        """As `start`, with both ports given."""
        watch, certify = _server(), _server()
        mesh_pb2_grpc.add_ConfigurationServicer_to_server(self._configuration, watch)  # type: ignore[no-untyped-call]
        mesh_pb2_grpc.add_IdentityServicer_to_server(self._identity, certify)  # type: ignore[no-untyped-call]
        bound = Ports(
            _bind(watch, host, watch_port, self._credentials.of(client_certificate=True)),
            _bind(certify, host, certify_port, self._credentials.of(client_certificate=False)),
        )
        for server in (watch, certify):
            await server.start()
            self._servers.append(server)
        return bound

    def peers(self) -> list[Peer]:
        """The proxies that are connected: for a rotation of the authority."""
        return self._configuration.peers()

    async def stop(self, grace: float = 0.0) -> None:
        """End all streams after `grace` seconds; proxies keep what they have and come back."""
        for server in self._servers:
            await server.stop(grace)
        self._servers.clear()


def _server() -> grpc.aio.Server:
    return grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=MAX_STREAMS)


def _bind(server: grpc.aio.Server, host: str, port: int, credentials: grpc.ServerCredentials) -> int:
    try:
        bound = int(server.add_secure_port(f"{host}:{port}", credentials))
    except RuntimeError as error:
        raise ControlServerError(f"cannot listen on {host}:{port}: {error}; is another control plane running there?") from None
    if bound == 0:
        raise ControlServerError(f"cannot listen on {host}:{port}: it is in use, or no address of this machine")
    return bound


class _Credentials:
    """The server's certificate.  grpc calls the fetchers on threads of its own, hence the lock."""

    def __init__(self, authority: CurrentAuthority, clock: Callable[[], float]) -> None:
        self._authority, self._clock = authority, clock
        self._lock = threading.Lock()
        self._for: Authority | None = None  # the authority that issued what is in force
        self._svid: Svid | None = None
        self._current: grpc.ServerCertificateConfiguration | None = None

    def of(self, client_certificate: bool) -> grpc.ServerCredentials:
        """Credentials for one server.  Raises IssueError if the issuer cannot issue now."""
        with self._lock:
            given = self._refreshed()

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            nonlocal given
            try:
                with self._lock:
                    fresh = self._refreshed()
            except IssueError as error:
                log.error("the control plane's own certificate cannot be renewed, the old one stays: %s", error)
                return None
            if fresh is given:
                return None  # grpc: no change
            given = fresh
            return fresh

        return grpc.dynamic_ssl_server_credentials(given, fetch, require_client_authentication=client_certificate)

    def _refreshed(self) -> grpc.ServerCertificateConfiguration:
        now, authority = self._clock(), self._authority()
        if self._svid is None or self._for is not authority or now > (self._svid.not_before + self._svid.not_after) / 2:
            name = SpiffeId.workload(authority.trust_domain, SYSTEM_NAMESPACE, "control")
            self._svid = issue_svid(authority, name, now, SERVER_LIFETIME, CONTROL_DNS_NAME)
            self._for = authority
            self._current = grpc.ssl_server_certificate_configuration(
                [(self._svid.key_pem, self._svid.chain_pem)], root_certificates=authority.bundle.pem.encode()
            )
        return self._current

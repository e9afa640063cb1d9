"""A control plane on real sockets over a table of resources, and a proxy's end of the stream with nothing hidden."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
from prometheus_client import CollectorRegistry

from certs.authority import Authority
from certs.issue import issue_svid
from certs.rotation import Peer
from certs.spiffe import SpiffeId
from certs.svid import Svid
from control.api import mesh_pb2, mesh_pb2_grpc
from control.api.names import CONTROL_DNS_NAME, PROTOCOL
from control.serve.issuer import CurrentAuthority
from control.serve.server import ControlServer
from control.serve.source import ConfigSource, ResourceKey, key_of
from control.serve.tokens import write_token

TD = "cluster.local"
DEADLINE = 15.0  # s, for conditions that are met at once on an idle machine


async def until(condition: Callable[[], Any], what: str = "") -> None:
    """Wait for a condition; fails the test after the deadline."""
    loop = asyncio.get_running_loop()
    end = loop.time() + DEADLINE
    while not condition():
        assert loop.time() < end, f"not within {DEADLINE} s: {what or condition}"
        await asyncio.sleep(0.005)


async def soon(awaitable: Awaitable[Any]) -> Any:
    return await asyncio.wait_for(awaitable, DEADLINE)


def resource(kind: int, name: str, **content: Any) -> mesh_pb2.Resource:
    made = mesh_pb2.Resource(name=mesh_pb2.ResourceName(kind=mesh_pb2.Kind.Name(kind), name=name), **content)
    made.hash = hashlib.sha256(made.SerializeToString(deterministic=True)).hexdigest()[:16]
    return made


def service(name: str, port: int = 80) -> mesh_pb2.Resource:
    namespace, _, short = name.partition("/")
    ports = [mesh_pb2.ServicePort(port=port)]
    return resource(mesh_pb2.SERVICE, name, service=mesh_pb2.Service(namespace=namespace, name=short, ports=ports))


def workload(namespace: str, pod: str, account: str) -> mesh_pb2.Resource:
    content = mesh_pb2.Workload(
        namespace=namespace,
        pod=pod,
        service_account=account,
        identity=str(SpiffeId.workload(TD, namespace, account)),
        pod_ip="127.83.4.10",
        ports=[mesh_pb2.Port(port=8080)],
    )
    return resource(mesh_pb2.WORKLOAD, f"{namespace}/{pod}", workload=content)


class TableSource(ConfigSource):
    """What every proxy wants, in a dict, and the workloads that each gets one of."""

    def __init__(self) -> None:
        self.shared: dict[ResourceKey, mesh_pb2.Resource] = {}
        self.pods: dict[str, mesh_pb2.Resource] = {}
        self._callbacks: list[Callable[[], None]] = []

    def resources_for(self, namespace: str, pod: str) -> Mapping[ResourceKey, mesh_pb2.Resource]:
        own = self.pods.get(f"{namespace}/{pod}")
        return self.shared | ({key_of(own.name): own} if own is not None else {})

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    @property
    def subscribers(self) -> int:
        return len(self._callbacks)

    def put(self, *resources: mesh_pb2.Resource) -> None:
        for made in resources:
            if made.name.kind == mesh_pb2.WORKLOAD:
                self.pods[made.name.name] = made
            else:
                self.shared[key_of(made.name)] = made
        self._tell()

    def remove(self, kind: int, name: str) -> None:
        (self.pods if kind == mesh_pb2.WORKLOAD else self.shared).pop(name if kind == mesh_pb2.WORKLOAD else (kind, name))
        self._tell()

    def _tell(self) -> None:
        for callback in list(self._callbacks):
            callback()


class Plane:
    """Starts and stops a control plane on the same ports, with the same state."""

    def __init__(self, directory: Path, lifetime: float = 600, clock: Callable[[], float] = time.time) -> None:
        self.directory = directory
        self.source = TableSource()
        self.lifetime = lifetime
        self.clock = clock
        self.authority = CurrentAuthority(directory / "trust", TD, time.time())
        self.tokens = directory / "tokens"
        self.registry = CollectorRegistry()
        self.watch = self.certify = ""
        self._server: ControlServer | None = None
        self.source.put(workload("shop", "web-1", "web"), workload("shop", "prices-1", "prices"))

    async def start(self) -> None:
        self.registry = CollectorRegistry()
        self._server = ControlServer(
            self.authority, self.source, self.tokens, self.lifetime, lambda: self.clock(), self.registry
        )
        if not self.watch:
            ports = await self._server.start("127.0.0.1", 0)
            self.watch, self.certify = f"127.0.0.1:{ports.watch}", f"127.0.0.1:{ports.certify}"
        else:
            ports = await self._server.start_on(
                "127.0.0.1", int(self.watch.rpartition(":")[2]), int(self.certify.rpartition(":")[2])
            )

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop()
            self._server = None

    def peers(self) -> list[Peer]:
        assert self._server is not None
        return self._server.peers()

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"meshproxy_control_{name}", labels) or 0.0

    @property
    def issuer(self) -> Authority:
        return self.authority()

    def svid(self, namespace: str = "shop", account: str = "web", lifetime: float = 600) -> Svid:
        return issue_svid(self.issuer, SpiffeId.workload(TD, namespace, account), time.time(), lifetime)

    def token_file(self, namespace: str = "shop", account: str = "web", pod: str = "web-1", ttl: float = 600) -> Path:
        """A fresh token in its file, as the runtime would put it there."""
        path = self.directory / "pods" / namespace / pod / "token"
        write_token(self.tokens, path, namespace, account, pod, ttl, time.time())
        return path

    def channel(self, target: str, svid: Svid | None = None, anchors: str = "") -> grpc.aio.Channel:
        credentials = grpc.ssl_channel_credentials(
            (anchors or self.issuer.bundle.pem).encode(), svid.key_pem if svid else None, svid.chain_pem if svid else None
        )
        options = [("grpc.ssl_target_name_override", CONTROL_DNS_NAME), ("grpc.use_local_subchannel_pool", 1)]
        return grpc.aio.secure_channel(target, credentials, options=options)

    @asynccontextmanager
    async def stream(self, svid: Svid | None = None) -> AsyncIterator[RawStream]:
        async with self.channel(self.watch, svid or self.svid()) as channel:
            raw = RawStream(mesh_pb2_grpc.ConfigurationStub(channel).Watch())
            try:
                yield raw
            finally:
                raw.call.cancel()


class RawStream:
    """Says what it is told to say."""

    def __init__(self, call: Any) -> None:
        self.call = call

    async def hello(
        self,
        pod: str = "web-1",
        namespace: str = "shop",
        protocol: int = PROTOCOL,
        held: Mapping[ResourceKey, str] | None = None,
    ) -> None:
        named = [
            mesh_pb2.Held(name=mesh_pb2.ResourceName(kind=mesh_pb2.Kind.Name(kind), name=name), hash=value)
            for (kind, name), value in (held or {}).items()
        ]
        hello = mesh_pb2.Hello(protocol=protocol, namespace=namespace, pod=pod, version="test", held=named)
        with suppress(grpc.aio.AioRpcError):  # refused before it was heard: `ended` says how
            await soon(self.call.write(mesh_pb2.Request(hello=hello)))

    async def update(self) -> mesh_pb2.Update:
        update = await soon(self.call.read())
        assert isinstance(update, mesh_pb2.Update), update
        return update

    async def ack(self, update: mesh_pb2.Update, *rejected: mesh_pb2.Resource) -> None:
        refused = [mesh_pb2.Rejected(name=r.name, reason="the test says no") for r in rejected]
        await soon(self.call.write(mesh_pb2.Request(ack=mesh_pb2.Ack(version=update.version, rejected=refused))))

    async def begin(self, **hello: Any) -> mesh_pb2.Update:
        await self.hello(**hello)
        update = await self.update()
        await self.ack(update)
        return update

    async def ended(self) -> tuple[grpc.StatusCode, str]:
        """The status the stream ends with; updates before it are read away."""

        async def drain() -> tuple[grpc.StatusCode, str]:
            try:
                while await self.call.read() is not grpc.aio.EOF:
                    pass
            except grpc.aio.AioRpcError:
                pass
            return await self.call.code(), await self.call.details()

        result: tuple[grpc.StatusCode, str] = await soon(drain())
        return result


def names(update: mesh_pb2.Update) -> list[str]:
    return sorted(r.name.name for r in update.set)

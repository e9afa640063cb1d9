"""Objects of access policy, short to write, and the whole way from them to a decision: compiled, converted, asked."""

from __future__ import annotations

from typing import Any

from control.api import mesh_pb2
from control.compile.settings import Settings
from control.compile.snapshot import Compiled, compile_snapshot
from meshproxy.mesh.convert import access_of
from meshproxy.policy.access import Access, Decision
from meshproxy.wire.message import Field, Head

Object = dict[str, Any]

SETTINGS = Settings("mesh.test", (b"root",))


def pod(
    account: str = "web", namespace: str = "shop", annotations: dict[str, str] | None = None, name: str = "web-1"
) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "annotations": {"meshproxy.dev/proxy": "true", **(annotations or {})},
        },
        "spec": {"serviceAccountName": account, "containers": [{"name": "a", "ports": [{"containerPort": 8080}]}]},
        "status": {"podIP": "127.9.9.10"},
    }


def namespace(name: str = "shop", **annotations: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "annotations": {f"meshproxy.dev/{key}": value for key, value in annotations.items()}},
    }


def account(name: str, home: str = "") -> Object:
    return {"kind": "ServiceAccount", "name": name, **({"namespace": home} if home else {})}


def http(name: str, *matches: str) -> Object:
    return {"kind": "HTTPRouteGroup", "name": name, **({"matches": list(matches)} if matches else {})}


def tcp(name: str) -> Object:
    return {"kind": "TCPRoute", "name": name}


def target(
    *rules: Object,
    sources: tuple[Object, ...] = (account("reader"),),
    name: str = "t",
    to: Object | None = None,
    home: str = "shop",
) -> Object:
    return {
        "apiVersion": "access.smi-spec.io/v1alpha3",
        "kind": "TrafficTarget",
        "metadata": {"name": name, "namespace": home},
        "spec": {"destination": to or account("web"), "sources": list(sources), "rules": list(rules)},
    }


def group(name: str, *matches: Object, full: bool = False, home: str = "shop") -> Object:
    return {
        "apiVersion": "specs.smi-spec.io/v1alpha4",
        "kind": "HTTPRouteGroup",
        "metadata": {
            "name": name,
            "namespace": home,
            **({"annotations": {"meshproxy.dev/path-match": "full"}} if full else {}),
        },
        "spec": {"matches": [{"name": f"match-{index}", **match} for index, match in enumerate(matches)]},
    }


def ports(name: str, *numbers: int, kind: str = "TCPRoute") -> Object:
    return {
        "apiVersion": "specs.smi-spec.io/v1alpha4",
        "kind": kind,
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"matches": {"ports": list(numbers)}},
    }


def compiled(*objects: Object) -> Compiled:
    return compile_snapshot(objects, SETTINGS)


def workload(*objects: Object, name: str = "shop/web-1") -> mesh_pb2.Workload:
    return compiled(*objects).resources[mesh_pb2.WORKLOAD, name].workload


def access(*objects: Object) -> Access | None:
    """What the pod `web-1`, of the service account `web`, is told."""
    return access_of(workload(pod(), *objects))


def request(
    line: str = "GET /", grpc: bool = False, protocol: bytes = b"", authority: bytes = b"web.shop", **headers: str
) -> Head:
    head = Head()
    method, _, path = line.partition(" ")
    head.method, head.path = method.encode(), path.encode()
    head.authority = authority
    head.grpc = grpc
    head.protocol = protocol
    head.version = 20
    head.fields = [Field(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return head


def spiffe(name: str) -> str:
    """ "reader" or "namespace/reader" -> its identity; "" stays."""
    if not name:
        return ""
    home, _, short = name.rpartition("/")
    return f"spiffe://mesh.test/ns/{home or 'shop'}/sa/{short}"


def decide(*objects: Object, client: str = "reader", port: int = 8080, head: Head | None = None) -> Decision:
    found = access(*objects)
    assert found is not None, "no TrafficTarget selects the pod"
    return found.decide(spiffe(client), port, head or request())


def verdict(*objects: Object, client: str = "reader", port: int = 8080, head: Head | None = None) -> str:
    """ "allowed", or the reason of the denial."""
    decision = decide(*objects, client=client, port=port, head=head)
    return "allowed" if decision.allowed else decision.reason

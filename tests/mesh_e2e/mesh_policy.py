"""A mesh whose apps do what they are told: what is declared about traffic is seen by what reaches them.

client (zone a)     web-one (zone a)   web-two (zone b)   web-three (zone b, weight 4)     the same app three times
gate                takes as many requests at once as it finds out; lets in everyone, also from outside the mesh
desk                takes four requests at once; lets in nobody whom no TrafficTarget names
"""

from __future__ import annotations

import http.client
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from urllib.parse import urlencode

import pytest
from mesh_manifests import NAMESPACE, Object, account, deployment, service
from mesh_run import Answer, MeshRun, Pod, request, until

CLOSED = 8098  # a port of the pods at which nobody listens
ZONE = "topology.kubernetes.io/zone"
WEB = ("one", "two", "three")
IDLE_S = 30.0  # between two questions; a proxy closes a connection that is idle for longer than 60 s at the least


def puppet(mesh: MeshRun, name: str, app: str = "", version: str = "", zone: str = "", **annotations: str) -> Object:
    made = deployment(name, "puppet_app", 8080, mesh.ledger, labels={"app": app or name}, version=version)
    template = made["spec"]["template"]
    template["metadata"]["annotations"] = ours(annotations)
    if zone:
        template["metadata"]["labels"][ZONE] = zone
    container = template["spec"]["containers"][0]
    container["ports"] += [{"name": "grpc", "containerPort": 9090}, {"name": "lines", "containerPort": 7000}]
    container["ports"].append({"name": "closed", "containerPort": CLOSED})
    container["readinessProbe"] = {"httpGet": {"path": "/ready", "port": "main"}, "periodSeconds": 1}
    return made


def ours(annotations: dict[str, str]) -> dict[str, str]:
    return {f"meshproxy.dev/{name.replace('_', '-')}": value for name, value in annotations.items()}


def front(name: str, selects: str = "", app: str = "web", **annotations: str) -> Object:
    """A Service for HTTP (80), gRPC (9090) and lines (7000).  selects: one of WEB, "": all of the app, "none", or "hand":
    endpoints are written by hand."""
    selector: Object = {"app": app, "version": selects} if selects else {"app": app}
    made = service(name, selector={} if selects == "hand" else selector)
    ports = [("main", 80, 8080, "http"), ("grpc", 9090, 9090, "grpc"), ("lines", 7000, 7000, "tcp")]
    made["spec"]["ports"] = [
        {"name": one, "port": port, "targetPort": target, "appProtocol": protocol} for one, port, target, protocol in ports
    ]
    made["metadata"]["annotations"] = ours(annotations)
    return made


def at(service_name: str, pods: Sequence[tuple[Pod, str]], main: int = 8080) -> Object:
    """An EndpointSlice of a Service by hand: pods, each with an address ("": its own), and their port for HTTP."""
    ports = [("main", main), ("grpc", 9090), ("lines", 7000)]
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{service_name}-by-hand-{main}",
            "namespace": NAMESPACE,
            "labels": {"kubernetes.io/service-name": service_name},
        },
        "addressType": "IPv4",
        "endpoints": [
            {
                "addresses": [address or pod.ip],
                "conditions": {"ready": True},
                "targetRef": {"kind": "Pod", "namespace": NAMESPACE, "name": pod.name},
            }
            for pod, address in pods
        ],
        "ports": [{"name": name, "port": port, "protocol": "TCP"} for name, port in ports],
    }


def route(name: str, *rules: Object, annotations: dict[str, str] | None = None) -> Object:
    """An HTTPRoute of the Service of this name."""
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": NAMESPACE, "annotations": annotations or {}},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": name}], "rules": list(rules)},
    }


def to(*weights: tuple[str, int], port: int = 80, **more: Any) -> Object:
    return {"backendRefs": [{"name": name, "port": port, "weight": weight} for name, weight in weights], **more}


class World:
    """The running mesh, its client, and the three pods of web by their names in WEB."""

    def __init__(self, mesh: MeshRun) -> None:
        self.mesh = mesh
        self.client = mesh.pod("client")
        self.web = {name: mesh.pod(f"web-{name}") for name in WEB}
        self.connection = http.client.HTTPConnection(self.client.ip, 4140, timeout=60)
        self.asked_at = 0.0

    # -- what is told, and what is seen

    def resource(self, service_name: str, pod: Pod | None = None) -> Object:
        """What a proxy knows of a Service; {} if nothing."""
        for one in self.mesh.config((pod or self.client).ip)["resources"]:
            if one["name"] == f"{NAMESPACE}/{service_name}" and "service" in one["content"]:
                found: Object = one["content"]["service"]
                return found
        return {}

    def addresses(self, service_name: str) -> set[str]:
        """Of the endpoints of a Service, as the client's proxy knows them."""
        found: set[str] = set()
        for one in self.mesh.config(self.client.ip)["resources"]:
            if one["name"].startswith(f"{NAMESPACE}/{service_name}:") or one["name"] == f"{NAMESPACE}/{service_name}":
                found |= {end["address"] for end in one["content"].get("endpoints", {}).get("endpoints", [])}
        return found

    def declare(self, name: str, *objects: Object, until_told: Callable[[], Any]) -> None:
        """Write these manifests and wait until `until_told` is true of what the client's proxy has."""
        self.mesh.write(name, *objects)
        until(until_told, f"{name} to be in force")

    def page(self) -> Any:
        return self.mesh.metrics(self.client.ip)

    def seen(self, name: str) -> Any:
        """What the app of one of WEB was asked."""
        return request(self.web[name].ip, 8080, "GET", "/seen").json

    def came(self, *ids: str) -> dict[str, int]:
        """How many requests with these ids reached each of WEB (those that some did)."""
        found = {}
        for name in WEB:
            seen = self.seen(name)["ids"]
            if count := sum(len(seen.get(one, [])) for one in ids):
                found[name] = count
        return found

    def mood(self, name: str, **mood: int) -> None:
        request(self.web[name].ip, 8080, "POST", "/mood", json.dumps(mood).encode())

    def at_own_port(self, pod: Pod, path: str) -> None:
        assert request(pod.ip, 8080, "GET", path).status == 200

    def reset(self) -> None:
        for pod in self.web.values():
            self.at_own_port(pod, "/reset")

    # -- asking

    def ask(self, service_name: str, method: str = "GET", body: bytes | None = None, path: str = "/do", **query: Any) -> Answer:
        """One request by the client's sidecar, on a connection that is kept; `headers=` among `query` are its headers."""
        headers = query.pop("headers", {})
        query = {name.replace("_", "-"): value for name, value in query.items()}
        if time.monotonic() - self.asked_at > IDLE_S:
            self.connection.close()  # the proxy may be about to, and a request on its way then is nobody's fault
        self.asked_at = time.monotonic()
        try:
            self.connection.request(method, f"http://{service_name}.e2e{path}?{urlencode(query)}", body, headers)
            response = self.connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        except (OSError, http.client.HTTPException):
            self.connection.close()
            raise

    def who(self, service_name: str, **query: Any) -> str:
        """Which of WEB answered; otherwise the status and reason."""
        answer = self.ask(service_name, **query)
        if answer.status == 200:
            return str(answer.json["pod"]).split("-")[1]
        return f"{answer.status} {answer.headers.get('mesh-error', '')}".strip()

    def share(self, service_name: str, count: int, **query: Any) -> Counter[str]:
        return Counter(self.who(service_name, **query) for _ in range(count))


@pytest.fixture(scope="session")
def policy_mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    mesh = MeshRun(tmp_path_factory.mktemp("policy"), "policy")
    client = deployment("client", "echo_app", 8080, mesh.ledger)
    client["spec"]["template"]["metadata"]["labels"][ZONE] = "a"
    client["spec"]["template"]["metadata"]["annotations"] = ours({"explain": "true"})
    mesh.write("client", account("client"), client)
    mesh.write(
        "web",
        account("web"),
        puppet(mesh, "web-one", "web", "one", "a"),
        puppet(mesh, "web-two", "web", "two", "b"),
        puppet(mesh, "web-three", "web", "three", "b", weight="4"),
        *[front(name, name) for name in WEB],
    )
    gate = {"concurrency_limit": "adaptive up to 60", "default_inbound_policy": "all-unauthenticated"}
    desk = {"concurrency_limit": "4", "default_inbound_policy": "deny"}
    mesh.write("gate", account("gate"), puppet(mesh, "gate", **gate), front("gate", app="gate"))
    mesh.write("desk", account("desk"), puppet(mesh, "desk", **desk), front("desk", app="desk"))
    world: World | None = None
    try:
        mesh.start()
        world = World(mesh)
        until(lambda: all(world.addresses(name) for name in WEB), "the endpoints of web")
        yield world
    finally:
        if world is not None:
            world.connection.close()
        mesh.end()


@pytest.fixture
def world(policy_mesh: World) -> World:
    """With no mood, and nothing seen."""
    policy_mesh.reset()
    return policy_mesh

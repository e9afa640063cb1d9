"""HTTPRoute, GRPCRoute and SMI matches through real sidecars: written as manifests, seen at the apps."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from mesh_manifests import NAMESPACE, service
from mesh_run import MeshRun, until

from control.store.files import FileStore
from control.store.store import Key

Object = dict[str, Any]

# "stable" is the app of the Deployment web, "canary" the one of the Deployment client: two echo apps with sidecars.
SERVICES = [service(name, selector={"app": "web"}) for name in ("routed", "divided", "stable")]
SERVICES += [
    service("canary", selector={"app": "client"}),
    service("calls", 9090, selector={"app": "greeter"}, app_protocol="grpc"),
]


def route(kind: str, name: str, parent: str, *rules: Object) -> Object:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": parent}], "rules": list(rules)},
    }


def to(*weights: tuple[str, int], **more: Any) -> Object:
    return {"backendRefs": [{"name": name, "port": 80, "weight": weight} for name, weight in weights], **more}


def smi(kind: str, group: str, name: str, spec: Object) -> Object:
    return {
        "apiVersion": f"{group}.smi-spec.io/v1alpha4",
        "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": spec,
    }


HEADER = {"path": {"value": "/echo"}, "headers": [{"name": "x-canary", "value": "always"}]}
CHANGED = [
    {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "x-from", "value": "route"}]}},
    {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "x-to", "value": "client"}]}},
    {"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/echo"}}},
]
MOVED = [{"type": "RequestRedirect", "requestRedirect": {"hostname": "else.example", "statusCode": 307}}]
HTTP_ROUTE = route(
    "HTTPRoute",
    "routed",
    "routed",
    to(("canary", 1), matches=[HEADER]),
    to(("canary", 1), matches=[{"path": {"value": "/v2"}}], filters=CHANGED),
    {"matches": [{"path": {"type": "Exact", "value": "/old"}}], "filters": MOVED},
    to(("gone", 1), matches=[{"path": {"value": "/echo"}, "queryParams": [{"name": "backend", "value": "gone"}]}]),
    to(("stable", 1), matches=[{"path": {"value": "/echo"}}]),
)
GRPC_ROUTE = route(
    "GRPCRoute",
    "calls",
    "calls",
    {
        "matches": [{"method": {"service": "e2e.Echo", "method": "Unary"}}],
        "backendRefs": [{"name": "greeter", "port": 9090}],
    },
)
GROUP = smi(
    "HTTPRouteGroup",
    "specs",
    "testers",
    {"matches": [{"name": "firefox", "methods": ["GET"], "pathRegex": "/echo", "headers": {"user-agent": ".*Firefox.*"}}]},
)


def split(canary: float) -> Object:
    """`canary` per thousand of what the testers ask."""
    weights = [{"service": "stable", "weight": f"{1000 - canary}m"}, {"service": "canary", "weight": f"{canary}m"}]
    matches = [{"kind": "HTTPRouteGroup", "name": "testers"}]
    return smi("TrafficSplit", "split", "divided", {"service": "divided", "matches": matches, "backends": weights})


class Caller:
    """One connection to the sidecar of the pod "client", kept open, as that pod's app would use it by http_proxy."""

    def __init__(self, mesh: MeshRun) -> None:
        self.connection = http.client.HTTPConnection(mesh.pod("client").ip, 4140, timeout=30)

    def get(self, url: str, **headers: str) -> tuple[int, dict[str, str], Any]:
        self.connection.request("GET", url, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = self.connection.getresponse()
        body = answer.read()
        told = json.loads(body) if answer.status == 200 else body.decode()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, told

    def app(self, url: str, **headers: str) -> str:
        """The Deployment that answered, or the status."""
        status, _, told = self.get(url, **headers)
        return str(told["pod"]).split("-", maxsplit=1)[0] if status == 200 else str(status)


@pytest.fixture(scope="module")
def routes(shop: MeshRun) -> Iterator[MeshRun]:
    shop.write("routes", *SERVICES, HTTP_ROUTE, GRPC_ROUTE, GROUP, split(1000))
    caller = Caller(shop)
    until(lambda: caller.app("http://routed.e2e/echo", x_canary="always") == "client", "the route to be in force")
    until(lambda: caller.app("http://divided.e2e/echo", user_agent="Firefox") == "client", "the split to be in force")
    yield shop
    shop.write("routes", service("routed", selector={"app": "web"}))
    caller.connection.close()


@pytest.fixture
def caller(routes: MeshRun) -> Iterator[Caller]:
    made = Caller(routes)
    yield made
    made.connection.close()


def test_a_header_decides_which_backend_gets_the_request(caller: Caller) -> None:
    assert caller.app("http://routed.e2e/echo", x_canary="always") == "client"
    assert caller.app("http://routed.e2e/echo", x_canary="never") == "web"
    assert caller.app("http://routed.e2e/echo") == "web"


def test_the_request_and_its_answer_are_changed_as_the_rule_says(caller: Caller) -> None:
    status, headers, told = caller.get("http://routed.e2e/v2?a=1", x_from="client")
    assert (status, headers["x-to"]) == (200, "client")
    assert told["path"] == "/echo?a=1"
    assert [value for name, value in told["headers"] if name == "x-from"] == ["route"]


def test_a_redirect_and_what_no_rule_fits_are_answered_by_the_proxy(caller: Caller) -> None:
    status, headers, _ = caller.get("http://routed.e2e/old?a=1")
    assert (status, headers["location"]) == (307, "http://else.example/old?a=1")
    status, headers, _ = caller.get("http://routed.e2e/other")
    assert (status, headers["mesh-error"]) == (404, "no_rule")
    status, headers, _ = caller.get("http://routed.e2e/echo?backend=gone")
    assert (status, headers["mesh-error"]) == (500, "backend_invalid")


def test_a_route_has_its_conditions_and_its_problem_an_event(routes: MeshRun) -> None:
    key = Key("gateway.networking.k8s.io", "HTTPRoute", NAMESPACE, "routed")
    store = FileStore(None, routes.layout.objects, "e2e")

    def conditions() -> dict[str, str]:
        store.refresh()
        obj = store.get(key)
        parents = ((obj or {}).get("status") or {}).get("parents") or [{}]
        return {one["type"]: one["reason"] for one in parents[0].get("conditions", [])}

    assert until(conditions, "the status") == {"Accepted": "Accepted", "ResolvedRefs": "BackendNotFound"}
    assert [event["reason"] for event in store.events(key)] == ["BackendMissing"]


def test_the_metrics_of_the_caller_name_the_rule(routes: MeshRun, caller: Caller) -> None:
    caller.app("http://routed.e2e/echo", x_canary="always")
    page = routes.metrics(routes.pod("client").ip)
    assert page.total("route_request_total", rt_route=f"HTTPRoute {NAMESPACE}/routed rule 0") >= 1


async def test_a_grpc_route_lets_through_the_methods_it_names(routes: MeshRun) -> None:
    own = f"{routes.pod('client').ip}:4140"
    async with grpc.aio.insecure_channel(own, options=[("grpc.default_authority", "calls.e2e:9090")]) as channel:
        assert await call(channel, "Unary") == b"message"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(channel, "Fail")
        assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
        assert "no_rule" in str(refused.value.details())


async def call(channel: grpc.aio.Channel, method: str) -> bytes:
    ask: Any = channel.unary_unary(f"/e2e.Echo/{method}")
    answer: bytes = await asyncio.wait_for(ask(b"message"), 30)
    return answer


def test_a_split_with_matches_is_for_the_requests_that_they_fit(caller: Caller) -> None:
    assert caller.app("http://divided.e2e/echo", user_agent="Firefox/9") == "client"
    assert caller.app("http://divided.e2e/echo", user_agent="lynx") == "web"
    assert caller.app("http://divided.e2e/echo", user_agent="Fire") == "web"


@pytest.mark.parametrize(("canary", "block"), [(500, 2), (10, 100), (1, 1000), (0, 20)])
def test_shares_are_exact_over_a_whole_block(routes: MeshRun, caller: Caller, canary: int, block: int) -> None:
    objects = [*SERVICES, HTTP_ROUTE, GRPC_ROUTE, GROUP]
    routes.write("routes", *objects, split(canary))

    def weights() -> list[int]:
        resources = routes.config(routes.pod("client").ip)["resources"]
        found = next(one["content"]["service"] for one in resources if one["name"] == f"{NAMESPACE}/divided")
        return [int(one.get("weightMilli", 0)) for one in found["routes"][0]["backends"]]

    until(lambda: weights() == [1000 - canary, canary], "the new weights at the caller's proxy")
    counted = Counter(caller.app("http://divided.e2e/echo", user_agent="Firefox") for _ in range(block))
    assert counted == Counter({"web": block - block * canary // 1000, "client": block * canary // 1000})


def test_weights_and_rules_change_under_load_without_an_error(routes: MeshRun) -> None:
    counted: Counter[str] = Counter()
    stop = threading.Event()

    def load(path: str, agent: str) -> None:
        one = Caller(routes)
        while not stop.is_set():
            counted[one.app(path, user_agent=agent, x_canary="always")] += 1
        one.connection.close()

    def weight() -> object:
        found: Object = routes.config(routes.pod("client").ip)["resources"]
        service: Object = next(one["content"]["service"] for one in found if one["name"] == f"{NAMESPACE}/routed")
        return service["routes"][0].get("backends", [{}])[0].get("weightMilli")

    workers = [threading.Thread(target=load, args=(f"http://{name}.e2e/echo", "Firefox")) for name in ("divided", "routed")]
    for worker in workers:
        worker.start()
    try:
        for turn in range(6):
            name = ("canary", "stable")[turn % 2]
            flipped = route("HTTPRoute", "routed", "routed", to((name, turn + 1)))
            routes.write("routes", *SERVICES, flipped, GRPC_ROUTE, GROUP, split((500, 0, 1000)[turn % 3]))
            until(lambda turn=turn: weight() == f"{turn + 1}000", "the change at the caller")  # type: ignore[misc]
            before = sum(counted.values())
            until(lambda before=before: sum(counted.values()) > before + 40, "requests in between")  # type: ignore[misc]
    finally:
        stop.set()
        for worker in workers:
            worker.join(30)
    assert set(counted) == {"web", "client"}, counted

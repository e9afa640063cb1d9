"""From a Canary to what becomes of a request: its objects checked as manifests, compiled, asked as a client's proxy does."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent.parent / "compile"))  # short ways from objects to a decision

from canary_plays import canary_object
from routing_objects import request, tables, taken_by

from control.canary.declared.spec import CanarySpec, parse
from control.canary.machine.routing import Routing
from control.canary.machine.status import Phase, Status
from control.canary.objects import manifests
from control.canary.objects.services import baseline_service
from control.canary.routers import router_for
from control.resources.documents import as_document
from control.resources.gateway import parse_http_route
from control.resources.traffic import Traffic, conditions
from control.resources.validate import check_document
from control.store.store import Object
from meshproxy.policy.service import RouteEntry, ServiceEntry

RUNNING = Status(phase=Phase.PROGRESSING, last_applied="r2", last_promoted="r1")


def target(**template: Any) -> Object:
    container = {"name": "podinfo", "command": ["podinfo"], "ports": [{"name": "http", "containerPort": 9898}], **template}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "podinfo", "namespace": "test"},
        "spec": {
            "selector": {"matchLabels": {"app": "podinfo"}},
            "template": {"metadata": {"labels": {"app": "podinfo"}}, "spec": {"containers": [container]}},
        },
    }


def asked(analysis: dict[str, Any] | None = None, *, provider: str = "", **service: Any) -> CanarySpec:
    """podinfo's Canary with more in spec.service.  Nothing of it may be refused for its routing."""
    obj = canary_object(analysis, provider=provider, service={"port": 80, "targetPort": "http", **service})
    spec = parse(obj)
    assert spec.routes.refused == ()
    return spec


def services(spec: CanarySpec) -> list[Object]:
    made = target()
    return [*manifests.services(spec, made), manifests.apex_service(spec, made, None), baseline_service(spec, made)]


def wanted(spec: CanarySpec, routing: Routing, status: Status = RUNNING) -> list[Object]:
    """The router's objects, and nothing is wrong with them: not alone, not with the Services there are."""
    made = router_for(spec).wanted(spec, routing, status)
    for obj in made:
        assert [str(one) for one in check_document(as_document(obj)).diagnostics] == []
    traffic = Traffic.of([*services(spec), *made])
    for route in traffic.routes:
        for ref in route.spec.parent_refs:
            if ref.is_service:
                assert {(c.type, c.status) for c in conditions(route, ref, traffic)} == {
                    ("Accepted", True),
                    ("ResolvedRefs", True),
                }
    assert [parse_http_route(obj).metadata.name for obj in made if obj["kind"] == "HTTPRoute"] in ([], [spec.apex])
    return made


def entry(spec: CanarySpec, *made: Object, port: int = 80) -> ServiceEntry:
    """The apex Service as a client's proxy in its namespace has it."""
    slices = [
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": f"{name}-1",
                "namespace": spec.namespace,
                "labels": {"kubernetes.io/service-name": name},
            },
            "addressType": "IPv4",
            "ports": [{"port": 9898}],
            "endpoints": [{"addresses": [f"127.9.9.{number}"], "conditions": {}}],
        }
        for number, name in enumerate((spec.apex, spec.primary_service, spec.canary_service, spec.baseline_service), 10)
    ]
    found = tables(*services(spec), *slices, *made, namespace=spec.namespace).service(spec.namespace, spec.apex, port)
    assert found is not None
    return found


def rule(found: ServiceEntry, line: str = "GET /", **headers: str) -> RouteEntry | ServiceEntry:
    """What decides about a request: a rule, or the Service itself."""
    taken = taken_by(found, request(line, **headers))
    assert taken != "unsafe"
    return taken if isinstance(taken, RouteEntry) else found


def shares(spec: CanarySpec, routing: Routing, line: str = "GET /", *, status: Status = RUNNING, **headers: str) -> str:
    """Who gets such requests, with weights: "podinfo-primary 90, podinfo-canary 10"; a status where nobody does."""
    return shared(entry(spec, *wanted(spec, routing, status)), line, **headers)


def shared(found: ServiceEntry, line: str = "GET /", **headers: str) -> str:
    decides = rule(found, line, **headers)
    if isinstance(decides, RouteEntry) and decides.spec.refuse:
        return str(decides.spec.refuse)
    pairs = [(leaf, weight) for leaf, weight in zip(decides.backends, decides.weights, strict=True) if weight]
    assert not any(leaf.refuse for leaf, _ in pairs)
    total = sum(weight for _, weight in pairs)
    return ", ".join(
        f"{leaf.name} {weight * 100 / total:g}" for leaf, weight in sorted(pairs, key=lambda p: p[0].name, reverse=True)
    )

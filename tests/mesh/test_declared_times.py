"""The times of a Service, from what the control plane says to the routes that keep them."""

from __future__ import annotations

import asyncio

from control.api import mesh_pb2
from meshproxy.mesh.convert import service_spec
from meshproxy.policy.service import EndpointEntry
from meshproxy.policy.tables import build_tables
from meshproxy.proxy.context import Context
from meshproxy.proxy.outbound import Outbound
from meshproxy.proxy.settings import Settings
from meshproxy.proxy.tls import Credentials
from meshproxy.telemetry.registry import Registry


def declared(**times: int) -> mesh_pb2.Service:
    made = mesh_pb2.Service(namespace="shop", name="web", ports=[mesh_pb2.ServicePort(port=80)], **times)
    made.routes.add(name="HTTPRoute shop/web rule 0", timeout_ms=700)
    made.matches.add(route=0).path.value = "/a"
    return made


async def outbound() -> Outbound:
    ctx = Context(asyncio.get_running_loop(), Settings(), Registry(), seed=1, request_id_prefix=b"t")
    return Outbound(ctx, Credentials(), "shop", frozenset())


def apply(side: Outbound, service: mesh_pb2.Service, version: int = 1) -> None:
    side.apply(build_tables(version, [service_spec(service, "shop")], {"shop/web": [EndpointEntry("127.0.0.1", 80, 1)]}))


async def test_a_service_s_times_hold_for_its_own_route_and_for_its_rules_and_change_with_it() -> None:
    side = await outbound()
    apply(
        side,
        declared(response_start_timeout_ms=250, response_timeout_ms=3000, idle_timeout_ms=10_000, propagate_timeout=True),
    )
    for route in (side.routes[("shop/web:80", False)], *side.rules.values()):
        times = route.times
        assert times is not None
        assert times.response_start is side.ctx.deadlines.queue(0.25)
        assert times.response is side.ctx.deadlines.queue(3.0)
        assert (times.idle_s, times.propagate) == (10.0, True)
    assert side.routes[("shop/web:80", True)].times is None, "what is carried as bytes has no answers"
    apply(side, declared(), 2)
    assert [route.times for route in (*side.routes.values(), *side.rules.values())] == [None] * 3


async def test_a_rule_with_times_of_its_own_has_none_of_the_service_s_but_that_they_go_on() -> None:
    side = await outbound()
    service = declared(response_timeout_ms=3000, idle_timeout_ms=10_000, propagate_timeout=True)
    service.routes[0].times.response_start_timeout_ms = 250
    apply(side, service)
    (rule,) = side.rules.values()
    assert rule.times is not None
    assert rule.times.response_start is side.ctx.deadlines.queue(0.25)
    assert (rule.times.response, rule.times.idle_s, rule.times.propagate) == (None, 0.0, True)
    services = side.routes[("shop/web:80", False)].times
    assert services is not None
    assert services.response is side.ctx.deadlines.queue(3.0)
    service.routes[0].times.Clear()
    service.routes[0].times.SetInParent()
    service.propagate_timeout = False
    apply(side, service, 2)
    assert [rule.times for rule in side.rules.values()] == [None], "a rule may have none where its Service has some"

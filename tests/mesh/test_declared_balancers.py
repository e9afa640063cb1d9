"""From annotations to what the proxy does: nothing is lost between the two planes."""

from __future__ import annotations

import pytest

from control.api import mesh_pb2
from control.compile.balancer import compile_balancer
from meshproxy.mesh.balancer import balancer_of
from meshproxy.mesh.convert import service_spec, tables_of
from meshproxy.mesh.knowledge import Known, ResourceRejected
from meshproxy.policy.balancer import LEAST_REQUEST, PEAK_EWMA
from meshproxy.policy.chooser import MAGLEV, RING_HASH

OURS = "meshproxy.dev/"


def service(**annotations: str) -> mesh_pb2.Service:
    return mesh_pb2.Service(
        namespace="shop",
        name="web",
        ports=[mesh_pb2.ServicePort(port=80)],
        balancer=compile_balancer({OURS + name.replace("_", "-"): value for name, value in annotations.items()}),
    )


def test_a_service_that_declares_nothing_has_nothing_of_it_in_its_message_nor_in_the_tables() -> None:
    plain = service()
    assert not plain.HasField("balancer")
    assert balancer_of(plain, "zone-a") is None
    tables = tables_of(1, Known(services={"shop/web": plain}))
    assert tables.balancers == {}


@pytest.mark.parametrize(
    ("declared", "how"), [("least-request", LEAST_REQUEST), ("maglev", MAGLEV), ("ring-hash", RING_HASH), ("ewma", PEAK_EWMA)]
)
def test_the_balancer_and_its_key_arrive(declared: str, how: int) -> None:
    policy = balancer_of(service(balancer=declared, balancer_key="header=X-User", slow_start="20s"), "")
    assert policy is not None
    assert (policy.balancer, policy.slow_start_s, policy.breaker) == (how, 20.0, None)
    assert (policy.key.name if policy.key is not None else b"") == (b"x-user" if how in (MAGLEV, RING_HASH) else b"")


def test_the_breaker_arrives_with_every_number() -> None:
    policy = balancer_of(
        service(
            breaker="unified",
            breaker_max_failures="3",
            breaker_min_penalty="250ms",
            breaker_max_penalty="5s",
            breaker_jitter="0",
            breaker_success_rate="0.75",
            breaker_window="20s",
            breaker_min_requests="9",
            breaker_max_ejected="0.25",
        ),
        "",
    )
    assert policy is not None
    rules = policy.breaker
    assert rules is not None
    assert (rules.consecutive, rules.min_penalty_s, rules.max_penalty_s, rules.jitter) == (3, 0.25, 5.0, 0.0)
    assert (rules.success_rate, rules.window_s, rules.min_requests, rules.max_ejected) == (0.75, 20.0, 9, 0.25)


def test_equal_declarations_are_one_object_update_after_update() -> None:
    assert balancer_of(service(breaker="consecutive"), "a") is balancer_of(service(breaker="consecutive"), "b")
    assert balancer_of(service(zone="prefer"), "a") is not balancer_of(service(zone="prefer"), "b")


def test_the_zone_is_the_clients_own_and_only_where_it_is_preferred() -> None:
    known = Known(
        workload=mesh_pb2.Workload(namespace="shop", zone="eu-1"),
        services={"shop/web": service(zone="prefer"), "shop/other": service(slow_start="5s")},
    )
    known.services["shop/other"].name = "other"
    balancers = tables_of(1, known).balancers
    assert balancers["shop/web"].zone == "eu-1"
    assert balancers["shop/other"].zone == ""


def test_what_this_version_cannot_do_is_refused_for_that_service_alone() -> None:
    odd = service(breaker="consecutive")
    odd.balancer.breaker.max_ejected = 7.0
    with pytest.raises(ResourceRejected, match=r"greatest share ejected must be 0.0 to 1.0"):
        service_spec(odd, "shop")
    odd = service(slow_start="1s")
    odd.balancer.how = 99  # type: ignore[assignment]
    with pytest.raises(ResourceRejected, match="balancer 99 is not known"):
        service_spec(odd, "shop")

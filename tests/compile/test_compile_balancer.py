"""What pods say of their zone and capacity, and Services of their balancer, reaches the proxies."""

from __future__ import annotations

from compile_objects import compiled, endpoint, pod, service, slice_of

from control.api import mesh_pb2


def test_endpoints_and_workloads_carry_the_zone_and_the_weight_of_their_pod() -> None:
    one = pod("web-1", "10.0.0.1", **{"meshproxy.dev__weight": "3"})
    one["metadata"]["labels"]["topology.kubernetes.io/zone"] = "eu-1"
    two = pod("web-2", "10.0.0.2")
    found = compiled(service("web"), one, two, slice_of("web", endpoint("10.0.0.1"), endpoint("10.0.0.2"))).resources
    sent = found[mesh_pb2.ENDPOINTS, "shop/web"].endpoints.endpoints
    assert [(each.address, each.zone, each.weight) for each in sent] == [("10.0.0.1", "eu-1", 3), ("10.0.0.2", "", 0)]
    assert found[mesh_pb2.WORKLOAD, "shop/web-1"].workload.zone == "eu-1"
    assert found[mesh_pb2.WORKLOAD, "shop/web-2"].workload.zone == ""


def test_the_zone_that_the_slice_says_counts_before_the_pods_and_for_pods_nobody_knows() -> None:
    one = pod("web-1", "10.0.0.1")
    one["metadata"]["labels"]["topology.kubernetes.io/zone"] = "eu-1"
    places = [{**endpoint(f"10.0.0.{number}"), "zone": "eu-2"} for number in (1, 2)]
    found = compiled(service("web"), one, slice_of("web", *places)).resources
    assert [each.zone for each in found[mesh_pb2.ENDPOINTS, "shop/web"].endpoints.endpoints] == ["eu-2", "eu-2"]


def test_a_changed_weight_is_a_changed_resource() -> None:
    objects = service("web"), slice_of("web", endpoint("10.0.0.1"))
    before = compiled(*objects, pod("web-1", "10.0.0.1")).resources[mesh_pb2.ENDPOINTS, "shop/web"]
    after = compiled(*objects, pod("web-1", "10.0.0.1", **{"meshproxy.dev__weight": "2"})).resources
    assert after[mesh_pb2.ENDPOINTS, "shop/web"].hash != before.hash


def test_a_service_carries_its_balancer_and_one_that_declares_none_carries_nothing() -> None:
    declared = service("web", **{"balancer.linkerd.io/failure-accrual": "consecutive", "meshproxy.dev/slow-start": "10s"})
    found = compiled(declared, service("plain"), pod("web-1", "10.0.0.1")).resources
    sent = found[mesh_pb2.SERVICE, "shop/web"].service.balancer
    assert (sent.slow_start_ms, sent.breaker.consecutive, sent.breaker.max_penalty_ms) == (10_000, 7, 60_000)
    assert not found[mesh_pb2.SERVICE, "shop/plain"].service.HasField("balancer")

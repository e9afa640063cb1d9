"""Networks, addresses, ports, and EndpointSlices."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from typing import Any

import pytest

from control.runtime import informed
from control.runtime.addresses import REST, AddressError, Addresses, Network, ServicePorts, busy_ports, candidates
from control.runtime.endpoints import EndpointFact, endpoint_slices


def test_a_mesh_tries_the_same_networks_each_time_and_never_127_0_0() -> None:
    for name in ("default", "demo", "x" * 60):
        first = list(candidates(name))
        assert first == list(candidates(name))
        assert len(set(first)) == len(first)
        assert not any(prefix.startswith("127.0.") for prefix in first)
        assert all(0 < int(part) < 255 for part in (prefix.split(".")[1] for prefix in first))
    assert next(candidates("default")) != next(candidates("demo"))


def test_two_meshes_of_one_name_get_different_networks() -> None:
    name = f"twice-{os.getpid()}"
    first = Network.take(name)
    try:
        second = Network.take(name)
        second.close()
        assert second.prefix != first.prefix
    finally:
        first.close()
    again = Network.take(name)
    again.close()
    assert again.prefix == first.prefix


def test_a_network_on_which_somebody_listens_is_passed_over() -> None:
    name = f"taken-{os.getpid()}"
    wanted, following = list(candidates(name))[:2]
    with socket.create_server((f"{wanted}.1", 8086)):
        network = Network.take(name)
        network.close()
        assert network.prefix == following
        assert busy_ports(f"{wanted}.1", [8086, 9990]) == [8086]


def test_when_every_network_is_taken_the_likely_reason_is_given() -> None:
    name = f"everywhere-{os.getpid()}"
    with ExitStack() as servers:
        for prefix in candidates(name):
            servers.enter_context(socket.create_server((f"{prefix}.1", 9990)))
        with pytest.raises(AddressError, match=r"tried 64 .*0\.0\.0\.0"):
            Network.take(name)


def test_a_released_address_rests_before_it_is_given_again() -> None:
    addresses = Addresses("127.8.9")
    first = addresses.take(0.0)
    assert first == "127.8.9.10"
    addresses.release(first, 1.0)
    assert addresses.take(1.0 + REST - 0.1) == "127.8.9.11"
    assert addresses.take(1.0 + REST) == first


def test_the_245_addresses_of_a_network_come_to_an_end_with_a_reason() -> None:
    addresses = Addresses("127.8.9")
    taken = {addresses.take(0.0) for _ in range(245)}
    assert len(taken) == 245
    with pytest.raises(AddressError, match=r"all 245 pod addresses of 127\.8\.9\.0/24"):
        addresses.take(0.0)


def test_a_service_port_keeps_its_listener_port() -> None:
    ports = ServicePorts()
    assert [ports.port("shop/a", 80), ports.port("shop/a", 81), ports.port("shop/b", 80)] == [20000, 20001, 20002]
    assert ports.port("shop/a", 81) == 20001


# ---------------------------------------------------------------- endpoints


def service(**spec: Any) -> dict[str, Any]:
    ports = [{"name": "web", "port": 80, "targetPort": "http", "appProtocol": "http"}]
    return {"metadata": {"name": "web", "namespace": "shop"}, "spec": {"selector": {"app": "web"}, "ports": ports, **spec}}


def pod(name: str, address: str, **more: Any) -> EndpointFact:
    fields = {"ready": True, "serving": True, "terminating": False, "container_ports": {"http": 8080}, **more}
    namespace = fields.pop("namespace", "shop")
    return EndpointFact(namespace, name, f"uid-{name}", fields.pop("labels", {"app": "web"}), address, **fields)


def test_a_slice_lists_the_pods_the_selector_matches_with_their_conditions() -> None:
    pods = [
        pod("b", "127.8.9.11", ready=False, serving=False),
        pod("a", "127.8.9.10"),
        pod("c", "127.8.9.12", terminating=True),
        pod("other", "127.8.9.13", labels={"app": "db"}),
        pod("elsewhere", "127.8.9.14", namespace="bank"),
    ]
    (found,) = endpoint_slices(service(), pods)
    assert found["metadata"]["labels"]["kubernetes.io/service-name"] == "web"
    assert found["ports"] == [{"name": "web", "port": 8080, "protocol": "TCP", "appProtocol": "http"}]
    assert [(item["addresses"][0], *item["conditions"].values()) for item in found["endpoints"]] == [
        ("127.8.9.10", True, True, False),
        ("127.8.9.11", False, False, False),
        ("127.8.9.12", False, True, True),
    ]
    assert found["endpoints"][0]["targetRef"] == {"kind": "Pod", "namespace": "shop", "name": "a", "uid": "uid-a"}


def test_pods_whose_named_ports_differ_get_slices_of_their_own() -> None:
    found = endpoint_slices(service(), [pod("a", "127.8.9.10"), pod("b", "127.8.9.11", container_ports={"http": 9090})])
    assert sorted(item["ports"][0]["port"] for item in found) == [8080, 9090]
    assert len({item["metadata"]["name"] for item in found}) == 2


def test_a_service_without_selector_is_left_to_its_user() -> None:
    assert endpoint_slices(service(selector={}), [pod("a", "127.8.9.10")]) == []
    assert endpoint_slices(service(type="ExternalName"), [pod("a", "127.8.9.10")]) == []


def test_unready_pods_are_published_when_asked_for() -> None:
    (found,) = endpoint_slices(service(publishNotReadyAddresses=True), [pod("a", "127.8.9.10", ready=False, serving=False)])
    assert found["endpoints"][0]["conditions"]["ready"] is True


def test_a_service_that_matches_nobody_has_an_empty_slice() -> None:
    (found,) = endpoint_slices(service(), [])
    assert found["endpoints"] == []


def test_a_sidecar_is_informed_when_it_knows_every_ready_address() -> None:
    pods = [pod("a", "127.8.9.10"), pod("b", "127.8.9.11"), pod("c", "127.8.9.12", ready=False, serving=False)]
    want = informed.wanted(endpoint_slices(service(), pods))
    assert want == {"shop/web": {"127.8.9.10", "127.8.9.11"}}

    def config(*addresses: str) -> dict[str, Any]:
        endpoints = {"endpoints": [{"address": address} for address in addresses]}
        service = {"name": "shop/web", "content": {"service": {"name": "web"}}}
        return {"resources": [service, {"name": "shop/web", "content": {"endpoints": endpoints}}]}

    assert informed.missing(want, informed.known(config("127.8.9.10"))) == ["shop/web"]
    assert informed.missing(want, informed.known({"resources": []})) == ["shop/web"]
    assert informed.missing(want, informed.known(config("127.8.9.10", "127.8.9.11", "127.8.9.99"))) == []

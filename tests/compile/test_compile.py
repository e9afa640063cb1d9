"""Objects in, the resources of each workload out."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from compile_objects import SETTINGS, again, compiled, endpoint, pod, service, slice_of, split
from hypothesis import given
from hypothesis import strategies as st

from control.api import mesh_pb2
from control.compile.settings import Settings
from control.compile.snapshot import Memo, compile_snapshot, content_hash
from control.store.store import Object


def the_service(*objects: Object, name: str = "web") -> mesh_pb2.Service:
    return compiled(*objects).resources[mesh_pb2.SERVICE, f"shop/{name}"].service


def endpoints(*objects: Object, name: str = "web") -> list[mesh_pb2.Endpoint]:
    return list(compiled(*objects).resources[mesh_pb2.ENDPOINTS, f"shop/{name}"].endpoints.endpoints)


def workload(*objects: Object, name: str = "web-1") -> mesh_pb2.Workload:
    return compiled(*objects).resources[mesh_pb2.WORKLOAD, f"shop/{name}"].workload


# ---------------------------------------------------------------- workloads


def test_a_pod_with_a_sidecar_becomes_a_workload() -> None:
    found = workload(pod("web-1", "127.9.9.10"))
    assert found.identity == "spiffe://mesh.test/ns/shop/sa/web"
    assert (found.namespace, found.pod, found.service_account, found.pod_ip) == ("shop", "web-1", "web", "127.9.9.10")
    assert dict(found.labels) == {"namespace": "shop", "pod": "web-1", "deployment": "web", "version": "v1"}
    assert [(port.port, port.name) for port in found.ports] == [(8080, "http")]
    assert found.inbound_mode == mesh_pb2.ALL_AUTHENTICATED
    assert list(found.cluster_domains) == ["svc.cluster.local"]


def test_a_pod_without_a_sidecar_or_without_an_address_becomes_none() -> None:
    result = compiled(pod("a", "127.9.9.10", meshed=False), pod("b", ""))
    assert [kind for kind, _ in result.resources] == [mesh_pb2.TRUST]


def test_a_pod_that_is_a_sidecar_only_becomes_a_workload_without_ports() -> None:
    gateway = pod("web-1", "127.9.9.2")
    gateway["spec"] = {"serviceAccountName": "gateway"}
    assert list(workload(gateway).ports) == []


def test_the_inbound_side_may_forward_to_declared_ports_probes_and_what_services_lead_to() -> None:
    container = {
        "name": "a",
        "ports": [{"containerPort": 8080, "name": "http"}, {"containerPort": 53, "protocol": "UDP"}],
        "readinessProbe": {"httpGet": {"path": "/ready?full=1", "port": "http"}},
        "livenessProbe": {"httpGet": {"path": "/live", "port": 8080}},
        "startupProbe": {"tcpSocket": {"port": 9000}},
    }
    lead = service("web", {"port": 80, "targetPort": "http", "appProtocol": "http", "name": "a"}, {"port": 81, "name": "b"})
    stranger = service("other", {"port": 7000})
    found = workload(pod("web-1", "127.9.9.10", container=container), lead, stranger)
    assert [(port.port, port.protocol, list(port.probe_paths)) for port in found.ports] == [
        (81, mesh_pb2.DETECT, []),
        (8080, mesh_pb2.HTTP1, ["/live", "/ready"]),
        (9000, mesh_pb2.DETECT, []),
    ]


def test_two_services_that_disagree_about_a_ports_protocol_leave_it_to_detection() -> None:
    ports = [{"port": 80, "targetPort": 8080, "appProtocol": protocol} for protocol in ("http", "kubernetes.io/h2c")]
    found = workload(
        pod("web-1", "127.9.9.10"),
        service("a", ports[0], selector={"app": "web"}),
        service("b", ports[1], selector={"app": "web"}),
    )
    assert [port.protocol for port in found.ports] == [mesh_pb2.DETECT]


def test_https_probes_open_no_plaintext_path() -> None:
    container = {"name": "a", "readinessProbe": {"httpGet": {"path": "/ready", "port": 8443, "scheme": "HTTPS"}}}
    (port,) = workload(pod("web-1", "127.9.9.10", container=container)).ports
    assert (port.port, list(port.probe_paths)) == (8443, [])


@pytest.mark.parametrize(
    ("policy", "mode"),
    [
        ("all-authenticated", mesh_pb2.ALL_AUTHENTICATED),
        ("all-unauthenticated", mesh_pb2.ALL_UNAUTHENTICATED),
        ("deny", mesh_pb2.DENY),
    ],
)
def test_the_inbound_policy_is_an_annotation(policy: str, mode: int) -> None:
    one = pod("web-1", "127.9.9.10")
    one["metadata"]["annotations"]["meshproxy.dev/default-inbound-policy"] = policy
    assert workload(one).inbound_mode == mode


@pytest.mark.parametrize(("value", "may"), [("true", True), ("false", False), ("", False)])
def test_an_app_may_ask_its_sidecar_why_where_an_annotation_says_so(value: str, may: bool) -> None:
    one = pod("web-1", "127.9.9.10")
    one["metadata"]["annotations"]["meshproxy.dev/explain"] = value
    assert workload(one).explain is may
    assert not workload(pod("web-1", "127.9.9.10")).explain


def test_an_inbound_policy_that_is_none_fails_closed_and_is_told() -> None:
    one = pod("web-1", "127.9.9.10")
    one["metadata"]["annotations"]["meshproxy.dev/default-inbound-policy"] = "all-unauthentcated"
    result = compiled(one)
    assert result.resources[mesh_pb2.WORKLOAD, "shop/web-1"].workload.inbound_mode == mesh_pb2.ALL_AUTHENTICATED
    assert "expected all-authenticated" in str(result.diagnostics[0])


def test_listeners_come_from_the_runtimes_annotation() -> None:
    one = pod("web-1", "127.9.9.10")
    listeners = [{"address": "127.9.9.10:20001", "service": "shop/prices", "port": 50051}]
    one["metadata"]["annotations"]["meshproxy.dev/service-listeners"] = json.dumps(listeners)
    (found,) = workload(one).listeners
    assert (found.address, found.service, found.port) == ("127.9.9.10:20001", "shop/prices", 50051)


@pytest.mark.parametrize("text", ["{", "7", "[7]", '[{"address": 1, "service": "a", "port": 1}]', '[{"service": "a"}]'])
def test_listeners_that_are_none_are_left_out_and_told(text: str) -> None:
    one = pod("web-1", "127.9.9.10")
    one["metadata"]["annotations"]["meshproxy.dev/service-listeners"] = text
    result = compiled(one)
    assert list(result.resources[mesh_pb2.WORKLOAD, "shop/web-1"].workload.listeners) == []
    assert len(result.diagnostics) == 1


# ---------------------------------------------------------------- services


@pytest.mark.parametrize(
    ("app_protocol", "protocol"),
    [
        ("", mesh_pb2.DETECT),
        ("http", mesh_pb2.HTTP1),
        ("HTTP", mesh_pb2.HTTP1),
        ("kubernetes.io/h2c", mesh_pb2.HTTP2),
        ("grpc", mesh_pb2.HTTP2),
        ("linkerd.io/opaque", mesh_pb2.OPAQUE),
        ("tcp", mesh_pb2.OPAQUE),
        ("https", mesh_pb2.OPAQUE),
    ],
)
def test_a_ports_protocol_comes_from_appProtocol(app_protocol: str, protocol: int) -> None:
    (port,) = the_service(service("web", {"port": 80, "appProtocol": app_protocol})).ports
    assert port.protocol == protocol


def test_an_unknown_appProtocol_is_detected_and_told() -> None:
    result = compiled(service("web", {"port": 80, "appProtocol": "carrier-pigeon"}))
    assert result.resources[mesh_pb2.SERVICE, "shop/web"].service.ports[0].protocol == mesh_pb2.DETECT
    assert "carrier-pigeon" in str(result.diagnostics[0])


def test_only_tcp_ports_go_through_the_mesh() -> None:
    found = the_service(service("web", {"port": 80, "name": "a"}, {"port": 53, "protocol": "UDP", "name": "b"}))
    assert [port.port for port in found.ports] == [80]


def test_a_service_without_annotations_declares_no_retry_and_no_timeout() -> None:
    found = the_service(service("web"))
    assert not found.HasField("retry")
    assert found.timeout_ms == 0
    assert list(found.backends) == []


@pytest.mark.parametrize("prefix", ["retry.linkerd.io/", "meshproxy.dev/retry-"])
def test_retries_are_declared_by_annotation(prefix: str) -> None:
    found = the_service(
        service("web", **{f"{prefix}http": "5xx, 429,500-504", f"{prefix}grpc": "unavailable", f"{prefix}limit": "3"})
    )
    assert list(found.retry.conditions) == [
        "connect-failure",
        "refused-stream",
        "reset",
        "5xx",
        "429",
        "500-504",
        "unavailable",
    ]
    assert (found.retry.attempts, found.retry.budget_ratio, found.retry.budget_floor_per_second) == (3, 0.2, 10)
    assert found.retry.any_method == prefix.startswith("retry.linkerd.io"), "Linkerd retries POST too"


@pytest.mark.parametrize(
    ("annotations", "backoff_ms"),
    [
        ({"meshproxy.dev/retry-backoff": "80ms"}, 80),
        ({"meshproxy.dev/retry-backoff": "0s", "meshproxy.dev/retry-http": "5xx"}, 0),
        ({"meshproxy.dev/retry-backoff": "10s"}, 10_000),
        ({"meshproxy.dev/retry-backoff": "11s", "meshproxy.dev/retry-http": "5xx"}, None),
        ({"meshproxy.dev/retry-backoff": "soon", "meshproxy.dev/retry-http": "5xx"}, None),
        ({"meshproxy.dev/retry-http": "5xx"}, None),
    ],
)
def test_the_wait_between_two_tries_is_declared_by_annotation(annotations: dict[str, str], backoff_ms: int | None) -> None:
    found = the_service(service("web", **annotations)).retry
    assert list(found.conditions)[:3] == ["connect-failure", "refused-stream", "reset"]
    assert (found.backoff_ms if found.HasField("backoff_ms") else None) == backoff_ms


@pytest.mark.parametrize("name", ["timeout.linkerd.io/request", "meshproxy.dev/timeout-request"])
def test_a_timeout_is_declared_by_annotation(name: str) -> None:
    assert the_service(service("web", **{name: "1.5s"})).timeout_ms == 1500


def test_our_annotation_wins_over_linkerds() -> None:
    found = the_service(service("web", **{"timeout.linkerd.io/request": "1s", "meshproxy.dev/timeout-request": "2s"}))
    assert found.timeout_ms == 2000


def test_every_time_is_declared_by_annotation_and_without_one_there_is_none() -> None:
    none = the_service(service("web"))
    assert (none.response_start_timeout_ms, none.response_timeout_ms, none.idle_timeout_ms) == (0, 0, 0)
    assert not none.propagate_timeout
    ours = {"timeout-response-start": "1s", "timeout-response": "2s", "timeout-idle": "0.5m", "timeout-propagate": "true"}
    all_of_them = the_service(service("web", **{f"meshproxy.dev/{name}": value for name, value in ours.items()}))
    assert all_of_them.response_start_timeout_ms == 1000
    assert (all_of_them.response_timeout_ms, all_of_them.idle_timeout_ms) == (2000, 30_000)
    assert all_of_them.propagate_timeout
    linkerds = the_service(service("web", **{"timeout.linkerd.io/response": "3s", "timeout.linkerd.io/idle": "4s"}))
    assert (linkerds.response_timeout_ms, linkerds.idle_timeout_ms) == (3000, 4000)


def test_a_headless_service_has_no_cluster_ip() -> None:
    one = service("web")
    one["spec"]["clusterIP"] = "None"
    assert the_service(one).cluster_ip == ""


def test_an_external_name_is_outside_the_mesh() -> None:
    one = service("web")
    one["spec"] = {"type": "ExternalName", "externalName": "example.org"}
    assert [kind for kind, _ in compiled(one).resources] == [mesh_pb2.TRUST]


# ---------------------------------------------------------------- splits


def shares(*objects: Object) -> list[tuple[str, int]]:
    return [(backend.service, backend.weight_milli) for backend in the_service(*objects).backends]


def test_a_split_gives_its_service_backends_in_thousandths() -> None:
    assert shares(service("web"), service("a"), service("b"), split("web", a=90, b="500m")) == [
        ("shop/a", 90_000),
        ("shop/b", 500),
    ]


def test_a_split_may_name_its_own_service() -> None:
    assert shares(service("web"), service("b"), split("web", web=9, b=1)) == [("shop/web", 9000), ("shop/b", 1000)]


def test_splits_are_not_hierarchical() -> None:
    objects = [service("web"), service("a"), service("b"), split("web", a=1), split("a", b=1)]
    assert shares(*objects) == [("shop/a", 1000)]


def test_of_two_splits_the_older_is_in_force() -> None:
    first, second = split("web", a=1), split("web", b=1)
    first["metadata"] |= {"name": "z", "creationTimestamp": "2026-01-01T00:00:00Z"}
    second["metadata"] |= {"name": "a", "creationTimestamp": "2026-01-02T00:00:00Z"}
    assert shares(service("web"), service("a"), service("b"), second, first) == [("shop/a", 1000)]


def test_a_backend_that_does_not_exist_yet_keeps_its_share() -> None:
    assert shares(service("web"), service("a"), split("web", a=3, b=1)) == [("shop/a", 3000), ("shop/b", 1000)]


def test_a_split_of_which_no_backend_exists_sends_nothing_to_the_service_itself() -> None:
    assert shares(service("web"), split("web", gone=1)) == [("shop/gone", 1000)]


def test_a_split_with_all_weights_zero_stays_in_force() -> None:
    assert shares(service("web"), service("a"), split("web", a=0)) == [("shop/a", 0)]


def test_a_split_that_cannot_be_read_is_told_and_the_service_compiles_without_it() -> None:
    result = compiled(service("web"), service("a"), split("web", a="lots"))
    assert list(result.resources[mesh_pb2.SERVICE, "shop/web"].service.backends) == []
    (found,) = result.diagnostics
    assert "cannot be compiled" in found.message
    assert found.key is not None
    assert found.key.kind == "TrafficSplit"


# ---------------------------------------------------------------- endpoints


def test_an_endpoint_joins_slice_service_and_pod() -> None:
    (found,) = endpoints(
        service("web", {"port": 80, "name": "http", "targetPort": "http", "appProtocol": "http"}),
        pod("web-1", "127.9.9.10"),
        slice_of("web", endpoint("127.9.9.10", "web-1", ready=True), ports=[{"name": "http", "port": 8080}]),
    )
    assert (found.address, found.service_port, found.target_port, found.mesh_port) == ("127.9.9.10", 80, 8080, 4143)
    assert (found.identity, found.protocol) == ("spiffe://mesh.test/ns/shop/sa/web", mesh_pb2.HTTP1)
    assert dict(found.labels) == {"namespace": "shop", "service": "web", "pod": "web-1", "deployment": "web", "version": "v1"}


@pytest.mark.parametrize(
    ("conditions", "there"),
    [
        ({"ready": True}, True),
        ({}, True),
        ({"ready": None}, True),
        ({"ready": False}, False),
        ({"ready": False, "serving": True, "terminating": True}, False),
        ({"ready": True, "terminating": True}, False),
    ],
)
def test_only_ready_addresses_are_endpoints(conditions: dict[str, Any], there: bool) -> None:
    found = endpoints(
        service("web"), pod("web-1", "127.9.9.10"), slice_of("web", endpoint("127.9.9.10", "web-1", **conditions))
    )
    assert bool(found) is there


def test_an_address_without_a_pod_or_with_an_unmeshed_one_is_plaintext() -> None:
    found = endpoints(
        service("web"),
        pod("web-1", "127.9.9.11", meshed=False),
        slice_of("web", endpoint("127.9.9.10"), endpoint("127.9.9.11", "web-1")),
    )
    assert [(one.address, one.identity, one.mesh_port) for one in found] == [("127.9.9.10", "", 0), ("127.9.9.11", "", 0)]


def test_an_address_of_its_own_still_has_the_identity_of_the_pod_it_names() -> None:
    (found,) = endpoints(service("web"), pod("web-1", "127.9.9.10"), slice_of("web", endpoint("127.9.9.77", "web-1")))
    assert (found.address, found.identity) == ("127.9.9.77", "spiffe://mesh.test/ns/shop/sa/web")


def test_an_address_without_a_reference_is_found_by_the_pods_ip() -> None:
    (found,) = endpoints(service("web"), pod("web-1", "127.9.9.10"), slice_of("web", endpoint("127.9.9.10")))
    assert found.identity == "spiffe://mesh.test/ns/shop/sa/web"


def test_an_address_in_two_slices_counts_once_and_order_does_not_matter() -> None:
    one, two = endpoint("127.9.9.10"), endpoint("127.9.9.11")
    found = endpoints(service("web"), slice_of("web", two, one), slice_of("web", one, called="web-2"))
    assert [endpoint.address for endpoint in found] == ["127.9.9.10", "127.9.9.11"]


def test_each_service_port_has_its_endpoints_and_a_port_the_service_lacks_has_none() -> None:
    ports = [{"name": "http", "port": 8080}, {"name": "admin", "port": 9090}, {"name": "debug", "port": 6060}]
    found = endpoints(
        service("web", {"port": 80, "name": "http"}, {"port": 90, "name": "admin"}),
        slice_of("web", endpoint("127.9.9.10"), ports=ports),
    )
    assert [(one.service_port, one.target_port) for one in found] == [(80, 8080), (90, 9090)]


def test_slices_of_another_namespace_are_not_taken() -> None:
    foreign = slice_of("web", endpoint("127.9.9.10"))
    foreign["metadata"]["namespace"] = "other"
    assert endpoints(service("web"), foreign) == []


# ---------------------------------------------------------------- the whole


def test_a_pod_wants_its_own_workload_and_all_that_is_shared() -> None:
    result = compiled(service("web"), service("prices"), pod("web-1", "127.9.9.10"), pod("web-2", "127.9.9.11"))
    assert sorted(result.resources_for("shop", "web-1")) == [
        (mesh_pb2.WORKLOAD, "shop/web-1"),
        (mesh_pb2.SERVICE, "shop/prices"),
        (mesh_pb2.SERVICE, "shop/web"),
        (mesh_pb2.ENDPOINTS, "shop/prices"),
        (mesh_pb2.ENDPOINTS, "shop/web"),
        (mesh_pb2.TRUST, ""),
    ]


def test_a_pod_that_is_unknown_has_no_workload() -> None:
    assert (mesh_pb2.WORKLOAD, "shop/nobody") not in compiled(service("web")).resources_for("shop", "nobody")


def test_trust_holds_every_anchor() -> None:
    result = compiled(settings=Settings("mesh.test", (b"old", b"new"), b"issuer"))
    trust = result.resources[mesh_pb2.TRUST, ""].trust
    assert (trust.trust_domain, list(trust.anchors_der), trust.issuer_key_id) == ("mesh.test", [b"old", b"new"], b"issuer")


WORLD = [
    service("web", {"port": 80, "name": "http"}),
    service("a", {"port": 80, "name": "http"}),
    split("web", a=1, web=2),
    pod("web-1", "127.9.9.10"),
    pod("web-2", "127.9.9.11"),
    slice_of("web", endpoint("127.9.9.10", "web-1"), endpoint("127.9.9.11", "web-2"), ports=[{"name": "http", "port": 8080}]),
]


def test_the_same_objects_give_the_same_hashes_in_any_order_and_process() -> None:
    expected = {key: made.hash for key, made in compiled(*WORLD).resources.items()}
    for seed in range(5):
        objects = [again(obj) for obj in WORLD]
        random.Random(seed).shuffle(objects)
        assert {key: made.hash for key, made in compiled(*objects).resources.items()} == expected


def test_a_hash_is_that_of_the_content() -> None:
    for made in compiled(*WORLD).resources.values():
        content = getattr(made, made.WhichOneof("content"))
        assert made.hash == content_hash(content)
        assert len(made.hash) == 16


def test_what_did_not_change_is_not_compiled_again() -> None:
    memo = Memo()
    first = compiled(*WORLD, memo=memo)
    second = compiled(*WORLD, memo=memo)
    assert memo.made == 0
    assert all(second.resources[key] is made for key, made in first.resources.items())


def test_a_change_costs_what_it_touches() -> None:
    memo = Memo()
    compiled(*WORLD, memo=memo)
    changed = [split("web", a=2, web=2) if obj["kind"] == "TrafficSplit" else obj for obj in WORLD]
    compiled(*changed, memo=memo)
    assert memo.made == 1


def test_new_settings_reach_every_resource() -> None:
    memo = Memo()
    compiled(*WORLD, memo=memo)
    result = compiled(*WORLD, memo=memo, settings=Settings("other.test", (b"root",)))
    assert result.resources[mesh_pb2.WORKLOAD, "shop/web-1"].workload.identity.startswith("spiffe://other.test/")


def test_the_memo_forgets_what_is_gone() -> None:
    memo = Memo()
    compiled(*WORLD, memo=memo)
    compiled(memo=memo)
    assert list(memo.resources) == [(mesh_pb2.TRUST, "")]
    assert memo.views == {}


@given(st.data())
def test_with_and_without_memo_the_result_is_the_same(data: st.DataObject) -> None:
    pool = [
        *WORLD,
        service("a", {"port": 81, "name": "http"}),
        split("web", a=5),
        pod("web-1", "127.9.9.11"),
        pod("web-2", "127.9.9.10", account="other"),
        pod("web-2", "127.9.9.12", meshed=False),
        slice_of("web", endpoint("127.9.9.10"), endpoint("127.9.9.11"), ports=[{"name": "http", "port": 8080}]),
    ]
    memo = Memo()
    for _ in range(4):
        chosen = data.draw(st.lists(st.sampled_from(range(len(pool))), unique_by=lambda index: _named(pool[index])))
        objects = [pool[index] for index in chosen]
        with_memo = compile_snapshot(objects, SETTINGS, memo)
        without = compile_snapshot(objects, SETTINGS)
        assert dict(with_memo.resources) == dict(without.resources)
        assert with_memo.diagnostics == without.diagnostics


def _named(obj: Object) -> tuple[str, str]:
    return obj["kind"], obj["metadata"]["name"]


junk = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 70000), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)


@given(st.data(), junk, st.sampled_from(range(len(WORLD))))
def test_one_bad_object_never_stops_the_others(data: st.DataObject, bad: object, which: int) -> None:
    objects = [again(obj) for obj in WORLD]
    holder: Any = objects[which]
    while True:
        places = (
            sorted(set(holder) - {"apiVersion", "kind", "name", "namespace"})
            if isinstance(holder, dict)
            else range(len(holder))
        )
        if not places:
            break
        place = data.draw(st.sampled_from(list(places)))
        if place == "metadata" or (isinstance(holder[place], (dict, list)) and holder[place] and data.draw(st.booleans())):
            holder = holder[place]
            continue
        holder[place] = bad
        break
    result = compiled(*objects)
    for index, obj in enumerate(objects):
        if index != which and obj["kind"] == "Service":
            assert (mesh_pb2.SERVICE, f"shop/{obj['metadata']['name']}") in result.resources
        if index != which and obj["kind"] == "Pod":
            assert (mesh_pb2.WORKLOAD, f"shop/{obj['metadata']['name']}") in result.resources

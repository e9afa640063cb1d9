"""Names, and the service each of them means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.policy.declared import ServiceSpec
from meshproxy.policy.retry import parse_policy
from meshproxy.policy.service import DETECT, HTTP2, EndpointEntry
from meshproxy.policy.tables import MAX_MEMO, Tables, build_tables, parse_authority
from meshproxy.wire.message import CACHES


def tables() -> Tables:
    return build_tables(
        7,
        [
            ServiceSpec("shop", "prices", [(80, 0), (8080, HTTP2)], cluster_ip="10.96.0.7"),
            ServiceSpec("other", "prices", [(80, 0)]),
            ServiceSpec(
                "shop",
                "catalogue",
                [(80, 0)],
                backends=[("shop/catalogue-v1", 90), ("shop/catalogue-v2", 10), ("shop/missing", 1)],
                timeout_s=2.5,
                retry=parse_policy(["5xx"], attempts=2),
            ),
        ],
        {
            "shop/prices": [
                EndpointEntry("127.1.0.10", 80, 8000, "spiffe://mesh/ns/shop/sa/prices", 4143),
                EndpointEntry("127.1.0.10", 8080, 9000),
            ],
            "shop/catalogue-v1": [EndpointEntry("127.1.0.11", 80, 8000)],
            "shop/catalogue-v2": [EndpointEntry("127.1.0.12", 81, 8000)],
        },
    )


@pytest.fixture(params=[True, False], ids=["memo", "no memo"])
def memo(request: pytest.FixtureRequest) -> object:
    before = CACHES.enabled
    CACHES.enabled = request.param
    yield
    CACHES.enabled = before


@pytest.mark.usefixtures("memo")
@pytest.mark.parametrize(
    ("name", "key"),
    [
        (b"prices", "shop/prices:80"),
        (b"prices.shop", "shop/prices:80"),
        (b"prices.shop.svc", "shop/prices:80"),
        (b"prices.shop.svc.cluster.local", "shop/prices:80"),
        (b"prices.shop.svc.cluster.local.", "shop/prices:80"),
        (b"prices:80", "shop/prices:80"),
        (b"prices:", "shop/prices:80"),
        (b"prices:8080", "shop/prices:8080"),
        (b"prices.shop:8080", "shop/prices:8080"),
        (b"PRICES.Shop.SVC.cluster.LOCAL.:8080", "shop/prices:8080"),
        (b"prices.other", "other/prices:80"),
        (b"10.96.0.7", "shop/prices:80"),
        (b"10.96.0.7:8080", "shop/prices:8080"),
        (b"prices:81", None),
        (b"prices:0", None),
        (b"prices:99999", None),
        (b"prices:8o", None),
        (b"prices.", None),
        (b"prices.shop.", None),
        (b"prices.shop.svc.", None),
        (b"prices.shop.svc.cluster", None),
        (b"prices.svc.cluster.local", None),
        (b"pod-0.prices.shop.svc.cluster.local", None),
        (b"prices.shop.com", None),
        (b"example.com", None),
        (b"10.96.0.8", None),
        (b"[::1]:80", None),
        (b"user@prices", None),
        (b"prices/x", None),
        (b"", None),
        (b".", None),
        (b":80", None),
        (b"prices:80:80", None),
        ("prıces".encode(), None),
        (b"a" * 300, None),
    ],
)
def test_names_are_those_a_pods_resolver_accepts(name: bytes, key: str | None) -> None:
    routing = tables()
    for _ in range(2):  # the second answer comes from the memo, if there is one
        entry = routing.lookup(name, "shop", 80)
        assert (entry.key if entry else None) == key


def test_a_short_name_belongs_to_the_callers_namespace_and_a_missing_port_to_its_protocol() -> None:
    routing = tables()
    entry = routing.lookup(b"prices", "other")
    assert entry is not None
    assert entry.key == "other/prices:80"
    entry = routing.lookup(b"prices", "shop", 8080)
    assert entry is not None
    assert entry.key == "shop/prices:8080"
    assert entry.protocol == HTTP2


def test_a_listener_finds_its_service_by_name_and_port() -> None:
    entry = tables().service("shop", "prices", 8080)
    assert entry is not None
    assert entry.authority == "prices.shop.svc.cluster.local:8080"
    assert tables().service("shop", "prices", 81) is None


def test_without_a_split_a_service_is_its_own_single_backend() -> None:
    entry = tables().lookup(b"prices", "shop")
    assert entry is not None
    assert entry.weights == [1]
    assert [backend.key for backend in entry.backends] == ["shop/prices:80"]
    (endpoint,) = entry.backends[0].endpoints
    assert endpoint.key == ("127.1.0.10", 8000, "spiffe://mesh/ns/shop/sa/prices")


def test_a_backend_takes_no_part_for_a_port_it_does_not_have() -> None:
    services = [
        ServiceSpec("shop", "web", [(80, DETECT), (81, DETECT)], [("shop/a", 1), ("shop/b", 1)]),
        ServiceSpec("shop", "a", [(80, DETECT), (81, DETECT)]),
        ServiceSpec("shop", "b", [(80, DETECT)]),
    ]
    routing = build_tables(1, services, {})
    assert [backend.key for backend in routing.services["shop/web:80"].backends] == ["shop/a:80", "shop/b:80"]
    assert [backend.key for backend in routing.services["shop/web:81"].backends] == ["shop/a:81"]


def test_a_backend_that_is_missing_or_has_no_endpoints_keeps_its_weight() -> None:
    entry = tables().lookup(b"catalogue", "shop")
    assert entry is not None
    assert entry.weights == [90, 10, 1]
    assert [len(backend.endpoints) for backend in entry.backends] == [1, 0, 0]
    assert entry.timeout_s == 2.5
    assert entry.retry.attempts == 2


def test_invented_names_do_not_grow_the_memo_without_bound() -> None:
    routing = tables()
    for i in range(3 * MAX_MEMO):
        assert routing.lookup(b"invented-%d" % i, "shop") is None
        assert len(routing._memo) <= MAX_MEMO
    assert routing.lookup(b"prices", "shop") is not None


@given(st.binary(max_size=40))
def test_any_bytes_parse_to_a_clean_name_or_to_nothing(authority: bytes) -> None:
    parsed = parse_authority(authority)
    if parsed is not None:
        assert parsed.host
        assert parsed.host == parsed.host.lower()
        assert 0 <= parsed.port <= 65535


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("gone.shop", True),
        ("gone.shop.svc", True),
        ("gone.nowhere.svc.cluster.local", True),
        ("gone.nowhere", False),
        ("shop", False),
        ("a.shop.example", False),
        ("example.org", False),
    ],
)
def test_a_name_in_the_mesh_is_told_from_a_host_outside(host: str, ours: bool) -> None:
    assert tables().is_ours(host) is ours

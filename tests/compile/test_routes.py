"""From splits and routes to the rule that takes a request: precedence, scopes, ports, references."""

from __future__ import annotations

import random

import pytest
from compile_objects import again, compiled, service, split
from routing_objects import (
    ENDPOINTS,
    WEB,
    goes_to,
    group,
    http_route,
    matching_split,
    request,
    route,
    service_entry,
    tables,
    taken_by,
    to,
    told,
)

from control.compile.snapshot import Memo
from control.store.store import Object
from meshproxy.policy.filters import changed
from meshproxy.policy.retry import RESPONDED, TRY_TIMED_OUT, Failure
from meshproxy.policy.service import RouteEntry, match

# ---------------------------------------------------------------- Gateway API


@pytest.mark.parametrize(
    ("stronger", "weaker", "target"),
    [
        ("{path: {type: Exact, value: /a}}", "{path: {value: /a}}", "GET /a"),
        ("{path: {type: Exact, value: /a}}", "{path: {type: RegularExpression, value: /a.*}}", "GET /a"),
        ("{path: {type: RegularExpression, value: /a/b.*}}", "{path: {value: /a/b}}", "GET /a/b"),
        ("{path: {value: /a/b}}", "{path: {value: /a}}", "GET /a/b/c"),
        ("{path: {value: /a}}", "{method: GET, headers: [{name: x, value: '1'}]}", "GET /a"),
        ("{path: {value: /a}, method: GET}", "{path: {value: /a}, headers: [{name: x, value: '1'}]}", "GET /a"),
        ("{method: GET}", "{headers: [{name: x, value: '1'}, {name: y, value: '2'}]}", "GET /"),
        ("{headers: [{name: x, value: '1'}, {name: y, value: '2'}]}", "{headers: [{name: x, value: '1'}]}", "GET /?q=1"),
        ("{headers: [{name: x, value: '1'}]}", "{queryParams: [{name: q, value: '1'}]}", "GET /?q=1"),
        ("{queryParams: [{name: q, value: '1'}]}", "{}", "GET /?q=1"),
    ],
)
def test_the_more_specific_match_wins_whatever_the_order_of_rules(stronger: str, weaker: str, target: str) -> None:
    for rules in ([to("web-v1", stronger), to("web-v2", weaker)], [to("web-v2", weaker), to("web-v1", stronger)]):
        assert goes_to(service_entry(http_route("r", *rules)), target, x="1", y="2") == "web-v1"
    assert goes_to(service_entry(http_route("r", to("web-v2", weaker))), target, x="1", y="2") == "web-v2"


def test_between_equal_matches_the_oldest_route_wins_then_the_first_by_name_then_the_first_rule() -> None:
    same = "{path: {value: /a}}"
    old = http_route("z", to("web-v1", same), creationTimestamp="2026-01-01T00:00:00Z")
    new = http_route("a", to("web-v2", same), creationTimestamp="2026-02-01T00:00:00Z")
    assert goes_to(service_entry(new, old), "GET /a") == "web-v1"
    assert (
        goes_to(service_entry(http_route("b", to("web-v2", same)), http_route("a", to("web-v1", same))), "GET /a") == "web-v1"
    )
    assert goes_to(service_entry(http_route("a", to("web-v1", same), to("web-v2", same))), "GET /a") == "web-v1"


def test_each_match_of_a_rule_has_its_own_place_in_the_order() -> None:
    both = "{matches: [{path: {type: Exact, value: /a/b}}, {path: {value: /}}], backendRefs: [{name: web-v1, port: 80}]}"
    entry = service_entry(http_route("r", both, to("web-v2", "{path: {value: /a}}")))
    assert [goes_to(entry, f"GET {path}") for path in ("/a/b", "/a/c", "/c")] == ["web-v1", "web-v2", "web-v1"]


@pytest.mark.parametrize(
    ("match_", "fits", "fits_not"),
    [
        ("{path: {value: /a}}", ["/a", "/a/", "/a/b", "/a?q", "//a", "/x/../a", "/%61"], ["/ab", "/", "/A"]),
        ("{path: {value: /a/}}", ["/a", "/a/", "/a/b"], ["/ab"]),
        ("{path: {type: Exact, value: /a}}", ["/a", "/a?q=1", "/./a"], ["/a/", "/a/b"]),
        ("{path: {type: RegularExpression, value: '/[0-9]+'}}", ["/1", "/12?x"], ["/1a", "/a", "/"]),
        ("{queryParams: [{name: q, value: 'a b'}]}", ["/?q=a+b", "/?q=a%20b", "/?x=1&q=a+b"], ["/?q=a", "/", "/?Q=a+b"]),
        ("{queryParams: [{name: q, value: '1'}]}", ["/?q=1&q=2"], ["/?q=2&q=1"]),
        ("{queryParams: [{type: RegularExpression, name: q, value: '[0-9]+'}]}", ["/?q=77"], ["/?q=7a", "/?q"]),
    ],
)
def test_a_match_on_the_target_fits_what_it_says_and_nothing_else(match_: str, fits: list[str], fits_not: list[str]) -> None:
    entry = service_entry(http_route("r", to("web-v1", match_)))
    assert [goes_to(entry, f"GET {path}") for path in fits] == ["web-v1"] * len(fits)
    assert [goes_to(entry, f"GET {path}") for path in fits_not] == ["404"] * len(fits_not)


@pytest.mark.parametrize(
    ("value", "paths"),
    [
        ("/caf%c3%a9", ["/caf%c3%a9", "/caf%C3%A9"]),
        ("/caf%C3%A9", ["/caf%c3%a9", "/caf%C3%A9"]),
        ("/%7Euser", ["/%7Euser", "/~user"]),
        ("/~user", ["/%7Euser", "/~user"]),
        ("/a%2Db", ["/a%2Db", "/a-b"]),
        ("/a%20b", ["/a%20b"]),
    ],
)
@pytest.mark.parametrize("kind", ["Exact", "PathPrefix"])
def test_a_path_fits_in_whatever_spelling_the_rule_has_it(kind: str, value: str, paths: list[str]) -> None:
    entry = service_entry(http_route("r", to("web-v1", f'{{path: {{type: {kind}, value: "{value}"}}}}'), to("web-v2")))
    assert [goes_to(entry, f"GET {path}") for path in paths] == ["web-v1"] * len(paths)
    assert goes_to(entry, "GET /a") == "web-v2"
    under = [goes_to(entry, f"GET {path}/more") for path in paths]
    assert under == ["web-v1" if kind == "PathPrefix" else "web-v2"] * len(paths)


def test_prefixes_are_as_long_as_what_they_are_compared_with() -> None:
    rules = [to("web-v1", "{path: {value: /%61%61}}"), to("web-v2", "{path: {value: /aa/b}}")]
    assert goes_to(service_entry(http_route("r", *rules)), "GET /aa/b") == "web-v2"


def test_a_prefix_is_replaced_also_where_no_match_is_given() -> None:
    rewrite = "{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /v2}}}"
    entry = service_entry(http_route("r", f"{{filters: [{rewrite}], backendRefs: [{{name: web-v1, port: 80}}]}}"))
    assert entry.matches is not None
    head = request("GET /a/b?c")
    match_ = entry.matches.find(head)
    spec = entry.routes[match_.route].spec
    assert changed(head, match_, entry.matches.on_paths, spec.rewrite, None).path == b"/v2/a/b?c"


@pytest.mark.parametrize(
    ("header", "fits", "fits_not"),
    [
        ("{name: X-Canary, value: always}", {"x_canary": "always"}, {"x_canary": "Always"}),
        ("{name: x, value: a}", {"x": "a"}, {}),
        (
            "{type: RegularExpression, name: user-agent, value: '.*Firefox.*'}",
            {"user_agent": "A Firefox/9"},
            {"user_agent": "B"},
        ),
        ("{type: RegularExpression, name: x, value: fire}", {"x": "fire"}, {"x": "firefox"}),
    ],
)
def test_headers_are_found_in_any_case_and_compared_whole(header: str, fits: dict[str, str], fits_not: dict[str, str]) -> None:
    entry = service_entry(http_route("r", to("web-v1", f"{{headers: [{header}]}}")))
    assert goes_to(entry, **fits) == "web-v1"
    assert goes_to(entry, **fits_not) == "404"


def test_a_header_given_on_several_lines_is_one_value_joined_by_commas() -> None:
    entry = service_entry(http_route("r", to("web-v1", "{headers: [{name: x, value: 'a,b'}]}")))
    head = request("GET /", x="a")
    head.fields.append(request("GET /", x="b").fields[0])
    found = taken_by(entry, head)
    assert isinstance(found, RouteEntry)
    assert found.backends[0].name == "web-v1"


@pytest.mark.parametrize("target", ["GET /a%2fb", "GET /a\\b", "GET /%zz", "GET /a/..;x/b"])
def test_a_path_that_can_be_read_in_two_ways_is_refused_where_rules_are_on_paths(target: str) -> None:
    assert goes_to(service_entry(http_route("r", to("web-v1", "{path: {value: /a}}"))), target) == "unsafe"
    assert goes_to(service_entry(http_route("r", to("web-v1", "{method: GET}"))), target) == "web-v1"


def test_where_routes_are_attached_a_request_that_no_rule_fits_is_answered_404() -> None:
    entry = service_entry(http_route("r", to("web-v1", "{path: {value: /a}}")))
    assert goes_to(entry, "GET /b") == "404"


def test_a_route_holds_for_the_ports_its_parents_name() -> None:
    web = service("web", {"port": 80, "name": "main"}, {"port": 81, "name": "more"}, {"port": 82, "name": "rest"})
    for parent, ports in (
        ("{group: '', kind: Service, name: web}", [80, 81, 82]),
        ("{group: '', kind: Service, name: web, port: 81}", [81]),
        ("{group: core, kind: Service, name: web, sectionName: rest}", [82]),
        ("{group: '', kind: Service, name: web, sectionName: rest, port: 81}", []),
    ):
        made = tables(web, *WEB[1:], *ENDPOINTS, http_route("r", to("web-v1"), parent=parent))
        found = [entry.port for port in (80, 81, 82) if (entry := made.service("shop", "web", port)) and entry.matches]
        assert found == ports


def test_a_route_to_another_parent_than_a_service_has_no_part_in_the_mesh() -> None:
    assert goes_to(service_entry(http_route("r", to("web-v1"), parent="{name: web}"))) == "web"


def test_a_grpc_route_comes_before_http_routes_on_the_same_port_and_they_are_not_mixed() -> None:
    grpc = route("GRPCRoute", "g", "{matches: [{method: {service: a.B}}], backendRefs: [{name: web-v1, port: 80}]}")
    entry = service_entry(http_route("r", to("web-v2")), grpc)
    assert [goes_to(entry, f"POST {path}") for path in ("/a.B/C", "/")] == ["web-v1", "404"]


@pytest.mark.parametrize(
    ("method", "fits", "fits_not"),
    [
        ("{service: a.B, method: C}", "/a.B/C", "/a.B/CD"),
        ("{service: a.B}", "/a.B/D", "/a.Bc/D"),
        ("{method: C}", "/x.Y/C", "/x.Y/CD"),
        ("{type: RegularExpression, service: 'a[.].', method: 'C.*'}", "/a.B/CD", "/a.B/D"),
    ],
)
def test_a_grpc_method_is_its_path(method: str, fits: str, fits_not: str) -> None:
    rule = f"{{matches: [{{method: {method}}}], backendRefs: [{{name: web-v1, port: 80}}]}}"
    entry = service_entry(route("GRPCRoute", "g", rule))
    assert [goes_to(entry, f"POST {path}") for path in (fits, fits_not)] == ["web-v1", "404"]


SHOP_REGEX = "{method: {type: RegularExpression, service: 'shop[.].*'}}"


@pytest.mark.parametrize(
    ("stronger", "weaker"),
    [
        (SHOP_REGEX, "{}"),
        (SHOP_REGEX, "{headers: [{name: x, value: '1'}, {name: y, value: '2'}]}"),
        (SHOP_REGEX, "{method: {method: Get}}"),
        ("{method: {type: RegularExpression, method: 'G.*'}}", "{}"),
        ("{method: {type: RegularExpression, service: 'shop[.]Cart|none'}}", "{method: {service: shop.Cart, method: Get}}"),
        ("{method: {service: shop.Cart}}", "{method: {type: RegularExpression, service: 'shop.*'}}"),
        ("{method: {service: shop.Cart, method: Get}}", "{method: {service: shop.Cart}, headers: [{name: x, value: '1'}]}"),
        ("{method: {service: shop.Cart, method: Get}}", "{method: {type: RegularExpression, service: shop.Cart, method: G.+}}"),
        ("{method: {service: shop.Cart}, headers: [{name: x, value: '1'}]}", "{method: {service: shop.Cart}}"),
        ("{method: {method: Get}}", "{headers: [{name: x, value: '1'}]}"),
        ("{headers: [{name: x, value: '1'}]}", "{}"),
    ],
)
def test_of_grpc_matches_the_longer_service_wins_then_the_longer_method_then_the_more_headers(
    stronger: str, weaker: str
) -> None:
    call = "POST /shop.Cart/Get"
    for rules in ([to("web-v1", stronger), to("web-v2", weaker)], [to("web-v2", weaker), to("web-v1", stronger)]):
        grpc = route("GRPCRoute", "g", *rules)
        assert goes_to(service_entry(grpc), call, x="1", y="2") == "web-v1"
        assert [line for line in told(grpc) if line.startswith("GRPCRoute")] == []
    assert goes_to(service_entry(route("GRPCRoute", "g", to("web-v2", weaker))), call, x="1", y="2") == "web-v2"


def test_of_two_grpc_routes_whose_matches_are_as_long_the_oldest_wins_then_the_first_by_name() -> None:
    one, other = "{method: {service: shop.Cart, method: Get}}", "{method: {service: shop.Cart, method: Get}}"
    old = route("GRPCRoute", "z", to("web-v1", one), creationTimestamp="2026-01-01T00:00:00Z")
    new = route("GRPCRoute", "a", to("web-v2", other), creationTimestamp="2026-02-01T00:00:00Z")
    assert goes_to(service_entry(new, old), "POST /shop.Cart/Get") == "web-v1"
    named = [route("GRPCRoute", name, to(backend, one)) for name, backend in (("b", "web-v2"), ("a", "web-v1"))]
    assert goes_to(service_entry(*named), "POST /shop.Cart/Get") == "web-v1"


def test_a_consumer_route_is_for_clients_of_its_namespace_and_then_instead_of_the_producers() -> None:
    parent = "{group: '', kind: Service, name: web, namespace: shop}"
    consumer = http_route(
        "c", "{matches: [{path: {value: /a}}], backendRefs: [{name: web-v2, namespace: shop, port: 80}]}", parent=parent
    )
    consumer["metadata"]["namespace"] = "people"
    producer = http_route("p", to("web-v1"))
    entry = service_entry(consumer, producer, namespace="people")
    assert [goes_to(entry, f"GET {path}") for path in ("/a", "/b")] == ["web-v2", "404"]
    for namespace in ("shop", "other"):
        assert goes_to(service_entry(consumer, producer, namespace=namespace), "GET /a") == "web-v1"
    assert goes_to(service_entry(consumer, namespace="other"), "GET /a") == "web"


def test_a_consumer_route_sends_back_to_the_producers_namespace_without_a_grant() -> None:
    """Gateway API's conformance test of a mesh, MeshConsumerRoute: the same shape, and no ReferenceGrant."""
    changed = "{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-header-set, value: set}]}}"
    consumer = http_route(
        "c",
        f"{{filters: [{changed}], backendRefs: [{{name: web, namespace: shop, port: 80}}]}}",
        parent="{group: '', kind: Service, name: web, namespace: shop}",
    )
    consumer["metadata"]["namespace"] = "people"
    assert goes_to(service_entry(consumer, namespace="people")) == "web"
    found = match(service_entry(consumer, namespace="people"), request())
    assert found is not None
    assert found.spec.response_headers is not None
    assert match(service_entry(consumer, namespace="shop"), request()) is None


@pytest.mark.parametrize(
    ("backends", "expected"),
    [
        ("[{name: gone, port: 80}]", "500"),
        ("[{name: web-v1, port: 99}]", "500"),
        ("[{kind: Bucket, group: storage.example, name: b}]", "500"),
        ("[{name: web-v1, port: 80}, {name: gone, port: 80}]", "web-v1+500"),
        ("[{name: web-v1, port: 80, weight: 0}, {name: web-v2, port: 80}]", "web-v2"),
        ("[{name: web-v1, port: 80, weight: 0}]", "500"),
        ("[]", "500"),
    ],
)
def test_a_reference_that_leads_nowhere_keeps_its_share_and_answers_500(backends: str, expected: str) -> None:
    assert goes_to(service_entry(http_route("r", f"{{backendRefs: {backends}}}"))) == expected


def test_a_backend_is_reached_on_the_port_that_is_named_for_it() -> None:
    other = service("api", {"port": 8080, "name": "a"})
    made = tables(*WEB, other, *ENDPOINTS, http_route("r", "{backendRefs: [{name: api, port: 8080}]}"))
    entry = made.service("shop", "web", 80)
    assert entry is not None
    found = match(entry, request())
    assert found is not None
    assert found.backends[0].key == "shop/api:8080"


def test_a_filter_we_do_not_have_answers_500_and_only_for_its_rule() -> None:
    cors = "{matches: [{path: {value: /a}}], filters: [{type: CORS, cors: {}}], backendRefs: [{name: web-v1, port: 80}]}"
    entry = service_entry(http_route("r", cors, to("web-v2")))
    assert [goes_to(entry, f"GET {path}") for path in ("/a", "/b")] == ["500", "web-v2"]


def test_timeouts_and_retries_of_a_rule_are_its_own_and_else_the_services() -> None:
    web = service("web", **{"meshproxy.dev/timeout-request": "9s", "meshproxy.dev/retry-http": "5xx"})
    rules = [
        to(
            "web-v1",
            "{path: {value: /a}}",
            "timeouts: {request: 2s, backendRequest: 500ms}, retry: {codes: [503], attempts: 3}",
        ),
        to("web-v1", "{path: {value: /b}}", "timeouts: {request: 0s}, retry: {attempts: 0}"),
        to("web-v1"),
    ]
    entry = tables(web, *WEB[1:], *ENDPOINTS, http_route("r", *rules)).service("shop", "web", 80)
    assert entry is not None
    own, none, services = (match(entry, request(f"GET {path}")) for path in ("/a", "/b", "/c"))
    assert own is not None
    assert none is not None
    assert services is not None
    assert (own.timeout_s, own.spec.try_timeout_s, own.retry.statuses, own.retry.attempts) == (2.0, 0.5, {503}, 3)
    assert (none.timeout_s, none.retry.attempts, none.retry.conditions) == (0.0, 0, 0)
    assert (services.timeout_s, services.retry) == (9.0, entry.retry)


@pytest.mark.parametrize(
    ("rule", "annotation", "tried_again"),
    [
        ("timeouts: {backendRequest: 200ms}, retry: {attempts: 2}", "", True),
        ("timeouts: {backendRequest: 200ms}, retry: {codes: [503]}", "", True),
        ("timeouts: {backendRequest: 200ms}", "503", True),
        ("timeouts: {backendRequest: 200ms}", "", False),
        ("timeouts: {backendRequest: 200ms}, retry: {attempts: 0}", "", False),
        ("retry: {attempts: 2}", "", False),
    ],
)
def test_who_gives_each_try_a_time_and_declares_retries_means_those_that_run_out_of_it_too(
    rule: str, annotation: str, tried_again: bool
) -> None:
    """GEP-1731, and its conformance test httproute-retry-with-timeouts."""
    said = {"meshproxy.dev/retry-http": annotation} if annotation else {}
    entry = service_entry(http_route("r", to("web-v1", "", rule), annotations=said))
    found = taken_by(entry, request("GET /"))
    assert isinstance(found, RouteEntry)
    assert found.retry.matches(Failure(TRY_TIMED_OUT), False) == tried_again
    assert not found.retry.matches(Failure(RESPONDED, 504), False)


@pytest.mark.parametrize(
    ("matches", "more", "annotations", "declared"),
    [
        ("[{method: POST}]", "retry: {codes: [503]}", {}, True),
        ("[{method: POST, path: {value: /orders}}, {method: PATCH}]", "retry: {codes: [503]}", {}, True),
        ("[{method: POST}, {path: {value: /orders}}]", "retry: {codes: [503]}", {}, False),
        ("[{path: {value: /}}]", "retry: {codes: [503]}", {}, False),
        ("[]", "retry: {codes: [503]}", {}, False),
        ("[{method: POST}]", "", {"meshproxy.dev/retry-http": "503"}, True),
        ("[]", "", {"meshproxy.dev/retry-http": "503"}, False),
        ("[]", "", {"retry.linkerd.io/http": "503"}, True),
        ("[]", "", {"meshproxy.dev/retry-http": "503", "retry.linkerd.io/http": "503"}, False),
        ("[]", "retry: {codes: [503]}", {"retry.linkerd.io/http": "503"}, False),
        ("[{method: POST}]", "", {}, True),  # the Service's, by Linkerd's annotation
    ],
)
def test_a_rule_for_certain_methods_that_declares_retries_declares_them_for_those_as_linkerds_annotation_does_for_all(
    matches: str, more: str, annotations: dict[str, str], declared: bool
) -> None:
    rule = f"{{matches: {matches}, backendRefs: [{{name: web-v1, port: 80}}]{', ' + more if more else ''}}}"
    web = service("web", **{"retry.linkerd.io/http": "503"})
    entry = tables(web, *WEB[1:], *ENDPOINTS, http_route("r", rule, annotations=annotations)).service("shop", "web", 80)
    assert entry is not None
    assert entry.retry.any_method, "Linkerd's means every method"
    found = match(entry, request("POST /orders"))
    assert found is not None
    assert found.retry.matches(Failure(RESPONDED, 503), False)
    assert found.retry.any_method == declared


@pytest.mark.parametrize(
    ("annotations", "rule", "waits"),
    [
        ({}, "retry: {codes: [503]}", [0.025, 0.05, 0.1, 0.2, 0.25]),
        ({}, "retry: {codes: [503], backoff: 40ms}", [0.04, 0.08, 0.16, 0.32, 0.64]),
        ({}, "retry: {codes: [503], backoff: 0s}", [0.0] * 5),
        ({"meshproxy.dev/retry-backoff": "40ms"}, "", [0.04, 0.08, 0.16, 0.32, 0.64]),
        ({"meshproxy.dev/retry-backoff": "0s"}, "", [0.0] * 5),
        ({"meshproxy.dev/retry-backoff": "40ms"}, "retry: {codes: [503]}", [0.025, 0.05, 0.1, 0.2, 0.25]),
        ({"meshproxy.dev/retry-limit": "3"}, "", [0.025, 0.05, 0.1, 0.2, 0.25]),
        ({}, "", [3.0, 6.0, 10.0, 10.0, 10.0]),  # the Service's
    ],
)
def test_the_wait_between_two_tries_is_the_rules_or_its_routes_or_its_services(
    annotations: dict[str, str], rule: str, waits: list[float]
) -> None:
    web = service("web", **{"meshproxy.dev/retry-backoff": "3s"})
    route_of = http_route("r", to("web-v1", "", rule), annotations=annotations)
    entry = tables(web, *WEB[1:], *ENDPOINTS, route_of).service("shop", "web", 80)
    assert entry is not None
    found = match(entry, request("GET /"))
    assert found is not None
    assert [found.retry.least_wait(tried) for tried in range(1, 6)] == pytest.approx(waits)


SERVICES_OWN = {
    "retry.linkerd.io/http": "409",
    "retry.linkerd.io/limit": "4",
    "timeout.linkerd.io/request": "9s",
    "meshproxy.dev/timeout-response-start": "6s",
    "timeout.linkerd.io/response": "8s",
    "timeout.linkerd.io/idle": "7s",
    "meshproxy.dev/timeout-propagate": "true",
}
SERVICES_TIMES = (9.0, 6.0, 8.0, 7.0, True)  # request, response start, response, idle, propagated
SERVICES_RETRY = (409, 4)  # a status that is tried again, how often


@pytest.mark.parametrize(
    ("annotations", "rule", "times", "retry"),
    [
        ({}, "", SERVICES_TIMES, SERVICES_RETRY),
        # a route's replace the Service's as a whole, times and retries apart
        ({"timeout.linkerd.io/request": "1s"}, "", (1.0, 0.0, 0.0, 0.0, True), SERVICES_RETRY),
        ({"timeout.linkerd.io/response": "2s"}, "", (0.0, 0.0, 2.0, 0.0, True), SERVICES_RETRY),
        ({"timeout.linkerd.io/idle": "3s"}, "", (0.0, 0.0, 0.0, 3.0, True), SERVICES_RETRY),
        ({"timeout.linkerd.io/request": "0s"}, "", (0.0, 0.0, 0.0, 0.0, True), SERVICES_RETRY),
        ({"meshproxy.dev/timeout-response-start": "4s"}, "", (0.0, 4.0, 0.0, 0.0, True), SERVICES_RETRY),
        ({"retry.linkerd.io/http": "503"}, "", SERVICES_TIMES, (503, 1)),
        ({"retry.linkerd.io/http": "503-504", "retry.linkerd.io/limit": "3"}, "", SERVICES_TIMES, (503, 3)),
        ({"retry.linkerd.io/limit": "2"}, "", SERVICES_TIMES, (0, 2)),
        ({"retry.linkerd.io/limit": "0"}, "", SERVICES_TIMES, (0, 0)),
        ({"retry.linkerd.io/http": ""}, "", SERVICES_TIMES, (0, 1)),
        # ours before Linkerd's
        (
            {"meshproxy.dev/timeout-request": "5s", "timeout.linkerd.io/request": "1s"},
            "",
            (5.0, 0.0, 0.0, 0.0, True),
            SERVICES_RETRY,
        ),
        # a rule's fields: the request's time after the annotation, before the Service's; retries before both
        ({}, "timeouts: {request: 2s}", (2.0, 6.0, 8.0, 7.0, True), SERVICES_RETRY),
        ({"timeout.linkerd.io/request": "1s"}, "timeouts: {request: 2s}", (1.0, 0.0, 0.0, 0.0, True), SERVICES_RETRY),
        ({"timeout.linkerd.io/idle": "3s"}, "timeouts: {request: 2s}", (2.0, 0.0, 0.0, 3.0, True), SERVICES_RETRY),
        ({"retry.linkerd.io/http": "503"}, "retry: {codes: [502], attempts: 5}", SERVICES_TIMES, (502, 5)),
        # what is wrong, or not for this kind, is as if it were not there
        ({"timeout.linkerd.io/request": "soon"}, "", SERVICES_TIMES, SERVICES_RETRY),
        ({"retry.linkerd.io/http": "often", "retry.linkerd.io/limit": "many"}, "", SERVICES_TIMES, SERVICES_RETRY),
        ({"retry.linkerd.io/grpc": "unavailable"}, "", SERVICES_TIMES, SERVICES_RETRY),
        ({"meshproxy.dev/timeout-propagate": "false"}, "", SERVICES_TIMES, SERVICES_RETRY),
    ],
)
def test_annotations_of_a_route_hold_for_all_its_rules(
    annotations: dict[str, str], rule: str, times: tuple[float, ...], retry: tuple[int, int]
) -> None:
    web = service("web", **SERVICES_OWN)
    rules = [to("web-v1", "{path: {value: /a}}", rule), to("web-v2", "{path: {value: /b}}", rule)]
    entry = tables(web, *WEB[1:], *ENDPOINTS, http_route("r", *rules, annotations=annotations)).service("shop", "web", 80)
    assert entry is not None
    for path in ("/a", "/b"):
        found = match(entry, request(f"GET {path}"))
        assert found is not None
        beside = found.times
        assert beside is not None
        assert (found.timeout_s, beside.response_start_s, beside.response_s, beside.idle_s, beside.propagate) == times
        status, attempts = retry
        answer = Failure(RESPONDED, status or 503)
        assert (found.retry.matches(answer, False), found.retry.attempts) == (bool(status), attempts)


def test_what_goes_beyond_a_bound_holds_at_the_bound() -> None:
    rule = to("web-v1", "{}", "timeouts: {request: 99999h, backendRequest: 48h}, retry: {attempts: 50}")
    found = taken_by(service_entry(http_route("r", rule)), request())
    assert isinstance(found, RouteEntry)
    assert (found.timeout_s, found.spec.try_timeout_s, found.retry.attempts) == (86_400.0, 86_400.0, 10)


def test_a_grpc_route_says_which_codes_are_tried_again_and_how_long_its_calls_take() -> None:
    annotations = {"retry.linkerd.io/grpc": "unavailable,internal", "timeout.linkerd.io/request": "1s"}
    grpc = route("GRPCRoute", "g", to("web-v1", "{method: {service: shop.Web}}"), annotations=annotations)
    found = taken_by(service_entry(grpc), request("POST /shop.Web/Get"))
    assert isinstance(found, RouteEntry)
    assert (found.timeout_s, found.retry.grpc_codes, found.times) == (1.0, 1 << 14 | 1 << 13, None)
    http_only = route("GRPCRoute", "g", to("web-v1"), annotations={"retry.linkerd.io/http": "5xx"})
    found = taken_by(service_entry(http_only), request("POST /shop.Web/Get"))
    assert isinstance(found, RouteEntry)
    assert not found.retry.matches(Failure(RESPONDED, 503), False)


# ---------------------------------------------------------------- SMI


def test_a_split_with_matches_is_for_the_requests_they_fit_and_the_others_go_to_the_root() -> None:
    users = group("firefox", "{headers: {user-agent: '.*Firefox.*'}}")
    entry = service_entry(users, matching_split("ab", "firefox", web_v1=0, web_v2=100))
    assert goes_to(entry, user_agent="Firefox 9") == "web-v2"
    assert goes_to(entry, user_agent="lynx") == "web"
    assert goes_to(entry) == "web"


def test_what_no_matching_split_is_for_goes_by_the_split_without_matches() -> None:
    plain = split("web", **{"web-v1": 1})
    entry = service_entry(group("g", "{methods: [POST]}"), matching_split("ab", "g", web_v2=1), plain)
    assert [goes_to(entry, target) for target in ("POST /", "GET /")] == ["web-v2", "web-v1"]


def test_groups_and_their_matches_are_alternatives_and_what_a_match_says_holds_together() -> None:
    first = group("g", "{methods: [GET], pathRegex: /a}", "{pathRegex: /b, headers: {x: '1'}}")
    entry = service_entry(first, group("h", "{methods: [DELETE]}"), matching_split("ab", "g h", web_v2=1))
    fits = [("GET /a", {}), ("GET /b", {"x": "1"}), ("PUT /b", {"x": "1"}), ("DELETE /c", {})]
    fits_not = [("PUT /a", {}), ("GET /b", {}), ("GET /b", {"x": "2"}), ("GET /c", {})]
    assert [goes_to(entry, target, **headers) for target, headers in fits] == ["web-v2"] * 4
    assert [goes_to(entry, target, **headers) for target, headers in fits_not] == ["web"] * 4


def test_a_path_expression_is_anchored_at_the_start_only_unless_the_group_says_full() -> None:
    for how, expected in (("start", ["web-v2", "web-v2", "web-v2", "web"]), ("full", ["web-v2", "web", "web", "web"])):
        one = group("g", "{pathRegex: /api}", **{"meshproxy.dev/path-match": how})
        entry = service_entry(one, matching_split("ab", "g", web_v2=1))
        assert [goes_to(entry, f"GET {path}") for path in ("/api?x", "/api/v1", "/apix", "/x/api")] == expected


def test_of_matching_splits_the_one_with_more_conditions_comes_first_then_the_oldest_then_by_name() -> None:
    one, two = group("one", "{methods: [GET]}"), group("two", "{methods: [GET], headers: {x: '1'}}")
    entry = service_entry(one, two, matching_split("a", "one", web_v1=1), matching_split("b", "two", web_v2=1))
    assert [goes_to(entry), goes_to(entry, x="1")] == ["web-v1", "web-v2"]
    old = matching_split("z", "one", {"creationTimestamp": "2026-01-01T00:00:00Z"}, web_v1=1)
    new = matching_split("a", "one", {"creationTimestamp": "2026-02-01T00:00:00Z"}, web_v2=1)
    assert goes_to(service_entry(one, old, new)) == "web-v1"
    assert goes_to(service_entry(one, matching_split("b", "one", web_v2=1), matching_split("a", "one", web_v1=1))) == "web-v1"


def test_a_backend_without_the_port_takes_no_part_on_it() -> None:
    web = service("web", {"port": 80, "name": "a"}, {"port": 81, "name": "b"})
    both = service("web-v1", {"port": 80, "name": "a"}, {"port": 81, "name": "b"})
    made = tables(web, both, service("web-v2"), group("g", "{methods: [GET]}"), matching_split("ab", "g", web_v1=1, web_v2=1))
    entries = [made.service("shop", "web", port) for port in (80, 81)]
    assert [goes_to(entry) for entry in entries if entry is not None] == ["web-v1+web-v2", "web-v1"]


def test_a_split_whose_backend_is_the_root_means_its_own_endpoints() -> None:
    entry = service_entry(
        group("g", "{methods: [GET]}"), matching_split("ab", "g", web=9, web_v2=1), split("web", **{"web-v1": 1})
    )
    found = taken_by(entry, request())
    assert isinstance(found, RouteEntry)
    assert [(leaf.name, leaf.weight, len(leaf.endpoints)) for leaf in found.backends] == [("web", 9000, 1), ("web-v2", 1000, 1)]


def test_where_routes_are_attached_they_come_before_splits() -> None:
    entry = service_entry(group("g", "{methods: [GET]}"), matching_split("ab", "g", web_v1=1), http_route("r", to("web-v2")))
    assert goes_to(entry) == "web-v2"


def test_the_share_of_a_backend_without_endpoints_is_moved_only_where_that_is_asked_for() -> None:
    def weights(**annotations: str) -> list[int]:
        one = matching_split("ab", "g", {"annotations": annotations}, web_v1=9, web_v2=1)
        entry = tables(*WEB, ENDPOINTS[2], group("g", "{methods: [GET]}"), one).service("shop", "web", 80)
        assert entry is not None
        found = match(entry, request())
        assert found is not None
        return found.weights

    assert weights() == [9000, 1000]
    assert weights(**{"meshproxy.dev/empty-backend": "redistribute"}) == [0, 1000]


# ---------------------------------------------------------------- compiling


WORLD = [
    *WEB,
    *ENDPOINTS,
    group("g", "{methods: [GET]}"),
    matching_split("ab", "g", web_v1=1),
    http_route("r", to("web-v2"), parent="{group: '', kind: Service, name: web-v3}"),
]


def replaced(objects: list[Object], kind: str, name: str) -> list[Object]:
    return [again(obj) if (obj["kind"], obj["metadata"]["name"]) == (kind, name) else obj for obj in objects]


@pytest.mark.parametrize(
    ("kind", "name", "made"),
    [("HTTPRouteGroup", "g", 1), ("TrafficSplit", "ab", 1), ("HTTPRoute", "r", 1), ("Service", "web-v2", 3)],
)
def test_a_change_compiles_what_refers_to_it_and_nothing_else(kind: str, name: str, made: int) -> None:
    memo = Memo()
    compiled(*WORLD, memo=memo)
    compiled(*replaced(WORLD, kind, name), memo=memo)
    assert memo.made == made


def test_a_backend_that_comes_into_being_changes_the_route_that_names_it() -> None:
    gone = http_route("r", "{backendRefs: [{name: late, port: 80}]}")
    memo = Memo()
    before = compiled(*WEB, gone, memo=memo)
    after = compiled(*WEB, gone, service("late"), memo=memo)
    key = next(key for key in before.resources if key[1] == "shop/web" and before.resources[key].HasField("service"))
    assert before.resources[key].service.routes[0].backends[0].refuse == 500
    assert after.resources[key].service.routes[0].backends[0].refuse == 0


def test_the_order_of_objects_changes_nothing() -> None:
    hashes = set()
    for seed in range(5):
        objects = list(WORLD)
        random.Random(seed).shuffle(objects)
        hashes.add(tuple(sorted((name, one.hash) for (_, name), one in compiled(*objects).resources.items())))
    assert len(hashes) == 1


def test_a_service_without_routes_is_compiled_as_ever() -> None:
    entry = service_entry()
    assert entry.matches is None
    assert entry.routes == {}

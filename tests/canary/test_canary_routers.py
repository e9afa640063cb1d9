"""What the routers write does what the Canary says: asked of the tables that proxies have."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from canary_plays import canary_object
from router_world import RUNNING, asked, entry, rule, shared, shares, wanted
from routing_objects import request

from control.canary.declared.fields import SpecError
from control.canary.declared.spec import CanarySpec, parse
from control.canary.machine.routing import Routing
from control.canary.machine.status import Phase
from control.canary.routers import cookies, router_for, with_cookies
from meshproxy.policy.filters import changed
from meshproxy.policy.service import RouteEntry, ServiceEntry
from meshproxy.wire.message import Field

PROVIDERS = ["", "linkerd", "osm", "smi:v1alpha1", "smi:v1alpha3:istio", "gatewayapi:v1", "gatewayapi:v1beta1"]
PRIMARY = "podinfo-primary 100"
CANARY = "podinfo-canary 100"
INSIDER = [
    {"headers": {"x-canary": {"exact": "insider"}}},
    {"headers": {"cookie": {"regex": "^(.*?;)?(canary=always)(;.*)?$"}}},
]
AFFINITY = {"cookieName": "flagger-cookie", "maxAge": 600, "path": "/", "secure": True, "sameSite": "Lax"}


def kinds(spec: CanarySpec) -> list[str]:
    return [obj["kind"] for obj in wanted(spec, Routing(10))]


# ---------------------------------------------------------------- weights


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(
    ("canary", "expected"),
    [
        (0, PRIMARY),
        (10, "podinfo-primary 90, podinfo-canary 10"),
        (0.05, "podinfo-primary 99.95, podinfo-canary 0.05"),
        (33.33, "podinfo-primary 66.67, podinfo-canary 33.33"),
        (100, CANARY),
    ],
)
def test_the_weights_are_those_of_the_routing_to_a_hundredth_of_a_percent(provider: str, canary: float, expected: str) -> None:
    assert shares(asked(provider=provider), Routing(canary)) == expected


@pytest.mark.parametrize("canary", [0, 1, 7, 0.01, 0.29, 99.99, 100])
def test_what_was_written_is_read_back_as_the_same_routing(canary: float) -> None:
    found = Routing.of_weights(*Routing(canary).weights)
    assert found == Routing(canary)
    assert sum(Routing(canary).weights) in (100, 10_000)


def test_whole_percents_are_written_as_flagger_writes_them() -> None:
    (split,) = wanted(asked(), Routing(10))
    assert (split["apiVersion"], split["metadata"]["name"]) == ("split.smi-spec.io/v1alpha2", "podinfo")
    assert split["spec"]["backends"] == [
        {"service": "podinfo-canary", "weight": 10},
        {"service": "podinfo-primary", "weight": 90},
    ]
    (route,) = wanted(asked(provider="gatewayapi:v1"), Routing(10))
    assert route["spec"]["rules"] == [
        {
            "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
            "backendRefs": [
                {"group": "", "kind": "Service", "name": "podinfo-primary", "port": 80, "weight": 90},
                {"group": "", "kind": "Service", "name": "podinfo-canary", "port": 80, "weight": 10},
            ],
        }
    ]


def test_the_same_canary_gives_the_same_objects_and_the_canary_owns_them() -> None:
    for spec in (asked({"match": INSIDER}), asked({"sessionAffinity": AFFINITY}, provider="gatewayapi:v1", timeout="3s")):
        made = wanted(spec, Routing(10))
        assert made == wanted(spec, Routing(10))
        assert all(obj["metadata"]["ownerReferences"][0]["uid"] == "u-1" for obj in made)


def test_provider_kubernetes_shares_nothing_out() -> None:
    spec = asked({"iterations": 5, "stepWeight": 0, "match": INSIDER, "mirror": True}, provider="kubernetes")
    assert router_for(spec).wanted(spec, Routing(0), RUNNING) == []
    assert shared(entry(spec)) == "podinfo 100"
    assert spec.routes.ignored == ("spec.analysis.match, mirror and sessionAffinity: provider kubernetes routes no requests",)


def test_the_root_of_a_split_is_the_first_host_that_is_a_service_of_the_namespace() -> None:
    for host, root in (("shop", "shop"), ("shop.test.svc.cluster.local", "shop"), ("app.example.com", "podinfo")):
        (split,) = wanted(asked(hosts=[host]), Routing(0))
        assert split["spec"]["service"] == root


# ---------------------------------------------------------------- A/B


@pytest.mark.parametrize("provider", ["smi:v1alpha2", "gatewayapi:v1"])
def test_in_an_ab_test_only_requests_that_match_see_the_canary(provider: str) -> None:
    spec = asked({"iterations": 10, "stepWeight": 0, "match": INSIDER}, provider=provider)
    assert shares(spec, Routing(100)) == PRIMARY
    assert shares(spec, Routing(100), x_canary="insider") == CANARY
    assert shares(spec, Routing(100), x_canary="insiders") == PRIMARY
    assert shares(spec, Routing(100), cookie="a=b;canary=always;c=d") == CANARY
    assert shares(spec, Routing(100), cookie="canary=never") == PRIMARY
    assert shares(spec, Routing(0), x_canary="insider") == PRIMARY
    assert shares(spec, Routing(20), x_canary="insider") == "podinfo-primary 80, podinfo-canary 20"


@pytest.mark.parametrize("provider", ["smi:v1alpha2", "gatewayapi:v1"])
def test_when_the_canary_is_the_only_one_left_everyone_gets_it(provider: str) -> None:
    spec = asked({"match": INSIDER}, provider=provider)
    assert shares(spec, Routing(100, everyone=True)) == CANARY
    assert shares(spec, Routing(100, everyone=True), x_canary="insider") == CANARY


def test_ab_on_smi_is_a_split_with_matches_beside_the_one_for_the_rest() -> None:
    assert kinds(asked({"match": INSIDER}, provider="linkerd")) == ["HTTPRouteGroup", "TrafficSplit", "TrafficSplit"]


@pytest.mark.parametrize("provider", ["smi:v1alpha2", "gatewayapi:v1"])
@pytest.mark.parametrize(
    ("match", "fits", "fits_not"),
    [
        ({"uri": {"exact": "/a.b"}}, ["GET /a.b", "GET /a.b?x"], ["GET /a.b/", "GET /axb"]),
        ({"uri": {"prefix": "/api/"}}, ["GET /api", "GET /api/v1"], ["GET /apix", "GET /"]),
        ({"uri": {"regex": "/[0-9]+"}}, ["GET /12"], ["GET /12/3", "GET /a"]),
        ({"uri": {"prefix": "/Api"}, "ignoreUriCase": True}, ["GET /api/v1", "GET /API"], ["GET /apis"]),
        ({"uri": {"exact": "/Api"}, "ignoreUriCase": True}, ["GET /api"], ["GET /api/v1"]),
        ({"uri": {"prefix": "/"}}, ["GET /", "POST /x"], []),
        ({"method": {"exact": "POST"}}, ["POST /"], ["GET /"]),
        ({"uri": {"prefix": "/a"}, "method": {"exact": "POST"}}, ["POST /a"], ["GET /a", "POST /b"]),
        ({"queryParams": {"v": {"exact": "2"}}}, ["GET /?v=2"], ["GET /?v=1", "GET /"]),
        ({"authority": {"exact": "web.shop"}}, ["GET /"], []),
        ({"authority": {"exact": "other"}}, [], ["GET /"]),
    ],
)
def test_a_match_fits_what_it_says_and_nothing_else(
    provider: str, match: dict[str, Any], fits: list[str], fits_not: list[str]
) -> None:
    found = entry(spec := asked({"match": [match]}, provider=provider), *wanted(spec, Routing(100)))
    assert [shared(found, line) for line in fits] == [CANARY] * len(fits)
    assert [shared(found, line) for line in fits_not] == [PRIMARY] * len(fits_not)


@pytest.mark.parametrize("provider", ["smi:v1alpha2", "gatewayapi:v1"])
@pytest.mark.parametrize(
    ("text", "fits", "fits_not"),
    [
        ({"exact": "a+b"}, ["a+b"], ["aab", "a+bc"]),
        ({"prefix": "v1."}, ["v1.", "v1.2"], ["v12", "xv1."]),
        ({"suffix": ".io"}, ["a.io"], ["a.ios", "aio"]),
        ({"regex": "(?i).*firefox.*"}, ["A FireFox/9"], ["Chrome"]),
        ({}, ["anything"], []),
    ],
)
def test_a_header_is_compared_as_the_words_say(
    provider: str, text: dict[str, str], fits: list[str], fits_not: list[str]
) -> None:
    spec = asked({"match": [{"headers": {"X-Kind": text}}]}, provider=provider)
    found = entry(spec, *wanted(spec, Routing(100)))
    assert [shared(found, x_kind=value) for value in fits] == [CANARY] * len(fits)
    assert [shared(found, x_kind=value) for value in fits_not] == [PRIMARY] * len(fits_not)
    assert shared(found) == PRIMARY


def test_entries_are_alternatives_and_all_of_an_entry_must_fit() -> None:
    match = [{"headers": {"a": {"exact": "1"}, "b": {"exact": "2"}}}, {"headers": {"c": {"exact": "3"}}}]
    for provider in ("", "gatewayapi:v1"):
        spec = asked({"match": match}, provider=provider)
        found = entry(spec, *wanted(spec, Routing(100)))
        assert [shared(found, **headers) for headers in ({"a": "1"}, {"a": "1", "b": "2"}, {"c": "3"})] == [
            PRIMARY,
            CANARY,
            CANARY,
        ]


@pytest.mark.parametrize("provider", ["", "gatewayapi:v1"])
def test_service_match_says_who_is_answered_and_analysis_match_narrows_it(provider: str) -> None:
    spec = asked(
        {"match": INSIDER}, provider=provider, match=[{"uri": {"prefix": "/api"}, "headers": {"tenant": {"exact": "a"}}}]
    )
    found = entry(spec, *wanted(spec, Routing(100)))
    assert shared(found, "GET /api", tenant="a") == PRIMARY
    assert shared(found, "GET /api", tenant="a", x_canary="insider") == CANARY
    assert shared(found, "GET /api", tenant="b", x_canary="insider") == "404"
    assert shared(found, "GET /", x_canary="insider") == "404"


# ---------------------------------------------------------------- copies


@pytest.mark.parametrize("provider", ["", "gatewayapi:v1"])
def test_while_mirrored_the_canary_gets_copies_and_the_primary_answers(provider: str) -> None:
    spec = asked({"mirror": True, "mirrorWeight": 30}, provider=provider)
    found = rule(entry(spec, *wanted(spec, Routing(0, mirrored=True))))
    assert isinstance(found, RouteEntry)
    assert [(one.backend.name, one.numerator, one.denominator) for one in found.mirrors] == [("podinfo-canary", 30, 100)]
    assert shares(spec, Routing(0, mirrored=True)) == PRIMARY
    found = rule(entry(spec, *wanted(spec, Routing(10))))
    assert isinstance(found, RouteEntry)
    assert found.mirrors == []


# ---------------------------------------------------------------- cookies


def cookie_of(spec: CanarySpec, status: Any = RUNNING) -> str:
    return cookies(spec, status, Routing(10)).canary


def set_by(spec: CanarySpec, routing: Routing, backend: str, status: Any = RUNNING, **headers: str) -> list[str]:
    """The Set-Cookie values that an answer of `backend` gets on its way."""
    answer = answered(rule(entry(spec, *wanted(spec, routing, status)), **headers), backend)
    return [value for name, value in answer if name == "set-cookie"]


def answered(found: RouteEntry | ServiceEntry, backend: str, *fields: Field) -> list[tuple[str, str]]:
    """The fields of an answer of `backend` as its client gets them."""
    assert isinstance(found, RouteEntry)
    leaf = next(leaf for leaf in found.backends if leaf.name == backend)
    answer = list(fields)
    for changes in (leaf.response_headers, found.spec.response_headers):
        if changes is not None:
            answer = changes.apply(answer)
    return [(field.name.decode(), field.value.decode()) for field in answer]


@pytest.mark.parametrize("provider", ["", "gatewayapi:v1"])
def test_who_saw_the_canary_once_stays_with_it_whatever_the_weights(provider: str) -> None:
    spec = asked({"sessionAffinity": AFFINITY}, provider=provider)
    cookie = cookie_of(spec)
    assert cookie.startswith("flagger-cookie=")
    assert set_by(spec, Routing(10), "podinfo-canary") == [f"{cookie}; Max-Age=600; Path=/; SameSite=Lax; Secure"]
    assert set_by(spec, Routing(10), "podinfo-primary") == []
    assert shares(spec, Routing(10), cookie=f"a=b; {cookie}") == CANARY
    assert shares(spec, Routing(10), cookie="flagger-cookie=other") == "podinfo-primary 90, podinfo-canary 10"
    assert shares(spec, Routing(10)) == "podinfo-primary 90, podinfo-canary 10"


def test_with_a_primary_cookie_who_saw_the_primary_stays_there_for_an_interval() -> None:
    spec = asked({"sessionAffinity": {**AFFINITY, "primaryCookieName": "primary-cookie"}}, provider="gatewayapi:v1")
    held = cookies(spec, RUNNING, Routing(10))
    assert set_by(spec, Routing(10), "podinfo-primary") == [f"{held.primary}; Max-Age=10; Path=/; SameSite=Lax; Secure"]
    assert shares(spec, Routing(10), cookie=held.primary) == PRIMARY
    assert shares(spec, Routing(10), cookie=f"{held.primary}; {held.canary}") == CANARY


def test_after_a_promotion_that_failed_nobody_is_kept_with_the_broken_primary() -> None:
    spec = asked({"sessionAffinity": {**AFFINITY, "primaryCookieName": "primary-cookie"}})
    during = with_cookies(spec, RUNNING, Routing(50))
    primary = during.primary_session_affinity_cookie
    assert shares(spec, Routing(100), status=replace(during, phase=Phase.PROMOTING), cookie=primary) == PRIMARY
    failed = replace(with_cookies(spec, during, Routing(100)), phase=Phase.FAILED, canary_weight=100)
    assert shares(spec, Routing(100), status=failed, cookie=primary) == CANARY
    assert shares(spec, Routing(100), status=failed) == CANARY


def test_after_the_run_an_old_cookie_goes_to_the_primary_and_is_taken_back() -> None:
    spec = asked({"sessionAffinity": AFFINITY}, provider="gatewayapi:v1")
    during = with_cookies(spec, RUNNING, Routing(10))
    after = with_cookies(spec, during, Routing(0))
    assert (after.session_affinity_cookie, after.previous_session_affinity_cookie) == ("", cookie_of(spec))
    old = cookie_of(spec)
    for status in (during, after):  # the objects are the same, whether written before or after the status was stored
        assert shares(spec, Routing(0), status=status, cookie=old) == PRIMARY
        assert set_by(spec, Routing(0), "podinfo-primary", status, cookie=old) == [
            f"{old}; Max-Age=-1; Path=/; SameSite=Lax; Secure"
        ]
        assert set_by(spec, Routing(0), "podinfo-primary", status) == []
    assert wanted(spec, Routing(0), during) == wanted(spec, Routing(0), after)


def test_each_run_has_a_cookie_of_its_own_and_keeps_it() -> None:
    spec = asked({"sessionAffinity": AFFINITY})
    during = with_cookies(spec, RUNNING, Routing(10))
    assert with_cookies(spec, during, Routing(60)) == during
    assert with_cookies(spec, during, Routing(10)) == with_cookies(spec, RUNNING, Routing(10))
    over = with_cookies(spec, during, Routing(0))
    again = with_cookies(spec, replace(over, last_applied="r3"), Routing(10))
    assert again.session_affinity_cookie != during.session_affinity_cookie
    assert again.previous_session_affinity_cookie == during.session_affinity_cookie


def test_cookies_join_the_response_headers_that_the_service_declares() -> None:
    spec = asked(
        {"sessionAffinity": AFFINITY},
        provider="gatewayapi:v1",
        headers={"response": {"add": {"x-a": "1"}, "set": {"x-b": "2"}}},
    )
    status = with_cookies(spec, with_cookies(spec, RUNNING, Routing(10)), Routing(0))
    found = rule(entry(spec, *wanted(spec, Routing(0), status)), cookie=status.previous_session_affinity_cookie)
    names = [name for name, _ in answered(found, "podinfo-primary", Field(b"x-b", b"1"))]
    assert sorted(names) == ["set-cookie", "x-a", "x-b"]


def test_where_everyone_who_matches_sees_the_canary_no_cookie_is_needed() -> None:
    spec = asked({"match": INSIDER, "sessionAffinity": AFFINITY})
    assert spec.routes.affinity is None
    assert spec.routes.ignored == ("spec.analysis.sessionAffinity: with match, whoever matches sees the canary each time",)


# ---------------------------------------------------------------- what is done to each request


@pytest.mark.parametrize("provider", ["", "gatewayapi:v1"])
def test_times_and_retries_of_the_service_hold(provider: str) -> None:
    retries = {"attempts": 3, "perTryTimeout": "1s", "retryOn": "gateway-error,connect-failure,429,unavailable"}
    spec = asked(provider=provider, timeout="5s", retries=retries)
    found = rule(entry(spec, *wanted(spec, Routing(10))))
    assert isinstance(found, RouteEntry)
    assert (found.timeout_s, found.spec.try_timeout_s) == (5.0, 1.0)
    (route,) = wanted(spec, Routing(10))
    assert route["spec"]["rules"][0]["retry"] == {"attempts": 3, "codes": [429, 502, 503, 504]}
    assert found.retry.attempts == 3
    assert spec.routes.ignored == ("spec.service.retries.retryOn: unavailable (HTTP status codes and resets can be retried)",)


def test_no_attempts_are_no_retries() -> None:
    (route,) = wanted(asked(timeout="5s", retries={"attempts": 0}), Routing(10))
    assert all("retry" not in one for one in route["spec"]["rules"])
    assert route["spec"]["rules"][0]["timeouts"] == {"request": "5s"}


@pytest.mark.parametrize("provider", ["", "gatewayapi:v1"])
def test_headers_and_rewrites_of_the_service_hold(provider: str) -> None:
    spec = asked(
        provider=provider,
        headers={"request": {"add": {"x-forwarded-by": "mesh"}, "set": {"l5d-dst-override": "x"}, "remove": ["x-debug"]}},
        match=[{"uri": {"prefix": "/a"}}, {"uri": {"prefix": "/b"}}],
        rewrite={"uri": "/v2", "authority": "inner.test", "type": "ReplacePrefixMatch"},
    )
    table, head = entry(spec, *wanted(spec, Routing(10))), request("GET /b/c", x_debug="1")
    found = rule(table, "GET /b/c")
    assert isinstance(found, RouteEntry)
    assert table.matches is not None
    sent = changed(head, table.matches.find(head), table.matches.on_paths, found.spec.rewrite, found.spec.request_headers)
    assert (sent.path, sent.authority) == (b"/v2/c", b"inner.test")
    assert [(field.name, field.value) for field in sent.fields] == [(b"x-forwarded-by", b"mesh")]
    assert "l5d-dst-override: it frames the message" in spec.routes.ignored[0]
    assert shares(spec, Routing(10), "GET /a") == "podinfo-primary 90, podinfo-canary 10"


def test_mirrors_of_the_service_always_get_a_copy() -> None:
    spec = asked(mirror=[{"backendRef": {"name": "podinfo-canary", "port": 80}}])
    found = rule(entry(spec, *wanted(spec, Routing(0))))
    assert isinstance(found, RouteEntry)
    assert [one.backend.name for one in found.mirrors] == ["podinfo-canary"]


def test_a_split_stays_a_split_unless_more_is_asked_than_it_can_say() -> None:
    assert kinds(asked(hosts=["podinfo"], apex={"labels": {"a": "b"}})) == ["TrafficSplit"]
    assert kinds(asked({"match": [{"queryParams": {"v": {"exact": "2"}}}]})) == ["HTTPRoute"]
    for more in ({"timeout": "1s"}, {"match": [{"uri": {"prefix": "/a"}}]}, {"rewrite": {"authority": "a.b"}}):
        assert kinds(asked(**more)) == ["HTTPRoute"]


def test_the_users_word_on_stickiness_goes_to_the_split() -> None:
    spec = asked(apex={"annotations": {"meshproxy.dev/sticky": "cookie=session", "other": "x"}})
    (split,) = wanted(spec, Routing(10))
    assert split["metadata"]["annotations"] == {"meshproxy.dev/sticky": "cookie=session"}
    assert entry(spec, split).sticky is not None


# ---------------------------------------------------------------- parents


def parents(*refs: dict[str, Any]) -> list[dict[str, Any]]:
    (route,) = wanted(asked(provider="gatewayapi:v1", gatewayRefs=list(refs)), Routing(0))
    return route["spec"]["parentRefs"]


def test_parents_are_as_written_and_one_is_the_service() -> None:
    mesh = {"name": "podinfo", "namespace": "test", "group": "core", "kind": "Service", "port": 80}
    outside = {"name": "gateway", "namespace": "istio-ingress"}
    apex = {"group": "", "kind": "Service", "name": "podinfo", "port": 80}
    assert parents(mesh) == [mesh]
    assert parents(outside, mesh) == [outside, mesh]
    assert parents() == [apex]
    assert parents(outside) == [outside, apex]


def test_other_ports_of_the_apex_are_not_shared_out() -> None:
    obj = canary_object(provider="gatewayapi:v1", service={"port": 80, "targetPort": "http", "portDiscovery": True})
    spec = parse(obj)
    (route,) = wanted(spec, Routing(100))
    assert [ref["port"] for ref in route["spec"]["parentRefs"]] == [80]


# ---------------------------------------------------------------- what cannot be done is told


@pytest.mark.parametrize(
    ("analysis", "more", "text"),
    [
        ({}, {"corsPolicy": {"allowOrigin": ["*"]}}, "spec.service.corsPolicy is not supported"),
        ({}, {"headless": True, "timeout": "1s"}, "spec.service.headless: no HTTPRoute can be attached"),
        ({"match": [{"withoutHeaders": {"a": {}}}]}, {}, "spec.analysis.match[0].withoutHeaders is not supported"),
        ({"match": [{"sourceLabels": {"a": "b"}}]}, {}, "spec.analysis.match[0].sourceLabels is not supported"),
        ({"match": [{"port": 81}]}, {}, "spec.analysis.match[0].port 81: only requests to spec.service.port 80"),
        ({"match": [{"method": {"regex": "G.*"}}]}, {}, "spec.analysis.match[0].method: only exact methods"),
        ({}, {"match": [{"uriX": {}}]}, "spec.service.match[0].uriX is not supported"),
    ],
)
def test_what_the_mesh_cannot_do_is_refused_by_name(analysis: dict[str, Any], more: dict[str, Any], text: str) -> None:
    spec = parse(canary_object(analysis, service={"port": 80, **more}))
    assert [reason for reason in spec.refused if reason.startswith(text)] != []


def test_an_unknown_provider_is_refused_with_the_list() -> None:
    spec = parse(canary_object(provider="istio"))
    assert any(r.startswith("spec.provider istio is not supported") and "gatewayapi:v1" in r for r in spec.refused)


def test_fields_of_other_meshes_are_ignored_and_told() -> None:
    spec = asked(gateways=["mesh"], trafficPolicy={"tls": {"mode": "DISABLE"}})
    assert [reason.split(":")[0] for reason in spec.routes.ignored] == ["spec.service.gateways", "spec.service.trafficPolicy"]


@pytest.mark.parametrize(
    ("analysis", "more", "text"),
    [
        ({"match": [{"headers": {"a": {"regex": "(?=b)"}}}]}, {}, r"spec\.analysis\.match\[0\]\.headers\.a\.regex"),
        ({"match": [{"headers": {"a": {"regex": "b", "exact": "c"}}}]}, {}, "has exact and regex, expected one"),
        ({"match": [{"uri": {"prefix": "api"}}]}, {}, "expected a path that begins with /"),
        ({"match": [{"method": {"exact": "FETCH"}}]}, {}, "found 'FETCH', expected GET"),
        ({"match": "x"}, {}, r"spec\.analysis\.match: expected a list"),
        ({}, {"timeout": "soon"}, r"spec\.service\.timeout: 'soon' is not a duration"),
        ({}, {"timeout": "25h"}, r"spec\.service\.timeout: 25h is more than 24h"),
        ({}, {"retries": {"attempts": 1, "perTryTimeout": "25h"}}, r"perTryTimeout: 25h is more than 24h"),
        ({}, {"timeout": "1s", "backendTimeout": "2s"}, r"spec\.service\.timeout: 1s is shorter"),
        ({"match": [{}] * 9}, {"match": [{}] * 9, "timeout": "1s"}, "together 81 kinds of requests, expected at most 64"),
        (
            {},
            {"match": [{"uri": {"prefix": "/a"}}] * 17, "rewrite": {"uri": "/", "type": "ReplacePrefixMatch"}},
            "at most 16 in all",
        ),
        ({"match": [{"uri": {"exact": "/a"}}]}, {"rewrite": {"uri": "/", "type": "ReplacePrefixMatch"}}, "wants a uri.prefix"),
        ({}, {"rewrite": {"uri": "x"}}, r"spec\.service\.rewrite\.uri: found 'x'"),
        (
            {},
            {"rewrite": {"uri": "/", "type": "ReplacePrefixMatch"}, "match": [{"uri": {"exact": "/a"}}]},
            "ReplacePrefixMatch",
        ),
        ({}, {"headers": {"request": {"add": {"a": "1"}, "set": {"A": "2"}}}}, "is named twice"),
        ({}, {"mirror": [{"backendRef": {"name": "x"}}]}, r"spec\.service\.mirror\[0\]\.backendRef\.port"),
        ({}, {"gatewayRefs": [{"namespace": "x"}]}, r"spec\.service\.gatewayRefs\[0\]\.name"),
        ({"sessionAffinity": {"cookieName": "a b"}}, {}, "'a b' cannot name a cookie"),
        ({"sessionAffinity": {"cookieName": "a", "primaryCookieName": "a"}}, {}, "must not be the same"),
        ({"sessionAffinity": {"cookieName": "a", "path": "/;x"}}, {}, "cannot stand in a cookie"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_where_it_stands(
    analysis: dict[str, Any], more: dict[str, Any], text: str
) -> None:
    with pytest.raises(SpecError, match=text):
        parse(canary_object(analysis, service={"port": 80, **more}))


@pytest.mark.parametrize("provider", ["", "gatewayapi:v1"])
def test_where_both_speak_of_the_path_the_trial_is_a_part_of_the_service(provider: str) -> None:
    spec = asked({"match": [{"uri": {"exact": "/api/beta"}}]}, provider=provider, match=[{"uri": {"prefix": "/api"}}])
    found = entry(spec, *wanted(spec, Routing(100)))
    assert [shared(found, line) for line in ("GET /api/beta", "GET /api/x", "GET /")] == [CANARY, PRIMARY, "404"]

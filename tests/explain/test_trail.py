"""The trail of one request: what it says of tables and live state, and that saying it changes nothing."""

from __future__ import annotations

import pytest

from meshproxy.cli.explain import has_address
from meshproxy.explain.inbound import admission
from meshproxy.explain.outbound import trail
from meshproxy.explain.question import Question
from meshproxy.explain.show import served, show
from meshproxy.policy.access import Access, AccessRule, HttpMatch
from meshproxy.policy.balancer import LEAST_REQUEST
from meshproxy.policy.breaker import FAILURE, BreakerPolicy
from meshproxy.policy.chooser import MAGLEV, BalancerPolicy
from meshproxy.policy.consistent_hash import HashKey
from meshproxy.policy.deadline import ServiceTimes
from meshproxy.policy.declared import BackendSpec, RouteSpec, ServiceSpec
from meshproxy.policy.filters import HeaderChanges, NewPath, Redirect, Rewrite
from meshproxy.policy.match import EXACT, PREFIX, Match, Value
from meshproxy.policy.regex import Regex
from meshproxy.policy.retry import parse_policy
from meshproxy.policy.service import EndpointEntry
from meshproxy.policy.tables import build_tables
from meshproxy.proxy.context import Context
from meshproxy.proxy.inbound import ALL_AUTHENTICATED, ALL_UNAUTHENTICATED, DENY, InboundPort
from meshproxy.proxy.outbound import Outbound
from meshproxy.proxy.settings import Settings
from meshproxy.proxy.timed import Times
from meshproxy.proxy.tls import Credentials
from meshproxy.telemetry.registry import Registry

WEB = "spiffe://cluster.local/ns/shop/sa/web"


class NoLoop:
    """A loop for sides that are asked and never run: nothing may be scheduled on it."""


def entries(service: str, count: int, **more: object) -> list[EndpointEntry]:
    net = {"stable": 1, "canary": 2, "web": 3}[service]
    return [
        EndpointEntry(f"127.9.{net}.{i + 1}", 80, 8080, f"spiffe://cluster.local/ns/shop/sa/{service}", 4143, **more)
        for i in range(count)
    ]


ROUTES = [
    RouteSpec("rule 0", [BackendSpec("shop/canary")]),
    RouteSpec(
        "rule 1",
        [BackendSpec("shop/stable", 9), BackendSpec("shop/canary", 1)],
        request_headers=HeaderChanges((("x-from", "route"),), remove=("x-old",)),
        rewrite=Rewrite(path=NewPath(False, "/w")),
        timeout_s=2.0,
        try_timeout_s=0.5,
    ),
    RouteSpec("rule 2", redirect=Redirect(307, host="else.example")),
    RouteSpec("rule 3", [BackendSpec("shop/stable", 1), BackendSpec("shop/canary", 1)], sticky=HashKey("cookie=who")),
    RouteSpec("rule 4", [BackendSpec("shop/gone")]),
]
MATCHES = [
    Match(0, Value(PREFIX, "/a"), (b"GET",), (Value(EXACT, "always", "x-canary"),)),
    Match(1, Value(PREFIX, "/a")),
    Match(2, Value(EXACT, "/old")),
    Match(3, Value(EXACT, "/s")),
    Match(4, Value(EXACT, "/g"), query=(Value(EXACT, "1", "q"),)),
]
WRONG = [
    RouteSpec("HTTPRoute shop/web rule 0", [BackendSpec("shop/wbe", 1, 80, 500)]),
    RouteSpec("HTTPRoute shop/web rule 1", [BackendSpec("shop/stable", 3), BackendSpec("shop/wbe", 1, 80, 500)]),
]
WRONG_MATCHES = [Match(0, Value(EXACT, "/wrong")), Match(1, Value(EXACT, "/half-wrong"))]


def side(
    balancer: BalancerPolicy | None = None,
    routed: bool = True,
    stable: int = 3,
    routes: list[RouteSpec] = ROUTES,
    matches: list[Match] = MATCHES,
) -> Outbound:
    ctx = Context(NoLoop(), Settings(), Registry(), seed=1, request_id_prefix=b"t")
    made = Outbound(ctx, Credentials(), "shop", frozenset(("127.9.0.1:4140",)))
    services = [
        ServiceSpec("shop", "stable", [(80, 0)], balancer=balancer),
        ServiceSpec("shop", "canary", [(80, 0)]),
        ServiceSpec(
            "shop",
            "web",
            [(80, 0)],
            [("shop/stable", 3), ("shop/canary", 1)],
            routes=routes if routed else [],
            matches=[(match, ()) for match in matches] if routed else [],
        ),
    ]
    made.apply(build_tables(1, services, {"shop/stable": entries("stable", stable), "shop/canary": entries("canary", 1)}))
    return made


def ask(outbound: Outbound, line: str, *headers: str) -> dict:
    method, _, url = line.partition(" ")
    found = trail(outbound, Question.parse(method, url, headers).head(), outbound.ctx.now + 1.0)
    show({**found, "caller": {"pod": "p", "namespace": "shop", "identity": WEB}})  # every trail can be printed
    return found


# ---------------------------------------------------------------- the name


@pytest.mark.parametrize(
    ("url", "kind", "how"),
    [
        ("http://web/", "service", "a short name, looked up in the caller's namespace shop, port 80, the default"),
        ("web.shop:80/", "service", "web in namespace shop, port 80"),
        ("http://web.shop.svc.cluster.local/", "service", "web in namespace shop, port 80, the default"),
        ("http://web.shop:81/", "refused", "Service shop/web has no port 81; it has 80"),
        ("http://wob.shop/", "refused", "a name of the mesh, and there is no Service shop/wob"),
        ("http://127.9.0.1:4140/", "refused", "127.9.0.1:4140 is this proxy itself"),
        ("http://127.9.1.2:8080/", "pod", "a meshed pod, by its address: no Service, no rules of one"),
        ("http://elsewhere.example/", "outside", "no Service of the mesh has this name"),
    ],
)
def test_how_a_name_was_read_is_told(url: str, kind: str, how: str) -> None:
    name = ask(side(), f"GET {url}")["name"]
    assert (name["kind"], name["how"]) == (kind, how)


def test_a_short_name_of_another_namespace_is_asked_back_in_full() -> None:
    made = side()
    services = [ServiceSpec(home, "front", [(80, 0)]) for home in ("team", "b", "a", "c")]
    made.apply(build_tables(2, [*services, ServiceSpec("team", "front-end", [(80, 0)])], {}))
    how = "no Service of the caller's namespace shop has this name; did you mean "
    assert ask(made, "GET http://front/")["name"]["how"] == how + "front.a or front.b or front.c?"
    assert ask(made, "GET http://front-end/")["name"]["how"] == how + "front-end.team?"
    assert ask(made, "GET http://end/")["name"]["how"] == "no Service of the mesh has this name"


@pytest.mark.parametrize(("authority", "found"), [("localhost:80", True), ("127.0.0.1:80", True), ("x" * 64 + ":80", False)])
async def test_a_name_outside_the_mesh_is_looked_up(authority: str, found: bool) -> None:
    assert await has_address(authority) is found


@pytest.mark.parametrize(
    ("url", "reason"),
    [("http://wob.shop/", "no_route"), ("http://127.9.0.1:4140/", "loop"), ("http://[::1]/", "bad_authority")],
)
def test_a_name_that_leads_nowhere_is_answered_with_the_reason_the_proxy_gives(url: str, reason: str) -> None:
    found = ask(side(), f"GET {url}")
    assert (found["outcome"]["kind"], found["outcome"]["reason"]) == ("answered", reason)
    assert not served(found)


def test_a_sidecar_without_a_configuration_says_that() -> None:
    ctx = Context(NoLoop(), Settings(), Registry(), seed=1, request_id_prefix=b"t")
    assert ask(Outbound(ctx, Credentials(), "shop", frozenset()), "GET web/")["outcome"]["reason"] == "not_ready"


# ---------------------------------------------------------------- the rule


def test_the_rule_that_takes_a_request_is_named_and_each_other_says_why_it_did_not() -> None:
    found = ask(side(), "GET http://web/a/b?q=2", "x-canary: never")
    assert found["rule"] == "rule 1"
    assert [(one["rule"], one["taken"], one["why"]) for one in found["matches"]] == [
        ("rule 0", False, "header x-canary is never, wanted = always"),
        ("rule 1", True, ""),
        ("rule 2", False, "path is /a/b, wanted = /old"),
        ("rule 3", False, "path is /a/b, wanted = /s"),
        ("rule 4", False, "path is /a/b, wanted = /g"),
    ]


def test_a_rule_that_would_fit_but_comes_later_says_so() -> None:
    found = ask(side(), "GET http://web/a", "x-canary: always")
    assert [(one["rule"], one["why"]) for one in found["matches"][:2]] == [("rule 0", ""), ("rule 1", "comes later")]
    assert ask(side(), "POST http://web/a", "x-canary: always")["matches"][0]["why"] == "method is POST, wanted GET"


def test_where_no_match_fits_the_services_own_backends_are_told() -> None:
    found = ask(side(), "GET http://web/g?q=2")
    assert "rule" not in found
    assert found["matches"][-1]["why"] == "query q is 2, wanted = 1"
    assert [(one["name"], one["share"]) for one in found["backends"]] == [("shop/stable:80", 0.75), ("shop/canary:80", 0.25)]


def test_what_the_rule_changes_and_what_is_sent_is_told() -> None:
    found = ask(side(), "GET http://web/a/x?y=1", "x-old: 1")
    assert found["filters"] == [
        "path: /a/x?y=1 is sent as /w/x?y=1",
        "request header: set x-from: route",
        "request header: remove x-old",
    ]
    assert found["sends"] == {"method": "GET", "url": "http://web/w/x?y=1", "headers": [["x-from", "route"]]}
    assert (found["times"]["request_s"], found["times"]["try_s"]) == (2.0, 0.5)


def test_a_redirect_an_ambiguous_path_and_a_backend_without_endpoints_are_outcomes() -> None:
    assert ask(side(), "GET http://web/old")["outcome"] == {
        "kind": "redirect",
        "status": 307,
        "location": "http://else.example/old",
    }
    assert ask(side(), "GET http://web/a%2fb")["outcome"]["reason"] == "ambiguous_path"
    assert ask(side(), "GET http://web/g?q=1")["outcome"]["reason"] == "no_endpoints"


# ---------------------------------------------------------------- shares


def test_shares_and_what_is_left_of_the_block_are_told() -> None:
    outbound = side()
    route = next(route for key, route in outbound.rules.items() if key.endswith("rule 1"))
    for _ in range(4):
        route.split.draw()
    found = ask(outbound, "GET http://web/a")
    assert [one["share"] for one in found["backends"]] == [0.9, 0.1]
    assert sum(one["left"] for one in found["backends"]) == 6
    before = found["split"]
    for _ in range(20):
        assert ask(outbound, "GET http://web/a")["split"] == before, "asking draws nothing"
    rest = [route.split.draw() for _ in range(6)]
    assert [rest.count(0), rest.count(1)] == before["left"]


def test_a_sticky_key_names_its_backend() -> None:
    outbound = side()
    route = next(route for key, route in outbound.rules.items() if key.endswith("rule 3"))
    for who in ("ann", "bob", "cid", "dee"):
        question = Question.parse("GET", "http://web/s", [f"cookie: who={who}"])
        found = ask(outbound, "GET http://web/s", f"cookie: who={who}")
        assert found["split"]["backend"] == route.rule.draw(route.split, question.head())
    assert ask(outbound, "GET http://web/s")["split"]["backend"] is None


# ---------------------------------------------------------------- endpoints


def test_each_endpoint_has_its_score_and_its_chance() -> None:
    outbound = side(routed=False)
    first, second, third = outbound.routes[("shop/stable:80", False)].backends[0].endpoints
    now = outbound.ctx.now + 1.0
    for endpoint, latency, pending in ((first, 0.2, 0), (second, 0.1, 0), (third, 0.1, 4)):
        endpoint.load.estimate, endpoint.load.stamp, endpoint.load.pending = latency, now, pending
    (backend,) = ask(outbound, "GET http://stable/")["backends"]
    told = [(one["address"], one["cost"], one["pending"], one["chance"]) for one in backend["endpoints"]]
    assert told == [
        ("127.9.1.2", 100.0, 0, round(2 / 3, 4)),
        ("127.9.1.1", 200.0, 0, round(1 / 3, 4)),
        ("127.9.1.3", 500.0, 4, 0.0),
    ]
    assert backend["balancer"] == {"name": "ewma"}


def test_an_ejected_endpoint_says_when_it_is_probed_and_asking_is_no_probe() -> None:
    policy = BreakerPolicy(consecutive=2, min_penalty_s=10.0, jitter=0.0)
    outbound = side(BalancerPolicy(LEAST_REQUEST, breaker=policy), routed=False)
    now = outbound.ctx.now
    sick = outbound.routes[("shop/stable:80", False)].backends[0].endpoints[0]
    for _ in range(2):
        sick.ejection.record(sick, FAILURE, now, now)
    (backend,) = ask(outbound, "GET http://stable/")["backends"]
    assert (backend["ejected"], backend["may_be_ejected"], backend["probe_due"]) == (1, 1, False)
    out = backend["endpoints"][-1]
    assert (out["address"], out["state"]["name"], out["state"]["why"]) == ("127.9.1.1", "ejected", "2 failures in a row")
    assert out["state"]["probe_in_s"] == pytest.approx(9.0)
    late = trail(outbound, Question.parse("GET", "http://stable/").head(), now + 20.0)
    assert late["backends"][0]["probe_due"]
    assert sick.breaker.due(now + 20.0), "the probe is still to come"


def test_with_all_endpoints_out_the_circuit_is_open_until_a_probe_is_due() -> None:
    policy = BreakerPolicy(consecutive=1, min_penalty_s=10.0, jitter=0.0, max_ejected=1.0)
    outbound = side(BalancerPolicy(breaker=policy), routed=False)
    now = outbound.ctx.now
    for one in outbound.routes[("shop/stable:80", False)].backends[0].endpoints:
        one.ejection.record(one, FAILURE, now, now)
    assert ask(outbound, "GET http://stable/")["outcome"]["reason"] == "circuit_open"
    assert trail(outbound, Question.parse("GET", "stable").head(), now + 20.0)["outcome"]["kind"] == "sent"


def test_a_consistent_hash_names_the_endpoint_of_the_key() -> None:
    outbound = side(BalancerPolicy(MAGLEV, key=HashKey("header=x-user")), routed=False)
    chooser = outbound.routes[("shop/stable:80", False)].backends[0].chooser
    (backend,) = ask(outbound, "GET http://stable/", "x-user: ann")["backends"]
    (keyed,) = [one["address"] for one in backend["endpoints"] if one["keyed"]]
    assert keyed == chooser.pick(outbound.ctx.now, None, b"ann").address
    (backend,) = ask(outbound, "GET http://stable/")["backends"]
    assert not any(one["keyed"] for one in backend["endpoints"])


# ---------------------------------------------------------------- as text


def test_the_text_tells_the_decisions_in_their_order() -> None:
    outbound = side()
    found = ask(outbound, "GET http://web/a", "x-canary: never")
    lines = show({**found, "caller": {"pod": "web-1", "namespace": "shop", "identity": WEB}}).splitlines()
    titles = [line.split()[0] for line in lines[1:] if not line.startswith(" ")]
    expected = "from name route filters timeouts retries shares backend backend access outcome"
    assert list(dict.fromkeys(titles)) == list(dict.fromkeys(expected.split()))
    assert "timeouts   request 2s, each try 500ms" in lines
    assert "shares     weights 9 : 1; 10 draws left in this block" in lines
    (taken,) = [line for line in lines if "-->" in line]
    assert taken.split() == ["-->", "rule", "1", "path", "under", "/a", "fits"]


def test_every_time_that_holds_is_told() -> None:
    outbound = side(routed=False)
    outbound.routes[("shop/stable:80", False)].times = Times(outbound.ctx, ServiceTimes(0.25, 3.0, 10.0, True))
    found = ask(outbound, "GET http://stable/", "x-envoy-expected-rq-timeout-ms: 1500")
    assert {name: value for name, value in found["times"].items() if value} == {
        "response_start_s": 0.25, "response_s": 3.0, "idle_s": 10.0, "expected_ms": 1500,
    }  # fmt: skip
    text = show({**found, "caller": {"pod": "web-1", "namespace": "shop", "identity": WEB}})
    expected = "answer begins within 250ms, answer ends within 3s, idle 10s, the request's own deadline 1500 ms"
    assert f"timeouts   {expected}" in text.splitlines()
    outbound.routes[("shop/stable:80", False)].deadlines = outbound.ctx.deadlines.queue(2.0)
    found = ask(outbound, "GET http://stable/")
    text = show({**found, "caller": {"pod": "web-1", "namespace": "shop", "identity": WEB}})
    assert "request 2s (goes on with it, less what was used), answer begins within 250ms" in text


def test_a_share_that_is_answered_here_is_told_beside_what_is_sent() -> None:
    outbound = side(stable=0)
    found = ask(outbound, "GET http://web/zzz")
    text = show({**found, "caller": {"pod": "web-1", "namespace": "shop", "identity": WEB}})
    assert text.splitlines()[-1] == "outcome    sent; 75% answered by the caller's sidecar: no_endpoints"


def test_a_backend_that_cannot_be_sent_to_is_named_with_the_rule_that_names_it() -> None:
    outbound = side(routes=WRONG, matches=WRONG_MATCHES)
    why = "HTTPRoute shop/web rule 0 names shop/wbe:80, which does not exist or cannot be sent to as declared"
    found = ask(outbound, "GET http://web/wrong")
    assert found["outcome"] == {"kind": "answered", "status": 500, "reason": "backend_invalid", "text": why}
    assert not served(found)
    lines = shown(found)
    assert f"its share is answered here: backend_invalid ({why})" in lines
    assert lines[-1] == f"outcome    answered by the caller's sidecar: 500 backend_invalid ({why})"
    found = ask(outbound, "GET http://web/half-wrong")
    assert served(found)
    why = why.replace("rule 0", "rule 1")
    assert shown(found)[-1] == f"outcome    sent; 25% answered by the caller's sidecar: backend_invalid ({why})"


def shown(found: dict) -> list[str]:
    text = show({**found, "caller": {"pod": "web-1", "namespace": "shop", "identity": WEB}})
    return [line.strip() for line in text.splitlines()]


# ---------------------------------------------------------------- retries; nothing changes


def test_the_budget_is_told_as_it_is() -> None:
    outbound = side(routed=False)
    budget = outbound.routes[("shop/stable:80", False)].budget
    now = outbound.ctx.now
    for _ in range(50):
        budget.deposit(now)
    assert ask(outbound, "GET http://stable/")["retry"]["budget"]["retries_left"] == 110
    assert budget.withdraw(now)
    assert ask(outbound, "POST http://stable/")["retry"]["budget"]["retries_left"] == 109
    assert not ask(outbound, "POST http://stable/")["retry"]["idempotent"]
    assert trail(outbound, Question.parse("GET", "stable").head(), now + 60.0)["retry"]["budget"]["retries_left"] == 100


def test_what_is_tried_again_of_a_post_is_said() -> None:
    outbound = side(routed=False)
    route = outbound.routes[("shop/stable:80", False)]
    caller = {"pod": "web-1", "namespace": "shop", "identity": WEB}
    told = show({**ask(outbound, "POST http://stable/"), "caller": caller})
    assert "POST is not idempotent: tried again only where nobody can have acted on it; a body" in told
    assert "between two tries" not in told, "what found nobody goes elsewhere at once"
    route.retry = parse_policy(["503"], any_method=True)
    route.retry_responses = True
    told = show({**ask(outbound, "POST http://stable/"), "caller": caller})
    assert "only where nobody can have acted on it, or after such an answer; a body" in told
    assert "at least 25ms between two tries" in told


def counted(outbound: Outbound) -> list[bytes]:
    page: bytes = outbound.ctx.registry.render()
    return [line for line in page.splitlines() if not line.startswith(b"process_")]


def test_asking_counts_nothing() -> None:
    outbound = side()
    before = counted(outbound)
    for line in ("GET web/a", "GET web/g?q=1", "GET web/old", "GET elsewhere.example/", "GET wob.shop/", "GET 127.9.1.1:8080/"):
        ask(outbound, line)
    assert counted(outbound) == before
    assert not outbound.external


# ---------------------------------------------------------------- the far side


READS = AccessRule("TrafficTarget shop/reads", (WEB,), (8080,), (HttpMatch((b"GET",), Regex("/price($|/)", False)),))
OTHER = AccessRule("TrafficTarget shop/other", ("spiffe://cluster.local/ns/shop/sa/x",))


def admitted(
    line: str, client: str = WEB, port: int = 8080, mode: int = ALL_AUTHENTICATED, access: Access | None = None
) -> dict:
    method, _, path = line.partition(" ")
    ports = {8080: InboundPort(8080, 0, ("/ready",))}
    return admission(ports, mode, access, None, client, port, Question.parse(method, f"http://prices{path}").head())


def test_who_lets_a_request_in_is_named_and_why_others_do_not() -> None:
    access = Access((OTHER, READS))
    found = admitted("GET //price", access=access)
    assert (found["allowed"], found["by"], found["path"]) == (True, "TrafficTarget shop/reads", "/price")
    assert found["rules"][0] == {"name": "TrafficTarget shop/other", "why_not": f"{WEB} is none of its sources"}
    denied = admitted("PUT /price", access=access)
    assert (denied["allowed"], denied["status"], denied["reason"]) == (False, 403, "access_request")
    assert denied["rules"][1]["why_not"] == "does not fit: method"
    assert admitted("GET /price", client="", access=access)["reason"] == "access_no_identity"
    assert admitted("GET /price", port=9, access=access)["reason"] == "port_not_listed"


def test_a_health_probe_audit_and_the_modes_are_told() -> None:
    assert admitted("GET /ready", client="", mode=DENY)["by"] == "probe"
    assert admitted("GET /x", mode=DENY)["reason"] == "forbidden"
    assert admitted("GET /x", client="")["reason"] == "not_authenticated"
    assert admitted("GET /x", client="", mode=ALL_UNAUTHENTICATED)["by"] == "mode"
    audited = admitted("PUT /price", access=Access((READS,), audit=True))
    assert (audited["allowed"], audited["by"], audited["would_be_denied"]["reason"]) == (True, "mode", "access_request")


def test_asking_leaves_nothing_with_the_live_rules() -> None:
    access = Access((READS,))
    admitted("GET /price", access=access)
    assert not access._grants
    assert not access._memo


# ---------------------------------------------------------------- the question


@pytest.mark.parametrize(
    ("method", "url", "headers", "says"),
    [
        ("GE T", "web/", [], "is no method"),
        ("CONNECT", "web/", [], "tunnel"),
        ("GET", "https://web/", [], "own TLS"),
        ("GET", "ftp://web/", [], "cannot be explained"),
        ("GET", "http:///x", [], "names no host"),
        ("GET", "http://us er@web/", [], "names no host"),
        ("GET", "http://web/\u00e9", [], "is no path"),
        ("GET", "web/", ["nocolon"], "is no header"),
        ("GET", "web/", ["a b: c"], "field name"),
        ("GET", "web/", ["a: b\r\nc: d"], "control character"),
        ("GET", "web/" + "x" * 9000, [], "at most"),
        ("GET", "web/", ["a: b"] * 101, "at most 100"),
    ],
)
def test_what_is_no_request_is_refused_with_what_was_expected(method: str, url: str, headers: list[str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Question.parse(method, url, headers)


def test_a_question_goes_over_a_page_as_it_is() -> None:
    question = Question.parse("GET", "web.shop:81?a=%20&b=+", ["X-A: 1 & 2=3", "x-a: \u00fc", "mesh-client-id: forged"])
    again = Question.of_query(question.encoded())
    assert (again.method, again.url, again.headers) == ("GET", "http://web.shop:81/?a=%20&b=+", question.headers)
    assert [field.name for field in again.head().fields] == [b"x-a", b"x-a"], "mesh-* never travels"

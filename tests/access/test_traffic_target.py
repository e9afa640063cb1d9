"""TrafficTarget, statement by statement: manifests in, decision out (compiled, sent, converted, asked)."""

from __future__ import annotations

from typing import Any

import pytest
from access_objects import (
    access,
    account,
    compiled,
    decide,
    group,
    http,
    namespace,
    pod,
    ports,
    request,
    spiffe,
    target,
    tcp,
    verdict,
    workload,
)

from control.api import mesh_pb2
from meshproxy.mesh.convert import access_of
from meshproxy.mesh.knowledge import ResourceRejected
from meshproxy.policy.access import Access, AccessRule
from meshproxy.wire.message import CACHES, Head

GET = {"methods": ["GET"], "pathRegex": "/public"}
ANY = ports("any")
BOOKS = group("books", GET)
CONNECT = request("CONNECT")

Row = tuple[str, list[Any], dict[str, Any], str]

# (statement, objects beside the pod web-1, who asks what, verdict)
STATEMENTS: list[Row] = [
    # -- additive, default deny
    ("a source may what a rule allows", [target(tcp("any")), ANY], {}, "allowed"),
    ("another account may nothing", [target(tcp("any")), ANY], {"client": "writer"}, "access_client"),
    (
        "the same name in another namespace is another account",
        [target(tcp("any")), ANY],
        {"client": "else/reader"},
        "access_client",
    ),
    ("no identity is no source", [target(tcp("any")), ANY], {"client": ""}, "access_no_identity"),
    (
        "targets add up: what one of them allows is allowed",
        [target(http("books"), name="a"), target(tcp("any"), name="b"), BOOKS, ANY],
        {"head": request("POST /admin")},
        "allowed",
    ),
    (
        "targets add up: sources of one get nothing of another",
        [target(http("books"), name="a"), target(tcp("any"), name="b", sources=(account("writer"),)), BOOKS, ANY],
        {"head": request("POST /admin")},
        "access_request",
    ),
    (
        "a source of another namespace is named with it",
        [target(tcp("any"), sources=(account("cron", "jobs"),)), ANY],
        {"client": "jobs/cron"},
        "allowed",
    ),
    ("a source without a namespace is of the target's own", [target(tcp("any")), ANY], {"client": "shop/reader"}, "allowed"),
    # -- rules
    (
        "a rule without matches means all of its group",
        [target(http("g")), group("g", GET, {"methods": ["PUT"]})],
        {"head": request("PUT /x")},
        "allowed",
    ),
    (
        "a rule with matches means those",
        [target(http("g", "match-0")), group("g", GET, {"methods": ["PUT"]})],
        {"head": request("PUT /x")},
        "access_request",
    ),
    (
        "several groups are alternatives",
        [target(http("a"), http("b")), group("a", GET), group("b", {"methods": ["PUT"]})],
        {"head": request("PUT /x")},
        "allowed",
    ),
    (
        "within a match all must fit: the method",
        [target(http("books")), BOOKS],
        {"head": request("POST /public")},
        "access_request",
    ),
    (
        "within a match all must fit: the path",
        [target(http("books")), BOOKS],
        {"head": request("GET /admin")},
        "access_request",
    ),
    (
        "TCP and HTTP in one target: both must fit",
        [target(tcp("p"), http("books")), ports("p", 8080), BOOKS],
        {"head": request("GET /public")},
        "allowed",
    ),
    (
        "TCP and HTTP in one target: the port does not",
        [target(tcp("p"), http("books")), ports("p", 9090), BOOKS],
        {"head": request("GET /public")},
        "access_port",
    ),
    (
        "TCP and HTTP in one target: the request does not",
        [target(tcp("p"), http("books")), ports("p", 8080), BOOKS],
        {"head": request("GET /admin")},
        "access_request",
    ),
    ("ports of several TCP routes are a union", [target(tcp("p"), tcp("q")), ports("p", 1), ports("q", 8080)], {}, "allowed"),
    ("a TCP route without ports is every port", [target(tcp("p"), tcp("any")), ports("p", 1), ANY], {}, "allowed"),
    ("a TCP route with ports is those", [target(tcp("p")), ports("p", 8300, 8301, 8302)], {"port": 8303}, "access_port"),
    ("a TCP rule lets any request through", [target(tcp("any")), ANY], {"head": request("DELETE /admin")}, "allowed"),
    ("a TCP rule lets bytes through", [target(tcp("any")), ANY], {"head": CONNECT}, "allowed"),
    (
        "an HTTP rule lets no bytes through: they cannot be shown to match",
        [target(http("books")), BOOKS],
        {"head": CONNECT},
        "access_not_http",
    ),
    (
        "a UDP route allows nothing that goes through the mesh",
        [target({"kind": "UDPRoute", "name": "u"}), ports("u", 8080, kind="UDPRoute")],
        {},
        "access_client",
    ),
    (
        "a UDP route takes nothing from HTTP",
        [target({"kind": "UDPRoute", "name": "u"}, http("books")), ports("u", 1, kind="UDPRoute"), BOOKS],
        {"head": request("GET /public")},
        "allowed",
    ),
    # -- what is not there
    ("a group that is missing allows nothing", [target(http("nowhere"))], {}, "access_client"),
    (
        "a TCP route that is missing allows nothing, whatever the others do",
        [target(tcp("any"), tcp("nowhere")), ANY],
        {},
        "access_client",
    ),
    (
        "a match that is missing allows nothing",
        [target(http("books", "nowhere")), BOOKS],
        {"head": request("GET /public")},
        "access_client",
    ),
    (
        "references are looked up in the target's namespace",
        [target(http("books")), group("books", GET, home="else")],
        {},
        "access_client",
    ),
    ("a group without matches allows nothing", [target(http("g")), group("g")], {}, "access_client"),
    ("a target without rules allows nothing, not everything", [target()], {}, "access_client"),
    ("a target without sources allows nobody", [target(tcp("any"), sources=()), ANY], {}, "access_client"),
    (
        "a regular expression that cannot be used allows nothing",
        [target(http("g")), group("g", {"pathRegex": "(?=a)"})],
        {},
        "access_client",
    ),
    # -- HTTPRouteGroup
    (
        "methods that are absent are any",
        [target(http("g")), group("g", {"pathRegex": "/x"})],
        {"head": request("PATCH /x")},
        "allowed",
    ),
    (
        "methods with * are any",
        [target(http("g")), group("g", {"methods": ["GET", "*"]})],
        {"head": request("PATCH /x")},
        "allowed",
    ),
    (
        "methods that are empty are any",
        [target(http("g")), group("g", {"methods": []})],
        {"head": request("PATCH /x")},
        "allowed",
    ),
    (
        "a path that is absent is any",
        [target(http("g")), group("g", {"methods": ["GET"]})],
        {"head": request("GET /x")},
        "allowed",
    ),
    ("a path is anchored at the start", [target(http("books")), BOOKS], {"head": request("GET /x/public")}, "access_request"),
    ("... and at the start only", [target(http("books")), BOOKS], {"head": request("GET /publicity/1")}, "allowed"),
    (
        "... or is the whole path, on demand",
        [target(http("g")), group("g", GET, full=True)],
        {"head": request("GET /publicity/1")},
        "access_request",
    ),
    (
        "the whole path is without its query",
        [target(http("g")), group("g", GET, full=True)],
        {"head": request("GET /public?x=1")},
        "allowed",
    ),
    (
        "a query can make no path fit",
        [target(http("g")), group("g", {"pathRegex": ".*public"})],
        {"head": request("GET /admin?public")},
        "access_request",
    ),
    ("a header must be there", [target(http("g")), group("g", {"headers": {"x-team": ".*"}})], {}, "access_request"),
    (
        "a header's name has no case",
        [target(http("g")), group("g", {"headers": {"X-Team": "a"}})],
        {"head": request(x_team="a")},
        "allowed",
    ),
    (
        "a header's value is a regular expression for the whole of it",
        [target(http("g")), group("g", {"headers": {"x-team": "a+"}})],
        {"head": request(x_team="aab")},
        "access_request",
    ),
    (
        "every header must fit",
        [target(http("g")), group("g", {"headers": [{"x-team": "a"}, {"x-tier": "1"}]})],
        {"head": request(x_team="a", x_tier="2")},
        "access_request",
    ),
    (
        "matches are alternatives",
        [target(http("g")), group("g", {"headers": {"x-team": "a"}}, {"headers": {"x-tier": "2"}})],
        {"head": request(x_tier="2")},
        "allowed",
    ),
    ("the host is a header", [target(http("g")), group("g", {"headers": {"host": "web\\.shop"}})], {}, "allowed"),
    ("another host does not fit", [target(http("g")), group("g", {"headers": {"host": "api\\.shop"}})], {}, "access_request"),
    # -- who decides over whom
    (
        "a dot in a name is a dot",
        [target(tcp("any"), sources=(account("cert-manager.io"),)), ANY],
        {"client": "cert-managerxio"},
        "access_client",
    ),
    (
        "a name is no pattern and no prefix",
        [target(tcp("any"), sources=(account("read"),)), ANY],
        {"client": "reader"},
        "access_client",
    ),
    (
        "a target decides over pods of its own namespace",
        [
            target(tcp("any")),
            target(tcp("any"), home="else", to=account("web", "shop"), sources=(account("writer", "shop"),)),
            ANY,
        ],
        {"client": "writer"},
        "access_client",
    ),
]


@pytest.mark.parametrize("row", STATEMENTS, ids=[row[0] for row in STATEMENTS])
def test_a_traffic_target_means_what_the_specification_says(row: Row) -> None:
    _, objects, asked, expected = row
    assert verdict(*objects, **asked) == expected


def test_a_pod_that_no_target_selects_is_left_to_its_inbound_mode() -> None:
    assert access() is None
    assert access(target(tcp("any"), to=account("other")), ANY) is None
    assert access(target(tcp("any"), home="else", to=account("web", "shop")), ANY) is None


def test_the_default_account_is_one_like_any_other() -> None:
    one = pod()
    del one["spec"]["serviceAccountName"]
    found = access_of(workload(one, target(tcp("any"), to=account("default")), ANY))
    assert found is not None
    assert found.decide(spiffe("reader"), 8080, request()).allowed


def test_a_target_that_cannot_be_read_selects_its_destination_and_allows_nothing() -> None:
    broken = target({"kind": "Sorcery", "name": "g"})
    assert verdict(broken) == "access_client"
    (told,) = compiled(pod(), broken).diagnostics
    assert (told.severity, "allows nothing" in told.message) == ("error", True)


def test_an_allowed_request_names_the_target() -> None:
    assert (
        decide(target(http("books"), name="readers"), BOOKS, head=request("GET /public")).rule == "TrafficTarget shop/readers"
    )


@pytest.mark.parametrize(
    ("objects", "words"),
    [
        ([target(http("nowhere"))], "HTTPRouteGroup nowhere does not exist"),
        ([target(tcp("nowhere"))], "TCPRoute nowhere does not exist"),
        ([target(http("books", "nope")), BOOKS], "HTTPRouteGroup books has no match nope"),
        ([target(http("g")), group("g", {"pathRegex": "(?=a)"})], "look-around"),
        ([target(tcp("any"), sources=()), ANY], "the target allows nobody"),
        ([target()], "is empty: the target allows nothing"),
        ([target({"kind": "UDPRoute", "name": "u"}), ports("u", kind="UDPRoute")], "UDP does not go through the mesh"),
        ([target(tcp("any"), home="else", to=account("web", "shop"))], "expected else: its own"),
    ],
)
def test_what_a_target_lacks_is_told(objects: list[Any], words: str) -> None:
    told = [str(diagnostic) for diagnostic in compiled(pod(), *objects).diagnostics]
    assert any(words in line for line in told), told


# ---------------------------------------------------------------- older versions


OLD = {
    "apiVersion": "access.smi-spec.io/v1alpha1",
    "kind": "TrafficTarget",
    "metadata": {"name": "old", "namespace": "shop"},
    "destination": {"kind": "ServiceAccount", "name": "web", "namespace": "shop", "port": 8080},
    "sources": [{"kind": "ServiceAccount", "name": "reader", "namespace": "shop"}],
    "specs": [{"kind": "TCPRoute", "name": "any"}],
}


@pytest.mark.parametrize("version", ["v1alpha1", "v1alpha2", "v1alpha3"])
@pytest.mark.parametrize("written", [8080, "8080"])
def test_the_port_of_a_destination_restricts_in_every_version_and_spelling(version: str, written: Any) -> None:
    body = {**OLD, "destination": {**OLD["destination"], "port": written}}
    objects = [{**body, "apiVersion": f"access.smi-spec.io/{version}"}, ANY]
    if version != "v1alpha1":
        fields = {"destination": body["destination"], "sources": body["sources"], "rules": body["specs"]}
        objects[0] = {
            **{key: body[key] for key in ("kind", "metadata")},
            "apiVersion": objects[0]["apiVersion"],
            "spec": fields,
        }
    assert verdict(*objects) == "allowed"
    assert verdict(*objects, port=9090) == "access_port"


def test_a_port_that_its_tcp_routes_do_not_have_allows_nothing() -> None:
    assert verdict(OLD, ports("any", 9090)) == "access_client"


# ---------------------------------------------------------------- audit


@pytest.mark.parametrize(
    ("of_the_pod", "of_the_namespace", "audit"),
    [
        (None, None, False),
        (None, "audit", True),
        ("audit", None, True),
        ("enforce", "audit", False),
        ("audit", "enforce", True),
        ("audti", "audit", False),
    ],
)
def test_audit_is_asked_for_on_a_pod_or_its_namespace(
    of_the_pod: str | None, of_the_namespace: str | None, audit: bool
) -> None:
    one = pod(annotations={"meshproxy.dev/access": of_the_pod} if of_the_pod else {})
    home = namespace(access=of_the_namespace) if of_the_namespace else namespace()
    result = compiled(one, home, target(tcp("any")), ANY)
    found = access_of(result.resources[mesh_pb2.WORKLOAD, "shop/web-1"].workload)
    assert found is not None
    assert found.audit == audit
    told = [one.message for one in result.diagnostics]
    assert told == (["found 'audti', expected enforce or audit"] if of_the_pod == "audti" else [])


# ---------------------------------------------------------------- one spelling


PUBLIC = [target(http("g")), group("g", {"pathRegex": "/public(/.*)?$"})]


@pytest.mark.parametrize(
    ("path", "expected", "forwarded"),
    [
        ("/public/a", "allowed", None),
        ("/public//a?q=//", "allowed", b"/public/a"),
        ("/public/./b/../a", "allowed", b"/public/a"),
        ("/%70ublic/%7e", "allowed", b"/public/~"),
        ("/admin/../public", "allowed", b"/public"),
        ("/public/caf%c3%a9", "allowed", b"/public/caf%C3%A9"),
        ("//admin", "access_request", None),
        ("/./admin", "access_request", None),
        ("/public/../admin", "access_request", None),
        ("/%61dmin", "access_request", None),
        ("/public/%2e%2e/admin", "access_request", None),
        ("/admin%2f", "access_path", None),
        ("/public%2f..%2fadmin", "access_path", None),
        ("/public/..%2fadmin", "access_path", None),
        ("/%5cadmin", "access_path", None),
        ("/public/..;/admin", "access_path", None),
        ("/public/%00", "access_path", None),
        ("*", "access_request", None),
    ],
)
def test_a_path_is_judged_and_forwarded_in_its_one_spelling(path: str, expected: str, forwarded: bytes | None) -> None:
    decision = decide(*PUBLIC, head=request(f"GET {path}"))
    assert ("allowed" if decision.allowed else decision.reason, decision.path) == (expected, forwarded)


@pytest.mark.parametrize("match", [{"methods": ["GET"]}, {"pathRegex": ".*"}, {"pathRegex": "/"}, {"pathRegex": "^/.*$"}])
def test_where_no_rule_is_on_paths_any_path_is_the_apps_own_affair(match: dict[str, Any]) -> None:
    decision = decide(target(http("g")), group("g", match), head=request("GET /a%2f..//b"))
    assert (decision.allowed, decision.path) == (True, None)


SAY = [target(http("g")), group("g", {"methods": ["POST"], "pathRegex": "/shop.Prices/Get"}, full=True)]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/shop.Prices/Get", "allowed"),
        ("/shop.Prices/Get/", "access_request"),
        ("/shop.Prices/GetAll", "access_request"),
        ("/shop.Prices//Get", "access_path"),
        ("//shop.Prices/Get", "access_path"),
        ("/shop.Prices/%47et", "access_path"),
        ("/shopxPrices/Get", "allowed"),  # a dot is any character: the pattern says so
        ("/other.Prices/Get", "access_request"),
    ],
)
def test_a_grpc_method_has_one_spelling_only(path: str, expected: str) -> None:
    assert verdict(*SAY, head=request(f"POST {path}", grpc=True)) == expected


@pytest.mark.parametrize("authority", [b"web.shop", b"WEB.Shop", b"web.shop.", b"web.shop:80", b"WEB.shop.:8080"])
def test_a_host_is_judged_in_its_one_spelling(authority: bytes) -> None:
    assert (
        verdict(target(http("g")), group("g", {"headers": {"Host": "web\\.shop"}}), head=request(authority=authority))
        == "allowed"
    )


def test_lines_of_one_header_are_one_value() -> None:
    head = request(x_role="user")
    head.fields += request(x_role="admin").fields
    objects = [target(http("g")), group("g", {"headers": {"x-role": "user"}})]
    assert verdict(*objects, head=head) == "access_request"


# ---------------------------------------------------------------- tunnels


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (request("GET /public", protocol=b"websocket"), "allowed"),
        (request("CONNECT /public", protocol=b"websocket"), "allowed"),  # RFC 8441: to the app it is a GET
        (request("CONNECT /admin", protocol=b"websocket"), "access_request"),
        (request("CONNECT /public", protocol=b"h2c"), "access_not_http"),  # requests that nobody would judge
        (request("GET /public", protocol=b"H2C"), "access_not_http"),
        (request("CONNECT /public", protocol=b"HTTP/1.1"), "access_not_http"),
        (request("CONNECT /public", protocol=b"TLS/1.3"), "access_not_http"),
    ],
)
def test_an_upgrade_is_the_request_it_begins_with_and_no_way_for_further_ones(head: Head, expected: str) -> None:
    assert verdict(target(http("books")), BOOKS, head=head) == expected


# ---------------------------------------------------------------- what is kept


def test_a_verdict_that_is_remembered_is_the_one_that_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    found = access(
        target(http("books"), name="a"),
        target(http("b"), name="b", sources=(account("writer"),)),
        BOOKS,
        group("b", {"methods": ["PUT"]}),
    )
    assert found is not None
    asked = [
        (client, request(f"{method} {path}", grpc=grpc))
        for client in ("reader", "writer", "nobody", "")
        for method in ("GET", "PUT")
        for path in ("/public", "//public", "/admin", "/%zz")
        for grpc in (False, True)
    ]
    remembered = [repr(found.decide(spiffe(client), 8080, head)) for _ in range(2) for client, head in asked]
    monkeypatch.setattr(CACHES, "enabled", False)
    assert remembered == [repr(found.decide(spiffe(client), 8080, head)) for client, head in asked] * 2


def test_what_depends_on_headers_is_not_remembered_by_the_path() -> None:
    found = access(target(http("g")), group("g", {"headers": {"x-team": "a"}}))
    assert found is not None
    verdicts = [found.decide(spiffe("reader"), 8080, request("GET /x", x_team=team)).allowed for team in "abab"]
    assert verdicts == [True, False, True, False]


def test_strangers_leave_nothing_behind() -> None:
    found = Access((AccessRule("r", ("spiffe://mesh.test/ns/shop/sa/reader",)),))
    for number in range(100):
        assert not found.decide(f"spiffe://mesh.test/ns/shop/sa/s{number}", 8080, request()).allowed
    assert found._grants == {8080: {}}


def test_many_paths_are_remembered_up_to_a_bound() -> None:
    found = access(target(http("books")), BOOKS)
    assert found is not None
    for number in range(3000):
        assert found.decide(spiffe("reader"), 8080, request(f"GET /public/{number}")).allowed
    assert len(found._memo) <= 1024


# ---------------------------------------------------------------- what is sent


@pytest.mark.parametrize(
    ("match", "words"),
    [
        (mesh_pb2.RouteMatch(path=mesh_pb2.StringMatch(how=mesh_pb2.StringMatch.REGEX, value="(a")), "not closed"),
        (mesh_pb2.RouteMatch(path=mesh_pb2.StringMatch(how=mesh_pb2.StringMatch.EXACT, value="/a")), "EXACT"),
        (mesh_pb2.RouteMatch(query=[mesh_pb2.StringMatch(name="q", value="1")]), "more than path, method and headers"),
    ],
)
def test_a_rule_that_this_version_cannot_read_is_rejected_and_never_read_as_a_wider_one(
    match: mesh_pb2.RouteMatch, words: str
) -> None:
    sent = mesh_pb2.Workload(namespace="shop", pod="web-1")
    sent.access.rules.append(mesh_pb2.AccessRule(name="TrafficTarget shop/t", clients=["c"], http=[match]))
    with pytest.raises(ResourceRejected, match=words):
        access_of(sent)


def test_a_decision_can_be_explained_rule_by_rule() -> None:
    found = access(
        target(http("books"), name="a"),
        target(tcp("p"), name="b"),
        target(tcp("any"), name="c", sources=(account("x"),)),
        BOOKS,
        ports("p", 9090),
        ANY,
    )
    assert found is not None
    assert found.explain(spiffe("reader"), 8080, request("POST /admin")) == [
        ("TrafficTarget shop/a", "does not fit: method"),
        ("TrafficTarget shop/b", "port 8080 is none of 9090"),
        ("TrafficTarget shop/c", "spiffe://mesh.test/ns/shop/sa/reader is none of its sources"),
    ]
    assert found.explain(spiffe("reader"), 9090, request("GET /public"))[:2] == [
        ("TrafficTarget shop/a", ""),
        ("TrafficTarget shop/b", ""),
    ]


@pytest.mark.parametrize("client", ["", "writer"])
def test_what_a_client_says_of_itself_gives_it_nothing(client: str) -> None:
    reader = spiffe("reader")
    claims = {
        "x_forwarded_for": "127.9.9.10",
        "forwarded": "for=127.9.9.10",
        "x_forwarded_client_cert": f"URI={reader}",
        "l5d_client_id": reader,
        "mesh_client_id": reader,
    }
    objects = [target(tcp("any")), ANY]
    denied = verdict(*objects, client=client)
    assert denied in ("access_no_identity", "access_client")
    assert verdict(*objects, client=client, head=request(**claims)) == denied

"""What the SMI specification says of groups, routes and TrafficTarget (3 and 4 of the digest): see test_smi_statements.py."""

from __future__ import annotations

from typing import Any

from access_objects import account, http, ports, target, tcp
from access_objects import group as books
from access_objects import request as asking
from smi_world import (
    EXAMPLES,
    Row,
    example,
    fits,
    group,
    in_force,
    lint,
    mode,
    old_target,
    reads,
    reasons,
    refused,
    smi,
    split,
    verdict,
)

from control.api import mesh_pb2
from control.resources.routegroup import parse_group, write_group
from control.resources.traffictarget import Account, Rule, parse_target, write_target

ALL = ("v1alpha1", "v1alpha2", "v1alpha3", "v1alpha4")
GET = {"methods": ["GET"]}
ANY = ports("any")
BOOKS = books("books", {"methods": ["GET"], "pathRegex": "/public"})

GROUPS: list[Row] = [
    (
        "3.1 the list stands where the version has it",
        lambda: [fits("GET /", "PUT /", matches=[GET], version=one) for one in ALL],
        [[True, False]] * 4,
    ),
    (
        "3.1 a list at the top is read in the newest version too",
        lambda: fits("GET /", "PUT /", matches=[GET], top=True),
        [True, False],
    ),
    (
        "3.1 a match needs a name",
        lambda: refused(smi("HTTPRouteGroup", "specs.smi-spec.io", "v1alpha4", "g", spec={"matches": [{}]})),
        True,
    ),
    ("3.1 no methods are all methods", lambda: fits("GET /", "DELETE /", matches=[{"pathRegex": "/"}]), [True, True]),
    ("3.1 an empty list of methods is all methods", lambda: fits("DELETE /", matches=[{"methods": []}]), [True]),
    ("3.1 * is all methods, also beside others", lambda: fits("DELETE /", matches=[{"methods": ["GET", "*"]}]), [True]),
    ("3.1 no path is all paths", lambda: fits("GET /", "GET /a/b", matches=[GET]), [True, True]),
    ("3.1 an empty path is all paths", lambda: fits("GET /", "GET /a/b", matches=[{"pathRegex": ""}]), [True, True]),
    (
        "3.1 a path expression is anchored at the start, and only there",
        lambda: fits("GET /api", "GET /api/v1", "GET /apix", "GET /x/api", matches=[{"pathRegex": "/api"}]),
        [True, True, True, False],
    ),
    ("3.1 .* is every path", lambda: fits("GET /", "GET /a/b?c", matches=[{"pathRegex": ".*"}]), [True, True]),
    (
        "3.1 the whole path is asked for by an annotation",
        lambda: fits("GET /api", "GET /api/v1", "GET /apix", matches=[{"pathRegex": "/api"}], full=True),
        [True, False, False],
    ),
    (
        "3.1 the query is no part of the path",
        lambda: fits("GET /api?x", "GET /x?/api", matches=[{"pathRegex": "/api$"}]),
        [True, False],
    ),
    (
        "3.1 look-around and back-references are refused",
        lambda: [refused(group({"pathRegex": one})) for one in ("(?=a)", "(?<!a)b", r"(a)\1", "(?P<n>a)(?P=n)")],
        [True] * 4,
    ),
    (
        "3.1 a pattern that could run for ever is matched in linear time",
        lambda: fits("GET /" + "a" * 40 + "b", "GET /" + "a" * 40, matches=[{"pathRegex": "/(a+)+$"}]),
        [False, True],
    ),
    (
        "3.2 headers as a map and as a list of maps are the same",
        lambda: [
            fits(("GET /", {"a": "1", "b": "2"}), ("GET /", {"a": "1"}), matches=[{"headers": one}])
            for one in ({"a": "1", "b": "2"}, [{"a": "1"}, {"b": "2"}], [{"a": "1", "b": "2"}])
        ],
        [[True, False]] * 3,
    ),
    ("3.2 a list of maps is what is written", lambda: _written_headers({"B": "2", "a": "1"}), [{"a": "1"}, {"b": "2"}]),
    (
        "3.2 names of headers have no case",
        lambda: fits(("GET /", {"x_team": "a"}), matches=[{"headers": {"x-TEAM": "a"}}]),
        [True],
    ),
    (
        "3.2 a value is a regular expression, for the whole of it",
        lambda: fits(("GET /", {"x": "aa"}), ("GET /", {"x": "aab"}), matches=[{"headers": {"x": "a+"}}]),
        [True, False],
    ),
    (
        "3.2 several headers must all fit",
        lambda: fits(("GET /", {"a": "1", "b": "3"}), ("GET /", {"b": "2"}), matches=[{"headers": {"a": "1", "b": "2"}}]),
        [False, False],
    ),
    (
        "3.2 several matches are alternatives",
        lambda: fits(
            ("GET /", {"a": "1"}), ("GET /", {"b": "2"}), "GET /", matches=[{"headers": {"a": "1"}}, {"headers": {"b": "2"}}]
        ),
        [True, True, False],
    ),
    (
        "3.2 a header that is absent fits nothing, not even .*",
        lambda: fits("GET /", matches=[{"headers": {"a": ".*"}}]),
        [False],
    ),
    ("3.2 open: lines of one name are one value, joined by a comma", lambda: _two_lines(), ["access_request", "allowed"]),
    (
        "3.2 open: host is the authority",
        lambda: verdict(
            target(http("g")), books("g", {"headers": {"host": "web\\.shop"}}), head=asking(authority=b"WEB.shop.:80")
        ),
        "allowed",
    ),
    (
        "3.3 a TCPRoute before v1alpha4 is any TCP",
        lambda: [
            verdict(target(tcp("p")), smi("TCPRoute", "specs.smi-spec.io", one, "p", **body), port=one_port)
            for one, body in (("v1alpha1", {}), ("v1alpha2", {}), ("v1alpha3", {"spec": {}}))
            for one_port in (8080, 1)
        ],
        ["allowed"] * 6,
    ),
    (
        "3.3 of v1alpha4 it has ports",
        lambda: [verdict(target(tcp("p")), ports("p", 8080), port=one) for one in (8080, 1)],
        ["allowed", "access_port"],
    ),
    ("3.3 an empty list of ports is every port", lambda: verdict(target(tcp("p")), ports("p"), port=9), "allowed"),
    (
        "3.3 ports are those that the pods accept on, not the Service's",
        lambda: verdict(target(tcp("p")), ports("p", 80), port=8080),
        "access_port",
    ),
    (
        "3.3 a UDPRoute is read, and said to carry nothing",
        lambda: [line.partition(":")[0] for line in lint(ports("u", 53, kind="UDPRoute"))],
        ["warning"],
    ),
    (
        "1 a kind is known by its group: a TCPRoute of Gateway API is no permission",
        lambda: verdict(target(tcp("p")), {**ports("p"), "apiVersion": "gateway.networking.k8s.io/v1alpha2"}),
        "access_client",
    ),
    (
        "9.1 a version that nobody knows yet is read as the newest, with a warning",
        lambda: [
            [line.partition(":")[0] for line in lint(one)]
            for one in (split(1, version="v1alpha9"), group(GET, version="v1beta1"), old_target("v1beta1", rules=[tcp("any")]))
        ],
        [["warning"]] * 3,
    ),
    (
        "10 the examples of the specification load",
        lambda: [one.stem for one in sorted(EXAMPLES.glob("*.yaml")) if not example(one.name)],
        [],
    ),
]

TARGETS: list[Row] = [
    (
        "4.1 v1alpha1 has its fields at the top, later versions in spec",
        lambda: [verdict(old_target(one, 8080, [tcp("any")]), ANY) for one in ALL[:3]],
        ["allowed"] * 3,
    ),
    (
        "4.1 destination.port restricts, as a number and as a string, in every version",
        lambda: [
            verdict(old_target(one, port, [tcp("any")]), ANY, port=at)
            for one in ALL[:3]
            for port in (8080, "8080")
            for at in (8080, 9090)
        ],
        ["allowed", "access_port"] * 6,
    ),
    (
        "4.1 a port is not lost when it is converted: it becomes a TCPRoute",
        lambda: _port_converted(),
        (Rule("TCPRoute", "any"), Rule("TCPRoute", "t-port")),
    ),
    (
        "4.1 a subject is a ServiceAccount and nothing else",
        lambda: refused(target(tcp("any"), sources=({"kind": "Group", "name": "a"},))),
        True,
    ),
    (
        "4.1 a subject without a namespace is of the target's own",
        lambda: reads(target(tcp("any"))).sources,
        (Account("shop", "reader"),),
    ),
    (
        "4.1 a target needs a destination",
        lambda: refused(
            smi("TrafficTarget", "access.smi-spec.io", "v1alpha3", "t", spec={"rules": [tcp("any")], "sources": [account("a")]})
        ),
        True,
    ),
    (
        "4.1 a target needs sources",
        lambda: (refused(target(tcp("any"), sources=())), verdict(target(tcp("any"), sources=()), ANY)),
        (True, "access_client"),
    ),
    ("4.1 a target needs rules", lambda: (refused(target()), verdict(target())), (True, "access_client")),
    (
        "4.1 rules are of three kinds",
        lambda: [refused(target({"kind": one, "name": "a"})) for one in ("HTTPRouteGroup", "TCPRoute", "UDPRoute", "TLSRoute")],
        [False, False, False, True],
    ),
    (
        "4.2 a destination takes nothing but what a target allows",
        lambda: [
            verdict(target(http("books")), BOOKS, head=asking(line)) for line in ("GET /public", "GET /admin", "PUT /public")
        ],
        ["allowed", "access_request", "access_request"],
    ),
    (
        "4.2 without any target, deny by default is a mode",
        lambda: [in_force(), mode(), mode(default_inbound_policy="deny"), mode(default_inbound_policy="all-unauthenticated")],
        [False, mesh_pb2.ALL_AUTHENTICATED, mesh_pb2.DENY, mesh_pb2.ALL_UNAUTHENTICATED],
    ),
    (
        "4.2 a target selects by the service account",
        lambda: [in_force(target(tcp("any"), to=account(one)), ANY) for one in ("web", "other")],
        [True, False],
    ),
    (
        "4.2 allowed is: a source, and some rule",
        lambda: [verdict(target(tcp("any")), ANY, client=one) for one in ("reader", "writer", "else/reader", "")],
        ["allowed", "access_client", "access_client", "access_no_identity"],
    ),
    (
        "4.2 targets add up",
        lambda: verdict(target(http("books"), name="a"), target(tcp("any"), name="b"), BOOKS, ANY, head=asking("PUT /x")),
        "allowed",
    ),
    (
        "4.2 and the sources of one get nothing of another",
        lambda: verdict(
            target(http("books"), name="a"),
            target(tcp("any"), name="b", sources=(account("writer"),)),
            BOOKS,
            ANY,
            head=asking("PUT /x"),
        ),
        "access_request",
    ),
    (
        "4.2 a rule without matches is every match of its group",
        lambda: [
            verdict(target(http("g")), books("g", {"methods": ["GET"]}, {"methods": ["PUT"]}), head=asking(f"{one} /"))
            for one in ("GET", "PUT", "POST")
        ],
        ["allowed", "allowed", "access_request"],
    ),
    (
        "4.2 a rule with matches is those",
        lambda: [
            verdict(
                target(http("g", "match-1")), books("g", {"methods": ["GET"]}, {"methods": ["PUT"]}), head=asking(f"{one} /")
            )
            for one in ("GET", "PUT")
        ],
        ["access_request", "allowed"],
    ),
    (
        "4.2 a TCPRoute and an HTTPRouteGroup in one target must both fit",
        lambda: [
            verdict(target(tcp("p"), http("books")), ports("p", 8080), BOOKS, head=asking(line), port=port)
            for line, port in (("GET /public", 8080), ("GET /public", 9), ("GET /admin", 8080))
        ],
        ["allowed", "access_port", "access_request"],
    ),
    (
        "4.2 the example on layer 4: a port that only UDP has is refused to TCP",
        lambda: [
            verdict(
                target(tcp("t"), {"kind": "UDPRoute", "name": "u"}),
                ports("t", 8300, 8302),
                ports("u", 8301, kind="UDPRoute"),
                port=one,
            )
            for one in (8300, 8301)
        ],
        ["allowed", "access_port"],
    ),
    (
        "4.2 open: an HTTP rule lets no bytes through",
        lambda: verdict(target(http("books")), BOOKS, head=asking("CONNECT")),
        "access_not_http",
    ),
    (
        "4.2 open: a TCP rule lets any request and any bytes through",
        lambda: [verdict(target(tcp("any")), ANY, head=asking(one)) for one in ("DELETE /admin", "CONNECT")],
        ["allowed"] * 2,
    ),
    (
        "4.2 open: references are of the target's own namespace",
        lambda: verdict(target(http("g")), books("g", {"methods": ["GET"]}, home="else")),
        "access_client",
    ),
    (
        "4.2 open: a target whose reference is missing allows nothing, and its destination denies",
        lambda: [
            verdict(target(http("gone"))),
            verdict(target(tcp("gone"))),
            verdict(target(http("books", "gone")), BOOKS),
            verdict(target(tcp("gone"), http("books")), BOOKS),
        ],
        ["access_client"] * 4,
    ),
    (
        "4.2 open: what is missing is told",
        lambda: [reasons(target(http("gone"))), reasons(target(tcp("gone")))],
        [["RuleMissing"]] * 2,
    ),
    (
        "4.2 open: it does not take away what another target allows",
        lambda: verdict(target(http("gone"), name="a"), target(tcp("any"), name="b"), ANY),
        "allowed",
    ),
    (
        "4.2 open: a target decides over pods of its own namespace only",
        lambda: [
            in_force(target(tcp("any"), home="else", to=account("web", "shop")), ANY),
            refused(target(tcp("any"), home="else", to=account("web", "shop"))),
        ],
        [False, True],
    ),
    (
        "4.2 a source of another namespace is named with it",
        lambda: verdict(target(tcp("any"), sources=(account("cron", "jobs"),)), ANY, client="jobs/cron"),
        "allowed",
    ),
    (
        "4.2 open: an account that a pod does not name is default",
        lambda: [in_force(target(tcp("any"), to=account("default")), ANY, account=one) for one in ("", "web")],
        [True, False],
    ),
    (
        "6 a TCPRoute with an empty list of ports allows, and its end denies again",
        lambda: [verdict(target(tcp("any")), ANY), verdict(target(tcp("any")))],
        ["allowed", "access_client"],
    ),
    (
        "6 /metrics with every method, and not /echo",
        lambda: [
            verdict(target(http("g")), books("g", {"methods": ["*"], "pathRegex": "/metrics"}), head=asking(f"{one}"))
            for one in ("POST /metrics", "GET /echo")
        ],
        ["allowed", "access_request"],
    ),
    (
        "6 .* with GET only",
        lambda: [
            verdict(target(http("g")), books("g", {"methods": ["GET"], "pathRegex": ".*"}), head=asking(f"{one} /echo"))
            for one in ("GET", "POST")
        ],
        ["allowed", "access_request"],
    ),
]


# ---------------------------------------------------------------- what a row cannot say in a line


def _two_lines() -> list[str]:
    head = asking(x_role="user")
    head.fields += asking(x_role="admin").fields
    return [verdict(target(http("g")), books("g", {"headers": {"x-role": one}}), head=head) for one in ("user", "user,admin")]


def _written_headers(headers: Any) -> Any:
    return write_group(parse_group(group({"headers": headers})), "v1alpha4")["spec"]["matches"][0]["headers"]


def _port_converted() -> Any:
    old = parse_target(old_target("v1alpha1", 9091, [tcp("any")]))
    return parse_target(write_target(old, "v1alpha3", port_route="t-port")).rules

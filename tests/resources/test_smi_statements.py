"""What the SMI specification says, and what it leaves open: one row for each statement, asked of manifests and answered by what
becomes of them.

    row = (statement, the question, the answer)         smi_world.py has the words of the questions

The numbers are those of the sections of a digest of the specification (traffic split, specs, access), which also lists where
it is silent and what implementations do there; such rows say what ours does ("open: ...").  Not here: TrafficMetrics, which is
an API and no object, and what only real sidecars can show (tests/mesh_e2e).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from access_objects import account, http, ports, target, tcp
from access_objects import group as books
from access_objects import request as asking
from compile_objects import service
from routing_objects import http_route, to
from smi_world import (
    EXAMPLES,
    drawn,
    events_where_nobody_is_ready,
    example,
    fits,
    found_by,
    goes,
    group,
    in_force,
    leaf_ports,
    lint,
    mode,
    old_target,
    reads,
    reasons,
    refused,
    same_route,
    shares,
    smi,
    split,
    target_ports,
    verdict,
    weights,
)

from control.api import mesh_pb2
from control.resources import split as splits
from control.resources.routegroup import parse_group, write_group
from control.resources.traffictarget import Account, Rule, parse_target, write_target

Row = tuple[str, Callable[[], Any], Any]

ALL = ("v1alpha1", "v1alpha2", "v1alpha3", "v1alpha4")
GET = {"methods": ["GET"]}
ANY = ports("any")
BOOKS = books("books", {"methods": ["GET"], "pathRegex": "/public"})

SPLITS: list[Row] = [
    (
        "2.1 the service is the name, or the full name, that callers address",
        lambda: [reads(_renamed(name)).service for name in ("web", "web.shop", "web.shop.svc.cluster.local")],
        ["web"] * 3,
    ),
    ("2.1 backends are of the split's own namespace", lambda: refused(split(("web.else", 1))), True),
    ("2.1 the Service is of the split's own namespace", lambda: refused(_renamed("web.else")), True),
    ("2.1 matches are HTTPRouteGroups of the split's own namespace", lambda: fits("GET /", matches=[GET]), [True]),
    ("2.1 only HTTPRouteGroup can be matched", lambda: refused(_matching_kind("TCPRoute")), True),
    ("2.1 open: a negative weight, refused", lambda: refused(split(-1, 1)), True),
    ("2.1 open: no backends, refused", lambda: refused(split()), True),
    (
        "2.1 open: a backend listed twice, the weights are added",
        lambda: [one.weight_milli for one in reads(split(("web-v1", 1), ("web-v1", 2))).backends],
        [3000],
    ),
    ("2.1 open: a Service that does not exist, told", lambda: reasons(split(("gone", 1))), ["BackendMissing"]),
    (
        "2.1 v1alpha3 and v1alpha4 do not differ",
        lambda: reads(split(9, 1, version="v1alpha3")) == reads(split(9, 1, version="v1alpha4")),
        True,
    ),
    ("2.2 one unit is a thousand thousandths", lambda: weights("1", "1000m", version="v1alpha1"), [1000, 1000]),
    ("2.2 500m and 500m are halves", lambda: drawn(split("500m", "500m", version="v1alpha1"), 100), [50, 50]),
    ("2.2 900m and 100m are 90 and 10", lambda: drawn(split("900m", "100m", version="v1alpha1"), 100), [90, 10]),
    (
        "2.2 quantities and whole numbers are one scale, in all versions",
        lambda: same_route(*(split("9000m", "1", version=one) for one in ALL), *(split(9, 1, version=one) for one in ALL)),
        True,
    ),
    ("2.2 every version reads a whole number", lambda: [weights(9, 1, version=one) for one in ALL], [[9000, 1000]] * 4),
    ("2.2 every version reads a whole number with a point", lambda: [weights(9.0, version=one) for one in ALL], [[9000]] * 4),
    ("2.2 every version reads a quantity", lambda: [weights("900m", "0", version=one) for one in ALL], [[900, 0]] * 4),
    (
        "2.2 all suffixes of quantities are read",
        lambda: weights("1000000n", "1000u", "1m", "1", "1k", "1M", "1Ki", "1e3", "1E2"),
        [1, 1, 1, 1000, 10**6, 10**9, 1_024_000, 10**6, 10**5],
    ),
    (
        "2.2 a mixed list keeps its ratio when it is converted",
        lambda: weights(*_written(split("1", "500m", version="v1alpha1"), "v1alpha4")),
        [1_000_000, 500_000],
    ),
    ("2.2 matches are not lost on the way back to a version without them", lambda: _cannot_write_matches(), True),
    ("2.3.1 weights are relative: 1000 and 500 are two thirds and one third", lambda: drawn(split(1000, 500), 300), [200, 100]),
    ("2.3.1 a lone backend with any weight takes everything", lambda: drawn(split("1m"), 50), [50]),
    (
        "2.3.2 each client's proxy keeps the shares by itself",
        lambda: [drawn(split(9, 1), 100, seed=client) for client in range(3)],
        [[90, 10]] * 3,
    ),
    (
        "2.3.2 the share is the Service's, not the pod's: endpoints do not count",
        lambda: [(name, weight) for name, weight, _ in shares(split(1, 1))],
        [("web-v1", 1000), ("web-v2", 1000)],
    ),
    (
        "2.3.4 a backend may be listed before it exists, at weight 0, and harms nobody",
        lambda: goes(split(1, ("gone", 0))),
        "web-v1",
    ),
    ("2.3.5 a backend takes part on the ports that it has", lambda: leaf_ports("web-v2"), [["web-v1", "web-v2"], ["web-v1"]]),
    ("2.3.5 one without any common port is left out", lambda: leaf_ports("web-v1", "web-v2"), [["web-v1", "web-v2"], []]),
    ("2.3.5 an Event tells it", lambda: _port_mismatch(), ["BackendPortMismatch"]),
    ("2.3.5 the target port is the backend's own", lambda: target_ports(), [8080, 8081]),
    (
        "2.3.6 a backend that is itself split is not resolved again",
        lambda: goes(split(1), _of("web-v1", ("web-v2", 1))),
        "web-v1",
    ),
    ("2.3.6 an Event tells it", lambda: reasons(split(1), _of("web-v1", ("web-v2", 1))), ["SplitChain"]),
    (
        "2.3.6 a cycle breaks nothing",
        lambda: (goes(split(1), _of("web-v1", ("web", 1))), reasons(split(1), _of("web-v1", ("web", 1)))),
        ("web-v1", ["SplitChain", "SplitChain"]),
    ),
    (
        "2.3.7 the root among its backends is its own endpoints",
        lambda: shares(split(("web", 9), ("web-v2", 1))),
        [("web", 9000, 1), ("web-v2", 1000, 1)],
    ),
    ("2.3.7 and nothing is wrong with it", lambda: reasons(split(("web", 9), ("web-v2", 1))), []),
    ("2.3.8 a weight of zero is no traffic", lambda: drawn(split(0, 1), 1000), [0, 1000]),
    ("2.3.8 open: all weights zero, nobody is drawn, which is answered with 503", lambda: goes(split(0, 0)), ""),
    ("2.3.8 open: all weights zero, told", lambda: reasons(split(0, 0)), ["AllWeightsZero"]),
    (
        "2.3.9 open: a backend that is missing keeps its share, nobody else gets it",
        lambda: shares(split(3, ("gone", 1))),
        [("web-v1", 3000, 1), ("gone", 1000, 0)],
    ),
    ("2.3.9 open: a backend without endpoints keeps its share", lambda: _empty_share(), [("web-v1", 3000), ("web-v9", 1000)]),
    (
        "2.3.9 open: its share goes to positive weights where that is declared",
        lambda: _empty_share(**{"meshproxy.dev/empty-backend": "redistribute"}),
        [("web-v1", 3000), ("web-v9", 0)],
    ),
    (
        "2.3.9 open: an Event tells of a backend without endpoints",
        lambda: events_where_nobody_is_ready(split(("web", 1), ("web-v2", 1))),
        ["BackendEmpty"],
    ),
    (
        "2.3.10 open: of two splits of one root the older is in force",
        lambda: goes(
            split(("web-v2", 1), name="a", born="2026-02-01T00:00:00Z"), split(1, name="z", born="2026-01-01T00:00:00Z")
        ),
        "web-v1",
    ),
    (
        "2.3.10 open: of two of one age the first by name",
        lambda: goes(split(("web-v2", 1), name="z"), split(1, name="a")),
        "web-v1",
    ),
    (
        "2.3.10 open: an Event tells the other",
        lambda: reasons(split(("web-v2", 1), name="z"), split(1, name="a")),
        ["ShadowedSplit"],
    ),
    ("2.3.10 open: without the first the other one is in force", lambda: goes(split(("web-v2", 1), name="z")), "web-v2"),
    (
        "2.3.11 open: routes of Gateway API on the Service come before its splits",
        lambda: (goes(split(1), http_route("r", to("web-v2"))), reasons(split(1), http_route("r", to("web-v2")))),
        ("web-v2", ["ShadowedSplit"]),
    ),
    (
        "2.3.12 access is judged by the identities of the pods behind a backend",
        lambda: in_force(split(1), target(tcp("any"), to=account("web-v1")), ANY),
        False,
    ),
    ("2.3.13 the root needs no endpoints of its own", lambda: shares(split(1), _without_selector()), [("web-v1", 1000, 1)]),
    ("2.3.13 a root that does not exist, told", lambda: reasons(_of("nothing", ("web", 1))), ["RootMissing"]),
    (
        "9.3 the root's names, each with a final dot and a port too",
        lambda: found_by(
            *(
                f"{name}{end}"
                for name in ("web", "web.shop", "web.shop.svc", "web.shop.svc.cluster.local")
                for end in ("", ":80")
            )
        ),
        ["web"] * 8,
    ),
    (
        "6 a final dot of a full name means the same",
        lambda: found_by("web.shop.svc.cluster.local.", "WEB.shop.svc.cluster.local.:80"),
        ["web"] * 2,
    ),
    (
        "9.4 a weight of 0 is never drawn: 50 and 0 of 50, exactly",
        lambda: [drawn(split(1, 0), 50), drawn(split(0, 1), 50)],
        [[50, 0], [0, 50]],
    ),
    ("6 75 and 25 lean as they should", lambda: drawn(split(75, 25), 100), [75, 25]),
]

MATCHES: list[Row] = [
    (
        "2.4 what any route of any group fits goes by the weights",
        lambda: [goes(*_two_groups(), target=line) for line in ("GET /", "PUT /", "POST /")],
        ["web-v2", "web-v2", "web-v2"],
    ),
    ("2.4 everything else goes to the root as if there were no split", lambda: goes(*_two_groups(), target="DELETE /"), "web"),
    (
        "2.4 within a route method, path and headers must all fit",
        lambda: fits(
            "GET /a",
            ("GET /a", {"x": "1"}),
            ("PUT /a", {"x": "1"}),
            ("GET /b", {"x": "1"}),
            matches=[{"methods": ["GET"], "pathRegex": "/a", "headers": {"x": "1"}}],
        ),
        [False, True, False, False],
    ),
    (
        "2.4 the example of the specification: 0 and 100 for a browser, as it is written there",
        lambda: example("split.yaml"),
        True,
    ),
    (
        "2.4 weights of 0 and 100 with a user agent",
        lambda: [
            goes(split(0, 100, matches=["g"]), group({"headers": {"user-agent": ".*Firefox.*"}}), user_agent=one)
            for one in ("A Firefox 9", "lynx")
        ],
        ["web-v2", "web"],
    ),
    (
        "2.4 open: what a split with matches does not take goes by the one without",
        lambda: [
            goes(split(("web-v2", 1), matches=["g"]), split(1, name="all"), group(GET), target=line)
            for line in ("GET /", "PUT /")
        ],
        ["web-v2", "web-v1"],
    ),
    (
        "2.4 open: the split with more conditions comes first",
        lambda: goes(
            split(1, matches=["g"], name="a"),
            split(("web-v2", 1), matches=["h"], name="b"),
            group(GET),
            group({**GET, "headers": {"x": "1"}}, name="h"),
            x="1",
        ),
        "web-v2",
    ),
    (
        "2.4 open: then the oldest, then the first by name",
        lambda: [
            goes(
                split(("web-v2", 1), matches=["g"], name="a", born=late),
                split(1, matches=["g"], name="b", born=early),
                group(GET),
            )
            for late, early in (("2026-02-01T00:00:00Z", "2026-01-01T00:00:00Z"), ("", ""))
        ],
        ["web-v1", "web-v2"],
    ),
    (
        "2.4 open: equal matches of two splits, an Event tells the second",
        lambda: reasons(split(1, matches=["g"], name="a"), split(1, matches=["g"], name="b"), group(GET)),
        ["ShadowedSplit"],
    ),
    (
        "2.4 open: a group that does not exist fits no request",
        lambda: (goes(split(1, matches=["gone"])), reasons(split(1, matches=["gone"]))),
        ("web", ["MatchGroupMissing"]),
    ),
    (
        "2.4 a split before v1alpha3 that has matches keeps them, and lint says so",
        lambda: (
            goes(split(1, matches=["g"], version="v1alpha2"), group(GET), target="PUT /"),
            any("has no matches" in line for line in lint(split(1, matches=["g"], version="v1alpha2"))),
        ),
        ("web", True),
    ),
]

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
        lambda: in_force(target(tcp("any"), to=account("default")), ANY),
        False,
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

STATEMENTS = [*SPLITS, *MATCHES, *GROUPS, *TARGETS]


@pytest.mark.parametrize(("question", "answer"), [row[1:] for row in STATEMENTS], ids=[row[0] for row in STATEMENTS])
def test_the_statement_holds(question: Callable[[], Any], answer: Any) -> None:
    assert question() == answer


def test_no_statement_stands_here_twice() -> None:
    names = [row[0] for row in STATEMENTS]
    assert len(set(names)) == len(names)


# ---------------------------------------------------------------- what a row cannot say in a line


def _renamed(service: str) -> Any:
    obj = split(1)
    obj["spec"]["service"] = service
    return obj


def _of(service: str, *backends: Any) -> Any:
    obj = split(*backends, name=f"of-{service}")
    obj["spec"]["service"] = service
    return obj


def _matching_kind(kind: str) -> Any:
    obj = split(1, matches=["g"])
    obj["spec"]["matches"][0]["kind"] = kind
    return obj


def _without_selector() -> Any:
    return service("web", selector={})


def _port_mismatch() -> list[str]:
    return reasons(service("web-v2", {"port": 81}), split(1, 1))


def _empty_share(**annotations: str) -> list[tuple[str, int]]:
    obj = split(3, ("web-v9", 1))
    obj["metadata"]["annotations"] = annotations
    return [(name, weight) for name, weight, _ in shares(obj, service("web-v9"))]


def _written(obj: Any, version: str) -> list[Any]:
    return [backend["weight"] for backend in splits.write(splits.parse(obj), version)["spec"]["backends"]]


def _cannot_write_matches() -> bool:
    with pytest.raises(ValueError, match="has no matches"):
        splits.write(splits.parse(split(1, matches=["g"])), "v1alpha2")
    return True


def _two_groups() -> list[Any]:
    return [split(("web-v2", 1), matches=["g", "h"]), group(GET, {"methods": ["PUT"]}), group({"methods": ["POST"]}, name="h")]


def _two_lines() -> list[str]:
    head = asking(x_role="user")
    head.fields += asking(x_role="admin").fields
    return [verdict(target(http("g")), books("g", {"headers": {"x-role": one}}), head=head) for one in ("user", "user,admin")]


def _written_headers(headers: Any) -> Any:
    return write_group(parse_group(group({"headers": headers})), "v1alpha4")["spec"]["matches"][0]["headers"]


def _port_converted() -> Any:
    old = parse_target(old_target("v1alpha1", 9091, [tcp("any")]))
    return parse_target(write_target(old, "v1alpha3", port_route="t-port")).rules

"""What the SMI specification says of TrafficSplit (2 of the digest), asked of manifests: see test_smi_statements.py."""

from __future__ import annotations

from typing import Any

import pytest
from access_objects import account, ports, target, tcp
from compile_objects import service
from routing_objects import http_route, to
from smi_world import (
    Row,
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
    reads,
    reasons,
    refused,
    same_route,
    shares,
    split,
    target_ports,
    weights,
)

from control.resources import split as splits

ALL = ("v1alpha1", "v1alpha2", "v1alpha3", "v1alpha4")
GET = {"methods": ["GET"]}
ANY = ports("any")

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
        "2.3.12 access is judged by the identities of the pods behind a backend, not of the root",
        lambda: [in_force(split(1), target(tcp("any"), to=account("web-v1")), ANY, account=one) for one in ("web-v1", "web")],
        [True, False],
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

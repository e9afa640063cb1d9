"""Annotations the mesh reads, and what they mean.  Linkerd's names work as they are; ours win where both are given.

on a Service, HTTPRoute or GRPCRoute (for all its rules, instead of the Service's: `Traffic`)
               retry.linkerd.io/http | grpc | limit     meshproxy.dev/retry-http | retry-grpc | retry-limit
               meshproxy.dev/retry-backoff              the first wait between two tries; 25 ms, and to 250 ms
               timeout.linkerd.io/request | response | idle
                                                        meshproxy.dev/timeout-request | timeout-response | timeout-idle
               meshproxy.dev/timeout-response-start     how long an endpoint may take to begin its answer
on a Service   meshproxy.dev/timeout-propagate          false (default) | true: what is left of timeout-request goes on
               the balancer's and the breaker's: control/resources/balancing.py; faults: control/resources/fault.py
on a pod       meshproxy.dev/default-inbound-policy     all-authenticated (default) | all-unauthenticated | deny
               meshproxy.dev/concurrency-limit          control/resources/concurrency.py
               meshproxy.dev/workers                    1 (default) to 64 | auto
               meshproxy.dev/inject                     enabled (default) | disabled
               meshproxy.dev/explain                    false (default) | true: its app may ask its sidecar why (mesh-explain)
on a pod or its Namespace (the pod's wins)
               meshproxy.dev/access                     enforce (default) | audit: report what TrafficTargets would deny
on a TrafficSplit, HTTPRoute or GRPCRoute
               meshproxy.dev/empty-backend              fail (default) | redistribute: the share of a backend without endpoints
               meshproxy.dev/sticky                     header=NAME | cookie=NAME: whose value keeps a client with one backend
on an HTTPRouteGroup
               meshproxy.dev/path-match                 start (default) | full: a pathRegex takes the whole path

`PLACES` lists all of ours and where each is read, `FOREIGN` others' names; docs/annotations.md is the same for people.
`strays` finds those of ours and Linkerd's that are read nowhere, or not where they stand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from control.resources import fault, linkerd
from control.resources.balancing import LINKERD_BALANCING, ON_SERVICES, WEIGHT
from control.resources.concurrency import CONCURRENCY
from control.resources.quantity import seconds
from control.resources.shape import nearest, shown
from control.store.store import Object

PREFIX = "meshproxy.dev/"
INBOUND_POLICY = "meshproxy.dev/default-inbound-policy"
INBOUND_POLICIES = ("all-authenticated", "all-unauthenticated", "deny")

WORKERS = "meshproxy.dev/workers"
MAX_WORKERS = 64  # as `meshproxy proxy --workers` takes
INJECT = "meshproxy.dev/inject"
INJECTIONS = ("enabled", "disabled")
EXPLAIN = "meshproxy.dev/explain"
EXPLAINS = ("false", "true")

ACCESS = "meshproxy.dev/access"
ACCESS_MODES = ("enforce", "audit")
REFUSED = "meshproxy.dev/refused"  # on what stands for a TrafficTarget that was refused: why
PATH_MATCH = "meshproxy.dev/path-match"
PATH_MATCHES = ("start", "full")

EMPTY_BACKEND = "meshproxy.dev/empty-backend"
EMPTY_BACKENDS = ("fail", "redistribute")
STICKY = "meshproxy.dev/sticky"
_STICKY = re.compile(r"(header|cookie)=([!#$%&'*+.^_`|~0-9A-Za-z-]{1,256})\Z")  # RFC 9110 5.6.2 token; RFC 6265 4.1.1

PROPAGATE = "meshproxy.dev/timeout-propagate"
PROPAGATES = ("false", "true")
_TIMES = ("request", "response-start", "response", "idle")

_POD = ("Pod",)  # also the template of a Deployment
# annotation -> the kinds on which it is read
PLACES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        [f"{PREFIX}{name}" for name in ("retry-limit", "retry-backoff", *(f"timeout-{time}" for time in _TIMES))],
        ("Service", "HTTPRoute", "GRPCRoute"),
    ),
    "meshproxy.dev/retry-http": ("Service", "HTTPRoute"),
    "meshproxy.dev/retry-grpc": ("Service", "GRPCRoute"),
    PROPAGATE: ("Service",),
    **dict.fromkeys((*ON_SERVICES, *fault.ON_SERVICES), ("Service",)),
    WEIGHT: _POD,
    CONCURRENCY: _POD,
    INBOUND_POLICY: _POD,
    WORKERS: _POD,
    INJECT: _POD,
    EXPLAIN: _POD,
    ACCESS: ("Namespace", *_POD),
    PATH_MATCH: ("HTTPRouteGroup",),
    EMPTY_BACKEND: ("TrafficSplit", "HTTPRoute", "GRPCRoute"),
    STICKY: ("TrafficSplit", "HTTPRoute", "GRPCRoute"),
    **dict.fromkeys(
        [f"{PREFIX}{name}" for name in ("confirm", "minimum-requests", "pause", "approve", "abort", "promote", "retry")],
        ("Canary",),
    ),
}
# Written by the mesh: they stand in what was exported with `get -o yaml`, and nobody need be told.
WRITTEN = frozenset(
    f"{PREFIX}{name}"
    for name in (
        "proxy",
        "service-listeners",
        "made-by",
        "terminating-since",
        "revision",
        "canary",
        "added-port",
        "declared",
        "promoted",
        "unapproved",
        "refused",
    )
)

_HTTP_WORDS = ("reset", "5xx", "gateway-error", "retriable-4xx")
_LINKERDS_CODES = ("cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable")
_GRPC_CODES = (*_LINKERDS_CODES, "aborted", "unknown")  # gRPC's own word for ABORTED is "retry at a higher level"
_STATUS = re.compile(r"([45][0-9][0-9])(?:-([45][0-9][0-9]))?\Z")  # of an answer that is no failure nothing is tried again
MAX_CONDITIONS = 32
MAX_ATTEMPTS = 10  # retries of one request: more is load, not help
MAX_BACKOFF_MS = 10_000  # as the proxy keeps to (meshproxy/policy/retry.py)
MAX_TIMEOUT_MS = 24 * 3600 * 1000

LINKERD = {
    "retry.linkerd.io/http": "meshproxy.dev/retry-http",
    "retry.linkerd.io/grpc": "meshproxy.dev/retry-grpc",
    "retry.linkerd.io/limit": "meshproxy.dev/retry-limit",
    "timeout.linkerd.io/request": "meshproxy.dev/timeout-request",
    "timeout.linkerd.io/response": "meshproxy.dev/timeout-response",
    "timeout.linkerd.io/idle": "meshproxy.dev/timeout-idle",
}
# Not ours: annotation -> the kinds on which it is read.
FOREIGN: dict[str, tuple[str, ...]] = {
    **{linkerd: PLACES[ours] for linkerd, ours in LINKERD.items()},
    **dict.fromkeys(LINKERD_BALANCING, ("Service",)),
    linkerd.INJECT: _POD,
    "flagger.app/config-tracking": ("ConfigMap", "Secret"),
}


@dataclass(frozen=True, slots=True)
class Traffic:
    """How requests are to be treated: all those to a Service, or those that a route takes.

    What is said of retries on a route stands instead of all that its Service says of them, and so do times (as Linkerd has it):
    declared_retry, declared_times   anything valid is said of them at all
    conditions  beyond connect-failure, refused-stream and reset, which always hold
    any_method  those on answers hold for every method: retry.linkerd.io/http is the one in force, not ours
    backoff_ms  None: not given
    timeout_ms  None: not given.  All times: 0 is none
    mistakes    annotation, what is wrong, hint; a wrong one is left out
    """

    declared_retry: bool
    declared_times: bool
    conditions: tuple[str, ...]
    any_method: bool
    attempts: int
    backoff_ms: int | None
    timeout_ms: int | None
    response_start_ms: int
    response_ms: int
    idle_ms: int
    propagate: bool
    mistakes: tuple[tuple[str, str, str], ...]


def traffic(annotations: Mapping[str, str], kind: str = "Service") -> Traffic:
    """What the annotations of a Service, HTTPRoute or GRPCRoute declare.  Never raises."""
    mistakes: list[tuple[str, str, str]] = []
    conditions: list[str] = []
    attempts, declared, any_method = 1, False, False

    def given(ours: str) -> tuple[str, str] | None:
        if kind not in PLACES[ours]:
            return None
        if ours in annotations:
            return ours, annotations[ours]
        for name, same in LINKERD.items():
            if same == ours and name in annotations:
                return name, annotations[name]
        return None

    for ours, allowed in (("meshproxy.dev/retry-http", _HTTP_WORDS), ("meshproxy.dev/retry-grpc", _GRPC_CODES)):
        if (found := given(ours)) is None:
            continue
        words = [word for part in found[1].split(",") if (word := part.strip().lower())]
        right = [word for word in words if word in allowed or (allowed is _HTTP_WORDS and _is_status(word))]
        declared = declared or not words or bool(right)  # "": nothing, and that instead of the Service's
        any_method = any_method or found[0] == "retry.linkerd.io/http"
        conditions += [word for word in dict.fromkeys(right) if word not in conditions]
        for word in words:
            if word not in right:
                wanted = ", ".join(allowed) + (", a status from 400 or a range such as 500-504" * (allowed is _HTTP_WORDS))
                mistakes.append((found[0], f"found {word!r}, expected {wanted}", nearest(word, list(allowed))))
    if len(conditions) > MAX_CONDITIONS:
        mistakes.append(("meshproxy.dev/retry-http", f"{len(conditions)} conditions, at most {MAX_CONDITIONS}", "use ranges"))
        del conditions[MAX_CONDITIONS:]
    if found := given("meshproxy.dev/retry-limit"):
        text = found[1].strip()
        if text.isascii() and text.isdigit() and int(text[:9]) <= MAX_ATTEMPTS:
            attempts, declared = int(text), True
        else:
            mistakes.append((found[0], f"found {found[1]!r}, expected a whole number from 0 to {MAX_ATTEMPTS}", ""))

    def time(name: str, most_ms: int, most: str) -> int | None:
        """Milliseconds; None: not given, or wrong."""
        if (found := given(f"{PREFIX}{name}")) is None:
            return None
        try:
            given_s = seconds(found[1])
            milliseconds = max(round(given_s * 1000), 1) if given_s > 0.0 else 0
        except ValueError as mistake:
            mistakes.append((found[0], f"found {mistake}", ""))
            return None
        if milliseconds > most_ms:
            mistakes.append((found[0], f"found {found[1]!r}, expected at most {most}", ""))
            return None
        return milliseconds

    backoff_ms = time("retry-backoff", MAX_BACKOFF_MS, "10s")
    declared = declared or backoff_ms is not None
    times = {name: at for name in _TIMES if (at := time(f"timeout-{name}", MAX_TIMEOUT_MS, "24h")) is not None}
    word = annotations.get(PROPAGATE, "false") if kind in PLACES[PROPAGATE] else "false"
    if word not in PROPAGATES:
        mistakes.append((PROPAGATE, f"found {shown(word)}, expected true or false", nearest(word, list(PROPAGATES))))
    return Traffic(
        declared,
        bool(times),
        tuple(conditions),
        any_method,
        attempts,
        backoff_ms,
        times.get("request"),
        times.get("response-start", 0),
        times.get("response", 0),
        times.get("idle", 0),
        word == "true",
        tuple(mistakes),
    )


def _is_status(word: str) -> bool:
    found = _STATUS.match(word)
    return found is not None and (found[2] is None or found[1] <= found[2])


@dataclass(frozen=True, slots=True)
class Sharing:
    """How a split shares out requests.  redistribute: the share of a backend without endpoints goes to those that have some;
    sticky: ("header" | "cookie", name), ("", "") for none."""

    redistribute: bool = False
    sticky: tuple[str, str] = ("", "")


PLAIN_SHARING = Sharing()


def sharing(annotations: Mapping[str, str]) -> Sharing:
    """What a split's or route's annotations declare; what is wrong is left out.  Never raises."""
    match = _STICKY.match(annotations.get(STICKY, ""))
    return Sharing(annotations.get(EMPTY_BACKEND) == "redistribute", (match[1], match[2]) if match is not None else ("", ""))


def sharing_mistakes(annotations: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """annotation, what is wrong, hint."""
    found: list[tuple[str, str, str]] = []
    word = annotations.get(EMPTY_BACKEND)
    if word is not None and word not in EMPTY_BACKENDS:
        found.append(
            (EMPTY_BACKEND, f"found {shown(word)}, expected fail or redistribute", nearest(word, list(EMPTY_BACKENDS)))
        )
    word = annotations.get(STICKY)
    if word is not None and _STICKY.match(word) is None:
        found.append((STICKY, f"found {shown(word)}, expected header=NAME or cookie=NAME", ""))
    return found


def strays(annotations: Mapping[str, str], kind: str, ports: Sequence[Object] = ()) -> list[tuple[str, str, str]]:
    """Annotations of ours and Linkerd's that have no effect on an object of this kind ("Pod": also a pod template): annotation,
    what is wrong, hint.  ports: of a Service, as written."""
    found: list[tuple[str, str, str]] = []
    for name in annotations:
        if not name.startswith(PREFIX) or name in WRITTEN:
            continue
        places = PLACES.get(name)
        if places is None:
            here = [known for known, kinds in PLACES.items() if kind in kinds]
            hint = nearest(name, here) or nearest(name, list(PLACES))
            found.append((name, "is no annotation that the mesh knows: it has no effect", hint))
        elif kind not in places:
            found.append((name, *linkerd.misplaced(kind, places)))
    return [*found, *linkerd.strays(annotations, kind, FOREIGN, ports)]


def workers_mistake(value: str) -> str:
    """What is wrong with a number of workers; "" if nothing is."""
    if value == "auto" or (value.isascii() and value.isdigit() and 1 <= int(value[:9]) <= MAX_WORKERS):
        return ""
    return f"found {shown(value)}, expected a number from 1 to {MAX_WORKERS}, or auto"

"""The way of one request out of a pod, as its sidecar would decide it now: the trail.

    authority --named()--> Service | pod | outside | refused
      head --matching.tried()--> rule --> filters, faults, mirrors --> shares of the backends --> their endpoints
                                                                       times, retries, budget

Reads the outbound side's tables and live state and changes neither: nothing is drawn, counted or dialled.
"""

from __future__ import annotations

from typing import Any, Final

from meshproxy.explain import balancing, matching
from meshproxy.explain.matching import SHOWN, text
from meshproxy.policy.consistent_hash import HashKey, hash_key
from meshproxy.policy.declared import RouteSpec
from meshproxy.policy.match import NO_MATCH, Match
from meshproxy.policy.retry import CONDITIONS, GRPC_CODES, TRY_TIMEOUT, RetryPolicy, is_idempotent
from meshproxy.policy.service import OPAQUE, BackendEntry, ServiceEntry
from meshproxy.policy.tables import DEFAULT_PORT, parse_authority
from meshproxy.proxy.outbound import Outbound
from meshproxy.proxy.refusals import (
    AMBIGUOUS_PATH,
    BACKEND_INVALID,
    BAD_AUTHORITY,
    CIRCUIT_OPEN,
    LOOP,
    NO_BACKEND,
    NO_ENDPOINTS,
    NO_ROUTE,
    NOT_READY,
    Refusal,
)
from meshproxy.proxy.route import Backend, Route
from meshproxy.wire.message import Head

_PROBLEMS: Final = {one.reason: one for one in (NO_ENDPOINTS, CIRCUIT_OPEN, BACKEND_INVALID)}
_PLAIN: Final = RouteSpec("")


def trail(side: Outbound, head: Head, now: float) -> dict[str, Any]:
    """What would become of this request.  `now`: monotonic seconds, of the same clock as the side's."""
    found: dict[str, Any] = {"asked": asked(head), "tables": side.tables.version}
    if not side.ready:
        return found | {"outcome": refused(NOT_READY)}
    name, entry, refusal = named(side, head)
    found["name"] = name
    if refusal is not None:
        return found | {"outcome": refused(refusal)}
    if entry is None:
        pod = side.pods.get(name["address"])
        if pod is None:
            return found | {"outcome": {"kind": "outside", "text": "outside the mesh: passed through as it is, and counted"}}
        return found | onward(side, None, pod, head, now, [], None)
    return found | by_rules(side, entry, head, now)


def asked(head: Head) -> dict[str, Any]:
    """In full: the far side is asked about what would be sent."""
    return {
        "method": plain(head.method),
        "url": f"http://{plain(head.authority)}{plain(head.path)}",
        "headers": [[plain(field.name), plain(field.value)] for field in head.fields],
    }


def plain(value: bytes) -> str:
    return value.decode("utf-8", "replace")


# ---------------------------------------------------------------- the name


def named(side: Outbound, head: Head) -> tuple[dict[str, Any], ServiceEntry | None, Refusal | None]:
    """How the authority is read: ({"kind", "how", ...}, the Service, why it is refused).  In the order of Outbound.find."""
    authority = head.authority
    parsed = parse_authority(authority)
    port = DEFAULT_PORT if parsed is None or not parsed.port else parsed.port
    ports = f"port {port}" + ("" if parsed is not None and parsed.port else ", the default")
    entry = side.tables.lookup(authority, side.namespace, DEFAULT_PORT)
    if entry is not None:
        host = parsed.host if parsed is not None else ""
        if host.replace(".", "").isdigit():
            how = f"the cluster IP of {entry.name} in namespace {entry.namespace}, {ports}"
        elif "." not in host:
            how = f"a short name, looked up in the caller's namespace {entry.namespace}, {ports}"
        else:
            how = f"{entry.name} in namespace {entry.namespace}, {ports}"
        found: dict[str, Any] = {"kind": "service", "service": entry.key, "how": how}
        if entry.protocol == OPAQUE:
            found["note"] = "its port is declared to be no HTTP: through a listener of its own its bytes are carried unread"
        return found, entry, None
    if parsed is None:
        return {"kind": "refused", "how": "not a host name or IPv4 address"}, None, BAD_AUTHORITY
    address = f"{parsed.host}:{port}"
    if address in side.own:
        return {"kind": "refused", "how": f"{address} is this proxy itself"}, None, LOOP
    if address in side.pods:
        return (
            {"kind": "pod", "address": address, "how": "a meshed pod, by its address: no Service, no rules of one"},
            None,
            None,
        )
    if not parsed.absolute and side.tables.is_ours(parsed.host):
        return {"kind": "refused", "how": no_service(side, parsed.host, port)}, None, NO_ROUTE
    how = "no Service of the mesh has this name"
    if "." not in parsed.host:
        if "has no port" in (hint := no_service(side, parsed.host, port)):
            how = hint
        elif elsewhere := homes(side, parsed.host):
            meant = " or ".join(f"{parsed.host}.{namespace}" for namespace in elsewhere[:3])
            how = f"no Service of the caller's namespace {side.namespace} has this name; did you mean {meant}?"
    return {"kind": "outside", "address": address, "how": how}, None, None


def no_service(side: Outbound, host: str, port: int) -> str:
    """A name of the mesh that leads nowhere: is it the port, or the name?"""
    labels = host.split(".")
    prefix = f"{labels[1]}/{labels[0]}:" if len(labels) > 1 else f"{side.namespace}/{labels[0]}:"
    others = sorted(int(key.removeprefix(prefix)) for key in side.tables.services if key.startswith(prefix))
    if others:
        return f"Service {prefix[:-1]} has no port {port}; it has {', '.join(str(one) for one in others[:10])}"
    return f"a name of the mesh, and there is no Service {prefix[:-1]}"


def homes(side: Outbound, name: str) -> list[str]:
    """The namespaces in which there is a Service of this name."""
    middle = f"/{name}:"
    return sorted({key.partition("/")[0] for key in side.tables.services if middle in key})


# ---------------------------------------------------------------- the rule


def by_rules(side: Outbound, entry: ServiceEntry, head: Head, now: float) -> dict[str, Any]:
    service = side.routes[(entry.key, False)]
    if entry.matches is None or service.routing is None:
        return onward(side, entry, service, head, now, entry.backends, None)
    tried = matching.tried(entry.matches, entry.routes, head)
    found: dict[str, Any] = {"matches": shortened(tried), "matches_left_out": max(0, len(tried) - SHOWN)}
    if matching.unsafe(entry.matches, head):
        return found | {"outcome": refused(AMBIGUOUS_PATH)}
    match: Match = entry.matches.find(head)
    routed = service.routing.judge(head)
    sent = routed.head if routed.head is not None else head
    if match is NO_MATCH or routed.route is None:
        return found | onward(side, entry, service, sent, now, entry.backends, None)
    rule = entry.routes[match.route]
    spec = rule.spec
    found["rule"] = spec.name
    found["filters"] = matching.filters(spec, head, sent, text(routed.location))
    if routed.location:
        redirect = spec.redirect
        status = redirect.status if redirect is not None else 302
        return found | {"outcome": {"kind": "redirect", "status": status, "location": text(routed.location)}}
    return found | onward(side, entry, routed.route, sent, now, rule.backends, spec)


def shortened(tried: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first SHOWN, the one that was taken among them."""
    shown = tried[:SHOWN]
    taken = next((one for one in tried[SHOWN:] if one["taken"]), None)
    return shown if taken is None else [*shown[:-1], taken]


# ---------------------------------------------------------------- backends, times, retries


def onward(
    side: Outbound,
    service: ServiceEntry | None,
    route: Route,
    head: Head,
    now: float,
    entries: list[BackendEntry],
    spec: RouteSpec | None,
) -> dict[str, Any]:
    """From the route on: everything that will have a say in where the request goes, and how long it may take."""
    rule = route.rule
    found: dict[str, Any] = {
        "times": times(route, head),
        "retry": retry(side, route, head, now),
        "fault": fault(route, head),
        "mirrors": mirrors(spec),
    }
    if rule is not None and rule.refusal is not None:
        return found | {"backends": [], "outcome": refused(rule.refusal)}
    found["split"] = split = shares(route, head)
    backends = []
    for index, backend in enumerate(route.backends):
        entry = entries[index] if index < len(entries) else None
        backends.append(
            {
                "name": backend.name,
                "weight": split["weights"][index],
                "share": split["shares"][index],
                "left": split["left"][index] if split["left"] else None,
                **of_backend(backend, entry, head, now, spec),
            }
        )
    found["backends"] = backends
    found["sends"] = asked(head)
    return found | {"outcome": outcome(split, backends)}


def of_backend(
    backend: Backend, entry: BackendEntry | None, head: Head, now: float, spec: RouteSpec | None = None
) -> dict[str, Any]:
    chooser = backend.chooser
    policy = chooser.policy if chooser is not None else None
    key = policy.key.of(head) if policy is not None and policy.key is not None else None
    found: dict[str, Any] = {"balancer": balancing.balancer(policy), "filters": [], **balancing.endpoints(backend, now, key)}
    if policy is not None and policy.key is not None:
        found["key"] = None if key is None else text(key)
    if entry is not None:
        if entry.refuse:
            found["problem"] = BACKEND_INVALID.reason
            rule = spec.name if spec is not None and spec.name else "the rule"
            found["why"] = f"{rule} names {backend.name}, which does not exist or cannot be sent to as declared"
        found["filters"] = matching.changes("request header", entry.request_headers)
        found["filters"] += matching.changes("answer's header", entry.response_headers)
        if entry.request_headers is not None:
            found["sends"] = asked(head.copied(entry.request_headers.apply(head.fields)))
    return found


def shares(route: Route, head: Head) -> dict[str, Any]:
    """Who gets which part of such requests.  left: of the block; backend: where a key (or a single one) leads, -1: nowhere."""
    split = route.split
    count = len(route.backends)
    if split is None:
        return {"weights": [1] * count, "shares": [1.0] * count, "left": [], "sticky": None, "backend": 0 if count else -1}
    total = sum(split.weights)
    portions = [round(weight / total, 8) if total else 0.0 for weight in split.weights]
    found: dict[str, Any] = {
        "weights": split.weights,
        "shares": portions,
        "left": split.left(),
        "sticky": None,
        "backend": None,
    }
    if not total:
        return found | {"backend": -1}
    rule = route.rule
    sticky: HashKey | None = rule.sticky if rule is not None else None
    if sticky is not None:
        key = sticky.of(head)
        found["sticky"] = {"by": sticky.text, "key": None if key is None else text(key)}
        if key is not None:
            found["backend"] = split.at(hash_key(key))
    return found


def outcome(split: dict[str, Any], backends: list[dict[str, Any]]) -> dict[str, Any]:
    """ "sent" where some share of such requests is, "answered" where all of them are refused here."""
    if not backends or split["backend"] == -1:
        return refused(NO_BACKEND)
    at = split["backend"]
    drawn = [one for one in backends if one["share"] > 0.0] if at is None else [backends[at]]
    problems = [one["problem"] for one in drawn]
    if all(problems):
        why = drawn[0].get("why")
        found = refused(_PROBLEMS[problems[0]])
        return found if why is None else found | {"text": why}
    return {"kind": "sent"}


def times(route: Route, head: Head) -> dict[str, Any]:
    rule = route.rule
    declared = route.times
    return {
        "request_s": route.deadlines.duration_s if route.deadlines is not None else None,
        "try_s": rule.tries.duration_s if rule is not None and rule.tries is not None else None,
        "response_start_s": declared.response_start.duration_s if declared is not None and declared.response_start else None,
        "response_s": declared.response.duration_s if declared is not None and declared.response else None,
        "idle_s": (declared.idle_s or None) if declared is not None else None,
        "propagated": declared is not None and declared.propagate and route.deadlines is not None,
        "grpc_timeout": text(head.grpc_timeout) if head.grpc and head.grpc_timeout else None,
        "expected_ms": head.expected_ms or None,
    }


def retry(side: Outbound, route: Route, head: Head, now: float) -> dict[str, Any]:
    policy: RetryPolicy = route.retry
    words = [name for name, bit in CONDITIONS.items() if policy.conditions & bit]
    words += [str(status) for status in sorted(policy.statuses)]
    codes = [name for name, code in GRPC_CODES.items() if (policy.grpc_codes >> code) & 1]
    budget = route.budget
    waits = policy.always_waits or route.retry_responses or policy.conditions & TRY_TIMEOUT
    return {
        "attempts": policy.attempts,
        "conditions": words + codes,
        "grpc_codes": codes,
        "idempotent": is_idempotent(head.method),
        "any_method": policy.any_method,
        "body_up_to": side.ctx.settings.replay_bytes,
        "backoff_s": policy.backoff_s if waits else 0.0,
        "budget": {
            "retries_left": budget.peek(now),
            "ratio": budget.ratio,
            "floor_per_second": budget.floor_per_second,
            "ttl_s": budget.ttl,
        },
    }


def fault(route: Route, head: Head) -> dict[str, Any] | None:
    injection = route.injection
    if injection is None:
        return None
    policy = injection.policy
    return {
        "matches": policy.matches(head),
        "delay_s": policy.delay_s,
        "delay_share": policy.delay_ppm / 1e6,
        "abort_status": policy.status,
        "abort_share": policy.abort_ppm / 1e6,
        "header": f"{text(policy.header)}={text(policy.value)}" if policy.header else "",
    }


def mirrors(spec: RouteSpec | None) -> list[dict[str, Any]]:
    if spec is None:
        return []
    return [{"backend": one.service, "port": one.port, "share": up / down} for one, up, down in spec.mirrors]


def refused(refusal: Refusal) -> dict[str, Any]:
    return {"kind": "answered", "status": refusal.status, "reason": refusal.reason, "text": refusal.text}

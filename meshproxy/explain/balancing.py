"""What each endpoint of a backend looks like from here, and which of them the next request would get.

    Backend, now --endpoints()--> one entry each, the cheapest first:   cost = latency x (pending / weight + 1)
                                                                        state   ready, ejected, probing, backing off, retired
                                                                        chance  of the next request, where that can be said

Pure: reads loads and breakers, and changes nothing (a pick would draw from the proxy's chance, and might begin a probe).
"""

from __future__ import annotations

from typing import Any, Final

from meshproxy.explain.matching import SHOWN
from meshproxy.policy.balancer import LEAST_REQUEST, Target
from meshproxy.policy.breaker import CLOSED, OPEN, Breaker
from meshproxy.policy.chooser import BALANCERS, BalancerPolicy, Chooser, Group
from meshproxy.policy.consistent_hash import hash_key
from meshproxy.policy.ejection import allowed, is_out
from meshproxy.policy.slow_start import warmth
from meshproxy.proxy.endpoint import SPEAKS_MESH, Endpoint
from meshproxy.proxy.route import Backend

NAMES: Final = {number: name for name, number in BALANCERS.items()}


def balancer(policy: BalancerPolicy | None) -> dict[str, Any]:
    """What is declared, with the defaults filled in."""
    if policy is None:
        return {"name": "ewma"}
    found: dict[str, Any] = {"name": NAMES[policy.balancer]}
    if policy.key is not None:
        found["key"] = policy.key.text
    if policy.slow_start_s > 0.0:
        found["slow_start_s"] = policy.slow_start_s
    if policy.zone:
        found["prefers_zone"] = policy.zone
    if policy.breaker is not None:
        rules = policy.breaker
        found["breaker"] = {
            "failures_in_a_row": rules.consecutive,
            "success_rate": rules.success_rate,
            "window_s": rules.window_s,
            "max_ejected": rules.max_ejected,
        }
    return found


def cost(chooser: Chooser | None, target: Target, now: float) -> float:
    """As the balancer reckons it: seconds; of least-request: requests."""
    if chooser is None:
        return target.load.cost(now)
    group: Group = chooser.all
    if chooser.near is not None and chooser.far is not None:
        group = chooser.near if target in chooser.near.targets else chooser.far
    return chooser.cost(target, group, now)


def state(endpoint: Endpoint, now: float) -> dict[str, Any]:
    """{"name", "why"}, and of one that is left out "probe_in_s"."""
    breaker = endpoint.breaker
    if endpoint.retired:
        return {"name": "retired", "why": "the configuration no longer lists it"}
    if breaker is not None and breaker.state == OPEN:
        left = max(0.0, breaker.until - now)
        return {
            "name": "ejected",
            "why": f"{breaker.failures} failures in a row" if breaker.failures else "its success rate was too low",
            "probe_in_s": round(left, 3),
            "penalty": breaker.penalties,
        }
    if breaker is not None and breaker.state != CLOSED:
        return {"name": "probing", "why": f"one request tries it, since {now - breaker.probing_since:.1f} s"}
    if endpoint.back_off is not None:
        return {"name": "backing off", "why": f"{endpoint.failures} connects failed in a row; it is tried again soon"}
    return {"name": "ready", "why": ""}


def health(breaker: Breaker) -> dict[str, Any]:
    found: dict[str, Any] = {"failures_in_a_row": breaker.failures}
    window = breaker.window
    if window is not None:
        found["window"] = {"requests": window.total, "failures": window.bad}  # as of the last one that ended
    return found


def chances(backend: Backend, now: float) -> dict[Endpoint, float]:
    """The chance of each endpoint to get the next request, by power of two choices; empty where weights, zones, slow start, a
    key or a probe have a say, because then it is not this simple."""
    chooser = backend.chooser
    if chooser is not None:
        if chooser.all.sums is not None or chooser.near is not None or chooser.table is not None or now < chooser.cold_until:
            return {}
        ejection = chooser.ejection
        if ejection is not None and any(one.breaker is not None and one.breaker.due(now) for one in ejection.out):
            return {}
    ready = [one for one in backend.endpoints if one.available]
    if len(ready) == 1:
        return {ready[0]: 1.0}
    found = {}
    pairs = len(ready) * (len(ready) - 1)
    price = {one: cost(chooser, one, now) for one in ready}
    dearer = _dearer(sorted(price.values()))
    for one in ready:
        more, same = dearer[price[one]]
        found[one] = (2 * more + same - 1) / pairs  # of two that cost the same the first drawn: half of these pairs
    return found


def _dearer(costs: list[float]) -> dict[float, tuple[int, int]]:
    """Cost -> how many cost more, how many the same.  `costs`: ascending."""
    found: dict[float, tuple[int, int]] = {}
    for index, one in enumerate(costs):
        _, same = found.get(one, (0, 0))
        found[one] = (len(costs) - index - 1, same + 1)
    return found


def endpoints(backend: Backend, now: float, key: bytes | None = None) -> dict[str, Any]:
    """`key`: of the request, for a consistent hash.  {"endpoints", "left_out", "keyed", "probes", "ejected", "may_be_ejected",
    "problem"}; at most SHOWN endpoints, the cheapest, and those that are left out first."""
    chooser = backend.chooser
    chance = chances(backend, now)
    keyed: Target | None = None
    if chooser is not None and chooser.table is not None and key is not None:
        keyed = chooser.table.at(hash_key(key))
    least = chooser is not None and chooser.policy.balancer == LEAST_REQUEST
    slow_start_s = chooser.policy.slow_start_s if chooser is not None else 0.0
    listed = sorted(backend.endpoints, key=lambda one: (one.available, cost(chooser, one, now)))
    shown = []
    for one in listed[:SHOWN]:
        price = cost(chooser, one, now)
        item: dict[str, Any] = {
            "address": one.address,
            "port": one.target_port or one.port,
            "mesh_port": one.port if one.speaks == SPEAKS_MESH else 0,
            "identity": one.identity,
            "cost": round(price if least else price * 1000.0, 4),
            "ewma_ms": round(one.load.latency(now) * 1000.0, 4),
            "sampled_s_ago": round(max(0.0, now - one.load.stamp), 3),
            "pending": one.load.pending,
            "connections": one.connections(),
            "weight": one.weight,
            "zone": one.zone,
            "warmth": round(warmth(now, one.since, slow_start_s), 4) if slow_start_s > 0.0 else 1.0,
            "state": state(one, now),
            "chance": round(chance[one], 4) if one in chance else (0.0 if chance else None),
            "keyed": one is keyed,
        }
        if one.breaker is not None:
            item["breaker"] = health(one.breaker)
        shown.append(item)
    shown.sort(key=lambda item: (item["state"]["name"] != "ready", item["cost"]))
    found: dict[str, Any] = {
        "endpoints": shown,
        "left_out": max(0, len(listed) - SHOWN),
        "unit": "requests" if least else "ms",
        "problem": problem(backend, now),
    }
    ejection = chooser.ejection if chooser is not None else None
    if ejection is not None:
        found["ejected"] = len(ejection.out)
        found["may_be_ejected"] = allowed(len(ejection.members), ejection.policy.max_ejected)
        found["probe_due"] = any(one.breaker is not None and one.breaker.due(now) for one in ejection.out)
    return found


def problem(backend: Backend, now: float) -> str:
    """Reason of the refusal that a request for this backend gets now, "" if it is sent."""
    if not backend.endpoints:
        return "no_endpoints"
    chooser = backend.chooser
    if chooser is None or chooser.ejection is None or not all(is_out(one) for one in backend.endpoints):
        return ""
    probed = any(one.breaker is not None and one.breaker.due(now) for one in backend.endpoints)
    return "" if probed else "circuit_open"

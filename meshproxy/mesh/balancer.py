"""How a Service's endpoints are chosen, as it came from the control plane -> the tables' form.

Equal declarations give the same object, update after update: that is how live state knows that nothing changed.
Raises ValueError saying what cannot be used.
"""

from __future__ import annotations

from functools import lru_cache

from control.api import mesh_pb2
from meshproxy.policy.balancer import LEAST_REQUEST, PEAK_EWMA
from meshproxy.policy.breaker import BreakerPolicy
from meshproxy.policy.chooser import MAGLEV, RING_HASH, BalancerPolicy
from meshproxy.policy.consistent_hash import HashKey

_HOW = {
    mesh_pb2.Balancer.EWMA: PEAK_EWMA,
    mesh_pb2.Balancer.LEAST_REQUEST: LEAST_REQUEST,
    mesh_pb2.Balancer.MAGLEV: MAGLEV,
    mesh_pb2.Balancer.RING_HASH: RING_HASH,
}


def balancer_of(service: mesh_pb2.Service, zone: str) -> BalancerPolicy | None:
    """`zone`: of the pod that this proxy serves.  None: nothing is declared."""
    if not service.HasField("balancer"):
        return None
    return _balancer(service.balancer.SerializeToString(deterministic=True), zone if service.balancer.prefer_zone else "")


@lru_cache(maxsize=4096)
def _balancer(message: bytes, zone: str) -> BalancerPolicy:
    declared = mesh_pb2.Balancer.FromString(message)
    how = _HOW.get(declared.how)
    if how is None:
        raise ValueError(f"balancer {declared.how} is not known to this version")
    key = None
    if declared.key.header or declared.key.cookie:
        key = HashKey(f"header={declared.key.header}" if declared.key.header else f"cookie={declared.key.cookie}")
    breaker = None
    if declared.HasField("breaker"):
        rules = declared.breaker
        breaker = BreakerPolicy(
            rules.consecutive,
            rules.success_rate,
            rules.window_ms / 1000.0,
            rules.min_requests,
            rules.min_penalty_ms / 1000.0,
            rules.max_penalty_ms / 1000.0,
            rules.jitter,
            rules.max_ejected,
        )
    return BalancerPolicy(how, key, declared.slow_start_ms / 1000.0, zone, breaker)

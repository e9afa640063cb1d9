"""What a Service declares of balancing -> its message; None where nothing is declared, and the proxy's default holds."""

from __future__ import annotations

from collections.abc import Mapping

from control.api import mesh_pb2
from control.resources.balancing import balancing

_HOW = {
    "ewma": mesh_pb2.Balancer.EWMA,
    "least-request": mesh_pb2.Balancer.LEAST_REQUEST,
    "maglev": mesh_pb2.Balancer.MAGLEV,
    "ring-hash": mesh_pb2.Balancer.RING_HASH,
}


def compile_balancer(annotations: Mapping[str, str]) -> mesh_pb2.Balancer | None:
    declared = balancing(annotations)
    if declared.is_default():
        return None
    kind, name = declared.key
    message = mesh_pb2.Balancer(
        how=_HOW[declared.balancer],
        slow_start_ms=round(declared.slow_start_s * 1000),
        prefer_zone=declared.prefer_zone,
    )
    if kind and declared.balancer in ("maglev", "ring-hash"):
        message.key.CopyFrom(mesh_pb2.Sticky(header=name.lower()) if kind == "header" else mesh_pb2.Sticky(cookie=name))
    rules = declared.breaker
    if rules is not None:
        message.breaker.CopyFrom(
            mesh_pb2.Breaker(
                consecutive=rules.consecutive,
                success_rate=rules.success_rate,
                window_ms=round(rules.window_s * 1000),
                min_requests=rules.min_requests,
                min_penalty_ms=round(rules.min_penalty_s * 1000),
                max_penalty_ms=round(rules.max_penalty_s * 1000),
                jitter=rules.jitter,
                max_ejected=rules.max_ejected,
            )
        )
    return message

"""What a pod's own sidecar refuses, because the pod takes no more at once, is no failure of that pod."""

from __future__ import annotations

import asyncio

import pytest
from identity_pair import PRICES, Pair
from proxy_peers import request, until

from meshproxy.policy.breaker import BreakerPolicy
from meshproxy.policy.chooser import BalancerPolicy
from meshproxy.policy.declared import ServiceSpec
from meshproxy.policy.retry import RetryPolicy, parse_policy
from meshproxy.policy.service import HTTP1, EndpointEntry
from meshproxy.policy.tables import build_tables
from meshproxy.proxy.inbound import ALL_AUTHENTICATED, InboundPort
from meshproxy.proxy.limited import OVER_LIMIT

BREAKER = BalancerPolicy(breaker=BreakerPolicy(consecutive=2, max_ejected=1.0, min_penalty_s=60.0))


def ejections(pair: Pair) -> float:
    lines = pair.client.ctx.registry.render().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("meshproxy_ejections_total{"))


@pytest.mark.parametrize("retried", [False, True])
@pytest.mark.parametrize("grpc", [False, True])
async def test_a_pod_at_its_limit_is_not_ejected_by_its_callers(pair: Pair, grpc: bool, retried: bool) -> None:
    pair.prices.inbound.apply([InboundPort(pair.app_port, HTTP1, ())], ALL_AUTHENTICATED, None, 1)
    retry = parse_policy(["5xx", "unavailable"], 1) if retried else RetryPolicy()
    spec = ServiceSpec("shop", "prices", [(80, HTTP1)], balancer=BREAKER, retry=retry)
    endpoint = EndpointEntry("127.0.0.1", 80, pair.app_port, PRICES, pair.inbound)
    pair.web.outbound.apply(build_tables(2, [spec], {"shop/prices": [endpoint]}))
    running = asyncio.create_task(pair.get("/hang"))

    async def busy() -> bool:
        return pair.app.hanging == 1

    await until(busy, "a request at the app")
    kind = b"content-type: application/grpc\r\n" if grpc else b""
    raw = b"POST / HTTP/1.1\r\nhost: prices.shop\r\nconnection: close\r\ncontent-length: 0\r\n" + kind + b"\r\n"
    for _ in range(4):
        status, headers, _ = await request(pair.outbound, raw)
        assert (status, headers[b"mesh-error"].decode()) == (200 if grpc else 503, OVER_LIMIT.reason)
    assert ejections(pair) == 0
    pair.app.released.set()
    assert (await running)[0] == 200

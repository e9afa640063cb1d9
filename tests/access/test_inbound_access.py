"""The inbound side while it knows nothing, knows something, and is told nonsense."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from access_objects import access, group, http, pod, ports, request, spiffe, target, tcp, workload

from control.api import mesh_pb2
from meshproxy.mesh.knowledge import Knowledge
from meshproxy.mesh.traffic import MeshTraffic
from meshproxy.policy.access import REASONS
from meshproxy.proxy.context import Context
from meshproxy.proxy.denials import KINDS, Denials
from meshproxy.proxy.inbound import DENY, Inbound, InboundPort
from meshproxy.proxy.refusals import ACCESS
from meshproxy.proxy.server import Accepted
from meshproxy.proxy.settings import Settings
from meshproxy.proxy.tls import Credentials
from meshproxy.telemetry.registry import Registry
from meshproxy.wire.engine import Sink, Stream
from meshproxy.wire.message import Field, Head

RULES = [target(http("g"), tcp("p")), group("g", {"methods": ["GET"], "pathRegex": "/public"}), ports("p", 8080)]


class Answer(Stream):
    """Of a request that a side was given: what its client is told."""

    def __init__(self) -> None:
        super().__init__()
        self.sink = Sink()
        self.head: Head | None = None

    def send_head(self, head: Head, extra: list[Field], end: bool) -> None:
        self.head = head

    def send_data(self, data: bytes, end: bool) -> None:
        pass


def caller(inbound: Any, client: str) -> Accepted:
    connection = Accepted(inbound.ctx, inbound)
    connection.client_id = spiffe(client)
    return connection


@pytest.fixture
async def ctx() -> Context:
    return Context(asyncio.get_running_loop(), Settings(), Registry(), seed=1, request_id_prefix=b"test-")


def asked(inbound: Any, head: Head, client: str = "") -> tuple[int, bytes]:
    """Status and mesh-error of an answer that the inbound side gives by itself."""
    answer = Answer()
    inbound.request(caller(inbound, client), answer, head, True)
    assert answer.head is not None, "it was let in"
    return answer.head.status, answer.head.field(b"mesh-error") or b""


async def test_before_its_first_configuration_a_proxy_lets_nobody_in(ctx: Context) -> None:
    inbound = Inbound(ctx, Credentials(), "127.0.0.1")
    assert asked(inbound, request("GET /public")) == (503, b"not_ready")
    assert asked(inbound, request("GET /public"), "reader") == (503, b"not_ready")


def update(version: int, sent: mesh_pb2.Workload) -> mesh_pb2.Update:
    name = mesh_pb2.ResourceName(kind=mesh_pb2.WORKLOAD, name="shop/web-1")
    return mesh_pb2.Update(version=version, set=[mesh_pb2.Resource(name=name, hash=str(version), workload=sent)])


async def test_rules_that_cannot_be_read_are_rejected_and_the_last_good_ones_stay(ctx: Context) -> None:
    traffic = MeshTraffic(ctx, "mesh.test", "shop", "127.9.9.10", [])
    knowledge = Knowledge(traffic.apply)
    assert knowledge.apply(update(1, workload(pod(), *RULES))) == []
    in_force = traffic.inbound.access
    assert in_force is not None
    spoilt = workload(pod(), *RULES)
    spoilt.access.rules[0].http[0].path.value = "(a"
    (rejected,) = knowledge.apply(update(2, spoilt))
    assert "TrafficTarget shop/t: the group at 0 is not closed" in rejected.reason
    assert traffic.inbound.access is in_force
    # A control plane that is gone sends nothing, so nothing changes; without its first word nothing was ever open.
    assert asked(traffic.inbound, request("GET /public")) == (403, b"access_no_identity")


async def test_a_proxy_whose_first_rules_cannot_be_read_lets_nobody_in(ctx: Context) -> None:
    traffic = MeshTraffic(ctx, "mesh.test", "shop", "127.9.9.10", [])
    spoilt = workload(pod(), *RULES)
    spoilt.access.rules[0].http[0].path.value = "(a"
    assert len(Knowledge(traffic.apply).apply(update(1, spoilt))) == 1
    assert asked(traffic.inbound, request("GET /public")) == (503, b"not_ready")


@pytest.mark.parametrize("client", ["", "reader"])
async def test_without_any_target_the_mode_deny_refuses_everyone(ctx: Context, client: str) -> None:
    inbound = Inbound(ctx, Credentials(), "127.0.0.1")
    inbound.apply([InboundPort(8080, 0, ("/ready",))], DENY)
    head = request("GET /public")
    head.mesh = [Field(b"mesh-target-port", b"8080")]
    assert asked(inbound, head, client) == (403, b"forbidden")
    answer = Answer()
    head.grpc = True
    inbound.request(caller(inbound, client), answer, head, True)
    assert answer.head is not None
    assert (answer.head.status, answer.head.grpc_status) == (200, b"7")


def test_every_reason_is_a_403_and_for_grpc_permission_denied() -> None:
    assert {reason: (one.reason, one.status, one.grpc) for reason, one in ACCESS.items()} == {
        reason: (reason, 403, 7) for reason in REASONS
    }


# ---------------------------------------------------------------- what is counted and logged


def denials(ctx: Context, client: str, **labels: str) -> int:
    found = {**labels, "client_id": client}
    return sum(
        counter.value
        for known, counter in ctx.registry.plain["meshproxy_access_denied_total"].items()
        if found.items() <= dict(known).items()
    )


async def test_each_denial_is_counted_and_a_flood_of_them_is_one_log_line(
    ctx: Context, caplog: pytest.LogCaptureFixture
) -> None:
    told = Denials(ctx)
    ctx.now = 100.0
    with caplog.at_level(logging.WARNING, "meshproxy.proxy"):
        for _ in range(50):
            told.note("access_request", "spiffe://a", 8080, request("GET /admin?token=secret"), False)
        ctx.now = 111.0
        told.note("access_request", "spiffe://a", 8080, request("GET /admin"), False)
    assert denials(ctx, "spiffe://a", reason="access_request", target_port="8080", audit="false") == 51
    line = "access denied: client=spiffe://a port=8080 reason=access_request request=GET /admin"
    assert [record.getMessage() for record in caplog.records] == [
        line,
        line + " and 49 more since the last such line",
    ]


async def test_clients_beyond_the_bound_are_counted_together(ctx: Context) -> None:
    told = Denials(ctx)
    for number in range(KINDS + 20):
        told.note("access_client", f"spiffe://{number}", 8080, request(), False)
    assert len(told.kinds) == KINDS + 1
    assert denials(ctx, "other") == 20


async def test_what_each_rule_lets_in_is_counted_and_kept_when_rules_change(ctx: Context) -> None:
    inbound = Inbound(ctx, Credentials(), "127.0.0.1")
    port = InboundPort(8080, 0, ())
    rules = access(*RULES)
    inbound.apply([port], DENY, rules)

    def counted() -> float:
        page = ctx.registry.render().decode()
        (line,) = [line for line in page.splitlines() if line.startswith("meshproxy_access_allowed_total{")]
        assert 'rule="TrafficTarget shop/t"' in line
        return float(line.rpartition(" ")[2])

    assert counted() == 0, "it is there from the start"
    head = request("GET /public")
    for client, allowed in (("reader", True), ("reader", True), ("stranger", False)):
        assert (inbound.judged(rules, spiffe(client), Answer(), port, head) is not None) is allowed
    assert counted() == 2
    inbound.judged(rules, spiffe("reader"), Answer(), port, head)
    inbound.apply([port], DENY, access(*RULES))
    assert counted() == 3


def test_the_pod_of_these_tests_is_selected() -> None:
    assert access(*RULES) is not None

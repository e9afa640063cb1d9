"""A proxy that hears of a new issuer renews soon: once, spread over the mesh, and without losing its place in the schedule."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from plane import TD, Plane, resource, until

from certs.authority import replace_authority
from certs.rotation import Phase
from control.api import mesh_pb2
from control.serve.tokens import refresh_token_if_burned
from meshproxy.mesh.identity import IdentitySettings
from meshproxy.mesh.membership import Membership
from meshproxy.mesh.renewal import RenewalSchedule

DAY = 86400.0


# ---------------------------------------------------------------- when: pure


def test_a_thousand_proxies_renew_within_half_a_minute_and_not_at_once() -> None:  # ID-47
    chance = random.Random(1)
    due = []
    for _ in range(1000):
        schedule = RenewalSchedule(chance.uniform)
        schedule.succeeded(1000.0, 1000.0 + DAY)
        schedule.hasten(1000.0, 1000.0 + DAY)
        due.append(schedule.due)
    assert min(due) >= 1000.0
    assert max(due) <= 1030.0
    assert max(sum(1 for at in due if second <= at < second + 1) for second in range(1000, 1030)) < 70  # in one second


def test_a_short_life_is_not_hurried_more_than_it_must_be() -> None:
    schedule = RenewalSchedule(lambda low, high: high)
    schedule.succeeded(1000.0, 1020.0)
    schedule.hasten(1000.0, 1020.0)
    assert schedule.due == 1002.0


def test_what_was_due_earlier_stays_due() -> None:
    schedule = RenewalSchedule(lambda low, high: high)
    schedule.failed(1000.0)  # again in 0.1 s
    before = schedule.due
    schedule.hasten(1000.0, 1000.0 + DAY)
    assert schedule.due == before


# ---------------------------------------------------------------- against a control plane


class Proxy:
    def __init__(self, plane: Plane) -> None:
        self.plane = plane
        self.token_file = plane.directory / "pods" / "shop" / "web-1" / "token"
        settings = IdentitySettings(
            *(plane.certify, "shop", "web", "web-1", TD, plane.directory / "trust" / "root.pem", self.token_file)
        )
        self.membership = Membership(settings, plane.watch, lambda known: None)
        self.identity = self.membership.identity

    async def keep_tokens(self) -> None:
        while True:
            refresh_token_if_burned(self.plane.tokens, self.token_file, "shop", "web", "web-1", 600, time.time())
            await asyncio.sleep(0.01)

    def hears(self, key_id: bytes) -> None:
        anchors = self.plane.issuer.bundle.anchors_der
        trust = mesh_pb2.TrustBundle(trust_domain=TD, anchors_der=anchors, issuer_key_id=key_id)
        self.plane.source.put(resource(mesh_pb2.TRUST, "", trust=trust))


@pytest.fixture
async def proxy(tmp_path: Path) -> AsyncIterator[Proxy]:
    plane = Plane(tmp_path, lifetime=10)  # a tenth of it is the longest that a renewal is put off
    await plane.start()
    made = Proxy(plane)
    tasks = [asyncio.create_task(made.keep_tokens()), asyncio.create_task(made.membership.run())]
    try:
        await until(lambda: made.membership.ready(time.time())[0])
        yield made
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await plane.stop()


async def test_a_leaf_of_another_issuer_is_renewed_soon_and_that_of_the_same_is_not(proxy: Proxy) -> None:
    proxy.hears(proxy.plane.issuer.key_id)
    await until(lambda: proxy.membership.watch.updates >= 2)
    assert proxy.identity._earlier.is_set() is False
    plane = proxy.plane
    replace_authority(plane.directory / "trust", TD, time.time())
    old = plane.issuer
    plane.authority.refresh(time.time())
    assert (plane.authority.phase, plane.issuer.issuer) == (Phase.ANNOUNCING, old.issuer)
    proxy.hears(plane.issuer.key_id)
    await until(lambda: all(peer.informed for peer in plane.peers()), "the proxy to have acknowledged the anchors")
    plane.authority.refresh(time.time(), plane.peers)
    assert plane.issuer.key_id != old.key_id
    proxy.hears(plane.issuer.key_id)
    await until(lambda: proxy.identity.svid.issuer_key_id == plane.issuer.key_id, "the proxy to renew")
    await until(lambda: proxy.membership.watch.connected_since is not None)
    await until(lambda: [peer.issuer_key_id for peer in plane.peers()] == [plane.issuer.key_id], "its stream to show it")
    plane.authority.refresh(time.time(), plane.peers)
    assert plane.authority.phase is Phase.SETTLED
    assert proxy.identity.failures == 0


async def test_an_issuer_that_never_comes_is_asked_for_once(proxy: Proxy) -> None:
    """Two control planes that disagree must not make a proxy renew without end."""
    before = proxy.identity.renewals
    proxy.hears(b"nobody")
    await until(lambda: proxy.identity.renewals == before + 1)
    watch = proxy.membership.watch
    await until(lambda: watch.connected_since is not None)
    due = proxy.identity._schedule.due
    assert due > proxy.identity.renewed_at + 5  # at 65 % of 9 to 10 s, as ever
    for key_id in (proxy.plane.issuer.key_id, b"nobody"):
        heard = watch.updates
        proxy.hears(key_id)
        await until(lambda heard=heard: watch.updates > heard)
    assert proxy.identity._schedule.due == due

"""The embedded source where proxies answer late, or not at all: whom that delays, and what is never seen of one arm alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from test_canary_embedded import ARMS, Mesh, answer, fail_to

from control.canary.evidence.judge import Finding, Terms
from control.canary.evidence.standing import Standing
from control.canary.measuring.embedded import STALE_S
from control.store.store import Key
from meshproxy.telemetry.registry import Registry


@pytest.fixture
async def mesh(tmp_path) -> AsyncIterator[Mesh]:
    made = Mesh(tmp_path)
    yield made
    for runner in made.runners:
        await runner.cleanup()


class Slow:
    """A proxy whose page is there when it is let go."""

    def __init__(self, mesh: Mesh, name: str, registry: Registry) -> None:
        self.mesh, self.name, self.registry = mesh, name, registry
        self.asked = 0
        self.gone = asyncio.Event()

    async def serve(self) -> None:
        async def metrics(request: web.Request) -> web.Response:
            self.asked += 1
            await self.gone.wait()
            return web.Response(body=self.registry.render(request.query.getall("name[]")))

        app = web.Application()
        app.router.add_get("/metrics", metrics)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        self.mesh.runners.append(runner)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = site._server.sockets[0].getsockname()[:2]
        self.mesh.addresses[self.name] = f"{host}:{port}"


async def slow(mesh: Mesh, name: str, registry: Registry) -> Slow:
    made = Slow(mesh, name, registry)
    await made.serve()
    return made


@asynccontextmanager
async def running(mesh: Mesh) -> AsyncIterator[None]:
    mesh.source.hurry({ARMS})
    task = asyncio.create_task(mesh.source.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  # a counter has no event to wait for
            await asyncio.sleep(0.01)


async def until_counted(mesh: Mesh, *expected: int) -> None:
    async with asyncio.timeout(20):
        while await counts(mesh) != expected:  # noqa: ASYNC110  # nor have these
            await asyncio.sleep(0.01)


async def counts(mesh: Mesh) -> tuple[int, int]:
    """Failures of the canary and of the primary; -1: the arms are not known."""
    arms = await mesh.source.counts(ARMS)
    return (arms.canary.failures, arms.primary.failures) if arms is not None else (-1, -1)


async def test_who_does_not_answer_has_one_question_and_the_others_are_asked_and_counted_meanwhile(mesh):
    canary, _ = await mesh.pod("podinfo-1", "podinfo"), await mesh.pod("podinfo-primary-1", "podinfo-primary")
    hung = await slow(mesh, "web-1", await mesh.pod("web-1", "web"))
    mesh.source.watch({ARMS})
    async with running(mesh):
        await until(lambda: mesh.source.scrapes >= 2)
        answer(canary, bad=9)
        before = mesh.source.scrapes
        await until(lambda: mesh.source.scrapes >= before + 4)  # both of them twice: the first may have been under way
        assert await counts(mesh) == (9, 0)
        assert (hung.asked, mesh.source.scrape_failures) == (1, 0)


async def test_an_answer_that_takes_longer_than_the_rounds_of_others_is_waited_for_and_counted(mesh):
    canary = await mesh.pod("podinfo-1", "podinfo")
    primary = await mesh.pod("podinfo-primary-1", "podinfo-primary")
    mesh.source.watch({ARMS})
    await mesh.scrape()
    late = await slow(mesh, "podinfo-primary-1", primary)
    answer(canary, bad=9)
    answer(primary, bad=1)
    async with running(mesh):
        before = mesh.source.scrapes
        await until(lambda: mesh.source.scrapes >= before + 4)  # of the canary alone: two seconds
        assert await counts(mesh) == (0, 0)
        late.gone.set()
        await until_counted(mesh, 9, 1)
        assert mesh.source.scrape_failures == 0


async def test_an_outage_of_both_is_no_evidence_where_one_arm_answers_later(mesh):
    """Three seconds of it: the primary's proxy does not answer before they are over."""
    canary = await mesh.pod("podinfo-1", "podinfo")
    primary = await mesh.pod("podinfo-primary-1", "podinfo-primary")
    mesh.source.watch({ARMS})
    standing, terms = Standing("run"), Terms()

    async def look() -> None:
        nonlocal standing
        await mesh.scrape()
        arms = await mesh.source.counts(ARMS)
        standing = standing.look((arms.canary, arms.primary) if arms else None, 50, mesh.now, terms)

    for _ in range(10):
        answer(canary, good=10)
        answer(primary, good=10)
        await look()
    address = mesh.addresses["podinfo-primary-1"]
    for silent in (True, True, True, False):
        answer(canary, bad=10)
        answer(primary, bad=10)
        mesh.addresses["podinfo-primary-1"] = "127.0.0.1:1" if silent else address
        before = await counts(mesh)
        await look()
        assert not silent or await counts(mesh) == before
    assert await counts(mesh) == (40, 40)
    assert standing.verdict(terms).finding is not Finding.HARM
    for _ in range(20):  # and a canary that alone is bad is pulled as ever
        answer(canary, bad=20)
        answer(primary, good=20)
        await look()
    assert standing.verdict(terms).finding is Finding.HARM


async def test_a_pod_that_is_silent_for_too_long_makes_the_arms_unknown_until_it_is_gone(mesh):
    one, _ = await mesh.pod("podinfo-1", "podinfo"), await mesh.pod("podinfo-2", "podinfo")
    await mesh.pod("podinfo-primary-1", "podinfo-primary")
    mesh.source.watch({ARMS})
    await mesh.scrape()
    first = await mesh.source.counts(ARMS)
    mesh.addresses["podinfo-2"] = "127.0.0.1:1"
    for _ in range(int(STALE_S)):
        answer(one, bad=1)
        await mesh.scrape()
        assert await counts(mesh) == (0, 0)
    await mesh.scrape()
    assert await counts(mesh) == (-1, -1)
    await mesh.store.delete(Key("", "Pod", "test", "podinfo-2"))
    await mesh.scrape()
    after = await mesh.source.counts(ARMS)
    assert after.canary.failures == 5
    assert after.canary.since(first.canary) is None


async def test_what_a_caller_tells_after_a_look_is_not_kept_for_the_next(mesh):
    await mesh.pod("podinfo-1", "podinfo")
    await mesh.pod("podinfo-primary-1", "podinfo-primary")
    caller = await mesh.pod("web-1", "web")
    mesh.source.watch({ARMS})
    await mesh.scrape()
    late = await slow(mesh, "web-1", caller)
    fail_to(caller, "podinfo-1", 3)
    async with running(mesh):
        before = mesh.source.scrapes
        await until(lambda: mesh.source.scrapes >= before + 2)
        assert await counts(mesh) == (0, 0)
        late.gone.set()
        await until_counted(mesh, 3, 0)


async def test_a_pod_that_leaves_with_a_question_to_answer_is_not_counted_twice(mesh):
    await mesh.pod("podinfo-primary-1", "podinfo-primary")
    mesh.source.watch({ARMS})
    await mesh.scrape()
    registry = await mesh.pod("podinfo-1", "podinfo")  # younger than the watching: all on its first page is new
    answer(registry, good=5, bad=5)
    await mesh.scrape()
    assert await counts(mesh) == (5, 0)
    late = await slow(mesh, "podinfo-1", registry)
    async with aiohttp.ClientSession() as session:
        asking = asyncio.create_task(mesh.source.scrape(session))
        await until(lambda: late.asked == 1)
        pod = mesh.store.get(Key("", "Pod", "test", "podinfo-1"))
        marks = {**pod["metadata"]["annotations"], "meshproxy.dev/terminating-since": "2026-01-01T00:00:00Z"}
        names = {name: pod["metadata"][name] for name in ("name", "namespace", "labels")}
        await mesh.store.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {**names, "annotations": marks}})
        mesh.source._due()  # the next round
        late.gone.set()
        await asking
    await mesh.pod("podinfo-2", "podinfo")
    await mesh.scrape()
    assert await counts(mesh) == (5, 0)

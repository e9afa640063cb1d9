"""The embedded source against real pages over real sockets: proxies' registries behind HTTP servers on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from control.canary.declared.commands import to_rfc3339
from control.canary.declared.metric import DURATION, SUCCESS_RATE, Metric
from control.canary.measuring.embedded import LOOK_STALE_S, STALE_S, EmbeddedSource
from control.canary.measuring.source import Query, Subject
from control.store.files import FileStore
from control.store.store import Key
from meshproxy.telemetry.registry import Registry

SUBJECT = Subject("test", "podinfo", "podinfo-canary", apex="podinfo")
START = 1_800_000_000.0


class Mesh:
    """Pods in a store, each with the registry of a proxy served on a port of its own."""

    def __init__(self, path) -> None:
        self.now = START
        self.store = FileStore(None, path, "runtime", clock=lambda: self.now)
        self.addresses: dict[str, str] = {}
        self.runners: list[web.AppRunner] = []
        self.extra: dict[str, bytes] = {}  # pod -> what its page has besides
        self.source = EmbeddedSource(self.store, lambda: self.now, lambda pod: self.addresses[pod["metadata"]["name"]])

    async def pod(
        self, name: str, deployment: str, *, meshed: bool = True, annotations: dict[str, str] | None = None
    ) -> Registry:
        registry = Registry((("namespace", "test"), ("deployment", deployment), ("pod", name)))

        async def metrics(request: web.Request) -> web.Response:
            page = registry.render(request.query.getall("name[]")) + self.extra.get(name, b"")
            return web.Response(body=page, content_type="text/plain")

        app = web.Application()
        app.router.add_get("/metrics", metrics)
        runner = web.AppRunner(app)
        await runner.setup()
        self.runners.append(runner)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = site._server.sockets[0].getsockname()[:2]
        self.addresses[name] = f"{host}:{port}"
        mark = {"meshproxy.dev/proxy": "true"} if meshed else {}
        await self.store.apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": name,
                    "namespace": "test",
                    "labels": {"meshproxy.dev/proxy-deployment": deployment},
                    "annotations": {**mark, **(annotations or {})},
                },
            }
        )
        await self.store.status(Key("", "Pod", "test", name), {"podIP": "127.0.0.1", "startTime": to_rfc3339(self.now)})
        return registry

    async def scrape(self) -> None:
        self.now += 1
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
            await self.source.scrape(session)

    async def ask(self, metric: str = SUCCESS_RATE, window_s: float = 60.0):
        return await self.source.measure(Query(Metric(metric), SUBJECT, window_s))

    async def ask_of_primary(self, metric: str = SUCCESS_RATE):
        return await self.source.measure(Query(Metric(metric), SUBJECT, 60.0, of_primary=True))


@pytest.fixture
async def mesh(tmp_path) -> AsyncIterator[Mesh]:
    made = Mesh(tmp_path)
    yield made
    for runner in made.runners:
        await runner.cleanup()


def answer(registry: Registry, good: int = 0, bad: int = 0, ms: float = 5.0) -> None:
    series = registry.http("inbound", (("tls", "true"),))
    for number in range(good + bad):
        series.request()
        series.response(200 if number < good else 500, -1, number < good, ms, ms)


def fail_to(caller: Registry, pod: str, times: int, *, deployment: str = "podinfo") -> None:
    labels = (("dst_namespace", "test"), ("dst_deployment", deployment), ("dst_pod", pod), ("dst_service", "podinfo-canary"))
    series = caller.http("outbound", labels)
    for _ in range(times):
        series.request()
        series.failed("connect", 1.0)


async def test_a_promotion_asks_for_the_numbers_of_the_primary_and_no_others(mesh):
    canary, primary = await mesh.pod("podinfo-1", "podinfo"), await mesh.pod("podinfo-primary-1", "podinfo-primary")
    caller = await mesh.pod("client-1", "client")
    mesh.source.watch({SUBJECT})
    assert (await mesh.ask_of_primary()).warming
    await mesh.scrape()
    answer(canary, bad=500, ms=900.0)
    answer(primary, good=90)
    fail_to(caller, "podinfo-primary-1", 10, deployment="podinfo-primary")
    fail_to(caller, "podinfo-1", 100)
    await mesh.scrape()
    seen = await mesh.ask_of_primary()
    assert (seen.value, seen.requests) == (90.0, 100)
    p99 = await mesh.ask_of_primary(DURATION)
    assert (p99.value < 10, p99.requests) == (True, 90)


async def test_success_rate_is_over_all_pods_of_the_target_and_no_others(mesh):
    one, two = await mesh.pod("podinfo-1", "podinfo"), await mesh.pod("podinfo-2", "podinfo")
    primary = await mesh.pod("podinfo-primary-1", "podinfo-primary")
    mesh.source.watch({SUBJECT})
    await mesh.scrape()
    answer(one, good=60)
    answer(two, good=30, bad=10)
    answer(primary, bad=500)
    await mesh.scrape()
    seen = await mesh.ask()
    assert (seen.value, seen.requests) == (90.0, 100)


async def test_requests_that_never_reached_the_pod_count_as_failures(mesh):
    pod = await mesh.pod("podinfo-1", "podinfo")
    web_1, web_2 = await mesh.pod("web-1", "web"), await mesh.pod("web-2", "web")
    mesh.source.watch({SUBJECT})
    await mesh.scrape()
    answer(pod, good=90)
    fail_to(web_1, "podinfo-1", 6)
    fail_to(web_2, "podinfo-1", 4)
    await mesh.scrape()
    seen = await mesh.ask()
    assert (seen.value, seen.requests) == (90.0, 100)


async def test_a_failure_that_both_sides_saw_is_one_failure(mesh):
    pod, web_1 = await mesh.pod("podinfo-1", "podinfo"), await mesh.pod("web-1", "web")
    mesh.source.watch({SUBJECT})
    await mesh.scrape()
    answer(pod, good=80, bad=20)
    fail_to(web_1, "podinfo-1", 20)
    await mesh.scrape()
    assert (await mesh.ask()).value == 80.0


async def test_failures_towards_other_pods_are_not_the_canarys(mesh):
    pod, web_1 = await mesh.pod("podinfo-1", "podinfo"), await mesh.pod("web-1", "web")
    mesh.source.watch({SUBJECT})
    await mesh.scrape()
    answer(pod, good=10)
    fail_to(web_1, "podinfo-primary-1", 50, deployment="podinfo-primary")
    await mesh.scrape()
    assert (await mesh.ask()).value == 100.0


async def test_duration_is_the_99th_percentile_in_milliseconds(mesh):
    pod = await mesh.pod("podinfo-1", "podinfo")
    mesh.source.watch({SUBJECT})
    await mesh.scrape()
    answer(pod, good=90, ms=5.0)
    answer(pod, good=10, ms=450.0)
    await mesh.scrape()
    seen = await mesh.ask(DURATION)
    assert 400 < seen.value <= 500
    assert seen.requests == 100


async def test_no_requests_are_no_data(mesh):
    await mesh.pod("podinfo-1", "podinfo")
    mesh.source.watch({SUBJECT})
    await mesh.scrape()
    await mesh.scrape()
    for metric in (SUCCESS_RATE, DURATION):
        seen = await mesh.ask(metric)
        assert (seen.value, seen.warming, seen.error) == (None, False, False)
        assert seen.reason == "no request in 60 s"


async def test_pods_without_proxies_are_no_data(mesh):
    await mesh.pod("podinfo-1", "podinfo", meshed=False)
    mesh.source.watch({SUBJECT})
    await mesh.scrape()
    assert (await mesh.ask()).reason == "no pod of podinfo.test has a proxy"


async def test_a_source_that_has_just_begun_says_so(mesh):
    await mesh.pod("podinfo-1", "podinfo")
    assert (await mesh.ask()).warming
    mesh.source.watch({SUBJECT})
    assert (await mesh.ask()).warming
    await mesh.scrape()
    await mesh.scrape()
    assert not (await mesh.ask()).warming


async def test_proxies_that_stopped_answering_are_no_data(mesh):
    pod = await mesh.pod("podinfo-1", "podinfo")
    mesh.source.watch({SUBJECT})
    await mesh.scrape()
    answer(pod, good=10)
    await mesh.scrape()
    assert (await mesh.ask()).value == 100.0
    await mesh.runners[0].cleanup()
    mesh.now += STALE_S + 1
    await mesh.scrape()
    seen = await mesh.ask()
    assert seen.value is None
    assert "no proxy of podinfo.test answered" in seen.reason
    assert mesh.source.scrape_failures == 1


async def test_pods_that_are_going_do_not_speak_for_the_new_revision(mesh):
    old = await mesh.pod("podinfo-old", "podinfo", annotations={"meshproxy.dev/terminating-since": to_rfc3339(START)})
    new = await mesh.pod("podinfo-new", "podinfo")
    mesh.source.watch({SUBJECT})
    await mesh.scrape()
    answer(old, bad=100)
    answer(new, good=10)
    await mesh.scrape()
    assert (await mesh.ask()).value == 100.0


async def test_at_rest_nothing_is_kept(mesh):
    pod = await mesh.pod("podinfo-1", "podinfo")
    mesh.source.watch({SUBJECT})
    await mesh.scrape()
    answer(pod, good=10)
    mesh.source.watch(())
    mesh.source.watch({SUBJECT})
    await mesh.scrape()
    await mesh.scrape()
    assert (await mesh.ask()).reason == "no request in 60 s"


async def test_run_scrapes_by_itself_once_it_is_told_whom_to_watch(mesh):
    import asyncio

    await mesh.pod("podinfo-1", "podinfo")
    task = asyncio.create_task(mesh.source.run())
    try:
        await asyncio.sleep(0)
        assert mesh.source.scrapes == 0
        mesh.source.watch({SUBJECT})
        async with asyncio.timeout(10):
            while mesh.source.scrapes == 0:  # noqa: ASYNC110  # a counter has no event to wait for
                await asyncio.sleep(0.01)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# -- both arms, counted since they are watched

ARMS = Subject("test", "podinfo", "podinfo-canary", "podinfo", "podinfo")


async def test_a_baseline_is_counted_while_its_pods_are_there(mesh):
    for name in ("podinfo", "podinfo-primary"):
        await mesh.pod(f"{name}-1", name)
    mesh.source.watch({ARMS})
    await mesh.scrape()
    assert (await mesh.source.counts(ARMS)).baseline is None
    baseline = await mesh.pod("podinfo-baseline-1", "podinfo-baseline")
    await mesh.scrape()
    answer(baseline, good=7, bad=1)
    await mesh.scrape()
    arms = await mesh.source.counts(ARMS)
    assert (arms.baseline.successes, arms.baseline.failures, arms.primary.requests) == (7, 1, 0)


async def test_both_arms_are_counted_since_they_are_watched(mesh):
    canary, primary = await mesh.pod("podinfo-1", "podinfo"), await mesh.pod("podinfo-primary-1", "podinfo-primary")
    answer(primary, good=1000)
    mesh.source.watch({ARMS})
    assert await mesh.source.counts(ARMS) is None  # nobody was asked yet
    await mesh.scrape()
    first = await mesh.source.counts(ARMS)
    assert (first.canary.requests, first.primary.requests) == (0, 0)
    answer(canary, good=5, bad=2, ms=15.0)
    answer(primary, good=90, bad=1, ms=3.0)
    await mesh.scrape()
    second = await mesh.source.counts(ARMS)
    assert (second.canary.successes, second.canary.failures) == (5, 2)
    assert (second.primary.successes, second.primary.failures) == (90, 1)
    assert [count for _, count in second.canary.latency] == [5]  # of the successes, in their bucket alone
    assert sum(count for _, count in second.primary.latency) == 90
    assert second.canary.since(first.canary).requests == 7


async def test_what_gone_pods_counted_stays_counted(mesh):
    old, primary = await mesh.pod("podinfo-1", "podinfo"), await mesh.pod("podinfo-primary-1", "podinfo-primary")
    caller = await mesh.pod("web-1", "web")
    mesh.source.watch({ARMS})
    await mesh.scrape()
    answer(old, good=3, bad=1)
    answer(primary, good=1)
    fail_to(caller, "podinfo-1", 4)
    await mesh.scrape()
    before = await mesh.source.counts(ARMS)
    await mesh.store.delete(Key("", "Pod", "test", "podinfo-1"))
    await mesh.store.delete(Key("", "Pod", "test", "web-1"))
    new = await mesh.pod("podinfo-2", "podinfo")
    answer(new, good=2)
    await mesh.scrape()
    after = await mesh.source.counts(ARMS)
    assert (before.canary.successes, before.canary.failures) == (3, 4)
    assert (after.canary.successes, after.canary.failures) == (5, 4)


async def test_failures_that_never_reached_an_arm_are_that_arms(mesh):
    for name, deployment in (("podinfo-1", "podinfo"), ("podinfo-primary-1", "podinfo-primary")):
        await mesh.pod(name, deployment)
    caller = await mesh.pod("web-1", "web")
    mesh.source.watch({ARMS})
    await mesh.scrape()
    fail_to(caller, "podinfo-1", 6)
    fail_to(caller, "", 2)
    fail_to(caller, "podinfo-primary-1", 1, deployment="podinfo-primary")
    fail_to(caller, "web-1", 50, deployment="web")
    await mesh.scrape()
    seen = await mesh.source.counts(ARMS)
    assert (seen.canary.failures, seen.primary.failures) == (8, 1)


async def test_a_restarted_proxy_counts_from_zero_and_nothing_is_counted_twice(mesh):
    pod, _ = await mesh.pod("podinfo-1", "podinfo"), await mesh.pod("podinfo-primary-1", "podinfo-primary")
    mesh.source.watch({ARMS})
    await mesh.scrape()
    answer(pod, good=10)
    await mesh.scrape()
    pod.https.clear()
    answer(pod, good=4)
    await mesh.scrape()
    assert (await mesh.source.counts(ARMS)).canary.successes == 14


async def test_arms_are_not_known_while_a_pod_of_them_does_not_answer_and_are_not_compared_across(mesh):
    canary, _ = await mesh.pod("podinfo-1", "podinfo"), await mesh.pod("podinfo-primary-1", "podinfo-primary")
    mesh.source.watch({ARMS})
    await mesh.scrape()
    before = await mesh.source.counts(ARMS)
    address = mesh.addresses["podinfo-primary-1"]
    mesh.addresses["podinfo-primary-1"] = "127.0.0.1:1"
    mesh.now += STALE_S
    answer(canary, bad=9)
    await mesh.scrape()
    assert await mesh.source.counts(ARMS) is None
    mesh.addresses["podinfo-primary-1"] = address
    await mesh.scrape()
    after = await mesh.source.counts(ARMS)
    assert after.canary.failures == 9
    assert after.canary.since(before.canary) is None
    assert after.primary.since(before.primary) is None


async def test_a_release_that_is_not_watched_is_not_counted(mesh):
    await mesh.pod("podinfo-1", "podinfo")
    await mesh.pod("podinfo-primary-1", "podinfo-primary")
    mesh.source.watch({ARMS})
    await mesh.scrape()
    mesh.source.watch({})
    assert await mesh.source.counts(ARMS) is None


async def test_latency_is_in_two_percent_buckets_once_both_arms_count_it(mesh):
    canary, primary = await mesh.pod("podinfo-1", "podinfo"), await mesh.pod("podinfo-primary-1", "podinfo-primary")
    mesh.source.watch({ARMS})
    await mesh.scrape()
    answer(primary, good=3, ms=15.0)
    await mesh.scrape()
    coarse = await mesh.source.counts(ARMS)
    assert dict(coarse.primary.latency)[20.0] == 3
    answer(canary, good=2, bad=1, ms=15.0)
    await mesh.scrape()
    fine = await mesh.source.counts(ARMS)
    for arm, successes in ((fine.canary, 2), (fine.primary, 3)):
        ((bound, count),) = arm.latency
        assert count == successes
        assert 15.0 <= bound <= 15.0 * 1.02


async def test_arms_are_as_of_a_whole_round_and_not_known_when_the_rounds_end(mesh):
    await mesh.pod("podinfo-1", "podinfo")
    primary = await mesh.pod("podinfo-primary-1", "podinfo-primary")
    mesh.source.watch({ARMS})
    await mesh.scrape()
    first = await mesh.source.counts(ARMS)
    answer(primary, good=5)
    async with aiohttp.ClientSession() as session:
        await mesh.source._scrape_pod(session, mesh.store.get(Key("", "Pod", "test", "podinfo-primary-1")))
    assert await mesh.source.counts(ARMS) == first  # the other arm was not asked yet
    await mesh.scrape()
    assert (await mesh.source.counts(ARMS)).primary.successes == 5
    mesh.now += LOOK_STALE_S + 1
    assert await mesh.source.counts(ARMS) is None


PAGES = {
    "NaN": 'response_total{direction="inbound",classification="success"} NaN',
    "infinite": 'response_total{direction="inbound",classification="failure"} +Inf',
    "below zero": 'response_total{direction="inbound",classification="failure"} -5',
    "no bound": 'response_latency_ms_bucket{direction="inbound",le="x"} 1',
    "a bound that is no number": 'meshproxy_inbound_success_latency_total{upto_ms="nan"} 1',
}


@pytest.mark.parametrize("page", PAGES)
async def test_what_no_proxy_counts_is_passed_over(mesh, page):
    canary = await mesh.pod("podinfo-1", "podinfo")
    await mesh.pod("podinfo-primary-1", "podinfo-primary")
    mesh.source.watch({ARMS})
    await mesh.scrape()
    before = await mesh.source.counts(ARMS)
    mesh.extra["podinfo-1"] = PAGES[page].encode() + b"\n"
    answer(canary, good=3)
    await mesh.scrape()
    after = await mesh.source.counts(ARMS)
    assert (after.canary.successes, after.canary.failures) == (before.canary.successes + 3, before.canary.failures)

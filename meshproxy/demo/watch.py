"""What is going on: the timeline of the release, and golden metrics by service and version.

    store, ten times a second       -> Moment (phase, weight, version), appended when it changed
    each pod's /metrics, once a second -> Golden, one a service and version

The verdict uses the timeline only; golden metrics are for the audience.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp

from control.canary.window import PodWindow, Totals
from control.runtime.layout import ADMIN_PORT
from meshproxy.demo.mesh import Mesh, Pod
from meshproxy.demo.observed import Moment

LOOK_S = 0.1
SCRAPE_S = 1.0
WINDOW_S = 5.0  # golden metrics are those of the last five seconds


@dataclass(frozen=True, slots=True)
class Golden:
    """One service in one version.  Latencies in ms, None without requests."""

    service: str
    version: str
    pods: int
    rps: float
    success: float | None  # percent
    p50: float | None
    p95: float | None
    p99: float | None


@dataclass(slots=True)
class Release:
    """The canary right now."""

    phase: str = ""
    weight: int = 0  # what the split gives the canary
    version: str = ""  # of the target's template
    failed_checks: int = 0


def quantile(q: float, buckets: dict[float, float]) -> float | None:
    """Prometheus' histogram_quantile over cumulative counts: linear within the bucket."""
    bounds = sorted(buckets)
    total = buckets[bounds[-1]] if bounds else 0.0
    if total <= 0:
        return None
    rank = q * total
    low, below = 0.0, 0.0
    for bound in bounds:
        count = buckets[bound]
        if count >= rank:
            if bound == float("inf"):
                return low
            return low + (bound - low) * ((rank - below) / (count - below)) if count > below else bound
        low, below = bound, count
    return low


def golden(service: str, version: str, pods: int, totals: Totals, seconds: float) -> Golden:
    answered = totals.success + totals.failure
    success = 100 * totals.success / answered if answered else None
    return Golden(
        service, version, pods, answered / seconds, success, *(quantile(q, totals.buckets) for q in (0.5, 0.95, 0.99))
    )


@dataclass(slots=True)
class Watch:
    """`run` keeps everything here fresh."""

    mesh: Mesh
    timeline: list[Moment] = field(default_factory=list)
    release: Release = field(default_factory=Release)
    table: list[Golden] = field(default_factory=list)
    pods: list[Pod] = field(default_factory=list)
    scrapes_failed: Counter[str] = field(default_factory=Counter)  # by pod; a pod that is starting or ending does not answer
    _windows: dict[str, PodWindow] = field(default_factory=dict)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look_on(), name="watch the store")
            group.create_task(self._scrape_on(), name="scrape")

    def look(self, clock: Callable[[], float] = time.time) -> None:
        """Read the store; remember what changed."""
        self.mesh.refresh()
        now = clock()
        canary = self.mesh.get("flagger.app", "Canary", "catalogue").get("status") or {}
        self.release = Release(
            phase=canary.get("phase", ""),
            weight=self._weight(),
            version=self._version(),
            failed_checks=canary.get("failedChecks", 0),
        )
        moment = Moment(now, self.release.phase, self.release.weight, self.release.version)
        last = self.timeline[-1] if self.timeline else None
        if last is None or (last.phase, last.weight, last.version) != (moment.phase, moment.weight, moment.version):
            self.timeline.append(moment)
        self.pods = self.mesh.pods(None)

    def _weight(self) -> int:
        """The split's own weights, not what the canary's status says about them: it is they that matter."""
        split = self.mesh.get("split.smi-spec.io", "TrafficSplit", "catalogue").get("spec") or {}
        weights = {backend["service"]: float(backend.get("weight", 0)) for backend in split.get("backends") or []}
        total = sum(weights.values())
        return round(100 * weights.get("catalogue-canary", 0.0) / total) if total else 0

    def _version(self) -> str:
        target = self.mesh.get("apps", "Deployment", "catalogue")
        try:
            return str(target["spec"]["template"]["metadata"]["labels"]["version"])
        except KeyError:
            return ""

    async def _look_on(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(LOOK_S)

    async def _scrape_on(self) -> None:
        timeout = aiohttp.ClientTimeout(total=SCRAPE_S)
        async with aiohttp.ClientSession(timeout=timeout) as client:
            while True:
                shop = [pod for pod in self.pods if pod.namespace == "shop" and pod.ip]
                await asyncio.gather(*(self._scrape(client, pod) for pod in shop))
                for name in self._windows.keys() - {pod.name for pod in shop}:
                    del self._windows[name]
                self.table = self._golden(shop)
                await asyncio.sleep(SCRAPE_S)

    async def _scrape(self, client: aiohttp.ClientSession, pod: Pod) -> None:
        try:
            async with client.get(f"http://{pod.ip}:{ADMIN_PORT}/metrics") as response:
                text = await response.text()
        except (aiohttp.ClientError, TimeoutError):
            self.scrapes_failed[pod.name] += 1
            return
        self._windows.setdefault(pod.name, PodWindow(newborn=False)).page(time.time(), text)

    def _golden(self, pods: list[Pod]) -> list[Golden]:
        now = time.time()
        sums: dict[tuple[str, str], Totals] = {}
        counts: Counter[tuple[str, str]] = Counter()
        for pod in pods:
            key = (pod.app, pod.version)
            window = self._windows.get(pod.name)
            seen = window.over(now, WINDOW_S) if window else None
            counts[key] += 1
            sums.setdefault(key, Totals())
            if seen:
                sums[key].add(seen)
        order = {"web": 0, "catalogue": 1, "prices": 2}
        keys = sorted(sums, key=lambda key: (order.get(key[0], 9), key))
        return [golden(*key, counts[key], sums[key], WINDOW_S) for key in keys]

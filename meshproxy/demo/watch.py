"""What is going on: the timeline of the release, and golden metrics by service and version.

    store, ten times a second       -> Moment (phase, weight, version), appended when it changed
    each pod's /metrics, once a second -> Figures, one a service and version

The verdict uses the timeline only; golden metrics are for the audience.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from control.runtime.layout import ADMIN_PORT
from control.store.store import Key
from meshproxy.demo.mesh import Mesh, Pod
from meshproxy.demo.observed import Moment
from meshproxy.telemetry import golden
from meshproxy.telemetry.golden import Page
from meshproxy.telemetry.scrape import scrape

LOOK_S = 0.1
SCRAPE_S = 1.0
CANARY = Key("flagger.app", "Canary", "shop", "catalogue")
WINDOW_S = 5.0  # golden metrics are those of the last five seconds


@dataclass(frozen=True, slots=True)
class Figures:
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


class Recent:
    """The last pages of one pod's metrics."""

    def __init__(self) -> None:
        self._pages: deque[tuple[float, Page]] = deque(maxlen=int(WINDOW_S / SCRAPE_S) + 1)

    def add(self, at: float, page: Page) -> None:
        self._pages.append((at, page))

    def golden(self) -> golden.Golden | None:
        """What the pod answered between the first and the last of them; None before there are two."""
        if len(self._pages) < 2:
            return None
        (start, before), (end, after) = self._pages[0], self._pages[-1]
        return golden.golden_by(before, after, end - start, (), _inbound).get(())


def _inbound(labels: Mapping[str, str]) -> bool:
    return labels.get("direction") == "inbound"


def figures(service: str, version: str, pods: int, seen: Sequence[golden.Golden]) -> Figures:
    """Add up what the pods of a service and version answered."""
    total = golden.Golden(WINDOW_S)
    for one in seen:
        total.add(one)
    success = 100 * total.success_rate if total.requests else None
    # Each pod has its own window, some seconds long: rates are added, not counts.
    rps = sum(one.rps for one in seen)
    p50, p95, p99 = (total.latency_ms(q) if total.requests else None for q in (0.5, 0.95, 0.99))
    return Figures(service, version, pods, rps, success, p50, p95, p99)


@dataclass(slots=True)
class Watch:
    """`run` keeps everything here fresh."""

    mesh: Mesh
    timeline: list[Moment] = field(default_factory=list)
    release: Release = field(default_factory=Release)
    table: list[Figures] = field(default_factory=list)
    pods: list[Pod] = field(default_factory=list)
    _recent: dict[str, Recent] = field(default_factory=dict)

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
            self.timeline.append(replace(moment, why=self._why()) if moment.phase == "Failed" else moment)
        self.pods = self.mesh.pods(None)

    def _weight(self) -> int:
        """The split's own weights, not what the canary's status says about them: it is they that matter."""
        split = self.mesh.get("split.smi-spec.io", "TrafficSplit", "catalogue").get("spec") or {}
        weights = {backend["service"]: float(backend.get("weight", 0)) for backend in split.get("backends") or []}
        total = sum(weights.values())
        return round(100 * weights.get("catalogue-canary", 0.0) / total) if total else 0

    def _why(self) -> str:
        """The last check that held the release up: that which it failed by."""
        said = [str(event.get("message")) for event in self.mesh.store.events(CANARY)]
        return next((message for message in reversed(said) if message.startswith("Halt ")), "")

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
        while True:
            shop = [pod for pod in self.pods if pod.namespace == "shop" and pod.ip]
            # A pod that is starting or ending does not answer; it has no figures then, and that is all.
            seen = await scrape({pod.name: f"{pod.ip}:{ADMIN_PORT}" for pod in shop}, timeout_s=SCRAPE_S)
            for name, page in seen.pages.items():
                self._recent.setdefault(name, Recent()).add(seen.at[name], page)
            for name in self._recent.keys() - {pod.name for pod in shop}:
                del self._recent[name]
            self.table = self._figures(shop)
            await asyncio.sleep(SCRAPE_S)

    def _figures(self, pods: list[Pod]) -> list[Figures]:
        seen: dict[tuple[str, str], list[golden.Golden]] = {}
        counts: Counter[tuple[str, str]] = Counter()
        for pod in pods:
            key = (pod.app, pod.version)
            counts[key] += 1
            recent = self._recent.get(pod.name)
            one = recent.golden() if recent else None
            seen.setdefault(key, [])
            if one is not None:
                seen[key].append(one)
        order = {"web": 0, "catalogue": 1, "prices": 2}
        keys = sorted(seen, key=lambda key: (order.get(key[0], 9), key))
        return [figures(*key, counts[key], seen[key]) for key in keys]

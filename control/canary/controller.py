"""The loop over all Canaries: when each is due, read the facts, decide, act.

    store.watch --wake--.
                        v
    run():  sleep until the next tick is due -> step(now) -> for each due Canary: collect -> tick -> carry_out
                                                              an exception ends that tick, is counted and logged by name

Ticks of different Canaries run side by side (at most CONCURRENCY); one Canary never has two.  A tick that takes longer than
the interval delays the next one; ticks are not caught up.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Container, Sequence
from contextlib import suppress
from dataclasses import dataclass

from control.canary import machine, objects
from control.canary.act import Actor, TargetChanged
from control.canary.analysis import Measurement
from control.canary.commands import Commands
from control.canary.facts import collect
from control.canary.metrics import CanaryMetrics
from control.canary.source import MetricSource, Query, Subject
from control.canary.spec import GROUP, KIND, CanarySpec, Metric, SpecError, parse
from control.canary.status import INITIAL, RUNNING, Status
from control.store.store import Change, Key, Object, Store, StoreError

log = logging.getLogger("meshproxy.canary")

CONCURRENCY = 8  # ticks at once
MAX_CANARIES = 1000  # more are not run, and that is logged
IDLE_S = 60.0  # longest sleep when nothing is due; changes wake the loop anyway


@dataclass(frozen=True, slots=True)
class Settings:
    """`minimum_interval_s`: Flagger raises intervals below 10 s to 10 s; embedded mode honours 1 s and more."""

    minimum_interval_s: float = 1.0
    gives_back: bool = True  # see Actor


@dataclass(slots=True)
class _Job:
    """What the loop remembers of one Canary; all of it can be lost."""

    due: float
    early: bool = False  # changed since the last tick: look before it is due
    spec: CanarySpec | None = None


class Controller:
    """Runs every Canary of a store.  `clock` gives Unix seconds.  `metrics` is a prometheus_client collector."""

    def __init__(
        self, store: Store, source: MetricSource, *, clock: Callable[[], float] = time.time, settings: Settings | None = None
    ) -> None:
        self._store = store
        self._source = source
        self._clock = clock
        self._settings = settings or Settings()
        self._actor = Actor(store, gives_back=self._settings.gives_back)
        self._jobs: dict[Key, _Job] = {}
        self._wake = asyncio.Event()
        self.metrics = CanaryMetrics()

    async def run(self) -> None:
        """Until cancelled."""
        stop_watching = self._store.watch(self._changed)
        try:
            while True:
                self._wake.clear()
                next_due = await self.step(self._clock())
                delay = min(IDLE_S, max(0.0, next_due - self._clock()))
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), delay)
        finally:
            stop_watching()

    async def step(self, now: float) -> float:
        """Every tick that is due at `now`; returns when the next one is (Unix seconds)."""
        canaries = self._store.list(GROUP, KIND)
        if len(canaries) > MAX_CANARIES:
            log.error("%d canaries; only the first %d are run", len(canaries), MAX_CANARIES)
            canaries = canaries[:MAX_CANARIES]
        present = {Key.of(obj): obj for obj in canaries}
        await self._forget(present.keys())
        for key in present:
            self._jobs.setdefault(key, _Job(due=now))
        self._watch_metrics(canaries)
        ready = [(key, job) for key, job in self._jobs.items() if job.early or job.due <= now]
        targets = self._targets(canaries)
        limit = asyncio.Semaphore(CONCURRENCY)

        async def one(key: Key, job: _Job) -> None:
            async with limit:
                await self._guarded_tick(key, job, present[key], targets, now)

        await asyncio.gather(*(one(key, job) for key, job in ready))
        if ready:
            self._watch_metrics(self._store.list(GROUP, KIND))
        return min((job.due for job in self._jobs.values()), default=now + IDLE_S)

    # -- one tick

    async def _guarded_tick(self, key: Key, job: _Job, obj: Object, targets: dict[Key, Key], now: float) -> None:
        due = job.due <= now
        job.early = False
        if due:
            job.due = now + self._settings.minimum_interval_s  # until the spec says otherwise
        try:
            await self._tick(key, job, obj, targets, now, due)
        except TargetChanged as error:
            log.info("canary %s.%s: %s; deciding again", key.name, key.namespace, error)
        except (StoreError, ValueError) as error:
            self.metrics.error(error)
            log.warning("canary %s.%s: %s: %s", key.name, key.namespace, type(error).__name__, error)
            with suppress(StoreError):  # a store that refuses the write refuses the Event too; it is logged above
                await self._store.event(key, "Warning", "Synced", str(error))
        except Exception as error:  # one Canary's bug must not stop the others; counted, logged with its trace
            self.metrics.error(error)
            log.exception("canary %s.%s: %s", key.name, key.namespace, type(error).__name__)

    async def _tick(self, key: Key, job: _Job, obj: Object, targets: dict[Key, Key], now: float, due: bool) -> None:
        begun = time.perf_counter()
        status = Status.of(obj.get("status"))
        name = f"{key.name}.{key.namespace}"
        try:
            spec = parse(obj)
        except SpecError as error:
            await self._invalid(key, job, status, str(error), now)
            return
        job.spec = spec
        if due:
            job.due = now + max(self._settings.minimum_interval_s, spec.interval_s)
        first = targets.get(_target_key(spec))
        if first not in (None, key):
            text = f"{spec.full_target} is already the target of Canary {first.name}.{first.namespace}" if first else ""
            await self._invalid(key, job, status, text, now)
            return
        self.metrics.seen(spec, status)
        measurements: dict[Metric, Measurement] = {}
        if due and machine.measures(spec, status):
            for metric in dict.fromkeys(spec.metrics):
                measurements[metric] = await self._measure(spec, metric)
        facts = collect(
            self._store,
            spec,
            Commands.of(obj["metadata"].get("annotations") or {}),
            now,
            measurements=measurements,
            source_problem=await self._source_problem(spec, status),
            due=due,
        )
        decision = machine.tick(spec, status, facts, now)
        for event in decision.events:
            log.log(logging.WARNING if event.warning else logging.INFO, "canary %s: %s", name, event.text)
        await self._actor.carry_out(spec, status, decision)
        self.metrics.seen(spec, decision.status)
        self.metrics.ticked(spec, time.perf_counter() - begun, decision.finished)

    async def _measure(self, spec: CanarySpec, metric: Metric) -> Measurement:
        asked = time.perf_counter()
        try:
            return await self._source.measure(Query(metric, Subject.of(spec), metric.interval_s))
        except Exception as error:  # noqa: BLE001  # whatever broke: not to know is a failed check, counted, so that it cannot hang a release
            self.metrics.error(error)
            log.warning("canary %s: %s of %s: %s", spec.full_name, type(error).__name__, metric.name, error)
            return Measurement(error=True, reason=f"{type(error).__name__}: {error}")
        finally:
            self.metrics.analysed(spec, metric.name, time.perf_counter() - asked)

    async def _source_problem(self, spec: CanarySpec, status: Status) -> str:
        """Asked while the Canary is being set up: the one time that anybody reads the answer with the manifest before them."""
        if status.phase not in INITIAL:
            return ""
        return await self._source.problem(Subject.of(spec), spec.metrics)

    async def _invalid(self, key: Key, job: _Job, status: Status, text: str, now: float) -> None:
        """Say it once, on the object; look again when it changes (or after a while: another's object may have)."""
        job.due = now + IDLE_S
        decision = machine.invalid(status, f"{key.name}.{key.namespace}", text, now)
        if decision.status != status:
            log.warning("canary %s.%s: %s", key.name, key.namespace, text)
            await self._actor.report(key, None, status, decision)

    # -- what the loop knows

    def _watch_metrics(self, canaries: Sequence[Object]) -> None:
        """The source gathers for releases that run, and rests otherwise."""
        running = set()
        for obj in canaries:
            try:
                if Status.of(obj.get("status")).phase in RUNNING:
                    running.add(Subject.of(parse(obj)))
            except ValueError:  # its own tick says what is wrong with it
                continue
        self._source.watch(running)

    @staticmethod
    def _targets(canaries: Sequence[Object]) -> dict[Key, Key]:
        """Target -> the one Canary that may move it: one that already does, else the first by name."""
        owners: dict[Key, tuple[bool, Key]] = {}
        for obj in canaries:
            with suppress(ValueError):
                spec, key = parse(obj), Key.of(obj)
                claim = (Status.of(obj.get("status")).phase in INITIAL, key)
                target = _target_key(spec)
                owners[target] = min(owners.get(target, claim), claim)
        return {target: key for target, (_, key) in owners.items()}

    async def _forget(self, present: Container[Key]) -> None:
        """Canaries that are gone, also those that went while nobody was looking: give back what we hold for them."""
        for key in [key for key in self._jobs if key not in present]:
            log.info("canary %s.%s is gone", key.name, key.namespace)
            del self._jobs[key]
        self.metrics.keep_only((key.namespace, key.name) for key in self._jobs)
        for obj in (*self._store.list("apps", "Deployment"), *self._store.list("", "Service")):
            name = objects.held_for(obj)
            namespace = obj["metadata"].get("namespace") or "default"
            if not name or Key(GROUP, KIND, namespace, name) in present:
                continue
            try:
                await self._actor.give_back(obj)
                log.info("%s: given back, Canary %s.%s is gone", Key.of(obj), name, namespace)
            except StoreError as error:
                self.metrics.error(error)
                log.warning("%s: cannot be given back: %s", Key.of(obj), error)

    def _changed(self, changes: Sequence[Change]) -> None:
        """A person changed a Canary or a target: look at once.  Our own status writes do not count."""
        for change in changes:
            if change.key.group == GROUP and change.key.kind == KIND:
                if change.new is None or change.old is None or _asked(change.old) != _asked(change.new):
                    if job := self._jobs.get(change.key):
                        job.early = True
                    self._wake.set()
            elif change.key.group == "apps" and change.key.kind == "Deployment" and change.old and change.new:
                before, after = (o.get("spec", {}).get("template") for o in (change.old, change.new))
                if before != after:
                    for job in self._jobs.values():
                        if job.spec and (job.spec.namespace, job.spec.target) == (change.key.namespace, change.key.name):
                            job.early = True
                            self._wake.set()


def _asked(obj: Object) -> tuple[object, object]:
    return obj.get("spec"), obj["metadata"].get("annotations")


def _target_key(spec: CanarySpec) -> Key:
    return Key("apps", "Deployment", spec.namespace, spec.target)


async def run(
    store: Store, source: MetricSource, *, clock: Callable[[], float] = time.time, settings: Settings | None = None
) -> None:
    """Run every Canary of `store` (opened as manager "canary") until cancelled."""
    await Controller(store, source, clock=clock, settings=settings).run()

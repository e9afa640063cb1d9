"""The loop over all Canaries: when each is due, read the facts, decide, act.

    store.watch --wake--.
                        v
    run():  sleep until the next tick is due -> for each due Canary, in a task of its own:

            collect -> machine.tick --asks--> hooks, metrics --answers--> machine.tick ... -> carry_out -> courier.tell
                       an exception ends that tick, is counted and logged by name

Ticks of different Canaries run side by side; one Canary never has two.  A tick that takes longer than the interval (a hook
may take an hour) delays the next one of this Canary, and of no other; ticks are not caught up.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Container, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from control.canary import register
from control.canary.act import Actor, TargetChanged
from control.canary.asking import Asking
from control.canary.declared.policy import ReleasePolicy
from control.canary.declared.spec import GROUP, KIND, NO_FLAGS, CanarySpec, Flags, SpecError
from control.canary.facts import Facts, collect
from control.canary.machine import machine
from control.canary.machine.decision import Decision
from control.canary.machine.question import Answer, Question
from control.canary.machine.status import ANALYSED, ENDING, INITIAL, RUNNING, Status
from control.canary.measuring.source import MetricSource, Subject
from control.canary.metrics import CanaryMetrics
from control.canary.objects import manifests
from control.canary.observer import LOOK_S, Observer, is_judged
from control.canary.policies import group_of
from control.canary.telling.courier import Courier
from control.canary.telling.hook_client import HookClient
from control.store.store import Change, Key, Object, Store, StoreError

log = logging.getLogger("meshproxy.canary")

MAX_CANARIES = 1000  # more are not run, and that is logged
AGAIN_S = 1.0  # after a look that called for a tick, or failed
IDLE_S = 60.0  # longest sleep when nothing is due; changes wake the loop anyway


@dataclass(frozen=True, slots=True)
class Settings:
    """`minimum_interval_s`: Flagger raises intervals below 10 s to 10 s; embedded mode honours 1 s and more."""

    minimum_interval_s: float = 1.0
    settle_s: float = 0.0  # see Actor
    gives_back: bool = True  # see Actor; a Canary then stays until its target can answer, also without revertOnDeletion
    flags: Flags = NO_FLAGS


@dataclass(slots=True)
class _Job:
    """What the loop remembers of one Canary; all of it can be lost."""

    due: float
    early: bool = False  # changed since the last tick: look before it is due
    spec: CanarySpec | None = None
    task: asyncio.Task[None] | None = None  # the tick that runs just now
    asking: bool = False  # it waits for an answer, and has done nothing yet
    policy: ReleasePolicy | None = None  # of the last tick
    good: tuple[CanarySpec, ReleasePolicy | None] | None = None  # what was last meant; a release under way goes on by it
    look: float = math.inf  # when both arms are to be looked at again: evidence is acted on when it is there
    looker: asyncio.Task[None] | None = None


class Controller:
    """Runs every Canary of a store.  `hooks` asks webhooks (None: none agrees), `courier` tells people.  `clock` gives Unix
    seconds.  `metrics` is a prometheus_client collector."""

    def __init__(
        self,
        store: Store,
        source: MetricSource,
        *,
        hooks: HookClient | None = None,
        courier: Courier | None = None,
        clock: Callable[[], float] = time.time,
        settings: Settings | None = None,
    ) -> None:
        self._store = store
        self._source = source
        self._courier = courier
        self._clock = clock
        self._settings = settings or Settings()
        self._actor = Actor(store, gives_back=self._settings.gives_back, settle_s=self._settings.settle_s)
        self._observer = Observer(store, source)
        self._jobs: dict[Key, _Job] = {}
        self._groups: dict[tuple[str, str], asyncio.Lock] = {}  # of at most MAX_CANARIES policies at a time
        self._wake = asyncio.Event()
        self._news = True  # something happened since all Canaries were last gone through
        self._stale = -math.inf  # when they are to be gone through all the same
        self._targets: dict[Key, Key] = {}  # as of then
        self._register = register.Register(self._settings.flags)
        self.metrics = CanaryMetrics()
        self._asking = Asking(source, hooks, self.metrics)

    async def run(self) -> None:
        """Until cancelled."""
        stop_watching = self._store.watch(self._changed)
        try:
            while True:
                self._wake.clear()
                next_due = await self._start(self._clock())
                delay = min(IDLE_S, max(0.0, next_due - self._clock()))
                with suppress(TimeoutError):
                    async with asyncio.timeout(delay):  # wait_for of Python 3.11 can lose a cancellation
                        await self._wake.wait()
        finally:
            stop_watching()
            tasks = self._tasks()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def step(self, now: float) -> float:
        """Every tick that is due at `now`, to its end; returns when the next one is (Unix seconds)."""
        self._news = True
        await self._start(now)
        while tasks := self._tasks():
            await asyncio.wait(tasks)
            await asyncio.sleep(0)  # their callbacks
            if any(job.early for job in self._jobs.values()):  # what was looked at calls for a tick
                await self._start(now)
            self._watch_metrics(self._store.list(GROUP, KIND))
        return self._next_due(now)

    async def _start(self, now: float) -> float:
        """Begin every tick and every look that is due at `now`."""
        if self._news or now >= self._stale:
            await self._go_through(now)
        for key, job in self._jobs.items():
            self._start_tick(key, job, now)
            obj = self._store.get(key) if job.looker is None and job.look <= now else None
            if obj is not None:
                job.looker = asyncio.create_task(
                    self._guarded_look(key, job, obj, now), name=f"evidence {key.name}.{key.namespace}"
                )
                job.looker.add_done_callback(partial(self._looked, job))
        return self._next_due(now)

    async def _go_through(self, now: float) -> None:
        """All Canaries: who is there, who may move which target, which releases run.  Not at each tick: with a thousand of them
        that would be more work than all their ticks."""
        self._news, self._stale = False, now + IDLE_S
        canaries = self._store.list(GROUP, KIND)
        if len(canaries) > MAX_CANARIES:
            log.error("%d canaries; only the first %d are run", len(canaries), MAX_CANARIES)
            canaries = canaries[:MAX_CANARIES]
        present = frozenset(map(Key.of, canaries))
        self._forget(present)
        await self._give_back(present)
        for key in sorted(present - self._jobs.keys()):
            self._jobs[key] = _Job(due=now)
        self._watch_metrics(canaries)
        self._targets = self._register.targets(canaries)

    def _start_tick(self, key: Key, job: _Job, now: float) -> None:
        if job.task is not None and job.early and job.asking:
            # An order, a new revision or evidence must not wait for a webhook, which may take an hour.  Nothing was done:
            # the tick begins again, and sees what is new before it asks.
            job.task.cancel()
            job.asking = False
            job.due = now
        if job.task is not None or not (job.early or job.due <= now):
            return
        if (obj := self._store.get(key)) is None:
            self._news = True
        else:
            job.task = asyncio.create_task(self._guarded_tick(key, job, obj, now), name=f"canary {key.name}.{key.namespace}")
            job.task.add_done_callback(partial(self._ticked, job))

    def _ticked(self, job: _Job, task: asyncio.Task[None]) -> None:
        if job.task is task:
            job.task = None
        self._news = self._news or task.cancelled()  # a write of its may have gone through all the same
        self._wake.set()

    def _looked(self, job: _Job, task: asyncio.Task[None]) -> None:
        if job.looker is task:
            job.looker = None
        self._wake.set()

    def _tasks(self) -> list[asyncio.Task[None]]:
        return [task for job in self._jobs.values() for task in (job.task, job.looker) if task is not None]

    def _next_due(self, now: float) -> float:
        """Of those that do not tick or look just now: these wake the loop when they are done."""
        ticks = [job.due for job in self._jobs.values() if job.task is None]
        looks = [job.look for job in self._jobs.values() if job.looker is None]
        return min((*ticks, *looks), default=now + IDLE_S)

    # -- one tick

    async def _guarded_tick(self, key: Key, job: _Job, obj: Object, now: float) -> None:
        due = job.due <= now
        job.early = False
        if due:
            job.due = now + self._settings.minimum_interval_s  # until the spec says otherwise
        try:
            if (group := self._group(key)) is None:
                await self._tick(key, job, obj, now, due)
            else:
                async with group:  # members decide one after the other, each on what the one before it left
                    await self._tick(key, job, self._store.get(key) or obj, now, due)
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

    def _group(self, key: Key) -> asyncio.Lock | None:
        """Held by the one member of a release of several that decides just now."""
        try:
            policy = group_of(self._store, key.namespace, key.name)
        except SpecError:
            return None  # its tick says what is wrong with it
        if policy is None:
            return None
        return self._groups.setdefault((policy.namespace, policy.name), asyncio.Lock())

    async def _tick(self, key: Key, job: _Job, obj: Object, now: float, due: bool) -> None:
        begun = time.perf_counter()
        status = Status.of(obj.get("status"))
        name = f"{key.name}.{key.namespace}"
        good = job.good if status.phase in RUNNING else None
        try:
            spec = self._register.parse(obj)
            if good is not None and spec.refused and not good[0].refused:
                raise SpecError(spec.refused[0])
        except SpecError as error:
            if good is None:
                await self._invalid(key, job, status, str(error), now)
                return
            await self._keep(key, str(error))
            spec = good[0]
        job.spec = spec
        if due:
            job.due = now + max(self._settings.minimum_interval_s, spec.interval_s)
        first = self._targets.get(manifests.target_key(spec))
        if first not in (None, key):
            text = f"{spec.full_target} is already the target of Canary {first.name}.{first.namespace}" if first else ""
            await self._invalid(key, job, status, text, now)
            return
        self.metrics.seen(spec, status)
        problem = await self._source_problem(spec, status)
        known = partial(
            collect,
            self._store,
            spec,
            status,
            obj["metadata"],
            now,
            source_problem=problem,
            due=due,
            gives_back=self._settings.gives_back,
        )
        try:
            facts = known()
        except SpecError as error:
            if good is None:
                await self._invalid(key, job, status, str(error), now)
                return
            await self._keep(key, str(error))
            meant = good[1]
            facts = known(policies=lambda store, spec: meant)
        job.policy = facts.policy
        job.good = spec, facts.policy
        if job.policy is not None and is_judged(spec, status, job.policy):
            facts = replace(facts, compared=await self._observer.look(key, spec, status, job.policy, now))
        elif due and job.policy is not None and job.policy.counts and status.phase in ANALYSED:
            facts = replace(facts, arms=await self._source.counts(Subject.of(spec)))
        decision = await self._decide(job, spec, status, facts, now)
        for event in decision.events:
            log.log(logging.WARNING if event.warning else logging.INFO, "canary %s: %s", name, event.text)
        await self._actor.carry_out(spec, status, decision)
        self._news = self._news or decision.status.phase is not status.phase
        if facts.compared is not None and decision.status != status:
            await self._observer.record(key, now)
        job.look = now + LOOK_S if is_judged(spec, decision.status, job.policy) else math.inf
        if self._courier is not None:
            self._courier.tell(key, spec, decision.status, decision.events, decision.notices)
        if decision.status.phase in ENDING:  # what is being deleted does not wait for an interval
            job.due = min(job.due, now + self._settings.minimum_interval_s)
        self.metrics.seen(spec, decision.status)
        self.metrics.ticked(spec, time.perf_counter() - begun, decision.finished)

    async def _guarded_look(self, key: Key, job: _Job, obj: Object, now: float) -> None:
        """Between ticks: is there evidence of harm by now?  Then there is a tick at once."""
        job.look = now + LOOK_S
        spec, status, policy = job.spec, Status.of(obj.get("status")), job.policy
        if spec is None or policy is None or not is_judged(spec, status, policy):
            job.look = math.inf
            return
        try:
            if (await self._observer.look(key, spec, status, policy, now)).harmful:
                job.early = True
                job.look = now + AGAIN_S
        except Exception as error:  # noqa: BLE001  # the next tick, or the next look, says it again; here it is counted and logged
            self.metrics.error(error)
            log.warning("canary %s.%s: looking at its evidence: %s: %s", key.name, key.namespace, type(error).__name__, error)
            job.look = now + AGAIN_S

    # -- what a tick asks for

    async def _decide(self, job: _Job, spec: CanarySpec, status: Status, facts: Facts, now: float) -> Decision:
        """Ticks with the same facts and ever more answers.  Each round asks something new, so the rounds are bounded by the
        webhooks of the Canary."""
        answers: dict[Question, Answer] = {}
        while (decision := machine.tick(spec, status, replace(facts, answers=answers), now)).asks:
            for question in decision.asks:
                if question in answers:
                    raise RuntimeError(f"the machine asks again for {question}")
                job.asking = True
                try:
                    answers[question] = await self._asking.answer(spec, status, question)
                finally:
                    job.asking = False
        return decision

    async def _source_problem(self, spec: CanarySpec, status: Status) -> str:
        """Asked while the Canary is being set up: the one time that anybody reads the answer with the manifest before them."""
        if status.phase not in INITIAL:
            return ""
        return await self._source.problem(Subject.of(spec), spec.metrics)

    async def _keep(self, key: Key, text: str) -> None:
        """What is declared cannot be meant, in the middle of a release.  Its canary has users: nobody would look after them."""
        log.warning("canary %s.%s: %s; its release goes on as it was declared before", key.name, key.namespace, text)
        await self._store.event(key, "Warning", "Synced", f"{text}; its release goes on as it was declared before")

    async def _invalid(self, key: Key, job: _Job, status: Status, text: str, now: float) -> None:
        """Say it once, on the object; look again when it changes (or after a while: another's object may have)."""
        job.due = now + IDLE_S
        decision = machine.invalid(status, f"{key.name}.{key.namespace}", text, now)
        if decision.status != status:
            log.warning("canary %s.%s: %s", key.name, key.namespace, text)
            await self._actor.report(key, None, status, decision)
            if self._courier is not None:
                self._courier.tell(key, None, decision.status, decision.events)

    # -- what the loop knows

    def _watch_metrics(self, canaries: Sequence[Object]) -> None:
        """The source gathers for releases that run, and rests otherwise."""
        self._source.watch(self._register.running(canaries, self._meant_before))
        self._source.hurry({Subject.of(job.spec) for job in self._jobs.values() if job.spec and job.look < math.inf})

    def _meant_before(self, key: Key) -> CanarySpec | None:
        job = self._jobs.get(key)
        return job.good[0] if job is not None and job.good is not None else None

    def _forget(self, present: Container[Key]) -> None:
        """Canaries that are gone."""
        for key in [key for key in self._jobs if key not in present]:
            log.info("canary %s.%s is gone", key.name, key.namespace)
            job = self._jobs.pop(key)
            for task in (job.task, job.looker):
                if task is not None:
                    task.cancel()
        self._register.keep_only(present)
        self._observer.keep_only(frozenset(self._jobs))
        self._groups = {group: lock for group, lock in self._groups.items() if lock.locked()}
        self.metrics.keep_only((key.namespace, key.name) for key in self._jobs)

    async def _give_back(self, present: Container[Key]) -> None:
        """What we hold for Canaries that are gone, also those that went while nobody was looking."""
        for canary, obj in register.left(self._store, present):
            try:
                await self._actor.give_back(obj)
                log.info("%s: given back, Canary %s.%s is gone", Key.of(obj), canary.name, canary.namespace)
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
                    self._news = True
                    self._wake.set()
            elif change.key.group == "apps" and change.old:  # a deleted one too: its share of the requests fails meanwhile
                before, after = ((o or {}).get("spec", {}).get("template") for o in (change.old, change.new))
                if before != after:
                    for job in self._jobs.values():
                        gone = change.new is None and job.spec and manifests.primary_key(job.spec) == change.key
                        if gone or (job.spec and manifests.target_key(job.spec) == change.key):
                            job.early = True
                            self._news = True
                            self._wake.set()


def _asked(obj: Object) -> tuple[object, ...]:
    return obj.get("spec"), obj["metadata"].get("annotations"), obj["metadata"].get("deletionTimestamp")


async def run(
    store: Store, source: MetricSource, *, clock: Callable[[], float] = time.time, settings: Settings | None = None
) -> None:
    """Run every Canary of `store` (opened as manager "canary") until cancelled."""
    await Controller(store, source, clock=clock, settings=settings).run()

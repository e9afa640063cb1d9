"""The world of a simulation: a store with the manifests in it, pods that do as they are told, people who answer gates.

    World.run(): initialise --apply a new revision--> controller.step(now), pods roll out, gates are answered, now = next due
                                                      ... until every release has ended, or the time is over

The store is a FileStore in a directory that is gone afterwards; the controller is the control plane's.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

import yaml

from control.canary.controller import Controller, Settings
from control.canary.declared.commands import ANNOTATION_APPROVE, Command
from control.canary.declared.fields import SpecError
from control.canary.declared.policy import ReleasePolicy
from control.canary.declared.spec import GROUP, KIND, CanarySpec, parse
from control.canary.machine.gates import gate_it_waits_at
from control.canary.machine.status import INITIAL, Phase, Status
from control.canary.machine.strategy import routing
from control.canary.measuring.source import Subject
from control.canary.objects.workloads import DAEMON_SET, DEPLOYMENT, target_key
from control.canary.policies import policy_for
from control.canary.simulate.around import Answers, ModelledSource, TellingStore, rolled_out
from control.canary.simulate.given import Given, SimulationError
from control.canary.simulate.model import Traffic
from control.canary.simulate.timeline import Entry, Outcome, Timeline
from control.store.files import FileStore
from control.store.store import Key, Object

TICK_S = 1.0  # the shortest interval; evidence is looked at more often, which would only take longer here
MAX_TICKS = 100_000  # of one simulation: a day at one a second
FINE_S = 600.0  # for so long after the last change every look is taken: longer than most steps are ...
COARSE = 0.01  # ... then one in so much of the time since: a night of waiting is some 500 looks, each at most 1 % late
MATCHING_SHARE = 0.1  # of the requests match the conditions of an A/B test, or are tests of a blue/green release
_ANNOTATION = "meshproxy.dev/simulated-revision"


class World:
    """One simulation.  `run` may be called once."""

    def __init__(self, objects: Sequence[Object], given: Given) -> None:
        self._given = given
        self._objects = [copy.deepcopy(obj) for obj in objects]
        self._now = given.start
        self._edited_at = given.start
        self._edited = False  # is the new revision applied?
        self._first_weight: dict[str, float] = {}  # canary -> when it got its first requests
        self._entries: list[Entry] = []

    async def run(self) -> Timeline:
        """Raises SimulationError if a Canary is refused, or never becomes ready to be released."""
        with tempfile.TemporaryDirectory(prefix="meshproxy-simulate-") as name:
            root = Path(name)
            self._user = root / "manifests"
            self._user.mkdir()
            clock = lambda: self._now  # noqa: E731
            with (
                TellingStore(self._user, root / "state", "canary", accepting=True, clock=clock) as self._store,
                FileStore(None, root / "state", "runtime", clock=clock) as self._runtime,
                FileStore(None, root / "state", "cli", clock=clock) as self._cli,
            ):
                self._store.told = []
                self._answers = Answers(dict(self._given.denied))
                self._source = ModelledSource(self._given, clock, self._traffic, self._templates)
                settings = Settings(minimum_interval_s=1.0, flags=self._given.flags)
                self._controller = Controller(self._store, self._source, hooks=self._answers, clock=clock, settings=settings)
                return await self._play()

    async def _play(self) -> Timeline:
        for obj in self._objects:
            await self._write(obj)
        await self._initialise()
        self._edited_at = self._now
        self._entries.clear()
        self._edited = True
        await self._new_revision()
        standing, since = self._standing(), self._now
        for _ in range(MAX_TICKS):
            due = await self._step()
            if self._ended() or self._now - self._edited_at > self._given.limit_s:
                break
            if (found := self._standing()) != standing:
                standing, since = found, self._now
            quiet = self._now - since
            self._now = max(due, self._now + max(TICK_S, quiet * COARSE if quiet > FINE_S else 0.0))
        return Timeline(tuple(self._entries), self._outcomes(), self._what_is_missing())

    async def _initialise(self) -> None:
        for _ in range(20):
            due = await self._step()
            phases = {name: status.phase for name, _, status in self._canaries()}
            refused = [
                status for _, _, status in self._canaries() if (said := status.condition("Accepted")) and said.status == "False"
            ]
            if refused:
                raise SimulationError("; ".join(c.message for s in refused if (c := s.condition("Accepted"))))
            if not any(phase in INITIAL for phase in phases.values()):
                return
            self._now = max(due, self._now + TICK_S)
        waiting = ", ".join(sorted(name for name, phase in phases.items() if phase in INITIAL))
        last = next((said.text for entry in reversed(self._entries) for said in reversed(entry.said)), "")
        raise SimulationError(f"{waiting} is never initialised: {last}")

    async def _step(self) -> float:
        """One round of the controller, and what the world does about it; returns when the next is due."""
        self._refresh()
        due = await self._controller.step(self._now)
        self._refresh()
        await self._roll_out()
        await self._approve()
        self._note()
        return due

    def _refresh(self) -> None:
        for store in (self._store, self._runtime, self._cli):
            store.refresh()

    # -- what is seen of it

    def _standing(self) -> list[tuple[object, ...]]:
        """How far each release is; what it says about what it waits for is no part of that."""
        return [
            (name, status.phase, status.canary_weight, status.iterations, status.failed_checks, status.transitioned)
            for name, _, status in self._canaries()
        ]

    def _canaries(self) -> list[tuple[str, CanarySpec, Status]]:
        found = []
        for obj in self._store.list(GROUP, KIND):
            spec = parse(obj)
            found.append((spec.full_name, spec, Status.of(obj.get("status"))))
        return found

    def _note(self) -> None:
        """An entry for each Canary of which something was told or measured in this round."""
        told, self._store.told = self._store.told, []
        hooks, self._answers.said = self._answers.said, []
        seen, self._source.seen = self._source.seen, []
        for name, spec, status in self._canaries():
            said = tuple(one for whose, one in (*hooks, *told) if whose == name)
            measured = tuple(one for whose, one in seen if whose == name)
            if not said and not measured:
                continue
            weight = status.canary_weight
            if weight > 0 or status.iterations:
                self._first_weight.setdefault(name, self._now)
            self._entries.append(
                Entry(
                    self._now - self._edited_at,
                    name,
                    status.phase.value,
                    weight,
                    mirrored=routing(spec, status).mirrored,
                    iteration=status.iterations,
                    failed_checks=status.failed_checks,
                    seen=measured,
                    said=said,
                )
            )

    def _traffic(self, subject: Subject) -> Traffic:
        name = f"{subject.canary}.{subject.namespace}"
        spec, status = next((spec, status) for whose, spec, status in self._canaries() if whose == name)
        weight = status.canary_weight
        share = MATCHING_SHARE if spec.iterations else weight / 100
        if routing(spec, status).mirrored:
            share = spec.routes.mirror_percent / 100
        first = self._first_weight.setdefault(name, self._now)
        return Traffic(
            self._given.rate * share, weight, self._now - first, self._given.rate * routing(spec, status).baseline / 100
        )

    def _templates(self) -> Collection[tuple[str, str]]:
        return {(key.namespace, key.name) for key in map(Key.of, self._objects) if key.kind == "MetricTemplate"}

    # -- what the world does

    async def _write(self, obj: Object) -> None:
        key = Key.of(obj)
        if key.kind == DAEMON_SET:  # no manifest of one is taken; an object is
            await self._cli.apply(obj)
            return
        (self._user / f"{key.kind}-{key.namespace}-{key.name}.yaml".lower()).write_text(yaml.safe_dump(obj))

    async def _new_revision(self) -> None:
        """Every target gets another template."""
        targets = {target_key(spec) for _, spec, _ in self._canaries()}
        for obj in self._objects:
            if Key.of(obj) in targets:
                metadata = obj["spec"]["template"].setdefault("metadata", {})
                metadata["annotations"] = {**(metadata.get("annotations") or {}), _ANNOTATION: "2"}
                await self._write(obj)

    async def _roll_out(self) -> None:
        """Workloads reach what they ask for at once, except those that are never to be ready."""
        unready = {name for name, fault in self._given.faults if fault.kind == "unready"}
        targets = {target_key(spec): spec.name for _, spec, _ in self._canaries()}
        for obj in (one for kind in (DEPLOYMENT, DAEMON_SET) for one in self._runtime.list("apps", kind)):
            if not (obj.get("spec") or {}).get("template"):
                continue
            key = Key.of(obj)
            whose = targets.get(key)
            broken = whose is not None and self._edited and bool(unready & {"", whose})
            status = rolled_out(obj, self._now, ready=not broken, since=self._edited_at)
            if obj.get("status") != status:
                await self._runtime.status(key, status)
        self._refresh()

    async def _approve(self) -> None:
        """People open the gates they are not told to keep shut."""
        for _, spec, status in self._canaries():
            gate = gate_it_waits_at(spec, status, self._policy(spec))
            if not gate or any(
                self._answers.denies(name) for name in (gate, gate.partition("/")[0]) if name in self._given.denied
            ):
                continue
            order = str(Command(status.last_applied, self._now, gate))
            metadata = {"name": spec.name, "namespace": spec.namespace, "annotations": {ANNOTATION_APPROVE: order}}
            await self._cli.apply({"apiVersion": f"{GROUP}/v1beta1", "kind": KIND, "metadata": metadata})
        self._refresh()

    def _policy(self, spec: CanarySpec) -> ReleasePolicy | None:
        try:
            return policy_for(self._store, spec)
        except SpecError:
            return None  # its own tick says what is wrong with it

    # -- the end

    def _ended(self) -> bool:
        return all(outcome is not Outcome.UNDECIDED for outcome in self._outcomes().values())

    def _outcomes(self) -> dict[str, Outcome]:
        ends = {Phase.SUCCEEDED: Outcome.PROMOTED, Phase.FAILED: Outcome.ROLLED_BACK}
        return {
            name: ends[status.phase]
            if status.phase in ends and status.transitioned >= int(self._edited_at)
            else Outcome.UNDECIDED
            for name, _, status in self._canaries()
        }

    def _what_is_missing(self) -> str:
        undecided = [name for name, outcome in self._outcomes().items() if outcome is Outcome.UNDECIDED]
        last = {entry.canary: entry.said[-1].text for entry in self._entries if entry.said}
        return "; ".join(f"{name}: {last.get(name, 'nothing was said')}" for name in undecided)

"""The runtime controller: makes what runs equal to what the objects say.  Manager "runtime".

    store changed, a pod changed, time passed
        -> reconcile:   Deployments -> plan.py -> pods to create, pods to end
                        Pods of the user -> likewise
                        Services + pods -> services.py -> EndpointSlices
                        status of pods and Deployments
        -> pods.py, worker.py run each pod

Level-triggered: one reconcile looks at everything there is, so a missed or doubled wake-up does no harm.  Pods live here
first and in the store for others to see; after a restart of the supervisor none runs, so those the store still shows are
removed and made anew.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence

from control.runtime import informed, plan, podobjects
from control.runtime.container import Note
from control.runtime.ownobjects import OwnObjects
from control.runtime.podobjects import made_by_runtime
from control.runtime.pods import GATEWAY_KEY, Pods
from control.runtime.podtokens import PodTokens
from control.runtime.services import Services, names
from control.runtime.sidecar import Settings, SidecarCommand, sidecar_command
from control.runtime.troubles import Troubles
from control.runtime.worker import PodWorker
from control.store.store import Change, Key, Object, Store

_SETTLE = 0.02  # seconds: changes come in bursts, one reconcile is enough for a burst
_IDLE = 5.0  # seconds without any event until everything is looked at again
_RETRY = 0.5  # seconds after a write that failed
_MAX_NOTES = 1000  # not written yet; the store keeps no more Events either
_NAME_LETTERS = "bcdfghjklmnpqrstvwxz2456789"

Clock = Callable[[], float]


def steady_clock() -> Clock:
    """Unix seconds that never jump: for timestamps and for waiting alike."""
    offset = time.time() - time.monotonic()
    return lambda: offset + time.monotonic()


class Controller:
    def __init__(
        self,
        store: Store,
        settings: Settings,
        prefix: str,
        *,
        clock: Clock,
        say: Callable[[str], None] = lambda line: None,
        command: SidecarCommand = sidecar_command,
        seed: int | None = None,
    ) -> None:
        """
        Args:
            store: opened as manager "runtime".
            prefix: the mesh's network, "127.83.4".
            say: takes lines for the person at the terminal.
            command: makes the sidecar's command line.
            seed: of the random part of pod names.
        """
        self.store = store
        self.settings = settings
        self.settled = False  # everything was looked at once
        self._clock = clock
        self._say = say
        self._random = random.Random(seed)
        self._wake = asyncio.Event()
        self._notes: list[tuple[Key, Note]] = []
        self._due: float | None = None
        self._ending = False
        self._gateway: str | None = None
        self._troubles = Troubles(say)
        self._own = OwnObjects(store)
        self._services = Services(self._own, self._troubles)
        self._tokens = PodTokens(settings.layout, self._troubles)
        self.pods = Pods(
            settings,
            prefix,
            self._own,
            self._services,
            self._tokens,
            clock=clock,
            changed=self._on_worker,
            note=self._on_note,
            say=say,
            command=command,
            callers_know=self._callers_know,
        )

    @property
    def workers(self) -> dict[tuple[str, str], PodWorker]:
        """Of all pods that run, by namespace and name."""
        return {key: pod.worker for key, pod in self.pods.running.items()}

    # -- running

    def serve_gateway(self, address: str) -> None:
        """Have a gateway pod whose sidecar takes requests on `address` (host:port)."""
        self._gateway = address
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled; then call `stop`."""
        await self.pods.forget_earlier_life()
        await self._services.forget_earlier_life()
        unwatch = self.store.watch(self._on_changes)
        keeper = asyncio.ensure_future(self._tokens.keep(lambda: self.workers.values()))
        try:
            self._wake.set()
            while True:
                patience = _IDLE if self._due is None else min(_IDLE, max(0.0, self._due - self._clock()))
                await self._woken(patience)
                await asyncio.sleep(_SETTLE)
                self._wake.clear()
                await self.reconcile()
        finally:
            keeper.cancel()
            unwatch()

    async def _woken(self, patience: float) -> None:
        try:
            async with asyncio.timeout(patience):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def stop(self, *, patience: float = 60.0) -> None:
        """End all pods in order, apps before sidecars; what is left after `patience` seconds is killed."""
        self._ending = True
        for worker in self.workers.values():
            worker.delete(drain=0.0)
        deadline = self._clock() + patience
        while any(not worker.gone for worker in self.workers.values()):
            if self._clock() >= deadline:
                self.kill()
                deadline = self._clock() + 5.0
            self._wake.clear()
            await self._woken(0.5)

    def kill(self) -> None:
        """No more patience."""
        for worker in self.workers.values():
            worker.kill()

    async def tidy(self) -> None:
        """After `stop`: nothing runs any more, and the objects say so."""
        for pod in list(self.pods.running.values()):
            await self.pods.remove(pod)
        await self._services.reconcile([])

    # -- what others ask

    def unready(self) -> list[str]:
        """What is not as it should be yet, one line each; empty: the mesh is ready."""
        lines = []
        for deployment in self.store.list("apps", "Deployment"):
            metadata, status = deployment["metadata"], deployment.get("status") or {}
            replicas = deployment["spec"].get("replicas", 1)
            done = min(int(status.get(name) or 0) for name in ("availableReplicas", "updatedReplicas"))
            observed = status.get("observedGeneration") == metadata.get("generation")
            if done < replicas or not observed:
                lines.append(f"deployment {metadata.get('namespace', 'default')}/{metadata['name']}: {done}/{replicas} ready")
        lines += [
            f"{worker.what}: {worker.why_unready()}"
            for worker in self.workers.values()
            if not worker.machine.ready and not worker.machine.finished and worker.machine.deleted_at is None
        ]
        now = self._clock()
        lines += [
            f"{worker.what}: {container.name}: it has no readiness probe and was started just now"
            for worker in self.workers.values()
            for container in worker.machine.containers
            if worker.machine.ready and not container.proven(now)
        ]
        return lines

    def sidecars(self) -> list[str]:
        """Addresses of the pods that have a sidecar which serves."""
        workers = self.workers.values()
        return [worker.ip for worker in workers if worker.machine.sidecar is not None and worker.machine.ready]

    def ready_addresses(self) -> informed.Known:
        """What every sidecar should know: see control.runtime.informed."""
        return self._services.ready_addresses()

    async def _callers_know(self, leaving: str) -> bool:
        """Has every sidecar heard that the pod with this address ends, and who serves instead?"""
        return not await informed.uninformed(self.sidecars(), self.ready_addresses(), leaving)

    # -- one look at everything

    async def reconcile(self) -> None:
        if self._ending:
            return
        now = self._clock()
        self._due = None
        await self._try("gateway", self._reconcile_gateway())
        await self._reconcile_own_pods()
        await self._reconcile_deployments(now)
        facts = [fact for pod in self.pods.running.values() if (fact := pod.endpoint_fact()) is not None]
        if await self._services.reconcile(facts):
            self._due_by(now + _RETRY)
        await self._write_pods()
        await self._try("events", self._write_notes())
        self.settled = True

    async def _try(self, what: str, work: Awaitable[None]) -> None:
        """One object's share of the work; see control.runtime.troubles."""
        if await self._troubles.attempt(what, work):
            self._due_by(self._clock() + _RETRY)

    def _due_by(self, when: float) -> None:
        self._due = when if self._due is None else min(self._due, when)

    async def _reconcile_deployments(self, now: float) -> None:
        seen = set()
        for deployment in self.store.list("apps", "Deployment"):
            name = names(deployment)
            seen.add(name)
            await self._try(f"deployment {'/'.join(name)}", self._reconcile_deployment(deployment, now))
        for key, pod in list(self.pods.running.items()):
            if pod.owner and (key[0], pod.owner) not in seen and not pod.ending:
                pod.worker.delete()

    async def _reconcile_deployment(self, deployment: Object, now: float) -> None:
        namespace, name = names(deployment)
        mine = self.pods.of_deployment(namespace, name)
        decided = plan.plan_deployment(deployment, [pod.planner_fact() for pod in mine], now)
        for pod_name in decided.delete:
            self.pods.running[namespace, pod_name].worker.delete()
        for _ in range(decided.create):
            await self._create_pod(deployment, decided.template_hash)
        await self._own.status(Key("apps", "Deployment", namespace, name), decided.status)
        if decided.due_at is not None:
            self._due_by(decided.due_at)

    async def _create_pod(self, deployment: Object, template_hash: str) -> None:
        namespace, name = names(deployment)
        while True:  # a name is free sooner or later: 27**5 of them, 245 pods
            suffix = "".join(self._random.choice(_NAME_LETTERS) for _ in range(5))
            pod_name = f"{name[:200]}-{template_hash}-{suffix}"
            if (namespace, pod_name) not in self.pods.running:
                break
        pod = podobjects.of_deployment(deployment, pod_name, template_hash)
        await self.pods.launch(pod, owner=name, template_hash=template_hash)

    async def _reconcile_own_pods(self) -> None:
        """Pods among the user's manifests."""
        wanted = {names(obj): obj for obj in self.store.list("", "Pod") if not made_by_runtime(obj)}
        for key, obj in wanted.items():
            template_hash = plan.template_hash(obj["spec"])
            pod = self.pods.running.get(key)
            if pod is None:
                await self._try(f"pod {'/'.join(key)}", self.pods.launch(obj, owner="", template_hash=template_hash))
            elif pod.template_hash != template_hash and not pod.ending:
                self._say(f"pod {key[0]}/{key[1]}: its spec changed; it is ended and started anew")
                pod.worker.delete()
        for key, pod in list(self.pods.running.items()):
            if pod.owner == "" and key not in wanted and key != GATEWAY_KEY and not pod.ending:
                await self._try(f"pod {'/'.join(key)}", self.pods.take_over(pod))
                pod.worker.delete()

    async def _reconcile_gateway(self) -> None:
        if self._gateway is None or GATEWAY_KEY in self.pods.running:
            return
        await self._own.apply(podobjects.gateway_account())
        await self.pods.launch(podobjects.gateway(), owner="", template_hash="", gateway=self._gateway)

    async def _write_pods(self) -> None:
        for pod in list(self.pods.running.values()):
            await self._try(f"pod {pod.worker.identity}", self.pods.write(pod))
            if pod.worker.gone:
                self._wake.set()  # its place may be wanted

    async def _write_notes(self) -> None:
        notes, self._notes = self._notes, []
        for key, note in notes:
            await self.store.event(key, note.kind, note.reason, note.message)

    # -- what happens

    def _on_changes(self, changes: Sequence[Change]) -> None:
        if any(not _is_own(change) for change in changes):
            self._wake.set()

    def _on_worker(self, worker: PodWorker) -> None:
        self._wake.set()

    def record(self, worker: PodWorker, note: Note) -> None:
        """Make an Event of it, at the next look at everything."""
        self._notes.append((Key("", "Pod", *worker.key), note))
        del self._notes[:-_MAX_NOTES]
        self._wake.set()

    def _on_note(self, worker: PodWorker, note: Note) -> None:
        self.record(worker, note)
        if note.kind == "Warning" and not self._ending:
            self._say(f"{worker.what}: {note.message}")
            if note.reason in ("Ended", "BackOff") and (pod := self.pods.running.get(worker.key)) is not None:
                pod.announced = False


def _is_own(change: Change) -> bool:
    """A change that this controller made itself and has no interest in."""
    return change.key.kind == "EndpointSlice"

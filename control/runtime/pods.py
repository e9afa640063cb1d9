"""The pods that run here, each with its worker and its object in the store.

    launch   address, listeners, annotations -> object in the store -> token -> worker starts
    write    what the worker says of itself  -> status (and, while it ends, a mark) in the store
    remove   its processes are gone          -> token, object, address are given back

Which pods there should be is the controller's to say.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass

from control.runtime import podobjects
from control.runtime.addresses import Addresses
from control.runtime.container import Note
from control.runtime.endpoints import EndpointFact
from control.runtime.layout import GATEWAY_HOST, SYSTEM_NAMESPACE
from control.runtime.ownobjects import OwnObjects
from control.runtime.plan import PodFact
from control.runtime.podobjects import ANNOTATION_TERMINATING, GATEWAY, made_by_runtime
from control.runtime.podstatus import timestamp
from control.runtime.podtokens import PodTokens
from control.runtime.services import Services, names
from control.runtime.sidecar import Settings, SidecarCommand, sidecar_annotations, wants_sidecar
from control.runtime.worker import CallersKnow, PodWorker
from control.store.store import Key, Object

GATEWAY_KEY = (SYSTEM_NAMESPACE, GATEWAY)
KEPT_LOGS = 30  # pods that are gone: half a GiB at the very worst
_LASTS = 5.0  # seconds of readiness after a crash until a person is told

PodKey = tuple[str, str]  # namespace, name


@dataclass(slots=True)
class Pod:
    """One pod that runs, or is about to."""

    worker: PodWorker
    owner: str  # its Deployment's name; "" for the user's own and the gateway
    template_hash: str
    announced: bool = False  # a person was told that it is ready

    @property
    def ending(self) -> bool:
        return self.worker.machine.deleted_at is not None

    def planner_fact(self) -> PodFact:
        """As the Deployment's planner sees it."""
        machine = self.worker.machine
        return PodFact(
            self.worker.identity.name,
            self.template_hash,
            machine.created,
            machine.ready,
            machine.ready_since,
            any(container.alive for container in machine.containers),
            sum(container.restarts for container in machine.containers),
            self.ending,
        )

    def endpoint_fact(self) -> EndpointFact | None:
        """As its Services see it; None if it serves nobody."""
        worker, machine, metadata = self.worker, self.worker.machine, self.worker.pod["metadata"]
        if worker.gone or machine.finished or worker.key == GATEWAY_KEY:
            return None
        return EndpointFact(
            worker.identity.namespace,
            worker.identity.name,
            str(metadata.get("uid") or ""),
            metadata.get("labels") or {},
            worker.ip,
            worker.container_ports,
            machine.ready,
            machine.serving,
            self.ending,
        )


class Pods:
    def __init__(
        self,
        settings: Settings,
        prefix: str,
        own: OwnObjects,
        services: Services,
        tokens: PodTokens,
        *,
        clock: Callable[[], float],
        changed: Callable[[PodWorker], None],
        note: Callable[[PodWorker, Note], None],
        say: Callable[[str], None],
        command: SidecarCommand,
        callers_know: CallersKnow,
    ) -> None:
        """
        Args:
            prefix: the mesh's network, "127.83.4".
            changed: called when a pod's status may have changed.
            note: takes what is worth an Event.
            say: takes lines for the person at the terminal.
            command: makes the sidecar's command line.
            callers_know: asks the other sidecars about a pod that ends.
        """
        self.running: dict[PodKey, Pod] = {}
        self._settings = settings
        self._addresses = Addresses(prefix)
        self._gateway_ip = f"{prefix}.{GATEWAY_HOST}"
        self._own = own
        self._services = services
        self._tokens = tokens
        self._clock = clock
        self._changed = changed
        self._note = note
        self._say = say
        self._command = command
        self._callers_know = callers_know

    def of_deployment(self, namespace: str, name: str) -> list[Pod]:
        return [pod for key, pod in self.running.items() if key[0] == namespace and pod.owner == name]

    async def launch(self, obj: Object, *, owner: str, template_hash: str, gateway: str | None = None) -> None:
        """Have a pod and start it.

        Args:
            obj: the Pod; the user's own stays the user's, but for the annotations.
            owner: the Deployment's name, or "".
            gateway: host:port; a pod of a sidecar alone, which takes requests there.

        Raises:
            StoreError, AddressError: there is no such pod then.
        """
        namespace, name = names(obj)
        ip = self._gateway_ip if gateway else self._addresses.take(self._clock())
        listeners = self._services.listeners(namespace, ip) if wants_sidecar(obj) and not gateway else []
        fields = obj if owner or gateway else podobjects.skeleton(obj)
        if wants_sidecar(obj):
            annotations = {**(fields["metadata"].get("annotations") or {}), **sidecar_annotations(listeners)}
            fields = {**fields, "metadata": {**fields["metadata"], "annotations": annotations}}
        stored = await self._own.create(fields)
        worker = PodWorker(
            stored,
            ip,
            self._settings,
            lookup=lambda kind, wanted: self._own.store.get(Key("", kind, namespace, wanted)),
            clock=self._clock,
            changed=self._changed,
            note=self._note,
            listeners=listeners,
            command=self._command,
            callers_know=self._callers_know,
            sidecar_only=gateway is not None,
            sidecar_arguments=("--outbound", gateway) if gateway else (),
        )
        self.running[worker.key] = Pod(worker, owner, template_hash)
        await self._own.status(Key("", "Pod", namespace, name), worker.status())
        self._tokens.refresh(worker)
        worker.start()

    async def take_over(self, pod: Pod) -> None:
        """A Pod that vanished from the user's files still has to drain, and its sidecar needs to be told what it serves
        until then: the runtime holds the object for as long, as the API server would.  Raises StoreError."""
        await self._own.apply(podobjects.taken_over(pod.worker.pod))

    async def write(self, pod: Pod) -> None:
        """Bring the object up to date; remove it when the pod is gone.  Raises StoreError."""
        worker = pod.worker
        if worker.gone:
            await self.remove(pod)
            return
        key = Key("", "Pod", *worker.key)
        if worker.machine.deleted_at is not None:
            await self._own.annotate(key, {ANNOTATION_TERMINATING: timestamp(worker.machine.deleted_at)})
        elif worker.machine.sidecar is not None and worker.key != GATEWAY_KEY:
            listeners = self._services.listeners(worker.key[0], worker.ip)
            if listeners != worker.listeners:
                # A Service came or went.  The environment of a process cannot change, its sidecar's listeners can.
                worker.listeners = listeners
                await self._own.annotate(key, sidecar_annotations(listeners))
        await self._own.status(key, worker.status())
        if not pod.announced and self._worth_announcing(worker):
            pod.announced = True
            self._say(f"{worker.what} is ready at {worker.reached_at}")

    def _worth_announcing(self, worker: PodWorker) -> bool:
        """Ready; after a crash only when that lasts, or a crash loop would be a row of good news."""
        machine = worker.machine
        if not machine.ready or machine.ready_since is None:
            return False
        fresh = all(container.run is None for container in machine.containers)
        return fresh or self._clock() - machine.ready_since >= _LASTS

    async def remove(self, pod: Pod) -> None:
        """A pod that is gone: its token, its object, its address.  Raises StoreError."""
        worker = pod.worker
        key = Key("", "Pod", *worker.key)
        self._tokens.withdraw(worker)
        obj = self._own.store.get(key)
        self._own.forget(key)
        if obj is not None and made_by_runtime(obj):
            await self._own.delete(key)
        del self.running[worker.key]
        if worker.key != GATEWAY_KEY:
            self._addresses.release(worker.ip, self._clock())
        self._prune_logs()

    def _prune_logs(self) -> None:
        """Logs of pods that are gone are kept for a while: of the last KEPT_LOGS of them."""
        root = self._settings.layout.root / "pods"
        folders = [folder for namespace in root.iterdir() for folder in namespace.iterdir()] if root.is_dir() else []
        gone = [folder for folder in folders if (folder.parent.name, folder.name) not in self.running]
        for folder in sorted(gone, key=lambda folder: folder.stat().st_mtime)[:-KEPT_LOGS]:
            shutil.rmtree(folder, ignore_errors=True)

    async def forget_earlier_life(self) -> None:
        """What the store shows of pods that an earlier supervisor ran.  Raises StoreError."""
        for obj in self._own.store.list("", "Pod"):
            if made_by_runtime(obj):
                await self._own.delete(Key.of(obj))

"""The runtime controller: makes what runs equal to what the objects say.  Manager "runtime".

    store changed, a pod changed, time passed
        -> reconcile:   Deployments -> plan.py -> pods to create, pods to end
                        Pods of the user -> likewise
                        Services + pods -> EndpointSlices
                        status of pods and Deployments
        -> worker.py runs each pod

Level-triggered: one reconcile looks at everything there is, so a missed or doubled wake-up does no harm.  Pods live here
first and in the store for others to see; after a restart of the supervisor none runs, so those the store still shows are
removed and made anew.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from control.runtime import endpoints, informed, plan, podobjects
from control.runtime.addresses import AddressError, Addresses, ServicePorts
from control.runtime.container import Note
from control.runtime.endpoints import EndpointFact
from control.runtime.environment import ServiceListener
from control.runtime.layout import SYSTEM_NAMESPACE
from control.runtime.podobjects import ANNOTATION_TERMINATING, GATEWAY, made_by_runtime
from control.runtime.podstatus import timestamp
from control.runtime.worker import PodWorker, Settings, SidecarCommand, sidecar_annotations, sidecar_command, wants_sidecar
from control.serve import tokens
from control.store.store import Change, Key, NotFound, Object, Store, StoreError

KEPT_LOGS = 30  # pods that are gone: half a GiB at the very worst
_SETTLE = 0.02  # seconds: changes come in bursts, one reconcile is enough for a burst
_IDLE = 5.0  # seconds without any event until everything is looked at again
_RETRY = 0.5  # seconds after a write that failed
_TOKENS = 1.0  # seconds between looks at the token files
_NAME_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_SLICE_GROUP = "discovery.k8s.io"
_MANAGED_BY = "endpointslice.kubernetes.io/managed-by"

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
        self.workers: dict[tuple[str, str], PodWorker] = {}
        self._clock = clock
        self._say = say
        self._command = command
        self._random = random.Random(seed)
        self._addresses = Addresses(prefix)
        self._gateway_ip = f"{prefix}.2"
        self._ports = ServicePorts()
        self._wake = asyncio.Event()
        self._owner: dict[tuple[str, str], str] = {}  # pod -> its Deployment's name; "" for the user's own and the gateway
        self._hash: dict[tuple[str, str], str] = {}
        self._written: dict[Key, Object] = {}  # what this controller last wrote, to write only what differs
        self._slices: dict[tuple[str, str], list[Key]] = {}  # Service -> its slices
        self._notes: list[tuple[Key, Note]] = []
        self._due: float | None = None
        self._ending = False
        self._gateway: str | None = None
        self._troubles: dict[str, str] = {}  # what failed -> why, so that it is said once
        self._announced: set[tuple[str, str]] = set()

    # -- running

    def serve_gateway(self, address: str) -> None:
        """Have a gateway pod whose sidecar takes requests on `address` (host:port)."""
        self._gateway = address
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled; then call `stop`."""
        await self._forget_earlier_life()
        unwatch = self.store.watch(self._on_changes)
        keeper = asyncio.ensure_future(self._keep_tokens())
        try:
            self._wake.set()
            while True:
                patience = _IDLE if self._due is None else min(_IDLE, max(0.0, self._due - self._clock()))
                try:
                    async with asyncio.timeout(patience):
                        await self._wake.wait()
                except TimeoutError:
                    pass
                await asyncio.sleep(_SETTLE)
                self._wake.clear()
                await self.reconcile()
        finally:
            keeper.cancel()
            unwatch()

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
            try:
                async with asyncio.timeout(0.5):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def kill(self) -> None:
        """No more patience."""
        for worker in self.workers.values():
            worker.kill()

    async def tidy(self) -> None:
        """After `stop`: nothing runs any more, and the objects say so."""
        for worker in list(self.workers.values()):
            await self._remove(worker)
        self._ending = False
        await self.reconcile_endpoints()
        self._ending = True

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
            f"pod {worker.identity}: {self.why_unready(worker)}"
            for worker in self.workers.values()
            if not worker.machine.ready and not worker.machine.finished and worker.machine.deleted_at is None
        ]
        return lines

    def sidecars(self) -> list[str]:
        """Addresses of the pods that have a sidecar which serves."""
        workers = self.workers.values()
        return [worker.ip for worker in workers if worker.machine.sidecar is not None and worker.machine.ready]

    def ready_addresses(self) -> informed.Known:
        """What every sidecar should know: see control.runtime.informed."""
        slices = self.store.list(_SLICE_GROUP, "EndpointSlice")
        return informed.wanted(item for item in slices if _labels(item).get(_MANAGED_BY) == endpoints.MANAGED_BY)

    @staticmethod
    def why_unready(worker: PodWorker) -> str:
        reasons = []
        for status in worker.status()["containerStatuses"]:
            if not status["ready"]:
                waiting = status["state"].get("waiting") or {}
                detail = waiting.get("message") or waiting.get("reason") or "not ready"
                reasons.append(f"{status['name']}: {detail}")
        return "; ".join(reasons) or "not ready"

    # -- one look at everything

    async def reconcile(self) -> None:
        if self._ending:
            return
        now = self._clock()
        self._due = None
        await self._try("gateway", self._reconcile_gateway())
        await self._reconcile_own_pods()
        await self._reconcile_deployments(now)
        await self.reconcile_endpoints()
        await self._write_pods()
        await self._try("events", self._write_notes())
        self.settled = True

    async def _try(self, what: str, work: Awaitable[None]) -> None:
        """One object's share of the work: what is wrong with it is said once, tried again, and keeps nobody else waiting."""
        try:
            await work
        except (StoreError, AddressError, ValueError, KeyError, TypeError, AttributeError) as error:
            usual = isinstance(error, (StoreError, AddressError))
            self._trouble(what, str(error) if usual else f"cannot be understood ({type(error).__name__}: {error})")
            self._due_by(self._clock() + _RETRY)
        else:
            self._troubles.pop(what, None)

    def _due_by(self, when: float) -> None:
        self._due = when if self._due is None else min(self._due, when)

    async def _reconcile_deployments(self, now: float) -> None:
        seen = set()
        for deployment in self.store.list("apps", "Deployment"):
            names = _names(deployment)
            seen.add(names)
            await self._try(f"deployment {'/'.join(names)}", self._reconcile_deployment(deployment, now))
        for worker in list(self.workers.values()):
            owner = self._owner[worker.key]
            if owner and (worker.key[0], owner) not in seen and worker.machine.deleted_at is None:
                worker.delete()

    async def _reconcile_deployment(self, deployment: Object, now: float) -> None:
        namespace, name = _names(deployment)
        mine = [worker for worker in self.workers.values() if worker.key[0] == namespace and self._owner[worker.key] == name]
        decided = plan.plan_deployment(deployment, [self._fact(worker) for worker in mine], now)
        for pod in decided.delete:
            self.workers[namespace, pod].delete()
        for _ in range(decided.create):
            await self._create_pod(deployment, decided.template_hash)
        await self._write_status(Key("apps", "Deployment", namespace, name), decided.status)
        if decided.due_at is not None:
            self._due_by(decided.due_at)

    def _fact(self, worker: PodWorker) -> plan.PodFact:
        machine = worker.machine
        return plan.PodFact(
            worker.identity.name,
            self._hash[worker.key],
            machine.created,
            machine.ready,
            machine.ready_since,
            any(container.alive for container in machine.containers),
            sum(container.restarts for container in machine.containers),
            machine.deleted_at is not None,
        )

    async def _create_pod(self, deployment: Object, template_hash: str) -> None:
        namespace, name = _names(deployment)
        while True:  # a name is free sooner or later: 27**5 of them, 245 pods
            suffix = "".join(self._random.choice(_NAME_LETTERS) for _ in range(5))
            pod_name = f"{name[:200]}-{template_hash}-{suffix}"
            if (namespace, pod_name) not in self.workers:
                break
        pod = podobjects.of_deployment(deployment, pod_name, template_hash)
        await self._launch(pod, owner=name, template_hash=template_hash)

    async def _reconcile_own_pods(self) -> None:
        """Pods among the user's manifests."""
        wanted: dict[tuple[str, str], Object] = {}
        for pod in self.store.list("", "Pod"):
            if not made_by_runtime(pod):
                wanted[_names(pod)] = pod
        for key, pod in wanted.items():
            if key not in self.workers:
                launch = self._launch(pod, owner="", template_hash=plan.template_hash(pod["spec"]))
                await self._try(f"pod {'/'.join(key)}", launch)
            elif self._hash[key] != plan.template_hash(pod["spec"]) and self.workers[key].machine.deleted_at is None:
                self._say(f"pod {key[0]}/{key[1]}: its spec changed; it is ended and started anew")
                self.workers[key].delete()
        for key, worker in list(self.workers.items()):
            if self._owner[key] == "" and key not in wanted and not self._is_gateway(key) and worker.machine.deleted_at is None:
                await self._try(f"pod {'/'.join(key)}", self._keep_while_ending(worker))
                worker.delete()

    async def _keep_while_ending(self, worker: PodWorker) -> None:
        """A Pod that vanished from the user's files still has to drain, and its sidecar needs to be told what it serves
        until then: this controller holds the object for as long, as the API server would."""
        await self._apply(podobjects.taken_over(worker.pod))

    async def _reconcile_gateway(self) -> None:
        key = (SYSTEM_NAMESPACE, GATEWAY)
        if self._gateway is None or key in self.workers:
            return
        await self._apply(podobjects.gateway_account())
        await self._launch(podobjects.gateway(), owner="", template_hash="", gateway=self._gateway)

    def _is_gateway(self, key: tuple[str, str]) -> bool:
        return key == (SYSTEM_NAMESPACE, GATEWAY)

    async def _launch(self, pod: Object, *, owner: str, template_hash: str, gateway: str | None = None) -> None:
        namespace, name = _names(pod)
        ip = self._gateway_ip if gateway else self._addresses.take(self._clock())
        listeners = self._listeners(namespace, ip) if wants_sidecar(pod) and not gateway else []
        fields = pod if owner or gateway else podobjects.skeleton(pod)
        if wants_sidecar(pod):
            annotations = {**(fields["metadata"].get("annotations") or {}), **sidecar_annotations(listeners)}
            fields = {**fields, "metadata": {**fields["metadata"], "annotations": annotations}}
        stored = await self.store.apply(fields)
        worker = PodWorker(
            stored,
            ip,
            self.settings,
            lookup=self._lookup(namespace),
            clock=self._clock,
            changed=self._on_worker,
            note=self._on_note,
            listeners=listeners,
            command=self._command,
            sidecar_only=gateway is not None,
            sidecar_arguments=("--outbound", gateway) if gateway else (),
        )
        self.workers[worker.key] = worker
        self._owner[worker.key] = owner
        self._hash[worker.key] = template_hash
        self._written[Key("", "Pod", namespace, name)] = fields
        await self._write_status(Key("", "Pod", namespace, name), worker.status())
        if worker.machine.sidecar is not None:
            self._refresh_token(worker)
        worker.start()

    def _listeners(self, namespace: str, ip: str) -> list[ServiceListener]:
        """One listener on the pod's address for each port of each Service of its namespace that has a cluster IP in
        Kubernetes: headless ones and external names have no <NAME>_SERVICE_HOST there either."""
        found = []
        for service in self.store.list("", "Service", namespace):
            spec = service["spec"]
            if spec.get("clusterIP") == "None" or spec.get("type") == "ExternalName":
                continue
            name = f"{namespace}/{service['metadata']['name']}"
            for port in spec.get("ports") or []:
                if port.get("protocol", "TCP") == "TCP":
                    number = int(port["port"])
                    address = f"{ip}:{self._ports.port(name, number)}"
                    found.append(ServiceListener(name, number, str(port.get("name") or ""), address))
        return found

    def _lookup(self, namespace: str) -> Callable[[str, str], Object | None]:
        return lambda kind, name: self.store.get(Key("", kind, namespace, name))

    # -- endpoints

    async def reconcile_endpoints(self) -> None:
        found = [self._endpoint_fact(worker) for worker in self.workers.values() if not self._is_gateway(worker.key)]
        facts = [fact for fact in found if fact is not None]
        services = {_names(service): service for service in self.store.list("", "Service")}
        for name in self._slices.keys() - services.keys():
            await self._try(f"service {'/'.join(name)}", self._reconcile_service(name, None, facts))
        for name, service in services.items():
            await self._try(f"service {'/'.join(name)}", self._reconcile_service(name, service, facts))

    async def _reconcile_service(self, name: tuple[str, str], service: Object | None, facts: list[EndpointFact]) -> None:
        wanted = endpoints.endpoint_slices(service, facts) if service is not None else []
        for item in wanted:
            await self._apply(item)
        keys = [Key.of(item) for item in wanted]
        for key in self._slices.get(name, []):
            if key not in keys:
                await self._delete(key)
        if keys:
            self._slices[name] = keys
        else:
            self._slices.pop(name, None)

    def _endpoint_fact(self, worker: PodWorker) -> EndpointFact | None:
        machine, metadata = worker.machine, worker.pod["metadata"]
        if worker.gone or machine.finished:
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
            machine.deleted_at is not None,
        )

    # -- writing

    async def _write_pods(self) -> None:
        for worker in list(self.workers.values()):
            await self._try(f"pod {worker.identity}", self._remove(worker) if worker.gone else self._write_pod(worker))

    async def _write_pod(self, worker: PodWorker) -> None:
        key = Key("", "Pod", *worker.key)
        gateway = self._is_gateway(worker.key)
        mark: dict[str, str] = {}
        if worker.machine.deleted_at is not None:
            mark = {ANNOTATION_TERMINATING: timestamp(worker.machine.deleted_at)}
        elif worker.machine.sidecar is not None and not gateway:
            listeners = self._listeners(worker.key[0], worker.ip)
            if listeners != worker.listeners:
                # A Service came or went.  The environment of a process cannot change, its sidecar's listeners can.
                worker.listeners = listeners
                mark = sidecar_annotations(listeners)
        if mark and (fields := self._written.get(key)) is not None and self.store.get(key) is not None:
            annotations = {**(fields["metadata"].get("annotations") or {}), **mark}
            await self._apply({**fields, "metadata": {**fields["metadata"], "annotations": annotations}})
        await self._write_status(key, worker.status())
        if worker.machine.ready and worker.key not in self._announced:
            self._announced.add(worker.key)
            self._say(f"gateway is ready at {self._gateway}" if gateway else f"pod {worker.identity} is ready at {worker.ip}")

    async def _remove(self, worker: PodWorker) -> None:
        """A pod that is gone: its object, its address, its token."""
        key = Key("", "Pod", *worker.key)
        if worker.machine.sidecar is not None:
            tokens.withdraw_token(self.settings.layout.tokens, worker.token_file)
        pod = self.store.get(key)
        self._written.pop(key, None)
        if pod is not None and made_by_runtime(pod):
            await self._delete(key)
        del self.workers[worker.key]
        self._owner.pop(worker.key)
        self._hash.pop(worker.key)
        self._announced.discard(worker.key)
        if not self._is_gateway(worker.key):
            self._addresses.release(worker.ip, self._clock())
        self._prune_logs()
        self._wake.set()

    def _prune_logs(self) -> None:
        """Logs of pods that are gone are kept for a while: of the last KEPT_LOGS of them."""
        root = self.settings.layout.root / "pods"
        folders = [folder for namespace in root.iterdir() for folder in namespace.iterdir()] if root.is_dir() else []
        gone = [folder for folder in folders if (folder.parent.name, folder.name) not in self.workers]
        for folder in sorted(gone, key=lambda folder: folder.stat().st_mtime)[:-KEPT_LOGS]:
            shutil.rmtree(folder, ignore_errors=True)

    async def _apply(self, obj: Object) -> None:
        key = Key.of(obj)
        if self._written.get(key) == obj and self.store.get(key) is not None:
            return
        await self.store.apply(obj)
        self._written[key] = obj

    async def _write_status(self, key: Key, status: Object) -> None:
        obj = self.store.get(key)
        if obj is None:
            return  # it was deleted meanwhile; the next look sees that
        now = obj.get("status") or {}
        if any(now.get(name) != value for name, value in status.items()):
            with suppress(NotFound):
                await self.store.status(key, status)

    async def _delete(self, key: Key) -> None:
        self._written.pop(key, None)
        with suppress(NotFound):
            await self.store.delete(key)

    async def _write_notes(self) -> None:
        notes, self._notes = self._notes, []
        for key, note in notes:
            await self.store.event(key, note.kind, note.reason, note.message)

    async def _forget_earlier_life(self) -> None:
        """What the store shows of pods that an earlier supervisor ran."""
        for pod in self.store.list("", "Pod"):
            if made_by_runtime(pod):
                await self._delete(Key.of(pod))
        for item in self.store.list(_SLICE_GROUP, "EndpointSlice"):
            if _labels(item).get(_MANAGED_BY) == endpoints.MANAGED_BY:
                await self._delete(Key.of(item))

    # -- tokens

    async def _keep_tokens(self) -> None:
        """A token is good for one certificate; the file always holds an unused one, as a kubelet's projected one."""
        while True:
            await asyncio.sleep(_TOKENS)
            for worker in list(self.workers.values()):
                if worker.machine.sidecar is not None and not worker.gone:
                    self._refresh_token(worker)
            tokens.sweep(self.settings.layout.tokens, time.time())

    def _refresh_token(self, worker: PodWorker) -> None:
        pod = worker.identity
        try:
            tokens.refresh_token_if_burned(
                *(self.settings.layout.tokens, worker.token_file, pod.namespace, pod.service_account, pod.name),
                *(tokens.TTL, time.time()),
            )
        except OSError as error:
            self._trouble(f"token {pod}", f"cannot write the identity token of pod {pod}: {error.strerror}")
        else:
            self._troubles.pop(f"token {pod}", None)

    # -- what happens

    def _on_changes(self, changes: Sequence[Change]) -> None:
        if any(not _is_own(change) for change in changes):
            self._wake.set()

    def _on_worker(self, worker: PodWorker) -> None:
        self._wake.set()

    def _on_note(self, worker: PodWorker, note: Note) -> None:
        self._notes.append((Key("", "Pod", *worker.key), note))
        del self._notes[:-1000]
        if note.kind == "Warning" and not self._ending:
            self._say(f"pod {worker.identity}: {note.message}")
            if note.reason in ("Ended", "BackOff"):
                self._announced.discard(worker.key)
        self._wake.set()

    def _trouble(self, what: str, why: str) -> None:
        if self._troubles.get(what) != why:
            if len(self._troubles) >= 1000:
                self._troubles.clear()
            self._troubles[what] = why
            self._say(f"{what}: {why}")


def _names(obj: Object) -> tuple[str, str]:
    return obj["metadata"].get("namespace") or "default", obj["metadata"]["name"]


def _labels(obj: Object) -> dict[str, str]:
    return obj["metadata"].get("labels") or {}


def _is_own(change: Change) -> bool:
    """A change that this controller made itself and has no interest in."""
    return change.key.kind == "EndpointSlice"

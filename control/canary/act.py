"""Decisions -> store writes, as manager "canary".

    Decision -> actions in order -> history -> events -> Canary.status        (the status last: see machine.py)

Every action makes something true and may be repeated.  Fields written here and by nobody else: the target's spec.replicas
while we hold it (given back while it is being released), the apex Service's selector, everything of what we create.
"""

from __future__ import annotations

from control.canary import history, objects
from control.canary.decision import (
    Action,
    CreatePrimary,
    Decision,
    EnsureApex,
    EnsureServices,
    PromoteTemplate,
    ScaleToZero,
    ScaleUp,
    SetWeights,
)
from control.canary.facts import deployment_key, target_object, tracked_configs
from control.canary.spec import GROUP, KIND, CanarySpec
from control.canary.status import Status
from control.store.store import Key, Object, Store, StoreError

EVENT_REASON = "Synced"  # Flagger's, for all its events


class TargetChanged(StoreError):
    """The target is no longer what was decided about; the next tick sees the new one."""


class Actor:
    """Carries decisions out on a store opened as manager "canary".

    `gives_back`: scaling up gives spec.replicas back to its owner, so that the number in the user's manifest counts again
    (the file store keeps it underneath).  False where giving back means losing it (server-side apply after a forced take
    over): then the primary's number is written."""

    def __init__(self, store: Store, *, gives_back: bool = True) -> None:
        self._store = store
        self._gives_back = gives_back

    async def carry_out(self, spec: CanarySpec, before: Status, decision: Decision) -> None:
        """All of a decision.  Raises StoreError at the first write that fails; the status is then not stored and the tick
        is repeated."""
        for action in decision.actions:
            await self.do(spec, action)
        key = Key(GROUP, KIND, spec.namespace, spec.name)
        await self.report(key, spec, before, decision)

    async def report(self, key: Key, spec: CanarySpec | None, before: Status, decision: Decision) -> None:
        """History, events and status, without the actions."""
        if decision.records and spec is not None:
            await history.append(self._store, spec, decision.records)
        for event in decision.events:
            await self._store.event(key, "Warning" if event.warning else "Normal", EVENT_REASON, event.text)
        if decision.status != before:
            await self._store.status(key, decision.status.to_object())

    async def do(self, spec: CanarySpec, action: Action) -> None:
        """One action.  Raises StoreError."""
        match action:
            case EnsureServices():
                for service in objects.services(spec, self._target(spec)):
                    await self._store.apply(service)
            case EnsureApex():
                current = self._store.get(Key("", "Service", spec.namespace, spec.apex))
                await self._store.apply(objects.apex_service(spec, self._target(spec), current))
            case CreatePrimary(revision=revision):
                target = self._target(spec)
                await self._copy(spec, target, revision, tracked_configs(self._store, spec, target))
            case PromoteTemplate(revision=revision, tracked=tracked):
                target = self._target(spec)
                if tracked_configs(self._store, spec, target) != dict(tracked):
                    raise TargetChanged(f"a ConfigMap or Secret of {spec.full_target} changed while it was being promoted")
                await self._copy(spec, target, revision, dict(tracked))
            case SetWeights(canary=weight):
                await self._store.apply(objects.traffic_split(spec, weight))
            case ScaleToZero():
                await self._store.apply(objects.held_target(spec, 0))
            case ScaleUp():
                await self._scale_up(spec)

    async def give_back(self, obj: Object) -> None:
        """Its Canary is gone: the target's replicas, or the apex's selector, are its owner's again.  What we created goes by
        its ownerReferences."""
        metadata = {"name": obj["metadata"]["name"], "namespace": obj["metadata"].get("namespace") or "default"}
        await self._store.apply({"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": metadata})

    async def _copy(self, spec: CanarySpec, target: Object, revision: str, tracked: dict[str, str]) -> None:
        if objects.revision(target) != revision:
            raise TargetChanged(f"{spec.full_target} changed while it was being copied to the primary")
        for reference in tracked:
            kind, _, name = reference.partition("/")
            source = self._store.get(objects.config_key(kind, spec.namespace, name))
            if source is not None:
                await self._store.apply(objects.primary_config(spec, source))
        await self._store.apply(objects.primary_deployment(spec, target, tracked, self._wanted_replicas(spec, target)))

    def _wanted_replicas(self, spec: CanarySpec, target: Object) -> int:
        """The target's own number; while we hold it at zero, the primary's; else 1 (Kubernetes' default)."""
        own = target["spec"].get("replicas", 1)
        if own:
            return int(own)
        primary = self._store.get(deployment_key(spec, spec.primary))
        return int(primary["spec"].get("replicas") or 1) if primary else 1

    async def _scale_up(self, spec: CanarySpec) -> None:
        self._target(spec)
        if self._gives_back:
            updated = await self._store.apply(objects.held_target(spec, None))
            if (updated.get("spec") or {}).get("replicas", 0):
                return
        target = self._target(spec)
        await self._store.apply(
            objects.held_target(spec, self._wanted_replicas(spec, {"spec": {**target["spec"], "replicas": 0}}))
        )

    def _target(self, spec: CanarySpec) -> Object:
        target = target_object(self._store, spec)
        if target is None:
            raise TargetChanged(f"deployment {spec.full_target} is gone")
        return target

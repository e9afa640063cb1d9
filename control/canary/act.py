"""Decisions -> store writes, as manager "canary".

    Decision -> actions in order -> history -> events -> Canary.status        (the status last: see machine.py; notices are
                                                                               the courier's, after that)

Every action makes something true and may be repeated.  Fields written here and by nobody else: the target's spec.replicas
while we hold it (given back while it is being released), the apex Service's selector, everything of what we create.
"""

from __future__ import annotations

import asyncio

from control.canary import history
from control.canary.declared.spec import GROUP, KIND, CanarySpec
from control.canary.facts import FINALIZER, target_object, tracked_configs
from control.canary.machine.decision import (
    Action,
    CreatePrimary,
    Decision,
    EnsureApex,
    EnsureBaseline,
    EnsureScaler,
    EnsureServices,
    KeepPrimary,
    KeepUntilReverted,
    MarkPrimary,
    PromoteTemplate,
    Release,
    RemoveBaseline,
    RestoreConfigs,
    RestorePrimary,
    Revert,
    RevertServices,
    ScaleToZero,
    ScaleUp,
    SetRouting,
)
from control.canary.machine.routing import Routing
from control.canary.machine.status import Status
from control.canary.objects import baseline, declaration, foreign, manifests, promoted
from control.canary.routers import router_for
from control.store.store import Key, Object, Store, StoreError

EVENT_REASON = "Synced"  # Flagger's, for all its events


class TargetChanged(StoreError):
    """The target is no longer what was decided about; the next tick sees the new one."""


class Actor:
    """Carries decisions out on a store opened as manager "canary".

    `gives_back`: scaling up gives spec.replicas back to its owner, so that the number in the user's manifest counts again
    (the file store keeps it underneath).  False where giving back means losing it (server-side apply after a forced take
    over): then the primary's number is written.
    `settle_s`: between routing requests away from pods and ending these.  Proxies must have heard of it: they hear of both from
    us, and if we are killed in between, they would go on sending to pods that are gone until somebody tells them."""

    def __init__(self, store: Store, *, gives_back: bool = True, settle_s: float = 0.0) -> None:
        self._store = store
        self._gives_back = gives_back
        self._settle_s = settle_s

    async def carry_out(self, spec: CanarySpec, before: Status, decision: Decision) -> None:
        """All of a decision.  Raises StoreError at the first write that fails; the status is then not stored and the tick
        is repeated."""
        moved = False
        for action in decision.actions:
            if isinstance(action, ScaleToZero) and moved:
                await asyncio.sleep(self._settle_s)
            moved = moved or isinstance(action, SetRouting)
            await self.do(spec, action, decision.status)
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

    async def do(self, spec: CanarySpec, action: Action, status: Status) -> None:
        """One action; `status` is the one decided on.  Raises StoreError."""
        match action:
            case EnsureServices():
                target = self._target(spec)
                marks = declaration.of_services(spec, target)
                for service, mark in zip(manifests.services(spec, target, self._store.get), marks, strict=True):
                    await self._store.apply(declaration.marked(service, mark))
            case EnsureApex():
                current = self._store.get(Key("", "Service", spec.namespace, spec.apex))
                target = self._target(spec)
                apex = manifests.apex_service(spec, target, current)
                await self._store.apply(declaration.marked(apex, declaration.of_apex(spec, target)))
            case EnsureScaler():
                if (scaler := self._scaler(spec)) is not None:
                    await self._make(spec, manifests.primary_scaler(spec, scaler))
            case CreatePrimary(revision=revision, approved=approved):
                target = self._target(spec)
                await self._copy(spec, target, revision, tracked_configs(self._store, spec, target), approved=approved)
            case MarkPrimary(stamp=stamp):
                await self._store.apply(foreign.marked(spec, stamp))
            case KeepPrimary():
                if (primary := self._store.get(manifests.primary_key(spec))) is not None:
                    await self._keep(spec, primary)
            case RestorePrimary():
                if (kept := promoted.kept(self._store, spec)) is not None:
                    for wanted in promoted.restored(spec, kept, self._store.get):
                        await self._make(spec, wanted)
            case RestoreConfigs():
                if (kept := promoted.kept(self._store, spec)) is not None:
                    for wanted in promoted.spoilt(spec, kept, self._store.get):
                        await self._make(spec, wanted)
            case PromoteTemplate(revision=revision, tracked=tracked):
                target = self._target(spec)
                if tracked_configs(self._store, spec, target) != dict(tracked):
                    raise TargetChanged(f"a ConfigMap or Secret of {spec.full_target} changed while it was being promoted")
                await self._copy(spec, target, revision, dict(tracked))
            case SetRouting(routing=routing):
                await self._route(spec, routing, status)
            case ScaleToZero():
                await self._hold_scaler(spec, paused=True)
                await self._store.apply(manifests.held_target(spec, 0))
            case ScaleUp():
                await self._scale_up(spec)
            case EnsureBaseline():
                await self._ensure_baseline(spec)
            case RemoveBaseline():
                await self._remove_baseline(spec)
            case KeepUntilReverted():
                await self._store.apply(manifests.held_canary(spec, FINALIZER))
            case Release():
                await self._store.apply(manifests.held_canary(spec))
            case Revert():
                await self._scale_up(spec, least=self._primary_replicas(spec))
            case RevertServices():
                await self._revert_apex(spec)

    async def _route(self, spec: CanarySpec, routing: Routing, status: Status) -> None:
        """What another router of ours left goes last: until then it goes on saying what it said."""
        router, mark = router_for(spec), declaration.of_routing(spec)
        for wanted in router.wanted(spec, routing, status):
            held = manifests.taken_over(spec, wanted, self._store.get(Key.of(wanted)))
            await self._store.apply(declaration.marked(held, mark))
        for key in router.left(self._store, spec):
            await self._store.delete(key)

    async def _ensure_baseline(self, spec: CanarySpec) -> None:
        """Nothing is done where somebody else has its name: `seen` tells."""
        primary = self._store.get(manifests.primary_key(spec))
        made = baseline.manifests(spec, primary, self._target(spec)) if primary is not None else []
        found = [self._store.get(key) for key in baseline.keys(spec)]
        if all(manifests.is_ours(spec, one) for one in found if one is not None):
            for wanted in made:
                await self._store.apply(wanted)

    async def _remove_baseline(self, spec: CanarySpec) -> None:
        for key in baseline.keys(spec):
            found = self._store.get(key)
            if found is not None and manifests.is_ours(spec, found):
                await self._store.delete(key)

    async def _revert_apex(self, spec: CanarySpec) -> None:
        """The apex selects the target again: with its owner's selector where it has an owner, else with the target's (one that
        is ours then goes with the Canary, as in Flagger)."""
        current = self._store.get(Key("", "Service", spec.namespace, spec.apex))
        if current is not None and not manifests.is_ours(spec, current) and self._gives_back:
            await self.give_back(current)
        elif current is not None:
            await self._store.apply(manifests.apex_service(spec, self._target(spec), current, selects_target=True))
        # Now, and not when the Canary's objects are swept: a backend may go before the split that names it.
        for key in router_for(spec).keys(spec):
            found = self._store.get(key)
            if found is not None and manifests.is_ours(spec, found):
                await self._store.delete(key)
            elif found is not None and manifests.held_for(found) == spec.name:
                await self.give_back(found)

    async def give_back(self, obj: Object) -> None:
        """Its Canary is gone: the target's replicas, or the apex's selector, are its owner's again.  What we created goes by
        its ownerReferences."""
        await self._store.apply(manifests.left_behind(obj, gives_back=self._gives_back))

    async def _copy(
        self, spec: CanarySpec, target: Object, revision: str, tracked: dict[str, str], *, approved: bool = True
    ) -> None:
        """Kept last: what is kept is what the primary was made to be, with the configs it was made with."""
        if manifests.revision(target) != revision:
            raise TargetChanged(f"{spec.full_target} changed while it was being copied to the primary")
        for reference in tracked:
            kind, _, name = reference.partition("/")
            source = self._store.get(manifests.config_key(kind, spec.namespace, name))
            if source is not None:
                await self._make(spec, manifests.primary_config(spec, source))
        count: int | None = self._wanted_replicas(spec, target)
        if self._scaler(spec) is not None and self._store.get(manifests.primary_key(spec)) is not None:
            count = None  # its scaler's
        wanted = manifests.primary_workload(spec, target, tracked, count)
        if not approved:
            wanted["metadata"]["annotations"][promoted.ANNOTATION_UNAPPROVED] = "true"
        made = await self._make(spec, wanted)
        if approved:
            await self._keep(spec, {**wanted, "spec": {**wanted["spec"], **_count_of(made)}})

    async def _make(self, spec: CanarySpec, wanted: Object) -> Object:
        """An object that is to be the Canary's.  Raises StoreError where somebody else's has its name: the facts said so
        before, unless it has come since."""
        key = Key.of(wanted)
        if text := foreign.foreign(spec, [key], self._store.get):
            raise StoreError(text)
        return await self._store.apply(foreign.beside_others(spec, wanted, self._store.get(key)))

    async def _keep(self, spec: CanarySpec, primary: Object) -> None:
        made = promoted.keeping(spec, primary, self._store.get, promoted.kept(self._store, spec))
        for wanted in made:
            await self._store.apply(wanted)
        for key in promoted.superseded(self._store, spec, made):
            await self._store.delete(key)

    def _scaler(self, spec: CanarySpec) -> Object | None:
        key = manifests.scaler_key(spec)
        return self._store.get(key) if key is not None else None

    async def _hold_scaler(self, spec: CanarySpec, *, paused: bool) -> None:
        wanted = manifests.held_scaler(spec, paused=paused)
        if wanted is not None and self._scaler(spec) is not None:
            await self._store.apply(wanted)

    def _wanted_replicas(self, spec: CanarySpec, target: Object) -> int:
        """The target's own number; while we hold it at zero, the primary's.  Where an autoscaler adds what is needed, the least
        that it keeps (as Flagger: the primary's number is what all requests need, and a canary has few)."""
        own = target["spec"].get("replicas", 1)
        if own:
            return int(own)
        return (manifests.scaler_minimum(self._scaler(spec)) or 1) if spec.autoscaler else self._primary_replicas(spec)

    def _primary_replicas(self, spec: CanarySpec) -> int:
        primary = self._store.get(manifests.primary_key(spec))
        return (manifests.replicas(primary) if primary else manifests.scaler_minimum(self._scaler(spec))) or 1

    async def _scale_up(self, spec: CanarySpec, least: int = 1) -> None:
        """To the owner's number; where the owner has none, or fewer than `least`, to what a release begins with, `least` at
        least."""
        self._target(spec)
        await self._hold_scaler(spec, paused=False)
        if spec.target_kind == "DaemonSet":
            await self._store.apply(manifests.held_target(spec, None))
            return
        if self._gives_back:
            updated = await self._store.apply(manifests.held_target(spec, None))
            if (updated.get("spec") or {}).get("replicas", 0) >= least:
                return
        await self._store.apply(manifests.held_target(spec, max(least, self._wanted_replicas(spec, {"spec": {"replicas": 0}}))))

    def _target(self, spec: CanarySpec) -> Object:
        target = target_object(self._store, spec)
        if target is None:
            raise TargetChanged(f"{spec.target_kind.lower()} {spec.full_target} is gone")
        return target


def _count_of(workload: Object) -> Object:
    """spec.replicas as it is, whoever says it."""
    count = (workload.get("spec") or {}).get("replicas")
    return {} if count is None else {"replicas": count}

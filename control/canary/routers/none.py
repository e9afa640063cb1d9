"""Provider kubernetes: no object shares requests out.  The apex Service selects the primary, and that is all there is."""

from __future__ import annotations

from control.canary.declared.spec import CanarySpec
from control.canary.machine.routing import Routing
from control.canary.machine.status import Status
from control.canary.routers.gateway import GatewayRouter
from control.canary.routers.router import Router
from control.canary.routers.split import SplitRouter
from control.store.store import Key, Object, Store


class NoRouter(Router):
    def wanted(self, spec: CanarySpec, routing: Routing, status: Status) -> list[Object]:
        return []

    def observed(self, store: Store, spec: CanarySpec, status: Status) -> Routing | None:
        return None if self.left(store, spec) else Routing(0)

    def keys(self, spec: CanarySpec) -> list[Key]:
        return []

    def stale(self, spec: CanarySpec) -> list[Key]:
        split = Key("split.smi-spec.io", "TrafficSplit", spec.namespace, spec.apex)
        return [*SplitRouter().stale(spec), *GatewayRouter().stale(spec), split]

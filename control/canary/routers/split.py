"""The SMI router: shares in TrafficSplits.

    TrafficSplit <apex>             all requests      <apex>-canary: w, <apex>-primary: rest     (Flagger's order and names)
                                                      with a baseline: <apex>-canary: w, <apex>-baseline: w, <apex>-primary

    with analysis.match (A/B):
    TrafficSplit <apex>             all requests      <apex>-canary: 0, <apex>-primary: 100
    TrafficSplit <apex>-trial       those that match  <apex>-canary: w, <apex>-primary: rest     matches: [<apex>-trial]
    HTTPRouteGroup <apex>-trial     analysis.match

Flagger writes no `matches`, so that with it A/B on SMI sends everybody to the canary.  What a split cannot say at all - copies,
cookies, timeouts, headers - is the gateway router's (`ServiceSpec.needs_route`).
"""

from __future__ import annotations

from typing import Any

from control.canary.declared.request import group_match
from control.canary.declared.spec import CanarySpec
from control.canary.machine.routing import TO_PRIMARY, Routing
from control.canary.machine.status import Status
from control.canary.objects import manifests
from control.canary.routers.effect import told_of
from control.canary.routers.router import Router
from control.resources import gateway, routegroup, split
from control.resources.annotations import EMPTY_BACKEND, PATH_MATCH, STICKY
from control.store.store import Key, Object, Store

API_VERSION = "split.smi-spec.io/v1alpha2"
MATCHING_API_VERSION = "split.smi-spec.io/v1alpha4"  # the first that has `matches`
GROUP_API_VERSION = "specs.smi-spec.io/v1alpha4"


def root(spec: CanarySpec) -> str:
    """The Service whose requests are split: Flagger's service.hosts[0] where it names one of this namespace, else the apex."""
    first = spec.routes.hosts[0] if spec.routes.hosts else ""
    return (split.service_name(first, spec.namespace) or spec.apex) if first else spec.apex


def trial_name(spec: CanarySpec) -> str:
    return f"{spec.apex}-trial"


class SplitRouter(Router):
    def wanted(self, spec: CanarySpec, routing: Routing, status: Status) -> list[Object]:
        if not spec.routes.trial:
            return [self._split(spec, spec.apex, routing)]
        group: Object = {
            "apiVersion": GROUP_API_VERSION,
            "kind": "HTTPRouteGroup",
            "metadata": {**self._metadata(spec, trial_name(spec)), "annotations": {PATH_MATCH: "full"}},
            "spec": {"matches": [group_match(one, f"match-{i}") for i, one in enumerate(spec.routes.trial)]},
        }
        # The group first, then who refers to it.  The rest last: where everyone goes to the canary, trials are there already.
        rest = Routing(100) if routing.everyone else Routing(0)
        return [group, self._split(spec, trial_name(spec), routing, trial=True), self._split(spec, spec.apex, rest)]

    def observed(self, store: Store, spec: CanarySpec, status: Status) -> Routing | None:
        if self.left(store, spec):
            return None
        trial = bool(spec.routes.trial)
        seen = self._weights(store, spec, trial_name(spec) if trial else spec.apex)
        if seen is None:
            return None
        if trial:
            rest = self._weights(store, spec, spec.apex)
            if rest is None or rest.canary not in (0, 100):
                return None
            seen = Routing(seen.canary, everyone=rest.canary == 100)
        same = all(self._same(spec, store.get(Key.of(wanted)), wanted) for wanted in self.wanted(spec, seen, status))
        return seen if same else None

    def keys(self, spec: CanarySpec) -> list[Key]:
        return [Key.of(obj) for obj in reversed(self.wanted(spec, TO_PRIMARY, Status()))]

    def stale(self, spec: CanarySpec) -> list[Key]:
        found = [Key(gateway.GROUP, "HTTPRoute", spec.namespace, spec.apex)]
        if not spec.routes.trial:
            found.append(Key(split.GROUP, "TrafficSplit", spec.namespace, trial_name(spec)))
            found.append(Key(routegroup.GROUP, "HTTPRouteGroup", spec.namespace, trial_name(spec)))
        return found

    def problem(self, store: Store, spec: CanarySpec) -> str:
        names = [spec.apex, *([trial_name(spec)] if spec.routes.trial else [])]
        return told_of(store, spec.namespace, [Key(split.GROUP, "TrafficSplit", spec.namespace, name) for name in names])

    # -- objects

    def _split(self, spec: CanarySpec, name: str, routing: Routing, trial: bool = False) -> Object:
        canary, primary, baseline = routing.weights
        beside = [{"service": spec.baseline_service, "weight": baseline}] if baseline else []
        body: dict[str, Any] = {
            "service": root(spec),
            "backends": [
                {"service": spec.canary_service, "weight": canary},
                *beside,
                {"service": spec.primary_service, "weight": primary},
            ],
        }
        if trial:
            body["matches"] = [{"apiGroup": routegroup.GROUP, "kind": "HTTPRouteGroup", "name": trial_name(spec)}]
        metadata = self._metadata(spec, name)
        given = (spec.service_metadata.get("apex") or {}).get("annotations") or {}
        if sharing := {word: given[word] for word in (EMPTY_BACKEND, STICKY) if word in given}:
            metadata["annotations"] = sharing
        version = MATCHING_API_VERSION if trial else API_VERSION
        return {"apiVersion": version, "kind": "TrafficSplit", "metadata": metadata, "spec": body}

    @staticmethod
    def _metadata(spec: CanarySpec, name: str) -> Object:
        return {"name": name, "namespace": spec.namespace, "ownerReferences": manifests.owner(spec)}

    # -- reading

    @staticmethod
    def _weights(store: Store, spec: CanarySpec, name: str) -> Routing | None:
        obj = store.get(Key(split.GROUP, "TrafficSplit", spec.namespace, name))
        try:
            backends = {one.service: one.weight_milli for one in split.parse(obj).backends} if obj is not None else {}
        except ValueError:  # not of our making, or damaged by hand
            return None
        if backends.keys() - {spec.baseline_service} != {spec.canary_service, spec.primary_service}:
            return None
        weights = [backends.get(name, 0) for name in (spec.canary_service, spec.primary_service, spec.baseline_service)]
        return Routing.of_weights(*(one // 1000 for one in weights)) if not any(one % 1000 for one in weights) else None

    @staticmethod
    def _same(spec: CanarySpec, current: Object | None, wanted: Object) -> bool:
        """By meaning, so that what an API server defaults or another version spells otherwise is no difference."""
        wanted = manifests.taken_over(spec, wanted, current)
        if current is None or not manifests.contains(current["metadata"], wanted["metadata"]):
            return False
        try:
            if wanted["kind"] == "HTTPRouteGroup":
                return routegroup.parse_group(current) == routegroup.parse_group(wanted)
            now, then = split.parse(current), split.parse(wanted)
        except ValueError:
            return False
        return (now.service, now.backends, now.matches) == (then.service, then.backends, then.matches)

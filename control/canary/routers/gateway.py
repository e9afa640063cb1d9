"""The Gateway API router: shares in one HTTPRoute named as the apex, attached to the apex Service (flagger.md 8).

    plain        [match]                       -> primary: rest, canary: w      (with a baseline: w to it as well)
    A/B          [match and trial]             -> primary: rest, canary: w
                 [match]                       -> primary: 100
    affinity     [match, canary's cookie]      -> canary: 100   (weight 0: the last run's -> as below, and is forgotten)
                 [match, primary's cookie]     -> primary: 100     (not after a promotion that failed: it is broken)
                 [match]                       -> primary: rest (sets its cookie), canary: w (sets its cookie)

On every rule: headers, rewrite, copies (RequestMirror), timeouts, retries.  All defaults are written out, as Flagger does, so
that neither controller sees a difference where there is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from control.canary.declared.request import EVERYTHING, REGEX, Match, Text, literal, route_match
from control.canary.declared.spec import CanarySpec
from control.canary.declared.treatment import HeaderChanges
from control.canary.machine.routing import Routing
from control.canary.machine.status import Status
from control.canary.objects import manifests
from control.canary.routers.affinity import cookies, set_cookie
from control.canary.routers.effect import told_of
from control.canary.routers.router import Router
from control.canary.routers.split import trial_name
from control.resources import gateway, routegroup, split
from control.store.store import Key, Object, Store

API_VERSION = "gateway.networking.k8s.io/v1"
_FLUX = "toolkit.fluxcd.io"  # Flagger never copies these: Flux would take the copy for its own


class GatewayRouter(Router):
    def wanted(self, spec: CanarySpec, routing: Routing, status: Status) -> list[Object]:
        extra = (spec.service_metadata.get("apex") or {}) if spec.routes.kind == "gateway" else {}
        metadata: Object = {"name": spec.apex, "namespace": spec.namespace, "ownerReferences": manifests.owner(spec)}
        for field in ("labels", "annotations"):
            if kept := {name: value for name, value in (extra.get(field) or {}).items() if _FLUX not in name}:
                metadata[field] = kept
        body: Object = {"parentRefs": self._parents(spec), "rules": self._rules(spec, routing, status)}
        if spec.routes.hosts:
            body["hostnames"] = list(spec.routes.hosts)
        return [{"apiVersion": API_VERSION, "kind": "HTTPRoute", "metadata": metadata, "spec": body}]

    def observed(self, store: Store, spec: CanarySpec, status: Status) -> Routing | None:
        if self.left(store, spec):
            return None
        current = store.get(self._key(spec))
        seen = self._read(spec, current) if current is not None else None
        if current is None or seen is None:
            return None
        wanted = manifests.taken_over(spec, self.wanted(spec, seen, status)[0], current)
        return seen if _same(current, wanted) else None

    def keys(self, spec: CanarySpec) -> list[Key]:
        return [self._key(spec)]

    def stale(self, spec: CanarySpec) -> list[Key]:
        return [
            Key(split.GROUP, "TrafficSplit", spec.namespace, spec.apex),
            Key(split.GROUP, "TrafficSplit", spec.namespace, trial_name(spec)),
            Key(routegroup.GROUP, "HTTPRouteGroup", spec.namespace, trial_name(spec)),
        ]

    def problem(self, store: Store, spec: CanarySpec) -> str:
        """As Flagger: a parent that has not accepted what is written now.  And what this mesh itself would say."""
        route = store.get(self._key(spec))
        if route is None:
            return ""
        generation = int(route["metadata"].get("generation") or 0)
        parents = (route.get("spec") or {}).get("parentRefs") or ()
        for entry in (route.get("status") or {}).get("parents") or ():
            if entry.get("parentRef") not in parents:
                continue
            for condition in entry.get("conditions") or ():
                seen = int(condition.get("observedGeneration") or 0)
                if condition.get("type") == "Accepted" and (condition.get("status") != "True" or seen < generation):
                    return (
                        f"HTTPRoute {spec.apex}.{spec.namespace} parent {entry['parentRef'].get('name')} is not ready "
                        f"(status: {condition.get('status')}, {condition.get('message') or condition.get('reason')}, "
                        f"observed generation: {seen}, current generation: {generation})"
                    )
        return told_of(store, spec.namespace, [self._key(spec)])

    @staticmethod
    def _key(spec: CanarySpec) -> Key:
        return Key(gateway.GROUP, "HTTPRoute", spec.namespace, spec.apex)

    # -- parents and rules

    @staticmethod
    def _parents(spec: CanarySpec) -> list[Object]:
        """gatewayRefs as written.  The mesh reads those that are Services; where none is, callers in the mesh would always get
        the primary, so the apex Service is added."""
        parents = [dict(ref) for ref in spec.routes.parents] if spec.routes.kind == "gateway" else []
        services = (ref for ref in parents if ref.get("kind") == "Service" and ref.get("group") in gateway.SERVICE_GROUPS)
        if not any(services):
            parents.append({"group": "", "kind": "Service", "name": spec.apex, "port": spec.port})
        return parents

    def _rules(self, spec: CanarySpec, routing: Routing, status: Status) -> list[Object]:
        service = spec.routes
        matches = service.matches or (EVERYTHING,)
        canary, primary, baseline = routing.weights
        shares = [_backend(spec, spec.primary_service, primary), _backend(spec, spec.canary_service, canary)]
        if baseline:
            shares.append(_backend(spec, spec.baseline_service, baseline))
        copies = _copies(spec, routing)
        if service.trial:
            trial = [one.narrowed(by) for by in service.trial for one in matches]
            last = spec.canary_service if routing.everyone else spec.primary_service
            return [
                *_rule(spec, trial, shares, copies),
                *_rule(spec, matches, [_backend(spec, last, 100)], []),
            ]
        affinity = service.affinity
        if affinity is None:
            return _rule(spec, matches, shares, copies)
        held = cookies(spec, status, routing)
        if not routing.parts:
            if not held.previous:
                return _rule(spec, matches, shares, copies)
            forget = _response_cookie(set_cookie(affinity, held.previous, -1))
            return [
                *_rule(spec, _with_cookie(matches, held.previous), shares, [*copies, forget]),
                *_rule(spec, matches, shares, copies),
            ]
        none = [_backend(spec, spec.primary_service, 0), _backend(spec, spec.canary_service, 100)]
        rules = _rule(spec, _with_cookie(matches, held.canary), none, [])
        shares[1]["filters"] = [_response_cookie(set_cookie(affinity, held.canary, affinity.max_age_s))]
        if held.primary and not status.left_to_canary:
            all_ = [_backend(spec, spec.primary_service, 100), _backend(spec, spec.canary_service, 0)]
            rules += _rule(spec, _with_cookie(matches, held.primary), all_, copies)
            shares[0]["filters"] = [_response_cookie(set_cookie(affinity, held.primary, affinity.primary_max_age_s))]
        return rules + _rule(spec, matches, shares, copies)

    # -- reading

    def _read(self, spec: CanarySpec, route: Object) -> Routing | None:
        """The last rule with both backends has the weights; a single backend that is the canary: everyone's."""
        try:
            rules = gateway.parse_http_route(route).spec.rules
        except ValueError:  # not of our making, or damaged by hand
            return None
        pair = {spec.primary_service, spec.canary_service}
        both = [rule for rule in rules if {ref.name for ref in rule.backend_refs} - {spec.baseline_service} == pair]
        if not both:
            return None
        weights = {ref.name: ref.weight for ref in both[-1].backend_refs}
        mirrored = any(
            one.request_mirror is not None and one.request_mirror.backend_ref.name == spec.canary_service
            for one in both[-1].filters
        )
        everyone = any([ref.name for ref in rule.backend_refs] == [spec.canary_service] for rule in rules)
        return Routing.of_weights(
            weights[spec.canary_service],
            weights[spec.primary_service],
            weights.get(spec.baseline_service, 0),
            mirrored=mirrored,
            everyone=everyone,
        )


def _same(current: Object, wanted: Object) -> bool:
    """By meaning, so that what an API server defaults is no difference."""
    if not manifests.contains(current["metadata"], wanted["metadata"]):
        return False
    if list((current.get("spec") or {}).get("hostnames") or ()) != list(wanted["spec"].get("hostnames") or ()):
        return False
    return gateway.parse_http_route(current).spec == gateway.parse_http_route(wanted).spec


# ---------------------------------------------------------------- parts of rules


def _backend(spec: CanarySpec, service: str, weight: int) -> Object:
    return {"group": "", "kind": "Service", "name": service, "port": spec.port, "weight": weight}


def _rule(spec: CanarySpec, matches: Sequence[Match], backends: list[Object], more: Iterable[Object]) -> list[Object]:
    """One rule, or as many as what is rewritten wants (`Rewrite.groups`)."""
    service, more = spec.routes, list(more)
    made: Object = {"backendRefs": backends}
    timeouts = {"request": service.timeout, "backendRequest": service.backend_timeout}
    if given := {name: value for name, value in timeouts.items() if value}:
        made["timeouts"] = given
    if service.retries is not None and service.retries.attempts:  # Istio says none by 0, an HTTPRoute by silence
        made["retry"] = {"attempts": service.retries.attempts, "codes": list(service.retries.codes)}
    groups = service.rewrite.groups(matches) if service.rewrite is not None else [("", list(matches))]
    rules: list[Object] = []
    for kind, group in groups:
        filters = _joined([*_filters(spec, kind), *more])
        rules.append({"matches": [route_match(match) for match in group], **made, **({"filters": filters} if filters else {})})
    return rules


def _joined(filters: list[Object]) -> list[Object]:
    """Of one type only RequestMirror may be there twice: cookies join what service.headers.response does."""
    made: list[Object] = []
    for one in filters:
        same = next((other for other in made if other["type"] == one["type"] == "ResponseHeaderModifier"), None)
        if same is None:
            made.append(one)
            continue
        old, new = same["responseHeaderModifier"], one["responseHeaderModifier"]
        same["responseHeaderModifier"] = {**old, "add": [*old.get("add", ()), *new["add"]]}
    return made


def _filters(spec: CanarySpec, replaced: str) -> list[Object]:
    """`replaced`: what the rewrite replaces of a path, "" for nothing."""
    service = spec.routes
    found: list[Object] = []
    if service.request_headers:
        found.append({"type": "RequestHeaderModifier", "requestHeaderModifier": _changes(service.request_headers)})
    if service.response_headers:
        found.append({"type": "ResponseHeaderModifier", "responseHeaderModifier": _changes(service.response_headers)})
    if (rewrite := service.rewrite) is not None:
        body: dict[str, Any] = {}
        if rewrite.host:
            body["hostname"] = rewrite.host
        if replaced:
            body["path"] = {"type": replaced, replaced[0].lower() + replaced[1:]: rewrite.uri}
        if body:
            found.append({"type": "URLRewrite", "urlRewrite": body})
    found += [{"type": "RequestMirror", "requestMirror": {"backendRef": dict(ref)}} for ref in service.mirrors]
    return found


def _changes(changes: HeaderChanges) -> Object:
    made: Object = {}
    for verb, found in (("add", changes.add), ("set", changes.set)):
        if found:
            made[verb] = [{"name": name, "value": value} for name, value in found]
    if changes.remove:
        made["remove"] = list(changes.remove)
    return made


def _copies(spec: CanarySpec, routing: Routing) -> list[Object]:
    if not routing.mirrored:
        return []
    mirror: Object = {"backendRef": {"group": "", "kind": "Service", "name": spec.canary_service, "port": spec.port}}
    if spec.routes.mirror_percent != 100:
        mirror["percent"] = spec.routes.mirror_percent
    return [{"type": "RequestMirror", "requestMirror": mirror}]


def _response_cookie(value: str) -> Object:
    return {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"add": [{"name": "Set-Cookie", "value": value}]}}


def _with_cookie(matches: Sequence[Match], cookie: str) -> list[Match]:
    """Requests that bring it, among any others: Flagger's expression."""
    name, _, value = cookie.partition("=")
    pattern = Text(REGEX, f".*{literal(name)}.*{literal(value)}.*")
    return [match.narrowed(Match(headers=(("cookie", pattern),))) for match in matches]

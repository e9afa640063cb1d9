"""What a Canary asks of the requests to its Service: spec.service and the parts of spec.analysis that are about routing, typed.

    spec.provider                                   -> kind       split | gateway | none: which objects carry the weights
    service.match, analysis.match                   -> matches    whose requests; of them those that may see the canary (A/B)
    service.headers, rewrite, timeout, retries ...  -> what is done to each request
    analysis.mirror, sessionAffinity                -> the canary's copies, and its cookies
    what this mesh cannot do                        -> refused (the Canary is not run), ignored (it runs without)

Names, defaults and meanings: flagger.app/v1beta1.  `routers` makes objects of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from control.canary.declared.fields import SpecError, duration, flag, integer, items, mapping, text
from control.canary.declared.request import EVERYTHING, MAX_MATCHES, PREFIX, Match, parse_matches
from control.canary.declared.treatment import (
    NO_CHANGES,
    PART,
    WHOLE,
    HeaderChanges,
    Retries,
    Rewrite,
    SessionAffinity,
    Told,
    parse_affinity,
    parse_headers,
    parse_mirrors,
    parse_retries,
    parse_rewrite,
    parse_timeout,
)
from control.resources.gateway_check import MAX_RULES
from control.store.store import Object

SPLIT, GATEWAY, NONE = "split", "gateway", "none"
# Linkerd and OSM are driven by TrafficSplits in Flagger too, "smi:v1alpha<n>[:mesh]" by name.  Which version it names does
# not matter: the store knows one object in many.
_KINDS = {
    "": SPLIT,
    "linkerd": SPLIT,
    "osm": SPLIT,
    "kubernetes": NONE,
    "gatewayapi:v1": GATEWAY,
    "gatewayapi:v1beta1": GATEWAY,
}
PROVIDERS = "linkerd, osm, smi:v1alpha1 to smi:v1alpha4, gatewayapi:v1, gatewayapi:v1beta1 or kubernetes"

# Fields of other meshes and ingresses: taken as they are, and told.
_FOREIGN = {
    "gateways": "Istio's gateways are not this mesh's",
    "delegation": "there is no VirtualService to delegate to",
    "trafficPolicy": "balancing and breaking are annotations of the Service, see docs/balancing.md",
    "meshName": "App Mesh's",
    "backends": "App Mesh's",
}


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """`timeout`, `backend_timeout`: as written, "" for none.  `mirror_percent`: of the requests, while the machine mirrors."""

    kind: str = SPLIT
    hosts: tuple[str, ...] = ()
    parents: tuple[Object, ...] = ()  # gatewayRefs, as written
    matches: tuple[Match, ...] = ()  # service.match: whose requests are answered at all; none: all
    trial: tuple[Match, ...] = ()  # analysis.match: of them, those that may see the canary; none: all
    request_headers: HeaderChanges = NO_CHANGES
    response_headers: HeaderChanges = NO_CHANGES
    rewrite: Rewrite | None = None
    timeout: str = ""
    backend_timeout: str = ""
    retries: Retries | None = None
    mirrors: tuple[Object, ...] = ()  # service.mirror: backendRefs that always get a copy
    mirror: bool = False  # analysis.mirror
    mirror_percent: int = 100
    affinity: SessionAffinity | None = None
    headless: bool = False
    traffic_distribution: str = ""
    unmanaged: frozenset[tuple[str, str]] = frozenset()  # ("labels" | "annotations", name) that we do not set on Services
    refused: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    @property
    def needs_route(self) -> bool:
        """Is more asked than a TrafficSplit can say?  Then an HTTPRoute carries the weights, whatever the provider's name."""
        return bool(
            self.matches
            or self.request_headers
            or self.response_headers
            or self.rewrite
            or self.timeout
            or self.backend_timeout
            or self.retries
            or self.mirrors
            or self.mirror
            or self.affinity
            or any(match.query for match in self.trial)
        )


def parse_service(spec: Mapping[str, Any]) -> ServiceSpec:
    """From a Canary's spec.  Raises SpecError on the first value that cannot be meant."""
    service = mapping(spec.get("service"), "spec.service")
    analysis = mapping(spec.get("analysis") or spec.get("canaryAnalysis"), "spec.analysis")
    told = Told()
    kind = _kind(spec, told)
    port = integer(service.get("port"), "spec.service.port", None, 1, 65535)
    trial = parse_matches(analysis.get("match"), "spec.analysis.match", port, told.refused, told.ignored)
    mirror = flag(analysis.get("mirror"), "spec.analysis.mirror")
    affinity = parse_affinity(analysis, told)
    headless = flag(service.get("headless"), "spec.service.headless")
    if affinity and trial:
        told.ignored.append("spec.analysis.sessionAffinity: with match, whoever matches sees the canary each time")
        affinity = None
    if kind == NONE and (trial or mirror or affinity):
        told.ignored.append("spec.analysis.match, mirror and sessionAffinity: provider kubernetes routes no requests")
        trial, mirror, affinity = (), False, None
    for name, why in _FOREIGN.items():
        if service.get(name):
            told.ignored.append(f"spec.service.{name}: {why}")
    if service.get("corsPolicy"):
        told.refused.append("spec.service.corsPolicy is not supported: let the application answer preflight requests")
    headers = mapping(service.get("headers"), "spec.service.headers")
    timeout, backend_timeout = parse_timeout(service, "timeout"), parse_timeout(service, "backendTimeout")
    retries, each = parse_retries(service, told)
    made = ServiceSpec(
        kind=kind,
        hosts=tuple(
            text(host, f"spec.service.hosts[{i}]") for i, host in enumerate(items(service.get("hosts"), "spec.service.hosts"))
        ),
        parents=tuple(_parents(service)),
        matches=parse_matches(service.get("match"), "spec.service.match", port, told.refused, told.ignored),
        trial=trial,
        request_headers=parse_headers(headers, "request", told),
        response_headers=parse_headers(headers, "response", told),
        rewrite=_rewrite(service, analysis, kind, told),
        timeout=timeout,
        backend_timeout=backend_timeout or each,
        retries=retries,
        mirrors=tuple(parse_mirrors(service)),
        mirror=mirror,
        mirror_percent=integer(analysis.get("mirrorWeight"), "spec.analysis.mirrorWeight", 0, 0, 100) or 100,
        affinity=affinity,
        headless=headless,
        traffic_distribution=str(service.get("trafficDistribution") or ""),
        unmanaged=frozenset(_unmanaged(service)),
        refused=tuple(told.refused),
        ignored=tuple(told.ignored),
    )
    _check(made)
    return _headless(made)


def _headless(made: ServiceSpec) -> ServiceSpec:
    """Who resolves a headless Service gets pods, and asks them: only who asks for it by name is shared out, by splits."""
    if not made.headless or made.kind == NONE:
        return made
    if made.kind == GATEWAY or made.needs_route:
        why = "no HTTPRoute can be attached to such a Service; leave it out, or use provider smi:v1alpha2"
        return replace(made, refused=(*made.refused, f"spec.service.headless: {why}"))
    why = "requests to a pod's own address are not shared out"
    return replace(made, ignored=(*made.ignored, f"spec.service.headless: {why}"))


def _kind(spec: Mapping[str, Any], told: Told) -> str:
    provider = str(spec.get("provider") or "")
    kind = SPLIT if provider.startswith("smi:") else _KINDS.get(provider)
    if kind is None:
        told.refused.append(f"spec.provider {provider} is not supported; leave it out, or use {PROVIDERS}")
    return kind or SPLIT


def _rewrite(service: Mapping[str, Any], analysis: Mapping[str, Any], kind: str, told: Told) -> Rewrite | None:
    """Flagger's Gateway API router replaces whole paths; Istio, for which these fields were made, what the match fitted."""
    found = parse_rewrite(service, WHOLE if kind == GATEWAY else "")
    if found is None or found.type or not found.uri:
        return found
    for one in [*(service.get("match") or ()), *(analysis.get("match") or ())]:
        if one.get("ignoreUriCase") and (one.get("uri") or {}).get("prefix") not in (None, "", "/"):
            told.refused.append(
                "spec.service.rewrite: a prefix that is matched in any case (ignoreUriCase) cannot be replaced; "
                "leave ignoreUriCase out, or say type: ReplaceFullPath"
            )
            break
    return found


def _check(made: ServiceSpec) -> None:
    whole = duration(made.timeout, "spec.service.timeout", 0.0)
    each = duration(made.backend_timeout, "spec.service.backendTimeout", 0.0)
    if whole and each > whole:
        raise SpecError(
            f"spec.service.timeout: {made.timeout} is shorter than what one attempt may take ({made.backend_timeout}); "
            "give it at least as long"
        )
    matches, trials = max(1, len(made.matches)), len(made.trial)
    narrowed = matches * trials if made.needs_route or made.kind == GATEWAY else trials
    if max(matches, narrowed) > MAX_MATCHES:
        raise SpecError(
            f"spec.service.match and spec.analysis.match: together {narrowed} kinds of requests, expected at most {MAX_MATCHES}"
        )
    if (rewrite := made.rewrite) is None:
        return
    if rewrite.type == PART and any(m.path is not None and m.path.how != PREFIX for m in (*made.matches, *made.trial)):
        raise SpecError("spec.service.rewrite.type: ReplacePrefixMatch wants a uri.prefix wherever a match has a uri")
    common = made.matches or (EVERYTHING,)
    rules = len(rewrite.groups([one.narrowed(by) for by in made.trial for one in common]))
    if rules + len(rewrite.groups(common)) * (3 if made.affinity else 1) > MAX_RULES:
        raise SpecError(f"spec.service.rewrite: a prefix can be replaced by a rule for each match, at most {MAX_RULES} in all")


def _unmanaged(service: Mapping[str, Any]) -> list[tuple[str, str]]:
    where = "spec.service.unmanagedMetadata"
    given = mapping(service.get("unmanagedMetadata"), where)
    return [(field, str(name)) for field in ("labels", "annotations") for name in items(given.get(field), f"{where}.{field}")]


def _parents(service: Mapping[str, Any]) -> list[Object]:
    found: list[Object] = []
    for index, ref in enumerate(items(service.get("gatewayRefs"), "spec.service.gatewayRefs")):
        where = f"spec.service.gatewayRefs[{index}]"
        text(mapping(ref, where).get("name"), f"{where}.name")
        found.append({name: value for name, value in ref.items() if value is not None})
    return found

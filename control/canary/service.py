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
from dataclasses import dataclass, field, replace
from typing import Any

from control.canary.fields import SpecError, duration, flag, integer, items, mapping, pairs, text
from control.canary.request import MAX_MATCHES, PREFIX, Match, parse_matches
from control.resources.gateway_check import MAX_RULES, PROTECTED
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

DAY_S = 86_400
MAX_ATTEMPTS = 10  # retries of one request, as everywhere in the mesh

# retryOn, Envoy's words: what follows without being declared, and what becomes of the others.
_ALWAYS_RETRIED = ("connect-failure", "refused-stream", "reset", "reset-before-request")
_RETRY_CODES = {"5xx": tuple(range(500, 512)), "gateway-error": (502, 503, 504), "retriable-4xx": (409,)}
_DEFAULT_RETRY_ON = "503"  # of Istio's default only this is about answers; the rest always holds or is gRPC's

# Fields of other meshes and ingresses: taken as they are, and told.
_FOREIGN = {
    "gateways": "Istio's gateways are not this mesh's",
    "delegation": "there is no VirtualService to delegate to",
    "trafficPolicy": "balancing and breaking are annotations of the Service, see docs/balancing.md",
    "meshName": "App Mesh's",
    "backends": "App Mesh's",
}


@dataclass(frozen=True, slots=True)
class HeaderChanges:
    """spec.service.headers.request or .response; (name, value) sorted by name."""

    set: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.set or self.add or self.remove)


@dataclass(frozen=True, slots=True)
class Rewrite:
    """`uri` and `host`: "" leaves it as it is.  `prefix`: only what a prefix match fitted is replaced."""

    uri: str = ""
    host: str = ""
    prefix: bool = False


@dataclass(frozen=True, slots=True)
class Retries:
    attempts: int
    codes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class SessionAffinity:
    """Who saw the canary once sees it until its release ends.  `attributes`: of both cookies, without Max-Age."""

    cookie: str
    primary_cookie: str = ""  # "": clients of the primary are drawn again at each request
    max_age_s: int = DAY_S
    primary_max_age_s: int = 60  # the analysis interval: so long a client of the primary stays there
    attributes: str = ""


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """`timeout`, `backend_timeout`: as written, "" for none.  `mirror_percent`: of the requests, while the machine mirrors."""

    kind: str = SPLIT
    hosts: tuple[str, ...] = ()
    parents: tuple[Object, ...] = ()  # gatewayRefs, as written
    matches: tuple[Match, ...] = ()  # service.match: whose requests are answered at all; none: all
    trial: tuple[Match, ...] = ()  # analysis.match: of them, those that may see the canary; none: all
    request_headers: HeaderChanges = HeaderChanges()
    response_headers: HeaderChanges = HeaderChanges()
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


@dataclass(slots=True)
class _Told:
    refused: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


def parse_service(spec: Mapping[str, Any]) -> ServiceSpec:
    """From a Canary's spec.  Raises SpecError on the first value that cannot be meant."""
    service = mapping(spec.get("service"), "spec.service")
    analysis = mapping(spec.get("analysis") or spec.get("canaryAnalysis"), "spec.analysis")
    told = _Told()
    kind = _kind(spec, told)
    port = integer(service.get("port"), "spec.service.port", None, 1, 65535)
    trial = parse_matches(analysis.get("match"), "spec.analysis.match", port, told.refused, told.ignored)
    mirror = flag(analysis.get("mirror"), "spec.analysis.mirror")
    affinity = _affinity(analysis, told)
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
    timeout, backend_timeout = _timeout(service, "timeout"), _timeout(service, "backendTimeout")
    retries, each = _retries(service, told)
    made = ServiceSpec(
        kind=kind,
        hosts=tuple(
            text(host, f"spec.service.hosts[{i}]") for i, host in enumerate(items(service.get("hosts"), "spec.service.hosts"))
        ),
        parents=tuple(_parents(service)),
        matches=parse_matches(service.get("match"), "spec.service.match", port, told.refused, told.ignored),
        trial=trial,
        request_headers=_headers(headers, "request", told),
        response_headers=_headers(headers, "response", told),
        rewrite=_rewrite(service),
        timeout=timeout,
        backend_timeout=backend_timeout or each,
        retries=retries,
        mirrors=tuple(_mirrors(service)),
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


def refusals(spec: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(refused, ignored) of what a Canary's spec asks of routing.  Raises SpecError."""
    made = parse_service(spec)
    return made.refused, made.ignored


def _kind(spec: Mapping[str, Any], told: _Told) -> str:
    provider = str(spec.get("provider") or "")
    kind = SPLIT if provider.startswith("smi:") else _KINDS.get(provider)
    if kind is None:
        told.refused.append(f"spec.provider {provider} is not supported; leave it out, or use {PROVIDERS}")
    return kind or SPLIT


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
    prefixes = made.rewrite is not None and made.rewrite.prefix
    if prefixes and narrowed + matches * (3 if made.affinity else 1) > MAX_RULES:
        raise SpecError(f"spec.service.rewrite: ReplacePrefixMatch needs a rule for each match, at most {MAX_RULES} in all")
    if prefixes and any(m.path is not None and m.path.how != PREFIX for m in (*made.matches, *made.trial)):
        raise SpecError("spec.service.rewrite.type: ReplacePrefixMatch wants a uri.prefix wherever a match has a uri")


def _timeout(service: Mapping[str, Any], name: str) -> str:
    value = service.get(name)
    seconds = duration(value, f"spec.service.{name}", 0.0)
    if seconds > DAY_S:
        raise SpecError(f"spec.service.{name}: {value} is more than 24h")
    return str(value) if value and seconds else ""


def _retries(service: Mapping[str, Any], told: _Told) -> tuple[Retries | None, str]:
    """How often and after which answers, and the time of each attempt ("" if not given)."""
    given = mapping(service.get("retries"), "spec.service.retries")
    if not given:
        return None, ""
    attempts = integer(given.get("attempts"), "spec.service.retries.attempts", 2, 0)
    if attempts > MAX_ATTEMPTS:
        told.ignored.append(f"spec.service.retries.attempts {attempts}: at most {MAX_ATTEMPTS} are made")
    codes: set[int] = set()
    unknown: list[str] = []
    for word in (part.strip() for part in str(given.get("retryOn") or _DEFAULT_RETRY_ON).split(",")):
        if word.isascii() and word.isdigit() and 400 <= int(word[:4]) <= 599:
            codes.add(int(word))
        elif word in _RETRY_CODES:
            codes.update(_RETRY_CODES[word])
        elif word and word not in _ALWAYS_RETRIED:
            unknown.append(word)
    if unknown:
        told.ignored.append(f"spec.service.retries.retryOn: {', '.join(unknown)} (HTTP status codes and resets can be retried)")
    each = given.get("perTryTimeout")
    duration(each, "spec.service.retries.perTryTimeout", 0.0)
    return Retries(min(attempts, MAX_ATTEMPTS), tuple(sorted(codes))), str(each or "")


def _headers(headers: Mapping[str, Any], direction: str, told: _Told) -> HeaderChanges:
    where = f"spec.service.headers.{direction}"
    given = mapping(headers.get(direction), where)
    seen: set[str] = set()

    def allowed(name: str, verb: str) -> bool:
        low = name.lower()
        if low in PROTECTED or low.startswith(("mesh-", "l5d-")):
            told.ignored.append(f"{where}.{verb}.{name}: it frames the message or is the mesh's own, and stays as it is")
            return False
        if low in seen:
            raise SpecError(f"{where}.{verb}.{name}: {name} is named twice; what would be in force is not said")
        seen.add(low)
        return True

    def values(verb: str) -> tuple[tuple[str, str], ...]:
        found = pairs(given.get(verb), f"{where}.{verb}")
        return tuple(sorted((name, value) for name, value in found if allowed(name, verb)))

    removed = [text(name, f"{where}.remove[{i}]") for i, name in enumerate(items(given.get("remove"), f"{where}.remove"))]
    return HeaderChanges(values("set"), values("add"), tuple(name for name in removed if allowed(name, "remove")))


def _rewrite(service: Mapping[str, Any]) -> Rewrite | None:
    where = "spec.service.rewrite"
    given = mapping(service.get("rewrite"), where)
    uri, host = str(given.get("uri") or ""), str(given.get("authority") or "")
    if not uri and not host:
        return None
    if uri and not uri.startswith("/"):
        raise SpecError(f"{where}.uri: found {uri!r:.60}, expected a path that begins with /")
    if any(char in uri for char in "?# \t\r\n") or not uri.isascii():
        raise SpecError(f"{where}.uri: found {uri!r:.60}, expected a path without query or fragment, in ASCII")
    return Rewrite(uri, host, given.get("type") == "ReplacePrefixMatch")


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


def _mirrors(service: Mapping[str, Any]) -> list[Object]:
    found: list[Object] = []
    for index, one in enumerate(items(service.get("mirror"), "spec.service.mirror")):
        where = f"spec.service.mirror[{index}].backendRef"
        ref = mapping(mapping(one, f"spec.service.mirror[{index}]").get("backendRef"), where)
        text(ref.get("name"), f"{where}.name")
        integer(ref.get("port"), f"{where}.port", None, 1, 65535)
        found.append({name: value for name, value in ref.items() if value is not None})
    return found


def _affinity(analysis: Mapping[str, Any], told: _Told) -> SessionAffinity | None:
    where = "spec.analysis.sessionAffinity"
    given = mapping(analysis.get("sessionAffinity"), where)
    if not given:
        return None
    cookie, primary = text(given.get("cookieName"), f"{where}.cookieName"), str(given.get("primaryCookieName") or "")
    for name, what in ((cookie, "cookieName"), (primary, "primaryCookieName")):
        if any(char in name for char in '=;, \t"\\') or not name.isascii() or not name.isprintable():
            raise SpecError(f"{where}.{what}: {name!r:.60} cannot name a cookie")
    if cookie == primary:
        raise SpecError(f"{where}.primaryCookieName: must not be the same as cookieName ({cookie})")
    parts: list[str] = []
    for name, label in (
        ("domain", "Domain"),
        ("httpOnly", ""),
        ("partitioned", ""),
        ("path", "Path"),
        ("sameSite", "SameSite"),
        ("secure", ""),
    ):
        value = given.get(name)
        if label and value:
            parts.append(f"{label}={_attribute(value, f'{where}.{name}')}")
        elif not label and flag(value, f"{where}.{name}"):
            parts.append(name[0].upper() + name[1:])
    return SessionAffinity(
        cookie,
        primary,
        integer(given.get("maxAge"), f"{where}.maxAge", 0, 0) or DAY_S,
        max(1, int(duration(analysis.get("interval"), "spec.analysis.interval", 60.0))),
        "; ".join(parts),
    )


def _attribute(value: object, where: str) -> str:
    found = text(value, where)
    if any(char in found for char in ";,\r\n") or not found.isprintable():
        raise SpecError(f"{where}: {found!r:.60} cannot stand in a cookie")
    return found

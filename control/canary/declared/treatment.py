"""What a Canary wants done to each request, typed: headers, rewrite, times, retries, copies, cookies.

spec.service.{headers, rewrite, timeout, retries, mirror}, spec.analysis.sessionAffinity
  --parse_*--> typed values         what of it does not hold, and why --> Told
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from control.canary.declared.fields import SpecError, duration, flag, integer, items, mapping, pairs, text
from control.canary.declared.request import PREFIX, Match, Text
from control.resources.gateway_check import PROTECTED
from control.store.store import Object

DAY_S = 86_400
MAX_ATTEMPTS = 10  # retries of one request, as everywhere in the mesh

# retryOn, Envoy's words: what follows without being declared, and what becomes of the others.
_ALWAYS_RETRIED = ("connect-failure", "refused-stream", "reset", "reset-before-request")
_RETRY_CODES = {"5xx": tuple(range(500, 512)), "gateway-error": (502, 503, 504), "retriable-4xx": (409,)}
_DEFAULT_RETRY_ON = "503"  # of Istio's default only this is about answers; the rest always holds or is gRPC's


@dataclass(frozen=True, slots=True)
class HeaderChanges:
    """spec.service.headers.request or .response; (name, value) sorted by name."""

    set: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.set or self.add or self.remove)


NO_CHANGES = HeaderChanges()


WHOLE, PART = "ReplaceFullPath", "ReplacePrefixMatch"  # Gateway API's names


@dataclass(frozen=True, slots=True)
class Rewrite:
    """`uri` and `host`: "" leaves it as it is.  `type`: what of the path `uri` replaces, WHOLE or PART (what a prefix match
    fitted); "" is Istio's rule: PART where the match is a prefix (no match: of /), else WHOLE."""

    uri: str = ""
    host: str = ""
    type: str = WHOLE

    def of(self, match: Match) -> str:
        """What is replaced of a path that `match` fitted: WHOLE, PART, or "" for nothing."""
        if not self.uri or self.type:
            return self.uri and self.type
        path = match.path or Text(PREFIX, "/")
        if path.how != PREFIX:
            return WHOLE
        return "" if path.value.rstrip("/") == self.uri.rstrip("/") else PART

    def groups(self, matches: Sequence[Match]) -> list[tuple[str, list[Match]]]:
        """Neighbours of which the same is replaced, and can be by one rule: Gateway API wants to know which prefix."""
        found: list[tuple[str, list[Match]]] = []
        for match in matches:
            kind = self.of(match)
            if found and found[-1][0] == kind != PART:
                found[-1][1].append(match)
            else:
                found.append((kind, [match]))
        return found


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


@dataclass(slots=True)
class Told:
    refused: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


def parse_timeout(service: Mapping[str, Any], name: str) -> str:
    value = service.get(name)
    seconds = duration(value, f"spec.service.{name}", 0.0)
    if seconds > DAY_S:
        raise SpecError(f"spec.service.{name}: {value} is more than 24h")
    return str(value) if value and seconds else ""


def parse_retries(service: Mapping[str, Any], told: Told) -> tuple[Retries | None, str]:
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
    if duration(each, "spec.service.retries.perTryTimeout", 0.0) > DAY_S:
        raise SpecError(f"spec.service.retries.perTryTimeout: {each} is more than 24h")
    return Retries(min(attempts, MAX_ATTEMPTS), tuple(sorted(codes))), str(each or "")


def parse_headers(headers: Mapping[str, Any], direction: str, told: Told) -> HeaderChanges:
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


def parse_rewrite(service: Mapping[str, Any], default: str) -> Rewrite | None:
    """`default`: the type where none is given; what is not PART is WHOLE, as in Flagger."""
    where = "spec.service.rewrite"
    given = mapping(service.get("rewrite"), where)
    uri, host = str(given.get("uri") or ""), str(given.get("authority") or "")
    if not uri and not host:
        return None
    if uri and not uri.startswith("/"):
        raise SpecError(f"{where}.uri: found {uri!r:.60}, expected a path that begins with /")
    if any(char in uri for char in "?# \t\r\n") or not uri.isascii():
        raise SpecError(f"{where}.uri: found {uri!r:.60}, expected a path without query or fragment, in ASCII")
    kind = given.get("type")
    return Rewrite(uri, host, default if not kind else PART if kind == PART else WHOLE)


def parse_mirrors(service: Mapping[str, Any]) -> list[Object]:
    found: list[Object] = []
    for index, one in enumerate(items(service.get("mirror"), "spec.service.mirror")):
        where = f"spec.service.mirror[{index}].backendRef"
        ref = mapping(mapping(one, f"spec.service.mirror[{index}]").get("backendRef"), where)
        text(ref.get("name"), f"{where}.name")
        integer(ref.get("port"), f"{where}.port", None, 1, 65535)
        found.append({name: value for name, value in ref.items() if value is not None})
    return found


def parse_affinity(analysis: Mapping[str, Any], told: Told) -> SessionAffinity | None:
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

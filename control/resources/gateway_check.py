"""What the CRDs of HTTPRoute and GRPCRoute refuse, and their shapes cannot say: bounds, paths, filters that do not go together.

route --check_route--> parentRefs -> rules: matches -> filters -> backendRefs -> times      every mistake, with its line
"""

from __future__ import annotations

import re
from typing import Any

from control.resources.annotations import LINKERD, MAX_ATTEMPTS, MAX_TIMEOUT_MS, sharing_mistakes, traffic
from control.resources.documents import Path
from control.resources.gateway import GROUP, SERVICE_GROUPS
from control.resources.quantity import seconds
from control.resources.routegroup import check_header_name, check_regex
from control.resources.shape import Report, shown, words
from control.store.store import Object
from meshproxy.policy.path import normal_path
from meshproxy.policy.retry import MAX_BACKOFF_S

# The specification's bounds.
MAX_RULES = 16
MAX_MATCHES = 64  # of a rule
MAX_ALL_MATCHES = 128
MAX_FILTERS = 16
MAX_BACKENDS = 16
MAX_PARENTS = 32


def check_route(obj: Object, report: Report) -> None:
    """What the shape cannot say, and the CRD refuses; `obj` is an HTTPRoute or a GRPCRoute."""
    spec: Object = obj.get("spec") or {}
    annotations = obj["metadata"].get("annotations") or {}
    for annotation, message, hint in sharing_mistakes(annotations):
        report.error(("metadata", "annotations", annotation), message, hint)
    said = traffic(annotations, obj["kind"])
    for annotation, message, hint in said.mistakes:  # warnings, as on a Service: without it the others hold
        report.warning(("metadata", "annotations", annotation), message, hint)
    _check_parents(spec.get("parentRefs") or [], report)
    rules = spec.get("rules") or []
    if len(rules) > MAX_RULES:
        report.error(("spec", "rules"), f"has {len(rules)} entries, expected at most {MAX_RULES}")
    total = sum(len(rule.get("matches") or ()) for rule in rules)
    if total > MAX_ALL_MATCHES:
        report.error(("spec", "rules"), f"has {total} matches in all, expected at most {MAX_ALL_MATCHES}")
    names: set[str] = set()
    for index, rule in enumerate(rules):
        path: Path = ("spec", "rules", index)
        if (name := rule.get("name")) and name in names:
            report.error((*path, "name"), f"{name} is the name of two rules", "names must differ")
        names.add(rule.get("name", ""))
        matches = rule.get("matches") or []
        if len(matches) > MAX_MATCHES:
            report.error((*path, "matches"), f"has {len(matches)} entries, expected at most {MAX_MATCHES}")
        for number, match in enumerate(matches):
            if obj["kind"] == "HTTPRoute":
                _check_http_match(match, (*path, "matches", number), report)
            else:
                _check_grpc_match(match, (*path, "matches", number), report)
        _check_filters(rule, rule.get("filters") or [], path, report)
        _check_backends(rule, path, report)
        _check_times(rule, path, report)
        if said.timeout_ms is not None and (rule.get("timeouts") or {}).get("request") is not None:
            ours = "meshproxy.dev/timeout-request"
            name = ours if ours in annotations else next(linkerd for linkerd, same in LINKERD.items() if same == ours)
            report.warning((*path, "timeouts", "request"), f"has no effect: the route's annotation {name} comes first")
        if said.declared_retry and rule.get("retry") is not None:
            report.warning((*path, "retry"), "comes before the route's annotations on retries: of them this rule has none")
        if rule.get("sessionPersistence") is not None:
            report.warning((*path, "sessionPersistence"), "is not supported and has no effect")


def _check_parents(parents: list[Any], report: Report) -> None:
    if len(parents) > MAX_PARENTS:
        report.error(("spec", "parentRefs"), f"has {len(parents)} entries, expected at most {MAX_PARENTS}")
    services = [one for one in parents if one.get("kind") == "Service" and one.get("group", GROUP) in SERVICE_GROUPS]
    for index, parent in enumerate(parents):
        path: Path = ("spec", "parentRefs", index)
        if parent.get("kind") == "Service" and parent.get("group", GROUP) == GROUP:
            report.error(path, f"Service is no kind of {GROUP}", 'a Service needs group: ""')
        same = [one for one in parents[:index] if _place(one) == _place(parent)]
        if same:
            report.error(path, f"{parent['name']} is named twice with the same sectionName and port", "keep one")
    if not services and not any(one.get("kind") == "Service" for one in parents):  # one with the wrong group is told above
        report.warning(("spec", "parentRefs"), "names no Service: the route has no part in the mesh")


def _place(parent: Any) -> tuple[Any, ...]:
    return tuple(parent.get(name) for name in ("group", "kind", "namespace", "name", "sectionName", "port"))


def _check_http_match(match: Any, path: Path, report: Report) -> None:
    given = match.get("path") or {}
    kind, value = given.get("type", "PathPrefix"), given.get("value", "/")
    where: Path = (*path, "path", "value")
    if kind == "RegularExpression":
        check_regex(value, where, report)
    else:
        _check_path(value, where, report)
    for field_name in ("headers", "queryParams"):
        seen: set[str] = set()
        for index, one in enumerate(match.get(field_name) or ()):
            at: Path = (*path, field_name, index)
            name = one["name"].lower() if field_name == "headers" else one["name"]
            if name in seen:
                report.warning((*at, "name"), f"{one['name']} is given twice: the first one counts", "keep one")
            seen.add(name)
            if field_name == "headers":
                check_header_name(one["name"], (*at, "name"), report)
            if one.get("type") == "RegularExpression":
                check_regex(one["value"], (*at, "value"), report)


# The CRD's pattern: what is not one of these is no character of a path, nor an encoded one.
_NO_PATH = re.compile(r"%(?![0-9a-fA-F]{2}).{0,2}|[^-A-Za-z0-9/._~!$&'()*+,;=:@%]", re.DOTALL)
_BAD_IN_PATHS = ("//", "/./", "/../", "%2f", "%2F", "#")


def _check_path(value: str, path: Path, report: Report) -> None:
    """The specification's rules for Exact and PathPrefix: such a path could never be that of a request in its normal form."""
    if not value.startswith("/"):
        report.error(path, f"found {shown(value)}, expected a path that begins with /")
    elif bad := next((part for part in _BAD_IN_PATHS if part in value), ""):
        report.error(path, f"found {shown(value)}, expected a path without {bad}")
    elif value.endswith(("/..", "/.")):
        report.error(path, f"found {shown(value)}, expected a path that does not end with a dot segment")
    elif wrong := _NO_PATH.search(value):
        found = wrong[0]
        if found[0] == "%":
            report.error(path, f"{found} is no encoded character", "two hexadecimal digits stand after %")
        else:
            written = "".join(f"%{byte:02X}" for byte in found.encode("utf-8", "replace"))
            hint = "the query is matched by queryParams" if found == "?" else f"write {written}"
            name = "a space" if found == " " else found if found.isprintable() else repr(found)
            report.error(path, f"{name} is no character of a path", hint)
    elif normal_path(value.encode("utf-8", "replace")) is None:
        message = f"found {shown(value)}: no request fits it, because such a path is refused (400 ambiguous_path)"
        report.warning(path, message, "two servers may read it as two paths")


def _check_grpc_match(match: Any, path: Path, report: Report) -> None:
    method = match.get("method")
    if method is not None:
        if not method.get("service") and not method.get("method"):
            report.error((*path, "method"), "has neither service nor method, expected at least one")
        for name in ("service", "method"):
            value = method.get(name)
            if value and method.get("type") == "RegularExpression":
                check_regex(value, (*path, "method", name), report)
            elif value and "/" in value:
                report.error((*path, "method", name), f"found {shown(value)}, expected a name without /")
    for index, one in enumerate(match.get("headers") or ()):
        check_header_name(one["name"], (*path, "headers", index, "name"), report)
        if one.get("type") == "RegularExpression":
            check_regex(one["value"], (*path, "headers", index, "value"), report)


FIELD_OF = {
    "RequestHeaderModifier": "requestHeaderModifier",
    "ResponseHeaderModifier": "responseHeaderModifier",
    "RequestMirror": "requestMirror",
    "RequestRedirect": "requestRedirect",
    "URLRewrite": "urlRewrite",
    "CORS": "cors",
    "ExternalAuth": "externalAuth",
    "ExtensionRef": "extensionRef",
}


def _check_filters(rule: Any, filters: list[Any], path: Path, report: Report) -> None:
    if len(filters) > MAX_FILTERS:
        report.error((*path, "filters"), f"has {len(filters)} entries, expected at most {MAX_FILTERS}")
    seen: set[str] = set()
    for index, one in enumerate(filters):
        where: Path = (*path, "filters", index)
        kind = one["type"]
        own = FIELD_OF[kind]
        if one.get(own) is None and kind != "ExtensionRef":
            report.error((*where, own), f"is missing, expected what {kind} does")
            continue
        for other in FIELD_OF.values():
            if other != own and one.get(other) is not None:
                report.error((*where, other), f"does not belong to a filter of type {kind}")
        if kind in seen and kind not in ("RequestMirror", "ExtensionRef"):
            report.error((*where, "type"), f"{kind} is there twice", "put them together")
        seen.add(kind)
        _check_filter(rule, one, where, report)
    if {"RequestRedirect", "URLRewrite"} <= seen:
        report.error((*path, "filters"), "RequestRedirect and URLRewrite cannot be together", "keep one")
    if "RequestRedirect" in seen and rule.get("backendRefs"):
        report.error((*path, "backendRefs"), "a rule that redirects sends nothing to backends", "keep one")


def _check_filter(rule: Any, one: Any, where: Path, report: Report) -> None:
    for field_name in ("requestHeaderModifier", "responseHeaderModifier"):
        if (modifier := one.get(field_name)) is not None:
            _check_modifier(modifier, (*where, field_name), report)
    for field_name in ("requestRedirect", "urlRewrite"):
        modified = (one.get(field_name) or {}).get("path")
        if modified is not None:
            _check_modified(rule, modified, (*where, field_name, "path"), report)
    mirror = one.get("requestMirror")
    if mirror is not None:
        if mirror.get("percent") is not None and mirror.get("fraction") is not None:
            report.error((*where, "requestMirror"), "has both percent and fraction", "keep one")
        fraction = mirror.get("fraction")
        if fraction is not None and fraction["numerator"] > fraction.get("denominator", 100):
            report.error((*where, "requestMirror", "fraction"), "is more than 1")


def _check_modifier(modifier: Any, path: Path, report: Report) -> None:
    seen: set[str] = set()
    for verb in ("set", "add", "remove"):
        items = modifier.get(verb) or []
        if len(items) > 16:
            report.error((*path, verb), f"has {len(items)} entries, expected at most 16")
        for index, item in enumerate(items):
            name = item if verb == "remove" else item["name"]
            where: Path = (*path, verb, index)
            check_header_name(name, where, report)
            if name.lower() in seen:
                report.error(where, f"{name} is named twice in one filter", "what would be in force is not said")
            seen.add(name.lower())
            if name.lower() in PROTECTED or name.lower().startswith(("mesh-", "l5d-")):
                report.error(where, f"{name} cannot be changed", "it frames the message or belongs to the mesh")
            if verb != "remove" and any((ord(char) < 32 and char != "\t") or ord(char) == 127 for char in item["value"]):
                report.error((*where, "value"), "has a control character")


# Fields that frame a message or are a hop's own: changing them would break what carries it (`host`: URLRewrite does that).
PROTECTED = words(
    "host content-length transfer-encoding connection keep-alive te trailer upgrade proxy-connection expect http2-settings"
    " grpc-timeout x-envoy-expected-rq-timeout-ms"
)


def _check_modified(rule: Any, modified: Any, path: Path, report: Report) -> None:
    full = modified["type"] == "ReplaceFullPath"
    own, other = ("replaceFullPath", "replacePrefixMatch") if full else ("replacePrefixMatch", "replaceFullPath")
    if modified.get(own) is None:
        report.error((*path, own), "is missing, expected a path")
    elif modified[own] and not modified[own].startswith("/"):
        report.error((*path, own), f"found {shown(modified[own])}, expected a path that begins with /")
    elif any(char in modified[own] for char in "?# \t\r\n") or not modified[own].isascii():
        report.error((*path, own), f"found {shown(modified[own])}, expected a path without query or fragment, in ASCII")
    if modified.get(other) is not None:
        report.error((*path, other), f"does not belong to type {modified['type']}")
    matches = rule.get("matches") or [{}]  # the CRD's default: one, of the prefix /
    prefixes = [(match.get("path") or {}).get("type", "PathPrefix") == "PathPrefix" for match in matches]
    if not full and prefixes != [True]:
        report.error(path, "ReplacePrefixMatch needs exactly one match, of type PathPrefix", "make a rule of each match")


def _check_backends(rule: Any, path: Path, report: Report) -> None:
    backends = rule.get("backendRefs") or []
    if len(backends) > MAX_BACKENDS:
        report.error((*path, "backendRefs"), f"has {len(backends)} entries, expected at most {MAX_BACKENDS}")
    for index, backend in enumerate(backends):
        where: Path = (*path, "backendRefs", index)
        if _is_service(backend) and backend.get("port") is None:
            report.error((*where, "port"), "is missing, expected a port of the Service")
        _check_filters({"matches": rule.get("matches")}, backend.get("filters") or [], where, report)
    for index, one in enumerate(rule.get("filters") or []):
        reference = (one.get("requestMirror") or {}).get("backendRef")
        if reference is not None and _is_service(reference) and reference.get("port") is None:
            report.error((*path, "filters", index, "requestMirror", "backendRef", "port"), "is missing, expected a port")


def _is_service(reference: Any) -> bool:
    return reference.get("kind", "Service") == "Service" and reference.get("group", "") in SERVICE_GROUPS


_DURATION = re.compile(r"(?:[0-9]{1,5}(?:h|m|s|ms)){1,4}\Z")  # the CRD's pattern


def _check_times(rule: Any, path: Path, report: Report) -> None:
    found: dict[str, float] = {}
    for outer, name in (("timeouts", "request"), ("timeouts", "backendRequest"), ("retry", "backoff")):
        value = (rule.get(outer) or {}).get(name)
        if value is None:
            continue
        where: Path = (*path, outer, name)
        if _DURATION.match(value) is None:
            expected = "expected a duration as GEP-2257 has it, such as 500ms, 10s or 1m30s"
            hint = "whole numbers: 1s500ms" if "." in value else "at most four numbers of five digits, each with h, m, s or ms"
            report.error(where, f"found {shown(value)}, {expected}", hint)
            continue
        found[name] = seconds(value)
        longest, shortly = (MAX_BACKOFF_S, "10s") if name == "backoff" else (MAX_TIMEOUT_MS / 1000, "24h")
        if found[name] > longest:
            report.warning(where, f"found {shown(value)}: {shortly} is the longest, and holds")
    attempts = (rule.get("retry") or {}).get("attempts")
    if attempts == 0:
        hint = 'for none: the annotation meshproxy.dev/retry-limit: "0" on the route'
        report.error((*path, "retry", "attempts"), f"found {shown(attempts)}, expected at least 1", hint)
    elif attempts is not None and attempts > MAX_ATTEMPTS:
        message = f"found {shown(attempts)}: {MAX_ATTEMPTS} is the most, and holds"
        report.warning((*path, "retry", "attempts"), message, "more is load, not help")
    whole, each = found.get("request", 0.0), found.get("backendRequest", 0.0)
    if whole and each > whole:
        report.error((*path, "timeouts", "backendRequest"), "is longer than the whole request may take")

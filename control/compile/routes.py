"""The rules attached to a Service (resources/attach.py) as mesh.proto has them."""

from __future__ import annotations

from collections.abc import Iterable

from control.api import mesh_pb2
from control.resources import routing
from control.resources.annotations import Sharing
from control.resources.attach import Attached
from control.resources.routing import Candidate, Changes, Leaf, NewPath, Rule, StringMatch

_HOW = {
    routing.EXACT: mesh_pb2.StringMatch.EXACT,
    routing.PREFIX: mesh_pb2.StringMatch.PREFIX,
    routing.REGEX: mesh_pb2.StringMatch.REGEX,
    routing.REGEX_START: mesh_pb2.StringMatch.REGEX_START,
}


def compile_routes(attached: Attached) -> tuple[list[mesh_pb2.Route], list[mesh_pb2.RouteMatch]]:
    """The rules, each once, and the matches that lead to them in order of precedence."""
    numbers: dict[int, int] = {}  # by identity: two rules may say the same, and are counted apart
    rules: list[mesh_pb2.Route] = []
    matches: list[mesh_pb2.RouteMatch] = []
    for one in attached.candidates:
        number = numbers.get(id(one.rule))
        if number is None:
            number = numbers[id(one.rule)] = len(rules)
            rules.append(_route(one.rule))
        matches.append(_match(one, number, attached.ports))
    return rules, matches


def _match(one: Candidate, number: int, ports: tuple[int, ...]) -> mesh_pb2.RouteMatch:
    match = one.match
    return mesh_pb2.RouteMatch(
        route=number,
        path=_string(match.path) if match.path is not None else None,
        methods=match.methods,
        headers=map(_string, match.headers),
        query=map(_string, match.query),
        ports=() if one.ports == ports else one.ports,
        client_namespace=one.client_namespace,
    )


def _string(one: StringMatch) -> mesh_pb2.StringMatch:
    return mesh_pb2.StringMatch(name=one.name, how=_HOW[one.how], value=one.value)


def _route(rule: Rule) -> mesh_pb2.Route:
    made = mesh_pb2.Route(
        name=rule.name,
        backends=map(_backend, rule.leaves),
        request_headers=_changes(rule.request_headers),
        response_headers=_changes(rule.response_headers),
        timeout_ms=rule.timeout_ms or 0,
        no_timeout=rule.timeout_ms == 0,
        try_timeout_ms=rule.try_timeout_ms,
        refuse=rule.refuse,
        empty_backend=empty_backend(rule.sharing),
        sticky=sticky(rule.sharing),
    )
    if (redirect := rule.redirect) is not None:
        made.redirect.CopyFrom(
            mesh_pb2.Redirect(scheme=redirect.scheme, host=redirect.host, port=redirect.port, status=redirect.status)
        )
        _path(made.redirect, redirect.path)
    if (rewrite := rule.rewrite) is not None:
        made.rewrite.CopyFrom(mesh_pb2.Rewrite(host=rewrite.host))
        _path(made.rewrite, rewrite.path)
    for mirror in rule.mirrors:
        backend = _backend(mirror.leaf)
        made.mirrors.append(mesh_pb2.Mirror(backend=backend, numerator=mirror.numerator, denominator=mirror.denominator))
    if (times := rule.times) is not None:
        made.times.CopyFrom(
            mesh_pb2.AnswerTimes(
                response_start_timeout_ms=times.response_start_ms,
                response_timeout_ms=times.response_ms,
                idle_timeout_ms=times.idle_ms,
            )
        )
    if (retries := rule.retries) is not None:
        made.retry.CopyFrom(
            mesh_pb2.Retry(
                conditions=[*DEFAULT_CONDITIONS, *retries.conditions],
                attempts=retries.attempts,
                backoff_ms=retries.backoff_ms,
                none=retries.attempts == 0,
                any_method=retries.any_method,
            )
        )
    return made


def empty_backend(sharing: Sharing) -> mesh_pb2.EmptyBackend:
    return mesh_pb2.REDISTRIBUTE if sharing.redistribute else mesh_pb2.FAIL


def sticky(sharing: Sharing) -> mesh_pb2.Sticky | None:
    kind, name = sharing.sticky
    return (
        mesh_pb2.Sticky(header=name.lower() if kind == "header" else "", cookie=name if kind == "cookie" else "")
        if kind
        else None
    )


# What a retry may follow without being declared (meshproxy/policy/retry.py says why).
DEFAULT_CONDITIONS = ("connect-failure", "refused-stream", "reset")


def _path(made: mesh_pb2.Redirect | mesh_pb2.Rewrite, path: NewPath | None) -> None:
    if path is not None and path.full is not None:
        made.full_path = path.full
    elif path is not None and path.prefix is not None:
        made.prefix = path.prefix


def _backend(leaf: Leaf) -> mesh_pb2.Backend:
    return mesh_pb2.Backend(
        service=leaf.service,
        weight_milli=leaf.weight_milli,
        port=leaf.port,
        refuse=leaf.refuse,
        request_headers=_changes(leaf.request_headers),
        response_headers=_changes(leaf.response_headers),
    )


def _changes(changes: Changes | None) -> mesh_pb2.HeaderChanges | None:
    if changes is None:
        return None
    return mesh_pb2.HeaderChanges(set=_values(changes.set), add=_values(changes.add), remove=changes.remove)


def _values(pairs: Iterable[tuple[str, str]]) -> list[mesh_pb2.HeaderValue]:
    return [mesh_pb2.HeaderValue(name=name, value=value) for name, value in pairs]

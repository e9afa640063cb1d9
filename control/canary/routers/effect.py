"""Does what was written have an effect?  The same functions answer that make the proxies' tables (resources/traffic)."""

from __future__ import annotations

from collections.abc import Sequence

from control.resources import traffic
from control.store.store import Key, Store

# Of what concerns a split or route, that which takes its effect away.  Backends without endpoints are not told here: their
# Deployments' readiness is.
_REASONS = frozenset(
    {
        "ShadowedSplit",
        "ShadowedRule",
        "RootMissing",
        "MatchGroupMissing",
        "ParentMissing",
        "ParentPortMissing",
        "ParentNotSupported",
        "RouteConflicted",
        "UnsupportedFilter",
        "UnsupportedValue",
    }
)


def told_of(store: Store, namespace: str, keys: Sequence[Key]) -> str:
    """What takes their effect from these objects, "" if nothing does.  Looks at the routing objects of one namespace.

    A rule of theirs that another of theirs covers is as its Canary says: analysis.match may fit all that service.match does."""
    wanted = frozenset(keys)
    objects = [obj for group, kind in traffic.KINDS for obj in store.list(group, kind, namespace)]
    own = tuple(f"{key.kind} {key.namespace}/{key.name} " for key in keys)
    found = [
        one
        for one in traffic.problems(traffic.Traffic.of(objects))
        if one.key in wanted and one.reason in _REASONS and not one.message.startswith(own)
    ]
    return "; ".join(f"{one.key.kind} {one.key.name}.{namespace}: {one.message}" for one in found[:3])

"""TrafficTargets -> what each workload's Access says: nothing but this.

TrafficTargets of a service account --allowance()--> AccessRule ...     one target, one rule: its sources, ports, requests
none of them selects it -----------------------------> no Access         inbound_mode alone decides
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from control.api import mesh_pb2
from control.compile.settings import Settings
from control.compile.views import Views
from control.resources.access import Allowance, allowance, audited
from control.resources.annotations import ACCESS
from control.resources.attach import FITS_ALL, FITS_FROM_START
from control.resources.documents import field_name
from control.resources.traffictarget import GROUP, Account, TrafficTarget
from control.store.store import Diagnostic, Key

MAX_RULES = 1000  # TrafficTargets that select one service account; what is more would deny, as it would if it were not there


@dataclass(slots=True)
class Policy:
    """What the TrafficTargets that select one account allow.  `inputs`: every object it was made of, in order."""

    rules: list[mesh_pb2.AccessRule] = field(default_factory=list)
    inputs: list[object] = field(default_factory=list)


@dataclass(slots=True)
class Policies:
    by_account: dict[Account, Policy] = field(default_factory=dict)
    diagnostics: list[Diagnostic] = field(default_factory=list)


def policies(views: Views, settings: Settings) -> Policies:
    """All TrafficTargets, by the account they select.  Total."""
    made = Policies()
    groups = {name: view.typed for name, view in views.groups.items()}
    routes = {name: view.typed for name, view in views.port_routes.items()}
    for view in sorted(views.targets, key=lambda one: (one.typed.destination.namespace, one.typed.name)):
        selected = view.typed
        policy = made.by_account.setdefault(selected.destination, Policy())
        policy.inputs.append(view.obj)
        key = Key(GROUP, "TrafficTarget", selected.destination.namespace, selected.name)
        if selected.target is None:
            message = f"{selected.mistake}: it allows nothing"
            made.diagnostics.append(Diagnostic("error", "", 0, "", message, "its destination denies all the same", key))
            continue
        policy.inputs.extend(_references(selected.target, views))
        allowed, problems = allowance(selected.target, groups, routes)
        for one in problems:
            made.diagnostics.append(Diagnostic("warning", "", 0, field_name(one.path), one.message, one.hint, key))
        if allowed is None:
            continue
        if len(policy.rules) >= MAX_RULES:
            message = f"more than {MAX_RULES} TrafficTargets select {selected.destination.name}: this one allows nothing"
            made.diagnostics.append(Diagnostic("error", "", 0, "", message, "name several sources in one", key))
            continue
        policy.rules.append(_rule(selected.target, allowed, settings))
    return made


def _references(target: TrafficTarget, views: Views) -> list[object]:
    found: list[object] = []
    for rule in target.rules:
        if rule.kind == "HTTPRouteGroup":
            group = views.groups.get((target.namespace, rule.name))
            found.append(group.obj if group is not None else None)
        else:
            route = views.port_routes.get((rule.kind, target.namespace, rule.name))
            found.append(route.obj if route is not None else None)
    return found


def _rule(target: TrafficTarget, allowed: Allowance, settings: Settings) -> mesh_pb2.AccessRule:
    how = mesh_pb2.StringMatch
    return mesh_pb2.AccessRule(
        name=f"TrafficTarget {target.namespace}/{target.name}",
        clients=[f"spiffe://{settings.trust_domain}/ns/{one.namespace}/sa/{one.name}" for one in target.sources],
        ports=allowed.ports,
        http=[
            mesh_pb2.RouteMatch(
                path=_path(match.path_regex, full),
                methods=match.methods,
                headers=[how(name=name, how=how.REGEX, value=value) for name, value in match.headers],
            )
            for match, full in allowed.http
        ],
    )


def _path(pattern: str, full: bool) -> mesh_pb2.StringMatch | None:
    """What fits every path is no condition, as for routes: then a path is the app's own affair, in any spelling."""
    if pattern in (FITS_ALL if full else FITS_FROM_START):
        return None
    how = mesh_pb2.StringMatch
    return how(how=how.REGEX if full else how.REGEX_START, value=pattern)


def workload_access(
    policy: Policy | None, pod: Mapping[str, str], namespace: Mapping[str, str], key: Key
) -> tuple[mesh_pb2.Access | None, list[Diagnostic]]:
    """For one pod.  `pod`, `namespace`: their annotations; key: of the pod."""
    if policy is None:
        return None, []
    audit, mistake = audited(pod, namespace)
    diagnostics = []
    if mistake:
        where = f'metadata.annotations["{ACCESS}"]'
        diagnostics.append(Diagnostic("warning", "", 0, where, mistake, "what TrafficTargets say is enforced", key))
    return mesh_pb2.Access(audit=audit, rules=policy.rules), diagnostics

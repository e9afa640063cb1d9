"""What only shows between objects: a split without backends, two splits for one Service, a Canary without its target.

Warnings: objects arrive in any order, and what is missing may come.  An error: a Canary that is accepted, and that its
controller does not run as it is declared.  What only follows from an object that was refused is not told: its own error is.
What is wrong between splits, routes and their Services is found in resources/traffic.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from control.canary.declared.metric import Kind
from control.canary.declared.policy import ReleasePolicy, misfit
from control.canary.declared.policy import parse as parse_policy
from control.canary.declared.spec import CanarySpec
from control.canary.declared.spec import parse as parse_release
from control.canary.machine.strategy import Strategy, strategy
from control.resources import alertprovider, canary, core, releasepolicy, traffictarget
from control.resources.documents import Path, field_name
from control.resources.embedded import refusal
from control.resources.gateway_rules import key_of, parents
from control.resources.refused import Refused
from control.resources.routing import Problem
from control.resources.shape import nearest
from control.resources.traffic import Traffic, problems
from control.runtime.layout import SYSTEM_NAMESPACE
from control.store.store import Diagnostic, Key, Object

NOTHING = Refused()
SHORT = 0.6  # cutoff for names of three or four letters of which two are swapped
_NO_SERVICE = re.compile(r"Service (?:([a-z0-9-]+)/)?([a-z0-9-]+) does not exist")  # as resources/traffic.py says it
Locate = Callable[[Key, Path], tuple[str, int]]  # file and line of a field; ("", 0) if not from a file


def crosscheck(
    objects: Sequence[Object],
    locate: Locate = lambda key, path: ("", 0),
    refused: Refused = NOTHING,
) -> list[Diagnostic]:
    """Total: an object that has not the right shape is passed over (its own check has reported it).

    refused   they are there, only wrong, and nobody is told that they are missing
    """
    found = _Objects(objects, refused)

    def diagnostic(severity: str, key: Key, path: Path, message: str, hint: str = "") -> Diagnostic:
        file, line = locate(key, path)
        return Diagnostic(severity, file, line, field_name(path), message, hint, key)

    result = [
        diagnostic("warning", *one)
        for check in (_traffic, _services, _workloads, _canaries, _overruled, _alerts, _policies, _judged, _targets)
        for one in check(found)
    ]
    result += [diagnostic("error", *one) for check in (_not_honoured, _one_target, _misfits) for one in check(found)]
    return sorted(result, key=lambda one: (one.file, one.line))


def notes(objects: Sequence[Object], locate: Locate = lambda key, path: ("", 0)) -> list[Diagnostic]:
    """What is no mistake, and may mean something else than it seems to: severity info.  Total, as crosscheck."""
    found = _Objects(objects, NOTHING)
    return [
        Diagnostic("info", *locate(key, path), field_name(path), message, hint, key)
        for key, path, message, hint in _compared_instead(found)
    ]


Finding = tuple[Key, Path, str, str]


class _Objects:
    def __init__(self, objects: Sequence[Object], refused: Refused) -> None:
        self.keys: set[Key] = {Key.of(obj) for obj in objects}
        self.refused = refused
        self.traffic = Traffic()
        self.canaries: list[canary.Canary] = []
        self.releases: dict[Key, tuple[CanarySpec, Object]] = {}  # as their controller reads them, and as written
        self.by_split: set[Key] = set()  # those whose weights a TrafficSplit will carry
        self.made: set[Key] = set()  # what is there for an owner, and not the user's
        self.providers: list[alertprovider.ProviderShape] = []
        self.policies: dict[Key, ReleasePolicy] = {}  # those that ask for something
        # (key, path of the pod template, its metadata, its spec)
        self.templates: list[tuple[Key, Path, core.ObjectMeta, core.PodSpec]] = []
        for obj in objects:
            try:
                self._add(Key.of(obj), obj)
            except (KeyError, TypeError, ValueError):
                continue

    def missing(self, key: Key) -> bool:
        """It is not there, and not among what was refused."""
        return key not in self.keys and not self.refused.hides(key)

    def hint(self, key: Key, otherwise: str = "") -> str:
        """Where what is missing may be instead: in another namespace, or under a name that is nearly the same."""
        same = sorted(one.namespace for one in self.keys if replace(one, namespace=key.namespace) == key)
        if same:
            return f"there is one in namespace {same[0]}"
        names = [one.name for one in self.keys if replace(one, name=key.name) == key]
        return nearest(key.name, sorted(names), SHORT) or otherwise

    def policies_of(self, spec: CanarySpec) -> tuple[ReleasePolicy | None, list[ReleasePolicy]]:
        """Its own policy, and those that release it together with others."""
        own = self.policies.get(Key(releasepolicy.GROUP, releasepolicy.KIND, spec.namespace, spec.name))
        groups = [one for _, one in sorted(self.policies.items()) if one.members and one.namespace == spec.namespace]
        return own, [one for one in groups if spec.name in (one.name, *one.members)]

    def _add(self, key: Key, obj: Object) -> None:
        if obj["metadata"].get("ownerReferences"):
            self.made.add(key)
        self.traffic.add(key, obj)
        match (key.group, key.kind):
            case (canary.GROUP, "Canary"):
                self.canaries.append(canary.parse(obj))
                if canary.shared_by_split(obj):
                    self.by_split.add(key)
                self.releases[key] = parse_release(obj), obj  # one that cannot be meant is passed over: its own check says so
            case (canary.GROUP, "AlertProvider"):
                self.providers.append(core.parse(obj, alertprovider.ProviderShape))
            case (releasepolicy.GROUP, releasepolicy.KIND):
                if (policy := parse_policy(obj)) is not None:
                    self.policies[key] = policy
            case ("apps", "Deployment"):
                template = core.parse(obj["spec"]["template"], core.PodTemplate)
                self.templates.append((key, ("spec", "template"), template.metadata, template.spec))
            case ("", "Pod"):
                pod = core.parse(obj, core.Pod)
                self.templates.append((key, (), pod.metadata, pod.spec))


def _traffic(found: _Objects) -> Iterator[Finding]:
    for problem in problems(found.traffic, found.missing):
        yield problem.key, problem.path, problem.message, problem.hint or _service_hint(found, problem)


def _service_hint(found: _Objects, problem: Problem) -> str:
    """Of a Service that a split or route names, and that is not there."""
    named = _NO_SERVICE.match(problem.message)
    if named is None:
        return ""
    wanted = Key("", "Service", named[1] or problem.key.namespace, named[2])
    return found.hint(wanted) if wanted not in found.keys else ""


def _services(found: _Objects) -> Iterator[Finding]:
    for (namespace, name), service in found.traffic.services.items():
        selector = service.spec.selector
        if not selector:
            continue
        key = Key("", "Service", namespace, name)
        selected = [
            (metadata, spec)
            for owner, _, metadata, spec in found.templates
            if owner.namespace == namespace and selector.items() <= metadata.labels.items()
        ]
        if found.refused.may_select(namespace, selector):
            continue
        if not selected:
            yield (
                key,
                ("spec", "selector"),
                "selects no pod of any Deployment",
                "compare it with the labels of the pod template",
            )
            continue
        for index, port in enumerate(service.spec.ports):
            if not isinstance(port.target_port, str):
                continue
            names = {
                container_port.name
                for _, spec in selected
                for container in spec.containers
                for container_port in container.ports
            }
            if port.target_port not in names:
                known = ", ".join(sorted(names - {""})) or "none"
                message = f"no selected pod has a container port named {port.target_port} (named ports: {known})"
                yield key, ("spec", "ports", index, "targetPort"), message, "such a port has no endpoints"


def _workloads(found: _Objects) -> Iterator[Finding]:
    for key, path, _, spec in found.templates:
        account = spec.service_account_name
        if account != "default" and found.missing(Key("", "ServiceAccount", key.namespace, account)):
            where = (*path, "spec", "serviceAccountName")
            yield (
                key,
                where,
                f"ServiceAccount {account} does not exist: Kubernetes would start no pod",
                "add it to the manifests",
            )
        for index, container in enumerate(spec.containers):
            base: Path = (*path, "spec", "containers", index)
            for kind, name, where in _references(container, base):
                if found.missing(Key("", kind, key.namespace, name)):
                    message = f"{kind} {name} does not exist: the pod cannot start until it does"
                    yield key, where, message, found.hint(Key("", kind, key.namespace, name))


def _references(container: core.Container, base: Path) -> Iterator[tuple[str, str, Path]]:
    for index, variable in enumerate(container.env):
        source = variable.value_from
        for kind, field, reference in (
            ("ConfigMap", "configMapKeyRef", source.config_map_key_ref if source else None),
            ("Secret", "secretKeyRef", source.secret_key_ref if source else None),
        ):
            if reference is not None and not reference.optional:
                yield kind, reference.name, (*base, "env", index, "valueFrom", field)
    for index, whole in enumerate(container.env_from):
        for kind, field, source_all in (
            ("ConfigMap", "configMapRef", whole.config_map_ref),
            ("Secret", "secretRef", whole.secret_ref),
        ):
            if source_all is not None and not source_all.optional:
                yield kind, source_all.name, (*base, "envFrom", index, field)


def _canaries(found: _Objects) -> Iterator[Finding]:
    for one in found.canaries:
        key = _canary_key(one)
        group, target = _target(one)
        if found.missing(wanted := Key(group, target.kind, key.namespace, target.name)):
            path: Path = ("spec", "targetRef", "name")
            message = f"{target.kind} {target.name} does not exist: there is nothing to release"
            yield key, path, message, found.hint(wanted, "check targetRef")
        for index, metric in enumerate(one.analysis.metrics if one.analysis else ()):
            if (ref := metric.template_ref) is None:
                continue
            if found.missing(wanted := Key(canary.GROUP, "MetricTemplate", ref.namespace or key.namespace, ref.name)):
                path = ("spec", "analysis" if one.spec.analysis else "canaryAnalysis", "metrics", index, "templateRef", "name")
                yield (
                    key,
                    path,
                    f"MetricTemplate {ref.name} does not exist: the check fails",
                    found.hint(wanted, "check templateRef"),
                )


def _canary_key(one: canary.Canary) -> Key:
    return Key(canary.GROUP, "Canary", one.metadata.namespace or "default", one.metadata.name)


def _target(one: canary.Canary) -> tuple[str, canary.TargetRef]:
    """Group and reference of what it releases."""
    target = one.spec.target_ref
    return target.api_version.rpartition("/")[0] if target.api_version else "apps", target


# ---------------------------------------------------------------- Canaries that are not run


def _not_honoured(found: _Objects) -> Iterator[Finding]:
    """What this mesh cannot do for a Canary at all (CanarySpec.refused)."""
    for key, (spec, obj) in found.releases.items():
        for reason in spec.refused:
            path, what, hint = refusal(reason, obj)
            yield key, path, f"{what}; so the Canary is not run", hint
        if spec.target_kind == "DaemonSet":
            path = ("spec", "targetRef", "kind")
            yield (
                key,
                path,
                "DaemonSets do not run in embedded mode; so the Canary is not run",
                "name a Deployment: there is one node",
            )


def _one_target(found: _Objects) -> Iterator[Finding]:
    targets: dict[tuple[str, str, str, str], str] = {}
    for one in sorted(found.canaries, key=lambda one: one.metadata.name):
        key = _canary_key(one)
        group, target = _target(one)
        other = targets.setdefault((key.namespace, group, target.kind, target.name), key.name)
        if other != key.name:
            message = f"{target.kind} {target.name} is also the target of Canary {other}: this one is not run"
            yield key, ("spec", "targetRef", "name"), message, "keep one Canary for a target"


def _misfits(found: _Objects) -> Iterator[Finding]:
    """Policies that ask of a Canary what it cannot have, by the rule the controller goes by."""
    for key, (spec, _) in found.releases.items():
        own, groups = found.policies_of(spec)
        if (problem := misfit(spec, own, groups)) is not None:
            where = Key(releasepolicy.GROUP, releasepolicy.KIND, key.namespace, problem.policy)
            yield where, problem.path, problem.what, problem.hint


# ---------------------------------------------------------------- what a Canary refers to


def _overruled(found: _Objects) -> Iterator[Finding]:
    """Routes that come before the split a Canary will make.  Once it is made, resources/traffic tells it of the split."""
    made = {(one.namespace, one.name) for one in found.traffic.splits}
    for one in found.canaries:
        canary_key = _canary_key(one)
        apex = (canary_key.namespace, one.apex)
        if canary_key not in found.by_split or apex in made:
            continue
        for route in found.traffic.routes:
            key = key_of(route)
            if key not in found.made and any(parent == apex for parent, _ in parents(route)):
                message = (
                    f"{key.kind} {key.name} is attached to Service {one.apex}, which Canary {one.metadata.name} shares out by "
                    "a TrafficSplit: routes come before splits, so a release would wait, and be rolled back"
                )
                hint = "say it in the Canary's spec.service (match, headers, timeout ...) instead"
                yield key, ("spec", "parentRefs"), message, hint


def _alerts(found: _Objects) -> Iterator[Finding]:
    for one in found.canaries:
        key = _canary_key(one)
        for index, alert in enumerate(one.analysis.alerts if one.analysis else ()):
            ref = alert.provider_ref
            where = ref.namespace or key.namespace
            if found.missing(Key(canary.GROUP, "AlertProvider", where, ref.name)):
                path: Path = ("spec", "analysis" if one.spec.analysis else "canaryAnalysis", "alerts", index, "providerRef")
                yield key, path, f"AlertProvider {where}/{ref.name} does not exist: the alert reaches nobody", ""
    for provider in found.providers:
        secret = provider.spec.secret_ref
        key = Key(canary.GROUP, "AlertProvider", provider.metadata.namespace or "default", provider.metadata.name)
        if secret is not None and found.missing(Key("", "Secret", key.namespace, secret.name)):
            yield key, ("spec", "secretRef"), f"Secret {secret.name} does not exist: no alert can be sent", ""


def _policies(found: _Objects) -> Iterator[Finding]:
    for one in found.policies.values():
        key = Key(releasepolicy.GROUP, releasepolicy.KIND, one.namespace, one.name)
        if found.missing(wanted := Key(canary.GROUP, "Canary", one.namespace, one.name)):
            message = f"there is no Canary {one.name} in namespace {one.namespace}: the policy says nothing about any"
            hint = found.hint(wanted)
            yield key, ("metadata", "name"), message, f"give it the Canary's name and namespace{'; ' * bool(hint)}{hint}"
        for index, member in enumerate(one.members):
            path: Path = ("spec", "members", index)
            if found.missing(wanted := Key(canary.GROUP, "Canary", one.namespace, member)):
                message = f"Canary {member} does not exist: there is nothing to release with {one.name}"
                yield key, path, message, found.hint(wanted)


def _judged(found: _Objects) -> Iterator[Finding]:
    """A baseline where nothing is compared."""
    for key, (spec, _) in found.releases.items():
        if not spec.skip_analysis:
            continue
        own, groups = found.policies_of(spec)
        if misfit(spec, own, groups) is not None:
            continue
        policy = own or (groups[0] if groups else None)
        if policy is not None and policy.evidence is not None and policy.evidence.baseline:
            where = Key(releasepolicy.GROUP, releasepolicy.KIND, policy.namespace, policy.name)
            message = f"has no effect on Canary {key.name}: it says skipAnalysis, so nothing is compared"
            yield where, ("spec", "evidence", "baseline"), message, ""


def _compared_instead(found: _Objects) -> Iterator[Finding]:
    """Thresholds that nothing is held against, because evidence judges the same numbers."""
    for key, (spec, obj) in found.releases.items():
        own, groups = found.policies_of(spec)
        policy = own or (groups[0] if groups else None)
        if policy is None or policy.evidence is None or spec.skip_analysis or misfit(spec, own, groups) is not None:
            continue
        if strategy(spec) is Strategy.BLUE_GREEN and not spec.mirror:
            continue  # the arms never serve at the same time: thresholds hold there
        names = list(dict.fromkeys(metric.name for metric in spec.metrics if metric.kind is Kind.BUILT_IN))
        if names:
            analysis = "analysis" if obj["spec"].get("analysis") else "canaryAnalysis"
            held = "are not held against their thresholds" if len(names) > 1 else "is not held against its threshold"
            beside = "an equal-sized copy of the primary" if policy.evidence.baseline else "the primary"
            message = (
                f"{' and '.join(names)} {held}: compared with {beside} instead (spec.evidence of ReleasePolicy {policy.name})"
            )
            yield (
                key,
                ("spec", analysis, "metrics"),
                message,
                "a metric with a query or a templateRef, and the checks of a policy's step, are held against their own",
            )


def _targets(found: _Objects) -> Iterator[Finding]:
    accounts = {(owner.namespace, spec.service_account_name or "default") for owner, _, _, spec in found.templates}
    for selected in found.traffic.targets:
        destination = selected.destination
        key = Key(traffictarget.GROUP, "TrafficTarget", destination.namespace, selected.name)
        if (destination.namespace, destination.name) not in accounts and not found.refused.may_run_as(
            destination.namespace, destination.name
        ):
            path: Path = ("spec", "destination", "name")
            names = sorted(name for namespace, name in accounts if namespace == destination.namespace)
            message = f"no pod has the service account {destination.name}: the target selects nothing"
            yield key, path, message, nearest(destination.name, names, SHORT)
        for source in selected.target.sources if selected.target is not None else ():
            account = Key("", "ServiceAccount", source.namespace, source.name)
            known = source.name == "default" or source.namespace == SYSTEM_NAMESPACE  # the mesh's own: its gateway
            if not known and found.missing(account):
                message = f"ServiceAccount {source.namespace}/{source.name} does not exist"
                yield key, ("spec", "sources"), message, found.hint(account)

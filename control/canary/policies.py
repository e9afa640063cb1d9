"""ReleasePolicies in the store -> what holds for one Canary: its own, that of its group, and how far the other members are."""

from __future__ import annotations

from control.canary.declared.fields import SpecError
from control.canary.declared.policy import GROUP, KIND, ReleasePolicy, in_force, misfit, parse
from control.canary.declared.spec import GROUP as CANARY_GROUP
from control.canary.declared.spec import KIND as CANARY_KIND
from control.canary.declared.spec import CanarySpec
from control.canary.declared.spec import parse as parse_canary
from control.canary.machine.group import Member, member
from control.canary.machine.status import Status
from control.canary.objects import manifests
from control.store.store import Key, Store


def policy_for(store: Store, spec: CanarySpec) -> ReleasePolicy | None:
    """What holds for this Canary, None if no policy does.  Raises SpecError if a policy that names it cannot be meant."""
    own = store.get(Key(GROUP, KIND, spec.namespace, spec.name))
    given = parse(own) if own is not None else None
    groups = _groups_of(store, spec.namespace, spec.name)
    if (problem := misfit(spec, given, groups)) is not None:
        raise SpecError(problem.text)
    return in_force(spec, given, groups[0] if groups else None)


def group_of(store: Store, namespace: str, name: str) -> ReleasePolicy | None:
    """The policy that releases this Canary together with others; None also where there are two: it is not run then."""
    found = _groups_of(store, namespace, name)
    return found[0] if len(found) == 1 else None


def _groups_of(store: Store, namespace: str, name: str) -> list[ReleasePolicy]:
    found: list[ReleasePolicy] = []
    for obj in store.list(GROUP, KIND, namespace):
        members = ((obj.get("spec") or {}).get("members")) or ()
        if members and (obj["metadata"]["name"] == name or name in members) and (policy := parse(obj)) is not None:
            found.append(policy)
    return found


def others(store: Store, spec: CanarySpec, policy: ReleasePolicy | None) -> tuple[Member, ...]:
    """How far the other members of its release are; a member that does not exist, or cannot be read, takes no part."""
    found: list[Member] = []
    for name in policy.members if policy is not None else ():
        obj = store.get(Key(CANARY_GROUP, CANARY_KIND, spec.namespace, name))
        if obj is None:
            continue
        try:
            other = parse_canary(obj)
            theirs = policy_for(store, other)
            status = Status.of(obj.get("status"))
        except ValueError:
            continue  # its own tick says what is wrong with it
        target = store.get(manifests.target_key(other))
        revision = manifests.revision(target) if target is not None and (target.get("spec") or {}).get("template") else ""
        found.append(member(name, status, revision, steps=len(theirs.steps) if theirs else 0))
    return tuple(found)

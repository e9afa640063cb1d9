"""ReleasePolicies in the store -> what holds for one Canary: its own, that of its group, and how far the other members are."""

from __future__ import annotations

from control.canary.declared.fields import SpecError
from control.canary.declared.policy import GROUP, KIND, ReleasePolicy, in_force, not_by_weights, parse, unfit
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
    group = group_of(store, spec.namespace, spec.name)
    if group is not None and (what := not_by_weights(spec)):
        text = f"Canary {spec.name} is released with others by ReleasePolicy {group.name}"
        raise SpecError(f"{text}: that goes by weights, and not with {what}")
    policy = in_force(spec, parse(own) if own is not None else None, group)
    if policy is not None and policy.evidence is not None and policy.evidence.baseline and (why := unfit(spec)):
        raise SpecError(f"ReleasePolicy {policy.name}: spec.evidence.baseline: {why}")
    return policy


def group_of(store: Store, namespace: str, name: str) -> ReleasePolicy | None:
    """The policy that releases this Canary together with others.  Raises SpecError if there are two."""
    found: list[ReleasePolicy] = []
    for obj in store.list(GROUP, KIND, namespace):
        members = ((obj.get("spec") or {}).get("members")) or ()
        if members and (obj["metadata"]["name"] == name or name in members) and (policy := parse(obj)) is not None:
            found.append(policy)
    if len(found) > 1:
        names = " and ".join(policy.name for policy in found)
        raise SpecError(f"Canary {name} is a member of two releases, ReleasePolicy {names}; it can be in one")
    return found[0] if found else None


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

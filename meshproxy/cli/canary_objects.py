"""What the verbs of `meshproxy canary` share: finding Canaries in a store, their status and their policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshproxy.cli.common import fail

if TYPE_CHECKING:
    from control.canary.declared.policy import ReleasePolicy
    from control.canary.declared.spec import CanarySpec
    from control.canary.machine.status import Status
    from control.store.store import Object, Store


def of_mesh(mesh: str | None) -> str:
    """What a command to be copied needs at its end so that it is about the same mesh."""
    return f" --name {mesh}" if mesh is not None else ""


def refresh(store: Store) -> None:
    from control.store.files import FileStore

    if isinstance(store, FileStore):
        store.refresh()


def canaries(store: Store, namespace: str | None, name: str | None) -> list[Object]:
    found = store.list("flagger.app", "Canary", namespace)
    if name is None:
        return list(found)
    named = [obj for obj in found if obj["metadata"]["name"] == name]
    if not named:
        where = f"in namespace {namespace}" if namespace else "in any namespace"
        others = sorted(
            {f"{o['metadata']['name']} -n {o['metadata']['namespace']}" for o in store.list("flagger.app", "Canary")}
        )
        raise fail(f"no canary {name} {where}" + (f"; there is {', '.join(others)}" if others else "; there are none at all"))
    return named


def one(store: Store, namespace: str | None, name: str) -> Object:
    found = canaries(store, namespace, name)
    if len(found) > 1:
        namespaces = ", ".join(obj["metadata"]["namespace"] for obj in found)
        raise fail(f"several canaries are called {name}; choose one with -n: {namespaces}")
    return found[0]


def status_of(canary: Object) -> Status:
    from control.canary.machine.status import Status

    try:
        return Status.of(canary.get("status"))
    except ValueError as error:
        raise fail(str(error)) from None


def read(store: Store, canary: Object) -> tuple[CanarySpec, ReleasePolicy | None]:
    """A Canary and the policy that holds for it; ends the verb if one of them cannot be meant."""
    from control.canary.declared.spec import SpecError, parse
    from control.canary.policies import policy_for

    try:
        spec = parse(canary)
        return spec, policy_for(store, spec)
    except SpecError as error:
        raise fail(f"canary {canary['metadata']['name']} is not run until this is mended: {error}") from None

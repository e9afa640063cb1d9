"""`meshproxy canary approve | pause | resume | abort | retry | promote`: orders, written as annotations on the Canary.

    verb --has it an effect now?--> "<revision> <time> ... by <who>: <reason>"  --apply, as manager "cli"-->  the controller

Nothing here talks to the controller: it reads the annotation, as it would in Kubernetes.  So whether it will obey is asked
here, by its own rules: an order that would do nothing (nothing runs, it was given already, the Canary is suspended) is refused
with the reason and status 1, as kubectl refuses to resume what is not paused.  `abort` is the emergency brake: a suspended
Canary obeys it too.  Members of one release are promoted and retried together; to abort or pause one holds the others anyway
(control/canary/machine/group.py), but for those that are suspended: these are aborted with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from meshproxy.cli import canary_objects, canary_standing
from meshproxy.cli.canary_asked import Asked
from meshproxy.cli.common import fail, find_mesh, mesh_option, namespace_options, open_store

if TYPE_CHECKING:
    from control.store.store import Object, Store


Verb = Callable[[Asked], dict[str, str]]


def register(group: click.Group) -> None:
    """Put the verbs into `meshproxy canary`."""
    for name, help, function, together in _VERBS:
        group.add_command(_command(name, help, function, together), name)


def _command(name: str, help: str, function: Verb, together: bool) -> click.Command:
    done = function.__name__.lstrip("_")

    @click.command(name, help=help)
    @click.argument("name")
    @click.option("--reason", default="", metavar="TEXT", help="Why; kept in the history with who and when.")
    @click.option("--by", default="", metavar="WHO", help="Who, if it is not the user that is logged in.")
    @mesh_option
    @namespace_options
    def command(name: str, reason: str, by: str, mesh: str | None, namespace: str | None) -> None:
        from control.canary.declared.commands import signed

        store = open_store(find_mesh(mesh))
        signature = signed(by or _user(), reason)
        asked = Asked(store, canary_objects.one(store, namespace, name), signature)
        orders = [(asked, function(asked))]
        for other in asked.policy.members if asked.policy and (together or function is _aborting) else ():
            orders += _of_member(store, asked, other, function, together)
        for whose, order in orders:
            _write(store, whose.canary, order)
            click.echo(f"canary.flagger.app/{whose.name} {done}{_effect(whose, order)}")

    return command


def _of_member(store: Store, asked: Asked, name: str, function: Verb, together: bool) -> list[tuple[Asked, dict[str, str]]]:
    """The same order for another member, if it makes sense there.  Not `together`: if that looks at nobody else."""
    try:
        other = Asked(store, canary_objects.one(store, asked.namespace, name), asked.signature)
        return [(other, function(other))] if together or other.suspended else []
    except click.ClickException:
        return []  # nothing is released there


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a uid without a name
        return "somebody"


def _effect(asked: Asked, annotations: dict[str, str]) -> str:
    """What is to be added to the answer: when it has its effect, where that is not at once."""
    from control.canary.declared.commands import ANNOTATION_ABORT, ANNOTATION_APPROVE, ANNOTATION_PAUSE, Command
    from control.canary.machine.status import Phase

    now, pause = asked.now, annotations.get(ANNOTATION_PAUSE, "")
    if ANNOTATION_ABORT in annotations and asked.suspended:
        return " (it stays suspended)"
    if canary_standing.is_held(now) or canary_standing.returns_by_steps(asked.canary, asked.read, now):
        soon = f"from the next look on, within {canary_standing.interval(asked.canary)}"
        approved = Command.parse(annotations.get(ANNOTATION_APPROVE, ""))
        if approved is not None and asked.orders.pause:
            return f" ({canary_standing.named(approved.gate)}; paused: its weight stays until it is resumed)"
        if approved is not None:
            return f" ({canary_standing.named(approved.gate)})"
        return f" ({soon})" if pause.startswith("false") and now.phase is not Phase.WAITING else ""
    if pause.startswith("true"):
        late = now.phase in (Phase.PROMOTING, Phase.FINALISING)
        why = "its promotion is not held" if late else "nothing to hold now"
        return f" ({now.phase or 'new'}, {why}: the next release will wait)"
    return ""


# ---------------------------------------------------------------- the verbs


def _paused(asked: Asked) -> dict[str, str]:
    from control.canary.declared.commands import ANNOTATION_PAUSE
    from control.canary.machine.status import ENDING

    if asked.orders.pause:
        raise fail(f"canary {asked.name} is already paused{asked.orders.pause_signature.suffix}")
    asked.need(asked.now.phase not in ENDING, "it is being deleted")
    return {ANNOTATION_PAUSE: f"true {asked.signature}".rstrip()}


def _resumed(asked: Asked) -> dict[str, str]:
    from control.canary.declared.commands import ANNOTATION_PAUSE

    if not asked.orders.pause:
        raise fail(f"canary {asked.name} is not paused ({asked.now.phase or 'new'})")
    return {ANNOTATION_PAUSE: f"false {asked.signature}".rstrip()}


def _aborting(asked: Asked) -> dict[str, str]:
    from control.canary.declared.commands import ANNOTATION_ABORT
    from control.canary.machine.status import Phase

    why_not = "there is no release to abort"
    if asked.now.phase in (Phase.PROMOTING, Phase.FINALISING):
        why_not = "it passed its analysis and is being promoted, too late to abort"
    elif _promotion_failed(asked):
        why_not = (
            "its promotion failed, and its pods are all that can answer; `promote` tries it again, a new revision replaces it"
        )
    asked.need(canary_standing.is_held(asked.now), why_not)
    asked.need_obedience(brake=True)
    asked.need_new(asked.orders.abort, "its abort is ordered")
    return {ANNOTATION_ABORT: asked.order()}


def _promoting(asked: Asked) -> dict[str, str]:
    from control.canary.declared.commands import ANNOTATION_PROMOTE
    from control.canary.machine.status import Phase

    why_not = "there is no release to promote"
    if asked.now.phase in (Phase.PROMOTING, Phase.FINALISING):
        why_not = "it is being promoted already"
    elif asked.now.phase is Phase.FAILED:
        why_not = "it was rolled back, there is nothing to promote; `retry` releases the same revision once more"
    asked.need(_promotion_failed(asked) or canary_standing.is_held(asked.now), why_not)
    asked.need_obedience()
    asked.need_new(asked.orders.promote, "its promotion is ordered")
    return {ANNOTATION_PROMOTE: asked.order()}


def _promotion_failed(asked: Asked) -> bool:
    from control.canary.machine.status import Phase

    return asked.now.phase is Phase.FAILED and asked.now.canary_weight == 100


def _retrying(asked: Asked) -> dict[str, str]:
    from control.canary.declared.commands import ANNOTATION_RETRY
    from control.canary.machine.status import Phase

    aborted = canary_standing.is_held(asked.now) and canary_standing.pending(asked.orders.abort, asked.now)
    asked.need(not aborted, "its abort is ordered and not done yet; `status NAME --wait failed` waits for that")
    asked.need(asked.now.phase is Phase.FAILED, "there is no failed release to retry")
    asked.need(not _promotion_failed(asked), "its promotion failed; `promote` tries that again")
    asked.need_obedience()
    revision = asked.target_revision()
    asked.need(revision != asked.now.last_promoted, "its target is what the primary runs: there is nothing to release")
    asked.need(revision == asked.now.last_applied, "its target has changed since: that is a new release, and begins by itself")
    asked.need_new(asked.orders.retry, "its retry is ordered")
    return {ANNOTATION_RETRY: asked.order()}


def _approved(asked: Asked) -> dict[str, str]:
    from control.canary.declared.commands import ANNOTATION_APPROVE
    from control.canary.machine.gates import gate_it_waits_at, hooks_it_waits_for
    from control.canary.machine.status import PROMOTED

    gate = gate_it_waits_at(asked.spec, asked.now, asked.policy)
    if not gate:
        hooks = " and ".join(f"webhook {hook.name!r} ({hook.url})" for hook in hooks_it_waits_for(asked.spec, asked.now))
        said = asked.now.condition(PROMOTED)
        waits = said is not None and canary_standing.is_held(asked.now) and said.message.startswith("Waiting for ")
        other = f" that a person opens. {said.message}" if waits and said is not None else ""
        paused = (
            "; it is paused, and `resume` lets it go on" if asked.orders.pause and canary_standing.is_held(asked.now) else ""
        )
        asked.need(False, f"it waits for {hooks}; open it there" if hooks else f"it waits at no gate{other}{paused}")
    asked.need_obedience()
    asked.need_new(asked.orders.approve, f"{canary_standing.named(gate)} is approved", gate)
    return {ANNOTATION_APPROVE: asked.order(gate)}


_VERBS: tuple[tuple[str, str, Verb, bool], ...] = (
    (
        "approve",
        "Open the gate a release waits at: of meshproxy.dev/confirm, or a (promotion) step with `pause`.",
        _approved,
        False,
    ),
    ("pause", "Hold the weight of a release where it is.  Checks go on: a bad release is still rolled back.", _paused, False),
    ("resume", "Let a paused release go on.", _resumed, False),
    ("abort", "Roll a running release back now.", _aborting, False),
    ("retry", "Release the revision that failed once more, from the first weight.", _retrying, True),
    ("promote", "Promote a running release now, skipping the rest of its analysis.", _promoting, True),
)


def _write(store: Store, canary: Object, annotations: dict[str, str]) -> None:
    """Apply annotations, keeping those the command line wrote before: what an apply no longer names is dropped."""
    import asyncio

    from control.canary.declared.commands import (
        ANNOTATION_ABORT,
        ANNOTATION_APPROVE,
        ANNOTATION_PROMOTE,
        ANNOTATION_RETRY,
        ORDERS,
    )
    from control.store.store import StoreError

    present = canary["metadata"].get("annotations") or {}
    # Times have whole seconds: a retry within the second of the abort before it would be a run that the abort is about as well.
    spent = (ANNOTATION_ABORT, ANNOTATION_PROMOTE, ANNOTATION_APPROVE) if ANNOTATION_RETRY in annotations else ()
    kept = {name: present[name] for name in ORDERS if name in present and name not in spent}
    metadata = {
        "name": canary["metadata"]["name"],
        "namespace": canary["metadata"]["namespace"],
        "annotations": {**kept, **annotations},
    }
    try:
        asyncio.run(_apply(store, {"apiVersion": canary["apiVersion"], "kind": canary["kind"], "metadata": metadata}))
    except StoreError as error:
        raise fail(str(error)) from None


async def _apply(store: Store, obj: Object) -> None:
    await store.apply(obj)

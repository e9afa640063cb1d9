"""What a person's orders make of a release before the controller has looked, in words.

annotations + status --still to come?--> "Paused (by ann: lunch)."  "Resumed (by bob), from the next look on, within 4s."  ...
                     --obeyed---------->  what the status says

The status is as old as the last look, up to an interval; what was ordered since is true all the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from meshproxy.cli import canary_objects

if TYPE_CHECKING:
    from control.canary.declared.commands import Command, Commands
    from control.canary.declared.policy import ReleasePolicy
    from control.canary.declared.spec import CanarySpec
    from control.canary.machine.status import Status
    from control.store.store import Object, Store

_PAUSED = "Paused"  # how the machine's message of a paused release begins
_FAILED_PROMOTION = "Promotion of "  # how its entry in the history does, of a promotion that failed


def commands_of(canary: Object) -> Commands:
    from control.canary.declared.commands import Commands

    return Commands.of(canary["metadata"].get("annotations") or {})


def is_held(now: Status) -> bool:
    """Is there a release whose weight a pause holds, and that can be aborted?"""
    from control.canary.machine.status import ANALYSED, Phase

    return now.phase is Phase.WAITING or now.phase in ANALYSED


def returns_by_steps(canary: Object, read: tuple[CanarySpec, ReleasePolicy | None] | None, now: Status) -> bool:
    """Is it promoted by steps, which a pause holds?  Not where a person ordered the promotion."""
    from control.canary.machine.status import Phase

    if now.phase is not Phase.PROMOTING or read is None or pending(commands_of(canary).promote, now):
        return False
    spec, policy = read
    return spec.routed and bool(spec.step_weight_promotion or (policy is not None and policy.promotion_steps))


def pending(order: Command | None, now: Status, gate: str = "") -> bool:
    """Was this ordered in the present run (and, of an approval, for this gate)?  By the rule of the machine."""
    if order is None or order.gate != gate:
        return False
    return order.revision == now.last_applied and order.at >= now.run_started


def is_suspended(canary: Object) -> bool:
    return (canary.get("spec") or {}).get("suspend") is True


def interval(canary: Object) -> str:
    return str(((canary.get("spec") or {}).get("analysis") or {}).get("interval") or "60s")


def gate_of(store: Store, canary: Object, now: Status) -> str:
    """The gate it waits at that a person opens, "" if there is none (or its manifests cannot be read)."""
    from control.canary.machine.gates import gate_it_waits_at

    read = _read(store, canary)
    return gate_it_waits_at(read[0], now, read[1]) if read is not None else ""


def _read(store: Store, canary: Object) -> tuple[CanarySpec, ReleasePolicy | None] | None:
    try:
        return canary_objects.read(store, canary)
    except click.ClickException:
        return None


def named(gate: str) -> str:
    """ "step/2" -> "step 2", "traffic-increase/20" -> "traffic-increase at weight 20" """
    what, mark, number = gate.partition("/")
    if what in ("step", "promotion-step"):
        return f"{what.replace('-', ' ')} {number}"
    return f"{what} at weight {number}" if mark else what


def message(store: Store, canary: Object) -> str:
    """Why it is not run, else what was ordered and not looked at yet, else what its phase means (of a failure its cause)."""
    told = {c.get("type"): c for c in (canary.get("status") or {}).get("conditions") or ()}
    if refused := str((told.get("Accepted") or {}).get("message", "")):
        return refused
    said = str((told.get("Promoted") or {}).get("message", ""))
    suspended = "Suspended (spec.suspend): nothing is decided about it." if is_suspended(canary) else ""
    from control.canary.machine.status import Status

    try:
        now = Status.of(canary.get("status"))
    except ValueError:  # another controller's phase
        return said
    if suspended:
        aborting = _aborting(commands_of(canary), now)
        return f"{suspended} {aborting or said}".rstrip()
    return _ordered(store, canary, now, said) or _at_rest(store, canary, now, said)


def _ordered(store: Store, canary: Object, now: Status, said: str) -> str:
    """Of a release under way: the order that holds, "" if what the status says is all."""
    orders = commands_of(canary)
    if not is_held(now) and not returns_by_steps(canary, _read(store, canary), now):
        return ""
    if aborting := _aborting(orders, now):
        return aborting
    if pending(orders.promote, now) and orders.promote is not None:
        return f"Promoting, as ordered{orders.promote.signature.suffix}."
    gate = gate_of(store, canary, now)
    soon = f"from the next look on, within {interval(canary)}"
    if orders.pause:
        from control.canary.machine.status import Phase

        held = f"{_PAUSED}{orders.pause_signature.suffix}."
        return f"{said} {held}" if now.phase is Phase.WAITING else held
    if gate and pending(orders.approve, now, gate) and orders.approve is not None:
        return f"Approved {named(gate)}{orders.approve.signature.suffix}: goes on {soon}, if its checks pass."
    if said.startswith(_PAUSED):
        return f"Resumed{orders.pause_signature.suffix}, {soon}."
    return ""


def _aborting(orders: Commands, now: Status) -> str:
    """The one order that also holds for what is suspended."""
    return f"Aborting{orders.abort.signature.suffix}." if orders.abort and is_held(now) and pending(orders.abort, now) else ""


def _at_rest(store: Store, canary: Object, now: Status, said: str) -> str:
    from control.canary.machine.status import Phase

    orders = commands_of(canary)
    if now.phase is Phase.FAILED:
        again = orders.promote if now.canary_weight == 100 else orders.retry
        if pending(again, now) and again is not None:
            return f"{'Promoting' if again is orders.promote else 'Releasing'} once more{again.signature.suffix}."
        if why := cause(store, canary, now):
            said = f"{said.rstrip('.')}: {why}"
    if orders.pause and not is_held(now):
        said = f"{said} The next release will wait: paused{orders.pause_signature.suffix}.".lstrip()
    return said


def cause(store: Store, canary: Object, now: Status) -> str:
    """Of a release that failed: what ended it, and the check that did; "" if the history does not say."""
    from control.canary.history import decisions, policy_key

    name, namespace = canary["metadata"]["name"], canary["metadata"]["namespace"]
    told = [entry for entry in decisions(store.get(policy_key(namespace, name))) if entry.get("revision") == now.last_applied]
    if not told or told[-1].get("phase") != now.phase.value:
        return ""
    last = str(told[-1].get("message", "")).removeprefix(f"Rolling back {name}.{namespace} ")
    if last.startswith(_FAILED_PROMOTION):  # "Promotion of podinfo.shop failed, primary not ready: ...": the status says that
        last = last.partition(": ")[2]
    halts = [str(entry["message"]) for entry in told if str(entry.get("message", "")).startswith("Halt ")]
    if not last.startswith("failed checks threshold") or not halts:
        return last
    return f"{last}, {halts[-1].removeprefix('Halt ').removeprefix(f'{name}.{namespace} ').removeprefix('advancement ')}"

"""A release that a person has paused (`meshproxy canary pause`): its weight stays, all else goes on.

paused -> hold() ends the tick, and says so     resumed -> resumed() says who wanted it
"""

from __future__ import annotations

from control.canary.machine.draft import Draft, Stop
from control.canary.machine.status import PROMOTED

_PAUSED = "Paused"  # how the message of a paused release begins


def hold(draft: Draft) -> None:
    """Ends the tick while it is paused.  Told at each tick; the history has it once, with who wanted it and why."""
    if not draft.facts.commands.pause:
        return
    spec, before = draft.spec, draft.status
    suffix = draft.facts.commands.pause_signature.suffix
    draft.status = before.says(f"{_PAUSED}{suffix}.", draft.now)
    text = f"Canary {spec.full_name} is paused at weight {before.canary_weight:g}"
    if draft.status != before:
        draft.record(text + suffix)
        raise Stop
    draft.stop(text)


def resumed(draft: Draft) -> None:
    """It goes on: says so if it was paused until now."""
    said = draft.status.condition(PROMOTED)
    if said is not None and said.message.startswith(_PAUSED):
        draft.status = draft.status.says("", draft.now)
        draft.record(f"Canary {draft.spec.full_name} is resumed{draft.facts.commands.pause_signature.suffix}")

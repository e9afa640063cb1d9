"""What an order of `meshproxy canary` is about: the Canary as it is now, and whether the controller would obey.

Canary, ReleasePolicy, orders given so far  -->  Asked  --need, need_obedience, need_new-->  an error that says why not
                                                        --order-->  the text of the annotation
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from meshproxy.cli import canary_objects, canary_standing
from meshproxy.cli.common import fail

if TYPE_CHECKING:
    from control.canary.declared.commands import Command, Commands, Signature
    from control.canary.declared.policy import ReleasePolicy
    from control.canary.declared.spec import CanarySpec
    from control.canary.machine.status import Status
    from control.store.store import Object, Store


class Asked:
    """What a verb looks at: the Canary as it is now, and who wants something of it."""

    def __init__(self, store: Store, canary: Object, signature: Signature) -> None:
        self.store = store
        self.canary = canary
        self.signature = signature
        self.name: str = canary["metadata"]["name"]
        self.now: Status = canary_objects.status_of(canary)
        self.namespace: str = canary["metadata"].get("namespace") or "default"
        self.wrong: click.ClickException | None = None  # why it cannot be meant; it can be aborted and held all the same
        self.read: tuple[CanarySpec, ReleasePolicy | None] | None = None
        try:
            self.read = canary_objects.read(store, canary)
        except click.ClickException as error:
            self.wrong = error

    @property
    def spec(self) -> CanarySpec:
        """Raises ClickException."""
        if self.read is None:
            assert self.wrong is not None
            raise self.wrong
        return self.read[0]

    @property
    def policy(self) -> ReleasePolicy | None:
        return self.read[1] if self.read is not None else None

    @property
    def orders(self) -> Commands:
        """Those given so far."""
        return canary_standing.commands_of(self.canary)

    @property
    def suspended(self) -> bool:
        return canary_standing.is_suspended(self.canary)

    def need(self, possible: bool, why_not: str) -> None:
        if not possible:
            raise fail(f"canary {self.name} is {self.now.phase or 'new'}: {why_not}")

    def need_new(self, order: Command | None, what: str, gate: str = "") -> None:
        """The same order a second time in one run would change nothing but who gave it, and why."""
        if order is not None and canary_standing.pending(order, self.now, gate):
            self.need(False, f"{what} already{order.signature.suffix}")

    def need_obedience(self, *, brake: bool = False) -> None:
        """The controller obeys only what names the revision that it releases, on a Canary that it runs at all.  `brake`: the
        order is obeyed while that is suspended, and then whatever its target says by now."""
        from control.canary.machine.status import ACCEPTED, RUNNING

        self.need(brake or not self.suspended, "and suspended (spec.suspend): no order is obeyed but `abort`")
        refused = self.now.condition(ACCEPTED)
        if refused is not None and refused.status == "False":
            raise fail(f"canary {self.name} is not run until this is mended: {refused.message}")
        if self.now.phase not in RUNNING and self.wrong is not None:
            raise self.wrong
        if canary_standing.is_held(self.now) and self.wrong is None and not self.suspended:
            same = self.target_revision() in ("", self.now.last_applied)
            self.need(same, "its target has just changed, which begins a new release; say it again when that has begun")

    def order(self, gate: str = "") -> str:
        from control.canary.declared.commands import Command

        return str(Command(self.now.last_applied, time.time(), gate, self.signature))

    def target_revision(self) -> str:
        from control.canary.objects import manifests
        from control.store.store import Key

        target = self.store.get(Key("apps", self.spec.target_kind, self.spec.namespace, self.spec.target))
        return manifests.revision(target) if target is not None and (target.get("spec") or {}).get("template") else ""

"""Which Canaries there are and what they say, read again only where one has changed: a thousand at rest cost little.

Canaries in the store --> targets   target -> the one Canary that may move it
                      --> running   subjects of the releases that run: their metrics are gathered
what is held in it    --> left      of these, what is held for a Canary that is gone
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from control.canary.declared.spec import GROUP, KIND, CanarySpec, Flags, parse
from control.canary.machine.status import INITIAL, RUNNING, Phase, Status
from control.canary.measuring.source import Subject
from control.canary.objects import manifests
from control.store.store import Key, Object, Store


@dataclass(frozen=True, slots=True)
class _Entry:
    """`spec`, `phase`: None where they cannot be read; the Canary's own tick says why."""

    obj: Object
    spec: CanarySpec | None
    phase: Phase | None


class Register:
    """Remembers as many Canaries as `keep_only` leaves it; all of it can be lost."""

    def __init__(self, flags: Flags) -> None:
        self._flags = flags
        self._entries: dict[Key, _Entry] = {}

    def parse(self, obj: Object) -> CanarySpec:
        """Raises SpecError."""
        return self._entry(obj).spec or self._parse(obj)

    def targets(self, canaries: Sequence[Object]) -> dict[Key, Key]:
        """Target -> the one Canary that may move it: one that already does, else the first by name."""
        owners: dict[Key, tuple[bool, Key]] = {}
        for obj in canaries:
            entry = self._entry(obj)
            if entry.spec is not None and entry.phase is not None:
                claim = (entry.phase in INITIAL, Key.of(obj))
                target = manifests.target_key(entry.spec)
                owners[target] = min(owners.get(target, claim), claim)
        return {target: key for target, (_, key) in owners.items()}

    def running(self, canaries: Sequence[Object], meant_before: Callable[[Key], CanarySpec | None]) -> set[Subject]:
        """`meant_before`: by which a release goes on whose Canary cannot be read any more."""
        found = set()
        for obj in canaries:
            entry = self._entry(obj)
            if entry.phase is not None and entry.phase not in RUNNING:
                continue
            spec = entry.spec if entry.phase is not None else None
            if (spec := spec or meant_before(Key.of(obj))) is not None:
                found.add(Subject.of(spec))
        return found

    def keep_only(self, present: Container[Key]) -> None:
        self._entries = {key: entry for key, entry in self._entries.items() if key in present}

    def _entry(self, obj: Object) -> _Entry:
        key = Key.of(obj)
        found = self._entries.get(key)
        if found is None or found.obj is not obj:  # a store replaces what has changed, and never alters it
            spec = phase = None
            with suppress(ValueError):
                spec = self._parse(obj)
            with suppress(ValueError):
                phase = Status.of(obj.get("status")).phase
            found = self._entries[key] = _Entry(obj, spec, phase)
        return found

    def _parse(self, obj: Object) -> CanarySpec:
        return replace(parse(obj), flags=self._flags)


def left(store: Store, present: Container[Key]) -> Iterator[tuple[Key, Object]]:
    """(the Canary that is gone, an object of which something is held for it), however long it is gone."""
    for obj in [obj for group, kind in manifests.HELD_KINDS for obj in store.list(group, kind)]:
        name = manifests.held_for(obj)
        canary = Key(GROUP, KIND, obj["metadata"].get("namespace") or "default", name)
        if name and canary not in present:
            yield canary, obj

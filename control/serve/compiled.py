"""The source of configuration over a store: compile after each batch of changes, tell the streams if something differs.

store --changes--> compile_snapshot (memoised) --other hashes?--> subscribers wake, each stream takes its own diff
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from control.compile.settings import Settings
from control.compile.snapshot import Compiled, Memo, compile_snapshot
from control.serve.source import ConfigSource, ResourceKey, Resources
from control.store.store import Change, Diagnostic, Store

log = logging.getLogger("meshproxy.control.compile")


class CompiledSource(ConfigSource):
    """Compiled at once and after each change of `store`; `settings` is asked each time."""

    def __init__(self, store: Store, settings: Callable[[], Settings]) -> None:
        self.compilations = 0
        self.errors = 0  # compilations that raised: bugs, since compiling is total
        self._store = store
        self._settings = settings
        self._memo = Memo()
        self._compiled: Compiled = compile_snapshot(store.all(), settings(), self._memo)
        self._hashes = _hashes(self._compiled)
        self._subscribers: list[Callable[[], None]] = []
        self._said: set[str] = set()
        self._say(self._compiled.diagnostics)
        store.watch(self._changed)

    @property
    def diagnostics(self) -> Sequence[Diagnostic]:
        """Of the last compilation."""
        return self._compiled.diagnostics

    @property
    def size(self) -> int:
        """Resources of the whole mesh."""
        return len(self._hashes)

    def resources_for(self, namespace: str, pod: str) -> Resources:
        return self._compiled.resources_for(namespace, pod)

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    def recompile(self) -> None:
        """Compile now: the settings have changed."""
        try:
            compiled = compile_snapshot(self._store.all(), self._settings(), self._memo)
        except Exception:  # compiling is total, so this is a bug: the last good configuration stays in force, counted
            self.errors += 1
            log.exception("compiling failed; the last good configuration stays in force")
            return
        self.compilations += 1
        self._compiled = compiled
        self._say(compiled.diagnostics)
        hashes = _hashes(compiled)
        if hashes == self._hashes:  # most changes are of status, which no proxy wants
            return
        self._hashes = hashes
        for subscriber in tuple(self._subscribers):
            subscriber()

    def _changed(self, changes: Sequence[Change]) -> None:
        self.recompile()

    def _say(self, diagnostics: Sequence[Diagnostic]) -> None:
        """Log each diagnostic once while it lasts."""
        now = {str(diagnostic) for diagnostic in diagnostics}
        for line in sorted(now - self._said):
            log.warning("%s", line)
        self._said = now


def _hashes(compiled: Compiled) -> dict[ResourceKey, str]:
    return {(int(kind), name): resource.hash for (kind, name), resource in compiled.resources.items()}

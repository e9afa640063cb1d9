"""A refused edit of a manifest as an Event about the object it was meant for; another when it is cured.

errors of the accepting store --look()--> Warning ManifestRefused   once for each mistake
                                      --> Normal  ManifestAccepted  when the object's manifest is taken again
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from control.store.eventlog import MAX_MESSAGE
from control.store.files import FileStore
from control.store.store import Diagnostic, Key, StoreError

log = logging.getLogger("meshproxy.control")

REFUSED: Final = "ManifestRefused"
ACCEPTED: Final = "ManifestAccepted"
MAX_TOLD: Final = 100  # objects told of at a time; `meshproxy lint` has all
INTERVAL: Final = 1.0  # s between looks


class ManifestEvents:
    def __init__(self, store: FileStore) -> None:
        self.errors = 0  # events that could not be written
        self._store = store
        self._told: dict[Key, tuple[str, str]] = {}

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(INTERVAL)

    async def look(self) -> None:
        """Tell what changed since the last look."""
        refused = self._refused()
        for key in [key for key in self._told if key not in refused]:
            del self._told[key]
            if self._store.takes(key):  # otherwise it is gone from the manifests
                await self._event(key, "Normal", ACCEPTED, "the manifest is accepted again")
        for key, mistake in refused.items():
            known = self._told.get(key)
            what = (mistake.field, mistake.message)  # without the line: text above it may come and go
            if known == what or (known is None and len(self._told) >= MAX_TOLD):
                continue
            self._told[key] = what
            text = str(mistake)[:MAX_MESSAGE]
            if known is not None or self._last(key) != (REFUSED, text):  # not again after a restart
                await self._event(key, "Warning", REFUSED, text)

    def _refused(self) -> dict[Key, Diagnostic]:
        """The first error of each object; one of a whole file is about all that was accepted from it."""
        found: dict[Key, Diagnostic] = {}
        for diagnostic in self._store.manifest_diagnostics():
            if diagnostic.severity == "error":
                for key in [diagnostic.key] if diagnostic.key is not None else self._store.taken_from(diagnostic.file):
                    found.setdefault(key, diagnostic)
        return found

    def _last(self, key: Key) -> tuple[str, str] | None:
        for event in reversed(self._store.events(key)):
            if event["reason"] in (REFUSED, ACCEPTED):
                return event["reason"], event["message"]
        return None

    async def _event(self, key: Key, kind: str, reason: str, message: str) -> None:
        try:
            await self._store.event(key, kind, reason, message)
        except (StoreError, OSError) as failure:  # an event is only a message
            if self.errors == 0:
                log.warning("%s: %s", key, failure)
            self.errors += 1

"""What the accepting process found wrong, for the others: `accepted/.report.json`, replaced when it differs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import msgspec

from control.store import records
from control.store.store import Diagnostic, Key, StoreError

log = logging.getLogger("meshproxy.store")


class AcceptReport:
    """`diagnostics` as of the last `read` or `write`; `at`: when (Unix time) a process last wrote one, None: never."""

    def __init__(self, directory: Path) -> None:
        self.diagnostics: list[Diagnostic] = []
        self.at: float | None = None
        self.errors = 0
        self._path = directory / ".report.json"
        self._written = False
        self._stamp: tuple[int, int] = (0, 0)

    def write(self, diagnostics: list[Diagnostic], now: float) -> None:
        """Always the first time: it tells the others that this process has looked."""
        if self._written and diagnostics == self.diagnostics:
            return
        content = {"at": now, "diagnostics": [_portable(diagnostic) for diagnostic in diagnostics]}
        try:
            records.write(self._path, msgspec.json.encode(content), private=False)
        except StoreError as failure:
            self._failed(str(failure))
            return
        self.diagnostics, self.at, self._written = diagnostics, now, True

    def read(self) -> None:
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp == self._stamp:
                return
            content = msgspec.json.decode(self._path.read_bytes())
            self.diagnostics = [_restored(item) for item in content["diagnostics"]]
            self.at = float(content["at"])
            self._stamp = stamp
        except FileNotFoundError:
            return
        except (msgspec.DecodeError, KeyError, TypeError, ValueError) as failure:
            self._failed(f"{self._path} is damaged: {failure}")

    def _failed(self, why: str) -> None:
        if self.errors == 0:
            log.warning("%s", why)
        self.errors += 1


def _portable(diagnostic: Diagnostic) -> dict[str, Any]:
    key = diagnostic.key
    return {
        "severity": diagnostic.severity,
        "file": diagnostic.file,
        "line": diagnostic.line,
        "field": diagnostic.field,
        "message": diagnostic.message,
        "hint": diagnostic.hint,
        "key": [key.group, key.kind, key.namespace, key.name] if key else None,
    }


def _restored(item: dict[str, Any]) -> Diagnostic:
    key = Key(*item["key"]) if item["key"] else None
    return Diagnostic(item["severity"], item["file"], item["line"], item["field"], item["message"], item["hint"], key)

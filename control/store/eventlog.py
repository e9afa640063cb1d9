"""Kubernetes Events in files: `events/<manager>.log`, one JSON event a line, the last line of a name wins.

event() --append under a lock--> <manager>.log --tail, by every process--> the newest 1,000, oldest first
                                    |
                                    +-- past 1 MiB: rewritten with what is still kept
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from control.store import records
from control.store.store import Object, StoreError

MAX_EVENTS = 1_000
MAX_LOG_BYTES = 1024 * 1024  # about 2,500 lines; then rewritten
MAX_MESSAGE = 1_024  # characters, as Kubernetes


@dataclass(slots=True)
class _Tail:
    inode: int = 0
    offset: int = 0


class EventLog:
    """Events of all managers, read as they grow."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._tails: dict[str, _Tail] = {}
        self._events: dict[tuple[str, str], Object] = {}  # (manager, name) -> event

    def all(self) -> list[Object]:
        """Oldest first."""
        return sorted(self._events.values(), key=lambda event: str(event.get("eventTime", "")))

    def refresh(self) -> None:
        try:
            names = [
                entry.name for entry in os.scandir(self._directory) if entry.name.endswith(".log") and entry.name[0] != "."
            ]
        except FileNotFoundError:
            return
        for name in names:
            self._read(name)
        if len(self._events) > MAX_EVENTS:
            oldest = sorted(self._events, key=lambda key: str(self._events[key].get("eventTime", "")))
            for key in oldest[: len(self._events) - MAX_EVENTS]:
                del self._events[key]

    def _read(self, name: str) -> None:
        path = self._directory / name
        tail = self._tails.setdefault(name, _Tail())
        try:
            status = path.stat()
            if status.st_ino == tail.inode and status.st_size == tail.offset:
                return
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != tail.inode or status.st_size < tail.offset:
                    tail.offset = 0  # rewritten
                file.seek(tail.offset)
                data = file.read(2 * MAX_LOG_BYTES)
        except FileNotFoundError:
            return
        tail.inode = status.st_ino
        end = data.rfind(b"\n") + 1  # a line still being written is left for the next time
        tail.offset += end
        for line in data[:end].splitlines():
            try:
                event: Any = msgspec.json.decode(line)
                self._events[name, event["metadata"]["name"]] = event
            except (msgspec.DecodeError, KeyError, TypeError):
                continue  # a torn line after a crash: an event is only a message

    def append(self, manager: str, event: Object) -> None:
        """Raises StoreError."""
        path = self._directory / f"{manager}.log"
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            with self._locked():
                line = msgspec.json.encode(event) + b"\n"
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
                try:
                    size = os.fstat(descriptor).st_size + os.write(descriptor, line)
                finally:
                    os.close(descriptor)
                self.refresh()
                if size > MAX_LOG_BYTES:
                    kept = [event for (name, _), event in self._events.items() if name == path.name]
                    kept.sort(key=lambda event: str(event.get("eventTime", "")))
                    records.write(path, b"".join(msgspec.json.encode(event) + b"\n" for event in kept), private=False)
        except OSError as failure:
            raise StoreError(f"cannot write {path}: {failure.strerror or failure}") from failure

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self._directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # held for one append
            yield
        finally:
            os.close(descriptor)

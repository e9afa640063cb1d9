"""Taking over what stands in the user's directory.  Only one process does: the one that holds the lock.

in the directory   in `accepted/`
---------------------------------------------------------------------------------------------------
good               written, if it differs
refused            what was accepted before stays; a TrafficTarget of which nothing was: what closes its destination
not there          stays while its file cannot be read to the end, or the directory is empty or out of reach;
                   otherwise deleted after GRACE (at once if it came from another directory); while a manager's
                   finalizer holds it, it stays with a deletionTimestamp, and what is written anew waits
"""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from control.resources.access import refused
from control.resources.documents import Path as FieldPath
from control.resources.validate import Review, review
from control.store.overlay import base_of, counted, finalized
from control.store.records import ACCEPTED, Record, identity, timestamp
from control.store.store import Diagnostic, Key, Object, StoreError
from control.store.tree import RecordTree
from control.store.userfiles import UserFiles

GRACE = 1.0  # seconds an object may be missing from the user's files before it is deleted (editors move files about)


class AcceptingLock:
    """Held by the accepting process; the kernel releases it when the process ends, however it ends."""

    def __init__(self, directory: Path) -> None:
        """Raises StoreError if another process holds it."""
        self._descriptor = -1
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise StoreError(f"another process accepts the manifests of {directory.parent}; end it first") from None
        except OSError as failure:
            self.release()
            raise StoreError(f"cannot use {directory}: {failure.strerror or failure}") from failure

    def release(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Acceptance:
    def __init__(self, user: UserFiles, tree: RecordTree, lock: AcceptingLock) -> None:
        self._user = user
        self._tree = tree
        self._lock = lock
        self._review = Review()
        self._missing_since: dict[Key, float] = {}
        self._write_problems: list[Diagnostic] = []

    def close(self) -> None:
        self._lock.release()

    @property
    def unsettled(self) -> bool:
        """A file was too young to be read the last time."""
        return self._user.unsettled

    def look(self, settle: float) -> bool:
        """Read what changed in the user's directory; True if something did."""
        if not self._user.scan(settle):
            return False
        self._review = review(self._user.files)
        return True

    def accept(self, objects: Mapping[Key, Object], now: float) -> set[Key]:
        """Bring `accepted/` in line with the directory; returns the keys whose record changed.  `objects`: what exists."""
        touched: set[Key] = set()
        problems: list[Diagnostic] = []
        for key, checked in self._review.accepted.items():
            self._missing_since.pop(key, None)
            assert checked.obj is not None
            document = checked.document
            record = self._record(key, checked.obj, key in objects, document.file, document.line, now)
            if record is not None and self._write(key, record, problems):
                touched.add(key)
        for key, (checked, stands) in self._review.closed.items():
            self._missing_since.pop(key, None)
            if not self._good(key):
                record = self._record(key, stands, key in objects, checked.document.file, checked.document.line, now)
                if record is not None and self._write(key, record, problems):
                    touched.add(key)
        for key in [*self._missing(now)]:
            if self._give_up(key, now, problems):
                touched.add(key)
        self._write_problems = problems
        return touched

    def diagnostics(self) -> list[Diagnostic]:
        holding: list[Diagnostic] = []
        if self._empty and not self._user.problems and (held := len(self._accepted())):
            message = f"no manifests here; the {held} accepted before stay in force"
            hint = "`meshproxy down` ends the mesh"
            holding.append(Diagnostic("warning", str(self._user.directory), 0, "", message, hint))
        return [*self._user.problems, *holding, *self._review.diagnostics, *self._write_problems]

    def locate(self, key: Key, path: FieldPath) -> tuple[str, int] | None:
        """File and line of a field of an object in the directory."""
        checked = self._review.accepted.get(key)
        return (checked.document.file, checked.document.line_of(path)) if checked is not None else None

    @property
    def _empty(self) -> bool:
        return self._review.documents == 0 and not self._review.holding

    def _accepted(self) -> list[Key]:
        return [key for key, found in self._tree.records.items() if ACCEPTED in found and found[ACCEPTED].created]

    def _good(self, key: Key) -> bool:
        """A version that was accepted, and not refused, is in force."""
        known = self._tree.records.get(key, {}).get(ACCEPTED)
        return known is not None and known.created and not known.deleted_at and not refused(known.object)

    def _record(self, key: Key, obj: Object, exists: bool, file: str, line: int, now: float) -> Record | None:
        """The record to write, or None if what is on disk says it already."""
        found = self._tree.records.get(key, {})
        known = found.get(ACCEPTED)
        if known is not None and known.deleted_at:
            if finalized(found):
                return None
            exists = False  # the old one is gone; this is another of its name
        elif known is not None and known.created and known.object == obj:
            if (known.file, known.line) == (file, line):
                return None
            return Record(known.uid, True, known.created_at, known.generation, obj, {}, file, line)
        base = base_of(found) if exists else None
        if base is None:
            return Record(str(uuid.uuid4()), True, timestamp(now), 1, obj, {}, file, line)
        uid, created_at = base[1].uid, base[1].created_at
        generation = known.generation if known is not None and known.uid == uid else 0
        return counted(found, ACCEPTED, Record(uid, True, created_at, generation, obj, {}, file, line))

    def _missing(self, now: float) -> Iterator[Key]:
        """Accepted objects that the user's files no longer hold, and have not for the grace period."""
        for key in self._accepted():
            record = self._tree.records[key][ACCEPTED]
            source = record.file
            kept = key in self._review.accepted or key in self._review.refused or source in self._review.holding
            if record.deleted_at and key not in self._review.accepted:
                yield key  # until its finalizers are gone
            elif kept or self._empty or self._user.problems:
                self._missing_since.pop(key, None)
            elif not self._user.covers(source) or now - self._missing_since.setdefault(key, now) >= GRACE:
                yield key  # without grace if it came from another directory: no file is on the move then

    def _give_up(self, key: Key, now: float, problems: list[Diagnostic]) -> bool:
        self._missing_since.pop(key, None)
        found = self._tree.records[key]
        record = found[ACCEPTED]
        if finalized(found):
            if record.deleted_at:
                return False
            return self._write(key, replace(record, deleted_at=timestamp(now)), problems)
        others = any(other.created and other.uid == record.uid for manager, other in found.items() if manager != ACCEPTED)
        if others:  # somebody else made it too: only the user's fields go, and the count of changes stays
            bare = Record(record.uid, False, record.created_at, record.generation + 1, identity(record.object))
            return self._write(key, bare, problems)
        self._tree.remove(key, ACCEPTED)
        return True

    def _write(self, key: Key, record: Record, problems: list[Diagnostic]) -> bool:
        try:
            self._tree.write(key, ACCEPTED, record)
        except StoreError as failure:
            hint = "the last good one stays in force"
            problems.append(Diagnostic("error", record.file, record.line, "", str(failure), hint, key))
            return False
        return True

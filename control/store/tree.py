"""The state directory as records in memory: read what changed, write one, remove one.

    <state>/<manager>/<namespace>/<kind>[.<group>]/<name>.yaml

Every write is a rename into a folder and changes the folder's time stamp, so a folder that looks as before need not be
listed: an idle scan is one stat a folder.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from control.store import records
from control.store.records import EVENTS, MAX_RECORD_BYTES, Damaged, Record, decode, encode
from control.store.store import Diagnostic, Key, Object

_DEPTH = 3  # manager, namespace, kind
# The kernel's clock for files ticks every 4 to 10 ms: a folder changed this short a time ago may change again without a
# new time stamp, so it is listed once more.
RACY_NS = 50_000_000

Stamp = tuple[int, int, int]  # mtime in ns, size, inode


@dataclass(slots=True)
class _Folder:
    mtime: int = -1
    racy: bool = False
    folders: list[str] = field(default_factory=list)
    files: dict[str, Stamp] = field(default_factory=dict)


class RecordTree:
    """`records` holds everything on disk: key -> manager -> record.  Only this process changes it, through here."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.records: dict[Key, dict[str, Record]] = {}
        self._folders: dict[str, _Folder] = {}  # path below the root -> what was seen
        self._keys: dict[str, tuple[Key, str]] = {}  # file path below the root -> (key, manager)
        self._damaged: dict[str, str] = {}

    def problems(self) -> list[Diagnostic]:
        hint = "remove the file; it is written again when its object changes"
        return [
            Diagnostic("error", str(self.root / path), 0, "", f"damaged state file, left out: {why}", hint)
            for path, why in sorted(self._damaged.items())
        ]

    def leftovers(self, objects: Mapping[Key, Object], hidden: Mapping[Key, Object]) -> Iterator[Key]:
        """Keys some of whose records may speak of an object that is gone."""
        for key, found in self.records.items():
            obj = objects.get(key)
            if obj is None or key in hidden or any(record.uid != obj["metadata"]["uid"] for record in found.values()):
                yield key

    # ---------------------------------------------------------------- reading

    def scan(self) -> set[Key]:
        """Read what changed on disk; returns the keys whose records did."""
        touched: set[Key] = set()
        seen: set[str] = set()
        self._visit("", 0, touched, seen)
        for path in [path for path in self._folders if path not in seen]:
            for name in self._folders.pop(path).files:
                self._forget(f"{path}/{name}", touched)
        return touched

    def _visit(self, path: str, depth: int, touched: set[Key], seen: set[str]) -> None:
        folder = self._folders.setdefault(path, _Folder())
        full = os.path.join(self.root, path) if path else str(self.root)
        try:
            mtime = os.stat(full).st_mtime_ns
            if mtime != folder.mtime or folder.racy:
                now = time.time_ns()
                self._list(path, full, depth, folder, touched)
                folder.mtime, folder.racy = mtime, now - mtime < RACY_NS
        except (FileNotFoundError, NotADirectoryError):
            return  # not there (yet, or any more): forgotten by the caller
        seen.add(path)
        for name in folder.folders:
            self._visit(f"{path}/{name}" if path else name, depth + 1, touched, seen)

    def _list(self, path: str, full: str, depth: int, folder: _Folder, touched: set[Key]) -> None:
        with os.scandir(full) as entries:
            found = [entry for entry in entries if not entry.name.startswith(".")]
        if depth < _DEPTH:
            skipped = {EVENTS} if depth == 0 else set()
            folder.folders = sorted(entry.name for entry in found if entry.is_dir() and entry.name not in skipped)
            return
        names: set[str] = set()
        for entry in found:
            if not entry.name.endswith(".yaml"):
                continue
            try:
                status = os.stat(entry.path)  # not entry.stat(): it may be older than the listing on some file systems
            except FileNotFoundError:
                continue
            names.add(entry.name)
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            if folder.files.get(entry.name) != stamp:
                self._read(f"{path}/{entry.name}", touched)
                folder.files[entry.name] = stamp
        for name in [name for name in folder.files if name not in names]:
            del folder.files[name]
            self._forget(f"{path}/{name}", touched)

    def _read(self, path: str, touched: set[Key]) -> None:
        try:
            with open(self.root / path, "rb") as file:
                data = file.read(MAX_RECORD_BYTES + 1)
            key, record = decode(data)
            manager = path.split("/", 1)[0]
            if path != self._path(key, manager):
                raise Damaged(f"it holds {key}, which belongs in {self._path(key, manager)}")
        except FileNotFoundError:
            self._forget(path, touched)
            return
        except (Damaged, OSError) as failure:
            self._damaged[path] = str(failure)
            return  # what was known of it stays
        self._damaged.pop(path, None)
        self._put(path, key, manager, record)
        touched.add(key)

    def reload(self, key: Key) -> bool:
        """Read the key's files of all managers anew; True if something changed."""
        touched: set[Key] = set()
        try:
            managers = [
                entry.name for entry in os.scandir(self.root) if entry.name != EVENTS and not entry.name.startswith(".")
            ]
        except FileNotFoundError:
            return False
        for manager in managers:
            path = self._path(key, manager)
            folder, _, name = path.rpartition("/")
            seen = self._folders.get(folder)
            known = seen.files.get(name) if seen else None
            try:
                status = os.stat(self.root / path)
            except (FileNotFoundError, NotADirectoryError):
                if known is not None and seen is not None:
                    del seen.files[name]
                    self._forget(path, touched)
                continue
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            if stamp != known:
                self._read(path, touched)
                self._folders.setdefault(folder, _Folder()).files[name] = stamp
        return bool(touched)

    # ---------------------------------------------------------------- writing

    def write(self, key: Key, manager: str, record: Record) -> None:
        """Raises StoreError; then nothing has changed."""
        path = self._path(key, manager)
        records.write(self.root / path, encode(record), private=key.kind == "Secret" and key.group == "")
        self._put(path, key, manager, record)
        status = os.stat(self.root / path)
        folder, _, name = path.rpartition("/")
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        self._folders.setdefault(folder, _Folder()).files[name] = stamp

    def remove(self, key: Key, manager: str) -> None:
        path = self._path(key, manager)
        (self.root / path).unlink(missing_ok=True)
        folder, _, name = path.rpartition("/")
        if folder in self._folders:
            self._folders[folder].files.pop(name, None)
        self._forget(path, set())

    def _path(self, key: Key, manager: str) -> str:
        return f"{manager}/{records.folder(key)}/{records.file_name(key)}"

    def _put(self, path: str, key: Key, manager: str, record: Record) -> None:
        self._keys[path] = (key, manager)
        self.records.setdefault(key, {})[manager] = record

    def _forget(self, path: str, touched: set[Key]) -> None:
        self._damaged.pop(path, None)
        if (found := self._keys.pop(path, None)) is None:
            return
        key, manager = found
        managers = self.records.get(key, {})
        managers.pop(manager, None)
        if not managers:
            self.records.pop(key, None)
        touched.add(key)

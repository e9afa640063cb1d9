"""The user's directory of manifests: read when it changed, never written.

As `kubectl apply -f DIR` does: *.yaml, *.yml and *.json of the directory itself, hidden files and folders excepted; one file
may be named instead of a directory.
"""

from __future__ import annotations

import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from control.resources.documents import MAX_FILE_BYTES, Mentioned, parse_documents
from control.resources.validate import CheckedFile, check_file
from control.store.store import Diagnostic

SUFFIXES = (".yaml", ".yml", ".json")
MAX_FILES = 1_000
# A file changed this short a time ago may change again without a new time stamp (the kernel's clock for files ticks every
# 4 to 10 ms), so it is read once more.
RACY_NS = 50_000_000

Stamp = tuple[int, int, int]  # mtime in ns, size, inode


@dataclass(slots=True)
class _File:
    stamp: Stamp
    racy: bool
    data: bytes
    checked: CheckedFile


class UserFiles:
    """What stands in the directory, checked.  `scan` costs one stat a file while nothing changes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.problems: list[Diagnostic] = []  # of the directory, not of a file in it
        self._files: dict[str, _File] = {}
        self.unsettled = False  # a file was left for the next scan
        self._scanned = False

    @property
    def files(self) -> list[CheckedFile]:
        return [self._files[name].checked for name in sorted(self._files)]

    def covers(self, file: str) -> bool:
        """Whether a file of this name would be read from here."""
        path = Path(file)
        return path == self.directory or path.parent == self.directory

    def scan(self, settle: float = 0.0) -> bool:
        """Look again; True if something changed.  A file written less than `settle` seconds ago is left for the next scan:
        an editor may be in the middle of it."""
        changed = not self._scanned
        problems: list[Diagnostic] = []
        seen: set[str] = set()
        self.unsettled = False
        for path in self._paths(problems):
            name = str(path)
            if len(seen) >= MAX_FILES:
                hint = "split them over several meshes, or point to a smaller directory"
                problems.append(
                    Diagnostic("error", str(self.directory), 0, "", f"more than {MAX_FILES} files; the rest is not read", hint)
                )
                break
            if self._look(path, name, settle):
                changed = True
            if name in self._files:
                seen.add(name)
        for name in [name for name in self._files if name not in seen]:
            del self._files[name]
            changed = True
        changed = changed or problems != self.problems
        self.problems = problems
        self._scanned = True
        return changed

    def _paths(self, problems: list[Diagnostic]) -> list[Path]:
        try:
            if self.directory.is_file():
                return [self.directory]
            names = sorted(os.listdir(self.directory))
        except OSError as failure:
            message = f"cannot be read: {failure.strerror or failure}"
            problems.append(Diagnostic("error", str(self.directory), 0, "", message, "what was accepted before stays in force"))
            return []
        return [self.directory / name for name in names if name.endswith(SUFFIXES) and not name.startswith(".")]

    def _look(self, path: Path, name: str, settle: float) -> bool:
        known = self._files.get(name)
        now = time.time_ns()
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                return False
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            age = now - status.st_mtime_ns
            if known is not None and known.stamp == stamp and not known.racy:
                return False
            if 0 <= age < settle * 1e9:
                self.unsettled = True
                return False
            with path.open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            return False
        except OSError as failure:
            message = f"cannot be read: {failure.strerror or failure}"
            checked = CheckedFile(
                name, [], [Diagnostic("error", name, 0, "", message, "what it held before stays in force")], True, Mentioned()
            )
            new = known is None or known.checked.diagnostics != checked.diagnostics
            self._files[name] = _File((0, 0, 0), True, b"", checked)
            return new
        racy = age < RACY_NS  # also if it is from the future
        if known is not None and known.data == data and known.stamp != (0, 0, 0):
            known.stamp, known.racy = stamp, racy
            return False
        self._files[name] = _File(stamp, racy, data, check_file(name, parse_documents(data, name)))
        return True

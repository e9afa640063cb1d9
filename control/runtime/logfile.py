"""What a process said, kept within a bound, and where each of its lives begins.

    write --> app.log  --8 MiB--> app.log.1  --next rotation--> gone
    mark  --> app.starts: [[age of the file, offset], ...]      age 0: app.log, 1: app.log.1, 2: no longer kept

The writer is the supervisor; `meshproxy logs` and the supervisor's own reports read.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

LOG_LIMIT = 8 << 20  # bytes in one log file; the one before is kept beside it as <name>.1
_KEPT_STARTS = 2  # this life's and the one before
_GONE = 2  # age of a file that is not kept any more
_TAIL_BYTES = 64 << 10  # looked at for the last lines

Start = tuple[int, int]  # age of the file, offset in it


class LogFile:
    """What a process said, in at most two files of `limit` bytes: `path` and, older, `path`.1."""

    def __init__(self, path: Path, limit: int = LOG_LIMIT) -> None:
        self.path = path
        self.limit = limit
        self.lost = 0  # bytes that could not be written
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file: BinaryIO = path.open("ab", buffering=0)
        self._size = self._file.tell()
        self._starts = read_starts(path)

    def write(self, data: bytes) -> None:
        if self._size + len(data) > self.limit and self._size:
            self._file.close()
            self.path.rename(older(self.path))
            self._file = self.path.open("ab", buffering=0)
            self._size = 0
            if self._starts:
                self._keep_starts([(min(age + 1, _GONE), offset) for age, offset in self._starts])
        try:
            self._size += self._file.write(data)
        except OSError:  # the disk is full: losing what an app says is better than losing the app
            self.lost += len(data)

    def mark_start(self) -> None:
        """What is written from here on is said by a new life."""
        self._keep_starts([*self._starts, (0, self._size)])

    def close(self) -> None:
        self._file.close()

    def _keep_starts(self, starts: list[Start]) -> None:
        self._starts = starts[-_KEPT_STARTS:]
        with suppress(OSError):  # without marks a log is one long life; a full disk must not keep an app from starting
            _starts_file(self.path).write_text(json.dumps(self._starts))


def older(path: Path) -> Path:
    """The file that a log was rotated into."""
    return path.with_name(path.name + ".1")


def read_starts(path: Path) -> list[Start]:
    """Where the last lives of a log begin, oldest first."""
    try:
        return [(int(age), int(offset)) for age, offset in json.loads(_starts_file(path).read_text())]
    except (OSError, ValueError, TypeError):
        return []


def last_life(path: Path) -> bytes:
    """What is kept of the present life, or of the last."""
    starts = read_starts(path)
    return _from(path, starts[-1] if starts else (_GONE, 0))


def previous_life(path: Path) -> bytes | None:
    """What is kept of the life before that; None if there was none."""
    starts = read_starts(path)
    if len(starts) < 2:
        return None
    both, last = _from(path, starts[-2]), _from(path, starts[-1])
    return both[: len(both) - len(last)]


def tail(path: Path, lines: int) -> list[str]:
    """The last lines (blank ones aside) that the last life said."""
    text = last_life(path)[-_TAIL_BYTES:].decode(errors="replace")
    return [line.rstrip() for line in text.splitlines() if line.strip()][-lines:]


def _from(path: Path, start: Start) -> bytes:
    """Everything that is kept from a start on."""
    age, offset = start
    data = _read(path, offset if age == 0 else 0)
    return data if age == 0 else _read(older(path), offset if age == 1 else 0) + data


def _read(path: Path, offset: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read()
    except OSError:
        return b""


def _starts_file(path: Path) -> Path:
    return path.with_suffix(".starts")

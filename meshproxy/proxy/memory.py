"""How much memory this process may use, and how much it uses.

    /proc/self/cgroup --\\
                         +--> limit_files() --> files, from the process's own group up to the top --> the tightest
    /proc/self/mountinfo /                      v2: memory.max    v1: memory.limit_in_bytes

Groups nest and each one's limit holds for what is below it, so the tightest on the way up is the one that kills.  What is
read is decided by text alone (`limit_files`, pure); reading is a few lines at the end.
"""

from __future__ import annotations

import contextlib
import logging
import os
from typing import Any, Final

log: Final = logging.getLogger("meshproxy.proxy")

# v1 says "none" by the largest multiple of a page below 2^63; nobody has 2^60 bytes either.
NO_LIMIT: Final = 1 << 60

_ESCAPES: Final = (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\"))  # proc(5), mountinfo


def limit_files(cgroup: str, mountinfo: str) -> list[str]:
    """The files in which the limits of a process stand, its own group's first.

    cgroup     text of /proc/PID/cgroup: `hierarchy:controllers:path`, v2 being `0::path`
    mountinfo  text of /proc/PID/mountinfo: where hierarchies are mounted, and which part of them (a container sees its own
               part as the top)
    """
    paths: dict[str, str] = {}  # "cgroup" (v1, memory) or "cgroup2" -> the process's path
    for line in cgroup.splitlines():
        parts = line.split(":", 2)
        if len(parts) != 3:
            continue
        if parts[0] == "0" and not parts[1]:
            paths["cgroup2"] = parts[2]
        elif "memory" in parts[1].split(","):
            paths["cgroup"] = parts[2]
    found: list[str] = []
    for line in mountinfo.splitlines():
        before, separator, after = line.partition(" - ")
        fields, rest = before.split(" "), after.split(" ")
        if not separator or len(fields) < 5 or len(rest) < 3:
            continue
        kind = rest[0]
        path = paths.get(kind)
        if path is None or (kind == "cgroup" and "memory" not in rest[2].split(",")):
            continue
        del paths[kind]  # mounted twice: both say the same
        root, top = _plain(fields[3]), _plain(fields[4])
        name = "memory.max" if kind == "cgroup2" else "memory.limit_in_bytes"
        found += [f"{directory}/{name}" for directory in _upwards(top, _below(path, root))]
    return found


def _plain(text: str) -> str:
    for escape, character in _ESCAPES:
        text = text.replace(escape, character)
    return text


def _below(path: str, root: str) -> str:
    """`path` as seen from a mount that shows `root` as its top.  A path outside it (also "/../other": another cgroup
    namespace) is not to be seen there; what is at the top is then the best there is."""
    if root == "/":
        inside = path
    elif path == root or path.startswith(root + "/"):
        inside = path[len(root) :]
    else:
        return ""
    return "" if "/.." in inside else inside.rstrip("/")


def _upwards(top: str, path: str) -> list[str]:
    """`top/a/b`, `top/a`, `top` for path "/a/b"."""
    found = []
    while path:
        found.append(top + path)
        path = path.rpartition("/")[0]
    return [*found, top]


def parse_limit(text: str) -> int:
    """Bytes; 0 where there is no limit ("max", v1's huge number) or the text is none of these."""
    text = text.strip()
    if not text.isdigit():
        return 0
    limit = int(text)
    return 0 if limit >= NO_LIMIT else limit


def cgroup_limit(proc: str = "/proc/self", root: str = "") -> int:
    """The tightest limit in force for this process in bytes, 0 without one.  `root` is put before the paths found."""
    try:
        files = limit_files(_read(f"{proc}/cgroup"), _read(f"{proc}/mountinfo"))
    except OSError as error:  # not Linux, or /proc is hidden: then only the setting bounds
        log.debug("no cgroup limit: %s", error)
        return 0
    tightest = 0
    for path in files:
        try:
            limit = parse_limit(_read(root + path))
        except OSError:
            continue  # v2's topmost group has no such file; parents of a container may not be readable
        if limit and (tightest == 0 or limit < tightest):
            tightest = limit
    return tightest


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


class Footprint:
    """What an idle proxy needs, bytes: resident as measured, with room so that it is NORMAL and can carry something.

    own     one process, or the parent of workers
    worker  each of several
    """

    def __init__(self, own_mib: int, worker_mib: int) -> None:
        self.own = own_mib << 20
        self.worker = worker_mib << 20

    def least(self, workers: int) -> int:
        return self.own if workers == 1 else self.own + workers * self.worker

    def too_little(self, limit: int, workers: int) -> str:
        """What is wrong with a limit (bytes, 0: none) for so many workers; "" if nothing is."""
        least = self.least(workers)
        if limit == 0 or limit >= least:
            return ""
        parts = "" if workers == 1 else f" ({self.own >> 20} for the parent, {self.worker >> 20} for each of {workers} workers)"
        return (
            f"a memory limit of {limit >> 20} MiB is less than an idle proxy needs: at least {least >> 20} MiB{parts}; "
            "raise --memory-limit-mb or the cgroup's limit (docs/limits.md)"
        )


# Resident, interpreted, nearly idle, MiB: forward 29, its parent 30, its worker 29; a sidecar 62 (grpc), its parent 63, its
# worker 43.  Divided by 0.9 (TIGHT_UNTIL), and some MiB for connections.
FORWARD: Final = Footprint(40, 40)
SIDECAR: Final = Footprint(80, 56)

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


def resident_bytes() -> int:
    """Of this process; 0 where /proc does not say."""
    try:
        return int(_read("/proc/self/statm").split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return 0


# mallopt(3).  The event loop gives each read as bytes of its own, up to 256,000, and they live until they are written.  With
# glibc's defaults the top of the heap goes back to the kernel with each of them and is faulted in again for the next, page by
# page: a quarter of the CPU of a transfer in bulk (1 MiB over HTTP/1.1: 510 us with the defaults, 390 so).
M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
KEPT_BYTES: Final = 1024 * 1024  # free at the heap's top before any is returned; a larger piece is mapped on its own


def keep_some() -> None:
    """To be called once, at start: let malloc keep KEPT_BYTES of what is freed."""
    libc = _libc()
    with contextlib.suppress(AttributeError):  # musl has no such call
        # By itself glibc sets both from the first large piece that is freed: to 256 KB, and to twice that.
        libc.mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def give_back() -> None:
    """Return what malloc has free to the kernel.  Without it a process that was once over its bound stays there: glibc keeps
    freed memory, and only what is resident counts."""
    with contextlib.suppress(AttributeError):  # musl has no such call and keeps less
        _libc().malloc_trim(0)


def _libc() -> Any:
    import ctypes  # here and not at the top: 0.4 MB

    return ctypes.CDLL(None)

"""Compiled or not: how the modules of the data path are found.

    extensions there?  --no--> source
        | yes
    MESHPROXY_PURE=1?  --yes-> source                       (benchmarks and tests compare the two)
        | no
    every source as it was when they were built?  --no--> source, all of it, and that is said once on stderr
        | yes
    extensions

Python takes an extension before a source of the same name, so an edit after `make build` would change nothing, silently.
The build leaves a record of what it compiled: for each source its size, modification time and SHA-256.  A start compares
sizes and times (60 files, 0.2 ms) and, where only a time differs (a checkout, an installation), digests (all of them: 4 ms).
One changed source makes the whole group run from source: compiled classes refer to each other by their layout.

Imported before everything else and by every command: nothing here imports more than it must.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    PathFinder,
    SourceFileLoader,
)
from pathlib import Path
from types import ModuleType

SWITCH = "MESHPROXY_PURE"
LIBRARY = "meshproxy__mypyc"  # setup.py's group_name, and what mypyc makes of it
RECORD = f"compiled.{sys.implementation.cache_tag}.txt"  # in the package's directory; one for each version of Python
PACKAGE = Path(__file__).parent


class SourceOnly:
    """A meta path finder that finds our modules' .py and never their extension."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if not name.startswith("meshproxy.") or path is None:
            return None
        for entry in path:
            spec = FileFinder(entry, (SourceFileLoader, [".py"])).find_spec(name)
            if spec is not None:
                return spec
        return None


class SharedLibrary:
    """Finds the one library all compiled modules are shims of.  mypyc puts it beside the package, not into it, where an
    editable install does not look: without this finder the shims would load only from the repository's own directory."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != LIBRARY:
            return None
        return FileFinder(str(PACKAGE.parent), (ExtensionFileLoader, EXTENSION_SUFFIXES)).find_spec(name)


def install() -> None:
    """Decide, once, at the import of the package."""
    if os.environ.get(SWITCH) == "1":
        use_source()
        return
    changed = stale()
    if changed:
        use_source()
        print(warning(changed), file=sys.stderr)
    elif SharedLibrary not in sys.meta_path:
        sys.meta_path.append(SharedLibrary)


def use_source() -> None:
    if SourceOnly not in sys.meta_path:
        sys.meta_path.insert(sys.meta_path.index(PathFinder), SourceOnly)


def warning(changed: Sequence[str]) -> str:
    names = ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
    return (
        f"meshproxy: the compiled data path is not of this source ({names}): running interpreted.  "
        "`make build` compiles it again, `make clean` removes it"
    )


def record(root: Path, sources: Iterable[str]) -> str:
    """What `stale` compares with, a line for each source: digest, size, modification time (ns), path below `root`.
    Made before compiling, so that an edit in the meantime is noticed."""
    lines = []
    for source in sorted(sources):
        status = (root / source).stat()
        lines.append(f"{digest(root / source)} {status.st_size} {status.st_mtime_ns} {source}\n")
    return "".join(lines)


def stale(package: Path = PACKAGE) -> list[str]:
    """The sources that are not what was compiled; [] if all are, or if nothing is compiled for this version of Python."""
    root = package.parent
    if not any((root / (LIBRARY + suffix)).exists() for suffix in EXTENSION_SUFFIXES):
        return []
    try:
        lines = (package / RECORD).read_text().splitlines()
    except OSError:
        return [f"{RECORD} is missing"]
    changed = []
    for line in lines:
        sha256, size, modified, name = line.split(" ", 3)
        path = root / name
        try:
            status = os.stat(path)
        except OSError:
            changed.append(name)  # gone, and its extension would still be imported
            continue
        if status.st_size == int(size) and (status.st_mtime_ns == int(modified) or digest(path) == sha256):
            continue
        changed.append(name)
    return changed


def digest(path: Path) -> str:
    from hashlib import sha256

    return sha256(path.read_bytes()).hexdigest()


def extensions() -> list[Path]:
    """Compiled modules of ours that are used unless MESHPROXY_PURE says otherwise."""
    return sorted(PACKAGE.rglob("*.so")) if not stale() else []

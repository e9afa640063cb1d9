"""Compiled or not: how the modules of the data path are found.

MESHPROXY_PURE=1 uses the Python source although compiled extensions are there (benchmarks and tests compare the two).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
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
        beside = str(Path(__file__).parent.parent)
        return FileFinder(beside, (ExtensionFileLoader, EXTENSION_SUFFIXES)).find_spec(name)


def install() -> None:
    if os.environ.get(SWITCH) == "1":
        if SourceOnly not in sys.meta_path:
            sys.meta_path.insert(sys.meta_path.index(PathFinder), SourceOnly)
    elif SharedLibrary not in sys.meta_path:
        sys.meta_path.append(SharedLibrary)


def extensions() -> list[Path]:
    """Compiled modules of ours that are there, whether used or not."""
    return sorted(Path(__file__).parent.rglob("*.so"))

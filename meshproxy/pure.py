"""MESHPROXY_PURE=1: use the Python source although compiled extensions are there (benchmarks and tests compare the two)."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import FileFinder, ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType

SWITCH = "MESHPROXY_PURE"


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


def install() -> None:
    if os.environ.get(SWITCH) == "1" and SourceOnly not in sys.meta_path:
        sys.meta_path.insert(sys.meta_path.index(PathFinder), SourceOnly)


def extensions() -> list[Path]:
    """Compiled modules of ours that are there, whether used or not."""
    return sorted(Path(__file__).parent.rglob("*.so"))

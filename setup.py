"""The optional compiled data path: `wire/`, `proxy/` and `policy/` as one mypyc group.

    MESHPROXY_COMPILE=0        (default of `pip install`) pure Python
    MESHPROXY_COMPILE=1        compile; without a compiler the pure modules are used, and that is said
    MESHPROXY_COMPILE=require  compile or fail (CI; `make build` sets it)

The same typed source runs both ways.  `meshproxy version` says which is running.  The build leaves a record of the sources
it compiled (meshproxy/pure.py): extensions of other sources than those that are there are not used.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

from setuptools import setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError

# The h2 adapter is the reference, not the fast path; run.py starts loops and signal handlers once; native.py is what stands
# in for mypyc's decorator, which only exists interpreted.
LEFT_OUT = {"h2_adapter", "run.py", "native.py", "__init__.py"}
PACKAGES = ("meshproxy/wire", "meshproxy/policy", "meshproxy/proxy")


def sources() -> list[str]:
    found: list[str] = []
    for package in PACKAGES:
        found += [str(path) for path in sorted(Path(package).rglob("*.py")) if LEFT_OUT.isdisjoint(path.parts)]
    found.append("meshproxy/telemetry/series.py")
    return found


def pure() -> ModuleType:
    """meshproxy/pure.py by its file: importing the package would already decide between source and extensions."""
    spec = importlib.util.spec_from_file_location("_meshproxy_pure", "meshproxy/pure.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class BuildExtensions(build_ext):
    """Says once when there is no compiler, and leaves the record when there was one."""

    compiled = False

    def run(self) -> None:
        super().run()
        if self.compiled:
            package = Path("meshproxy") if self.inplace else Path(self.build_lib) / "meshproxy"
            (package / pure().RECORD).write_text(RECORDED)

    def build_extensions(self) -> None:
        self.check_extensions_list(self.extensions)
        try:
            for extension in self.extensions:
                self.build_extension(extension)
        except (BaseError, CCompilerError, OSError) as error:
            if not all(extension.optional for extension in self.extensions):
                raise
            print(f"meshproxy: not compiled, it runs as pure Python; no working compiler: {str(error)[:200]}", file=sys.stderr)
            return
        self.compiled = bool(self.extensions)


RECORDED = ""
# All modules are one library, which exports nothing but itself: its functions can call each other directly, and be inlined,
# instead of through the table where another library might replace them.  6 to 8 % of the proxy's own time.
FLAGS = ["-fvisibility=hidden", "-fno-semantic-interposition", "-fno-plt"]


def extensions() -> list[object]:
    global RECORDED
    wanted = os.environ.get("MESHPROXY_COMPILE", "0")
    if wanted not in ("1", "require"):
        return []
    try:
        from mypyc.build import mypycify
    except ImportError:
        if wanted == "require":
            raise
        print("meshproxy: not compiled (mypyc is not installed); it runs as pure Python", file=sys.stderr)
        return []
    RECORDED = pure().record(Path(), sources())
    made = mypycify(["--config-file=pyproject.toml", *sources()], opt_level="3", debug_level="0", group_name="meshproxy")
    for extension in made:
        extension.optional = wanted != "require"
        extension.extra_compile_args += FLAGS
    return list(made)


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildExtensions})

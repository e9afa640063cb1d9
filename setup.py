"""The optional compiled data path: `wire/`, `proxy/` and `policy/` as one mypyc group.

    MESHPROXY_COMPILE=0        (default of `pip install`) pure Python
    MESHPROXY_COMPILE=1        compile; without a compiler the pure modules are used, and that is said
    MESHPROXY_COMPILE=require  compile or fail (CI; `make build` sets it)

The same typed source runs both ways.  `meshproxy version` says which is running and whether an extension is older than its
source.
"""

from __future__ import annotations

import os
from pathlib import Path

from setuptools import setup

# The h2 adapter is the reference, not the fast path; run.py starts loops and signal handlers once; native.py is what stands
# in for mypyc's decorator, which only exists interpreted.
LEFT_OUT = {"h2_adapter.py", "run.py", "native.py", "__init__.py"}
PACKAGES = ("meshproxy/wire", "meshproxy/policy", "meshproxy/proxy")


def sources() -> list[str]:
    found: list[str] = []
    for package in PACKAGES:
        found += [str(path) for path in sorted(Path(package).rglob("*.py")) if path.name not in LEFT_OUT]
    found.append("meshproxy/telemetry/series.py")
    return found


def extensions() -> list[object]:
    wanted = os.environ.get("MESHPROXY_COMPILE", "0")
    if wanted not in ("1", "require"):
        return []
    from mypyc.build import mypycify

    made = mypycify(["--config-file=pyproject.toml", *sources()], opt_level="3", debug_level="0", group_name="meshproxy")
    for extension in made:
        extension.optional = wanted != "require"
    return list(made)


setup(ext_modules=extensions())

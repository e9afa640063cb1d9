"""`meshproxy version`: what is running, and whether the data path is compiled.

module's file   .py                                     interpreted
                .so, of the source that is there        compiled
                .so, some source of the group changed   interpreted: the build is STALE (meshproxy/pure.py)
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import click

from meshproxy import pure

# Packages of which `make build` compiles all or some modules (see setup.py); the rest always runs interpreted.
DATA_PATH: Final = ("meshproxy.wire", "meshproxy.policy", "meshproxy.proxy", "meshproxy.telemetry")
DEPENDENCIES: Final = ("uvloop", "h2", "cryptography", "grpcio", "protobuf", "prometheus-client", "aiohttp")


@dataclass(slots=True)
class Build:
    """How one package runs: counts of its modules."""

    package: str
    compiled: int
    interpreted: int

    def __str__(self) -> str:
        if not self.compiled:
            return "interpreted"
        return "compiled" if not self.interpreted else f"compiled ({self.interpreted} of {self.modules} modules interpreted)"

    @property
    def modules(self) -> int:
        return self.compiled + self.interpreted


def inspect(package: str, directory: Path, extensions: Collection[Path]) -> Build:
    """Look at the files of a package; `extensions` are those in use.  A module of two lines (`__init__`) is never compiled and
    not counted."""
    compiled = interpreted = 0
    modules = {(path.parent, path.name.partition(".")[0]) for path in extensions}
    for source in sorted(directory.rglob("*.py")):
        if source.name == "__init__.py":
            continue
        if (source.parent, source.stem) in modules:
            compiled += 1
        else:
            interpreted += 1
    return Build(package, compiled, interpreted)


def builds() -> list[Build]:
    """One for each package of the data path, found without importing any of it."""
    used = [] if os.environ.get(pure.SWITCH) == "1" else pure.extensions()
    found = []
    for package in DATA_PATH:
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.submodule_search_locations:
            found.append(inspect(package, Path(next(iter(spec.submodule_search_locations))), used))
    return found


def dependency(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


@click.command(name="version", short_help="Versions, and whether the data path is compiled.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Output form.")
def command(output: str) -> None:
    """Print versions of meshproxy, Python and the libraries, and whether the data path is compiled.

    Exits with 1 if the compiled modules are not of the source that is there; they are not used then.
    """
    import meshproxy

    found = builds()
    versions = {name: dependency(name) for name in DEPENDENCIES}
    stale = pure.stale()
    if output == "json":
        document = {
            "meshproxy": meshproxy.__version__,
            "python": platform.python_version(),
            "implementation": platform.python_implementation(),
            "dependencies": versions,
            "data_path": [asdict(build) for build in found],
            "stale": stale,
        }
        click.echo(json.dumps(document, indent=2))
    else:
        click.echo(f"meshproxy {meshproxy.__version__}")
        click.echo(
            f"{platform.python_implementation()} {platform.python_version()} on {platform.system()} {platform.machine()}"
        )
        click.echo(", ".join(f"{name} {version}" for name, version in versions.items()))
        for build in found:
            click.echo(f"{build.package}: {build}")
    if stale:
        click.echo(
            f"STALE, not used: compiled from other source than {', '.join(stale)}; run `make build` or `make clean`", err=True
        )
        raise SystemExit(1)

"""`meshproxy version`: what is running, and whether the data path is compiled.

module's file   .py                                     interpreted
                .so, no source newer than it            compiled
                .so, its source is newer                STALE: what runs is not what the source says
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import click

# Packages of which `make build` compiles all or some modules (see setup.py); the rest always runs interpreted.
DATA_PATH: Final = ("meshproxy.wire", "meshproxy.policy", "meshproxy.proxy", "meshproxy.telemetry")
DEPENDENCIES: Final = ("uvloop", "h2", "cryptography", "grpcio", "protobuf", "prometheus-client", "aiohttp")


@dataclass(slots=True)
class Build:
    """How one package runs: counts of its modules, and the modules whose extension is older than their source."""

    package: str
    compiled: int
    interpreted: int
    stale: list[str]

    def __str__(self) -> str:
        if not self.compiled and not self.stale:
            return "interpreted"
        text = "compiled" if not self.interpreted else f"compiled ({self.interpreted} of {self.modules} modules interpreted)"
        return f"{text}, STALE" if self.stale else text

    @property
    def modules(self) -> int:
        return self.compiled + self.interpreted


def inspect(package: str, directory: Path) -> Build:
    """Look at the files of a package.  Python takes an extension before a source of the same name, so a file is enough to
    know.  A module of two lines (`__init__`) is never compiled and not counted.  An extension whose source is gone is stale
    too: Python would still import it."""
    compiled = interpreted = 0
    stale = []
    for source in sorted(directory.rglob("*.py")):
        if source.name == "__init__.py":
            continue
        extensions = list(source.parent.glob(f"{source.stem}.*.so"))
        if not extensions:
            interpreted += 1
            continue
        compiled += 1
        if max(extension.stat().st_mtime_ns for extension in extensions) < source.stat().st_mtime_ns:
            stale.append(str(source.relative_to(directory.parent)))
    for extension in sorted(directory.rglob("*.so")):
        source = extension.parent / f"{extension.name.partition('.')[0]}.py"
        if not source.exists():
            stale.append(str(source.relative_to(directory.parent)))
    return Build(package, compiled, interpreted, stale)


def builds() -> list[Build]:
    """One for each package of the data path, found without importing any of it."""
    found = []
    for package in DATA_PATH:
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.submodule_search_locations:
            found.append(inspect(package, Path(next(iter(spec.submodule_search_locations)))))
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

    Exits with 1 if a compiled module is older than its source, since then something else runs than what the source says.
    """
    import meshproxy

    found = builds()
    versions = {name: dependency(name) for name in DEPENDENCIES}
    stale = [name for build in found for name in build.stale]
    if output == "json":
        document = {
            "meshproxy": meshproxy.__version__,
            "python": platform.python_version(),
            "implementation": platform.python_implementation(),
            "dependencies": versions,
            "data_path": [asdict(build) for build in found],
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
            f"older than their source: {', '.join(stale)}; run `make build`, or `make clean` to run interpreted", err=True
        )
        raise SystemExit(1)

"""A proxy under test: what the bench asks of ours and of everybody else's.

    missing() -- "" --> version() --> one_hop(...)  --> Running, until the block ends
       |                              two_hops(...) --> Running
       ` why, and what to install: the results say so, nothing is dropped silently

    one hop     load --KIND--> [A] --KIND--> backend
    two hops    load --KIND--> [A] == mutual TLS 1.3, HTTP/2 ==> [B] --KIND--> backend

KIND is "h1" (HTTP/1.1), "h2" (HTTP/2 in clear, by prior knowledge) or "grpc" (the same, named apart so that a peer may need
other settings); one hop also knows "mtls": HTTP/1.1 over TLS that demands a client certificate, HTTP/1.1 to the backend.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import ClassVar

from benchmarks import measure
from benchmarks.network import Network

Kinds = Mapping[int, Sequence[str]]
CONFIGS = Path(__file__).parent / "configs"


class Unsupported(Exception):
    """This peer cannot do that; `str()` says why.  It goes to `skipped` in the results."""


@dataclass(frozen=True)
class Backend:
    """A server that already runs, and how to start another one elsewhere (a pod's address, say)."""

    address: str
    program: tuple[str, ...]  # words; ADDRESS (HOST:PORT) is added as the last one

    def command(self, address: str) -> list[str]:
        return [*self.program, address]


@dataclass(frozen=True)
class Running:
    """A proxy, or two, ready for load at `address` (HOST:PORT).

    `pids` by role: {"A": pid} for one hop, {"A": pid, "B": pid} for two (A takes the load).  Descendants are measured along.
    `authority` is what requests carry as Host or :authority."""

    address: str
    pids: dict[str, int]
    authority: str = "bench"
    files: dict[str, str] = field(default_factory=dict)  # kind "mtls": the client's own "cert", "key" and "ca"
    network: Network | None = None  # where `address` is; None: where everybody is

    def inside(self) -> AbstractContextManager[None]:
        """Loads run in this."""
        return self.network.inside() if self.network else nullcontext()


class Peer:
    """Subclasses are one file each.  Every process of theirs runs with one worker on measure.PROXY_CORE."""

    name = ""
    title = ""  # how tables call it
    kinds: ClassVar[Kinds] = {1: ("h1", "h2", "grpc", "mtls"), 2: ("h1", "h2", "grpc")}  # what it can do, by hops
    special = False  # takes part only in workloads that name it
    settings = ""  # one paragraph for the report: how it is set up, and why that is fair

    def missing(self) -> str:
        """ "" if it can run here, else why not and what to install."""
        raise NotImplementedError

    def version(self) -> str:
        raise NotImplementedError

    def unable(self, hops: int, kind: str) -> str:
        """Why it takes no part in such a workload, or ""."""
        able = self.kinds.get(hops, ())
        if kind in able:
            return ""
        where = f"{hops} hop{'s' * (hops > 1)}"
        return f"over {where} it is set up for {', '.join(able)} only" if able else f"it is not set up for {where}"

    def one_hop(self, kind: str, listen: str, backends: Sequence[Backend], work: Path) -> AbstractContextManager[Running]:
        """Listen on `listen` (HOST:PORT), balance over `backends`; files go to `work`.  Raises Unsupported, NotReady."""
        raise Unsupported(f"{self.name} is not set up for one hop")

    def two_hops(self, kind: str, listen: str, backends: Sequence[Backend], work: Path) -> AbstractContextManager[Running]:
        """Raises Unsupported, NotReady."""
        raise Unsupported(f"{self.name} is not set up for two hops")


def render(name: str, target: Path, folder: Path = CONFIGS, **values: object) -> Path:
    """FOLDER/NAME with its $variables replaced, written to `target`.  Raises KeyError for one that has no value."""
    target.write_text(Template((folder / name).read_text()).substitute(values))
    return target


def find_program(name: str) -> str | None:
    """Debian keeps servers in /usr/sbin, which a user's PATH may lack; wheels put theirs beside Python."""
    return shutil.which(name, path=None) or shutil.which(name, path=f"/usr/sbin:/usr/local/sbin:{Path(sys.executable).parent}")


def said(arguments: Sequence[str]) -> str:
    """First line a program prints about its version."""
    done = subprocess.run(list(arguments), capture_output=True, text=True, timeout=30, check=False)
    return next((line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()), "")


def listen_on(address: str) -> dict[str, object]:
    """`$host` and `$port` for templates that want them apart."""
    host, port = measure.split(address)
    return {"host": host, "port": port}

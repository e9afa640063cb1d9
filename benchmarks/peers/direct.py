"""No proxy at all: the load goes to the backend.  What is left when its latency is taken from a proxy's is what that adds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from benchmarks.peers.peer import Backend, Kinds, Peer, Running


class Direct(Peer):
    name = "direct"
    title = "no proxy"
    kinds: ClassVar[Kinds] = {1: ("h1", "h2", "grpc")}
    special = True
    settings = "The load generator against the backend, nothing between."

    def missing(self) -> str:
        return ""

    def version(self) -> str:
        return ""

    @contextmanager
    def one_hop(self, kind: str, listen: str, backends: Sequence[Backend], work: Path) -> Iterator[Running]:
        yield Running(backends[0].address, {})

"""nghttpx, the proxy of nghttp2 (Debian: nghttp2-proxy)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from benchmarks import measure
from benchmarks.peers.peer import Backend, Kinds, Peer, Running, find_program, said


class Nghttpx(Peer):
    name = "nghttpx"
    title = "nghttpx"
    kinds: ClassVar[Kinds] = {1: ("h1", "h2", "grpc")}
    settings = "`--workers=1`, windows of 1 MiB a stream and 16 MiB a connection on both sides, a 15 s time limit; no log."

    def missing(self) -> str:
        return "" if find_program("nghttpx") else "apt install nghttp2-proxy"

    def version(self) -> str:
        return said([find_program("nghttpx") or "nghttpx", "--version"])

    def command(self, kind: str, listen: str, backends: Sequence[str]) -> list[str]:
        front = listen.replace(":", ",")
        proto = "h2" if kind in ("h2", "grpc") else "http/1.1"
        words = [
            find_program("nghttpx") or "nghttpx",
            "--conf=/dev/null",
            "--workers=1",
        ]
        words += [
            f"--frontend={front};no-tls",
            *(f"--backend={address.replace(':', ',')};;proto={proto}" for address in backends),
        ]
        words += ["--backlog=8192", "--no-ocsp", "--errorlog-file=/dev/stderr"]
        # The same ceiling as everybody's: 1 MiB a stream, 16 MiB a connection.
        words += ["--frontend-http2-window-size=1048576", "--frontend-http2-connection-window-size=16777216"]
        words += ["--backend-http2-window-size=1048576", "--backend-http2-connection-window-size=16777216"]
        words += ["--frontend-http2-max-concurrent-streams=1000", "--backend-connections-per-host=512"]
        words += ["--frontend-keep-alive-timeout=1h", "--frontend-read-timeout=1h", "--frontend-http2-read-timeout=1h"]
        words += ["--backend-keep-alive-timeout=1h", "--backend-read-timeout=15s", "--no-server-rewrite"]
        return words

    @contextmanager
    def one_hop(self, kind: str, listen: str, backends: Sequence[Backend], work: Path) -> Iterator[Running]:
        words = self.command(kind, listen, [backend.address for backend in backends])
        with measure.process(words, on_core=measure.PROXY_CORE, ready=listen) as proxy:
            yield Running(listen, {"A": proxy.pid})

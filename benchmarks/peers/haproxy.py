"""HAProxy (Debian: haproxy).  One hop: its certificates checks know no URI SAN, so it cannot be one of a mesh's two."""

from __future__ import annotations

import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from benchmarks import measure
from benchmarks.peers.certificates import CLIENT, SERVER, write_certificates
from benchmarks.peers.peer import Backend, Kinds, Peer, Running, find_program, render, said


class HAProxy(Peer):
    name = "haproxy"
    title = "HAProxy"
    kinds: ClassVar[Kinds] = {1: ("h1", "h2", "grpc", "mtls")}
    settings = (
        "`nbthread 1`, `http-reuse always`, leastconn, one retry, a 15 s time limit, a request id (uuid) as header; no log."
    )

    def missing(self) -> str:
        return "" if find_program("haproxy") else "apt install haproxy"

    def version(self) -> str:
        return said([find_program("haproxy") or "haproxy", "-v"]).removesuffix(" - https://haproxy.org/")

    def config(self, target: Path, kind: str, listen: str, backends: Sequence[str], server_tls: Path | None = None) -> Path:
        protocol = " proto h2" if kind in ("h2", "grpc") else ""
        tls = ""
        if server_tls is not None:
            tls = f"ssl crt {server_tls}/both.pem ca-file {server_tls}/ca.pem verify required ssl-min-ver TLSv1.3 alpn http/1.1"
        open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        servers = (f"    server s{number} {address}{protocol}" for number, address in enumerate(backends))
        return render(
            "haproxy.cfg", target, listen=listen, bind_options=tls, servers="\n".join(servers), maxconn=(open_files - 200) // 2
        )

    @contextmanager
    def one_hop(self, kind: str, listen: str, backends: Sequence[Backend], work: Path) -> Iterator[Running]:
        server_tls, files = None, {}
        if kind == "mtls":
            write_certificates(work)
            server_tls = work / SERVER
            files = {name: str(work / CLIENT / f"{name}.pem") for name in ("cert", "key", "ca")}
        config = self.config(work / "haproxy.cfg", kind, listen, [backend.address for backend in backends], server_tls)
        command = [find_program("haproxy") or "haproxy", "-db", "-f", str(config)]  # -db: in the foreground
        with measure.process(command, on_core=measure.PROXY_CORE, ready=listen) as proxy:
            yield Running(listen, {"A": proxy.pid}, files=files)

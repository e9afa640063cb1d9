"""nginx as a proxy (Debian: nginx-light or nginx).  HTTP/1.1 to the backend only."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from benchmarks import measure
from benchmarks.peers.certificates import CLIENT, SERVER, write_certificates
from benchmarks.peers.peer import Backend, Kinds, Peer, Running, find_program, render, said


class Nginx(Peer):
    name = "nginx"
    title = "nginx"
    kinds: ClassVar[Kinds] = {1: ("h1", "mtls")}  # it speaks HTTP/1.1 to its backends
    settings = (
        "One worker, upstream keep-alive (512), least_conn, one retry, a 15 s time limit, a request id as header; no log, "
        "nothing spooled to disk."
    )

    def missing(self) -> str:
        return "" if find_program("nginx") else "apt install nginx-light"

    def version(self) -> str:
        return said([find_program("nginx") or "nginx", "-v"]).removeprefix("nginx version: ")

    def config(self, home: Path, listen: str, backends: Sequence[str], server_tls: Path | None = None) -> Path:
        home.mkdir(exist_ok=True)
        tls = ""
        if server_tls is not None:
            tls = (
                f"        ssl_certificate {server_tls}/cert.pem; ssl_certificate_key {server_tls}/key.pem;\n"
                f"        ssl_client_certificate {server_tls}/ca.pem; ssl_verify_client on; ssl_verify_depth 3;\n"
                "        ssl_protocols TLSv1.3; ssl_session_tickets off;"
            )
        return render(
            "nginx.conf",
            home / "nginx.conf",
            home=home,
            user="user root;" if os.geteuid() == 0 else "",
            listen=listen,
            listen_options=" ssl" if server_tls is not None else "",
            tls=tls,
            servers="\n".join(f"        server {address};" for address in backends),
        )

    def command(self, config: Path) -> list[str]:
        return [find_program("nginx") or "nginx", "-p", str(config.parent), "-c", str(config), "-e", "stderr"]

    @contextmanager
    def one_hop(self, kind: str, listen: str, backends: Sequence[Backend], work: Path) -> Iterator[Running]:
        server_tls, files = None, {}
        if kind == "mtls":
            write_certificates(work)
            server_tls = work / SERVER
            files = {name: str(work / CLIENT / f"{name}.pem") for name in ("cert", "key", "ca")}
        config = self.config(work / "nginx", listen, [backend.address for backend in backends], server_tls)
        with measure.process(self.command(config), on_core=measure.PROXY_CORE, ready=listen) as proxy:
            yield Running(listen, {"A": proxy.pid}, files=files)

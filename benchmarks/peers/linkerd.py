"""linkerd2-proxy, without a cluster: its control plane is the stub in benchmarks/linkerd, its pods a network
namespace.

two hops   load --> [A outbound] ==mTLS, HTTP/2==> [B inbound] --> backend
one hop    load --> [A outbound] --> backends                                  plaintext, as to endpoints outside the mesh
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.linkerd import pair
from benchmarks.peers.peer import Backend, Peer, Running, Unsupported


class Linkerd(Peer):
    name = "linkerd"
    title = "linkerd2-proxy"
    settings = (
        "LINKERD2_PROXY_CORES=1; everything else as Linkerd's injector and control plane set it: metrics on, a Service with an "
        "HTTPRoute that has a request timeout (15 s) and one retry on 502 to 504, peak-EWMA balancing, consecutive-failures "
        "breaker, retry budget, mutual TLS by P-256 certificates, an AuthorizationPolicy that names the caller, HTTP/2 between "
        "the proxies. Its control plane is a stub with fixed answers. It runs with the redirect it has in a pod, by nftables "
        "in a network namespace where load generator and backend are too: the kernel's connection tracking looks at each "
        "packet, and its CPU includes that: 5 % over two hops, c=64, beside a run without. Nobody else here pays for it, which "
        "favours the others, us among them."
    )

    def missing(self) -> str:
        return pair.missing()

    def version(self) -> str:
        return pair.version()

    @contextmanager
    def one_hop(self, kind: str, listen: str, backends: Sequence[Backend], work: Path) -> Iterator[Running]:
        if kind == "mtls":
            raise Unsupported("linkerd2-proxy takes TLS from its own outbound proxies only")
        with pair.one_hop(backends[0].program, len(backends), work) as a:
            yield Running(pair.SERVICE, {"A": a.pid}, pair.AUTHORITY, network=a.network)

    @contextmanager
    def two_hops(self, kind: str, listen: str, backends: Sequence[Backend], work: Path) -> Iterator[Running]:
        if kind == "mtls":
            raise Unsupported("linkerd2-proxy takes TLS from its own outbound proxies only")
        with pair.two_hops(backends[0].program, work) as (a, b):
            yield Running(pair.SERVICE, {"A": a.pid, "B": b.pid}, pair.AUTHORITY, network=a.network)

"""Who takes part: one file a peer."""

from __future__ import annotations

from benchmarks.peers.direct import Direct
from benchmarks.peers.envoy import Envoy
from benchmarks.peers.haproxy import HAProxy
from benchmarks.peers.linkerd import Linkerd
from benchmarks.peers.nghttpx import Nghttpx
from benchmarks.peers.nginx import Nginx
from benchmarks.peers.ours import Ours
from benchmarks.peers.peer import Peer


def all_peers() -> list[Peer]:
    """In the order of tables.  The last four take part only where a workload names them."""
    peers: list[Peer] = [Ours("compiled"), Ours("interpreted"), Envoy(), Linkerd(), HAProxy(), Nginx(), Nghttpx()]
    return [*peers, Ours("compiled", 2), Ours("interpreted", 2), Ours("compiled", policy=True), Direct()]

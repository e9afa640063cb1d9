"""What parent and worker say to each other.

    parent                                  worker
    Start  (once, first)        ---->
    Identity, Configure, Listen ---->       Ready(why)      when it changed
    Ask (every second)          ---->       Measured
    Explain                     ---->       Explained
    Drain                       ---->       Drained, and it ends

Keys and certificates pass here and nowhere else: a socketpair has no name, and nothing of it touches a disk.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from meshproxy.telemetry.snapshot import Snapshot
from meshproxy.workers.plan import ForwardPlan, SidecarPlan

MAX_MESSAGE: Final = 64 << 20  # bytes; a configuration of 50,000 resources is some ten MB


class Start(msgspec.Struct, tag="start"):
    """Exactly one of the plans.  `settings`: plan.plain_values."""

    worker: int
    log_level: str
    settings: dict[str, Any]
    forward: ForwardPlan | None = None
    sidecar: SidecarPlan | None = None


class Listen(msgspec.Struct, tag="listen"):
    """Accept from the sockets that come with this message.  `side`: "outbound" or "inbound"."""

    key: str
    side: str
    host: str
    port: int
    destination: str = ""


class Unlisten(msgspec.Struct, tag="unlisten"):
    key: str


class Identity(msgspec.Struct, tag="identity"):
    """An SVID and the anchors its peers must chain to."""

    leaf_der: bytes
    chain_pem: bytes
    key_pem: bytes
    not_before: float
    not_after: float
    anchors_der: list[bytes]


class Configure(msgspec.Struct, tag="configure"):
    """A mesh_pb2.Update, serialized: what changed since the last one sent to this worker."""

    update: bytes


class Ask(msgspec.Struct, tag="ask"):
    """For a Measured with the same number.  `fine`: from now on with latencies in 2 % buckets."""

    number: int
    fine: bool = False


class Explain(msgspec.Struct, tag="explain"):
    """For an Explained with the same number.  `inbound`, `query`: as Status.explain has them."""

    number: int
    inbound: bool
    query: str


class Drain(msgspec.Struct, tag="drain"):
    """Finish what is in flight, then end.  `linger`: see Lifecycle.stop."""

    linger: bool = True


class Ready(msgspec.Struct, tag="ready"):
    """`why`: "" when requests can be served, otherwise why not."""

    why: str


class Measured(msgspec.Struct, tag="measured"):
    number: int
    snapshot: Snapshot


class Explained(msgspec.Struct, tag="explained"):
    """`trail`: JSON; b"" where the query asks about no request, and `problem` says why."""

    number: int
    trail: bytes
    problem: str = ""


class Drained(msgspec.Struct, tag="drained"):
    """`finished`: everything in flight ended in time."""

    finished: bool


ToWorker = Start | Listen | Unlisten | Identity | Configure | Ask | Explain | Drain
ToParent = Ready | Measured | Explained | Drained

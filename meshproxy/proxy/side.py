"""A side: what kind of listener a connection came in by, and what is decided there.

Accepted (server.py)   finds out what its client speaks and speaks it; asks its side
Side                   is TLS wanted, may bytes pass, where do requests go?
  ForwardSide (forward.py), Outbound, Inbound, and the admin pages' (meshproxy/admin.py)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from meshproxy.proxy.context import Context
from meshproxy.proxy.server_first import ServerFirst
from meshproxy.proxy.tls import Credentials
from meshproxy.wire.engine import Stream
from meshproxy.wire.message import Head
from meshproxy.wire.native import mypyc_attr

if TYPE_CHECKING:
    from meshproxy.proxy.server import Accepted

# What a side wants done with a TLS ClientHello.
TERMINATE: Final = 1
PASS_THROUGH: Final = 2  # opaque bytes
REFUSE: Final = 3


@mypyc_attr(allow_interpreted_subclasses=True)  # the admin side is one
class Side:
    """`direction` is the metric label."""

    def __init__(self, ctx: Context, direction: str) -> None:
        self.ctx = ctx
        self.direction = direction
        self.own_app = False  # whoever connects is the pod's own app: what it cancels is its own work
        self.essential = False  # it works whatever the pressure: the admin side
        self.connections: dict[Accepted, None] = {}
        self.credentials: Credentials | None = None
        self.tcp = ctx.registry.tcp(direction, (("peer", "src"),))
        self.server_first = ServerFirst(ctx.registry, direction)

    def on_hello(self, connection: Accepted, alpn: list[bytes]) -> int:
        """A ClientHello arrived: TERMINATE, PASS_THROUGH or REFUSE."""
        raise NotImplementedError

    def on_secured(self, connection: Accepted, leaf: bytes | None) -> None:
        """The handshake is done; `leaf` is the client's certificate (DER).  Raises TlsFailure to refuse it."""

    def allows_clear(self, connection: Accepted) -> bool:
        """May this connection go on without TLS?"""
        return True

    def declared_opaque(self, connection: Accepted) -> bool:
        """Is it known before the first byte that this connection carries opaque bytes?  Where the server speaks first
        (MySQL, SMTP) there is no first byte to wait for."""
        return False

    def opaque_authority(self, connection: Accepted) -> bytes:
        """Where opaque bytes of this connection go (host:port), b"" if nowhere."""
        return b""

    def only_http(self, connection: Accepted) -> bool:
        """Do bytes go nowhere because this place is for HTTP: declared so, or the server is told who asks?"""
        return False

    def request(self, connection: Accepted, stream: Stream, head: Head, end: bool) -> None:
        """Handle a request: give `stream` its sink and begin."""
        raise NotImplementedError

    def opened(self, connection: Accepted) -> None:
        self.connections[connection] = None

    def ended(self, connection: Accepted) -> None:
        self.connections.pop(connection, None)

"""A requester: who asks an endpoint for a stream.  The exchange is the only one; this base class keeps the pools from
knowing it."""

from __future__ import annotations

from meshproxy.proxy.refusals import Refusal
from meshproxy.wire.engine import Sink, Stream


class Requester(Sink):
    """slot     where it stands in the wheel of deadlines (proxy/timers.py), -1 if it does not
    unraced  the connection was dialled while it waited, or its server has begun to speak: if it is lost, that was no idle
             connection which the server closed at the moment of reuse
    """

    slot: int = -1
    unraced: bool = False

    def attached(self, stream: Stream) -> None:
        """Here is the stream; its sink is you already."""
        raise NotImplementedError

    def unreachable(self, refusal: Refusal) -> None:
        """No stream: nothing of the request was sent."""
        raise NotImplementedError

    def overloaded(self) -> None:
        """This proxy holds too much, and most of it for you: end, now."""
        raise NotImplementedError

    def timed_out(self) -> None:
        """The whole exchange's deadline passed."""
        raise NotImplementedError

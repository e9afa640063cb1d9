"""Mirroring: a copy of a request for another backend, whose answer nobody gets.

    exchange --by_rule--> Mirror.due? --> another Exchange, with NoClient for its client
       | body                               | a copy of it, while the backend takes it
       `-- ends before its request is whole ---> cancelled

The copy never slows or fails the original: it has a Route of its own (its counters, its deadline; nothing is tried again), it
is given up when it is BEHIND_BYTES behind the original, and there are so many at once and no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from meshproxy.policy.random import Rng
from meshproxy.policy.split import Split
from meshproxy.wire.engine import Stream
from meshproxy.wire.message import Field, Head

if TYPE_CHECKING:
    from meshproxy.proxy.route import Route

TIMEOUT_S: Final = 30.0  # of a copy, with its answer
RUNNING: Final = 256  # copies under way for one mirror
BEHIND_BYTES: Final = 256 * 1024  # what a stalled stream may hold (Limits.stream_window_held): time to connect, not to be slow


class Mirror:
    """route  of the copies: one backend, a deadline, counters"""

    def __init__(self, route: Route, numerator: int, denominator: int, rng: Rng) -> None:
        self.route = route
        self.split = Split([numerator, denominator - numerator], rng)

    def due(self) -> bool:
        """Is this request one of those that are copied?"""
        return self.split.draw() == 0 and self.route.series.in_flight() < RUNNING


class NoClient(Stream):
    """Stands where a copy's client would: takes the answer and forgets it.

    blocked   the backend does not take what comes (it may still be connecting)
    waiting   bytes that have come since
    """

    def __init__(self) -> None:
        super().__init__()
        self.blocked = False
        self.waiting = 0

    def behind(self, size: int) -> bool:
        """`size` more bytes have come: is the copy to be given up?  Holding on would need memory, or slow the original."""
        if not self.blocked:
            return False
        self.waiting += size
        return self.waiting > BEHIND_BYTES

    def send_interim(self, head: Head) -> None:
        pass

    def send_head(self, head: Head, extra: list[Field], end: bool) -> None:
        pass

    def send_data(self, data: bytes, end: bool) -> None:
        pass

    def send_trailers(self, fields: list[Field]) -> None:
        pass

    def reset(self, code: int) -> None:
        pass

    def pause(self) -> None:
        self.blocked = True

    def resume(self) -> None:
        self.blocked = False
        self.waiting = 0

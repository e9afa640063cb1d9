"""Flow control of what we receive (RFC 9113 5.2 and 6.9).  What we send needs no class: two integers and `min`.

A stream:      available --DATA--> less --credit()--> back to `size`, unless the stream is paused
               size doubles with each credit while the far side drains, and falls back when it stops
The connection: credit is returned on receipt, so one stalled stream cannot hold the others; what it bounds is what can
               be in flight.

So a peer that uploads to a quick reader gets up to `stream_window_max`; to one that stops, never more than it was granted
before, and after that no more than the initial window.
"""

from __future__ import annotations


class ReceiveWindow:
    """One window.

    available  bytes the peer may still send; negative means it sent too many
    size       what `available` is brought back to
    """

    def __init__(self, available: int, size: int, largest: int) -> None:
        self.available = available
        self.size = size
        self.initial = size
        self.largest = largest

    def credit(self, grow: bool) -> int:
        """How many bytes to grant now: 0 until half of the window is used, so that a transfer costs few frames."""
        if self.available * 2 > self.size:
            return 0
        if grow and self.size < self.largest:
            self.size = min(self.size * 2, self.largest)
        granted = self.size - self.available
        self.available = self.size
        return granted

    def shrink(self) -> None:
        """The far side has stopped: from here on grant no more than at the start."""
        self.size = self.initial

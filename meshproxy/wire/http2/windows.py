"""Flow control of what we receive (RFC 9113 5.2 and 6.9).  What we send needs no class: two integers and `min`.

A stream:      available --DATA--> less --credit()--> back to `size`, unless the stream is paused
               size doubles with each credit while the far side drains, and falls back when it stops
The connection: credit is returned on receipt, so one stalled stream cannot hold the others; what it bounds is what can
               be in flight.

    size:  64 KiB --far side drains--> 256 KiB --only if the round-trip makes it necessary--> 1 MiB
             ^------------------------- far side stops ------------------------------------------+

What a peer was granted before the far side stopped still comes, and is held: so a large window is a promise to hold as much.
Up to 256 KiB it is given for the asking.  Beyond, it is of use only where more than that is on its way at a time,
throughput x round-trip, which no short link needs (256 KiB every 2 ms are 1 Gbit/s).  `Growth` finds out: a PING of ours
measures the round-trip, and a stream that uses up half of its window within one is being held back by it.
The cost: none per DATA frame; a comparison each time half of a window is granted again; a PING a second on connections
with a stream that fast.
"""

from __future__ import annotations

from typing import Final

from meshproxy.wire.limits import Limits

ROUND_TRIP: Final = b"meshrtt\0"  # the payload of the PING that measures
ENOUGH: Final = 3  # measurements before one believes them: the shortest counts, others waited for somebody's processor
MEASURE_S: Final = 1.0  # after these, not more often
UNKNOWN: Final = -1.0


class ReceiveWindow:
    """One window.

    available  bytes the peer may still send; negative means it sent too many
    size       what `available` is brought back to
    largest    what `size` may grow to
    filled_at  when it was brought back last, for Growth
    """

    def __init__(self, available: int, size: int, largest: int) -> None:
        self.available = available
        self.size = size
        self.initial = size
        self.largest = largest
        self.filled_at = UNKNOWN

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


class Growth:
    """Which windows of a connection may grow beyond what is given for the asking.  Times are seconds of the host's clock.

    easily      bytes: what every stream's window may grow to
    round_trip  the shortest one measured, UNKNOWN before the first
    """

    def __init__(self, limits: Limits) -> None:
        self.easily = max(limits.stream_window, min(limits.stream_window_held, limits.stream_window_max))
        self.largest = limits.stream_window_max
        self.long = limits.stream_window_rtt_s
        self.round_trip = UNKNOWN
        self.asked_at = UNKNOWN  # when the PING that is not yet answered was sent
        self.measured_at = UNKNOWN
        self.measurements = 0

    def wants(self, window: ReceiveWindow, now: float) -> bool:
        """`window` was just granted again.  Lets it grow if there is need; True if the round-trip is to be measured."""
        if window.size < window.largest or window.largest >= self.largest:
            return False
        used_in = now - window.filled_at if window.filled_at >= 0.0 else UNKNOWN
        window.filled_at = now
        certain = self.measurements >= ENOUGH
        if certain and self.round_trip >= self.long and 0.0 <= used_in <= self.round_trip:
            window.largest = min(window.largest * 2, self.largest)
        if self.asked_at >= 0.0 or (certain and now - self.measured_at < MEASURE_S):
            return False
        self.asked_at = now
        return True

    def measured(self, now: float) -> None:
        """The PING was answered.  An answer to none that we sent means nothing."""
        if self.asked_at < 0.0:
            return
        taken = now - self.asked_at
        if self.round_trip < 0.0 or taken < self.round_trip:
            self.round_trip = taken
        self.asked_at = UNKNOWN
        self.measured_at = now
        self.measurements += 1

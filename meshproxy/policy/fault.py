"""Fault injection: which requests are delayed or aborted, on purpose and only where it is declared.

    request --match?--> delay drawn? --> wait `delay_s` --> abort drawn? --> answered with the declared status
                                                                        \\--> goes on

The two draws are independent: with 10 % delayed and 10 % aborted, 1 % are both.  Shares are parts of a million, so that
0.01 % is exact in the configuration; which requests they fall on is chance, from the proxy's own seeded generator.
"""

from __future__ import annotations

from typing import Final

from meshproxy.policy.random import Rng
from meshproxy.wire.message import Head

MILLION: Final = 1_000_000
MAX_DELAY_S: Final = 60.0  # a delayed request holds its connection and its body

NO_FAULT_STATUS: Final = 0
NO_FAULT_GRPC: Final = -1


class Fault:
    """What happens to one request.  `delay_s` 0.0: nothing to wait for.  `status` 0: it goes on; else the HTTP answer, and
    `grpc_status` the answer to a gRPC call."""

    __slots__ = ("delay_s", "grpc_status", "status")

    def __init__(self, delay_s: float, status: int, grpc_status: int) -> None:
        self.delay_s = delay_s
        self.status = status
        self.grpc_status = grpc_status


class FaultPolicy:
    """What is injected; immutable, part of the tables.  Raises ValueError for what is out of range.

    delay_s, delay_ppm      seconds, and the share of requests in millionths
    status, abort_ppm       HTTP status 200..599 instead of an answer, and its share
    grpc_status             for gRPC calls, 0..16; by default UNAVAILABLE (14)
    header, value           of requests that have this header field; b"": of all
    """

    __slots__ = ("_abort", "_both", "_delay", "abort_ppm", "delay_ppm", "delay_s", "grpc_status", "header", "status", "value")

    def __init__(
        self,
        delay_s: float = 0.0,
        delay_ppm: int = 0,
        status: int = 503,
        abort_ppm: int = 0,
        grpc_status: int = 14,
        header: str = "",
        value: str = "",
    ) -> None:
        self.header = header.lower().encode()
        self.value = value.encode()
        if not 0.0 <= delay_s <= MAX_DELAY_S:
            raise ValueError(f"fault: a delay must be 0 to {MAX_DELAY_S} seconds, not {delay_s}")
        if not (0 <= delay_ppm <= MILLION and 0 <= abort_ppm <= MILLION):
            raise ValueError(f"fault: a share must be 0 to 100 %, not {max(delay_ppm, abort_ppm) / 10_000} %")
        if not 200 <= status <= 599:
            raise ValueError(f"fault: a status must be 200 to 599, not {status}")
        if not 0 <= grpc_status <= 16:
            raise ValueError(f"fault: a gRPC status must be 0 to 16, not {grpc_status}")
        self.delay_s = delay_s
        self.delay_ppm = delay_ppm if delay_s > 0.0 else 0
        self.status = status
        self.abort_ppm = abort_ppm
        self.grpc_status = grpc_status
        self._delay = Fault(delay_s, NO_FAULT_STATUS, NO_FAULT_GRPC)
        self._abort = Fault(0.0, status, grpc_status)
        self._both = Fault(delay_s, status, grpc_status)

    def matches(self, head: Head) -> bool:
        """Is it one of the requests that are meant?"""
        return not self.header or head.field(self.header) == self.value

    def draw(self, rng: Rng) -> Fault | None:
        """What happens to the next request that matches; None: nothing.  Always two draws, so that changing one share does
        not change which requests the other falls on."""
        delayed = rng.below(MILLION) < self.delay_ppm
        aborted = rng.below(MILLION) < self.abort_ppm
        if delayed:
            return self._both if aborted else self._delay
        return self._abort if aborted else None

"""What this process may take on: memory, held bytes, descriptors.  Numbers and decisions; relief.py acts on them.

Memory (resident bytes against the cgroup's limit or the setting), looked at by each sweep and after every 8 connections:

    NORMAL --92 %--> TIGHT --95 %--> SHEDDING        TIGHT     connections end after their answer (GOAWAY, connection: close)
    NORMAL <--90 %-- TIGHT <--93 %-- SHEDDING        SHEDDING  new requests are refused `overloaded`, none are accepted

Held bytes (what engines keep back for streams, request bodies kept for a retry), known exactly at every moment:

    ROOM --over process_held_bytes--> FULL: new requests are refused `overloaded`
         --over 1.25 of it----------> and the stream that holds most is reset, until it is below the bound
         <--below 0.9 of it-- FULL

Connections (each is a descriptor):

    OPEN --max_connections accepted--> PAUSED: accept() is not called, the kernel's queue waits     PAUSED --15/16--> OPEN

`level` is what every request looks at: one number for "anything the matter?".
"""

from __future__ import annotations

import logging
from typing import Any, Final

from meshproxy.proxy.settings import Settings
from meshproxy.telemetry.families import MAX
from meshproxy.telemetry.registry import Registry

log: Final = logging.getLogger("meshproxy.proxy")

NORMAL: Final = 0
TIGHT: Final = 1
SHEDDING: Final = 2
NAMES: Final = ("normal", "tight", "shedding")

# Upwards at, downwards below; parts of the limit.  The 5 % that are left when requests are refused are for those under way.
TIGHT_FROM: Final = 0.92
TIGHT_UNTIL: Final = 0.90
SHEDDING_FROM: Final = 0.95
SHEDDING_UNTIL: Final = 0.93

HELD_RESET: Final = 1.25  # of process_held_bytes: from here on streams are reset
HELD_UNTIL: Final = 0.9  # of process_held_bytes: requests are taken again
REPLAY_SHARE: Final = 0.5  # of process_held_bytes: past it no request that has been sent is kept for a retry

# A thousand clients can connect between two sweeps, and each may be a slow reader of 100 KiB: memory is also looked at after so
# many of them (20 us).
LOOK_EVERY: Final = 8

# Levels a request meets.
CALM: Final = 0
CLOSE_AFTER: Final = 1
REFUSE_NEW: Final = 2


def judge(state: int, used: int, limit: int) -> int:
    """The next state of memory.  Total: any state may follow any other, as a second is long."""
    if limit <= 0 or used <= 0:
        return NORMAL
    part = used / limit
    if part >= SHEDDING_FROM or (state == SHEDDING and part >= SHEDDING_UNTIL):
        return SHEDDING
    if part >= TIGHT_FROM or (state != NORMAL and part >= TIGHT_UNTIL):
        return TIGHT
    return NORMAL


def connection_share(descriptors: int, reserve: int) -> int:
    """How many connections of one kind (accepted, dialled) fit into `descriptors`: half each of what the reserve leaves, as
    a request may need one of both."""
    return max(1, (descriptors - reserve) // 2)


class Pressure:
    """level      CALM, CLOSE_AFTER or REFUSE_NEW
    memory     NORMAL, TIGHT, SHEDDING
    held       bytes
    keep_bodies  request bodies may still be kept for a retry
    accepted, dialled   connections, without the admin's; max_*: how many there may be
    idle_upstream       called to make room for a dial: closes an idle upstream connection, False if there is none
    relief     called (no arguments) when `held` is over HELD_RESET or `accepted` at its maximum; None before the start
    """

    def __init__(self, settings: Settings, registry: Registry, memory_limit: int, descriptors: int) -> None:
        self.level = CALM
        self.memory = NORMAL
        self.memory_limit = memory_limit
        self.held = 0
        self.held_max = settings.process_held_bytes
        self.held_reset = int(self.held_max * HELD_RESET)
        self.held_low = int(self.held_max * HELD_UNTIL)
        self.replay_max = int(self.held_max * REPLAY_SHARE)
        self.keep_bodies = True
        self.full = False
        self.accepted = 0
        self.dialled = 0
        self.unseen = 0  # connections accepted since memory was looked at
        share = connection_share(descriptors, settings.reserved_descriptors)
        self.max_accepted = min(settings.max_connections or share, share)
        self.max_dialled = share
        self.relief: Any = None
        self.idle_upstream: Any = None
        self.relieving = False
        self.paused = False  # accepting is
        self.said_full = False
        self.memory_gauge = registry.gauge(
            "meshproxy_memory_state", "0 normal, 1 tight, 2 shedding (docs/limits.md).", across=MAX
        )
        self.limit_gauge = registry.gauge(
            "meshproxy_memory_limit_bytes", "Resident memory this proxy may use, 0 without a limit."
        )
        self.limit_gauge.value = float(memory_limit)
        self.max_gauge = registry.gauge("meshproxy_connections_max", "Connections accepted at once; then accepting pauses.")
        self.max_gauge.value = float(self.max_accepted)
        held = registry.gauge("meshproxy_held_bytes", "Bytes held back for streams, and request bodies kept for a retry.")

        def measure() -> None:
            held.value = float(self.held)

        registry.on_scrape(measure)

    def carries_nothing(self) -> None:
        """The process is the parent of workers, which carry the traffic: what it could take on is not part of the sum."""
        self.limit_gauge.value = 0.0
        self.max_gauge.value = 0.0

    # -- memory

    def look(self, used: int) -> bool:
        """`used` bytes are resident.  True if the state changed."""
        self.unseen = 0
        state = judge(self.memory, used, self.memory_limit)
        if state == self.memory:
            return False
        log.log(
            logging.INFO if state == NORMAL else logging.WARNING,
            "memory is %s (was %s): %d of %d MiB resident%s",
            NAMES[state],
            NAMES[self.memory],
            used >> 20,
            self.memory_limit >> 20,
            ("", "; connections end after their answer", "; new requests are refused, and none are accepted")[state],
        )
        self.memory = state
        self.memory_gauge.value = float(state)
        self.set_level()
        return True

    def set_level(self) -> None:
        self.level = REFUSE_NEW if self.full or self.memory == SHEDDING else CLOSE_AFTER if self.memory == TIGHT else CALM

    # -- held bytes

    def hold(self, change: int) -> None:
        """`change` bytes more (negative: fewer) are held for streams."""
        self.held = held = self.held + change
        if held > self.replay_max:
            self.filling(held)
        elif not self.keep_bodies:
            self.keep_bodies = True
            self.emptied()

    def filling(self, held: int) -> None:
        self.keep_bodies = False
        if held > self.held_max:
            if not self.full:
                self.full = True
                self.set_level()
                if not self.said_full:
                    self.said_full = True
                    log.warning("%d MiB are held for streams whose readers are slow: new requests are refused", held >> 20)
            if held > self.held_reset:
                self.call_relief()
        elif held < self.held_low:
            self.emptied()

    def emptied(self) -> None:
        if self.full:
            self.full = False
            self.set_level()

    # -- connections

    def opened(self) -> None:
        self.accepted += 1
        self.unseen += 1
        if self.accepted >= self.max_accepted or (self.unseen >= LOOK_EVERY and self.memory_limit):
            self.call_relief()

    def closed(self) -> None:
        self.accepted -= 1
        if self.paused and self.may_accept():
            self.call_relief()

    def may_accept(self) -> bool:
        """With room for a sixteenth once it was paused, so that it does not turn on and off with each connection."""
        if self.memory == SHEDDING:
            return False
        limit = self.max_accepted
        return self.accepted < (limit - limit // 16 if self.paused else limit)

    def dialling(self) -> bool:
        """A connection is about to be dialled.  False if there may be no more of them."""
        if self.dialled >= self.max_dialled and (self.idle_upstream is None or not self.idle_upstream()):
            return False
        self.dialled += 1
        return True

    def undialled(self) -> None:
        self.dialled -= 1

    # -- acting

    def call_relief(self) -> None:
        """Once a loop turn, and never from inside an engine."""
        if self.relief is not None and not self.relieving:
            self.relieving = True
            self.relief()

    def sweep(self) -> None:
        if self.said_full and not self.full:
            self.said_full = False
            log.info("%d MiB are held for streams: requests are taken again", self.held >> 20)

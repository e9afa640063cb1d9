"""What is done about pressure (proxy/pressure.py says when).

memory TIGHT, or as many connections as there may be -> the longest idle are closed, a sixteenth at a time
no more connections, or memory SHEDDING              -> accepting pauses: who connects waits in the kernel's queue
memory at 95 % all the same                          -> connections whose peers have most to read are reset
held bytes over their bound and growing              -> the stream that holds most, on the connection that holds most,
                                                        is reset; then requests that wait for a connection are refused
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush, nlargest, nsmallest
from typing import TYPE_CHECKING, Final

from meshproxy.proxy.carrier import Carrier
from meshproxy.proxy.context import Context, log
from meshproxy.proxy.memory import give_back, resident_bytes
from meshproxy.proxy.pressure import NORMAL, SHEDDING, SHEDDING_FROM, SHEDDING_UNTIL, TIGHT
from meshproxy.proxy.requester import Requester
from meshproxy.proxy.server import Accepted
from meshproxy.proxy.upstream import Upstream
from meshproxy.telemetry.families import MAX
from meshproxy.wire.engine import ENHANCE_YOUR_CALM

if TYPE_CHECKING:
    from meshproxy.proxy.listener import Lifecycle

WATCH_FROM: Final = 0.8  # of the memory limit: from here on it is looked at every WATCH_S, 20 us each
WATCH_S: Final = 0.01
DROPPED_AT_ONCE: Final = 64
WORTHWHILE_BYTES: Final = 16 * 1024  # what a connection must hold to be dropped for it

IDLE_S: Final = 1.0  # younger ones may have a request on its way


class Relief:
    def __init__(self, ctx: Context, lifecycle: Lifecycle) -> None:
        self.ctx = ctx
        self.lifecycle = lifecycle
        self.ended = 0  # requests and connections, for the log
        self.dropped = False  # since memory was last looked at
        self.watching = False
        self.pauses = ctx.registry.counter("meshproxy_accept_pauses_total", "Times accepting connections was paused.")
        self.paused_gauge = ctx.registry.gauge(
            "meshproxy_accept_paused", "1 while accepting connections is paused.", across=MAX
        )
        pressure = ctx.pressure
        pressure.relief = self.soon
        pressure.idle_upstream = self.close_idle_upstream

    def soon(self) -> None:
        self.ctx.loop.call_soon(self.act)

    def act(self) -> None:
        ctx = self.ctx
        pressure = ctx.pressure
        pressure.relieving = False
        try:
            self.look()
            self.accept_or_pause()
            if pressure.held > pressure.held_reset:
                self.reset_heaviest()
        except Exception:  # noqa: BLE001 - counted and logged by `escaped`; the next sweep looks again
            ctx.escaped("relief")

    def sweep(self, now: float) -> None:
        pressure = self.ctx.pressure
        self.look()
        if pressure.memory != NORMAL:
            give_back()
        if pressure.memory == TIGHT or pressure.paused:
            self.close_idle(now)
        if pressure.held > pressure.held_reset:
            self.reset_heaviest()
        self.accept_or_pause()
        pressure.sweep()
        if self.ended:
            log.warning("%d slow peers were dropped: they made this proxy hold too much", self.ended)
            self.ended = 0

    # -- memory

    def look(self) -> None:
        """Compare what is resident with the limit; near it look again soon, at it drop the slowest readers."""
        ctx = self.ctx
        pressure = ctx.pressure
        limit = pressure.memory_limit
        if not limit:
            return
        if self.dropped:
            self.dropped = False
            give_back()  # before it is measured: otherwise the next ones would go for what is free already
        used = resident_bytes()
        pressure.look(used)
        if used >= limit * SHEDDING_FROM:
            self.drop_slow_readers(used - int(limit * SHEDDING_UNTIL))
        if used >= limit * WATCH_FROM and not self.watching:
            self.watching = True
            ctx.loop.call_later(WATCH_S, self.watch)

    def watch(self) -> None:
        self.watching = False
        if not self.ctx.draining:
            self.act()

    def drop_slow_readers(self, excess: int) -> None:
        """Refusing what is new does not stop what was admitted from growing: the connections whose peers have most to read are
        reset, until `excess` bytes are free.  The kernel's choice would be the whole process."""
        ctx = self.ctx
        waiting = [
            (carrier.transport.get_write_buffer_size() + carrier.held_bytes, carrier)
            for carrier in self.carriers()
            if carrier.transport is not None and not carrier.nested
        ]
        for size, carrier in nlargest(DROPPED_AT_ONCE, waiting, key=first):
            if excess <= 0 or size < WORTHWHILE_BYTES:
                return
            excess -= size
            self.dropped = True
            self.ended += 1
            ctx.refused("overloaded", carrier.side.direction if isinstance(carrier, Accepted) else "outbound")
            carrier.abort()

    # -- connections

    def accept_or_pause(self) -> None:
        ctx = self.ctx
        pressure = ctx.pressure
        if ctx.draining:
            return
        if pressure.may_accept():
            if pressure.paused:
                pressure.paused = False
                self.paused_gauge.value = 0.0
                log.info("accepting connections again: %d of %d", pressure.accepted, pressure.max_accepted)
                for listener in self.lifecycle.listeners:
                    listener.resume()
            return
        if not pressure.paused:
            pressure.paused = True
            self.paused_gauge.value = 1.0
            self.pauses.value += 1
            log.warning(
                "accepting connections is paused: %d of %d%s",
                pressure.accepted,
                pressure.max_accepted,
                ", memory is short" if pressure.memory == SHEDDING else "",
            )
            self.close_idle(ctx.now)
        for listener in self.lifecycle.listeners:  # also one that began meanwhile
            if not listener.side.essential:
                listener.pause()

    def close_idle(self, now: float) -> None:
        """Close a sixteenth of what may be accepted, those that have been idle longest."""
        ctx = self.ctx
        idle = [
            connection
            for side in self.lifecycle.sides
            for connection in side.connections
            if now - connection.moved_at() > IDLE_S and connection.idle()
        ]
        if not idle:
            return
        reason = "connection_limit" if ctx.pressure.paused and ctx.pressure.memory == NORMAL else "overloaded"
        count = max(1, ctx.pressure.max_accepted // 16)
        for connection in nsmallest(count, idle, key=last_active):
            ctx.refused(reason, connection.side.direction)
            connection.drain()

    def close_idle_upstream(self) -> bool:
        """Close the upstream connection that has been idle longest.  False if none is idle."""
        oldest: Upstream | None = None
        for endpoint in self.ctx.endpoints:
            idle = endpoint.http1.idle
            if idle and (oldest is None or idle[0].active_at < oldest.active_at):
                oldest = idle[0]
        if oldest is None:
            return False
        oldest.drain()
        return True

    # -- held bytes

    def reset_heaviest(self) -> None:
        """Until what is held is below the bound.  Every round frees something or takes its connection off the heap."""
        ctx = self.ctx
        pressure = ctx.pressure
        carriers = self.carriers()
        heap = [(-carrier.held_bytes, place) for place, carrier in enumerate(carriers) if carrier.held_bytes > 0]
        heapify(heap)
        streams = 0
        while heap and pressure.held > pressure.held_max:
            carrier = carriers[heappop(heap)[1]]
            before = carrier.held_bytes
            self.reset_one(carrier)
            streams += 1
            if 0 < carrier.held_bytes < before:
                heappush(heap, (-carrier.held_bytes, carriers.index(carrier)))
        if pressure.held > pressure.held_max:
            streams += self.refuse_waiting()
        self.ended += streams

    def carriers(self) -> list[Carrier]:
        found: list[Carrier] = []
        for side in self.lifecycle.sides:
            found.extend(side.connections)
        for endpoint in self.ctx.endpoints:
            for pool in endpoint.pools():
                found.extend(pool.connections)
                found.extend(pool.departing)
        return found

    def reset_one(self, carrier: Carrier) -> None:
        """Give up the stream of `carrier` that holds most; where the engine names none, the connection."""
        ctx = self.ctx
        ctx.refused("held_bytes", carrier.side.direction if isinstance(carrier, Accepted) else "outbound")
        engine = carrier.engine
        stream = engine.heaviest() if engine is not None else None
        if engine is None or stream is None:
            carrier.abort()
            carrier.release_held()
            return
        sink = stream.sink
        if isinstance(sink, Requester):
            sink.overloaded()
        elif engine.server:
            sink.request_reset(ENHANCE_YOUR_CALM)
        else:
            sink.response_reset(ENHANCE_YOUR_CALM, False)
        stream.reset(ENHANCE_YOUR_CALM)  # does nothing where `overloaded` did it; and ends an answer that was still queued

    def refuse_waiting(self) -> int:
        """Requests that wait for a connection, the last to come first: their bodies are what is left."""
        pressure = self.ctx.pressure
        refused = 0
        for endpoint in list(self.ctx.endpoints):
            for pool in endpoint.pools():
                waiting = list(pool.waiting)
                waiting.reverse()  # mypyc cannot compile `reversed` of what it knows no type of
                for requester in waiting:
                    if pressure.held <= pressure.held_max:
                        return refused
                    requester.overloaded()
                    refused += 1
        return refused


def first(pair: tuple[int, Carrier]) -> int:
    return pair[0]


def last_active(connection: Accepted) -> float:
    return connection.moved_at()

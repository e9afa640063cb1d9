"""A proxy inside the test's own process, on real sockets: the way to count exactly.

`House` holds a Context and its sides.  When a scenario is over, `quiet()` waits until everything is over in the books too:
every exchange and every attempt has its one outcome, nobody waits, no deadline is left, no exception escaped.
"""

from __future__ import annotations

import asyncio
from typing import Any

from proxy_peers import until

from meshproxy.admin import AdminSide, Status
from meshproxy.policy.tables import Tables
from meshproxy.proxy.context import Context
from meshproxy.proxy.endpoint import Endpoint
from meshproxy.proxy.forward import ForwardSide, Target
from meshproxy.proxy.listener import Lifecycle, Listener
from meshproxy.proxy.outbound import Outbound
from meshproxy.proxy.settings import Settings
from meshproxy.proxy.tls import Credentials
from meshproxy.telemetry.registry import Registry


class Door:
    """A side and the port it listens on.  Everything else is the side's (a compiled class takes no attributes of ours)."""

    def __init__(self, side: Any, port: int) -> None:
        self.__dict__.update(side=side, port=port)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["side"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.__dict__["side"], name, value)


class House:
    def __init__(self, **changed: Any) -> None:
        """`changed`: settings that differ from their defaults."""
        settings = Settings()
        settings.drain_accept_s = 0.0
        for name, value in changed.items():
            assert hasattr(settings, name), name
            setattr(settings, name, value)
        self.loop = asyncio.get_running_loop()
        self.ctx = Context(self.loop, settings, Registry(), seed=1, request_id_prefix=b"test-")
        self.lifecycle = Lifecycle(self.ctx)
        self.known: dict[Endpoint, None] = {}
        self.complaints: list[str] = []
        self.faults = 0  # exceptions the scenario provokes
        self.loop.set_exception_handler(self.complain)

    def complain(self, loop: Any, context: dict[str, Any]) -> None:
        """Of the event loop: an exception that nobody took."""
        if not isinstance(context.get("exception"), asyncio.CancelledError):  # Python 3.11's streams, when a peer is stopped
            self.complaints.append(str(context))

    async def forward(self, *ports: int, upstream: str = "http1", timeout_s: float = 0.0) -> Any:
        """A forward to 127.0.0.1:ports (a ForwardSide, as a Door)."""
        targets = [Target("127.0.0.1", port) for port in ports]
        side = ForwardSide(self.ctx, targets, upstream, timeout_s, None, False, None, "")
        return await self.listen(side)

    async def outbound(self) -> Any:
        """An outbound side that knows no services: everything goes outside the mesh."""
        side = Outbound(self.ctx, Credentials(), "shop", frozenset())
        side.apply(Tables(1, {}, {}, ()))
        return await self.listen(side)

    async def admin(self, status: Status) -> Any:
        side = AdminSide(self.ctx, status)
        return await self.listen(side)

    async def listen(self, side: Any, destination: str = "") -> Door:
        listener = Listener(self.ctx, side, "127.0.0.1", 0, destination)
        self.lifecycle.listeners.append(listener)
        self.lifecycle.sides.append(side) if not isinstance(side, AdminSide) else self.lifecycle.pages.append(side)
        if self.lifecycle.sweeper is None:
            self.lifecycle.sweeper = self.loop.call_later(self.ctx.settings.sweep_s, self.lifecycle.sweep)
        await listener.start()
        return Door(side, listener.port)

    def open_books(self) -> list[str]:
        """What is not finished; [] when all is over."""
        ctx = self.ctx
        self.known.update(ctx.endpoints)
        found = [
            f"{s.families.requests.name}{s.labels}: {s.in_flight()} in flight"
            for s in ctx.registry.https.values()
            if s.in_flight()
        ]
        for endpoint in self.known:
            if endpoint.load.pending:
                found.append(f"{endpoint}: {endpoint.load.pending} pending")
            for pool in endpoint.pools():
                found += [f"{endpoint}: {requester} waits" for requester in pool.waiting]
        if ctx.pressure.held:
            found.append(f"{ctx.pressure.held} bytes are held")
        found += [f"deadlines of {q.duration_s} s: {len(q.waiting)}" for q in ctx.deadlines.queues.values() if q.waiting]
        if ctx.deadlines.wheel.waiting:
            found.append(f"deadlines of calls: {ctx.deadlines.wheel.waiting}")
        return found

    async def quiet(self) -> None:
        async def over() -> bool:
            return not self.open_books()

        try:
            await until(over, "the end of everything")
        except AssertionError:
            raise AssertionError(f"not over: {self.open_books()}") from None
        assert self.ctx.internal_errors.value == self.faults
        assert not self.complaints, self.complaints

    async def tasks_over(self) -> None:
        async def over() -> bool:
            return not self.ctx.tasks

        await until(over, "the end of the proxy's tasks")

    async def stop(self, linger: bool = True) -> bool:
        finished = await self.lifecycle.stop(linger)
        for page in self.lifecycle.pages:
            for connection in list(page.connections):
                connection.abort()
        await asyncio.sleep(0)
        return finished


def total(series: Any, **wanted: Any) -> int:
    """How many of a series' outcomes have these attributes (status=200, success=True, error="reset")."""
    cells = [*series.cells.values(), *series.errors.values()]
    return sum(cell.count for cell in cells if all(getattr(cell, name) == value for name, value in wanted.items()))

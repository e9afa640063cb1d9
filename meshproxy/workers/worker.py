"""A worker: the data path of a proxy whose other half, the parent, has admin, identity and configuration.

    BORN --Start--> RUNNING --Drain--> DRAINING --Drained--> exit 0 (or 1: something was still busy)
      the channel ends (the parent is gone) in any of them --> exit at once

The parent alone is signalled: SIGTERM and SIGINT, which a terminal or a supervisor sends to the whole group, are ignored here.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import socket
from time import monotonic
from typing import Any, Final

from meshproxy.proxy.context import Context, log
from meshproxy.proxy.listener import Lifecycle, Listener, ListenError
from meshproxy.proxy.pressure import SHEDDING
from meshproxy.proxy.run import configure_logging, new_context, run
from meshproxy.proxy.side import Side
from meshproxy.telemetry.registry import Registry
from meshproxy.telemetry.snapshot import take
from meshproxy.workers.channel import Channel
from meshproxy.workers.messages import (
    Ask,
    Configure,
    Drain,
    Drained,
    Explain,
    Explained,
    Identity,
    Listen,
    Measured,
    Ready,
    Start,
    ToWorker,
    Unlisten,
)
from meshproxy.workers.plan import ForwardPlan, forward_side, settings_of

_PR_SET_PDEATHSIG: Final = 1
LOST_PARENT: Final = 3  # exit status
FLUSH_S: Final = 2.0  # for the last counters on their way to the parent


class Traffic:
    """What a worker carries; one subclass for each way of running a proxy.  `sides` by their direction."""

    def __init__(self) -> None:
        self.sides: dict[str, Side] = {}

    def identity(self, message: Identity) -> None:
        """New credentials, for connections from now on."""

    def configure(self, message: Configure) -> None:
        """Put a change of the configuration in force."""

    def explain(self, inbound: bool, query: str) -> dict[str, Any] | None:
        """As Status.explain (meshproxy/admin.py)."""
        return None

    def unready(self) -> str:
        """ "" when requests can be served, otherwise why not."""
        return ""


class ForwardTraffic(Traffic):
    def __init__(self, ctx: Context, plan: ForwardPlan) -> None:
        super().__init__()
        self.sides["outbound"] = forward_side(ctx, plan)


def traffic_of(ctx: Context, start: Start) -> Traffic:
    if start.forward is not None:
        return ForwardTraffic(ctx, start.forward)
    assert start.sidecar is not None
    from meshproxy.mesh.worker import SidecarTraffic  # protobuf and cryptography: only where there is a mesh

    return SidecarTraffic(ctx, start.sidecar)


class Worker:
    def __init__(self, sock: socket.socket) -> None:
        self.done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.channel = Channel(asyncio.get_running_loop(), sock, ToWorker, self.take, self.parent_gone)
        self.traffic: Traffic | None = None
        self.lifecycle: Lifecycle | None = None
        self.listeners: dict[str, Listener] = {}
        self.problems: dict[str, str] = {}  # of listeners
        self.starting: set[str] = set()  # listeners
        self.said: str | None = None
        self.served = False  # it has been ready once
        self.draining = False

    def parent_gone(self, why: str) -> None:
        if self.done.done():
            return
        if self.draining:  # a second signal: the parent was asked not to wait
            log.info("the parent ended before the drain did: what is in flight is cut")
        else:
            log.error("worker: the parent is gone (%s)", why)
        os._exit(LOST_PARENT)

    def take(self, message: Any, descriptors: list[int]) -> None:
        if isinstance(message, Start):
            self.start(message)
            return
        lifecycle, traffic = self.lifecycle, self.traffic
        assert lifecycle is not None, "Start is the first message"
        assert traffic is not None
        if isinstance(message, Ask):
            if message.fine:
                lifecycle.ctx.registry.refine()
            self.channel.send(Measured(message.number, take(lifecycle.ctx.registry)))
            self.tell()
            return
        if isinstance(message, Explain):
            self.channel.send(explained(traffic, message))
            return
        if isinstance(message, Drain):
            self.draining = True
            lifecycle.ctx.spawn(self.drain(message.linger), "drain")
            return
        if isinstance(message, Identity):
            traffic.identity(message)
        elif isinstance(message, Configure):
            traffic.configure(message)
        elif isinstance(message, Listen):
            self.listen(lifecycle, traffic.sides[message.side], message, descriptors)
        elif isinstance(message, Unlisten):
            listener = self.listeners.pop(message.key, None)
            self.problems.pop(message.key, None)
            if listener is not None:
                lifecycle.listeners.remove(listener)
                listener.close()
        self.tell()

    def start(self, message: Start) -> None:
        configure_logging(message.log_level, f"worker {message.worker}: ")
        ctx = new_context(settings_of(message.settings), Registry())
        self.traffic = traffic_of(ctx, message)
        self.lifecycle = Lifecycle(ctx)
        self.lifecycle.sides = list(self.traffic.sides.values())
        self.lifecycle.begin()
        self.tell()

    def listen(self, lifecycle: Lifecycle, side: Side, message: Listen, descriptors: list[int]) -> None:
        sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        listener = Listener(lifecycle.ctx, side, message.host, message.port, message.destination, sockets)
        self.listeners[message.key] = listener
        lifecycle.listeners.append(listener)
        self.starting.add(message.key)
        lifecycle.ctx.spawn(self.begin(message.key, listener), "listen")

    async def begin(self, key: str, listener: Listener) -> None:
        try:
            await listener.start()
        except ListenError as error:
            self.problems[key] = str(error)
        finally:
            self.starting.discard(key)
        if self.listeners.get(key) is not listener:  # Unlisten came meanwhile
            listener.close()
        self.tell()

    def tell(self) -> None:
        """Say whether requests can be served, when that has changed."""
        assert self.traffic is not None
        assert self.lifecycle is not None
        if not self.listeners:
            why = "no listener yet"
        elif self.lifecycle.ctx.pressure.memory == SHEDDING:
            why = "memory is short"
        elif self.starting and not self.served:  # those that come later (or are lent) change nothing for the others
            why = "listeners are being opened"
        else:
            why = self.traffic.unready() or next(iter(self.problems.values()), "")
        if why != self.said:
            self.said = why
            self.served = self.served or not why
            self.channel.send(Ready(why))

    async def drain(self, linger: bool) -> None:
        assert self.lifecycle is not None
        finished = await self.lifecycle.stop(linger)
        self.channel.send(Measured(0, take(self.lifecycle.ctx.registry)))  # what was counted last
        self.channel.send(Drained(finished))
        deadline = monotonic() + FLUSH_S
        while self.channel.unsent and monotonic() < deadline:  # noqa: ASYNC110  (once, at the end)
            await asyncio.sleep(0.01)
        self.done.set_result(0 if finished else 1)


def explained(traffic: Traffic, message: Explain) -> Explained:
    try:
        trail = traffic.explain(message.inbound, message.query)
    except ValueError as error:
        return Explained(message.number, b"", str(error))
    except Exception:  # noqa: BLE001 - a fault of ours, in what carries nothing: logged, and the channel goes on
        log.exception("internal error in explain")
        return Explained(message.number, b"", "an error inside the proxy; it was logged")
    return Explained(message.number, json.dumps(trail).encode()) if trail is not None else Explained(message.number, b"")


def die_with(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends (Linux), however that happens."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the line above
        os._exit(LOST_PARENT)


def main(descriptor: int, parent: int) -> int:
    """Run as a worker of `parent`, whose channel is `descriptor`.  Returns the exit status."""
    die_with(parent)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)

    async def body() -> int:
        worker = Worker(socket.socket(fileno=descriptor))
        return await worker.done

    return run(body)

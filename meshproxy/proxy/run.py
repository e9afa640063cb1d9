"""Running a proxy: the loop, the signals, the garbage collector's settings."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import secrets
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from meshproxy.proxy.context import Context
from meshproxy.proxy.descriptors import raise_limit
from meshproxy.proxy.memory import keep_some
from meshproxy.proxy.settings import Settings
from meshproxy.telemetry.registry import Registry

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"


def configure_logging(level: str, prefix: str = "") -> None:
    """`prefix` is put before each message: which of several processes says it."""
    text = LOG_FORMAT.replace("%(message)s", prefix.replace("%", "%%") + "%(message)s")
    logging.basicConfig(level=level.upper(), format=text, stream=sys.stderr)
    logging.getLogger("hpack").setLevel(logging.WARNING)  # the reference engine logs every integer it decodes


def new_context(settings: Settings, registry: Registry) -> Context:
    return Context(
        asyncio.get_running_loop(),
        settings,
        registry,
        seed=int.from_bytes(os.urandom(6), "big"),
        request_id_prefix=secrets.token_hex(8).encode(),
    )


async def until_signal() -> str:
    """Wait for SIGTERM or SIGINT; returns its name.  A second one ends the process at once, with the exit status that shells
    give to one ended by it: 143 or 130."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[str] = loop.create_future()

    def on_signal(which: signal.Signals) -> None:
        if done.done():
            os._exit(128 + which)
        done.set_result(which.name)

    for sig in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sig, on_signal, sig)
    return await done


def run(main: Callable[[], Awaitable[int]]) -> int:
    """Run `main` on uvloop (asyncio where there is none) and return its exit status."""
    raise_limit()
    keep_some()
    # Connections and tables live long: take what exists at start out of the collector's sight, and let it look rarely.
    # What a request allocates is freed by reference counts.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    factory: Any = None
    try:
        import uvloop

        factory = uvloop.new_event_loop
    except ImportError:
        pass  # uvloop is a dependency wherever it exists; elsewhere the stdlib loop does the same, slower

    async def body() -> int:
        return await main()

    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(body())

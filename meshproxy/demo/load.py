"""Visitors: real requests through the gateway, at a steady rate, each sent once and written down.

    every 1/rate s --> GET http://web.shop/ by way of the gateway --> Request, one line in the client ledger

Open loop: a request is sent when its time has come, whether or not earlier ones were answered.  A closed loop would
slow down together with a slow mesh and miss just what is to be counted.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp

from examples.shop.app import NOTE, REQUEST_ID, once
from meshproxy.demo.ledger import Request, hops

PATIENCE_S = 10.0  # longer than any timeout inside the shop: a visitor gets its answer
MAX_UNDER_WAY = 400  # 10 s at 40 a second; one more is recorded as a failure instead of sent
LATE_S = 1.0  # a generator that fell behind by more (the machine was busy) does not send all of it at once


class Load:
    """`requests` grows with each request that ended; the ledger file has the same, one JSON line each."""

    def __init__(self, gateway: str, url: str, rate: float, marker: str, ledger: Path, prefix: str = "r") -> None:
        """Args:
        gateway: http://host:port of the mesh's way in.
        rate: requests a second.
        marker: sent with each request, as header and as text; the shop sends it back.
        prefix: of the request ids, which are `<prefix>-<number>`.
        """
        self.gateway = gateway
        self.url = url
        self.rate = rate
        self.marker = marker
        self.requests: list[Request] = []
        self.under_way: set[asyncio.Task[None]] = set()
        self._prefix = prefix
        self._ledger = ledger
        self._stopped = asyncio.Event()

    async def run(self, clock: Callable[[], float] = time.time) -> None:
        """Send until `stop`; returns when all requests have ended."""
        timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
        connector = aiohttp.TCPConnector(limit=0)
        with self._ledger.open("a", buffering=1) as ledger:
            async with aiohttp.ClientSession(connector=connector, timeout=timeout, middlewares=(once,)) as client:
                try:
                    await self._pace(client, ledger.write, clock)
                    while self.under_way:  # bounded by PATIENCE_S
                        await asyncio.wait(self.under_way)
                finally:  # when cancelled: at once
                    for task in self.under_way:
                        task.cancel()

    def stop(self) -> None:
        """Send no more; `run` returns when the last answer is there."""
        self._stopped.set()

    async def _pace(self, client: aiohttp.ClientSession, write: Callable[[str], object], clock: Callable[[], float]) -> None:
        loop = asyncio.get_running_loop()
        number = 0
        due = loop.time()
        while not self._stopped.is_set():
            wait = due - loop.time()
            if wait > 0:
                try:
                    await asyncio.wait_for(self._stopped.wait(), wait)
                    return
                except TimeoutError:
                    pass
            elif wait < -LATE_S:
                due = loop.time()
            due += 1 / self.rate
            number += 1
            name = f"{self._prefix}-{number}"
            if len(self.under_way) >= MAX_UNDER_WAY:
                at = clock()
                error = f"not sent: {MAX_UNDER_WAY} requests are waiting for their answers"
                self._record(Request(name, at, at, 0, error), write)
                continue
            task = asyncio.create_task(self._one(client, name, write, clock), name=f"request {name}")
            self.under_way.add(task)
            task.add_done_callback(self.under_way.discard)

    async def _one(
        self, client: aiohttp.ClientSession, name: str, write: Callable[[str], object], clock: Callable[[], float]
    ) -> None:
        sent = clock()
        headers = {REQUEST_ID: name, NOTE: self.marker}
        status, error, body = 0, "", ""
        try:
            async with client.get(self.url, proxy=self.gateway, headers=headers) as response:
                body = await response.text()
                status = response.status
        except (aiohttp.ClientError, TimeoutError) as problem:
            status, error = 0, f"{type(problem).__name__}: {problem}".rstrip(": ")
        self._record(_read(name, sent, clock(), status, error, body), write)

    def _record(self, request: Request, write: Callable[[str], object]) -> None:
        self.requests.append(request)
        write(request.line() + "\n")


def _read(name: str, sent: float, done: float, status: int, error: str, body: str) -> Request:
    """A Request from an answer.  A success that is not the shop's own (other id, no note) is none."""
    if not status:
        return Request(name, sent, done, 0, error)
    try:
        answer = json.loads(body)
        told = {key: answer.get(key) for key in ("id", "path", "note", "error")}
    except (ValueError, AttributeError):
        # An answer, but not from the shop: a proxy's.  With status 200 that must not pass for a success.
        return Request(name, sent, done, status if status != 200 else 0, f"not the shop's answer: {body[:120]!r}")
    if status == 200 and told["id"] != name:
        return Request(name, sent, done, 0, f"the answer to request {told['id']!r}")
    return Request(name, sent, done, status, str(told["error"] or ""), hops(told["path"]), str(told["note"] or ""))

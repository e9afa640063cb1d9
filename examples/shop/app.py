"""What the three apps have in common: settings from the environment, the hop they add to a reply, ledger, faults.

environment -> Settings -> Faults   what goes wrong on purpose
                        -> Ledger   one JSON line for each request handled
                        -> hop()    this app's entry in the list that each reply carries
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp.client_middlewares import ClientHandlerType
from aiohttp.client_reqrep import ClientRequest, ClientResponse

REQUEST_ID = "x-request-id"  # forwarded from hop to hop, so that a request has one name everywhere
NOTE = "x-note"  # free text that travels with the request, and comes back in the reply
PEER = "mesh-client-id"  # the caller's identity as the sidecar verified it; an app without a mesh sees none

Hop = dict[str, str]  # service, version, pod, peer


class SettingError(ValueError):
    """An environment variable has a value that cannot be meant; `str()` names it and what was expected."""


def _number(environ: dict[str, str], name: str, default: float, low: float, high: float) -> float:
    text = environ.get(name) or str(default)
    try:
        value = float(text)
    except ValueError:
        raise SettingError(f"{name}={text!r}: expected a number from {low:g} to {high:g}") from None
    if not low <= value <= high:
        raise SettingError(f"{name}={text!r}: expected a number from {low:g} to {high:g}")
    return value


@dataclass(frozen=True, slots=True)
class Settings:
    """One app's settings.  All have defaults, so that an app also runs alone on a laptop."""

    service: str
    version: str = "v1"  # VERSION
    pod: str = ""  # POD_NAME
    host: str = "127.0.0.1"  # POD_IP: an app binds its pod's address and no other
    port: int = 8080  # PORT
    ledger: str = ""  # LEDGER: file to append to; "" writes none
    fail_rate: float = 0.0  # FAIL_RATE: share of requests answered with an error, 0..1
    delay_ms: float = 0.0  # DELAY_MS: wait before answering, up to a minute
    seed: str = ""  # SEED: makes the sequence of failures repeatable

    @classmethod
    def of(cls, service: str, port: int, environ: dict[str, str] | None = None) -> Settings:
        """From environment variables.  Raises SettingError."""
        env = dict(os.environ) if environ is None else environ
        return cls(
            service=service,
            version=env.get("VERSION") or "v1",
            pod=env.get("POD_NAME") or f"{service}-local",
            host=env.get("POD_IP") or "127.0.0.1",
            port=int(_number(env, "PORT", port, 1, 65535)),
            ledger=env.get("LEDGER", ""),
            fail_rate=_number(env, "FAIL_RATE", 0.0, 0.0, 1.0),
            delay_ms=_number(env, "DELAY_MS", 0.0, 0.0, 60_000.0),
            seed=env.get("SEED", ""),
        )

    def hop(self, peer: str) -> Hop:
        """This app's entry in the list of hops of a reply."""
        return {"service": self.service, "version": self.version, "pod": self.pod, "peer": peer}


class Faults:
    """What this app does wrong on purpose: it is slow, and it fails a share of its requests."""

    def __init__(self, settings: Settings) -> None:
        self._delay = settings.delay_ms / 1000
        self._rate = settings.fail_rate
        self._random = random.Random(settings.seed or None)

    async def strike(self) -> bool:
        """Wait as long as is set; True when this request is to fail."""
        failing = self._random.random() < self._rate  # drawn before waiting: in order of arrival, whatever the delays
        if self._delay:
            await asyncio.sleep(self._delay)
        return failing


class Ledger:
    """An append-only file of JSON lines, shared by all apps.

    Each line is one `write` on a descriptor opened with O_APPEND, so that lines of several processes do not mix
    (POSIX moves the offset and writes as one step), and it is written before the reply leaves: what a client
    received is always in the ledger.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._file = os.open(settings.ledger, flags, 0o644) if settings.ledger else -1

    def write(self, request_id: str, status: int, peer: str, note: str = "") -> None:
        """One handled request: HTTP status (for gRPC its nearest), who called, the note that came with it."""
        if self._file < 0:
            return
        line: dict[str, Any] = {
            "at": time.time(),
            "id": request_id,
            "service": self._settings.service,
            "version": self._settings.version,
            "pod": self._settings.pod,
            "status": status,
            "peer": peer,
            "note": note,
        }
        os.write(self._file, json.dumps(line).encode() + b"\n")


class Broken(aiohttp.ClientError):
    """The connection broke before there was an answer."""


async def once(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    """Client middleware: each request is sent once.

    aiohttp sends a GET a second time when its connection breaks before the answer.  Sensible elsewhere; here it would
    hide from the ledger exactly what is to be counted.
    """
    try:
        return await handler(request)
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
        raise Broken(str(error) or type(error).__name__) from error

"""The ways a call can take in these tests, and how a call is made."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

HERE = Path(__file__).parent
DEADLINE_S = 20.0
PATIENCE_S = 30.0  # for one call, where its deadline is not what is looked at
METADATA = 4 * 1024 * 1024  # grpc's own bound, 8 to 16 kB, is not what is looked at here
OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", METADATA),
    ("grpc.absolute_max_metadata_size", METADATA),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),  # what is sent again must be the mesh's doing, or nobody's
    ("grpc.enable_http_proxy", 0),
]


@dataclass(frozen=True)
class Way:
    """`address`: where a client connects.  `admin`: the pages of the proxy it meets first, "" without one."""

    name: str
    address: str
    admin: str = ""


@dataclass(frozen=True)
class Ways:
    """Of a call to the server that misbehaves: `direct`, and by `address`."""

    name: str
    direct: str
    address: str
    admin: str


class Process:
    """A Python program of a test; `lines` until it has said `word`.  Ends with `stop`."""

    def __init__(self, *argv: str, word: str, errors: bool = False) -> None:
        pipe = {"stderr": subprocess.PIPE} if errors else {"stdout": subprocess.PIPE}
        self.process = subprocess.Popen([sys.executable, *argv], text=True, **pipe)
        stream = self.process.stderr if errors else self.process.stdout
        assert stream is not None
        self.stream = stream
        for line in stream:
            if word in line:
                self.said = line
                return
        self.stop()
        raise AssertionError(f"{argv} ended with {self.process.returncode}")

    def stop(self) -> list[str]:
        """What it said after `word`."""
        self.process.send_signal(signal.SIGINT)  # of an idle proxy: no time to accept in
        try:
            self.process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            said = self.stream.read()
            self.stream.close()
        return said.splitlines()


def message(payload: int = 0, /, **wanted: Any) -> bytes:
    """A request: what is wanted, and so many bytes of payload."""
    return json.dumps(wanted).encode() + b"\n" + bytes(payload)


def channel_to(address: str, **more: Any) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(address, options=list({**dict(OPTIONS), **more}.items()))


async def ended(call: Any) -> tuple[grpc.StatusCode, str]:
    """How a call ends."""
    code, details = await asyncio.gather(call.code(), call.details())
    return code, details or ""


async def until(condition: Callable[[], Any], what: str) -> Any:
    end = asyncio.get_running_loop().time() + DEADLINE_S
    while not (value := await condition()):
        assert asyncio.get_running_loop().time() < end, f"not seen within {DEADLINE_S:.0f} s: {what}"
        await asyncio.sleep(0.02)
    return value

"""The shop's apps as processes on loopback addresses of their own, without a mesh: direct URLs take its place."""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DEADLINE_S = 20.0


def free_address() -> str:
    """An address in 127.0.0.0/8 that nobody seems to use (ports are the shop's own, so addresses must differ)."""
    return f"127.{random.randint(64, 250)}.{random.randint(1, 250)}.{random.randint(2, 250)}"


class Shop:
    def __init__(self, ledger: Path) -> None:
        self.ledger = ledger
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.addresses: dict[str, str] = {}

    def start(self, app: str, pod: str, **env: str) -> str:
        """Start one replica; returns the address it binds."""
        address = free_address()
        plain = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        settings = {"POD_IP": address, "POD_NAME": pod, "LEDGER": str(self.ledger), **env}
        command = [sys.executable, "-m", f"examples.shop.{app}"]
        self.processes[pod] = subprocess.Popen(command, env=plain | settings)
        self.addresses[pod] = address
        return address

    async def listening(self, pod: str, port: int) -> None:
        """Wait until the replica accepts connections."""
        give_up = asyncio.get_running_loop().time() + DEADLINE_S
        while True:
            with socket.socket() as probe:
                if probe.connect_ex((self.addresses[pod], port)) == 0:
                    return
            assert self.processes[pod].poll() is None, f"{pod} exited with {self.processes[pod].returncode}"
            assert asyncio.get_running_loop().time() < give_up, f"{pod} does not listen on {self.addresses[pod]}:{port}"
            await asyncio.sleep(0.05)

    def lines(self) -> list[dict[str, str]]:
        return [json.loads(line) for line in self.ledger.read_text().splitlines()]

    def end(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(DEADLINE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def shop(ledger: Path) -> Iterator[Shop]:
    running = Shop(ledger)
    try:
        yield running
    finally:
        running.end()

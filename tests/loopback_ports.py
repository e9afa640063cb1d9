"""Ports for processes that tests start.

Below 32768, where Linux takes the ports of outgoing connections from: a port that is free now stays free until the process
binds it, however many connections the rest of the suite makes meanwhile.  Test runs that go on at the same time take theirs
from different slices of that range: the port that one has just looked at must not be given to a process of the other.
"""

from __future__ import annotations

import random
import socket
from collections import deque

LOWEST, HIGHEST = 10_000, 32_000
SLICES = 10


def _claim() -> tuple[range, socket.socket | None]:
    """A slice of the range that no other run has, and what holds the claim (an abstract Unix socket: the kernel gives it back
    however this process ends); the whole range if there are more runs than slices."""
    size = (HIGHEST - LOWEST) // SLICES
    for number in random.sample(range(SLICES), SLICES):
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0meshproxy-test-ports-{number}")
        except OSError:
            claim.close()
            continue
        return range(LOWEST + number * size, LOWEST + (number + 1) * size), claim
    return range(LOWEST, HIGHEST), None


PORTS, _held = _claim()


_LATELY: deque[int] = deque(maxlen=100)  # ports given out, which may not be bound yet


def free_ports(count: int, host: str = "127.0.0.1") -> int:
    """The first of `count` neighbouring ports that nobody listens on.  Raises AssertionError if there are none."""
    for _ in range(1000):
        first = random.randrange(PORTS.start, PORTS.stop - count)
        if all(first + i not in _LATELY and _free(host, first + i) for i in range(count)):
            _LATELY.extend(range(first, first + count))
            return first
    raise AssertionError(f"no {count} neighbouring ports are free on {host}")


def free_port(host: str = "127.0.0.1") -> int:
    return free_ports(1, host)


def _free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: a port with connections in TIME_WAIT can be bound.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True

"""Whose process is at the other end of a loopback connection?  Linux tells, in /proc/net/tcp.

A load tester runs commands.  In embedded mode it listens on a loopback address, which every user of the machine can reach;
so it asks who connects: its own user's processes (the sidecar is one) and root's may, others may not.
"""

from __future__ import annotations

import ipaddress
import sys
from pathlib import Path

_PROC = {4: Path("/proc/net/tcp"), 6: Path("/proc/net/tcp6")}


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def owner(ours: tuple[str, int], peers: tuple[str, int]) -> int | None:
    """User id of the process that opened the connection from `peers` to `ours`, both on this machine; None if it cannot be
    told (it is gone)."""
    wanted = [_spelled(peers), _spelled(ours)]
    with _PROC[ipaddress.ip_address(peers[0]).version].open() as table:
        next(table)
        for line in table:
            fields = line.split()
            if fields[1:3] == wanted:
                return int(fields[7])
    return None


def _spelled(address: tuple[str, int]) -> str:
    """An address as /proc/net/tcp has it: words of four bytes in the machine's order, and the port, in hexadecimal."""
    packed = ipaddress.ip_address(address[0]).packed
    words = [packed[i : i + 4] for i in range(0, len(packed), 4)]
    if sys.byteorder == "little":
        words = [word[::-1] for word in words]
    return f"{b''.join(words).hex().upper()}:{address[1]:04X}"

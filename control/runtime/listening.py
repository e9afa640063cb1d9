"""Which program listens where, as /proc tells: nothing is connected to, nothing is disturbed.

/proc/net/tcp, tcp6   listening sockets: address, port, inode
/proc/<pid>/fd        inode -> the processes that hold it -> their process group -> a pod
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_LISTEN = "0A"
_MAX_LINES = 20_000  # of a table: a machine with more sockets is not what this is for
_ANY = ("0.0.0.0", "::")


@dataclass(frozen=True, slots=True)
class Socket:
    """A listening TCP socket.  An IPv6 one for everything ("::") takes IPv4 too, unless its program said otherwise."""

    address: str
    port: int
    inode: int

    @property
    def everywhere(self) -> bool:
        return self.address in _ANY

    def answers(self, address: str, port: int) -> bool:
        return self.port == port and (self.everywhere or self.address == address)

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


def sockets() -> list[Socket]:
    """All that listen; an empty list where /proc does not tell."""
    found = []
    for name in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in Path(f"/proc/net/{name}").read_text().splitlines()[1 : _MAX_LINES + 1]:
                words = line.split()
                if len(words) > 9 and words[3] == _LISTEN:
                    found.append(parse(words[1], int(words[9])))
    return found


def parse(local: str, inode: int) -> Socket:
    """From the kernel's form, "0A01527F:1F90": 32-bit words in the machine's byte order (little-endian here), then the port."""
    text, _, port = local.partition(":")
    raw = b"".join(bytes.fromhex(text[at : at + 8])[::-1] for at in range(0, len(text), 8))
    address = ipaddress.ip_address(raw)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return Socket(str(mapped or address), int(port, 16), inode)


def of_group(group: int) -> list[Socket]:
    """What the processes of a group listen on, by port."""
    held = {inode for pid in _members(group) for inode in _inodes(pid)}
    return sorted((socket for socket in sockets() if socket.inode in held), key=lambda socket: (socket.port, socket.address))


def holder(address: str, port: int, groups: Collection[int]) -> tuple[Socket, int] | None:
    """The socket that keeps `address`:`port` from being bound, and which of these groups holds it; None if none does."""
    wanted = {socket.inode: socket for socket in sockets() if socket.answers(address, port)}
    for pid in _pids() if wanted else ():
        with suppress(OSError):
            group = os.getpgid(pid)
            if group in groups:
                for inode in _inodes(pid):
                    if inode in wanted:
                        return wanted[inode], group
    return None


def _pids() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def _members(group: int) -> list[int]:
    found = []
    for pid in _pids():
        with suppress(OSError):
            if os.getpgid(pid) == group:
                found.append(pid)
    return found


def _inodes(pid: int) -> list[int]:
    found = []
    with suppress(OSError):
        for entry in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                target = os.readlink(f"/proc/{pid}/fd/{entry}")
                if target.startswith("socket:["):
                    found.append(int(target[8:-1]))
    return found

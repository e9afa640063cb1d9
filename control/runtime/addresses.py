"""Addresses: a /24 in 127.0.0.0/8 for each mesh, one address for each pod, one port for each Service's listeners.

name --sha256--> 127.a.b  taken? the next one ... (bounded)         never 127.0.0.x: that is everybody's
.1 control plane   .2 gateway   .10 to .254 pods; a released address rests before it is given again, so that a
caller that has not heard of the change meets nobody rather than somebody else
"""

from __future__ import annotations

import errno
import hashlib
import socket
from collections import deque
from collections.abc import Iterator, Sequence

from control.runtime.layout import CONTROL_ADMIN_PORT, CONTROL_HOST, CONTROL_PORT, FIRST_POD_HOST

CANDIDATES = 64  # prefixes looked at before giving up
LAST_POD_HOST = 254
FIRST_SERVICE_PORT = 20000
LAST_SERVICE_PORT = 29999
REST = 30.0  # seconds before an address is given again


class AddressError(Exception):
    """No free network, address or port; `str()` says what was tried and what to do."""


def candidates(name: str) -> Iterator[str]:
    """Prefixes ("127.83.4") in the order in which a mesh of this name tries them."""
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    for step in range(CANDIDATES):
        middle, third = divmod((number + step) % (254 * 256), 256)
        yield f"127.{middle + 1}.{third}"


class Network:
    """A /24 that this process holds: no other mesh on the machine takes it while the claim is open.

    The claim is an abstract Unix socket, which the kernel gives back however the process ends; a bind of the control
    plane's ports on .1 tells whether somebody who knows no claims is there.
    """

    def __init__(self, prefix: str, claim: socket.socket) -> None:
        self.prefix = prefix
        self._claim = claim

    @classmethod
    def take(cls, name: str) -> Network:
        """The first free network for a mesh of this name.

        Raises:
            AddressError: none of the candidates is free.
        """
        taken: list[str] = []
        for prefix in candidates(name):
            claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                claim.bind(f"\0meshproxy-{prefix}")
            except OSError:
                claim.close()
                taken.append(prefix)
                continue
            busy = busy_ports(f"{prefix}.{CONTROL_HOST}", (CONTROL_PORT, CONTROL_PORT + 1, CONTROL_ADMIN_PORT))
            if not busy:
                return cls(prefix, claim)
            claim.close()
            taken.append(f"{prefix} (port {busy[0]} is taken)")
        raise AddressError(
            f"no free network for mesh {name!r}: tried {len(taken)} from {taken[0]} to {taken[-1]}; "
            f"a program that listens on port {CONTROL_PORT} or {CONTROL_ADMIN_PORT} of every address (0.0.0.0) "
            "would explain it: `ss -ltnp` shows it"
        )

    def host(self, number: int) -> str:
        return f"{self.prefix}.{number}"

    def close(self) -> None:
        self._claim.close()


def busy_ports(address: str, ports: Sequence[int]) -> list[int]:
    """Which of these TCP ports cannot be bound on this address now."""
    busy = []
    for port in ports:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError as error:
                if error.errno not in (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL):
                    raise
                busy.append(port)
    return busy


def free_port(address: str) -> int:
    """A port that is free now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((address, 0))
        port = probe.getsockname()[1]
        assert isinstance(port, int)
        return port


class Addresses:
    """Pod addresses of one network.  Pure: `now` is an argument."""

    def __init__(self, prefix: str, *, rest: float = REST) -> None:
        self._prefix = prefix
        self._rest = rest
        self._fresh = iter(range(FIRST_POD_HOST, LAST_POD_HOST + 1))
        self._released: deque[tuple[float, str]] = deque()  # when, address: oldest first

    def take(self, now: float) -> str:
        """An address that nobody has.

        Raises:
            AddressError: all are in use or rest.
        """
        if self._released and now - self._released[0][0] >= self._rest:
            return self._released.popleft()[1]
        host = next(self._fresh, None)
        if host is not None:
            return f"{self._prefix}.{host}"
        count = LAST_POD_HOST - FIRST_POD_HOST + 1
        raise AddressError(f"all {count} pod addresses of {self._prefix}.0/24 are in use or were until {self._rest:g} s ago")

    def release(self, address: str, now: float) -> None:
        self._released.append((now, address))


class ServicePorts:
    """One listener port for each port of each Service, the same in every pod for as long as the mesh runs."""

    def __init__(self) -> None:
        self._ports: dict[tuple[str, int], int] = {}

    def port(self, service: str, port: int) -> int:
        """The listener's port for a Service ("<namespace>/<name>") and one of its ports.

        Raises:
            AddressError: more than 10,000 have been asked for.
        """
        key = (service, port)
        if key not in self._ports:
            number = FIRST_SERVICE_PORT + len(self._ports)
            if number > LAST_SERVICE_PORT:
                raise AddressError(f"more than {len(self._ports)} Service ports; no listener port is left for {service}:{port}")
            self._ports[key] = number
        return self._ports[key]

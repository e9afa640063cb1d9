"""A network namespace for a peer whose connections are redirected to it, as in a pod.

    Network()                         loopback alone, every address of 10.0.0.0/8 on it (Services, pods)
        |  with network.inside():     this thread, what it starts and the sockets it opens are in there
        |  load(rules)                nftables, from now on
        ` close                       the namespace ends with its last process

It has no name: the kernel removes it with the last process and descriptor, however we end.  Everything of a measurement runs
in it (proxies, backend, load generator), so that a packet passes the kernel once a hop, as for peers that need no network of
their own.  Needs root, `ip` and `nft`.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

CLUSTER = "10.0.0.0/8"
PROGRAMS = {"ip": "iproute2", "nft": "nftables"}  # and their Debian packages
_MINE = "/proc/thread-self/ns/net"
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)  # os.unshare and os.setns came with Python 3.12


class Network:
    """A context manager.  Raises OSError: what is missing or not allowed."""

    def __init__(self) -> None:
        outside = os.open(_MINE, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _check("unshare", _libc.unshare(_CLONE_NEWNET))
            try:
                self._inside = os.open(_MINE, os.O_RDONLY | os.O_CLOEXEC)
            finally:
                _check("setns", _libc.setns(outside, _CLONE_NEWNET))
        finally:
            os.close(outside)
        try:
            with self.inside():
                _run("ip", "link", "set", "lo", "up")
                _run("ip", "route", "add", "local", CLUSTER, "dev", "lo")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Network:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._inside)

    def load(self, rules: str) -> None:
        """`rules`: as `nft -f` takes them.  Raises OSError."""
        with self.inside():
            _run("nft", "-f", "-", given=rules)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Concerns this thread and those it starts.  Sockets stay where they were opened."""
        outside = os.open(_MINE, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _check("setns", _libc.setns(self._inside, _CLONE_NEWNET))
            try:
                yield
            finally:
                _check("setns", _libc.setns(outside, _CLONE_NEWNET))
        finally:
            os.close(outside)


def missing(rules: str) -> str:
    """Why such a network cannot be made here, or ""."""
    try:
        with Network() as network:
            network.load(rules)
    except PermissionError as error:
        return f"connections are redirected in a network namespace, which needs root ({error})"
    except OSError as error:
        return f"connections are redirected in a network namespace: {error}"
    return ""


def _check(call: str, result: int) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, f"{call}: {os.strerror(code)}")  # PermissionError if it is that


def _run(*words: str, given: str = "") -> None:
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"  # where Debian has them, which a user's PATH may lack
    try:
        done = subprocess.run(words, input=given, capture_output=True, text=True, check=False, env={"PATH": path})
    except FileNotFoundError as error:
        raise OSError(f"there is no {words[0]} (apt install {PROGRAMS[words[0]]})") from error
    if done.returncode:
        raise OSError(f"{' '.join(words)}: {next(iter(done.stderr.splitlines()), done.returncode)}")

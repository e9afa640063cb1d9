"""Workload (g): resident memory, each reading of a process of its own.

idle          start, wait until it stops growing                                        -> rss
endpoints     1,000 of them, under load until each has been used                        -> rss
connections   some load, then N connections with one request each, held open            -> rss before and after
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from benchmarks import measure
from benchmarks.load.measured import Ask
from benchmarks.load.wrk import run as wrk
from benchmarks.nginx_backend import SMALL
from benchmarks.peers.peer import Running
from benchmarks.workloads import Workload

SETTLED = 64 << 10  # bytes of growth in half a second
SETTLE_S = 3.0
OPENING_S = 90.0
ANSWER_S = 10.0
ABREAST = 8  # connections being opened at a time: a handshake is several turns of both sides
BODY = SMALL.encode()
SPARE = 400  # descriptors of a proxy's own; of the rest it may need two a connection, and ours and HAProxy count so


class NoAnswer(Exception):
    """A connection of the crowd was refused or not answered; `str()` says which and why."""


def settled_rss(running: Running) -> dict[str, int]:
    """By role, bytes, once it grows no more (or after SETTLE_S)."""
    end = monotonic() + SETTLE_S
    last = {role: measure.rss_bytes(pid) for role, pid in running.pids.items()}
    while monotonic() < end:
        sleep(0.5)
        now = {role: measure.rss_bytes(pid) for role, pid in running.pids.items()}
        if all(abs(now[role] - last[role]) <= SETTLED for role in now):
            return now
        last = now
    return last


def read(workload: Workload, running: Running, work: Path) -> dict[str, Any]:
    """What goes into the round's entry.  Raises NoAnswer, LoadFailed."""
    if workload.tool == "memory-idle":
        return {"rss": settled_rss(running)}
    if workload.tool == "memory-endpoints":
        load = wrk(Ask(running.address, running.authority, workload.paths(), workload.connections, 1, workload.seconds), work)
        return {"requests": load.requests, "errors": load.errors, "rss": settled_rss(running), "endpoints": workload.endpoints}
    wanted = held(workload.connections, measure.raise_open_files())
    context = client_context(running)
    with crowd(running, 64, context):  # pools, buffers and tables have their size before it is counted
        pass
    before = settled_rss(running)
    with crowd(running, wanted, context) as seconds:
        after = settled_rss(running)
    return {"connections": wanted, "requests": wanted, "seconds": seconds, "rss_before": before, "rss": after}


def held(connections: int, open_files: int) -> int:
    """How many of them a proxy that may have `open_files` descriptors can hold."""
    return max(1, min(connections, (open_files - SPARE) // 2))


def client_context(running: Running) -> ssl.SSLContext | None:
    if not running.files:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # identities are URIs
    context.load_verify_locations(running.files["ca"])
    context.load_cert_chain(running.files["cert"], running.files["key"])
    context.set_alpn_protocols(["http/1.1"])
    return context


@contextmanager
def crowd(running: Running, count: int, context: ssl.SSLContext | None) -> Iterator[float]:
    """`count` connections, one request answered on each, all open; the seconds it took.  Raises NoAnswer."""
    held: list[socket.socket] = []
    started = monotonic()
    numbers = iter(range(1, count + 1))  # shared: each thread takes the next

    def open_some() -> None:
        for number in numbers:
            if monotonic() - started > OPENING_S:
                raise NoAnswer(f"only {number - 1} of {count} connections in {OPENING_S:.0f} s")
            try:
                held.append(ask_once(running, context))
            except (OSError, NoAnswer) as error:
                raise NoAnswer(f"connection {number} of {count}: {error}") from error

    try:
        with ThreadPoolExecutor(ABREAST) as threads:
            for done in [threads.submit(open_some) for _ in range(ABREAST)]:
                done.result()
        yield monotonic() - started
    finally:
        for connection in held:
            connection.close()


def ask_once(running: Running, context: ssl.SSLContext | None) -> socket.socket:
    """A connection that has had its answer.  Raises NoAnswer, OSError."""
    connection = socket.create_connection(measure.split(running.address), ANSWER_S)
    try:
        if context is not None:
            connection = context.wrap_socket(connection)
        connection.sendall(f"GET / HTTP/1.1\r\nHost: {running.authority}\r\nUser-Agent: bench\r\n\r\n".encode())
        answer = b""
        while not answer.endswith(BODY):
            more = connection.recv(4096)
            if not more:
                break
            answer += more
        if not answer.startswith(b"HTTP/1.1 200 ") or not answer.endswith(BODY):
            raise NoAnswer(f"got {answer[:60]!r}")
    except BaseException:
        connection.close()
        raise
    return connection

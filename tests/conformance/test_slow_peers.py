"""Peers that stand still (the catalogue's SL-03): what the proxy holds for each is bounded, and their senders are stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from forward_process import DEADLINE_S, Forward, ask, connect, send
from http2_peer import DATA, END_HEADERS, HEADERS, RawClient, frame, get, literals
from scripted_backend import Connection, ScriptedBackend

PEERS = 50
HELD = 256 << 10  # bytes a reader that stands still
HELD_UP = 512 << 10  # bytes a backend that stands still: one read on its way there, one that waited for the connection
TOTAL = 1 << 40  # bytes a peer; nobody gets through with it


class Backend(ScriptedBackend):
    """/flood  sends TOTAL bytes        /deaf  reads nothing until it is over"""

    def __init__(self) -> None:
        super().__init__({"/flood": self.flood, "/deaf": self.deaf})
        self.sent = 0
        self.lock = threading.Lock()
        self.over = threading.Event()

    def flood(self, connection: Connection) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % TOTAL)
        piece = bytes(1 << 20)
        while True:
            connection.send(piece)
            with self.lock:
                self.sent += len(piece)

    def deaf(self, connection: Connection) -> None:
        self.over.wait(DEADLINE_S)
        connection.fin()

    def stop(self) -> None:
        self.over.set()
        super().stop()


@pytest.fixture
def pair() -> Iterator[tuple[Forward, Backend]]:
    backend = Backend()
    try:
        forward = Forward(backend.port)
        try:
            yield forward, backend
        finally:
            backend.over.set()
            forward.stop()
    finally:
        backend.stop()


def until_still(progress: Callable[[], int]) -> None:
    """Wait until `progress()` has not changed for a while; that it ever stops is what back-pressure means."""
    last, since = progress(), time.monotonic()
    end = since + DEADLINE_S
    while time.monotonic() - since < 0.5:
        assert time.monotonic() < end, "the sender is never stopped"
        time.sleep(0.005)
        now = progress()
        if now != last:
            last, since = now, time.monotonic()


def served(forward: Forward) -> None:
    answer = ask(forward.port, "/beside")
    assert answer is not None
    assert answer.body == b"/beside"


@pytest.mark.parametrize("version", [1, 2])
def test_what_is_held_for_a_reader_that_stands_still_is_bounded(pair: tuple[Forward, Backend], version: int) -> None:
    forward, backend = pair
    served(forward)
    before = forward.resident_bytes()
    clients: list = []
    for _ in range(PEERS):
        if version == 1:
            clients.append(connect(forward.port))
            send(clients[-1], b"GET /flood HTTP/1.1\r\nHost: svc.test\r\n\r\n")
        else:
            clients.append(RawClient(forward.port))
            clients[-1].request(1, get(b"/flood"))
    until_still(lambda: backend.sent)
    assert forward.resident_bytes() - before < PEERS * HELD
    served(forward)
    for client in clients:
        client.close() if version == 1 else client.sock.close()


@pytest.mark.parametrize("version", [1, 2])
def test_what_is_held_for_a_backend_that_stands_still_is_bounded(pair: tuple[Forward, Backend], version: int) -> None:
    forward, _ = pair
    served(forward)
    before = forward.resident_bytes()
    clients: list = []
    for _ in range(PEERS):
        if version == 1:
            sock = connect(forward.port)
            head = b"POST /deaf HTTP/1.1\r\nHost: svc.test\r\nContent-Length: %d\r\n\r\n" % TOTAL
        else:
            client = RawClient(forward.port)
            sock = client.sock
            head = frame(HEADERS, END_HEADERS, 1, literals(get(b"/deaf", method=b"POST")))
            head += frame(DATA, 0, 1, bytes(16384)) * 3  # the first window
        clients.append(sock)
        send(sock, head)
        if version == 1:
            sock.setblocking(False)
    taken = 0

    def push() -> int:
        nonlocal taken
        for sock in clients if version == 1 else ():
            with suppress(BlockingIOError):
                taken += sock.send(bytes(1 << 18))
        return taken

    until_still(push)
    assert forward.resident_bytes() - before < PEERS * HELD_UP
    served(forward)
    for sock in clients:
        sock.close()

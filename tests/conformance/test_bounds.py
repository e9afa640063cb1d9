"""One process at its bounds (the catalogue's SL-06, SL-07, SL-08, SL-12): many connections, large bodies, few descriptors,
little memory.  It stays up, stays small, says what it does, and is itself again afterwards."""

from __future__ import annotations

import os
import resource
import shutil
import socket
from collections.abc import Iterator

import pytest
from forward_process import Answer, Forward, Reader, ask, connect, free_port, send, until
from scripted_backend import Connection, ScriptedBackend

BIG = 256 << 20
IDLE = 2000
GET = b"GET / HTTP/1.1\r\nHost: svc.test\r\n\r\n"


class Backend(ScriptedBackend):
    """/big  sends BIG bytes      /swallow  takes what comes, says how much      /flood  never ends"""

    def __init__(self) -> None:
        super().__init__({"/big": self.big, "/swallow": self.swallow, "/flood": self.flood})

    def big(self, connection: Connection) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BIG)
        for _ in range(BIG >> 20):
            connection.send(bytes(1 << 20))

    def swallow(self, connection: Connection) -> None:
        got = len(connection.data)
        while got < BIG:
            got += len(connection.read())
        connection.data = b""
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n%d" % got)

    def flood(self, connection: Connection) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (1 << 40))
        while True:
            connection.send(bytes(1 << 18))


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    made = Backend()
    yield made
    made.stop()


class Limited(Forward):
    """A proxy that may have 256 descriptors."""

    def command(self, target: int, *options: str) -> list[str]:
        return ["prlimit", "--nofile=256:256", *super().command(target, *options)]


class Admin:
    """The admin pages of a proxy started with `options`."""

    def __init__(self) -> None:
        self.port = free_port()
        self.options = ("--admin", f"127.0.0.1:{self.port}")

    def page(self, path: str) -> Answer:
        answer = ask(self.port, path)
        assert answer is not None
        return answer

    def value(self, name: str) -> float:
        """Of the sample `name{labels}`; 0 if there is none."""
        for line in self.page("/metrics").body.decode().splitlines():
            if line.startswith(name + " "):
                return float(line.rpartition(" ")[2])
        return 0.0


@pytest.fixture
def admin() -> Admin:
    return Admin()


def processor_s(pid: int) -> float:
    with open(f"/proc/{pid}/schedstat") as file:
        return int(file.read().split()[0]) / 1e9


@pytest.fixture
def enough_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2 * IDLE:
        pytest.skip(f"needs {2 * IDLE} descriptors, the hard limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_an_idle_connection_costs_at_most_3_kb(backend: Backend, enough_descriptors: None) -> None:
    """SL-06.  All are held, and a request beside them is served."""
    forward = Forward(backend.port)
    try:
        idle = [connect(forward.port) for _ in range(50)]

        def served(sock: socket.socket) -> None:
            send(sock, GET)
            answer = Reader(sock).answer()
            assert answer is not None
            assert answer.status == 200

        for sock in idle:
            served(sock)
        before = forward.resident_bytes()
        more = [connect(forward.port) for _ in range(IDLE)]
        for sock in more:
            served(sock)
        each = (forward.resident_bytes() - before) / IDLE
        assert each <= 3000
        for sock in (more[0], more[-1], idle[0]):
            served(sock)
        for sock in (*idle, *more):
            sock.close()
    finally:
        forward.stop()


def test_a_large_download_and_a_large_upload_leave_memory_flat(backend: Backend) -> None:
    """SL-07"""
    forward = Forward(backend.port)
    try:
        ask(forward.port, "/")
        before = forward.resident_bytes()
        most = 0
        got = 0
        with connect(forward.port) as sock:
            send(sock, b"GET /big HTTP/1.1\r\nHost: svc.test\r\nConnection: close\r\n\r\n")
            while data := sock.recv(1 << 20):
                got += len(data)
                if got % 16 == 0:
                    most = max(most, forward.resident_bytes())
        assert got > BIG
        with connect(forward.port) as sock:
            send(sock, b"POST /swallow HTTP/1.1\r\nHost: svc.test\r\nContent-Length: %d\r\n\r\n" % BIG)
            piece = bytes(1 << 20)
            for number in range(BIG >> 20):
                sock.sendall(piece)
                if number % 16 == 0:
                    most = max(most, forward.resident_bytes())
            answer = Reader(sock).answer()
        assert answer is not None
        assert answer.body == b"%d" % BIG
        assert max(most, forward.resident_bytes()) - before < 32 << 20
    finally:
        forward.stop()


@pytest.mark.skipif(shutil.which("prlimit") is None, reason="needs prlimit (util-linux)")
def test_out_of_descriptors_it_stops_accepting_and_goes_on_when_there_are_some(backend: Backend, admin: Admin) -> None:
    """SL-08"""
    forward = Limited(backend.port, *admin.options)
    try:
        clients = [connect(forward.port) for _ in range(1000)]
        for sock in clients[:96]:
            send(sock, b"GET / HTTP/1.1\r\n")  # not idle: nothing may be closed to make room
        until(lambda: admin.value("meshproxy_accept_paused") == 1, "the pause")
        assert admin.value('tcp_open_connections{direction="outbound",peer="src"}') <= 98
        assert admin.page("/ready").status == 200
        used = processor_s(forward.process.pid)
        asked = 50
        for _ in range(asked):
            assert admin.page("/live").status == 200
        assert processor_s(forward.process.pid) - used < asked * 0.02  # it does nothing but answer
        assert len(os.listdir(f"/proc/{forward.process.pid}/fd")) < 256
        for sock in clients:
            sock.close()
        answer = ask(forward.port, "/after")
        assert answer is not None
        assert (answer.status, answer.body) == (200, b"/after")
        assert forward.process.poll() is None
        assert [line for line in forward.log if "accepting connections is paused: 96 of 96" in line]
    finally:
        forward.stop()


def test_near_its_memory_limit_it_sheds_load_and_recovers(backend: Backend, admin: Admin) -> None:
    """SL-12, with the setting in the cgroup's place (the files are read in tests/proxy/test_memory_limits.py)."""
    limit = 64
    stalled: list[socket.socket] = []
    forward = Forward(backend.port, *admin.options, "--memory-limit-mb", str(limit))
    try:
        assert admin.value("meshproxy_memory_limit_bytes") == limit << 20
        most = 0

        def shed() -> bool:  # for as long as it takes to drop what holds most: milliseconds
            assert admin.page("/live").status == 200
            return any("memory is shedding" in line for line in forward.log)

        while not shed():
            assert len(stalled) < 1500, f"never shed: {most >> 20} MiB"
            for _ in range(20):
                sock = connect(forward.port)
                send(sock, b"GET /flood HTTP/1.1\r\nHost: svc.test\r\n\r\n")
                stalled.append(sock)
            most = max(most, forward.resident_bytes())
        assert admin.page("/live").status == 200
        assert admin.value("meshproxy_accept_pauses_total") >= 1
        queued = [connect(forward.port) for _ in range(20)]
        for sock in queued:
            send(sock, GET)
        most = max(most, forward.resident_bytes())
        assert most < limit << 20
        for sock in stalled:
            sock.close()
        until(lambda: admin.value("meshproxy_memory_state") == 0, "memory to be normal again")
        for sock in queued:
            assert Reader(sock).answer() is not None  # nobody who waited in the queue was forgotten
            sock.close()

        def served() -> bool:
            answer = ask(forward.port, "/after")
            return answer is not None and answer.status == 200

        until(served, "requests to be served again")
        assert admin.page("/ready").status == 200
        states = [line for line in forward.log if "memory is " in line]
        assert "shedding" in "".join(states)
        assert "memory is normal" in states[-1]
    finally:
        for sock in stalled:
            sock.close()
        forward.stop()

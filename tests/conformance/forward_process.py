"""`meshproxy forward` as a process, seen from outside: what it is given and what comes back, in blocking calls.

The peers of these tests are scripts of exact bytes, so everything here is plain sockets and threads: no event loop of ours
stands between a test and the wire.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from loopback_ports import free_port as free_port

DEADLINE_S = 20.0
TLS_PORTS: set[int] = set()  # of proxies whose clients speak TLS: `connect` does it for them


class Forward:
    """A running `forward` to `target`; ends with `stop`, which fails on any error the proxy logged about itself."""

    def __init__(self, target: int, *options: str) -> None:
        self.port = free_port()
        self.named = True
        self.target = target
        self.process = subprocess.Popen(self.command(target, *options), stderr=subprocess.PIPE)
        self.log: list[str] = []
        self.started = threading.Event()
        self.reader = threading.Thread(target=self.read_log, daemon=True)
        self.reader.start()
        if not self.started.wait(DEADLINE_S) or self.process.poll() is not None:
            self.process.kill()
            raise RuntimeError("forward did not start:\n" + "\n".join(self.log))

    def command(self, target: int, *options: str) -> list[str]:
        return [sys.executable, "-m", "meshproxy", "forward", f"127.0.0.1:{self.port}", f"127.0.0.1:{target}", *options]

    def read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line.decode(errors="replace").rstrip())
            if "forwarding " in self.log[-1]:
                self.started.set()
        self.started.set()

    def resident_bytes(self) -> int:
        with open(f"/proc/{self.process.pid}/status") as status:
            for line in status:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
        raise RuntimeError("no VmRSS")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)  # of an idle proxy: no time to accept in
        try:
            self.process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.reader.join(DEADLINE_S)
            assert self.process.stderr is not None
            self.process.stderr.close()
        escaped = [line for line in self.log if "internal error" in line or "Traceback" in line]
        assert not escaped, "\n".join(self.log)


class Sidecars(Forward):
    """Two sidecars in a row (sidecar_pair.py), entered where an app enters the first; `options`: a directory to work in."""

    def command(self, target: int, *options: str) -> list[str]:
        return [sys.executable, str(Path(__file__).with_name("sidecar_pair.py")), str(self.port), str(target), *options]


def connect(port: int) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port), DEADLINE_S)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if port in TLS_PORTS:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context.wrap_socket(made)
    return made


def send(sock: socket.socket, data: bytes) -> None:
    """Send it; that the peer closed meanwhile is for the reader to find out."""
    with contextlib.suppress(ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
        sock.sendall(data)


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, f"not seen within {DEADLINE_S:.0f} s: {what}"
        time.sleep(0.005)


class Answer:
    """One HTTP/1.1 response as its client has it.

    complete  it ended as its own framing says
    body      what came of it, chunks joined
    """

    def __init__(self, status: int, head: bytes) -> None:
        self.status = status
        self.head = head
        self.fields: dict[bytes, bytes] = {}
        self.body = b""
        self.complete = False
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            self.fields[name.lower()] = value.strip()

    def __repr__(self) -> str:
        return f"Answer({self.status}, {self.fields}, {self.body[:60]!r}, complete={self.complete})"


class Reader:
    """Reads answers off a connection, strictly; the end of the connection is an end of bytes, by FIN or RST alike."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.data = b""
        self.ended = False
        self.reset = False

    def more(self) -> bool:
        if self.ended:
            return False
        try:
            data = self.sock.recv(65536)
        except (ConnectionError, ssl.SSLEOFError):
            data = b""
            self.reset = True
        if not data:
            self.ended = True
            return False
        self.data += data
        return True

    def line(self) -> bytes | None:
        while b"\r\n" not in self.data:
            if not self.more():
                return None
        line, _, self.data = self.data.partition(b"\r\n")
        return line

    def take(self, count: int) -> bytes:
        while len(self.data) < count and self.more():
            pass
        taken, self.data = self.data[:count], self.data[count:]
        return taken

    def answer(self, method: bytes = b"GET") -> Answer | None:
        """The next final response; None if the connection ended before one began."""
        while True:
            while b"\r\n\r\n" not in self.data:
                if not self.more():
                    assert self.data == b"", f"half a head: {self.data[:200]!r}"
                    return None
            head, _, self.data = self.data.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 "), head[:100]
            answer = Answer(int(head[9:12]), head)
            if answer.status >= 200 or answer.status == 101:
                break
        fields = answer.fields
        if method == b"HEAD" or answer.status in (101, 204, 304) or (method == b"CONNECT" and answer.status < 300):
            answer.complete = True
        elif fields.get(b"transfer-encoding") == b"chunked":
            assert b"content-length" not in fields
            self.chunks(answer)
        elif b"content-length" in fields:
            length = int(fields[b"content-length"])
            answer.body = self.take(length)
            answer.complete = len(answer.body) == length
        else:
            while self.more():
                pass
            answer.body, self.data = self.data, b""
            answer.complete = not self.reset
        return answer

    def chunks(self, answer: Answer) -> None:
        while True:
            line = self.line()
            if line is None:
                return
            size = int(line, 16)
            if size == 0:
                while line := self.line():
                    pass
                answer.complete = line == b""
                return
            data = self.take(size)
            answer.body += data
            if len(data) < size or self.take(2) != b"\r\n":
                return

    def at_end(self) -> bool:
        """Whether the connection ends here, with nothing more on it."""
        return not self.data and not self.more()


def ask(port: int, path: str, method: str = "GET", more: str = "", body: bytes = b"") -> Answer | None:
    """One request on a connection of its own."""
    with connect(port) as sock:
        send(sock, f"{method} {path} HTTP/1.1\r\nHost: svc.test\r\n{more}Connection: close\r\n\r\n".encode() + body)
        reader = Reader(sock)
        answer = reader.answer(method.encode())
        if answer is not None and answer.complete:
            assert reader.at_end(), reader.data[:200]
        return answer

"""A backend that answers with exact bytes, by path: hostile, broken or merely odd.

    ScriptedBackend({"/odd": script})     script(connection) -> None; anything else is answered honestly
    Http2Script                           the same for a backend that speaks HTTP/2, frame by frame

A thread per connection; a script may block.  `served` is what came on which connection, in order.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable

import hpack
from forward_process import DEADLINE_S
from http2_peer import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    frame,
    literals,
)


class Ended(Exception):
    """The script has closed the connection, or the peer has."""


class Connection:
    """number    counts connections from 0
    requests  how many heads it has read
    """

    def __init__(self, sock: socket.socket, number: int) -> None:
        self.sock = sock
        self.number = number
        self.requests = 0
        self.head = b""
        self.data = b""

    def read(self) -> bytes:
        data = b""
        with contextlib.suppress(ConnectionError):
            data = self.sock.recv(65536)
        if not data:
            raise Ended
        return data

    def read_head(self) -> bytes:
        while b"\r\n\r\n" not in self.data:
            self.data += self.read()
        self.head, _, self.data = self.data.partition(b"\r\n\r\n")
        self.requests += 1
        return self.head

    def read_body(self) -> None:
        """Read the body of this request and forget it."""
        head = self.head.lower()
        if b"\r\ntransfer-encoding: chunked" in head:
            while not self.data.startswith(b"0\r\n\r\n") and b"\r\n0\r\n\r\n" not in self.data:
                self.data += self.read()
            self.data = self.data.partition(b"0\r\n\r\n")[2]
        elif b"\r\ncontent-length: " in head:
            size = int(head.partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0])
            while len(self.data) < size:
                self.data += self.read()
            self.data = self.data[size:]

    def send(self, data: bytes) -> None:
        try:
            self.sock.sendall(data)
        except ConnectionError:
            raise Ended from None

    def until_closed(self) -> int:
        """Read to the end; how many bytes came."""
        count = len(self.data)
        self.data = b""
        with contextlib.suppress(Ended):
            while True:
                count += len(self.read())
        return count

    def fin(self) -> None:
        """End as a server that closes: FIN, then wait for the peer's."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)
        self.until_closed()
        raise Ended

    def rst(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()
        raise Ended


Script = Callable[[Connection], None]


class ScriptedBackend:
    def __init__(self, scripts: dict[str, Script]) -> None:
        self.scripts = scripts
        self.served: list[tuple[int, str]] = []
        self.failures: list[BaseException] = []
        self.connections: list[Connection] = []
        self.threads: list[threading.Thread] = []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = int(self.listener.getsockname()[1])
        self.acceptor = threading.Thread(target=self.accept, daemon=True)
        self.acceptor.start()

    def accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            sock.settimeout(DEADLINE_S)
            connection = Connection(sock, len(self.connections))
            self.connections.append(connection)
            thread = threading.Thread(target=self.run, args=(connection,), daemon=True)
            self.threads.append(thread)
            thread.start()

    def run(self, connection: Connection) -> None:
        try:
            with connection.sock:
                self.serve(connection)
        except Ended:
            pass
        except TimeoutError:
            pass  # an idle pooled connection at the end of the test
        except BaseException as error:  # noqa: BLE001 - shown by stop()
            self.failures.append(error)

    def serve(self, connection: Connection) -> None:
        while True:
            path = connection.read_head().split(b" ")[1].decode()
            self.served.append((connection.number, path))
            script = self.scripts.get(path)
            if script is not None:
                script(connection)
            else:
                connection.read_body()
                connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path.encode()))

    def reused_after(self, path: str) -> bool:
        """Whether a connection that carried `path` carried anything after it."""
        for number in {number for number, known in self.served if known == path}:
            paths = [known for connection, known in self.served if connection == number]
            if paths[-1] != path or paths.count(path) > 1:
                return True
        return False

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.acceptor.join(DEADLINE_S)
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(DEADLINE_S)
        assert not self.failures, self.failures


class Http2Script(ScriptedBackend):
    """Scripts get (connection, stream_id) once a request's head is there; `connection.body_of` reads the rest."""

    def serve(self, connection: Connection) -> None:
        peer = Http2Connection(connection)
        while True:
            stream_id, path = peer.next_request()
            self.served.append((connection.number, path))
            script = self.scripts.get(path)
            if script is not None:
                script(peer, stream_id)  # type: ignore[call-arg, arg-type]
            else:
                peer.answer(stream_id, path.encode())


class Http2Connection:
    """The server's end of an HTTP/2 connection, frame by frame."""

    def __init__(self, connection: Connection, settings: bytes = b"") -> None:
        self.connection = connection
        self.decoder = hpack.Decoder()
        self.data = b""
        self.requests: list[tuple[int, str]] = []
        self.ended: set[int] = set()
        self.resets: dict[int, int] = {}
        self.peer_settings: dict[int, int] = {}
        self.uploaded: dict[int, int] = {}
        self.goaway = -1  # the code of the proxy's GOAWAY
        self.pings: list[bytes] = []  # that came back
        connection.send(frame(SETTINGS, 0, 0, settings))
        while len(self.data) < len(PREFACE):
            self.data += connection.read()
        assert self.data.startswith(PREFACE)
        self.data = self.data[len(PREFACE) :]

    def next_request(self) -> tuple[int, str]:
        while not self.requests:
            self.read()
        return self.requests.pop(0)

    def read(self) -> None:
        """Read one frame."""
        while len(self.data) < 9 or len(self.data) < 9 + int.from_bytes(self.data[:3], "big"):
            self.data += self.connection.read()
        size = int.from_bytes(self.data[:3], "big")
        kind, flags = self.data[3], self.data[4]
        stream_id = int.from_bytes(self.data[5:9], "big")
        payload = self.data[9 : 9 + size]
        self.data = self.data[9 + size :]
        if kind == SETTINGS and not flags & ACK:
            for at in range(0, size, 6):
                key, value = struct.unpack_from(">HI", payload, at)
                self.peer_settings[key] = value
            self.connection.send(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            self.connection.send(frame(PING, ACK, 0, payload))
        elif kind == PING:
            self.pings.append(payload)
        elif kind == GOAWAY:
            self.goaway = int.from_bytes(payload[4:8], "big")
        elif kind == HEADERS:
            fields = dict(self.decoder.decode(payload, raw=True))
            self.requests.append((stream_id, fields[b":path"].decode()))
        elif kind == DATA:
            self.uploaded[stream_id] = self.uploaded.get(stream_id, 0) + size
        elif kind == RST_STREAM:
            self.resets[stream_id] = int.from_bytes(payload, "big")
        if kind in (HEADERS, DATA) and flags & END_STREAM:
            self.ended.add(stream_id)

    def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.read()

    def send(self, data: bytes) -> None:
        self.connection.send(data)

    def head(self, stream_id: int, *fields: tuple[bytes, bytes], status: bytes = b"200", end: bool = False) -> None:
        flags = END_HEADERS | (END_STREAM if end else 0)
        self.send(frame(HEADERS, flags, stream_id, literals([(b":status", status), *fields])))

    def body(self, stream_id: int, data: bytes, end: bool) -> None:
        self.send(frame(DATA, END_STREAM if end else 0, stream_id, data))

    def answer(self, stream_id: int, body: bytes) -> None:
        self.head(stream_id)
        self.body(stream_id, body, True)

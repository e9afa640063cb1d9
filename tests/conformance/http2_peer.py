"""The other end of an HTTP/2 connection, in two strengths.

Http2Client   the h2 package: what an honest client sees of an answer
RawClient     frames by hand: everything an honest client would not send
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import hpack
from forward_process import connect, send

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY_FLAG = 1, 1, 4, 8, 32
PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 1, 2, 3
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM = 5, 6, 7, 8, 11

Fields = list[tuple[bytes, bytes]]


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"", announced: int = -1) -> bytes:
    size = len(payload) if announced < 0 else announced
    return struct.pack(">I", size)[1:] + bytes((kind, flags)) + struct.pack(">I", stream_id) + payload


def settings(*values: tuple[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", key, value) for key, value in values))


def u32(value: int) -> bytes:
    return struct.pack(">I", value)


def get(path: bytes = b"/", *more: tuple[bytes, bytes], method: bytes = b"GET") -> Fields:
    return [(b":method", method), (b":scheme", b"http"), (b":path", path), (b":authority", b"svc.test"), *more]


def literals(fields: Fields) -> bytes:
    """A header block without any use of the dynamic table (RFC 7541 6.2.2), Huffman or not even looked at."""
    out = bytearray()
    for name, value in fields:
        out.append(0)
        for text in (name, value):
            out += length(len(text)) + text
    return bytes(out)


def length(value: int) -> bytes:
    """RFC 7541 5.1 with a prefix of 7 bits."""
    if value < 127:
        return bytes((value,))
    out = bytearray((127,))
    value -= 127
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    out.append(value)
    return bytes(out)


class RawClient:
    """Writes frames as told and reads frames back.  Its HPACK decoder sees every block, in order."""

    def __init__(self, port: int, *values: tuple[int, int], receive_buffer: int = 0, tls: ssl.SSLContext | None = None) -> None:
        if tls is not None:
            self.sock: socket.socket = tls.wrap_socket(connect(port))
        elif receive_buffer:
            self.sock = socket.socket()
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            self.sock.settimeout(20)
            self.sock.connect(("127.0.0.1", port))
        else:
            self.sock = connect(port)
        self.decoder = hpack.Decoder(max_header_list_size=1 << 20)
        self.data = b""
        self.ended = False
        self.goaway = -1
        self.resets: dict[int, int] = {}
        self.status: dict[int, int] = {}
        self.fields: dict[int, dict[bytes, bytes]] = {}
        self.bodies: dict[int, bytes] = {}
        self.closed: set[int] = set()  # END_STREAM seen
        self.settings: dict[int, int] = {}
        self.pings: list[bytes] = []
        self.granted: list[int] = []  # window of the connection
        self.send(PREFACE + settings(*values))
        self.until(lambda: self.settings != {} or self.ended)
        self.send(frame(SETTINGS, ACK, 0))

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> bool:
        """Whether the peer still took it."""
        try:
            self.sock.sendall(data)
        except (ConnectionError, ssl.SSLEOFError):
            return False
        return True

    def request(self, stream_id: int, fields: Fields, body: bytes | None = None, end: bool = True) -> None:
        block = literals(fields)
        flags = END_HEADERS | (END_STREAM if end and body is None else 0)
        out = frame(HEADERS, flags, stream_id, block)
        if body is not None:
            out += frame(DATA, END_STREAM if end else 0, stream_id, body)
        self.send(out)

    def until(self, condition) -> None:
        """Read frames until `condition` holds or the connection ends."""
        while not condition() and not self.ended:
            self.read()

    def read(self) -> None:
        try:
            data = self.sock.recv(65536)
        except (ConnectionError, ssl.SSLEOFError):
            data = b""
        if not data:
            self.ended = True
            return
        self.data += data
        while len(self.data) >= 9:
            size = int.from_bytes(self.data[:3], "big")
            if len(self.data) < 9 + size:
                return
            kind, flags = self.data[3], self.data[4]
            stream_id = int.from_bytes(self.data[5:9], "big")
            payload = self.data[9 : 9 + size]
            self.data = self.data[9 + size :]
            self.take(kind, flags, stream_id, payload)

    def take(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if kind == SETTINGS and not flags & ACK:
            self.settings = {-1: 0}
            for at in range(0, len(payload), 6):
                key, value = struct.unpack_from(">HI", payload, at)
                self.settings[key] = value
        elif kind == HEADERS:
            assert flags & END_HEADERS
            fields = dict(self.decoder.decode(payload, raw=True))
            if b":status" in fields and fields[b":status"][:1] != b"1":
                self.status[stream_id] = int(fields[b":status"])
                self.fields[stream_id] = fields
        elif kind == DATA:
            self.bodies[stream_id] = self.bodies.get(stream_id, b"") + payload
        elif kind == RST_STREAM:
            self.resets[stream_id] = int.from_bytes(payload, "big")
        elif kind == GOAWAY:
            self.goaway = int.from_bytes(payload[4:8], "big")
        elif kind == PING and flags & ACK:
            self.pings.append(payload)
        elif kind == WINDOW_UPDATE and stream_id == 0:
            self.granted.append(int.from_bytes(payload, "big"))
        if kind in (HEADERS, DATA) and flags & END_STREAM:
            self.closed.add(stream_id)

    def over(self, stream_id: int) -> bool:
        return stream_id in self.closed or stream_id in self.resets

    def wait(self, stream_id: int) -> None:
        self.until(lambda: self.over(stream_id))

    def alive(self) -> bool:
        """Whether the connection still answers a PING."""
        self.send(frame(PING, 0, 0, b"alive?!?"))
        self.until(lambda: b"alive?!?" in self.pings)
        return not self.ended and self.goaway == -1

    def until_killed(self) -> int:
        """The code of the GOAWAY that ended the connection, -1 if it just ended."""
        self.until(lambda: False)
        return self.goaway


class Answer2:
    """One response.  `reset`: the code of RST_STREAM, -1 if there was none; `complete`: END_STREAM came."""

    def __init__(self) -> None:
        self.status = 0
        self.fields: dict[bytes, bytes] = {}
        self.body = b""
        self.trailers: dict[bytes, bytes] = {}
        self.complete = False
        self.reset = -1

    def __repr__(self) -> str:
        return f"Answer2({self.status}, {self.fields}, {self.body[:60]!r}, complete={self.complete}, reset={self.reset})"


class Http2Client:
    """The h2 package over a blocking socket.  An answer that breaks HTTP/2 raises its ProtocolError."""

    def __init__(self, port: int) -> None:
        self.sock = connect(port)
        self.engine = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=None))
        self.engine.initiate_connection()
        self.flush()
        self.answers: dict[int, Answer2] = {}
        self.ended = False

    def __enter__(self) -> Http2Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def flush(self) -> None:
        data = self.engine.data_to_send()
        if data:
            send(self.sock, data)

    def start(self, fields: Fields, end: bool = True) -> int:
        stream_id = self.engine.get_next_available_stream_id()
        self.answers[stream_id] = Answer2()
        self.engine.send_headers(stream_id, fields, end_stream=end)
        self.flush()
        return stream_id

    def ask(self, fields: Fields, body: bytes | None = None) -> Answer2:
        stream_id = self.start(fields, body is None)
        if body is not None:
            self.engine.send_data(stream_id, body, end_stream=True)
            self.flush()
        return self.wait(stream_id)

    def wait(self, stream_id: int) -> Answer2:
        answer = self.answers[stream_id]
        while not answer.complete and answer.reset < 0 and not self.ended:
            self.read()
        return answer

    def read(self) -> None:
        data = b""
        with contextlib.suppress(ConnectionError):
            data = self.sock.recv(65536)
        if not data:
            self.ended = True
            return
        for event in self.engine.receive_data(data):
            self.take(event)
        self.flush()

    def take(self, event: object) -> None:
        answer = self.answers.get(getattr(event, "stream_id", 0) or 0)
        if isinstance(event, h2.events.ConnectionTerminated):
            self.ended = True
        elif answer is None:
            return
        elif isinstance(event, h2.events.ResponseReceived):
            answer.fields = dict(event.headers)
            answer.status = int(answer.fields[b":status"])
        elif isinstance(event, h2.events.DataReceived):
            answer.body += event.data
            self.engine.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.TrailersReceived):
            answer.trailers = dict(event.headers)
        elif isinstance(event, h2.events.StreamEnded):
            answer.complete = True
        elif isinstance(event, h2.events.StreamReset):
            answer.reset = int(event.error_code)

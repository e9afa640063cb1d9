"""Backends that keep every byte they are sent, and judge it with somebody else's parser.

    RecordingBackend          one thread, one selector: accepts, reads, answers
        Http1Recorder         h11 reads the requests; `audit` reads the same bytes again, letter by letter, and llhttp (a parser
                              known for what it forgives) a third time
        Http2Recorder         the h2 package with its checks on

Tests ask `since(mark)` what arrived.  `settle` makes that question exact: it waits until the thread has read what is there.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h11
from forward_process import DEADLINE_S
from http1_judge import Forgiving, Request, audit


class Recorder:
    """One connection to the backend."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.raw = bytearray()
        self.complete: list[Request] = []
        self.faults: list[str] = []  # what the other parser objected to

    def feed(self, data: bytes) -> bool:
        """Whether the connection goes on."""
        raise NotImplementedError


class Http1Recorder(Recorder):
    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.parser = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        self.current: Request | None = None

    def feed(self, data: bytes) -> bool:
        try:
            self.parser.receive_data(data)
            while True:
                event = self.parser.next_event()
                if event is h11.NEED_DATA or event is h11.PAUSED:
                    return True
                if isinstance(event, h11.ConnectionClosed):
                    return False
                if not self.handle(event):
                    return False
        except h11.RemoteProtocolError as error:
            if data:
                self.faults.append(str(error))
            return False

    def handle(self, event: object) -> bool:
        if isinstance(event, h11.Request):
            self.current = Request(event.method, event.target, list(event.headers))
        elif isinstance(event, h11.Data):
            assert self.current is not None
            self.current.body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            request = self.current
            assert request is not None
            request.trailers = list(event.headers)
            self.complete.append(request)
            body = b"echo %b %b %d" % (request.method, request.target, len(request.body))
            out = self.parser.send(h11.Response(status_code=200, headers=[("Content-Length", str(len(body)))]))
            if request.method != b"HEAD":
                out += self.parser.send(h11.Data(data=body))
            out += self.parser.send(h11.EndOfMessage())
            self.sock.sendall(out)
            if self.parser.our_state is h11.MUST_CLOSE:
                return False
            self.parser.start_next_cycle()
        return True


class Http2Recorder(Recorder):
    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        config = h2.config.H2Configuration(client_side=False, header_encoding=None)
        self.parser = h2.connection.H2Connection(config)
        self.parser.initiate_connection()
        self.sock.sendall(self.parser.data_to_send())
        self.open: dict[int, Request] = {}

    def feed(self, data: bytes) -> bool:
        if not data:
            return False
        try:
            events = self.parser.receive_data(data)
            reset = {event.stream_id for event in events if isinstance(event, h2.events.StreamReset)}
            for event in events:
                if not isinstance(event, h2.events.StreamEnded) or event.stream_id not in reset:  # nobody waits any more
                    self.handle(event)
        except h2.exceptions.ProtocolError as error:
            self.faults.append(f"{type(error).__name__}: {error}")
            return False
        self.sock.sendall(self.parser.data_to_send())
        return True

    def handle(self, event: object) -> None:
        if isinstance(event, h2.events.RequestReceived):
            pseudo = {name: value for name, value in event.headers if name[:1] == b":"}
            fields = [(name, value) for name, value in event.headers if name[:1] != b":"]
            fields.append((b"host", pseudo[b":authority"]))
            self.open[event.stream_id] = Request(pseudo[b":method"], pseudo.get(b":path", b""), fields)
        elif isinstance(event, h2.events.DataReceived):
            self.open[event.stream_id].body += event.data
            self.parser.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.TrailersReceived):
            self.open[event.stream_id].trailers = list(event.headers)
        elif isinstance(event, h2.events.StreamReset):
            self.open.pop(event.stream_id, None)
        elif isinstance(event, h2.events.StreamEnded):
            request = self.open.pop(event.stream_id)
            self.complete.append(request)
            body = b"echo %b %b %d" % (request.method, request.target, len(request.body))
            head = [(":status", "200"), ("content-length", str(len(body)))]
            self.parser.send_headers(event.stream_id, head, end_stream=request.method == b"HEAD")
            if request.method != b"HEAD":
                self.parser.send_data(event.stream_id, body, end_stream=True)


class RecordingBackend:
    """Accepts on `port`; every connection is a `kind` of recorder."""

    def __init__(self, kind: type[Recorder] = Http1Recorder) -> None:
        self.kind = kind
        self.recorders: list[Recorder] = []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = int(self.listener.getsockname()[1])
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.bell, self.ringer = socket.socketpair()
        self.selector.register(self.bell, selectors.EVENT_READ)
        self.settled = threading.Event()
        self.settling = False
        self.ending = False
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        try:
            while not self.ending:
                ready = self.selector.select(0 if self.settling else None)
                if not ready:
                    self.settling = False
                    self.settled.set()
                for key, _ in ready:
                    self.serve(key)
        except BaseException as error:  # noqa: BLE001 - shown to the test that asks next
            self.failure = error
            self.settled.set()

    def serve(self, key: selectors.SelectorKey) -> None:
        if key.fileobj is self.listener:
            sock, _ = self.listener.accept()
            recorder = self.kind(sock)
            self.recorders.append(recorder)
            self.selector.register(sock, selectors.EVENT_READ, recorder)
        elif key.fileobj is self.bell:
            self.bell.recv(100)
            self.settling = True
        else:
            recorder = key.data
            data = b""
            goes_on = False
            with contextlib.suppress(ConnectionError):
                data = recorder.sock.recv(65536)
                recorder.raw += data
                goes_on = recorder.feed(data)
            if not goes_on or not data:
                self.selector.unregister(recorder.sock)
                recorder.sock.close()

    def settle(self) -> None:
        """Return when everything that reached our sockets has been read."""
        self.settled.clear()
        self.ringer.send(b"x")
        assert self.settled.wait(DEADLINE_S)
        if self.failure is not None:
            raise self.failure

    def mark(self) -> dict[Recorder, tuple[int, int]]:
        return {recorder: (len(recorder.raw), len(recorder.complete)) for recorder in self.recorders}

    def since(self, mark: dict[Recorder, tuple[int, int]]) -> list[Request]:
        """The complete requests since `mark`.  Asserts that the bytes of HTTP/1.1 have one reading, which is h11's."""
        found: list[Request] = []
        for recorder in self.recorders:
            at, count = mark.get(recorder, (0, 0))
            assert recorder.faults == []
            requests = recorder.complete[count:]
            if isinstance(recorder, Http1Recorder):
                read = audit(bytes(recorder.raw[at:]))
                assert [(r.method, r.target, r.body, r.trailers) for r in read] == [
                    (r.method, r.target, r.body, r.trailers) for r in requests
                ]
                assert Forgiving(bytes(recorder.raw[at:])).agrees([(r.method, r.target, r.body) for r in requests])
            found += requests
        return found

    def stop(self) -> None:
        self.ending = True
        self.ringer.send(b"x")
        self.thread.join(DEADLINE_S)
        for sock in (self.listener, self.bell, self.ringer, *(recorder.sock for recorder in self.recorders)):
            sock.close()
        self.selector.close()

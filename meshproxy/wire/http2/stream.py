"""One HTTP/2 stream, seen from our side (RFC 9113 5.1): two directions that end on their own, and one common end.

    received:  HEAD --headers--> BODY --END_STREAM--> ENDED      (a server-role stream is born when its head is received)
    sent:      HEAD --send_head--> BODY --end--> LAST --all written--> ENDED
                               --> MEASURED --its last byte--> LAST
    closed:    both ENDED, or RST_STREAM either way, or the connection is gone

LAST is ENDED that still waits for window: the owner has said everything, `queue` and `trailers` hold the rest.
MEASURED is BODY of a request whose Upgrade was left out here.  Its owner does not end it, as what follows would be a tunnel's:
it ends where its content does, and what follows is dropped.

An exchange whose response is complete is over even if its request is not (no one will read the rest): the stream is then
reset, with NO_ERROR by a server (RFC 9113 8.1) and with CANCEL by a client.  A tunnel (CONNECT) half-closes instead.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from meshproxy.wire.engine import CANCEL, HTTP_1_1_REQUIRED, INTERNAL_ERROR, NO_ERROR, NULL_SINK, Stream
from meshproxy.wire.http2.floods import UPDATES
from meshproxy.wire.http2.frames import DATA, END_STREAM, ConnectionFault, frame_header
from meshproxy.wire.http2.heads import carries_upgrade
from meshproxy.wire.http2.windows import ReceiveWindow
from meshproxy.wire.message import Field, Head, without_length, without_upgrade
from meshproxy.wire.pieces import JOIN_BYTES

if TYPE_CHECKING:
    from meshproxy.wire.http2.connection import Http2Connection

MEASURED: Final = -1
HEAD: Final = 0
BODY: Final = 1
LAST: Final = 2
ENDED: Final = 3


class Http2Stream(Stream):
    """Made by the engine; `stream_id` is 0 until a client's head is sent (numbers must go out in order, 5.1.1)."""

    # Defaults in the class body: a stream is made for every request, and most of these never change.
    stream_id: int = 0
    received: int = HEAD
    sent: int = HEAD
    closed: bool = False
    method: bytes = b""  # of the request
    tunnel: bool = False  # CONNECT that was accepted: the directions end on their own
    expected: int = -1  # DATA bytes still to come by content-length, -1 if not declared
    interims: int = 0  # 1xx responses received
    send_window: int = 0
    queue: deque[bytes] | None = None  # body that waits for window or socket
    held: int = 0  # its bytes
    stalled_since: float = 0.0  # when a sweep found it waiting; 0 again as soon as any of it is written
    silent_since: float = 0.0  # when a sweep found the request's body standing still; 0 again as soon as any of it comes
    invited: bool = False  # 100 (Continue) went out, or has been waited for long enough
    trailers: list[Field] | None = None  # wait behind the queue
    blocked: bool = False  # the sink was told so
    scheduled: bool = False  # in the connection's round of streams that may send
    paused: bool = False
    tiny: int = 0  # overhead counted for small DATA while paused
    batch: int = 0  # the turn in which a client's head was written
    left: int = 0  # of the content that is MEASURED

    # What it may receive; None as long as it has received nothing that would have to be granted again.  Most requests end
    # with their head and most answers with their first DATA.
    window: ReceiveWindow | None = None

    def __init__(self, connection: Http2Connection) -> None:
        self.sink = NULL_SINK  # and not by super().__init__(), a call more for every request
        self.connection = connection

    def receive_window(self) -> ReceiveWindow:
        window = self.window
        if window is None:
            connection = self.connection
            window = ReceiveWindow(connection.stream_window, connection.limits.stream_window, connection.growth.easily)
            self.window = window
        return window

    def granted(self) -> int:
        """Bytes that the peer may still send here; negative if it sent too many."""
        window = self.window
        return self.connection.stream_window if window is None else window.available

    # -- sending

    def send_interim(self, head: Head) -> None:
        if not self.closed and self.sent == HEAD:
            connection = self.connection
            connection.write_block(self.stream_id, connection.encoder.head(head, []), False)
            if head.status == 100:
                self.invited = True
                self.silent_since = 0.0

    def send_head(self, head: Head, extra: list[Field], end: bool) -> None:
        if self.closed:
            return
        if self.sent != HEAD:
            raise RuntimeError("send_head called twice on one stream")
        connection = self.connection
        sent = BODY
        if connection.server:
            if head.status == 101:  # how HTTP/1.1 accepts what is extended CONNECT here (RFC 8441 5)
                head = switched(head)
            self.tunnel = self.method == b"CONNECT" and head.status < 300
            if self.tunnel:
                head = without_length(head)
        else:
            code = CANCEL if connection.closing or connection.leaving else NO_ERROR
            self.method = head.method
            if head.protocol:
                peer = connection.peer
                takes = peer.enable_connect_protocol
                if head.method != b"CONNECT" and not (takes and carries_upgrade(head, extra, peer.mesh_upgrade_content)):
                    head = without_upgrade(head)  # from HTTP/1.1, and its content has a length, or there is none
                    if head.content_length > 0:
                        self.left = head.content_length
                        sent = MEASURED
                    else:
                        end = True
                else:
                    self.method = b"CONNECT"
                    head = without_length(head)
                    if not takes and code == NO_ERROR:
                        code = HTTP_1_1_REQUIRED
            if code != NO_ERROR:
                connection.finish(self)
                self.sink.response_reset(code, True)
                return
            connection.number(self)
        self.sent = sent
        connection.write_block(self.stream_id, connection.encoder.head(head, extra), end)
        self.batch = connection.batch
        if end:
            self.all_sent()

    def asked_tunnel(self) -> bool:
        return self.method == b"CONNECT"

    def send_data(self, data: bytes, end: bool) -> None:
        if self.closed or self.sent >= LAST:
            return
        if self.sent <= HEAD:
            if self.sent == HEAD:
                raise RuntimeError("send_data called before send_head")
            if len(data) >= self.left:
                data = data[: self.left]
                end = True
            elif end:
                self.cut_short()
                return
            self.left -= len(data)
        connection = self.connection
        size = len(data)
        if self.queue is None and (
            size == 0 or (size <= self.send_window and size <= connection.send_window and not connection.socket_full)
        ):
            if size > connection.peer.max_frame_size:
                self.write_frames(data, end)
                return
            if size == 0 and not end:
                return
            self.send_window -= size
            connection.send_window -= size
            connection.write(frame_header(size, DATA, END_STREAM if end else 0, self.stream_id))
            if size:
                connection.out.append(data)
                connection.floods.without_progress = 0.0
                connection.floods.updates += UPDATES
            if end:
                self.all_sent()
            return
        if end:
            self.sent = LAST
        self.enqueue(data)
        connection.block(self)

    def cut_short(self) -> None:
        """The content ends before its length: its client broke off, and nobody may take what there is for all of it."""
        sink = self.sink
        self.reset(CANCEL)
        sink.response_reset(INTERNAL_ERROR, False)

    def write_frames(self, data: bytes, end: bool) -> None:
        """Write `data`, which is too large for one frame, in as many as it takes.  They show views of it: it is copied when
        it is sent, or not at all."""
        connection = self.connection
        largest = connection.peer.max_frame_size
        size = len(data)
        self.send_window -= size
        connection.send_window -= size
        connection.floods.without_progress = 0.0
        connection.floods.updates += UPDATES
        view: Any = memoryview(data)
        header = frame_header(largest, DATA, 0, self.stream_id)
        connection.write(header)
        out = connection.out
        out.append(view[:largest])
        at = largest
        while size - at > largest:
            out.append(header)
            out.append(view[at : at + largest])
            at += largest
        out.append(frame_header(size - at, DATA, END_STREAM if end else 0, self.stream_id))
        out.append(view[at:])
        if end:
            self.all_sent()

    def enqueue(self, data: bytes) -> None:
        """In pieces of a frame each: cut once here, and not again and again by each frame that is taken from what is left."""
        queue = self.queue
        size = len(data)
        largest = self.connection.peer.max_frame_size
        if size > largest:
            if queue is None:
                self.queue = queue = deque()
            for at in range(0, size, largest):
                queue.append(data[at : at + largest])
        elif queue is None:
            self.queue = deque((data,))
        elif size < JOIN_BYTES and len(queue[-1]) < JOIN_BYTES:
            queue[-1] += data
        elif size:
            queue.append(data)
        if size:
            self.held += size
            self.connection.hold(size)

    def send_trailers(self, fields: list[Field]) -> None:
        if self.closed or self.sent >= LAST:
            return
        if self.sent == HEAD:
            raise RuntimeError("send_trailers called before send_head")
        self.sent = LAST
        if self.queue is None:
            self.write_trailers(fields)
        else:
            self.trailers = fields

    def write_trailers(self, fields: list[Field]) -> None:
        connection = self.connection
        if fields:
            connection.write_block(self.stream_id, connection.encoder.trailers(fields), True)
        else:
            connection.write(frame_header(0, DATA, END_STREAM, self.stream_id))
        self.all_sent()

    def write_some(self) -> None:
        """Write one frame of the queue.  The connection has seen to it that both windows are open."""
        queue = self.queue
        assert queue is not None
        connection = self.connection
        data = queue[0]
        size = min(len(data), self.send_window, connection.send_window, connection.peer.max_frame_size)
        if size < len(data):
            queue[0] = data[size:]
            data = data[:size]
        else:
            queue.popleft()
            if not queue:
                self.queue = None
        end = self.queue is None and self.sent == LAST and self.trailers is None
        if size or end:
            self.send_window -= size
            connection.send_window -= size
            connection.write(frame_header(size, DATA, END_STREAM if end else 0, self.stream_id))
            connection.out.append(data)
            connection.floods.without_progress = 0.0
            connection.floods.updates += UPDATES
            self.stalled_since = 0.0
            self.held -= size
            connection.hold(-size)
        if self.queue is not None or self.closed:
            return
        if self.trailers is not None:
            trailers = self.trailers
            self.trailers = None
            self.write_trailers(trailers)
        elif end:
            self.all_sent()

    def all_sent(self) -> None:
        """END_STREAM is written."""
        self.sent = ENDED
        connection = self.connection
        if self.received == ENDED:
            connection.finish(self)
        elif connection.server and not self.tunnel:
            connection.ended(self)

    def reset(self, code: int) -> None:
        if self.closed:
            return
        self.sink = NULL_SINK
        connection = self.connection
        if code == NO_ERROR and connection.server and self.sent == LAST:
            self.tunnel = False  # everything is said and goes first; with it the stream ends, whatever the client does
            return
        if self.stream_id:
            connection.write_reset(self.stream_id, code, self.granted())
        connection.finish(self)

    # -- receiving

    def pause(self) -> None:
        self.paused = True
        if self.window is not None:
            self.window.shrink()

    def resume(self) -> None:
        if self.paused:
            self.paused = False
            connection = self.connection
            connection.floods.tiny -= self.tiny
            self.tiny = 0
            if not self.closed and self.received != ENDED:
                try:
                    connection.credit(self, False)
                except ConnectionFault as fault:  # of this connection, whoever's callback we are in
                    connection.fail(fault.code, fault.label)


def switched(head: Head) -> Head:
    """A 101 response as HTTP/2 has it: 200, on the same stream."""
    answer = Head()
    answer.version = head.version
    answer.status = 200
    answer.fields = head.fields
    answer.content_length = head.content_length
    answer.mesh = head.mesh
    answer.guarded = head.guarded
    return answer

"""A channel between parent and worker: messages, and descriptors with them, over a Unix socketpair.

    | length 4 | descriptors 2 | msgpack ... |      descriptors come as SCM_RIGHTS with the message's first byte

A stream and not SOCK_SEQPACKET, whose messages end at the socket buffer's size (200 KB): a configuration can be larger.
Nothing blocks: what the other side does not read is kept, up to a bound, and past it the channel is lost.  So the parent
never waits for a worker that hangs.
"""

from __future__ import annotations

import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from meshproxy.workers.messages import MAX_MESSAGE

HEADER: Final = struct.Struct("!IH")
MAX_FDS: Final = 64  # with one message; the kernel takes 253
READ_BYTES: Final = 256 * 1024
MAX_UNSENT: Final = 2 * MAX_MESSAGE  # kept for a peer that does not read: one configuration in full and one change of it

Take = Callable[[Any, list[int]], None]


class Channel:
    """One end.  `take(message, descriptors)` is called for each message, `lost(why)` once, at the end.

    kind   the union of message types that may arrive; anything else ends the channel
    """

    def __init__(self, loop: Any, sock: socket.socket, kind: Any, take: Take, lost: Callable[[str], None]) -> None:
        sock.setblocking(False)
        self.loop = loop
        self.sock = sock
        self.open = True
        self.take = take
        self.lost = lost
        self._decoder = msgspec.msgpack.Decoder(kind)
        self._encoder = msgspec.msgpack.Encoder()
        self._in = bytearray()
        self._fds: list[int] = []
        self._out: deque[tuple[memoryview, Sequence[int]]] = deque()
        self.unsent = 0  # bytes
        loop.add_reader(sock.fileno(), self._readable)

    def send(self, message: msgspec.Struct, descriptors: Sequence[int] = ()) -> None:
        """Send, now or as soon as there is room.  Descriptors stay the caller's, and must stay open until then."""
        if not self.open:
            return
        body = self._encoder.encode(message)
        if len(body) > MAX_MESSAGE or len(descriptors) > MAX_FDS:
            raise ValueError(f"a message of {len(body)} bytes and {len(descriptors)} descriptors")
        frame = HEADER.pack(len(body), len(descriptors)) + body
        self._out.append((memoryview(frame), [os.dup(fd) for fd in descriptors]))
        self.unsent += len(frame)
        if len(self._out) == 1:
            self._writable()
            if self._out:
                self.loop.add_writer(self.sock.fileno(), self._writable)
        elif self.unsent > MAX_UNSENT:
            self.close(f"{self.unsent} bytes were not read")

    def close(self, why: str = "closed") -> None:
        """The end; `lost` is called."""
        if not self.open:
            return
        self.open = False
        self.loop.remove_reader(self.sock.fileno())
        self.loop.remove_writer(self.sock.fileno())
        self.sock.close()
        for fd in self._fds:
            os.close(fd)
        for _, fds in self._out:
            for fd in fds:
                os.close(fd)
        self._out.clear()
        self.lost(why)

    def drain_input(self) -> None:
        """Take what the other side, which has ended, had still sent."""
        while self.open and self._readable():
            pass

    def _writable(self) -> None:
        while self._out:
            frame, fds = self._out[0]
            try:
                sent = socket.send_fds(self.sock, [frame], fds) if fds else self.sock.send(frame)
            except BlockingIOError:
                return
            except OSError as error:
                self.close(error.strerror or str(error))
                return
            for fd in fds:
                os.close(fd)
            self.unsent -= sent
            if sent < len(frame):
                self._out[0] = (frame[sent:], ())
                return
            self._out.popleft()
        self.loop.remove_writer(self.sock.fileno())

    def _readable(self) -> bool:
        """Read once; False if there was nothing."""
        try:
            data, fds, _flags, _address = socket.recv_fds(self.sock, READ_BYTES, MAX_FDS)
        except BlockingIOError:
            return False
        except OSError as error:
            self.close(error.strerror or str(error))
            return False
        self._fds += fds
        if not data:
            self.close("the other side ended")
            return False
        self._in += data
        while self.open and len(self._in) >= HEADER.size:
            length, count = HEADER.unpack_from(self._in)
            if length > MAX_MESSAGE or count > MAX_FDS:
                self.close(f"a message of {length} bytes and {count} descriptors")
                return False
            end = HEADER.size + length
            if len(self._in) < end:
                return True
            body = bytes(memoryview(self._in)[HEADER.size : end])
            del self._in[:end]
            mine, self._fds = self._fds[:count], self._fds[count:]
            try:
                message = self._decoder.decode(body)
            except msgspec.DecodeError as error:
                self.close(f"not a message: {error}")
                return False
            if len(mine) != count:
                self.close(f"{len(mine)} descriptors came with a message that has {count}")
                return False
            self.take(message, mine)
        return True

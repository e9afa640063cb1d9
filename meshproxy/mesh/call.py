"""One gRPC call on a channel: messages out, messages in, and how it ended.

    OPEN --head--> ANSWERING --message, message ...--> ENDED   `error` None: well
      `--trailers-only, reset, cancel(), connection lost--------^

Back-pressure both ways: `write` waits while HTTP/2's windows or the socket hold back what was written before, and a message
that nobody has read stops the server from sending more (the stream is paused until `read` has taken it).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Generic

from meshproxy.mesh.rpc import (
    MessageBuffer,
    Method,
    Request,
    Response,
    RpcError,
    StatusCode,
    check_head,
    check_trailers,
    frame,
    reset_error,
)
from meshproxy.wire.engine import CANCEL, NO_FIELDS, NULL_SINK, Sink, Stream
from meshproxy.wire.message import Field, Head

if TYPE_CHECKING:
    from meshproxy.mesh.channel import Channel

OPEN: Final = 0
ANSWERING: Final = 1
ENDED: Final = 2


class _Answers(Sink):
    """What the engine tells of the stream (the engine's classes are native: a Sink cannot be generic too)."""

    def __init__(self, channel: Channel, stream: Stream, largest: int) -> None:
        self.channel = channel
        self.stream = stream
        self.state = OPEN
        self.error: RpcError | None = None
        self.messages = MessageBuffer(largest)
        self.blocked = False  # what was written waits in the engine
        self.changed = asyncio.Event()
        stream.sink = self

    def response_head(self, head: Head, end: bool) -> None:
        over, error = check_head(head, end)
        if over:
            self.end(error, complete=end)
        else:
            self.state = ANSWERING

    def response_data(self, data: bytes, end: bool) -> None:
        try:
            self.messages.feed(data)
        except RpcError as error:
            self.end(error)
            return
        if end:
            self.end(RpcError(StatusCode.UNKNOWN, "the answer ended without a grpc-status"), complete=True)
        elif self.messages.ready:
            self.stream.pause()
            self.changed.set()

    def response_trailers(self, fields: list[Field]) -> None:
        self.end(check_trailers(fields), complete=True)

    def response_reset(self, code: int, unprocessed: bool) -> None:
        violation, self.channel.violation = self.channel.violation, ""
        self.end(self.channel.failure or reset_error(code, unprocessed, violation), complete=True)

    def request_blocked(self) -> None:
        self.blocked = True

    def request_unblocked(self) -> None:
        self.blocked = False
        self.changed.set()

    def end(self, error: RpcError | None, complete: bool = False) -> None:
        """The one way to ENDED; `complete`: the stream is over, there is nothing to reset."""
        if self.state == ENDED:
            return
        self.state = ENDED
        self.error = None if error is None else error.again()
        if not complete:
            self.stream.reset(CANCEL)
        self.stream.sink = NULL_SINK  # they hold each other, and the collector looks rarely (proxy/run.py)
        self.changed.set()

    async def wait(self) -> None:
        """Until something happens: each waiter looks again for what it waits for."""
        self.changed.clear()
        await self.changed.wait()


class Call(Generic[Request, Response]):
    """Made by `Channel.start`."""

    def __init__(self, channel: Channel, stream: Stream, method: Method[Request, Response], head: Head) -> None:
        self._method = method
        self._stream = stream
        self._answers = _Answers(channel, stream, method.largest)
        stream.send_head(head, NO_FIELDS, False)

    async def write(self, message: Request, last: bool = False) -> None:
        """Send a message; returns once what was written has left this object's hands, or the call is over.  `last`: there
        will be no more.  Raises RpcError if the call has failed."""
        answers = self._answers
        while answers.blocked and answers.state != ENDED:
            await answers.wait()
        if answers.error is not None:
            raise answers.error.again()
        self._stream.send_data(frame(message.SerializeToString()), last)  # nothing, if the server has ended the call well
        while answers.blocked and answers.state != ENDED:
            await answers.wait()

    async def read(self) -> Response | None:
        """The next message; None where the call has ended well.  Raises RpcError if it has failed, after the messages that
        came before."""
        answers = self._answers
        while True:
            try:
                data = answers.messages.take()
            except RpcError as error:
                answers.end(error)
                answers.error = error.again()
                raise
            if data is not None:
                if not answers.messages.ready:
                    self._stream.resume()
                return self._method.decode(data)
            if answers.state == ENDED:
                if answers.error is not None:
                    raise answers.error.again()
                if answers.messages.held:
                    raise RpcError(StatusCode.INTERNAL, "the answer ended within a message")
                return None
            await answers.wait()

    def cancel(self) -> None:
        """Give it up; nothing if it is over."""
        self._answers.end(RpcError(StatusCode.CANCELLED, "cancelled here"))

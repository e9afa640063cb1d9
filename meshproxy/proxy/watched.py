"""A tunnel to a port about which nothing is declared: its bytes pass, as long as they are no HTTP.

    WATCHING --it is no HTTP--> BYTES      from here on an exchange like any other
        |
        +-----it is HTTP-----> refused     `http_in_tunnel`, before the bytes that told so are passed on

HTTP goes as requests, which rules apply to and which are told who asks; inside a tunnel it could claim to be anyone
(`mesh-client-id`).  What cannot be told yet is passed on and not held: no server acts on less than a first line, and a protocol
whose client sends one word without an end (ZooKeeper's "ruok") gets its answer.
"""

from __future__ import annotations

from meshproxy.proxy.exchange import Exchange
from meshproxy.proxy.refusals import HTTP_IN_TUNNEL
from meshproxy.wire import detect


class WatchedExchange(Exchange):
    watching: bool = True
    seen: bytes = b""  # what was passed on undecided; `detect` bounds it

    def request_data(self, data: bytes, end: bool) -> None:
        if self.watching and data and self.turns_out_http(data):
            return
        super().request_data(data, end)

    def turns_out_http(self, data: bytes) -> bool:
        seen = self.seen + data
        kind = detect.detect(seen)
        if kind == detect.NEED_MORE:
            self.seen = seen
            return False
        self.seen = b""
        self.watching = False
        if kind == detect.OPAQUE or kind == detect.TLS:
            return False
        self.cut(HTTP_IN_TUNNEL)
        return True

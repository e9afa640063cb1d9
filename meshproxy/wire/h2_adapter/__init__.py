"""HTTP/2 by the `h2` package, behind the interface of `wire/engine.py`: the reference engine.

    socket bytes -> one frame at a time -> h2.H2Connection -> its events -> Host and Sink      connection.py, inbound.py
    Stream.send_*() -> H2Connection, or the stream's queue while windows are spent -> out      stream.py, outbound.py

It exists to be compared with: the shared test suite and differential fuzzing run on it and on `wire/http2`, and
`--http2-engine=h2` puts it on the wire.  It costs about 300 us of CPU a proxied request.  Where it still differs from ours is
written in one table, tests/http2_differences.py: mostly, h2 ends the connection where a message is malformed.

What h2 lacks is done here:

    frames singly          h2 discards the events of good frames when a later one in the same read is bad     connection.py
    GOAWAY, both ways      h2 ends the connection at the first one, so streams in flight could not finish (RFC 9113 6.8);
                           its own names the last stream seen, not the last taken
    floods                 the limits of `http2/floods.py`, of heads, trailers, interim answers, of streams, and of what is held
    judgement of a frame   SETTINGS first (3.4), RST_STREAM of an idle stream (6.4), the reserved bit (6.9)   inbound.py
    HPACK                  its own error code, table sizes in the order they came, secrets never indexed      codec.py
"""

from meshproxy.wire.h2_adapter.connection import H2Client, H2Server

__all__ = ["H2Client", "H2Server"]

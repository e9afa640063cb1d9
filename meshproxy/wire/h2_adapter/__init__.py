"""HTTP/2 by the `h2` package, behind the interface of `wire/engine.py`: the reference engine.

    socket bytes -> one frame at a time -> h2.H2Connection -> its events -> Host and Sink      connection.py, inbound.py
    Stream.send_*() -> H2Connection, or the stream's queue while windows are spent -> out      stream.py, outbound.py

It exists to be compared with: the shared test suite and differential fuzzing run on it and on `wire/http2`, and
`--http2-engine=h2` puts it on the wire.  It costs about 300 us of CPU a proxied request, and it lacks what `h2` lacks:
limits against floods, and errors of one stream where a field is malformed (h2 ends the connection).  The table of
differences is in tests/wire/test_http2_frames.py.

Two things are done here because h2 cannot do them: frames are fed singly (h2 discards the events of good frames when a
later one in the same read is bad), and GOAWAY is read and written here (h2 ends the connection at the first one,
so streams in flight could not finish, RFC 9113 6.8).
"""

from meshproxy.wire.h2_adapter.connection import H2Client, H2Server

__all__ = ["H2Client", "H2Server"]

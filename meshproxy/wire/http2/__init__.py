"""HTTP/2 (RFC 9113): our own engine, sans-IO.

frames.py      the frame layer              heads.py    what a message must look like
settings.py    SETTINGS                     windows.py  flow control of what we receive
floods.py      what a peer may cost us      stream.py   one stream
connection.py  the frame loop, both roles   server.py, client.py  the roles
"""

from meshproxy.wire.http2.client import Http2Client
from meshproxy.wire.http2.server import Http2Server

__all__ = ["Http2Client", "Http2Server"]

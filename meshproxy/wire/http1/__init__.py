"""HTTP/1.1 (RFC 9112), both roles, sans-IO.

reader.py      finds heads in the input; what repeats is parsed once
templates.py   what the requests of a connection have in common
head.py        bytes of a head -> Head, validated
chunked.py     the chunked coding, decoded
serialize.py   Head -> bytes
connection.py  what both roles share: cutting messages out of the input, writing bodies, holding the reader
server.py      Http1Server: requests in, responses out
client.py      Http1Client: requests out, responses in
"""

from __future__ import annotations

from meshproxy.wire.http1.client import Http1Client
from meshproxy.wire.http1.server import Http1Server

__all__ = ["Http1Client", "Http1Server"]

"""The WebSocket handshake where its two ends speak different versions of HTTP.

    HTTP/1.1   Upgrade,          Sec-WebSocket-Key --> Sec-WebSocket-Accept = SHA-1 of it       (RFC 6455 4)
    HTTP/2     extended CONNECT, neither of the two                                             (RFC 8441 5)

Whoever is asked without a key may be a server of HTTP/1.1 in the end, so a key is added; whoever asked without one gets no
accept.  Whoever asked with a key gets the accept that goes with it, also of a server that gave none.
"""

from __future__ import annotations

import os
from base64 import b64encode
from hashlib import sha1
from typing import Final

from meshproxy.wire.engine import NO_FIELDS
from meshproxy.wire.message import Field, Head

WEBSOCKET: Final = b"websocket"
KEY: Final = b"sec-websocket-key"
ACCEPT: Final = b"sec-websocket-accept"
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def asking(head: Head) -> list[Field]:
    """What to add to a request that asks for an upgrade."""
    if head.protocol.lower() != WEBSOCKET or head.field(KEY) is not None:
        return NO_FIELDS
    return [Field(KEY, b64encode(os.urandom(16)))]


def granting(request: Head, head: Head) -> list[Field]:
    """What to add to the answer that grants it."""
    if request.protocol.lower() != WEBSOCKET or head.field(ACCEPT) is not None:
        return NO_FIELDS
    key = request.field(KEY)
    if key is None:
        return NO_FIELDS
    return [Field(ACCEPT, b64encode(sha1(key + _GUID, usedforsecurity=False).digest()))]


def granted(request: Head, head: Head) -> Head:
    """That answer, as the client may see it: a copy without the accept where nobody sent a key (heads are shared)."""
    if request.protocol.lower() != WEBSOCKET or head.field(ACCEPT) is None or request.field(KEY) is not None:
        return head
    return head.copied([field for field in head.fields if field.name != ACCEPT])

"""SETTINGS (RFC 9113 6.5, RFC 8441 3): what the peer told us, and what we tell it."""

from __future__ import annotations

from typing import Final

from meshproxy.wire.engine import FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, PROTOCOL_ERROR
from meshproxy.wire.http2.frames import (
    DEFAULT_WINDOW,
    FRAME_BYTES_MAX,
    FRAME_BYTES_MIN,
    STREAM_ID_MAX,
    WINDOW_MAX,
    ConnectionFault,
)
from meshproxy.wire.limits import Limits

HEADER_TABLE_SIZE: Final = 1
ENABLE_PUSH: Final = 2
MAX_CONCURRENT_STREAMS: Final = 3
INITIAL_WINDOW_SIZE: Final = 4
MAX_FRAME_SIZE: Final = 5
MAX_HEADER_LIST_SIZE: Final = 6
ENABLE_CONNECT_PROTOCOL: Final = 8
# Of our own, from the experimental range (RFC 9113 11.3): a request with an Upgrade may have content here, if `mesh-upgrade`
# says how much (proxy/upgrade.py).  Whoever does not say so would take the content for what follows it in the tunnel.
MESH_UPGRADE_CONTENT: Final = 0xF055

# Three of a request's pseudo fields are its request line in HTTP/1.1, and :authority is its Host: so many fields more are the
# same head.  RFC 9113 counts 32 bytes more a field than HTTP/1.1 shows; and a mesh peer's proxy adds fields of its own.
REQUEST_LINE_FIELDS: Final = 3
FIELD_OVERHEAD: Final = 32
HOP_FIELDS: Final = 11  # mesh-target-port, mesh-orig-proto, x-request-id, via, x-forwarded-for, te, expect; and some to come

# Larger frames would save nothing and let one stream hold the connection for long.
FRAME_BYTES_SENT_MAX: Final = 65_536

UNLIMITED: Final = STREAM_ID_MAX


class PeerSettings:
    """The peer's settings, at their defaults until it says otherwise.  `received` counts its SETTINGS frames.

    MAX_HEADER_LIST_SIZE is advice (6.5.2) and is not kept: an answer to a head it refuses comes from the peer itself.
    """

    def __init__(self, from_server: bool) -> None:
        self.from_server = from_server
        self.received = 0
        self.header_table_size = 4096
        self.header_table_low = 4096  # the smallest it was since the frame before: the table shrank to it (7541 4.2)
        self.max_concurrent_streams = UNLIMITED
        self.initial_window_size = DEFAULT_WINDOW
        self.max_frame_size = FRAME_BYTES_MIN
        self.enable_connect_protocol = False
        self.mesh_upgrade_content = False

    def apply(self, payload: bytes) -> None:
        """Values in their order, the last one of a kind wins; unknown ones are ignored.  Raises ConnectionFault."""
        if len(payload) % 6:
            raise ConnectionFault(FRAME_SIZE_ERROR)
        self.header_table_low = self.header_table_size
        for at in range(0, len(payload), 6):
            key = int.from_bytes(payload[at : at + 2], "big")
            value = int.from_bytes(payload[at + 2 : at + 6], "big")
            if key == HEADER_TABLE_SIZE:
                self.header_table_size = value
                self.header_table_low = min(self.header_table_low, value)
            elif key == ENABLE_PUSH:
                if value > 1 or (value and self.from_server):
                    raise ConnectionFault(PROTOCOL_ERROR)
            elif key == MAX_CONCURRENT_STREAMS:
                self.max_concurrent_streams = min(value, STREAM_ID_MAX)
            elif key == INITIAL_WINDOW_SIZE:
                if value > WINDOW_MAX:
                    raise ConnectionFault(FLOW_CONTROL_ERROR)
                self.initial_window_size = value
            elif key == MAX_FRAME_SIZE:
                if not FRAME_BYTES_MIN <= value <= FRAME_BYTES_MAX:
                    raise ConnectionFault(PROTOCOL_ERROR)
                self.max_frame_size = min(value, FRAME_BYTES_SENT_MAX)
            elif key == ENABLE_CONNECT_PROTOCOL:
                if value > 1 or (value == 0 and self.enable_connect_protocol):
                    raise ConnectionFault(PROTOCOL_ERROR)
                self.enable_connect_protocol = value == 1
            elif key == MESH_UPGRADE_CONTENT:
                self.mesh_upgrade_content = value == 1
        self.received += 1


def head_limits(limits: Limits, mesh: bool) -> tuple[int, int]:
    """How many bytes, counted as SETTINGS_MAX_HEADER_LIST_SIZE does, and how many fields a head may have here.

    `mesh`: it comes from a mesh peer, or is an answer.  What its proxy has let in, over HTTP/1.1 too, must get through here
    with what it added.  Of strangers no more is taken than would get through HTTP/1.1 behind us."""
    fields = limits.head_fields + REQUEST_LINE_FIELDS
    if not mesh:
        return limits.head_bytes, fields
    fields += HOP_FIELDS
    return limits.head_bytes + FIELD_OVERHEAD * fields, fields


def our_settings(limits: Limits, server: bool, streams: int, mesh: bool) -> list[tuple[int, int]]:
    """What we advertise; `streams` by a server; `mesh`: to a peer in the mesh.  Defaults are said too: it makes a trace easier
    to read."""
    values = [
        (HEADER_TABLE_SIZE, limits.table_bytes),
        (INITIAL_WINDOW_SIZE, limits.stream_window),
        (MAX_FRAME_SIZE, max(FRAME_BYTES_MIN, limits.frame_bytes)),
        (MAX_HEADER_LIST_SIZE, head_limits(limits, mesh or not server)[0]),
    ]
    if server:
        values.append((MAX_CONCURRENT_STREAMS, streams))
        values.append((ENABLE_CONNECT_PROTOCOL, 1))
        if mesh:
            values.append((MESH_UPGRADE_CONTENT, 1))
    else:
        values.append((ENABLE_PUSH, 0))
    return values

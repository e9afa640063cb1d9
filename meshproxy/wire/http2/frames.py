"""The frame layer of HTTP/2 (RFC 9113 4 and 6): numbers, and functions that write frames.

+---------------+------+-------+-----------+---------+
| length (24)   | type | flags | stream id | payload |
+---------------+------+-------+-----------+---------+
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from meshproxy.wire.engine import COMPRESSION_ERROR, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, STREAM_CLOSED

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
WITH_PRIORITY: Final = 0x20

HEADER_BYTES: Final = 9
RESET_BYTES: Final = 13  # of a whole RST_STREAM frame; a WINDOW_UPDATE has as many
FRAME_BYTES_MIN: Final = 16_384  # every endpoint takes frames of this size (4.2)
FRAME_BYTES_MAX: Final = 16_777_215
WINDOW_MAX: Final = 2_147_483_647
DEFAULT_WINDOW: Final = 65_535
STREAM_ID_MAX: Final = 2_147_483_647

# length (high 16 bits, low 8 bits), type, flags, stream id
unpack_header: Final = Struct(">HBBBI").unpack_from

SETTINGS_ACK: Final = b"\0\0\0\x04\x01\0\0\0\0"


class ConnectionFault(Exception):
    """An error after which the connection cannot go on (5.4.1).  `label` names it to the operator."""

    def __init__(self, code: int, label: str = "") -> None:
        super().__init__(label)
        self.code = code
        self.label = label or LABELS.get(code, "h2_protocol_error")


LABELS: Final[dict[int, str]] = {
    COMPRESSION_ERROR: "h2_compression",
    FLOW_CONTROL_ERROR: "h2_flow_control",
    FRAME_SIZE_ERROR: "h2_frame_size",
    STREAM_CLOSED: "h2_stream_closed",
}


_pack_header: Final = Struct(">IBI").pack


def frame_header(length: int, kind: int, flags: int, stream_id: int) -> bytes:
    header: bytes = _pack_header(length << 8 | kind, flags, stream_id)
    return header


def rst_frame(stream_id: int, code: int) -> bytes:
    return frame_header(4, RST_STREAM, 0, stream_id) + code.to_bytes(4, "big")


def window_update_frame(stream_id: int, increment: int) -> bytes:
    return frame_header(4, WINDOW_UPDATE, 0, stream_id) + increment.to_bytes(4, "big")


def ping_frame(payload: bytes, ack: bool) -> bytes:
    return frame_header(8, PING, ACK if ack else 0, 0) + payload


def goaway_frame(last_id: int, code: int) -> bytes:
    return frame_header(8, GOAWAY, 0, 0) + last_id.to_bytes(4, "big") + code.to_bytes(4, "big")


def settings_frame(values: list[tuple[int, int]]) -> bytes:
    payload = b"".join([key.to_bytes(2, "big") + value.to_bytes(4, "big") for key, value in values])
    return frame_header(len(payload), SETTINGS, 0, 0) + payload

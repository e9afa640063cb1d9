"""Bytes that wait, in pieces: small ones are joined, so that what waits is bounded by its bytes, not by how finely it is cut.

A piece costs some 60 bytes of its own.  64 KiB that a peer sends a byte at a time would be 4 MB.
"""

from __future__ import annotations

from typing import Any, Final

JOIN_BYTES: Final = 2048  # what a join copies at most


def join(pieces: list[Any], data: bytes) -> None:
    """Put `data` behind what waits."""
    if pieces and len(data) < JOIN_BYTES and len(pieces[-1]) < JOIN_BYTES:
        pieces[-1] += data
    else:
        pieces.append(data)

"""Prefixed integers (RFC 7541 5.1), and the error of everything HPACK."""

from __future__ import annotations

from typing import Final

ONE_BYTE: Final[list[bytes]] = [bytes([value]) for value in range(256)]

# 4 continuation bytes carry 28 bits; a bigger number is an attack or nonsense (RFC 7541 5.1 lets us set a limit).
LAST_SHIFT: Final = 21


class HpackError(ValueError):
    """A block that cannot be decoded: a connection error of type COMPRESSION_ERROR (RFC 9113 4.3)."""


def encode_integer(value: int, mask: int, first: int) -> bytes:
    """`mask` is the prefix's largest number (2^N - 1), `first` the bits before the prefix."""
    if value < mask:
        return ONE_BYTE[first | value]
    out = bytearray((first | mask,))
    value -= mask
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode_integer(data: bytes, at: int, value: int) -> tuple[int, int]:
    """The rest of a number whose prefix was all ones (`value`), and where it ends.  IndexError where the data end."""
    shift = 0
    while True:
        byte = data[at]
        at += 1
        value += (byte & 127) << shift
        if byte < 128:
            return value, at
        if shift == LAST_SHIFT:
            raise HpackError("an integer of more than 28 bits")
        shift += 7


def encode_string(value: bytes) -> bytes:
    """A string literal without Huffman coding (5.2): the bytes saved are worth less than the time, between proxies."""
    return encode_integer(len(value), 127, 0) + value

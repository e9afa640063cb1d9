"""One spelling for each path, so that a rule on `/admin` means what the app serves as `/admin`, however it is written.

    b"/public/%2e%2e//%61dmin?x=1"  --normal_path-->  b"/admin"        (the query is no part of it)
    b"/public%2f..%2fadmin"         --normal_path-->  None             no safe reading: refuse

In this order: "%XX" of unreserved characters is decoded, once (RFC 3986 6.2.2.2), the digits of others become upper case
(6.2.2.1), "//" becomes "/", dot segments are removed (5.2.4).  There is no safe reading where two servers may see two paths:

    encoded slash, any backslash        some decode them before they split into segments (CVE-2021-29492)
    "%" without two hex digits, %00     some stop, some pass it on
    bytes that are no UTF-8             overlong forms of "/" and "." among them
    "." or ".." with ";parameters"      servlet containers drop the parameters, then climb
    ".." above the root                 some clamp, some refuse

Whoever decides by the normal form also forwards it (`with_path`), or the app would decide by another one.
"""

from __future__ import annotations

import re
from typing import Final

_UNUSUAL: Final = re.compile(rb"[%\\]|//|/\.")
_SLASHES: Final = re.compile(rb"//+")
_HEX: Final = b"0123456789abcdefABCDEF"
_UNRESERVED: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"  # RFC 3986 2.3


def normal_path(path: bytes) -> bytes | None:
    """The normal form of a request's path without its query, or None where it has none that is safe.

    `path`: as `Head.path` has it: origin-form (already checked: visible ASCII, begins with "/"), b"*" or b"" (CONNECT): those
    two are what they are."""
    end = path.find(b"?")
    if end >= 0:
        path = path[:end]
    if _UNUSUAL.search(path) is None:
        return path
    if 0x5C in path:
        return None
    if 0x25 in path:
        decoded = _decoded(path)
        if decoded is None:
            return None
        path = decoded
    path = _SLASHES.sub(b"/", path)
    if b"/." not in path:
        return path
    kept: list[bytes] = []
    segments = path.split(b"/")[1:]
    for segment in segments:
        name = segment.partition(b";")[0]
        if name == b"." or name == b"..":
            if name != segment:
                return None
            if name == b"..":
                if not kept:
                    return None
                kept.pop()
        else:
            kept.append(segment)
    if segments[-1] in (b".", b".."):
        kept.append(b"")  # "/a/." and "/a/b/.." are directories: "/a/"
    return b"/" + b"/".join(kept)


def _decoded(path: bytes) -> bytes | None:
    """Percent-encoding in its one form; None if it has no safe one."""
    parts = path.split(b"%")
    out = [parts[0]]
    high = False
    for part in parts[1:]:
        digits = part[:2]
        if len(digits) != 2 or digits.translate(None, _HEX):
            return None
        value = int(digits, 16)
        if value in _UNRESERVED:
            out.append(b"%c" % value + part[2:])
            continue
        if value == 0 or value == 0x2F or value == 0x5C:
            return None
        high = high or value >= 0x80
        out.append(b"%" + digits.upper() + part[2:])
    if high and not _utf8(parts):
        return None
    return b"".join(out)


def _utf8(parts: list[bytes]) -> bool:
    whole = parts[0] + b"".join([bytes((int(part[:2], 16),)) + part[2:] for part in parts[1:]])
    try:
        whole.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def with_path(target: bytes, path: bytes) -> bytes:
    """`target` (path and query) with another path."""
    end = target.find(b"?")
    return path if end < 0 else path + target[end:]

"""How a proxy says that it was there: `Via` and `x-forwarded-for`, where the settings ask for it.

    client --1.1--> [edge] --2--> [inner] --> server       the server reads  via: 1.1 edge, 2 inner
                                                           and, of answers, the client  via: 2 inner, 1.1 edge

Both are lists to which every hop appends (RFC 9110 7.6.3).  Appending is a field line of our own behind those that came, which
is the same list (RFC 9110 5.3) and leaves the shared head alone.  The fields are made once: a name has three forms, and a
client's address does not change while its connection lives.
"""

from __future__ import annotations

from meshproxy.wire.message import TCHAR, Field, Head


class Via:
    """`name`: the proxy's pseudonym, a token.  Raises ValueError if it is none."""

    def __init__(self, name: str) -> None:
        value = name.encode("ascii", "replace")
        if not value or value.translate(None, TCHAR):
            raise ValueError(f"{name!r} is not a name for Via: letters, digits and !#$%&'*+-.^_`|~ only")
        self.http10 = Field(b"via", b"1.0 " + value)
        self.http11 = Field(b"via", b"1.1 " + value)
        self.http2 = Field(b"via", b"2 " + value)

    def field(self, head: Head) -> Field:
        """What to add to this message: the version is the one it was received in."""
        if head.version == 20:
            return self.http2
        return self.http10 if head.version == 10 else self.http11


def forwarded_for(peer: str) -> Field:
    """`peer` is "address:port"; only the address is passed on, IPv6 without brackets, as other proxies write it."""
    return Field(b"x-forwarded-for", peer.rpartition(":")[0].encode("ascii", "replace"))

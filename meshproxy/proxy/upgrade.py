"""An HTTP/1.1 Upgrade between our own proxies, as HTTP/2's extended CONNECT (RFC 8441): what CONNECT cannot say.

    app --POST /attach, Upgrade: tcp--> outbound ==CONNECT, mesh-upgrade: POST==> inbound --POST /attach, Upgrade: tcp--> app
        <------------ 101 ------------          <============ 200 ===========            <------------ 101 ------------
        <------------ 200, a page ----          <= 501, mesh-status: 200, the page =     <------------ 200, a page ----

`mesh-upgrade` is the method of the request.  It says, too, that whoever asked spoke HTTP/1.1, to whom a server may answer as if
it had not read the Upgrade (RFC 9110 7.8).  Over HTTP/2 such a 2xx would grant the tunnel, so it travels as a 501 that names
what it is in `mesh-status`; a peer that does not know the field passes on the 501 and grants nothing.  Both fields are taken
off where they are read, and an app's own never get so far: they are `mesh-*`.

A request with content, `docker exec`'s, says how much with its method.  The tunnel begins with it, and there is no end between:

    app --POST, content-length: 41--> outbound ==mesh-upgrade: POST 41==> inbound --POST, content-length: 41--> app
          41 bytes, the body                     41 bytes of DATA                     the body, at once
          the protocol's, after 101              DATA                                 after 101, or never

Only a verified peer is believed, and only one that has said in its SETTINGS that it reads the length is told it
(wire/http2/settings.py `MESH_UPGRADE_CONTENT`): to others the request goes without the Upgrade.

CONNECT without a protocol is how our proxies carry bytes that neither reads (wire/opaque.py).  An app's own CONNECT, to a
proxy (squid) that is a workload of the mesh, is for that proxy to grant; it says so with `mesh-upgrade: CONNECT`.

Towards others the method cannot be said: wire/http2/heads.py `carries_upgrade`.
"""

from __future__ import annotations

from typing import Final

from meshproxy.wire.http2.heads import MESH_UPGRADE
from meshproxy.wire.message import TCHAR, Field, Head

MESH_STATUS: Final = b"mesh-status"
DECLINED: Final = 501

# An answer to HEAD announces content that does not follow, which extended CONNECT cannot carry; OPTIONS and TRACE may be
# answered by a proxy (Max-Forwards), and its 200 would grant the tunnel.
NOT_CARRIED: Final = frozenset((b"CONNECT", b"HEAD", b"OPTIONS", b"TRACE"))
OWN_CONNECT: Final = Field(MESH_UPGRADE, b"CONNECT")
METHOD_BYTES: Final = 64  # a name longer than that is nobody's
LENGTH_DIGITS: Final = 18  # as many as Content-Length may have (wire/message.py)


def telling(head: Head) -> list[Field]:
    """What to tell a mesh peer about a request with an Upgrade over HTTP/1.1; nothing where it goes on without."""
    method = head.method
    if method in NOT_CARRIED or len(method) > METHOD_BYTES:
        return []
    return [Field(MESH_UPGRADE, b"%b %d" % (method, head.content_length) if head.content_length > 0 else method)]


def told(head: Head, value: bytes) -> Head:
    """The request as it was before it became extended CONNECT, by what a mesh peer tells; as it is if that makes no sense."""
    method, space, length = value.partition(b" ")
    if head.method != b"CONNECT" or not head.protocol or method in NOT_CARRIED:
        return head
    if not 0 < len(method) <= METHOD_BYTES or method.translate(None, TCHAR):
        return head
    if space and (not length.isdigit() or length[:1] == b"0" or len(length) > LENGTH_DIGITS):
        return head
    asked = head.copied([*head.fields, Field(b"content-length", length)] if space else head.fields)
    asked.method = method
    if space:
        asked.content_length = int(length)
    return asked


def declined(request: Head, head: Head) -> Head:
    """A 2xx that declines an Upgrade over HTTP/1.1, as the client's side of this proxy has to see it."""
    if request.version == 20:  # and a mesh peer's, or CONNECT would be its method
        answer = head.copied([*head.fields, Field(MESH_STATUS, b"%d" % head.status)])
        answer.status = DECLINED
        return answer
    if head.version != 20:
        return head
    answer = head.copied(head.fields)
    answer.version = 11  # of HTTP/2 it would be read as granting
    return answer


def undeclined(head: Head) -> Head:
    """The answer that a mesh peer carries as `declined` makes it; itself if it is none."""
    for field in head.mesh:
        if field.name == MESH_STATUS and len(field.value) == 3 and field.value.isdigit() and field.value[:1] == b"2":
            answer = head.copied(head.fields)
            answer.status = int(field.value)
            answer.version = 11
            return answer
    return head

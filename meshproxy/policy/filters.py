"""What a rule changes of a request and its answer on the way (Gateway API filters), as pure functions on heads.

    request head --Rewrite--> path, host --HeaderChanges--> fields     sent to the backend
    request head --Redirect--> Location                                answered by the proxy
    answer's fields --HeaderChanges--> fields                          sent to the client

A parsed head is shared and never modified: each function gives a new one.  Values come from manifests and were checked for what
could break a message's framing (control/resources/gateway.py, and again by Field).
"""

from __future__ import annotations

from meshproxy.policy.access import host_of
from meshproxy.policy.match import PREFIX, Match
from meshproxy.policy.path import normal_path, with_path
from meshproxy.wire.message import Field, Head, valid_authority, valid_path


class HeaderChanges:
    """set: replaces all lines of its name; add: one more line; remove: all lines.  Names in lower case, each once.

    Raises MalformedField (a ValueError) for what cannot stand in a message."""

    __slots__ = ("_away", "_fields")

    def __init__(
        self,
        set_: tuple[tuple[str, str], ...] = (),
        add: tuple[tuple[str, str], ...] = (),
        remove: tuple[str, ...] = (),
    ) -> None:
        self._fields = [Field(name.encode(), value.encode()) for name, value in (*set_, *add)]
        self._away = frozenset([name.encode() for name, _ in set_] + [name.encode() for name in remove])

    def apply(self, fields: list[Field]) -> list[Field]:
        """The fields with the changes: a new list."""
        away = self._away
        return [field for field in fields if field.name not in away] + self._fields

    def words(self) -> list[str]:
        """For people: "set x-from: route", "add x-from: route", "remove x-from"."""
        away = self._away
        given = [field.name for field in self._fields]
        said = [f"{'set' if field.name in away else 'add'} {_text(field.name)}: {_text(field.value)}" for field in self._fields]
        return said + ["remove " + _text(name) for name in sorted(away) if name not in given]


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


class NewPath:
    """Instead of the whole path (`full`), or of the prefix that a match fitted.  The query stays.  "" is no prefix at all."""

    __slots__ = ("full", "text")

    def __init__(self, full: bool, text: str) -> None:
        self.full = full
        self.text = text.encode()
        if self.text and not valid_path(self.text):
            raise ValueError(f"{text!r} is no path")

    def apply(self, target: bytes, match: Match) -> bytes:
        """`target`: path and query as `match` fitted it."""
        if self.full:
            return with_path(target, self.text or b"/")
        matched = match.path
        path = normal_path(target)
        if matched is None or path is None or matched.how != PREFIX:
            rest = path if path is not None else target.partition(b"?")[0]
        else:
            rest = path[len(matched.text) :]
        return with_path(target, self.text.rstrip(b"/") + (rest if rest[:1] == b"/" else b"/" + rest if rest else b"") or b"/")


class Redirect:
    """Where to send the client instead.  Empty parts are as in the request."""

    __slots__ = ("host", "path", "port", "scheme", "status")

    def __init__(self, status: int, scheme: str = "", host: str = "", port: int = 0, path: NewPath | None = None) -> None:
        self.status = status
        self.scheme = scheme.encode()
        self.host = host.encode()
        self.port = port
        self.path = path

    def location(self, head: Head, match: Match, port: int) -> bytes:
        """`port`: of the Service that the request is for.  A scheme's own port is not written (80 http, 443 https)."""
        scheme = self.scheme or head.scheme
        target = head.path if self.path is None else self.path.apply(head.path, match)
        if self.port:
            port = self.port
        elif self.scheme:
            port = 443 if scheme == b"https" else 80
        host = self.host or host_of(head.authority)
        if port != (443 if scheme == b"https" else 80):
            host += b":%d" % port
        return scheme + b"://" + host + target


class Rewrite:
    """host: the authority the backend sees, "" as it was; path: None as it was."""

    __slots__ = ("host", "path")

    def __init__(self, host: str = "", path: NewPath | None = None) -> None:
        self.host = host.encode()
        if self.host and not valid_authority(self.host):
            raise ValueError(f"{host!r} is no host")
        self.path = path


def changed(head: Head, match: Match, on_paths: bool, rewrite: Rewrite | None, changes: HeaderChanges | None) -> Head:
    """The request's head as the rule of `match` wants it sent; the same one where nothing changes.  Where rules are on paths
    the backend gets the path by which it was decided."""
    target = head.path
    if on_paths:
        normal = normal_path(target)
        if normal is not None:
            target = with_path(target, normal)
    if rewrite is not None and rewrite.path is not None:
        target = rewrite.path.apply(target, match)
    host = rewrite.host if rewrite is not None else b""
    if target == head.path and not host and changes is None:
        return head
    copy = head.copied(changes.apply(head.fields) if changes is not None else head.fields)
    copy.path = target
    if host:
        copy.authority = host
    return copy

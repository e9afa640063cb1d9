"""The request that is asked about: words of a command line, query of an admin page, and the head an engine would have read.

GET http://web.shop/a?b  -H 'x-user: 7' --parse--> Question --encoded--> method=GET&url=...&header=x-user%3A+7
                                                    |   ^                                |
                                         Head <--head   `----------- of_query -----------+
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import parse_qs, urlencode

from meshproxy.wire.message import (
    TCHAR,
    Field,
    Head,
    MalformedField,
    add_field,
    valid_authority,
    valid_path,
)

MAX_URL: Final = 8192  # characters; what a request line may have (wire/limits.py) is no more
MAX_HEADERS: Final = 100
FIELDS: Final = MAX_HEADERS + 8  # of a page's query


class Question:
    """method, authority, path: as in Head; path with its query.  headers: (name, value), in order."""

    def __init__(self, method: str, authority: str, path: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        """Raises ValueError saying what is no request."""
        if not method or method.encode("utf-8", "replace").translate(None, TCHAR):
            raise ValueError(f"{method!r} is no method; expected GET, POST ...")
        if method == "CONNECT":
            raise ValueError("a tunnel is no request: ask about what would be sent through it")
        if not valid_authority(authority.encode("utf-8", "replace")):
            raise ValueError(f"{authority!r} names no host; expected NAME, NAME.NAMESPACE or NAME.NAMESPACE:PORT")
        if not valid_path(path.encode("utf-8", "replace")):
            raise ValueError(f"{path!r} is no path; expected visible ASCII characters after a first /, others as %XX")
        if len(headers) > MAX_HEADERS:
            raise ValueError(f"{len(headers)} headers; at most {MAX_HEADERS}")
        self.method = method
        self.authority = authority
        self.path = path
        self.headers = list(headers)
        self.head()

    @classmethod
    def parse(cls, method: str, url: str, headers: Sequence[str] = ()) -> Question:
        """url: http://HOST[:PORT]/PATH?QUERY, or the same without http://.  headers: "name: value".  Raises ValueError."""
        if len(url) > MAX_URL:
            raise ValueError(f"a URL of {len(url)} characters; at most {MAX_URL}")
        scheme, mark, rest = url.partition("://")
        if not mark:
            rest = url
        elif scheme.lower() == "https":
            raise ValueError("https is the app's own TLS: the mesh carries its bytes and reads no request; ask with http://")
        elif scheme.lower() != "http":
            raise ValueError(f"{scheme}:// cannot be explained; expected http://HOST[:PORT]/PATH")
        rest = rest.partition("#")[0]  # a fragment is never sent
        end = min((at for at in (rest.find("/"), rest.find("?")) if at >= 0), default=len(rest))
        path = rest[end:]
        return cls(method, rest[:end], path if path[:1] == "/" else "/" + path, [_header(one) for one in headers])

    @classmethod
    def of_query(cls, query: str) -> Question:
        """What `query()` wrote.  Raises ValueError."""
        words = parse_qs(query, keep_blank_values=True, max_num_fields=FIELDS)
        for name in ("method", "url"):
            if len(words.get(name, [])) != 1:
                raise ValueError(f"say {name}=... once: /explain?method=GET&url=http://web.shop/&header=name:+value")
        return cls.parse(words["method"][0], words["url"][0], words.get("header", []))

    @property
    def url(self) -> str:
        return f"http://{self.authority}{self.path}"

    def query(self) -> list[tuple[str, str]]:
        """For urlencode."""
        return [("method", self.method), ("url", self.url), *[("header", f"{name}: {value}") for name, value in self.headers]]

    def encoded(self) -> str:
        return urlencode(self.query())

    def head(self) -> Head:
        """As an engine would have read it from HTTP/1.1 (grpc: HTTP/2); no memo keeps it."""
        head = Head()
        head.method = self.method.encode()
        head.authority = self.authority.encode()
        head.path = self.path.encode()
        try:
            for name, value in self.headers:
                add_field(head, Field(name.lower().encode(), value.strip().encode()))
        except MalformedField as error:
            raise ValueError(str(error)) from None
        named = head.connection or ()
        head.fields = [field for field in head.fields if field.name not in named]
        if head.grpc:
            head.version = 20
        return head


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise ValueError(f"{text!r} is no header; expected 'name: value'")
    return name.strip(), value.strip()

"""The admin listener: what the proxy says about itself, over its own engines.

    GET /metrics   Prometheus text; ?name[]=FAMILY (repeatable) for some families only
    GET /ready     200 when requests can be served, else 503 with the reason
    GET /live      200 as long as the loop turns
    GET /config    the configuration in force, as JSON; no secrets
    GET /explain?method=GET&url=http://web.shop/&header=name:+value   what becomes of this request of the pod's app
    GET /explain/inbound?client=spiffe://...&port=8080&method=...      whether the pod would let it in (docs/explain.md)

Everything else is 404; there is nothing here that changes anything (no /shutdown: reachable admin ports have been abused
for that, CVE-2024-40632).
"""

from __future__ import annotations

import json
from collections.abc import Coroutine
from typing import Any
from urllib.parse import parse_qs

from meshproxy.proxy.answer import reply
from meshproxy.proxy.context import Context
from meshproxy.proxy.pressure import SHEDDING
from meshproxy.proxy.server import Accepted
from meshproxy.proxy.side import REFUSE, Side
from meshproxy.wire.engine import Sink, Stream
from meshproxy.wire.message import Head

TEXT = b"text/plain; charset=utf-8"
PROMETHEUS = b"text/plain; version=0.0.4; charset=utf-8"
JSON = b"application/json"

MAX_NAMES = 100  # families in one query; there are about forty


class Status:
    """What the admin pages ask of the proxy; subclassed by each way of running one."""

    def unready(self) -> str:
        """ "" when ready, otherwise why not."""
        return ""

    def config(self) -> dict[str, Any]:
        """The configuration in force, JSON-ready."""
        return {}

    def notes(self) -> str:
        """A line for /ready that is worth knowing although ready (e.g. the control plane is away), or ""."""
        return ""

    def explain(self, inbound: bool, query: str) -> dict[str, Any] | Coroutine[Any, Any, dict[str, Any]] | None:
        """The trail of one request, JSON-ready: of the pod's app on its way out, or of somebody's on its way in; a coroutine
        where another process must be asked for it.  None: this proxy has none to give.  Raises ValueError where the query
        asks about no request."""
        return None

    def page(self, names: frozenset[str] | None) -> Coroutine[Any, Any, bytes] | None:
        """The metrics page, where other processes must be asked for it; None: this process' registry is all there is."""
        return None


def names(path: bytes) -> frozenset[str] | None:
    """The families asked for by `?name[]=a&name[]=b` (as Prometheus' own servers take it), None for all.
    Raises ValueError for more than MAX_NAMES."""
    query = parse_qs(path.partition(b"?")[2].decode("latin-1"), max_num_fields=MAX_NAMES)
    wanted = query.get("name[]")
    return frozenset(wanted) if wanted else None


class AdminSide(Side):
    def __init__(self, ctx: Context, status: Status) -> None:
        super().__init__(ctx, "admin")
        self.essential = True
        self.status = status

    def on_hello(self, connection: Accepted, alpn: list[bytes]) -> int:
        return REFUSE

    def opened(self, connection: Accepted) -> None:
        super().opened(connection)
        if len(self.connections) > self.ctx.settings.admin_connections:
            self.ctx.refused("connection_limit", self.direction)
            oldest = next((known for known in self.connections if known.idle()), connection)
            oldest.abort()

    def request(self, connection: Accepted, stream: Stream, head: Head, end: bool) -> None:
        path = head.path.partition(b"?")[0]
        if head.method not in (b"GET", b"HEAD"):
            self.reply(stream, head, 405, TEXT, b"only GET is possible here\n")
        elif path == b"/metrics":
            try:
                wanted = names(head.path)
            except ValueError:
                self.reply(stream, head, 400, TEXT, b"at most %d names at once\n" % MAX_NAMES)
                return
            page = self.status.page(wanted)
            if page is None:
                self.reply(stream, head, 200, PROMETHEUS, self.ctx.registry.render(wanted))
            else:
                stream.sink = Sink()
                self.ctx.spawn(self.metrics(stream, head, page), "metrics page")
        elif path == b"/live":
            self.reply(stream, head, 200, TEXT, b"live\n")
        elif path == b"/ready":
            self.ready(stream, head)
        elif path == b"/config":
            body = json.dumps(self.status.config(), indent=2, sort_keys=True).encode() + b"\n"
            self.reply(stream, head, 200, JSON, body)
        elif path in (b"/explain", b"/explain/inbound"):
            self.explain(stream, head, path == b"/explain/inbound")
        else:
            self.reply(stream, head, 404, TEXT, b"pages: /metrics /ready /live /config /explain\n")

    def reply(self, stream: Stream, head: Head, status: int, content_type: bytes, body: bytes) -> None:
        reply(stream, head, status, content_type, body, self.ctx.dated())

    def explain(self, stream: Stream, head: Head, inbound: bool) -> None:
        try:
            trail = self.status.explain(inbound, head.path.partition(b"?")[2].decode("latin-1"))
        except ValueError as error:
            self.reply(stream, head, 400, TEXT, f"{error}\n".encode())
            return
        if trail is None:
            self.reply(stream, head, 501, TEXT, b"this proxy has no trail to give: it is no sidecar\n")
        elif isinstance(trail, dict):
            self.reply(stream, head, 200, JSON, json.dumps(trail).encode() + b"\n")
        else:
            stream.sink = Sink()
            self.ctx.spawn(self.explained(stream, head, trail), "explain page")

    async def explained(self, stream: Stream, head: Head, trail: Coroutine[Any, Any, dict[str, Any]]) -> None:
        try:
            self.reply(stream, head, 200, JSON, json.dumps(await trail).encode() + b"\n")
        except ValueError as error:
            self.reply(stream, head, 400, TEXT, f"{error}\n".encode())

    async def metrics(self, stream: Stream, head: Head, page: Coroutine[Any, Any, bytes]) -> None:
        self.reply(stream, head, 200, PROMETHEUS, await page)

    def ready(self, stream: Stream, head: Head) -> None:
        why = "draining" if self.ctx.draining else self.status.unready()
        if not why and self.ctx.pressure.memory == SHEDDING:
            why = "memory is short"
        if why:
            self.reply(stream, head, 503, TEXT, f"not ready: {why}\n".encode())
        else:
            notes = self.status.notes()
            self.reply(stream, head, 200, TEXT, f"ready{'; ' + notes if notes else ''}\n".encode())

"""The load tester's HTTP side: the paths of Flagger's load tester, with gates in memory and commands in tasks.py.

    /healthz, /metrics
    /gate/approve, /gate/halt                     always yes, always no
    /gate/check, /gate/open, /gate/close          the gate of the Canary that the body names; closed at first
    /rollback/check, /rollback/open, /rollback/close
    POST /   metadata.type  cmd (default): 202, runs by itself    bash: 200 or 500 when it has ended

Every answer that matters to a webhook is its status: up to 202 is a yes.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import web

from control.loadtester import peer
from control.loadtester.tasks import MAX_RUNNING, Busy, Tasks, text

log = logging.getLogger("meshproxy.loadtester")

MAX_PAYLOAD_BYTES = 1024 * 1024  # of a webhook; an object of Kubernetes is no larger
MAX_GATES = 10_000  # open ones are kept; a thousand Canaries have two each

# What these do needs a cluster or a service that is not there.
_ELSEWHERE = {
    "kubectl": "there is no cluster to speak to; use type bash with `meshproxy get`",
    "helm": "there is no cluster to test a release in; use type bash",
    "helmv3": "there is no cluster to test a release in; use type bash",
    "concord": "Concord is not supported; use type bash with curl",
    "ngrinder": "nGrinder is not supported; use type cmd with a load generator",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Answer = Callable[["Payload", str], Awaitable[web.Response]]


@dataclass(frozen=True, slots=True)
class Payload:
    """What a webhook says.  `canary` is `<name>.<namespace>`."""

    name: str
    namespace: str
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def canary(self) -> str:
        return f"{self.name}.{self.namespace}"

    @classmethod
    def read(cls, body: bytes) -> Payload:
        """Raises ValueError."""
        said = json.loads(body)
        if not isinstance(said, dict):
            raise ValueError(f"expected an object, found {said!r:.60}")
        metadata = {} if said.get("metadata") is None else said["metadata"]
        if not isinstance(metadata, dict):
            raise ValueError(f"metadata: expected an object, found {metadata!r:.60}")
        for where, value in (("name", said.get("name", "")), ("namespace", said.get("namespace", "")), *metadata.items()):
            if not isinstance(value, str):
                raise ValueError(f"{where}: expected a string, found {value!r:.60}")
        return cls(said.get("name", ""), said.get("namespace", ""), metadata)


def _named(answer: Answer) -> Answer:
    """Of a gate: it has an owner.  Opening one that no Canary can ever ask for would be a yes that helps nobody."""

    async def checked(payload: Payload, gates: str) -> web.Response:
        if missing := [field for field in ("name", "namespace") if not getattr(payload, field)]:
            said = " and ".join(missing)
            return web.Response(
                status=400, text=f"{said} missing in the payload: a gate is a Canary's, given by name and namespace"
            )
        return await answer(payload, gates)

    return checked


class LoadTester:
    """`namespaces`: only Canaries of namespaces in which this expression is found may ask; None: all may."""

    def __init__(self, tasks: Tasks, namespaces: re.Pattern[str] | None = None) -> None:
        self._tasks = tasks
        self._namespaces = namespaces
        self._open: set[str] = set()

    def application(self) -> web.Application:
        app = web.Application(client_max_size=MAX_PAYLOAD_BYTES, middlewares=[_own_users_only, _no_browsers])
        add = app.router.add_route
        add("*", "/healthz", _always(200, "OK"))
        add("GET", "/metrics", self._metrics)
        add("*", "/gate/approve", _always(200, "OK"))
        add("*", "/gate/halt", _always(403, "Forbidden"))
        for prefix, gates in (("gate", ""), ("rollback", "rollback.")):
            add("*", f"/{prefix}/check", self._with_payload(_named(self._check), gates))
            add("*", f"/{prefix}/open", self._with_payload(_named(self._set), gates))
            add("*", f"/{prefix}/close", self._with_payload(_named(self._clear), gates))
        add("*", "/{rest:.*}", self._with_payload(self._task, ""))
        app.on_shutdown.append(self._shutdown)
        return app

    async def _shutdown(self, app: web.Application) -> None:
        await self._tasks.close()

    def _with_payload(self, answer: Answer, gates: str) -> Handler:
        async def handler(request: web.Request) -> web.StreamResponse:
            try:
                payload = Payload.read(await request.read())
            except ValueError as error:
                return web.Response(status=400, text=f"this is no webhook's payload: {error}")
            if self._namespaces is not None and not self._namespaces.search(payload.namespace):
                return web.Response(status=403, text="Forbidden")
            return await answer(payload, gates)

        return handler

    # -- gates

    async def _check(self, payload: Payload, gates: str) -> web.Response:
        approved = gates + payload.canary in self._open
        log.info("%s: %sgate check: %s", payload.canary, gates, "approved" if approved else "not approved")
        return web.Response(text="Approved") if approved else web.Response(status=403, text="Forbidden")

    async def _set(self, payload: Payload, gates: str) -> web.Response:
        if len(self._open) >= MAX_GATES:
            return web.Response(status=503, text=f"{MAX_GATES} gates are open; close some")
        self._open.add(gates + payload.canary)
        log.info("%s: %sgate opened", payload.canary, gates)
        return web.Response(status=202)

    async def _clear(self, payload: Payload, gates: str) -> web.Response:
        self._open.discard(gates + payload.canary)
        log.info("%s: %sgate closed", payload.canary, gates)
        return web.Response(status=202)

    # -- commands

    async def _task(self, payload: Payload, _: str) -> web.Response:
        metadata = payload.metadata
        if not metadata:
            return web.Response(status=400, text="metadata not found in payload")
        kind = metadata.get("type", "cmd")
        if kind in _ELSEWHERE:
            return web.Response(status=400, text=f"type {kind}: {_ELSEWHERE[kind]}")
        if kind not in ("cmd", "bash"):
            return web.Response(status=400, text=f"unknown task type {kind}; expected cmd or bash")
        command = metadata.get("cmd")
        if not command:
            return web.Response(status=400, text="cmd not found in metadata")
        try:
            if kind == "cmd":
                self._tasks.start(payload.canary, command, _is_true(metadata.get("logCmdOutput")))
                return web.Response(status=202)
            ended = await self._tasks.run(payload.canary, "bash", command)
        except Busy:
            return web.Response(status=503, text=f"{MAX_RUNNING} commands are running already")
        if not ended.ok:
            return web.Response(status=500, text=f"command {command} failed: {text(ended.output)}: {ended}")
        return web.Response(body=ended.output if _is_true(metadata.get("returnCmdOutput")) else b"")

    async def _metrics(self, request: web.Request) -> web.Response:
        lines = [
            "# HELP meshproxy_loadtester_commands_total Commands started.",
            "# TYPE meshproxy_loadtester_commands_total counter",
            f"meshproxy_loadtester_commands_total {self._tasks.started}",
            "# HELP meshproxy_loadtester_commands_failed_total Commands that ended badly or ran out of time.",
            "# TYPE meshproxy_loadtester_commands_failed_total counter",
            f"meshproxy_loadtester_commands_failed_total {self._tasks.failed}",
            "",
        ]
        return web.Response(text="\n".join(lines))


@web.middleware
async def _own_users_only(request: web.Request, handler: Handler) -> web.StreamResponse:
    """On a loopback address anybody on the machine could have a command run as us (peer.py)."""
    ours = request.transport.get_extra_info("sockname") if request.transport is not None else None
    peers = request.transport.get_extra_info("peername") if request.transport is not None else None
    if ours and peers and peer.is_loopback(peers[0]):
        user = peer.owner(ours[:2], peers[:2])
        if user not in (0, os.geteuid()):
            log.warning("refused: a connection from %s:%d is of user %s", *peers[:2], user)
            return web.Response(status=403, text="Forbidden: only the user who runs this, and root, may connect on loopback")
    return await handler(request)


@web.middleware
async def _no_browsers(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A page of any site could have its reader's browser post a command here, as the right user.  Browsers name the site."""
    if "Origin" in request.headers or request.headers.get("Sec-Fetch-Site", "none") != "none":
        log.warning("refused: a web page of %s", request.headers.get("Origin", "another site"))
        return web.Response(status=403, text="Forbidden: web pages may not speak to a load tester")
    return await handler(request)


def _always(status: int, words: str) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=words)

    return handler


def _is_true(value: str | None) -> bool:
    """As Go's strconv.ParseBool; what it does not know is false."""
    return value in ("1", "t", "T", "true", "TRUE", "True")

"""What is wrong between routes, splits and Services, as Events; and the conditions of routes, as their status.

store --changes of such objects--> look() --> Warning <reason>        once for each problem (an empty backend's: after 5 s)
                                          --> Normal  ProblemResolved  when it is gone
                                          --> status.parents           of HTTPRoutes and GRPCRoutes, when it differs
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

from control.resources import gateway
from control.resources.documents import field_name
from control.resources.routing import Problem
from control.resources.traffic import EMPTY, LIVE_KINDS, Traffic, standing, status_of
from control.store.eventlog import MAX_MESSAGE
from control.store.store import Change, Key, Store, StoreError

log = logging.getLogger("meshproxy.control")

RESOLVED: Final = "ProblemResolved"
MAX_TOLD: Final = 200  # problems told of at a time; `meshproxy lint` has all
EMPTY_S: Final = 5.0  # how long a backend must have been without endpoints: pods come and go when they are replaced
INTERVAL: Final = 0.5  # s between looks, and only if something has changed

_Told = tuple[Key, str, str]  # object, field, reason


class TrafficStatus:
    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self.errors = 0  # writes that were not possible
        self._store = store
        self._clock = clock
        self._told: dict[_Told, str] = {}
        self._changed = True
        self._empty_since: dict[_Told, float] = {}
        store.watch(self._note)

    async def run(self) -> None:
        while True:
            if self._changed:
                await self.look()
            await asyncio.sleep(INTERVAL)

    def _note(self, changes: Sequence[Change]) -> None:
        if any((change.key.group, change.key.kind) in LIVE_KINDS for change in changes):
            self._changed = True

    async def look(self) -> None:
        """Tell what changed since the last look."""
        self._changed = False
        objects = {Key.of(obj): obj for group, kind in LIVE_KINDS for obj in self._store.list(group, kind)}
        traffic, found = standing(self._store)
        now: dict[_Told, str] = {}
        empty: dict[_Told, float] = {}
        for problem in found:
            told = (problem.key, field_name(problem.path), problem.reason)
            if problem.reason == EMPTY:
                empty[told] = since = self._empty_since.get(told, self._clock())
                if self._clock() - since < EMPTY_S:
                    self._changed = True  # to look again
                    continue
            now.setdefault(told, _text(problem))
        self._empty_since = empty
        for told in [told for told in self._told if told not in now]:
            del self._told[told]
            if told[0] in objects and not any(other[0] == told[0] for other in now):
                await self._event(told[0], "Normal", RESOLVED, f"{told[2]}: no longer so")
        for told, text in now.items():
            if self._told.get(told) == text or (told not in self._told and len(self._told) >= MAX_TOLD):
                continue
            self._told[told] = text
            await self._event(told[0], "Warning", told[2], text)
        for route in traffic.routes:
            await self._status(route, objects[_key(route)], traffic)

    async def _status(self, route: gateway.Route, obj: dict[str, object], traffic: Traffic) -> None:
        stamp = datetime.fromtimestamp(self._clock(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        parents = status_of(route, obj, traffic, stamp)
        before = obj.get("status")
        if parents == ((before.get("parents") if isinstance(before, dict) else None) or []):
            return
        try:
            await self._store.status(_key(route), {"parents": parents})
        except (StoreError, OSError) as failure:  # it may have gone meanwhile; the next change looks again
            self._failed(_key(route), failure)

    async def _event(self, key: Key, kind: str, reason: str, message: str) -> None:
        try:
            await self._store.event(key, kind, reason, message[:MAX_MESSAGE])
        except (StoreError, OSError) as failure:  # an event is only a message
            self._failed(key, failure)

    def _failed(self, key: Key, failure: Exception) -> None:
        if self.errors == 0:
            log.warning("%s: %s", key, failure)
        self.errors += 1


def _key(route: gateway.Route) -> Key:
    return Key(gateway.GROUP, route.kind, route.metadata.namespace or "default", route.metadata.name)


def _text(problem: Problem) -> str:
    where = field_name(problem.path)
    hint = f" ({problem.hint})" if problem.hint else ""
    return f"{where}: {problem.message}{hint}" if where else problem.message + hint

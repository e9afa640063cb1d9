"""Brings what people and other programs should hear of a release: never waited for, never changing it.

    controller, once the status is stored -> tell() -> lanes -> event webhooks, post-rollout webhooks, alerts
                                                        |
              one lane for each (Canary, receiver): in order, one at a time; a receiver that hangs delays its own lane only

A lane is a bounded queue that loses its oldest; what is lost is counted.  What is queued dies with the process: a release
never depends on it.  Failures are logged and counted; an alert provider that begins to fail is an Event of the Canary, once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from control.canary.act import EVENT_REASON
from control.canary.declared.alerts import Alert, AlertRef
from control.canary.declared.hooks import EVENT, Webhook, checksum, event_metadata, payload
from control.canary.declared.spec import CanarySpec
from control.canary.machine.decision import Event, Notice, TellHook
from control.canary.machine.status import Status
from control.canary.telling.alert_sender import AlertSender
from control.canary.telling.hook_client import HookClient
from control.store.store import Key, Store, StoreError

log = logging.getLogger("meshproxy.canary")

LANE_LENGTH = 100  # a release is some dozens of Events; more behind a receiver that hangs is old news
MAX_WAITING = 2000  # in all lanes: a thousand Canaries whose receiver is gone cost a few MB
DRAIN_S = 2.0  # at the end: what is on its way may arrive

_Job = Callable[[], Awaitable[bool]]


class Courier(Collector):
    """`clock` gives Unix seconds.  `event_webhook` is told the Events of Canaries without an event webhook of their own.
    `cluster_name`: what alerts and Events say they are from, "" for nothing.

    A prometheus_client collector of what became of it all."""

    def __init__(
        self,
        store: Store,
        hooks: HookClient,
        alerts: AlertSender,
        *,
        clock: Callable[[], float],
        event_webhook: Webhook | None = None,
        cluster_name: str = "",
    ) -> None:
        self._store = store
        self._hooks = hooks
        self._alerts = alerts
        self._clock = clock
        self._event_webhook = event_webhook
        self._cluster_name = cluster_name
        self._lanes: dict[tuple[Key, str], deque[tuple[str, _Job]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting = 0
        self._failing: set[tuple[Key, AlertRef | None]] = set()
        self.outcomes: dict[tuple[str, str], int] = {}  # (kind, outcome) -> notices

    def tell(
        self,
        key: Key,
        spec: CanarySpec | None,
        status: Status,
        events: Sequence[Event],
        notices: Sequence[Notice] = (),
    ) -> None:
        """What a decision says, in its order; returns at once.  `spec` is None for a Canary that cannot be read."""
        for event in events:
            self._tell_event(key, spec, status, event)
        row = tuple(notice for notice in notices if isinstance(notice, TellHook))
        if row and spec is not None:
            self._put(key, "hooks", "hook", partial(self._call_row, key, spec, status, row))
        for notice in notices:
            if isinstance(notice, Alert):
                self._tell_alert(key, spec, notice)

    async def close(self) -> None:
        """Gives what is on its way a moment, then ends it; what still waits is lost, and counted."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=DRAIN_S)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for lane in self._lanes.values():
            for kind, _ in lane:
                self._count(kind, "dropped")
        self._lanes.clear()
        self._waiting = 0

    async def settled(self) -> None:
        """Until nothing waits and nothing is on its way, what that leads to included."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    # -- into the lanes

    def _tell_event(self, key: Key, spec: CanarySpec | None, status: Status, event: Event) -> None:
        own = [hook for hook in spec.webhooks if hook.type == EVENT] if spec is not None else []
        for hook in own or ([self._event_webhook] if self._event_webhook is not None else []):
            cluster = {"cluster": self._cluster_name} if self._cluster_name else {}
            metadata = event_metadata(event.text, event.warning, self._clock(), {**cluster, **dict(hook.metadata)})
            body = _body(key, status, status.phase.value, metadata)
            self._put(key, f"event {hook.name} {hook.url}", "event", partial(self._call_event, key, hook, body))

    def _tell_alert(self, key: Key, spec: CanarySpec | None, alert: Alert) -> None:
        if self._cluster_name:
            alert = replace(alert, fields=(("Cluster", self._cluster_name), *alert.fields))
        references: Sequence[AlertRef | None] = spec.alerts if spec is not None else ()
        if not references and self._alerts.default is not None:
            references = [None]
        for reference in references:
            if reference is None or reference.wants(alert):
                where = f"{reference.namespace}/{reference.provider}" if reference else ""
                self._put(key, f"alert {where}", "alert", partial(self._send_alert, key, reference, alert))

    def _put(self, key: Key, receiver: str, kind: str, job: _Job) -> None:
        name = (key, receiver)
        lane = self._lanes.get(name)
        if lane is None:
            if self._waiting >= MAX_WAITING:
                self._count(kind, "dropped")
                return
            lane = self._lanes[name] = deque()
            task = asyncio.get_running_loop().create_task(self._work(name, lane), name=f"courier {key} {receiver}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif len(lane) >= LANE_LENGTH or (self._waiting >= MAX_WAITING and lane):
            lane.popleft()
            self._waiting -= 1
            self._count(kind, "dropped")
        lane.append((kind, job))
        self._waiting += 1

    async def _work(self, name: tuple[Key, str], lane: deque[tuple[str, _Job]]) -> None:
        """The lane's task: ends when there is nothing left, so that an idle courier has none."""
        while lane:
            kind, job = lane.popleft()
            self._waiting -= 1
            try:
                self._count(kind, "sent" if await job() else "failed")
            except Exception:  # a bug in one notice must not cost the ones behind it; counted, logged with its trace
                self._count(kind, "failed")
                log.exception("canary %s.%s: %s", name[0].name, name[0].namespace, name[1])
        self._lanes.pop(name, None)

    # -- out of them

    async def _call_event(self, key: Key, hook: Webhook, body: dict[str, object]) -> bool:
        result = await self._hooks.call(hook, body)
        if not result.ok:  # no Event: it would be told to the same webhook
            log.warning("canary %s.%s: event webhook %s: %s", key.name, key.namespace, hook.name, result.text)
        return result.ok

    async def _call_row(self, key: Key, spec: CanarySpec, status: Status, row: Sequence[TellHook]) -> bool:
        for told in row:
            hook = told.hook
            result = await self._hooks.call(hook, _body(key, status, told.phase, dict(hook.metadata)))
            if result.ok:
                event = Event(False, f"Post-rollout check {hook.name} passed")
            else:
                event = Event(True, f"Post-rollout hook {hook.name} failed {result.text}")
            await self._record(key, event)
            self._tell_event(key, spec, status, event)
            if not result.ok:
                return False
        return True

    async def _send_alert(self, key: Key, reference: AlertRef | None, alert: Alert) -> bool:
        why = await self._alerts.send(reference, f"{key.name}.{key.namespace}", alert)
        if not why:
            self._failing.discard((key, reference))
            return True
        provider = f"{reference.provider}.{reference.namespace}" if reference is not None else "of the mesh"
        text = f"Alert provider {provider}: {why}"
        log.warning("canary %s.%s: %s", key.name, key.namespace, text)
        if (key, reference) not in self._failing:
            if len(self._failing) >= MAX_WAITING:
                self._failing.clear()
            self._failing.add((key, reference))
            await self._record(key, Event(True, text))
        return False

    async def _record(self, key: Key, event: Event) -> None:
        (log.warning if event.warning else log.info)("canary %s.%s: %s", key.name, key.namespace, event.text)
        with suppress(StoreError):  # the Canary may be gone by now; the log has it
            await self._store.event(key, "Warning" if event.warning else "Normal", EVENT_REASON, event.text)

    # -- counting

    def _count(self, kind: str, outcome: str) -> None:
        self.outcomes[kind, outcome] = self.outcomes.get((kind, outcome), 0) + 1

    def collect(self) -> Iterator[Metric]:
        notices = CounterMetricFamily(
            "meshproxy_canary_notices",
            "Event webhooks, rows of post-rollout webhooks and alerts, by what became of them.",
            labels=["kind", "outcome"],
        )
        for kind in ("event", "hook", "alert"):
            for outcome in ("sent", "failed", "dropped"):
                notices.add_metric([kind, outcome], self.outcomes.get((kind, outcome), 0))
        yield notices


def _body(key: Key, status: Status, phase: str, metadata: dict[str, str]) -> dict[str, object]:
    return payload(key.name, key.namespace, phase, checksum(status.tracked, status.last_applied), metadata)

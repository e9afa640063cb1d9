"""What everything in one proxy process shares: the loop, the settings, the clock, the flusher, the counters."""

from __future__ import annotations

import logging
from email.utils import formatdate
from time import monotonic, time
from typing import Any, Final

from meshproxy.policy.budget import Budget
from meshproxy.policy.random import Rng
from meshproxy.policy.retry import RetryPolicy
from meshproxy.proxy.descriptors import limit
from meshproxy.proxy.memory import cgroup_limit
from meshproxy.proxy.pressure import Pressure
from meshproxy.proxy.settings import Settings
from meshproxy.proxy.timers import Deadlines
from meshproxy.telemetry.registry import Registry
from meshproxy.wire.engine import NO_FIELDS, Host
from meshproxy.wire.message import Field

log: Final = logging.getLogger("meshproxy.proxy")


class Flushable(Host):
    """A connection with bytes to send."""

    def __init__(self) -> None:
        self.dirty = False

    def flush(self) -> None:
        raise NotImplementedError


def memory_limit(settings: Settings) -> int:
    """This process's part of the tighter of what the machine and the settings say, 0 without either."""
    limits = [found for found in (cgroup_limit(), settings.memory_limit_bytes) if found > 0]
    return min(limits, default=0) // settings.workers


class Context:
    """One for each worker process.

    now     monotonic seconds, set when bytes are read or a timer fires: the data path asks the system once a read and
            not once a use
    wall    Unix seconds, set once a sweep: certificates end by it
    clock   gives Unix seconds: for dates, those sent and those of Retry-After
    endpoints   every proxy.endpoint.Endpoint that has, or may get, a connection; also those the configuration no longer
                lists, until their last connection is gone
    """

    def __init__(self, loop: Any, settings: Settings, registry: Registry, seed: int, request_id_prefix: bytes) -> None:
        self.loop = loop
        self.settings = settings
        self.registry = registry
        self.rng = Rng(seed)
        self.deadlines = Deadlines(self)
        self.now = monotonic()
        self.clock: Any = time
        self.wall = time()
        self.date: list[Field] = NO_FIELDS  # see `dated`
        self.date_until = 0.0
        self.draining = False
        self.tasks: set[Any] = set()
        self.endpoints: dict[Any, None] = {}
        self.dirty: list[Flushable] = []
        self.bulk = False  # what is being flushed is a read of many bytes: not worth joining
        self.flush_callback: Any = self.flush
        self.request_id_prefix = request_id_prefix
        self.request_ids = 0
        self.internal_errors = registry.counter(
            "meshproxy_internal_errors_total", "Exceptions that escaped a connection; each closed that connection only."
        )
        self.pressure = Pressure(settings, registry, memory_limit(settings), limit())
        self.violations: dict[str, Any] = {}
        self.refusals: dict[str, Any] = {}
        self.empty_backends: dict[str, Any] = {}
        self.tls_failures: dict[str, Any] = {}
        self.outlived: dict[str, Any] = {}

    # -- one write a connection and loop turn

    def mark(self, connection: Flushable) -> None:
        """Flush `connection` before this loop turn ends.  All frames and responses of a turn leave in one write: fewer
        system calls (two of the four a proxied request costs) and one TLS record instead of many."""
        if not self.dirty:
            self.loop.call_soon(self.flush_callback)
        self.dirty.append(connection)

    def flush(self) -> None:
        dirty = self.dirty
        self.dirty = []
        for connection in dirty:
            connection.flush()

    def flush_bulk(self) -> None:
        """A large read was passed on: flush now, in the middle of a loop turn.  Also who read it: window updates that wait for
        the end of the turn stop the sender meanwhile (1 MiB over HTTP/2: 7 % more CPU)."""
        self.bulk = True
        self.flush()
        self.bulk = False

    def budget(self, retry: RetryPolicy) -> Budget:
        """A retry budget as the policy declares it: of several workers each gives its part of the floor."""
        return Budget(retry.budget_ratio, retry.budget_floor / self.settings.workers, retry.budget_ttl)

    # -- ids and rare events

    def request_id(self) -> bytes:
        """Unique within the mesh: a random prefix for each process, then a count; 32 hexadecimal digits (with anything else
        in it a field costs 85 ns more: see Field)."""
        self.request_ids += 1
        return self.request_id_prefix + b"%016x" % self.request_ids

    def dated(self) -> list[Field]:
        """For a response that has no Date (RFC 9110 6.6.1): one, made once a second."""
        if self.now >= self.date_until:
            wall: float = self.clock()
            self.date = [Field(b"date", formatdate(wall, usegmt=True).encode())]
            self.date_until = self.now + 1.0 - wall % 1.0
        return self.date

    def spawn(self, coroutine: Any, name: str) -> Any:
        """Run a coroutine that belongs to the proxy (connecting; never a request).  Returns its task."""
        task = self.loop.create_task(coroutine, name=name)
        self.tasks.add(task)
        task.add_done_callback(self.task_done)
        return task

    def task_done(self, task: Any) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.internal_errors.value += 1
            log.error("internal error in task %s", task.get_name(), exc_info=task.exception())

    def violation(self, reason: str) -> None:
        counter = self.violations.get(reason)
        if counter is None:  # reasons are fixed labels of the engines, so this dict is small
            counter = self.violations[reason] = self.registry.counter(
                "meshproxy_protocol_violations_total", "Peers that broke the protocol or a limit.", (("reason", reason),)
            )
        counter.value += 1

    def refused(self, reason: str, direction: str) -> None:
        key = reason + " " + direction
        counter = self.refusals.get(key)
        if counter is None:
            counter = self.refusals[key] = self.registry.refused(reason, direction)
        counter.value += 1
        if log.isEnabledFor(logging.DEBUG):
            log.debug("refused direction=%s reason=%s", direction, reason)

    def backend_empty(self, name: str) -> None:
        """A request was drawn for a backend that has no endpoint: its share, counted against it.  Names are configuration's."""
        counter = self.empty_backends.get(name)
        if counter is None:
            counter = self.empty_backends[name] = self.registry.counter(
                "meshproxy_backend_empty_total", "Requests for a backend that had no endpoint.", (("backend", name),)
            )
        counter.value += 1

    def tls_failed(self, reason: str, direction: str, text: str, peer: str) -> None:
        key = reason + " " + direction
        counter = self.tls_failures.get(key)
        if counter is None:
            counter = self.tls_failures[key] = self.registry.counter(
                "meshproxy_tls_failures_total",
                "TLS handshakes that failed, by reason.",
                (("direction", direction), ("reason", reason)),
            )
        counter.value += 1
        log.warning("tls handshake failed direction=%s reason=%s peer=%s: %s", direction, reason, peer, text)

    def certificate_ended(self, how: str, direction: str, peer: str) -> None:
        """A connection is `drained` or `cut` because a certificate it was opened with has ended."""
        key = how + " " + direction
        counter = self.outlived.get(key)
        if counter is None:
            counter = self.outlived[key] = self.registry.counter(
                "meshproxy_connections_outlived_total",
                "Connections ended because a certificate they were opened with has: drained, or cut after the grace.",
                (("direction", direction), ("how", how)),
            )
        counter.value += 1
        log.info("certificate of a connection has ended direction=%s peer=%s: %s", direction, peer, how)

    def escaped(self, where: str) -> None:
        """An exception escaped a connection: a bug of ours.  Counted and logged with its traceback; the caller closes that
        connection, and only that one."""
        self.internal_errors.value += 1
        log.exception("internal error in %s", where)

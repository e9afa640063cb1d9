"""A worker that stays away: what comes to its sockets is accepted by another, and nobody notices."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest
import uvloop
from loopback_ports import free_port
from workers_process import Backend, ask, kill, state_of, until

from meshproxy.proxy.context import memory_limit
from meshproxy.proxy.listener import ListenError
from meshproxy.proxy.run import new_context
from meshproxy.proxy.settings import Settings
from meshproxy.telemetry.registry import Registry
from meshproxy.workers.plan import ForwardPlan, settings_of
from meshproxy.workers.process import DEAD, HUNG, SERVING
from meshproxy.workers.supervisor import Supervisor

MANY = 32  # connections: that all of them go to one of two workers happens once in 2 ** 31


def pytest_asyncio_loop_factories(config, item):
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    async with Backend() as made:
        yield made


@pytest.fixture
async def supervisor(backend: Backend) -> AsyncIterator[Supervisor]:
    made = Supervisor(new_context(Settings(), Registry()), 2, ForwardPlan([("127.0.0.1", backend.port)], "http1"), "info")
    made.start()
    try:
        yield made
    finally:
        await made.stop(linger=False)
        assert made.pids() == []


async def test_nobody_waits_for_a_worker_that_is_not_started_again_yet(supervisor: Supervisor) -> None:
    first = supervisor.listen("first", "outbound", "127.0.0.1", 0)
    assert await supervisor.until_ready() == ""
    supervisor.restarts[0].early = 5  # as if it had died at once five times: it stays away for 1.6 s
    away = supervisor.workers[0]
    kill(away.pid)

    async def dead() -> bool:
        return supervisor.workers[0].state == DEAD

    await until(dead, "the end of a worker")
    assert supervisor.lent == {0: supervisor.workers[1]}
    assert "killed by signal 9" in supervisor.unready()
    second = supervisor.listen("second", "outbound", "127.0.0.1", 0)  # what is new meanwhile is lent too
    for port in (first, second):
        assert all(answer.ok for answer in await ask(port, MANY))
    assert supervisor.workers[0] is away, "the machine was too slow to see it"

    async def back() -> bool:
        return supervisor.workers[0] is not away and supervisor.unready() == ""

    await until(back, "the worker's return")
    assert supervisor.lent == {}
    for port in (first, second):
        assert all(answer.ok for answer in await ask(port, MANY))
    await supervisor.gather()
    assert sum(series.open_total for series in supervisor.totals.sum().tcps.values() if ("peer", "src") in series.labels) > 0
    assert supervisor.totals.sum().route("outbound", (("authority", "forward"),)).request_total == 4 * MANY


async def test_a_worker_that_answers_nothing_is_told_of_and_nobody_waits_for_it(supervisor: Supervisor) -> None:
    port = supervisor.listen("only", "outbound", "127.0.0.1", 0)
    assert await supervisor.until_ready() == ""
    supervisor.hung_s = 1.2  # seconds; the heartbeat is each second
    stopped = supervisor.workers[0]
    os.kill(stopped.pid, signal.SIGSTOP)
    try:
        queued = asyncio.create_task(ask(port, MANY))  # some of them come to the one that has stopped

        async def told() -> bool:
            return supervisor.unready() == f"worker 0: has answered nothing for 1.2 s (pid {stopped.pid})"

        await until(told, "the silence to be noticed")
        assert stopped.state == HUNG
        assert supervisor.lent == {0: supervisor.workers[1]}
        assert all(answer.ok for answer in await queued)
    finally:
        os.kill(stopped.pid, signal.SIGCONT)

    async def back() -> bool:
        return supervisor.unready() == ""

    await until(back, "it to answer again")
    assert supervisor.workers[0] is stopped
    assert supervisor.lent == {}
    assert supervisor.ctx.registry.counter("meshproxy_worker_hung_total", "Times a worker answered nothing for 3 s.").value == 1
    assert all(answer.ok for answer in await ask(port, MANY))


async def test_a_worker_that_goes_on_answering_nothing_is_replaced(supervisor: Supervisor) -> None:
    port = supervisor.listen("only", "outbound", "127.0.0.1", 0)
    assert await supervisor.until_ready() == ""
    supervisor.hung_s, supervisor.silence_s = 1.2, 1.5
    stopped = supervisor.workers[0]
    os.kill(stopped.pid, signal.SIGSTOP)

    async def replaced() -> bool:
        return supervisor.workers[0] is not stopped and supervisor.unready() == ""

    await until(replaced, "another in its place")
    assert stopped.state == DEAD
    assert state_of(stopped.pid) == ""
    assert all(answer.ok for answer in await ask(port, MANY))


async def test_with_all_workers_dead_connections_wait_and_are_served_by_the_next(supervisor: Supervisor) -> None:
    port = supervisor.listen("only", "outbound", "127.0.0.1", 0)
    assert await supervisor.until_ready() == ""
    for worker in supervisor.workers:
        kill(worker.pid)

    async def dead() -> bool:
        return all(worker.state != SERVING for worker in supervisor.workers)

    await until(dead, "the end of all workers")
    assert all(answer.ok for answer in await ask(port, MANY))  # the port was never closed


async def test_an_address_that_is_given_up_is_closed_and_can_be_bound_again(supervisor: Supervisor) -> None:
    port = supervisor.listen("kept", "outbound", "127.0.0.1", 0)
    gone = supervisor.listen("gone", "outbound", "127.0.0.1", free_port())  # of those that no outgoing connection gets
    assert await supervisor.until_ready() == ""
    with pytest.raises(ListenError):
        supervisor.listen("again", "outbound", "127.0.0.1", gone)
    supervisor.unlisten("gone")

    async def closed() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", gone)
        except ConnectionRefusedError:
            return True
        except ConnectionResetError:  # just now
            return False
        writer.close()
        return False

    await until(closed, "the port to be closed")
    assert supervisor.listen("again", "outbound", "127.0.0.1", gone) == gone
    assert await supervisor.until_ready() == ""
    for number in (port, gone):
        assert all(answer.ok for answer in await ask(number, MANY))


async def test_what_the_parent_needs_is_taken_off_the_memory_limit_before_it_is_shared() -> None:
    plan = ForwardPlan([("127.0.0.1", 9)], "http1")
    settings = Settings()
    settings.memory_limit_bytes = 512 << 20
    supervisor = Supervisor(new_context(settings, Registry()), 2, plan, "info")
    worker = settings_of(supervisor.worker_settings)
    assert memory_limit(worker) == (memory_limit(settings) - (40 << 20)) // 2

"""Several workers are one proxy: what clients, operators and scrapers see, also when one of them is killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from workers_process import DEADLINE_S, GET, Backend, Load, ask, forward, kill, state_of, until

from meshproxy.cli.forward import MAX_WORKERS

MANY = 32  # connections: that all of them go to one of two workers happens once in 2 ** 31


def in_use(pid: int) -> int:
    """Sockets that a process holds."""
    found = 0
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found += os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:")
        except OSError:
            continue
    return found


async def test_the_sum_of_all_workers_is_what_was_sent() -> None:
    async with Backend() as backend, forward(backend.port, workers=3) as proxy:
        assert "3 workers" in proxy.log[-1]
        answers = [answer for _ in range(3) for answer in await ask(proxy.port, MANY)]
        assert all(answer.ok for answer in answers)
        assert await proxy.total("request_total", target_addr=f"127.0.0.1:{backend.port}") == 3 * MANY
        assert await proxy.total("response_total", authority="forward", classification="success") == 3 * MANY
        assert await proxy.total("response_latency_ms_count") == 3 * MANY
        assert await proxy.total("tcp_open_total", direction="outbound", peer="src") == 3 * MANY
        assert await proxy.total("meshproxy_workers") == 3
        assert await proxy.total("meshproxy_worker_restarts_total") == 0
        # One page: no series twice, and the memory is that of four processes.
        lines = [line.rpartition(" ")[0] for line in (await proxy.page("/metrics"))[1].splitlines() if line[0] != "#"]
        assert len(lines) == len(set(lines))
        assert await proxy.total("process_resident_memory_bytes") > 4 * 15e6
        assert (await proxy.page("/ready"))[0] == 200
        assert json.loads((await proxy.page("/config"))[1])["workers"] == 3


async def test_limits_are_the_sum_of_those_who_carry_traffic() -> None:
    """The parent accepts nothing: its own limits are not part of what the proxy can take on."""
    async with Backend() as backend, forward(backend.port, "--memory-limit-mb", "512", workers=2) as proxy:
        assert await proxy.total("meshproxy_memory_limit_bytes") == 512 << 20


async def test_a_worker_killed_under_load_fails_its_own_requests_only_and_is_replaced() -> None:
    async with Backend(0.02) as backend, forward(backend.port) as proxy:
        async with Load(proxy.port, 150.0) as load:
            await load.more(60)
            before = await proxy.total("route_request_total", authority="forward")
            victim = next(iter(await proxy.workers()))
            kill(victim)

            async def dead() -> bool:
                return state_of(victim) in ("", "Z")

            await until(dead, "the death of the worker")
            died_at = time.monotonic()

            async def replaced() -> bool:
                return victim not in await proxy.workers() and await proxy.all_serve()

            await until(replaced, "another worker in its place")
            await load.more(60)
        assert [request for request in load.failed if request.sent_at >= died_at] == []
        assert len(load.failed) < 30, load.failed  # of those that waited for the backend then
        assert await proxy.total("meshproxy_worker_restarts_total") == 1
        after = await proxy.total("route_request_total", authority="forward")
        assert before <= after <= len(load.requests)
        # Every request that is counted has an outcome, those that died with their worker included.
        ended = await proxy.total("route_response_total", authority="forward")
        cancelled = await proxy.total("meshproxy_route_cancelled_total", authority="forward")
        assert ended + cancelled == after
        assert any("killed by signal 9" in line for line in proxy.log)


async def test_a_worker_that_hangs_is_waited_for_one_second_and_its_last_counters_are_used() -> None:
    async with Backend() as backend, forward(backend.port) as proxy:
        assert all(answer.ok for answer in await ask(proxy.port, MANY))
        assert await proxy.total("request_total") == MANY
        hangs = next(iter(await proxy.workers()))
        os.kill(hangs, signal.SIGSTOP)
        try:
            assert await proxy.total("request_total") == MANY
            assert await proxy.total("meshproxy_worker_late_total") >= 1
        finally:
            os.kill(hangs, signal.SIGCONT)


async def test_a_stop_finishes_what_is_in_flight_in_every_worker() -> None:
    async with Backend() as backend, forward(backend.port) as proxy:
        backend.release.clear()
        asked = asyncio.create_task(ask(proxy.port, MANY))

        async def begun() -> bool:
            return backend.begun == MANY

        await until(begun, "all requests at the backend")
        pids = list(await proxy.workers())
        proxy.process.send_signal(signal.SIGTERM)

        async def closed() -> bool:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            except ConnectionRefusedError:
                return True
            except ConnectionResetError:  # just now
                return False
            writer.close()
            return False

        async def unready() -> bool:
            return (await proxy.page("/ready"))[0] == 503

        await until(unready, "readiness to drop")
        await until(closed, "the port to be closed")
        assert proxy.process.returncode is None
        backend.release.set()
        answers = await asked
        assert all(answer.ok for answer in answers), answers
        assert await asyncio.wait_for(proxy.process.wait(), DEADLINE_S) == 0
        assert [pid for pid in pids if state_of(pid)] == []


async def test_a_second_sigterm_ends_everything_at_once_and_nobody_calls_it_an_error() -> None:
    async with Backend() as backend, forward(backend.port) as proxy:
        backend.release.clear()
        asked = asyncio.create_task(ask(proxy.port, MANY))

        async def begun() -> bool:
            return backend.begun == MANY

        await until(begun, "all requests at the backend")
        pids = list(await proxy.workers())
        proxy.process.send_signal(signal.SIGTERM)

        async def draining() -> bool:
            return set((await proxy.workers()).values()) == {"draining"}

        await until(draining, "the drain to begin")
        proxy.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(proxy.process.wait(), DEADLINE_S) == 143
        assert not any(answer.ok for answer in await asked)

        async def gone() -> bool:
            return all(state_of(pid) in ("", "Z") for pid in pids)

        await until(gone, "the end of the workers")
    assert [line for line in proxy.log if " ERROR " in line] == []


async def test_workers_end_with_a_parent_that_is_killed() -> None:
    async with Backend() as backend, forward(backend.port) as proxy:
        pids = list(await proxy.workers())
        os.kill(pids[0], signal.SIGSTOP)  # this one cannot even notice that its channel is closed
        proxy.process.kill()

        async def gone() -> bool:
            return all(state_of(pid) in ("", "Z") for pid in pids)

        await until(gone, "the end of the workers")


async def test_a_signal_to_the_whole_group_is_the_parents_to_handle() -> None:
    async with Backend() as backend, forward(backend.port) as proxy:
        for pid in await proxy.workers():
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGINT)
        assert all(answer.ok for answer in await ask(proxy.port, MANY))
        assert await proxy.total("meshproxy_worker_restarts_total") == 0


def run_forward(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "meshproxy", "forward", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_an_address_that_another_process_has_is_refused_although_it_would_share_it() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        run = run_forward(f"127.0.0.1:{other.getsockname()[1]}", "127.0.0.1:9", "--workers", "2")
    assert run.returncode == 1
    assert "another process listens there" in run.stderr


def test_a_number_of_workers_that_makes_no_sense_is_refused_with_what_would() -> None:
    for wrong in ("0", "-1", "x", str(MAX_WORKERS + 1)):
        run = run_forward("127.0.0.1:0", "127.0.0.1:9", "--workers", wrong)
        assert run.returncode == 2
        assert f"a number from 1 to {MAX_WORKERS} nor auto" in " ".join(run.stderr.split())


async def test_a_worker_that_cannot_start_ends_the_proxy_with_its_reason(tmp_path: Path) -> None:
    broken = tmp_path / "sitecustomize.py"
    broken.write_text("import sys\nif 'meshproxy.workers' in ' '.join(sys.orig_argv): sys.exit('broken on purpose')\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "meshproxy", "forward", "127.0.0.1:0", "127.0.0.1:9", "--workers", "2"),
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )
    _, said = await asyncio.wait_for(process.communicate(), DEADLINE_S)
    assert process.returncode == 1
    assert b"broken on purpose" in said
    assert b"ended before it was ready (exit status 1)" in said


async def test_requests_in_pipelines_and_idle_connections_are_counted_open_in_the_sum() -> None:
    async with Backend() as backend, forward(backend.port) as proxy:
        writers = []
        for number in range(MANY):
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            writer.write((GET % number).replace(b"Connection: close\r\n", b""))
            await asyncio.wait_for(reader.readuntil(b"/%d" % number), DEADLINE_S)
            writers.append(writer)
        assert await proxy.total("tcp_open_connections", direction="outbound", peer="src") == MANY
        pids = list(await proxy.workers())
        assert all(in_use(pid) > 4 for pid in pids)  # each has some of them
        kill(pids[0])

        async def replaced() -> bool:
            return pids[0] not in await proxy.workers() and await proxy.all_serve()

        await until(replaced, "another worker")
        # Gauges are the living's: the connections of the dead one are gone, and were closed by an error.
        left = await proxy.total("tcp_open_connections", direction="outbound", peer="src")
        assert 0 < left < MANY
        lost = await proxy.total("tcp_close_total", direction="outbound", peer="src", errno="worker_lost")
        assert left + lost == MANY
        for writer in writers:
            writer.close()

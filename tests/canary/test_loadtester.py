"""The load tester as a process of its own, spoken to over HTTP; and its parts where a process would hide what is tested."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from canary_receiver import Receiver, says
from click.testing import CliRunner

from control.loadtester import peer
from control.loadtester import tasks as tasks_module
from control.loadtester.app import LoadTester, Payload
from control.loadtester.tasks import MAX_OUTPUT_BYTES, Busy, Ended, Tasks
from meshproxy.cli import main

WAIT_S = 20.0  # until something that takes milliseconds has happened

Ask = Callable[..., Awaitable[tuple[int, str]]]


def payload(name: str = "podinfo", namespace: str = "test", **metadata: str) -> str:
    body: dict[str, Any] = {"name": name, "namespace": namespace, "phase": "Progressing", "checksum": "abc"}
    return json.dumps({**body, "metadata": metadata} if metadata else body)


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    made = Tasks(timeout_s=WAIT_S)
    yield made
    await made.close()


async def serving(tester: LoadTester, host: str = "127.0.0.1") -> AsyncIterator[Ask]:
    runner = aiohttp.web.AppRunner(tester.application(), shutdown_timeout=0.1)
    await runner.setup()
    site = aiohttp.web.TCPSite(runner, host, 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]

    async with aiohttp.ClientSession() as session:

        async def ask(path: str, body: str = payload(), method: str = "POST", **headers: str) -> tuple[int, str]:
            async with session.request(method, f"http://{host}:{port}{path}", data=body, headers=headers) as answer:
                return answer.status, await answer.text()

        yield ask
    await runner.cleanup()


@pytest.fixture
async def ask(tasks: Tasks) -> AsyncIterator[Ask]:
    async for one in serving(LoadTester(tasks)):
        yield one


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110  # a process of another program: nothing of ours is told
            await asyncio.sleep(0.005)


def alive(pid: int) -> bool:
    """Neither gone nor a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# ---------------------------------------------------------------- gates


async def test_some_gates_always_say_the_same(ask: Ask) -> None:
    assert await ask("/gate/approve") == (200, "OK")
    assert await ask("/gate/halt") == (403, "Forbidden")
    assert await ask("/healthz", "", "GET") == (200, "OK")


@pytest.mark.parametrize("kind", ["gate", "rollback"])
async def test_a_gate_is_closed_until_it_is_opened_and_each_canary_has_its_own(ask: Ask, kind: str) -> None:
    assert await ask(f"/{kind}/check") == (403, "Forbidden")
    assert (await ask(f"/{kind}/open"))[0] == 202
    assert await ask(f"/{kind}/check") == (200, "Approved")
    assert (await ask(f"/{kind}/check", payload("other")))[0] == 403
    assert (await ask(f"/{kind}/check", payload(namespace="prod")))[0] == 403
    assert (await ask(f"/{'rollback' if kind == 'gate' else 'gate'}/check"))[0] == 403
    assert (await ask(f"/{kind}/close"))[0] == 202
    assert (await ask(f"/{kind}/check"))[0] == 403


@pytest.mark.parametrize("body", ["", "no json", "[]", '{"name": 1}', '{"metadata": []}', '{"metadata": {"cmd": ["ls"]}}'])
@pytest.mark.parametrize("path", ["/gate/open", "/"])
async def test_what_is_no_payload_is_400(ask: Ask, path: str, body: str) -> None:
    status, said = await ask(path, body)
    assert status == 400
    assert "payload" in said


@pytest.mark.parametrize("path", ["/gate/open", "/gate/close", "/gate/check", "/rollback/open"])
@pytest.mark.parametrize(
    ("body", "missing"),
    [('{"name": "web"}', "namespace"), ('{"namespace": "shop"}', "name"), ("{}", "name and namespace")],
)
async def test_a_gate_without_its_canarys_name_and_namespace_is_400(ask: Ask, path: str, body: str, missing: str) -> None:
    status, said = await ask(path, body)
    assert status == 400
    assert said.startswith(f"{missing} missing in the payload")


async def test_namespaces_that_do_not_match_are_refused_everywhere(tasks: Tasks, tmp_path: Path) -> None:
    async for ask in serving(LoadTester(tasks, re.compile("^team-"))):
        marker = tmp_path / "ran"
        for path in ("/gate/open", "/gate/check", "/rollback/open", "/"):
            assert await ask(path, payload(type="bash", cmd=f"touch {marker}")) == (403, "Forbidden")
        assert not marker.exists()
        assert (await ask("/", payload(namespace="team-a", type="bash", cmd=f"touch {marker}")))[0] == 200
        assert marker.exists()


# ---------------------------------------------------------------- commands


async def test_a_bash_command_is_the_answer(ask: Ask) -> None:
    assert await ask("/", payload(type="bash", cmd="echo -n ${BASH_VERSION:+bash}")) == (200, "")
    assert await ask("/", payload(type="bash", cmd="echo -n ${BASH_VERSION:+bash}", returnCmdOutput="true")) == (200, "bash")
    assert await ask("/", payload(type="bash", cmd="echo no such token >&2; exit 3")) == (
        500,
        "command echo no such token >&2; exit 3 failed: no such token: exit status 3",
    )


async def test_a_cmd_runs_by_itself(ask: Ask, tmp_path: Path) -> None:
    gate, done = tmp_path / "gate", tmp_path / "done"
    os.mkfifo(gate)
    assert (await ask("/", payload(cmd=f"cat {gate} > {done}.part && mv {done}.part {done}")))[0] == 202
    assert not done.exists()
    await asyncio.to_thread(gate.write_text, "through")
    await until(done.exists)
    assert done.read_text() == "through"


async def test_the_same_command_of_the_same_canary_runs_once_at_a_time(ask: Ask, tasks: Tasks, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    command = f"until [ -e {gate} ]; do sleep 0.01; done"
    for _ in range(3):
        assert (await ask("/", payload(cmd=command)))[0] == 202
    assert (await ask("/", payload("other", cmd=command)))[0] == 202
    await until(lambda: tasks.started == 2)
    gate.touch()
    await until(lambda: not tasks._running)
    assert (await ask("/", payload(cmd="true")))[0] == 202
    await until(lambda: tasks.started == 3)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({}, "metadata not found in payload"),
        ({"type": "cmd"}, "cmd not found in metadata"),
        ({"type": "kubectl", "cmd": "get pods"}, "type kubectl: there is no cluster"),
        ({"type": "helmv3", "cmd": "test podinfo"}, "type helmv3: there is no cluster"),
        ({"type": "concord", "org": "x"}, "type concord: Concord is not supported"),
        ({"type": "perl", "cmd": "x"}, "unknown task type perl; expected cmd or bash"),
    ],
)
async def test_what_cannot_be_run_says_why(ask: Ask, metadata: dict[str, str], words: str) -> None:
    status, said = await ask("/", payload(**metadata))
    assert status == 400
    assert words in said


async def test_output_is_kept_to_its_bound_and_its_end_is_what_is_kept(tasks: Tasks) -> None:
    ended = await tasks.run("c", "sh", f"yes | head -c {3 * MAX_OUTPUT_BYTES}; echo the end")
    assert len(ended.output) == MAX_OUTPUT_BYTES
    assert ended.output.endswith(b"y\nthe end\n")
    assert ended.ok


async def test_a_command_that_takes_too_long_is_ended_with_what_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    tasks = Tasks(timeout_s=0.3)
    ended = await tasks.run("c", "bash", f"sleep 600 & echo $! > {pids}; echo $$ >> {pids}; echo begun; wait")
    assert ended == Ended(-signal.SIGTERM, b"begun\n", timed_out=True)
    assert str(ended) == "time is up"
    child, shell = map(int, pids.read_text().split())
    await until(lambda: not alive(child) and not alive(shell))


async def test_a_command_that_ignores_sigterm_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks_module, "GRACE_S", 0.05)
    ended = await Tasks(timeout_s=0.3).run("c", "bash", "trap '' TERM; while :; do read -t 600 < <(sleep 600); done")
    assert (ended.code, ended.timed_out) == (-signal.SIGKILL, True)


async def test_what_a_command_leaves_in_the_background_ends_with_it(tasks: Tasks, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    ended = await tasks.run("c", "bash", f"sleep 600 > /dev/null 2>&1 & echo $! > {pid}")
    assert ended.ok
    await until(lambda: not alive(int(pid.read_text())))


async def test_too_many_commands_are_refused(tasks: Tasks, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks_module, "MAX_RUNNING", 1)
    assert (await ask("/", payload(cmd="sleep 600")))[0] == 202
    await until(lambda: tasks.started == 1)
    assert (await ask("/", payload(cmd="sleep 601")))[0] == 503
    assert (await ask("/", payload(type="bash", cmd="true")))[0] == 503
    with pytest.raises(Busy):
        await tasks.run("c", "sh", "true")


async def test_numbers_of_commands_are_served(ask: Ask) -> None:
    await ask("/", payload(type="bash", cmd="true"))
    await ask("/", payload(type="bash", cmd="false"))
    page = (await ask("/metrics", "", "GET"))[1]
    assert "meshproxy_loadtester_commands_total 2" in page
    assert "meshproxy_loadtester_commands_failed_total 1" in page


def test_metadata_is_read_as_flaggers_load_tester_does() -> None:
    found = Payload.read(b'{"name": "a", "namespace": "b", "metadata": {"cmd": "x"}, "more": 1}')
    assert (found.canary, found.metadata) == ("a.b", {"cmd": "x"})


# ---------------------------------------------------------------- who is at the other end


@pytest.mark.parametrize(
    ("host", "family"), [("127.0.0.1", socket.AF_INET), ("127.9.8.7", socket.AF_INET), ("::1", socket.AF_INET6)]
)
def test_the_owner_of_a_loopback_connection_is_known(host: str, family: socket.AddressFamily) -> None:
    with socket.socket(family) as listener:
        listener.bind((host, 0))
        listener.listen()
        with socket.create_connection(listener.getsockname()[:2]) as client:
            connection, peers = listener.accept()
            with connection:
                assert peer.owner(connection.getsockname()[:2], peers[:2]) == os.geteuid()
                assert peer.owner(connection.getsockname()[:2], (peers[0], 1)) is None
            assert client.getpeername()[:2] == listener.getsockname()[:2]


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's process can be made by root only")
async def test_another_user_of_this_machine_has_no_command_run(tasks: Tasks, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    runner = aiohttp.web.AppRunner(LoadTester(tasks).application(), shutdown_timeout=0.1)
    await runner.setup()
    site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    body = payload(type="bash", cmd=f"touch {marker}").encode()
    request = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    script = (
        "import os, socket, sys\n"
        "os.setgid(65534); os.setuid(65534)\n"
        f"s = socket.create_connection(('127.0.0.1', {port}))\n"
        "s.sendall(sys.stdin.buffer.read())\n"
        "print(s.recv(65536).decode())\n"
    )
    try:
        answers = []
        for prelude in (script, script.replace("os.setgid(65534); os.setuid(65534)\n", "")):
            process = await asyncio.create_subprocess_exec(
                *("/usr/bin/python3", "-c", prelude), stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            answers.append((await process.communicate(request))[0].decode().split("\r\n")[0])
            if len(answers) == 1:
                assert not marker.exists()
    finally:
        await runner.cleanup()
    assert answers == ["HTTP/1.1 403 Forbidden", "HTTP/1.1 200 OK"]
    assert marker.exists()


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}])
async def test_a_web_page_has_no_command_run(ask: Ask, tmp_path: Path, headers: dict[str, str]) -> None:
    """A form or fetch() of any page reaches loopback, as the user who reads the page."""
    marker = tmp_path / "ran"
    status, said = await ask("/", payload(type="bash", cmd=f"touch {marker}"), **headers)
    assert (status, marker.exists()) == (403, False)
    assert "web pages" in said


# ---------------------------------------------------------------- the verb, and its hey


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def process(port: int, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "POD_IP": "127.0.0.1", "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)}
    environment["http_proxy"] = "http://127.0.0.1:1"  # as in a pod of embedded mode; nothing of it is reached
    made = subprocess.Popen(
        [sys.executable, "-m", "meshproxy", "loadtester", "--port", str(port), "--namespace-regexp", "test"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert made.stdout is not None
        line = made.stdout.readline()
        assert f"load tester on 127.0.0.1:{port}" in line
        yield made
    finally:
        made.kill()
        made.communicate()


async def test_the_verb_serves_runs_hey_and_ends_its_commands_with_itself(
    process: subprocess.Popen[str], port: int, tmp_path: Path, receiver: Receiver
) -> None:
    receiver.answers = [says(200), says(503)]
    pid = tmp_path / "pid"
    async with aiohttp.ClientSession() as session:

        async def ask(body: str) -> tuple[int, str]:
            async with session.post(f"http://127.0.0.1:{port}/", data=body) as answer:
                return answer.status, await answer.text()

        hey = f"hey -n 4 -c 2 -H 'X-Who: me' -m POST -d hello {receiver.url}/load"
        status, said = await ask(payload(type="bash", cmd=hey, returnCmdOutput="true"))
        assert status == 200
        assert "[200]\t1 responses" in said
        assert "[503]\t3 responses" in said
        assert await ask(payload(cmd=f"echo $$ > {pid}.part && mv {pid}.part {pid} && exec sleep 600")) == (202, "")
        await until(pid.exists)
    process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(process.wait, WAIT_S) == 0
    await until(lambda: not alive(int(pid.read_text())))
    assert [seen.headers["X-Who"] for seen in receiver.seen] == ["me"] * 4
    assert [name for name in os.listdir(tmp_path) if name != "pid"] == []  # its hey is gone with it


async def run_hey(*arguments: str, **environment: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "control.loadtester.hey", *arguments),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), WAIT_S)
    assert process.returncode is not None
    return process.returncode, said.decode()


async def test_hey_goes_through_http_proxy_and_ends_in_time(receiver: Receiver) -> None:
    code, said = await run_hey("-z", "300ms", "-q", "50", "-c", "2", "http://podinfo.test/a?b=1", http_proxy=receiver.url)
    assert code == 0
    assert {seen.headers["Host"] for seen in receiver.seen} == {"podinfo.test"}
    assert 1 <= len(receiver.seen) <= 32  # never faster than asked: 2 workers of 50 a second for 0.3 s
    assert "Status code distribution" in said


async def test_hey_counts_what_could_not_be_reached(port: int) -> None:
    code, said = await run_hey("-n", "2", "-c", "1", f"http://127.0.0.1:{port}/")
    assert code == 0
    assert "Error distribution" in said
    assert "ClientConnectorError" in said


@pytest.mark.parametrize(
    "arguments", [["-n", "1", "-c", "5", "http://x/"], ["-what", "http://x/"], ["-z", "soon", "http://x/"]]
)
async def test_hey_refuses_what_it_does_not_know(arguments: list[str]) -> None:
    assert (await run_hey(*arguments))[0] != 0


def test_the_verb_refuses_what_cannot_be_meant() -> None:
    for arguments, words in (
        (["--timeout", "soon"], "is not a duration"),
        (["--namespace-regexp", "("], "--namespace-regexp"),
        (["--port", "0"], "--port"),
    ):
        result = CliRunner().invoke(main, ["loadtester", *arguments])
        assert result.exit_code == 2
        assert words in result.output


def test_an_address_that_is_taken_is_told() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        number = held.getsockname()[1]
        result = CliRunner().invoke(main, ["loadtester", "--address", "127.0.0.1", "--port", str(number)])
    assert result.exit_code == 1
    assert f"cannot listen on 127.0.0.1:{number}" in result.output

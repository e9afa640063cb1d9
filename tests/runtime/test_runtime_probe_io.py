"""Probes asked over real sockets."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from runtime_support import until_sync

from control.runtime.meshes import start_time
from control.runtime.probe_io import Target, ask
from control.runtime.probes import Exec, Grpc, HttpGet, TcpSocket

HOST = "127.0.0.1"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[int]:
    server = await asyncio.start_server(handler, HOST, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def answering(response: bytes, seen: list[bytes]) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(response)
        await writer.drain()
        writer.close()

    return handle


@pytest.mark.parametrize(("status", "ok"), [(200, True), (204, True), (302, True), (399, True), (400, False), (503, False)])
async def test_http_says_yes_from_200_to_399(status: int, ok: bool) -> None:
    seen: list[bytes] = []
    async with serving(answering(f"HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n".encode(), seen)) as port:
        check = HttpGet("web", "/ready?x=1", headers=(("X-Probe", "1"),))
        answer = await ask(check, Target(HOST, {"web": port}), 5.0)
    assert answer[0] is ok
    assert seen[0].startswith(b"GET /ready?x=1 HTTP/1.1\r\n")
    assert b"X-Probe: 1\r\n" in seen[0]
    if not ok:
        assert str(status) in answer[1]


async def test_what_does_not_speak_http_says_no() -> None:
    async with serving(answering(b"SSH-2.0-x\r\n", [])) as port:
        ok, why = await ask(HttpGet(port), Target(HOST), 5.0)
    assert not ok
    assert "not an HTTP response" in why


async def test_silence_says_no_when_the_patience_is_over() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with serving(silent) as port:
        ok, why = await ask(HttpGet(port), Target(HOST), 0.2)
    assert not ok
    assert "no answer within 0.2 s" in why


async def test_tcp_says_yes_to_a_listener_and_no_to_nobody() -> None:
    async with serving(answering(b"", [])) as port:
        assert (await ask(TcpSocket(port), Target(HOST), 5.0))[0]
    assert not (await ask(TcpSocket(port), Target(HOST), 5.0))[0]
    ok, why = await ask(TcpSocket("nameless"), Target(HOST), 5.0)
    assert not ok
    assert "no port named 'nameless'" in why


async def test_exec_asks_by_exit_status_in_the_containers_environment(tmp_path: Path) -> None:
    target = Target(HOST, environment={"PATH": os.environ["PATH"], "WORD": "hello"}, directory=tmp_path)
    (tmp_path / "hello").touch()
    assert (await ask(Exec(("sh", "-c", 'test -e "$WORD"')), target, 10.0))[0]
    ok, why = await ask(Exec(("sh", "-c", "echo broken; exit 3")), target, 10.0)
    assert not ok
    assert why == "exit code 3: broken"
    ok, why = await ask(Exec(("/no/such/program",)), target, 10.0)
    assert not ok
    assert "/no/such/program" in why


async def test_an_exec_probe_that_hangs_is_killed_with_what_it_started(tmp_path: Path) -> None:
    target = Target(HOST, environment={"PATH": os.environ["PATH"]}, directory=tmp_path)
    ok, why = await ask(Exec(("sh", "-c", "echo $$ > pid; sleep 300 & echo $! > child; wait")), target, 1.0)
    assert not ok
    assert "no answer within" in why
    pids = [int((tmp_path / name).read_text()) for name in ("pid", "child")]
    await asyncio.to_thread(until_sync, lambda: not any(start_time(pid) for pid in pids), "both gone")


@pytest.mark.parametrize(
    ("service", "status", "ok"), [("", 1, True), ("prices", 1, True), ("prices", 2, False), ("prices", 0, False)]
)
async def test_grpc_asks_the_health_service(service: str, status: int, ok: bool) -> None:
    asked: list[bytes] = []

    def check(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        asked.append(request)
        return bytes([8, status]) if status else b""

    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(check)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": handler}),))
    port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    try:
        answer = await ask(Grpc(port, service), Target(HOST), 5.0)
    finally:
        await server.stop(0)
    assert answer[0] is ok
    assert asked == [b"\x0a\x06prices" if service else b""]


async def test_grpc_says_no_where_there_is_no_health_service() -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    try:
        ok, why = await ask(Grpc(port), Target(HOST), 5.0)
    finally:
        await server.stop(0)
    assert not ok
    assert "grpc status 12" in why

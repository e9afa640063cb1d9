"""The admin pages: what they say, what they refuse, and that their clients are bounded too."""

from __future__ import annotations

import asyncio
import json

import pytest
from proxy_peers import DEADLINE_S, parse, read_head, request

from meshproxy.admin import Status


class Told(Status):
    def __init__(self) -> None:
        self.why = ""
        self.note = ""

    def unready(self) -> str:
        return self.why

    def notes(self) -> str:
        return self.note

    def config(self) -> dict[str, object]:
        return {"b": 1, "a": [True]}


async def ask(side, line: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
    return await request(side.port, line + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")


async def test_ready_follows_the_status_and_the_drain(houses):
    house = houses()
    told = Told()
    side = await house.admin(told)
    assert (await ask(side, b"GET /ready"))[::2] == (200, b"ready\n")
    told.note = "the control plane is away"
    assert (await ask(side, b"GET /ready"))[::2] == (200, b"ready; the control plane is away\n")
    told.why = "no certificate yet"
    assert (await ask(side, b"GET /ready"))[::2] == (503, b"not ready: no certificate yet\n")
    told.why = ""
    house.ctx.draining = True
    assert (await ask(side, b"GET /ready"))[::2] == (503, b"not ready: draining\n")
    assert (await ask(side, b"GET /live"))[0] == 200


async def test_config_is_json(houses):
    side = await houses().admin(Told())
    status, fields, body = await ask(side, b"GET /config")
    assert (status, fields[b"content-type"]) == (200, b"application/json")
    assert json.loads(body) == {"a": [True], "b": 1}


async def test_metrics_can_be_limited_to_some_families(houses):
    side = await houses().admin(Told())
    status, _, body = await ask(side, b"GET /metrics?name[]=meshproxy_internal_errors_total")
    assert status == 200
    families = [line for line in body.decode().splitlines() if line.startswith("# TYPE")]
    assert [line.split()[2] for line in families] == ["meshproxy_internal_errors_total"]
    assert len((await ask(side, b"GET /metrics"))[2]) > len(body)


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"POST /ready", 405),
        (b"DELETE /metrics", 405),
        (b"GET /shutdown", 404),
        (b"GET /", 404),
        (b"GET /ready/", 404),
        (b"GET /metrics?" + b"name[]=x&" * 200, 400),
    ],
)
async def test_what_is_no_page_is_refused(houses, line, status):
    house = houses()
    side = await house.admin(Told())
    assert (await ask(side, line))[0] == status
    assert (await ask(side, b"GET /live"))[0] == 200


async def test_head_gives_the_length_and_no_body(houses):
    side = await houses().admin(Told())
    status, fields, body = await ask(side, b"HEAD /live")
    assert (status, fields[b"content-length"], body) == (200, b"5", b"")


async def test_a_client_that_keeps_its_connection_is_let_go_when_it_is_idle(houses):
    house = houses(idle_timeout_s=0.05, sweep_s=0.02)
    side = await house.admin(Told())
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
    writer.write(b"GET /live HTTP/1.1\r\nHost: a\r\n\r\n")
    assert parse(await read_head(reader))[0] == 200
    assert await asyncio.wait_for(reader.read(-1), DEADLINE_S) == b"live\n"
    writer.close()


async def test_tls_and_bytes_are_not_for_the_admin_port(houses):
    side = await houses().admin(Told())
    for first in (b"\x16\x03\x01\x00\x05hello", b"\x00\x01\x02\x03"):
        reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
        writer.write(first)
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(-1), DEADLINE_S) == b""
        writer.close()


class Explaining(Told):
    """Explains by itself, or (`elsewhere`) as one that must ask another process."""

    def __init__(self, elsewhere: bool) -> None:
        super().__init__()
        self.elsewhere = elsewhere

    def explain(self, inbound: bool, query: str):
        return self.later(inbound, query) if self.elsewhere else self.at_once(inbound, query)

    def at_once(self, inbound: bool, query: str) -> dict[str, object]:
        if not query:
            raise ValueError("say what is asked about")
        return {"inbound": inbound, "query": query}

    async def later(self, inbound: bool, query: str) -> dict[str, object]:
        await asyncio.sleep(0)
        return self.at_once(inbound, query)


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_a_trail_is_json_and_a_question_about_nothing_is_refused(houses, elsewhere):
    side = await houses().admin(Explaining(elsewhere))
    status, fields, body = await ask(side, b"GET /explain?url=%2Fa&x=1")
    assert (status, fields[b"content-type"]) == (200, b"application/json")
    assert json.loads(body) == {"inbound": False, "query": "url=%2Fa&x=1"}
    assert json.loads((await ask(side, b"GET /explain/inbound?y"))[2]) == {"inbound": True, "query": "y"}
    assert (await ask(side, b"GET /explain"))[::2] == (400, b"say what is asked about\n")


async def test_a_proxy_that_is_no_sidecar_says_that_it_has_no_trail(houses):
    side = await houses().admin(Told())
    assert (await ask(side, b"GET /explain?method=GET"))[0] == 501

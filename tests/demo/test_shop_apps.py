"""The shop's apps alone: what they answer, what they write down, what goes wrong on request."""

from __future__ import annotations

import aiohttp
import pytest
from shop_processes import shop

from examples.shop.app import Faults, SettingError, Settings


async def chain(running, *, catalogue=None, prices=None):
    """web -> catalogue -> prices, one replica each; returns web's base URL."""
    at = running.start("prices", "prices-1", **(prices or {}))
    at = running.start("catalogue", "catalogue-1", PRICES_TARGET=f"{at}:9090", **(catalogue or {}))
    at = running.start("web", "web-1", CATALOGUE_URL=f"http://{at}:8080")
    await running.listening("prices-1", 9090)
    await running.listening("catalogue-1", 8080)
    await running.listening("web-1", 8080)
    return f"http://{at}:8080"


async def ask(url, **headers):
    async with aiohttp.ClientSession() as client, client.get(url, headers=headers) as response:
        return response.status, await response.json()


async def test_a_reply_lists_every_hop_and_the_ledger_has_a_line_for_each(tmp_path):
    with shop(tmp_path / "ledger") as running:
        url = await chain(running, catalogue={"VERSION": "v7"})
        status, reply = await ask(url, **{"x-request-id": "r1", "x-note": "a note", "mesh-client-id": "spiffe://t/ns/a/sa/b"})
        assert (status, reply["id"], reply["cents"], reply["note"]) == (200, "r1", 4900, "a note")
        assert [(hop["service"], hop["version"], hop["pod"]) for hop in reply["path"]] == [
            ("web", "v1", "web-1"),
            ("catalogue", "v7", "catalogue-1"),
            ("prices", "v1", "prices-1"),
        ]
        # Who the caller was is for the sidecar to say: the apps pass nothing on, so beyond the first hop nobody is named.
        assert [hop["peer"] for hop in reply["path"]] == ["spiffe://t/ns/a/sa/b", "", ""]
        lines = running.lines()
        assert [(line["service"], line["id"], line["status"], line["note"]) for line in lines] == [
            ("prices", "r1", 200, "a note"),
            ("catalogue", "r1", 200, "a note"),
            ("web", "r1", 200, "a note"),
        ]


async def test_a_catalogue_that_was_told_to_fail_is_asked_once_and_named_in_the_path(tmp_path):
    with shop(tmp_path / "ledger") as running:
        url = await chain(running, catalogue={"VERSION": "v3", "FAIL_RATE": "1"})
        status, reply = await ask(url, **{"x-request-id": "r2"})
        assert status == 502
        assert "v3 was told to fail" in reply["error"]
        assert [hop["service"] for hop in reply["path"]] == ["web", "catalogue"]
        assert [(line["service"], line["status"]) for line in running.lines()] == [("catalogue", 500), ("web", 502)]


async def test_a_failing_price_server_is_a_failure_of_the_request(tmp_path):
    with shop(tmp_path / "ledger") as running:
        url = await chain(running, prices={"FAIL_RATE": "1"})
        status, reply = await ask(url, **{"x-request-id": "r3"})
        assert status == 502
        assert "INTERNAL" in reply["error"]
        assert [(line["service"], line["status"]) for line in running.lines()] == [
            ("prices", 500),
            ("catalogue", 503),
            ("web", 502),
        ]


async def test_a_catalogue_that_is_gone_is_an_answer_and_not_a_crash(tmp_path):
    with shop(tmp_path / "ledger") as running:
        url = await chain(running)
        running.processes["catalogue-1"].kill()
        running.processes["catalogue-1"].wait()
        status, reply = await ask(url, **{"x-request-id": "r4"})
        assert status == 502
        assert reply["error"].startswith("catalogue: ")
        assert [hop["service"] for hop in reply["path"]] == ["web"]


async def test_an_app_ends_by_itself_on_sigterm(tmp_path):
    with shop(tmp_path / "ledger") as running:
        await chain(running)
        for process in running.processes.values():
            process.terminate()
        assert [process.wait(20) for process in running.processes.values()] == [0, 0, 0]


async def test_the_same_seed_fails_the_same_requests():
    settings = Settings.of("catalogue", 8080, {"FAIL_RATE": "0.2", "SEED": "5"})

    async def strikes(faults):
        return [await faults.strike() for _ in range(500)]

    first, second = await strikes(Faults(settings)), await strikes(Faults(settings))
    assert first == second
    assert 60 < sum(first) < 140


@pytest.mark.parametrize(
    ("name", "value"), [("FAIL_RATE", "1.5"), ("FAIL_RATE", "often"), ("DELAY_MS", "-1"), ("PORT", "0"), ("PORT", "http")]
)
def test_a_setting_that_cannot_be_meant_is_refused_by_name(name, value):
    with pytest.raises(SettingError, match=f"{name}='{value}': expected a number from "):
        Settings.of("web", 8080, {name: value})

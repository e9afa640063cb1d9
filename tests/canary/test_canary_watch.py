"""`meshproxy canary status`: what holds (-o wide), and the table that goes on under one header (-w)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from canary_cluster import CANARY
from canary_plays import canary_object
from test_canary_cli import Shell, released
from test_canary_cli import shell as shell  # the fixture
from test_canary_policy import policy_object

from meshproxy.cli.canary_rows import Form, Lines

WEIGHTS = ("STEPWEIGHT", "STEPWEIGHTS", "MAXWEIGHT")


def wide(shell: Shell) -> dict[str, str]:
    header, line = shell.run("status", "-n", "test", "-o", "wide").output.splitlines()
    starts = [header.index(f"   {name}") + 3 if number else 0 for number, name in enumerate(header.split())]
    ends = [*starts[1:], None]
    return {name: line[a:b].strip() for name, a, b in zip(header.split(), starts, ends, strict=True)}


async def test_wide_shows_the_weights_that_hold(shell):
    await released(shell)
    found = wide(shell)
    assert [found[name] for name in WEIGHTS] == ["10", "", "50"]
    assert found["STEP"] == ""
    shell.cluster.write(policy_object(steps=[{"weight": 0.25}, {"weight": 30}, {"weight": 60}]))
    found = wide(shell)
    assert [found[name] for name in WEIGHTS] == ["", "0.25,30,60 (ReleasePolicy)", ""]
    await shell.cluster.tick()
    assert wide(shell)["STEP"] == "2/3"


async def test_wide_shows_the_canarys_own_weights_where_a_policy_says_none_or_they_mean_nothing(shell):
    shell.cluster.write(policy_object(warmUp="1s"))
    await released(shell)
    assert [wide(shell)[name] for name in WEIGHTS] == ["10", "", "50"]
    shell.cluster.write(policy_object(steps=[{"weight": 30}]), canary_object({"iterations": 3}))
    assert "ReleasePolicy" not in wide(shell)["STEPWEIGHTS"]


async def test_wide_of_a_member_shows_the_steps_of_its_group(shell):
    other = canary_object()
    other["metadata"]["name"] = other["spec"]["targetRef"]["name"] = "cart"
    shell.cluster.write(other, policy_object("cart", steps=[{"weight": 7}, {"weight": 8}], members=["podinfo"]))
    await released(shell)
    lines = shell.run("status", "podinfo", "-n", "test", "-o", "wide").output
    assert "7,8 (ReleasePolicy)" in lines


async def test_a_table_that_goes_on_has_one_header_and_only_lines_that_say_something_new(shell):
    await released(shell, ticks=1)
    lines = Lines(Form(shell.cluster.store, wide=False, everywhere=False))

    def look() -> list[str]:
        return list(lines.after(shell.cluster.store.list("flagger.app", "Canary")))

    first = look()
    assert first[0].split()[:3] == ["NAME", "STATUS", "WEIGHT"]
    assert len(first) == 2
    assert look() == []
    grown = []
    for _ in range(3):
        await shell.cluster.tick()
        grown += look()
    shell.run("pause", "podinfo", "-n", "test")
    grown += look()
    assert len(grown) == 4
    assert "Progressing (paused)" in grown[-1]
    columns = [first[0].index(name) for name in ("WEIGHT", "FAILEDCHECKS", "LASTTRANSITION", "MESSAGE")]
    for line in (first[1], *grown):
        assert all(line[column - 1] == " " and line[column] != " " for column in columns), line
    gone = list(lines.after([]))
    assert [line.split()[:2] for line in gone] == [["podinfo", "(deleted)"]]
    assert list(lines.after([])) == []


async def test_a_name_that_is_longer_than_its_column_brings_no_second_header(shell):
    await released(shell)
    lines = Lines(Form(shell.cluster.store, wide=True, everywhere=True))
    canary = shell.cluster.store.get(CANARY)
    long = {**canary, "metadata": {**canary["metadata"], "name": "x" * 60}}
    assert len(list(lines.after([canary]))) == 2
    assert [line.split()[1] for line in lines.after([canary, long])] == ["x" * 60]


@asynccontextmanager
async def watching(*words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    environment = {name: os.environ[name] for name in ("PATH", "MESHPROXY_STATE_HOME")} | {"HOME": "/nonexistent"}
    arguments = ("-m", "meshproxy", "canary", "status", "-n", "test", "-w", *words)
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, env=environment, stdout=asyncio.subprocess.PIPE)
    try:
        yield process
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 30) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def line_of(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await asyncio.wait_for(process.stdout.readline(), 60)).decode()


async def test_watching_goes_on_under_its_header_until_interrupted(shell):
    await released(shell, ticks=1)
    async with watching() as process:
        assert (await line_of(process)).split()[0] == "NAME"
        assert (await line_of(process)).split()[:3] == ["podinfo", "Progressing", "0"]
        shell.run("pause", "podinfo", "-n", "test")
        assert (await line_of(process)).split()[:3] == ["podinfo", "Progressing", "(paused)"]


async def test_watching_objects_gives_each_one_whole_when_it_changes(shell):
    await released(shell, ticks=1)
    async with watching("podinfo", "-o", "json") as process:
        for paused in (None, "true by ann"):
            text = ""
            while not text.endswith("\n}\n"):
                text += await line_of(process)
            assert (json.loads(text)["metadata"]["annotations"] or {}).get("meshproxy.dev/pause") == paused
            if paused is None:
                shell.run("pause", "podinfo", "-n", "test", "--by", "ann")


@pytest.mark.parametrize("words", [("-w", "--wait", "succeeded"), ("--wait", "succeeded", "-A")])
async def test_watching_and_waiting_are_two_things(shell, words):
    await released(shell)
    shell.run("status", "podinfo", *words, code=2)

"""The states of an exchange: every arrow that is drawn, and none that is not."""

from __future__ import annotations

import asyncio

import pytest

from meshproxy.proxy.context import Context
from meshproxy.proxy.outcome import DONE, RESPONDING, ROUTED, SENT, WAITING, IllegalTransition, Outcome
from meshproxy.proxy.settings import Settings
from meshproxy.telemetry.registry import Registry
from meshproxy.wire.engine import Stream
from meshproxy.wire.message import Head

STATES = (ROUTED, WAITING, SENT, RESPONDING, DONE)
DRAWN = {
    (ROUTED, WAITING), (ROUTED, DONE),
    (WAITING, WAITING), (WAITING, SENT), (WAITING, DONE),
    (SENT, WAITING), (SENT, RESPONDING), (SENT, DONE),
    (RESPONDING, DONE),
}  # fmt: skip


def outcome(loop: asyncio.AbstractEventLoop, state: int) -> Outcome:
    made = Outcome(Context(loop, Settings(), Registry(), 1, b"x-"), Stream(), Head(), "outbound", False)
    made.state = state
    return made


@pytest.mark.parametrize("before", STATES)
@pytest.mark.parametrize("after", STATES)
async def test_only_the_arrows_of_the_drawing_exist(before, after):
    exchange = outcome(asyncio.get_running_loop(), before)
    if (before, after) in DRAWN:
        exchange.enter(after)
        assert exchange.state == after
    else:
        with pytest.raises(IllegalTransition):
            exchange.enter(after)
        assert exchange.state == before


async def test_an_exchange_is_finished_once():
    exchange = outcome(asyncio.get_running_loop(), ROUTED)
    exchange.finish()
    assert exchange.state == DONE
    assert exchange.finish() is None

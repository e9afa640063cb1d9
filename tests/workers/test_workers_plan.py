"""What a worker is told at its start, and when it is started again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.policy.retry import RetryPolicy
from meshproxy.proxy.context import Context
from meshproxy.proxy.listener import ListenError
from meshproxy.proxy.settings import Settings
from meshproxy.telemetry.registry import Registry
from meshproxy.workers.plan import plain_values, settings_of
from meshproxy.workers.restart import DELAY_MAX_S, STEADY_S, Restarts
from meshproxy.workers.sockets import bind


def test_every_setting_and_limit_reaches_a_worker() -> None:
    settings = Settings()
    values = plain_values(settings)
    assert values["drain_s"] == settings.drain_s
    assert values["limits.head_bytes"] == settings.limits.head_bytes
    changed = {}
    for name, value in values.items():
        if isinstance(value, bool):
            changed[name] = not value
        else:
            changed[name] = value + "x" if isinstance(value, str) else value + 1
    assert plain_values(settings_of(changed)) == changed
    with pytest.raises(AttributeError):
        settings_of({"no_such_setting": 1})


def test_a_retry_budget_is_shared_by_the_workers() -> None:
    def granted(workers: int) -> int:
        settings = Settings()
        settings.workers = workers
        ctx = Context(None, settings, Registry(), 1, b"")
        return ctx.budget(RetryPolicy(budget_ratio=0.0, budget_floor=10.0, budget_ttl=10.0)).available(0.0)

    assert [granted(count) for count in (1, 2, 4)] == [100, 50, 25]


def test_the_first_death_costs_no_time_and_a_series_of_them_more_and_more() -> None:
    restarts = Restarts()
    assert [restarts.died(0.5) for _ in range(5)] == [0.0, 0.1, 0.2, 0.4, 0.8]
    assert restarts.died(STEADY_S) == 0.0
    assert restarts.died(STEADY_S - 0.1) == 0.1


@given(st.lists(st.floats(0, 2 * STEADY_S), max_size=80))
def test_a_restart_never_waits_longer_than_the_bound(lives: list[float]) -> None:
    restarts = Restarts()
    assert all(0.0 <= restarts.died(lived) <= DELAY_MAX_S for lived in lives)


def test_every_worker_has_a_socket_of_its_own_on_the_same_port() -> None:
    found = bind("127.0.0.1", 0, 3)
    try:
        assert len({sockets[0].getsockname() for sockets in found}) == 1
        assert len({sockets[0].fileno() for sockets in found}) == 3
        with pytest.raises(ListenError, match="another process listens there"):
            bind("127.0.0.1", found[0][0].getsockname()[1], 2)
    finally:
        for sockets in found:
            for sock in sockets:
                sock.close()


def test_an_address_of_another_machine_is_refused_with_a_hint() -> None:
    with pytest.raises(ListenError, match=r"cannot listen on 203\.0\.113\.1:8000"):
        bind("203.0.113.1", 8000, 2)

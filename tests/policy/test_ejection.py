"""Which endpoints of a backend are out: the cap, the probes, and what updates of the configuration do to them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshproxy.policy.balancer import DEFAULT_RTT_S, Load, Target
from meshproxy.policy.breaker import CLOSED, FAILURE, NO_VERDICT, PROBING, SUCCESS, BreakerPolicy
from meshproxy.policy.ejection import Ejection, allowed, is_out
from meshproxy.policy.random import Rng


def targets(n: int) -> list[Target]:
    return [Target(Load(0.0)) for _ in range(n)]


def group(members: list[Target], policy: BreakerPolicy | None = None) -> Ejection:
    policy = policy or BreakerPolicy(jitter=0.0)
    ejection = Ejection(policy, Rng(1))
    ejection.update(members, policy, 0.0)
    return ejection


def fail(ejection: Ejection, target: Target, now: float, times: int = 7) -> None:
    for _ in range(times):
        ejection.record(target, FAILURE, now, now)


# ---------------------------------------------------------------- the cap


@pytest.mark.parametrize(
    ("members", "share", "out"),
    [
        (0, 0.5, 0),
        (1, 0.5, 0),  # the only one stays
        (2, 0.5, 1),
        (3, 0.5, 1),
        (10, 0.5, 5),
        (10, 0.05, 1),  # of two or more one may always go
        (100, 0.29, 29),
        (3, 0.999, 2),  # one always stays
        (3, 1.0, 3),  # unless that is what was asked for
        (1, 1.0, 1),
        (10, 0.0, 0),
    ],
)
def test_at_most_the_declared_share_may_be_out(members: int, share: float, out: int) -> None:
    assert allowed(members, share) == out


def test_an_endpoint_that_fails_is_out_of_sight_and_the_others_are_not() -> None:
    members = targets(4)
    ejection = group(members)
    fail(ejection, members[2], 5.0)
    assert [target.available for target in members] == [True, True, False, True]
    assert ejection.ejected == 1


def test_beyond_the_cap_an_endpoint_stays_and_goes_when_another_has_come_back() -> None:
    members = targets(4)
    ejection = group(members)
    for target in members[:3]:
        fail(ejection, target, 0.0)
    assert [is_out(target) for target in members] == [True, True, False, False]
    assert ejection.spared == 1
    probed = ejection.probe(members, 1.0)
    assert probed is members[0]
    ejection.record(probed, SUCCESS, 1.0, 1.0)
    fail(ejection, members[2], 1.5, times=1)
    assert [is_out(target) for target in members] == [False, True, True, False]


def test_without_a_cap_all_can_be_out() -> None:
    members = targets(3)
    ejection = group(members, BreakerPolicy(jitter=0.0, max_ejected=1.0))
    for i, target in enumerate(members):
        fail(ejection, target, float(i))
    assert not any(target.available for target in members)


# ---------------------------------------------------------------- probes


def test_one_request_tries_it_again_and_success_brings_it_back_as_a_new_one() -> None:
    members = targets(3)
    ejection = group(members)
    members[0].load.unreachable(0.0)
    fail(ejection, members[0], 0.0)
    assert ejection.probe(members, 0.9) is None
    assert ejection.probe(members, 1.0) is members[0]
    assert ejection.probe(members, 1.0) is None  # only one
    assert not members[0].available  # nor does an ordinary pick see it
    ejection.record(members[0], SUCCESS, 1.0, 1.2)
    assert members[0].available
    assert members[0].since == 1.2
    assert members[0].load.latency(1.2) == DEFAULT_RTT_S
    assert ejection.out == []


def test_a_failed_probe_keeps_it_out_for_twice_as_long_and_one_without_a_verdict_is_repeated() -> None:
    members = targets(3)
    ejection = group(members)
    fail(ejection, members[0], 0.0)
    assert ejection.probe(members, 1.0) is members[0]
    ejection.record(members[0], NO_VERDICT, 1.0, 1.1)
    assert ejection.probe(members, 1.1) is members[0]
    ejection.record(members[0], FAILURE, 1.1, 1.2)
    assert ejection.probe(members, 3.1) is None
    assert ejection.probe(members, 3.3) is members[0]
    assert ejection.ejected == 2


def test_the_request_that_has_just_failed_there_does_not_probe() -> None:
    members = targets(3)
    ejection = group(members)
    fail(ejection, members[0], 0.0)
    assert ejection.probe(members, 2.0, members[0]) is None


def test_jitter_keeps_callers_from_probing_in_step() -> None:
    ends = set()
    for seed in range(20):
        members = targets(2)
        policy = BreakerPolicy()
        ejection = Ejection(policy, Rng(seed))
        ejection.update(members, policy, 0.0)
        fail(ejection, members[0], 0.0)
        breaker = members[0].breaker
        assert breaker is not None
        assert 1.0 <= breaker.until < 1.5
        ends.add(round(breaker.until, 3))
    assert len(ends) > 15


# ---------------------------------------------------------------- updates


def test_an_update_keeps_the_state_of_who_stays_and_frees_who_goes() -> None:
    members = targets(5)
    ejection = group(members)
    fail(ejection, members[0], 0.0)
    fail(ejection, members[1], 0.0)
    staying = [*members[1:], *targets(1)]
    ejection.update(staying, BreakerPolicy(jitter=0.0), 0.5)
    assert members[0].available
    assert members[0].breaker is None
    assert is_out(members[1])
    assert ejection.out == [members[1]]


def test_when_the_others_go_those_longest_out_are_let_in() -> None:
    members = targets(8)
    ejection = group(members)
    for i in range(4):
        fail(ejection, members[i], float(i))
    ejection.update(members[:4], ejection.policy, 4.0)
    assert [is_out(target) for target in members[:4]] == [False, False, True, True]


def test_without_a_declaration_everyone_is_let_in() -> None:
    members = targets(3)
    ejection = group(members)
    fail(ejection, members[0], 0.0)
    ejection.dissolve()
    assert all(target.available and target.breaker is None for target in members)
    ejection.record(members[0], FAILURE, 0.0, 1.0)  # still under way: no effect, no error


# ---------------------------------------------------------------- invariants

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("end"), st.integers(0, 9), st.sampled_from([SUCCESS, FAILURE, FAILURE, FAILURE, NO_VERDICT])),
        st.tuples(st.just("probe"), st.just(0), st.just(0)),
        st.tuples(st.just("wait"), st.integers(1, 40), st.just(0)),
        st.tuples(st.just("members"), st.integers(0, 10), st.integers(0, 9)),
    ),
    max_size=120,
)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 10), st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.9, 1.0]), STEPS)
def test_whatever_happens_no_more_are_out_than_may_be_and_the_books_agree(
    size: int, share: float, steps: list[tuple[str, int, int]]
) -> None:
    pool = targets(10)
    members = pool[:size]
    policy = BreakerPolicy(consecutive=2, success_rate=0.5, max_ejected=share)
    ejection = Ejection(policy, Rng(7))
    ejection.update(members, policy, 0.0)
    now = 0.0
    probed_at: dict[Target, float] = {}
    for kind, a, b in steps:
        now += 0.01
        if kind == "end":
            target = pool[a]
            started = probed_at.pop(target, now - 0.005)
            ejection.record(target, b, started, now)
        elif kind == "probe":
            found = ejection.probe(members, now)
            if found is not None:
                assert found.breaker is not None
                assert found.breaker.state == PROBING
                assert found not in probed_at or now - probed_at[found] >= policy.max_penalty_s, (
                    "a second probe beside the first"
                )
                probed_at[found] = now
        elif kind == "wait":
            now += float(a)
        else:
            members = (pool[b:] + pool[:b])[:a]
            ejection.update(members, policy, now)
            probed_at = {target: at for target, at in probed_at.items() if target in members}
        out = [target for target in members if is_out(target)]
        assert len(out) <= allowed(len(members), share)
        assert set(ejection.out) == set(out)
        assert len(ejection.out) == len(out)
        for target in pool:
            assert target.available == (target.breaker is None or target.breaker.state == CLOSED)
            assert (target.breaker is not None) == (target in members)

"""The choice where a backend declares more than the default: weights, slow start, zones, keys, probes."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.policy.balancer import LEAST_REQUEST, PEAK_EWMA, Load, Target
from meshproxy.policy.breaker import FAILURE, SUCCESS, BreakerPolicy
from meshproxy.policy.chooser import MAGLEV, RING_HASH, BalancerPolicy, Chooser
from meshproxy.policy.consistent_hash import HashKey
from meshproxy.policy.ejection import Ejection
from meshproxy.policy.random import Rng
from meshproxy.policy.slow_start import LEAST, warmth

USER = HashKey("header=x-user")


def targets(n: int, now: float = 0.0) -> list[Target]:
    made = [Target(Load(now)) for _ in range(n)]
    for target in made:
        target.since = -1000.0
    return made


def chooser(members: list[Target], policy: BalancerPolicy | None = None, ejection: Ejection | None = None) -> Chooser:
    names = [b"10.0.0.%d:80" % i for i in range(len(members))]
    return Chooser(members, names, policy or BalancerPolicy(), Rng(5), ejection)


def shares(choice: Chooser, now: float = 0.0, draws: int = 20_000) -> list[float]:
    counts: Counter[int] = Counter()
    for _ in range(draws):
        target = choice.pick(now)
        assert target is not None
        counts[choice.targets.index(target)] += 1
    return [counts[i] / draws for i in range(len(choice.targets))]


# ---------------------------------------------------------------- weights


@pytest.mark.parametrize("balancer", [PEAK_EWMA, LEAST_REQUEST])
@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [1.0, 3.0], [5.0, 3.0, 1.0, 1.0], [0.2, 0.6]])
def test_idle_endpoints_get_shares_in_proportion_to_their_weights(balancer: int, weights: list[float]) -> None:
    members = targets(len(weights))
    for target, weight in zip(members, weights, strict=True):
        target.weight = weight
    for share, weight in zip(shares(chooser(members, BalancerPolicy(balancer))), weights, strict=True):
        assert share == pytest.approx(weight / sum(weights), abs=0.02)


def test_what_is_pending_counts_by_capacity() -> None:
    small, large = targets(2)
    large.weight = 4.0
    small.load.pending = 2
    large.load.pending = 6
    choice = chooser([small, large], BalancerPolicy(LEAST_REQUEST))
    assert choice.cost(large, choice.all, 0.0) < choice.cost(small, choice.all, 0.0)
    large.load.pending = 9
    assert choice.cost(large, choice.all, 0.0) > choice.cost(small, choice.all, 0.0)


# ---------------------------------------------------------------- slow start


def test_warmth_goes_from_a_tenth_to_all_over_the_window() -> None:
    assert [warmth(now, 100.0, 10.0) for now in (90.0, 100.0, 105.0, 110.0, 500.0)] == [LEAST, LEAST, 0.55, 1.0, 1.0]
    assert warmth(5.0, 5.0, 0.0) == 1.0


def test_a_new_endpoint_gets_its_share_bit_by_bit() -> None:
    members = targets(5)
    members[4].since = 100.0
    choice = chooser(members, BalancerPolicy(slow_start_s=10.0))
    assert [round(shares(choice, now, 8_000)[4], 1) for now in (100.0, 110.0)] == [0.0, 0.2]
    at_first, halfway, warm = (shares(choice, now, 8_000)[4] for now in (100.0, 105.0, 110.0))
    assert 0.005 < at_first < 0.05
    assert at_first < halfway < warm


def test_endpoints_that_are_all_new_share_evenly() -> None:
    members = targets(4)
    for target in members:
        target.since = 100.0
    assert all(
        share == pytest.approx(0.25, abs=0.02) for share in shares(chooser(members, BalancerPolicy(slow_start_s=30.0)), 101.0)
    )


# ---------------------------------------------------------------- zones


def test_requests_stay_in_the_zone_while_it_is_not_clearly_dearer() -> None:
    members = targets(6)
    for i, target in enumerate(members):
        target.zone = "a" if i < 2 else "b"
    choice = chooser(members, BalancerPolicy(zone="a"))
    assert shares(choice, draws=500)[2:] == [0.0] * 4
    for target in members[:2]:
        target.load.estimate = 0.250  # 8 times as dear
    assert shares(choice, draws=500)[2:] == [0.0] * 4
    for target in members[:2]:
        target.load.estimate = 1.0  # 33 times
    assert sum(shares(choice, draws=500)[2:]) == 1.0


def test_a_zone_without_an_available_endpoint_spills_everything_and_an_unknown_zone_is_no_preference() -> None:
    members = targets(4)
    members[0].zone = "a"
    choice = chooser(members, BalancerPolicy(zone="a"))
    members[0].available = False
    assert shares(choice, draws=300)[0] == 0.0
    assert choice.pick(0.0, members[1]) is not None
    assert all(share > 0.15 for share in shares(chooser(targets(4), BalancerPolicy(zone="c")), draws=2_000))


# ---------------------------------------------------------------- keys


@pytest.mark.parametrize("balancer", [MAGLEV, RING_HASH])
def test_a_key_keeps_its_endpoint_and_a_request_without_one_is_balanced(balancer: int) -> None:
    members = targets(5)
    choice = chooser(members, BalancerPolicy(balancer, USER))
    for user in range(50):
        assert len({choice.pick(0.0, None, b"user-%d" % user) for _ in range(5)}) == 1
    assert min(shares(choice, draws=2_000)) > 0.1


@pytest.mark.parametrize("balancer", [MAGLEV, RING_HASH])
def test_a_retry_of_a_key_goes_elsewhere_and_its_endpoint_gets_it_back(balancer: int) -> None:
    members = targets(3)
    choice = chooser(members, BalancerPolicy(balancer, USER))
    home = choice.pick(0.0, None, b"ada")
    other = choice.pick(0.0, home, b"ada")
    assert other is not None
    assert other is not home
    for target in members:
        target.available = target is home
    assert choice.pick(0.0, home, b"ada") is home  # nowhere else to go


def test_a_balancer_by_hash_needs_a_key_and_a_slow_start_a_sane_time() -> None:
    with pytest.raises(ValueError, match="needs a key"):
        BalancerPolicy(MAGLEV)
    with pytest.raises(ValueError, match="slow start"):
        BalancerPolicy(slow_start_s=-1.0)


# ---------------------------------------------------------------- with ejection


@pytest.mark.parametrize("balancer", [PEAK_EWMA, LEAST_REQUEST, MAGLEV])
def test_an_ejected_endpoint_gets_one_request_when_its_penalty_is_over(balancer: int) -> None:
    members = targets(10)
    rules = BreakerPolicy(jitter=0.0)
    ejection = Ejection(rules, Rng(1))
    ejection.update(members, rules, 0.0)
    choice = chooser(members, BalancerPolicy(balancer, USER if balancer == MAGLEV else None, slow_start_s=10.0), ejection)
    for _ in range(7):
        ejection.record(members[3], FAILURE, 0.0, 0.0)
    key = b"ada" if balancer == MAGLEV else None
    assert members[3] not in {choice.pick(0.9, None, key) for _ in range(200)}
    assert choice.pick(1.0, None, key) is members[3]
    assert members[3] not in {choice.pick(1.0, None, key) for _ in range(200)}
    ejection.record(members[3], SUCCESS, 1.0, 1.1)
    assert members[3] in {choice.pick(1.1, None, b"user-%d" % i if key else None) for i in range(500)} or balancer == PEAK_EWMA
    if balancer == LEAST_REQUEST:
        assert 0.0 < shares(choice, 1.1, 4_000)[3] < 0.05  # it is back, and starts slowly
        assert shares(choice, 11.2, 4_000)[3] > 0.07


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.sampled_from([0.5, 1.0, 4.0]), st.sampled_from("ab")), max_size=8),
    st.sampled_from([PEAK_EWMA, LEAST_REQUEST, MAGLEV, RING_HASH]),
    st.sampled_from(["", "a"]),
    st.sampled_from([0.0, 30.0]),
    st.booleans(),
    st.integers(-1, 7),
)
def test_a_choice_is_always_available_and_not_the_excluded_one_if_there_is_another(
    facts: list[tuple[bool, int, float, str]], balancer: int, zone: str, slow_start_s: float, keyed: bool, excluded: int
) -> None:
    members = targets(len(facts))
    for target, (available, pending, weight, at) in zip(members, facts, strict=True):
        target.available, target.load.pending, target.weight, target.zone = available, pending, weight, at
        target.since = 0.5
    choice = chooser(members, BalancerPolicy(balancer, USER, slow_start_s, zone))
    exclude = members[excluded] if 0 <= excluded < len(members) else None
    chosen = choice.pick(1.0, exclude, b"ada" if keyed else None)
    available_targets = [target for target in members if target.available]
    if not available_targets:
        assert chosen is None
    else:
        assert chosen in available_targets
        assert chosen is not exclude or available_targets == [exclude]

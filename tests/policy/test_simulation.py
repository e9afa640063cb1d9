"""Stories of a balancer and of a budget, played in simulated time with several seeds each."""

from __future__ import annotations

import pytest

from benchmarks.simulation import scenarios, strategies
from benchmarks.simulation.world import Caller, Replica, World
from meshproxy.policy.balancer import LEAST_REQUEST
from meshproxy.policy.breaker import BreakerPolicy
from meshproxy.policy.budget import Budget
from meshproxy.policy.chooser import BalancerPolicy
from meshproxy.policy.concurrency import Concurrency, Gradient
from meshproxy.policy.random import Rng
from meshproxy.policy.retry import REASONS, RESPONDED, Failure, decide, parse_policy

SEEDS = pytest.mark.parametrize("seed", [1, 2, 3])
SEED = pytest.mark.parametrize("seed", [1])  # of stories that take seconds; `make simulate` plays them with five


def fleet(world: World, n: int, service_s: float = 0.010) -> list[Replica]:
    return [Replica(world, f"r{i}", service_s) for i in range(n)]


def caller(world: World, replicas: list[Replica], rate: float, seed: int) -> Caller:
    """The default balancer; no deadline."""
    return Caller(world, replicas, strategies.ewma(seed), rate, deadline_s=0.0)


# ---------------------------------------------------------------- the experiment of Linkerd's authors


@pytest.mark.parametrize(
    ("make", "least", "most"),
    [
        (strategies.round_robin, 0.94, 0.96),  # 95 %: the slow one's tenth, half of the time
        (strategies.least_loaded, 0.99, 0.9995),  # 99 %
        (strategies.ewma, 0.9995, 1.0),  # 99.9 %
    ],
)
@SEED
def test_one_slow_replica_of_ten_costs_round_robin_most_and_peak_ewma_least(
    make: scenarios.Make, least: float, most: float, seed: int
) -> None:
    assert least <= scenarios.slow_replica(make, seed).success <= most


# ---------------------------------------------------------------- one is not like the others


@SEEDS
def test_a_slow_replica_among_ten_gets_a_trickle_and_clients_hardly_notice(seed: int) -> None:
    world = World(seed)
    replicas = fleet(world, 10)
    replicas[3].service_s = 0.200
    client = caller(world, replicas, 400, seed)
    world.run(10.0)
    client.forget()
    world.run(60.0)
    assert 0.0 < client.share("r3") < 0.02  # a fair share is 0.1; a trickle goes on, so that its recovery is noticed
    assert client.percentile(0.99) < 0.120  # round robin: its tenth of the traffic alone puts p99 beyond 0.4 s
    others = [client.share(f"r{i}") for i in range(10) if i != 3]
    assert max(others) < 1.4 * min(others)


@SEEDS
def test_a_replica_that_recovers_gets_its_share_back_within_a_minute(seed: int) -> None:
    world = World(seed)
    replicas = fleet(world, 5)
    replicas[0].service_s = 0.500
    client = caller(world, replicas, 200, seed)
    world.run(30.0)
    replicas[0].service_s = 0.010
    world.run(90.0)
    client.forget()
    world.run(120.0)
    assert client.share("r0") > 0.12


@SEEDS
def test_a_replica_that_fails_in_a_microsecond_attracts_no_traffic(seed: int) -> None:
    world = World(seed)
    replicas = fleet(world, 10)
    replicas[7].failing = 1.0
    client = caller(world, replicas, 400, seed)
    world.run(60.0)
    assert client.share("r7") < 0.005
    client.forget()
    world.run(180.0)
    assert 1 <= client.shares["r7"] < 20, "it is tried again now and then"


@SEEDS
def test_without_the_penalty_such_a_replica_would_get_more_than_its_share(seed: int) -> None:
    """That is what the penalty is for; Linkerd has none by default."""
    assert scenarios.fast_failure(strategies.ewma_without_penalty, seed).special > 15.0


@SEEDS
def test_a_replica_that_fails_a_fifth_of_its_requests_is_avoided(seed: int) -> None:
    world = World(seed)
    replicas = fleet(world, 5)
    replicas[2].failing = 0.2
    client = caller(world, replicas, 200, seed)
    world.run(60.0)
    assert client.share("r2") < 0.05


@SEEDS
def test_errors_that_all_replicas_share_do_not_drive_the_load_onto_a_few(seed: int) -> None:
    world = World(seed)
    replicas = fleet(world, 10)
    for replica in replicas:
        replica.failing = 0.02
    client = caller(world, replicas, 400, seed)
    world.run(10.0)
    client.forget()
    world.run(70.0)
    shares = [client.share(replica.name) for replica in replicas]
    assert max(shares) < 0.16
    assert min(shares) > 0.05


@SEEDS
def test_a_breaker_halves_what_a_dead_replica_costs_and_a_flapping_one_is_not_believed_each_time(seed: int) -> None:
    for story in (scenarios.fast_failure, scenarios.flapping):
        assert story(strategies.ewma_with_breaker, seed).success > 0.9985


# ---------------------------------------------------------------- newcomers


@SEED
@pytest.mark.parametrize("service_s", [0.005, 0.300])
def test_nobody_stampedes_to_a_new_endpoint_and_it_gets_its_share(seed: int, service_s: float) -> None:
    """Whether it looks slow (30 ms beside 5) or fast (30 ms beside 300) at first."""
    world = World(seed)
    replicas = fleet(world, 9, service_s)
    client = caller(world, replicas, 9 * 2 / service_s, seed)  # a quarter of what they can serve
    world.run(10.0)
    settled = max(replica.most for replica in replicas)
    client.forget()
    new = Replica(world, "new", service_s)
    client.know([*replicas, new])
    world.run(12.0)
    assert new.most <= 2 * settled + 4
    world.run(30.0)
    client.forget()
    world.run(40.0)
    assert 0.05 < client.share("new") < 0.2


@SEED
def test_a_cold_newcomer_is_stampeded_by_a_herd_spared_by_two_choices_and_warmed_by_a_slow_start(seed: int) -> None:
    herd = scenarios.newcomer(strategies.herd, seed).special
    default = scenarios.newcomer(strategies.ewma, seed).special
    slow_start = scenarios.newcomer(strategies.ewma_with_slow_start, seed).special
    assert slow_start < default < herd / 10


# ---------------------------------------------------------------- all are alike


@SEED
def test_when_everything_fails_in_part_the_cap_keeps_the_part_that_works(seed: int) -> None:
    capped = scenarios.shared_fault(strategies.ewma_with_breaker, seed)
    uncapped = scenarios.shared_fault(scenarios.linkerd_breaker, seed)
    assert capped.success > 0.38
    assert capped.special == 0.0  # nothing was refused
    assert uncapped.success < 0.10


@SEEDS
def test_least_request_evens_out_pending_requests(seed: int) -> None:
    world = World(seed)
    replicas = fleet(world, 4, 0.020)
    replicas[0].service_s = 0.200
    client = Caller(world, replicas, strategies.TwoChoices(seed, LEAST_REQUEST), 200, deadline_s=0.0)
    world.run(60.0)
    assert client.share("r0") < 0.12


# ---------------------------------------------------------------- weights, zones


@pytest.mark.parametrize("rate", [40, 1_200])  # next to nothing in flight, and three quarters of what they can serve
@pytest.mark.parametrize("balancer", [0, LEAST_REQUEST])
def test_weights_are_shares_whether_the_load_is_light_or_heavy(rate: float, balancer: int) -> None:
    world = World(4)
    replicas = [Replica(world, f"r{i}", 0.010, servers=4 * (i + 1), weight=i + 1.0) for i in range(3)]
    client = Caller(world, replicas, strategies.Declared(4, BalancerPolicy(balancer)), rate, deadline_s=0.0)
    world.run(10.0)
    client.forget()
    world.run(60.0)
    for i, fair in enumerate((1 / 6, 2 / 6, 3 / 6)):
        assert client.share(f"r{i}") == pytest.approx(fair, abs=0.07)


@SEEDS
@pytest.mark.parametrize(("breaker", "most"), [(None, 0.25), (BreakerPolicy(), 0.02)])
def test_weights_do_not_hold_requests_at_an_endpoint_that_fails(seed: int, breaker: BreakerPolicy | None, most: float) -> None:
    """Nine tenths are its by weight.  Balancing takes most of them from it, a breaker nearly all."""
    world = World(seed)
    replicas = [Replica(world, "large", 0.010, servers=36, weight=9.0), Replica(world, "small", 0.010, servers=4)]
    client = Caller(world, replicas, strategies.Declared(seed, BalancerPolicy(), breaker), 200)
    world.run(10.0)
    assert client.share("large") == pytest.approx(0.9, abs=0.05)
    client.forget()
    replicas[0].failing = 1.0
    world.run(70.0)
    assert client.share("large") < most


@SEED
def test_requests_stay_in_their_zone_until_it_is_full(seed: int) -> None:
    even = scenarios.zones(True, 1.0, seed)
    full = scenarios.zones(True, 2.5, seed)  # a quarter more than it can serve
    assert even.special > 96.0
    assert 65.0 < full.special < 85.0
    assert full.success > 0.999


# ---------------------------------------------------------------- too much


@SEED
def test_without_a_limit_overload_leaves_a_fifth_and_with_an_adaptive_one_all_that_can_be_served(seed: int) -> None:
    none = scenarios.overload(None, seed)
    adaptive = scenarios.overload(lambda: Concurrency(20, Gradient()), seed)
    assert none.success < 0.3
    assert adaptive.success > 0.63  # two thirds is what there is room for
    assert adaptive.p99_ms < 150
    assert adaptive.special > 99.0  # of the critical ones: what is shed is shed from below


# ---------------------------------------------------------------- retries


def outage(hops: int, seconds: int, rate: int, attempts: int, seed: int) -> tuple[int, int]:
    """Everything fails; `hops` proxies in a row retry.  Requests made at the top, and requests the bottom saw."""
    policy = parse_policy(["5xx"], attempts=attempts)
    budgets = [Budget() for _ in range(hops)]
    dice = Rng(seed)
    seen = 0

    def call(hop: int, now: float) -> None:
        nonlocal seen
        if hop == hops:
            seen += 1
            return
        budgets[hop].deposit(now)
        attempt = 0
        while True:
            attempt += 1
            call(hop + 1, now)
            verdict = decide(policy, budgets[hop], now, attempt, Failure(RESPONDED, 503), True, False, True, False)
            if REASONS[verdict]:
                return

    for i in range(seconds * rate):
        call(0, (i + dice.uniform()) / rate)
    return seconds * rate, seen


@SEEDS
@pytest.mark.parametrize("attempts", [1, 3, 10])
def test_an_outage_is_amplified_by_a_fifth_and_the_floor_however_many_attempts_are_allowed(seed: int, attempts: int) -> None:
    made, seen = outage(1, seconds=30, rate=1_000, attempts=attempts, seed=seed)
    floor = 10 * (30 + 10)  # ten a second, and one ttl's worth in hand at the start
    assert made * 1.15 < seen <= made * 1.2 + floor


@SEEDS
def test_three_retrying_hops_stay_under_twice_the_load(seed: int) -> None:
    """Attempts alone would allow 4 x 4 x 4 = 64 times the load."""
    made, seen = outage(3, seconds=10, rate=2_000, attempts=3, seed=seed)
    assert seen < 1.8 * made

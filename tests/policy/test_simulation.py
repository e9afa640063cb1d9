"""Stories of a balancer and of a budget, played in simulated time with several seeds each."""

from __future__ import annotations

import pytest
from policy_simulation import Replica, Simulation

from meshproxy.policy.balancer import LEAST_REQUEST
from meshproxy.policy.budget import Budget
from meshproxy.policy.random import Rng
from meshproxy.policy.retry import REASONS, RESPONDED, Failure, decide, parse_policy

SEEDS = pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])


def fleet(n: int, service_s: float = 0.010) -> list[Replica]:
    return [Replica(f"r{i}", 0.0, service_s) for i in range(n)]


@SEEDS
def test_a_slow_replica_among_ten_gets_a_trickle_and_clients_hardly_notice(seed: int) -> None:
    replicas = fleet(10)
    replicas[3].service_s = 0.200
    world = Simulation(replicas, rate=400, seed=seed)
    world.run(10.0)
    world.forget()
    world.run(60.0)
    assert 0.0 < world.share("r3") < 0.02  # a fair share is 0.1; a trickle goes on, so that its recovery is noticed
    assert world.percentile(0.99) < 0.120  # round robin: its tenth of the traffic alone puts p99 beyond 0.4 s
    others = [world.share(f"r{i}") for i in range(10) if i != 3]
    assert max(others) < 1.4 * min(others)


@SEEDS
def test_a_replica_that_recovers_gets_its_share_back_within_a_minute(seed: int) -> None:
    replicas = fleet(5)
    replicas[0].service_s = 0.500
    world = Simulation(replicas, rate=200, seed=seed)
    world.run(30.0)
    replicas[0].service_s = 0.010
    world.run(90.0)
    world.forget()
    world.run(120.0)
    assert world.share("r0") > 0.12


@SEEDS
def test_a_replica_that_fails_in_a_microsecond_attracts_no_traffic(seed: int) -> None:
    replicas = fleet(10)
    replicas[7].failing = 1.0
    world = Simulation(replicas, rate=400, seed=seed)
    world.run(60.0)
    assert world.share("r7") < 0.005
    assert world.failures < 60
    world.forget()
    world.run(180.0)
    assert world.shares["r7"] >= 1, "it is tried again now and then"
    assert world.shares["r7"] < 20


@SEEDS
def test_a_replica_that_fails_a_fifth_of_its_requests_is_avoided(seed: int) -> None:
    replicas = fleet(5)
    replicas[2].failing = 0.2
    world = Simulation(replicas, rate=200, seed=seed)
    world.run(60.0)
    assert world.share("r2") < 0.05


@SEEDS
def test_errors_that_all_replicas_share_do_not_drive_the_load_onto_a_few(seed: int) -> None:
    replicas = fleet(10)
    for replica in replicas:
        replica.failing = 0.02
    world = Simulation(replicas, rate=400, seed=seed)
    world.run(10.0)
    world.forget()
    world.run(70.0)
    shares = [world.share(replica.name) for replica in replicas]
    assert max(shares) < 0.16
    assert min(shares) > 0.05


@SEEDS
@pytest.mark.parametrize("service_s", [0.005, 0.300])
def test_nobody_stampedes_to_a_new_endpoint_and_it_gets_its_share(seed: int, service_s: float) -> None:
    """Whether it looks slow (30 ms beside 5) or fast (30 ms beside 300) at first."""
    replicas = fleet(9, service_s)
    rate = 9 * 4 / service_s / 2  # a quarter of what they can serve
    world = Simulation(replicas, rate, seed)
    world.run(20.0)
    settled = max(replica.most_pending for replica in replicas)
    world.forget()
    replicas.append(Replica("new", world.now, service_s))
    world.run(22.0)
    assert replicas[-1].most_pending <= 2 * settled + 4
    world.run(60.0)
    world.forget()
    world.run(90.0)
    assert 0.05 < world.share("new") < 0.2


@SEEDS
def test_least_request_evens_out_pending_requests(seed: int) -> None:
    replicas = fleet(4, 0.020)
    replicas[0].service_s = 0.200
    world = Simulation(replicas, rate=200, seed=seed, policy=LEAST_REQUEST)
    world.run(60.0)
    assert world.share("r0") < 0.12


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

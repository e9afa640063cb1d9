"""What is simulated: each scenario plays one story for several strategies and seeds.

Scenario  --play(make, seed)-->  Figures   success, p99, and one figure of its own
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.simulation import strategies as s
from benchmarks.simulation.strategies import Declared, Strategy
from benchmarks.simulation.world import Caller, Replica, World
from meshproxy.policy.breaker import BreakerPolicy
from meshproxy.policy.chooser import BalancerPolicy
from meshproxy.policy.concurrency import CRITICAL, Concurrency, Gradient

Make = Callable[[int], Strategy]


@dataclass(frozen=True)
class Figures:
    """success   share of requests answered well within their deadline
    p99_ms    of the good answers
    special   the scenario's own figure
    """

    success: float
    p99_ms: float
    special: float


@dataclass(frozen=True)
class Scenario:
    """special    what the third figure is, with its unit"""

    name: str
    title: str
    special: str
    rows: Sequence[tuple[str, Callable[[int], Figures]]]


def fleet(world: World, n: int, service_s: float = 0.010, servers: int = 8) -> list[Replica]:
    return [Replica(world, f"r{i}", service_s, servers=servers) for i in range(n)]


# ---------------------------------------------------------------- one replica is not like the others


def slow_replica(make: Make, seed: int) -> Figures:
    """The experiment of Linkerd's authors (2016): ten replicas, 1,000 requests a second, a deadline of 1 s.  One of them
    needs 2 s half of the time (their round robin: 95 %, least loaded: 99 %, peak EWMA: 99.9 %)."""
    world = World(seed)
    replicas = fleet(world, 10)
    caller = Caller(world, replicas, make(seed), 1_000)
    world.run(10.0)
    caller.forget()
    world.run(25.0)
    replicas[3].service_s = 2.0
    world.run(55.0)
    replicas[3].service_s = 0.010
    world.run(70.0)
    return Figures(caller.success(), caller.percentile(0.99) * 1e3, caller.share("r3") * 100)


def fast_failure(make: Make, seed: int) -> Figures:
    """One of ten answers 503 within a microsecond."""
    world = World(seed)
    replicas = fleet(world, 10)
    caller = Caller(world, replicas, make(seed), 400)
    world.run(10.0)
    caller.forget()
    replicas[7].failing = 1.0
    world.run(70.0)
    return Figures(caller.success(), caller.percentile(0.99) * 1e3, caller.share("r7") * 100)


def hung(make: Make, seed: int) -> Figures:
    """One of ten accepts requests and never answers; the deadline is 1 s."""
    world = World(seed)
    replicas = fleet(world, 10)
    caller = Caller(world, replicas, make(seed), 400)
    world.run(10.0)
    caller.forget()
    replicas[7].service_s = 1e9
    world.run(70.0)
    return Figures(caller.success(), caller.percentile(0.99) * 1e3, caller.share("r7") * 100)


def flapping(make: Make, seed: int) -> Figures:
    """One of ten fails everything for 5 s, works for 5 s, and so on."""
    world = World(seed)
    replicas = fleet(world, 10)
    caller = Caller(world, replicas, make(seed), 400)
    world.run(10.0)
    caller.forget()
    for turn in range(12):
        replicas[0].failing = 1.0 if turn % 2 == 0 else 0.0
        world.run(10.0 + 5.0 * (turn + 1))
    return Figures(caller.success(), caller.percentile(0.99) * 1e3, caller.share("r0") * 100)


def newcomer(make: Make, seed: int) -> Figures:
    """Twenty callers, ten replicas at 70 %; an eleventh appears that is cold: its requests take eight times as long at first,
    and normally after 20 s.  The figures are of those 20 s."""
    world = World(seed)
    replicas = fleet(world, 10, servers=2)
    callers = [Caller(world, replicas, make(seed * 100 + i), 70) for i in range(20)]
    world.run(10.0)
    cold = Replica(world, "cold", 0.080, servers=2)
    for caller in callers:
        caller.forget()
        caller.know([*replicas, cold])
    for step in range(20):
        world.run(11.0 + step)
        cold.service_s = 0.080 - 0.0035 * (step + 1)
    made = sum(caller.made.total() for caller in callers)
    good = sum(caller.good.total() for caller in callers)
    latencies = sorted(latency for caller in callers for latency in caller.latencies)
    return Figures(good / made, latencies[int(0.99 * len(latencies))] * 1e3, float(cold.most))


# ---------------------------------------------------------------- all are alike


def shared_fault(make: Make, seed: int) -> Figures:
    """What all ten replicas depend on is broken: each fails 60 % of its requests, and answers the others."""
    world = World(seed)
    replicas = fleet(world, 10)
    caller = Caller(world, replicas, make(seed), 400)
    world.run(10.0)
    caller.forget()
    for replica in replicas:
        replica.failing = 0.6
    world.run(70.0)
    return Figures(caller.success(), caller.percentile(0.99) * 1e3, caller.refused / caller.made.total() * 100)


def overload(gate: Callable[[], Concurrency] | None, seed: int) -> Figures:
    """Four replicas with room for 1,600 requests a second are sent 2,400, with a deadline of 500 ms: 20 % critical, 50 %
    ordinary, 30 % sheddable.  The figures are of the last 30 of 50 s."""
    world = World(seed)
    replicas = [Replica(world, f"r{i}", 0.010, servers=4, gate=gate() if gate is not None else None) for i in range(4)]
    caller = Caller(world, replicas, s.ewma(seed), 800, 0.5, (0.2, 0.5, 0.3))
    world.run(10.0)
    caller.rate = 2_400
    world.run(20.0)
    caller.forget()
    world.run(50.0)
    return Figures(caller.success(), caller.percentile(0.99) * 1e3, caller.success(CRITICAL) * 100)


# ---------------------------------------------------------------- zones


def zones(prefer: bool, busy: float, seed: int) -> Figures:
    """Three zones of four replicas.  The callers of one zone send `busy` times what those of the others do."""
    world = World(seed)
    replicas = [Replica(world, f"{zone}{i}", 0.010, servers=4, zone=zone) for zone in "abc" for i in range(4)]
    callers = []
    for number, zone in enumerate("abc"):
        policy = BalancerPolicy(zone=zone if prefer else "")
        rate = 800 * (busy if zone == "a" else 1.0)
        callers.append(Caller(world, replicas, Declared(seed * 100 + number, policy), rate))
    world.run(10.0)
    for caller in callers:
        caller.forget()
    world.run(30.0)
    first = callers[0]
    stayed = sum(first.share(f"a{i}") for i in range(4))
    return Figures(first.success(), first.percentile(0.99) * 1e3, stayed * 100)


# ---------------------------------------------------------------- the table's rows


def linkerd_breaker(seed: int) -> Strategy:
    return Declared(seed, BalancerPolicy(), BreakerPolicy(max_ejected=1.0))


def _told(
    play: Callable[[Make, int], Figures], makes: Sequence[tuple[str, Make]]
) -> list[tuple[str, Callable[[int], Figures]]]:
    def bind(make: Make) -> Callable[[int], Figures]:
        return lambda seed: play(make, seed)

    return [(title, bind(make)) for title, make in makes]


ROBIN = ("round robin", s.round_robin)
LEAST = ("least loaded of two", s.least_loaded)
NAIVE = ("peak EWMA without penalty", s.ewma_without_penalty)
OURS = ("peak EWMA (default)", s.ewma)
BREAKER = ("peak EWMA + breaker", s.ewma_with_breaker)

SCENARIOS: Sequence[Scenario] = (
    Scenario(
        "slow",
        "One replica of ten needs 2 s half of the time; deadline 1 s",
        "% to it",
        _told(slow_replica, [ROBIN, LEAST, NAIVE, OURS, BREAKER]),
    ),
    Scenario(
        "fast-failure",
        "One replica of ten answers 503 in a microsecond",
        "% to it",
        _told(fast_failure, [ROBIN, LEAST, NAIVE, OURS, BREAKER]),
    ),
    Scenario(
        "hung",
        "One replica of ten never answers; deadline 1 s",
        "% to it",
        _told(hung, [ROBIN, LEAST, NAIVE, OURS, BREAKER]),
    ),
    Scenario(
        "flapping",
        "One replica of ten fails everything, 5 s of each 10 s",
        "% to it",
        _told(flapping, [ROBIN, LEAST, NAIVE, OURS, BREAKER]),
    ),
    Scenario(
        "newcomer",
        "A cold replica joins ten at 70 %, seen by twenty callers at once",
        "most at it at once",
        _told(
            newcomer,
            [
                ROBIN,
                ("lowest cost of all, trusting", s.herd),
                ("lowest cost of all", s.least_of_all),
                LEAST,
                OURS,
                ("peak EWMA + slow start", s.ewma_with_slow_start),
            ],
        ),
    ),
    Scenario(
        "shared-fault",
        "All ten replicas fail 60 %: what they depend on is broken",
        "% refused",
        _told(
            shared_fault,
            [OURS, ("breaker without a cap", linkerd_breaker), ("breaker, half at most (default)", s.ewma_with_breaker)],
        ),
    ),
    Scenario(
        "overload",
        "Half more requests than the replicas can serve; deadline 500 ms",
        "% of critical ones good",
        [
            ("no limit", lambda seed: overload(None, seed)),
            ("fixed limit, 100", lambda seed: overload(lambda: Concurrency(100), seed)),
            ("fixed limit, 8", lambda seed: overload(lambda: Concurrency(8), seed)),
            ("adaptive limit", lambda seed: overload(lambda: Concurrency(20, Gradient()), seed)),
        ],
    ),
    Scenario(
        "zones",
        "Three zones of four replicas, one caller's zone watched",
        "% stay in the zone",
        [
            ("no preference, even load", lambda seed: zones(False, 1.0, seed)),
            ("preference, even load", lambda seed: zones(True, 1.0, seed)),
            ("preference, 2.5 x the zone's load", lambda seed: zones(True, 2.5, seed)),
        ],
    ),
)

"""A crash after any single write of any tick changes nothing about how a release ends."""

from __future__ import annotations

import pytest
from canary_cluster import APEX, PRIMARY, TARGET, Cluster, deployment

from control.canary.analysis import Measurement
from control.canary.spec import DURATION, SUCCESS_RATE
from control.canary.status import Phase

TICKS = 14  # more than a whole life takes: initialise (2), release (9), rest


async def live(cluster: Cluster, *, bad_from: int | None, crash: tuple[int, int] | None) -> list[int]:
    """Initialise, apply v2 before tick 3, go on to the end.  `crash`: (tick, after how many of its actions).
    Returns how many actions each tick had."""
    cluster.begin()
    await cluster.roll_out()
    counts = []
    for number in range(TICKS + (1 if crash else 0) + 1):
        if number == 3:
            cluster.write(deployment("v2"))
        if bad_from is not None and number >= bad_from:
            cluster.measurements = {SUCCESS_RATE: Measurement(50.0, 50), DURATION: Measurement(12.0, 50)}
        counts.append(await cluster.tick(crash[1] if crash and crash[0] == number else None))
        assert cluster.weights() is None or sum(cluster.weights()) == 100
        if bad_from is not None and cluster.store.get(PRIMARY):
            assert cluster.image(PRIMARY) == "podinfo:v1"
    return counts


GOOD = [(tick, after) for tick in range(13) for after in range(4)]


@pytest.mark.parametrize(("tick", "after"), GOOD)
async def test_a_good_release_is_promoted_whatever_write_it_crashed_after(cluster, tick, after):
    await live(cluster, bad_from=None, crash=(tick, after))
    status = cluster.status()
    assert status.phase is Phase.SUCCEEDED
    assert status.failed_checks == 0
    assert cluster.image(PRIMARY) == cluster.image(TARGET) == "podinfo:v2"
    assert cluster.weights() == (0, 100)
    assert (cluster.replicas(TARGET), cluster.replicas(PRIMARY)) == (0, 2)
    assert cluster.store.get(APEX)["spec"]["selector"] == {"app": "podinfo-primary"}


@pytest.mark.parametrize(("tick", "after"), [(tick, after) for tick in range(3, 11) for after in range(3)])
async def test_a_bad_release_is_rolled_back_whatever_write_it_crashed_after(cluster, tick, after):
    await live(cluster, bad_from=6, crash=(tick, after))
    assert cluster.status().phase is Phase.FAILED
    assert cluster.image(PRIMARY) == "podinfo:v1"
    assert cluster.weights() == (0, 100)
    assert cluster.replicas(TARGET) == 0


async def test_every_write_of_a_release_is_among_the_crashes_tried(cluster):
    counts = await live(cluster, bad_from=None, crash=None)
    assert max(counts) <= 3
    assert [tick for tick, count in enumerate(counts) if count] == [0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11]


async def test_numbers_that_turn_bad_between_the_copy_and_its_status_do_not_roll_back_onto_the_new_revision(cluster):
    cluster.begin()
    await cluster.roll_out()
    for _ in range(2):
        await cluster.tick()
    cluster.write(deployment("v2"))
    while cluster.image(PRIMARY) == "podinfo:v1":
        copying = any(type(action).__name__ == "PromoteTemplate" for action in cluster.decide().actions)
        await cluster.tick(1 if copying else None)
    assert cluster.status().phase is Phase.PROGRESSING
    cluster.measurements = {SUCCESS_RATE: Measurement(0.0, 50), DURATION: Measurement(12.0, 50)}
    for _ in range(4):
        await cluster.tick()
    assert cluster.status().phase is Phase.SUCCEEDED
    assert cluster.status().last_promoted == cluster.status().last_applied

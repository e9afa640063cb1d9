"""The history of decisions: bounded, and not flooded by waiting."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from canary_cluster import CANARY, Cluster
from canary_plays import START
from test_canary_policy import policy_object

from control.canary.declared.spec import parse
from control.canary.history import LIMIT, LIMIT_BYTES, append, bounded, decisions, policy_key
from control.canary.machine.analysis import Check, Outcome
from control.canary.machine.decision import Record


def record(at: float, text: str = "Halt", value: float = 99.0, weight: int = 10) -> Record:
    check = Check("request-success-rate", Outcome.PASSED, value, 40.0, 99.0, None)
    return Record(START + at, "Progressing", weight, 0, "abc", text, (check,))


@pytest.fixture
def cluster(tmp_path: Path):
    cluster = Cluster(tmp_path)
    cluster.begin()
    yield cluster
    cluster.store.close()


async def kept(cluster: Cluster, *batches: list[Record]) -> list[dict]:
    for batch in batches:
        await append(cluster.store, parse(cluster.store.get(CANARY)), batch)
        cluster.refresh()
    return decisions(cluster.store.get(policy_key("test", "podinfo")))


async def test_what_is_decided_again_and_again_is_one_entry_with_the_latest_numbers(cluster):
    (entry,) = await kept(cluster, *[[record(10.0 * n, value=99 + n / 10)] for n in range(5)])
    assert (entry["count"], entry["checks"][0]["value"]) == (5, 99.4)
    assert (entry["time"], entry["lastTime"]) == ("2027-01-15T08:00:00Z", "2027-01-15T08:00:40Z")


async def test_a_tick_that_is_repeated_after_a_crash_is_written_once(cluster):
    batch = [record(10.0, "Copying"), record(10.0, "Routing")]
    found = await kept(cluster, batch, batch, [record(20.0, "Routing")], [record(20.0, "Routing")])
    assert [(entry["message"], entry.get("count", 1)) for entry in found] == [("Copying", 1), ("Routing", 2)]


async def test_only_the_newest_are_kept_within_both_bounds(cluster):
    found = await kept(cluster, [record(n, f"decision {n}") for n in range(LIMIT + 20)])
    assert len(found) == LIMIT
    assert found[-1]["message"] == f"decision {LIMIT + 19}"
    wide = bounded([{"message": "x" * 2000, "n": n} for n in range(LIMIT)])
    assert len(json.dumps(wide)) <= LIMIT_BYTES
    assert wide[-1]["n"] == LIMIT - 1
    assert len(wide) > 25
    assert len(bounded([{"message": "x" * 2 * LIMIT_BYTES}])) == 1


async def test_the_history_stays_when_its_user_gives_the_canary_a_policy_and_takes_it_away(cluster):
    await kept(cluster, [record(0, "before")])
    cluster.write(policy_object(steps=[{"weight": 5}]))
    found = await kept(cluster, [record(10, "with a policy")])
    assert [entry["message"] for entry in found] == ["before", "with a policy"]
    (cluster.user / "releasepolicy-podinfo.yaml").unlink()
    cluster.refresh()
    cluster.now += 10
    cluster.refresh()
    found = await kept(cluster, [record(20, "without")])
    assert [entry["message"] for entry in found] == ["before", "with a policy", "without"]

"""Balancing through two real sidecars: who gets requests when replicas are slow, failing, new, unequal, far away.

Every Service is another view of the same three pods, its endpoints written by hand: web-one is in the client's zone, web-three
has weight 4.  Shares that chance decides have bounds that it passes less than once in a million runs.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from mesh_manifests import Object
from mesh_policy import World, at, front
from mesh_run import request, until

# name -> whose endpoints it has, what it declares
VIEWS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "latency": (("one", "two"), {}),
    "failing": (("one", "two"), {}),
    "pending": (("one", "two"), {"balancer": "least-request"}),
    "unequal": (("two", "three"), {"balancer": "least-request"}),
    "near": (("one", "two", "three"), {"zone": "prefer"}),
    "keyed": (("one", "two", "three"), {"balancer": "ring-hash", "balancer_key": "header=x-key"}),
    "young": (("one",), {"balancer": "least-request", "slow_start": "1h"}),
}


def view(world: World, name: str, endpoints: tuple[str, ...], **annotations: str) -> tuple[Object, Object]:
    return front(name, "hand", **annotations), at(name, [(world.web[one], "") for one in endpoints])


def in_force(world: World, name: str, endpoints: tuple[str, ...]) -> None:
    until(lambda: world.addresses(name) == {world.web[one].ip for one in endpoints}, f"the endpoints of {name}")


def change(world: World, name: str, endpoints: tuple[str, ...], **annotations: str) -> None:
    world.mesh.write(name, *view(world, name, endpoints, **annotations))
    in_force(world, name, endpoints)


@pytest.fixture(scope="module", autouse=True)
def views(policy_mesh: World) -> None:
    for name, (endpoints, declared) in VIEWS.items():
        policy_mesh.mesh.write(name, *view(policy_mesh, name, endpoints, **declared))
    for name, (endpoints, _) in VIEWS.items():
        in_force(policy_mesh, name, endpoints)


# ---------------------------------------------------------------- the default: peak EWMA of two


def test_a_slow_replica_is_avoided(world: World) -> None:
    world.mood("two", ms=400)
    assert world.share("latency", 60)["two"] < 20, "half is its share"


def test_a_replica_that_fails_at_once_does_not_look_fast(world: World) -> None:
    """By its time alone it would have all requests for ever.  What a failure counts is weighed with the time it stands for, so
    that a few do not matter."""
    world.mood("one", ms=100)
    assert world.share("failing", 30)["two"] > 15, "two is known to be the faster one"
    world.mood("two", status=503)
    until(lambda: world.share("failing", 20)["503"] < 5, "the one that fails to be avoided", 20)


# ---------------------------------------------------------------- what is declared


def test_least_request_looks_at_what_is_under_way_and_not_at_time(world: World) -> None:
    world.mood("two", ms=40)
    assert 8 < world.share("pending", 60)["two"] < 52, "with nothing under way it is even"
    world.reset()
    proxy = world.client.ip
    with ThreadPoolExecutor(10) as pool:
        try:
            for number in range(10):
                pool.submit(request, proxy, 4140, "GET", f"http://pending.e2e/do?hold=1&id=held-{number}")
                until(lambda number=number: world.came(f"held-{number}"), "it to be under way")  # type: ignore[misc]
            assert world.came(*[f"held-{number}" for number in range(10)]) == {"one": 5, "two": 5}
        finally:
            for name in ("one", "two"):
                world.at_own_port(world.web[name], "/release")


def test_shares_are_in_proportion_to_weights(world: World) -> None:
    found = world.share("unequal", 200)
    assert set(found) == {"two", "three"}
    assert 128 < found["three"] < 190, "four fifths of 200 are expected"


def test_a_new_endpoint_gets_less_than_its_share_until_its_window_has_passed(world: World) -> None:
    assert world.share("young", 5) == {"one": 5}
    change(world, "young", ("one", "two"), **VIEWS["young"][1])
    assert world.share("young", 120)["two"] < 35, "a tenth of its half is expected while it is new, sixty of one that is not"
    change(world, "young", ("one", "two"), balancer="least-request", slow_start="1ms")
    until(lambda: world.resource("young")["balancer"]["slowStartMs"] == 1, "the short window")
    assert 30 < world.share("young", 120)["two"] < 90, "even"


def test_a_key_keeps_its_endpoint_and_only_those_of_an_endpoint_that_goes_are_moved(world: World) -> None:
    def homes() -> dict[str, str]:
        return {key: world.who("keyed", headers={"x-key": key}) for key in map(str, range(60))}

    before = homes()
    assert homes() == before
    assert set(before.values()) == {"one", "two", "three"}
    change(world, "keyed", ("one", "three"), **VIEWS["keyed"][1])
    after = homes()
    assert set(after.values()) == {"one", "three"}
    assert {key: home for key, home in after.items() if before[key] != "two"} == {
        key: home for key, home in before.items() if home != "two"
    }


def test_the_own_zone_is_preferred_and_spills_over_what_it_cannot_do(world: World) -> None:
    assert world.share("near", 40) == {"one": 40}, "the client's zone"
    world.mood("one", ms=1000)
    found = world.share("near", 20)
    assert found["one"] < 5, "it is more than ten times as dear as the far ones"
    assert found["two"] + found["three"] == 20 - found["one"]
    change(world, "near", ("two", "three"), **VIEWS["near"][1])
    found = world.share("near", 20)
    assert found["two"] + found["three"] == 20, "nobody is left in the zone"

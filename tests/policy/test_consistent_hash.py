"""Consistent hashing: even shares, few moves, the same answer everywhere."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter

import pytest

from meshproxy.policy.balancer import Load, Target
from meshproxy.policy.consistent_hash import MEAN_POINTS, POINTS, HashKey, Maglev, Ring, Table, cookie, hash_key
from meshproxy.wire.message import Field, Head

KEYS = [hash_key(b"user-%d" % i) for i in range(4_000)]
KINDS = pytest.mark.parametrize("kind", [Maglev, Ring])


def names(n: int) -> list[bytes]:
    return [b"10.0.0.%d:8080" % i for i in range(n)]


def targets(n: int) -> list[Target]:
    return [Target(Load(0.0)) for _ in range(n)]


def owners(table: Table, members: list[Target]) -> list[int]:
    found = []
    for key in KEYS:
        target = table.at(key)
        assert target is not None
        found.append(members.index(target))
    return found


@pytest.mark.parametrize(("kind", "least", "most"), [(Maglev, 0.85, 1.15), (Ring, 0.6, 1.4)])
def test_keys_are_spread_evenly(kind: type[Table], least: float, most: float) -> None:
    members = targets(5)
    counts = Counter(owners(kind(names(5), members), members))  # type: ignore[call-arg]
    assert all(least * 800 < counts[i] < most * 800 for i in range(5)), counts


@KINDS
def test_weights_are_shares_of_the_keys(kind: type[Table]) -> None:
    members = targets(3)
    members[2].weight = 3.0
    counts = Counter(owners(kind(names(3), members), members))  # type: ignore[call-arg]
    assert counts[2] / len(KEYS) == pytest.approx(0.6, abs=0.08)
    assert counts[0] / len(KEYS) == pytest.approx(0.2, abs=0.08)


@pytest.mark.parametrize(("kind", "moved"), [(Maglev, 0.05), (Ring, 0.0)])
def test_when_one_of_twenty_goes_hardly_any_key_moves_that_was_not_its(kind: type[Table], moved: float) -> None:
    all_names, members = names(20), targets(20)
    before = owners(kind(all_names, members), members)  # type: ignore[call-arg]
    after = owners(kind(all_names[:7] + all_names[8:], members[:7] + members[8:]), members)  # type: ignore[call-arg]
    others = [(was, now) for was, now in zip(before, after, strict=True) if was != 7]
    assert sum(was != now for was, now in others) <= moved * len(others)


@pytest.mark.parametrize("gone", range(4))
def test_when_one_goes_no_key_moves_on_a_ring_between_the_others_whatever_their_weights(gone: int) -> None:
    members = targets(4)
    for member, weight in zip(members, (1.0, 1.0, 4.0, 9.0), strict=True):
        member.weight = weight
    before = owners(Ring(names(4), members), members)
    left = [index for index in range(4) if index != gone]
    after = owners(Ring([names(4)[index] for index in left], [members[index] for index in left]), members)
    assert all(now == was for was, now in zip(before, after, strict=True) if was != gone)


def test_a_ring_of_great_weights_has_a_bounded_number_of_points() -> None:
    members = targets(20)
    for number, member in enumerate(members):
        member.weight = 1000.0 if number % 2 else 500.0
    ring = Ring(names(20), members)
    assert 20 * POINTS < len(ring.hashes) <= 20 * MEAN_POINTS
    counts = Counter(owners(ring, members))
    assert sum(counts[number] for number in range(1, 20, 2)) / len(KEYS) == pytest.approx(2 / 3, abs=0.05)


@KINDS
def test_the_keys_of_one_that_is_not_available_go_to_all_others_and_come_back(kind: type[Table]) -> None:
    members = targets(6)
    table = kind(names(6), members)  # type: ignore[call-arg]
    before = owners(table, members)
    members[2].available = False
    during = owners(table, members)
    assert all(now == was for was, now in zip(before, during, strict=True) if was != 2)
    assert {now for was, now in zip(before, during, strict=True) if was == 2} == {0, 1, 3, 4, 5}
    members[2].available = True
    assert owners(table, members) == before


@KINDS
def test_the_order_in_which_endpoints_are_listed_does_not_matter(kind: type[Table]) -> None:
    all_names, members = names(9), targets(9)
    pairs = list(zip(all_names, members, strict=True))
    random.Random(3).shuffle(pairs)
    shuffled = kind([name for name, _ in pairs], [target for _, target in pairs])  # type: ignore[call-arg]
    assert owners(shuffled, members) == owners(kind(all_names, members), members)  # type: ignore[call-arg]


def test_a_hash_is_the_same_in_another_process() -> None:
    """Python's own hash of bytes is not: it is seeded anew for each."""
    command = "from meshproxy.policy.consistent_hash import hash_key; print(hash_key(b'ada'))"
    other = subprocess.run([sys.executable, "-c", command], capture_output=True, check=True, text=True, timeout=30)
    assert int(other.stdout) == hash_key(b"ada")


@KINDS
def test_with_none_available_there_is_no_answer_and_no_long_search(kind: type[Table]) -> None:
    members = targets(3)
    table = kind(names(3), members)  # type: ignore[call-arg]
    for target in members:
        target.available = False
    assert table.at(KEYS[0]) is None
    assert kind([], []).at(KEYS[0]) is None  # type: ignore[call-arg]


def test_one_endpoint_has_all_keys_and_a_retry_of_them_has_no_other() -> None:
    members = targets(1)
    for table in (Maglev(names(1), members), Ring(names(1), members)):
        assert table.at(KEYS[0]) is members[0]
        assert table.at(KEYS[0], members[0]) is None


def test_a_very_unequal_weight_costs_no_more_work_than_an_equal_one() -> None:
    members = targets(200)
    members[0].weight = 1e9
    counts = Counter(owners(Maglev(names(200), members), members))
    assert counts[0] == len(KEYS)


# ---------------------------------------------------------------- the key


def request(*fields: tuple[bytes, bytes]) -> Head:
    head = Head()
    head.fields = [Field(name, value) for name, value in fields]
    return head


def test_a_key_is_a_header_or_a_cookie_of_the_request() -> None:
    head = request((b"x-user", b"ada"), (b"cookie", b"a=1; session=xyz"), (b"cookie", b"late=2"))
    assert HashKey("header=X-User").of(head) == b"ada"
    assert HashKey("cookie=session").of(head) == b"xyz"
    assert HashKey("cookie=late").of(head) == b"2"
    assert HashKey("cookie=Session").of(head) is None  # names of cookies keep their case
    assert HashKey("header=x-other").of(head) is None


@pytest.mark.parametrize(
    ("value", "found"),
    [(b"id=1", b"1"), (b"x=0;id=1", b"1"), (b' id="q" ', b"q"), (b"id", None), (b"xid=1", None), (b"", None), (b"id=", b"")],
)
def test_a_cookie_is_found_by_its_whole_name(value: bytes, found: bytes | None) -> None:
    assert cookie(value, b"id") == found


@pytest.mark.parametrize("text", ["", "header", "header=", "query=x", "header=a\nb", "cookie=\u00e9"])
def test_a_key_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected header=NAME or cookie=NAME"):
        HashKey(text)

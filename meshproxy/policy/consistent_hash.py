"""Consistent hashing: requests with the same key go to the same endpoint, and stay there when other endpoints come or go.

    key --hash_key--> 64 bits --Maglev.at--> slot of a table --> endpoint; not available: the next slot's, and so on
                              --Ring.at----> next point on a circle --> endpoint; not available: the next point's

                  spread (5 endpoints)          of all keys, moved when one of 20 goes     lookup
    Maglev        within 1 % of even            the 5 % that were its, and about 1 % more  one index
    ring          within some 10 % of even      the 5 % that were its, and no other        bisection of 160 points each

Both are those of the papers (Eisenbud et al. 2016, Maglev, 3.4; Karger et al. 1997) and of Envoy.  Every proxy computes the
same table from the same endpoints, whatever their order: the hash is of names, with a fixed function.

A key is a header or a cookie (`HashKey`).  A request without it is balanced as if nothing were declared.
"""

from __future__ import annotations

from bisect import bisect_left
from hashlib import blake2b
from heapq import heapify, heapreplace
from typing import Final

from meshproxy.policy.balancer import Target
from meshproxy.wire.message import Head

POINTS: Final = 160  # of an endpoint on a ring, at weight 1 (ketama's); deviation of shares ~ 1 / sqrt(points)
MAX_POINTS: Final = 200_000  # of one ring: weights are scaled down above
MEAN_POINTS: Final = 8 * POINTS  # of its endpoints on average, likewise: a point costs a microsecond to make
SLOTS_EACH: Final = 100  # of a Maglev table, for each endpoint at least: shares within 1 % (the paper's M > 100 N)
_SIZES: Final = (509, 1021, 2039, 4093, 8191, 16381, 32749, 65521)  # primes
MAX_KEY: Final = 4096  # bytes of a key that are hashed; header limits keep real ones far below


def hash_key(key: bytes) -> int:
    """64 bits, the same in every process and version (Python's own hash is neither)."""
    return int.from_bytes(blake2b(key[:MAX_KEY], digest_size=8).digest(), "little")


class HashKey:
    """What of a request is its key: "header=NAME" or "cookie=NAME".  Raises ValueError for other texts."""

    __slots__ = ("cookie", "name", "text")

    def __init__(self, text: str) -> None:
        kind, equals, name = text.strip().partition("=")
        name = name.strip()
        if kind not in ("header", "cookie") or not equals or not name or not name.isascii() or not name.isprintable():
            raise ValueError(f"hash key: expected header=NAME or cookie=NAME, not {text!r}")
        self.text = f"{kind}={name}"
        self.cookie = kind == "cookie"
        self.name = (name if self.cookie else name.lower()).encode()

    def of(self, head: Head) -> bytes | None:
        """The key of a request; None where it has none."""
        if not self.cookie:
            return head.field(self.name)
        for field in head.fields:
            if field.name == b"cookie":
                found = cookie(field.value, self.name)
                if found is not None:
                    return found
        return None


def cookie(value: bytes, name: bytes) -> bytes | None:
    """The value of one cookie in a `cookie` field (RFC 6265 4.2.1), without quotes; None if it is not there."""
    for pair in value.split(b";"):
        found, equals, content = pair.strip().partition(b"=")
        if equals and found == name:
            return content.strip(b'"')
    return None


class Table:
    """Targets by hash.  `names` and `targets` in the same order; a name says which endpoint it is to every proxy."""

    def at(self, hashed: int, exclude: Target | None = None, told: list[Target] | None = None) -> Target | None:
        """Whose key it is; if that one is not available (or is `exclude`, which has just failed this request, or of `told`,
        which told it to wait), the one that would get its keys were it gone.  None: no other is available."""
        raise NotImplementedError


class Maglev(Table):
    def __init__(self, names: list[bytes], targets: list[Target]) -> None:
        self.targets = targets
        wanted = SLOTS_EACH * len(names)
        self.size = next((size for size in _SIZES if size >= wanted), _SIZES[-1])
        self.slots = _populate(names, [target.weight for target in targets], self.size)

    def at(self, hashed: int, exclude: Target | None = None, told: list[Target] | None = None) -> Target | None:
        targets = self.targets
        if not targets:
            return None
        slots = self.slots
        size = self.size
        slot = hashed % size
        # A slot's neighbours are anybody's, so the keys of one that is gone go to all others evenly.
        for tried in range(size):
            index = slots[slot]
            target = targets[index]
            if target.available and target is not exclude and (told is None or target not in told):
                return target
            if tried == 8 and not _any(targets, exclude, told):
                return None
            slot = slot + 1 if slot + 1 < size else 0
        return None


class Ring(Table):
    def __init__(self, names: list[bytes], targets: list[Target]) -> None:
        self.targets = targets
        # How many points an endpoint has must not depend on who else is there, or keys would move between those that stay.
        # Where there would be too many, all have half, a quarter ...: the others' coming and going seldom changes which.
        each = float(POINTS)
        total = each * sum([target.weight for target in targets])
        most = min(MAX_POINTS, MEAN_POINTS * len(targets))
        while total > most:
            each /= 2.0
            total /= 2.0
        points: list[tuple[int, bytes, int]] = []
        for index, name in enumerate(names):
            count = max(1, round(each * targets[index].weight))
            points += [(hash_key(name + b"#%d" % i), name, index) for i in range(count)]
        points.sort()
        self.hashes = [point[0] for point in points]
        self.owners = [point[2] for point in points]

    def at(self, hashed: int, exclude: Target | None = None, told: list[Target] | None = None) -> Target | None:
        owners = self.owners
        size = len(owners)
        if not size:
            return None
        targets = self.targets
        point = bisect_left(self.hashes, hashed)
        for tried in range(size):
            if point >= size:
                point = 0
            target = targets[owners[point]]
            if target.available and target is not exclude and (told is None or target not in told):
                return target
            if tried == 8 and not _any(targets, exclude, told):
                return None
            point += 1
        return None


def _any(targets: list[Target], exclude: Target | None, told: list[Target] | None) -> bool:
    return any(target.available and target is not exclude and (told is None or target not in told) for target in targets)


def _populate(names: list[bytes], weights: list[float], size: int) -> list[int]:
    """Maglev's table: endpoints take turns to take their next preferred free slot; one of half the weight has every other
    turn.  A preference is a permutation of all slots, from two hashes of the name.  About size x ln(size) steps."""
    if not names:
        return []
    greatest = max(weights)
    position = [hash_key(name + b"/offset") % size for name in names]
    skip = [hash_key(name + b"/skip") % (size - 1) + 1 for name in names]
    # By name, so that the table is the same whatever order the endpoints came in.
    turns = [(greatest / weights[index], name, index) for index, name in enumerate(names)]
    heapify(turns)
    slots = [-1] * size
    for _ in range(size):
        turn, name, index = turns[0]
        slot = position[index]
        while slots[slot] >= 0:
            slot = (slot + skip[index]) % size
        slots[slot] = index
        position[index] = (slot + skip[index]) % size
        heapreplace(turns, (turn + greatest / weights[index], name, index))
    return slots

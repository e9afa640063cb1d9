"""Which backend gets the next request: a weighted split that is exact, not merely fair on average.

    weights 90 / 10 -> reduced by their gcd -> 9 / 1 -> a block of ten draws [0 0 0 0 0 0 0 0 0 1], shuffled as it is drawn

Drawing each request independently would leave a 5 % canary of 1,000 requests anywhere between 3.6 and 6.4 %; a fixed
round-robin order would be exact but lock step with a periodic client (every tenth request a checkout: all checkouts on
one backend).  A shuffled block is both: exact after each block, and no position of a block belongs to any backend.

The block is shuffled one step a draw (Fisher-Yates from the front), so no request pays for the whole of it.

A block holds at most MAX_BLOCK draws.  Weights whose reduced total is larger (1 : 999,983) get blocks of MAX_BLOCK in which
each backend has its share rounded to whole draws, and what rounding took or gave is carried into the next block: never
further than one draw a backend from exact, however long it runs.

A sticky split draws nothing: a client's key is hashed to a point of the whole, and the weights divide the whole in their order.
Who is with the canary at 10 % is still with it at 20 %, if the canary stands first or last.

A Split belongs to one set of weights: when they change, make a new one (a block begun under old weights is not finished).
"""

from __future__ import annotations

from math import gcd
from typing import Final

from meshproxy.policy.random import Rng

# 10,000 references are 80 kB, and a share of 0.01 % is still exact in every block.
MAX_BLOCK: Final = 10_000


class Split:
    """Draws indexes of `weights` in their exact proportion.

    Weights are relative; one of 0 is never drawn.  No weights, or all of them 0: `draw()` gives -1, and the caller answers
    503 for it (Gateway API asks for an error; giving such traffic to anyone would be a guess).
    Raises ValueError for a negative weight.
    """

    __slots__ = ("_block", "_carry", "_position", "_rng", "_total", "_weights", "weights")

    def __init__(self, weights: list[int], rng: Rng) -> None:
        divisor = 0
        for weight in weights:
            if weight < 0:
                raise ValueError(f"a weight must not be negative: {weights}")
            divisor = gcd(divisor, weight)
        self.weights = list(weights)  # as given, so that an owner can tell whether a new Split is needed
        self._weights = [weight // divisor for weight in weights] if divisor else []
        self._total = sum(self._weights)
        self._carry = [0] * len(self._weights)  # in units of 1 / total of a draw; only used when the block is scaled
        self._rng = rng
        self._position = 0
        self._block: list[int] = []
        if 0 < self._total <= MAX_BLOCK:
            self._block = _fill(self._weights)
        elif self._total:
            self._block = _fill(self._apportion())

    def at(self, hashed: int) -> int:
        """The index of the backend for a key, by its hash (0 or more): always the same one for these weights; -1 if none."""
        total = self._total
        if not total:
            return -1
        # Of 32 bits the share of the whole, and not the remainder: then a boundary moves as little as the weights do.
        point = (hashed & 0xFFFFFFFF) * total >> 32
        for index, weight in enumerate(self._weights):
            point -= weight
            if point < 0:
                return index
        return -1

    def draw(self) -> int:
        """The index of the backend for the next request, or -1 if there is none."""
        block = self._block
        size = len(block)
        if size <= 1:
            return block[0] if size else -1
        position = self._position
        if position == size:
            position = 0
            if self._total > MAX_BLOCK:
                block = self._block = _fill(self._apportion())
        chosen = position + self._rng.below(size - position)
        index = block[chosen]
        block[chosen] = block[position]
        block[position] = index
        self._position = position + 1
        return index

    def left(self) -> list[int]:
        """How often each backend comes in what is left of the block; all 0 where the next draw begins a new one (or there is
        nothing to draw).  For who explains: changes nothing."""
        counts = [0] * len(self.weights)
        for index in self._block[self._position :]:
            counts[index] += 1
        return counts

    def _apportion(self) -> list[int]:
        """How many draws of the next block each backend gets: its quota plus what it is owed, in whole draws that add up
        to MAX_BLOCK.  Spare draws go to who is owed most, missing ones are taken from who is owed least."""
        total = self._total
        owed = [weight * MAX_BLOCK + carry for weight, carry in zip(self._weights, self._carry, strict=True)]
        counts = [max(0, due // total) for due in owed]
        for i, count in enumerate(counts):
            owed[i] -= count * total
        spare = MAX_BLOCK - sum(counts)  # never more than one a backend, either way
        while spare > 0:  # what is owed adds up to spare draws, so the largest debt is positive: never to a weight of 0
            i = owed.index(max(owed))
            counts[i] += 1
            owed[i] -= total
            spare -= 1
        while spare < 0:
            i = min((due, i) for i, due in enumerate(owed) if counts[i])[1]
            counts[i] -= 1
            owed[i] += total
            spare += 1
        self._carry = owed
        return counts


def _fill(counts: list[int]) -> list[int]:
    block: list[int] = []
    for index, count in enumerate(counts):
        block += [index] * count
    return block

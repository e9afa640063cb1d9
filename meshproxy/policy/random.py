"""A small seeded random number generator for policy decisions: fast, repeatable, never for secrets.

    state x (xorshift, 32 bit) --+
                                 +-- add --> 32 random bits --> below(n), uniform()
    state w (Weyl, 32 bit) ------+

Marsaglia's xorshift32 alone is linear, so its low bits and its first numbers after a small seed are poor; adding a Weyl
sequence ("xorwow" does the same) mends both and takes the period to nearly 2**64.  Everything stays under 2**62, so a
compiled build keeps the numbers in machine words.  `random.Random` would do as well, but its state is 2.5 kB an object
and each call leaves compiled code.
"""

from __future__ import annotations

from typing import Final

_MASK: Final = 0xFFFFFFFF


class Rng:
    """Random numbers that depend on the seed alone.  Two generators with one seed give the same sequence."""

    __slots__ = ("_w", "_x")

    def __init__(self, seed: int) -> None:
        """`seed` may be any int; seeds that differ by one give unrelated sequences."""
        # MurmurHash3's finaliser, on 32 bits: every bit of the seed changes half of the state's.
        x = (seed ^ (seed >> 32)) & _MASK
        x = ((x ^ (x >> 16)) * 0x45D9F3B) & _MASK
        x = ((x ^ (x >> 16)) * 0x45D9F3B) & _MASK
        x = x ^ (x >> 16)
        self._x = x or 0x9E3779B9  # xorshift stays at zero forever if it starts there
        self._w = (x * 0x10DCD + 1) & _MASK

    def bits(self) -> int:
        """32 random bits, 0 .. 2**32 - 1."""
        x = self._x
        x ^= (x << 13) & _MASK
        x ^= x >> 17
        x ^= (x << 5) & _MASK
        self._x = x
        w = (self._w + 0x61C88647) & _MASK
        self._w = w
        return (x + w) & _MASK

    def below(self, n: int) -> int:
        """A number of 0 .. n - 1, for 1 <= n <= 2**29.

        Multiply and shift (Lemire) instead of a remainder: the better high bits decide, and the bias is under n / 2**32.
        """
        return (self.bits() * n) >> 32

    def uniform(self) -> float:
        """A float in [0, 1)."""
        return self.bits() / 4294967296.0

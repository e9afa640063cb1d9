"""What fails is said once, tried again, and keeps nobody else waiting.

attempt("service shop/web", work)  fails    -> say why, unless the same was said before; True: to be tried again
                                   succeeds -> forgotten, so that the next failure is news
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from control.runtime.addresses import AddressError
from control.store.store import StoreError

MAX_TROUBLES = 1000  # remembered; past that all are forgotten, and said again


class Troubles:
    """`say` takes lines for the person at the terminal."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._known: dict[str, str] = {}  # what failed -> why

    async def attempt(self, what: str, work: Awaitable[object]) -> bool:
        """One object's share of the work; returns whether it failed and is to be tried again."""
        try:
            await work
        except (StoreError, AddressError, ValueError, KeyError, TypeError, AttributeError) as error:
            usual = isinstance(error, (StoreError, AddressError))
            self.tell(what, str(error) if usual else f"cannot be understood ({type(error).__name__}: {error})")
            return True
        self.over(what)
        return False

    def tell(self, what: str, why: str) -> None:
        if self._known.get(what) != why:
            if len(self._known) >= MAX_TROUBLES:
                self._known.clear()
            self._known[what] = why
            self._say(f"{what}: {why}")

    def over(self, what: str) -> None:
        self._known.pop(what, None)

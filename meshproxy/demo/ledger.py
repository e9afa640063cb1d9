"""What was written down: by the client for each request it sent, by each app for each request it handled.

    load generator --> Request      (client ledger, one line a request)
    apps           --> Handled      (service ledger, one line a request and app)

Both carry the request id, so the two can be compared request by request.  Times are seconds since the epoch; all
processes are on one machine and read one clock.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


class LedgerError(Exception):
    """A ledger line that nobody can read: names file, line and what was expected."""


@dataclass(frozen=True, slots=True)
class Hop:
    """One entry of the path a reply lists.  `peer`: who called this app, as its sidecar verified it."""

    service: str
    version: str
    pod: str
    peer: str


@dataclass(frozen=True, slots=True)
class Request:
    """One request as the client saw it.

    status  of the response; 0 when there was none (then `error` says why)
    path    the hops the reply lists, in order; empty when it listed none
    note    what came back as the note that was sent
    """

    id: str
    sent: float
    done: float
    status: int
    error: str = ""
    path: tuple[Hop, ...] = ()
    note: str = ""

    @property
    def ok(self) -> bool:
        return self.status == 200

    def line(self) -> str:
        return json.dumps(asdict(self))


@dataclass(frozen=True, slots=True)
class Handled:
    """One request as one app handled it."""

    at: float
    id: str
    service: str
    version: str
    pod: str
    status: int
    peer: str
    note: str = ""

    @property
    def ok(self) -> bool:
        return self.status < 500


def hops(listed: object) -> tuple[Hop, ...]:
    """The hops a reply lists; empty if it lists none that can be read (somebody else's error page)."""
    if not isinstance(listed, list):
        return ()
    names = ("service", "version", "pod", "peer")
    return tuple(Hop(**{name: str(hop.get(name, "")) for name in names}) for hop in listed if isinstance(hop, dict))


class ServiceLedger:
    """Reads the apps' ledger as it grows; a line that is still being written is left for the next time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[Handled] = []
        self._offset = 0

    def read(self) -> list[Handled]:
        """All lines so far.  Raises LedgerError."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                fresh = file.read()
        except FileNotFoundError:  # no app has started yet
            return self.lines
        whole = fresh[: fresh.rfind(b"\n") + 1]
        for line in whole.splitlines():
            try:
                entry: dict[str, Any] = json.loads(line)
                self.lines.append(Handled(**entry))
            except (ValueError, TypeError) as error:
                raise LedgerError(
                    f"{self.path}:{len(self.lines) + 1}: not a line an app of the shop writes: {error}"
                ) from error
        self._offset += len(whole)
        return self.lines

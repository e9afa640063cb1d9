"""Asking a Prometheus: one GET, bounded in time and size, and a Measurement whatever comes back.

    PromQL -> GET <address>/api/v1/query?query=... -> 1 MiB at most, 5 s at most -> promql.value_of -> Measurement
                                                       anything else                              -> no value, and why

Nothing here ever passes a check for want of an answer.  Two kinds of it are told apart: *no values* (the server answered, there
is nothing to go by) and an *error* (it did not answer, or not what was asked).  Both fail a check in Flagger's mode.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime

import aiohttp
from yarl import URL

from control.canary.machine.analysis import Measurement
from control.canary.measuring.promql import ONLINE, BadAnswer, NoValue, Server, value_of, vector_of, without_password

log = logging.getLogger(__name__)

TIMEOUT_S = 5.0  # of one query, connecting included; Flagger's
MAX_ANSWER = 1 << 20  # bytes; a query that gives one number is answered in a few hundred
MAX_TEXT = 200  # characters of somebody else's error in an Event
CONNECTIONS = 16  # at once, to all servers together

PROVIDER = "Prometheus"  # Measurement.provider


class PrometheusClient:
    """One pool of connections for all servers; `close` it.  `clock` gives Unix seconds, for answers without a Date."""

    def __init__(self, clock: Callable[[], float] = time.time, timeout_s: float = TIMEOUT_S) -> None:
        self._clock = clock
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None
        self.queries = 0
        self.failures = 0  # of those: without an answer, or with one that is none

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def ask(self, server: Server, query: str, interval_s: float) -> Measurement:
        """The number that `query` gives.  Never raises for what the network or the server does.

        `interval_s`: the metric's; a sample from longer ago does not count (Prometheus would look back 5 minutes)."""
        self.queries += 1
        try:
            body, server_time = await self._get(server, query, interval_s)
            return Measurement(value_of(body, server_time, interval_s), provider=PROVIDER)
        except NoValue as nothing:
            return Measurement(reason=str(nothing), provider=PROVIDER)
        except BadAnswer as wrong:
            reason = f"{without_password(server.address)}: {wrong}"
        except TimeoutError:  # before OSError, which it is one of
            reason = f"{without_password(server.address)} did not answer in {self._timeout_s:g} s"
        except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: a URL, header or encoding nobody can send
            reason = f"{without_password(server.address)}: {error or type(error).__name__}"
        self.failures += 1
        return Measurement(error=True, reason=reason[: 2 * MAX_TEXT], provider=PROVIDER)

    async def vector(self, server: Server, query: str, interval_s: float) -> list[tuple[dict[str, str], float]] | None:
        """All elements of what `query` gives; None if it is not answered."""
        self.queries += 1
        try:
            return vector_of((await self._get(server, query, interval_s))[0])
        except (BadAnswer, TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            log.debug("%s: %s", without_password(server.address), error)
            self.failures += 1
            return None

    async def problem(self, server: Server) -> str:
        """Why the server cannot be asked, "" if it can."""
        seen = await self.ask(server, ONLINE, TIMEOUT_S)
        if seen.value == 1.0:
            return ""
        return seen.reason if seen.value is None else f"{without_password(server.address)} says {ONLINE} is {seen.value:g}"

    async def _get(self, server: Server, query: str, interval_s: float) -> tuple[bytes, float]:
        """(body, the server's time).  Raises as aiohttp, and BadAnswer."""
        url = URL(server.address)
        url = url.with_path(url.path.rstrip("/") + "/api/v1/query", encoded=False).with_query(
            # `lookback_delta` is Prometheus' own (2.38 and later); who does not know it passes over it.
            {"query": " ".join(query.split()), "lookback_delta": f"{interval_s:g}"}
        )
        # Not compressed: what is bounded is what is read.
        headers = [("Accept-Encoding", "identity"), *server.headers]
        if server.token:
            headers.append(("Authorization", f"Bearer {server.token}"))
        elif server.username:
            headers.append(("Authorization", aiohttp.encode_basic_auth(server.username, server.password)))
        async with self._open().get(url, headers=headers, ssl=server.verify) as answer:
            body = await _bounded(answer)
            if answer.status >= 400:
                raise BadAnswer(f"HTTP {answer.status}: {_line(body)}")
            return body, self._time_of(answer)

    def _time_of(self, answer: aiohttp.ClientResponse) -> float:
        """When it was answered, by the clock of who did: clocks differ, and a skew is no staleness."""
        try:
            return parsedate_to_datetime(answer.headers["Date"]).timestamp() + float(answer.headers.get("Age", 0))
        except (KeyError, ValueError, TypeError):
            return self._clock()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self._timeout_s),
                connector=aiohttp.TCPConnector(limit=CONNECTIONS),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        return self._session


async def _bounded(answer: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    while piece := await answer.content.read(1 << 16):
        body += piece
        if len(body) > MAX_ANSWER:
            raise BadAnswer(f"the answer has more than {MAX_ANSWER} bytes")
    return bytes(body)


def _line(body: bytes) -> str:
    return " ".join(body[: 4 * MAX_TEXT].decode("utf-8", "replace").split())[:MAX_TEXT]

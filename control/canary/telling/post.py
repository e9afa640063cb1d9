"""POST of JSON to somebody else's server: redirects, retries, bounds.  Webhooks and alerts go out through here.

    post():  try --> answer < 300 or "no" (4xx) ---------------------------------> Answer
              ^  |-> redirect (at most 10) --> the same try at the next address
              |  '-> no answer, 429, 5xx but 501 --> retries left? --yes--> sleep 1, 2, 4 ... 30 s (or Retry-After)
              '------------------------------------------------------------------'     | no
                                                                                       v
                                                                       PostError, or the last Answer with its `tries`

The rules are those of Go's net/http and hashicorp/go-retryablehttp with Flagger's settings, because receivers were written
against them.  No connection is kept: calls are rare, and one that went stale unnoticed would look like a failed check.
"""

from __future__ import annotations

import asyncio
import email.utils
import ipaddress
import json
import time
import urllib.request
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp

from meshproxy import __version__

MAX_BODY_BYTES = 64 * 1024  # read of an answer; the rest is left
MAX_REDIRECTS = 10  # Go's
FIRST_WAIT_S, LAST_WAIT_S = 1.0, 30.0  # go-retryablehttp's RetryWaitMin and RetryWaitMax
MAX_RETRY_AFTER_S = 300.0  # of what a server asks for; the release stands still meanwhile
MAX_CALL_S = 3600.0  # of a call with all its tries: Retry-After and retries are not ours, and a release waits for this
CONCURRENCY = 64  # tries at once, of all Canaries: a bound on sockets

_SEE_OTHER = (301, 302, 303)  # after these a POST becomes a GET without a body, as browsers and Go have it
_SAME_AGAIN = (307, 308)

Sleep = Callable[[float], Awaitable[None]]
ProxyFor = Callable[[str], str | None]  # address -> that of the HTTP proxy on the way, None: straight


class PostError(Exception):
    """There is no answer; `str()` says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """`text` is what the server said, at most MAX_BODY_BYTES of it; `gave_up`: it is one that was worth another try."""

    status: int
    text: str
    tries: int = 1
    gave_up: bool = False


class _Again(Exception):
    """This try failed in a way that the next may not.  `answer` is what there was to see, if anything; `wait_s` is the
    server's Retry-After."""

    def __init__(self, reason: str, answer: Answer | None = None, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason, self.answer, self.wait_s = reason, answer, wait_s


def environment_proxy(url: str) -> str | None:
    """The proxy that http_proxy, https_proxy and no_proxy name for this address.  Never one for this machine itself."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host == "localhost" or _is_loopback(host):
        return None
    proxies = urllib.request.getproxies_environment()
    if urllib.request.proxy_bypass_environment(host, proxies):  # type: ignore[attr-defined]  # the stubs do not know it
        return None
    return proxies.get(parts.scheme)


class Poster:
    """Sends JSON.  `sleep` waits between tries and `now` is Unix seconds (a Retry-After may be a date); both for tests.
    `proxy_for` says which way an address is reached."""

    def __init__(
        self,
        proxy_for: ProxyFor = environment_proxy,
        *,
        sleep: Sleep = asyncio.sleep,
        now: Callable[[], float] = time.time,
        concurrency: int = CONCURRENCY,
    ) -> None:
        self._proxy_for = proxy_for
        self._sleep = sleep
        self._now = now
        self._session: aiohttp.ClientSession | None = None
        self._room = asyncio.Semaphore(concurrency)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def post(
        self,
        url: str,
        body: Mapping[str, Any],
        *,
        timeout_s: float,
        retries: int = 0,
        headers: Mapping[str, str] | None = None,
        verify: bool = True,
        proxy: str = "",
    ) -> Answer:
        """The last answer.  `timeout_s` is for each try, name look-up and redirects included; `verify=False` accepts any
        certificate; `proxy` is used instead of what `proxy_for` says.  Raises PostError when there is no answer."""
        request = _Request(json.dumps(body).encode(), dict(headers or {}), verify, proxy)
        try:
            async with asyncio.timeout(MAX_CALL_S):
                return await self._with_retries(url, request, timeout_s, retries)
        except TimeoutError:
            raise PostError(f"no end after {MAX_CALL_S:g} s of tries") from None

    async def _with_retries(self, url: str, request: _Request, timeout_s: float, retries: int) -> Answer:
        for number in range(retries + 1):
            try:
                async with self._room:
                    return await self._try(url, request, timeout_s, number + 1)
            except _Again as failed:
                if number == retries:
                    if failed.answer is not None:
                        return failed.answer
                    tries = f" (giving up after {number + 1} attempt(s))" if number else ""
                    raise PostError(failed.reason + tries) from None
                wait = failed.wait_s
                await self._sleep(min(LAST_WAIT_S, FIRST_WAIT_S * 2**number) if wait is None else wait)
        raise AssertionError("unreachable")

    async def _try(self, url: str, request: _Request, timeout_s: float, number: int) -> Answer:
        try:
            async with asyncio.timeout(timeout_s):
                status, headers, text = await self._follow(url, request)
        except TimeoutError:
            raise _Again(f"no answer in {timeout_s:g} s") from None
        except aiohttp.ClientConnectorCertificateError as error:  # the same again would not help
            raise PostError(_words(error)) from None
        except ValueError:  # aiohttp.InvalidURL too, after a redirect perhaps; the address itself may be secret
            raise PostError("an address that cannot be used") from None
        except (aiohttp.ClientError, OSError) as error:
            raise _Again(_words(error)) from None
        if status == 429 or status >= 500:
            answer = Answer(status, text, number, gave_up=status != 501)
            if status != 501:
                raise _Again(f"HTTP {status}", answer, self._retry_after(status, headers))
            return answer
        return Answer(status, text, number)

    async def _follow(self, url: str, request: _Request) -> tuple[int, Mapping[str, str], str]:
        session = self._opened()
        body: bytes | None = request.body
        for _ in range(MAX_REDIRECTS + 1):
            async with session.request(
                "POST" if body is not None else "GET",
                url,
                data=body,
                headers={**request.headers, **({"Content-Type": "application/json"} if body is not None else {})},
                proxy=request.proxy or self._proxy_for(url),
                ssl=request.verify,
                allow_redirects=False,
            ) as answer:
                if answer.status not in (*_SEE_OTHER, *_SAME_AGAIN):
                    return answer.status, answer.headers, await _read(answer)
                location = answer.headers.get("Location")
            if not location:
                raise PostError(f"HTTP {answer.status} without a Location to go to")
            target = urljoin(url, location)
            if urlsplit(target).scheme not in ("http", "https"):
                raise PostError(f"HTTP {answer.status} leads to something else than http or https")
            if urlsplit(target).netloc != urlsplit(url).netloc:
                request = request.for_strangers()
            url = target
            if answer.status in _SEE_OTHER:
                body = None
        raise PostError(f"stopped after {MAX_REDIRECTS} redirects")

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(force_close=True, limit=0),  # bounded by the semaphore
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # each try has its own
                headers={"User-Agent": f"meshproxy/{__version__}"},
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        return self._session

    def _retry_after(self, status: int, headers: Mapping[str, str]) -> float | None:
        """RFC 9110 10.2.3: seconds or a date; for 429 and 503, as go-retryablehttp, at most MAX_RETRY_AFTER_S."""
        text = headers.get("Retry-After", "").strip()
        if status not in (429, 503) or not text:
            return None
        if text.isdecimal():
            return min(MAX_RETRY_AFTER_S, float(text[:9]))
        try:
            return min(MAX_RETRY_AFTER_S, max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - self._now()))
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class _Request:
    body: bytes
    headers: Mapping[str, str]
    verify: bool
    proxy: str

    def for_strangers(self) -> _Request:
        """The same without what only the first server may see."""
        kept = {name: value for name, value in self.headers.items() if name.lower() != "authorization"}
        return _Request(self.body, kept, self.verify, self.proxy)


async def _read(answer: aiohttp.ClientResponse) -> str:
    parts, size = [], 0
    while size < MAX_BODY_BYTES and (part := await answer.content.read(MAX_BODY_BYTES - size)):
        parts.append(part)
        size += len(part)
    if not answer.content.at_eof():
        answer.close()  # never read to its end: there may be none
    return b"".join(parts).decode("utf-8", "replace")


def _words(error: BaseException) -> str:
    """Without the address: the path of a chat service's hook is its password."""
    if isinstance(error, aiohttp.ClientResponseError):
        return f"{type(error).__name__}: {error.status} {error.message}"
    return str(error) or type(error).__name__


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

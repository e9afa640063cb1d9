"""Reading proxies' pages: what `stat` and the live view of the demo do every few seconds.

addresses --GET /metrics?name[]=...--> Scrape (a page each, or the reason why there is none)
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

import aiohttp

from meshproxy.telemetry.golden import NAMES, Page, parse

TIMEOUT_S: Final = 3.0
MAX_PAGE: Final = 64 * 1024 * 1024  # a page of 1,000 label sets is some MB; what is larger is no proxy of ours
MAX_AT_ONCE: Final = 16


@dataclass(slots=True)
class Scrape:
    """One look at several proxies.  `at` is when each page arrived, monotonic seconds."""

    pages: dict[str, Page] = field(default_factory=dict)
    at: dict[str, float] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


async def scrape(targets: Mapping[str, str], names: Collection[str] = NAMES, timeout_s: float = TIMEOUT_S) -> Scrape:
    """`targets`: name -> "host:port" of an admin listener.  Never raises for what a proxy does: see `problems`."""
    result = Scrape()
    room = asyncio.Semaphore(MAX_AT_ONCE)
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    # trust_env stays off: http_proxy is the mesh's own way in, and a proxy's page is not behind it.
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=MAX_AT_ONCE)) as session:

        async def one(name: str, address: str) -> None:
            try:
                async with room:
                    result.pages[name] = parse(await _fetch(session, address, names))
                    result.at[name] = monotonic()
            except TimeoutError:
                result.problems[name] = f"http://{address}/metrics did not answer within {timeout_s:g} s"
            except (aiohttp.ClientError, OSError, ValueError) as error:
                result.problems[name] = f"http://{address}/metrics: {error or type(error).__name__}"

        await asyncio.gather(*(one(name, address) for name, address in targets.items()))
    return result


async def _fetch(session: aiohttp.ClientSession, address: str, names: Collection[str]) -> str:
    async with session.get(f"http://{address}/metrics", params=[("name[]", name) for name in names]) as response:
        response.raise_for_status()
        body = b""
        async for chunk in response.content.iter_chunked(1 << 18):
            body += chunk
            if len(body) > MAX_PAGE:
                raise ValueError(f"the page is larger than {MAX_PAGE} bytes")
        return body.decode("utf-8", "replace")

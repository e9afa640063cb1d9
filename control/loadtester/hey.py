"""`hey` for commands of webhooks: the load generator that Flagger's samples use, as far as they use it.

    -c workers, each: [wait for its next 1/q s] -> request -> count       until -z is over or its share of -n is done

The real one (github.com/rakyll/hey) does not read http_proxy, which is how a process of embedded mode reaches `podinfo.test`;
this one does.  Same flags, a shorter summary; flags that it does not know are named and end it.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from array import array
from collections import Counter
from collections.abc import Sequence

import aiohttp

from control.canary.declared.fields import SpecError, duration
from control.canary.telling.post import environment_proxy

MAX_KEPT = 1_000_000  # latencies kept for the summary, 8 bytes each
MAX_WORKERS = 1000


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="hey", allow_abbrev=False, add_help=False)
    add = made.add_argument
    add("url")
    add("-n", type=int, default=200, help="requests in all")
    add("-c", type=int, default=50, help="workers")
    add("-q", type=float, default=0.0, help="requests a second of each worker; 0: no limit")
    add("-z", type=_seconds, default=0.0, help="how long, e.g. 10s or 1m; -n does not count then")
    add("-m", default="GET", help="method")
    add("-H", action="append", default=[], metavar="NAME: VALUE", help="header; may be repeated")
    add("-t", type=float, default=20.0, help="seconds for a request; 0: no limit")
    add("-A", default="", help="Accept")
    add("-d", default="", help="body")
    add("-D", default="", help="file with the body")
    add("-T", default="text/html", help="Content-Type")
    add("-host", default="", help="Host")
    add("-x", default="", help="proxy, host:port")
    add("-disable-keepalive", action="store_true")
    add("-disable-redirects", action="store_true")
    for name in ("-h2", "-disable-compression"):
        add(name, action="store_true", help="taken, without effect")
    add("-cpus", type=int, default=0, help="taken, without effect")
    return made


class Load:
    """One run; `counts` of statuses and errors, `seconds` of the requests that were answered."""

    def __init__(self, flags: argparse.Namespace) -> None:
        self.flags = flags
        self.counts: Counter[str] = Counter()
        self.seconds = array("d")
        self.took = 0.0
        self._headers = {"User-Agent": "hey/0.0.1", "Content-Type": flags.T}
        if flags.A:
            self._headers["Accept"] = flags.A
        for line in flags.H:
            name, _, value = line.partition(":")
            self._headers[name.strip()] = value.strip()
        if flags.host:
            self._headers["Host"] = flags.host
        self._body = _body(flags)
        proxy = flags.x if "://" in flags.x or not flags.x else f"http://{flags.x}"
        self._proxy = proxy or environment_proxy(flags.url)

    async def run(self) -> None:
        flags = self.flags
        workers = min(flags.c, MAX_WORKERS)
        connector = aiohttp.TCPConnector(limit=workers, force_close=flags.disable_keepalive, ssl=False)
        timeout = aiohttp.ClientTimeout(total=flags.t or None)
        begun = time.monotonic()
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session:
            tasks = [asyncio.create_task(self._work(session, self._share(i, workers))) for i in range(workers)]
            try:
                async with asyncio.timeout(flags.z or None):
                    await asyncio.gather(*tasks)
            except TimeoutError:
                await asyncio.gather(*tasks, return_exceptions=True)
        self.took = time.monotonic() - begun

    def _share(self, worker: int, workers: int) -> int | None:
        if self.flags.z:
            return None
        return int(self.flags.n) // workers + (worker < int(self.flags.n) % workers)

    async def _work(self, session: aiohttp.ClientSession, share: int | None) -> None:
        every = 1 / self.flags.q if self.flags.q else 0.0
        due = time.monotonic() + every
        done = 0
        while share is None or done < share:
            if every:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                due = max(due + every, time.monotonic() - every)  # what was missed is not caught up
            await self._once(session)
            done += 1

    async def _once(self, session: aiohttp.ClientSession) -> None:
        begun = time.perf_counter()
        try:
            async with session.request(
                self.flags.m,
                self.flags.url,
                data=self._body,
                headers=self._headers,
                proxy=self._proxy,
                allow_redirects=not self.flags.disable_redirects,
            ) as answer:
                async for _ in answer.content.iter_chunked(65536):
                    pass
            self.counts[f"[{answer.status}]"] += 1
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self.counts[f"{type(error).__name__}: {error}"[:200]] += 1
            await asyncio.sleep(0.01)  # what refuses at once would be asked without pause
            return
        if len(self.seconds) < MAX_KEPT:
            self.seconds.append(time.perf_counter() - begun)

    def summary(self) -> str:
        seconds = sorted(self.seconds)
        lines = ["", "Summary:", f"  Total:\t{self.took:.4f} secs"]
        if seconds:
            lines += [
                f"  Slowest:\t{seconds[-1]:.4f} secs",
                f"  Fastest:\t{seconds[0]:.4f} secs",
                f"  Average:\t{sum(seconds) / len(seconds):.4f} secs",
                f"  Requests/sec:\t{sum(self.counts.values()) / self.took:.4f}",
                "",
                "Latency distribution:",
                *(f"  {p}% in {seconds[min(len(seconds) - 1, len(seconds) * p // 100)]:.4f} secs" for p in (50, 90, 95, 99)),
            ]
        for title, mine in (("Status code distribution:", True), ("Error distribution:", False)):
            found = [(name, number) for name, number in sorted(self.counts.items()) if name.startswith("[") is mine]
            if found:
                lines += ["", title, *(f"  {name}\t{number} {'responses' if mine else ''}".rstrip() for name, number in found)]
        return "\n".join(lines)


def _body(flags: argparse.Namespace) -> bytes | None:
    if flags.D:
        with open(flags.D, "rb") as file:
            return file.read()
    return flags.d.encode() if flags.d else None


def _seconds(text: str) -> float:
    try:
        return duration(text, "-z", 0.0)
    except SpecError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def main(arguments: Sequence[str]) -> int:
    flags = parser().parse_args(arguments)
    if flags.c < 1 or (not flags.z and flags.n < flags.c):
        print("hey: -n cannot be less than -c, nor -c less than 1", file=sys.stderr)
        return 1
    load = Load(flags)
    asyncio.run(load.run())
    print(load.summary())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

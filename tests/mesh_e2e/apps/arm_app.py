"""An HTTP/1.1 app that is one arm of a release: answers say which pod and revision gave them, and all is in a ledger.

GET anything?id=N     body "<pod> <REVISION>"; before that in <LEDGER>/<namespace>.<pod>.log "<Unix seconds> <N> <status>"
GET /ready            503 while <LEDGER>/<namespace>.<primary or canary>.<REVISION>.unready exists

STATUS of every answer (FAIL_EVERY=n: only of each n-th) after DELAY_MS.  Only the standard library: it starts at once.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

POD, NAMESPACE, REVISION = os.environ["POD_NAME"], os.environ["POD_NAMESPACE"], os.environ.get("REVISION", "")
STATUS, EVERY = int(os.environ.get("STATUS", "200")), int(os.environ.get("FAIL_EVERY", "1"))
DELAY_S = int(os.environ.get("DELAY_MS", "0")) / 1000
HOME = Path(os.environ["LEDGER"])
LEDGER = os.open(HOME / f"{NAMESPACE}.{POD}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
ARM = "primary" if "-primary-" in POD else "canary"
LINGER_S = 0.7  # goes on answering for so long when it is told to end: callers hear of it later


class Arm:
    asked = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                status = await self.status(head.split(b" ", 2)[1].decode())
                body = f"{POD} {REVISION}".encode()
                writer.write(b"HTTP/1.1 %d Said\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def status(self, target: str) -> int:
        if target == "/ready":
            return 503 if (HOME / f"{NAMESPACE}.{ARM}.{REVISION}.unready").exists() else 200
        self.asked += 1
        status = STATUS if self.asked % EVERY == 0 else 200
        # Before anything else, with one system call: what is in the ledger was begun, also if this process is killed.
        os.write(LEDGER, f"{time.time():.4f} {target.partition('id=')[2]} {status}\n".encode())
        await asyncio.sleep(DELAY_S)
        return status


async def main() -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, loop.call_later, LINGER_S, ended.set)
    async with await asyncio.start_server(Arm().serve, os.environ["POD_IP"], 8080):
        await ended.wait()
    os._exit(0)  # connections that are kept alive are not waited for


if __name__ == "__main__":
    asyncio.run(main())

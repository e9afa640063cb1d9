"""The app of `benchmarks.pull`: `python pull_arm.py POD_IP POD_NAME FAIL_EVERY`.  Answers with its pod's name.

FAIL_EVERY=n: every n-th answer is a 500 (0: none).  Only the standard library: it starts at once.
"""

from __future__ import annotations

import asyncio
import signal
import sys

ADDRESS, POD, EVERY = sys.argv[1], sys.argv[2], int(sys.argv[3])
LINGER_S = 0.7  # goes on answering for so long when it is told to end: callers hear of it later


class Arm:
    asked = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.asked += 1
                status = 500 if EVERY and self.asked % EVERY == 0 else 200
                body = POD.encode()
                writer.write(b"HTTP/1.1 %d Said\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


async def main() -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, loop.call_later, LINGER_S, ended.set)
    async with await asyncio.start_server(Arm().serve, ADDRESS, 8080):
        await ended.wait()


if __name__ == "__main__":
    asyncio.run(main())

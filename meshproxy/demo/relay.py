"""A wire tap with permission: passes bytes between a proxy and a pod, keeps them, and looks for the marker in them.

    caller's sidecar ----TCP----> relay (an address of its own in the mesh's network) ----TCP----> the pod, same port
                                    |
                                    +--> recording (bounded), bytes counted each way, marker counted

It understands nothing of what passes.  Callers come to it because an EndpointSlice names it as one more address of the
pod: see scratch.relay_manifest.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

from meshproxy.demo.observed import Recording

KEEP_BYTES = 16 << 20  # of the recording file; counting and looking go on beyond
CHUNK = 64 << 10
CONNECT_S = 3.0


class Search:
    """Counts a marker in a stream of bytes, however the stream is cut."""

    def __init__(self, marker: bytes) -> None:
        if not marker:
            raise ValueError("nothing to look for: the marker is empty")
        self.marker = marker
        self.found = 0
        self._tail = b""  # what a marker could have begun with; shorter than a marker, so none is counted twice

    def feed(self, data: bytes) -> None:
        window = self._tail + data
        self.found += window.count(self.marker)
        keep = len(self.marker) - 1
        # After a match nothing up to its end may be looked at again.
        start = max(window.rfind(self.marker) + len(self.marker), 0) if self.marker in window else 0
        self._tail = window[max(start, len(window) - keep) :] if keep else b""


class Relay:
    """Listens on `address` at each of `ports` and passes everything to `target` at the same port."""

    def __init__(self, address: str, ports: tuple[int, ...], target: str, marker: str, file: Path, pod: str = "") -> None:
        self.address = address
        self.ports = ports
        self.target = target
        self.sent = 0
        self.received = 0
        self.connections = 0
        self.leaks = 0
        self._pod = pod
        self._marker = marker.encode()
        self._path = file
        self._kept = 0
        self._servers: list[asyncio.Server] = []
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def recording(self) -> Recording:
        return Recording(self.sent, self.received, self.leaks, self._pod)

    async def start(self) -> None:
        """Raises OSError if the address cannot be bound."""
        self._path.write_bytes(b"")
        for port in self.ports:
            self._servers.append(await asyncio.start_server(self._serve(port), self.address, port))

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        for server in self._servers:
            await server.wait_closed()

    def _serve(self, port: int):  # type: ignore[no-untyped-def]
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections += 1
            self._writers.add(writer)
            try:
                await self._pass_on(port, reader, writer)
            finally:
                self._writers.discard(writer)
                writer.close()

        return serve

    async def _pass_on(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.wait_for(asyncio.open_connection(self.target, port), CONNECT_S)
        except (OSError, TimeoutError):
            writer.transport.abort()  # as the pod itself would look: nobody there
            return
        self._writers.add(there[1])
        try:
            await asyncio.gather(self._copy(reader, there[1], True), self._copy(there[0], writer, False))
        finally:
            self._writers.discard(there[1])
            there[1].close()

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, towards_pod: bool) -> None:
        search = Search(self._marker)
        with suppress(OSError):  # ConnectionError while there is data; ENOTCONN from the last line if the other side is gone
            while data := await source.read(CHUNK):
                before = search.found
                search.feed(data)
                self.leaks += search.found - before
                if towards_pod:
                    self.sent += len(data)
                else:
                    self.received += len(data)
                self._keep(data)
                sink.write(data)
                await sink.drain()  # a slow reader slows its writer
            if sink.can_write_eof():
                sink.write_eof()
            return
        sink.transport.abort()  # a reset is passed on as one

    def _keep(self, data: bytes) -> None:
        part = data[: KEEP_BYTES - self._kept]
        if part:
            self._kept += len(part)
            with self._path.open("ab") as file:
                file.write(part)

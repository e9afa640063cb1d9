"""The recording relay passes everything on, and finds the marker wherever it stands in the stream."""

from __future__ import annotations

import asyncio
import contextlib
import itertools

from hypothesis import given
from hypothesis import strategies as st
from shop_processes import free_address

from meshproxy.demo.relay import Relay, Search

PORT = 4143


@given(
    pieces=st.lists(st.sampled_from([b"mark-1", b"mark-", b"1", b"m", b"x", b"ark", b"mark"]), max_size=30),
    cuts=st.lists(st.integers(0, 200), max_size=20),
)
def test_the_marker_is_found_however_the_stream_is_cut(pieces, cuts):
    stream = b"".join(pieces)
    search = Search(b"mark-1")
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    for start, end in itertools.pairwise(edges):
        search.feed(stream[start:end])
    assert search.found == stream.count(b"mark-1")


async def echo(reader, writer):
    while data := await reader.read(1000):
        writer.write(data.upper())
        await writer.drain()
    writer.write(b"that was all")
    writer.close()


async def test_bytes_pass_both_ways_and_are_kept_and_counted(tmp_path):
    pod, address = free_address(), free_address()
    server = await asyncio.start_server(echo, pod, PORT)
    relay = Relay(address, (PORT,), pod, "SECRET", tmp_path / "recording", "prices-1")
    await relay.start()
    try:
        reader, writer = await asyncio.open_connection(address, PORT)
        writer.write(b"hello, secret " * 5000)
        writer.write_eof()
        answer = await reader.read()
        assert answer == b"HELLO, SECRET " * 5000 + b"that was all"
        writer.close()
        assert relay.recording.sent == 70_000
        assert relay.recording.received == 70_012
        assert relay.recording.leaks == 5000  # upper case comes back; what went out is lower case
        assert relay.recording.pod == "prices-1"
        assert (tmp_path / "recording").stat().st_size == 140_012
    finally:
        await relay.close()
        server.close()


async def test_when_the_pod_is_gone_the_caller_is_cut_off(tmp_path):
    pod, address = free_address(), free_address()
    relay = Relay(address, (PORT,), pod, "marker", tmp_path / "recording")
    await relay.start()
    try:
        reader, writer = await asyncio.open_connection(address, PORT)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
    finally:
        await relay.close()


async def test_closing_the_relay_ends_what_passes_through_it(tmp_path):
    pod, address = free_address(), free_address()
    server = await asyncio.start_server(echo, pod, PORT)
    relay = Relay(address, (PORT,), pod, "marker", tmp_path / "recording")
    await relay.start()
    reader, writer = await asyncio.open_connection(address, PORT)
    writer.write(b"hi")
    assert await reader.readexactly(2) == b"HI"
    await relay.close()
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""
    writer.close()
    server.close()

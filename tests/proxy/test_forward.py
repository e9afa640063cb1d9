"""`meshproxy forward` between real sockets: what a client sees, what a backend sees, what is counted."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress

import pytest
from proxy_peers import free_port, parse, read_head, request, until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def answer_ok(reader, writer):
    while True:
        await read_head(reader)
        writer.write(OK)


async def test_a_request_arrives_with_its_name_case_and_a_request_id(forward, peer):
    seen = []

    async def script(reader, writer):
        seen.append(await read_head(reader))
        writer.write(OK)

    backend = await peer(script)
    proxy = await forward(f"127.0.0.1:{backend.port}")
    raw = b"GET /a?b=c HTTP/1.1\r\nHost: shop\r\nX-CamelCase: Yes\r\nConnection: close, X-Gone\r\nX-Gone: 1\r\n\r\n"
    status, _, body = await request(proxy.port, raw)
    assert (status, body) == (200, b"ok")
    head = seen[0]
    assert head.startswith(b"GET /a?b=c HTTP/1.1\r\n")
    assert b"X-CamelCase: Yes\r\n" in head
    assert b"\r\nx-request-id: " in head.lower()
    assert b"X-Gone" not in head


async def test_connections_to_the_backend_are_reused(forward, peer):
    backend = await peer(answer_ok)
    proxy = await forward(f"127.0.0.1:{backend.port}")
    for _ in range(5):
        assert (await request(proxy.port, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"))[0] == 200
    assert backend.connections == 1


async def test_pipelined_requests_are_answered_in_order(forward, peer):
    async def script(reader, writer):
        while True:
            head = await read_head(reader)
            path = head.split(b" ")[1]
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path))

    backend = await peer(script)
    proxy = await forward(f"127.0.0.1:{backend.port}")
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % i for i in range(8)))
    for i in range(8):
        await read_head(reader)
        assert await reader.readexactly(2) == b"/%d" % i
    writer.close()


async def test_a_refused_connection_is_502_and_names_itself(forward):
    proxy = await forward(f"127.0.0.1:{free_port()}")
    status, fields, body = await request(proxy.port, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert status == 502
    assert fields[b"mesh-error"] == b"connect_failed"
    assert body.startswith(b"connect_failed: ")
    assert await proxy.total("meshproxy_refused_total", reason="connect_failed") == 1


async def test_an_idempotent_request_moves_on_when_its_endpoint_dies_before_answering(forward, peer):
    async def dies(reader, writer):
        await read_head(reader)
        writer.transport.abort()

    bad = await peer(dies)
    good = await peer(answer_ok)
    proxy = await forward(f"127.0.0.1:{bad.port}", f"127.0.0.1:{good.port}")
    for _ in range(20):
        assert (await request(proxy.port, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"))[0] == 200
    assert bad.connections >= 1
    assert await proxy.total("route_retry_total") >= 1


async def test_a_post_that_may_have_been_acted_on_is_not_sent_again(forward, peer):
    async def dies(reader, writer):
        await read_head(reader)
        writer.transport.abort()

    first, second = await peer(dies), await peer(dies)
    proxy = await forward(f"127.0.0.1:{first.port}", f"127.0.0.1:{second.port}")
    raw = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"
    status, fields, _ = await request(proxy.port, raw)
    assert (status, fields[b"mesh-error"]) == (502, b"upstream_reset")
    assert first.connections + second.connections == 1
    assert await proxy.total("route_retry_skipped_total", reason="not_idempotent") == 1


async def test_a_post_whose_connection_was_refused_goes_to_another_endpoint(forward, peer):
    good = await peer(answer_ok)
    proxy = await forward(f"127.0.0.1:{free_port()}", f"127.0.0.1:{good.port}")
    raw = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"
    for _ in range(6):
        assert (await request(proxy.port, raw))[0] == 200


async def test_the_request_timeout_answers_504_and_cancels_upstream(forward, peer):
    gone = asyncio.Event()

    async def silent(reader, writer):
        await read_head(reader)
        assert await reader.read(1) == b""  # the proxy closes its connection: nobody works for nobody
        gone.set()

    backend = await peer(silent)
    proxy = await forward(f"127.0.0.1:{backend.port}", "--timeout", "0.3")
    status, fields, _ = await request(proxy.port, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert (status, fields[b"mesh-error"]) == (504, b"request_timeout")
    await asyncio.wait_for(gone.wait(), 10)


async def test_a_client_that_leaves_cancels_upstream_and_is_counted_apart(forward, peer):
    asked, gone = asyncio.Event(), asyncio.Event()

    async def silent(reader, writer):
        await read_head(reader)
        asked.set()
        await reader.read(1)
        gone.set()

    backend = await peer(silent)
    proxy = await forward(f"127.0.0.1:{backend.port}")
    _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await asyncio.wait_for(asked.wait(), 10)
    writer.transport.abort()
    await asyncio.wait_for(gone.wait(), 10)

    async def counted():
        return await proxy.total("meshproxy_route_cancelled_total") == 1

    await until(counted, "the cancelled request in the metrics")
    assert await proxy.total("route_response_total", classification="failure") == 0


async def test_a_truncated_answer_never_looks_complete(forward, peer):
    async def cut(reader, writer):
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await writer.drain()

    backend = await peer(cut)
    proxy = await forward(f"127.0.0.1:{backend.port}")
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    data = b""
    with suppress(ConnectionResetError):
        data = await asyncio.wait_for(reader.read(-1), 10)
    assert b"0\r\n\r\n" not in data
    writer.close()
    assert await proxy.total("response_total", error="reset") == 1


async def test_a_slow_reader_stops_its_backend_and_loses_nothing(forward, peer):
    sent = 0
    total = 64 * 1024 * 1024
    blocked = asyncio.Event()

    async def firehose(reader, writer):
        nonlocal sent
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        writer.transport.set_write_buffer_limits(high=65536)
        chunk = b"x" * 65536
        while sent < total:
            writer.write(chunk)
            sent += len(chunk)
            try:
                await asyncio.wait_for(asyncio.shield(writer.drain()), 1)
            except TimeoutError:
                blocked.set()
                await writer.drain()

    backend = await peer(firehose)
    proxy = await forward(f"127.0.0.1:{backend.port}")
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port, limit=65536)
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    await asyncio.wait_for(blocked.wait(), 20)
    assert sent < total  # the backend could not send it all while nobody read
    await read_head(reader)
    got = 0
    while data := await reader.read(1 << 20):
        got += len(data)
    assert got == total
    writer.close()


async def test_sigterm_lets_requests_in_flight_finish(forward, peer):
    asked, go = asyncio.Event(), asyncio.Event()

    async def waits(reader, writer):
        await read_head(reader)
        asked.set()
        await go.wait()
        writer.write(OK)

    backend = await peer(waits)
    proxy = await forward(f"127.0.0.1:{backend.port}")
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await asyncio.wait_for(asked.wait(), 10)
    proxy.process.send_signal(signal.SIGTERM)

    async def refuses():
        try:
            _, probe = await asyncio.open_connection("127.0.0.1", proxy.port)
        except OSError:
            return True
        probe.close()
        return False

    await until(refuses, "the listener closed")
    go.set()
    status, fields, body = parse(await asyncio.wait_for(reader.read(-1), 10))
    assert (status, body) == (200, b"ok")
    assert fields[b"connection"] == b"close"
    assert await proxy.process.wait() == 0
    writer.close()


async def test_other_bytes_pass_through_both_ways_with_half_close(forward, peer):
    async def shout(reader, writer):
        data = await reader.read(-1)  # until the client's half-close
        writer.write(data.upper())
        await writer.drain()

    backend = await peer(shout)
    proxy = await forward(f"127.0.0.1:{backend.port}")
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"\x00\x01 some protocol of its own")
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(-1), 10) == b"\x00\x01 SOME PROTOCOL OF ITS OWN"
    writer.close()


@pytest.mark.parametrize("page", ["/ready", "/live", "/config", "/metrics"])
async def test_the_admin_pages_answer(forward, page):
    proxy = await forward("127.0.0.1:9")
    raw = b"GET %b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % page.encode()
    assert (await request(proxy.admin, raw))[0] == 200


async def test_a_taken_port_is_said_and_ends_with_status_1(forward, peer):
    backend = await peer(answer_ok)
    import sys

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "meshproxy", "forward", f"127.0.0.1:{backend.port}", "127.0.0.1:9", stderr=asyncio.subprocess.PIPE
    )
    _, err = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 1
    assert f"cannot listen on 127.0.0.1:{backend.port}".encode() in err
    assert b"another process listens there" in err


async def test_a_client_that_half_closes_after_its_request_gets_the_answer(forward, peer):
    backend = await peer(answer_ok)
    proxy = await forward(f"127.0.0.1:{backend.port}")
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    writer.write_eof()
    status, _, body = parse(await asyncio.wait_for(reader.read(-1), 10))
    assert (status, body) == (200, b"ok")
    writer.close()


async def test_the_date_of_answers_is_made_once_a_second(houses):
    ctx = houses().ctx
    ctx.clock = lambda: 784887151.25
    ctx.now += 60.0
    made = ctx.dated()
    assert [(field.name, field.value) for field in made] == [(b"date", b"Tue, 15 Nov 1994 08:12:31 GMT")]
    ctx.clock = lambda: 784887152.0
    ctx.now += 0.74
    assert ctx.dated() is made
    ctx.now += 0.02
    assert ctx.dated()[0].value == b"Tue, 15 Nov 1994 08:12:32 GMT"
    ctx.now += 0.99
    assert ctx.dated()[0].value == b"Tue, 15 Nov 1994 08:12:32 GMT"

"""The sidecar's own gRPC client on real sockets: against grpcio's servers, and against servers that misbehave."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_peers import (
    GOAWAY,
    GOOD,
    HEAD,
    HELLO,
    PING,
    RST_STREAM,
    WINDOW_UPDATE,
    Peer,
    Seen,
    data,
    h2_frame,
    headers,
    message,
    says,
)
from loopback_ports import free_port
from plane import DEADLINE, TD, Plane, soon, until

from certs.authority import create_authority, load_authority
from certs.issue import issue_svid
from certs.spiffe import SpiffeId
from certs.svid import Svid
from control.api import mesh_pb2, workload_pb2
from control.api.names import CONTROL_DNS_NAME
from meshproxy.mesh import channel as channel_module
from meshproxy.mesh.call import Call
from meshproxy.mesh.channel import Channel, open_channel, open_local_channel
from meshproxy.mesh.rpc import CERTIFY, WATCH, Method, RpcError, StatusCode
from meshproxy.mesh.spire import FETCH_X509_SVID
from meshproxy.policy.deadline import parse_timeout
from meshproxy.proxy.tls import TlsLayer
from meshproxy.wire.http2 import Http2Client

ASK = mesh_pb2.CertifyRequest(pod="web-1")
ANSWER = mesh_pb2.CertifyResponse(leaf_der=b"leaf")
HTML = (("content-type", "text/html"),)


async def failure(awaitable: Awaitable[Any]) -> str:
    with pytest.raises(RpcError) as raised:
        await soon(awaitable)
    return str(raised.value)


def local(target: str, **more: Any) -> Channel:
    return Channel(target, "localhost", None, more.pop("keepalive_s", None), **more)


# ---------------------------------------------------------------- grpcio's servers


class Servicer:
    """Bytes in, bytes out."""

    def __init__(self) -> None:
        self.metadata: dict[str, Any] = {}
        self.remaining: float | None = None
        self.ended = asyncio.Event()

    async def certify(self, request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        self.metadata = {str(key): value for key, value in context.invocation_metadata() or ()}
        self.remaining = context.time_remaining()
        asked = mesh_pb2.CertifyRequest.FromString(request)
        if asked.pod.startswith("abort"):
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"no: {asked.pod}")
        return mesh_pb2.CertifyResponse(leaf_der=b"x" * int(asked.namespace or "3")).SerializeToString()

    async def watch(self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        try:
            async for request in requests:
                asked = mesh_pb2.Request.FromString(request)
                for version in range(int(asked.hello.pod or "1")):
                    yield mesh_pb2.Update(version=version).SerializeToString()
        finally:
            self.ended.set()


@asynccontextmanager
async def real_server(directory: Path) -> AsyncIterator[tuple[str, Servicer, grpc.aio.Server]]:
    servicer = Servicer()
    server = grpc.aio.server(options=[("grpc.max_send_message_length", -1)])
    handlers = {
        "Certify": grpc.unary_unary_rpc_method_handler(servicer.certify),
        "Watch": grpc.stream_stream_rpc_method_handler(servicer.watch),
    }
    for service in ("Identity", "Configuration"):
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(f"meshproxy.v1.{service}", handlers),))
    target = f"unix://{directory / 'real.sock'}"
    server.add_insecure_port(target)
    await server.start()
    try:
        yield target, servicer, server
    finally:
        await server.stop(0)


async def test_a_unary_call_brings_its_deadline_and_takes_a_large_answer(tmp_path: Path) -> None:
    size = 20 << 20
    async with real_server(tmp_path) as (target, servicer, _), open_local_channel(target) as channel:
        answer = await soon(channel.unary(CERTIFY, mesh_pb2.CertifyRequest(namespace=str(size)), 14))
        assert len(answer.leaf_der) == size
        assert servicer.remaining is not None
        assert 0 < servicer.remaining <= 14
        assert servicer.metadata["user-agent"].startswith("meshproxy/")
        again = await soon(channel.unary(CERTIFY, ASK, 14))  # and the connection goes on
        assert again.leaf_der == b"xxx"


async def test_an_abort_of_the_server_arrives_with_its_words(tmp_path: Path) -> None:
    async with real_server(tmp_path) as (target, _, _), open_local_channel(target) as channel:
        said = await failure(channel.unary(CERTIFY, mesh_pb2.CertifyRequest(pod="abort 100 % \u00e4"), 14))
    assert said == "FAILED_PRECONDITION: no: abort 100 % \u00e4"


async def test_a_method_that_the_server_does_not_have_is_unimplemented(tmp_path: Path) -> None:
    nothing = Method("/meshproxy.v1.Identity/Nothing", mesh_pb2.CertifyRequest, mesh_pb2.CertifyResponse)
    async with real_server(tmp_path) as (target, _, _), open_local_channel(target) as channel:
        assert (await failure(channel.unary(nothing, ASK, 14))).startswith("UNIMPLEMENTED: ")


async def test_a_stream_in_both_directions_keeps_order_and_ends_well(tmp_path: Path) -> None:
    async with real_server(tmp_path) as (target, _, _), open_local_channel(target) as channel:
        call = await channel.start(WATCH)
        for count in (1, 2000, 3):
            await soon(call.write(mesh_pb2.Request(hello=mesh_pb2.Hello(pod=str(count)))))
            for version in range(count):
                update = await soon(call.read())
                assert update is not None
                assert update.version == version
        large = "x" * 3_000_000  # more than windows and socket take at once
        await soon(call.write(mesh_pb2.Request(hello=mesh_pb2.Hello(pod="1", version=large)), last=True))
        assert await soon(call.read()) is not None
        assert await soon(call.read()) is None
        assert await soon(call.read()) is None
        await soon(call.write(mesh_pb2.Request()))  # nobody wants it any more: no error


@pytest.mark.parametrize("how", ["cancel", "close"])
async def test_a_call_given_up_ends_at_the_server_and_leaves_no_task(tmp_path: Path, how: str) -> None:
    async with real_server(tmp_path) as (target, servicer, _):
        before = len(asyncio.all_tasks())
        async with open_local_channel(target) as channel:
            call = await channel.start(WATCH)
            await soon(call.write(mesh_pb2.Request()))
            assert await soon(call.read()) is not None
            reading = asyncio.create_task(call.read())
            await asyncio.sleep(0)
            if how == "cancel":
                call.cancel()
            else:
                await channel.close()
            with pytest.raises(RpcError) as raised:
                await soon(reading)
            assert raised.value.code == StatusCode.CANCELLED
            await soon(servicer.ended.wait())
        await until(lambda: len(asyncio.all_tasks()) <= before)


async def test_a_cancelled_reader_may_read_again_and_has_lost_nothing(tmp_path: Path) -> None:
    async with real_server(tmp_path) as (target, _, _), open_local_channel(target) as channel:
        call = await channel.start(WATCH)
        reading = asyncio.create_task(call.read())
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await soon(call.write(mesh_pb2.Request()))
        assert await soon(call.read()) is not None


async def test_a_server_that_stops_gently_lets_the_call_end_and_takes_no_other(tmp_path: Path) -> None:
    """GOAWAY in the middle of a stream."""
    async with real_server(tmp_path) as (target, _, server), open_local_channel(target) as channel:
        call = await channel.start(WATCH)
        await soon(call.write(mesh_pb2.Request()))
        assert await soon(call.read()) is not None
        stopping = asyncio.ensure_future(server.stop(10))

        async def refused() -> str:
            while True:
                try:
                    other = await channel.start(CERTIFY)
                except RpcError as error:
                    return str(error)
                other.cancel()
                await asyncio.sleep(0.005)

        assert await soon(refused()) == "UNAVAILABLE: the server says GOAWAY (NO_ERROR)"
        await soon(call.write(mesh_pb2.Request(), last=True))
        assert await soon(call.read()) is not None
        assert await soon(call.read()) is None
        await soon(stopping)


# ---------------------------------------------------------------- servers that misbehave


def answers(*what: bytes, cut: bool = False) -> Callable[[Seen], Awaitable[None]]:
    async def act(seen: Seen) -> None:
        await says(seen, *what)
        if cut:
            seen.writer.close()

    return act


async def hangs_up(seen: Seen) -> None:
    await seen.reader.read(65536)  # unread bytes would turn the FIN into an RST
    seen.writer.close()


BODY = message(ANSWER.SerializeToString())
WRONG: dict[str, tuple[Callable[[Seen], Awaitable[None]], str]] = {
    "compressed flag": (answers(HEAD, data(message(b"x", flag=1)), GOOD), "INTERNAL: a message is compressed, which was not"),
    "above the bound": (
        answers(HEAD, data(b"\0\x02\0\0\1")),
        "RESOURCE_EXHAUSTED: a message of 33554433 bytes; at most 33554432 are taken",
    ),
    "no message": (answers(HEAD, GOOD), "INTERNAL: the server answered with no message; one was expected"),
    "two messages": (answers(HEAD, data(BODY * 2), GOOD), "INTERNAL: the server answered with more than one message"),
    "another message": (answers(HEAD, data(message(b"\xff\xff")), GOOD), "INTERNAL: the answer to /meshproxy.v1.Identity/Cer"),
    "within a message": (answers(HEAD, data(BODY[:-1]), GOOD), "INTERNAL: the answer ended within a message"),
    "trailers missing": (answers(HEAD, data(BODY, end=True)), "UNKNOWN: the answer ended without a grpc-status"),
    "no status in them": (
        answers(HEAD, data(BODY), headers(("x", "y"), end=True)),
        "UNKNOWN: the answer ended without a grpc-status",
    ),
    "a head alone": (
        answers(headers((":status", "200"), ("content-type", "application/grpc"), end=True)),
        "UNKNOWN: the answer ended with its head",
    ),
    "a web page": (answers(headers((":status", "404"), *HTML), data(b"<html>")), "UNIMPLEMENTED: HTTP status 404 and no"),
    "overloaded": (answers(headers((":status", "503"), *HTML, end=True)), "UNAVAILABLE: HTTP status 503 and no grpc-status"),
    "not gRPC": (answers(headers((":status", "200"), *HTML), data(b"<html>")), "UNKNOWN: content-type text/html; application"),
    "trailers-only": (
        answers(headers((":status", "200"), ("grpc-status", "16"), ("grpc-message", "used%3A x"), end=True)),
        "UNAUTHENTICATED: used: x",
    ),
    "no number": (
        answers(HEAD, data(BODY), headers(("grpc-status", "x"), end=True)),
        "UNKNOWN: grpc-status 'x' is no number",
    ),
    "refused stream": (answers(h2_frame(RST_STREAM, 0, 1, b"\0\0\0\7")), "UNAVAILABLE: the server reset the stream: REFUSED"),
    "reset in the middle": (
        answers(HEAD, data(BODY[:4]), h2_frame(RST_STREAM, 0, 1, b"\0\0\0\2")),
        "INTERNAL: the server reset the stream: INTERNAL_ERROR",
    ),
    "malformed head": (answers(headers(("X", "y"), (":status", "200"))), "INTERNAL: the server broke HTTP/2's rules: h2_malf"),
    "bad frame": (answers(HEAD, h2_frame(PING, 0, 0, b"abc")), "UNAVAILABLE: the server broke HTTP/2's rules: h2_frame_size"),
    "bad compression": (
        answers(h2_frame(1, 4, 1, b"\xff\xff\xff\xff\xff\xff")),
        "UNAVAILABLE: the server broke HTTP/2's rules: h2_compression",
    ),
    "leaves before it looked": (
        answers(h2_frame(GOAWAY, 0, 0, b"\0\0\0\0\0\0\0\x0b")),
        "UNAVAILABLE: the server says GOAWAY (ENHANCE_YOUR_CALM)",
    ),
    "leaves and cuts": (
        answers(HEAD, h2_frame(GOAWAY, 0, 0, b"\0\0\0\1\0\0\0\0"), cut=True),
        "UNAVAILABLE: closed by the server: the server says GOAWAY (NO_ERROR)",
    ),
    "cut before the answer": (answers(cut=True), "UNAVAILABLE: closed by the server"),
    "cut in a message": (answers(HEAD, data(BODY[:7]), cut=True), "UNAVAILABLE: closed by the server"),
}


@pytest.mark.parametrize("what", WRONG)
async def test_a_wrong_answer_is_the_right_error_and_the_next_call_is_as_good_as_new(tmp_path: Path, what: str) -> None:
    act, said = WRONG[what]
    peer = Peer(act)
    async with peer.listening(tmp_path):
        async with local(peer.target) as channel:
            assert (await failure(channel.unary(CERTIFY, ASK, 14))).startswith(said)
        assert peer.seen[0].body == message(ASK.SerializeToString())
        peer.act = answers(HEAD, data(BODY), GOOD)
        async with local(peer.target) as channel:
            assert await soon(channel.unary(CERTIFY, ASK, 14)) == ANSWER
        await until(lambda: peer.ended == 2)


NO_SERVER: dict[str, tuple[Callable[[Seen], Awaitable[None]], str]] = {
    "HTTP/1": (
        answers(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        "UNAVAILABLE: the server answers in HTTP/1.x; is that a gRPC port?",
    ),
    "noise": (answers(b"SSH-2.0-OpenSSH_9.6\r\n"), "UNAVAILABLE: the server does not speak HTTP/2: h2_"),
    "another frame first": (answers(GOOD), "UNAVAILABLE: the server does not speak HTTP/2: h2_preface"),
    "closes": (hangs_up, "UNAVAILABLE: closed by the server before it answered"),
    "silence": (answers(), "UNAVAILABLE: connect: nobody answers within 0.2 s"),
}


@pytest.mark.parametrize("what", NO_SERVER)
async def test_what_is_no_grpc_server_is_told_as_what_it_is(tmp_path: Path, what: str) -> None:
    act, said = NO_SERVER[what]
    peer = Peer(act, raw=True)
    async with peer.listening(tmp_path), local(peer.target, connect_s=0.2 if what == "silence" else 14) as channel:
        assert (await failure(channel.start(WATCH))).startswith(said)
        assert (await failure(channel.start(WATCH))).startswith(said)  # it stays as it is


async def test_a_server_that_takes_no_calls_says_so(tmp_path: Path) -> None:
    no_streams = h2_frame(4, 0, 0, b"\0\3\0\0\0\0")  # SETTINGS_MAX_CONCURRENT_STREAMS
    peer = Peer(answers(no_streams), raw=True)
    async with peer.listening(tmp_path), local(peer.target) as channel:
        assert await failure(channel.start(WATCH)) == "UNAVAILABLE: the server takes no calls on this connection"


@pytest.mark.parametrize(
    ("where", "said"), [("connection", "no connection within 0.2 s"), ("answer", "no answer within 0.2 s")]
)
async def test_silence_ends_with_the_deadline_of_the_call(tmp_path: Path, where: str, said: str) -> None:
    peer = Peer(answers(), raw=where == "connection")
    async with peer.listening(tmp_path), local(peer.target) as channel:
        assert await failure(channel.unary(CERTIFY, ASK, 0.2)) == f"DEADLINE_EXCEEDED: {said}"
        if where == "answer":
            seen = peer.seen[0]
            assert parse_timeout(seen.fields["grpc-timeout"].encode()) == pytest.approx(0.2)
            await until(lambda: (RST_STREAM, 0, 1, b"\0\0\0\x08") in seen.frames)  # CANCEL: the server need not go on


async def test_interim_responses_and_unknown_frames_are_no_answer(tmp_path: Path) -> None:
    peer = Peer(answers(headers((":status", "103")), h2_frame(0x42, 0, 0, b"?"), HEAD, data(BODY), GOOD))
    async with peer.listening(tmp_path), local(peer.target) as channel:
        assert await soon(channel.unary(CERTIFY, ASK, 14)) == ANSWER


async def test_an_answer_cut_into_single_bytes_is_the_same_answer(tmp_path: Path) -> None:
    async def act(seen: Seen) -> None:
        for byte in HEAD + b"".join(data(BODY[i : i + 1]) for i in range(len(BODY))) + GOOD:
            await says(seen, bytes([byte]))
            await asyncio.sleep(0)

    peer = Peer(act)
    async with peer.listening(tmp_path), local(peer.target) as channel:
        assert await soon(channel.unary(CERTIFY, ASK, 14)) == ANSWER


async def test_messages_before_a_failure_are_read_before_it(tmp_path: Path) -> None:
    peer = Peer(answers(HEAD, data(message(b"") * 3), h2_frame(RST_STREAM, 0, 1, b"\0\0\0\2")))
    async with peer.listening(tmp_path), local(peer.target) as channel:
        call = await channel.start(WATCH)
        await soon(call.write(mesh_pb2.Request()))
        for _ in range(3):
            assert await soon(call.read()) == mesh_pb2.Update()
        assert await failure(call.read()) == "INTERNAL: the server reset the stream: INTERNAL_ERROR"
        assert await failure(call.write(mesh_pb2.Request())) == "INTERNAL: the server reset the stream: INTERNAL_ERROR"


# ---------------------------------------------------------------- back-pressure, keepalive


class Sender:
    """Sends an answer as fast as the client's window for the stream allows."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.sent = 0
        self.seen: Seen | None = None

    @property
    def granted(self) -> int:
        frames = self.seen.frames if self.seen is not None else []
        return 65535 + sum(
            int.from_bytes(payload, "big") for kind, _, of, payload in frames if (kind, of) == (WINDOW_UPDATE, 1)
        )

    async def __call__(self, seen: Seen) -> None:
        self.seen = seen
        await says(seen, HEAD)
        while self.sent < len(self.answer):
            await until(lambda: self.granted > self.sent)
            piece = self.answer[self.sent : self.sent + min(self.granted - self.sent, 16384)]
            await says(seen, data(piece))
            self.sent += len(piece)
        await says(seen, GOOD)


async def test_a_reader_that_does_not_read_stops_the_server_and_loses_nothing(tmp_path: Path) -> None:
    one = message(mesh_pb2.Update(version=7, removed=[mesh_pb2.ResourceName(name="x" * 100)]).SerializeToString())
    count = 10_000
    sender = Sender(one * count)
    peer = Peer(sender)
    async with peer.listening(tmp_path), local(peer.target) as channel:
        call = await channel.start(WATCH)
        await soon(call.write(mesh_pb2.Request()))
        await until(lambda: sender.sent == sender.granted)
        stalled = sender.sent
        assert stalled <= 300 * 1024
        for _ in range(10):
            await asyncio.sleep(0.005)
            assert sender.sent == stalled  # nobody has read: nothing more is granted
        for _ in range(count):
            update = await soon(call.read())
            assert update is not None
            assert update.version == 7
        assert await soon(call.read()) is None


async def test_a_large_answer_needs_no_pings(tmp_path: Path) -> None:
    """The engine would measure the round-trip by them, and servers take PINGs without data between them for abuse."""
    answer = mesh_pb2.CertifyResponse(leaf_der=bytes(3_000_000))
    peer = Peer(Sender(message(answer.SerializeToString())))
    async with peer.listening(tmp_path), local(peer.target) as channel:
        assert await soon(channel.unary(CERTIFY, ASK, 14)) == answer
        assert peer.seen[0].count(PING) == 0


async def test_a_writer_waits_for_the_window_of_the_server(tmp_path: Path) -> None:
    async def act(seen: Seen) -> None:
        await says(seen, HEAD)

    peer = Peer(act, windows=True)
    large = mesh_pb2.Request(hello=mesh_pb2.Hello(pod="x" * 1000))
    async with peer.listening(tmp_path), local(peer.target) as channel:
        call = await channel.start(WATCH)
        writing = asyncio.create_task(call.write(large))
        await until(lambda: bool(peer.seen) and len(peer.seen[0].body) == 100)  # all that it takes
        assert not writing.done()
        await says(peer.seen[0], h2_frame(WINDOW_UPDATE, 0, 1, (10_000).to_bytes(4, "big")))
        await soon(writing)
        await until(lambda: peer.seen[0].body == message(large.SerializeToString()))


async def test_a_writer_that_waits_learns_that_the_server_is_gone(tmp_path: Path) -> None:
    async def act(seen: Seen) -> None:
        seen.writer.close()

    peer = Peer(act, windows=True)
    async with peer.listening(tmp_path), local(peer.target) as channel:
        call = await channel.start(WATCH)
        await soon(call.write(mesh_pb2.Request(hello=mesh_pb2.Hello(pod="x" * 1000))))
        assert await failure(call.read()) == "UNAVAILABLE: closed by the server"


async def test_a_channel_closes_although_the_server_reads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_module, "CLOSE_S", 0.1)

    async def act(seen: Seen) -> None:
        await says(seen, HELLO + h2_frame(4, 0, 0, b"\0\4\x7f\xff\xff\xff"), h2_frame(WINDOW_UPDATE, 0, 0, b"\x40\0\0\0"))
        seen.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(2 * DEADLINE)

    peer = Peer(act, raw=True)
    async with peer.listening(tmp_path):
        channel = local(peer.target)
        call = await channel.start(WATCH)
        writing = asyncio.create_task(call.write(mesh_pb2.Request(hello=mesh_pb2.Hello(pod="x" * 20_000_000))))
        await until(lambda: bool(peer.seen) and channel._transport.get_write_buffer_size() > 0)
        await soon(channel.close())
        await soon(writing)
        assert await failure(call.read()) == "CANCELLED: the channel was closed here"
        assert channel._transport.get_write_buffer_size() == 0


async def test_a_silent_connection_is_probed_and_kept_while_it_answers(tmp_path: Path) -> None:
    async def act(seen: Seen) -> None:
        await until(lambda: seen.count(PING) >= 3)
        await says(seen, HEAD, data(BODY), GOOD)

    peer = Peer(act)
    async with peer.listening(tmp_path), local(peer.target, keepalive_s=0.02) as channel:
        assert await soon(channel.unary(CERTIFY, ASK, 14)) == ANSWER


async def test_a_connection_on_which_nobody_answers_is_given_up(tmp_path: Path) -> None:
    peer = Peer(answers(HEAD), answer_pings=False)
    async with peer.listening(tmp_path), local(peer.target, keepalive_s=0.02, keepalive_answer_s=0.1) as channel:
        call = await channel.start(WATCH)
        await soon(call.write(mesh_pb2.Request()))
        assert await failure(call.read()) == "UNAVAILABLE: no answer to a PING within 0.1 s"


async def test_to_a_local_agent_no_pings_are_sent(tmp_path: Path) -> None:
    peer = Peer(answers(HEAD))
    async with peer.listening(tmp_path), open_local_channel(peer.target) as channel:
        assert channel._timer is None
        call = await channel.start(FETCH_X509_SVID, metadata=(("workload.spiffe.io", "true"),))
        await soon(call.write(workload_pb2.X509SVIDRequest(), last=True))
        assert channel._timer is None
        await until(lambda: bool(peer.seen) and peer.seen[0].body == message(b""))
        fields = peer.seen[0].fields
        assert (fields[":authority"], fields[":scheme"], fields["workload.spiffe.io"]) == ("localhost", "http", "true")


# ---------------------------------------------------------------- TLS


class Tls:
    """An authority, and servers with certificates of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = self.another("trust")

    def another(self, name: str) -> Any:
        create_authority(self.directory / name, TD, time.time())
        return load_authority(self.directory / name, TD, time.time())

    def svid(self, dns: str = CONTROL_DNS_NAME, now: float = 0.0, lifetime: float = 600, authority: Any = None) -> Svid:
        name = SpiffeId.workload(TD, "meshproxy", "control")
        return issue_svid(authority or self.authority, name, time.time() + now, lifetime, dns or None)

    def context(self, svid: Svid, alpn: tuple[str, ...] = ("h2",), demand: bool = False) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        chain = self.directory / "chain.pem"
        chain.write_bytes(svid.chain_pem + svid.key_pem)
        context.load_cert_chain(chain)
        if alpn:
            context.set_alpn_protocols(list(alpn))
        if demand:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=self.authority.bundle.pem)
        return context

    def old(self) -> ssl.SSLContext:
        context = self.context(self.svid())
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        return context


@pytest.fixture
def tls(tmp_path: Path) -> Tls:
    return Tls(tmp_path)


async def certify_by(tls: Tls, context: ssl.SSLContext | None, svid: Svid | None = None) -> str:
    """The outcome of one call to a server with this context: "ok" or the error."""
    peer = Peer(answers(HEAD, data(BODY), GOOD))
    async with peer.listening(context), open_channel(peer.target, tls.authority.bundle, svid) as channel:
        try:
            assert await soon(channel.unary(CERTIFY, ASK, 14)) == ANSWER
        except RpcError as error:
            assert all(seen.body == b"" for seen in peer.seen)  # the token stays here
            return str(error)
        assert peer.seen[0].fields[":authority"] == CONTROL_DNS_NAME
        return "ok"


async def test_a_server_with_the_control_planes_name_under_our_anchors_is_believed(tls: Tls) -> None:
    assert await certify_by(tls, tls.context(tls.svid())) == "ok"
    assert await certify_by(tls, tls.context(tls.svid(), demand=True), tls.svid("")) == "ok"


TRUST = "UNAVAILABLE: TLS: the server's certificate is not trusted: "


async def test_a_server_of_another_mesh_is_not_believed(tls: Tls) -> None:
    said = await certify_by(tls, tls.context(tls.svid(authority=tls.another("other"))))
    assert said.startswith(TRUST)
    assert said.endswith("(CERTIFICATE_VERIFY_FAILED)")


@pytest.mark.parametrize("dns", ["", "control.example.com"])
async def test_a_server_without_the_control_planes_name_is_not_believed(tls: Tls, dns: str) -> None:
    said = await certify_by(tls, tls.context(tls.svid(dns)))
    assert said.startswith(f"{TRUST}Hostname mismatch, certificate is not valid for '{CONTROL_DNS_NAME}'")


@pytest.mark.parametrize(
    ("now", "said"), [(-3600.0, "it has expired; look at the"), (3600.0, "it is not yet valid; look at the")]
)
async def test_a_server_whose_certificate_is_not_of_today_is_not_believed(tls: Tls, now: float, said: str) -> None:
    assert (await certify_by(tls, tls.context(tls.svid(now=now)))).startswith(TRUST + said)


REFUSES: dict[str, tuple[Callable[[Tls], tuple[ssl.SSLContext, Svid | None]], str]] = {
    "no certificate": (
        lambda tls: (tls.context(tls.svid(), demand=True), None),
        "the server demands a certificate (TLSV13_ALERT_CERTIFICATE_REQUIRED)",
    ),
    "an issuer it does not know": (
        lambda tls: (tls.context(tls.svid(), demand=True), tls.svid("", authority=tls.another("other"))),
        "the server refused our certificate: it does not know the issuer (TLSV1_ALERT_UNKNOWN_CA)",
    ),
    "a certificate that has ended": (
        lambda tls: (tls.context(tls.svid(), demand=True), tls.svid("", now=-3600)),
        "the server refused our certificate: it has expired (SSLV3_ALERT_CERTIFICATE_EXPIRED)",
    ),
    "TLS 1.3": (lambda tls: (tls.old(), None), "the server does not speak TLS 1.3 (TLSV1_ALERT_PROTOCOL_VERSION)"),
    "HTTP/2": (
        lambda tls: (tls.context(tls.svid(), ("http/1.1",)), None),
        "the server does not offer HTTP/2 (ALPN h2)",
    ),
}


@pytest.mark.parametrize("what", REFUSES)
async def test_what_a_server_refuses_by_an_alert_is_told_in_words(tls: Tls, what: str) -> None:
    """OpenSSL's own server, on a thread: asyncio's drops the alert."""
    make, said = REFUSES[what]
    context, svid = make(tls)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False) as secured:
                with suppress(ssl.SSLError):
                    secured.do_handshake()
                with suppress(ConnectionError):
                    while socket.socket.recv(secured, 65536):  # unread bytes would turn its FIN into an RST, and that takes the
                        pass  # alert with it

        serving = asyncio.create_task(asyncio.to_thread(serve))
        async with open_channel(f"127.0.0.1:{listener.getsockname()[1]}", tls.authority.bundle, svid) as channel:
            assert await failure(channel.unary(CERTIFY, ASK, 14)) == f"UNAVAILABLE: TLS: {said}"
        await soon(serving)


REFUSED = (
    "TLS: the server demands a certificate",
    "TLS: the server refused our certificate",
    "after the handshake; it may not believe our certificate, or want one",  # grpcio's server: its close overtakes its alert
)


async def test_the_control_plane_itself_refuses_who_has_no_certificate_of_the_mesh(tmp_path: Path, tls: Tls) -> None:
    plane = Plane(tmp_path / "plane")
    await plane.start()
    try:
        for svid in (None, tls.svid("")):
            async with open_channel(plane.watch, plane.issuer.bundle, svid) as channel:
                said = await failure(channel.start(WATCH))
            assert any(words in said for words in REFUSED), said
    finally:
        await plane.stop()


@pytest.mark.parametrize("alpn", [(), ("http/1.1",)])
async def test_a_server_without_http2_is_not_asked(tls: Tls, alpn: tuple[str, ...]) -> None:
    said = await certify_by(tls, tls.context(tls.svid(), alpn))
    assert said.startswith(("UNAVAILABLE: TLS: the server does not offer HTTP/2",))


async def test_a_server_without_tls_is_told_as_such(tls: Tls) -> None:
    peer = Peer(answers(HELLO), raw=True)
    async with peer.listening(None), open_channel(peer.target, tls.authority.bundle) as channel:
        said = await failure(channel.unary(CERTIFY, ASK, 14))
    assert said == "UNAVAILABLE: TLS: the server does not speak TLS (WRONG_VERSION_NUMBER)"


async def test_a_server_that_closes_in_the_handshake_is_told_as_such(tls: Tls) -> None:
    peer = Peer(hangs_up, raw=True)
    async with peer.listening(None), open_channel(peer.target, tls.authority.bundle) as channel:
        said = await failure(channel.unary(CERTIFY, ASK, 14))
    assert said == "UNAVAILABLE: closed by the server during the handshake"


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("127.0.0.1:{free}", "UNAVAILABLE: connect: Connection refused"),
        ("[::1]:{free}", "UNAVAILABLE: connect: "),
        ("a..b:1", "UNAVAILABLE: connect: the name is "),
        ("nowhere", "UNAVAILABLE: 'nowhere' is no address; host:port was expected"),
        ("host:", "UNAVAILABLE: 'host:' is no address; host:port was expected"),
        ("127.0.0.1:65536", "UNAVAILABLE: '127.0.0.1:65536' is no address; host:port was expected"),
        ("unix:///nowhere/agent.sock", "UNAVAILABLE: connect: No such file or directory"),
    ],
)
async def test_an_address_where_nobody_is(tls: Tls, target: str, said: str) -> None:
    async with open_channel(target.format(free=free_port()), tls.authority.bundle) as channel:
        assert (await failure(channel.unary(CERTIFY, ASK, 14))).startswith(said)


# ---------------------------------------------------------------- what is left


async def test_of_a_channel_that_failed_nothing_is_left_for_the_collector(tls: Tls, tmp_path: Path) -> None:
    """A sidecar's collector looks rarely, and one whose control plane is away tries again for days."""

    def kept() -> int:
        kinds = (Channel, Call, TlsLayer, Http2Client, ssl.SSLContext)
        return sum(isinstance(found, kinds) for found in gc.get_objects())

    closes = Peer(answers(cut=True))
    wrong = Peer(answers(HEAD, data(message(b"x", flag=1))))
    silent = Peer(answers())
    good = Peer(answers(HEAD, data(BODY), GOOD))
    stranger = tls.context(tls.svid(authority=tls.another("other")))
    known = tls.context(tls.svid())

    async def once() -> None:  # no `soon`, no pytest.raises: both keep what they caught
        for peer, context in ((closes, known), (wrong, known), (good, known), (good, stranger), (silent, known)):
            async with peer.listening(context), open_channel(peer.target, tls.authority.bundle) as channel:
                with suppress(RpcError):
                    await channel.unary(CERTIFY, ASK, 0.3 if peer is silent else 14)
            peer.seen.clear()
        async with open_channel(f"127.0.0.1:{free_port()}", tls.authority.bundle) as channel:
            with suppress(RpcError):
                await channel.start(WATCH)

    await once()
    gc.collect()
    gc.disable()
    try:
        before = kept()
        for _ in range(3):
            await once()
        await until(lambda: kept() <= before, f"{kept()} kept, {before} before")
    finally:
        gc.enable()


async def test_a_proxy_recovers_from_a_control_plane_that_misbehaved(tmp_path: Path) -> None:
    """On one address: noise, a wrong answer, then the real one."""
    from test_membership import Proxy, running

    plane = Plane(tmp_path)
    await plane.start()
    await plane.stop()
    chain = tmp_path / "control.pem"
    name = SpiffeId.workload(TD, "meshproxy", "control")
    svid = issue_svid(plane.issuer, name, time.time(), 600, CONTROL_DNS_NAME)
    chain.write_bytes(svid.chain_pem + svid.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    context.set_alpn_protocols(["h2"])
    host, _, port = plane.certify.rpartition(":")
    peer = Peer(answers(HEAD, data(message(b"x", flag=1)), GOOD))
    proxy = Proxy(plane)
    identity = proxy.membership.identity
    async with running(proxy.membership.run()):
        noise = await asyncio.start_server(lambda r, w: (w.write(b"HTTP/1.1 400\r\n\r\n"), None)[1], host, int(port))
        await until(lambda: "does not speak TLS" in identity.last_error)
        noise.close()
        server = await asyncio.start_server(peer.serve, host, int(port), ssl=context)
        await until(lambda: "a message is compressed" in identity.last_error)
        server.close()
        await until(lambda: peer.ended == len(peer.seen))
        await plane.start()
        try:
            await until(lambda: proxy.ready == (True, "ready"))
        finally:
            await plane.stop()

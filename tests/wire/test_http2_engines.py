"""One behaviour suite for every pairing of HTTP/2 engines: ours and the `h2` package's, as client and as server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from http2_harness import Log, Recorder, Seen, pairs, pump, request, response, take

from meshproxy.wire.engine import CANCEL, CONNECT_ERROR, INTERNAL_ERROR, NO_ERROR, REFUSED_STREAM, Engine
from meshproxy.wire.h2_adapter import H2Client, H2Server
from meshproxy.wire.http2 import Http2Client, Http2Server
from meshproxy.wire.limits import Limits
from meshproxy.wire.message import Field, Head, add_field

SERVERS: dict[str, Any] = {"ours": Http2Server, "h2": H2Server}
CLIENTS: dict[str, Any] = {"ours": Http2Client, "h2": H2Client}


class Wire:
    """A client engine and a server engine joined by bytes in memory."""

    def __init__(self, client: Any, server: Any, limits: Limits | None = None, client_limits: Limits | None = None) -> None:
        self.up = Recorder()
        self.down = Recorder()
        self.client: Engine = client(self.up, client_limits or Limits())
        self.server: Engine = server(self.down, limits or Limits())
        self.server.start()
        self.client.start()
        pump(self.client, self.server)

    def pump(self, cut: Callable[[bytes], list[bytes]] | None = None) -> None:
        pump(self.client, self.server, cut)

    def ask(self, head: Any = None, end: bool = True, extra: list[Field] | None = None) -> tuple[Any, Log]:
        stream = self.client.open()
        log = Log()
        stream.sink = log
        stream.send_head(head or request(), extra or [], end)
        return stream, log

    def seen(self, index: int = -1) -> Seen:
        return self.down.requests[index]


@pytest.fixture(params=[f"{c}-{s}" for c in CLIENTS for s in SERVERS])
def make(request: pytest.FixtureRequest) -> Callable[..., Wire]:
    client, server = request.param.split("-")

    def build(limits: Limits | None = None, client_limits: Limits | None = None) -> Wire:
        return Wire(CLIENTS[client], SERVERS[server], limits, client_limits)

    return build


@pytest.fixture
def wire(make: Callable[..., Wire]) -> Wire:
    return make()


def test_no_request_may_be_opened_before_the_servers_settings_arrived() -> None:
    for client in CLIENTS.values():
        host = Recorder()
        engine = client(host, Limits())
        engine.start()
        assert engine.capacity() == 0
        assert host.ready == 0
        peer = H2Server(Recorder(), Limits())
        peer.start()
        engine.receive(take(peer), 0.0)
        assert host.ready == 1
        assert engine.capacity() == Limits().streams


def test_a_request_and_its_response_arrive_as_they_were_sent(wire: Wire) -> None:
    fields = ((b"x-one", b"1"), (b"accept", b"*/*"), (b"x-empty", b""))
    _, log = wire.ask(request(b"GET", b"/a?b=c", b"shop:8080", fields))
    wire.pump()
    seen = wire.seen()
    assert (seen.head.method, seen.head.path, seen.head.authority, seen.head.scheme) == (
        b"GET",
        b"/a?b=c",
        b"shop:8080",
        b"http",
    )
    assert seen.head.version == 20
    assert pairs(seen.head.fields) == list(fields)
    assert seen.log.ended
    seen.stream.send_head(response(200, ((b"server", b"s"), (b"content-length", b"5"))), [], False)
    seen.stream.send_data(b"hello", True)
    wire.pump()
    assert log.head is not None
    assert (log.head.status, pairs(log.head.fields)) == (200, [(b"server", b"s"), (b"content-length", b"5")])
    assert (log.body, log.ended) == (b"hello", True)
    assert (wire.client.active(), wire.server.active()) == (0, 0)


def test_extra_fields_follow_the_head_and_stay_out_of_the_next_one(wire: Wire) -> None:
    head = request(fields=((b"x-one", b"1"),))
    for extra in ([Field(b"mesh-client-id", b"a")], [Field(b"x-hop", b"2")], []):
        wire.ask(head, extra=extra)
        wire.pump()
        seen = wire.seen().head
        assert pairs(seen.fields + seen.mesh) == [(b"x-one", b"1"), *pairs(extra)]


def test_request_body_and_trailers_arrive_in_order(wire: Wire) -> None:
    stream, log = wire.ask(request(b"POST"), end=False)
    stream.send_data(b"one", False)
    wire.pump()
    stream.send_data(b"two", False)
    stream.send_trailers([Field(b"x-sum", b"6")])
    wire.pump()
    seen = wire.seen()
    assert seen.log.body == b"onetwo"
    assert seen.log.trailers == [(b"x-sum", b"6")]
    seen.stream.send_head(response(), [], False)
    seen.stream.send_data(b"ok", False)
    seen.stream.send_trailers([Field(b"grpc-status", b"0")])
    wire.pump()
    assert (log.body, log.trailers) == (b"ok", [(b"grpc-status", b"0")])
    assert (wire.client.active(), wire.server.active()) == (0, 0)


def test_empty_trailers_end_the_message(wire: Wire) -> None:
    stream, _ = wire.ask(request(b"POST"), end=False)
    stream.send_data(b"one", False)
    stream.send_trailers([])
    wire.pump()
    assert wire.seen().log.ended
    assert wire.seen().log.body == b"one"


def test_te_trailers_reaches_the_next_hop_as_grpc_needs_it(wire: Wire) -> None:
    wire.ask(request(b"POST", fields=((b"te", b"trailers"), (b"content-type", b"application/grpc"))))
    wire.pump()
    assert wire.seen().head.trailers_ok
    assert wire.seen().head.grpc


def test_cookie_crumbs_are_joined(wire: Wire) -> None:
    head = request()
    head.fields = [Field(b"cookie", b"a=1"), Field(b"x", b"y"), Field(b"cookie", b"b=2")]
    wire.ask(head)
    wire.pump()
    assert wire.seen().head.field(b"cookie") == b"a=1; b=2"


@pytest.mark.parametrize(
    ("crumbs", "joined"),
    [([b"", b"b=2"], b"b=2"), ([b"a=1", b""], b"a=1"), ([b"", b"a=1", b"", b"b=2"], b"a=1; b=2"), ([b"", b""], b"")],
)
def test_an_empty_cookie_crumb_is_left_out(wire: Wire, crumbs: list[bytes], joined: bytes) -> None:
    head = request()
    head.fields = [Field(b"x", b"y"), *[Field(b"cookie", crumb) for crumb in crumbs]]
    for _ in range(3):  # the third time what requests have in common is known
        wire.ask(head)
        wire.pump()
        assert pairs(wire.seen().head.fields) == [(b"x", b"y"), (b"cookie", joined)]


@pytest.mark.parametrize("how", ["no body", "length 0", "length", "no length"])
def test_who_has_no_content_to_wait_with_does_not_wait_for_100(wire: Wire, how: str) -> None:
    for _ in range(3):
        fields = {"length 0": ((b"content-length", b"0"),), "length": ((b"content-length", b"2"),)}.get(how, ())
        head = request(b"POST", fields=((b"expect", b"100-continue"), *fields))
        stream, _ = wire.ask(head, end=how == "no body")
        wire.pump()
        assert wire.seen().head.expect_continue == (how in ("length", "no length"))
        if how != "no body":
            stream.send_data(b"ok" if how == "length" else b"", True)
            wire.pump()
        assert wire.seen().log.ended


def test_interim_responses_come_before_the_final_one(wire: Wire) -> None:
    stream, log = wire.ask(request(b"POST", fields=((b"expect", b"100-continue"),)), end=False)
    wire.pump()
    seen = wire.seen()
    assert seen.head.expect_continue
    seen.stream.send_interim(response(100))
    seen.stream.send_interim(response(103, ((b"link", b"</a>"),)))
    wire.pump()
    assert [head.status for head in log.interim] == [100, 103]
    assert log.interim[1].field(b"link") == b"</a>"
    stream.send_data(b"x", True)
    seen.stream.send_head(response(204), [], True)
    wire.pump()
    assert log.names() == ["interim", "interim", "head"]
    assert log.ended


@pytest.mark.parametrize("status", [204, 304])
def test_answers_without_a_body_end_with_their_head(wire: Wire, status: int) -> None:
    _, log = wire.ask()
    wire.pump()
    wire.seen().stream.send_head(response(status), [], True)
    wire.pump()
    assert log.events == [("head", status, True)]


def test_a_head_response_may_declare_a_length_it_does_not_send(wire: Wire) -> None:
    _, log = wire.ask(request(b"HEAD"))
    wire.pump()
    wire.seen().stream.send_head(response(200, ((b"content-length", b"1000"),)), [], True)
    wire.pump()
    assert log.events == [("head", 200, True)]
    assert log.head is not None
    assert log.head.content_length == 1000


def test_many_streams_share_a_connection(wire: Wire) -> None:
    asked = [wire.ask(request(path=b"/%d" % i)) for i in range(50)]
    wire.pump()
    assert [seen.head.path for seen in wire.down.requests] == [b"/%d" % i for i in range(50)]
    assert (wire.client.active(), wire.server.active()) == (50, 50)
    for seen in reversed(wire.down.requests):
        seen.stream.send_head(response(), [], False)
        seen.stream.send_data(seen.head.path, True)
    wire.pump()
    assert [log.body for _, log in asked] == [b"/%d" % i for i in range(50)]
    assert (wire.client.active(), wire.server.active()) == (0, 0)


def test_a_client_reset_reaches_the_server_and_ends_the_stream(wire: Wire) -> None:
    stream, log = wire.ask(request(b"POST"), end=False)
    wire.pump()
    stream.reset(CANCEL)
    wire.pump()
    assert wire.seen().log.reset == (CANCEL, False)
    assert log.events == []
    assert (wire.client.active(), wire.server.active()) == (0, 0)
    wire.seen().stream.send_head(response(), [], True)  # too late, and ignored
    wire.pump()
    assert log.events == []


def test_a_refused_stream_was_certainly_not_processed(wire: Wire) -> None:
    _, log = wire.ask()
    wire.pump()
    wire.seen().stream.reset(REFUSED_STREAM)
    wire.pump()
    assert log.reset == (REFUSED_STREAM, True)


def test_a_server_reset_after_the_data_leaves_the_data(wire: Wire) -> None:
    _, log = wire.ask()
    wire.pump()
    wire.seen().stream.send_head(response(), [], False)
    wire.seen().stream.send_data(b"part", False)
    wire.seen().stream.reset(CANCEL)
    wire.pump()
    assert log.body == b"part"
    assert log.reset == (CANCEL, False)


def test_an_early_response_may_end_before_the_request(wire: Wire) -> None:
    stream, log = wire.ask(request(b"POST"), end=False)
    wire.pump()
    wire.seen().stream.send_head(response(413), [], True)
    stream.send_data(b"crosses the response", False)
    wire.pump()
    assert log.events == [("head", 413, True)]
    assert wire.seen().log.events == []
    assert (wire.client.active(), wire.server.active()) == (0, 0)
    stream.send_data(b"too late", True)
    wire.pump()
    assert not wire.server.closing


def test_connect_is_a_tunnel_with_half_close(wire: Wire) -> None:
    stream, log = wire.ask(request(b"CONNECT", b"", b"db:5432"), end=False)
    wire.pump()
    seen = wire.seen()
    assert (seen.head.method, seen.head.authority, seen.head.path) == (b"CONNECT", b"db:5432", b"")
    seen.stream.send_head(response(200), [], False)
    stream.send_data(b"ping", False)
    wire.pump()
    seen.stream.send_data(b"pong", False)
    stream.send_data(b"", True)
    wire.pump()
    assert (seen.log.body, seen.log.ended) == (b"ping", True)
    seen.stream.send_data(b"!", True)
    wire.pump()
    assert (log.body, log.ended) == (b"pong!", True)
    assert (wire.client.active(), wire.server.active()) == (0, 0)


def test_a_refused_connect_is_over_with_its_answer(wire: Wire) -> None:
    stream, log = wire.ask(request(b"CONNECT", b"", b"db:5432"), end=False)
    wire.pump()
    wire.seen().stream.send_head(response(403), [], True)
    stream.send_data(b"eager", False)
    wire.pump()
    assert log.events == [("head", 403, True)]
    assert (wire.client.active(), wire.server.active()) == (0, 0)
    assert not wire.client.closing
    assert not wire.server.closing


def with_length(status: int) -> Head:
    """As an HTTP/1.1 server may say it."""
    head = response(status)
    add_field(head, Field(b"content-length", b"7"))
    return head


@pytest.mark.parametrize(("tunnel", "status"), [(b"", 200), (b"websocket", 101), (b"websocket", 200)])
def test_what_opens_a_tunnel_has_no_length(wire: Wire, tunnel: bytes, status: int) -> None:
    head = request(b"GET", b"/chat", protocol=tunnel) if tunnel else request(b"CONNECT", b"", b"db:5432")
    stream, log = wire.ask(head, end=False)
    wire.pump()
    wire.seen().stream.send_head(with_length(status), [], False)
    wire.seen().stream.send_data(b"longer than seven", False)
    wire.pump()
    assert (log.head and log.head.status, log.body) == (200, b"longer than seven")
    assert log.head is not None
    assert log.head.field(b"content-length") is None
    stream.reset(CANCEL)


@pytest.mark.parametrize("status", [100, 103, 204, 304, 404])
def test_answers_that_may_not_have_a_length_lose_it_on_the_way(wire: Wire, status: int) -> None:
    _, log = wire.ask(request(b"HEAD"))
    wire.pump()
    if status < 200:
        wire.seen().stream.send_interim(with_length(status))
        wire.seen().stream.send_head(response(200), [], True)
    else:
        wire.seen().stream.send_head(with_length(status), [], True)
    wire.pump()
    found = log.interim[0] if status < 200 else log.head
    assert found is not None
    assert (found.status, found.field(b"content-length")) == (status, b"7" if status in (304, 404) else None)


def test_an_upgrade_travels_as_extended_connect(wire: Wire) -> None:
    stream, log = wire.ask(request(b"GET", b"/chat", protocol=b"websocket"), end=False)
    wire.pump()
    seen = wire.seen()
    assert (seen.head.method, seen.head.protocol, seen.head.path) == (b"CONNECT", b"websocket", b"/chat")
    seen.stream.send_head(response(101), [], False)  # an HTTP/1.1 backend's way to say yes
    seen.stream.send_data(b"frame", False)
    stream.send_data(b"emarf", False)
    wire.pump()
    assert log.head is not None
    assert log.head.status == 200
    assert (log.body, seen.log.body) == (b"frame", b"emarf")


@pytest.mark.parametrize(
    ("method", "extra", "expected"),
    [
        (b"GET", [], (b"CONNECT", b"tcp", False)),
        (b"POST", [(b"mesh-upgrade", b"POST")], (b"CONNECT", b"tcp", False)),
        (b"POST", [(b"x-request-id", b"1")], (b"POST", b"", True)),
        (b"HEAD", [], (b"HEAD", b"", True)),
    ],
)
def test_an_upgrade_whose_method_nobody_is_told_is_left_out(
    wire: Wire, method: bytes, extra: list[tuple[bytes, bytes]], expected: tuple[bytes, bytes, bool]
) -> None:
    head = request(method, b"/attach", protocol=b"tcp", fields=((b"content-length", b"0"),))
    stream, log = wire.ask(head, end=False, extra=[Field(*each) for each in extra])
    if expected[2]:
        stream.send_data(b"eager", False)  # it has ended: this is dropped
    wire.pump()
    seen = wire.seen()
    assert (seen.head.method, seen.head.protocol, seen.log.ended) == expected
    assert stream.asked_tunnel() == (not expected[2])
    assert (seen.head.field(b"content-length") is None) == stream.asked_tunnel()
    assert (head.method, head.protocol) == (method, b"tcp")  # heads are shared
    seen.stream.send_head(response(403), [], True)
    wire.pump()
    assert log.events == [("head", 403, True)]


def executes() -> Head:
    return request(b"POST", b"/exec", protocol=b"tcp", fields=((b"content-length", b"5"),))


@pytest.fixture(params=[f"{c}-{s}" for c in CLIENTS for s in SERVERS])
def meshed(request: pytest.FixtureRequest) -> Wire:
    client, server = request.param.split("-")
    return Wire(CLIENTS[client], lambda host, limits: SERVERS[server](host, limits, True))


def test_a_mesh_peer_gets_the_content_of_an_upgrade_and_what_follows_as_one(meshed: Wire) -> None:
    stream, _ = meshed.ask(executes(), end=False, extra=[Field(b"mesh-upgrade", b"POST 5")])
    stream.send_data(b"hello", False)
    stream.send_data(b"raw", False)
    meshed.pump()
    seen = meshed.seen()
    assert stream.asked_tunnel()
    assert (seen.head.method, seen.head.protocol, seen.head.content_length) == (b"CONNECT", b"tcp", -1)
    assert (seen.log.body, seen.log.ended) == (b"helloraw", False)


@pytest.mark.parametrize("extra", [[], [(b"mesh-upgrade", b"POST")], [(b"mesh-upgrade", b"POST 15")]])
def test_content_of_which_the_peer_is_not_told_goes_without_the_upgrade(meshed: Wire, extra: list[tuple[bytes, bytes]]) -> None:
    stream, _ = meshed.ask(executes(), end=False, extra=[Field(*each) for each in extra])
    meshed.pump()
    assert (meshed.seen().head.method, meshed.seen().head.content_length) == (b"POST", 5)
    assert not stream.asked_tunnel()


@pytest.mark.parametrize("pieces", [[b"hello"], [b"he", b"", b"llo"], [b"helloeager"], [b"he", b"lloeager", b"eager"]])
def test_who_does_not_say_that_it_takes_content_gets_the_plain_request_and_its_content_alone(
    wire: Wire, pieces: list[bytes]
) -> None:
    """A peer of an earlier version would take it for the tunnel's."""
    stream, log = wire.ask(executes(), end=False, extra=[Field(b"mesh-upgrade", b"POST 5")])
    for piece in pieces:
        stream.send_data(piece, False)
        wire.pump()
    seen = wire.seen()
    assert (seen.head.method, seen.head.protocol, seen.head.content_length) == (b"POST", b"", 5)
    assert (seen.log.body, seen.log.ended) == (b"hello", True)
    seen.stream.send_head(response(), [], True)
    wire.pump()
    assert log.ended
    assert (wire.client.active(), wire.server.active()) == (0, 0)


def test_plain_content_that_ends_before_its_length_is_never_whole(wire: Wire) -> None:
    stream, log = wire.ask(executes(), end=False)
    stream.send_data(b"he", False)
    stream.send_data(b"l", True)
    wire.pump()
    assert not wire.seen().log.ended
    assert wire.seen().log.reset == (CANCEL, False)
    assert log.reset == (INTERNAL_ERROR, False)
    assert (wire.client.active(), wire.server.active()) == (0, 0)


def test_a_paused_stream_stops_its_sender_and_no_other(wire: Wire) -> None:
    paused, _ = wire.ask(request(b"POST", b"/paused"), end=False)
    other, _ = wire.ask(request(b"POST", b"/other"), end=False)
    wire.pump()
    slow, fast = wire.seen(0), wire.seen(1)
    slow.stream.pause()
    total = 2_000_000
    for _ in range(total // 10_000):
        paused.send_data(b"s" * 10_000, False)
        other.send_data(b"f" * 10_000, False)
        wire.pump()
    assert len(fast.log.body) == total
    assert len(slow.log.body) <= Limits().stream_window
    assert paused.sink.names().count("blocked") == 1
    slow.stream.resume()
    wire.pump()
    assert len(slow.log.body) == total
    assert paused.sink.names()[-1] == "unblocked"


def test_a_slow_client_blocks_the_response_and_gets_all_of_it_later(wire: Wire) -> None:
    stream, log = wire.ask()
    wire.pump()
    stream.pause()
    seen = wire.seen()
    body = bytes(range(256)) * 4096
    seen.stream.send_head(response(), [], False)
    seen.stream.send_data(body, False)
    seen.stream.send_data(b"", True)
    wire.pump()
    assert "blocked" in seen.log.names()
    assert 0 < len(log.body) < len(body)
    assert not log.ended
    stream.resume()
    wire.pump()
    assert log.body == body
    assert log.ended
    assert (wire.client.active(), wire.server.active()) == (0, 0)


def test_trailers_wait_behind_the_data_they_follow(wire: Wire) -> None:
    stream, log = wire.ask()
    wire.pump()
    stream.pause()
    seen = wire.seen()
    seen.stream.send_head(response(), [], False)
    seen.stream.send_data(b"x" * 300_000, False)
    seen.stream.send_trailers([Field(b"grpc-status", b"0")])
    wire.pump()
    assert log.trailers is None
    stream.resume()
    wire.pump()
    assert len(log.body) == 300_000
    assert log.trailers == [(b"grpc-status", b"0")]


def test_a_full_socket_blocks_the_sender_until_it_drains(wire: Wire) -> None:
    _, log = wire.ask()
    wire.pump()
    seen = wire.seen()
    seen.stream.send_head(response(), [], False)
    wire.server.socket_blocked()
    seen.stream.send_data(b"x" * 1000, False)
    assert seen.log.names()[-1] == "blocked"
    wire.server.socket_unblocked()
    assert seen.log.names()[-1] == "unblocked"
    seen.stream.send_data(b"", True)
    wire.pump()
    assert (len(log.body), log.ended) == (1000, True)


def test_the_peers_stream_limit_bounds_capacity(make: Callable[..., Wire]) -> None:
    limits = Limits()
    limits.streams = 3
    wire = make(limits)
    assert wire.client.capacity() == 3
    for _ in range(3):
        wire.ask()
    assert wire.client.capacity() == 0
    wire.pump()
    wire.seen().stream.send_head(response(), [], True)
    wire.pump()
    assert wire.client.capacity() == 1


def test_drain_lets_streams_in_flight_finish_and_refuses_later_ones(wire: Wire) -> None:
    _, log = wire.ask()
    wire.pump()
    wire.server.drain()
    wire.pump()
    assert wire.up.goaways == [NO_ERROR]
    assert wire.client.capacity() == 0
    assert log.reset is None
    wire.server.drain_finish()
    wire.pump()
    assert not wire.server.closing
    assert log.reset is None
    wire.seen().stream.send_head(response(), [], False)
    wire.seen().stream.send_data(b"done", True)
    wire.pump()
    assert (log.body, log.ended) == (b"done", True)
    assert wire.server.closing


def test_requests_that_cross_the_final_goaway_are_reported_unprocessed(wire: Wire) -> None:
    _, first = wire.ask()
    wire.pump()
    wire.server.drain()
    wire.server.drain_finish()
    _, late = wire.ask()  # the client has not read the GOAWAY yet
    wire.pump()
    assert late.reset is not None
    assert late.reset[1] is True
    assert first.reset is None
    assert len(wire.down.requests) == 1
    wire.seen().stream.send_head(response(), [], True)
    wire.pump()
    assert first.ended
    assert wire.server.closing


def test_an_idle_server_closes_when_its_drain_is_finished(wire: Wire) -> None:
    wire.server.drain()
    assert not wire.server.closing
    wire.server.drain_finish()
    assert wire.server.closing


def test_an_idle_client_closes_when_drained(wire: Wire) -> None:
    wire.client.drain()
    assert wire.client.closing


def test_losing_the_connection_resets_every_stream_once(wire: Wire) -> None:
    asked = [wire.ask(request(b"POST"), end=False) for _ in range(3)]
    wire.pump()
    wire.client.lost()
    wire.server.lost()
    assert [log.reset is not None and log.reset[1] for _, log in asked] == [False] * 3
    assert all(seen.log.reset is not None for seen in wire.down.requests)
    assert (wire.client.active(), wire.server.active()) == (0, 0)


def test_a_request_never_handed_to_the_socket_is_unprocessed(wire: Wire) -> None:
    _, sent = wire.ask()
    take(wire.client)
    _, kept = wire.ask()
    wire.client.lost()
    assert sent.reset == (CONNECT_ERROR, False)
    assert kept.reset == (CONNECT_ERROR, True)
    assert take(wire.client) == b"", "what was called unprocessed must never be sent"


def test_a_request_that_will_be_flushed_before_the_close_is_not_called_unprocessed(make: Callable[..., Wire]) -> None:
    wire = make()
    _, log = wire.ask(request(b"POST"))
    wire.client.receive(b"\0\0\x01\x06\0\0\0\0\0\0", 0.0)  # a PING of one byte: an error of the connection
    assert wire.client.closing
    assert log.reset is not None
    assert log.reset[1] is False
    assert take(wire.client)


def test_a_stream_opened_before_the_end_is_reported_when_its_head_is_sent(wire: Wire) -> None:
    stream = wire.client.open()
    stream.sink = log = Log()
    wire.client.lost()
    stream.send_head(request(), [], True)
    assert log.reset == (CANCEL, True)
    assert wire.client.active() == 0


def test_a_keepalive_ping_is_answered(wire: Wire) -> None:
    wire.client.ping()
    ping = take(wire.client)
    assert ping
    wire.server.receive(ping, 0.0)
    assert take(wire.server)[9:] == ping[9:]


def test_the_host_is_woken_once_a_turn(wire: Wire) -> None:
    take(wire.client)
    before = wire.up.wakes
    for _ in range(5):
        wire.ask()
    assert wire.up.wakes == before + 1


def test_a_large_head_crosses_in_continuation_frames(wire: Wire) -> None:
    value = bytes(97 + i % 26 for i in range(40_000))
    _, log = wire.ask(request(fields=((b"x-large", value),)))
    wire.pump()
    assert wire.seen().head.field(b"x-large") == value
    wire.seen().stream.send_head(response(200, ((b"x-large", value),)), [], True)
    wire.pump()
    assert log.head is not None
    assert log.head.field(b"x-large") == value

"""The load generators count what happened: every failure, and the time a request waited before it was sent."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from benchmarks import grpc_load
from benchmarks.measure import free_address, process, split
from benchmarks.pace import pace

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@contextmanager
def server(handle: Callable[[socket.socket, int], None]) -> Iterator[tuple[str, int]]:
    """`handle(connection, number)` for each connection, in a thread of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            number = 0
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(connection, number), daemon=True).start()
                number += 1

        def serve(connection: socket.socket, number: int) -> None:
            with connection:
                connection.settimeout(20)
                with suppress(OSError):  # the client left
                    handle(connection, number)

        threading.Thread(target=accept, daemon=True).start()
        yield listening.getsockname()[:2]
        listening.shutdown(socket.SHUT_RDWR)


def answer_all(connection: socket.socket, answers: Iterator[bytes]) -> None:
    while connection.recv(65536):
        connection.sendall(next(answers))


def endless(answer: bytes) -> Iterator[bytes]:
    while True:
        yield answer


def test_requests_that_a_stalled_server_kept_waiting_count_from_when_they_were_due() -> None:
    """Coordinated omission: a closed loop would report one slow request of 40."""

    def stall_once(connection: socket.socket, number: int) -> None:
        connection.recv(65536)
        time.sleep(0.3)  # the stall is the input here: nothing is waited for
        connection.sendall(ANSWER)
        answer_all(connection, endless(ANSWER))

    with server(stall_once) as address:
        found = pace(address, rate=100, seconds=0.4, connections=1, warm=0)
    assert found["errors"] == 0
    assert found["queued"] >= 20
    assert found["latency_us"]["p50"] >= 50_000
    assert found["response_us"]["p50"] >= 50_000


def test_every_request_is_sent_and_answered_when_the_server_is_well() -> None:
    with server(lambda connection, number: answer_all(connection, endless(ANSWER))) as address:
        found = pace(address, rate=2000, seconds=0.1, connections=5, warm=10)
    assert found["requests"] == 200
    assert found["errors"] == 0
    assert found["late_us"]["max"] > 0
    assert found["latency_us"]["max"] >= found["response_us"]["p50"]


def test_answers_other_than_200_and_lost_connections_are_errors() -> None:
    def sometimes(connection: socket.socket, number: int) -> None:
        if number == 0:
            connection.recv(65536)  # and away
        else:
            refusal = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
            answer_all(connection, iter([ANSWER, refusal, *[ANSWER] * 100]))

    with server(sometimes) as address:
        found = pace(address, rate=500, seconds=0.1, connections=2, warm=0)
    assert found["requests"] == 50
    assert found["errors"] == 2


def test_when_all_connections_are_gone_the_rest_has_failed() -> None:
    with server(lambda connection, number: None) as address:
        found = pace(address, rate=1000, seconds=0.05, connections=2, warm=0)
    assert found["errors"] == found["requests"] == 50


@pytest.fixture(scope="module")
def grpc_echo() -> Iterator[tuple[str, int]]:
    address = free_address()
    with process([sys.executable, "-m", "benchmarks.grpc_backend", address], ready=address):
        yield split(address)


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
def test_the_grpc_driver_makes_exactly_the_calls_it_is_told_to(grpc_echo: tuple[str, int], stream: bool) -> None:
    found = grpc_load.run(grpc_echo, 300, connections=3, concurrency=7, stream=stream, warm=20)
    assert (found["requests"], found["errors"]) == (300, 0)
    assert found["latency_us"]["p50"] > 0


def test_messages_larger_than_a_window_come_back_whole(grpc_echo: tuple[str, int]) -> None:
    found = grpc_load.run(grpc_echo, 4, connections=1, concurrency=2, stream=True, size=300_000)
    assert found["errors"] == 0


def test_the_open_loop_speaks_http2_too(grpc_echo: tuple[str, int]) -> None:
    """The echo answers a request without a body with an empty message: 200 and trailers."""
    found = pace(grpc_echo, rate=1000, seconds=0.1, connections=2, h2=True, warm=10)
    assert (found["requests"], found["errors"]) == (100, 0)


def test_a_real_grpc_client_and_the_echo_understand_each_other(grpc_echo: tuple[str, int]) -> None:
    import grpc

    with grpc.insecure_channel(f"{grpc_echo[0]}:{grpc_echo[1]}") as channel:
        unary = channel.unary_unary("/bench.Echo/Unary", lambda message: message, lambda message: message)
        assert unary(b"hello", timeout=10) == b"hello"
        talk = channel.stream_stream("/bench.Echo/Talk", lambda message: message, lambda message: message)
        assert list(talk(iter([b"a", b"", b"c" * 100_000]), timeout=10)) == [b"a", b"", b"c" * 100_000]


def test_a_grpc_status_other_than_0_is_an_error() -> None:
    """A real gRPC server that knows no such method."""
    from concurrent.futures import ThreadPoolExecutor

    import grpc

    refusing = grpc.server(ThreadPoolExecutor(1))
    port = refusing.add_insecure_port("127.0.0.1:0")
    refusing.start()
    try:
        found = grpc_load.run(("127.0.0.1", port), 5, connections=1, concurrency=1)
    finally:
        refusing.stop(None).wait()
    assert found["errors"] == 5

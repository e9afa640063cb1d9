"""PostgreSQL and Redis, as Debian ships them, through two sidecars with their own clients."""

from __future__ import annotations

import hashlib
import random
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator

import pytest
from mesh_bytes import POSTGRES, REDIS
from mesh_run import MeshRun, Pod, until

PATIENCE = 60

needs_postgres = pytest.mark.skipif(
    POSTGRES is None or shutil.which("psql") is None, reason="needs PostgreSQL (Debian: postgresql)"
)
needs_redis = pytest.mark.skipif(
    REDIS is None or shutil.which("redis-cli") is None, reason="needs Redis (Debian: redis-server)"
)

Place = tuple[str, int]


@pytest.fixture(scope="module")
def client(bytes_mesh: MeshRun) -> Pod:
    return bytes_mesh.pod("client")


class Relay:
    """A port for clients that know no proxy: every connection becomes a CONNECT to `authority` at `proxy`."""

    def __init__(self, proxy: Place, authority: str) -> None:
        self.proxy = proxy
        self.authority = authority
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.place: Place = self.listening.getsockname()
        self.opened: list[socket.socket] = []
        threading.Thread(target=self.run, daemon=True).start()

    def run(self) -> None:
        while True:
            try:
                near, _ = self.listening.accept()
            except OSError:
                return
            far = socket.create_connection(self.proxy)
            self.opened += [near, far]
            far.sendall(f"CONNECT {self.authority} HTTP/1.1\r\nHost: {self.authority}\r\n\r\n".encode())
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += far.recv(1)
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self.pump, args=(source, sink), daemon=True).start()

    def pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the other direction says how it ended

    def close(self) -> None:
        self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()
        for opened in self.opened:
            opened.close()


@pytest.fixture(params=["service host", "connect"])
def place(request: pytest.FixtureRequest, bytes_mesh: MeshRun, client: Pod) -> Iterator[Callable[[str], Place]]:
    """Where to reach a service by its name."""
    relays: list[Relay] = []

    def find(name: str) -> Place:
        if request.param == "service host":
            around = bytes_mesh.environment_of(client)
            return around[f"{name.upper()}_SERVICE_HOST"], int(around[f"{name.upper()}_SERVICE_PORT"])
        relays.append(Relay((client.ip, 4140), f"{name}.e2e:{ {'redis': 6379, 'postgres': 5432}[name] }"))
        return relays[-1].place

    yield find
    for relay in relays:
        relay.close()


# ---------------------------------------------------------------- PostgreSQL


class Postgres:
    def __init__(self, place: Place) -> None:
        host, port = place
        self.words = ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "test", "-d", "postgres"]
        self.words += ["-h", host, "-p", str(port)]

    def environment(self, sslmode: str) -> dict[str, str]:
        return {"PGSSLMODE": sslmode, "PGCONNECT_TIMEOUT": "30", "PATH": "/usr/bin:/bin", "LC_ALL": "C"}

    def run(self, script: str, sslmode: str = "disable") -> str:
        done = subprocess.run(
            self.words, input=script, env=self.environment(sslmode), capture_output=True, text=True, timeout=PATIENCE
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.words,
            env=self.environment("disable"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
        )


@pytest.fixture
def postgres(place: Callable[[str], Place]) -> Postgres:
    return Postgres(place("postgres"))


@needs_postgres
@pytest.mark.parametrize("sslmode", ["disable", "require"])
def test_rows_are_inserted_and_read_in_clear_and_by_the_servers_own_tls(postgres: Postgres, sslmode: str) -> None:
    """SSLRequest is eight bytes, answered with one letter before TLS begins on the same connection."""
    inserts = "".join(f"INSERT INTO item VALUES ({n}, 'item {n}');\n" for n in range(1000))
    out = postgres.run(
        "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid();\n"
        f"CREATE TEMP TABLE item (n int PRIMARY KEY, name text);\n{inserts}"
        "SELECT count(*), sum(n), max(name) FROM item;\n",
        sslmode,
    )
    assert out.split() == ["t" if sslmode == "require" else "f", "1000|499500|item", "999"]


@needs_postgres
def test_copy_streams_both_ways(postgres: Postgres) -> None:
    rows = "".join(f"{n}\t{hashlib.sha256(b'%d' % n).hexdigest()}\n" for n in range(50_000))
    out = postgres.run(
        "CREATE TEMP TABLE wide (n int, digest text);\n"
        f"COPY wide FROM STDIN;\n{rows}\\.\nCOPY (TABLE wide ORDER BY n) TO STDOUT;\n"
    )
    assert hashlib.sha256(out.encode()).digest() == hashlib.sha256(rows.encode()).digest()


@needs_postgres
def test_a_cancel_request_on_a_connection_of_its_own_stops_the_query(postgres: Postgres) -> None:
    session = postgres.start()
    try:
        assert session.stdin is not None
        session.stdin.write("SELECT 'begun';\nSELECT pg_sleep(600);\n")
        sleepers = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep';\n"
        until(lambda: postgres.run(sleepers) == "1\n", "the query running")
        session.send_signal(signal.SIGINT)
        out, _ = session.communicate(timeout=PATIENCE)
        assert "canceling statement due to user request" in out
    finally:
        session.kill()
        session.wait()


@needs_postgres
def test_a_notification_reaches_a_session_that_listens(postgres: Postgres) -> None:
    session = postgres.start()
    try:
        assert session.stdin is not None
        assert session.stdout is not None
        session.stdin.write("LISTEN news;\nSELECT 'listening';\n")
        assert session.stdout.readline() == "listening\n"
        postgres.run("NOTIFY news, 'it rains';\n")
        session.stdin.write("SELECT 'and now';\n")
        out, _ = session.communicate(timeout=PATIENCE)
        assert 'Asynchronous notification "news" with payload "it rains" received' in out
    finally:
        session.kill()
        session.wait()


# ---------------------------------------------------------------- Redis


class Redis:
    def __init__(self, place: Place) -> None:
        host, port = place
        self.words = ["redis-cli", "-h", host, "-p", str(port)]

    def run(self, *words: str, data: bytes | None = None) -> bytes:
        done = subprocess.run([*self.words, *words], input=data, capture_output=True, timeout=PATIENCE)
        assert done.returncode == 0, done
        return done.stdout

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*self.words, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)


@pytest.fixture
def redis(place: Callable[[str], Place]) -> Redis:
    made = Redis(place("redis"))
    made.run("FLUSHALL")
    return made


def command(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


@needs_redis
def test_a_pipeline_of_thousands_is_answered_in_order(redis: Redis) -> None:
    out = redis.run("--pipe", data=b"".join(command(b"SET", b"k%d" % n, b"v%d" % n) for n in range(10_000)))
    assert b"errors: 0, replies: 10000" in out
    assert redis.run("DBSIZE") == b"10000\n"
    host, port = redis.words[2], int(redis.words[4])
    with socket.create_connection((host, port), PATIENCE) as connection:
        connection.sendall(b"".join(command(b"GET", b"k%d" % n) for n in range(10_000)))
        expected = b"".join(b"$%d\r\nv%d\r\n" % (len(str(n)) + 1, n) for n in range(10_000))
        got = b""
        while len(got) < len(expected) and (data := connection.recv(1 << 16)):
            got += data
    assert got == expected


@needs_redis
def test_inline_commands_of_one_to_three_words_are_answered(redis: Redis) -> None:
    """They look most like the first line of a request."""
    host, port = redis.words[2], int(redis.words[4])
    for line, answer in ((b"PING", b"+PONG"), (b"SET key value", b"+OK"), (b"GET key", b"$5\r\nvalue")):
        with socket.create_connection((host, port), PATIENCE) as connection:
            connection.sendall(line + b"\r\n")
            assert connection.recv(100) == answer + b"\r\n"


@needs_redis
def test_a_value_of_ten_megabytes_comes_back_whole(redis: Redis) -> None:
    value = random.Random(1).randbytes(10_000_000)
    assert redis.run("-x", "SET", "big", data=value) == b"OK\n"
    out = redis.run("--raw", "GET", "big")
    assert hashlib.sha256(out).digest() == hashlib.sha256(value + b"\n").digest()


@needs_redis
def test_messages_are_pushed_to_a_subscriber_that_says_nothing(redis: Redis) -> None:
    subscriber = redis.start("SUBSCRIBE", "news")
    try:
        assert subscriber.stdout is not None
        assert [subscriber.stdout.readline() for _ in range(3)] == [b"subscribe\n", b"news\n", b"1\n"]
        for number in range(20):
            assert redis.run("PUBLISH", "news", f"message {number}") == b"1\n"
            assert [subscriber.stdout.readline() for _ in range(3)] == [b"message\n", b"news\n", b"message %d\n" % number]
    finally:
        subscriber.kill()
        subscriber.communicate()


@needs_redis
def test_a_blocking_pop_waits_until_there_is_something(redis: Redis) -> None:
    waiting = redis.start("BLPOP", "queue", "0")
    try:
        until(lambda: b"blocked_clients:1" in redis.run("INFO", "clients"), "the client blocked")
        assert redis.run("RPUSH", "queue", "work") == b"1\n"
        out, _ = waiting.communicate(timeout=PATIENCE)
        assert out == b"queue\nwork\n"
    finally:
        waiting.kill()
        waiting.communicate()


@needs_redis
@needs_postgres
def test_what_the_databases_carried_was_mesh_traffic_with_the_callers_identity(
    bytes_mesh: MeshRun, place: Callable[[str], Place]
) -> None:
    Redis(place("redis")).run("PING")
    Postgres(place("postgres")).run("SELECT 1;\n")
    for name, port in (("redis", "6379"), ("postgres", "5432")):
        page = bytes_mesh.metrics(bytes_mesh.pod(name).ip)
        caller = "spiffe://cluster.local/ns/e2e/sa/client"
        assert page.total("request_total", direction="inbound", client_id=caller, target_port=port, tls="true") >= 1

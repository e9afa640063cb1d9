"""What load generators say, read; and that what they were asked for is what arrives."""

from __future__ import annotations

import re
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import backend, measure, nginx_backend
from benchmarks.load import h2load, wrk
from benchmarks.load.measured import Ask, percentiles
from benchmarks.measure import LoadFailed
from benchmarks.peers.peer import find_program
from benchmarks.smoke import request_for

H2LOAD = """\
starting benchmark...
finished in {finished}, 33056.00 req/s, 4.71MB/s
requests: {requests}
status codes: {status}
traffic: 4.71MB (4936872) total, 1.04MB (1090848) headers (space savings 85.07%), 3.15MB (3305600) data
"""


def said(finished: str = "1.00s", requests: str = "", status: str = "33000 2xx, 0 3xx, 0 4xx, 0 5xx") -> str:
    whole = requests or "33000 total, 33040 started, 33000 done, 33000 succeeded, 0 failed, 0 errored, 0 timeout"
    return H2LOAD.format(finished=finished, requests=whole, status=status)


@pytest.mark.parametrize(("finished", "seconds"), [("1.00s", 1.0), ("500.25ms", 0.50025), ("12us", 0.000012), ("1.50m", 90.0)])
def test_h2load_tells_how_long_it_took_in_any_unit(finished: str, seconds: float) -> None:
    assert h2load.parse(said(finished)).seconds == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("requests", "status", "errors"),
    [
        ("", "33000 2xx, 0 3xx, 0 4xx, 0 5xx", 0),
        ("", "32990 2xx, 0 3xx, 4 4xx, 6 5xx", 10),
        (
            "33000 total, 33040 started, 33000 done, 32993 succeeded, 7 failed, 7 errored, 0 timeout",
            "32993 2xx, 0 3xx, 0 4xx, 0 5xx",
            7,
        ),
        (
            "33000 total, 33040 started, 33000 done, 32998 succeeded, 2 failed, 0 errored, 2 timeout",
            "32998 2xx, 0 3xx, 0 4xx, 0 5xx",
            2,
        ),
    ],
)
def test_h2loads_failures_of_every_kind_are_errors(requests: str, status: str, errors: int) -> None:
    load = h2load.parse(said(requests=requests, status=status))
    assert (load.requests, load.errors) == (33000, errors)


@pytest.mark.parametrize("text", ["", "connect: Connection refused\n", "finished in 1.00s, 0.00 req/s, 0B/s\n"])
def test_a_generator_that_gives_no_result_has_failed(text: str) -> None:
    with pytest.raises(LoadFailed):
        h2load.parse(text)
    with pytest.raises(LoadFailed):
        wrk.parse(text)


def test_wrks_line_is_read_with_socket_errors_and_statuses_added() -> None:
    line = 'RESULT {"requests": 900, "us": 1500000, "errors": 3, "status": 2, "p50": 90, "p90": 120, "p99": 400, "p999": 9000}'
    load = wrk.parse(f"Running 2s test\n  1 threads\n\n{line}\n")
    assert (load.requests, load.seconds, load.errors) == (900, 1.5, 5)
    assert load.latency_us == {"p50": 90.0, "p90": 120.0, "p99": 400.0, "p999": 9000.0}


def test_percentiles_are_of_the_nearest_rank() -> None:
    assert percentiles([float(n) for n in range(1, 1001)]) == {"p50": 501.0, "p90": 901.0, "p99": 991.0, "p999": 1000.0}
    assert percentiles([7.0]) == dict.fromkeys(("p50", "p90", "p99", "p999"), 7.0)
    assert percentiles([]) == {}


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A server that answers like the backend and writes down every request: its address, and the file."""
    program, log = tmp_path / "recorder.py", tmp_path / "requests"
    program.write_text(RECORDER)
    address = measure.free_address()
    with measure.process([sys.executable, str(program), address, str(log)], ready=address):
        yield address, log


RECORDER = """
import socketserver, sys
class Recorder(socketserver.StreamRequestHandler):
    def handle(self):
        head = []
        for line in self.rfile:
            head.append(line)
            if line == b"\\r\\n":
                sizes = [int(line[15:]) for line in head if line.startswith(b"Content-Length:")]
                body = self.rfile.read(sum(sizes))
                with open(sys.argv[2], "ab") as log:
                    log.write(b"".join(head))
                    if set(body) - set(b"0123456789abcdef"):
                        log.write(b"this is no body\\r\\n\\r\\n")
                head = []
                self.wfile.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
host, _, port = sys.argv[1].rpartition(":")
Server((host, int(port)), Recorder).serve_forever()
"""


@pytest.mark.skipif(not shutil.which("wrk"), reason="needs wrk (Debian: wrk)")
@pytest.mark.parametrize("varied", [True, False])
def test_wrk_varies_path_query_and_headers_only_when_asked_to(recorder: tuple[str, Path], tmp_path: Path, varied: bool) -> None:
    address, log = recorder
    paths = [f"/items/{n}?q={n}" for n in range(50)] if varied else ["/"]
    load = wrk.run(Ask(address, "shop.example", paths, 2, 1, 0.3), tmp_path)
    heads = log.read_bytes().split(b"\r\n\r\n")[:-1]
    assert load.errors == 0
    assert load.requests > 50
    assert load.requests <= len(heads)
    assert all(b"\r\nHost: shop.example\r\n" in head for head in heads)
    assert len({head.split(b" ")[1] for head in heads}) == len(paths)
    traces = {re.search(rb"\r\nX-Trace: (\w+)", head)[1] for head in heads}  # type: ignore[index]
    assert len(traces) > 50 if varied else len(traces) == 1


@pytest.mark.skipif(not shutil.which("wrk"), reason="needs wrk (Debian: wrk)")
@pytest.mark.parametrize("varied", [True, False])
def test_wrk_uploads_whole_bodies_when_asked_to(recorder: tuple[str, Path], tmp_path: Path, varied: bool) -> None:
    address, log = recorder
    paths = [f"/upload/items/{n}" for n in range(20)] if varied else ["/upload/"]
    load = wrk.run(Ask(address, "shop.example", paths, 2, 1, 0.3, 1 << 16), tmp_path)
    heads = log.read_bytes().split(b"\r\n\r\n")[:-1]
    assert load.errors == 0
    assert 10 < load.requests <= len(heads)
    assert all(head.startswith(b"POST /upload/") and b"\r\nContent-Length: 65536\r\n" in head for head in heads)


@pytest.mark.skipif(not (shutil.which("h2load") and find_program("nginx")), reason="needs h2load and nginx")
def test_h2load_uploads_and_the_backend_takes_it(tmp_path: Path) -> None:
    address = measure.free_address()
    program = [sys.executable, nginx_backend.__file__, "h2", str(tmp_path), address]
    with measure.process(program, ready=address):
        ask = Ask(address, "shop.example", [f"/upload/items/{n}" for n in range(20)], 2, 2, 0.3, 1 << 16)
        load = h2load.run(ask, tmp_path)
        assert (load.errors, load.requests > 10) == (0, True)
        words = h2load.command(ask, tmp_path)
        assert Path(words[words.index("-d") + 1]).stat().st_size == 1 << 16


@pytest.mark.skipif(not find_program("nginx"), reason="needs nginx (Debian: nginx-light)")
def test_the_backend_answers_an_upload_when_it_has_all_of_it(tmp_path: Path) -> None:
    address = measure.free_address()
    with measure.process([sys.executable, nginx_backend.__file__, "h1", str(tmp_path), address], ready=address):
        check_upload(address)


def test_the_smoke_tests_backend_answers_an_upload_when_it_has_all_of_it() -> None:
    address = measure.free_address()
    with measure.process([sys.executable, backend.__file__, address], ready=address):
        check_upload(address)


def check_upload(address: str) -> None:
    """In pieces, head too; and another request on the same connection."""
    with socket.create_connection(measure.split(address), 5) as connection:
        for size in (1 << 20, 10):
            whole = request_for("shop.example", size).replace(b"POST / ", b"POST /upload/ ")
            for piece in (whole[:20], whole[20:-5]):
                connection.sendall(piece)
                connection.settimeout(0.1)
                with pytest.raises(TimeoutError):
                    connection.recv(1)
                connection.settimeout(5)
            connection.sendall(whole[-5:])
            answer = b""
            while not answer.endswith(b"x" * 100):
                more = connection.recv(4096)
                assert more, answer
                answer += more
            assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.skipif(not shutil.which("wrk"), reason="needs wrk (Debian: wrk)")
def test_a_refused_connection_is_an_error_and_no_result(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed):
        wrk.run(Ask(measure.free_address(), "shop.example", ["/"], 1, 1, 0.2), tmp_path)

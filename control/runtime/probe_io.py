"""Asking a probe's question over the network, as the kubelet does: plainly, straight at the pod's address.

    ask(check, target) -> (ok, what went wrong)      never raises; its patience is bounded

Each question is a connection of its own.  gRPC health is spoken with the `h2` package and the one message by hand: two
fields do not need a gRPC runtime, and the supervisor stays small.
"""

from __future__ import annotations

import asyncio
import signal
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from control.runtime.probes import Check, Exec, Grpc, HttpGet, TcpSocket
from control.runtime.process import Exit, SpawnError, spawn

_MAX_HEAD = 16 << 10  # bytes of a response looked at
_MAX_OUTPUT = 1 << 10  # bytes of an exec probe's output shown
_SERVING = 1  # grpc.health.v1.HealthCheckResponse.ServingStatus


@dataclass(frozen=True, slots=True)
class Target:
    """The container that is asked."""

    address: str
    ports: Mapping[str, int] = field(default_factory=dict)  # named container ports
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: Path | None = None
    records: Path | None = None  # where an exec probe's process is recorded


async def ask(check: Check, target: Target, patience: float) -> tuple[bool, str]:
    """Ask once; no answer within `patience` seconds is a no."""
    try:
        async with asyncio.timeout(patience):
            if isinstance(check, HttpGet):
                return await _http_get(check, target)
            if isinstance(check, TcpSocket):
                _, writer = await asyncio.open_connection(check.host or target.address, port_number(check.port, target))
                writer.close()
                return True, ""
            if isinstance(check, Grpc):
                return await _grpc(check, target)
            return await _exec(check, target)
    except TimeoutError:
        return False, f"no answer within {patience:g} s"
    except (OSError, EOFError, ValueError) as error:
        return False, str(getattr(error, "strerror", None) or error or type(error).__name__)


def port_number(port: int | str, target: Target) -> int:
    """A port by number or by its container port's name.  Raises ValueError if there is no such name."""
    if isinstance(port, int):
        return port
    if port.isdigit():
        return int(port)
    if port not in target.ports:
        raise ValueError(f"the container has no port named {port!r}")
    return target.ports[port]


async def text(check: HttpGet, address: str, patience: float) -> tuple[bool, str]:
    """Whether a page of our own answers 2xx, and the first line it says (or why there is none)."""
    try:
        async with asyncio.timeout(patience):
            reader, writer = await asyncio.open_connection(address, port_number(check.port, Target(address)), limit=_MAX_HEAD)
            try:
                writer.write(f"GET {check.path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
                answer = b""
                while len(answer) < _MAX_HEAD and (data := await reader.read(_MAX_HEAD)):
                    answer += data
                head, _, body = answer.partition(b"\r\n\r\n")
                ok = head.split(None, 2)[1:2] == [b"200"]
                return ok, body.decode(errors="replace").partition("\n")[0].strip()
            finally:
                writer.close()
    except TimeoutError:
        return False, f"no answer within {patience:g} s"
    except OSError as error:
        return False, error.strerror or str(error)


async def _http_get(check: HttpGet, target: Target) -> tuple[bool, str]:
    """A redirect counts as a yes, as everything below 400; it is not followed."""
    host, port = check.host or target.address, port_number(check.port, target)
    context: ssl.SSLContext | None = None
    if check.scheme.upper() == "HTTPS":
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    reader, writer = await asyncio.open_connection(host, port, ssl=context, limit=_MAX_HEAD)
    try:
        headers = {"Host": f"{host}:{port}", "User-Agent": "kube-probe/meshproxy", "Accept": "*/*", "Connection": "close"}
        headers |= dict(check.headers)
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"GET {check.path} HTTP/1.1\r\n{lines}\r\n".encode())
        line = await reader.readline()
        words = line.split(None, 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
            return False, f"not an HTTP response: {line[:60]!r}"
        status = int(words[1])
        return 200 <= status < 400, f"HTTP probe failed with statuscode: {status}"
    finally:
        writer.close()


class _Output:
    """The beginning of what a command said."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data = (self.data + data)[:_MAX_OUTPUT]


async def _exec(check: Exec, target: Target) -> tuple[bool, str]:
    """The command runs in the container's environment; its group is killed when the time is up."""
    ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
    output = _Output()
    try:
        process = spawn(
            check.command,
            name="probe",
            environment=target.environment,
            directory=target.directory,
            log=output,
            on_exit=lambda exit_: None if ended.done() else ended.set_result(exit_),
            records=target.records,
        )
    except SpawnError as error:
        return False, str(error)
    try:
        exit_ = await ended
    finally:
        process.signal(signal.SIGKILL)
    return exit_.code == 0, f"{exit_}: {output.data.decode(errors='replace').strip()}"


async def _grpc(check: Grpc, target: Target) -> tuple[bool, str]:
    from h2.connection import H2Connection
    from h2.events import DataReceived, ResponseReceived, StreamEnded, StreamReset, TrailersReceived

    service = check.service.encode()
    message = b"\x0a" + _varint(len(service)) + service if service else b""
    reader, writer = await asyncio.open_connection(target.address, check.port)
    try:
        connection = H2Connection()
        connection.initiate_connection()
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", f"{target.address}:{check.port}"),
            (":path", "/grpc.health.v1.Health/Check"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
        ]
        connection.send_headers(1, headers)
        connection.send_data(1, b"\0" + len(message).to_bytes(4, "big") + message, end_stream=True)
        writer.write(connection.data_to_send())
        body, status, text = b"", "", ""
        while data := await reader.read(4096):
            for event in connection.receive_data(data):
                if isinstance(event, DataReceived):
                    body = (body + (event.data or b""))[:_MAX_HEAD]
                elif isinstance(event, (TrailersReceived, ResponseReceived)):
                    found = {_text(name): _text(value) for name, value in event.headers or []}
                    status, text = found.get("grpc-status", status), found.get("grpc-message", text)
                elif isinstance(event, StreamReset):
                    return False, "the stream was reset"
                elif isinstance(event, StreamEnded):
                    if status != "0":
                        return False, f"grpc status {status or 'missing'} {text}".rstrip()
                    serving = _health(body) == _SERVING
                    return serving, f"not serving (status {_health(body)})"
            writer.write(connection.data_to_send())
        return False, "the connection ended before the answer"
    finally:
        writer.close()


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _health(body: bytes) -> int:
    """HealthCheckResponse: field 1, a varint below 128; absent is 0 (UNKNOWN)."""
    message = body[5:]
    return message[1] if len(message) >= 2 and message[0] == 0x08 else 0


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)

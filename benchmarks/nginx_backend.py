"""The bench's backend: nginx, one process, at the address given.  `python nginx_backend.py h1|h2 DIRECTORY HOST:PORT`.

    /…              100 bytes from memory, whatever path and query
    /body/1k/…      1 KiB from a file that is open already; also 64k, 1m
    /upload/…       100 bytes from memory, when all of the request's body has been read

With COUNT as one more argument it listens at that many neighbouring addresses (127.1.0.1, 127.1.0.2, ...): endpoints.
It becomes nginx (exec), so that whoever starts it, the bench or a pod's supervisor, holds nginx itself.  Files (bodies, nginx's
own temporary ones) go to DIRECTORY.  nginx because it costs the least: 4 us a request over HTTP/1.1, 9 over HTTP/2.
Imports nothing of ours: it also runs where only its own file is known.
"""

from __future__ import annotations

import os
import shutil
import sys
from ipaddress import IPv4Address
from pathlib import Path

MAX_UPLOAD = 1 << 20  # bytes; it stays in memory
BODIES = {"1k": 1 << 10, "64k": 64 << 10, "1m": 1 << 20}
SMALL = "x" * 100

CONFIG = """
daemon off;
master_process off;
worker_processes 1;
pid {home}/pid;
error_log stderr error;
{user}
events {{ worker_connections 19000; }}
http {{
    access_log off;
    default_type text/plain;
    sendfile on;
    # Connections are never closed by the backend: a proxy's pool stays warm through the run.
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    http2_max_concurrent_streams 1000;
    open_file_cache max=16 inactive=1h;
    client_max_body_size {upload}; client_body_buffer_size {upload};
    client_body_temp_path {home}/body; proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
    server {{
{listens}
        root {bodies};
{locations}
        # `return` would answer before the body is there.  A mirror reads it first; a POST to a file is 405, and that is 200.
        location /upload/ {{ mirror /read; try_files /1k =404; error_page 405 =200 /uploaded; }}
        location = /read {{ internal; return 204; }}
        location = /uploaded {{ internal; return 200 "{small}"; }}
        location / {{ return 200 "{small}"; }}
    }}
}}
"""


def neighbours(address: str, count: int) -> list[str]:
    """HOST:PORT for `count` hosts from `address` on."""
    host, _, port = address.rpartition(":")
    return [f"{IPv4Address(host) + number}:{port}" for number in range(count)] if count > 1 else [address]


def config(kind: str, directory: Path, address: str, count: int = 1) -> str:
    """The text of nginx.conf; writes the bodies on the way."""
    bodies, home = directory / "bodies", directory / ("nginx-" + address.replace(":", "-"))
    bodies.mkdir(parents=True, exist_ok=True)
    home.mkdir(exist_ok=True)
    for name, size in BODIES.items():
        target = bodies / name
        if not target.exists() or target.stat().st_size != size:
            half_written = bodies / f".{name}.{os.getpid()}"
            half_written.write_bytes(b"0123456789abcdef" * (size // 16))
            half_written.rename(target)
    http2 = " http2" if kind == "h2" else ""
    locations = "\n".join(f"        location /body/{name}/ {{ try_files /{name} =404; }}" for name in BODIES)
    return CONFIG.format(
        home=home,
        listens="\n".join(f"        listen {each}{http2} backlog=8192;" for each in neighbours(address, count)),
        bodies=bodies,
        locations=locations,
        small=SMALL,
        upload=MAX_UPLOAD,
        user="user root;" if os.geteuid() == 0 else "",  # or it could not read a directory of ours
    )


def main(kind: str, directory: Path, address: str, count: int = 1) -> None:
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if nginx is None:
        sys.exit("nginx_backend: there is no nginx (Debian, Ubuntu: apt install nginx-light)")
    target = directory / f"nginx-{address.replace(':', '-')}.conf"
    target.write_text(config(kind, directory, address, count))
    os.execv(nginx, [nginx, "-p", str(directory), "-c", str(target), "-e", "stderr"])


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], *(int(word) for word in sys.argv[4:]))

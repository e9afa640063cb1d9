"""`meshproxy control --identity-issuer DIR`: real processes, an issuer that somebody else replaces in one write."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from forge import Forged, forge_ca
from loopback_ports import free_port, free_ports

from control.runtime.layout import ANNOTATION_PROXY, Layout
from control.serve.tokens import TTL, refresh_token_if_burned
from control.store.files import FileStore
from control.store.store import Key

TESTS = Path(__file__).parent.parent
PATIENCE = 60.0


async def until(condition: Callable[[], Any], what: str, meanwhile: Callable[[], Any] = lambda: None) -> None:
    end = time.monotonic() + PATIENCE
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < end, f"not within {PATIENCE:g} s: {what}"
        meanwhile()
        await asyncio.sleep(0.05)


def write(directory: Path, root: Forged, issuer: Forged) -> None:
    """A new directory behind the same link, as the kubelet does it."""
    fresh = directory.with_name(f"{directory.name}-{time.monotonic_ns()}")
    fresh.mkdir()
    for name, data in (("ca.crt", root.pem), ("tls.crt", issuer.pem + root.pem), ("tls.key", issuer.key_pem)):
        (fresh / name).write_bytes(data)
    link = directory.with_name("link")
    link.symlink_to(fresh)
    link.rename(directory)


class Processes:
    def __init__(self) -> None:
        self.running: list[asyncio.subprocess.Process] = []

    async def start(self, log: Path, *argv: str) -> asyncio.subprocess.Process:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(TESTS.parent)}
        with log.open("wb") as output:
            made = await asyncio.create_subprocess_exec(
                sys.executable, *argv, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, env=environment
            )
        self.running.append(made)
        return made

    async def end(self) -> None:
        for process in self.running:
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
            await process.wait()


async def test_a_proxy_is_there_first_and_follows_every_change_of_an_external_issuer(tmp_path: Path) -> None:
    layout, manifests, secret = Layout(tmp_path / "state"), tmp_path / "manifests", tmp_path / "secret"
    manifests.mkdir()
    roots = [forge_ca(time.time(), cn=f"corporate root {n}") for n in range(2)]
    issuers = [forge_ca(time.time(), root, f"issuer {n}", pathlen=0) for n, root in enumerate(roots)]
    write(secret, roots[0], issuers[0])
    layout.trust.mkdir(parents=True)
    (layout.trust / "root.pem").write_bytes(roots[0].pem)  # what the proxy is told to begin with
    runtime = FileStore(None, layout.objects, "runtime")
    metadata = {"name": "web-1", "namespace": "shop", "annotations": {ANNOTATION_PROXY: "true"}, "labels": {"app": "web"}}
    spec = {"serviceAccountName": "web", "containers": [{"name": "app", "command": ["app"]}]}
    await runtime.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    await runtime.status(Key("", "Pod", "shop", "web-1"), {"phase": "Running", "podIP": "127.0.0.1"})
    port, admin, log = free_ports(2), free_port(), tmp_path / "member.log"

    def tokens() -> None:
        file = layout.pod("shop", "web-1") / "token"
        refresh_token_if_burned(layout.tokens, file, "shop", "web", "web-1", TTL, time.time())

    def member() -> dict[str, Any]:
        lines = [line for line in log.read_text().splitlines() if line.startswith("{")]
        found: dict[str, Any] = json.loads(lines[-1]) if lines else {}
        return found

    def page(path: str) -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{admin}{path}", timeout=5) as answer:
                return str(answer.read().decode())
        except (urllib.error.URLError, OSError):
            return ""

    def issuer() -> str:
        found = page("/identity")
        return str(json.loads(found)["issuer"]["subject"]) if found else ""

    processes = Processes()
    try:
        tokens()
        where = (f"127.0.0.1:{port}", f"127.0.0.1:{port + 1}", str(layout.root))
        await processes.start(log, str(TESTS / "mesh" / "member.py"), *where, "shop", "web-1", "web")
        await until(lambda: member().get("failures", 0) >= 2, "the proxy to have asked in vain")  # MF-02
        assert member()["ready"] is False
        await processes.start(
            tmp_path / "control.log",
            *("-m", "meshproxy", "control", "--state", str(layout.root), "--manifests", str(manifests)),
            *("--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}"),
            *("--leaf-lifetime", "10", "--identity-issuer", str(secret)),
        )
        await until(lambda: member()["ready"], "the proxy to be ready", tokens)
        assert issuer() == "CN=issuer 0"
        before = member()

        write(secret, roots[1], issuers[1])
        await until(lambda: issuer() == "CN=issuer 1", "the new issuer to be in force", tokens)
        await until(
            lambda: json.loads(page("/identity"))["proxies"] == {"connected": 1, "informed": 1, "renewed": 1},
            "the proxy to have renewed and come again",
            tokens,
        )
        after = member()
        assert (after["ready"], after["failures"]) == (True, before["failures"])
        assert after["renewals"] > before["renewals"]

        (secret / "tls.crt").write_text("nonsense")
        await until(lambda: "meshproxy_control_authority_refused 1.0" in page("/metrics"), "the refusal to be counted", tokens)
        assert "tls.crt: not a PEM certificate" in json.loads(page("/identity"))["problem"]
        assert issuer() == "CN=issuer 1"
        write(secret, roots[1], issuers[1])
        await until(lambda: "meshproxy_control_authority_refused 0.0" in page("/metrics"), "the refusal to be over", tokens)
        assert "issuer_cert_ttl_seconds" in page("/metrics")
        assert "PRIVATE" not in (tmp_path / "control.log").read_text() + log.read_text() + page("/identity")  # ID-51
    finally:
        await processes.end()

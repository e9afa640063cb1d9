"""One or two linkerd2-proxies with the stub behind them, as processes on loopback.

    two hops   load --> [A outbound] ==mTLS, HTTP/2==> [B inbound] --> backend
    one hop    load --> [A outbound] ----------------------------> backend          (an endpoint that has no identity)

An app's connection is redirected to its proxy by iptables in a cluster.  Here the load goes to the proxy's port, and
redirect.c, preloaded, tells the proxy where it "was going" (the Service's address at A, the backend's at B) and takes the
pods' addresses to loopback.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from benchmarks import measure
from benchmarks.linkerd.stub import Table
from benchmarks.measure import NotReady
from certs.authority import create_authority, load_authority
from certs.csr import new_key

BINARY = "LINKERD2_PROXY_BIN"
TRUST_DOMAIN = "bench.example"
SERVICE = "10.0.0.1:80"
AUTHORITY = "bench.bench.svc.cluster.local"
NAME = f"{AUTHORITY}:80"
REPOSITORY = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Proxy:
    """A running linkerd2-proxy.  Ports on loopback."""

    pid: int
    outbound: int
    inbound: int
    admin: int

    def metrics(self) -> str:
        with urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=5) as answer:
            return str(answer.read().decode())


def missing() -> str:
    """Why it cannot run here, or ""."""
    binary = os.environ.get(BINARY)
    if not binary:
        return f"{BINARY} names no binary (build github.com/linkerd/linkerd2-proxy: cargo build --release)"
    if not os.access(binary, os.X_OK):
        return f"{BINARY}={binary} is not an executable file"
    if not compiler():
        return "no C compiler for the stand-in for iptables (redirect.c) (apt install gcc)"
    return ""


def compiler() -> str | None:
    return shutil.which("cc") or shutil.which("gcc")


def version() -> str:
    """linkerd2-proxy has no --version: it says who it is in its first log line, before it looks at its configuration."""
    said = subprocess.run(
        [os.environ[BINARY]], env={"LINKERD2_PROXY_LOG": "info"}, capture_output=True, text=True, timeout=20, check=False
    )
    for line in (said.stdout + said.stderr).splitlines():
        if " by " in line and " on " in line:
            return line.rpartition("linkerd2_proxy: ")[2]
    return "unknown"


@contextmanager
def one_hop(listen: str, backends: list[str], work: Path) -> Iterator[Proxy]:
    """A alone, on `listen`.  `backends`: "ip:port" of each; files go to `work`.  Raises NotReady."""
    with ExitStack() as stack:
        yield _start(stack, work, _Plan(listen, backends, meshed=False))["A"]


@contextmanager
def two_hops(listen: str, backend: str, work: Path) -> Iterator[tuple[Proxy, Proxy]]:
    """A, on `listen`, and B, whose app is `backend`.  Raises NotReady."""
    with ExitStack() as stack:
        proxies = _start(stack, work, _Plan(listen, [backend], meshed=True))
        yield proxies["A"], proxies["B"]


class _Plan:
    """Who is there, on which ports."""

    def __init__(self, listen: str, backends: list[str], meshed: bool) -> None:
        self.backends = backends
        self.roles = ["A", "B"] if meshed else ["A"]
        self.meshed = meshed
        self.ports = {role: [measure.free_port() for _ in range(3)] for role in self.roles}
        self.ports["A"][0] = measure.split(listen)[1]

    def identity(self, role: str) -> str:
        return f"{role.lower()}.bench.serviceaccount.identity.linkerd.cluster.local"

    def spiffe_id(self, role: str) -> str:
        return f"spiffe://{TRUST_DOMAIN}/ns/bench/sa/{role.lower()}"

    def table(self, authority: Path) -> Table:
        return Table(
            authority=str(authority),
            trust_domain=TRUST_DOMAIN,
            service=SERVICE,
            name=NAME,
            endpoints=list(self.pods()),
            server=self.identity("B") if self.meshed else "",
            identities={self.identity(role): self.spiffe_id(role) for role in self.roles},
            clients=[self.spiffe_id("A")],
            admin=[self.ports[role][2] for role in self.roles],
            h2=self.meshed,
        )

    def pods(self) -> dict[str, str]:
        """Address of each endpoint -> where it really is.  At a meshed pod's port its inbound proxy answers."""
        targets = [f"127.0.0.1:{self.ports['B'][1]}"] if self.meshed else self.backends
        return {f"10.0.{1 + i // 250}.{1 + i % 250}:8080": target for i, target in enumerate(targets)}

    def network(self, role: str) -> dict[str, str]:
        """What redirect.c is to know."""
        outbound, inbound, _ = self.ports[role]
        return {
            "ORIGINAL_DST": f"{outbound}={SERVICE},{inbound}={self.backends[0]}",
            "POD_NETWORK": ",".join(f"{pod}={target}" for pod, target in self.pods().items()),
        }


def _start(stack: ExitStack, work: Path, plan: _Plan) -> dict[str, Proxy]:
    authority = work / "authority"
    create_authority(authority, TRUST_DOMAIN, time.time())
    anchors = load_authority(authority, TRUST_DOMAIN, time.time()).bundle.pem
    preload = {"LD_PRELOAD": str(_redirect(work))}
    control = measure.free_address()
    table = plan.table(authority).write(work / "table.json")
    words = [sys.executable, "-m", "benchmarks.linkerd.stub", str(table), control]
    stack.enter_context(measure.process(words, on_core=measure.LOAD_CORE, ready=control, cwd=REPOSITORY))
    proxies = {}
    for role in reversed(plan.roles):  # B first: A connects when asked
        environment = _environment(work / role, plan, role, control, anchors) | preload
        outbound, inbound, admin = plan.ports[role]
        ready = [f"127.0.0.1:{outbound}", f"127.0.0.1:{inbound}"]
        running = stack.enter_context(
            measure.process([os.environ[BINARY]], environment, on_core=measure.PROXY_CORE, ready=ready)
        )
        _wait_ready(running, admin)
        proxies[role] = Proxy(running.pid, outbound, inbound, admin)
    return proxies


def _environment(home: Path, plan: _Plan, role: str, control: str, anchors: str) -> dict[str, str]:
    """What Linkerd's injector sets in a pod, where it matters here."""
    home.mkdir(exist_ok=True)
    key = new_key()
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    request = request.add_extension(x509.SubjectAlternativeName([x509.DNSName(plan.identity(role))]), critical=True)
    (home / "csr.der").write_bytes(request.sign(key, hashes.SHA256()).public_bytes(Encoding.DER))
    (home / "key.p8").write_bytes(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
    (home / "token").write_text("bench")
    outbound, inbound, admin = plan.ports[role]
    settings = {
        "LOG": "warn",
        "LOG_FORMAT": "plain",
        "CORES": "1",  # one worker, as everybody here
        "OUTBOUND_LISTEN_ADDR": f"127.0.0.1:{outbound}",
        "INBOUND_LISTEN_ADDR": f"127.0.0.1:{inbound}",
        "ADMIN_LISTEN_ADDR": f"127.0.0.1:{admin}",
        "DESTINATION_SVC_ADDR": control,
        "DESTINATION_CONTEXT": "bench",
        "DESTINATION_PROFILE_NETWORKS": "10.0.0.0/8",  # where Services are
        "DESTINATION_PROFILE_SUFFIXES": "svc.cluster.local.",
        "POLICY_SVC_ADDR": control,
        "POLICY_WORKLOAD": f"bench:{role.lower()}",
        "POLICY_CLUSTER_NETWORKS": "10.0.0.0/8,127.0.0.0/8",
        "INBOUND_DEFAULT_POLICY": "deny",
        "INBOUND_PORTS": plan.backends[0].rpartition(":")[2],
        "IDENTITY_SVC_ADDR": control,
        "IDENTITY_DIR": str(home),
        "IDENTITY_TOKEN_FILE": str(home / "token"),
        "IDENTITY_TRUST_ANCHORS": anchors,
        "IDENTITY_LOCAL_NAME": plan.identity(role),
        "SHUTDOWN_GRACE_PERIOD": "1s",
    }
    return {f"LINKERD2_PROXY_{name}": value for name, value in settings.items()} | plan.network(role)


def _redirect(work: Path) -> Path:
    made = work / "redirect.so"
    source = Path(__file__).with_name("redirect.c")
    command = [compiler() or "cc", "-O2", "-shared", "-fPIC", "-o", str(made), str(source), "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    return made


def _wait_ready(running: subprocess.Popen[bytes], admin: int) -> None:
    """/ready answers 200 when the proxy has its certificate."""
    end = time.monotonic() + measure.READY_S
    while True:
        try:
            with urlopen(f"http://127.0.0.1:{admin}/ready", timeout=1) as answer:
                if answer.status == 200:
                    return
        except OSError as error:
            if running.poll() is not None or time.monotonic() > end:
                raise NotReady(f"linkerd2-proxy has no certificate after {measure.READY_S:g} s: {error}") from error
        time.sleep(0.02)

"""One or two linkerd2-proxies with the stub behind them, as processes in a network namespace of their own.

    two hops   load --Service--> [A outbound] ==pod, mTLS, HTTP/2==> [B inbound] --pod--> backend
    one hop    load --Service--> [A outbound] --pod----------------------------------> backend   (it has no identity)

As in a cluster the load connects to the Service's address, and A to the pod's: nftables takes those connections to the proxies,
which ask the kernel where they were going (SO_ORIGINAL_DST).  B's own connection to its app is let through by its group, as
Linkerd does it by user.  All addresses are on one loopback interface; the ports are Linkerd's, B's are 10,000 higher.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
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
from benchmarks.network import Network
from benchmarks.network import missing as missing_network
from benchmarks.nginx_backend import neighbours
from certs.authority import create_authority, load_authority
from certs.csr import new_key

BINARY = "LINKERD2_PROXY_BIN"
TRUST_DOMAIN = "bench.example"
SERVICE = "10.0.0.1:80"
AUTHORITY = "bench.bench.svc.cluster.local"
NAME = f"{AUTHORITY}:80"
POD = "10.0.1.1"  # the first; a thousand follow from it
CONTROL = "127.0.0.1:8090"
PORTS = {"A": (4140, 4143, 4191), "B": (14140, 14143, 14191)}  # outbound, inbound, admin: nobody else is in there
GROUPS = {"A": 2101, "B": 2102}
REPOSITORY = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Proxy:
    """A running linkerd2-proxy, in `network`."""

    pid: int
    admin: int
    network: Network

    def metrics(self) -> str:
        with self.network.inside(), urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=5) as answer:
            return str(answer.read().decode())


def missing() -> str:
    """Why it cannot run here, or ""."""
    binary = os.environ.get(BINARY)
    if not binary:
        return f"{BINARY} names no binary (build github.com/linkerd/linkerd2-proxy: cargo build --release)"
    if not os.access(binary, os.X_OK):
        return f"{BINARY}={binary} is not an executable file"
    return missing_network(rules(["A", "B"], 8080))


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
def one_hop(program: Sequence[str], count: int, work: Path) -> Iterator[Proxy]:
    """A alone, and `count` endpoints served by the backend `program` (its address is added); files go to `work`.

    Load goes to SERVICE, from inside the proxy's network.  Raises NotReady."""
    with ExitStack() as stack:
        yield _start(stack, work, _Plan(program, count, meshed=False))["A"]


@contextmanager
def two_hops(program: Sequence[str], work: Path) -> Iterator[tuple[Proxy, Proxy]]:
    """A, and B with its app.  As one_hop."""
    with ExitStack() as stack:
        proxies = _start(stack, work, _Plan(program, 1, meshed=True))
        yield proxies["A"], proxies["B"]


def rules(roles: Sequence[str], app_port: int) -> str:
    """What Linkerd's init container sets up in each pod, for nftables; all pods are on this host, so all is output."""
    service, _, service_port = SERVICE.rpartition(":")
    lines = [f"ip daddr {service} tcp dport {service_port} redirect to :{PORTS['A'][0]}"]
    if "B" in roles:
        lines.append(f"meta skgid != {GROUPS['B']} ip daddr {POD} tcp dport {app_port} redirect to :{PORTS['B'][1]}")
    return "\n".join(["table ip pods { chain output {", "type nat hook output priority -100;", *lines, "}", "}"]) + "\n"


class _Plan:
    """Who is there, at which addresses."""

    def __init__(self, program: Sequence[str], count: int, meshed: bool) -> None:
        self.roles = ["A", "B"] if meshed else ["A"]
        self.meshed = meshed
        self.app_port = measure.free_port()  # of its own: a backend may name files after its address
        self.pods = neighbours(f"{POD}:{self.app_port}", count)
        self.backend = [*program, self.pods[0], *([str(count)] if count > 1 else [])]

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
            endpoints=self.pods,
            server=self.identity("B") if self.meshed else "",
            identities={self.identity(role): self.spiffe_id(role) for role in self.roles},
            clients=[self.spiffe_id("A")],
            admin=[PORTS[role][2] for role in self.roles],
            h2=self.meshed,
        )


def _start(stack: ExitStack, work: Path, plan: _Plan) -> dict[str, Proxy]:
    authority = work / "authority"
    create_authority(authority, TRUST_DOMAIN, time.time())
    anchors = load_authority(authority, TRUST_DOMAIN, time.time()).bundle.pem
    table = plan.table(authority).write(work / "table.json")
    stub = [sys.executable, "-m", "benchmarks.linkerd.stub", str(table), CONTROL]
    network = stack.enter_context(Network())
    proxies = {}
    with network.inside():
        for words, address in ((stub, CONTROL), (plan.backend, plan.pods[0])):
            environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
            stack.enter_context(measure.process(words, environment, on_core=measure.LOAD_CORE, ready=address))
        network.load(rules(plan.roles, plan.app_port))  # now that the app is known to listen: who asks it now asks B
        for role in reversed(plan.roles):  # B first: A connects when asked
            admin = PORTS[role][2]
            # Whoever changes group loses the signal that ends it with us: setpriv sets it again.
            words = ["setpriv", f"--regid={GROUPS[role]}", "--clear-groups", "--pdeathsig=KILL", os.environ[BINARY]]
            environment = _environment(work / role, plan, role, anchors)
            ready = f"127.0.0.1:{admin}"
            running = stack.enter_context(measure.process(words, environment, on_core=measure.PROXY_CORE, ready=ready))
            _wait_ready(running, admin)
            proxies[role] = Proxy(running.pid, admin, network)
    return proxies


def _environment(home: Path, plan: _Plan, role: str, anchors: str) -> dict[str, str]:
    """What Linkerd's injector sets in a pod, where it matters here."""
    home.mkdir(exist_ok=True)
    key = new_key()
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    request = request.add_extension(x509.SubjectAlternativeName([x509.DNSName(plan.identity(role))]), critical=True)
    (home / "csr.der").write_bytes(request.sign(key, hashes.SHA256()).public_bytes(Encoding.DER))
    (home / "key.p8").write_bytes(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
    (home / "token").write_text("bench")
    outbound, inbound, admin = PORTS[role]
    settings = {
        "LOG": "warn",
        "LOG_FORMAT": "plain",
        "CORES": "1",  # one worker, as everybody here
        "OUTBOUND_LISTEN_ADDR": f"127.0.0.1:{outbound}",
        "INBOUND_LISTEN_ADDR": f"127.0.0.1:{inbound}",
        "ADMIN_LISTEN_ADDR": f"127.0.0.1:{admin}",
        "DESTINATION_SVC_ADDR": CONTROL,
        "DESTINATION_CONTEXT": "bench",
        "DESTINATION_PROFILE_NETWORKS": "10.0.0.0/8",  # where Services are
        "DESTINATION_PROFILE_SUFFIXES": "svc.cluster.local.",
        "POLICY_SVC_ADDR": CONTROL,
        "POLICY_WORKLOAD": f"bench:{role.lower()}",
        "POLICY_CLUSTER_NETWORKS": "10.0.0.0/8,127.0.0.0/8",
        "INBOUND_DEFAULT_POLICY": "deny",
        "INBOUND_PORTS": str(plan.app_port),
        "IDENTITY_SVC_ADDR": CONTROL,
        "IDENTITY_DIR": str(home),
        "IDENTITY_TOKEN_FILE": str(home / "token"),
        "IDENTITY_TRUST_ANCHORS": anchors,
        "IDENTITY_LOCAL_NAME": plan.identity(role),
        "SHUTDOWN_GRACE_PERIOD": "1s",
    }
    return {f"LINKERD2_PROXY_{name}": value for name, value in settings.items()}


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

"""meshproxy, compiled and interpreted: two peers, one source.

    one hop     meshproxy forward                              every feature it has: metrics, admin, EWMA, time limit, ids
    two hops    meshproxy up: control plane, two sidecars      as a user runs it; identities, policy, retries, time limit
    "-policy"   two hops that declare more (mesh/policy.yaml)  routes, access by path, breaker, slow start, concurrency limit

The sidecars share PROXY_CORE.  The control plane, the supervisor and the app (the backend) are on LOAD_CORE.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from time import monotonic, sleep

from benchmarks import measure
from benchmarks.measure import NotReady
from benchmarks.peers.certificates import CLIENT, SERVER, write_certificates
from benchmarks.peers.peer import Backend, Peer, Running, render
from meshproxy import pure

MESH = Path(__file__).parent.parent / "mesh"
REPOSITORY = MESH.parent.parent
COMMAND = [sys.executable, "-m", "meshproxy"]
MESH_READY_S = 120.0
SPEAKS = {"h1": "http", "h2": "kubernetes.io/h2c", "grpc": "grpc"}  # appProtocol
TIMEOUT_S = 15  # Envoy's default for a route
DECLARED = """\
    meshproxy.dev/breaker: unified
    meshproxy.dev/slow-start: 10s"""
DECLARED_OF_THE_POD = """\
      annotations:
        meshproxy.dev/concurrency-limit: "1000\""""


class Ours(Peer):
    """`workers` above 1: `meshproxy forward --workers N`, for the scaling workload only.  `policy`: the mesh declares what most
    Services do not, for the workload that shows what that costs."""

    def __init__(self, mode: str, workers: int = 1, policy: bool = False) -> None:
        self.mode = mode
        self.workers = workers
        self.policy = policy
        self.special = workers > 1 or policy
        self.name = mode + (f"-w{workers}" if workers > 1 else "") + ("-policy" if policy else "")
        self.title = f"meshproxy, {mode}" + (f", {workers} workers" if workers > 1 else "")
        if policy:
            self.title += ", policy declared"
            self.settings = (
                "The mesh of two hops, which declares besides: an HTTPRoute of five matches (exact, regular expression, prefix "
                "and header, prefix and query, prefix) of which requests fit the last, a TrafficTarget with three matches on "
                "method and path, a breaker by both rules, slow start, a limit of 1,000 requests at once."
            )
            return
        self.settings = (
            "Defaults. One hop: `meshproxy forward --timeout 15 --admin`: metrics, EWMA balancing, request ids and limits are "
            "always on. Two hops: the embedded mesh (`meshproxy up`) with a Service that declares a 15 s time limit and one "
            "retry; identities and access policy as in any mesh."
        )

    def missing(self) -> str:
        if self.mode == "compiled" and not pure.extensions():
            return (
                "built from another source: run make build"
                if pure.stale()
                else "not built: run make build (needs a C compiler)"
            )
        if self.workers > 1 and "--workers" not in help_of("forward"):
            return "this meshproxy has no --workers"
        return ""

    def version(self) -> str:
        done = subprocess.run([*COMMAND, "version"], capture_output=True, text=True, env=self.environment(), check=False)
        return " / ".join(line.strip() for line in done.stdout.splitlines() if line.strip())

    def environment(self) -> dict[str, str]:
        given = {name: value for name, value in os.environ.items() if name != pure.SWITCH}
        if self.mode == "interpreted":
            given[pure.SWITCH] = "1"
        return given

    @contextmanager
    def one_hop(self, kind: str, listen: str, backends: Sequence[Backend], work: Path) -> Iterator[Running]:
        admin = measure.free_address()
        words = [*COMMAND, "forward", listen, *(backend.address for backend in backends)]
        words += ["--upstream", "http2" if kind in ("h2", "grpc") else "http1"]
        words += ["--timeout", str(TIMEOUT_S), "--admin", admin, "--log-level", "error"]
        if self.workers > 1:
            words += ["--workers", str(self.workers)]
        files = {}
        if kind == "mtls":
            write_certificates(work)
            words += ["--mtls", str(work / SERVER)]
            files = {name: str(work / CLIENT / f"{name}.pem") for name in ("cert", "key", "ca")}
        with measure.process(
            words, self.environment(), on_core=measure.PROXY_CORE, ready=[listen, admin], cwd=REPOSITORY
        ) as proxy:
            if self.workers > 1:
                unpin(proxy.pid)
            yield Running(listen, {"A": proxy.pid}, files=files)

    @contextmanager
    def two_hops(self, kind: str, listen: str, backends: Sequence[Backend], work: Path) -> Iterator[Running]:
        """`listen` is not used: the sidecar's own listener for the Service takes the load.  One backend, started in its pod."""
        # Sockets' paths are limited to 108 bytes and the state's are long: not below `work`.
        state = Path(tempfile.mkdtemp(prefix="meshproxy-bench-"))
        where, manifests = state / "where", state / "manifests"
        manifests.mkdir()
        self.declare(manifests, kind, backends[0].command("$(POD_IP):8080"), where)
        environment = {**self.environment(), "MESHPROXY_STATE_HOME": str(state)}
        up = [*COMMAND, "up", str(manifests), "--name", "bench"]
        try:
            with measure.process(up, environment, on_core=measure.LOAD_CORE, cwd=REPOSITORY) as supervisor:
                address = wait_for_mesh(where, supervisor)
                pids = sidecars(supervisor.pid)
                for pid in pids.values():
                    measure.pin(pid, measure.PROXY_CORE)
                yield Running(address, {"A": pids["caller"], "B": pids["bench"]}, "bench.bench")
        finally:
            shutil.rmtree(state, ignore_errors=True)

    def declare(self, manifests: Path, kind: str, backend: Sequence[str], where: Path) -> None:
        """Write what the mesh of two hops is made of.  `backend`: the app's command; `where`: what the caller writes to."""
        render(
            "bench.yaml",
            manifests / "bench.yaml",
            folder=MESH,
            app_protocol=SPEAKS[kind],
            backend=json.dumps(list(backend)),
            caller=json.dumps([sys.executable, str(MESH / "caller.py"), str(where)]),
            annotations=DECLARED if self.policy else "",
            pod_annotations=DECLARED_OF_THE_POD if self.policy else "",
        )
        if self.policy:
            shutil.copy(MESH / "policy.yaml", manifests / "policy.yaml")


def wait_for_mesh(where: Path, supervisor: subprocess.Popen[bytes]) -> str:
    """Where the caller's sidecar listens, when the whole path answers.  Raises NotReady."""
    deadline = monotonic() + MESH_READY_S
    while monotonic() < deadline:
        if supervisor.poll() is not None:
            raise NotReady(f"meshproxy up ended with status {supervisor.returncode}")
        if where.exists() and answers(where.read_text()):
            return where.read_text()
        sleep(0.1)
    raise NotReady(f"the mesh was not ready in {MESH_READY_S:.0f} s")


def answers(address: str) -> bool:
    """Is there an answer from the backend?  Asked in HTTP/1.1, which the mesh translates for those that know only HTTP/2."""
    connection = HTTPConnection(address, timeout=2)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def sidecars(supervisor: int) -> dict[str, int]:
    """Sidecars among the supervisor's descendants, by their pod's Deployment.  Raises NotReady if one is not there."""
    found: dict[str, int] = {}
    for pid in measure.tree(supervisor):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        if "proxy" in words and "--pod" in words:
            found[words[words.index("--pod") + 1].split("-")[0]] = pid
    if lost := {"caller", "bench"} - found.keys():
        raise NotReady(f"no sidecar of {', '.join(sorted(lost))} below process {supervisor}")
    return found


def unpin(pid: int) -> None:
    """Workers spread over all cores: how they share them is what is measured."""
    for member in measure.tree(pid):
        os.sched_setaffinity(member, measure.core(measure.PROXY_CORE) | measure.core(measure.LOAD_CORE))


def help_of(verb: str) -> str:
    return subprocess.run([*COMMAND, verb, "--help"], capture_output=True, text=True, check=False).stdout

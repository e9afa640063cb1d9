"""Releases of the end-to-end tests: each a Canary "web" in a namespace of its own, in one mesh, side by side.

Stage --a thread a lane--> play, play, play      a play is one test; pytest collects the results
  |                          |
View (a thread)            Release               what the store says, as `get -w` shows it: every phase and every split
Gates (a web server)                             webhooks that hold a release until a test lets it go on
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mesh_arms import Said, Users, ask_each, config_map, ledger, workload
from mesh_manifests import Object
from mesh_receiver import Receiver
from mesh_run import MeshRun, until

from control.store.files import FileStore
from control.store.store import Key

BESIDE = 5  # lanes at a time: each starts some ten processes
INCREASE, PROMOTION = "confirm-traffic-increase", "confirm-promotion"


class Gates(Receiver):
    """Webhooks that say no until a test lets so many through.  One for each namespace and type."""

    def __init__(self) -> None:
        self._asked: Counter[str] = Counter()
        self._open: Counter[str] = Counter()
        self._lock = threading.Lock()
        super().__init__()

    def hook(self, namespace: str, kind: str) -> Object:
        return {"type": kind, "name": "gate", "url": f"{self.address}/{namespace}/{kind}", "timeout": "20s"}

    def let(self, namespace: str, kind: str, times: int) -> None:
        with self._lock:
            self._open[f"/{namespace}/{kind}"] += times

    def asked(self, namespace: str, kind: str) -> int:
        return self._asked[f"/{namespace}/{kind}"]

    def heard(self, path: str, body: bytes) -> int:
        with self._lock:
            self._asked[path] += 1
            if self._open[path]:
                self._open[path] -= 1
                return 200
            return 403


@dataclass
class Seen:
    """What was to be seen of one release, in order, without repetitions."""

    phases: list[str] = field(default_factory=list)
    shares: list[tuple[float, ...]] = field(default_factory=list)  # canary, primary; of its split, or its route


class View:
    """Looks at the store all the time, as `meshproxy get -w` does."""

    def __init__(self, mesh: MeshRun) -> None:
        self._store = FileStore(None, mesh.layout.objects, "e2e")
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self.seen: dict[str, Seen] = {}
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def get(self, group: str, kind: str, namespace: str, name: str) -> Object | None:
        with self._lock:
            self._store.refresh()
            return self._store.get(Key(group, kind, namespace, name))

    def list(self, group: str, kind: str, namespace: str) -> list[Object]:
        with self._lock:
            self._store.refresh()
            return list(self._store.list(group, kind, namespace))

    def events(self, namespace: str) -> Counter[str]:
        """What was said of the Canary, and how often."""
        with self._lock:
            self._store.refresh()
            told = self._store.events(Key("flagger.app", "Canary", namespace, "web"))
            return Counter({event["message"]: event["count"] for event in told})

    def end(self) -> None:
        self._ended.set()
        self._thread.join(10)

    def _look(self) -> None:
        while not self._ended.wait(0.05):
            with self._lock:
                self._store.refresh()
                for canary in self._store.list("flagger.app", "Canary"):
                    namespace = canary["metadata"]["namespace"]
                    seen = self.seen.setdefault(namespace, Seen())
                    _note(seen.phases, (canary.get("status") or {}).get("phase", ""))
                    if (shares := self._shares(namespace)) is not None:
                        _note(seen.shares, shares)

    def _shares(self, namespace: str) -> tuple[float, ...] | None:
        for name in ("web-trial", "web"):
            split = self._store.get(Key("split.smi-spec.io", "TrafficSplit", namespace, name))
            if split is not None:
                return _of(split["spec"]["backends"], "service")
        route = self._store.get(Key("gateway.networking.k8s.io", "HTTPRoute", namespace, "web"))
        both = [
            rule["backendRefs"] for rule in (route or {"spec": {"rules": []}})["spec"]["rules"] if len(rule["backendRefs"]) == 2
        ]
        return _of(both[-1], "name") if both else None


def _of(backends: list[Object], name: str) -> tuple[float, ...]:
    weights = {backend[name]: float(backend["weight"]) for backend in backends}
    return weights.pop("web-canary"), weights.pop("web-primary"), *weights.values()


def _note(seen: list[Any], now: Any) -> None:
    if not seen or seen[-1] != now:
        seen.append(now)


class Release:
    """One namespace with its Canary.  `revision` is what its users have now."""

    def __init__(self, mesh: MeshRun, view: View, gates: Gates, namespace: str) -> None:
        self.mesh = mesh
        self.view = view
        self.gates = gates
        self.namespace = namespace
        self.clients = [pod.ip for pod in mesh.pods("client")]  # addresses
        self.host = f"web.{namespace}"
        self._counted = 0
        self._hooks: list[Object] = []

    # -- what a user writes

    def write(self, revision: str, **env: Any) -> None:
        self.mesh.write(f"{self.namespace}-web", *workload(self.mesh, self.namespace, "web", **{"REVISION": revision, **env}))

    def remove(self, what: str) -> None:
        """One of its files."""
        (self.mesh.manifests / f"{self.namespace}-{what}.yaml").unlink()

    def config(self, **data: str) -> None:
        self.mesh.write(f"{self.namespace}-config", config_map(self.namespace, "web", **data))

    def canary(
        self,
        *gates: str,
        provider: str = "",
        annotations: dict[str, str] | None = None,
        spec: Object | None = None,
        **analysis: Any,
    ) -> None:
        """`gates`: types of webhooks that hold it."""
        metadata: Object = {"name": "web", "namespace": self.namespace}
        if annotations:
            metadata["annotations"] = annotations
        body: Object = {
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "service": {"port": 80, "targetPort": "main"},
            "analysis": {
                "interval": "1s",
                "threshold": 1000,  # a busy machine is no reason to roll back
                "webhooks": [self.gates.hook(self.namespace, kind) for kind in gates],
                **analysis,
            },
            **({"provider": provider} if provider else {}),
            **(spec or {}),
        }
        self._accepted("canary", {"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": metadata, "spec": body})

    def policy(self, **spec: Any) -> None:
        metadata = {"name": "web", "namespace": self.namespace}
        obj = {"apiVersion": "meshproxy.dev/v1alpha1", "kind": "ReleasePolicy", "metadata": metadata, "spec": spec}
        self._accepted("policy", obj)

    def _accepted(self, file: str, obj: Object) -> None:
        """Written, and in force: files that are written one after the other need not be read in that order."""
        self.mesh.write(f"{self.namespace}-{file}", obj)
        group, annotations = obj["apiVersion"].partition("/")[0], obj["metadata"].get("annotations", {})

        def accepted() -> bool:
            found = self.view.get(group, obj["kind"], self.namespace, "web") or {"metadata": {}}
            there = found["metadata"].get("annotations") or {}
            return found.get("spec") == obj["spec"] and annotations.items() <= there.items()

        until(accepted, f"{obj['kind']} {self.namespace}/web to be accepted")

    def order(self, *words: str) -> str:
        """`meshproxy canary ...`, as typed."""
        verb, *more = words
        done = self.mesh.verb("canary", verb, "web", "-n", self.namespace, "--name", self.mesh.name, *more)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def let(self, kind: str, times: int = 1) -> None:
        self.gates.let(self.namespace, kind, times)

    # -- what is to be seen

    @property
    def status(self) -> Object:
        obj = self.view.get("flagger.app", "Canary", self.namespace, "web") or {}
        return obj.get("status") or {}

    @property
    def phase(self) -> str:
        return str(self.status.get("phase", ""))

    @property
    def events(self) -> Counter[str]:
        return self.view.events(self.namespace)

    def seen(self) -> Seen:
        return self.view.seen[self.namespace]

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        try:
            return until(condition, what)
        except AssertionError as failure:
            pods = [(pod["metadata"]["name"], pod.get("status")) for pod in self.view.list("", "Pod", self.namespace)]
            raise AssertionError(
                f"{self.namespace}: {failure}; {self.status}; {list(self.events)[-12:]}; pods {pods}"
            ) from None

    def reaches(self, phase: str) -> None:
        """Of the revision that was written last, where that is not clear from the phase itself."""
        self.until(lambda: self.phase == phase, f"phase {phase}")

    def says(self, text: str, more_than: int = 0) -> None:
        """An Event with this text, more often than that."""
        self.until(lambda: sum(n for said, n in self.events.items() if text in said) > more_than, f"event {text!r}")

    def often(self, text: str) -> int:
        return sum(count for said, count in self.events.items() if text in said)

    def shares_at(self, proxy: str) -> list[tuple[float, float]]:
        """(canary, primary) in percent, wherever this proxy shares out between the two."""
        found: list[tuple[float, float]] = []
        canary, primary = f"{self.namespace}/web-canary", f"{self.namespace}/web-primary"

        def search(value: Any) -> None:
            if isinstance(value, dict):
                for one in value.values():
                    search(one)
            elif isinstance(value, list):
                weights = {
                    b["service"]: int(b.get("weightMilli", 0))
                    for b in value
                    if isinstance(b, dict) and isinstance(b.get("service"), str)
                }
                if weights.keys() == {canary, primary}:
                    total = sum(weights.values())
                    found.append((100 * weights[canary] / total, 100 * weights[primary] / total))
                for one in value:
                    search(one)

        search([r["content"] for r in self.mesh.config(proxy)["resources"] if r["name"] == f"{self.namespace}/web"])
        return found

    def begins(self) -> None:
        """Initialized, and both clients have heard of it."""
        self.reaches("Initialized")
        for ip in self.clients:
            self.until(lambda ip=ip: ask_each(ip, self.host, "first", 1)[0].status == 200, f"an answer at {ip}")

    def shares(self, *expected: tuple[float, float]) -> None:
        """Wait until both clients share out like this."""
        want = sorted(expected)
        for ip in self.clients:
            self.until(lambda ip=ip: sorted(self.shares_at(ip)) == want, f"{want} at {ip}")

    def mesh_pods(self, deployment: str) -> list[str]:
        """Names of its pods."""
        found = (pod["metadata"] for pod in self.view.list("", "Pod", self.namespace))
        return [meta["name"] for meta in found if meta["name"].rsplit("-", 2)[0] == deployment]

    # -- asking

    def users(self, rate: float = 12.0, *, client: int = 0, **more: Any) -> Users:
        """They ask through the first client (count() through the second) all the time."""
        return Users(self.clients[client], self.host, rate, prefix=f"u{client}-{time.monotonic_ns()}-", **more)

    def count(self, number: int, headers: dict[str, str] | None = None, host: str = "") -> list[Said]:
        for _ in range(3):
            self._counted += 1
            said = ask_each(self.clients[1], host or self.host, f"c{self._counted}", number, headers)
            if not any(one.starved for one in said):
                break
        return said

    def executed(self) -> dict[str, list[str]]:
        """Id -> the arms at which it began, one entry for each time."""
        found: dict[str, list[str]] = {}
        for line in ledger(self.mesh, self.namespace):
            found.setdefault(line.id, []).append(line.arm)
        return found


# ---------------------------------------------------------------- side by side


Play = Callable[[Release], None]


class Stage:
    """Runs lanes beside one another: in each its plays, one after the other; what follows a play that failed is not run."""

    def __init__(self, lanes: dict[Release, list[Play]]) -> None:
        self._results: dict[Play, Future[None]] = {play: Future() for plays in lanes.values() for play in plays}
        self._pool = ThreadPoolExecutor(BESIDE)
        for release, plays in lanes.items():
            self._pool.submit(self._run, release, plays)

    def result(self, play: Play) -> None:
        """Waits for it; raises what it raised."""
        self._results[play].result(timeout=600)

    def end(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _run(self, release: Release, plays: list[Play]) -> None:
        broken: BaseException | None = None
        for play in plays:
            if broken is not None:
                error: BaseException = RuntimeError(f"not run, because the play before it failed: {broken}")
                self._results[play].set_exception(error)
                continue
            try:
                play(release)
            except BaseException as failure:  # noqa: BLE001  # it is the play's result, and raised in its test
                broken = failure
                self._results[play].set_exception(failure)
            else:
                self._results[play].set_result(None)


@contextmanager
def performing(mesh: MeshRun, lanes: dict[str, list[Play]], chosen: Collection[str]) -> Iterator[Stage]:
    """On a mesh that runs: of every lane the plays that were chosen, by name, and those before them."""
    last = {
        name: max((n for n, play in enumerate(plays, 1) if play.__name__ in chosen), default=0) for name, plays in lanes.items()
    }
    lanes = {name: plays[: last[name]] for name, plays in lanes.items() if last[name]}
    view, gates = View(mesh), Gates()
    stage = Stage({Release(mesh, view, gates, name): plays for name, plays in lanes.items()})
    try:
        yield stage
    finally:
        stage.end()
        gates.end()
        view.end()


class Lanes(dict[str, list[Play]]):
    """Lane -> its plays, in order, each of which is a test of the module that wrote it."""

    def lane(self, name: str) -> Callable[[Play], Callable[[Stage], None]]:
        """The test is played in this lane, after those above it and beside those of other lanes."""

        def made(play: Play) -> Callable[[Stage], None]:
            def test(stage: Stage) -> None:
                stage.result(play)

            self.setdefault(name, []).append(play)
            test.__name__, test.__doc__ = play.__name__, play.__doc__
            return test

        return made

    @contextmanager
    def performed(self, home: Path, name: str, chosen: Collection[str]) -> Iterator[Stage]:
        """In a mesh of their own, with two clients.  chosen: names of tests."""
        mesh = MeshRun(home, name)
        mesh.write("clients", *workload(mesh, "e2e", "client", replicas=2))
        try:
            mesh.start()
            with performing(mesh, self, chosen) as stage:
                yield stage
        finally:
            mesh.end()

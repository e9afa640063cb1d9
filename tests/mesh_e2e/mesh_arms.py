"""Both arms of a release, and who asks them: manifests of arm_app, users, and what the arms wrote down.

    Users    all the time, each a request after the other          -->  sidecar of a client --> web-primary | web
    ask()    one request, ask_each() a number of them in a row     -->                           ledger       ledger

Who got which version is counted by the answers, and by the ledgers.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from mesh_manifests import APPS, Object
from mesh_run import MeshRun

CANARY, PRIMARY, BASELINE = "canary", "primary", "baseline"


def arm_of(pod: str) -> str:
    return PRIMARY if "-primary-" in pod else BASELINE if "-baseline-" in pod else CANARY


def workload(mesh: MeshRun, namespace: str, name: str, *, replicas: int = 1, **env: Any) -> list[Object]:
    """A Deployment of arm_app and its account.  `env`: values, or what valueFrom says."""
    labels = {"app": name}
    variables: list[Object] = [
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
        {"name": "LEDGER", "value": str(mesh.ledger)},
    ]
    for key, value in env.items():
        variables.append({"name": key, "valueFrom": value} if isinstance(value, dict) else {"name": key, "value": str(value)})
    container = {
        "name": "app",
        "image": "e2e/arm_app:1",
        "command": ["python3", "-S", str(APPS / "arm_app.py")],
        "ports": [{"name": "main", "containerPort": 8080}],
        "env": variables,
        "readinessProbe": {"httpGet": {"path": "/ready", "port": "main"}, "periodSeconds": 1},
    }
    template = {
        "metadata": {"labels": labels},
        "spec": {"serviceAccountName": name, "terminationGracePeriodSeconds": 3, "containers": [container]},
    }
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
        },
    ]


def config_map(namespace: str, name: str, **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}, "data": data}


# ---------------------------------------------------------------- asking


@dataclass(frozen=True)
class Said:
    """One answer.  `pod` says why there was none (`status` 0), or why the mesh itself answered."""

    id: str
    status: int
    pod: str = ""
    revision: str = ""
    cookie: str = ""  # Set-Cookie
    at: float = 0.0  # Unix seconds, when it was there

    @property
    def arm(self) -> str:
        """ "canary", "primary" or "baseline"; if neither answered, why."""
        return arm_of(self.pod) if self.revision or self.pod.startswith("web-") else self.pod

    @property
    def starved(self) -> bool:
        """A dial took more than a second: so busy a machine says nothing about a release."""
        return self.pod.startswith("connect_timeout")


def ask(connection: http.client.HTTPConnection, host: str, number: str, headers: Mapping[str, str] | None = None) -> Said:
    """As an app with http_proxy set does.  Never repeated."""
    try:
        connection.request("GET", f"http://{host}/?id={number}", headers={"Host": host, **(headers or {})})
        answer = connection.getresponse()
        body = answer.read().decode()
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        return Said(number, 0, f"{type(error).__name__}: {error}", at=time.time())
    if why := answer.headers.get("mesh-error", ""):
        return Said(number, answer.status, f"{why}: {body.strip()}", at=time.time())
    pod, _, revision = body.partition(" ")
    return Said(number, answer.status, pod, revision, answer.headers.get("set-cookie", ""), time.time())


def ask_each(proxy: str, host: str, prefix: str, count: int, headers: Mapping[str, str] | None = None) -> list[Said]:
    """`count` requests through this proxy, one after another."""
    connection = http.client.HTTPConnection(proxy, 4140, timeout=30)
    try:
        return [ask(connection, host, f"{prefix}-{number}", headers) for number in range(count)]
    finally:
        connection.close()


def arms(said: list[Said]) -> Counter[tuple[str, str, int]]:
    """(arm, revision, status) of the answers, and how often; (why, "", status) of those that no arm gave."""
    return Counter((one.arm, one.revision, one.status) for one in said)


class Users:
    """`with Users(...) as users`: they ask until the block ends; users.said has every answer."""

    def __init__(
        self, proxy: str, host: str, rate: float = 12.0, *, prefix: str = "u", headers: Mapping[str, str] | None = None
    ) -> None:
        """`rate`: requests a second, of all four together; less if the answers are slow."""
        self.said: list[Said] = []
        self._asking = (proxy, host, prefix, headers)
        self._pause = 4 / rate
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,), daemon=True) for number in range(4)]

    @property
    def failures(self) -> list[Said]:
        return [one for one in self.said if one.status != 200 and not one.starved]

    def __enter__(self) -> Users:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(60)

    def _ask(self, user: int) -> None:
        proxy, host, prefix, headers = self._asking
        connection = http.client.HTTPConnection(proxy, 4140, timeout=30)
        number, due = 0, time.monotonic()
        while not self._ended.wait(max(0.0, due - time.monotonic())):
            number += 1
            due = max(due + self._pause, time.monotonic() - 1.0)  # what a busy machine made late is not sent all at once
            self.said.append(ask(connection, host, f"{prefix}{user}-{number}", headers))
        with suppress(OSError):
            connection.close()


# ---------------------------------------------------------------- the ledgers


@dataclass(frozen=True)
class Line:
    """One request as its app saw it: `at` in Unix seconds."""

    at: float
    id: str
    status: int
    pod: str

    @property
    def arm(self) -> str:
        return arm_of(self.pod)


def ledger(mesh: MeshRun, namespace: str) -> list[Line]:
    """Every request that began at an arm of this namespace, in order."""
    found = []
    for path in mesh.ledger.glob(f"{namespace}.*.log"):
        pod = path.name.split(".")[1]
        for text in path.read_text().splitlines():
            at, number, status = text.split()
            found.append(Line(float(at), number, int(status), pod))
    return sorted(found, key=lambda line: line.at)

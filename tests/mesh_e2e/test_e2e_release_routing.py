"""Who gets the canary, through real sidecars: A/B on SMI, session affinity and mirroring on HTTPRoutes, each at its last step.

Three Canaries of one mesh wait for their promotion to be approved; meanwhile their routing can be looked at without haste.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from mesh_manifests import NAMESPACE, Object, account, deployment, service
from mesh_run import Answer, MeshRun, request, until

from control.store.files import FileStore
from control.store.store import Key

INSIDER = {"x-canary": "insider"}
NAMES = ("ab", "sticky", "shadow")


def canary(name: str, provider: str, **analysis: Any) -> Object:
    return {
        "apiVersion": "flagger.app/v1beta1",
        "kind": "Canary",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "annotations": {"meshproxy.dev/confirm": "promotion"},
        },
        "spec": {
            "provider": provider,
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "service": {"port": 80, "targetPort": "main"},
            "analysis": {"interval": "1s", "threshold": 5, **analysis},
        },
    }


class Releases:
    def __init__(self, mesh: MeshRun) -> None:
        self.mesh = mesh

    def write(self, name: str, version: str) -> None:
        made = deployment(name, "echo_app", 8080, self.mesh.ledger)
        made["spec"]["template"]["spec"]["containers"][0]["env"].append({"name": "REVISION", "value": version})
        self.mesh.write(name, account(name), made, service(name))

    def get(self, key: Key) -> Object:
        store = FileStore(None, self.mesh.layout.objects, "e2e")
        store.refresh()
        return store.get(key) or {}

    def status(self, name: str) -> Object:
        found: Object = self.get(Key("flagger.app", "Canary", NAMESPACE, name)).get("status") or {}
        return found

    def reach(self, phase: str) -> None:
        """Every release reaches it."""

        def reached() -> bool:
            return all(self.status(name).get("phase") == phase for name in NAMES)

        try:
            until(reached, f"phase {phase}")
        except AssertionError as failure:
            raise AssertionError(f"{failure}: {[self.status(name) for name in NAMES]}") from None

    def ask(self, name: str, path: str = "/echo", **headers: str) -> Answer:
        found = request(*self.mesh.gateway, "GET", f"http://{name}.{NAMESPACE}{path}", headers=headers)
        assert found.status == 200, found
        return found

    def served(self, name: str, **headers: str) -> str:
        """Which of the two answered."""
        pod = str(self.ask(name, **headers).json["pod"])
        return "primary" if pod.startswith(f"{name}-primary-") else "canary"


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Releases]:
    """Each at its last step, with promotion to be approved."""
    mesh = MeshRun(tmp_path_factory.mktemp("routing"), "routing")
    found = Releases(mesh)
    match = [{"headers": {"x-canary": {"exact": "insider"}}}]
    affinity = {"cookieName": "release", "path": "/"}
    mesh.write(
        "canaries",
        canary("ab", "linkerd", iterations=2, match=match),
        canary("sticky", "gatewayapi:v1", stepWeights=[40], sessionAffinity=affinity),
        canary("shadow", "smi:v1alpha2", iterations=2, mirror=True),
    )
    for name in NAMES:
        found.write(name, "1")
    try:
        mesh.start()
        found.reach("Initialized")
        for name in NAMES:
            found.write(name, "2")
        found.reach("WaitingPromotion")
        yield found
    finally:
        mesh.end()


def test_in_an_ab_test_on_smi_who_matches_gets_the_canary_and_nobody_else(releases: Releases) -> None:
    until(lambda: releases.served("ab", **INSIDER) == "canary", "the routing at the gateway")
    assert Counter(releases.served("ab", **INSIDER) for _ in range(10)) == {"canary": 10}
    assert Counter(releases.served("ab") for _ in range(10)) == {"primary": 10}
    assert Counter(releases.served("ab", **{"x-canary": "other"}) for _ in range(5)) == {"primary": 5}


def test_who_got_the_canary_once_stays_with_it(releases: Releases) -> None:
    def given() -> str:
        return releases.ask("sticky").headers.get("set-cookie", "")

    told = until(given, "an answer of the canary")
    cookie, _, attributes = told.partition("; ")
    assert attributes == "Max-Age=86400; Path=/"
    assert Counter(releases.served("sticky", cookie=f"a=b; {cookie}") for _ in range(20)) == {"canary": 20}
    both = Counter(releases.served("sticky") for _ in range(50))
    assert 18 <= both["canary"] <= 22  # 40 % of each block of five, of which the first and the last are cut
    assert releases.status("sticky")["sessionAffinityCookie"] == cookie


def test_while_mirrored_the_primary_answers_and_the_canary_gets_each_request_too(releases: Releases) -> None:
    ids = [f"shadow-{number}" for number in range(20)]
    for number in ids:
        releases.ask("shadow", f"/work?id={number}")

    def seen() -> list[list[str]]:
        done = releases.mesh.executions()
        return [sorted(pod.rsplit("-", 2)[0] for pod in done.get(number, [])) for number in ids]

    until(lambda: seen() == [["shadow", "shadow-primary"]] * len(ids), "every request at both")
    assert Counter(releases.served("shadow") for _ in range(10)) == {"primary": 10}


def test_promoted_everyone_gets_the_primary_and_the_cookie_is_taken_back(releases: Releases) -> None:
    """The last test of this mesh."""
    cookie = releases.status("sticky")["sessionAffinityCookie"]
    for name in NAMES:
        done = releases.mesh.verb("canary", "approve", name, "-n", NAMESPACE, "--name", releases.mesh.name)
        assert done.returncode == 0, done.stderr
    releases.reach("Succeeded")
    for name, headers in (("ab", INSIDER), ("shadow", {}), ("sticky", {"cookie": cookie})):
        until(lambda name=name, headers=headers: releases.served(name, **headers) == "primary", f"{name} at the gateway")
    told = until(lambda: releases.ask("sticky", cookie=cookie).headers.get("set-cookie"), "the cookie taken back")
    assert told == f"{cookie}; Max-Age=-1; Path=/"
    assert "set-cookie" not in releases.ask("sticky").headers
    route = releases.get(Key("gateway.networking.k8s.io", "HTTPRoute", NAMESPACE, "sticky"))
    (parent,) = route["status"]["parents"]
    assert {condition["type"]: condition["status"] for condition in parent["conditions"]} == {
        "Accepted": "True",
        "ResolvedRefs": "True",
    }

"""Circuit breaking and stickiness, as Services declare them by annotation, through two real sidecars."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from mesh_manifests import Object, account, deployment, service
from mesh_run import Answer, MeshRun, Pod, request, until

PENALTY_S = 2.0


def annotated(obj: Object, annotations: dict[str, str]) -> Object:
    obj["metadata"]["annotations"] = annotations
    return obj


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeshRun]:
    """client; web: three replicas with Linkerd's annotations for a breaker; cart: the same pods by cookie."""
    found = MeshRun(tmp_path_factory.mktemp("breaker"), "breaker")
    accrual = "balancer.linkerd.io/failure-accrual"
    breaker = {
        accrual: "consecutive",
        f"{accrual}-consecutive-max-failures": "5",
        f"{accrual}-consecutive-min-penalty": f"{PENALTY_S}s",
        f"{accrual}-consecutive-max-penalty": f"{PENALTY_S}s",
        "meshproxy.dev/balancer": "least-request",  # which by itself does not see that something fails
    }
    sticky = {"meshproxy.dev/balancer": "maglev", "meshproxy.dev/balancer-key": "cookie=session"}
    web = deployment("web", "moody_app", 8080, found.ledger, replicas=3)
    found.write("client", account("client"), deployment("client", "echo_app", 8080, found.ledger))
    found.write(
        "web",
        account("web"),
        web,
        annotated(service("web"), breaker),
        annotated(service("cart", selector={"app": "web"}), sticky),
    )
    try:
        found.start()
        yield found
    finally:
        found.end()


@pytest.fixture(scope="module")
def client(mesh: MeshRun) -> Pod:
    client = mesh.pod("client")
    ips = {pod.ip for pod in mesh.pods("web")}
    until(lambda: all(ip in json.dumps(mesh.config(client.ip)) for ip in ips), "all endpoints")
    return client


def ask(client: Pod, name: str, cookie: str = "") -> Answer:
    return request(client.ip, 4140, "GET", f"http://{name}.e2e/", headers={"cookie": cookie} if cookie else {})


def asked(pod: Pod) -> int:
    count: int = request(pod.ip, 8080, "GET", "/asked").json["asked"]
    return count


def test_an_endpoint_that_fails_is_ejected_probed_once_a_penalty_and_taken_back(mesh: MeshRun, client: Pod) -> None:
    sick = mesh.pods("web")[0]
    request(sick.ip, 8080, "GET", "/broken")

    def out() -> bool:
        ask(client, "web")
        return mesh.metrics(client.ip).total("meshproxy_endpoints_ejected", backend="e2e/web:80") == 1

    until(out, "the ejection")
    at_ejection = asked(sick)
    assert at_ejection == 5, "that many failures in a row"
    answers = [ask(client, "web") for _ in range(60)]
    probes = asked(sick) - at_ejection
    failed = [answer for answer in answers if answer.status != 200]
    assert len(failed) == probes, "what fails is a probe, and nothing else"
    assert probes < 20, "a third would be its share"
    request(sick.ip, 8080, "GET", "/whole")

    def back() -> bool:
        answer = ask(client, "web")
        return answer.status == 200 and answer.json["pod"] == sick.name

    until(back, "its return")
    page = mesh.metrics(client.ip)
    assert page.total("meshproxy_endpoints_ejected", backend="e2e/web:80") == 0
    assert page.total("meshproxy_ejections_total", backend="e2e/web:80") >= 1 + probes


def test_a_cookie_keeps_its_pod(mesh: MeshRun, client: Pod) -> None:
    homes = set()
    for session in range(15):
        pods = {ask(client, "cart", f"a=1; session={session}").json["pod"] for _ in range(3)}
        assert len(pods) == 1
        homes |= pods
    assert homes == {pod.name for pod in mesh.pods("web")}


def test_lint_finds_nothing_wrong_with_these_manifests(mesh: MeshRun) -> None:
    ran = mesh.verb("lint", str(mesh.manifests))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "balancer" not in ran.stdout + ran.stderr

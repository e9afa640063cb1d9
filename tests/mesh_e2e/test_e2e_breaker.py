"""Circuit breaking, stickiness, limits and faults, as annotations declare them, through two real sidecars."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from mesh_manifests import Object, account, deployment, service
from mesh_run import Answer, MeshRun, Pod, request, until

PENALTY_S = 2.0


def annotated(obj: Object, annotations: dict[str, str]) -> Object:
    obj["metadata"]["annotations"] = annotations
    return obj


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeshRun]:
    """client; web: three replicas with Linkerd's annotations for a breaker; cart: the same pods by cookie;
    desk: a pod that takes three requests at once; trial: the same pod, with faults for requests that ask for them."""
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
    desk = deployment("desk", "echo_app", 8080, found.ledger)
    desk["spec"]["template"]["metadata"]["annotations"] = {"meshproxy.dev/concurrency-limit": "3"}
    faults = {
        "meshproxy.dev/fault-delay": "1s 100%",
        "meshproxy.dev/fault-abort": "418 100%",
        "meshproxy.dev/fault-header": "x-fault=yes",
    }
    found.write("desk", account("desk"), desk, service("desk"), annotated(service("trial", selector={"app": "desk"}), faults))
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


def test_a_pod_turns_away_what_is_too_much_at_once_and_says_when_to_come_back(mesh: MeshRun, client: Pod) -> None:
    until(lambda: request(client.ip, 4140, "GET", "http://desk.e2e/echo").status == 200, "the desk")

    def work(number: int) -> Answer:
        return request(client.ip, 4140, "GET", f"http://desk.e2e/work?id=desk-{number}&ms=1500")

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(work, range(12)))
    assert Counter(answer.status for answer in answers) == {200: 3, 503: 9}
    refused = [answer for answer in answers if answer.status == 503]
    assert {(one.headers["mesh-error"], one.headers["retry-after"]) for one in refused} == {("concurrency_limit", "1")}
    begun = [name for name in mesh.executions() if name.startswith("desk-")]
    assert len(begun) == 3, "what is refused never reaches the app"
    page = mesh.metrics(mesh.pod("desk").ip)
    assert page.total("meshproxy_shed_total", **{"class": "ordinary"}) == 9
    assert work(12).status == 200


def test_a_fault_happens_to_the_requests_that_are_meant_and_to_no_other(mesh: MeshRun, client: Pod) -> None:
    until(lambda: request(client.ip, 4140, "GET", "http://trial.e2e/echo").status == 200, "the trial")
    began = time.monotonic()
    answer = request(client.ip, 4140, "GET", "http://trial.e2e/work?id=fault", headers={"x-fault": "yes"})
    assert (answer.status, answer.headers["mesh-error"]) == (418, "fault_injected")
    assert time.monotonic() - began >= 0.99
    assert "fault" not in mesh.executions(), "the app never saw it"


def test_lint_finds_nothing_wrong_with_these_manifests(mesh: MeshRun) -> None:
    ran = mesh.verb("lint", str(mesh.manifests))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "balancer" not in ran.stdout + ran.stderr

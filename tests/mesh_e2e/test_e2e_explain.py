"""`meshproxy explain` on a running mesh: both ends are asked, the words are those of the manifests, nothing reaches an app."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from mesh_manifests import NAMESPACE, rules, service, split, traffic_target
from mesh_run import MeshRun, until

RULES = [
    rules("HTTPRouteGroup", "explained", matches=[{"name": "work", "methods": ["GET"], "pathRegex": "/work"}]),
    traffic_target("explained", "web", "HTTPRouteGroup/explained"),
]


@pytest.fixture(scope="module")
def ruled(shop: MeshRun) -> Iterator[MeshRun]:
    """`parts`, a Service split 3 : 1 between web and client, and a TrafficTarget that lets client GET /work of web."""

    def told(word: str) -> bool:
        pods = [shop.pod("client"), *shop.pods("web")]
        return all((word in json.dumps(shop.config(pod.ip))) for pod in pods[1:]) and bool(shop.weights(pods[0].ip, "parts"))

    parts = [service("parts", selector={"app": "web"}), service("clients", selector={"app": "client"})]
    shop.write("explained", *RULES, *parts, service("webs", selector={"app": "web"}), split("parts", webs=3, clients=1))
    until(lambda: told("TrafficTarget e2e/explained"), "the rules to be in force")
    try:
        yield shop
    finally:
        (shop.manifests / "explained.yaml").unlink()
        until(lambda: all("explained" not in json.dumps(shop.config(pod.ip)) for pod in shop.pods("web")), "the rules to go")


def test_a_trail_names_service_shares_endpoints_and_the_far_sides_decision(ruled: MeshRun) -> None:
    counted = ruled.metrics(ruled.pod("client").ip).total("request_total", direction="outbound")
    words = ("GET", "http://parts/work?id=explained", "--from", "deploy/client", "-n", NAMESPACE, "--name", ruled.name)
    ran = ruled.verb("explain", *words, "-o", "json")
    assert ran.returncode == 0, ran.stderr
    trail = json.loads(ran.stdout)
    assert trail["name"]["service"] == f"{NAMESPACE}/parts:80"
    assert [(one["name"], one["share"]) for one in trail["backends"]] == [("e2e/webs:80", 0.75), ("e2e/clients:80", 0.25)]
    webs = trail["backends"][0]["endpoints"]
    assert {one["address"] for one in webs} == {pod.ip for pod in ruled.pods("web")}
    assert {one["access"]["by"] for one in webs} == {"TrafficTarget e2e/explained"}
    assert trail["backends"][1]["endpoints"][0]["access"]["by"] == "mode"
    assert ruled.metrics(ruled.pod("client").ip).total("request_total", direction="outbound") == counted
    assert "explained" not in ruled.executions()


def test_a_request_that_would_be_denied_says_so_and_the_verb_fails(ruled: MeshRun) -> None:
    ran = ruled.verb("explain", "POST", "http://web.e2e/work", "--from", f"client.{NAMESPACE}", "--name", ruled.name)
    assert ran.returncode == 1
    assert "denied: 403 access_request" in ran.stdout
    assert "TrafficTarget e2e/explained: does not fit: method" in ran.stdout
    assert ran.stdout.splitlines()[-1] == "outcome    sent, and refused where it arrives: access_request"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("http://web/", "--from", "deploy/nobody"), 1, "there are: deploy/client.e2e"),
        (("http://web/",), 2, "meshproxy explain GET http://web/ --from deploy/"),
        (("http://web/", "--from", "svc/web"), 2, "expected deploy/NAME"),
        (("https://web/", "--from", "deploy/client"), 2, "ask with http://"),
    ],
)
def test_a_mistake_says_what_would_do(ruled: MeshRun, words: tuple[str, ...], code: int, says: str) -> None:
    ran = ruled.verb("explain", "GET", *words, "-n", NAMESPACE, "--name", ruled.name)
    assert (ran.returncode, says in ran.stderr) == (code, True), ran.stderr

"""Whom a pod lets in through two real sidecars, by its mode and by TrafficTargets; and why a request goes where it goes."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from mesh_manifests import NAMESPACE, Object
from mesh_policy import World, front, ours, route, to
from mesh_run import Pod, request, until


def target(name: str, *rules: str, source: str = "client") -> Object:
    """`rules`: "Kind/name"."""
    return {
        "apiVersion": "access.smi-spec.io/v1alpha3",
        "kind": "TrafficTarget",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "destination": {"kind": "ServiceAccount", "name": "desk"},
            "sources": [{"kind": "ServiceAccount", "name": source}],
            "rules": [dict(zip(("kind", "name"), rule.split("/"), strict=True)) for rule in rules],
        },
    }


def specs(kind: str, name: str, spec: Object, **annotations: str) -> Object:
    metadata = {"name": name, "namespace": NAMESPACE, "annotations": ours(annotations)}
    return {"apiVersion": "specs.smi-spec.io/v1alpha4", "kind": kind, "metadata": metadata, "spec": spec}


def api(**annotations: str) -> Object:
    match = {"name": "api", "methods": ["GET"], "pathRegex": "/api", "headers": {"x-team": "a|b"}}
    return specs("HTTPRouteGroup", "api", {"matches": [match]}, **annotations)


TARGETS = [
    target("reads", "HTTPRouteGroup/api"),
    target("unused", "HTTPRouteGroup/api", source="gate"),
    target("lines", "TCPRoute/lines", "HTTPRouteGroup/posts"),  # one of the ports and one of the matches
    specs("TCPRoute", "lines", {"matches": {"ports": [9090]}}),
    specs("HTTPRouteGroup", "posts", {"matches": [{"name": "posts", "methods": ["POST"]}]}),
]


def desk(world: World, line: str, **headers: str) -> str:
    method, _, path = line.partition(" ")
    answer = world.ask("desk", method, path=path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    return str(answer.headers.get("mesh-error", answer.status))


def clear(pod: Pod, line: str) -> str:
    """As from outside the mesh, without TLS."""
    method, _, path = line.partition(" ")
    answer = request(pod.ip, 4143, method, path, headers={"host": f"{pod.ip}:8080"})
    return str(answer.headers.get("mesh-error", answer.status))


def allowed(world: World, name: str) -> float | None:
    """What a TrafficTarget has let in at desk; None if nobody counts it."""
    page = world.mesh.metrics(world.mesh.pod("desk").ip)
    return page.values("meshproxy_access_allowed_total", "rule").get(f"TrafficTarget {NAMESPACE}/{name}")


@pytest.fixture(scope="module")
def ruled(policy_mesh: World) -> Iterator[World]:
    policy_mesh.mesh.write("modes", *TARGETS, api())
    until(lambda: desk(policy_mesh, "GET /do") == "access_request", "the targets to be in force")
    yield policy_mesh
    (policy_mesh.mesh.manifests / "modes.yaml").unlink()
    until(lambda: desk(policy_mesh, "GET /do") == "forbidden", "the targets to be gone")


# ---------------------------------------------------------------- modes of pods that no TrafficTarget selects


def test_where_nothing_is_declared_every_identity_of_the_mesh_is_let_in_and_nobody_else(world: World) -> None:
    assert world.who("one") == "one"
    assert clear(world.web["one"], "GET /do") == "not_authenticated"


def test_a_pod_may_take_plaintext_from_anybody(world: World) -> None:
    assert clear(world.mesh.pod("gate"), "GET /do") == "200"
    assert world.ask("gate").status == 200


def test_a_pod_may_take_nothing_but_health_probes(world: World) -> None:
    assert desk(world, "GET /do") == "forbidden"
    pod = world.mesh.pod("desk")
    assert clear(pod, "GET /ready") == "200"
    assert clear(pod, "GET /ready?x") == "forbidden"
    assert clear(pod, "POST /ready") == "forbidden"


# ---------------------------------------------------------------- TrafficTargets


def test_what_a_target_selects_takes_what_fits_all_of_one_match_and_each_target_counts_what_it_let_in(ruled: World) -> None:
    before = allowed(ruled, "reads") or 0.0
    assert desk(ruled, "GET /api/x", x_team="b") == "200"
    assert desk(ruled, "GET /api") == "access_request", "method and path fit, the header does not"
    assert desk(ruled, "GET /api", x_team="c") == "access_request"
    assert desk(ruled, "POST /api", x_team="a") == "access_request", "another target wants POST, and another port"
    assert allowed(ruled, "reads") == before + 1
    assert allowed(ruled, "unused") == 0


def test_a_path_regex_is_anchored_at_the_start_and_on_demand_at_the_end(ruled: World) -> None:
    assert desk(ruled, "GET /apix", x_team="a") == "200"
    assert desk(ruled, "GET /do/api", x_team="a") == "access_request"
    ruled.mesh.write("modes", *TARGETS, api(path_match="full"))
    until(lambda: desk(ruled, "GET /apix", x_team="a") == "access_request", "the whole path to be asked for")
    assert desk(ruled, "GET /api", x_team="a") == "200"


# ---------------------------------------------------------------- explain


def test_the_trail_tells_rules_times_retries_shares_scores_breaker_and_far_side(world: World) -> None:
    told = front("told", "one", breaker="consecutive", breaker_max_failures="3", breaker_min_penalty="60s")
    beta = to(("two", 1), matches=[{"headers": [{"name": "x-beta", "value": "always"}]}])
    times = {"request": "2s", "backendRequest": "500ms"}
    main = to(("told", 3), ("three", 1), timeouts=times, retry={"codes": [503], "attempts": 2})
    world.declare("told", told, route("told", beta, main), until_told=lambda: world.resource("told").get("routes"))
    world.mood("one", status=500)
    spared = "meshproxy_ejections_spared_total"
    until(lambda: world.ask("told") and world.page().total(spared, backend=f"{NAMESPACE}/told:80"), "three failures in a row")
    asked = ("explain", "GET", "http://told/do", "--from", "deploy/client", "-n", NAMESPACE, "--name", world.mesh.name)
    seen = world.seen("one")["asked"]
    text = world.mesh.verb(*asked).stdout
    for words in (
        f"name       {NAMESPACE}/told:80",
        "-->   HTTPRoute e2e/told rule 1",
        "header x-beta is absent, wanted = always",
        "timeouts   request 2s, each try 500ms",
        "retries    up to 2, for connect-failure, refused-stream, reset, try-timeout, 503",
        "retries left now",
        "shares     weights 3 : 1",
        "backend    e2e/told:80  75%",
        "failures in a row",
        "access     allowed by the mode all-authenticated",
        "outcome    sent",
    ):
        assert words in text, f"{words!r} is not in\n{text}"
    trail = json.loads(world.mesh.verb(*asked, "-o", "json").stdout)
    (endpoint,) = trail["backends"][0]["endpoints"]
    assert endpoint["address"] == world.web["one"].ip
    assert world.seen("one")["asked"] == seen, "nothing is sent by asking"
    real = world.ask("told", headers={"mesh-explain": "1", "x-beta": "always"}).headers["mesh-explain-trail"]
    assert f'took="{world.web["two"].ip}:8080";attempts=1' in real
    assert f'rule="HTTPRoute {NAMESPACE}/told rule 0"' in real

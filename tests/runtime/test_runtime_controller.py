"""The controller with real processes: what runs becomes what the objects say."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from runtime_support import LocalMesh, container, deployment, service, until

from control.runtime.meshes import start_time
from control.runtime.pod import Stage
from control.store.store import Key


async def fetch(address: str, path: str = "/") -> str:
    def get() -> str:
        with urlopen(f"http://{address}{path}", timeout=5) as response:
            return str(response.read().decode())

    return await asyncio.to_thread(get)


def slices(mesh: LocalMesh, name: str) -> list[dict[str, Any]]:
    found = mesh.store.list("discovery.k8s.io", "EndpointSlice", "shop")
    return [item for item in found if item["metadata"]["labels"]["kubernetes.io/service-name"] == name]


def ready_addresses(mesh: LocalMesh, name: str) -> set[str]:
    return {
        address
        for item in slices(mesh, name)
        for endpoint in item["endpoints"]
        if endpoint["conditions"]["ready"]
        for address in endpoint["addresses"]
    }


async def test_a_deployment_becomes_processes_endpoints_and_status(mesh: LocalMesh, app_file: Path) -> None:
    mesh.write("web", deployment("web", container(app_file), replicas=2), service("web"))
    mesh.start()
    await mesh.ready()
    workers = mesh.workers("web-")
    assert len({worker.ip for worker in workers}) == 2
    assert all(worker.ip.startswith(mesh.network.prefix) for worker in workers)
    for worker in workers:
        assert await fetch(f"{worker.ip}:8080") == ""
        pod = mesh.get("Pod", worker.identity.name)
        assert pod is not None
        assert pod["status"]["phase"] == "Running"
        assert pod["status"]["podIP"] == worker.ip
        assert {c["name"]: c["ready"] for c in pod["status"]["containerStatuses"]} == {"app": True, "meshproxy-proxy": True}
        conditions = {item["type"]: item["status"] for item in pod["status"]["conditions"]}
        assert conditions["Ready"] == "True"
    status = mesh.status("web")
    assert (status["replicas"], status["readyReplicas"], status["availableReplicas"], status["unavailableReplicas"]) == (
        2,
        2,
        2,
        0,
    )
    assert {c["type"]: c["reason"] for c in status["conditions"]} == {
        "Available": "MinimumReplicasAvailable",
        "Progressing": "NewReplicaSetAvailable",
    }
    await until(lambda: ready_addresses(mesh, "web") == {w.ip for w in workers}, "both addresses in the EndpointSlice")
    assert slices(mesh, "web")[0]["ports"] == [{"name": "web", "port": 8080, "protocol": "TCP"}]


async def test_the_app_is_told_where_its_sidecar_and_the_services_are(mesh: LocalMesh, app_file: Path) -> None:
    mesh.write("web", deployment("web", container(app_file)), service("web"), service("prices-v2", port=9090))
    mesh.start()
    await mesh.ready()
    (worker,) = mesh.workers("web-")
    environment = json.loads(await fetch(f"{worker.ip}:8080", "/env"))
    assert environment["http_proxy"] == environment["grpc_proxy"] == f"http://{worker.ip}:4140"
    assert environment["no_proxy"].split(",") == ["localhost", "127.0.0.1", worker.ip]
    assert environment["PRICES_V2_SERVICE_HOST"] == worker.ip
    pod = mesh.get("Pod", worker.identity.name)
    assert pod is not None
    listeners = json.loads(pod["metadata"]["annotations"]["meshproxy.dev/service-listeners"])
    by_service = {item["service"]: (item["address"], item["port"]) for item in listeners}
    assert by_service["shop/prices-v2"] == (f"{worker.ip}:{environment['PRICES_V2_SERVICE_PORT']}", 9090)
    assert by_service["shop/web"] == (f"{worker.ip}:{environment['WEB_SERVICE_PORT_WEB']}", 80)


async def test_the_app_starts_after_its_sidecar_and_ends_before_it(mesh: LocalMesh, app_file: Path) -> None:
    mesh.write("web", deployment("web", container(app_file)))
    mesh.start()
    await mesh.ready()
    (worker,) = mesh.workers("web-")
    app, sidecar = worker.machine.app, worker.machine.sidecar
    assert app is not None
    assert sidecar is not None
    assert sidecar.started_at < app.started_at
    mesh.write("web", deployment("web", container(app_file), replicas=0))
    await until(lambda: worker.gone, "the pod gone")
    assert app.run is not None
    assert sidecar.run is not None
    assert app.run.finished < sidecar.run.finished
    assert app.run.exit.code == sidecar.run.exit.code == 0
    assert (worker.directory / "app.log").read_text() == "app starts\napp ends\n"
    await until(lambda: mesh.get("Pod", worker.identity.name) is None, "the Pod object gone")


async def test_a_rolling_update_never_has_fewer_ready_endpoints_than_allowed(mesh: LocalMesh, app_file: Path) -> None:
    def version(name: str) -> dict[str, Any]:
        env = [{"name": "VERSION", "value": name}]
        strategy = {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
        return deployment("web", container(app_file, env=env), replicas=2, strategy=strategy)

    mesh.write("web", version("v1"), service("web"))
    mesh.start()
    await mesh.ready()
    await until(lambda: len(ready_addresses(mesh, "web")) == 2, "two endpoints")
    before = {worker.identity.name for worker in mesh.workers("web-")}
    counts: list[int] = []
    most = 0

    def look(_: object) -> None:
        nonlocal most
        counts.append(len(ready_addresses(mesh, "web")))
        most = max(most, sum(worker.machine.deleted_at is None for worker in mesh.workers("web-")))

    unwatch = mesh.store.watch(look)
    mesh.write("web", version("v2"), service("web"))

    def rolled() -> bool:
        names = {worker.identity.name for worker in mesh.workers("web-")}
        return not (names & before) and len(names) == 2 and not mesh.controller.unready()

    await until(rolled, "two new pods and no old one")
    unwatch()
    assert counts
    assert min(counts) >= 2
    assert most <= 3
    for worker in mesh.workers("web-"):
        assert await fetch(f"{worker.ip}:8080") == "v2"


async def test_a_terminating_pod_leaves_the_endpoints_before_its_app_ends(mesh: LocalMesh, app_file: Path) -> None:
    mesh.write("web", deployment("web", container(app_file)), service("web"))
    mesh.start(drain=1.0)
    await mesh.ready()
    (worker,) = mesh.workers("web-")
    mesh.write("web", deployment("web", container(app_file), replicas=0), service("web"))

    def terminating() -> bool:
        endpoints = [endpoint for item in slices(mesh, "web") for endpoint in item["endpoints"]]
        wanted = {"ready": False, "serving": True, "terminating": True}
        return [endpoint["conditions"] for endpoint in endpoints] == [wanted]

    await until(terminating, "the endpoint terminating, still serving")
    assert await fetch(f"{worker.ip}:8080") == ""
    await until(lambda: worker.gone, "the pod gone")
    await until(lambda: slices(mesh, "web")[0]["endpoints"] == [], "the endpoint gone")


async def test_an_app_serves_until_its_callers_know_that_it_ends_and_who_comes_instead(mesh: LocalMesh, app_file: Path) -> None:
    patient = {"terminationGracePeriodSeconds": 60}
    mesh.write("web", deployment("web", container(app_file), pod=patient), service("web"))
    mesh.start()
    await mesh.ready()
    (old,) = mesh.workers("web-")
    mesh.sidecars_know(web=[old.ip])
    mesh.write("web", deployment("web", container(app_file), pod=patient, labels={"version": "2"}), service("web"))
    await until(lambda: old.machine.stage is Stage.INFORMING, "the old pod's drain over")
    (new,) = (worker for worker in mesh.workers("web-") if worker is not old)
    for known in ([old.ip], [old.ip, new.ip], []):  # as before; old and new; neither
        mesh.sidecars_know(web=known)
        seen = old.machine.asked
        await until(
            lambda seen=seen: old.machine.asked > seen + 1, "asked again"
        )  # the one under way may have been answered before
        assert old.machine.stage is Stage.INFORMING
    assert await fetch(f"{old.ip}:8080") == ""
    mesh.sidecars_know(web=[new.ip])
    await until(lambda: old.gone, "the old pod gone")


async def test_an_app_that_crashes_is_restarted_and_its_descendants_go_with_it(mesh: LocalMesh, tmp_path: Path) -> None:
    script = tmp_path / "crash.sh"
    pids = tmp_path / "grandchildren"
    script.write_text(f"sleep 300 & echo $! >> {pids}\nexit 3\n")
    spec = {"name": "app", "command": ["sh", str(script)], "ports": []}
    mesh.write("crash", deployment("crash", spec))
    mesh.start(backoff_base=60.0)
    await until(lambda: mesh.workers("crash-"), "a pod")
    (worker,) = mesh.workers("crash-")

    def waiting() -> dict[str, Any] | None:
        statuses = ((mesh.get("Pod", worker.identity.name) or {}).get("status") or {}).get("containerStatuses") or [{}]
        found: dict[str, Any] = statuses[0]
        return found if (found.get("state") or {}).get("waiting", {}).get("reason") == "CrashLoopBackOff" else None

    status = await until(waiting, "CrashLoopBackOff after the one restart that comes at once")
    assert status["restartCount"] == 1
    assert status["lastState"]["terminated"]["exitCode"] == 3
    grandchildren = [int(line) for line in pids.read_text().split()]
    assert len(grandchildren) == 2
    await until(lambda: not any(start_time(pid) for pid in grandchildren), "the grandchildren gone")
    events = mesh.store.events(Key("", "Pod", "shop", worker.identity.name))
    assert "BackOff" in {event["reason"] for event in events}


async def test_a_failing_liveness_probe_restarts_the_app_and_a_failing_readiness_probe_does_not(
    mesh: LocalMesh, app_file: Path, tmp_path: Path
) -> None:
    ready, live = tmp_path / "not-ready", tmp_path / "not-live"
    env = [{"name": "FLAG_READY", "value": str(ready)}, {"name": "FLAG_LIVE", "value": str(live)}]
    probe = {"httpGet": {"path": "/live", "port": 8080}, "periodSeconds": 1, "failureThreshold": 1}
    startup = {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 1, "failureThreshold": 60}
    web = container(app_file, env=env, livenessProbe=probe, startupProbe=startup)  # liveness waits for startup
    mesh.write("web", deployment("web", web), service("web"))
    mesh.start()
    await mesh.ready()
    (worker,) = mesh.workers("web-")
    app = worker.machine.app
    assert app is not None
    ready.touch()
    await until(lambda: not app.ready, "not ready")
    await until(lambda: ready_addresses(mesh, "web") == set(), "out of the endpoints")
    assert app.restarts == 0
    ready.unlink()
    await until(lambda: ready_addresses(mesh, "web") == {worker.ip}, "back in the endpoints")
    live.touch()
    await until(lambda: app.restarts == 1, "restarted")
    live.unlink()
    await until(lambda: app.ready, "ready again")


async def test_a_missing_config_map_holds_the_app_until_it_is_there(mesh: LocalMesh, app_file: Path) -> None:
    env = [{"name": "VERSION", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "version"}}}]
    mesh.write("web", deployment("web", container(app_file, env=env)))
    mesh.start()
    await until(lambda: mesh.workers("web-"), "a pod")
    (worker,) = mesh.workers("web-")
    app = worker.machine.app
    assert app is not None
    await until(lambda: app.reason == "CreateContainerConfigError", "held")
    assert 'configmap "settings" not found' in app.message
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "settings", "namespace": "shop"},
        "data": {"version": "v7"},
    }
    mesh.write("config", config)
    await mesh.ready()
    assert await fetch(f"{worker.ip}:8080") == "v7"
    assert app.restarts == 0


async def test_a_program_that_does_not_exist_is_named_in_the_status(mesh: LocalMesh) -> None:
    mesh.write("web", deployment("web", {"name": "app", "command": ["/no/such/program"]}))
    mesh.start(backoff_base=60.0)
    await until(lambda: mesh.workers("web-"), "a pod")
    (worker,) = mesh.workers("web-")
    app = worker.machine.app
    assert app is not None
    run = await until(lambda: app.run, "an attempt")
    assert run.exit.code == 128
    assert "/no/such/program" in run.exit.message
    assert any("/no/such/program" in line for line in mesh.said)


async def test_a_pod_of_the_user_runs_too_and_is_removed_with_its_file(mesh: LocalMesh, app_file: Path) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "single", "namespace": "shop", "labels": {"app": "single"}},
        "spec": {"containers": [container(app_file)]},
    }
    mesh.write("single", pod, service("single"))
    mesh.write("other", service("other"))
    mesh.start()
    await mesh.ready()
    (worker,) = mesh.workers("single")
    await until(lambda: ready_addresses(mesh, "single") == {worker.ip}, "its endpoint")
    found = mesh.get("Pod", "single")
    assert found is not None
    assert found["metadata"]["annotations"]["meshproxy.dev/proxy"] == "true"
    assert found["status"]["phase"] == "Running"
    (mesh.directory / "single.yaml").unlink()
    await until(lambda: worker.machine.deleted_at is not None, "the pod ending")
    kept = mesh.get("Pod", "single")
    assert kept is not None  # its sidecar is told what it serves until it is gone
    assert kept["metadata"]["annotations"]["meshproxy.dev/proxy"] == "true"
    await until(lambda: worker.gone, "the pod gone")
    await until(lambda: mesh.get("Pod", "single") is None, "the object gone")
    mesh.write("single", pod, service("single"))
    await until(lambda: mesh.workers("single") and mesh.workers("single")[0] is not worker, "a new pod")
    await mesh.ready()


async def test_a_deployment_made_again_under_its_name_gets_its_status_again(mesh: LocalMesh, app_file: Path) -> None:
    mesh.write("web", deployment("web", container(app_file), replicas=0))
    mesh.write("other", service("other"))
    mesh.start()
    await until(lambda: mesh.status("web").get("observedGeneration"), "a status")
    (mesh.directory / "web.yaml").unlink()
    await until(lambda: mesh.get("Deployment", "web", "apps") is None, "the Deployment gone")
    mesh.write("web", deployment("web", container(app_file), replicas=0))
    await until(lambda: mesh.status("web").get("conditions"), "a status again")


async def test_a_pod_without_sidecar_gets_no_proxy_settings(mesh: LocalMesh, app_file: Path) -> None:
    spec = deployment("plain", container(app_file))
    spec["spec"]["template"]["metadata"]["annotations"] = {"meshproxy.dev/inject": "disabled"}
    mesh.write("plain", spec)
    mesh.start()
    await mesh.ready()
    (worker,) = mesh.workers("plain-")
    assert worker.machine.sidecar is None
    environment = json.loads(await fetch(f"{worker.ip}:8080", "/env"))
    assert "http_proxy" not in environment
    pod = mesh.get("Pod", worker.identity.name)
    assert pod is not None
    assert "meshproxy.dev/proxy" not in pod["metadata"]["annotations"]


async def test_an_earlier_life_is_forgotten_and_the_pods_are_made_anew(mesh: LocalMesh, app_file: Path) -> None:
    mesh.write("web", deployment("web", container(app_file)), service("web"))
    mesh.start()
    await mesh.ready()
    (worker,) = mesh.workers("web-")
    worker.kill()
    for task in mesh.tasks:
        task.cancel()
    await asyncio.gather(*mesh.tasks, return_exceptions=True)
    mesh._accepting.close()
    await until(lambda: worker.gone, "the first life over")
    assert mesh.get("Pod", worker.identity.name) is not None
    mesh.start()
    await mesh.ready()
    assert mesh.get("Pod", worker.identity.name) is None or worker.key in mesh.controller.workers
    assert len(mesh.store.list("", "Pod", "shop")) == 1

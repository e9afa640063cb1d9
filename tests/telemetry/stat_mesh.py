"""A mesh as `meshproxy stat` finds it: mesh.json of a live process, a file store with pods, and each pod's page served on
its own loopback address.  The pages are a real Registry's; `traffic` is counted after each page, so that whatever lies
between two pages is known exactly."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from control.runtime.layout import ADMIN_PORT, ANNOTATION_PROXY, LABEL_DEPLOYMENT, Layout, MeshInfo
from control.runtime.meshes import start_time, write_info
from control.store.files import FileStore
from control.store.store import Key
from meshproxy.telemetry.registry import Registry

Traffic = Callable[[Registry], None]


class StatMesh:
    def __init__(self, state_home: Path) -> None:
        self.layout = Layout(state_home / "stat-test")
        self.layout.root.mkdir(parents=True)
        self.store = FileStore(None, self.layout.objects, "runtime")
        self.runners: list[web.AppRunner] = []
        self.prefix = ""
        self.hosts = 10

    async def __aenter__(self) -> Self:
        """Takes the first 127.x.y of a range that differs between test processes and on which the admin port is free."""
        for attempt in range(50):
            self.prefix = f"127.{200 + os.getpid() % 50}.{(os.getpid() // 50 + attempt) % 250 + 1}"
            try:
                await self.listen(9, Registry(), lambda registry: None)
                break
            except OSError:
                continue
        info = MeshInfo(
            name="stat-test",
            directory="/nowhere",
            prefix=self.prefix,
            trust_domain="stat.test",
            gateway=f"{self.prefix}.2:80",
            control=f"{self.prefix}.1:8086",
            control_admin=f"{self.prefix}.1:9990",
            supervisor_pid=os.getpid(),
            supervisor_start=start_time(os.getpid()),
            started_unix=0.0,
        )
        write_info(self.layout, info)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for runner in self.runners:
            await runner.cleanup()

    async def listen(self, host: int, registry: Registry, traffic: Traffic) -> None:
        async def metrics(request: web.Request) -> web.Response:
            body = registry.render(request.query.getall("name[]", None))
            traffic(registry)
            return web.Response(body=body, headers={"content-type": "text/plain; version=0.0.4"})

        app = web.Application()
        app.router.add_get("/metrics", metrics)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            await web.TCPSite(runner, f"{self.prefix}.{host}", ADMIN_PORT).start()
        except OSError:
            await runner.cleanup()
            raise
        self.runners.append(runner)

    async def deployment(self, namespace: str, name: str) -> None:
        await self.store.apply(
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"namespace": namespace, "name": name},
                "spec": {
                    "selector": {"matchLabels": {"app": name}},
                    "template": {
                        "metadata": {"labels": {"app": name}},
                        "spec": {"containers": [{"name": "app", "command": ["true"]}]},
                    },
                },
            }
        )

    async def service(self, namespace: str, name: str) -> None:
        await self.store.apply(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"namespace": namespace, "name": name},
                "spec": {"selector": {"app": name}, "ports": [{"port": 80}]},
            }
        )

    async def pod(
        self, namespace: str, name: str, deployment: str, traffic: Traffic | None = None, *, phase: str = "Running"
    ) -> str:
        """A pod with a page of its own if it has `traffic`; otherwise one without a sidecar."""
        host = self.hosts
        self.hosts += 1
        if traffic is not None:
            common = (("namespace", namespace), ("deployment", deployment), ("pod", name))
            await self.listen(host, Registry(common), traffic)
        await self.put_pod(namespace, name, deployment, f"{self.prefix}.{host}", meshed=traffic is not None, phase=phase)
        return f"{self.prefix}.{host}"

    async def put_pod(
        self, namespace: str, name: str, deployment: str, address: str, *, meshed: bool = True, phase: str = "Running"
    ) -> None:
        pod: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"namespace": namespace, "name": name, "labels": {LABEL_DEPLOYMENT: deployment}},
            "spec": {"containers": [{"name": "app", "command": ["true"]}]},
        }
        if meshed:
            pod["metadata"]["annotations"] = {ANNOTATION_PROXY: "true"}
        await self.store.apply(pod)
        await self.store.status(Key("", "Pod", namespace, name), {"phase": phase, "podIP": address})

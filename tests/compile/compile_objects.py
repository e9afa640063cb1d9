"""Objects as the store gives them, short to write."""

from __future__ import annotations

import json
from typing import Any

from control.compile.settings import Settings
from control.compile.snapshot import Compiled, Memo, compile_snapshot
from control.store.store import Object

SETTINGS = Settings("mesh.test", (b"root",))


def service(name: str, *ports: dict[str, Any], selector: dict[str, str] | None = None, **annotations: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "shop", "annotations": annotations},
        "spec": {"selector": selector if selector is not None else {"app": name}, "ports": list(ports) or [{"port": 80}]},
    }


def pod(
    name: str, ip: str, app: str = "web", account: str = "web", meshed: bool = True, container: Any = None, **annotations: str
) -> Object:
    annotations = {key.replace("__", "/").replace("_", "-"): value for key, value in annotations.items()}
    if meshed:
        annotations["meshproxy.dev/proxy"] = "true"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "shop",
            "labels": {"app": app, "version": "v1", "meshproxy.dev/proxy-deployment": app},
            "annotations": annotations,
        },
        "spec": {
            "serviceAccountName": account,
            "containers": [container or {"name": "a", "ports": [{"containerPort": 8080, "name": "http"}]}],
        },
        "status": {"podIP": ip},
    }


def endpoint(address: str, target: str | None = None, **conditions: Any) -> dict[str, Any]:
    out: dict[str, Any] = {"addresses": [address], "conditions": conditions}
    if target:
        out["targetRef"] = {"kind": "Pod", "name": target, "namespace": "shop"}
    return out


def slice_of(name: str, *endpoints: dict[str, Any], ports: list[dict[str, Any]] | None = None, called: str = "") -> Object:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": called or f"{name}-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": ports if ports is not None else [{"port": 8080}],
        "endpoints": list(endpoints),
    }


def split(apex: str, **weights: Any) -> Object:
    return {
        "apiVersion": "split.smi-spec.io/v1alpha2",
        "kind": "TrafficSplit",
        "metadata": {"name": apex, "namespace": "shop"},
        "spec": {"service": apex, "backends": [{"service": name, "weight": weight} for name, weight in weights.items()]},
    }


def compiled(*objects: Object, memo: Memo | None = None, settings: Settings = SETTINGS) -> Compiled:
    return compile_snapshot(objects, settings, memo)


def again(obj: Object) -> Object:
    """An equal object that is another dict, as after a change that was taken back."""
    copy: Object = json.loads(json.dumps(obj))
    return copy

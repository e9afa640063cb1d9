"""Manifests of the end-to-end tests, as `kubectl apply` would take them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

APPS = Path(__file__).parent / "apps"
NAMESPACE = "e2e"

Object = dict[str, Any]


def account(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": NAMESPACE}}


def deployment(
    name: str, app: str, port: int, ledger: Path, *, replicas: int = 1, labels: Object | None = None, version: str = ""
) -> Object:
    """`app`: file in apps/; its service account is the label `app`."""
    all_labels = {"app": name, **(labels or {})}
    container = {
        "name": "app",
        "image": f"e2e/{app}:1",
        "command": ["python3", str(APPS / f"{app}.py")],
        "ports": [{"name": "main", "containerPort": port}],
        "env": [
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "LEDGER", "value": str(ledger)},
            {"name": "VERSION", "value": version},
        ],
        "readinessProbe": {"tcpSocket": {"port": "main"}, "periodSeconds": 1},
    }
    if app == "echo_app":
        container["readinessProbe"] = {"httpGet": {"path": "/ready", "port": "main"}, "periodSeconds": 1}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": all_labels["app"], **({"version": version} if version else {})}},
            "template": {
                "metadata": {"labels": {**all_labels, **({"version": version} if version else {})}},
                "spec": {
                    "serviceAccountName": all_labels["app"],
                    "terminationGracePeriodSeconds": 3,
                    "containers": [container],
                },
            },
        },
    }


def service(name: str, port: int = 80, *, selector: Object | None = None, app_protocol: str = "") -> Object:
    """`selector` {}: one without, whose EndpointSlices are written by hand."""
    entry: Object = {"name": "main", "port": port, "targetPort": "main"}
    if app_protocol:
        entry["appProtocol"] = app_protocol
    spec: Object = {"ports": [entry]}
    if selector != {}:
        spec["selector"] = selector or {"app": name}
    else:
        entry["targetPort"] = 8080
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec}


def split(apex: str, **weights: object) -> Object:
    """Weights by service name, `_` for `-`."""
    backends = [{"service": name.replace("_", "-"), "weight": weight} for name, weight in weights.items()]
    return {
        "apiVersion": "split.smi-spec.io/v1alpha4",
        "kind": "TrafficSplit",
        "metadata": {"name": apex, "namespace": NAMESPACE},
        "spec": {"service": apex, "backends": backends},
    }


def traffic_target(name: str, destination: str, rule: str) -> Object:
    """Lets the account `client` do what a rule says ("Kind/name", see `rules`) at this account's pods."""
    kind, _, named = rule.partition("/")
    return {
        "apiVersion": "access.smi-spec.io/v1alpha3",
        "kind": "TrafficTarget",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "destination": {"kind": "ServiceAccount", "name": destination},
            "sources": [{"kind": "ServiceAccount", "name": "client"}],
            "rules": [{"kind": kind, "name": named}],
        },
    }


def rules(kind: str, name: str, **spec: object) -> Object:
    """Of SMI's specs: an HTTPRouteGroup, a TCPRoute."""
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "specs.smi-spec.io/v1alpha4", "kind": kind, "metadata": metadata, "spec": spec}


def slice_of_pod(service_name: str, pod: str, address: str, port: int = 8080) -> Object:
    """An EndpointSlice that gives a pod one more address: whoever listens there stands in for it."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{service_name}-by-hand",
            "namespace": NAMESPACE,
            "labels": {"kubernetes.io/service-name": service_name},
        },
        "addressType": "IPv4",
        "endpoints": [
            {
                "addresses": [address],
                "conditions": {"ready": True},
                "targetRef": {"kind": "Pod", "namespace": NAMESPACE, "name": pod},
            }
        ],
        "ports": [{"name": "main", "port": port, "protocol": "TCP"}],
    }

"""EndpointSlices from Services and pods.  Pure.

Service.spec.selector --matches--> pods' labels --> one endpoint a pod address
Service.spec.ports --targetPort--> a number, or the name of a container port (which may differ from pod to pod:
                                   then there is one slice for each set of numbers, as in Kubernetes)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
MANAGED_BY = "meshproxy-runtime"


@dataclass(frozen=True, slots=True)
class EndpointFact:
    """A pod as its Services see it."""

    namespace: str
    name: str
    uid: str
    labels: dict[str, str]
    address: str
    container_ports: dict[str, int]  # named ports
    ready: bool
    serving: bool  # ready, were it not terminating
    terminating: bool


def selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    """An empty selector selects nothing: such a Service's slices are the user's own."""
    return bool(selector) and all(labels.get(name) == value for name, value in selector.items())


def endpoint_slices(service: Object, pods: Sequence[EndpointFact]) -> list[Object]:
    """The slices of one Service; one without endpoints if no pod matches, none if there is no selector."""
    metadata, spec = service["metadata"], service["spec"]
    namespace = metadata.get("namespace") or "default"
    selector = spec.get("selector") or {}
    if not selector or spec.get("type") == "ExternalName":
        return []
    matching = [pod for pod in pods if pod.namespace == namespace and selects(selector, pod.labels)]
    groups: dict[str, tuple[list[Object], list[Object]]] = {}
    for pod in sorted(matching, key=lambda pod: pod.name):
        ports = _ports(spec, pod)
        _, endpoints = groups.setdefault(json.dumps(ports), (ports, []))
        endpoints.append(_endpoint(pod, bool(spec.get("publishNotReadyAddresses"))))
    if not groups:
        groups[""] = ([], [])
    slices = []
    for index, (ports, endpoints) in enumerate(groups.values()):
        suffix = hashlib.sha256(f"{namespace}/{metadata['name']}/{index}".encode()).hexdigest()[:5]
        slices.append(
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": f"{metadata['name']}-{suffix}",
                    "namespace": namespace,
                    "labels": {
                        "kubernetes.io/service-name": metadata["name"],
                        "endpointslice.kubernetes.io/managed-by": MANAGED_BY,
                    },
                },
                "addressType": "IPv4",
                "endpoints": endpoints,
                "ports": ports,
            }
        )
    return slices


def _ports(spec: Object, pod: EndpointFact) -> list[Object]:
    """A named port that this pod does not have is left out."""
    ports = []
    for port in spec.get("ports") or []:
        target = port.get("targetPort", port["port"])
        number = pod.container_ports.get(target) if isinstance(target, str) and not target.isdigit() else int(target)
        if number is None:
            continue
        entry = {"name": port.get("name", ""), "port": number, "protocol": port.get("protocol", "TCP")}
        if port.get("appProtocol"):
            entry["appProtocol"] = port["appProtocol"]
        ports.append(entry)
    return ports


def _endpoint(pod: EndpointFact, publish_not_ready: bool) -> Object:
    return {
        "addresses": [pod.address],
        "conditions": {
            "ready": publish_not_ready or (pod.ready and not pod.terminating),
            "serving": publish_not_ready or pod.serving,
            "terminating": pod.terminating,
        },
        "nodeName": "localhost",
        "targetRef": {"kind": "Pod", "namespace": pod.namespace, "name": pod.name, "uid": pod.uid},
    }

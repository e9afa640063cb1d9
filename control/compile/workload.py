"""A pod with a sidecar -> its Workload: who it is, which ports its inbound side may forward to, where its listeners are."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from control.api import mesh_pb2
from control.compile.access import Policy, workload_access
from control.compile.protocol import protocol
from control.compile.settings import Settings
from control.compile.views import View
from control.resources import core
from control.resources.annotations import EXPLAIN, INBOUND_POLICY
from control.resources.balancing import ZONE_LABEL
from control.resources.concurrency import concurrency
from control.runtime.layout import ANNOTATION_LISTENERS, ANNOTATION_PROXY, LABEL_DEPLOYMENT
from control.store.store import Diagnostic, Key

VERSION_LABELS = ("app.kubernetes.io/version", "version")
MAX_PORTS = 256  # of one pod
MAX_LISTENERS = 4_096  # one for each Service port of the namespace

_INBOUND = {
    "all-authenticated": mesh_pb2.ALL_AUTHENTICATED,
    "all-unauthenticated": mesh_pb2.ALL_UNAUTHENTICATED,
    "deny": mesh_pb2.DENY,
}


@dataclass(slots=True)
class _Port:
    names: list[str] = field(default_factory=list)
    protocols: set[mesh_pb2.Protocol] = field(default_factory=set)
    probe_paths: set[str] = field(default_factory=set)


def meshed(pod: core.Pod) -> bool:
    return pod.metadata.annotations.get(ANNOTATION_PROXY) == "true"


def identity(pod: core.Pod, namespace: str, settings: Settings) -> str:
    return f"spiffe://{settings.trust_domain}/ns/{namespace}/sa/{pod.spec.service_account_name or 'default'}"


def zone(pod: core.Pod) -> str:
    """Where it runs, as Kubernetes says it on the pod; "" if it does not."""
    return pod.metadata.labels.get(ZONE_LABEL, "")


def metric_labels(pod: core.Pod, namespace: str) -> dict[str, str]:
    """Bounded by what Kubernetes allows in labels; nothing a request can choose."""
    labels = {"namespace": namespace, "pod": pod.metadata.name}
    if deployment := pod.metadata.labels.get(LABEL_DEPLOYMENT):
        labels["deployment"] = deployment
    for name in VERSION_LABELS:
        if version := pod.metadata.labels.get(name):
            labels["version"] = version
            break
    return labels


def target_port(port: core.ServicePort, pod: core.Pod) -> int | None:
    """The container port behind a Service port; None if the pod has no port of that name."""
    target = port.target_port if port.target_port is not None else port.port
    if isinstance(target, int):
        return target
    return next(
        (
            one.container_port
            for box in pod.spec.containers
            for one in box.ports
            if one.name == target and one.protocol == "TCP"
        ),
        None,
    )


def compile_workload(
    pod: core.Pod,
    namespace: str,
    services: Iterable[View[core.Service]],
    settings: Settings,
    granted: Policy | None,
    annotations: Mapping[str, str],
) -> tuple[mesh_pb2.Workload, list[Diagnostic]]:
    """`services`: those that select the pod; `granted`: what TrafficTargets allow on it; `annotations`: of its Namespace."""
    key = Key("", "Pod", namespace, pod.metadata.name)
    diagnostics: list[Diagnostic] = []

    def warn(annotation: str, message: str, hint: str) -> None:
        diagnostics.append(Diagnostic("warning", "", 0, f'metadata.annotations["{annotation}"]', message, hint, key))

    policy = pod.metadata.annotations.get(INBOUND_POLICY, "all-authenticated")
    mode = _INBOUND.get(policy)
    if mode is None:  # fail closed: nobody asked for less than the default
        warn(INBOUND_POLICY, f"found {policy!r}, expected {', '.join(_INBOUND)}", "all-authenticated is in force")
        mode = mesh_pb2.ALL_AUTHENTICATED
    listeners: list[mesh_pb2.Listener] = []
    try:
        listeners = _listeners(pod.metadata.annotations.get(ANNOTATION_LISTENERS, "[]"))
    except (ValueError, TypeError, KeyError, AttributeError) as failure:
        warn(ANNOTATION_LISTENERS, f"not a list of address, service and port: {failure}", "the pod has no Service listeners")
    ports = _ports(pod, services)
    access, told = workload_access(granted, pod.metadata.annotations, annotations, key)
    diagnostics += told
    return (
        mesh_pb2.Workload(
            namespace=namespace,
            pod=pod.metadata.name,
            service_account=pod.spec.service_account_name or "default",
            identity=identity(pod, namespace, settings),
            pod_ip=pod.ip,
            labels=metric_labels(pod, namespace),
            ports=[
                mesh_pb2.Port(
                    port=number,
                    protocol=port.protocols.pop() if len(port.protocols) == 1 else mesh_pb2.DETECT,
                    name=port.names[0] if port.names else "",
                    probe_paths=sorted(port.probe_paths),
                )
                for number, port in sorted(ports.items())[:MAX_PORTS]
            ],
            listeners=listeners,
            inbound_mode=mode,
            cluster_domains=[f"svc.{settings.cluster_domain}"],
            access=access,
            zone=zone(pod),
            concurrency=_concurrency(pod),
            explain=pod.metadata.annotations.get(EXPLAIN) == "true",
        ),
        diagnostics,
    )


def _concurrency(pod: core.Pod) -> mesh_pb2.Concurrency | None:
    declared = concurrency(pod.metadata.annotations)
    return None if declared is None else mesh_pb2.Concurrency(limit=declared.greatest, adaptive=declared.adaptive)


def _ports(pod: core.Pod, services: Iterable[View[core.Service]]) -> dict[int, _Port]:
    """What the pod declares, what its probes ask, and what Services lead to (a containerPort is only a note to Kubernetes)."""
    ports: dict[int, _Port] = {}
    for container in pod.spec.containers:
        named = {}
        for declared in container.ports:
            if declared.protocol == "TCP":
                named[declared.name] = declared.container_port
                port = ports.setdefault(declared.container_port, _Port())
                if declared.name:
                    port.names.append(declared.name)
        for probe in container.probes:
            action = probe.http_get or probe.tcp_socket or probe.grpc
            if action is None:
                continue
            number = action.port if isinstance(action.port, int) else named.get(action.port)
            if number is None:
                continue
            port = ports.setdefault(number, _Port())
            if probe.http_get is not None and probe.http_get.scheme == "HTTP":
                port.probe_paths.add(probe.http_get.path.partition("?")[0] or "/")
    for view in services:
        for service_port in view.typed.spec.ports:
            number = target_port(service_port, pod)
            if number is None or service_port.protocol != "TCP":
                continue
            expected = protocol(service_port.app_protocol)
            ports.setdefault(number, _Port()).protocols.add(mesh_pb2.DETECT if expected is None else expected)
    return ports


def _listeners(text: str) -> list[mesh_pb2.Listener]:
    items = json.loads(text)
    if not isinstance(items, list) or len(items) > MAX_LISTENERS:
        raise ValueError(f"expected a list of at most {MAX_LISTENERS}")
    return [
        mesh_pb2.Listener(address=item["address"], service=item["service"], port=item["port"])
        for item in sorted(items, key=lambda item: (item["service"], item["port"]))
    ]

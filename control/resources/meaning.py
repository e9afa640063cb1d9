"""What a kind's shape cannot say: ports with one name, a selector that misses its own template, a probe without a port."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from control.resources.alertprovider import check_provider
from control.resources.annotations import (
    ACCESS,
    ACCESS_MODES,
    EXPLAIN,
    EXPLAINS,
    INBOUND_POLICIES,
    INBOUND_POLICY,
    INJECT,
    INJECTIONS,
    WORKERS,
    strays,
    traffic,
    workers_mistake,
)
from control.resources.balancing import WEIGHT, balancing, weight_mistake
from control.resources.canary import check_canary
from control.resources.concurrency import CONCURRENCY, concurrency_mistake
from control.resources.documents import Path
from control.resources.fault import fault
from control.resources.gateway_check import check_route
from control.resources.metrictemplate import check_template
from control.resources.quantity import quantity
from control.resources.releasepolicy import check_policy
from control.resources.routegroup import check_group, check_ports
from control.resources.shape import Report, nearest, shown
from control.resources.split import check_split
from control.resources.traffictarget import check_target
from control.store.store import Object

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")  # RFC 1123
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?\Z")


def check_meaning(obj: Object, report: Report) -> None:
    """`obj` has the right shape; report what its kind cannot mean."""
    _labels(obj["metadata"], ("metadata",), report)
    ports = (obj["spec"].get("ports") or []) if obj["kind"] == "Service" else []
    for annotation, message, hint in strays(obj["metadata"].get("annotations") or {}, obj["kind"], ports):
        report.warning(("metadata", "annotations", annotation), message, hint)
    match obj["kind"]:
        case "Service":
            _service(obj, report)
        case "Deployment":
            _deployment(obj, report)
        case "Pod":
            _pod(obj["spec"], ("spec",), report)
            _pod_annotations(obj["metadata"], ("metadata",), report)
        case "Namespace":
            _words(obj["metadata"].get("annotations") or {}, {ACCESS: ACCESS_MODES}, ("metadata",), report)
        case "EndpointSlice":
            if "kubernetes.io/service-name" not in (obj["metadata"].get("labels") or {}):
                report.warning(("metadata", "labels"), "has no kubernetes.io/service-name: it belongs to no Service")
        case "Secret" | "ConfigMap":
            _data(obj, obj["kind"], report)
        case "TrafficSplit":
            check_split(obj, report)
        case "HTTPRouteGroup":
            check_group(obj, report)
        case "TCPRoute" | "UDPRoute":
            check_ports(obj, report)
        case "HTTPRoute" | "GRPCRoute":
            check_route(obj, report)
        case "TrafficTarget":
            check_target(obj, report)
        case "Canary":
            check_canary(obj, report)
        case "MetricTemplate":
            check_template(obj, report)
        case "AlertProvider":
            check_provider(obj, report)
        case "ReleasePolicy":
            check_policy(obj, report)


def _labels(metadata: Object, path: Path, report: Report) -> None:
    for name, value in (metadata.get("labels") or {}).items():
        if len(value) > 63 or not _LABEL_VALUE.match(value):
            report.error(
                (*path, "labels", name), f"found {shown(value)}, expected at most 63 letters, digits, '-', '_' and '.'"
            )


def _service(obj: Object, report: Report) -> None:
    name, spec = obj["metadata"]["name"], obj["spec"]
    if len(name) > 63 or not LABEL.match(name):
        report.error(("metadata", "name"), f"found {shown(name)}, expected a DNS label (no dots, at most 63 characters)")
    ports = spec.get("ports") or []
    if not ports and spec.get("type") != "ExternalName" and spec.get("clusterIP") != "None":
        report.error(("spec", "ports"), "is missing, expected at least one port")
    seen_names: dict[str, int] = {}
    seen_ports: dict[tuple[int, str], int] = {}
    for index, port in enumerate(ports):
        path: Path = ("spec", "ports", index)
        port_name = port.get("name", "")
        if len(ports) > 1 and not port_name:
            report.error((*path, "name"), "is missing, expected a name since there are several ports")
        elif port_name and port_name in seen_names:
            report.error(
                (*path, "name"), f"{port_name} is also the name of ports[{seen_names[port_name]}]", "names must differ"
            )
        seen_names.setdefault(port_name, index)
        number = (port["port"], port.get("protocol", "TCP"))
        if number in seen_ports:
            report.error((*path, "port"), f"{number[0]}/{number[1]} is also ports[{seen_ports[number]}]")
        seen_ports.setdefault(number, index)
        _target_port(port.get("targetPort"), (*path, "targetPort"), report)
        if number[1] != "TCP":
            report.warning((*path, "protocol"), f"{number[1]} does not go through the mesh: the port is left out")
    if not spec.get("selector") and spec.get("type") != "ExternalName":
        report.warning(
            ("spec", "selector"), "is missing: the Service has the endpoints of EndpointSlices you give it, and no others"
        )
    if spec.get("type") == "ExternalName":
        report.warning(("spec", "type"), "ExternalName Services are outside the mesh: ignored")
    annotations = obj["metadata"].get("annotations") or {}
    mistakes = [*traffic(annotations).mistakes, *balancing(annotations).mistakes, *fault(annotations)[1]]
    for annotation, message, hint in mistakes:
        report.warning(("metadata", "annotations", annotation), message, hint)


def _target_port(value: Any, path: Path, report: Report) -> None:
    if isinstance(value, int) and not 1 <= value <= 65535:
        report.error(path, f"found {value}, expected a port from 1 to 65535 or a container port's name")
    elif isinstance(value, str) and value.isdigit():
        report.error(path, f'found the string "{value}", expected a number or a name with a letter', "remove the quotes")
    elif isinstance(value, str) and (len(value) > 15 or not LABEL.match(value)):
        report.error(
            path, f"found {shown(value)}, expected a container port's name (at most 15 lower-case letters, digits, '-')"
        )


def _deployment(obj: Object, report: Report) -> None:
    spec = obj["spec"]
    selector, template = spec["selector"], spec["template"]
    metadata = template.get("metadata") or {}
    labels = metadata.get("labels") or {}
    wanted = selector.get("matchLabels") or {}
    if not wanted and not selector.get("matchExpressions"):
        report.error(("spec", "selector"), "is empty, expected matchLabels")
    for name, value in wanted.items():
        path: Path = ("spec", "template", "metadata", "labels", name)
        if name not in labels:
            report.error(path, f'is missing, expected "{value}" as spec.selector.matchLabels says')
        elif labels[name] != value:
            report.error(path, f'found {shown(labels[name])}, expected "{value}" as spec.selector.matchLabels says')
    for field_name in ("maxSurge", "maxUnavailable"):
        update = ((spec.get("strategy") or {}).get("rollingUpdate")) or {}
        value = update.get(field_name)
        if value is not None and not _count_or_percent(value):
            report.error(
                ("spec", "strategy", "rollingUpdate", field_name),
                f"found {shown(value)}, expected a count or a percentage such as 25%",
            )
    update = ((spec.get("strategy") or {}).get("rollingUpdate")) or {}
    if update.get("maxSurge") in (0, "0%") and update.get("maxUnavailable") in (0, "0%"):
        report.error(
            ("spec", "strategy", "rollingUpdate"), "maxSurge and maxUnavailable are both 0: no pod could ever be replaced"
        )
    restart = template["spec"].get("restartPolicy", "Always")
    if restart != "Always":
        report.error(("spec", "template", "spec", "restartPolicy"), f"found {restart}, expected Always in a Deployment")
    _labels(metadata, ("spec", "template", "metadata"), report)
    _pod(template["spec"], ("spec", "template", "spec"), report)
    where: Path = ("spec", "template", "metadata")
    for annotation, message, hint in strays(metadata.get("annotations") or {}, "Pod"):
        report.warning((*where, "annotations", annotation), message, hint)
    _pod_annotations(metadata, where, report)


def _count_or_percent(value: Any) -> bool:
    if isinstance(value, int):
        return value >= 0
    try:
        return value.endswith("%") and quantity(value[:-1]) >= 0
    except ValueError:
        return False


def _pod(spec: Object, path: Path, report: Report) -> None:
    containers = spec.get("containers") or []
    if not containers:
        found = "is empty" if "containers" in spec else "is missing"
        report.error((*path, "containers"), f"{found}, expected a list with a container")
    for index, container in enumerate(containers):
        _container(container, (*path, "containers", index), report)


def _container(container: Object, path: Path, report: Report) -> None:
    names: dict[str, int] = {}
    for index, port in enumerate(container.get("ports") or []):
        name = port.get("name")
        where = (*path, "ports", index, "name")
        if name and not LABEL.match(name):
            report.error(where, f"found {shown(name)}, expected lower-case letters, digits and '-'")
        if name and name in names:
            report.error(where, f"{name} is also the name of ports[{names[name]}]", "names must differ")
        names.setdefault(name or "", index)
    for index, variable in enumerate(container.get("env") or []):
        where = (*path, "env", index)
        if "value" in variable and variable.get("valueFrom"):
            report.error((*where, "valueFrom"), f"{variable['name']} has both value and valueFrom", "keep one")
        source = variable.get("valueFrom")
        if source is not None and len(source) != 1:
            report.error(
                (*where, "valueFrom"), f"has {len(source)} sources, expected one of fieldRef, configMapKeyRef, secretKeyRef"
            )
    for probe_name in ("startupProbe", "readinessProbe", "livenessProbe"):
        if (probe := container.get(probe_name)) is not None:
            _probe(probe, (*path, probe_name), names, report)


def _probe(probe: Object, path: Path, names: dict[str, int], report: Report) -> None:
    handlers = [handler for handler in ("httpGet", "tcpSocket", "grpc", "exec") if handler in probe]
    if len(handlers) != 1:
        found = " and ".join(handlers) or "none"
        report.error(path, f"found {found}, expected exactly one of httpGet, tcpSocket, grpc, exec")
    if path[-1] != "readinessProbe" and probe.get("successThreshold", 1) != 1:
        report.error(
            (*path, "successThreshold"), f"found {probe['successThreshold']}, expected 1 (only readiness may want more)"
        )
    for handler in handlers:
        port = probe[handler].get("port")
        where = (*path, handler, "port")
        if isinstance(port, str) and port not in names:
            known = [name for name in names if name]
            report.error(where, f"no container port is named {port}", nearest(port, known) or "give a number or name the port")
        elif isinstance(port, int) and not 1 <= port <= 65535:
            report.error(where, f"found {port}, expected a port from 1 to 65535")


def _pod_annotations(metadata: Object, path: Path, report: Report) -> None:
    annotations = metadata.get("annotations") or {}
    known = {INBOUND_POLICY: INBOUND_POLICIES, INJECT: INJECTIONS, ACCESS: ACCESS_MODES, EXPLAIN: EXPLAINS}
    _words(annotations, known, path, report)
    workers = annotations.get(WORKERS)
    if workers is not None and (mistake := workers_mistake(workers)):
        report.error((*path, "annotations", WORKERS), mistake)
    limit = annotations.get(CONCURRENCY)
    if limit is not None and (mistake := concurrency_mistake(limit)):
        report.error((*path, "annotations", CONCURRENCY), mistake)
    weight = annotations.get(WEIGHT)
    if weight is not None and (mistake := weight_mistake(weight)):
        report.error((*path, "annotations", WEIGHT), mistake)


def _words(annotations: Object, known: dict[str, tuple[str, ...]], path: Path, report: Report) -> None:
    for name, words in known.items():
        value = annotations.get(name)
        if value is not None and value not in words:
            message = f"found {shown(value)}, expected {', '.join(words)}"
            report.error((*path, "annotations", name), message, nearest(value, list(words)))


def _data(obj: Object, kind: str, report: Report) -> None:
    encoded = obj.get("binaryData") if kind == "ConfigMap" else obj.get("data")
    where = "binaryData" if kind == "ConfigMap" else "data"
    for name, value in (encoded or {}).items():
        try:
            base64.b64decode(value.encode(), validate=True)
        except (binascii.Error, ValueError):
            hint = "plain text goes to stringData" if kind == "Secret" else "plain text goes to data"
            report.error((where, name), "is not base64", hint)

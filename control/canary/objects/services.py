"""The three Services of a release, by Flagger's rules.

    <apex>            selects the primary; callers name it          one the user wrote keeps all but its selector, and is
                                                                    given the Canary's ports where it lacks spec.service.port
    <apex>-primary    selects the primary: a backend
    <apex>-canary     selects the target: a backend                 of these, where the user wrote one: ports and selector

Fields that others set on them are theirs and stay: nothing is wiped, so service.unmanagedMetadata only says what we do not set.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from control.canary.declared.commands import PREFIX
from control.canary.declared.spec import CanarySpec
from control.canary.objects.ownership import FLUX, HANDS_OFF, Find, given_back, held, is_ours, nothing, owner
from control.canary.objects.workloads import selector_label
from control.store.store import Key, Object

ANNOTATION_PORT = PREFIX + "added-port"  # on the user's apex Service: its ports are held too, because it lacked this one

_SIDECARS = ("istio-proxy", "envoy")  # container names whose ports are a sidecar's, not the application's (Flagger's list)


def service_key(spec: CanarySpec, name: str) -> Key:
    return Key("", "Service", spec.namespace, name)


def services(spec: CanarySpec, target: Object, find: Find = nothing) -> list[Object]:
    """`<apex>-canary` and `<apex>-primary`.  `find`: to see which of them the user wrote.  Raises TargetError."""
    label, value = selector_label(spec, target)
    made = [
        _service(spec, spec.canary_service, "canary", {label: value}, target),
        _service(spec, spec.primary_service, "primary", {label: f"{value}-primary"}, target),
    ]
    return [_taken_over(spec, one, find(Key.of(one)), "selector", "ports") for one in made]


def baseline_service(spec: CanarySpec, target: Object) -> Object:
    """`<apex>-baseline`.  Raises TargetError."""
    label, value = selector_label(spec, target)
    return _service(spec, spec.baseline_service, "primary", {label: f"{value}-baseline"}, target)


def apex_service(
    spec: CanarySpec, target: Object, current: Mapping[str, Any] | None, *, selects_target: bool = False
) -> Object:
    """The apex Service.  One that the user wrote keeps everything but its selector; otherwise it is all ours.

    `selects_target`: as its Canary leaves it behind (revertOnDeletion); the user's is then not held any more."""
    label, value = selector_label(spec, target)
    made = _service(spec, spec.apex, "apex", {label: value if selects_target else f"{value}-primary"}, target)
    if selects_target and current is not None and not is_ours(spec, current):
        return {**given_back(spec, "v1", "Service", spec.apex), "spec": {"selector": made["spec"]["selector"]}}
    kept = _taken_over(spec, made, current, "selector")
    if current is not None and not is_ours(spec, current) and _lacks_port(spec, current):
        kept["metadata"]["annotations"][ANNOTATION_PORT] = str(spec.port)
        kept["spec"]["ports"] = _with_others(made["spec"]["ports"], current)
    return kept


def _lacks_port(spec: CanarySpec, current: Mapping[str, Any]) -> bool:
    """Has the user's Service no port spec.service.port, or only because we gave it one?"""
    if ANNOTATION_PORT in (current["metadata"].get("annotations") or {}):
        return True
    return spec.port not in [port.get("port") for port in (current.get("spec") or {}).get("ports") or ()]


def _with_others(ports: list[Object], current: Mapping[str, Any]) -> list[Object]:
    """And the ports that were there (Flagger takes them away), under a name of their own."""
    merged = list(ports)
    for other in (current.get("spec") or {}).get("ports") or ():
        number, protocol = other.get("port"), other.get("protocol", "TCP")
        if any((one["port"], one["protocol"]) == (number, protocol) for one in ports):
            continue
        name = other.get("name") or f"port-{number}"
        if any(one["name"] == name for one in merged):
            name = f"{name[:50]}-{number}"
        merged.append({**other, "name": name, "protocol": protocol})
    return merged


def _taken_over(spec: CanarySpec, made: Object, current: Mapping[str, Any] | None, *fields: str) -> Object:
    """`made` where it is ours to make; of a Service that the user wrote only `fields`, and Flux is told to leave them."""
    if current is None or is_ours(spec, current):
        return made
    kept = held(spec, "v1", "Service", made["metadata"]["name"], {name: made["spec"][name] for name in fields})
    kept["metadata"]["annotations"].update(HANDS_OFF)
    return kept


def _service(spec: CanarySpec, name: str, role: str, selector: Object, target: Mapping[str, Any]) -> Object:
    extra = spec.service_metadata.get(role) or {}
    label = next(iter(selector))
    metadata: Object = {
        "name": name,
        "namespace": spec.namespace,
        "labels": {**_managed(spec, extra, "labels"), label: name},
        "annotations": {**_managed(spec, extra, "annotations"), **HANDS_OFF},
        "ownerReferences": owner(spec),
    }
    body: Object = {"type": "ClusterIP", "selector": selector, "ports": service_ports(spec, target)}
    if spec.routes.headless:
        body["clusterIP"] = "None"
    if spec.routes.traffic_distribution:
        body["trafficDistribution"] = spec.routes.traffic_distribution
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": body}


def _managed(spec: CanarySpec, extra: Mapping[str, Any], field: str) -> dict[str, str]:
    given = (extra.get(field) or {}).items()
    return {
        name: value
        for name, value in given
        if (field, name) not in spec.routes.unmanaged and (field == "labels" or FLUX not in name)
    }


# ---------------------------------------------------------------- ports


def service_ports(spec: CanarySpec, target: Mapping[str, Any]) -> list[Object]:
    """The Canary's port, and with portDiscovery those the target's containers declare, in their order.

    Left out: a sidecar's, the one that spec.service already stands for, and numbers that are there already.  A name that is
    taken becomes tcp-<container>-<index>, as where a port has none: Kubernetes takes no Service with two of a name."""
    port: Object = {
        "name": spec.port_name,
        "port": spec.port,
        "protocol": "TCP",
        "targetPort": spec.target_port or spec.port,
    }
    if spec.app_protocol:
        port["appProtocol"] = spec.app_protocol
    ports = [port]
    if not spec.port_discovery:
        return ports
    for container in (target["spec"]["template"].get("spec") or {}).get("containers") or ():
        if container.get("name") in _SIDECARS:
            continue
        for index, found in enumerate(container.get("ports") or ()):
            number, protocol = found.get("containerPort"), found.get("protocol", "TCP")
            stands_for = (spec.port, spec.target_port)
            if number in stands_for or (found.get("name") and found["name"] == spec.target_port):
                continue
            if any((one["port"], one["protocol"]) == (number, protocol) for one in ports):
                continue
            name = found.get("name") or ""
            if not name or any(one["name"] == name for one in ports):
                name = f"{protocol.lower()}-{container.get('name')}-{index}"
            ports.append({"name": name, "port": number, "protocol": protocol, "targetPort": number})
    return copy.deepcopy(ports)

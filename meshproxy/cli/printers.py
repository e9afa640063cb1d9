"""Objects as rows: kubectl's columns for each kind.  Pure.

KINDS["po"] is the same as KINDS["pods"]: names, the object's group and kind, the header, one row for each object.
SMI's objects have no status: what is wrong with them is found between objects, and given to `table`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from meshproxy.cli.common import age, columns

Object = dict[str, Any]
Row = list[str]
Told = tuple[str, str]  # reason and message of what is wrong with an object


@dataclass(frozen=True, slots=True)
class Kind:
    names: tuple[str, ...]  # plural first, as kubectl prints it
    group: str
    kind: str
    header: tuple[str, ...]
    row: Callable[[Object, float], Row]
    wide_header: tuple[str, ...] = ()
    wide: Callable[[Object], Row] = lambda obj: []
    cluster_scoped: bool = False
    after_wide: int = 0  # so many of the columns stand behind the wide ones
    told: bool = False  # it has no status of its own: STATUS before the last column, and a wide one MESSAGE, are what is told

    @property
    def plural(self) -> str:
        """As error messages name it: pods, deployments.apps."""
        return f"{self.names[0]}.{self.group}" if self.group else self.names[0]

    @property
    def prefix(self) -> str:
        """Before a name: pod, deployment.apps."""
        return f"{self.names[1]}.{self.group}" if self.group else self.names[1]

    def headers(self, wide: bool) -> list[str]:
        if self.told:
            return [*self.header[:-1], "STATUS", self.header[-1], *(["MESSAGE"] if wide else [])]
        return self._joined(self.header, self.wide_header if wide else ())

    def cells(self, obj: Object, wide: bool, now: float | None = None, told: Sequence[Told] = ()) -> Row:
        row = self.row(obj, time.time() if now is None else now)
        if self.told:
            reasons = ",".join(dict.fromkeys(reason for reason, _ in told)) or "ok"
            return [*row[:-1], reasons, row[-1], *(["; ".join(message for _, message in told)] if wide else [])]
        return self._joined(row, self.wide(obj) if wide else ())

    def _joined(self, columns: Sequence[str], wide: Sequence[str]) -> list[str]:
        at = len(columns) - self.after_wide
        return [*columns[:at], *wide, *columns[at:]]


def _age(obj: Object, now: float) -> str:
    return age(obj["metadata"].get("creationTimestamp"), now)


def _selector(labels: dict[str, Any] | None) -> str:
    return ",".join(f"{name}={value}" for name, value in (labels or {}).items()) or "<none>"


# ---------------------------------------------------------------- pods


def pod_state(pod: Object) -> str:
    """The STATUS column: the phase, or what keeps a container from running."""
    status = pod.get("status") or {}
    if "meshproxy.dev/terminating-since" in (pod["metadata"].get("annotations") or {}):
        return "Terminating"
    word = str(status.get("reason") or status.get("phase") or "Unknown")
    for container in status.get("containerStatuses") or []:
        state = container.get("state") or {}
        if (waiting := state.get("waiting")) and waiting.get("reason"):
            return str(waiting["reason"])
        if (ended := state.get("terminated")) and word != "Running":
            return str(ended.get("reason") or f"ExitCode:{ended.get('exitCode')}")
    return word


def _pod(pod: Object, now: float) -> Row:
    containers = (pod.get("status") or {}).get("containerStatuses") or []
    ready = sum(bool(container.get("ready")) for container in containers)
    restarts = sum(int(container.get("restartCount") or 0) for container in containers)
    ends = [(container.get("lastState") or {}).get("terminated", {}).get("finishedAt") for container in containers]
    last = max((end for end in ends if end), default=None)
    shown = f"{restarts} ({age(last, now)} ago)" if restarts and last else str(restarts)
    return [pod["metadata"]["name"], f"{ready}/{len(containers)}", pod_state(pod), shown, _age(pod, now)]


def _pod_wide(pod: Object) -> Row:
    return [(pod.get("status") or {}).get("podIP") or "<none>", pod["spec"].get("nodeName") or "<none>"]


# ---------------------------------------------------------------- the others


def _deployment(obj: Object, now: float) -> Row:
    status, wanted = obj.get("status") or {}, obj["spec"].get("replicas", 1)
    counts = [str(status.get(name) or 0) for name in ("readyReplicas", "updatedReplicas", "availableReplicas")]
    return [obj["metadata"]["name"], f"{counts[0]}/{wanted}", counts[1], counts[2], _age(obj, now)]


def _deployment_wide(obj: Object) -> Row:
    containers = obj["spec"]["template"]["spec"].get("containers") or []
    names = ",".join(container["name"] for container in containers)
    images = ",".join(str(container.get("image") or "<none>") for container in containers)
    return [names, images, _selector((obj["spec"].get("selector") or {}).get("matchLabels"))]


def _service(obj: Object, now: float) -> Row:
    spec = obj["spec"]
    ports = ",".join(f"{port['port']}/{port.get('protocol', 'TCP')}" for port in spec.get("ports") or []) or "<none>"
    external = spec.get("externalName") or "<none>"
    kind = spec.get("type") or "ClusterIP"
    return [obj["metadata"]["name"], kind, spec.get("clusterIP") or "<none>", external, ports, _age(obj, now)]


def _slice(obj: Object, now: float) -> Row:
    ports = ",".join(str(port.get("port")) for port in obj.get("ports") or []) or "<unset>"
    found = []
    for endpoint in obj.get("endpoints") or []:
        ready = (endpoint.get("conditions") or {}).get("ready", True)
        found += [address if ready else f"{address}(not ready)" for address in endpoint["addresses"]]
    shown = ",".join(found[:6]) + (f" + {len(found) - 6} more..." if len(found) > 6 else "") or "<unset>"
    return [obj["metadata"]["name"], obj.get("addressType", "IPv4"), ports, shown, _age(obj, now)]


def _split(obj: Object, now: float) -> Row:
    weights = ",".join(f"{item['service']}={item.get('weight', 0)}" for item in obj["spec"].get("backends") or [])
    return [obj["metadata"]["name"], str(obj["spec"].get("service")), weights or "<none>", _age(obj, now)]


def _route(obj: Object, now: float) -> Row:
    """The Services it is attached to, and its conditions: True if they are towards all of them; else the first reason."""
    services = [ref["name"] for ref in obj["spec"].get("parentRefs") or [] if ref.get("kind") == "Service"]
    parents = (obj.get("status") or {}).get("parents") or []

    def condition(kind: str) -> str:
        found = [one for parent in parents for one in parent.get("conditions") or [] if one.get("type") == kind]
        bad = [str(one.get("reason")) for one in found if one.get("status") != "True"]
        return bad[0] if bad else "True" if found else "<unknown>"

    metadata = obj["metadata"]
    return [metadata["name"], ",".join(services) or "<none>", condition("Accepted"), condition("ResolvedRefs"), _age(obj, now)]


def _target(obj: Object, now: float) -> Row:
    """Both layouts: fields at the top before v1alpha2."""
    spec = obj.get("spec") or {}
    home = obj["metadata"].get("namespace")

    def account(one: Object) -> str:
        return one["name"] if one.get("namespace", home) == home else f"{one['namespace']}/{one['name']}"

    destination = spec.get("destination") or obj.get("destination") or {"name": "<none>"}
    sources = [account(one) for one in [*(spec.get("sources") or []), *(obj.get("sources") or [])]]
    rules = [one for place in (spec, obj) for field in ("specs", "rules") for one in place.get(field) or []]
    shown = [
        f"{one['kind']}/{one['name']}" + ("[" + ",".join(one["matches"]) + "]" if one.get("matches") else "") for one in rules
    ]
    return [
        obj["metadata"]["name"],
        account(destination),
        ",".join(sources) or "<none>",
        ",".join(shown) or "<none>",
        _age(obj, now),
    ]


def _canary(obj: Object, now: float) -> Row:
    status = obj.get("status") or {}
    weight = status.get("canaryWeight")
    shown = "" if weight is None else str(weight)
    return [obj["metadata"]["name"], str(status.get("phase") or ""), shown, str(status.get("lastTransitionTime") or "")]


def _canary_wide(obj: Object) -> Row:
    """As Flagger's CRD has them: what the object says, in JSON."""
    status, spec = obj.get("status") or {}, obj["spec"]
    said = [spec.get("suspend"), status.get("failedChecks")]
    said += [
        (spec.get("analysis") or {}).get(name) for name in ("interval", "mirror", "stepWeight", "stepWeights", "maxWeight")
    ]
    return [one if isinstance(one, str) else "" if one is None else json.dumps(one, separators=(",", ":")) for one in said]


def _event(obj: Object, now: float) -> Row:
    about = obj.get("involvedObject") or {}
    count = int(obj.get("count") or 1)
    seen = age(obj.get("lastTimestamp"), now)
    if count > 1:
        seen = f"{seen} (x{count} over {age(obj.get('firstTimestamp'), now)})"
    subject = f"{str(about.get('kind', '')).lower()}/{about.get('name', '')}"
    return [seen, str(obj.get("type", "")), str(obj.get("reason", "")), subject, str(obj.get("message", ""))]


def _data(obj: Object, now: float) -> Row:
    return [obj["metadata"]["name"], str(len(obj.get("data") or {}) + len(obj.get("stringData") or {})), _age(obj, now)]


def _secret(obj: Object, now: float) -> Row:
    name, count, old = _data(obj, now)
    return [name, str(obj.get("type") or "Opaque"), count, old]


def _plain(obj: Object, now: float) -> Row:
    return [obj["metadata"]["name"], _age(obj, now)]


_ALL_KINDS = (
    Kind(("pods", "pod", "po"), "", "Pod", ("NAME", "READY", "STATUS", "RESTARTS", "AGE"), _pod, ("IP", "NODE"), _pod_wide),
    Kind(
        ("services", "service", "svc"),
        "",
        "Service",
        ("NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"),
        _service,
        ("SELECTOR",),
        lambda obj: [_selector(obj["spec"].get("selector"))],
    ),
    Kind(
        ("deployments", "deployment", "deploy"),
        "apps",
        "Deployment",
        ("NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"),
        _deployment,
        ("CONTAINERS", "IMAGES", "SELECTOR"),
        _deployment_wide,
    ),
    Kind(
        ("endpointslices", "endpointslice", "eps"),
        "discovery.k8s.io",
        "EndpointSlice",
        ("NAME", "ADDRESSTYPE", "PORTS", "ENDPOINTS", "AGE"),
        _slice,
    ),
    Kind(
        ("trafficsplits", "trafficsplit", "ts"),
        "split.smi-spec.io",
        "TrafficSplit",
        ("NAME", "SERVICE", "WEIGHTS", "AGE"),
        _split,
        told=True,
    ),
    Kind(
        ("traffictargets", "traffictarget", "tt"),
        "access.smi-spec.io",
        "TrafficTarget",
        ("NAME", "DESTINATION", "SOURCES", "RULES", "AGE"),
        _target,
        told=True,
    ),
    Kind(
        ("httproutes", "httproute"),
        "gateway.networking.k8s.io",
        "HTTPRoute",
        ("NAME", "SERVICES", "ACCEPTED", "RESOLVEDREFS", "AGE"),
        _route,
    ),
    Kind(
        ("grpcroutes", "grpcroute"),
        "gateway.networking.k8s.io",
        "GRPCRoute",
        ("NAME", "SERVICES", "ACCEPTED", "RESOLVEDREFS", "AGE"),
        _route,
    ),
    Kind(
        ("httproutegroups", "httproutegroup", "htr"),
        "specs.smi-spec.io",
        "HTTPRouteGroup",
        ("NAME", "AGE"),
        _plain,
        told=True,
    ),
    Kind(
        ("canaries", "canary", "cd"),
        "flagger.app",
        "Canary",
        ("NAME", "STATUS", "WEIGHT", "LASTTRANSITIONTIME"),
        _canary,
        ("SUSPENDED", "FAILEDCHECKS", "INTERVAL", "MIRROR", "STEPWEIGHT", "STEPWEIGHTS", "MAXWEIGHT"),
        _canary_wide,
        after_wide=1,
    ),
    Kind(("events", "event", "ev"), "", "Event", ("LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"), _event),
    Kind(("configmaps", "configmap", "cm"), "", "ConfigMap", ("NAME", "DATA", "AGE"), _data),
    Kind(("secrets", "secret"), "", "Secret", ("NAME", "TYPE", "DATA", "AGE"), _secret),
    Kind(("serviceaccounts", "serviceaccount", "sa"), "", "ServiceAccount", ("NAME", "AGE"), _plain),
    Kind(("namespaces", "namespace", "ns"), "", "Namespace", ("NAME", "AGE"), _plain, cluster_scoped=True),
    Kind(("releasepolicies", "releasepolicy"), "meshproxy.dev", "ReleasePolicy", ("NAME", "AGE"), _plain),
)
KINDS: dict[str, Kind] = {name: kind for kind in _ALL_KINDS for name in kind.names}
ALL: tuple[str, ...] = ("pods", "services", "deployments", "trafficsplits", "canaries")


def table(
    kind: Kind,
    objects: Sequence[Object],
    *,
    wide: bool,
    namespaces: bool,
    prefix: bool = False,
    labels: bool = False,
    headers: bool = True,
    told: Callable[[Object], Sequence[Told]] = lambda obj: (),
) -> str:
    """Rows with a header; `namespaces` adds the first column, `labels` the last, `prefix` writes names as kind/name.
    told: what is wrong with an object of a kind that has no status."""
    rows = []
    for obj in objects:
        metadata = obj["metadata"]
        cells = kind.cells(obj, wide, told=told(obj) if kind.told else ())
        if prefix and kind.header[0] == "NAME":
            cells[0] = f"{kind.prefix}/{cells[0]}"
        row = [metadata.get("namespace") or "default", *cells] if namespaces else cells
        rows.append([*row, _selector(dict(sorted((metadata.get("labels") or {}).items())))] if labels else row)
    header = ["NAMESPACE", *kind.headers(wide)] if namespaces else kind.headers(wide)
    header += ["LABELS"] if labels else []
    return columns(header, rows, headers=headers)

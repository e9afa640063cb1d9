"""Is a document an object we can take?  All its mistakes, each with its line.

document -> apiVersion and kind known? -> metadata -> shape of the kind -> meaning -> (embedded mode's subset)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from control.resources.annotations import INBOUND_POLICIES, INBOUND_POLICY, traffic
from control.resources.canary import check_canary
from control.resources.documents import Document, Parsed, Path, without_nulls
from control.resources.embedded import check_embedded
from control.resources.kinds import CLUSTER_SCOPED, KIND_NAMES, KINDS, REFUSED
from control.resources.quantity import quantity
from control.resources.shape import Report, check_shape, nearest, shown, without_mistakes
from control.resources.split import check_split
from control.store.store import Diagnostic, Key, Object

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?\Z")

# Written by servers; a document exported with `kubectl get -o yaml` has them, `kubectl apply` takes no notice.
_SERVER_METADATA = [
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "resourceVersion",
    "selfLink",
    "uid",
]


@dataclass(slots=True)
class Checked:
    """A document after checking.  `key` is None if it cannot be named; `obj` is None if it is refused or ignored."""

    document: Document
    key: Key | None = None
    obj: Object | None = None
    ignored: bool = False
    diagnostics: list[Diagnostic] = field(default_factory=list)


@dataclass(slots=True)
class CheckedFile:
    name: str
    documents: list[Checked] = field(default_factory=list)
    diagnostics: list[Diagnostic] = field(default_factory=list)  # of the file itself
    holds: bool = False  # not readable to its end, or a document in it has no name: nothing of it may be taken as gone


def check_file(name: str, parsed: Parsed) -> CheckedFile:
    documents = [check_document(document) for document in parsed.documents]
    unnamed = any(document.key is None for document in documents)
    return CheckedFile(name, documents, list(parsed.diagnostics), parsed.broken or unnamed)


def check_document(document: Document) -> Checked:
    """Check one document for embedded mode."""
    report = Report(document)
    checked = Checked(document, diagnostics=report.diagnostics)
    obj = document.obj
    if not isinstance(obj, dict):
        report.error((), f"found {shown(obj)}, expected a Kubernetes object", "it begins with apiVersion and kind")
        return checked
    api_version, kind_name = obj.get("apiVersion"), obj.get("kind")
    for name, value in (("apiVersion", api_version), ("kind", kind_name)):
        if not isinstance(value, str) or not value:
            report.error((name,), f"found {shown(value)}, expected a string" if value is not None else "is missing")
    if report.failed:
        return checked
    assert isinstance(api_version, str)
    assert isinstance(kind_name, str)
    group = api_version.rpartition("/")[0]
    kind = KINDS.get((group, kind_name))
    named = _name(obj, report)
    if named is None:
        return checked
    checked.key = report.key = Key(group, kind_name, *named)
    if (group, kind_name) in REFUSED:
        report.error(("kind",), f"{kind_name} does not run in embedded mode", REFUSED[group, kind_name])
        return checked
    if kind is None:
        hint = nearest(kind_name, KIND_NAMES) if group in {known.group for known in KINDS.values()} else ""
        others = [known for known in KINDS.values() if known.kind == kind_name]
        if others:
            hint = f"did you mean apiVersion: {others[0].api_versions[-1]}?"
        report.warning(("kind",), f"ignored: {api_version} {kind_name} is not used in embedded mode", hint)
        checked.ignored = True
        return checked
    if api_version not in kind.api_versions:
        report.error(("apiVersion",), f"found {api_version}, expected {' or '.join(kind.api_versions)}")
        return checked
    report.secret = kind.shape.secret
    check_shape(obj, kind.shape, report)
    sound = without_mistakes(obj, kind.shape, report.paths) if report.failed else obj
    if sound is not None and isinstance(sound.get("metadata"), dict) and "name" in sound["metadata"]:
        clean = _cleaned(sound, kind.namespaced)
        _meaning_of_the_sound_part(clean, report)
        if not report.failed:
            checked.obj = clean
    # one order for all: by line, as the file is read
    report.diagnostics.sort(key=lambda diagnostic: diagnostic.line)
    return checked


def _name(obj: Object, report: Report) -> tuple[str, str] | None:
    """(namespace, name), or None when the document cannot be identified."""
    metadata = obj.get("metadata")
    if not isinstance(metadata, dict):
        report.error(
            ("metadata",),
            "is missing, expected a map with a name" if metadata is None else f"found {shown(metadata)}, expected a map",
        )
        return None
    name, namespace = metadata.get("name"), metadata.get("namespace")
    if name is None and metadata.get("generateName"):
        report.error(("metadata", "generateName"), "is not supported in manifests", "give metadata.name")
        return None
    if name is None:
        report.error(("metadata", "name"), "is missing, expected a string")
        return None
    if not isinstance(name, str) or len(name) > 253 or not _SUBDOMAIN.match(name):
        hint = "put it in quotes" if isinstance(name, (int, float)) else ""
        report.error(("metadata", "name"), f"found {shown(name)}, expected lower-case letters, digits, '-' and '.'", hint)
        return None
    if namespace is not None and (not isinstance(namespace, str) or len(namespace) > 63 or not _LABEL.match(namespace)):
        report.error(("metadata", "namespace"), f"found {shown(namespace)}, expected lower-case letters, digits and '-'")
        return None
    if (str(obj["apiVersion"]).rpartition("/")[0], obj["kind"]) in CLUSTER_SCOPED:
        namespace = None
    return namespace or "default", name


def _cleaned(obj: Object, namespaced: bool) -> Object:
    """As the store keeps it: no nulls, no status, nothing that servers write, the namespace always named."""
    clean: Object = without_nulls(obj)
    clean.pop("status", None)
    metadata = clean["metadata"]
    for name in _SERVER_METADATA:
        metadata.pop(name, None)
    if namespaced:
        metadata["namespace"] = metadata.get("namespace") or "default"
    else:
        metadata.pop("namespace", None)
    return clean


def _meaning_of_the_sound_part(obj: Object, report: Report) -> None:
    """What is wrong in meaning; mistakes that only follow from one in shape are left out."""
    second = Report(report.document, report.key, report.secret)
    _meaning(obj, obj["kind"], second)
    check_embedded(obj, second)
    cut = report.paths[:]
    for path, diagnostic in zip(second.paths, second.diagnostics, strict=True):
        if not any(_follows(path, wrong, report.document.obj) for wrong in cut):
            report.paths.append(path)
            report.diagnostics.append(diagnostic)


def _follows(path: Path, wrong: Path, obj: Any) -> bool:
    """A complaint about `path` only follows from the mistake at `wrong`: one encloses the other, or a field is missing beside
    one that is misspelt."""
    if path == wrong[: len(path)] or wrong == path[: len(wrong)]:
        return True
    if path[:-1] != wrong[:-1]:
        return False
    for part in path[:-1]:
        obj = obj[part]
    return isinstance(obj, dict) and path[-1] not in obj


def _meaning(obj: Object, kind: str, report: Report) -> None:
    _labels(obj["metadata"], ("metadata",), report)
    match kind:
        case "Service":
            _service(obj, report)
        case "Deployment":
            _deployment(obj, report)
        case "Pod":
            _pod(obj["spec"], ("spec",), report)
            _inbound_policy(obj["metadata"], ("metadata",), report)
        case "EndpointSlice":
            if "kubernetes.io/service-name" not in (obj["metadata"].get("labels") or {}):
                report.warning(("metadata", "labels"), "has no kubernetes.io/service-name: it belongs to no Service")
        case "Secret" | "ConfigMap":
            _data(obj, kind, report)
        case "TrafficSplit":
            check_split(obj, report)
        case "Canary":
            check_canary(obj, report)


def _labels(metadata: Object, path: Path, report: Report) -> None:
    for name, value in (metadata.get("labels") or {}).items():
        if len(value) > 63 or not _LABEL_VALUE.match(value):
            report.error(
                (*path, "labels", name), f"found {shown(value)}, expected at most 63 letters, digits, '-', '_' and '.'"
            )


def _service(obj: Object, report: Report) -> None:
    name, spec = obj["metadata"]["name"], obj["spec"]
    if len(name) > 63 or not _LABEL.match(name):
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
    for annotation, message, hint in traffic(obj["metadata"].get("annotations") or {}).mistakes:
        report.warning(("metadata", "annotations", annotation), message, hint)


def _target_port(value: Any, path: Path, report: Report) -> None:
    if isinstance(value, int) and not 1 <= value <= 65535:
        report.error(path, f"found {value}, expected a port from 1 to 65535 or a container port's name")
    elif isinstance(value, str) and value.isdigit():
        report.error(path, f'found the string "{value}", expected a number or a name with a letter', "remove the quotes")
    elif isinstance(value, str) and (len(value) > 15 or not _LABEL.match(value)):
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
    _inbound_policy(metadata, ("spec", "template", "metadata"), report)


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
        if name and not _LABEL.match(name):
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


def _inbound_policy(metadata: Object, path: Path, report: Report) -> None:
    value = (metadata.get("annotations") or {}).get(INBOUND_POLICY)
    if value is not None and value not in INBOUND_POLICIES:
        where = (*path, "annotations", INBOUND_POLICY)
        report.error(
            where, f"found {shown(value)}, expected {', '.join(INBOUND_POLICIES)}", nearest(value, list(INBOUND_POLICIES))
        )


def _data(obj: Object, kind: str, report: Report) -> None:
    import base64
    import binascii

    encoded = obj.get("binaryData") if kind == "ConfigMap" else obj.get("data")
    where = "binaryData" if kind == "ConfigMap" else "data"
    for name, value in (encoded or {}).items():
        try:
            base64.b64decode(value.encode(), validate=True)
        except (binascii.Error, ValueError):
            hint = "plain text goes to stringData" if kind == "Secret" else "plain text goes to data"
            report.error((where, name), "is not base64", hint)


# ---------------------------------------------------------------- several files


@dataclass(slots=True)
class Review:
    """What a directory of manifests asks for."""

    accepted: dict[Key, Checked] = field(default_factory=dict)
    refused: set[Key] = field(default_factory=set)  # named but not acceptable: what was accepted before stays
    holding: set[str] = field(default_factory=set)  # files of which nothing may be taken as gone
    diagnostics: list[Diagnostic] = field(default_factory=list)
    documents: int = 0  # of any kind, good or bad


def review(files: Sequence[CheckedFile]) -> Review:
    """Put files together: an object that stands in two places is refused, naming both."""
    result = Review()
    places: dict[Key, list[Checked]] = {}
    for file in files:
        result.diagnostics.extend(file.diagnostics)
        if file.holds:
            result.holding.add(file.name)
        result.documents += len(file.documents)
        for checked in file.documents:
            result.diagnostics.extend(checked.diagnostics)
            if checked.key is not None and not checked.ignored:
                places.setdefault(checked.key, []).append(checked)
    broken = {file.name for file in files if any(d.severity == "error" for d in file.diagnostics)}
    for key, found in places.items():
        if len(found) > 1:
            result.refused.add(key)
            result.diagnostics.extend(_duplicates(key, found))
        elif found[0].obj is None or found[0].document.file in broken:
            result.refused.add(key)
        else:
            result.accepted[key] = found[0]
    result.diagnostics.sort(key=lambda diagnostic: (diagnostic.file, diagnostic.line))
    return result


def _duplicates(key: Key, found: list[Checked]) -> Iterator[Diagnostic]:
    for checked in found:
        document = checked.document
        others = ", ".join(f"{other.document.file}:{other.document.line}" for other in found if other is not checked)
        message = f"{key} is also in {others}; none of them is taken"
        yield Diagnostic("error", document.file, document.line, "metadata.name", message, "keep one", key)

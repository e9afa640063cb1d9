"""The subset of Kubernetes that runs as local processes: what is refused (with the way out) and what is ignored.

Refused: what would run differently than asked.  Ignored with a warning line: what only tunes a cluster.
"""

from __future__ import annotations

import re

from control.canary.declared.spec import SpecError
from control.canary.declared.spec import parse as parse_release
from control.resources.documents import Document, Path
from control.resources.kinds import REFUSED
from control.resources.shape import Report
from control.store.store import Diagnostic, Key, Object

_FIELD = re.compile(r"[a-z]\w*(?:\.[A-Za-z]\w*|\[[^\]]*\])*")  # how the canary controller's reasons begin
_FIELD_PART = re.compile(r"\[([^\]]*)\]|(\w+)")

_IGNORED_POD_FIELDS = {
    "affinity": "there is one machine",
    "nodeSelector": "there is one machine",
    "tolerations": "there is one machine",
    "topologySpreadConstraints": "there is one machine",
    "nodeName": "there is one machine",
    "priorityClassName": "there is no scheduler",
    "resources": "processes share the machine",
    "securityContext": "processes run as you",
    "imagePullSecrets": "no image is pulled",
    "dnsConfig": "the machine's own DNS is used",
    "hostAliases": "the machine's own names are used",
    "runtimeClassName": "there is no container runtime",
}
_IGNORED_CONTAINER_FIELDS = {
    "resources": "processes share the machine",
    "lifecycle": "hooks are not run",
    "securityContext": "processes run as you",
    "volumeDevices": "there are no volumes",
}


def embedded_diagnostics(obj: Object, document: Document | None = None) -> list[Diagnostic]:
    """What embedded mode refuses ("error") or ignores ("warning") of an object of the right shape."""
    report = Report(document or Document(obj), Key.of(obj))
    group = str(obj["apiVersion"]).rpartition("/")[0]
    if hint := REFUSED.get((group, obj["kind"])):
        report.error(("kind",), f"{obj['kind']} does not run in embedded mode", hint)
    check_embedded(obj, report)
    return report.diagnostics


def check_embedded(obj: Object, report: Report) -> None:
    match obj["kind"]:
        case "Deployment":
            _pod(obj["spec"]["template"]["spec"], ("spec", "template", "spec"), report)
        case "Pod":
            _pod(obj["spec"], ("spec",), report)
        case "Service":
            if obj["spec"].get("type") in ("NodePort", "LoadBalancer"):
                report.warning(
                    ("spec", "type"), f"{obj['spec']['type']} is treated as ClusterIP", "people come in by the gateway"
                )
        case "Canary":
            _canary(obj, report)


def _canary(obj: Object, report: Report) -> None:
    """What the canary controller will say of it.  A mistake is refused here, so that what was there before stays in force: a
    release under way must not be left alone with its canary.  What we cannot honour is taken, and an error all the same, since
    the controller does not run it: crosscheck tells of it."""
    if report.failed:
        return  # it is refused as a whole
    try:
        release = parse_release(obj)
    except SpecError as mistake:
        report.error(*refusal(str(mistake), obj))
        return
    if obj["spec"].get("autoscalerRef"):
        report.warning(("spec", "autoscalerRef"), "ignored: replicas are the Deployments' own")
    for reason in release.ignored:
        path, rest = _split_reason(reason, obj)
        report.warning(path, f"ignored: {rest}")


def refusal(reason: str, obj: Object) -> tuple[Path, str, str]:
    """Where, what is wrong, and what to do about it."""
    path, rest = _split_reason(reason, obj)
    what, _, hint = rest.partition("; ")
    return path, what, hint


def _split_reason(reason: str, obj: Object) -> tuple[Path, str]:
    """("spec.analysis.mirror is not ...") -> (("spec", "analysis", "mirror"), "is not ...")"""
    begin = _FIELD.match(reason)
    if begin is None:
        return (), reason
    path: Path = tuple(
        plain or (int(index) if index.isdecimal() else index) for index, plain in _FIELD_PART.findall(begin.group())
    )
    if path[:2] == ("spec", "analysis") and not obj["spec"].get("analysis") and obj["spec"].get("canaryAnalysis"):
        path = ("spec", "canaryAnalysis", *path[2:])
    return path, reason[begin.end() :].lstrip(": ")


def _pod(spec: Object, path: Path, report: Report) -> None:
    containers = spec.get("containers") or []
    if len(containers) > 1:
        names = ", ".join(container["name"] for container in containers)
        report.error(
            (*path, "containers"),
            f"{len(containers)} containers ({names}), expected one",
            "run each as a Deployment of its own",
        )
    if spec.get("initContainers"):
        report.error((*path, "initContainers"), "are not run in embedded mode", "do the work at the start of the command")
    if spec.get("hostNetwork"):
        report.error((*path, "hostNetwork"), "would leave the pod without an address of its own", "remove it")
    for index, volume in enumerate(spec.get("volumes") or []):
        _volume(volume, (*path, "volumes", index), report)
    for name, reason in _IGNORED_POD_FIELDS.items():
        if spec.get(name):
            report.warning((*path, name), f"ignored: {reason}")
    for index, container in enumerate(containers):
        _container(container, (*path, "containers", index), report)


def _volume(volume: Object, path: Path, report: Report) -> None:
    name = volume.get("name", "?")
    if "hostPath" in volume:
        hint = "give the app the directory by env: it runs on this machine anyway"
        report.error((*path, "hostPath"), f"volume {name}: hostPath is not mounted in embedded mode", hint)
    elif "persistentVolumeClaim" in volume:
        hint = "give the app a directory by env"
        report.error((*path, "persistentVolumeClaim"), f"volume {name}: there are no persistent volumes in embedded mode", hint)
    else:
        report.warning(path, f"ignored: volume {name} is not mounted", "pass configuration by env or envFrom")


def _container(container: Object, path: Path, report: Report) -> None:
    if not container.get("command"):
        image = container.get("image") or "no image"
        args = "; args alone are not enough" if container.get("args") else ""
        report.error(
            (*path, "command"),
            f"is missing: container {container['name']} has only an image ({image}), and embedded mode runs processes{args}",
            'give a command, e.g. command: ["python3", "app.py"]; Kubernetes runs the same command in the image',
        )
    for name, reason in _IGNORED_CONTAINER_FIELDS.items():
        if container.get(name):
            report.warning((*path, name), f"ignored: {reason}")
    for index, port in enumerate(container.get("ports") or []):
        if port.get("hostPort"):
            report.warning((*path, "ports", index, "hostPort"), "ignored: the port is on the pod's own address")

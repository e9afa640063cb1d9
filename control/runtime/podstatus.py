"""Pod status as the kubelet writes it, from a PodMachine.  Pure.

phase        Pending   until the app's container has been started once
             Running   from then on
             Succeeded, Failed   the app ended for good (restartPolicy OnFailure, Never)
conditions   PodScheduled, Initialized, ContainersReady, Ready
containerStatuses   the app's and, beside it, the sidecar's (as an injected sidecar would show in Kubernetes)
"""

from __future__ import annotations

import datetime
from typing import Any

from control.runtime.container import Container, Phase, Run
from control.runtime.pod import PodMachine

HOST_IP = "127.0.0.1"


def timestamp(unix: float) -> str:
    """Kubernetes' form: RFC 3339, UTC, whole seconds."""
    return datetime.datetime.fromtimestamp(int(unix), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def pod_status(machine: PodMachine, now: float, *, pod_ip: str, images: dict[str, str]) -> dict[str, Any]:
    """The whole `status` of a pod.

    Args:
        now: unix seconds; machine's times are on the same clock.
        images: container name -> image, shown as the manifest has it.
    """
    unready = [container.name for container in machine.containers if not container.ready]
    ready = machine.serving
    message = f"containers with unready status: [{' '.join(unready)}]"
    condition = _Conditions(machine, now)
    conditions = [
        condition("PodScheduled", True),
        condition("Initialized", True),
        condition("ContainersReady", ready, "ContainersNotReady", message),
        condition("Ready", ready, "ContainersNotReady", message),
    ]
    if machine.finished:
        for item in conditions[2:]:
            item["reason"] = "PodCompleted"
            item.pop("message", None)
    return {
        "phase": _phase(machine),
        "conditions": conditions,
        "hostIP": HOST_IP,
        "hostIPs": [{"ip": HOST_IP}],
        "podIP": pod_ip,
        "podIPs": [{"ip": pod_ip}],
        "startTime": timestamp(machine.created),
        "containerStatuses": [_container_status(item, images.get(item.name, "")) for item in machine.containers],
        "qosClass": "BestEffort",
    }


class _Conditions:
    """Remembers in the machine when each condition last changed."""

    def __init__(self, machine: PodMachine, now: float) -> None:
        self._machine = machine
        self._now = now

    def __call__(self, kind: str, true: bool, reason: str = "", message: str = "") -> dict[str, Any]:
        key = f"{kind}={true}"
        if key not in self._machine.changed_at:
            self._machine.changed_at.pop(f"{kind}={not true}", None)
            self._machine.changed_at[key] = self._now
        item: dict[str, Any] = {
            "type": kind,
            "status": "True" if true else "False",
            "lastTransitionTime": timestamp(self._machine.changed_at[key]),
        }
        if not true:
            item |= {"reason": reason, "message": message}
        return item


def _phase(machine: PodMachine) -> str:
    main = machine.app or machine.sidecar
    assert main is not None
    if main.phase is Phase.ENDED and main.run is not None:
        return "Succeeded" if main.run.exit.code == 0 else "Failed"
    return "Running" if main.alive or main.run is not None else "Pending"


def _container_status(container: Container, image: str) -> dict[str, Any]:
    status: dict[str, Any] = {
        "name": container.name,
        "image": image,
        "imageID": "",
        "ready": container.ready,
        "started": container.started,
        "restartCount": container.restarts,
        "state": _state(container),
        "lastState": {},
    }
    if container.run is not None and container.phase is not Phase.ENDED:
        status["lastState"] = {"terminated": _terminated(container.run)}
    return status


def _state(container: Container) -> dict[str, Any]:
    if container.alive:
        return {"running": {"startedAt": timestamp(container.started_at)}}
    if container.phase is Phase.ENDED and container.run is not None:
        return {"terminated": _terminated(container.run)}
    waiting = {"reason": container.reason or "ContainerCreating"}
    if container.message:
        waiting["message"] = container.message
    return {"waiting": waiting}


def _terminated(run: Run) -> dict[str, Any]:
    ended: dict[str, Any] = {
        "exitCode": run.exit.code,
        "reason": run.reason,
        "startedAt": timestamp(run.started),
        "finishedAt": timestamp(run.finished),
    }
    if run.exit.signal:
        ended["signal"] = run.exit.signal
    if run.exit.message:
        ended["message"] = run.exit.message
    return ended

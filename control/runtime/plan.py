"""Deployments: what to create, what to end, and what to write as status.  Pure: facts and `now` in, a plan out.

    replicas=4 maxSurge=1 maxUnavailable=1             old  new   (r = ready)
        the template changes                            4r   0
        create 1 (surge), end 1 (unavailable)           3r   1
        create 1: replicas + maxSurge is the ceiling    3r   2
        one new is available: end one old               2r   1r 1 ...
        until                                           0    4r

The rules, roundings and texts are those of Kubernetes' deployment controller (pkg/controller/deployment).  It works
through ReplicaSets; here a template's hash stands for one.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from control.runtime.podstatus import timestamp

_HASH_LETTERS = "bcdfghjklmnpqrstvwxz2456789"  # Kubernetes' safe alphabet: no vowels, so no words


@dataclass(frozen=True, slots=True)
class PodFact:
    """What the planner knows of one pod of the Deployment."""

    name: str
    template_hash: str
    created: float
    ready: bool = False
    ready_since: float | None = None
    running: bool = False
    restarts: int = 0
    terminating: bool = False

    def available(self, now: float, min_ready_seconds: float) -> bool:
        if not self.ready or self.terminating:
            return False
        return min_ready_seconds <= 0 or (self.ready_since is not None and now - self.ready_since >= min_ready_seconds)


@dataclass(frozen=True, slots=True)
class Plan:
    template_hash: str
    create: int = 0
    delete: tuple[str, ...] = ()
    status: dict[str, Any] = field(default_factory=dict)
    due_at: float | None = None  # plan again then, though nothing changed


def template_hash(template: dict[str, Any]) -> str:
    """Names a pod template by its content; equal templates, equal hash (10 letters, as pod-template-hash)."""
    number = int.from_bytes(hashlib.sha256(json.dumps(template, sort_keys=True, default=str).encode()).digest()[:8], "big")
    letters = []
    for _ in range(10):
        number, rest = divmod(number, len(_HASH_LETTERS))
        letters.append(_HASH_LETTERS[rest])
    return "".join(letters)


def rolling_bounds(strategy: dict[str, Any], replicas: int) -> tuple[int, int]:
    """(maxSurge, maxUnavailable) in pods: percentages of `replicas`, surge rounded up, unavailable down; both 25 % by
    default; when both come to nothing, one may be unavailable, or nothing would ever move."""
    rolling = strategy.get("rollingUpdate") or {}
    surge = _share(rolling.get("maxSurge", "25%"), replicas, up=True)
    unavailable = _share(rolling.get("maxUnavailable", "25%"), replicas, up=False)
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return surge, min(unavailable, replicas)


def _share(value: int | str, replicas: int, *, up: bool) -> int:
    if isinstance(value, str) and value.endswith("%"):
        exact = int(value[:-1]) * replicas / 100
        return math.ceil(exact) if up else math.floor(exact)
    return int(value)


def deletion_order(pods: Sequence[PodFact]) -> list[PodFact]:
    """Whom to end first: not running, not ready, ready for the shortest time, most restarts, youngest."""
    return sorted(
        pods, key=lambda pod: (pod.running, pod.ready, -(pod.ready_since or 0.0), -pod.restarts, -pod.created, pod.name)
    )


def plan_deployment(deployment: dict[str, Any], pods: Sequence[PodFact], now: float) -> Plan:
    """What to do for one Deployment.

    Args:
        deployment: the object, with the status written last time.
        pods: all its pods that are not gone.
        now: unix seconds, the clock of the pods' times.
    """
    spec = deployment["spec"]
    replicas = int(spec.get("replicas", 1) if spec.get("replicas") is not None else 1)
    min_ready = float(spec.get("minReadySeconds") or 0)
    strategy = spec.get("strategy") or {}
    wanted = template_hash(spec.get("template") or {})
    active = [pod for pod in pods if not pod.terminating]
    new = [pod for pod in active if pod.template_hash == wanted]
    old = [pod for pod in active if pod.template_hash != wanted]
    create, delete = 0, []
    if spec.get("paused"):
        # A paused Deployment is still scaled, but not rolled: to the newest it has.
        current = new or old
        if new or not old:
            create = max(0, replicas - len(active))
        delete = deletion_order(current)[: max(0, len(active) - replicas)]
    elif len(new) > replicas:
        delete = deletion_order(new)[: len(new) - replicas]
    elif strategy.get("type") == "Recreate":
        delete = old
        if not old and not any(pod.terminating for pod in pods):
            create = replicas - len(new)
    else:
        surge, unavailable = rolling_bounds(strategy, replicas)
        create = max(0, min(replicas - len(new), replicas + surge - len(active)))
        delete = _old_to_end(new, old, replicas - unavailable, now, min_ready)
    names = tuple(pod.name for pod in delete)
    status = _status(deployment, pods, wanted, replicas, now, min_ready)
    return Plan(wanted, create, names, status, _due_at(deployment, active, status, now, min_ready))


def _old_to_end(new: list[PodFact], old: list[PodFact], min_available: int, now: float, min_ready: float) -> list[PodFact]:
    """Old pods that may go now: first those that serve nobody, then as many as availability allows."""
    if not old:
        return []
    new_unavailable = sum(not pod.available(now, min_ready) for pod in new)
    budget = len(new) + len(old) - min_available - new_unavailable
    if budget <= 0:
        return []
    ordered = deletion_order(old)
    unhealthy = [pod for pod in ordered if not pod.available(now, min_ready)][:budget]
    rest = [pod for pod in ordered if pod not in unhealthy]
    available = sum(pod.available(now, min_ready) for pod in new) + sum(pod.available(now, min_ready) for pod in rest)
    spare = max(0, min(available - min_available, budget - len(unhealthy)))
    healthy = [pod for pod in rest if pod.available(now, min_ready)]
    return unhealthy + healthy[:spare]


# ---------------------------------------------------------------- status


def _status(
    deployment: dict[str, Any], pods: Sequence[PodFact], wanted: str, replicas: int, now: float, min_ready: float
) -> dict[str, Any]:
    spec = deployment["spec"]
    before = deployment.get("status") or {}
    active = [pod for pod in pods if not pod.terminating]
    counts = {
        "replicas": len(active),
        "updatedReplicas": sum(pod.template_hash == wanted for pod in active),
        "readyReplicas": sum(pod.ready for pod in active),
        "availableReplicas": sum(pod.available(now, min_ready) for pod in active),
    }
    status: dict[str, Any] = {"observedGeneration": int(deployment["metadata"].get("generation") or 0), **counts}
    status["unavailableReplicas"] = max(0, max(len(active), replicas) - counts["availableReplicas"])
    _, unavailable = rolling_bounds(spec.get("strategy") or {}, replicas)
    recreate = (spec.get("strategy") or {}).get("type") == "Recreate"
    enough = counts["availableReplicas"] >= replicas - (0 if recreate else unavailable)
    available = (
        _condition("Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
        if enough
        else _condition("Available", "False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    )
    status["conditions"] = [
        _carry(available, before, now),
        _carry(_progressing(deployment, status, before, wanted, replicas, now), before, now, moved=_moved(status, before)),
    ]
    return status


def _progressing(
    deployment: dict[str, Any], status: dict[str, Any], before: dict[str, Any], wanted: str, replicas: int, now: float
) -> dict[str, Any]:
    subject = f'ReplicaSet "{deployment["metadata"]["name"]}-{wanted}"'
    last = _find(before, "Progressing")
    if deployment["spec"].get("paused"):
        return _condition("Progressing", "Unknown", "DeploymentPaused", "Deployment is paused")
    complete = status["updatedReplicas"] == status["replicas"] == status["availableReplicas"] == replicas
    if complete:
        return _condition("Progressing", "True", "NewReplicaSetAvailable", f"{subject} has successfully progressed.")
    if last is None:
        return _condition("Progressing", "True", "NewReplicaSetCreated", f"Created new replica set {subject.split()[1]}")
    same = before.get("observedGeneration") == status["observedGeneration"]
    if last.get("reason") == "NewReplicaSetAvailable" and same:
        return last  # it was complete and lost a pod: that is availability, not progress
    if _moved(status, before) or not same:
        return _condition("Progressing", "True", "ReplicaSetUpdated", f"{subject} is progressing.")
    if last.get("reason") == "ProgressDeadlineExceeded" or now - _seconds(last) >= _deadline(deployment):
        return _condition("Progressing", "False", "ProgressDeadlineExceeded", f"{subject} has timed out progressing.")
    return last


def _moved(status: dict[str, Any], before: dict[str, Any]) -> bool:
    """Did the rollout get further since the last status?"""

    def old(name: str) -> int:
        return int(before.get(name) or 0)

    gone = old("replicas") - old("updatedReplicas") > status["replicas"] - status["updatedReplicas"]
    return gone or any(status[name] > old(name) for name in ("updatedReplicas", "readyReplicas", "availableReplicas"))


def _due_at(
    deployment: dict[str, Any], active: Sequence[PodFact], status: dict[str, Any], now: float, min_ready: float
) -> float | None:
    times = [pod.ready_since + min_ready for pod in active if pod.ready and pod.ready_since is not None and min_ready]
    progressing = _find(status, "Progressing")
    if progressing and progressing["status"] == "True" and progressing["reason"] != "NewReplicaSetAvailable":
        times.append(_seconds(progressing) + _deadline(deployment))
    return min((time for time in times if time > now), default=None)


def _deadline(deployment: dict[str, Any]) -> float:
    value = deployment["spec"].get("progressDeadlineSeconds")
    return 600.0 if value is None else float(value)


def _condition(kind: str, status: str, reason: str, message: str) -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def _carry(condition: dict[str, Any], before: dict[str, Any], now: float, *, moved: bool = False) -> dict[str, Any]:
    """Sets the times: transition when the status changed, update when anything did or there was progress."""
    last = _find(before, condition["type"])
    stamp = timestamp(now)
    if last is None:
        return condition | {"lastUpdateTime": stamp, "lastTransitionTime": stamp}
    transition = last["lastTransitionTime"] if last["status"] == condition["status"] else stamp
    same = not moved and all(last.get(name) == condition[name] for name in ("status", "reason", "message"))
    return condition | {"lastUpdateTime": last["lastUpdateTime"] if same else stamp, "lastTransitionTime": transition}


def _find(status: dict[str, Any], kind: str) -> dict[str, Any] | None:
    return next((item for item in status.get("conditions") or [] if item["type"] == kind), None)


def _seconds(condition: dict[str, Any]) -> float:
    return datetime.datetime.fromisoformat(condition["lastUpdateTime"]).timestamp()

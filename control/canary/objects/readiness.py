"""Is a workload fully rolled out?  Flagger's rules (flagger.md 4.5) on the status that Kubernetes writes.

ready                            all wanted pods are of the newest template, enough of them available
not ready, with a text           wait
not ready, stuck                 waiting longer will not help: roll back
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from control.canary.declared.commands import from_rfc3339
from control.canary.objects.workloads import DAEMON_SET, replicas

_ROLLOUT = "waiting for rollout to finish: "


@dataclass(frozen=True, slots=True)
class Readiness:
    """Is a workload fully rolled out?  `stuck`: it is not and waiting longer will not help."""

    ready: bool
    text: str = ""
    stuck: bool = False


READY = Readiness(True)


def readiness(
    workload: Mapping[str, Any], deadline_s: float, threshold_percent: int, now: float, since: float | None = None
) -> Readiness:
    """`threshold_percent` of the updated pods must be available.  `since`: when the Canary's status last changed, from which
    a DaemonSet's deadline is counted (it has no conditions); None: it is never stuck."""
    if workload.get("kind") == DAEMON_SET:
        return _daemon_set(workload, deadline_s, threshold_percent, now, since)
    return _deployment(workload, deadline_s, threshold_percent, now)


def _unobserved(workload: Mapping[str, Any]) -> bool:
    """A status that was never written has observed nothing, whatever the generation counts from."""
    status = workload.get("status") or {}
    generation = int(workload["metadata"].get("generation") or 0)
    return "observedGeneration" not in status or int(status["observedGeneration"]) < generation


def _deployment(deployment: Mapping[str, Any], deadline_s: float, threshold_percent: int, now: float) -> Readiness:
    """Stuck: condition Progressing says ProgressDeadlineExceeded, or Available has been False for lack of replicas for longer
    than `deadline_s`."""
    status = deployment.get("status") or {}
    conditions = {c.get("type"): c for c in status.get("conditions") or ()}
    if _unobserved(deployment):
        return Readiness(False, _ROLLOUT + "observed deployment generation less than desired generation")
    progressing = conditions.get("Progressing") or {}
    if progressing.get("reason") == "ProgressDeadlineExceeded":
        name = deployment["metadata"]["name"]
        return Readiness(False, f'deployment "{name}" exceeded its progress deadline', stuck=True)
    available = conditions.get("Available") or {}
    stuck = False
    if progressing and available.get("status") == "False" and available.get("reason") == "MinimumReplicasUnavailable":
        since = available.get("lastUpdateTime") or available.get("lastTransitionTime")
        stuck = since is not None and from_rfc3339(since) + deadline_s < now
    desired = replicas(deployment)
    updated = int(status.get("updatedReplicas") or 0)
    total = int(status.get("replicas") or 0)
    have = int(status.get("availableReplicas") or 0)
    enough = updated * threshold_percent // 100
    if updated < desired:
        return Readiness(False, f"{_ROLLOUT}{updated} out of {desired} new replicas have been updated", stuck)
    if total > updated:
        return Readiness(False, f"{_ROLLOUT}{total - updated} old replicas are pending termination", stuck)
    if have < enough:
        text = f"{have} of {enough} (readyThreshold {threshold_percent}%) updated replicas are available"
        return Readiness(False, _ROLLOUT + text, stuck)
    return READY


def _daemon_set(
    workload: Mapping[str, Any], deadline_s: float, threshold_percent: int, now: float, since: float | None
) -> Readiness:
    status = workload.get("status") or {}
    if _unobserved(workload):
        return Readiness(False, _ROLLOUT + "observed daemonset generation less than desired generation")
    desired = int(status.get("desiredNumberScheduled") or 0)
    updated = int(status.get("updatedNumberScheduled") or 0)
    have = int(status.get("numberAvailable") or 0)
    enough = desired * threshold_percent // 100
    if updated >= desired and have >= enough:
        return READY
    if since is not None and since + deadline_s < now:
        return Readiness(False, f"exceeded its progressDeadlineSeconds: {deadline_s:g}", stuck=True)
    if updated < desired:
        return Readiness(False, f"{_ROLLOUT}{updated} out of {desired} new pods have been updated")
    return Readiness(False, f"{_ROLLOUT}{have} of {enough} (readyThreshold {threshold_percent}%) updated pods are available")

"""What was decided, when, and on which numbers: the status of a ReleasePolicy, for `meshproxy canary history`.

    ReleasePolicy (meshproxy.dev/v1alpha1, the Canary's name)  .status.decisions  oldest first, at most 100

A separate object because Flagger's Canary schema is closed: an API server would drop the field.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from control.canary.analysis import Check
from control.canary.commands import to_rfc3339
from control.canary.decision import Record
from control.canary.objects import owner
from control.canary.spec import CanarySpec
from control.store.store import Key, Object, Store

GROUP = "meshproxy.dev"
API_VERSION = "meshproxy.dev/v1alpha1"
KIND = "ReleasePolicy"
LIMIT = 100  # decisions kept: some ten releases; an object must stay far below an API server's 1 MiB


def policy_key(namespace: str, name: str) -> Key:
    return Key(GROUP, KIND, namespace, name)


def decisions(obj: Object | None) -> list[dict[str, Any]]:
    """The recorded decisions, oldest first."""
    return list(((obj or {}).get("status") or {}).get("decisions") or ())


async def append(store: Store, spec: CanarySpec, records: Sequence[Record]) -> None:
    """Add records, dropping the oldest beyond LIMIT.  An equal record of the same moment (a tick repeated after a crash) is
    not added twice.  Raises StoreError."""
    key = policy_key(spec.namespace, spec.name)
    current = store.get(key)
    if current is None:
        metadata = {"name": spec.name, "namespace": spec.namespace, "ownerReferences": owner(spec)}
        current = await store.apply({"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata})
    kept = decisions(current)
    for record in records:
        entry = to_object(record)
        if entry not in kept[-len(records) :]:
            kept.append(entry)
    await store.status(key, {"decisions": kept[-LIMIT:]})


def to_object(record: Record) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "time": to_rfc3339(record.at),
        "phase": record.phase,
        "canaryWeight": record.weight,
        "failedChecks": record.failed_checks,
        "revision": record.revision,
        "message": record.text,
    }
    if record.checks:
        entry["checks"] = [_check(check) for check in record.checks]
    return entry


def _check(check: Check) -> dict[str, Any]:
    numbers = {"value": check.value, "requests": check.requests, "min": check.minimum, "max": check.maximum}
    return {
        "metric": check.metric,
        "outcome": check.outcome.value,
        **{name: round(number, 3) for name, number in numbers.items() if number is not None},
    }

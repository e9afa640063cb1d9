"""What was decided, when, and on which numbers: the status of a ReleasePolicy, for `meshproxy canary history`.

    ReleasePolicy (meshproxy.dev/v1alpha1, the Canary's name)  .status.decisions  oldest first, at most 100 and 64 KiB

What is decided again and again (to wait, for instance) is one entry: how often, since when, and with the numbers of the last
time.  So a night of waiting does not push out why the release before it was rolled back.  A separate object because Flagger's
Canary schema is closed: an API server would drop the field.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from control.canary.declared.commands import to_rfc3339
from control.canary.declared.spec import CanarySpec
from control.canary.machine.analysis import Check
from control.canary.machine.decision import Record
from control.canary.objects.manifests import owner
from control.store.store import Key, Object, Store

GROUP = "meshproxy.dev"
API_VERSION = "meshproxy.dev/v1alpha1"
KIND = "ReleasePolicy"
LIMIT = 100  # decisions kept: some ten releases
LIMIT_BYTES = 64 * 1024  # of them as JSON: an object must stay far below an API server's 1 MiB, and is read whole


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
        _add(kept, to_object(record), len(records))
    await store.status(key, {**(current.get("status") or {}), "decisions": bounded(kept)})


def _add(kept: list[dict[str, Any]], entry: dict[str, Any], batch: int) -> None:
    last = kept[-1] if kept else {}
    if any(_same(entry, old) and entry["time"] in (old["time"], old.get("lastTime")) for old in kept[-batch:]):
        return  # the same tick once more
    if _same(entry, last):
        kept[-1] = {**entry, "time": last["time"], "lastTime": entry["time"], "count": last.get("count", 1) + 1}
    else:
        kept.append(entry)


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """The same decision, whatever its numbers and its moment."""
    return all(one.get(name) == other.get(name) for name in ("phase", "canaryWeight", "failedChecks", "revision", "message"))


def bounded(kept: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The newest that fit within LIMIT and LIMIT_BYTES; the newest of all always does."""
    room = LIMIT_BYTES
    for index in range(len(kept) - 1, -1, -1):
        room -= len(json.dumps(kept[index])) + 2
        if len(kept) - index > LIMIT or (room < 0 and index < len(kept) - 1):
            return kept[index + 1 :]
    return kept


def to_object(record: Record) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "time": to_rfc3339(record.at),
        "phase": record.phase,
        "canaryWeight": int(record.weight) if record.weight == int(record.weight) else record.weight,
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

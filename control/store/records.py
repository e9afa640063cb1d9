"""A record: what one manager says about one object, as a file.

    <state>/<manager>/<namespace>/<kind>[.<group>]/<name>.yaml        manager "accepted": the user's own documents

Files are JSON, which is YAML too: readable by people, and twenty times faster to read than YAML proper (ten processes
read them).  They are written beside their name and renamed into place, so a reader sees the old or the new one, whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from control.store.store import Key, Object, StoreError

ACCEPTED = "accepted"
EVENTS = "events"
RESERVED = frozenset({ACCEPTED, EVENTS})
MAX_RECORD_BYTES = 2 * 1024 * 1024  # an object in etcd has 1.5 MiB at most

_MANAGER = re.compile(r"[a-z][a-z0-9-]{0,62}\Z")
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?\Z")
_KIND = re.compile(r"[A-Z][A-Za-z0-9]{0,62}\Z")
_GROUP = re.compile(r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)?\Z")


@dataclass(slots=True)
class Record:
    """`object` holds the fields this manager owns (no status); `status` the status fields it owns."""

    uid: str  # of the object it speaks of: a record of an object that was deleted and made again does not apply
    created: bool  # this manager made the object; an object lives as long as one such record
    created_at: str  # RFC 3339, UTC, whole seconds
    generation: int  # how often this manager changed the object outside metadata and status
    object: Object
    status: Object = field(default_factory=dict)
    file: str = ""  # accepted only: where the document is
    line: int = 0
    deleted_at: str = ""  # accepted only: the user deleted it then, and another manager's finalizer holds it


class Damaged(Exception):
    """A state file that is not a record; `str()` says why."""


def check_manager(manager: str) -> None:
    """Raises StoreError unless `manager` can be a folder of its own."""
    if not _MANAGER.match(manager) or manager in RESERVED:
        raise StoreError(
            f"{manager!r} cannot name a manager: expected a word like runtime, and not {' or '.join(sorted(RESERVED))}"
        )


def check_key(key: Key) -> None:
    """Raises StoreError unless the key's parts are Kubernetes names (they become a path)."""
    for what, value, pattern in (
        ("group", key.group, _GROUP),
        ("kind", key.kind, _KIND),
        ("namespace", key.namespace, _NAME),
        ("name", key.name, _NAME),
    ):
        if not isinstance(value, str) or not pattern.match(value) or ".." in value:
            raise StoreError(f"{key}: {value!r} is no valid {what} (lower-case letters, digits, '-' and '.')")


def folder(key: Key) -> Path:
    kind = f"{key.kind}.{key.group}" if key.group else key.kind
    return Path(key.namespace) / kind


def file_name(key: Key) -> str:
    """Names may have 253 characters and file names 255, so a long one is cut and told apart by its hash."""
    name = key.name
    if len(name) > 200:
        name = f"{name[:180]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return f"{name}.yaml"


def identity(obj: Object) -> Object:
    """Only what names the object: the fields of a record that owns none."""
    metadata = {name: obj["metadata"][name] for name in ("name", "namespace") if name in obj["metadata"]}
    return {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": metadata}


def timestamp(now: float) -> str:
    """Unix time as Kubernetes writes it."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def encode(record: Record) -> bytes:
    content: dict[str, Any] = {
        "uid": record.uid,
        "created": record.created,
        "createdAt": record.created_at,
        "generation": record.generation,
        "object": record.object,
    }
    if record.status:
        content["status"] = record.status
    if record.file:
        content["source"] = {"file": record.file, "line": record.line}
    if record.deleted_at:
        content["deletedAt"] = record.deleted_at
    return msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n"


def decode(data: bytes) -> tuple[Key, Record]:
    """Raises Damaged."""
    try:
        content = msgspec.json.decode(data)
        source = content.get("source") or {}
        obj = content["object"]
        record = Record(
            str(content["uid"]),
            bool(content["created"]),
            str(content["createdAt"]),
            int(content["generation"]),
            obj,
            content.get("status") or {},
            str(source.get("file", "")),
            int(source.get("line", 0)),
            str(content.get("deletedAt", "")),
        )
        key = Key.of(obj)
        check_key(key)
    except (msgspec.DecodeError, KeyError, TypeError, ValueError, AttributeError, StoreError) as failure:
        raise Damaged(f"{type(failure).__name__}: {failure}") from None
    return key, record


def write(path: Path, data: bytes, private: bool) -> None:
    """Replace `path` in one step.  No fsync: after a power cut the mesh is gone anyway.  Raises StoreError."""
    if len(data) > MAX_RECORD_BYTES:
        raise StoreError(f"{path.name}: {len(data):,} bytes, more than {MAX_RECORD_BYTES:,} for one object")
    temporary = path.with_name(f".{path.name[:200]}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600 if private else 0o644)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
    except OSError as failure:
        with contextlib.suppress(OSError):  # the first failure is the one to tell
            temporary.unlink()
        raise StoreError(f"cannot write {path}: {failure.strerror or failure}") from failure

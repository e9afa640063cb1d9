"""Where objects live: one interface over a directory of files (embedded) and the Kubernetes API.

An object is a plain dict in Kubernetes' JSON form (`apiVersion`, `kind`, `metadata`, `spec`, `status`); typed views are
made from it by `control.resources`.  Everybody who writes has a name, its *manager*, and owns the fields it applied
(server-side apply); ARCHITECTURE.md has the table field -> writer.

    read    list, get, watch    from memory, synchronous: a snapshot the backend keeps fresh
    write   apply, status, delete, event    asynchronous: they may be a request to an API server

    user's files --\
    runtime's      ---> overlay by owner ---> snapshot ---> list / get / watch callbacks
    canary's      --/
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Names an object.  `group` is "" for core objects; a version never takes part: one object, many versions."""

    group: str
    kind: str
    namespace: str
    name: str

    @classmethod
    def of(cls, obj: Object) -> Key:
        """The key of an object; a missing namespace means "default"."""
        group, _, _ = str(obj["apiVersion"]).rpartition("/")
        metadata = obj["metadata"]
        return cls(group, obj["kind"], metadata.get("namespace") or "default", metadata["name"])

    def __str__(self) -> str:
        kind = f"{self.kind}.{self.group}" if self.group else self.kind
        return f"{kind} {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Change:
    """One object changed: `new` is None when it was deleted, `old` when it was created."""

    key: Key
    old: Object | None
    new: Object | None


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """What is wrong with a manifest: where, what was expected, what to do.  Never an exception to the reader."""

    severity: str  # "error": refused, or a Canary that is not run; "warning": accepted, but something in it is ignored
    file: str  # path as the user knows it, "" if not from a file
    line: int  # 1-based, 0 if unknown
    field: str  # "spec.backends[0].weight", "" for the document
    message: str  # what was found and what was expected
    hint: str = ""  # what to do
    key: Key | None = None

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}: " if self.file else (f"{self.key}: " if self.key else "")
        subject = f"{self.field}: " if self.field else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{place}{self.severity}: {subject}{self.message}{hint}"


class StoreError(Exception):
    """A write was not possible; `str()` says why and what to do."""


class NotFound(StoreError):
    """The object to write does not exist."""


class Conflict(StoreError):
    """Another manager owns a field with a different value; names both."""


# Named, because inside the class `list` is the method.
Objects = list[Object]
Diagnostics = list[Diagnostic]
Watcher = Callable[[Sequence[Change]], None]


class Store(ABC):
    """`manager` writes as this name.  Callbacks run on the event loop, one call for each batch of changes."""

    def __init__(self, manager: str) -> None:
        self.manager = manager

    # -- reading

    @abstractmethod
    def get(self, key: Key) -> Object | None:
        """The object as of the last refresh; the caller must not modify it."""

    @abstractmethod
    def list(self, group: str, kind: str, namespace: str | None = None) -> Objects:
        """All objects of a kind, sorted by namespace and name; `namespace=None` means everywhere."""

    @abstractmethod
    def all(self) -> Objects:
        """Every object, sorted by key (events excepted)."""

    @abstractmethod
    def watch(self, callback: Watcher) -> Callable[[], None]:
        """Call `callback` with each batch of changes from now on; returns the function that ends it."""

    @abstractmethod
    def diagnostics(self) -> Diagnostics:
        """What is wrong with the manifests right now."""

    @abstractmethod
    def events(self, about: Key | None = None) -> Objects:
        """Kubernetes Events, oldest first, bounded (1,000; older ones are dropped)."""

    # -- writing

    @abstractmethod
    async def apply(self, obj: Object) -> Object:
        """Server-side apply: this manager now owns exactly the fields in `obj` (status excepted) and no others of that
        object; what it owned before and no longer names goes.  Creates the object if need be.  Returns it as it is now.

        With metadata.finalizers on an object of the user's, its deletion waits: it stays, with a deletionTimestamp, until this
        manager applies without them."""

    @abstractmethod
    async def status(self, key: Key, status: Object) -> None:
        """Replace the top-level status fields named in `status`; this manager owns them.  Raises NotFound."""

    @abstractmethod
    async def delete(self, key: Key) -> None:
        """Delete what this manager created; objects owned by it (ownerReferences) go with it.  Raises NotFound."""

    @abstractmethod
    async def event(self, about: Key, kind: str, reason: str, message: str) -> None:
        """Record an Event (`kind` is "Normal" or "Warning") about an object; equal ones raise `count` instead."""

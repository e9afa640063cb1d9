"""The store on files: one directory, many processes, nothing locked.

    user's manifests --(accepting process only)--> state/accepted/...   \\
    runtime's apply/status ----------------------> state/runtime/...     >-- refresh(): overlay --> objects, watchers
    canary's, cli's ... -------------------------> state/<manager>/...  /
    everybody's events --------------------------> state/events/<manager>.log

**Who accepts.**  Exactly one process reads the user's directory: the control plane (`accepting=True`, held by a lock).  It
checks the manifests and writes what is good to `accepted/`, with uid and creation time.  All others - the supervisor with
its runtime, the command line - read `accepted/` only.  So while the control plane restarts, `up` goes on with the last
good objects; edits of the user's files take effect once it is back.  After a restart objects whose file no longer parses are
still there, because `accepted/` is.

**An object's life.**  It exists while a record of who created it does (the user's document, or a manager's apply).  Every
record names the uid it speaks of: made again under the same name, an object has a new uid, and what others had said about
the old one no longer counts.  Such leftovers are swept by their own manager, and by the accepting process for everybody.
So is what a manager made for an owner that is gone, where the user has written a document of that name: theirs is in force.

One field has one owner: the user's value is overridden by a manager's; a second manager with another value is refused
(`Conflict`).  A list is one field.  If two processes write in the same instant the check can miss it: then the manager
whose name sorts last is in force, in every process alike.

(A long file: reading, following and writing share one small state, and each is short.)
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from control.resources.crosscheck import crosscheck
from control.resources.documents import Path as FieldPath
from control.resources.documents import without_nulls
from control.resources.kinds import CLUSTER_SCOPED
from control.resources.refused import Refused
from control.store.accept import GRACE, Acceptance, AcceptingLock
from control.store.eventlog import MAX_MESSAGE, EventLog
from control.store.overlay import STORE_METADATA, base_of, conflict, counted, garbage, leaving, orphaned, overlay, owners
from control.store.records import ACCEPTED, EVENTS, Record, check_key, check_manager, identity, timestamp
from control.store.report import AcceptReport
from control.store.store import (
    Change,
    Conflict,
    Diagnostic,
    Diagnostics,
    Key,
    NotFound,
    Object,
    Objects,
    Store,
    StoreError,
    Watcher,
)
from control.store.tree import RecordTree
from control.store.userfiles import UserFiles

SETTLE = 0.05  # seconds a user's file must rest before `run` reads it
MAX_OBJECTS = 20_000  # in the whole store; a laptop runs a few hundred

log = logging.getLogger("meshproxy.store")


class FileStore(Store):
    """See the module.  `clock` gives Unix time in seconds; it drives the grace period and the time stamps.

    Raises StoreError if another process already accepts for this state directory.
    """

    def __init__(
        self,
        user_dir: Path | None,
        state_dir: Path,
        manager: str,
        *,
        accepting: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        check_manager(manager)
        super().__init__(manager)
        self.state_dir = state_dir
        self.watcher_errors = 0
        self.refresh_errors = 0
        self._clock = clock
        self._tree = RecordTree(state_dir)
        self._objects: dict[Key, Object] = {}  # what everybody sees
        self._hidden: dict[Key, Object] = {}  # garbage: its owners are gone, its files not yet
        self._kinds: dict[tuple[str, str], list[Key]] = {}  # sorted keys
        self._pending: dict[Key, tuple[Object | None, Object | None]] = {}
        self._watchers: list[Watcher] = []
        self._orphaned: set[tuple[Key, str]] = set()  # records over the user's objects whose owners are gone
        self._leftover_since: dict[tuple[Key, str], float] = {}
        self._events = EventLog(state_dir / EVENTS)
        self._delivering = False
        self._report = AcceptReport(state_dir / ACCEPTED)
        self._crosschecked: list[Diagnostic] | None = None
        self._refused = Refused()  # what `_crosschecked` was told to be silent about
        self._acceptance: Acceptance | None = None
        if accepting and user_dir is not None:
            self._acceptance = Acceptance(UserFiles(user_dir), self._tree, AcceptingLock(state_dir / ACCEPTED))

    # ---------------------------------------------------------------- opening and closing

    def close(self) -> None:
        """Give up the accepting lock, so that another process may accept.  Reading goes on working."""
        if self._acceptance is not None:
            self._acceptance.close()
            self._acceptance = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # ---------------------------------------------------------------- reading

    def get(self, key: Key) -> Object | None:
        return self._objects.get(key)

    def list(self, group: str, kind: str, namespace: str | None = None) -> Objects:
        keys = self._kinds.get((group, kind), ())
        return [self._objects[key] for key in keys if namespace is None or key.namespace == namespace]

    def all(self) -> Objects:
        return [self._objects[key] for key in sorted(self._objects)]

    def watch(self, callback: Watcher) -> Callable[[], None]:
        self._deliver()  # what happened before is not for this watcher
        self._watchers.append(callback)

        def end() -> None:
            if callback in self._watchers:
                self._watchers.remove(callback)

        return end

    def diagnostics(self) -> Diagnostics:
        """The manifests' (of the accepting process, through its report), then what only shows between objects."""
        own = self.manifest_diagnostics()
        refused = Refused.of(own)
        if self._crosschecked is None or refused != self._refused:
            self._refused = refused
            # Of what is on its way out nothing is told: what it lacks has gone before it.
            out = leaving(self._objects, self._held)
            self._crosschecked = [one for one in crosscheck(self.all(), self._locate, refused) if one.key not in out]
        return [*own, *self._tree.problems(), *self._crosschecked]

    def manifest_diagnostics(self) -> Diagnostics:
        """What each manifest says of itself: here an error is a refusal."""
        return self._acceptance.diagnostics() if self._acceptance is not None else self._report.diagnostics

    def events(self, about: Key | None = None) -> Objects:
        return [event for event in self._events.all() if about is None or _is_about(event, about)]

    @property
    def accepted_at(self) -> float | None:
        """When (Unix time) the user's directory was last reviewed with a result that differs; None: never.  A supervisor waits
        for it to pass the time it started the control plane."""
        return self._report.at

    def takes(self, key: Key) -> bool:
        """This process accepts, and the object's manifest is good."""
        return self._acceptance is not None and self._acceptance.locate(key, ()) is not None

    def taken_from(self, file: str) -> Sequence[Key]:
        """The objects in force that were accepted from a file."""
        return sorted(key for key in self._objects if self._file(key) == file)

    def owned(self, key: Key) -> Object | None:
        """The fields this manager owns of an object that exists, as last applied; None if it owns none."""
        record = self._tree.records.get(key, {}).get(self.manager)
        obj = self._objects.get(key)
        if record is None or obj is None or record.uid != obj["metadata"]["uid"]:
            return None
        return record.object

    # ---------------------------------------------------------------- refreshing

    def refresh(self, settle: float = 0.0) -> None:
        """Look at the disk and tell the watchers what changed.  Costs one stat a directory (and one a user's file) while
        nothing did.  A user's file younger than `settle` seconds is left for the next time."""
        touched = self._tree.scan()
        if touched:
            self._settle(touched)
        if self._acceptance is not None:
            self._accept(self._acceptance, settle)
        else:
            self._report.read()
        self._sweep()
        self._events.refresh()
        self._deliver()

    async def run(self, interval: float = 0.1) -> None:
        """Refresh for ever, every `interval` seconds; ends when cancelled."""
        while True:
            try:
                self.refresh(SETTLE)
            except OSError as failure:  # the state directory is out of reach: what is known stays in force
                if self.refresh_errors == 0:
                    log.warning("cannot read %s: %s; going on with what is known", self.state_dir, failure)
                self.refresh_errors += 1
            await asyncio.sleep(interval)

    def _settle(self, touched: set[Key]) -> None:
        """Recompute what the touched records mean; note the changes for the watchers."""
        everything = {**self._hidden, **self._objects} if self._hidden else dict(self._objects)
        for key in touched:
            known = everything.pop(key, None)
            obj = overlay(self._tree.records.get(key, {}))
            if obj is not None:
                same = known is not None and known["metadata"]["resourceVersion"] == obj["metadata"]["resourceVersion"]
                everything[key] = known if same and known is not None else obj
        gone = garbage(everything, self._held)
        visible = {key: obj for key, obj in everything.items() if key not in gone}
        kinds: set[tuple[str, str]] = set()
        for key in touched | gone | self._hidden.keys():
            before, after = self._objects.get(key), visible.get(key)
            if before is after:
                continue
            if before is None or after is None:
                kinds.add((key.group, key.kind))
            first = self._pending[key][0] if key in self._pending else before
            self._pending[key] = (first, after)
        self._objects = visible
        self._orphaned = orphaned(self._tree.records, visible)
        self._hidden = {key: everything[key] for key in gone}
        for group, kind in kinds:
            self._kinds[group, kind] = sorted(key for key in visible if key.group == group and key.kind == kind)
        self._crosschecked = None

    @property
    def _held(self) -> set[Key]:
        """The user's documents: they go by themselves alone."""
        return {key for key, found in self._tree.records.items() if ACCEPTED in found and found[ACCEPTED].created}

    def _deliver(self) -> None:
        if self._delivering:
            return  # a watcher called refresh(): the outer call goes on delivering
        self._delivering = True
        try:
            while self._pending:
                pending, self._pending = self._pending, {}
                changes = [Change(key, *pending[key]) for key in sorted(pending) if pending[key][0] is not pending[key][1]]
                for watcher in tuple(self._watchers) if changes else ():
                    try:
                        watcher(changes)
                    except Exception:  # one watcher's bug must not end the store for the others; it is counted and logged
                        self.watcher_errors += 1
                        log.exception("a watcher of the store failed")
        finally:
            self._delivering = False

    def _accept(self, acceptance: Acceptance, settle: float) -> None:
        now = self._clock()
        if acceptance.look(settle):
            self._crosschecked = None
        if touched := acceptance.accept(self._objects, now):
            self._settle(touched)
        if not acceptance.unsettled:
            self._report.write(acceptance.diagnostics(), now)

    def _locate(self, key: Key, path: FieldPath) -> tuple[str, int]:
        """File and line of a field, as well as this process knows."""
        if self._acceptance is not None and (place := self._acceptance.locate(key, path)) is not None:
            return place
        record = self._tree.records.get(key, {}).get(ACCEPTED)
        return (record.file, record.line) if record is not None and record.created else ("", 0)

    def _file(self, key: Key) -> str | None:
        record = self._tree.records.get(key, {}).get(ACCEPTED)
        return record.file if record is not None and record.created else None

    # ---------------------------------------------------------------- leftovers

    def _sweep(self) -> None:
        """Remove records of objects that are gone, after the grace period: a process that scans while another writes may see an
        object before its owner."""
        now = self._clock()
        leftovers = {one for one in self._orphaned if one[1] == self.manager or self._acceptance is not None}
        for key in self._tree.leftovers(self._objects, self._hidden):
            for manager, record in self._tree.records[key].items():
                obj = self._objects.get(key)
                alive = obj is not None and obj["metadata"]["uid"] == record.uid
                if not alive and (manager == self.manager or self._acceptance is not None):
                    leftovers.add((key, manager))
        touched: set[Key] = set()
        for key, manager in leftovers:
            if now - self._leftover_since.setdefault((key, manager), now) >= GRACE:
                self._tree.remove(key, manager)
                touched.add(key)
        self._leftover_since = {
            leftover: since
            for leftover, since in self._leftover_since.items()
            if leftover in leftovers and leftover[0] not in touched
        }
        if touched:
            self._settle(touched)

    # ---------------------------------------------------------------- writing

    async def apply(self, obj: Object) -> Object:
        key, wanted = self._wanted(obj)
        found = self._fresh(key)
        if other := conflict(found if key in self._objects else {}, self.manager, wanted):
            manager, path = other
            raise Conflict(f"{key}: {self.manager} cannot set {'.'.join(path)}: {manager} owns it with another value")
        now = self._clock()
        mine = found.get(self.manager)
        base = base_of(found) if key in self._objects else None
        if base is None:
            if len(self._objects) >= MAX_OBJECTS:
                raise StoreError(f"{key}: the store holds {MAX_OBJECTS:,} objects already; delete some")
            record = Record(str(uuid.uuid4()), True, timestamp(now), 1, wanted)
        else:
            if mine is not None and mine.uid != base[1].uid:
                mine = None
            record = Record(base[1].uid, False, base[1].created_at, 0, wanted)
            if mine is not None:
                # Who lets go of the owner it made a user's object for lets go of the object: it goes when the user says so.
                let_go = base[0] == ACCEPTED and owners(mine) and not owners(record)
                record.created, record.created_at = mine.created and not let_go, mine.created_at
                record.generation, record.status = mine.generation, mine.status
                if mine.object == wanted:
                    return self._objects[key]
            record = counted(found, self.manager, record)
        self._tree.write(key, self.manager, record)
        self._changed(key)
        shown = self._objects.get(key) or self._hidden.get(key)
        assert shown is not None
        return shown

    async def status(self, key: Key, status: Object) -> None:
        found = self._fresh(key)
        obj = self._objects.get(key)
        if obj is None:
            raise NotFound(f"{key} does not exist: no status to write")
        uid = obj["metadata"]["uid"]
        clean = without_nulls(status)
        for manager, other in found.items():
            if manager == self.manager or other.uid != uid:
                continue
            for name in clean.keys() & other.status.keys():
                if clean[name] != other.status[name]:
                    raise Conflict(f"{key}: {self.manager} cannot set status.{name}: {manager} owns it with another value")
        mine = found.get(self.manager)
        if mine is None or mine.uid != uid:
            mine = Record(uid, False, obj["metadata"]["creationTimestamp"], 0, identity(obj))
        merged = {name: value for name, value in mine.status.items() if name not in status} | clean
        if merged == mine.status:
            return
        record = Record(mine.uid, mine.created, mine.created_at, mine.generation, mine.object, merged, mine.file, mine.line)
        self._tree.write(key, self.manager, record)
        self._changed(key)

    async def delete(self, key: Key) -> None:
        found = self._fresh(key)
        if key not in self._objects:
            raise NotFound(f"{key} does not exist")
        mine = found.get(self.manager)
        if mine is None or not mine.created or mine.uid != self._objects[key]["metadata"]["uid"]:
            base = base_of(found)
            maker = "the user's manifests" if base is None or base[0] == ACCEPTED else base[0]
            raise Conflict(f"{key} was made by {maker}, not by {self.manager}: it can only be deleted there")
        others = any(other.created and other.uid == mine.uid for manager, other in found.items() if manager != self.manager)
        if others:
            self._tree.write(
                key, self.manager, Record(mine.uid, False, mine.created_at, mine.generation + 1, identity(mine.object))
            )
        else:
            self._tree.remove(key, self.manager)
        self._changed(key)
        # What it owned is hidden already; the records that are ours need not wait for the sweep.
        dependents = {hidden for hidden in self._hidden if self.manager in self._tree.records.get(hidden, {})}
        for dependent in dependents:
            self._tree.remove(dependent, self.manager)
        if dependents:
            self._settle(dependents)

    async def event(self, about: Key, kind: str, reason: str, message: str) -> None:
        if kind not in ("Normal", "Warning"):
            raise StoreError(f"{kind!r} is no kind of event: expected Normal or Warning")
        now = self._clock()
        self._events.refresh()
        message = message[:MAX_MESSAGE]
        known = None
        for event in reversed(self._events.all()):
            same = (event.get("type"), event.get("reason"), event.get("message")) == (kind, reason, message)
            if same and event["source"]["component"] == self.manager and _is_about(event, about):
                known = event
                break
        obj = self._objects.get(about)
        involved: Object = {
            "apiVersion": obj["apiVersion"] if obj else about.group,
            "kind": about.kind,
            "namespace": about.namespace,
            "name": about.name,
        }
        if obj:
            involved["uid"] = obj["metadata"]["uid"]
        moment = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": known["metadata"]
            if known
            else {
                "name": f"{about.name[:200]}.{uuid.uuid4().hex[:16]}",
                "namespace": about.namespace,
                "creationTimestamp": timestamp(now),
            },
            "involvedObject": involved,
            "type": kind,
            "reason": reason,
            "message": message,
            "count": known["count"] + 1 if known else 1,
            "firstTimestamp": known["firstTimestamp"] if known else timestamp(now),
            "lastTimestamp": timestamp(now),
            "eventTime": moment,
            "source": {"component": self.manager},
        }
        self._events.append(self.manager, event)

    # ---------------------------------------------------------------- helpers of writing

    def _wanted(self, obj: Object) -> tuple[Key, Object]:
        """The fields to own: no status, nothing the store keeps itself, no nulls, the namespace named.  Raises StoreError."""
        try:
            key = Key.of(obj)
        except (KeyError, TypeError, AttributeError) as failure:
            raise StoreError(f"not an object: {failure} is missing; expected apiVersion, kind and metadata.name") from None
        wanted: Object = without_nulls({name: value for name, value in obj.items() if name != "status"})
        wanted["metadata"] = {name: value for name, value in wanted["metadata"].items() if name not in STORE_METADATA}
        if (key.group, key.kind) not in CLUSTER_SCOPED:
            wanted["metadata"]["namespace"] = key.namespace
        check_key(key)
        try:  # a copy, so that the caller may go on using its object, and proof that it can be written
            return key, msgspec.json.decode(msgspec.json.encode(wanted))
        except (msgspec.MsgspecError, TypeError) as failure:
            raise StoreError(f"{key}: cannot be written as JSON: {failure}") from None

    def _fresh(self, key: Key) -> dict[str, Record]:
        """This key's records as they are on disk now, all managers'."""
        check_key(key)
        if self._tree.reload(key):
            self._settle({key})
            self._later()
        return self._tree.records.get(key, {})

    def _changed(self, key: Key) -> None:
        self._settle({key})
        self._later()

    def _later(self) -> None:
        asyncio.get_running_loop().call_soon(self._deliver)


def _is_about(event: Object, key: Key) -> bool:
    involved = event["involvedObject"]
    api_version = str(involved.get("apiVersion", ""))
    group = api_version.rpartition("/")[0] if "/" in api_version or api_version == "v1" else api_version
    return (group, involved["kind"], involved["namespace"], involved["name"]) == (key.group, key.kind, key.namespace, key.name)

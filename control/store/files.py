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

One field has one owner: the user's value is overridden by a manager's; a second manager with another value is refused
(`Conflict`).  A list is one field.  If two processes write in the same instant the check can miss it: then the manager
whose name sorts last is in force, in every process alike.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from control.resources.crosscheck import crosscheck
from control.resources.documents import Path as FieldPath
from control.resources.documents import without_nulls
from control.resources.kinds import CLUSTER_SCOPED
from control.resources.validate import Review, review
from control.store import records
from control.store.eventlog import MAX_MESSAGE, EventLog
from control.store.overlay import STORE_METADATA, base_of, conflict, garbage, overlay, substance
from control.store.records import ACCEPTED, EVENTS, Record, check_key, check_manager
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

GRACE = 1.0  # seconds an object may be missing from the user's files before it is deleted (editors move files about)
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
        self._leftover_since: dict[tuple[Key, str], float] = {}
        self._events = EventLog(state_dir / EVENTS)
        self._delivering = False
        # accepting only
        self._user: UserFiles | None = UserFiles(user_dir) if accepting and user_dir is not None else None
        self._review = Review()
        self._missing_since: dict[Key, float] = {}
        self._write_problems: list[Diagnostic] = []
        self._reported: list[Diagnostic] | None = None
        self._lock = -1
        # others
        self._report_stamp: tuple[int, int] = (0, 0)
        self._accepted_at: float | None = None
        self._report: list[Diagnostic] = []
        self._crosschecked: list[Diagnostic] | None = None
        if self._user is not None:
            self._acquire()

    # ---------------------------------------------------------------- opening and closing

    def _acquire(self) -> None:
        directory = self.state_dir / ACCEPTED
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            self._lock = -1
            raise StoreError(f"another process accepts the manifests of {self.state_dir}; end it first") from None
        except OSError as failure:
            raise StoreError(f"cannot use {directory}: {failure.strerror or failure}") from failure

    def close(self) -> None:
        """Give up the accepting lock, so that another process may accept.  Reading goes on working."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        self._user = None

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
        if self._crosschecked is None:
            self._crosschecked = crosscheck(self.all(), self._locate)
        own = self._own_diagnostics() if self._user is not None else self._report
        return [*own, *self._tree.problems(), *self._crosschecked]

    def events(self, about: Key | None = None) -> Objects:
        return [event for event in self._events.all() if about is None or _is_about(event, about)]

    @property
    def accepted_at(self) -> float | None:
        """When (Unix time) the user's directory was last reviewed with a result that differs; None: never.  A supervisor waits
        for it to pass the time it started the control plane."""
        return self._accepted_at

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
        if self._user is not None:
            self._accept(settle)
        else:
            self._read_report()
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
        held = {key for key, found in self._tree.records.items() if ACCEPTED in found and found[ACCEPTED].created}
        gone = garbage(everything, held)
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
        self._hidden = {key: everything[key] for key in gone}
        for group, kind in kinds:
            self._kinds[group, kind] = sorted(key for key in visible if key.group == group and key.kind == kind)
        self._crosschecked = None

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

    # ---------------------------------------------------------------- accepting the user's files

    def _accept(self, settle: float) -> None:
        assert self._user is not None
        now = self._clock()
        if self._user.scan(settle):
            self._review = review(self._user.files)
            self._crosschecked = None
        wanted = self._review.accepted
        touched: set[Key] = set()
        problems: Diagnostics = []
        for key, checked in wanted.items():
            self._missing_since.pop(key, None)
            assert checked.obj is not None
            record = self._accepted_record(key, checked.obj, checked.document.file, checked.document.line, now)
            if record is not None and self._write(key, ACCEPTED, record, problems):
                touched.add(key)
        for key in [*self._missing(now)]:
            if self._unaccept(key, problems):
                touched.add(key)
        self._write_problems = problems
        if touched:
            self._settle(touched)
        own = self._own_diagnostics()
        if own != self._reported and not self._user.unsettled:
            self._write_report(own, now)

    def _accepted_record(self, key: Key, obj: Object, file: str, line: int, now: float) -> Record | None:
        """The record to write, or None if what is on disk says it already."""
        found = self._tree.records.get(key, {})
        known = found.get(ACCEPTED)
        base = base_of(found) if key in self._objects else None
        if known is not None and known.created and known.object == obj:
            if (known.file, known.line) == (file, line):
                return None
            return Record(known.uid, True, known.created_at, known.generation, obj, {}, file, line)
        if base is None:
            return Record(str(uuid.uuid4()), True, _timestamp(now), 1, obj, {}, file, line)
        uid, created_at = base[1].uid, base[1].created_at
        generation = known.generation if known is not None and known.uid == uid else 0
        record = Record(uid, True, created_at, generation, obj, {}, file, line)
        return self._counted(found, ACCEPTED, record)

    def _missing(self, now: float) -> Iterator[Key]:
        """Accepted objects that the user's files no longer hold, and have not for the grace period."""
        assert self._user is not None
        accepted = [key for key, found in self._tree.records.items() if ACCEPTED in found and found[ACCEPTED].created]
        empty = self._review.documents == 0 and not self._review.holding
        for key in accepted:
            source = self._tree.records[key][ACCEPTED].file
            kept = key in self._review.accepted or key in self._review.refused or source in self._review.holding
            if kept or empty or self._user.problems:
                self._missing_since.pop(key, None)
            elif not self._user.covers(source) or now - self._missing_since.setdefault(key, now) >= GRACE:
                yield key  # without grace if it came from another directory: no file is on the move then

    def _unaccept(self, key: Key, problems: Diagnostics) -> bool:
        self._missing_since.pop(key, None)
        found = self._tree.records[key]
        record = found[ACCEPTED]
        others = any(other.created and other.uid == record.uid for manager, other in found.items() if manager != ACCEPTED)
        if others:  # somebody else made it too: only the user's fields go, and the count of changes stays
            bare = Record(record.uid, False, record.created_at, record.generation + 1, _identity(record.object))
            return self._write(key, ACCEPTED, bare, problems)
        self._tree.remove(key, ACCEPTED)
        return True

    def _write(self, key: Key, manager: str, record: Record, problems: Diagnostics) -> bool:
        try:
            self._tree.write(key, manager, record)
        except StoreError as failure:
            problems.append(
                Diagnostic("error", record.file, record.line, "", str(failure), "the last good one stays in force", key)
            )
            return False
        return True

    def _own_diagnostics(self) -> Diagnostics:
        assert self._user is not None
        holding: Diagnostics = []
        if self._review.documents == 0 and not self._review.holding and not self._user.problems:
            held = sum(1 for found in self._tree.records.values() if ACCEPTED in found and found[ACCEPTED].created)
            if held:
                message = f"no manifests here; the {held} accepted before stay in force"
                holding.append(
                    Diagnostic("warning", str(self._user.directory), 0, "", message, "`meshproxy down` ends the mesh")
                )
        return [*self._user.problems, *holding, *self._review.diagnostics, *self._write_problems]

    def _locate(self, key: Key, path: FieldPath) -> tuple[str, int]:
        """File and line of a field, as well as this process knows."""
        checked = self._review.accepted.get(key)
        if checked is not None:
            return checked.document.file, checked.document.line_of(path)
        record = self._tree.records.get(key, {}).get(ACCEPTED)
        return (record.file, record.line) if record is not None and record.created else ("", 0)

    # The report: the accepting process's diagnostics, for the others.

    def _write_report(self, diagnostics: Sequence[Diagnostic], now: float) -> None:
        content = {"at": now, "diagnostics": [_portable(diagnostic) for diagnostic in diagnostics]}
        try:
            records.write(self.state_dir / ACCEPTED / ".report.json", msgspec.json.encode(content), private=False)
        except StoreError as failure:
            if self.refresh_errors == 0:
                log.warning("%s", failure)
            self.refresh_errors += 1
            return
        self._reported = [*diagnostics]
        self._accepted_at = now

    def _read_report(self) -> None:
        path = self.state_dir / ACCEPTED / ".report.json"
        try:
            status = path.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp == self._report_stamp:
                return
            content = msgspec.json.decode(path.read_bytes())
            self._report = [_restored(item) for item in content["diagnostics"]]
            self._accepted_at = float(content["at"])
            self._report_stamp = stamp
        except FileNotFoundError:
            return
        except (msgspec.DecodeError, KeyError, TypeError, ValueError) as failure:
            log.warning("%s is damaged: %s", path, failure)

    # ---------------------------------------------------------------- leftovers

    def _sweep(self) -> None:
        """Remove records of objects that are gone, after the grace period: a process that scans while another writes may see an
        object before its owner."""
        now = self._clock()
        leftovers: set[tuple[Key, str]] = set()
        for key in self._tree.leftovers(self._objects, self._hidden):
            for manager, record in self._tree.records[key].items():
                obj = self._objects.get(key)
                alive = obj is not None and obj["metadata"]["uid"] == record.uid
                if not alive and (manager == self.manager or self._user is not None):
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
            record = Record(str(uuid.uuid4()), True, _timestamp(now), 1, wanted)
        else:
            if mine is not None and mine.uid != base[1].uid:
                mine = None
            record = Record(base[1].uid, False, base[1].created_at, 0, wanted)
            if mine is not None:
                record.created, record.created_at = mine.created, mine.created_at
                record.generation, record.status = mine.generation, mine.status
                if mine.object == wanted:
                    return self._objects[key]
            record = self._counted(found, self.manager, record)
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
            mine = Record(uid, False, obj["metadata"]["creationTimestamp"], 0, _identity(obj))
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
                key, self.manager, Record(mine.uid, False, mine.created_at, mine.generation + 1, _identity(mine.object))
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
                "creationTimestamp": _timestamp(now),
            },
            "involvedObject": involved,
            "type": kind,
            "reason": reason,
            "message": message,
            "count": known["count"] + 1 if known else 1,
            "firstTimestamp": known["firstTimestamp"] if known else _timestamp(now),
            "lastTimestamp": _timestamp(now),
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

    def _counted(self, found: dict[str, Record], manager: str, record: Record) -> Record:
        """`generation` goes up if the object as everybody sees it changes beyond metadata and status."""
        if substance(overlay(found)) != substance(overlay({**found, manager: record})):
            record.generation += 1
        return record

    def _changed(self, key: Key) -> None:
        self._settle({key})
        self._later()

    def _later(self) -> None:
        asyncio.get_running_loop().call_soon(self._deliver)


def _identity(obj: Object) -> Object:
    metadata = {name: obj["metadata"][name] for name in ("name", "namespace") if name in obj["metadata"]}
    return {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": metadata}


def _timestamp(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _is_about(event: Object, key: Key) -> bool:
    involved = event["involvedObject"]
    api_version = str(involved.get("apiVersion", ""))
    group = api_version.rpartition("/")[0] if "/" in api_version or api_version == "v1" else api_version
    return (group, involved["kind"], involved["namespace"], involved["name"]) == (key.group, key.kind, key.namespace, key.name)


def _portable(diagnostic: Diagnostic) -> dict[str, Any]:
    key = diagnostic.key
    return {
        "severity": diagnostic.severity,
        "file": diagnostic.file,
        "line": diagnostic.line,
        "field": diagnostic.field,
        "message": diagnostic.message,
        "hint": diagnostic.hint,
        "key": [key.group, key.kind, key.namespace, key.name] if key else None,
    }


def _restored(item: dict[str, Any]) -> Diagnostic:
    key = Key(*item["key"]) if item["key"] else None
    return Diagnostic(item["severity"], item["file"], item["line"], item["field"], item["message"], item["hint"], key)

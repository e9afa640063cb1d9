"""A file store with a user's directory, in simulated time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import yaml
from contract import Cluster

from control.store.files import GRACE, FileStore
from control.store.store import Object


class FileCluster(Cluster):
    """One state directory; manager "canary" runs in the process that accepts, as in the control plane."""

    def __init__(self, directory: Path) -> None:
        self.user = directory / "user"
        self.user.mkdir()
        self.state = directory / "state"
        self.now = 1_000_000.0
        self.stores: dict[str, FileStore] = {}
        self.accepting = self.store("canary")

    def store(self, manager: str) -> FileStore:
        if manager not in self.stores:
            accepting = manager == "canary"
            user = self.user if accepting else None
            store = FileStore(user, self.state, manager, accepting=accepting, clock=lambda: self.now)
            store.refresh()
            self.stores[manager] = store
        return self.stores[manager]

    def restart(self, manager: str) -> FileStore:
        """The process ends and comes back."""
        self.store(manager).close()
        del self.stores[manager]
        store = self.store(manager)
        if manager == "canary":
            self.accepting = store
        return store

    def write(self, name: str, *objects: Object | str) -> Path:
        path = self.user / name
        texts = [obj if isinstance(obj, str) else yaml.safe_dump(obj) for obj in objects]
        path.write_text("---\n".join(texts))
        return path

    def refresh(self) -> None:
        self.accepting.refresh()
        for store in self.stores.values():
            store.refresh()

    def pass_time(self, seconds: float) -> None:
        """Seconds go by; everybody looks before and after."""
        self.refresh()
        self.now += seconds
        self.refresh()
        self.refresh()  # what the accepting process swept is seen by the others

    async def sync(self) -> None:
        await asyncio.sleep(0)  # deliveries already scheduled
        self.refresh()

    async def give(self, *objects: Object) -> None:
        # Another file keeps the directory from being empty, which would hold everything.
        self.write("keep.yaml", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "keep"}})
        self.write("given.yaml", *objects)
        self.pass_time(GRACE)
        self.pass_time(GRACE)

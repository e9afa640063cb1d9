"""Writing objects, but only what differs from what is there: one apply, status or delete for each change, none for a look.

apply(object)        the same as last time, and still there?  nothing to do
status(key, fields)  the store shows the same?                nothing to do
delete(key)          gone already?                            nothing to do
"""

from __future__ import annotations

from contextlib import suppress

from control.store.store import Key, NotFound, Object, Store


class OwnObjects:
    """The objects, and the fields of objects, that this controller owns in `store`."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._applied: dict[Key, Object] = {}  # as last applied

    def applied(self, key: Key) -> Object | None:
        return self._applied.get(key)

    async def create(self, obj: Object) -> Object:
        """Apply in any case; returns the object as it is now.  Raises StoreError."""
        stored = await self.store.apply(obj)
        self._applied[Key.of(obj)] = obj
        return stored

    async def apply(self, obj: Object) -> None:
        """Raises StoreError."""
        key = Key.of(obj)
        if self._applied.get(key) != obj or self.store.get(key) is None:
            await self.create(obj)

    async def annotate(self, key: Key, annotations: dict[str, str]) -> None:
        """More annotations on an object that was applied, if it is still there.  Raises StoreError."""
        fields = self._applied.get(key)
        if fields is None or self.store.get(key) is None:
            return
        metadata = fields["metadata"]
        await self.apply(
            {**fields, "metadata": {**metadata, "annotations": {**(metadata.get("annotations") or {}), **annotations}}}
        )

    async def status(self, key: Key, status: Object) -> None:
        """Raises StoreError."""
        obj = self.store.get(key)
        if obj is None:
            return  # it was deleted meanwhile; the next look sees that
        now = obj.get("status") or {}
        if any(now.get(name) != value for name, value in status.items()):
            with suppress(NotFound):
                await self.store.status(key, status)

    async def delete(self, key: Key) -> None:
        """Raises StoreError."""
        self.forget(key)
        with suppress(NotFound):
            await self.store.delete(key)

    def forget(self, key: Key) -> None:
        self._applied.pop(key, None)

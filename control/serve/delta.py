"""What one proxy has, and what to send it next.  Pure: the stream (control.serve.stream) does the talking.

                  offer(wanted)                       acknowledge(ack)
    IDLE  ---------------------------->  WAITING  ------------------------>  IDLE
      |  nothing differs: None, stays               rejected resources go back to what the proxy
                                                    had, and are frozen until they change again

At most one update is unacknowledged, and the next is computed only when it can be sent, from the newest state: ten
changes while a proxy is slow are one update, and nothing is kept for it but hashes.
"""

from __future__ import annotations

from collections.abc import Iterable

from control.api import mesh_pb2
from control.serve.source import ResourceKey, Resources, key_of


class ProtocolError(Exception):
    """The proxy said something out of turn; `str()` says what was expected."""


class Delta:
    """The state of one stream.  `held` is what the proxy says it still has (kind, name, hash)."""

    def __init__(self, held: Iterable[mesh_pb2.Held] = ()) -> None:
        self.known: dict[ResourceKey, str] = {key_of(h.name): h.hash for h in held}  # what it has -> hash
        self.frozen: dict[ResourceKey, str | None] = {}  # what it refused -> the hash refused (None: a removal)
        self.version = 0  # of the last update offered
        self._pending: dict[ResourceKey, str | None] | None = None  # in the unacknowledged update -> hash it had before

    @property
    def waiting(self) -> bool:
        """An update is on its way and not yet acknowledged."""
        return self._pending is not None

    def offer(self, wanted: Resources) -> mesh_pb2.Update | None:
        """The difference between what the proxy has and `wanted`, or None if there is none or one is unacknowledged.

        The first update of a stream is made even when it is empty: it tells a returning proxy that it is up to date."""
        if self._pending is not None:
            return None
        for key in [k for k, refused in self.frozen.items() if _hash(wanted, k) != refused]:
            del self.frozen[key]  # it changed: worth another try
        changed = [r for key, r in wanted.items() if self.known.get(key) != r.hash and key not in self.frozen]
        removed = [key for key in self.known if key not in wanted and key not in self.frozen]
        if not changed and not removed and self.version > 0:
            return None
        self._pending = {key: self.known.get(key) for key in [*map(_key, changed), *removed]}
        for resource in changed:
            self.known[_key(resource)] = resource.hash
        for key in removed:
            del self.known[key]
        self.version += 1
        names = [mesh_pb2.ResourceName(kind=mesh_pb2.Kind.Name(kind), name=name) for kind, name in sorted(removed)]
        return mesh_pb2.Update(version=self.version, set=changed, removed=names)

    def acknowledge(self, ack: mesh_pb2.Ack) -> None:
        """The proxy's answer to the last update.  Raises ProtocolError if there was none, or it is about another."""
        if self._pending is None or ack.version != self.version:
            expected = f"of version {self.version}" if self._pending is not None else "none"
            raise ProtocolError(f"acknowledgement of version {ack.version}; expected {expected}")
        for rejected in ack.rejected:
            key = key_of(rejected.name)
            if key not in self._pending:
                raise ProtocolError(f"rejected {key[1]!r}, which was not in version {ack.version}")
            self.frozen[key] = self.known.get(key)
            before = self._pending[key]
            if before is None:
                self.known.pop(key, None)
            else:
                self.known[key] = before
        self._pending = None


def _key(resource: mesh_pb2.Resource) -> ResourceKey:
    return key_of(resource.name)


def _hash(wanted: Resources, key: ResourceKey) -> str | None:
    resource = wanted.get(key)
    return None if resource is None else resource.hash

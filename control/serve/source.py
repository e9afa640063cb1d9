"""Where a configuration stream gets what a proxy wants.  Implemented over the store's compiler in `control.serve.compiled`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

from control.api import mesh_pb2

ResourceKey = tuple[int, str]  # (mesh_pb2.Kind, ResourceName.name)
Resources = Mapping[ResourceKey, mesh_pb2.Resource]


class ConfigSource(ABC):
    """Synchronous and in memory: it is asked whenever a stream can send."""

    @abstractmethod
    def resources_for(self, namespace: str, pod: str) -> Resources:
        """All that this pod's proxy wants right now: its Workload, every Service, every Endpoints, Trust.
        Without its Workload the pod is unknown.  The caller must not modify what it gets."""

    @abstractmethod
    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` on the event loop after each change of anything; returns the function that ends it."""


def key_of(name: mesh_pb2.ResourceName) -> ResourceKey:
    return int(name.kind), name.name


def identity_of(resources: Resources, namespace: str, pod: str) -> str | None:
    """The SPIFFE ID of the pod, None if the pod is unknown."""
    found = resources.get((int(mesh_pb2.WORKLOAD), f"{namespace}/{pod}"))
    return found.workload.identity if found is not None else None

"""Router: who says in objects what the machine decided (routing.py).  Pure but for reading the store.

Routing(canary=10) --wanted--> [TrafficSplit ...] or [HTTPRoute ...]      deterministic: the same in, the same out
store --observed--> Routing         None: absent, or not as wanted apart from weights
store --problem--> "HTTPRoute ... is not ready"                           why what is written has no effect, "" if it has
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from control.canary.declared.spec import CanarySpec
from control.canary.machine.routing import Routing
from control.canary.machine.status import Status
from control.canary.objects import manifests
from control.store.store import Key, Object, Store


class Router(ABC):
    """Stateless.  `wanted` raises ValueError on nothing that `parse` accepts without `refused`."""

    @abstractmethod
    def wanted(self, spec: CanarySpec, routing: Routing, status: Status) -> list[Object]:
        """The objects that say `routing`, whole, to be applied in order.  `status` gives the cookies of session affinity."""

    @abstractmethod
    def observed(self, store: Store, spec: CanarySpec, status: Status) -> Routing | None:
        """What the store's objects say; None if they are absent, differ from `wanted` in more than weights, or are beside
        others of ours that would overrule them."""

    @abstractmethod
    def keys(self, spec: CanarySpec) -> list[Key]:
        """Names of the objects `wanted` makes, the last to be written first: the order to delete them in."""

    @abstractmethod
    def stale(self, spec: CanarySpec) -> list[Key]:
        """Objects that this router does not use and another may have left: to be deleted if `manifests.is_ours`."""

    def left(self, store: Store, spec: CanarySpec) -> list[Key]:
        """Which of them are there, and ours."""
        found = ((key, store.get(key)) for key in dict.fromkeys(self.stale(spec)))
        return [key for key, obj in found if obj is not None and manifests.is_ours(spec, obj)]

    def problem(self, store: Store, spec: CanarySpec) -> str:
        """Why what is written has no effect (yet), in words for an Event; "" if there is nothing to say."""
        return ""

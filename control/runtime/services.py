"""Services: which pods answer for them (EndpointSlices), and where each pod's sidecar listens for them.

Service + pods  --endpoints.py-->  EndpointSlices in the store           for the other sidecars
Service         --ServicePorts-->  a listener on each pod's own address  for <NAME>_SERVICE_HOST and _PORT
"""

from __future__ import annotations

from collections.abc import Sequence

from control.runtime import endpoints, informed
from control.runtime.addresses import ServicePorts
from control.runtime.endpoints import EndpointFact
from control.runtime.environment import ServiceListener
from control.runtime.ownobjects import OwnObjects
from control.runtime.troubles import Troubles
from control.store.store import Key, Object

SLICE_GROUP = "discovery.k8s.io"
_MANAGED_BY = "endpointslice.kubernetes.io/managed-by"


class Services:
    def __init__(self, own: OwnObjects, troubles: Troubles) -> None:
        self._own = own
        self._store = own.store
        self._troubles = troubles
        self._ports = ServicePorts()
        self._slices: dict[tuple[str, str], list[Key]] = {}  # Service -> its slices

    async def reconcile(self, facts: Sequence[EndpointFact]) -> bool:
        """EndpointSlices of all Services; returns whether something failed and is to be tried again."""
        services = {names(service): service for service in self._store.list("", "Service")}
        again = False
        for name in self._slices.keys() - services.keys():
            again |= await self._troubles.attempt(f"service {'/'.join(name)}", self._reconcile(name, None, facts))
        for name, service in services.items():
            again |= await self._troubles.attempt(f"service {'/'.join(name)}", self._reconcile(name, service, facts))
        return again

    async def _reconcile(self, name: tuple[str, str], service: Object | None, facts: Sequence[EndpointFact]) -> None:
        wanted = endpoints.endpoint_slices(service, facts) if service is not None else []
        for item in wanted:
            await self._own.apply(item)
        keys = [Key.of(item) for item in wanted]
        for key in self._slices.get(name, []):
            if key not in keys:
                await self._own.delete(key)
        if keys:
            self._slices[name] = keys
        else:
            self._slices.pop(name, None)

    def listeners(self, namespace: str, ip: str) -> list[ServiceListener]:
        """One listener on the pod's address for each port of each Service of its namespace that has a cluster IP in
        Kubernetes: headless ones and external names have no <NAME>_SERVICE_HOST there either.

        Raises:
            AddressError: too many Service ports.
        """
        found = []
        for service in self._store.list("", "Service", namespace):
            spec = service["spec"]
            if spec.get("clusterIP") == "None" or spec.get("type") == "ExternalName":
                continue
            name = f"{namespace}/{service['metadata']['name']}"
            for port in spec.get("ports") or []:
                if port.get("protocol", "TCP") == "TCP":
                    number = int(port["port"])
                    address = f"{ip}:{self._ports.port(name, number)}"
                    found.append(ServiceListener(name, number, str(port.get("name") or ""), address))
        return found

    def ready_addresses(self) -> informed.Known:
        """What every sidecar should know: see control.runtime.informed."""
        return informed.wanted(self._made_here())

    async def forget_earlier_life(self) -> None:
        """Slices of pods that an earlier supervisor ran.  Raises StoreError."""
        for item in self._made_here():
            await self._own.delete(Key.of(item))

    def _made_here(self) -> list[Object]:
        slices = self._store.list(SLICE_GROUP, "EndpointSlice")
        return [item for item in slices if (item["metadata"].get("labels") or {}).get(_MANAGED_BY) == endpoints.MANAGED_BY]


def names(obj: Object) -> tuple[str, str]:
    """(namespace, name)"""
    return obj["metadata"].get("namespace") or "default", obj["metadata"]["name"]

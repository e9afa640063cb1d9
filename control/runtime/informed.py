"""Do the sidecars know yet what the runtime knows?  "Ready" is said to a person only when a request would be answered.

    ready addresses by Service (EndpointSlices)  <=  endpoints in every sidecar's /config ?
    and of a pod that ends: is it in none of them any more?

Between a pod's readiness and the last sidecar's knowledge lie the store, the control plane and a stream: some tenths of a
second in which a first request would meet 503.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from typing import Any

from control.runtime.layout import ADMIN_PORT

_MAX_BYTES = 8 << 20  # of a /config
_PATIENCE = 2.0  # seconds for one answer

Known = dict[str, set[str]]  # "<namespace>/<service>" -> addresses


def wanted(slices: Iterable[Mapping[str, Any]], labels: str = "kubernetes.io/service-name") -> Known:
    """Ready addresses of each Service, by its EndpointSlices (those without ports serve nothing)."""
    found: Known = {}
    for item in slices:
        metadata = item["metadata"]
        service = (metadata.get("labels") or {}).get(labels)
        if service is None or not item.get("ports"):
            continue
        for endpoint in item.get("endpoints") or []:
            if (endpoint.get("conditions") or {}).get("ready", True):
                found.setdefault(f"{metadata.get('namespace') or 'default'}/{service}", set()).update(endpoint["addresses"])
    return found


def known(config: Mapping[str, Any]) -> Known:
    """The same, as a sidecar's /config has it."""
    found: Known = {}
    for resource in config.get("resources") or []:
        content = resource.get("content") or {}
        if endpoints := content.get("endpoints"):
            found[resource["name"]] = {str(item.get("address")) for item in endpoints.get("endpoints") or []}
    return found


def missing(want: Known, have: Known, leaving: str = "") -> list[str]:
    """Services of which `have` lacks an address, or still has the one that is `leaving`; sorted."""
    lacking = {service for service, addresses in want.items() if not addresses <= have.get(service, set())}
    return sorted(lacking | {service for service, addresses in have.items() if leaving in addresses})


async def uninformed(addresses: Iterable[str], want: Known, leaving: str = "") -> dict[str, list[str]]:
    """Sidecar (by its pod's address) -> Services it does not fully know yet; one that does not tell is not counted."""
    answers = [(address, await _config(address)) for address in addresses]
    lacking = {address: missing(want, known(config), leaving) for address, config in answers if config is not None}
    return {address: services for address, services in lacking.items() if services}


async def _config(address: str) -> dict[str, Any] | None:
    try:
        async with asyncio.timeout(_PATIENCE):
            reader, writer = await asyncio.open_connection(address, ADMIN_PORT)
            try:
                writer.write(f"GET /config HTTP/1.1\r\nHost: {address}:{ADMIN_PORT}\r\nConnection: close\r\n\r\n".encode())
                answer = b""
                while len(answer) < _MAX_BYTES and (data := await reader.read(1 << 16)):
                    answer += data
            finally:
                writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        found = json.loads(body) if b" 200 " in head.partition(b"\r\n")[0] else None
        return found if isinstance(found, dict) else None
    except (OSError, TimeoutError, ValueError):
        return None

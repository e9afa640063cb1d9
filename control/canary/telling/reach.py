"""How the control plane reaches an address a user wrote: a Service of the mesh by the gateway, all else as any program does.

    http://flagger-loadtester.test/  -- such a Service is in the store -->  the gateway's proxy  ==mTLS==>  a pod of it
    https://hooks.slack.com/...      -- no Service ---------------------->  http_proxy or straight

The control plane is no workload: it has no sidecar, and pods refuse plaintext from outside the mesh.  The gateway is one, with
the identity meshproxy/gateway; where TrafficTargets guard a receiver they must let that in (docs/canary/hooks.md).
"""

from __future__ import annotations

from urllib.parse import urlsplit

from control.canary.telling.post import ProxyFor, environment_proxy
from control.store.store import Key, Store

_CLUSTER = ".svc.cluster.local"


def service_key(host: str) -> Key | None:
    """The Service that a host name of Kubernetes' forms would be: prices.shop, prices.shop.svc, prices.shop.svc.cluster.local.
    Short names are none: they mean the caller's own namespace, and the control plane is in no user's."""
    name = host.lower().removesuffix(".")
    full = name.endswith(_CLUSTER)
    labels = name.removesuffix(_CLUSTER).removesuffix("" if full else ".svc").split(".")
    return Key("", "Service", labels[1], labels[0]) if len(labels) == 2 and all(labels) else None


def through_the_gateway(store: Store, gateway: str) -> ProxyFor:
    """Which proxy leads to an address: `gateway` (host:port of its outbound listener) for a Service of `store`."""

    def proxy_for(url: str) -> str | None:
        key = service_key(urlsplit(url).hostname or "")
        service = store.get(key) if key is not None else None
        if service is not None and (service.get("spec") or {}).get("type") != "ExternalName":
            return f"http://{gateway}"
        return environment_proxy(url)

    return proxy_for

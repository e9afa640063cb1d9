"""Where the proxies' metrics are, for a Prometheus: HTTP service discovery (http_sd), at the admin's /sd.

    store -> meshed pods -> [{"targets": ["10.0.0.7:4191"], "labels": {"namespace": ..., "pod": ..., "deployment": ...}}, ...]

The labels are those that Flagger's and Linkerd's queries select by.  A proxy's own page says the same of itself: with
`honor_labels: true` nothing is there twice.  A pod's own labels come as `__meta_meshproxy_pod_label_<name>`, to relabel by.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from control.runtime.layout import ADMIN_PORT, ANNOTATION_PROXY, LABEL_DEPLOYMENT
from control.store.store import Object

_META = "__meta_meshproxy_pod_label_"


def scrape_targets(pods: Iterable[Object]) -> list[dict[str, Any]]:
    """One group a pod, in the order of `pods`.  Pods that are ending stay until they are gone: what they count last counts."""
    return [_group(pod) for pod in pods if _has_proxy(pod)]


def _has_proxy(pod: Object) -> bool:
    annotations = pod["metadata"].get("annotations") or {}
    return annotations.get(ANNOTATION_PROXY) == "true" and bool((pod.get("status") or {}).get("podIP"))


def _group(pod: Object) -> dict[str, Any]:
    metadata, address = pod["metadata"], pod["status"]["podIP"]
    own = metadata.get("labels") or {}
    labels = {"namespace": metadata.get("namespace") or "default", "pod": metadata["name"]}
    if deployment := own.get(LABEL_DEPLOYMENT):
        labels["deployment"] = deployment
    labels.update({_META + re.sub(r"[^a-zA-Z0-9_]", "_", name): str(value) for name, value in own.items()})
    host = f"[{address}]" if ":" in address else address
    return {"targets": [f"{host}:{ADMIN_PORT}"], "labels": labels}

"""What a pod's sidecar is started with, and what all pods of a mesh have in common.

Settings + PodIdentity --sidecar_command--> argv of `meshproxy proxy`        pod, listeners --> annotations that compile reads
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from control.resources.annotations import workers_mistake
from control.runtime import environment
from control.runtime.environment import ConfigError, ServiceListener
from control.runtime.layout import ANNOTATION_INJECT, ANNOTATION_LISTENERS, ANNOTATION_PROXY, ANNOTATION_WORKERS, Layout

Object = dict[str, Any]

SIDECAR = "meshproxy-proxy"  # the sidecar's name among the containers
LEAF_LIFETIME = 86400.0  # seconds; Linkerd's


@dataclass(frozen=True, slots=True)
class Settings:
    """What all pods of a mesh have in common."""

    layout: Layout
    records: Path  # of the processes of this supervisor
    directory: Path  # the user's manifests: where relative working directories begin
    trust_domain: str = "cluster.local"
    control: str = ""  # host:port
    identity: str = ""  # host:port
    leaf_lifetime: float = LEAF_LIFETIME  # seconds, of proxies' certificates
    identity_issuer: Path | None = None  # of somebody else: ca.crt, tls.crt, tls.key
    gateway: str = ""  # host:port of its proxy, for the control plane's own calls into the mesh
    metrics_server: str = ""  # URL of a Prometheus that Canaries are judged by; "": the mesh's own numbers
    canary_options: tuple[str, ...] = ()  # of the control plane's command line: what holds for all Canaries
    backoff_base: float = 1.0  # the kubelet's is 10 s; on a laptop somebody waits
    drain: float = 1.0  # seconds between "terminating" and SIGTERM: endpoints reach every sidecar well within
    sidecar_grace: float = 10.0
    environment: Mapping[str, str] = field(default_factory=lambda: environment.inherited(os.environ))  # of apps
    own_environment: Mapping[str, str] = field(default_factory=lambda: environment.of_the_mesh(os.environ))  # of ours


@dataclass(frozen=True, slots=True)
class PodIdentity:
    namespace: str
    name: str
    service_account: str
    ip: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


# (identity, token file, extra arguments) -> argv of the sidecar
SidecarCommand = Callable[[Settings, PodIdentity, Path, Sequence[str]], list[str]]


def sidecar_command(settings: Settings, pod: PodIdentity, token_file: Path, extra: Sequence[str]) -> list[str]:
    """The command line of the real sidecar."""
    return [
        *(sys.executable, "-m", "meshproxy", "proxy"),
        *("--namespace", pod.namespace, "--pod", pod.name, "--service-account", pod.service_account, "--pod-ip", pod.ip),
        *("--trust-domain", settings.trust_domain, "--trust-bundle", str(settings.layout.trust_bundle)),
        *("--control", settings.control, "--identity", settings.identity, "--token-file", str(token_file)),
        *extra,
    ]


def wants_sidecar(pod: Object) -> bool:
    annotations = pod["metadata"].get("annotations") or {}
    return "disabled" not in (annotations.get(ANNOTATION_INJECT), annotations.get("linkerd.io/inject"))


def workers_arguments(pod: Object) -> list[str]:
    """What the pod's annotation asks of its sidecar.  Raises ConfigError for a value that is no number of processes."""
    value = (pod["metadata"].get("annotations") or {}).get(ANNOTATION_WORKERS)
    if value is None:
        return []
    if mistake := workers_mistake(value):
        raise ConfigError(f"annotation {ANNOTATION_WORKERS}: {mistake}")
    return ["--workers", value]


def sidecar_annotations(listeners: Sequence[ServiceListener]) -> dict[str, str]:
    """What compile reads of a pod with a sidecar."""
    entries = [{"address": item.address, "service": item.service, "port": item.port} for item in listeners]
    return {ANNOTATION_PROXY: "true", ANNOTATION_LISTENERS: json.dumps(entries)}

"""Where one embedded mesh keeps its things.

    <state root>/<mesh name>/
        lock            held by the supervisor while it runs (flock)
        mesh.json       what `get`, `stat`, `down` need to find it: see MeshInfo
        objects/        the store's state directory (control.store.files): one folder a manager, `accepted/`, `events/`
        trust/          root and issuer: root.pem, issuer.pem, issuer.key (0600)
        trust-bundle.pem  the anchors in force, written by the control plane: what sidecars begin with
        trust-rotation.json  (0600) anchors in force and a change of authority under way: what the control plane goes on with
        tokens/         <sha256 of an unused token>.json; Certify burns one by renaming it away
        pods/<ns>/<pod>/   token (0600), app.log, sidecar.log
        processes/<supervisor pid>-<start>/<pid>    what runs, for whoever has to clean up after a crash
        control.log     the control plane's output
        up.log          what `up -d` would have printed

The state root is $MESHPROXY_STATE_HOME, else $XDG_STATE_HOME/meshproxy, else ~/.local/state/meshproxy.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

DEFAULT_MESH = "default"

# Ports, the same on every pod address as in Kubernetes (and as Linkerd's).
OUTBOUND_PORT = 4140
INBOUND_PORT = 4143
ADMIN_PORT = 4191
CONTROL_PORT = 8086  # gRPC: configuration (client certificate required)
CERTIFY_PORT = 8087  # gRPC: identity (server TLS only); always the port after the configuration's
CONTROL_ADMIN_PORT = 9990  # control plane: /metrics /ready /live

# Addresses inside the mesh's /24.
CONTROL_HOST = 1
GATEWAY_HOST = 2
FIRST_POD_HOST = 10

# What the runtime writes on a Pod, and who reads it (as the injector will in Kubernetes).
ANNOTATION_PROXY = "meshproxy.dev/proxy"  # "true": the pod has a sidecar -> compile: endpoint is meshed
ANNOTATION_LISTENERS = "meshproxy.dev/service-listeners"  # JSON [{"address","service","port"}] -> compile: Workload.listeners
ANNOTATION_WORKERS = "meshproxy.dev/workers"  # user's, on a pod template: processes of its sidecar, a number or "auto"
ANNOTATION_INJECT = "meshproxy.dev/inject"  # user's: "disabled" on a pod template means no sidecar
LABEL_DEPLOYMENT = "meshproxy.dev/proxy-deployment"  # the Deployment that owns the pod -> metric label "deployment"

CONTROL_DNS_NAME = "control.meshproxy.internal"  # DNS SAN of the control plane's certificate (grpc checks names)
SYSTEM_NAMESPACE = "meshproxy"  # of the gateway pod and the control plane's identity


def state_root() -> Path:
    if home := os.environ.get("MESHPROXY_STATE_HOME"):
        return Path(home)
    if xdg := os.environ.get("XDG_STATE_HOME"):
        return Path(xdg) / "meshproxy"
    return Path.home() / ".local" / "state" / "meshproxy"


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths of one mesh; nothing here touches the disk."""

    root: Path  # <state root>/<name>

    @classmethod
    def of(cls, name: str = DEFAULT_MESH) -> Layout:
        return cls(state_root() / name)

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def info(self) -> Path:
        return self.root / "mesh.json"

    @property
    def objects(self) -> Path:
        return self.root / "objects"

    @property
    def trust(self) -> Path:
        return self.root / "trust"

    @property
    def trust_bundle(self) -> Path:
        return self.root / "trust-bundle.pem"

    @property
    def trust_rotation(self) -> Path:
        return self.root / "trust-rotation.json"

    @property
    def tokens(self) -> Path:
        return self.root / "tokens"

    @property
    def control_log(self) -> Path:
        return self.root / "control.log"

    @property
    def processes(self) -> Path:
        return self.root / "processes"

    @property
    def up_log(self) -> Path:
        return self.root / "up.log"

    def pod(self, namespace: str, name: str) -> Path:
        return self.root / "pods" / namespace / name


@dataclass(slots=True)
class MeshInfo:
    """mesh.json: one running mesh, written by the supervisor."""

    name: str
    directory: str  # the user's manifests
    prefix: str  # "127.83.4" - the /24's first three octets
    trust_domain: str
    gateway: str  # host:port for `curl -x`
    control: str  # host:port, gRPC
    control_admin: str  # host:port, HTTP
    supervisor_pid: int
    supervisor_start: str  # start time from /proc/<pid>/stat, so that a reused pid is not mistaken
    started_unix: float

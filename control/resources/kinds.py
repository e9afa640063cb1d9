"""The kinds a manifest may hold: which are read, which are ignored with a line, which embedded mode refuses."""

from __future__ import annotations

from dataclasses import dataclass

from control.resources import (
    alertprovider,
    canary,
    core,
    gateway,
    metrictemplate,
    releasepolicy,
    routegroup,
    split,
    traffictarget,
)
from control.resources.shape import Shape


@dataclass(frozen=True, slots=True)
class Kind:
    group: str
    kind: str
    versions: tuple[str, ...]
    shape: type[Shape]
    namespaced: bool = True

    @property
    def api_versions(self) -> tuple[str, ...]:
        return tuple(f"{self.group}/{version}" if self.group else version for version in self.versions)


_ALL = (
    Kind("", "Namespace", ("v1",), core.Namespace, namespaced=False),
    Kind("", "Service", ("v1",), core.Service),
    Kind("", "ServiceAccount", ("v1",), core.ServiceAccount),
    Kind("", "ConfigMap", ("v1",), core.ConfigMap),
    Kind("", "Secret", ("v1",), core.Secret),
    Kind("", "Pod", ("v1",), core.Pod),
    Kind("apps", "Deployment", ("v1",), core.Deployment),
    Kind("discovery.k8s.io", "EndpointSlice", ("v1",), core.EndpointSlice),
    Kind(split.GROUP, "TrafficSplit", split.VERSIONS, split.SplitShape),
    Kind(routegroup.GROUP, "HTTPRouteGroup", routegroup.VERSIONS, routegroup.GroupShape),
    Kind(routegroup.GROUP, "TCPRoute", routegroup.VERSIONS, routegroup.PortRouteShape),
    Kind(routegroup.GROUP, "UDPRoute", routegroup.VERSIONS[3:], routegroup.PortRouteShape),
    Kind(traffictarget.GROUP, "TrafficTarget", traffictarget.VERSIONS, traffictarget.TargetShape),
    Kind(gateway.GROUP, "HTTPRoute", gateway.HTTP_VERSIONS, gateway.HttpRoute),
    Kind(gateway.GROUP, "GRPCRoute", gateway.GRPC_VERSIONS, gateway.GrpcRoute),
    Kind(canary.GROUP, "Canary", canary.VERSIONS, canary.CanaryShape),
    Kind(canary.GROUP, "MetricTemplate", canary.VERSIONS, metrictemplate.TemplateShape),
    Kind(canary.GROUP, "AlertProvider", canary.VERSIONS, alertprovider.ProviderShape),
    Kind(releasepolicy.GROUP, releasepolicy.KIND, releasepolicy.VERSIONS, releasepolicy.PolicyShape),
)
KINDS: dict[tuple[str, str], Kind] = {(kind.group, kind.kind): kind for kind in _ALL}
KIND_NAMES = sorted({kind.kind for kind in _ALL})

# Would run nothing here, or half of what they promise: refused in embedded mode, with the way out.
REFUSED: dict[tuple[str, str], str] = {
    ("batch", "Job"): "run it as a command of its own, outside the mesh",
    ("batch", "CronJob"): "run it as a command of its own, outside the mesh",
    ("apps", "StatefulSet"): "use a Deployment; data goes to a directory the app is told by env",
    ("apps", "DaemonSet"): "use a Deployment with 1 replica: there is one node",
    ("apps", "ReplicaSet"): "use a Deployment",
    ("", "ReplicationController"): "use a Deployment",
    ("", "PersistentVolumeClaim"): "give the app a directory by env",
    ("", "PersistentVolume"): "give the app a directory by env",
}

# Of other tools, and known to be brought: ignored, with what there is instead.  "": all other kinds of the group.
_ACCESS = "who may call whom is said by TrafficTargets: docs/access.md"
INSTEAD: dict[tuple[str, str], str] = {
    (
        "linkerd.io",
        "ServiceProfile",
    ): "times and retries are annotations of the Service or of an HTTPRoute: docs/annotations.md",
    ("policy.linkerd.io", ""): _ACCESS,
    ("policy.linkerd.io", "HTTPRoute"): "did you mean apiVersion: gateway.networking.k8s.io/v1?",
    ("networking.istio.io", "VirtualService"): "use an HTTPRoute, or a TrafficSplit",
    ("networking.istio.io", "DestinationRule"): "balancer and breaker are annotations of the Service: docs/annotations.md",
    ("security.istio.io", ""): _ACCESS,
    (
        "gateway.networking.k8s.io",
        "ReferenceGrant",  # GEP-1294, "Namespace boundaries": the routes of a mesh need none
    ): f"it is for routes of a Gateway; those of a Service need no grant: {_ACCESS}",
    ("gateway.networking.k8s.io", "Gateway"): "people come in by the mesh's own gateway; routes are attached to Services",
    ("networking.k8s.io", "Ingress"): "people come in by the mesh's own gateway",
    ("networking.k8s.io", "NetworkPolicy"): _ACCESS,
    ("autoscaling", "HorizontalPodAutoscaler"): "replicas are the Deployment's own",
    ("kustomize.config.k8s.io", ""): "`kubectl kustomize DIR` makes the manifests: check those",
}

# Not namespaced, so that no namespace is put on them.
CLUSTER_SCOPED = frozenset(
    {
        ("", "Namespace"),
        ("", "Node"),
        ("", "PersistentVolume"),
        ("rbac.authorization.k8s.io", "ClusterRole"),
        ("rbac.authorization.k8s.io", "ClusterRoleBinding"),
        ("apiextensions.k8s.io", "CustomResourceDefinition"),
        ("gateway.networking.k8s.io", "GatewayClass"),
    }
)

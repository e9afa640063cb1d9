"""Typed views of Kubernetes' own kinds: what the mesh reads of them, immutable.

The annotations are the schema that `shape` checks; `unread` names the fields Kubernetes has and we do not read.
Lengths and bounds are Kubernetes'.
"""

# ruff: noqa: RUF012 - msgspec copies an empty default

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, TypeVar

import msgspec
from msgspec import Meta, field

from control.resources.documents import without_nulls
from control.resources.quantity import quantity
from control.resources.shape import Shape, words
from control.store.store import Object

PortNumber = Annotated[int, Meta(ge=1, le=65535)]
Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Positive = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Name = Annotated[str, Meta(min_length=1, max_length=253)]
IntOrString = int | str


S = TypeVar("S", bound=Shape)


def parse(obj: Object, shape: type[S]) -> S:
    """The typed view of an accepted object: `parse(obj, Service)`.  Raises msgspec.ValidationError (a ValueError) for the first
    mistake of one that was never checked."""
    return msgspec.convert(without_nulls(obj), shape)


class OwnerReference(Shape, frozen=True, kw_only=True):
    api_version: str
    kind: str
    name: str
    uid: str = ""
    controller: bool = False
    block_owner_deletion: bool = False


class ObjectMeta(Shape, frozen=True, kw_only=True):
    unread = words(
        "clusterName creationTimestamp deletionGracePeriodSeconds deletionTimestamp finalizers generateName managedFields"
        " resourceVersion selfLink"
    )
    name: Name = ""
    namespace: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    uid: str = ""
    generation: int = 0
    owner_references: tuple[OwnerReference, ...] = ()


# ---------------------------------------------------------------- pods


class KeySelector(Shape, frozen=True, kw_only=True):
    """configMapKeyRef and secretKeyRef."""

    name: str = ""
    key: str
    optional: bool = False


class FieldSelector(Shape, frozen=True, kw_only=True):
    api_version: str = "v1"
    field_path: str


class EnvVarSource(Shape, frozen=True, kw_only=True):
    unread = words("fileKeyRef")
    field_ref: FieldSelector | None = None
    config_map_key_ref: KeySelector | None = None
    secret_key_ref: KeySelector | None = None
    resource_field_ref: Any = None


class EnvVar(Shape, frozen=True, kw_only=True):
    name: Annotated[str, Meta(min_length=1)]
    value: str | None = None
    value_from: EnvVarSource | None = None


class EnvSource(Shape, frozen=True, kw_only=True):
    name: str = ""
    optional: bool = False


class EnvFromSource(Shape, frozen=True, kw_only=True):
    prefix: str = ""
    config_map_ref: EnvSource | None = None
    secret_ref: EnvSource | None = None


class HttpHeader(Shape, frozen=True, kw_only=True):
    name: str
    value: str


class HttpGetAction(Shape, frozen=True, kw_only=True):
    unread = words("protocol")
    path: str = "/"
    port: IntOrString
    host: str = ""
    scheme: Literal["HTTP", "HTTPS"] = "HTTP"
    http_headers: tuple[HttpHeader, ...] = ()


class TcpSocketAction(Shape, frozen=True, kw_only=True):
    port: IntOrString
    host: str = ""


class GrpcAction(Shape, frozen=True, kw_only=True):
    unread = words("mode")
    port: PortNumber
    service: str = ""


class ExecAction(Shape, frozen=True, kw_only=True):
    command: tuple[str, ...] = ()


class Probe(Shape, frozen=True, kw_only=True):
    """Times in seconds; defaults are the kubelet's."""

    http_get: HttpGetAction | None = None
    tcp_socket: TcpSocketAction | None = None
    grpc: GrpcAction | None = None
    exec: ExecAction | None = None
    initial_delay_seconds: Count = 0
    timeout_seconds: Positive = 1
    period_seconds: Positive = 10
    success_threshold: Positive = 1
    failure_threshold: Positive = 3
    termination_grace_period_seconds: Positive | None = None


class ContainerPort(Shape, frozen=True, kw_only=True):
    unread = words("hostIP")
    container_port: PortNumber
    name: Annotated[str, Meta(max_length=15)] = ""
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"
    host_port: int | None = None


class Container(Shape, frozen=True, kw_only=True):
    unread = words(
        "imagePullPolicy resizePolicy restartPolicyRules securityContext stdin stdinOnce terminationMessagePath"
        " terminationMessagePolicy tty"
    )
    name: Annotated[str, Meta(min_length=1, max_length=63)]
    image: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    working_dir: str = ""
    ports: tuple[ContainerPort, ...] = ()
    env: tuple[EnvVar, ...] = ()
    env_from: tuple[EnvFromSource, ...] = ()
    startup_probe: Probe | None = None
    readiness_probe: Probe | None = None
    liveness_probe: Probe | None = None
    lifecycle: Any = None
    resources: Any = None
    restart_policy: str = ""
    volume_mounts: tuple[dict[str, Any], ...] = ()
    volume_devices: tuple[dict[str, Any], ...] = ()

    @property
    def probes(self) -> tuple[Probe, ...]:
        return tuple(probe for probe in (self.startup_probe, self.readiness_probe, self.liveness_probe) if probe)


class PodSpec(Shape, frozen=True, kw_only=True):
    unread = words(
        "activeDeadlineSeconds automountServiceAccountToken dnsConfig dnsPolicy enableServiceLinks ephemeralContainers"
        " evictionResponders schedulingGroup"
        " hostAliases hostIPC hostPID hostUsers hostname hostnameOverride imagePullSecrets os overhead preemptionPolicy"
        " priority priorityClassName readinessGates resourceClaims runtimeClassName schedulerName schedulingGates"
        " securityContext serviceAccount setHostnameAsFQDN shareProcessNamespace subdomain workloadRef"
    )
    containers: tuple[Container, ...] = ()  # a pod that is a sidecar only (the gateway) has none
    init_containers: tuple[Container, ...] = ()
    service_account_name: str = "default"
    termination_grace_period_seconds: Count = 30
    restart_policy: Literal["Always", "OnFailure", "Never"] = "Always"
    host_network: bool = False
    node_name: str = ""
    node_selector: dict[str, str] = {}
    affinity: Any = None
    tolerations: tuple[dict[str, Any], ...] = ()
    topology_spread_constraints: tuple[dict[str, Any], ...] = ()
    resources: Any = None
    volumes: tuple[dict[str, Any], ...] = ()


class PodTemplate(Shape, frozen=True, kw_only=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: PodSpec


class Pod(Shape, frozen=True, kw_only=True):
    unread = words("apiVersion kind")
    metadata: ObjectMeta
    spec: PodSpec
    status: dict[str, Any] = {}

    @property
    def ip(self) -> str:
        return str(self.status.get("podIP") or "")


# ---------------------------------------------------------------- deployments


class LabelSelectorRequirement(Shape, frozen=True, kw_only=True):
    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[str, ...] = ()

    def matches(self, labels: dict[str, str]) -> bool:
        match self.operator:
            case "In":
                return self.key in labels and labels[self.key] in self.values
            case "NotIn":
                return self.key not in labels or labels[self.key] not in self.values
            case "Exists":
                return self.key in labels
        return self.key not in labels


class LabelSelector(Shape, frozen=True, kw_only=True):
    match_labels: dict[str, str] = {}
    match_expressions: tuple[LabelSelectorRequirement, ...] = ()

    def matches(self, labels: dict[str, str]) -> bool:
        """An empty selector matches everything (as in Kubernetes)."""
        return all(labels.get(name) == value for name, value in self.match_labels.items()) and all(
            requirement.matches(labels) for requirement in self.match_expressions
        )


class RollingUpdate(Shape, frozen=True, kw_only=True):
    """Counts, or percents of the wanted replicas ("25%")."""

    max_surge: IntOrString = "25%"
    max_unavailable: IntOrString = "25%"


class DeploymentStrategy(Shape, frozen=True, kw_only=True):
    type: Literal["RollingUpdate", "Recreate"] = "RollingUpdate"
    rolling_update: RollingUpdate = RollingUpdate()


class DeploymentSpec(Shape, frozen=True, kw_only=True):
    replicas: Count = 1
    selector: LabelSelector
    template: PodTemplate
    strategy: DeploymentStrategy = DeploymentStrategy()
    min_ready_seconds: Count = 0
    progress_deadline_seconds: Positive = 600
    revision_history_limit: Count = 10
    paused: bool = False


class Deployment(Shape, frozen=True, kw_only=True):
    unread = words("apiVersion kind")
    metadata: ObjectMeta
    spec: DeploymentSpec
    status: dict[str, Any] = {}


# ---------------------------------------------------------------- services


# appProtocol of a port whose connections are carried as bytes: TCP, or an app's own TLS that nobody on the way can read.
OPAQUE_PROTOCOLS = ("linkerd.io/opaque", "linkerd.io/tcp", "tcp", "tls", "https", "kubernetes.io/wss")


class ServicePort(Shape, frozen=True, kw_only=True):
    port: PortNumber
    name: Annotated[str, Meta(max_length=63)] = ""
    target_port: IntOrString | None = None  # absent: the same as port
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"
    app_protocol: str = ""
    node_port: int | None = None


class ServiceSpec(Shape, frozen=True, kw_only=True):
    unread = words(
        "allocateLoadBalancerNodePorts clusterIPs externalIPs externalTrafficPolicy healthCheckNodePort"
        " internalTrafficPolicy ipFamilies ipFamilyPolicy loadBalancerClass loadBalancerIP loadBalancerSourceRanges"
        " publishNotReadyAddresses sessionAffinity sessionAffinityConfig trafficDistribution"
    )
    ports: tuple[ServicePort, ...] = ()
    selector: dict[str, str] = {}
    type: Literal["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"] = "ClusterIP"
    cluster_ip: str = field(name="clusterIP", default="")  # msgspec's camelCase would say clusterIp
    external_name: str = ""


class Service(Shape, frozen=True, kw_only=True):
    unread = words("apiVersion kind")
    metadata: ObjectMeta
    spec: ServiceSpec
    status: dict[str, Any] = {}


class EndpointConditions(Shape, frozen=True, kw_only=True):
    """Absent means unknown, which Kubernetes says to read as ready and serving."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class ObjectReference(Shape, frozen=True, kw_only=True):
    unread = words("apiVersion fieldPath resourceVersion")
    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""


class SliceEndpoint(Shape, frozen=True, kw_only=True):
    unread = words("deprecatedTopology hints hostname")
    addresses: tuple[str, ...]
    conditions: EndpointConditions = EndpointConditions()
    target_ref: ObjectReference | None = None
    node_name: str = ""
    zone: str = ""  # of the node it is on


class SlicePort(Shape, frozen=True, kw_only=True):
    name: str = ""
    port: PortNumber | None = None
    protocol: str = "TCP"
    app_protocol: str = ""


class EndpointSlice(Shape, frozen=True, kw_only=True):
    unread = words("apiVersion kind")
    metadata: ObjectMeta
    address_type: Literal["IPv4", "IPv6", "FQDN"]
    endpoints: tuple[SliceEndpoint, ...] = ()
    ports: tuple[SlicePort, ...] = ()


# ---------------------------------------------------------------- the small ones


class ServiceAccount(Shape, frozen=True, kw_only=True):
    unread = words("apiVersion kind automountServiceAccountToken imagePullSecrets secrets")
    metadata: ObjectMeta


class Namespace(Shape, frozen=True, kw_only=True):
    unread = words("apiVersion kind spec status")
    metadata: ObjectMeta


class ConfigMap(Shape, frozen=True, kw_only=True):
    unread = words("apiVersion kind immutable")
    metadata: ObjectMeta
    data: dict[str, str] = {}
    binary_data: dict[str, str] = {}


class Secret(Shape, frozen=True, kw_only=True):
    unread = words("apiVersion kind immutable")
    secret: ClassVar[bool] = True
    metadata: ObjectMeta
    type: str = "Opaque"
    data: dict[str, str] = {}  # base64
    string_data: dict[str, str] = {}  # plain; wins over data


def rounded(value: IntOrString, total: int, up: bool) -> int:
    """maxSurge and maxUnavailable: a count, or a percent of `total` rounded up or down.  Raises ValueError."""
    if isinstance(value, int):
        return value
    if not value.endswith("%"):
        raise ValueError(f"{value!r}, expected a count or a percentage such as 25%")
    share = quantity(value[:-1]) * total / 100
    return -(-share.numerator // share.denominator) if up else share.numerator // share.denominator

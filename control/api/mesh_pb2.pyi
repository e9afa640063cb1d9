from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    UNKNOWN: _ClassVar[Kind]
    WORKLOAD: _ClassVar[Kind]
    SERVICE: _ClassVar[Kind]
    ENDPOINTS: _ClassVar[Kind]
    TRUST: _ClassVar[Kind]

class Protocol(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DETECT: _ClassVar[Protocol]
    HTTP1: _ClassVar[Protocol]
    HTTP2: _ClassVar[Protocol]
    OPAQUE: _ClassVar[Protocol]

class InboundMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ALL_AUTHENTICATED: _ClassVar[InboundMode]
    ALL_UNAUTHENTICATED: _ClassVar[InboundMode]
    DENY: _ClassVar[InboundMode]

class EmptyBackend(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FAIL: _ClassVar[EmptyBackend]
    REDISTRIBUTE: _ClassVar[EmptyBackend]
UNKNOWN: Kind
WORKLOAD: Kind
SERVICE: Kind
ENDPOINTS: Kind
TRUST: Kind
DETECT: Protocol
HTTP1: Protocol
HTTP2: Protocol
OPAQUE: Protocol
ALL_AUTHENTICATED: InboundMode
ALL_UNAUTHENTICATED: InboundMode
DENY: InboundMode
FAIL: EmptyBackend
REDISTRIBUTE: EmptyBackend

class Request(_message.Message):
    __slots__ = ("hello", "ack")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    ack: Ack
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., ack: _Optional[_Union[Ack, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol", "namespace", "pod", "version", "held")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    namespace: str
    pod: str
    version: str
    held: _containers.RepeatedCompositeFieldContainer[Held]
    def __init__(self, protocol: _Optional[int] = ..., namespace: _Optional[str] = ..., pod: _Optional[str] = ..., version: _Optional[str] = ..., held: _Optional[_Iterable[_Union[Held, _Mapping]]] = ...) -> None: ...

class Held(_message.Message):
    __slots__ = ("name", "hash")
    NAME_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    name: ResourceName
    hash: str
    def __init__(self, name: _Optional[_Union[ResourceName, _Mapping]] = ..., hash: _Optional[str] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("version", "rejected")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    version: int
    rejected: _containers.RepeatedCompositeFieldContainer[Rejected]
    def __init__(self, version: _Optional[int] = ..., rejected: _Optional[_Iterable[_Union[Rejected, _Mapping]]] = ...) -> None: ...

class Rejected(_message.Message):
    __slots__ = ("name", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: ResourceName
    reason: str
    def __init__(self, name: _Optional[_Union[ResourceName, _Mapping]] = ..., reason: _Optional[str] = ...) -> None: ...

class Update(_message.Message):
    __slots__ = ("version", "set", "removed")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SET_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    version: int
    set: _containers.RepeatedCompositeFieldContainer[Resource]
    removed: _containers.RepeatedCompositeFieldContainer[ResourceName]
    def __init__(self, version: _Optional[int] = ..., set: _Optional[_Iterable[_Union[Resource, _Mapping]]] = ..., removed: _Optional[_Iterable[_Union[ResourceName, _Mapping]]] = ...) -> None: ...

class ResourceName(_message.Message):
    __slots__ = ("kind", "name")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    kind: Kind
    name: str
    def __init__(self, kind: _Optional[_Union[Kind, str]] = ..., name: _Optional[str] = ...) -> None: ...

class Resource(_message.Message):
    __slots__ = ("name", "hash", "workload", "service", "endpoints", "trust")
    NAME_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    WORKLOAD_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    TRUST_FIELD_NUMBER: _ClassVar[int]
    name: ResourceName
    hash: str
    workload: Workload
    service: Service
    endpoints: Endpoints
    trust: TrustBundle
    def __init__(self, name: _Optional[_Union[ResourceName, _Mapping]] = ..., hash: _Optional[str] = ..., workload: _Optional[_Union[Workload, _Mapping]] = ..., service: _Optional[_Union[Service, _Mapping]] = ..., endpoints: _Optional[_Union[Endpoints, _Mapping]] = ..., trust: _Optional[_Union[TrustBundle, _Mapping]] = ...) -> None: ...

class Workload(_message.Message):
    __slots__ = ("namespace", "pod", "service_account", "identity", "pod_ip", "labels", "ports", "listeners", "inbound_mode", "cluster_domains", "access", "zone", "concurrency", "explain")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    SERVICE_ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    POD_IP_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    PORTS_FIELD_NUMBER: _ClassVar[int]
    LISTENERS_FIELD_NUMBER: _ClassVar[int]
    INBOUND_MODE_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_DOMAINS_FIELD_NUMBER: _ClassVar[int]
    ACCESS_FIELD_NUMBER: _ClassVar[int]
    ZONE_FIELD_NUMBER: _ClassVar[int]
    CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    pod: str
    service_account: str
    identity: str
    pod_ip: str
    labels: _containers.ScalarMap[str, str]
    ports: _containers.RepeatedCompositeFieldContainer[Port]
    listeners: _containers.RepeatedCompositeFieldContainer[Listener]
    inbound_mode: InboundMode
    cluster_domains: _containers.RepeatedScalarFieldContainer[str]
    access: Access
    zone: str
    concurrency: Concurrency
    explain: bool
    def __init__(self, namespace: _Optional[str] = ..., pod: _Optional[str] = ..., service_account: _Optional[str] = ..., identity: _Optional[str] = ..., pod_ip: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., ports: _Optional[_Iterable[_Union[Port, _Mapping]]] = ..., listeners: _Optional[_Iterable[_Union[Listener, _Mapping]]] = ..., inbound_mode: _Optional[_Union[InboundMode, str]] = ..., cluster_domains: _Optional[_Iterable[str]] = ..., access: _Optional[_Union[Access, _Mapping]] = ..., zone: _Optional[str] = ..., concurrency: _Optional[_Union[Concurrency, _Mapping]] = ..., explain: _Optional[bool] = ...) -> None: ...

class Concurrency(_message.Message):
    __slots__ = ("limit", "adaptive")
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    ADAPTIVE_FIELD_NUMBER: _ClassVar[int]
    limit: int
    adaptive: bool
    def __init__(self, limit: _Optional[int] = ..., adaptive: _Optional[bool] = ...) -> None: ...

class Access(_message.Message):
    __slots__ = ("audit", "rules")
    AUDIT_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    audit: bool
    rules: _containers.RepeatedCompositeFieldContainer[AccessRule]
    def __init__(self, audit: _Optional[bool] = ..., rules: _Optional[_Iterable[_Union[AccessRule, _Mapping]]] = ...) -> None: ...

class AccessRule(_message.Message):
    __slots__ = ("name", "clients", "ports", "http")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CLIENTS_FIELD_NUMBER: _ClassVar[int]
    PORTS_FIELD_NUMBER: _ClassVar[int]
    HTTP_FIELD_NUMBER: _ClassVar[int]
    name: str
    clients: _containers.RepeatedScalarFieldContainer[str]
    ports: _containers.RepeatedScalarFieldContainer[int]
    http: _containers.RepeatedCompositeFieldContainer[RouteMatch]
    def __init__(self, name: _Optional[str] = ..., clients: _Optional[_Iterable[str]] = ..., ports: _Optional[_Iterable[int]] = ..., http: _Optional[_Iterable[_Union[RouteMatch, _Mapping]]] = ...) -> None: ...

class Port(_message.Message):
    __slots__ = ("port", "protocol", "name", "probe_paths")
    PORT_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PROBE_PATHS_FIELD_NUMBER: _ClassVar[int]
    port: int
    protocol: Protocol
    name: str
    probe_paths: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, port: _Optional[int] = ..., protocol: _Optional[_Union[Protocol, str]] = ..., name: _Optional[str] = ..., probe_paths: _Optional[_Iterable[str]] = ...) -> None: ...

class Listener(_message.Message):
    __slots__ = ("address", "service", "port")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    address: str
    service: str
    port: int
    def __init__(self, address: _Optional[str] = ..., service: _Optional[str] = ..., port: _Optional[int] = ...) -> None: ...

class Service(_message.Message):
    __slots__ = ("namespace", "name", "ports", "backends", "retry", "timeout_ms", "cluster_ip", "routes", "matches", "empty_backend", "sticky", "balancer", "fault", "response_start_timeout_ms", "response_timeout_ms", "idle_timeout_ms", "propagate_timeout")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PORTS_FIELD_NUMBER: _ClassVar[int]
    BACKENDS_FIELD_NUMBER: _ClassVar[int]
    RETRY_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_IP_FIELD_NUMBER: _ClassVar[int]
    ROUTES_FIELD_NUMBER: _ClassVar[int]
    MATCHES_FIELD_NUMBER: _ClassVar[int]
    EMPTY_BACKEND_FIELD_NUMBER: _ClassVar[int]
    STICKY_FIELD_NUMBER: _ClassVar[int]
    BALANCER_FIELD_NUMBER: _ClassVar[int]
    FAULT_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_START_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    IDLE_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    PROPAGATE_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    name: str
    ports: _containers.RepeatedCompositeFieldContainer[ServicePort]
    backends: _containers.RepeatedCompositeFieldContainer[Backend]
    retry: Retry
    timeout_ms: int
    cluster_ip: str
    routes: _containers.RepeatedCompositeFieldContainer[Route]
    matches: _containers.RepeatedCompositeFieldContainer[RouteMatch]
    empty_backend: EmptyBackend
    sticky: Sticky
    balancer: Balancer
    fault: Fault
    response_start_timeout_ms: int
    response_timeout_ms: int
    idle_timeout_ms: int
    propagate_timeout: bool
    def __init__(self, namespace: _Optional[str] = ..., name: _Optional[str] = ..., ports: _Optional[_Iterable[_Union[ServicePort, _Mapping]]] = ..., backends: _Optional[_Iterable[_Union[Backend, _Mapping]]] = ..., retry: _Optional[_Union[Retry, _Mapping]] = ..., timeout_ms: _Optional[int] = ..., cluster_ip: _Optional[str] = ..., routes: _Optional[_Iterable[_Union[Route, _Mapping]]] = ..., matches: _Optional[_Iterable[_Union[RouteMatch, _Mapping]]] = ..., empty_backend: _Optional[_Union[EmptyBackend, str]] = ..., sticky: _Optional[_Union[Sticky, _Mapping]] = ..., balancer: _Optional[_Union[Balancer, _Mapping]] = ..., fault: _Optional[_Union[Fault, _Mapping]] = ..., response_start_timeout_ms: _Optional[int] = ..., response_timeout_ms: _Optional[int] = ..., idle_timeout_ms: _Optional[int] = ..., propagate_timeout: _Optional[bool] = ...) -> None: ...

class Fault(_message.Message):
    __slots__ = ("delay_ms", "delay_ppm", "status", "abort_ppm", "header")
    DELAY_MS_FIELD_NUMBER: _ClassVar[int]
    DELAY_PPM_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    ABORT_PPM_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    delay_ms: int
    delay_ppm: int
    status: int
    abort_ppm: int
    header: HeaderValue
    def __init__(self, delay_ms: _Optional[int] = ..., delay_ppm: _Optional[int] = ..., status: _Optional[int] = ..., abort_ppm: _Optional[int] = ..., header: _Optional[_Union[HeaderValue, _Mapping]] = ...) -> None: ...

class Balancer(_message.Message):
    __slots__ = ("how", "key", "slow_start_ms", "prefer_zone", "breaker")
    class How(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        EWMA: _ClassVar[Balancer.How]
        LEAST_REQUEST: _ClassVar[Balancer.How]
        MAGLEV: _ClassVar[Balancer.How]
        RING_HASH: _ClassVar[Balancer.How]
    EWMA: Balancer.How
    LEAST_REQUEST: Balancer.How
    MAGLEV: Balancer.How
    RING_HASH: Balancer.How
    HOW_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    SLOW_START_MS_FIELD_NUMBER: _ClassVar[int]
    PREFER_ZONE_FIELD_NUMBER: _ClassVar[int]
    BREAKER_FIELD_NUMBER: _ClassVar[int]
    how: Balancer.How
    key: Sticky
    slow_start_ms: int
    prefer_zone: bool
    breaker: Breaker
    def __init__(self, how: _Optional[_Union[Balancer.How, str]] = ..., key: _Optional[_Union[Sticky, _Mapping]] = ..., slow_start_ms: _Optional[int] = ..., prefer_zone: _Optional[bool] = ..., breaker: _Optional[_Union[Breaker, _Mapping]] = ...) -> None: ...

class Breaker(_message.Message):
    __slots__ = ("consecutive", "success_rate", "window_ms", "min_requests", "min_penalty_ms", "max_penalty_ms", "jitter", "max_ejected")
    CONSECUTIVE_FIELD_NUMBER: _ClassVar[int]
    SUCCESS_RATE_FIELD_NUMBER: _ClassVar[int]
    WINDOW_MS_FIELD_NUMBER: _ClassVar[int]
    MIN_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    MIN_PENALTY_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_PENALTY_MS_FIELD_NUMBER: _ClassVar[int]
    JITTER_FIELD_NUMBER: _ClassVar[int]
    MAX_EJECTED_FIELD_NUMBER: _ClassVar[int]
    consecutive: int
    success_rate: float
    window_ms: int
    min_requests: int
    min_penalty_ms: int
    max_penalty_ms: int
    jitter: float
    max_ejected: float
    def __init__(self, consecutive: _Optional[int] = ..., success_rate: _Optional[float] = ..., window_ms: _Optional[int] = ..., min_requests: _Optional[int] = ..., min_penalty_ms: _Optional[int] = ..., max_penalty_ms: _Optional[int] = ..., jitter: _Optional[float] = ..., max_ejected: _Optional[float] = ...) -> None: ...

class ServicePort(_message.Message):
    __slots__ = ("port", "name", "protocol")
    PORT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    port: int
    name: str
    protocol: Protocol
    def __init__(self, port: _Optional[int] = ..., name: _Optional[str] = ..., protocol: _Optional[_Union[Protocol, str]] = ...) -> None: ...

class Backend(_message.Message):
    __slots__ = ("service", "weight_milli", "port", "refuse", "request_headers", "response_headers")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_MILLI_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    REFUSE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_HEADERS_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_HEADERS_FIELD_NUMBER: _ClassVar[int]
    service: str
    weight_milli: int
    port: int
    refuse: int
    request_headers: HeaderChanges
    response_headers: HeaderChanges
    def __init__(self, service: _Optional[str] = ..., weight_milli: _Optional[int] = ..., port: _Optional[int] = ..., refuse: _Optional[int] = ..., request_headers: _Optional[_Union[HeaderChanges, _Mapping]] = ..., response_headers: _Optional[_Union[HeaderChanges, _Mapping]] = ...) -> None: ...

class RouteMatch(_message.Message):
    __slots__ = ("route", "path", "methods", "headers", "query", "ports", "client_namespace")
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    METHODS_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    PORTS_FIELD_NUMBER: _ClassVar[int]
    CLIENT_NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    route: int
    path: StringMatch
    methods: _containers.RepeatedScalarFieldContainer[str]
    headers: _containers.RepeatedCompositeFieldContainer[StringMatch]
    query: _containers.RepeatedCompositeFieldContainer[StringMatch]
    ports: _containers.RepeatedScalarFieldContainer[int]
    client_namespace: str
    def __init__(self, route: _Optional[int] = ..., path: _Optional[_Union[StringMatch, _Mapping]] = ..., methods: _Optional[_Iterable[str]] = ..., headers: _Optional[_Iterable[_Union[StringMatch, _Mapping]]] = ..., query: _Optional[_Iterable[_Union[StringMatch, _Mapping]]] = ..., ports: _Optional[_Iterable[int]] = ..., client_namespace: _Optional[str] = ...) -> None: ...

class StringMatch(_message.Message):
    __slots__ = ("name", "how", "value")
    class How(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        EXACT: _ClassVar[StringMatch.How]
        PREFIX: _ClassVar[StringMatch.How]
        REGEX: _ClassVar[StringMatch.How]
        REGEX_START: _ClassVar[StringMatch.How]
    EXACT: StringMatch.How
    PREFIX: StringMatch.How
    REGEX: StringMatch.How
    REGEX_START: StringMatch.How
    NAME_FIELD_NUMBER: _ClassVar[int]
    HOW_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    how: StringMatch.How
    value: str
    def __init__(self, name: _Optional[str] = ..., how: _Optional[_Union[StringMatch.How, str]] = ..., value: _Optional[str] = ...) -> None: ...

class Route(_message.Message):
    __slots__ = ("name", "backends", "request_headers", "response_headers", "redirect", "rewrite", "mirrors", "timeout_ms", "try_timeout_ms", "retry", "refuse", "empty_backend", "sticky", "no_timeout", "times")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BACKENDS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_HEADERS_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_HEADERS_FIELD_NUMBER: _ClassVar[int]
    REDIRECT_FIELD_NUMBER: _ClassVar[int]
    REWRITE_FIELD_NUMBER: _ClassVar[int]
    MIRRORS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    TRY_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    RETRY_FIELD_NUMBER: _ClassVar[int]
    REFUSE_FIELD_NUMBER: _ClassVar[int]
    EMPTY_BACKEND_FIELD_NUMBER: _ClassVar[int]
    STICKY_FIELD_NUMBER: _ClassVar[int]
    NO_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    TIMES_FIELD_NUMBER: _ClassVar[int]
    name: str
    backends: _containers.RepeatedCompositeFieldContainer[Backend]
    request_headers: HeaderChanges
    response_headers: HeaderChanges
    redirect: Redirect
    rewrite: Rewrite
    mirrors: _containers.RepeatedCompositeFieldContainer[Mirror]
    timeout_ms: int
    try_timeout_ms: int
    retry: Retry
    refuse: int
    empty_backend: EmptyBackend
    sticky: Sticky
    no_timeout: bool
    times: AnswerTimes
    def __init__(self, name: _Optional[str] = ..., backends: _Optional[_Iterable[_Union[Backend, _Mapping]]] = ..., request_headers: _Optional[_Union[HeaderChanges, _Mapping]] = ..., response_headers: _Optional[_Union[HeaderChanges, _Mapping]] = ..., redirect: _Optional[_Union[Redirect, _Mapping]] = ..., rewrite: _Optional[_Union[Rewrite, _Mapping]] = ..., mirrors: _Optional[_Iterable[_Union[Mirror, _Mapping]]] = ..., timeout_ms: _Optional[int] = ..., try_timeout_ms: _Optional[int] = ..., retry: _Optional[_Union[Retry, _Mapping]] = ..., refuse: _Optional[int] = ..., empty_backend: _Optional[_Union[EmptyBackend, str]] = ..., sticky: _Optional[_Union[Sticky, _Mapping]] = ..., no_timeout: _Optional[bool] = ..., times: _Optional[_Union[AnswerTimes, _Mapping]] = ...) -> None: ...

class AnswerTimes(_message.Message):
    __slots__ = ("response_start_timeout_ms", "response_timeout_ms", "idle_timeout_ms")
    RESPONSE_START_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    IDLE_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    response_start_timeout_ms: int
    response_timeout_ms: int
    idle_timeout_ms: int
    def __init__(self, response_start_timeout_ms: _Optional[int] = ..., response_timeout_ms: _Optional[int] = ..., idle_timeout_ms: _Optional[int] = ...) -> None: ...

class HeaderValue(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class HeaderChanges(_message.Message):
    __slots__ = ("set", "add", "remove")
    SET_FIELD_NUMBER: _ClassVar[int]
    ADD_FIELD_NUMBER: _ClassVar[int]
    REMOVE_FIELD_NUMBER: _ClassVar[int]
    set: _containers.RepeatedCompositeFieldContainer[HeaderValue]
    add: _containers.RepeatedCompositeFieldContainer[HeaderValue]
    remove: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, set: _Optional[_Iterable[_Union[HeaderValue, _Mapping]]] = ..., add: _Optional[_Iterable[_Union[HeaderValue, _Mapping]]] = ..., remove: _Optional[_Iterable[str]] = ...) -> None: ...

class Redirect(_message.Message):
    __slots__ = ("scheme", "host", "port", "full_path", "prefix", "status")
    SCHEME_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    FULL_PATH_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    scheme: str
    host: str
    port: int
    full_path: str
    prefix: str
    status: int
    def __init__(self, scheme: _Optional[str] = ..., host: _Optional[str] = ..., port: _Optional[int] = ..., full_path: _Optional[str] = ..., prefix: _Optional[str] = ..., status: _Optional[int] = ...) -> None: ...

class Rewrite(_message.Message):
    __slots__ = ("host", "full_path", "prefix")
    HOST_FIELD_NUMBER: _ClassVar[int]
    FULL_PATH_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    host: str
    full_path: str
    prefix: str
    def __init__(self, host: _Optional[str] = ..., full_path: _Optional[str] = ..., prefix: _Optional[str] = ...) -> None: ...

class Mirror(_message.Message):
    __slots__ = ("backend", "numerator", "denominator")
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    NUMERATOR_FIELD_NUMBER: _ClassVar[int]
    DENOMINATOR_FIELD_NUMBER: _ClassVar[int]
    backend: Backend
    numerator: int
    denominator: int
    def __init__(self, backend: _Optional[_Union[Backend, _Mapping]] = ..., numerator: _Optional[int] = ..., denominator: _Optional[int] = ...) -> None: ...

class Sticky(_message.Message):
    __slots__ = ("header", "cookie")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    COOKIE_FIELD_NUMBER: _ClassVar[int]
    header: str
    cookie: str
    def __init__(self, header: _Optional[str] = ..., cookie: _Optional[str] = ...) -> None: ...

class Retry(_message.Message):
    __slots__ = ("conditions", "attempts", "budget_ratio", "budget_floor_per_second", "budget_ttl_ms", "backoff_ms", "none", "any_method")
    CONDITIONS_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    BUDGET_RATIO_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FLOOR_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    BUDGET_TTL_MS_FIELD_NUMBER: _ClassVar[int]
    BACKOFF_MS_FIELD_NUMBER: _ClassVar[int]
    NONE_FIELD_NUMBER: _ClassVar[int]
    ANY_METHOD_FIELD_NUMBER: _ClassVar[int]
    conditions: _containers.RepeatedScalarFieldContainer[str]
    attempts: int
    budget_ratio: float
    budget_floor_per_second: float
    budget_ttl_ms: int
    backoff_ms: int
    none: bool
    any_method: bool
    def __init__(self, conditions: _Optional[_Iterable[str]] = ..., attempts: _Optional[int] = ..., budget_ratio: _Optional[float] = ..., budget_floor_per_second: _Optional[float] = ..., budget_ttl_ms: _Optional[int] = ..., backoff_ms: _Optional[int] = ..., none: _Optional[bool] = ..., any_method: _Optional[bool] = ...) -> None: ...

class Endpoints(_message.Message):
    __slots__ = ("namespace", "name", "endpoints")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    name: str
    endpoints: _containers.RepeatedCompositeFieldContainer[Endpoint]
    def __init__(self, namespace: _Optional[str] = ..., name: _Optional[str] = ..., endpoints: _Optional[_Iterable[_Union[Endpoint, _Mapping]]] = ...) -> None: ...

class Endpoint(_message.Message):
    __slots__ = ("address", "service_port", "target_port", "identity", "mesh_port", "protocol", "labels", "zone", "weight")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    SERVICE_PORT_FIELD_NUMBER: _ClassVar[int]
    TARGET_PORT_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    MESH_PORT_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    ZONE_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    address: str
    service_port: int
    target_port: int
    identity: str
    mesh_port: int
    protocol: Protocol
    labels: _containers.ScalarMap[str, str]
    zone: str
    weight: int
    def __init__(self, address: _Optional[str] = ..., service_port: _Optional[int] = ..., target_port: _Optional[int] = ..., identity: _Optional[str] = ..., mesh_port: _Optional[int] = ..., protocol: _Optional[_Union[Protocol, str]] = ..., labels: _Optional[_Mapping[str, str]] = ..., zone: _Optional[str] = ..., weight: _Optional[int] = ...) -> None: ...

class TrustBundle(_message.Message):
    __slots__ = ("trust_domain", "anchors_der", "issuer_key_id")
    TRUST_DOMAIN_FIELD_NUMBER: _ClassVar[int]
    ANCHORS_DER_FIELD_NUMBER: _ClassVar[int]
    ISSUER_KEY_ID_FIELD_NUMBER: _ClassVar[int]
    trust_domain: str
    anchors_der: _containers.RepeatedScalarFieldContainer[bytes]
    issuer_key_id: bytes
    def __init__(self, trust_domain: _Optional[str] = ..., anchors_der: _Optional[_Iterable[bytes]] = ..., issuer_key_id: _Optional[bytes] = ...) -> None: ...

class CertifyRequest(_message.Message):
    __slots__ = ("namespace", "service_account", "pod", "token", "csr_der")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    SERVICE_ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    CSR_DER_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    service_account: str
    pod: str
    token: str
    csr_der: bytes
    def __init__(self, namespace: _Optional[str] = ..., service_account: _Optional[str] = ..., pod: _Optional[str] = ..., token: _Optional[str] = ..., csr_der: _Optional[bytes] = ...) -> None: ...

class CertifyResponse(_message.Message):
    __slots__ = ("leaf_der", "intermediates_der", "not_after_unix", "trust")
    LEAF_DER_FIELD_NUMBER: _ClassVar[int]
    INTERMEDIATES_DER_FIELD_NUMBER: _ClassVar[int]
    NOT_AFTER_UNIX_FIELD_NUMBER: _ClassVar[int]
    TRUST_FIELD_NUMBER: _ClassVar[int]
    leaf_der: bytes
    intermediates_der: _containers.RepeatedScalarFieldContainer[bytes]
    not_after_unix: int
    trust: TrustBundle
    def __init__(self, leaf_der: _Optional[bytes] = ..., intermediates_der: _Optional[_Iterable[bytes]] = ..., not_after_unix: _Optional[int] = ..., trust: _Optional[_Union[TrustBundle, _Mapping]] = ...) -> None: ...

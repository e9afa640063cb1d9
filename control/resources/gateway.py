"""HTTPRoute and GRPCRoute (gateway.networking.k8s.io) as far as they belong to a mesh: attached to a Service (GAMMA).

    spec.parentRefs[] kind Service     whose requests; other parents (a Gateway) are somebody else's
    spec.rules[]  matches -> filters -> backendRefs, timeouts, retry

These are the shapes, with the specification's defaults; `gateway_check` has what its CRD refuses beyond them.  What a route
does in the end, beside other routes and with the Services there are, is `attach`'s matter.
`hostnames` mean nothing to a mesh (GEP-1294): requests are found by their Service.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, field

from control.resources.core import Name, ObjectMeta, PortNumber, parse
from control.resources.shape import Shape, words
from control.store.store import Object

GROUP = "gateway.networking.k8s.io"
HTTP_VERSIONS = ("v1beta1", "v1")
GRPC_VERSIONS = ("v1alpha2", "v1")
SERVICE_GROUPS = ("", "core")  # "core" is how Linkerd's and Flagger's documents write it


HeaderValue = Annotated[str, Meta(min_length=1, max_length=4096)]
Duration = Annotated[str, Meta(extra={"expected": "a duration such as 500ms, 10s or 1m"})]


class HeaderMatch(Shape, frozen=True, kw_only=True):
    """Of a header (names have no case) or a query parameter (they have)."""

    type: Literal["Exact", "RegularExpression"] = "Exact"
    name: Annotated[str, Meta(min_length=1, max_length=256)]
    value: HeaderValue


class PathMatch(Shape, frozen=True, kw_only=True):
    type: Literal["Exact", "PathPrefix", "RegularExpression"] = "PathPrefix"
    value: Annotated[str, Meta(max_length=1024)] = "/"


class HttpMatch(Shape, frozen=True, kw_only=True):
    path: PathMatch = PathMatch()
    headers: tuple[HeaderMatch, ...] = ()
    query_params: tuple[HeaderMatch, ...] = ()
    method: Literal["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"] | None = None


class MethodMatch(Shape, frozen=True, kw_only=True):
    type: Literal["Exact", "RegularExpression"] = "Exact"
    service: Annotated[str, Meta(max_length=1024)] = ""
    method: Annotated[str, Meta(max_length=1024)] = ""


class GrpcMatch(Shape, frozen=True, kw_only=True):
    method: MethodMatch | None = None
    headers: tuple[HeaderMatch, ...] = ()


class Header(Shape, frozen=True, kw_only=True):
    name: Annotated[str, Meta(min_length=1, max_length=256)]
    value: HeaderValue


class HeaderModifier(Shape, frozen=True, kw_only=True):
    set: tuple[Header, ...] = ()
    add: tuple[Header, ...] = ()
    remove: tuple[str, ...] = ()


class PathModifier(Shape, frozen=True, kw_only=True):
    type: Literal["ReplaceFullPath", "ReplacePrefixMatch"]
    replace_full_path: Annotated[str, Meta(max_length=1024)] | None = None
    replace_prefix_match: Annotated[str, Meta(max_length=1024)] | None = None


class RequestRedirect(Shape, frozen=True, kw_only=True):
    scheme: Literal["http", "https"] | None = None
    hostname: Annotated[str, Meta(min_length=1, max_length=253)] | None = None
    path: PathModifier | None = None
    port: PortNumber | None = None
    status_code: Literal[301, 302, 303, 307, 308] = 302


class UrlRewrite(Shape, frozen=True, kw_only=True):
    hostname: Annotated[str, Meta(min_length=1, max_length=253)] | None = None
    path: PathModifier | None = None


class ObjectRef(Shape, frozen=True, kw_only=True):
    """Of a backend: a Service where nothing else is said."""

    group: str = ""
    kind: str = "Service"
    name: Name
    namespace: str = ""
    port: PortNumber | None = None


class Fraction(Shape, frozen=True, kw_only=True):
    numerator: Annotated[int, Meta(ge=0, le=2**31 - 1)]
    denominator: Annotated[int, Meta(ge=1, le=2**31 - 1)] = 100


class RequestMirror(Shape, frozen=True, kw_only=True):
    backend_ref: ObjectRef
    percent: Annotated[int, Meta(ge=0, le=100)] | None = None
    fraction: Fraction | None = None


FilterType = Literal[
    "RequestHeaderModifier",
    "ResponseHeaderModifier",
    "RequestMirror",
    "RequestRedirect",
    "URLRewrite",
    "CORS",
    "ExternalAuth",
    "ExtensionRef",
]


class Filter(Shape, frozen=True, kw_only=True):
    """The field of its type's name says what it does."""

    type: FilterType
    request_header_modifier: HeaderModifier | None = None
    response_header_modifier: HeaderModifier | None = None
    request_mirror: RequestMirror | None = None
    request_redirect: RequestRedirect | None = None
    url_rewrite: UrlRewrite | None = None
    cors: Any = None
    external_auth: Any = None
    extension_ref: Any = None


class BackendRef(ObjectRef, frozen=True, kw_only=True):
    weight: Annotated[int, Meta(ge=0, le=1_000_000)] = 1
    filters: tuple[Filter, ...] = ()


class Timeouts(Shape, frozen=True, kw_only=True):
    request: Duration | None = None
    backend_request: Duration | None = None


class Retry(Shape, frozen=True, kw_only=True):
    codes: tuple[Annotated[int, Meta(ge=400, le=599)], ...] = ()
    attempts: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    backoff: Duration | None = None


class HttpRule(Shape, frozen=True, kw_only=True):
    name: str = ""
    matches: tuple[HttpMatch, ...] = ()
    filters: tuple[Filter, ...] = ()
    backend_refs: tuple[BackendRef, ...] = ()
    timeouts: Timeouts | None = None
    retry: Retry | None = None
    session_persistence: Any = None


class GrpcRule(Shape, frozen=True, kw_only=True):
    name: str = ""
    matches: tuple[GrpcMatch, ...] = ()
    filters: tuple[Filter, ...] = ()
    backend_refs: tuple[BackendRef, ...] = ()
    session_persistence: Any = None


class ParentRef(Shape, frozen=True, kw_only=True):
    group: str = GROUP
    kind: str = "Gateway"
    namespace: str = ""
    name: Name
    section_name: str = ""
    port: PortNumber | None = None

    @property
    def is_service(self) -> bool:
        return self.kind == "Service" and self.group in SERVICE_GROUPS


class HttpSpec(Shape, frozen=True, kw_only=True):
    unread = words("hostnames useDefaultGateways")
    parent_refs: tuple[ParentRef, ...] = ()
    rules: tuple[HttpRule, ...] = (HttpRule(),)


class GrpcSpec(Shape, frozen=True, kw_only=True):
    unread = words("hostnames useDefaultGateways")
    parent_refs: tuple[ParentRef, ...] = ()
    rules: tuple[GrpcRule, ...] = ()


class RouteMeta(ObjectMeta, frozen=True, kw_only=True):
    unread = ObjectMeta.unread - {"creationTimestamp"}
    creation_timestamp: str = field(name="creationTimestamp", default="")


class HttpRoute(Shape, frozen=True, kw_only=True):
    unread = words("apiVersion")
    kind: Literal["HTTPRoute"] = "HTTPRoute"
    metadata: RouteMeta
    spec: HttpSpec = HttpSpec()
    status: Any = None


class GrpcRoute(Shape, frozen=True, kw_only=True):
    unread = words("apiVersion")
    kind: Literal["GRPCRoute"] = "GRPCRoute"
    metadata: RouteMeta
    spec: GrpcSpec = GrpcSpec()
    status: Any = None


Route = HttpRoute | GrpcRoute


def parse_http_route(obj: Object) -> HttpRoute:
    """The typed view of an accepted object.  Raises msgspec.ValidationError (a ValueError) on one never checked."""
    return parse(obj, HttpRoute)


def parse_grpc_route(obj: Object) -> GrpcRoute:
    return parse(obj, GrpcRoute)

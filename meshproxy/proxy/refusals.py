"""Why the proxy itself answers a request, and how each reason names itself: one table.

    reason (metric label, `mesh-error` header)  ->  HTTP status, gRPC status, text for people

gRPC clients get HTTP 200 with a trailers-only answer (gRPC over HTTP/2: "Trailers-Only"), everyone else the status with
a short plain-text body.  Statuses follow Linkerd's table (reference: linkerd2-proxy app/core errors/respond.rs).
"""

from __future__ import annotations

from typing import Final

from meshproxy.policy.access import REASONS
from meshproxy.wire.engine import (
    APP_FAILED,
    CANCEL,
    CONNECT_ERROR,
    ENHANCE_YOUR_CALM,
    INADEQUATE_SECURITY,
    INTERNAL_ERROR,
    NO_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
)
from meshproxy.wire.message import Field, Head


class Refusal:
    """One reason.  `reset`: between mesh peers the stream is reset with this code instead of an answer (NO_ERROR: answered):
    REFUSED_STREAM says "certainly not acted on", so the peer may try elsewhere whatever the method.
    `ours`: this proxy lacks something, so no endpoint is judged by it, and no other one is asked.
    `retry_after_s`: when it may be worth trying again (RFC 9110 10.2.3; gRPC's own clients read their own field)."""

    def __init__(
        self, reason: str, status: int, grpc: int, text: str, reset: int = NO_ERROR, ours: bool = False, retry_after_s: int = 0
    ) -> None:
        self.retry_after_s = retry_after_s
        self.reset = reset
        self.ours = ours
        self.reason = reason
        self.status = status
        self.grpc = grpc
        self.text = text
        body = f"{reason}: {text}\n".encode()
        self.body = body
        self.head = _http_head(self, len(body))
        self.grpc_trailers = _grpc_trailers(self)
        self.grpc_head = self.grpc_answer(b"application/grpc")

    def grpc_answer(self, content_type: bytes) -> Head:
        """Trailers-only: the status is in the head, and nothing follows."""
        head = Head()
        head.status = 200
        head.grpc = True
        head.grpc_status = b"%d" % self.grpc
        head.fields = [Field(b"content-type", content_type), *self.grpc_trailers]
        return head

    def __repr__(self) -> str:
        return f"Refusal({self.reason})"


def _http_head(refusal: Refusal, length: int) -> Head:
    head = Head()
    head.status = refusal.status
    head.content_length = length
    head.fields = [
        Field(b"content-type", b"text/plain; charset=utf-8"),
        Field(b"content-length", b"%d" % length),
        Field(b"mesh-error", refusal.reason.encode()),
    ]
    if refusal.retry_after_s:
        head.fields.append(Field(b"retry-after", b"%d" % refusal.retry_after_s))
    return head


def _grpc_trailers(refusal: Refusal) -> list[Field]:
    fields = [
        Field(b"grpc-status", b"%d" % refusal.grpc),
        Field(b"grpc-message", percent_encode(f"meshproxy: {refusal.reason}: {refusal.text}")),
        Field(b"mesh-error", refusal.reason.encode()),
    ]
    if refusal.retry_after_s:
        fields.append(Field(b"grpc-retry-pushback-ms", b"%d" % (refusal.retry_after_s * 1000)))
    return fields


def percent_encode(text: str) -> bytes:
    """As grpc-message is written (gRPC over HTTP/2, "Status-Message"): UTF-8, and "%" and all but visible ASCII as %XX."""
    return b"".join([b"%c" % c if 0x20 <= c <= 0x7E and c != 0x25 else b"%%%02X" % c for c in text.encode()])


# gRPC: 1 CANCELLED, 4 DEADLINE_EXCEEDED, 5 NOT_FOUND, 7 PERMISSION_DENIED, 8 RESOURCE_EXHAUSTED, 10 ABORTED, 12 UNIMPLEMENTED,
# 13 INTERNAL, 14 UNAVAILABLE
NO_ROUTE: Final = Refusal("no_route", 404, 5, "the mesh has no Service of this name with this port (SERVICE.NAMESPACE:PORT)")
NO_RULE: Final = Refusal("no_rule", 404, 12, "routes are attached to this Service, and no rule of them fits this request")
RULE_INVALID: Final = Refusal("rule_invalid", 500, 14, "the rule for this request asks for what this mesh cannot do")
BACKEND_INVALID: Final = Refusal("backend_invalid", 500, 14, "the rule for this request names a backend that does not exist")
AMBIGUOUS_PATH: Final = Refusal(
    "ambiguous_path", 400, 13, "rules on paths apply, and this path can be read in more than one way"
)
BAD_AUTHORITY: Final = Refusal("bad_authority", 400, 13, "the request does not name a host this proxy can reach")
NO_ENDPOINTS: Final = Refusal(
    "no_endpoints", 503, 14, "the service has no endpoint that could take the request", REFUSED_STREAM
)
CIRCUIT_OPEN: Final = Refusal(
    "circuit_open",
    503,
    14,
    "every endpoint of the service failed too often and is left out for a while",
    REFUSED_STREAM,
    False,
    1,
)
NO_BACKEND: Final = Refusal("no_backend", 503, 14, "all backends of the split have weight zero")
QUEUE_FULL: Final = Refusal("queue_full", 503, 14, "too many requests wait for a connection to this endpoint", REFUSED_STREAM)
NO_CAPACITY: Final = Refusal("no_capacity", 503, 14, "the endpoint took no further request in time", REFUSED_STREAM)
CONNECT_FAILED: Final = Refusal("connect_failed", 502, 14, "no connection to the endpoint", REFUSED_STREAM)
NAME_NOT_FOUND: Final = Refusal(
    "name_not_found", 502, 14, "the endpoint's name has no address, or no name server answered", REFUSED_STREAM
)
CONNECT_TIMEOUT: Final = Refusal("connect_timeout", 504, 14, "the endpoint did not accept a connection in time", REFUSED_STREAM)
PEER_REFUSED: Final = Refusal("peer_identity", 502, 14, "the endpoint did not prove the identity expected of it")
UPSTREAM_RESET: Final = Refusal("upstream_reset", 502, 14, "the endpoint ended the exchange before it answered", INTERNAL_ERROR)
# What RST_STREAM says to a gRPC client (gRPC over HTTP/2, "Errors") is said to it as a status, and to a mesh peer as it came.
UPSTREAM_CANCELLED: Final = Refusal("upstream_cancelled", 502, 1, "the endpoint cancelled before it answered", CANCEL)
UPSTREAM_EXHAUSTED: Final = Refusal("upstream_exhausted", 502, 8, "the endpoint asked for less load", ENHANCE_YOUR_CALM)
UPSTREAM_INSECURE: Final = Refusal(
    "upstream_insecure", 502, 7, "the endpoint wants a safer transport than it has", INADEQUATE_SECURITY
)
UPSTREAM_FAILED: Final = Refusal("upstream_failed", 502, 13, "the endpoint reset the call before it answered", APP_FAILED)
UPSTREAM_MALFORMED: Final = Refusal("upstream_malformed", 502, 13, "the endpoint's answer broke the protocol")
UPGRADE_DECLINED: Final = Refusal("upgrade_declined", 502, 14, "the endpoint answered the request for a tunnel with a page")
REQUEST_TIMEOUT: Final = Refusal("request_timeout", 504, 4, "the request's time was up")
TRY_TIMEOUT: Final = Refusal("try_timeout", 504, 4, "the endpoint took longer than an attempt may (backendRequest)")
DEADLINE_EXCEEDED: Final = Refusal("deadline_exceeded", 504, 4, "the request's own deadline passed, which its client set")
RESPONSE_START_TIMEOUT: Final = Refusal(
    "response_start_timeout", 504, 4, "the endpoint did not begin its answer in time (timeout-response-start)"
)
RESPONSE_TIMEOUT: Final = Refusal("response_timeout", 504, 4, "the endpoint's answer took too long (timeout-response)")
IDLE_TIMEOUT: Final = Refusal("idle_timeout", 504, 4, "nothing moved for too long, in either direction (timeout-idle)")
NOT_AUTHENTICATED: Final = Refusal("not_authenticated", 403, 7, "this port takes requests of mesh identities only")
FORBIDDEN: Final = Refusal("forbidden", 403, 7, "this pod takes no requests but health probes (default-inbound-policy: deny)")
ACCESS: Final = {reason: Refusal(reason, 403, 7, text) for reason, text in REASONS.items()}  # what TrafficTargets do not allow
NOT_HTTP: Final = Refusal(
    "not_http", 403, 7, "this port is declared to carry HTTP (appProtocol), and these are other bytes, or a tunnel for them"
)
HTTP_IN_TUNNEL: Final = Refusal(
    "http_in_tunnel", 403, 7, "HTTP goes to this port as requests, which rules apply to, and not inside a tunnel"
)
PORT_NOT_LISTED: Final = Refusal("port_not_listed", 403, 7, "the pod's configuration does not list this port")
LOOP: Final = Refusal("loop", 508, 10, "the request would come back to this proxy")
NOT_READY: Final = Refusal("not_ready", 503, 14, "this proxy has no configuration yet")
DRAINING: Final = Refusal("draining", 503, 14, "this proxy is shutting down", REFUSED_STREAM)
BAD_TARGET: Final = Refusal("bad_target", 400, 13, "a mesh peer did not name a valid target port")
SLOW_BODY: Final = Refusal("slow_body", 408, 4, "the rest of the request's body did not come in time")
BAD_MAX_FORWARDS: Final = Refusal("bad_max_forwards", 400, 13, "Max-Forwards is not one decimal number")
# As httpd's `TraceEnable off` and nginx have it.
TRACE_REFUSED: Final = Refusal("trace_refused", 405, 12, "Max-Forwards ends here, and this proxy reflects no requests")
OVERLOADED: Final = Refusal("overloaded", 503, 14, "this proxy is short of memory", REFUSED_STREAM)
NO_DESCRIPTORS: Final = Refusal(
    "no_descriptors", 503, 14, "this proxy has no file descriptor left for a connection to the endpoint", REFUSED_STREAM, True
)
INTERNAL: Final = Refusal("internal_error", 500, 13, "an error inside the proxy; it was counted and logged")

# How a stream's end is told when no answer has begun, by its code.
_ENDED_BY: Final = {
    PROTOCOL_ERROR: UPSTREAM_MALFORMED,
    CANCEL: UPSTREAM_CANCELLED,
    ENHANCE_YOUR_CALM: UPSTREAM_EXHAUSTED,
}
# To gRPC: its own mapping (gRPC over HTTP/2, "Errors"), by which every other code is INTERNAL.
_GRPC_ENDED_BY: Final = {
    **_ENDED_BY,
    CONNECT_ERROR: UPSTREAM_RESET,
    INADEQUATE_SECURITY: UPSTREAM_INSECURE,
    REFUSED_STREAM: UPSTREAM_RESET,
}


def ended_by(code: int, grpc: bool, meshed: bool) -> Refusal:
    """Why a stream ended before its answer began; `code` as `Sink.response_reset` has it.  `meshed`: it was to a mesh peer,
    which says INTERNAL_ERROR where it lost the app, and APP_FAILED for what the app's own server said."""
    if not grpc:
        return _ENDED_BY.get(code, UPSTREAM_RESET)
    if meshed and code == INTERNAL_ERROR:
        return UPSTREAM_RESET
    return _GRPC_ENDED_BY.get(code, UPSTREAM_FAILED)

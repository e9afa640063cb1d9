"""Every metric family, declared once: name, type, help, label names.

Names, labels and meaning are Linkerd's where it has the family (linkerd2-proxy, linkerd/http/metrics and linkerd/app/core), so
its dashboards and Flagger's queries read ours.  What is ours alone begins with `meshproxy_`.

A label that does not apply is left out, which to Prometheus is the same as an empty one.
"""

from __future__ import annotations

from typing import Final

COUNTER: Final = "counter"
GAUGE: Final = "gauge"
HISTOGRAM: Final = "histogram"

# How a gauge of several worker processes becomes one (counters and histograms are always summed).
SUM: Final = "sum"
MAX: Final = "max"

Labels = tuple[tuple[str, str], ...]

INBOUND: Final = "inbound"
OUTBOUND: Final = "outbound"

# Label names a series may have, in the order they are written.  A list of what exists, not of what must be there.
LABEL_NAMES: Final = (
    "direction",
    "peer",  # tcp: src or dst, which side of this proxy the connection is on
    "namespace",  # of the pod this proxy serves, with its deployment, pod and service account
    "deployment",
    "pod",
    "serviceaccount",
    "version",
    "authority",  # outbound: the Service as it was asked for, canonical
    "tls",  # true | disabled | no_identity | opaque
    "client_id",  # inbound: SPIFFE ID of the caller
    "server_id",  # outbound: SPIFFE ID of the endpoint
    "no_tls_reason",
    "dst_namespace",
    "dst_service",
    "rt_route",  # outbound, of exchanges: the rule that took them ("HTTPRoute shop/web rule 0"); configuration bounds it
    "dst_deployment",
    "dst_pod",
    "dst_serviceaccount",
    "dst_version",
    "dst_port",
    "target_addr",
    "target_ip",
    "target_port",
)

# Linkerd's (linkerd/metrics/src/latency.rs), in milliseconds.  The last bucket, +Inf, is implied.
BUCKETS_MS: Final = (
    1, 2, 3, 4, 5,
    10, 20, 30, 40, 50,
    100, 200, 300, 400, 500,
    1_000, 2_000, 3_000, 4_000, 5_000,
    10_000, 20_000, 30_000, 40_000, 50_000,
)  # fmt: skip


class Family:
    """`name` without a histogram's suffixes; counters end in _total."""

    __slots__ = ("across", "help", "kind", "name")

    def __init__(self, name: str, kind: str, help: str, across: str = SUM) -> None:
        self.name = name
        self.kind = kind
        self.help = help
        self.across = across


class HttpFamilies:
    """The families one kind of HTTP series is written as."""

    __slots__ = ("cancelled", "duration", "latency", "requests", "responses", "retries", "skipped")

    def __init__(self, prefix: str, who: str) -> None:
        self.requests = Family(f"{prefix}request_total", COUNTER, f"Requests begun{who}.")
        self.responses = Family(f"{prefix}response_total", COUNTER, f"Requests ended{who}, by outcome.")
        self.latency = Family(f"{prefix}response_latency_ms", HISTOGRAM, f"Time to first response data{who}, milliseconds.")
        self.duration = Family(
            f"meshproxy_{prefix}response_duration_ms", HISTOGRAM, f"Time to the end of the response{who}, milliseconds."
        )
        self.cancelled = Family(
            f"meshproxy_{prefix}cancelled_total", COUNTER, f"Requests the client gave up before they ended{who}."
        )
        self.retries = Family(f"{prefix}retry_total", COUNTER, f"Retries sent{who}.")
        self.skipped = Family(f"{prefix}retry_skipped_total", COUNTER, f"Failures not retried{who}, by reason.")


# An attempt is what one endpoint did; an exchange is what the client saw, retries included (Linkerd: "effective").
ATTEMPTS: Final = HttpFamilies("", " (at one endpoint)")
EXCHANGES: Final = HttpFamilies("route_", " (as the client saw it, retries included)")

TCP_OPEN: Final = Family("tcp_open_total", COUNTER, "Connections opened.")
TCP_CLOSE: Final = Family("tcp_close_total", COUNTER, "Connections closed, by error.")
TCP_OPEN_CONNECTIONS: Final = Family("tcp_open_connections", GAUGE, "Connections open now.")
TCP_READ: Final = Family("tcp_read_bytes_total", COUNTER, "Bytes read from the peer.")
TCP_WRITE: Final = Family("tcp_write_bytes_total", COUNTER, "Bytes written to the peer.")

# Linkerd's buckets place a quantile within a factor of up to 2; a canary is compared with its primary at the p50, p90 and p99
# of the primary, which takes buckets that are narrow.  One histogram for all that comes in, sparse, and only counted from the
# first time that somebody asks for it by name (it is not on the whole page).
FINE_GROWTH: Final = 1.02  # each bound is 2 % above the one before it
FINE_LEAST_MS: Final = 0.1  # what is faster is in the first bucket
FINE: Final = Family(
    "meshproxy_inbound_success_latency_total", COUNTER, "Inbound successes by time to first response data, at most `upto_ms`."
)

REFUSED: Final = Family("meshproxy_refused_total", COUNTER, "Requests and connections the proxy itself refused, by reason.")
FOLDED: Final = Family(
    "meshproxy_series_folded_total", COUNTER, "Label sets that were counted under `other` because there were too many."
)
SERIES: Final = Family("meshproxy_series", GAUGE, "Label sets held now.")
BUILD_INFO: Final = Family("meshproxy_build_info", GAUGE, "Versions of this proxy; the value is always 1.")
CERT_EXPIRATION: Final = Family(
    "identity_cert_expiration_timestamp_seconds", GAUGE, "When this proxy's certificate expires, seconds since 1970.", MAX
)

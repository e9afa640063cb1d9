"""Every setting of the proxy that is not a wire limit: unit in the name, default, reason."""

from __future__ import annotations

from meshproxy.wire.limits import Limits


class Settings:
    """Read once at start.  The wire's own bounds are in `limits` (wire/limits.py)."""

    def __init__(self) -> None:
        self.limits = Limits()
        # -- connecting
        self.connect_timeout_s = 1.0  # TCP + TLS + HTTP/2 SETTINGS; Linkerd's connect timeout
        self.handshake_timeout_s = 10.0  # a peer that connects and says nothing
        self.detect_timeout_s = 10.0  # what a connection speaks must be clear this long after its first byte; Linkerd's
        # A client that says nothing this long may wait for its server to speak first (MySQL, SMTP): the server is asked.
        # Clients that speak first do so within a round-trip of connecting, so longer only makes people wait.
        self.server_first_s = 0.3
        # -- receiving
        self.head_timeout_s = 10.0  # a head that has begun must be complete: a request's (slowloris), or an HTTP/1.1 answer's
        self.body_idle_timeout_s = 60.0  # silence inside a message body, of a sender that we wait for
        self.stall_timeout_s = 300.0  # an answer of which its reader takes nothing; Envoy's stream idle timeout
        self.idle_timeout_s = 300.0  # a downstream connection without a request
        # A certificate that a connection was opened with has ended: what is under way has this long, then it is cut.  Nobody
        # vouches for the peer any more, so it is short; clients move to another connection well before (proxy/tls.py).
        self.expired_grace_s = 10.0
        self.pool_idle_timeout_s = 60.0  # an upstream connection without a request
        # A client that closes its sending side after a request may be waiting for the answer (half-close) or gone (a plain
        # close sends the same FIN).  The answer has this long to begin; then the request is cancelled upstream.
        self.half_close_s = 0.08
        # An answer that began before or after that FIN and then stands still: every byte of it would find out whether anyone is
        # there (RST), but none comes.  After this long without one the request is cancelled upstream.
        self.half_closed_idle_s = 10.0
        # -- requests
        self.replay_bytes = 64 * 1024  # request body kept for a retry; larger requests are not retried (Linkerd's figure)
        # -- saying that we were there; `forward` only: between mesh proxies the certificate says who calls, and no header
        self.via_name = ""  # Via: "1.1 NAME" on requests and answers (RFC 9110 7.6.3); "": none, a sidecar is part of its app
        self.forwarded_for = False  # x-forwarded-for: the client's address.  Off: whoever trusts it can be lied to by clients
        # -- processes
        self.workers = 1  # processes that share this proxy's work: each has 1/N of a retry budget's floor, and pools of its own
        # -- pools
        self.http1_connections = 1024  # per endpoint; further requests wait
        self.http2_connections = 4  # per endpoint: more only when streams run short
        self.bulk_connections = 4  # per meshed endpoint, beside those: for tunnels and large uploads
        self.bulk_bytes = 1024 * 1024  # a request whose content-length is above this is a large upload
        self.queue_timeout_s = (
            3.0  # nobody who waits for a connection got one for so long: all are refused (Linkerd's failfast)
        )
        self.waiting = 10_000  # requests waiting for a connection, per endpoint; 503 above (Linkerd's queue capacity)
        self.reconnect_min_s = 0.1  # after a failed connect the endpoint is left alone this long, doubling ...
        self.reconnect_max_s = 10.0  # ... up to this (Linkerd's back-off)
        # -- what the process may take on (proxy/pressure.py)
        self.memory_limit_bytes = 0  # resident; 0: the cgroup's limit alone, if there is one
        self.process_held_bytes = 64 * 1024 * 1024  # held back for slow readers and for retries; 503 `overloaded` above
        self.max_connections = 0  # accepted at once; then accepting pauses.  0: half of what the descriptors allow
        self.reserved_descriptors = 64  # kept from traffic: admin, control plane, DNS, logs
        self.admin_connections = 32  # the longest idle is closed above
        # -- peers that vanish without FIN (TCP's own timers, on every socket)
        self.tcp_keepalive_s = 10.0  # a silent connection is probed this often (Linkerd's)
        self.tcp_user_timeout_s = 30.0  # sent bytes or probes unacknowledged this long: the peer is gone (Linkerd's)
        # -- stopping
        self.drain_s = 30.0  # SIGTERM: in-flight requests have this long
        self.drain_accept_s = 0.5  # SIGTERM: keep accepting this long while readiness is seen to drop
        # -- HTTP/2 keepalive
        self.ping_interval_s = 10.0
        # To others than mesh peers: once more within the same silence.  A gRPC server says GOAWAY (ENHANCE_YOUR_CALM) to who
        # sends PINGs more often than every 5 minutes, while it has nothing to say itself.
        self.ping_others_s = 330.0
        self.ping_timeout_s = 3.0
        self.http2_engine = "ours"  # or "h2": the reference engine
        self.sweep_s = 1.0  # how often connection timeouts are looked at


# Write buffer of one socket, behind the kernel's own: above `high` its streams are told to stop, at `low` to go on.  The
# kernel's buffer (some MB) keeps the line busy meanwhile; one more here would only let another read of 256 KB come on top.
SOCKET_HIGH_BYTES = 16 * 1024
SOCKET_LOW_BYTES = 0

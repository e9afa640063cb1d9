"""What the control plane counts about its proxies; rendered at the admin's /metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class ServeMetrics:
    """The families of `control.serve`.  Labels are fixed words: no names of pods, so their number is bounded."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.streams = Gauge("meshproxy_control_streams", "Configuration streams that are open", registry=registry)
        self.updates = Counter("meshproxy_control_updates", "Updates sent to proxies", registry=registry)
        self.rejected = Counter(
            "meshproxy_control_resources_rejected",
            "Resources a proxy refused (version skew or a bug); frozen for it at their last good form",
            registry=registry,
        )
        self.refused = Counter(
            "meshproxy_control_streams_refused",
            "Configuration streams refused or ended, by reason",
            ["reason"],
            registry=registry,
        )
        self.certificates = Counter("meshproxy_control_certificates", "Certificates issued to proxies", registry=registry)
        self.certify_refused = Counter(
            "meshproxy_control_certify_refused", "Certificate requests refused, by reason", ["reason"], registry=registry
        )
        self.issuer_not_after = Gauge(
            "meshproxy_control_issuer_not_after_seconds", "When the issuer's certificate ends, Unix time", registry=registry
        )

"""What the control plane counts about its proxies, and what it says of its authority; rendered at the admin's /metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from certs.rotation import Phase
from control.serve.issuer import CurrentAuthority, fingerprint

# Seconds.  Checking and signing take about a millisecond on one core, writing the used token what the disk takes; requests are
# worked on one after the other, so this times their number is how long a thousand proxies that renew at once wait.
CERTIFY_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class ServeMetrics:
    """The families of `control.serve`.  Labels are fixed words: no names of pods, so their number is bounded."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
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
        self.certify_duration = Histogram(
            "meshproxy_control_certify_duration_seconds",
            "Work on one certificate request, refused ones included",
            buckets=CERTIFY_BUCKETS,
            registry=registry,
        )


class AuthorityCollector(Collector):
    """When what vouches for everybody ends, and whether the files on disk are what is in force.  `issuer_cert_ttl_seconds` is
    Linkerd's; ours are times, so that a page that is old misleads nobody."""

    def __init__(self, authority: CurrentAuthority, clock: Callable[[], float]) -> None:
        self._authority, self._clock = authority, clock

    def collect(self) -> Iterable[Metric]:
        authority = self._authority
        in_force = authority()
        ends = in_force.not_after
        yield GaugeMetricFamily(
            "issuer_cert_ttl_seconds", "Seconds until the issuer's certificate (or one above it) ends", ends - self._clock()
        )
        yield GaugeMetricFamily("meshproxy_control_issuer_not_after_seconds", "When that is, Unix time", ends)
        anchors = GaugeMetricFamily(
            "meshproxy_control_trust_anchor_not_after_seconds",
            "When each trust anchor in force ends, Unix time; at most 16",
            labels=["anchor", "state"],
        )
        for der, anchor in zip(in_force.bundle.anchors_der, in_force.bundle.anchors, strict=True):
            state = "kept" if der in authority.rotation.kept else "configured"
            anchors.add_metric([fingerprint(der), state], anchor.not_valid_after_utc.timestamp())
        yield anchors
        phases = GaugeMetricFamily(
            "meshproxy_control_authority_phase", "1 for the phase that a change of authority is in", labels=["phase"]
        )
        for phase in Phase:
            phases.add_metric([phase.value], float(phase is authority.phase))
        yield phases
        yield GaugeMetricFamily(
            "meshproxy_control_authority_refused",
            "1 while the authority's files are not usable and the last good ones are in force",
            float(bool(authority.problem)),
        )

"""What a sidecar says of itself: readiness, metrics of its membership, the configuration in force.

The same whether this process carries the traffic (sidecar.py) or its workers do (supervised.py).
"""

from __future__ import annotations

import hashlib
import time
from typing import Any

from meshproxy.admin import Status
from meshproxy.mesh.identity import IdentitySettings
from meshproxy.mesh.knowledge import Known
from meshproxy.mesh.membership import Membership
from meshproxy.telemetry.registry import Registry


class SidecarStatus(Status):
    """A member of the mesh.  Subclasses say what becomes of a configuration (`build`) and an identity."""

    def __init__(self, registry: Registry, settings: IdentitySettings, control: str) -> None:
        self.version = 0
        self.listen_errors: dict[str, str] = {}
        self.membership = Membership(settings, control, self.build)
        self.membership.identity.on_change(self.identity_changed)
        self.expiration = registry.cert_expiration()
        self.gauges = {
            name: registry.gauge(name, text)
            for name, text in (
                ("identity_cert_refresh_count", "Certificates received."),
                ("identity_cert_refresh_failures", "Attempts to get a certificate that failed."),
                ("identity_cert_refresh_timestamp_seconds", "When the last certificate was received, seconds since 1970."),
                (
                    "identity_issuer_expiration_timestamp_seconds",
                    "When the first certificate between this proxy's own and its anchor expires, seconds since 1970.",
                ),
                ("identity_trust_anchors", "Roots that peers are checked with."),
                (
                    "identity_trust_anchor_expiration_timestamp_seconds",
                    "When the first of these roots expires, seconds since 1970.",
                ),
                ("meshproxy_control_connected", "1 while the configuration stream is up."),
                ("meshproxy_control_stale_seconds", "How long this proxy has been on its own, 0 when it is not."),
                ("meshproxy_configuration_version", "Updates put in force."),
                ("meshproxy_configuration_rejected", "Resources rejected because this proxy cannot use them."),
            )
        }
        self.refreshes = {
            result: registry.counter(
                "identity_cert_refreshes_total", "Attempts to get a certificate, by result.", (("result", result),)
            )
            for result in ("ok", "error")
        }
        self.measure_chain()
        registry.on_scrape(self.measure)

    def build(self, known: Known) -> None:
        """Put `known` in force.  Raises ResourceRejected."""
        raise NotImplementedError

    def identity_changed(self) -> None:
        self.measure_chain()

    def service_destinations(self) -> dict[str, str]:
        """Address of each service listener -> where it leads."""
        raise NotImplementedError

    def unready(self) -> str:
        ready, why = self.membership.ready(time.time())
        if not ready:
            return why
        return next(iter(self.listen_errors.values()), "")

    def notes(self) -> str:
        _, why = self.membership.ready(time.time())
        return "" if why == "ready" else why

    def measure(self) -> None:
        identity, watch, knowledge = self.membership.identity, self.membership.watch, self.membership.knowledge
        values = {
            "identity_cert_refresh_count": identity.renewals,
            "identity_cert_refresh_failures": identity.failures,
            "meshproxy_control_connected": watch.connected_since is not None,
            "meshproxy_control_stale_seconds": time.time() - watch.stale_since if watch.stale_since is not None else 0.0,
            "meshproxy_configuration_version": self.version,
            "meshproxy_configuration_rejected": knowledge.rejected,
        }
        for name, value in values.items():
            self.gauges[name].value = float(value)
        self.refreshes["ok"].value = identity.renewals
        self.refreshes["error"].value = identity.failures

    def measure_chain(self) -> None:
        """Once a certificate or the anchors have changed."""
        identity = self.membership.identity
        anchors = identity.bundle.anchors
        self.gauges["identity_trust_anchors"].value = float(len(anchors))
        self.gauges["identity_trust_anchor_expiration_timestamp_seconds"].value = min(
            anchor.not_valid_after_utc.timestamp() for anchor in anchors
        )
        svid = identity.svid
        if svid is not None:
            self.expiration.value = svid.not_after
            self.gauges["identity_cert_refresh_timestamp_seconds"].value = identity.renewed_at
            self.gauges["identity_issuer_expiration_timestamp_seconds"].value = min(
                (above.not_valid_after_utc.timestamp() for above in svid.intermediates), default=0.0
            )

    def config(self) -> dict[str, Any]:
        from google.protobuf import json_format  # here because only who looks at /config needs it: 0.25 MB

        known = self.membership.knowledge.known
        svid = self.membership.identity.svid
        resources = [
            {"kind": kind, "name": name, "hash": resource.hash, "content": json_format.MessageToDict(resource)}
            for (kind, name), resource in sorted(known.resources.items())
        ]
        return {
            "identity": str(self.membership.identity.spiffe_id),
            "certificate_expires_unix": svid.not_after if svid is not None else None,
            "certificate_issuer": svid.issuer_key_id.hex() if svid is not None else None,
            "trust_anchors": [hashlib.sha256(der).hexdigest()[:16] for der in self.membership.identity.bundle.anchors_der],
            "version": self.version,
            "resources": resources,
            "service_listeners": self.service_destinations(),
        }

"""What compiling needs to know beyond the objects."""

from __future__ import annotations

from dataclasses import dataclass

from control.runtime.layout import INBOUND_PORT


@dataclass(frozen=True, slots=True)
class Settings:
    trust_domain: str
    anchors_der: tuple[bytes, ...] = ()  # root certificates; several while they rotate
    issuer_key_id: bytes = b""  # of who signs leaves now: proxies whose leaf another signed renew soon
    cluster_domain: str = "cluster.local"
    inbound_port: int = INBOUND_PORT  # of every sidecar

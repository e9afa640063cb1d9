"""What compiling needs to know beyond the objects."""

from __future__ import annotations

from dataclasses import dataclass

from control.runtime.layout import INBOUND_PORT


@dataclass(frozen=True, slots=True)
class Settings:
    trust_domain: str
    anchors_der: tuple[bytes, ...] = ()  # root certificates; several while they rotate
    cluster_domain: str = "cluster.local"
    inbound_port: int = INBOUND_PORT  # of every sidecar

"""What a worker is to do, its settings, and `forward`'s data path made from its plan (in one process or in each worker).

No msgspec here: 4 MB that a proxy of one process does not need.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from meshproxy.proxy.context import Context
from meshproxy.proxy.forward import FixedCredentials, ForwardSide, Target
from meshproxy.proxy.settings import Settings
from meshproxy.proxy.tls import NEVER, TlsFailure


@dataclass(slots=True)
class ForwardPlan:
    """What `forward` is to do.  The contexts' material is PEM; b"" where there is none."""

    targets: list[tuple[str, int]]
    upstream: str
    timeout_s: float = 0.0
    chain_pem: bytes = b""  # to serve TLS with
    key_pem: bytes = b""
    client_ca_pem: bytes = b""  # to demand a client certificate under
    upstream_chain_pem: bytes = b""
    upstream_key_pem: bytes = b""
    upstream_ca_pem: bytes = b""  # not b"": speak TLS to the targets
    upstream_identity: str = ""


@dataclass(slots=True)
class SidecarPlan:
    """What a sidecar is to do, as far as it is known at its start."""

    trust_domain: str
    namespace: str
    pod_ip: str
    own: list[str]  # "host:port" of the listeners: a request to one of them is a loop


def plain_values(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Every setting by name, those of nested objects as "limits.head_bytes".  (By `dir`: a compiled object has no
    `__dict__`.)"""
    found: dict[str, Any] = {}
    for name in dir(settings):
        value = getattr(settings, name)
        if name.startswith("_") or callable(value):
            continue
        if isinstance(value, bool | int | float | str):
            found[prefix + name] = value
        else:
            found |= plain_values(value, f"{prefix}{name}.")
    return found


def settings_of(values: dict[str, Any]) -> Settings:
    """The reverse.  Raises AttributeError for a name that Settings does not have."""
    settings: Any = Settings()
    for path, value in values.items():
        *parents, name = path.split(".")
        owner = settings
        for parent in parents:
            owner = getattr(owner, parent)
        kind = type(getattr(owner, name))
        setattr(owner, name, kind(value))
    made: Settings = settings
    return made


def identify(leaf_der: bytes) -> str:
    """A peer's identity, from its certificate (whose chain OpenSSL has checked).  Raises TlsFailure."""
    from certs.verify import PeerRefused, check_any_leaf

    try:
        return str(check_any_leaf(leaf_der))
    except PeerRefused as refusal:
        raise TlsFailure(refusal.reason, refusal.detail) from refusal


# What TARGETs may choose from.
ALPN: dict[str, tuple[str, ...]] = {"http1": ("http/1.1",), "http2": ("h2",), "auto": ("h2", "http/1.1"), "tcp": ()}


def forward_side(ctx: Context, plan: ForwardPlan) -> ForwardSide:
    serve_with: FixedCredentials | None = None
    connect_with: FixedCredentials | None = None
    if plan.chain_pem or plan.upstream_ca_pem:
        from certs.context import HTTP_ALPN, client_context, server_context
        from certs.verify import chain_end, leaf_end

        if plan.chain_pem:
            offered = () if plan.upstream == "tcp" else HTTP_ALPN
            context = server_context(plan.chain_pem, plan.key_pem, plan.client_ca_pem or None, offered)
            own_end = chain_end(plan.chain_pem) if plan.client_ca_pem else NEVER  # plain TLS proves nothing that ends
            serve_with = FixedCredentials(context, None, identify, leaf_end, own_end)
        if plan.upstream_ca_pem:
            context = client_context(
                plan.upstream_chain_pem or None, plan.upstream_key_pem or None, plan.upstream_ca_pem, ALPN[plan.upstream]
            )
            own_end = chain_end(plan.upstream_chain_pem) if plan.upstream_chain_pem else NEVER
            connect_with = FixedCredentials(None, context, identify, leaf_end, own_end)
    return ForwardSide(
        ctx,
        [Target(host, port) for host, port in plan.targets],
        plan.upstream,
        plan.timeout_s,
        serve_with,
        bool(plan.client_ca_pem),
        connect_with,
        plan.upstream_identity,
    )

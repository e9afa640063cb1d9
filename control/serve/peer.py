"""Who is at the other end of a gRPC stream: the SVID in its auth context, verified by our own code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.bundle import TrustBundle
from certs.spiffe import SpiffeId
from certs.svid import authority_key_id
from certs.verify import PeerRefused, read_leaf, verify_peer


@dataclass(frozen=True, slots=True)
class Presented:
    """What a peer's certificate says; `not_after` in Unix seconds."""

    identity: SpiffeId
    not_after: float
    issuer_key_id: bytes


def peer_of(auth_context: Mapping[str, Sequence[bytes]], bundle: TrustBundle, now: float) -> Presented:
    """Who the peer is, by the certificate it presented.  Raises PeerRefused.

    grpc has checked the chain against the anchors; we check it again, because its idea of a good leaf is TLS's."""
    pem = auth_context.get("x509_pem_cert")
    if not pem:
        raise PeerRefused("malformed", "no client certificate; this port wants the proxy's SVID")
    try:
        leaf = x509.load_pem_x509_certificate(pem[0]).public_bytes(Encoding.DER)
        chain = [c.public_bytes(Encoding.DER) for c in x509.load_pem_x509_certificates(auth_context["x509_pem_cert_chain"][0])]
    except (ValueError, KeyError, IndexError) as error:
        raise PeerRefused("malformed", f"unreadable client certificate ({error})") from None
    identity = verify_peer(leaf, [der for der in chain if der != leaf], bundle, now)
    return Presented(identity, read_leaf(leaf, bundle.trust_domain).not_after, authority_key_id(leaf))

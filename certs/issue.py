"""Issuing leaves: from a template of our own, and checked by other code before one leaves.

    CSR --check_csr--> public key --template--> leaf --verify_peer--> out        (certs.csr, here, certs.verify)

The template (X509-SVID 2 to 4): empty subject, one URI SAN (critical, because the subject is empty: RFC 5280 4.2.1.6),
digitalSignature, client and server, NotBefore 30 s back, NotAfter never past the issuer's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from certs.authority import Authority, random_serial
from certs.csr import check_csr, new_key
from certs.spiffe import SpiffeId
from certs.svid import Svid
from certs.verify import PeerRefused, verify_peer

LIFETIME: Final = 24 * 3600.0  # s, of a leaf, unless told otherwise (Linkerd's)
MIN_LIFETIME: Final = 5.0  # s; below it a leaf could not be renewed in time
BACK_DATED: Final = 30.0  # s, for peers whose clock is behind


class IssueError(Exception):
    """No leaf can be issued now; `str()` says why."""


@dataclass(frozen=True, slots=True)
class Issued:
    """`not_after` in Unix seconds."""

    leaf_der: bytes
    intermediates_der: list[bytes]
    not_after: float


def issue_for_csr(authority: Authority, csr_der: bytes, spiffe_id: SpiffeId, now: float, lifetime: float = LIFETIME) -> Issued:
    """A leaf for `spiffe_id` and the key that signed `csr_der`.  Raises CsrRefused, IssueError."""
    return issue_leaf(authority, check_csr(csr_der, spiffe_id), spiffe_id, now, lifetime)


def issue_svid(
    authority: Authority, spiffe_id: SpiffeId, now: float, lifetime: float = LIFETIME, dns_name: str | None = None
) -> Svid:
    """A new key and its leaf in one step, for a process that holds the issuer: the control plane.  Raises IssueError."""
    key = new_key()
    issued = issue_leaf(authority, key.public_key(), spiffe_id, now, lifetime, dns_name)
    return Svid.of(key, issued.leaf_der, issued.intermediates_der, authority.trust_domain)


def issue_leaf(
    authority: Authority,
    public_key: ec.EllipticCurvePublicKey,
    spiffe_id: SpiffeId,
    now: float,
    lifetime: float = LIFETIME,
    dns_name: str | None = None,
) -> Issued:
    """A leaf that lives `lifetime` seconds from `now`, less if the issuer ends before.  `dns_name`: one DNS SAN more,
    for the control plane's server, whose clients check names.  Raises IssueError."""
    if lifetime < MIN_LIFETIME:
        raise IssueError(f"a lifetime of {lifetime:g} s is too short; at least {MIN_LIFETIME:g} s")
    if now >= authority.not_after:
        raise IssueError("the issuer's own certificate has expired")
    not_after = int(min(now + lifetime, authority.not_after))  # X.509 counts whole seconds
    leaf = _sign(authority, public_key, spiffe_id, now - BACK_DATED, not_after, dns_name)
    issued = Issued(leaf.public_bytes(Encoding.DER), authority.intermediates_der, float(not_after))
    _recheck(issued, authority, public_key, spiffe_id, now, lifetime)
    return issued


def _sign(
    authority: Authority,
    public_key: ec.EllipticCurvePublicKey,
    spiffe_id: SpiffeId,
    not_before: float,
    not_after: float,
    dns_name: str | None,
) -> x509.Certificate:
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(str(spiffe_id))]
    if dns_name is not None:
        names.append(x509.DNSName(dns_name))
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(authority.issuer.subject)
        .public_key(public_key)
        .serial_number(random_serial())
        .not_valid_before(datetime.fromtimestamp(not_before, UTC))
        .not_valid_after(datetime.fromtimestamp(not_after, UTC))
        .add_extension(x509.SubjectAlternativeName(names), critical=True)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_DIGITAL_SIGNATURE, critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier(authority.key_id, None, None), critical=False)
        .sign(authority.key, hashes.SHA256())
    )


_DIGITAL_SIGNATURE: Final = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


def _recheck(
    issued: Issued,
    authority: Authority,
    public_key: ec.EllipticCurvePublicKey,
    spiffe_id: SpiffeId,
    now: float,
    lifetime: float,
) -> None:
    """Read the finished leaf as a stranger would.  A leaf that fails stays here (SPIRE's credential validator)."""
    try:
        found = verify_peer(issued.leaf_der, issued.intermediates_der, authority.bundle, now)
    except PeerRefused as refusal:
        raise IssueError(f"the new certificate for {spiffe_id} does not verify: {refusal}") from None
    certificate = x509.load_der_x509_certificate(issued.leaf_der)
    if found != spiffe_id:
        raise IssueError(f"the new certificate names {found} instead of {spiffe_id}")
    if _spki(certificate.public_key()) != _spki(public_key):
        raise IssueError(f"the new certificate for {spiffe_id} holds another key than the one requested")
    if certificate.not_valid_after_utc.timestamp() > min(now + lifetime, authority.not_after):
        raise IssueError(f"the new certificate for {spiffe_id} lives too long")


def _spki(key: object) -> bytes:
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

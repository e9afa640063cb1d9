"""Certificates of any shape, good and bad: what an issuer other than ours might sign."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


@dataclass
class Forged:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


def usage(*bits: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{name: name in bits for name in USAGES})


def forge(
    now: float,
    issuer: Forged | None = None,
    *,
    uris: tuple[str, ...] = (),
    dns: tuple[str, ...] = (),
    cn: str | None = None,
    begins: float = -60,
    ends: float = 3600,
    ca: bool | None = False,
    pathlen: int | None = None,
    key_usage: tuple[str, ...] | None = ("digital_signature",),
    usage_critical: bool = True,
    eku: tuple[x509.ObjectIdentifier, ...] | None = BOTH,
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None,
    ski: x509.SubjectKeyIdentifier | None = None,
) -> Forged:
    """One certificate; self-signed without an issuer.  `begins`, `ends`: seconds from `now`."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cn)] if cn else [])
    signer = issuer.key if issuer else key
    at = datetime.fromtimestamp(now, UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(at + timedelta(seconds=begins))
        .not_valid_after(at + timedelta(seconds=ends))
        .add_extension(ski or x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False)
    )
    names = [x509.UniformResourceIdentifier(u) for u in uris] + [x509.DNSName(d) for d in dns]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=not cn)
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca, pathlen), critical=True)
    if key_usage is not None:
        builder = builder.add_extension(usage(*key_usage), critical=usage_critical)
    if eku:
        builder = builder.add_extension(x509.ExtendedKeyUsage(list(eku)), critical=False)
    return Forged(builder.sign(signer, hashes.SHA256()), key)


def forge_ca(now: float, issuer: Forged | None = None, cn: str = "forged root", **changes: object) -> Forged:
    defaults: dict[str, object] = {"ca": True, "key_usage": ("key_cert_sign", "crl_sign"), "eku": None, "ends": 86400.0}
    return forge(now, issuer, cn=cn, **(defaults | changes))  # type: ignore[arg-type]

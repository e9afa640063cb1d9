"""The certificate authority of one mesh: a root and the issuer below it, in a directory.

    root (pathlen 1) --signs--> issuer (pathlen 0) --signs--> leaves (certs.issue)
     |                           |
     root.pem                    issuer.pem, issuer.key (0600)                       the directory is 0700

The root's key is used once, to sign the issuer, and then forgotten: a key that is not kept cannot be stolen.  A new root
is added to root.pem beside the old one (bundles hold several) and the old one taken out when no leaf needs it.
The directory appears by one rename, so a crash leaves a whole authority or none.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import NameOID

from certs.bundle import BundleError, TrustBundle
from certs.csr import key_pem, new_key
from certs.spiffe import check_trust_domain

LIFETIME: Final = 10 * 365 * 86400  # s, of root and issuer: an embedded mesh has nobody who renews them
BACK_DATED: Final = 3600  # s, for clocks that differ
ROOT, ISSUER, ISSUER_KEY = "root.pem", "issuer.pem", "issuer.key"


class AuthorityError(Exception):
    """The material on disk cannot be used; `str()` names the file, what was found and what to do."""


@dataclass(frozen=True, slots=True)
class Authority:
    """A loaded, checked authority.  Not printable: the key stays out of every repr."""

    bundle: TrustBundle
    issuer: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def trust_domain(self) -> str:
        return self.bundle.trust_domain

    @property
    def intermediates_der(self) -> list[bytes]:
        """What goes with a leaf so that a peer who has only the root can check it."""
        return [self.issuer.public_bytes(Encoding.DER)]

    @property
    def not_after(self) -> float:
        """Unix seconds; no leaf lives longer."""
        return self.issuer.not_valid_after_utc.timestamp()


def random_serial() -> int:
    """128 random bits (RFC 5280 4.1.2.2: positive, at most 20 octets)."""
    return secrets.randbits(127) | 1 << 127


def open_authority(directory: Path, trust_domain: str, now: float) -> Authority:
    """The authority in `directory`, made first if the directory is absent or empty.  Raises AuthorityError."""
    if not directory.exists() or not any(directory.iterdir()):
        create_authority(directory, trust_domain, now)
    return load_authority(directory, trust_domain, now)


def create_authority(directory: Path, trust_domain: str, now: float, lifetime: float = LIFETIME) -> None:
    """Write a new root and issuer.  If another process was first, its authority stays.

    Raises AuthorityError if `directory` already holds one, SpiffeError for a bad trust domain."""
    check_trust_domain(trust_domain)
    root_key, issuer_key = new_key(), new_key()
    root = _ca("meshproxy root", trust_domain, root_key.public_key(), None, root_key, now, lifetime, 1)
    issuer = _ca("meshproxy issuer", trust_domain, issuer_key.public_key(), root, root_key, now, lifetime, 0)
    directory.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))  # 0700
    try:
        _write(fresh / ROOT, root.public_bytes(Encoding.PEM), 0o644)
        _write(fresh / ISSUER, issuer.public_bytes(Encoding.PEM), 0o644)
        _write(fresh / ISSUER_KEY, key_pem(issuer_key), 0o600)
        os.rename(fresh, directory)  # an empty directory is replaced, one with files is not
    except OSError as error:
        shutil.rmtree(fresh, ignore_errors=True)
        raise AuthorityError(f"{directory}: a new authority cannot be written there: {error.strerror}") from None


def load_authority(directory: Path, trust_domain: str, now: float) -> Authority:
    """The authority in `directory`, checked: the issuer is a CA of `trust_domain`, valid `now`, under an anchor of
    root.pem, and its key fits.  Raises AuthorityError."""
    try:
        bundle = TrustBundle.read(trust_domain, directory / ROOT)
    except BundleError as error:
        raise AuthorityError(f"{error}; restore it, or remove {directory} for a new root") from None
    path = directory / ISSUER
    issuer = _load_issuer(path)
    _check_ca(path, issuer, trust_domain)
    _check_dates(path, issuer, now)
    anchor = next((a for a in bundle.anchors if _signed_by(issuer, a)), None)
    if anchor is None:
        raise AuthorityError(f"{path}: not signed by a root in {directory / ROOT}; the two files are of different authorities")
    _check_dates(directory / ROOT, anchor, now)
    return Authority(bundle, issuer, _load_key(directory / ISSUER_KEY, issuer))


def _load_issuer(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(_read(path))
    except ValueError as error:
        raise AuthorityError(f"{path}: not a PEM certificate ({error})") from None


def _load_key(path: Path, issuer: x509.Certificate) -> ec.EllipticCurvePrivateKey:
    data = _read(path)
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise AuthorityError(f"{path}: mode {mode:04o} lets others read the issuer's key; run: chmod 600 {path}")
    try:
        key = load_pem_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # the text of these may quote the input: not repeated
        raise AuthorityError(f"{path}: not an unencrypted PEM private key") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise AuthorityError(f"{path}: an ECDSA P-256 key was expected")
    if key.public_key() != issuer.public_key():
        raise AuthorityError(f"{path}: the key does not belong to the certificate in {path.with_suffix('.pem')}")
    return key


def _check_ca(path: Path, issuer: x509.Certificate, trust_domain: str) -> None:
    try:
        extensions = issuer.extensions
        ca = extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        signs = extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:
        ca = signs = False
    except (ValueError, x509.DuplicateExtension) as error:
        raise AuthorityError(f"{path}: malformed certificate ({error})") from None
    if not ca or not signs:
        raise AuthorityError(f"{path}: not a CA certificate (CA:TRUE and keyCertSign were expected)")
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return  # X509-SVID 3.2: a CA should have an ID, need not
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if uris and uris != [f"spiffe://{trust_domain}"]:
        raise AuthorityError(f"{path}: the issuer is of {', '.join(uris)}, not of the trust domain {trust_domain!r}")


def _check_dates(path: Path, certificate: x509.Certificate, now: float) -> None:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now > end.timestamp():
        raise AuthorityError(
            f"{path}: expired on {end:%Y-%m-%d %H:%M:%S} UTC; replace it, or remove {path.parent} for a new root"
        )
    if now < begin.timestamp():
        raise AuthorityError(f"{path}: valid only from {begin:%Y-%m-%d %H:%M:%S} UTC; is this machine's clock right?")


def _signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise AuthorityError(f"{path}: cannot be read: {error.strerror}") from None


def _write(path: Path, data: bytes, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)


def _ca(
    name: str,
    trust_domain: str,
    public_key: ec.EllipticCurvePublicKey,
    parent: x509.Certificate | None,
    signer: ec.EllipticCurvePrivateKey,
    now: float,
    lifetime: float,
    path_length: int,
) -> x509.Certificate:
    # Unlike a leaf a CA has a subject: chains are built by it.  The serial in it keeps roots of two meshes apart.
    serial = random_serial()
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, trust_domain[:64]),
            x509.NameAttribute(NameOID.COMMON_NAME, f"{name} {serial:032x}"[:64]),
        ]
    )
    issued_at = datetime.fromtimestamp(now, UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(parent.subject if parent else subject)
        .public_key(public_key)
        .serial_number(serial)
        .not_valid_before(issued_at - timedelta(seconds=BACK_DATED))
        .not_valid_after(issued_at + timedelta(seconds=lifetime))
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=False,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=True,
                crl_sign=True,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")]), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )

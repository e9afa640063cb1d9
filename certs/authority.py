"""The certificate authority of one mesh: a root and the issuer below it, in a directory.

    root (pathlen 1) --signs--> issuer (pathlen 0) --signs--> leaves (certs.issue)
     |                           |
     root.pem                    issuer.pem, issuer.key (0600)                       the directory is 0700

The root's key is used once, to sign the issuer, and then forgotten: a key that is not kept cannot be stolen.  So a new issuer
means a new root; `replace_authority` puts both beside the old root (bundles hold several), and `retire_anchors` takes the old
one out when no leaf needs it.  The directory appears by one rename, so a crash leaves a whole authority or none.

An authority of somebody else's (cert-manager, step) has the names of a Kubernetes TLS secret: ca.crt, tls.crt, tls.key.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from secrets import randbits
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from certs.bundle import MAX_ANCHORS, BundleError, TrustBundle
from certs.chain import AuthorityError as AuthorityError
from certs.chain import IssuerKey, check_ca, check_dates, key_id, load_certificates, load_key, path_to_anchor
from certs.csr import key_pem, new_key
from certs.spiffe import check_trust_domain

LIFETIME: Final = 10 * 365 * 86400  # s, of root and issuer: an embedded mesh has nobody who renews them
BACK_DATED: Final = 3600  # s, for clocks that differ
ROOT, ISSUER, ISSUER_KEY = "root.pem", "issuer.pem", "issuer.key"
NEW_KEY: Final = "issuer.key.new"  # while an authority is replaced: see replace_authority


@dataclass(frozen=True, slots=True)
class Files:
    """The names of an authority's files.  `secret`: the key's file must be readable by its owner alone (a mounted Kubernetes
    Secret is 0644 in a volume of its own)."""

    anchors: str
    issuer: str
    key: str
    secret: bool


OWN: Final = Files(ROOT, ISSUER, ISSUER_KEY, True)
KUBERNETES: Final = Files("ca.crt", "tls.crt", "tls.key", False)  # kubernetes.io/tls, as cert-manager fills it


@dataclass(frozen=True, slots=True)
class Authority:
    """A loaded, checked authority.  Not printable: the key stays out of every repr."""

    bundle: TrustBundle
    issuer: x509.Certificate
    key: IssuerKey = field(repr=False)
    between: tuple[x509.Certificate, ...]  # from the issuer to below the anchor; none if the issuer is the anchor
    anchor: x509.Certificate  # the one of the bundle that the issuer is under

    @property
    def trust_domain(self) -> str:
        return self.bundle.trust_domain

    @property
    def intermediates_der(self) -> list[bytes]:
        """What goes with a leaf so that a peer who has only the root can check it."""
        return [certificate.public_bytes(Encoding.DER) for certificate in self.between]

    @property
    def not_after(self) -> float:
        """Unix seconds; no leaf lives longer: the first end among the issuer and those above it."""
        return min(certificate.not_valid_after_utc.timestamp() for certificate in (self.issuer, *self.between, self.anchor))

    @property
    def key_id(self) -> bytes:
        """AuthorityKeyIdentifier of the leaves."""
        return key_id(self.issuer)


def random_serial() -> int:
    """128 random bits (RFC 5280 4.1.2.2: positive, at most 20 octets)."""
    return randbits(127) | 1 << 127


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


def replace_authority(directory: Path, trust_domain: str, now: float, lifetime: float = LIFETIME) -> None:
    """Put a new root and issuer into force in place of those in `directory`; the old roots stay trusted, behind the new one.

    Killed between any two steps it leaves files that load: the old issuer, or the new one, whose key is found under
    either name.  Raises AuthorityError."""
    old = load_authority(directory, trust_domain, now)
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}.", dir=directory.parent) as temporary:  # 0700
        fresh = Path(temporary) / "authority"
        create_authority(fresh, trust_domain, now, lifetime)
        new = load_authority(fresh, trust_domain, now)
        anchors = [new.anchor, old.anchor, *(anchor for anchor in old.bundle.anchors if _lives(anchor, now))]
        ders = dict.fromkeys(anchor.public_bytes(Encoding.DER) for anchor in anchors)
        (fresh / ROOT).write_text(TrustBundle.of(trust_domain, list(ders)[:MAX_ANCHORS]).pem)
        try:
            if load_key(directory / ISSUER_KEY, True).public_key() != old.issuer.public_key():
                os.rename(directory / NEW_KEY, directory / ISSUER_KEY)  # what a killed one did not get to
            os.rename(fresh / ISSUER_KEY, directory / NEW_KEY)
            os.rename(fresh / ROOT, directory / ROOT)
            os.rename(fresh / ISSUER, directory / ISSUER)
            os.rename(directory / NEW_KEY, directory / ISSUER_KEY)
        except OSError as error:
            raise AuthorityError(f"{directory}: the new authority cannot be written there: {error.strerror}") from None


def retire_anchors(directory: Path, trust_domain: str, now: float) -> list[x509.Certificate]:
    """Leave only the anchor in root.pem that the issuer is under; returns those taken out.  Raises AuthorityError."""
    authority = load_authority(directory, trust_domain, now)
    gone = [anchor for anchor in authority.bundle.anchors if anchor != authority.anchor]
    temporary = directory / f".{ROOT}.new"
    temporary.write_bytes(authority.anchor.public_bytes(Encoding.PEM))
    os.rename(temporary, directory / ROOT)
    return gone


def load_authority(directory: Path, trust_domain: str, now: float, files: Files = OWN) -> Authority:
    """The authority in `directory`, checked: the issuer is a CA of `trust_domain`, valid `now`, under an anchor of
    the bundle (by the other certificates of its file, if need be), and its key fits.  Raises AuthorityError."""
    own = files is OWN
    anchors_file, path = directory / files.anchors, directory / files.issuer
    try:
        bundle = TrustBundle.read(trust_domain, anchors_file)
    except BundleError as error:
        raise AuthorityError(f"{error}; restore it{f', or remove {directory} for a new root' if own else ''}") from None
    certificates = load_certificates(path)
    issuer = certificates[0]
    remedy = f"replace it, or remove {directory} for a new root" if own else "renew it"
    check_ca(path, issuer, trust_domain)
    check_dates(path, issuer, now, remedy)
    between, anchor = path_to_anchor(path, certificates, bundle.anchors, anchors_file)
    for above in between:
        check_dates(path, above, now, remedy)
    check_dates(anchors_file, anchor, now, remedy)
    return Authority(bundle, issuer, _key_of(directory, files, issuer), tuple(between), anchor)


def _key_of(directory: Path, files: Files, issuer: x509.Certificate) -> IssuerKey:
    names = [files.key]
    if files is OWN and (directory / NEW_KEY).exists():
        names.append(NEW_KEY)
    for name in names:
        key = load_key(directory / name, files.secret)
        if key.public_key() == issuer.public_key():
            return key
    raise AuthorityError(f"{directory / files.key}: the key does not belong to the certificate in {directory / files.issuer}")


def _lives(anchor: x509.Certificate, now: float) -> bool:
    return now <= anchor.not_valid_after_utc.timestamp()


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

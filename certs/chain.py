"""Is this certificate fit to issue, and how does it lead to an anchor?  For files that people put there.

    tls.crt:  issuer --signed by--> intermediate --signed by--> ... --signed by--> an anchor of ca.crt
              path_to_anchor() = the certificates in between: what goes with every leaf

Every refusal names the file, what was found in it and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from certs.verify import MAX_CHAIN_DEPTH

IssuerKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
CURVES = (ec.SECP256R1, ec.SECP384R1)
MIN_RSA_BITS = 2048  # cert-manager's default key


class AuthorityError(Exception):
    """The material on disk cannot be used; `str()` names the file, what was found and what to do."""


def load_certificates(path: Path) -> list[x509.Certificate]:
    """All certificates of a PEM file, at least one.  Raises AuthorityError."""
    try:
        return x509.load_pem_x509_certificates(read_file(path))
    except ValueError as error:
        raise AuthorityError(f"{path}: not a PEM certificate ({error})") from None


def load_key(path: Path, private: bool) -> IssuerKey:
    """An unencrypted P-256, P-384 or RSA key.  `private`: a file that others can read is refused.  Raises AuthorityError."""
    data = read_file(path)
    mode = path.stat().st_mode & 0o777
    if private and mode & 0o077:
        raise AuthorityError(f"{path}: mode {mode:04o} lets others read the issuer's key; run: chmod 600 {path}")
    try:
        key = load_pem_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # the text of these may quote the input: not repeated
        raise AuthorityError(f"{path}: not an unencrypted PEM private key") from None
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, CURVES):
        return key
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= MIN_RSA_BITS:
        return key
    raise AuthorityError(f"{path}: an ECDSA P-256 (or P-384, or RSA {MIN_RSA_BITS}) key was expected")


def check_ca(path: Path, issuer: x509.Certificate, trust_domain: str) -> None:
    """It may sign leaves of `trust_domain`.  Raises AuthorityError."""
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


def check_dates(path: Path, certificate: x509.Certificate, now: float, remedy: str) -> None:
    """It is valid `now`; `remedy` says what to do if it has expired.  Raises AuthorityError."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now > end.timestamp():
        raise AuthorityError(f"{path}: expired on {end:%Y-%m-%d %H:%M:%S} UTC; {remedy}")
    if now < begin.timestamp():
        raise AuthorityError(f"{path}: valid only from {begin:%Y-%m-%d %H:%M:%S} UTC; is this machine's clock right?")


def path_to_anchor(
    path: Path, certificates: Sequence[x509.Certificate], anchors: Sequence[x509.Certificate], anchors_file: Path
) -> tuple[list[x509.Certificate], x509.Certificate]:
    """From the issuer (the first of `certificates`) by the others, in any order, to an anchor: what is between a leaf and
    the anchor (no anchor among it), and the anchor.  Raises AuthorityError."""
    between: list[x509.Certificate] = []
    current = certificates[0]
    while len(between) < MAX_CHAIN_DEPTH:
        if current in anchors:
            return between, current
        between.append(current)
        anchor = next((known for known in anchors if signed_by(current, known)), None)
        if anchor is not None:
            return between, anchor
        parent = next((one for one in certificates if one not in between and signed_by(current, one)), None)
        if parent is None:
            break
        current = parent
    raise AuthorityError(f"{path}: not signed by a root in {anchors_file}; the two files are of different authorities")


def signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def key_id(issuer: x509.Certificate) -> bytes:
    """What leaves name as AuthorityKeyIdentifier: the issuer's own SubjectKeyIdentifier (RFC 5280 4.2.1.1), however it was
    computed (Go changed from SHA-1 to truncated SHA-256)."""
    try:
        return issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except x509.ExtensionNotFound:
        key = issuer.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey)
        return x509.SubjectKeyIdentifier.from_public_key(key).digest


def read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise AuthorityError(f"{path}: cannot be read: {error.strerror}") from None

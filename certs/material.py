"""A user's TLS directory: cert.pem (leaf first, then intermediates), key.pem, ca.pem.  For `forward --tls` and `--mtls`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

CERT, KEY, CA = "cert.pem", "key.pem", "ca.pem"
MAX_FILE_BYTES: Final = 1 << 20  # a system's whole CA list is about 250 KB


class MaterialError(Exception):
    """A file of the directory cannot be used; `str()` names it, says what was expected and what to do."""


@dataclass(frozen=True, slots=True)
class Material:
    """PEM, checked: the key fits the first certificate, which is valid now.  `warnings` are for the log."""

    directory: Path
    chain_pem: bytes = field(repr=False)
    key_pem: bytes = field(repr=False)
    ca_pem: bytes | None = field(repr=False)  # None if there is no ca.pem and none was needed
    leaf_der: bytes = field(repr=False)
    not_after: float
    warnings: tuple[str, ...] = ()


def read_material(directory: Path, now: float, need_ca: bool = True) -> Material:
    """Read and check `directory`; without `need_ca` ca.pem may be absent.  Raises MaterialError."""
    if not directory.is_dir():
        raise MaterialError(f"{directory}: not a directory; one with {CERT}, {KEY} and {CA} was expected")
    chain_pem = _read(directory / CERT)
    leaf = _certificates(directory / CERT, chain_pem)[0]
    _check_dates(directory / CERT, leaf, now)
    key_pem = _read(directory / KEY)
    _check_key(directory / KEY, key_pem, leaf)
    ca_pem = None
    if need_ca or (directory / CA).exists():
        ca_pem = _read(directory / CA)
        for anchor in _certificates(directory / CA, ca_pem):
            _check_ca(directory / CA, anchor)
    warnings: tuple[str, ...] = ()
    mode = (directory / KEY).stat().st_mode & 0o777
    if mode & 0o077:
        warnings = (f"{directory / KEY}: mode {mode:04o} lets others read the key; run: chmod 600 {directory / KEY}",)
    not_after = leaf.not_valid_after_utc.timestamp()
    return Material(directory, chain_pem, key_pem, ca_pem, leaf.public_bytes(Encoding.DER), not_after, warnings)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise MaterialError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise MaterialError(f"{path}: larger than {MAX_FILE_BYTES} bytes; a PEM file was expected")
    return data


def _certificates(path: Path, pem: bytes) -> list[x509.Certificate]:
    try:
        found = x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise MaterialError(f"{path}: no readable PEM certificate in it ({error})") from None
    return found


def _check_dates(path: Path, certificate: x509.Certificate, now: float) -> None:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now > end.timestamp():
        raise MaterialError(f"{path}: expired on {end:%Y-%m-%d %H:%M:%S} UTC; renew it")
    if now < begin.timestamp():
        raise MaterialError(f"{path}: valid only from {begin:%Y-%m-%d %H:%M:%S} UTC; is this machine's clock right?")


def _check_key(path: Path, pem: bytes, leaf: x509.Certificate) -> None:
    try:
        key = load_pem_private_key(pem, None)
    except TypeError:
        raise MaterialError(f"{path}: encrypted; remove the passphrase (openssl pkey -in key.pem -out plain.pem)") from None
    except (ValueError, UnsupportedAlgorithm):  # the text of these may quote the input: not repeated
        raise MaterialError(f"{path}: no readable PEM private key in it") from None
    spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*spki) != leaf.public_key().public_bytes(*spki):
        raise MaterialError(f"{path}: the key does not belong to the first certificate in {path.with_name(CERT)}")


def _check_ca(path: Path, anchor: x509.Certificate) -> None:
    try:
        ca = anchor.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        ca = anchor.version == x509.Version.v1  # version 1 knows no constraints; OpenSSL takes it as a root
    except (ValueError, x509.DuplicateExtension) as error:
        raise MaterialError(f"{path}: malformed certificate ({error})") from None
    if not ca:
        raise MaterialError(f"{path}: {anchor.subject.rfc4514_string() or 'a certificate'} is not a CA (CA:TRUE was expected)")

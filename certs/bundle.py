"""A trust bundle: the anchors of one trust domain.  Several while roots rotate: {A} -> {A, B} -> {B}."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.spiffe import SpiffeError, check_trust_domain

MAX_ANCHORS: Final = 16  # a rotation needs two; a bundle far above that is a mistake, and every handshake pays for it


class BundleError(ValueError):
    """Not a trust bundle; `str()` says where, what was found and what was expected."""


@dataclass(frozen=True)
class TrustBundle:
    """Anchors as DER, in the order given, without repeats.  Compare and hash by content."""

    trust_domain: str
    anchors_der: tuple[bytes, ...]

    @classmethod
    def of(cls, trust_domain: str, anchors_der: Iterable[bytes], source: str = "trust bundle") -> TrustBundle:
        """A checked bundle: 1 to 16 CA certificates.  Raises BundleError naming `source`."""
        try:
            check_trust_domain(trust_domain)
        except SpiffeError as error:
            raise BundleError(f"{source}: {error}") from None
        anchors = tuple(dict.fromkeys(anchors_der))
        if not anchors:
            raise BundleError(f"{source}: no certificate in it; at least one trust anchor was expected")
        if len(anchors) > MAX_ANCHORS:
            raise BundleError(f"{source}: {len(anchors)} trust anchors, at most {MAX_ANCHORS} are allowed")
        for number, der in enumerate(anchors, 1):
            _check_anchor(der, f"{source}: certificate {number}")
        return cls(trust_domain, anchors)

    @classmethod
    def from_pem(cls, trust_domain: str, pem: bytes, source: str = "trust bundle") -> TrustBundle:
        """A checked bundle from concatenated PEM certificates.  Raises BundleError naming `source`."""
        try:
            certificates = x509.load_pem_x509_certificates(pem)
        except ValueError as error:
            raise BundleError(f"{source}: not PEM certificates ({error})") from None
        return cls.of(trust_domain, (c.public_bytes(Encoding.DER) for c in certificates), source)

    @classmethod
    def read(cls, trust_domain: str, path: Path) -> TrustBundle:
        """A checked bundle from a PEM file.  Raises BundleError naming the file."""
        try:
            pem = path.read_bytes()
        except OSError as error:
            raise BundleError(f"{path}: cannot be read: {error.strerror}") from None
        return cls.from_pem(trust_domain, pem, str(path))

    @cached_property
    def anchors(self) -> tuple[x509.Certificate, ...]:
        return tuple(x509.load_der_x509_certificate(der) for der in self.anchors_der)

    @cached_property
    def pem(self) -> str:
        """All anchors, concatenated PEM."""
        return "".join(c.public_bytes(Encoding.PEM).decode() for c in self.anchors)

    @cached_property
    def digest(self) -> str:
        """sha256 of the content: equal digest, equal bundle."""
        whole = hashlib.sha256(self.trust_domain.encode())
        for der in self.anchors_der:
            whole.update(hashlib.sha256(der).digest())
        return whole.hexdigest()


def _check_anchor(der: bytes, source: str) -> None:
    try:
        certificate = x509.load_der_x509_certificate(der)
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        raise BundleError(f"{source} is not a CA: it has no basic constraints") from None
    except (ValueError, x509.DuplicateExtension) as error:
        raise BundleError(f"{source} is malformed ({error})") from None
    if not constraints.ca:
        raise BundleError(f"{source} is not a CA (CA:FALSE); a root certificate was expected")

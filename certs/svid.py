"""An X.509-SVID in hand: a key, its certificate and the intermediates.  Its repr never shows the key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.chain import IssuerKey
from certs.csr import key_pem
from certs.spiffe import SpiffeId
from certs.verify import read_leaf

MAX_INTERMEDIATES: Final = 4


def authority_key_id(leaf_der: bytes) -> bytes:
    """The AuthorityKeyIdentifier in a certificate, b"" if there is none.  Raises ValueError for what is no certificate."""
    try:
        extensions = x509.load_der_x509_certificate(leaf_der).extensions
        return extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier or b""
    except x509.ExtensionNotFound:
        return b""


class SvidMismatch(ValueError):
    """The certificate is not for the key in hand."""


@dataclass(frozen=True, slots=True)
class Svid:
    """`chain_pem` is the leaf and then its intermediates; times are Unix seconds."""

    spiffe_id: SpiffeId
    leaf_der: bytes = field(repr=False)
    chain_pem: bytes = field(repr=False)
    key_pem: bytes = field(repr=False)
    not_before: float
    not_after: float

    @property
    def issuer_key_id(self) -> bytes:
        """Who signed it: the leaf's AuthorityKeyIdentifier, b"" if it has none."""
        return authority_key_id(self.leaf_der)

    @property
    def intermediates(self) -> list[x509.Certificate]:
        """The certificates above the leaf, without the anchor."""
        return x509.load_pem_x509_certificates(self.chain_pem)[1:]

    @classmethod
    def of(cls, key: IssuerKey, leaf_der: bytes, intermediates_der: Sequence[bytes], trust_domain: str) -> Svid:
        """Raises PeerRefused if the leaf has not the profile of a workload, SvidMismatch if it is for another key.
        The chain is not judged here: `certs.verify.verify_peer` does."""
        leaf = read_leaf(leaf_der, trust_domain)
        certificate = x509.load_der_x509_certificate(leaf_der)
        if certificate.public_key() != key.public_key():
            raise SvidMismatch("the certificate is for another key than the one in hand")
        if len(intermediates_der) > MAX_INTERMEDIATES:
            raise SvidMismatch(f"{len(intermediates_der)} intermediates, at most {MAX_INTERMEDIATES} are allowed")
        chain = [certificate, *(x509.load_der_x509_certificate(der) for der in intermediates_der)]
        pem = b"".join(c.public_bytes(Encoding.PEM) for c in chain)
        return cls(leaf.spiffe_id, leaf_der, pem, key_pem(key), leaf.not_before, leaf.not_after)

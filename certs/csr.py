"""Certificate requests: the proxy makes one (its key stays with it), the issuer checks it.

    proxy:   new_key() -> make_csr(key, id) --CSR (PKCS#10, signed by the key)--> issuer: check_csr(csr, id) -> public key

Of a CSR the issuer takes the public key and nothing else.  Requested extensions (CA:TRUE, a ten-year life) are ignored,
because the leaf is built from the issuer's own template; names other than the expected one are refused, because a
requester who asks for another name is either confused or hostile, and both want to be told.
"""

from __future__ import annotations

from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from certs.spiffe import SpiffeId

MAX_CSR_BYTES: Final = 4096  # ours is about 300 bytes


class CsrRefused(Exception):
    """The request is not one we sign.  `reason` is one of: malformed, bad_signature, bad_key, bad_names."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def new_key() -> ec.EllipticCurvePrivateKey:
    """A fresh P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    """PKCS#8 PEM, unencrypted: for memory, and for 0600 files of an authority."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def make_csr(key: ec.EllipticCurvePrivateKey, spiffe_id: SpiffeId) -> bytes:
    """A DER PKCS#10 request for `spiffe_id`, signed by `key` (the proof of possession)."""
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(spiffe_id))]), critical=True)
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )


def check_csr(csr_der: bytes, spiffe_id: SpiffeId) -> ec.EllipticCurvePublicKey:
    """The public key of a request whose sender owns the key and asks for no name but `spiffe_id`.  Raises CsrRefused."""
    if len(csr_der) > MAX_CSR_BYTES:
        raise CsrRefused("malformed", f"{len(csr_der)} bytes, at most {MAX_CSR_BYTES} are allowed")
    try:
        csr = x509.load_der_x509_csr(csr_der)
        key = csr.public_key()
        names = _names(csr)
    except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise CsrRefused("malformed", f"not a PKCS#10 request ({error})") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise CsrRefused("bad_key", "only ECDSA P-256 keys are certified")
    try:
        proven = csr.is_signature_valid
    except (ValueError, UnsupportedAlgorithm):  # a signature algorithm that does not go with the key
        proven = False
    if not proven:
        raise CsrRefused("bad_signature", "the request is not signed by its own key")
    if list(csr.subject):
        raise CsrRefused("bad_names", "the subject must be empty; identities are URI SANs")
    if names not in ([], [x509.UniformResourceIdentifier(str(spiffe_id))]):
        raise CsrRefused("bad_names", f"the request may name {spiffe_id} as its one URI SAN, and nothing else")
    return key


def _names(csr: x509.CertificateSigningRequest) -> list[x509.GeneralName]:
    try:
        return list(csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []

"""Is this peer who its certificate says?  Independent of the code that issues (`certs.issue` has its leaves checked here).

    verify_peer   the whole question: chain to an anchor, dates, and the leaf's profile       control plane, issuer
    check_leaf    the leaf's profile only                         after OpenSSL has checked the chain and dates: proxies

    DER -> parse -> CA? -> key usage -> extended key usage -> URI SANs: exactly one -> SPIFFE ID -> trust domain
           |        |        |              |                    |                        |            |
       malformed ca_leaf bad_key_usage bad_extended_key_usage no_uri_san, several_uri_sans bad_spiffe_id foreign_trust_domain

OpenSSL accepts a leaf with CA:TRUE, cRLSign, two URIs or none, another trust domain under a shared root: TLS does not
know what a SPIFFE ID is (X509-SVID, sections 4 and 5.2).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from certs.bundle import TrustBundle
from certs.spiffe import SpiffeError, SpiffeId

REASONS: Final = frozenset(
    {
        "malformed",
        "expired",
        "not_yet_valid",
        "untrusted",
        "ca_leaf",
        "bad_key_usage",
        "bad_extended_key_usage",
        "no_uri_san",
        "several_uri_sans",
        "bad_spiffe_id",
        "foreign_trust_domain",
        "unexpected_identity",
    }
)
MAX_CHAIN_DEPTH: Final = 4  # intermediates above the leaf; ours has one
MEMO_ENTRIES: Final = 4096  # leaves remembered by `check_leaf`; about 1 MB when full


class PeerRefused(Exception):
    """The certificate is not accepted.  `reason` is one of REASONS (a metric label), `detail` is for people."""

    def __init__(self, reason: str, detail: str) -> None:
        assert reason in REASONS, reason
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Leaf:
    """What a leaf of the right profile says.  Times are Unix seconds."""

    spiffe_id: SpiffeId
    not_before: float
    not_after: float


def verify_peer(leaf_der: bytes, chain_der: Sequence[bytes], bundle: TrustBundle, now: float) -> SpiffeId:
    """The identity of a peer that showed `leaf_der` and the intermediates `chain_der`.  Raises PeerRefused."""
    leaf = read_leaf(leaf_der, bundle.trust_domain)
    if now > leaf.not_after:
        raise PeerRefused("expired", f"the certificate of {leaf.spiffe_id} ended {_ago(now - leaf.not_after)} ago")
    if now < leaf.not_before:
        wait = _ago(leaf.not_before - now)
        raise PeerRefused("not_yet_valid", f"the certificate of {leaf.spiffe_id} begins in {wait}; compare the clocks")
    _verify_chain(leaf_der, chain_der, bundle, now)
    return leaf.spiffe_id


def check_leaf(leaf_der: bytes, trust_domain: str) -> SpiffeId:
    """The identity in a leaf whose chain and dates OpenSSL has already accepted.  Raises PeerRefused.

    Remembers the last 4096 answers, so a reconnecting peer costs one sha256."""
    return read_leaf(leaf_der, trust_domain).spiffe_id


def check_any_leaf(leaf_der: bytes) -> SpiffeId:
    """As `check_leaf` for a proxy that knows its peers by their anchors alone (`forward`): any trust domain will do, and a
    key usage may be absent, as in certificates that people make by hand.  Raises PeerRefused."""
    try:
        extensions = x509.load_der_x509_certificate(leaf_der).extensions
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise PeerRefused("malformed", f"not an X.509 certificate ({error})") from None
    _check_usage(extensions, required=False)
    return _identity(extensions)


def leaf_end(leaf_der: bytes) -> float:
    """When a leaf that `check_any_leaf` has taken ends (Unix seconds)."""
    return x509.load_der_x509_certificate(leaf_der).not_valid_after_utc.timestamp()


def chain_end(chain_pem: bytes) -> float:
    """When the first of a user's own leaf and its intermediates ends (Unix seconds).  Raises ValueError for what is no PEM."""
    return min(one.not_valid_after_utc.timestamp() for one in x509.load_pem_x509_certificates(chain_pem))


def read_leaf(leaf_der: bytes, trust_domain: str) -> Leaf:
    """As `check_leaf`, with the dates (not judged)."""
    key = (hashlib.sha256(leaf_der).digest(), trust_domain)
    known = _memo.get(key)
    if known is None:
        try:
            known = _read_leaf(leaf_der, trust_domain)
        except PeerRefused as refusal:
            known = (refusal.reason, refusal.detail)  # not the exception: it would keep its traceback's frames
        if len(_memo) >= MEMO_ENTRIES:
            del _memo[next(iter(_memo))]  # oldest first
        _memo[key] = known
    if isinstance(known, tuple):
        raise PeerRefused(*known)
    return known


_memo: dict[tuple[bytes, str], Leaf | tuple[str, str]] = {}


def _read_leaf(leaf_der: bytes, trust_domain: str) -> Leaf:
    try:
        certificate = x509.load_der_x509_certificate(leaf_der)
        extensions = certificate.extensions
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise PeerRefused("malformed", f"not an X.509 certificate ({error})") from None
    _check_usage(extensions)
    spiffe_id = _identity(extensions)
    if spiffe_id.trust_domain != trust_domain:
        raise PeerRefused("foreign_trust_domain", f"{spiffe_id} is not of trust domain {trust_domain!r}")
    return Leaf(
        spiffe_id,
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
    )


def _check_usage(extensions: x509.Extensions, required: bool = True) -> None:
    try:
        if extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            raise PeerRefused("ca_leaf", "a certificate authority is not a workload")
    except x509.ExtensionNotFound:
        pass  # absent means CA:FALSE
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage)
    except x509.ExtensionNotFound:
        if not required:
            return
        raise PeerRefused("bad_key_usage", "no key usage; critical digitalSignature was expected") from None
    bits = usage.value
    if (required and not usage.critical) or not bits.digital_signature or bits.key_cert_sign or bits.crl_sign:  # X509-SVID 4.3
        raise PeerRefused("bad_key_usage", "expected critical, digitalSignature set, keyCertSign and cRLSign not set")
    try:
        extended = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return  # X509-SVID 4.4: it may be absent
    if ExtendedKeyUsageOID.CLIENT_AUTH not in extended or ExtendedKeyUsageOID.SERVER_AUTH not in extended:
        raise PeerRefused("bad_extended_key_usage", "a workload is client and server: both usages were expected")


def _identity(extensions: x509.Extensions) -> SpiffeId:
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise PeerRefused("no_uri_san", "no subject alternative name; an identity in the subject does not count") from None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if not uris:
        raise PeerRefused("no_uri_san", "no URI among the subject alternative names")
    if len(uris) > 1:
        raise PeerRefused("several_uri_sans", f"{len(uris)} URIs among the subject alternative names, expected one")
    try:
        spiffe_id = SpiffeId.parse(uris[0])
    except SpiffeError as error:
        raise PeerRefused("bad_spiffe_id", str(error)) from None
    if not spiffe_id.path:
        raise PeerRefused("bad_spiffe_id", f"{spiffe_id} is a trust domain, not a workload: it has no path")
    return spiffe_id


def _verify_chain(leaf_der: bytes, chain_der: Sequence[bytes], bundle: TrustBundle, now: float) -> None:
    # cryptography calls this API unstable, so nothing else of ours touches it.  The client verifier also does for
    # servers: `build_server_verifier` wants a DNS name or address, and both usages were checked above.
    try:
        verifier = (
            PolicyBuilder()
            .store(Store(list(bundle.anchors)))
            .time(datetime.fromtimestamp(now, UTC).replace(tzinfo=None))
            .max_chain_depth(MAX_CHAIN_DEPTH)
            .build_client_verifier()
        )
        verifier.verify(x509.load_der_x509_certificate(leaf_der), [x509.load_der_x509_certificate(der) for der in chain_der])
    except VerificationError as error:
        raise PeerRefused("untrusted", f"no valid chain to an anchor of {bundle.trust_domain!r} ({error})") from None
    except ValueError as error:
        raise PeerRefused("malformed", f"an intermediate is not an X.509 certificate ({error})") from None


def _ago(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"

"""The bytes of a rotation that is under way, for a file that outlives the control plane: one JSON object.

Rotation.saved() --encode--> {"format": 1, "trust_domain", "phase", "since", "anchors": [PEM],
                              "kept": [[number of the anchor, since]],
                              "issuer_key_id": hex, "before": {"issuer", "between", "anchor", "key": PEM} or null}
Saved <--decode--                                              the key of an issuer: the file is for its owner alone
"""

from __future__ import annotations

import json
import math
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from certs.authority import Authority
from certs.bundle import TrustBundle
from certs.csr import key_pem
from certs.rotation import Phase, Saved

FORMAT: Final = 1  # another number when a reader of this one would misunderstand


# What is wrong with a certificate and no ValueError.
_X509: Final = (UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)


class UnknownFormat(ValueError):
    """Written by another version."""


def encode(saved: Saved) -> bytes:
    anchors = [_pem(x509.load_der_x509_certificate(der)) for der in saved.anchors]
    before = saved.before
    made = {
        "format": FORMAT,
        "trust_domain": saved.trust_domain,
        "phase": saved.phase.value,
        "since": saved.since,
        "anchors": anchors,
        "kept": [[saved.anchors.index(der), since] for der, since in saved.kept],
        "issuer_key_id": saved.issuer_key_id.hex(),
        "before": None
        if before is None
        else {
            "issuer": _pem(before.issuer),
            "between": [_pem(one) for one in before.between],
            "anchor": _pem(before.anchor),
            "key": key_pem(before.key).decode(),
        },
    }
    return json.dumps(made, indent=1).encode() + b"\n"


def decode(data: bytes) -> Saved:
    """Raises ValueError, UnknownFormat if that is why; its text has nothing of the data in it, for there may be a key."""
    try:
        found = json.loads(data)
        form = found.get("format", FORMAT)  # the first files did not say it
        if type(form) is not int or form != FORMAT:
            raise UnknownFormat(f"not in a format that is known here, which is {FORMAT} alone")
        bundle = TrustBundle.from_pem(found["trust_domain"], "".join(found["anchors"]).encode())
        anchors = bundle.anchors_der
        kept = tuple((anchors[_index(number, len(anchors))], _time(since)) for number, since in found["kept"])
        key_id = bytes.fromhex(found["issuer_key_id"])
        before = None if found["before"] is None else _before(found["before"], bundle, key_id)
        return Saved(
            bundle.trust_domain,
            Phase(found["phase"]),
            _time(found["since"]),
            anchors,
            kept,
            key_id,
            before,
        )
    except UnknownFormat:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError, *_X509):
        raise ValueError("not the state of a rotation") from None


def _before(found: dict[str, Any], bundle: TrustBundle, key_id: bytes) -> Authority:
    key = load_pem_private_key(found["key"].encode(), None)
    issuer, anchor = _certificate(found["issuer"]), _certificate(found["anchor"])
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) or key.public_key() != issuer.public_key():
        raise ValueError("the key does not belong to the issuer")
    if anchor not in bundle.anchors:
        raise ValueError("the issuer's anchor is not in force")
    made = Authority(bundle, issuer, key, tuple(map(_certificate, found["between"])), anchor)
    if made.key_id != key_id:
        raise ValueError("another issuer than the one in force")
    return made


def _time(found: object) -> float:
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        raise ValueError("not a time")
    return float(found)


def _index(found: object, length: int) -> int:
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found < length:
        raise ValueError("not the number of an anchor")
    return found


def _certificate(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()

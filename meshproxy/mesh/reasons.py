"""Why a connection came to nothing, in words for a log and /ready.

Who did not believe whom and why comes first; OpenSSL's own word for it stands behind, to search for.
"""

from __future__ import annotations

import os
import ssl
from socket import gaierror
from typing import Final

from meshproxy.proxy.tls import TlsFailure


def os_reason(error: BaseException) -> str:
    """What the system says, without addresses and numbers: the caller names the target."""
    number = getattr(error, "errno", None)
    if isinstance(error, gaierror):
        return f"the name is not known ({error.strerror})"
    if isinstance(error, UnicodeError):
        return "the name is none that DNS can hold"
    return os.strerror(number) if isinstance(number, int) and number > 0 else str(error)


_REFUSED: Final = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the server demands a certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the server refused our certificate: it has expired",
    "TLSV1_ALERT_UNKNOWN_CA": "the server refused our certificate: it does not know the issuer",
    "WRONG_VERSION_NUMBER": "the server does not speak TLS",
    "TLSV1_ALERT_PROTOCOL_VERSION": "the server does not speak TLS 1.3",
    "UNSUPPORTED_PROTOCOL": "the server does not speak TLS 1.3",
    "NO_APPLICATION_PROTOCOL": "the server does not offer HTTP/2",
    "TLSV1_ALERT_NO_APPLICATION_PROTOCOL": "the server does not offer HTTP/2",
}


def tls_reason(failure: TlsFailure) -> str:
    """Who did not believe whom and why, with OpenSSL's word for it to search for."""
    cause = failure.cause
    reason = str(getattr(cause, "reason", None) or "")
    if isinstance(cause, ssl.SSLCertVerificationError):
        why = {
            "not_yet_valid": "it is not yet valid; look at the clocks",
            "expired": "it has expired; look at the clocks, or at the control plane",
        }.get(failure.reason, cause.verify_message.rstrip("."))
        return f"TLS: the server's certificate is not trusted: {why} ({reason})"
    known = _REFUSED.get(reason)
    return f"TLS: {known} ({reason})" if known else f"TLS: {reason or failure}"

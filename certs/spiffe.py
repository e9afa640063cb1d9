"""SPIFFE IDs: the names of workloads, `spiffe://<trust-domain>/<path>` (SPIFFE-ID, sections 2.1 to 2.3).

    spiffe://shop.example/ns/prices/sa/catalogue
             ^^^^^^^^^^^^ ^^^^^^^^^^^^^^^^^^^^^^
             trust domain        path            in this mesh always /ns/<namespace>/sa/<service account>

The parser is strict because what it accepts is compared as text: two spellings of one name must not exist.  No percent
encoding, no port, no user, no query, no dot segments, no upper case in the trust domain.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

MAX_ID_BYTES: Final = 2048  # SPIFFE-ID 2.3: longer ones need not be supported
MAX_TRUST_DOMAIN_BYTES: Final = 255  # SPIFFE-ID 2.3

_SCHEME: Final = "spiffe://"
_TRUST_DOMAIN: Final = re.compile(r"[a-z0-9._-]+", re.ASCII)  # SPIFFE-ID 2.1
_SEGMENT: Final = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)  # SPIFFE-ID 2.2


class SpiffeError(ValueError):
    """Not a SPIFFE ID or trust domain; `str()` says what was found and what was expected."""


@dataclass(frozen=True, slots=True, order=True)
class SpiffeId:
    """A parsed SPIFFE ID.  `path` is "" (the trust domain itself) or begins with "/"."""

    trust_domain: str
    path: str

    @classmethod
    def parse(cls, text: str) -> SpiffeId:
        """The ID that `text` spells.  Raises SpiffeError."""
        if len(text) > MAX_ID_BYTES:
            raise SpiffeError(f"SPIFFE ID of {len(text)} characters, at most {MAX_ID_BYTES} are allowed")
        if not text.startswith(_SCHEME):
            raise SpiffeError(f"{text!r}: a SPIFFE ID begins with {_SCHEME!r}")
        trust_domain, slash, rest = text[len(_SCHEME) :].partition("/")
        check_trust_domain(trust_domain)
        if slash:
            for segment in rest.split("/"):
                _check_segment(segment, text)
        return cls(trust_domain, slash + rest)

    @classmethod
    def workload(cls, trust_domain: str, namespace: str, service_account: str) -> SpiffeId:
        """`spiffe://<trust_domain>/ns/<namespace>/sa/<service_account>`.  Raises SpiffeError."""
        check_trust_domain(trust_domain)
        path = f"/ns/{namespace}/sa/{service_account}"
        for part in (namespace, service_account):
            _check_segment(part, path)
        return cls(trust_domain, path)

    @property
    def namespace(self) -> str | None:
        """The namespace, or None if the path is not `/ns/<namespace>/sa/<service-account>`."""
        parts = self._parts()
        return parts[0] if parts else None

    @property
    def service_account(self) -> str | None:
        """The service account, or None if the path is not `/ns/<namespace>/sa/<service-account>`."""
        parts = self._parts()
        return parts[1] if parts else None

    def _parts(self) -> tuple[str, str] | None:
        match self.path.split("/"):
            case ["", "ns", namespace, "sa", service_account]:
                return namespace, service_account
        return None

    def __str__(self) -> str:
        return f"{_SCHEME}{self.trust_domain}{self.path}"


def check_trust_domain(text: str) -> str:
    """`text` if it is a trust domain name (lower-case letters, digits, ".", "-", "_").  Raises SpiffeError."""
    if not text:
        raise SpiffeError("the trust domain is empty; a name such as 'cluster.local' was expected")
    if len(text) > MAX_TRUST_DOMAIN_BYTES:
        raise SpiffeError(f"trust domain of {len(text)} characters, at most {MAX_TRUST_DOMAIN_BYTES} are allowed")
    if not _TRUST_DOMAIN.fullmatch(text):
        raise SpiffeError(f"trust domain {text!r}: only lower-case letters, digits, '.', '-' and '_' are allowed")
    return text


def _check_segment(segment: str, whole: str) -> None:
    if segment in ("", ".", ".."):
        raise SpiffeError(f"{whole!r}: empty, '.' and '..' path segments and a trailing slash are not allowed")
    if not _SEGMENT.fullmatch(segment):
        raise SpiffeError(f"{whole!r}: a path segment may hold only letters, digits, '.', '-' and '_'")

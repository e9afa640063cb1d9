"""The authority as it is now: read again when its files change, the last good one kept when they are bad.

trust/*.pem changed --load_authority--> good: in force, listeners called      bad: said once, the old one stays
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from certs.authority import ISSUER, ISSUER_KEY, ROOT, Authority, AuthorityError, load_authority, open_authority
from certs.bundle import TrustBundle

log = logging.getLogger("meshproxy.control.issuer")


class CurrentAuthority:
    """Opens (makes, if there is none) the authority in `directory`.  Raises AuthorityError: the control plane does not
    start on bad material."""

    def __init__(self, directory: Path, trust_domain: str, now: float) -> None:
        self._directory = directory
        self._trust_domain = trust_domain
        self._authority = open_authority(directory, trust_domain, now)
        self._stamp = self._stamps()
        self._listeners: list[Callable[[], None]] = []

    def __call__(self) -> Authority:
        return self._authority

    def bundle(self) -> TrustBundle:
        """The anchors in force."""
        return self._authority.bundle

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each change that was taken."""
        self._listeners.append(listener)

    def refresh(self, now: float) -> bool:
        """Look at the files; True if something new is in force.  Three stat calls when nothing changed."""
        stamp = self._stamps()
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            self._authority = load_authority(self._directory, self._trust_domain, now)
        except AuthorityError as error:
            log.error("the certificate authority on disk is not usable, the last good one stays in force: %s", error)
            return False
        log.info("certificate authority read again: %d trust anchors", len(self._authority.bundle.anchors_der))
        for listener in self._listeners:
            listener()
        return True

    def _stamps(self) -> tuple[tuple[int, int], ...]:
        stamps = []
        for name in (ROOT, ISSUER, ISSUER_KEY):
            try:
                found = (self._directory / name).stat()
                stamps.append((found.st_mtime_ns, found.st_ino))
            except OSError:
                stamps.append((0, 0))
        return tuple(stamps)

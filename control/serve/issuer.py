"""The authority as it is now: read again when its files change, the last good one kept when they are bad.

<state>/trust/{root.pem, issuer.pem, issuer.key}   ours, made if there is none
DIR/{ca.crt, tls.crt, tls.key}                     --identity-issuer DIR: somebody else's (cert-manager, step)

files changed --load_authority--> good: certs.rotation brings it into force, listeners are called
                                  bad: the old one stays; said if it is still so at the next look, since several files
                                       are not replaced in one moment
anchors in force --> <state>/trust-bundle.pem, which proxies begin with
a rotation's state --> <state>/trust-rotation.json (0600), from which a restarted control plane goes on
                         what could not be written is tried again at each look
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from certs.authority import KUBERNETES, OWN, Authority, AuthorityError, load_authority, open_authority
from certs.bundle import TrustBundle
from certs.issue import LIFETIME
from certs.rotation import Peer, Phase, Rotation, Saved
from certs.saved_rotation import decode, encode

log = logging.getLogger("meshproxy.control.issuer")

Stamp = tuple[tuple[int, int, int], ...]


class CurrentAuthority:
    """Opens (makes, if there is none) the authority in `directory`, or opens the one in `external`.  `lifetime` is of leaves,
    seconds; `bundle_file` gets the anchors in force, `state_file` what a restart must not lose: without it the files are taken
    at their word.

    Raises AuthorityError: the control plane does not start on bad material."""

    def __init__(
        self,
        directory: Path,
        trust_domain: str,
        now: float,
        external: Path | None = None,
        lifetime: float = LIFETIME,
        bundle_file: Path | None = None,
        state_file: Path | None = None,
    ) -> None:
        self.directory = external if external is not None else directory
        self.external = external is not None
        self.problem = ""  # why the files are not what is in force
        self._files = KUBERNETES if external is not None else OWN
        self._trust_domain = trust_domain
        self._bundle_file = bundle_file
        self._state_file = state_file
        self._state_written: Saved | None = None  # what the files have
        self._bundle_written: TrustBundle | None = None
        self._unwritten: dict[Path, str] = {}  # a file that could not be written -> why, as it was said
        for path in (state_file, bundle_file):
            if path is not None:
                _remove_temporary(path)
        if external is None:
            open_authority(directory, trust_domain, now)
        self._taken = self._stamp()
        self._bad: Stamp | None = None  # files that could not be used at the last look
        files = self._load(now)
        saved = self._read_state()
        self.rotation = Rotation(files, lifetime) if saved is None else Rotation.resume(files, lifetime, saved, now)
        if not self.rotation.over:
            log.info("certificate authority: going on with a change of authority, %s", self.rotation.phase.value)
        self._listeners: list[Callable[[], None]] = []
        self._write_state()
        self._write_bundle()

    def __call__(self) -> Authority:
        return self.rotation.in_force

    def bundle(self) -> TrustBundle:
        """The anchors in force."""
        return self.rotation.in_force.bundle

    @property
    def phase(self) -> Phase:
        return self.rotation.phase

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each change of what is in force."""
        self._listeners.append(listener)

    def refresh(self, now: float, peers: Callable[[], Iterable[Peer]] = tuple) -> bool:
        """Look at the files or go on with a rotation; True if something new is in force.  `peers` gives the proxies that are
        connected.  Three stat calls when nothing changed."""
        phase, taken = self.rotation.phase, self._taken
        changed = self._look(now)
        if self._taken == taken and not self.rotation.over:
            changed = self.rotation.advance(peers(), now) or changed
        if self.rotation.phase is not phase:
            log.info("certificate authority: %s -> %s", phase.value, self.rotation.phase.value)
        self._write_state()  # before anybody hears of it
        self._write_bundle()
        if changed:
            in_force = self.rotation.in_force
            log.info(
                "certificate authority: %d trust anchors, %d of them only kept for leaves in use; issuer %s",
                *(len(in_force.bundle.anchors_der), len(self.rotation.kept), in_force.key_id.hex()[:16]),
            )
            for listener in self._listeners:
                listener()
        return changed

    def _look(self, now: float) -> bool:
        stamp = self._stamp()
        if stamp == self._taken:
            if self.problem:  # what was bad is what it was before
                self.problem, self._bad = "", None
            return False
        try:
            files = self._load(now)
        except AuthorityError as error:
            if stamp == self._bad and not self.problem:
                self.problem = str(error)
                log.error("the certificate authority on disk is not usable, the last good one stays in force: %s", error)
            elif stamp != self._bad:
                self._bad, self.problem = stamp, ""
            return False
        self._taken, self._bad, self.problem = stamp, None, ""
        return self.rotation.replace(files, now)

    def _load(self, now: float) -> Authority:
        return load_authority(self.directory, self._trust_domain, now, self._files)

    def _stamp(self) -> Stamp:
        stamps = []
        for name in (self._files.anchors, self._files.issuer, self._files.key):
            try:
                found = (self.directory / name).stat()  # through links: a mounted Secret is swapped by one
                stamps.append((found.st_mtime_ns, found.st_ino, found.st_size))
            except OSError:
                stamps.append((0, 0, 0))
        return tuple(stamps)

    def _read_state(self) -> Saved | None:
        """None: there is none, or it is of no use."""
        if self._state_file is None:
            return None
        try:
            saved = decode(self._state_file.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            log.error("%s: cannot be read (%s): the authority's files are taken at their word", self._state_file, why)
            return None
        if saved.trust_domain != self._trust_domain:
            was = saved.trust_domain
            log.error("%s: of trust domain %s: the authority's files are taken at their word", self._state_file, was)
            return None
        return saved

    def _write_state(self) -> None:
        if self._state_file is None or (saved := self.rotation.saved()) == self._state_written:
            return
        if self._write(self._state_file, encode(saved), 0o600, "the state of the change of authority"):
            self._state_written = saved

    def _write_bundle(self) -> None:
        # If it fails: proxies that are up have the anchors from their streams; new ones begin with the old file.
        if self._bundle_file is None or (bundle := self.bundle()) == self._bundle_written:
            return
        if self._write(self._bundle_file, bundle.pem.encode(), 0o644, "the anchors in force"):
            self._bundle_written = bundle

    def _write(self, path: Path, data: bytes, mode: int, what: str) -> bool:
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            temporary.unlink(missing_ok=True)
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.rename(temporary, path)
            _sync_directory(path.parent)
        except OSError as error:
            with suppress(OSError):  # that it is there is a matter of the next start
                temporary.unlink(missing_ok=True)
            why = error.strerror or type(error).__name__
            if self._unwritten.get(path) != why:  # not at each look
                self._unwritten[path] = why
                log.error("%s: %s cannot be written: %s; it is tried again each second", path, what, why)
            return False
        if self._unwritten.pop(path, None) is not None:
            log.info("%s: %s is written now", path, what)
        return True


def _sync_directory(directory: Path) -> None:
    """What was renamed in it stays so after a power cut."""
    number = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems have no such thing
            raise
    finally:
        os.close(number)


def _remove_temporary(path: Path) -> None:
    """What a control plane that was killed while it wrote `path` has left: there may be a key in it."""
    for left in path.parent.glob(f".{path.name}.*"):
        try:
            left.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s: left by a write that was cut short, cannot be removed: %s", left, error.strerror)


def describe(authority: CurrentAuthority, peers: Sequence[Peer], lifetime: float) -> dict[str, Any]:
    """What the admin's /identity says; nothing of it is secret.  Times are Unix seconds; `lifetime` is of leaves, seconds."""
    in_force = authority()
    return {
        "trust_domain": in_force.trust_domain,
        "source": str(authority.directory),
        "external": authority.external,
        "problem": authority.problem,
        "phase": authority.phase.value,
        "leaf_lifetime": lifetime,
        "issuer": {
            "key_id": in_force.key_id.hex(),
            "subject": in_force.issuer.subject.rfc4514_string(),
            "anchor": fingerprint(in_force.anchor.public_bytes(Encoding.DER)),
            "not_after": in_force.not_after,
        },
        "files_issuer_key_id": authority.rotation.files.key_id.hex(),
        "anchors": [
            {
                "sha256": fingerprint(der),
                "subject": anchor.subject.rfc4514_string(),
                "not_after": anchor.not_valid_after_utc.timestamp(),
                "kept": der in authority.rotation.kept,
            }
            for der, anchor in zip(in_force.bundle.anchors_der, in_force.bundle.anchors, strict=True)
        ],
        "proxies": {
            "connected": len(peers),
            "informed": sum(1 for peer in peers if peer.informed),
            "renewed": sum(1 for peer in peers if peer.issuer_key_id == in_force.key_id),
        },
    }


def fingerprint(der: bytes) -> str:
    """The first 16 hex digits of a certificate's SHA-256: enough to tell anchors apart."""
    return hashlib.sha256(der).hexdigest()[:16]

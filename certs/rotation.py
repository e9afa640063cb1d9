"""From one authority to the next without a failed handshake, whichever way the files were replaced.  Pure: facts and `now` in.

A certificate is good only for peers that hold its anchor, so the order matters, and files come in any order:

               new issuer, under another anchor
    SETTLED ---------------------------------------------------------> ANNOUNCING    trusted: old and new; the old one issues
      ^   \\                                                              | every proxy has acknowledged the anchors, or 30 s,
      |    \\------ new issuer, under the same anchor --------------.     | or the old issuer has ended
      |                                                             v     v
      +-------------------- every proxy shows a leaf of it --------- RENEWING         the new one issues; proxies renew soon
                                                                                      (TrustBundle.issuer_key_id tells them)

An anchor that is no longer in the files stays trusted while a leaf under it may be in use: until every proxy that is
connected shows a leaf of the issuer in force, and for `KEEP_ANCHORS` at least (a proxy may be between two streams); at the
longest for one lifetime of leaves.

A control plane that restarts, in the middle or with other files than it knew, goes on where it was: `saved()` is all it needs
(certs/saved_rotation.py has its bytes), `resume()` takes it.  For `RETURN` after that nobody who is missing is taken for gone.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding

from certs.authority import Authority
from certs.bundle import MAX_ANCHORS, TrustBundle

ANNOUNCE: Final = 30.0  # s; a connected proxy acknowledges in milliseconds, one that comes back does within 10 s
KEEP_ANCHORS: Final = 60.0  # s
RETURN: Final = 15.0  # s after a restart; proxies look for the control plane every 8 s at the longest


class Phase(enum.Enum):
    SETTLED = "settled"
    ANNOUNCING = "announcing"  # the new anchors, with leaves of the old issuer
    RENEWING = "renewing"  # leaves, with the new issuer


@dataclass(frozen=True, slots=True)
class Peer:
    """What is known of a connected proxy: has it acknowledged the anchors in force, and who signed the leaf it shows?"""

    informed: bool
    issuer_key_id: bytes


@dataclass(frozen=True, slots=True)
class Saved:
    """What outlives the process.

    anchors        DER of those in force, with `kept` among them: DER -> since when
    issuer_key_id  of the issuer in force
    before         while ANNOUNCING: the authority that issues and that the files no longer hold, with its key
    """

    trust_domain: str
    phase: Phase
    since: float
    anchors: tuple[bytes, ...]
    kept: tuple[tuple[bytes, float], ...]
    issuer_key_id: bytes
    before: Authority | None


class Rotation:
    """`in_force` is what is trusted and what issues; `files` is what they shall become.  Times are Unix seconds."""

    def __init__(self, files: Authority, lifetime: float) -> None:
        self.files = files
        self.in_force = files
        self.phase = Phase.SETTLED
        self._lifetime = lifetime  # of leaves
        self._since = 0.0  # when this phase began
        self._kept: dict[bytes, float] = {}  # anchors that are in force and not in the files -> since when
        self._returned = 0.0  # until then proxies may be on their way back

    @classmethod
    def resume(cls, files: Authority, lifetime: float, saved: Saved, now: float) -> Rotation:
        """Go on from `saved`, whatever the files say by now.  What is in force has changed for no proxy.  No time of it counts
        as later than `now`: the clock may have been ahead when it was saved."""
        before = saved.before
        since = {der: min(when, now) for der, when in saved.kept}
        if before is not None and before.issuer != files.issuer and now < before.not_after:
            made = cls(replace(before, bundle=TrustBundle(saved.trust_domain, saved.anchors)), lifetime)
            made._kept = since
            made.replace(files, now)
        else:
            made = cls(files, lifetime)
            gone = [der for der in saved.anchors if der not in files.bundle.anchors_der]
            made._kept = {der: since.get(der, now) for der in gone}
            made.in_force = replace(files, bundle=made._bundle())
            if files.key_id != saved.issuer_key_id:  # replaced while nobody looked: leaves of the old one are in use
                made._enter(Phase.RENEWING, now)
            elif saved.phase is not Phase.ANNOUNCING:
                made._enter(saved.phase, min(saved.since, now))
        made._returned = now + RETURN
        return made

    def saved(self) -> Saved:
        force = self.in_force
        before = force if self.phase is Phase.ANNOUNCING else None
        kept = tuple(self._kept.items())
        return Saved(force.trust_domain, self.phase, self._since, force.bundle.anchors_der, kept, force.key_id, before)

    @property
    def kept(self) -> tuple[bytes, ...]:
        """DER of the anchors that are trusted although the files no longer name them."""
        return tuple(self._kept)

    @property
    def over(self) -> bool:
        """Nothing is left for `advance` to do."""
        return self.phase is Phase.SETTLED and not self._kept

    def replace(self, files: Authority, now: float) -> bool:
        """The files say something else.  True if what is in force has changed (the rest follows by `advance`)."""
        before = self.in_force
        self.files = files
        for der in before.bundle.anchors_der:
            if der not in files.bundle.anchors_der:
                self._kept.setdefault(der, now)
        if files.issuer == before.issuer:
            self.in_force = replace(files, bundle=self._bundle())
            if self.phase is Phase.ANNOUNCING:  # back to what it was
                self._enter(Phase.SETTLED, now)
        elif files.anchor == before.anchor:
            self._issue(now)
        else:  # also if the anchor is in force: it may have been for a moment only
            self.in_force = replace(before, bundle=self._bundle())
            self._enter(Phase.ANNOUNCING, now)
        return self.in_force != before

    def advance(self, peers: Iterable[Peer], now: float) -> bool:
        """Go on as far as it is safe; True if what is in force has changed.  Not in the turn of `replace`: nobody has been told
        yet of what it changed."""
        self._set_back(now)
        before = self.in_force
        known = list(peers)
        if self.phase is Phase.ANNOUNCING:
            told = now >= self._returned and all(peer.informed for peer in known)
            if told or now - self._since >= ANNOUNCE or now >= self.in_force.not_after:
                self._issue(now)
                return True  # who renews, and what may go, is seen at the next look
            return False
        issuer = self.in_force.key_id
        renewed = now >= self._returned and all(peer.issuer_key_id == issuer for peer in known)
        if self.phase is Phase.RENEWING and renewed:
            self._enter(Phase.SETTLED, now)
        for der, since in list(self._kept.items()):
            asked = now - max(since, self._since)
            if asked >= self._lifetime or (renewed and asked >= min(KEEP_ANCHORS, self._lifetime)):
                del self._kept[der]
        if len(self._kept) + len(self.files.bundle.anchors_der) != len(before.bundle.anchors_der):
            self.in_force = replace(before, bundle=self._bundle())
        return self.in_force != before

    def _set_back(self, now: float) -> None:
        """The clock may be behind what it was: nothing waits until it is there again."""
        self._since = min(self._since, now)
        self._returned = min(self._returned, now + RETURN)
        for der, since in self._kept.items():
            self._kept[der] = min(since, now)

    def _issue(self, now: float) -> None:
        self.in_force = replace(self.files, bundle=self._bundle())
        self._enter(Phase.RENEWING, now)

    def _bundle(self) -> TrustBundle:
        """Of the files, and what is kept; the kept ones give way where there are too many."""
        files = self.files.bundle
        for der in files.anchors_der:
            self._kept.pop(der, None)
        # The one that the issuer in force is under comes first: it must not be the one that gives way.
        under = self.in_force.anchor.public_bytes(Encoding.DER)
        kept = sorted(self._kept, key=lambda der: der != under)[: MAX_ANCHORS - len(files.anchors_der)]
        self._kept = {der: self._kept[der] for der in kept}
        return TrustBundle(files.trust_domain, (*files.anchors_der, *kept))

    def _enter(self, phase: Phase, now: float) -> None:
        self.phase = phase
        self._since = now

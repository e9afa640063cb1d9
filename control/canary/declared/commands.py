"""What a person tells a release: annotations on the Canary, written by manager "cli".

    pause     meshproxy.dev/pause: "true"                             hold the weight; checks go on, failures still roll back
    approve   meshproxy.dev/approve: "<revision> <time> <gate>"       open one gate once
    abort     meshproxy.dev/abort:   "<revision> <time>"              roll back now
    promote   meshproxy.dev/promote: "<revision> <time>"              skip what is left of the analysis
    retry     meshproxy.dev/retry:   "<revision> <time>"              release the revision that failed once more

Each may end with who gave it and why: `... by ann: customers complain`; the history keeps that.

A command names the revision and the time, so it needs no erasing: it is obeyed only while that revision is the one being
released, and only if it was given after that release began.  An old annotation can never steer a later release.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

PREFIX = "meshproxy.dev/"
ANNOTATION_PAUSE = PREFIX + "pause"
ANNOTATION_APPROVE = PREFIX + "approve"
ANNOTATION_ABORT = PREFIX + "abort"
ANNOTATION_PROMOTE = PREFIX + "promote"
ANNOTATION_RETRY = PREFIX + "retry"
ORDERS = (ANNOTATION_PAUSE, ANNOTATION_APPROVE, ANNOTATION_ABORT, ANNOTATION_PROMOTE, ANNOTATION_RETRY)

# Settings a user writes on the Canary (Flagger's CRD is closed, so they cannot be fields).
ANNOTATION_CONFIRM = PREFIX + "confirm"  # gates that need `approve`: "rollout,traffic-increase,promotion"
ANNOTATION_MINIMUM_REQUESTS = PREFIX + "minimum-requests"  # fewer in a metric's window is "no data"

MAX_BY, MAX_REASON = 64, 200  # characters: an annotation and an Event are not the place for a report


def to_rfc3339(now: float) -> str:
    """Kubernetes' time: UTC, whole seconds."""
    return datetime.fromtimestamp(int(now), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def from_rfc3339(text: str) -> float:
    """Unix seconds; raises ValueError if `text` is no RFC 3339 time."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone; expected for instance 2026-01-31T12:00:00Z")
    return moment.timestamp()


@dataclass(frozen=True, slots=True)
class Signature:
    """Who gave an order, and why; either may be "".  As text: `by ann: customers complain`."""

    by: str = ""
    reason: str = ""

    def __str__(self) -> str:
        return f"by {self.by or 'somebody'}" + (f": {self.reason}" if self.reason else "") if self.by or self.reason else ""

    @property
    def suffix(self) -> str:
        """To be put after an event's text: ` (by ann: customers complain)`, or nothing."""
        return f" ({self})" if str(self) else ""

    @classmethod
    def parse(cls, text: str) -> Signature:
        by, _, reason = text.partition(":")
        return signed(by, reason)


def signed(by: str, reason: str) -> Signature:
    """A signature of one line, without what would be read as its end."""
    name = "".join(c for c in by if c.isprintable() and c not in ": ")
    line = "".join(c if c.isprintable() else " " for c in reason).strip()
    return Signature(name[:MAX_BY], line[:MAX_REASON].strip())


def _split(text: str) -> tuple[list[str], Signature]:
    """The words of an order, and its signature."""
    order, _, signature = text.partition(" by ")
    return order.split(), Signature.parse(signature)


@dataclass(frozen=True, slots=True)
class Command:
    """One order: for which revision, when it was given, for `approve` which gate it opens; who gave it and why."""

    revision: str
    at: float  # Unix seconds
    gate: str = ""
    signature: Signature = Signature()

    def __str__(self) -> str:
        return " ".join(filter(None, (self.revision, to_rfc3339(self.at), self.gate, str(self.signature))))

    @classmethod
    def parse(cls, text: str) -> Command | None:
        """None when it is not one of ours: a malformed order is no order."""
        parts, signature = _split(text)
        if len(parts) not in (2, 3):
            return None
        try:
            return cls(parts[0], from_rfc3339(parts[1]), parts[2] if len(parts) == 3 else "", signature)
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class Commands:
    """All orders on one Canary."""

    pause: bool = False
    approve: Command | None = None
    abort: Command | None = None
    promote: Command | None = None
    retry: Command | None = None
    pause_signature: Signature = Signature()  # of the pause, or of the resume after it

    @classmethod
    def of(cls, annotations: Mapping[str, str]) -> Commands:
        def read(name: str) -> Command | None:
            text = annotations.get(name)
            return Command.parse(text) if text else None

        paused, signature = _split(annotations.get(ANNOTATION_PAUSE, ""))
        return cls(
            pause=[word.lower() for word in paused] == ["true"],
            approve=read(ANNOTATION_APPROVE),
            abort=read(ANNOTATION_ABORT),
            promote=read(ANNOTATION_PROMOTE),
            retry=read(ANNOTATION_RETRY),
            pause_signature=signature,
        )

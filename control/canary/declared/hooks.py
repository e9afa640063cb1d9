"""Webhooks of a Canary: what one is, and what is said to it.  Pure; hook_client.py does the calling.

    spec.analysis.webhooks[] -> parse_webhook() -> Webhook --.
    Canary, phase            -> payload()       -> body -----+-> HookClient.call() -> HookResult

Types and when they are asked (flagger.md 6):

    confirm-rollout            before a revision is scaled up      not ok: Waiting, asked again each tick
    pre-rollout                before the first weight             not ok: a failed check
    rollout, ""                in each analysis, before metrics    not ok: a failed check
    confirm-traffic-increase   before each step of the weight      not ok: the weight stays
    confirm-promotion          at the last weight or iteration     not ok: WaitingPromotion
    rollback                   each tick of a running release      ok: roll back
    post-rollout               after Succeeded or Failed           changes nothing
    event                      for each Event of the Canary        changes nothing
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from control.canary.declared.fields import SpecError, duration, flag, integer, mapping, pairs, text

CONFIRM_ROLLOUT = "confirm-rollout"
PRE_ROLLOUT = "pre-rollout"
ROLLOUT = "rollout"
CONFIRM_TRAFFIC_INCREASE = "confirm-traffic-increase"
CONFIRM_PROMOTION = "confirm-promotion"
POST_ROLLOUT = "post-rollout"
ROLLBACK = "rollback"
EVENT = "event"
TYPES = (CONFIRM_ROLLOUT, PRE_ROLLOUT, ROLLOUT, CONFIRM_TRAFFIC_INCREASE, CONFIRM_PROMOTION, POST_ROLLOUT, ROLLBACK, EVENT)

DEFAULT_TIMEOUT_S = 10.0  # of one try
MAX_TIMEOUT_S = 3600.0  # the load tester's own limit for a task; "0s" (no limit in Go) means this too
MAX_RETRIES = 1000  # a number above is a slip of the pen; what a call may take in all is bounded by hook_client.py

# Letters that Kubernetes' names take (k8s.io/apimachinery rand.SafeEncodeString): no vowels, so no words.
_SAFE = "bcdfghjklmnpqrstvwxz2456789"


@dataclass(frozen=True, slots=True)
class Webhook:
    """One entry of spec.analysis.webhooks.  `type` is one of TYPES ("" has become rollout)."""

    type: str
    name: str
    url: str
    timeout_s: float = DEFAULT_TIMEOUT_S
    retries: int = 0  # further tries after the first
    mute_alert: bool = False  # waiting for this gate raises no alert
    disable_tls: bool = False  # https, but any certificate is accepted
    metadata: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class HookResult:
    """The verdict of a webhook.  `text` is what it said, or why there is no answer; a few hundred bytes at most."""

    ok: bool
    text: str = ""


def parse_webhook(obj: object, where: str) -> Webhook:
    """A Webhook of one entry of spec.analysis.webhooks.  Raises SpecError."""
    fields = mapping(obj, where)
    kind = fields.get("type") or ROLLOUT
    if kind not in TYPES:
        raise SpecError(f"{where}.type: {kind!r:.60} is no type of webhook; expected one of {', '.join(TYPES)}")
    return Webhook(
        type=kind,
        name=text(fields.get("name"), f"{where}.name"),
        url=hook_url(fields.get("url"), f"{where}.url"),
        timeout_s=_timeout(fields.get("timeout"), f"{where}.timeout"),
        retries=integer(fields.get("retries"), f"{where}.retries", 0, 0, MAX_RETRIES),
        mute_alert=flag(fields.get("muteAlert"), f"{where}.muteAlert"),
        disable_tls=flag(fields.get("disableTLS"), f"{where}.disableTLS"),
        metadata=pairs(fields.get("metadata"), f"{where}.metadata"),
    )


def parse_webhooks(value: object, where: str = "spec.analysis.webhooks") -> tuple[Webhook, ...]:
    """All of them, in order.  Raises SpecError."""
    if value is None:
        return ()
    if not isinstance(value, list):
        raise SpecError(f"{where}: expected a list, found {value!r:.60}")
    return tuple(parse_webhook(entry, f"{where}[{index}]") for index, entry in enumerate(value))


def event_webhook(url: str) -> Webhook:
    """What EVENT_WEBHOOK_URL stands for: an event webhook for each Canary that has none of its own.  Raises SpecError."""
    return Webhook(EVENT, "events", hook_url(url, "EVENT_WEBHOOK_URL"))


def payload(name: str, namespace: str, phase: str, checksum: str, metadata: Mapping[str, str]) -> dict[str, Any]:
    """The body of a webhook, as Flagger sends it (metadata is left out where there is none)."""
    body: dict[str, Any] = {"name": name, "namespace": namespace, "phase": phase, "checksum": checksum}
    if metadata:
        body["metadata"] = dict(metadata)
    return body


def event_metadata(message: str, warning: bool, now: float, metadata: Mapping[str, str]) -> dict[str, str]:
    """What an event webhook is told: the event, and of the webhook's own metadata what does not contradict it."""
    event = {
        "eventMessage": message,
        "eventType": "Warning" if warning else "Normal",
        "timestamp": str(int(now * 1000)),  # ms since 1970
    }
    return {**metadata, **event}


def checksum(tracked: Mapping[str, str], last_applied: str) -> str:
    """Names a revision together with its configs: FNV-1a (32 bit) in Kubernetes' safe letters, as Flagger's looks.

    Two releases of one Canary have the same checksum when they release the same thing.  (The value is not the one that
    Flagger would compute: its hash of a template is over a dump of Go's own types.)"""
    state = 0x811C9DC5
    for byte in f"{sorted(tracked.items())}{last_applied}".encode():
        state = (state ^ byte) * 0x01000193 & 0xFFFFFFFF
    return "".join(_SAFE[ord(digit) % len(_SAFE)] for digit in str(state))


def hook_url(value: object, where: str) -> str:
    """An http or https address with a host.  Raises SpecError."""
    url = text(value, where)
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises ValueError when it is no number
    except ValueError as error:
        raise SpecError(f"{where}: {shown_url(url)!r} is no address: {error}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SpecError(f"{where}: {shown_url(url)!r} is no address; expected for instance http://gate.test/check")
    return url


def shown_url(url: str) -> str:
    """An address without what may be secret in it (user and password, query), for texts; at most 200 characters."""
    bare = url.partition("?")[0].partition("#")[0]
    scheme, separator, rest = bare.partition("://")
    host, slash, path = (rest if separator else bare).partition("/")
    return f"{scheme if separator else ''}{separator}{host.rpartition('@')[2]}{slash}{path}"[:200]


def _timeout(value: object, where: str) -> float:
    if value is None or len(str(value)) < 2:  # Flagger takes "" and "5" alike
        return DEFAULT_TIMEOUT_S
    seconds = duration(value, where, DEFAULT_TIMEOUT_S)
    return min(seconds, MAX_TIMEOUT_S) or MAX_TIMEOUT_S

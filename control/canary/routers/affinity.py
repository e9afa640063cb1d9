"""Session affinity: cookies that keep who saw the canary with it until its release ends.

    weight > 0   clients without a cookie are drawn; the canary's answers set <cookie>=<value>, who brings it goes to the canary
    weight 0     who still brings it goes to the primary, and is told to forget it (Max-Age=-1)

The value is made from the Canary and its run, not drawn: the tick may be repeated after a crash, and gives the same cookie.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from control.canary.declared.spec import CanarySpec
from control.canary.declared.treatment import SessionAffinity
from control.canary.machine.routing import Routing
from control.canary.machine.status import Status

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LENGTH = 10  # 57 bits: as long as Flagger's


@dataclass(frozen=True, slots=True)
class Cookies:
    """Each "<name>=<value>", "" for none.  `previous`: of a run that is over, to be taken back."""

    canary: str = ""
    previous: str = ""
    primary: str = ""


def cookies(spec: CanarySpec, status: Status, routing: Routing) -> Cookies:
    """The cookies while `routing` holds; the same whether `status` is from before or after it was decided."""
    affinity = spec.routes.affinity
    if affinity is None:
        return Cookies()
    if not routing.parts:
        previous = status.session_affinity_cookie or status.previous_session_affinity_cookie
        return Cookies("", previous, status.primary_session_affinity_cookie)
    canary = status.session_affinity_cookie or f"{affinity.cookie}={_value(spec, status, affinity.cookie)}"
    primary = status.primary_session_affinity_cookie if affinity.primary_cookie else ""
    if affinity.primary_cookie and not primary:
        primary = f"{affinity.primary_cookie}={_value(spec, status, affinity.primary_cookie)}"
    return Cookies(canary, status.previous_session_affinity_cookie, primary)


def with_cookies(spec: CanarySpec, status: Status, routing: Routing) -> Status:
    """The status to store with a decision for `routing`."""
    made = cookies(spec, status, routing)
    return replace(
        status,
        session_affinity_cookie=made.canary,
        previous_session_affinity_cookie=made.previous,
        primary_session_affinity_cookie=made.primary,
    )


def set_cookie(affinity: SessionAffinity, cookie: str, max_age_s: int) -> str:
    """The value of Set-Cookie (RFC 6265 4.1).  A cookie is only taken back under the Domain and Path it was set with."""
    return "; ".join(part for part in (cookie, f"Max-Age={max_age_s}", affinity.attributes) if part)


def _value(spec: CanarySpec, status: Status, name: str) -> str:
    seed = f"{spec.uid}/{spec.namespace}/{spec.name}/{status.last_applied}/{int(status.run_started)}/{name}"
    digest = hashlib.sha256(seed.encode()).digest()
    return "".join(_LETTERS[byte % len(_LETTERS)] for byte in digest[:_LENGTH])

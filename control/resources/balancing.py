"""How a Service's endpoints are chosen, by its annotations.  Linkerd's names work as they are; ours win where both are given.

meshproxy.dev/balancer                 ewma (default) | least-request | maglev | ring-hash
meshproxy.dev/balancer-key             header=NAME | cookie=NAME: of the last two
meshproxy.dev/slow-start               0s (default)
meshproxy.dev/zone                     any (default) | prefer: endpoints in the client's own zone first
meshproxy.dev/breaker                  off (default) | consecutive | unified          balancer.linkerd.io/failure-accrual
meshproxy.dev/breaker-max-failures     7                                              …/failure-accrual-consecutive-max-failures
meshproxy.dev/breaker-min-penalty      1s                                             …/failure-accrual-consecutive-min-penalty
meshproxy.dev/breaker-max-penalty      60s                                            …/failure-accrual-consecutive-max-penalty
meshproxy.dev/breaker-jitter           0.5                                            …/failure-accrual-consecutive-jitter-ratio
meshproxy.dev/breaker-success-rate     0.8     unified   balancer.alpha.linkerd.io/failure-accrual-success-rate-threshold
meshproxy.dev/breaker-window           10s     unified                           …/failure-accrual-success-rate-window
meshproxy.dev/breaker-min-requests     5       unified                           …/failure-accrual-success-rate-min-requests
meshproxy.dev/breaker-max-ejected      0.5

On a pod: meshproxy.dev/weight, 1 (default) to 1000: its capacity beside the others'.  What each does: docs/balancing.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from control.resources.quantity import seconds
from control.resources.shape import nearest, shown

_OURS = "meshproxy.dev/"
BALANCER = f"{_OURS}balancer"
KEY = f"{_OURS}balancer-key"
SLOW_START = f"{_OURS}slow-start"
ZONE = f"{_OURS}zone"
BREAKER = f"{_OURS}breaker"
WEIGHT = f"{_OURS}weight"

BALANCERS = ("ewma", "least-request", "maglev", "ring-hash")
ZONES = ("any", "prefer")
BREAKERS = ("off", "consecutive", "unified")
MAX_WEIGHT = 1000
MAX_SLOW_START_S = 3600.0

ZONE_LABEL = "topology.kubernetes.io/zone"  # Kubernetes copies it from the node to the pod

_KEY = re.compile(r"(header|cookie)=([!#$%&'*+.^_`|~0-9A-Za-z-]{1,256})\Z")  # RFC 9110 5.6.2 token; RFC 6265 4.1.1
_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?\Z")

_ACCRUAL = "balancer.linkerd.io/failure-accrual"
_ALPHA = "balancer.alpha.linkerd.io/failure-accrual-success-rate"
_LINKERD = {
    f"{_OURS}breaker": _ACCRUAL,
    f"{_OURS}breaker-max-failures": f"{_ACCRUAL}-consecutive-max-failures",
    f"{_OURS}breaker-min-penalty": f"{_ACCRUAL}-consecutive-min-penalty",
    f"{_OURS}breaker-max-penalty": f"{_ACCRUAL}-consecutive-max-penalty",
    f"{_OURS}breaker-jitter": f"{_ACCRUAL}-consecutive-jitter-ratio",
    f"{_OURS}breaker-success-rate": f"{_ALPHA}-threshold",
    f"{_OURS}breaker-window": f"{_ALPHA}-window",
    f"{_OURS}breaker-min-requests": f"{_ALPHA}-min-requests",
}
LINKERD_BALANCING = tuple(_LINKERD.values())
ON_SERVICES = (BALANCER, KEY, SLOW_START, ZONE, *_LINKERD, f"{_OURS}breaker-max-ejected")

Mistake = tuple[str, str, str]  # annotation, what is wrong, hint


@dataclass(frozen=True, slots=True)
class Breaker:
    """Seconds and shares; as meshproxy/policy/breaker.py has them."""

    consecutive: int = 7
    success_rate: float = 0.0
    window_s: float = 10.0
    min_requests: int = 5
    min_penalty_s: float = 1.0
    max_penalty_s: float = 60.0
    jitter: float = 0.5
    max_ejected: float = 0.5


@dataclass(frozen=True, slots=True)
class Balancing:
    """What is declared.  `mistakes`: a wrong annotation is left out, and its default holds."""

    balancer: str = "ewma"
    key: tuple[str, str] = ("", "")  # "header" or "cookie", name
    slow_start_s: float = 0.0
    prefer_zone: bool = False
    breaker: Breaker | None = None
    mistakes: tuple[Mistake, ...] = ()

    def is_default(self) -> bool:
        return self.balancer == "ewma" and not self.slow_start_s and not self.prefer_zone and self.breaker is None


def balancing(annotations: Mapping[str, str]) -> Balancing:
    """What a Service's annotations declare.  Never raises."""
    reader = _Reader(annotations)
    how = reader.word(BALANCER, BALANCERS)
    key = reader.key()
    if how in ("maglev", "ring-hash") and not key[0]:
        reader.mistake(BALANCER, f"{how} needs {KEY}", "ewma is in force")
        how = "ewma"
    breaker = reader.breaker()
    slow_start = reader.number(SLOW_START, 0.0, 0.0, MAX_SLOW_START_S, seconds, "a time of at most 1h, such as 30s")
    prefer = reader.word(ZONE, ZONES) == "prefer"
    return Balancing(how, key, slow_start, prefer, breaker, tuple(reader.mistakes))


def weight(annotations: Mapping[str, str]) -> int:
    """A pod's; 1 if it declares none, or a wrong one.  Never raises."""
    text = annotations.get(WEIGHT, "1")
    return 1 if weight_mistake(text) else int(text)


def weight_mistake(value: str) -> str:
    """What is wrong with a weight; "" if nothing is."""
    if value.isascii() and value.isdigit() and 1 <= int(value[:9]) <= MAX_WEIGHT:
        return ""
    return f"found {shown(value)}, expected a number from 1 to {MAX_WEIGHT}"


class _Reader:
    def __init__(self, annotations: Mapping[str, str]) -> None:
        self.annotations = annotations
        self.mistakes: list[Mistake] = []

    def mistake(self, annotation: str, message: str, hint: str) -> None:
        self.mistakes.append((annotation, message, hint))

    def given(self, ours: str) -> tuple[str, str] | None:
        """The annotation that says it, and its value."""
        for name in (ours, _LINKERD.get(ours, ours)):
            if name in self.annotations:
                return name, self.annotations[name].strip()
        return None

    def word(self, ours: str, allowed: tuple[str, ...]) -> str:
        """One of `allowed`, the first if nothing (usable) is given."""
        found = self.given(ours)
        if found is None:
            return allowed[0]
        name, value = found
        if value in allowed:
            return value
        self.mistake(name, f"found {shown(value)}, expected {', '.join(allowed)}", nearest(value, list(allowed)))
        return allowed[0]

    def number(
        self, ours: str, default: float, least: float, greatest: float, read: Callable[[str], float], expected: str
    ) -> float:
        found = self.given(ours)
        if found is None:
            return default
        try:
            value = read(found[1])
        except ValueError:
            value = -1.0
        if least <= value <= greatest:
            return value
        self.mistake(found[0], f"found {shown(found[1])}, expected {expected}", "")
        return default

    def key(self) -> tuple[str, str]:
        found = self.given(KEY)
        if found is None:
            return ("", "")
        match = _KEY.match(found[1])
        if match is None:
            self.mistake(KEY, f"found {shown(found[1])}, expected header=NAME or cookie=NAME", "")
            return ("", "")
        if self.annotations.get(BALANCER, "").strip() not in ("maglev", "ring-hash"):
            self.mistake(KEY, f"has no effect without {BALANCER}: maglev or ring-hash", "")
        return (match[1], match[2])

    def breaker(self) -> Breaker | None:
        mode = self.word(BREAKER, BREAKERS)
        if mode == "off":
            for ours in ON_SERVICES:
                if ours.startswith(f"{BREAKER}-") and (found := self.given(ours)):
                    self.mistake(found[0], f"has no effect without {BREAKER}: consecutive or unified", "")
            return None
        name = f"{BREAKER}-"
        share = "a number from 0 to 1"
        penalty = "a time from 1ms to 1h"
        least = self.number(f"{name}min-penalty", 1.0, 0.001, 3600.0, seconds, penalty)
        most = self.number(
            f"{name}max-penalty", max(60.0, least), least, 86400.0, seconds, "a time from the least penalty to 24h"
        )
        rate, window, requests = 0.0, 10.0, 5
        if mode == "unified":
            rate = self.number(f"{name}success-rate", 0.8, 0.0, 1.0, _number, share)
            window = self.number(f"{name}window", 10.0, 0.1, 3600.0, seconds, "a time from 100ms to 1h")
            requests = round(self.number(f"{name}min-requests", 5, 1, 1_000_000, _whole, "a number from 1 to 1000000"))
        return Breaker(
            round(self.number(f"{name}max-failures", 7, 1, 1_000_000, _whole, "a number from 1 to 1000000")),
            rate,
            window,
            requests,
            least,
            most,
            self.number(f"{name}jitter", 0.5, 0.0, 100.0, _number, "a number from 0 to 100"),
            self.number(f"{name}max-ejected", 0.5, 0.0, 1.0, _number, share),
        )


def _number(text: str) -> float:
    if not _NUMBER.match(text):
        raise ValueError(text)
    return float(text)


def _whole(text: str) -> float:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(text)
    return float(text[:9])

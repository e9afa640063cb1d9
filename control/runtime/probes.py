"""Probes: what to ask a container, when, and what the answers mean.  Pure; `probe_io` does the asking.

    Prober:   waiting --due(now)--> asking --answer(ok)--> waiting        (one question at a time, one every period)

    verdict:  None (not known yet)
                |  successThreshold answers in a row that say yes -> True
                `  failureThreshold answers in a row that say no  -> False, and back again likewise

Defaults and bounds are Kubernetes' (core/v1 Probe).  A readiness probe begins as "not ready", a liveness probe as
"alive", and both wait for the startup probe; container.py applies that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class HttpGet:
    """Success is a status of 200 to 399."""

    port: int | str
    path: str = "/"
    scheme: str = "HTTP"  # or "HTTPS"; certificates are not checked, as the kubelet does not
    host: str = ""  # "" means the pod's address
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class TcpSocket:
    """Success is a connection."""

    port: int | str
    host: str = ""


@dataclass(frozen=True, slots=True)
class Exec:
    """Success is exit status 0 of the command, run in the container's environment."""

    command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Grpc:
    """Success is SERVING from grpc.health.v1.Health/Check."""

    port: int
    service: str = ""


Check = HttpGet | TcpSocket | Exec | Grpc


@dataclass(frozen=True, slots=True)
class Probe:
    check: Check
    initial_delay: float = 0.0  # seconds after the container started
    period: float = 10.0
    timeout: float = 1.0
    success_threshold: int = 1
    failure_threshold: int = 3
    grace: float | None = None  # terminationGracePeriodSeconds of a liveness or startup probe

    @classmethod
    def parse(cls, spec: dict[str, Any] | None) -> Probe | None:
        """From a container's `readinessProbe` or the like; None if there is none or it asks nothing."""
        if not spec:
            return None
        check: Check
        if http := spec.get("httpGet"):
            headers = tuple((str(h["name"]), str(h.get("value", ""))) for h in http.get("httpHeaders") or [])
            path = "/" + str(http.get("path") or "").lstrip("/")
            check = HttpGet(http["port"], path, str(http.get("scheme") or "HTTP"), str(http.get("host") or ""), headers)
        elif tcp := spec.get("tcpSocket"):
            check = TcpSocket(tcp["port"], str(tcp.get("host") or ""))
        elif grpc := spec.get("grpc"):
            check = Grpc(int(grpc["port"]), str(grpc.get("service") or ""))
        elif run := spec.get("exec"):
            check = Exec(tuple(str(word) for word in run.get("command") or []))
        else:
            return None
        grace = spec.get("terminationGracePeriodSeconds")
        return cls(
            check,
            float(spec.get("initialDelaySeconds") or 0),
            max(1.0, float(spec.get("periodSeconds") or 10)),
            max(1.0, float(spec.get("timeoutSeconds") or 1)),
            max(1, int(spec.get("successThreshold") or 1)),
            max(1, int(spec.get("failureThreshold") or 3)),
            float(grace) if grace is not None else None,
        )


class Prober:
    """One probe of one run of a container.  Times are seconds on the caller's clock.

    `eager`: seconds between questions until the first yes, if shorter than the period; a "no" is then given as late as it
    would be without.
    """

    def __init__(self, probe: Probe, started: float, *, eager: float | None = None) -> None:
        self.probe = probe
        self._eager = eager
        self.verdict: bool | None = None
        self.message = ""  # of the last answer that said no
        self.asking = False
        self._next = started + probe.initial_delay
        self._patient_until = self._next + probe.period * (probe.failure_threshold - 1)
        self._streak = 0  # answers in a row that say the same ...
        self._last: bool | None = None  # ... as this one
        self.said_yes = False  # ever

    def due_at(self) -> float | None:
        """When to ask next; None while a question is out."""
        return None if self.asking else self._next

    def begin(self, now: float) -> None:
        """The question is asked now."""
        if self.asking:
            raise RuntimeError("one question at a time")
        self.asking = True
        hurry = self._eager is not None and not self.said_yes
        self._next = now + (min(self._eager, self.probe.period) if hurry and self._eager else self.probe.period)

    def answer(self, ok: bool, now: float, message: str = "") -> bool:
        """Takes an answer; returns whether the verdict changed.  One that came late delays the next question."""
        if not self.asking:
            raise RuntimeError("an answer to no question")
        self.asking = False
        self._next = max(self._next, now)
        self._streak = self._streak + 1 if ok is self._last else 1
        self._last = ok
        self.said_yes |= ok
        if not ok:
            self.message = message
        threshold = self.probe.success_threshold if ok else self.probe.failure_threshold
        if not ok and self._eager is not None and not self.said_yes and now < self._patient_until:
            return False  # asked often because it is expected to start; the usual patience applies
        if self._streak >= threshold and self.verdict is not ok:
            self.verdict = ok
            return True
        return False


class Backoff:
    """How long to wait before a container starts again: at once, then `base` seconds, doubling up to `limit`;
    forgotten after it ran for `reset` seconds.  (The kubelet: 10 s, 5 min, 10 min.)"""

    def __init__(self, base: float = 1.0, limit: float = 300.0, reset: float = 600.0) -> None:
        self.base = base
        self.limit = limit
        self.reset = reset
        self._failures = 0

    def next_delay(self, ran_for: float) -> float:
        """The container ended after `ran_for` seconds: how long to wait now."""
        if ran_for >= self.reset:
            self._failures = 0
        self._failures += 1
        if self._failures == 1:
            return 0.0
        return min(self.base * 2.0 ** min(self._failures - 2, 60), self.limit)

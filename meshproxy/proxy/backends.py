"""The live state of backends that declare more than the default: who is out, and how the others are chosen.

    tables swapped --begin--> make(backend) ... make(backend) --end--> what no backend declares any more is dissolved
                                 |
                                 +--> Backend(endpoints, chooser)      chooser None: the default, and nothing is kept here

Kept by backend key ("<namespace>/<name>:<port>") over configuration updates: ejections with their penalties, and choosers (a
Maglev table takes milliseconds to fill) as long as neither rules nor endpoints change.
"""

from __future__ import annotations

import logging
from typing import Final

from meshproxy.policy.balancer import Target
from meshproxy.policy.breaker import BreakerPolicy
from meshproxy.policy.chooser import BalancerPolicy, Chooser
from meshproxy.policy.ejection import EJECTED, RETURNED, Ejection
from meshproxy.proxy.context import Context
from meshproxy.proxy.endpoint import Endpoint
from meshproxy.proxy.route import Backend

log: Final = logging.getLogger("meshproxy.proxy")


WEIGHTED: Final = BalancerPolicy()  # of backends that declare nothing, while their pods declare weights


class LiveEjection(Ejection):
    """An ejection that says what it does: to the log, and in metrics."""

    def __init__(self, ctx: Context, name: str, policy: BreakerPolicy) -> None:
        super().__init__(policy, ctx.rng)
        self.ctx = ctx
        self.name = name
        registry = ctx.registry
        labels = (("backend", name),)
        self.ejections = registry.counter("meshproxy_ejections_total", "Endpoints left out for failing, by backend.", labels)
        self.kept = registry.counter(
            "meshproxy_ejections_spared_total", "Failures after which an endpoint stayed, because enough are out.", labels
        )
        self.out_now = registry.gauge("meshproxy_endpoints_ejected", "Endpoints left out now, by backend.", labels)

    def noted(self, target: Target, what: int) -> None:
        self.out_now.value = float(len(self.out))
        breaker = target.breaker
        if what == EJECTED and breaker is not None:
            self.ejections.value += 1
            log.warning(
                "ejected endpoint=%s backend=%s for=%.1fs failures_in_a_row=%d out=%d of %d",
                target,
                self.name,
                breaker.until - self.ctx.now,
                breaker.failures,
                len(self.out),
                len(self.members),
            )
        elif what == RETURNED:
            log.info("returned endpoint=%s backend=%s out=%d of %d", target, self.name, len(self.out), len(self.members))
        elif what != EJECTED:
            self.kept.value += 1


class Backends:
    """Of one side of the proxy."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.ejections: dict[str, LiveEjection] = {}
        self.choosers: dict[str, Chooser] = {}
        self.made: dict[str, Chooser] = {}  # in this update

    def begin(self) -> None:
        """New tables are about to be put in force."""
        self.made = {}

    def make(self, name: str, endpoints: list[Endpoint], policy: BalancerPolicy | None, opaque: bool = False) -> Backend:
        """The backend of this key with these endpoints; the same state for every route that leads to it.  `opaque`: as what is
        carried as bytes reaches it, by endpoints of its own."""
        if policy is None:
            if all(endpoint.weight == 1.0 for endpoint in endpoints):
                return Backend(name, endpoints)
            policy = WEIGHTED
        key = f"{name}#opaque" if opaque else name
        chooser = self.made.get(key)
        if chooser is None:
            chooser = self.made[key] = self.chooser(key, endpoints, policy)
        return Backend(name, endpoints, chooser)

    def chooser(self, name: str, endpoints: list[Endpoint], policy: BalancerPolicy) -> Chooser:
        now = self.ctx.now
        known = self.choosers.get(name)
        if known is not None:  # of a backend that is known already; when this proxy began, all were there before
            before = set(known.targets)
            for endpoint in endpoints:
                if endpoint not in before:
                    endpoint.since = now
        ejection = self.ejection(name, endpoints, policy.breaker)
        targets: list[Target] = [*endpoints]
        if known is not None and known.policy is policy and known.ejection is ejection and known.fits(targets):
            return known
        names = [f"{endpoint.address}:{endpoint.target_port or endpoint.port}".encode() for endpoint in endpoints]
        return Chooser(targets, names, policy, self.ctx.rng, ejection)

    def ejection(self, name: str, endpoints: list[Endpoint], rules: BreakerPolicy | None) -> LiveEjection | None:
        if rules is None:
            return None
        ejection = self.ejections.get(name)
        if ejection is None:
            ejection = self.ejections[name] = LiveEjection(self.ctx, name, rules)
        ejection.update([*endpoints], rules, self.ctx.now)
        ejection.out_now.value = float(len(ejection.out))
        return ejection

    def end(self) -> None:
        """All backends of the new tables were made."""
        self.choosers = self.made
        self.made = {}
        declared = {name for name, chooser in self.choosers.items() if chooser.ejection is not None}
        for name in [name for name in self.ejections if name not in declared]:
            ejection = self.ejections.pop(name)
            ejection.dissolve()
            ejection.out_now.value = 0.0

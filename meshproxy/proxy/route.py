"""A route as the data path sees it: live state of a service port, kept across configuration updates.

Route  --split--> Backend --pick--> Endpoint
  budget, retry policy, timeout, counters
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshproxy.policy.balancer import Target
from meshproxy.policy.budget import Budget
from meshproxy.policy.chooser import Chooser
from meshproxy.policy.ejection import allowed
from meshproxy.policy.retry import GATEWAY_ERROR, RETRIABLE_4XX, STATUS_5XX, RetryPolicy
from meshproxy.policy.split import Split
from meshproxy.proxy.endpoint import Endpoint
from meshproxy.proxy.rule import Rule
from meshproxy.proxy.timers import DeadlineQueue
from meshproxy.proxy.via import Via
from meshproxy.telemetry.registry import HttpSeries

if TYPE_CHECKING:
    from meshproxy.proxy.faulty import Injection
    from meshproxy.proxy.routing import Routing
    from meshproxy.proxy.timed import Times


class Backend:
    """One leaf of a split: a service and its endpoints at one moment.  Immutable; replaced as a whole.

    chooser   where more is declared than the default: breaker, other balancer, slow start, zone; None: `balancer.pick`
    """

    def __init__(self, name: str, endpoints: list[Endpoint], chooser: Chooser | None = None) -> None:
        self.name = name
        self.endpoints = endpoints
        self.chooser = chooser
        # Then there is nothing to pick.
        self.sole = endpoints[0] if len(endpoints) == 1 and chooser is None else None

    def somebody(self, answered: Endpoint | None, now: float, told: list[Target] | None = None) -> bool:
        """Is there an endpoint for another attempt after `answered` has given an answer that is no failure?  `told`: those that
        told the request to wait.  As the choice would find it (balancer.pick, Chooser.pick), but nothing is drawn, and nobody
        marked as being probed."""
        for endpoint in self.endpoints:
            if endpoint.available and endpoint is not answered and (told is None or endpoint not in told):
                return True
        ejection = self.chooser.ejection if self.chooser is not None else None
        if ejection is not None:
            for target in ejection.out:
                breaker = target.breaker
                if target is not answered and breaker is not None and (told is None or target not in told) and breaker.due(now):
                    return True
        if answered is None or not answered.available or answered not in self.endpoints:
            return False
        if told is not None and answered in told:
            return False
        if ejection is None or ejection.policy.success_rate == 0.0:
            return True
        # By rate this very answer may put it out (429 counts), if there is room.
        return len(ejection.out) >= allowed(len(ejection.members), ejection.policy.max_ejected)

    def __repr__(self) -> str:
        return f"Backend({self.name}, {self.endpoints})"


class Route:
    """backends   leaves in the order of the split's weights; one backend needs no split
    deadlines  the queue for this route's request timeout, None without one
    series     counters of exchanges: what clients saw, retries included
    via        names this proxy to the clients in every answer that is passed on; None: it does not
    rule       what is wanted beyond all this, None: nothing
    routing    of a Service that routes are attached to: which requests go by another Route; None: none does
    injection  what is done to its requests on purpose (proxy/faulty.py), None: nothing
    times      what else its Service declares of times (proxy/timed.py), None: nothing
    """

    injection: Injection | None = None
    times: Times | None = None

    def __init__(
        self,
        name: str,
        backends: list[Backend],
        split: Split | None,
        retry: RetryPolicy,
        budget: Budget,
        deadlines: DeadlineQueue | None,
        series: HttpSeries,
        via: Via | None = None,
        rule: Rule | None = None,
    ) -> None:
        self.rule = rule
        self.alters = via is not None or rule is not None  # heads of answers; asked once an answer, so answered here once
        self.routing: Routing | None = None
        self.name = name
        self.via = via
        self.backends = backends
        self.split = split
        # Then there is nothing to draw, and nobody to ask.
        self.sole = backends[0] if split is None and rule is None and backends else None
        self.retry = retry
        # Does a complete response ever lead to a retry?  Asked once a response, so answered here once.
        self.retry_responses = bool(
            retry.conditions & (STATUS_5XX | GATEWAY_ERROR | RETRIABLE_4XX) or retry.statuses or retry.grpc_codes
        )
        self.budget = budget
        self.deadlines = deadlines
        self.series = series

    def draw(self) -> Backend | None:
        """The backend for one request; None when every weight is zero."""
        split = self.split
        if split is None:
            return self.sole
        index = split.draw()
        return self.backends[index] if index >= 0 else None

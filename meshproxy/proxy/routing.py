"""From a request's head to the route that takes it, for a Service port that routes are attached to.

    head --Routing.find()--> Routed      route     the rule that fits; None: the Service's own
                                         head      as it is to be sent; None: as it came
                                         location  of a redirect
                                         unsafe    its path can be read in two ways: refuse

A Service without routes has no Routing.  What a head led to is kept at the head (wire/message.py), because heads are shared by
requests that are alike; it depends on nothing else.
"""

from __future__ import annotations

from typing import Final

from meshproxy.policy.declared import RouteSpec
from meshproxy.policy.filters import changed
from meshproxy.policy.match import NO_MATCH, UNSAFE, Match, Matches
from meshproxy.proxy.route import Route
from meshproxy.wire.message import CACHES, Head

_PLAIN: Final = RouteSpec("")


class Routed:
    """`head` is never the one it is kept at: that would be a circle, which only the collector finds."""

    __slots__ = ("head", "location", "route", "routing", "unsafe")

    def __init__(self, routing: Routing, route: Route | None, head: Head | None, location: bytes, unsafe: bool) -> None:
        self.routing = routing
        self.route = route
        self.head = head
        self.location = location
        self.unsafe = unsafe


class Routing:
    """rules   by Match.route
    port    of the Service
    """

    def __init__(self, matches: Matches, rules: dict[int, Route], port: int) -> None:
        self.matches = matches
        self.rules = rules
        self.port = port

    def find(self, head: Head) -> Routed:
        known = head.route
        if isinstance(known, Routed) and known.routing is self:
            return known
        routed = self.judge(head)
        if CACHES.enabled:
            head.route = routed
        return routed

    def judge(self, head: Head) -> Routed:
        match = self.matches.find(head)
        if match is UNSAFE:
            return Routed(self, None, None, b"", True)
        if match is NO_MATCH:
            return self.sent(None, head, match, _PLAIN)
        route = self.rules[match.route]
        rule = route.rule
        spec = rule.spec if rule is not None else _PLAIN
        redirect = spec.redirect
        if redirect is not None:
            return Routed(self, route, None, redirect.location(head, match, self.port), False)
        return self.sent(route, head, match, spec)

    def sent(self, route: Route | None, head: Head, match: Match, spec: RouteSpec) -> Routed:
        made = changed(head, match, self.matches.on_paths, spec.rewrite, spec.request_headers)
        return Routed(self, route, None if made is head else made, b"", False)

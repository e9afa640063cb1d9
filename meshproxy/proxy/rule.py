"""A rule of a route, as the data path follows it: what it wants beyond a weighted draw and the Service's times.

    Route.rule: Rule    refuse at once | keep a client with its backend | time each try | change the answer
      leaves[i]: Leaf   what is special about one of the route's backends

A Route without one pays a test: see proxy/exchange.py `by_rule`.
"""

from __future__ import annotations

from meshproxy.policy.consistent_hash import HashKey, hash_key
from meshproxy.policy.declared import RouteSpec
from meshproxy.policy.service import BackendEntry
from meshproxy.policy.split import Split
from meshproxy.proxy.mirror import Mirror
from meshproxy.proxy.refusals import BACKEND_INVALID, NO_RULE, RULE_INVALID, Refusal
from meshproxy.proxy.timers import DeadlineQueue
from meshproxy.wire.message import Field, Head


class Leaf:
    """One backend's own: what its requests are refused with, what is changed for it alone."""

    def __init__(self, entry: BackendEntry) -> None:
        self.refusal: Refusal | None = BACKEND_INVALID if entry.refuse else None
        self.request_headers = entry.request_headers
        self.response_headers = entry.response_headers


class Rule:
    """tries     the queue for the timeout of each attempt, None without one
    mirrors   who gets copies of requests
    """

    def __init__(
        self,
        spec: RouteSpec,
        entries: list[BackendEntry],
        tries: DeadlineQueue | None,
        mirrors: list[Mirror] | None = None,
    ) -> None:
        self.mirrors = mirrors
        self.spec = spec
        self.leaves = [Leaf(entry) for entry in entries]
        self.tries = tries
        self.sticky: HashKey | None = spec.sticky
        self.response_headers = spec.response_headers
        self.refusal: Refusal | None = None
        if spec.refuse:
            self.refusal = NO_RULE if spec.refuse == 404 else RULE_INVALID

    def draw(self, split: Split | None, head: Head) -> int:
        """The index of the backend for a request, -1 if every weight is zero."""
        if split is None:
            return 0 if self.leaves else -1
        sticky = self.sticky
        if sticky is not None:
            key = sticky.of(head)
            if key is not None:
                return split.at(hash_key(key))
        return split.draw()

    def answer(self, head: Head, leaf: Leaf | None) -> Head:
        """An answer's head as the client gets it: the same one where nothing is changed."""
        fields: list[Field] = head.fields
        if self.response_headers is not None:
            fields = self.response_headers.apply(fields)
        if leaf is not None and leaf.response_headers is not None:
            fields = leaf.response_headers.apply(fields)
        return head if fields is head.fields else head.copied(fields)


def redirect_head(status: int, location: bytes) -> Head:
    """The whole answer: it has no body."""
    head = Head()
    head.status = status
    head.content_length = 0
    head.fields = [Field(b"location", location), Field(b"content-length", b"0")]
    return head

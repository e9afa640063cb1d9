"""May this request be sent again?

    the attempt failed
      response bytes already sent to the client?    -> RESPONSE_STARTED   nothing can be taken back
      not a failure the policy names?               -> NOT_RETRYABLE
      the endpoint may have acted on the request,
        and acting twice is not harmless?           -> NOT_IDEMPOTENT     RFC 9110 9.2.2
      the body is gone (over 64 KiB, or streamed)?  -> NOT_REPLAYABLE
      tried often enough?                           -> ATTEMPTS
      budget spent?                                 -> NO_BUDGET          asked last, because asking pays
                                                    -> RETRY

**Certainly unprocessed** means: the connection never came up, the peer said REFUSED_STREAM (RFC 9113 8.7), the stream is
above GOAWAY's last id, or no byte was handed to the socket.  Only then may a POST go out again.

**gRPC** is always POST, so its method says nothing.  A service that lists gRPC codes declares with it that its calls may be
repeated when they end so (as `retryableStatusCodes` does in gRPC's own service config); such a failure counts as idempotent.

Default: connect-failure and refused-stream.  Everything else is by declaration, in Envoy's and Linkerd's words.
"""

from __future__ import annotations

from typing import Final

from meshproxy.policy.budget import Budget
from meshproxy.policy.classify import parse_grpc_status

# ---------------------------------------------------------------- how an attempt can fail: one int
#
#   1 .. 3      no response: the constants here
#   400 .. 599  a response with this HTTP status
#   1000 + c    a response with gRPC code c

CONNECT: Final = 1  # no usable connection to the endpoint
RESET: Final = 2  # the stream or connection broke before a response (unprocessed or not: see `decide`)
TIMEOUT: Final = 3  # the attempt's own timeout; the request's timeout ends the exchange and asks nobody

_GRPC: Final = 1000


def failure_of_status(status: int, grpc_status: bytes = b"") -> int:
    """The failure a response stands for, 0 if it is none that any policy could name.  `grpc_status` as in a response head."""
    if status >= 400:
        return status
    code = parse_grpc_status(grpc_status)
    return _GRPC + code if code > 0 else 0


# ---------------------------------------------------------------- what a policy may name

ON_CONNECT_FAILURE: Final = 1  # no connection: refused, timed out, or the handshake failed
ON_REFUSED_STREAM: Final = 2  # connected, but certainly unprocessed
ON_RESET: Final = 4  # broken before a response: the request may have been acted on
ON_TIMEOUT: Final = 8  # the attempt took too long

DEFAULT_CONDITIONS: Final = ON_CONNECT_FAILURE | ON_REFUSED_STREAM

# Word -> (conditions without a response, statuses).  Envoy's words and meanings (retry-on): a gateway would have answered a
# broken or late attempt with 502 or 504, so the words for statuses cover those too.
CONDITIONS: Final[dict[str, tuple[int, range]]] = {
    "connect-failure": (ON_CONNECT_FAILURE, range(0)),
    "refused-stream": (ON_REFUSED_STREAM, range(0)),
    "reset": (ON_RESET, range(0)),
    "5xx": (ON_CONNECT_FAILURE | ON_REFUSED_STREAM | ON_RESET | ON_TIMEOUT, range(500, 600)),
    "gateway-error": (ON_CONNECT_FAILURE | ON_REFUSED_STREAM | ON_TIMEOUT, range(502, 505)),
    "retriable-4xx": (0, range(409, 410)),
}

GRPC_CODES: Final[dict[str, int]] = {
    "cancelled": 1,
    "unknown": 2,
    "deadline-exceeded": 4,
    "resource-exhausted": 8,
    "aborted": 10,
    "internal": 13,
    "unavailable": 14,
}

MAX_ATTEMPTS: Final = 10  # more retries of one request than this is a loop, not a policy

_IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))


def is_idempotent(method: bytes) -> bool:
    """RFC 9110 9.2.2, by the method alone."""
    return method in _IDEMPOTENT


class RetryPolicy:
    """When a service's requests are tried again; immutable, part of the tables.

    conditions      failures without a response: set of ON_* bits
    statuses        failures with one, as ints (see above); empty: no response is ever held back to be judged
    attempts        retries of one request at most (the first attempt not counted), 0..10; 1
    budget_ratio, budget_floor, budget_ttl    see policy.budget: retries a request, retries a second, seconds
    """

    __slots__ = ("attempts", "budget_floor", "budget_ratio", "budget_ttl", "conditions", "statuses")

    def __init__(
        self,
        conditions: int = DEFAULT_CONDITIONS,
        statuses: frozenset[int] = frozenset(),
        attempts: int = 1,
        budget_ratio: float = 0.2,
        budget_floor: float = 10.0,
        budget_ttl: float = 10.0,
    ) -> None:
        if not 0 <= attempts <= MAX_ATTEMPTS:
            raise ValueError(f"retry attempts must be 0 to {MAX_ATTEMPTS}, not {attempts}")
        self.conditions = conditions
        self.statuses = statuses
        self.attempts = attempts
        self.budget_ratio = budget_ratio
        self.budget_floor = budget_floor
        self.budget_ttl = budget_ttl

    def names(self, failure: int, unprocessed: bool) -> bool:
        """Is this a failure the policy wants tried again?"""
        conditions = self.conditions
        if failure == CONNECT:
            return conditions & ON_CONNECT_FAILURE != 0
        if unprocessed and conditions & ON_REFUSED_STREAM:
            return True
        if failure == RESET:
            return conditions & ON_RESET != 0
        if failure == TIMEOUT:
            return conditions & ON_TIMEOUT != 0
        return failure in self.statuses


NO_RETRY: Final = RetryPolicy(conditions=0, attempts=0)


def parse_policy(
    words: list[str],
    attempts: int = 1,
    budget_ratio: float = 0.2,
    budget_floor: float = 10.0,
    budget_ttl: float = 10.0,
) -> RetryPolicy:
    """A policy from its words: conditions, gRPC codes by name, `503`, `500-503`.  No words: the default conditions.

    Raises ValueError naming the word and what would be accepted.
    """
    conditions = 0 if words else DEFAULT_CONDITIONS
    statuses: set[int] = set()
    for given in words:
        word = given.strip().lower()
        low, dash, high = word.partition("-")
        if word in CONDITIONS:
            bits, listed = CONDITIONS[word]
            conditions |= bits
            statuses.update(listed)
        elif word in GRPC_CODES:
            statuses.add(_GRPC + GRPC_CODES[word])
        elif _is_status(low) and (not dash or (_is_status(high) and low <= high)):
            statuses.update(range(int(low), int(high or low) + 1))
        else:
            accepted = ", ".join([*CONDITIONS, *GRPC_CODES])
            raise ValueError(f"unknown retry condition {given!r}; accepted: {accepted}, a status (503), a range (500-503)")
    return RetryPolicy(conditions, frozenset(statuses), attempts, budget_ratio, budget_floor, budget_ttl)


def _is_status(text: str) -> bool:
    return len(text) == 3 and text.isascii() and text.isdigit() and "400" <= text <= "599"


# ---------------------------------------------------------------- the decision

RETRY: Final = 0
NOT_RETRYABLE: Final = 1
NOT_IDEMPOTENT: Final = 2
NOT_REPLAYABLE: Final = 3
RESPONSE_STARTED: Final = 4
ATTEMPTS: Final = 5
NO_BUDGET: Final = 6

# Decision -> value of the metric label `reason` of retry_skipped_total.
REASONS: Final = ("", "not_retryable", "not_idempotent", "not_replayable", "response_started", "attempts", "no_budget")


def decide(
    policy: RetryPolicy,
    budget: Budget,
    now: float,
    attempt_no: int,
    failure: int,
    method_idempotent: bool,
    request_unprocessed: bool,
    body_replayable: bool,
    response_started: bool,
) -> int:
    """RETRY, or the reason why not (an index into REASONS).  Only RETRY draws on the budget.

    `attempt_no` counts from 1: the attempt that has just failed.  `request_unprocessed`: certainly not acted on (see above);
    after CONNECT that is always so.
    """
    if response_started:
        return RESPONSE_STARTED
    unprocessed = request_unprocessed or failure == CONNECT
    if not policy.names(failure, unprocessed):
        return NOT_RETRYABLE
    if not (unprocessed or method_idempotent or failure >= _GRPC):
        return NOT_IDEMPOTENT
    if not body_replayable:
        return NOT_REPLAYABLE
    if attempt_no > policy.attempts:
        return ATTEMPTS
    if not budget.withdraw(now):
        return NO_BUDGET
    return RETRY

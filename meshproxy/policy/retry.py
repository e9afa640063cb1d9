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
So do **answers** where any method is declared: by a rule that is for certain methods (`method: POST`) and has retries, or by
`retry.linkerd.io/http`, which is for every method.  A lost connection or a timeout is no answer: who knows what became of it?

Default: connect-failure, refused-stream, and reset (which only idempotent requests pass).  Responses are retried by
declaration alone, in Envoy's and Linkerd's words.
"""

from __future__ import annotations

from typing import Final

from meshproxy.policy.budget import Budget
from meshproxy.policy.classify import NO_GRPC, is_success
from meshproxy.policy.http_date import parse_http_date
from meshproxy.policy.random import Rng

# ---------------------------------------------------------------- what a policy may name

CONNECT_FAILURE: Final = 1  # no connection: refused, timed out, or the handshake failed
REFUSED_STREAM: Final = 2  # connected, but certainly unprocessed
RESET: Final = 4  # the connection or stream broke before a response; the request may have been acted on
STATUS_5XX: Final = 8  # any 500-599; also an attempt without a response, for which a gateway answers 502 or 504 (as Envoy)
GATEWAY_ERROR: Final = 16  # 502, 503, 504; also a timed-out attempt, for which a gateway answers 504
RETRIABLE_4XX: Final = 32  # 409, as Envoy
TRY_TIMEOUT: Final = 64  # the attempt took longer than the rule's backendRequest (GEP-1731)

CONDITIONS: Final[dict[str, int]] = {
    "connect-failure": CONNECT_FAILURE,
    "refused-stream": REFUSED_STREAM,
    "reset": RESET,
    "5xx": STATUS_5XX,
    "gateway-error": GATEWAY_ERROR,
    "retriable-4xx": RETRIABLE_4XX,
    "try-timeout": TRY_TIMEOUT,
}
# A broken connection is in it for idempotent requests alone: RFC 9110 9.2.2 allows exactly that, and
# without it every killed endpoint and every pooled connection closed at the moment of reuse is a client's 502.
DEFAULT_CONDITIONS: Final = CONNECT_FAILURE | REFUSED_STREAM | RESET

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

# Where no back-off is declared: an endpoint that has just failed is given a moment, and clients fall out of step (Linkerd's).
BACKOFF_S: Final = 0.025
LONGEST_BACKOFF_S: Final = 0.25
MAX_BACKOFF_S: Final = 10.0  # of a declared one, however often it was doubled; as the dials of an endpoint (reconnect_max_s)

_IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))


def is_idempotent(method: bytes) -> bool:
    """RFC 9110 9.2.2, by the method alone."""
    return method in _IDEMPOTENT


# ---------------------------------------------------------------- how an attempt can fail

CONNECT_FAILED: Final = 0  # no usable connection to the endpoint
BROKEN: Final = 1  # reset or connection lost before a response (unprocessed or not: see `decide`)
TIMED_OUT: Final = 2  # the attempt's own timeout; the request's timeout ends the exchange and asks nobody
RESPONDED: Final = 3  # a response with a status
TRY_TIMED_OUT: Final = 4  # as TIMED_OUT, by the time that its rule gives each try (backendRequest)


class Failure:
    """How one attempt ended.  `status` (HTTP) and `grpc_status` (0..16 or NO_GRPC) go with RESPONDED."""

    __slots__ = ("grpc_status", "kind", "status")

    def __init__(self, kind: int, status: int = 0, grpc_status: int = NO_GRPC) -> None:
        self.kind = kind
        self.status = status
        self.grpc_status = grpc_status


class RetryPolicy:
    """When a service's requests are tried again; immutable, part of the tables.

    conditions      set of the condition bits above
    statuses        single HTTP statuses beside them
    grpc_codes      gRPC codes, as bits 1 << code
    attempts        retries of one request at most (the first attempt not counted), 0..10; 1
    budget_ratio, budget_floor, budget_ttl    see policy.budget: retries a request, retries a second, seconds
    backoff_s       at least this long between two tries, seconds, doubled for each further one; 0.0: at once.  None: 25 ms to
                    250 ms after an answer or a timeout; what found nobody goes elsewhere at once
    any_method      an answer that is named is tried again whatever the method was
    """

    __slots__ = (
        "always_waits", "any_method", "attempts", "backoff_s", "budget_floor", "budget_ratio", "budget_ttl", "conditions",
        "grpc_codes", "longest_backoff_s", "statuses",
    )  # fmt: skip

    def __init__(
        self,
        conditions: int = DEFAULT_CONDITIONS,
        statuses: frozenset[int] = frozenset(),
        grpc_codes: int = 0,
        attempts: int = 1,
        budget_ratio: float = 0.2,
        budget_floor: float = 10.0,
        budget_ttl: float = 10.0,
        backoff_s: float | None = None,
        any_method: bool = False,
    ) -> None:
        self.always_waits = backoff_s is not None
        self.backoff_s = BACKOFF_S if backoff_s is None else backoff_s
        self.longest_backoff_s = LONGEST_BACKOFF_S if backoff_s is None else MAX_BACKOFF_S
        self.any_method = any_method
        if not 0 <= attempts <= MAX_ATTEMPTS:
            raise ValueError(f"retry attempts must be 0 to {MAX_ATTEMPTS}, not {attempts}")
        self.conditions = conditions
        self.statuses = statuses
        self.grpc_codes = grpc_codes
        self.attempts = attempts
        self.budget_ratio = budget_ratio
        self.budget_floor = budget_floor
        self.budget_ttl = budget_ttl

    def matches(self, failure: Failure, unprocessed: bool) -> bool:
        """Does the policy name this failure?"""
        conditions = self.conditions
        kind = failure.kind
        if kind == CONNECT_FAILED:
            return conditions & (CONNECT_FAILURE | STATUS_5XX | GATEWAY_ERROR) != 0
        if unprocessed and conditions & REFUSED_STREAM:
            return True
        if kind == BROKEN:
            return conditions & (RESET | STATUS_5XX) != 0 or self.declares(failure)
        if kind == TRY_TIMED_OUT and conditions & TRY_TIMEOUT:
            return True
        if kind in (TIMED_OUT, TRY_TIMED_OUT):
            return conditions & (GATEWAY_ERROR | STATUS_5XX) != 0 or 504 in self.statuses or self.declares(failure)
        status = failure.status
        if status in self.statuses or self.declares(failure):
            return True
        if status >= 500:
            return conditions & STATUS_5XX != 0 or (502 <= status <= 504 and conditions & GATEWAY_ERROR != 0)
        return status == 409 and conditions & RETRIABLE_4XX != 0

    def waits_after(self, failure: Failure) -> bool:
        """Is there a wait before the next try?"""
        if self.backoff_s == 0.0:
            return False
        return self.always_waits or failure.kind in (RESPONDED, TIMED_OUT, TRY_TIMED_OUT)

    def least_wait(self, tried: int) -> float:
        """How long before the next try at least, after so many (from 1)."""
        doubled: float = self.backoff_s * (1 << (tried - 1))
        return min(doubled, self.longest_backoff_s)

    def wait_s(self, tried: int, rng: Rng) -> float:
        """How long before the next try: up to half as long again by chance, so that clients fall out of step."""
        return self.least_wait(tried) * (1.0 + rng.below(1000) / 2000.0)

    def asks(self, status: int, grpc_status: int) -> bool:
        """Is a complete answer one to `decide` about?  A failure as metrics have it; and what they count as a success, if the
        policy names it: 409, 429, CANCELLED, RESOURCE_EXHAUSTED, ABORTED."""
        if not is_success(status, grpc_status):
            return True
        return (status >= 400 or grpc_status > 0) and self.matches(Failure(RESPONDED, status, grpc_status), False)

    def harmless(self, failure: Failure) -> bool:
        """Did the service declare this failure, which it names, harmless to repeat, whatever the method?"""
        return self.declares(failure) or (self.any_method and failure.kind == RESPONDED)

    def declares(self, failure: Failure) -> bool:
        """A gRPC status that the service listed (a broken connection is UNAVAILABLE to a gRPC caller)?"""
        code = failure.grpc_status
        return code >= 0 and (self.grpc_codes >> code) & 1 != 0


NO_RETRY: Final = RetryPolicy(conditions=0, attempts=0)


def parse_policy(
    words: list[str],
    attempts: int = 1,
    budget_ratio: float = 0.2,
    budget_floor: float = 10.0,
    budget_ttl: float = 10.0,
    backoff_s: float | None = None,
    any_method: bool = False,
) -> RetryPolicy:
    """A policy from its words: conditions, gRPC codes by name, `503`, `500-503`.  No words: the default conditions.

    Raises ValueError naming the word and what would be accepted.
    """
    conditions = 0 if words else DEFAULT_CONDITIONS
    grpc_codes = 0
    statuses: set[int] = set()
    for given in words:
        word = given.strip().lower()
        low, dash, high = word.partition("-")
        if word in CONDITIONS:
            conditions |= CONDITIONS[word]
        elif word in GRPC_CODES:
            grpc_codes |= 1 << GRPC_CODES[word]
        elif _is_status(low) and (not dash or (_is_status(high) and low <= high)):
            statuses.update(range(int(low), int(high or low) + 1))
        else:
            accepted = ", ".join([*CONDITIONS, *GRPC_CODES])
            raise ValueError(f"unknown retry condition {given!r}; accepted: {accepted}, a status (503), a range (500-503)")
    return RetryPolicy(
        conditions, frozenset(statuses), grpc_codes, attempts, budget_ratio, budget_floor, budget_ttl, backoff_s, any_method
    )


def _is_status(text: str) -> bool:
    return len(text) == 3 and text.isascii() and text.isdigit() and "400" <= text <= "599"


def wait_asked(value: bytes, wall: float) -> float:
    """Seconds of a Retry-After field (RFC 9110 10.2.3): a number of them, or from `wall` (Unix seconds) to a date.  0.0 for a
    date that has passed, and for what is neither."""
    if value.isdigit():
        return float(int(value)) if len(value) <= 9 else 0.0
    at = parse_http_date(value, wall)
    return max(at - wall, 0.0) if at is not None else 0.0


NEVER: Final = -1.0  # instead of seconds: it wants no further attempt at all


def pushback_asked(value: bytes) -> float:
    """Seconds of a grpc-retry-pushback-ms field (gRPC's proposal A6); NEVER for a negative number and for what is none, as A6
    has it: so a server says that it wants no retry."""
    if not value.isdigit() or len(value) > 10:
        return NEVER
    milliseconds = int(value)
    return milliseconds / 1000.0 if milliseconds < 2**31 else NEVER  # an int32 to every gRPC library


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
    failure: Failure,
    method_idempotent: bool,
    request_unprocessed: bool,
    body_replayable: bool,
    response_started: bool,
) -> int:
    """RETRY, or the reason why not (an index into REASONS).  Only RETRY draws on the budget.

    `attempt_no` counts from 1: the attempt that has just failed.  `request_unprocessed`: certainly not acted on (see above);
    after CONNECT_FAILED that is always so.
    """
    if response_started:
        return RESPONSE_STARTED
    unprocessed = request_unprocessed or failure.kind == CONNECT_FAILED
    if not policy.matches(failure, unprocessed):
        return NOT_RETRYABLE
    if not (unprocessed or method_idempotent or policy.harmless(failure)):
        return NOT_IDEMPOTENT
    if not body_replayable:
        return NOT_REPLAYABLE
    if attempt_no > policy.attempts:
        return ATTEMPTS
    if not budget.withdraw(now):
        return NO_BUDGET
    return RETRY

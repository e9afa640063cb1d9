"""What becomes of a request for a Service: one form, whichever kind of object said it.

    TrafficSplit with matches  --\\                        matches, in order of precedence      rules
    HTTPRoute                  ---> attach.attach() --> [ Candidate(match, rule, ports) ... ] --> Rule(leaves, filters, times)
    GRPCRoute                  --/

Plain immutable data, compared by value; `control/compile/routes.py` writes it as mesh.proto has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from control.resources.annotations import PLAIN_SHARING, Sharing
from control.resources.documents import Path
from control.store.store import Key

EXACT = "exact"
PREFIX = "prefix"  # of a path: whole segments
REGEX = "regex"  # the whole value
REGEX_START = "regex-start"  # anchored at the start only


@dataclass(frozen=True, slots=True)
class StringMatch:
    how: str
    value: str
    name: str = ""  # of the header (lower case) or query parameter


@dataclass(frozen=True, slots=True)
class RequestMatch:
    """All that is given must fit."""

    path: StringMatch | None = None
    methods: tuple[str, ...] = ()
    headers: tuple[StringMatch, ...] = ()
    query: tuple[StringMatch, ...] = ()

    @property
    def conditions(self) -> int:
        return (self.path is not None) + bool(self.methods) + len(self.headers) + len(self.query)


EVERYTHING = RequestMatch()


@dataclass(frozen=True, slots=True)
class Changes:
    """Of header fields; names in lower case."""

    set: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Leaf:
    """One backend.

    service   "<namespace>/<name>"
    port      of that Service; 0: the one the request was for
    refuse    its share is answered with this status: a reference that leads nowhere
    """

    service: str
    weight_milli: int
    port: int = 0
    refuse: int = 0
    request_headers: Changes | None = None
    response_headers: Changes | None = None


@dataclass(frozen=True, slots=True)
class NewPath:
    """`prefix` replaces what a PREFIX match fitted, `full` everything; one of them is None."""

    full: str | None = None
    prefix: str | None = None


@dataclass(frozen=True, slots=True)
class Redirect:
    scheme: str = ""
    host: str = ""
    port: int = 0
    path: NewPath | None = None
    status: int = 302


@dataclass(frozen=True, slots=True)
class Rewrite:
    host: str = ""
    path: NewPath | None = None


@dataclass(frozen=True, slots=True)
class Mirror:
    leaf: Leaf
    numerator: int
    denominator: int


@dataclass(frozen=True, slots=True)
class Retries:
    """conditions  beside those that always hold: statuses, and the words of `meshproxy.dev/retry-http` and `retry-grpc`
    backoff_ms  None: not declared
    any_method  answers are tried again also where the request is not idempotent"""

    conditions: tuple[str, ...]
    attempts: int
    backoff_ms: int | None
    any_method: bool = False


@dataclass(frozen=True, slots=True)
class AnswerTimes:
    """Beside the whole request's; 0: none."""

    response_start_ms: int
    response_ms: int
    idle_ms: int


@dataclass(frozen=True, slots=True)
class Rule:
    """name  "HTTPRoute shop/web rule 0": in metrics, logs, explain
    leaves   none: the Service's own endpoints
    timeout_ms  None: the Service's; 0: none
    times    None: the Service's
    retries  None: the Service's
    refuse   answered with this status at once
    """

    name: str
    leaves: tuple[Leaf, ...] = ()
    request_headers: Changes | None = None
    response_headers: Changes | None = None
    redirect: Redirect | None = None
    rewrite: Rewrite | None = None
    mirrors: tuple[Mirror, ...] = ()
    timeout_ms: int | None = None
    try_timeout_ms: int = 0
    retries: Retries | None = None
    refuse: int = 0
    sharing: Sharing = PLAIN_SHARING
    times: AnswerTimes | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A match that leads to a rule.

    ports             of the Service it holds for
    client_namespace  "": clients of all namespaces
    order             among the candidates of one scope: smaller first
    origin            the object that says so, and where
    """

    match: RequestMatch
    rule: Rule
    ports: tuple[int, ...]
    client_namespace: str
    order: tuple[Any, ...]
    origin: Key
    path: Path = ()


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong between objects.  `reason`: in CamelCase, for Events and conditions."""

    key: Key
    path: Path
    reason: str
    message: str
    hint: str = ""

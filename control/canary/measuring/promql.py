"""What is asked of a Prometheus, and what its answer means; pure.

    success_rate(subject, window), duration_p99(...), requests(...)      -> PromQL
    bytes of /api/v1/query -> value_of() -> a number | NoValue (nothing there) | BadAnswer (not an answer)
                              vector_of() -> all of it | BadAnswer                for arms (prometheus_arms.py)

The built-in queries mean what the embedded source means (embedded.py), on the same families, which are Linkerd's:

    request-success-rate = 100 * success / (success + failure + unreached)     inbound at the target's pods
    unreached            = per pod, what callers saw fail beyond what the pod itself counted; and what found no pod at all
    request-duration     = p99 of inbound response_latency_ms

They are the same whatever spec.provider says: it chooses a router, and the numbers are our sidecars'.  (Flagger would ask for
Istio's families with smi:*, and for the app's own http_request_duration_seconds with gatewayapi:*, which nobody here exports.)
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from control.canary.declared.fields import SpecError

ONLINE = "vector(1)"  # Flagger's question whether a Prometheus is there

QUANTILE = 0.99

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*(?:[eE][+-]?[0-9]+)?|Inf|NaN)\Z")


class NoValue(Exception):
    """The query was answered, and there is nothing to go by; `str()` says what there was."""


class BadAnswer(Exception):
    """What came is no answer to a query; `str()` says why."""


@dataclass(frozen=True, slots=True)
class Server:
    """A Prometheus and how to talk to it.  `verify`: its certificate.  What is secret does not show in a repr."""

    address: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    verify: bool = True
    token: str = field(default="", repr=False)
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)


def server_url(value: str, where: str) -> str:
    """`value` if it is the URL of a server.  Raises SpecError."""
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise SpecError(f"{where}: expected a URL such as http://prometheus.monitoring:9090, found {value!r:.100}")
    return value


def without_password(address: str) -> str:
    """The address as it may be told."""
    return re.sub(r"//[^/@]*@", "//", address)


# -- questions


def success_rate(namespace: str, deployment: str, service: str, window: str) -> str:
    inbound = _inbound(namespace, deployment)
    good = _sum(f'response_total{{{inbound},classification="success"}}', window)
    return f"100 * {good} / ({_answered(inbound, window)} + {_unreached(namespace, deployment, service, window)})"


def duration_p99(namespace: str, deployment: str, window: str) -> str:
    series = f"response_latency_ms_bucket{{{_inbound(namespace, deployment)}}}[{window}]"
    return f"histogram_quantile({QUANTILE}, sum by (le) (rate({series})))"


def requests(namespace: str, deployment: str, service: str, window: str) -> str:
    """How many requests the success rate is made of."""
    inbound = _inbound(namespace, deployment)
    return f"{_answered(inbound, window, 'increase')} + {_unreached(namespace, deployment, service, window, 'increase')}"


def _inbound(namespace: str, deployment: str) -> str:
    return f'direction="inbound",namespace="{namespace}",deployment="{deployment}"'


def _sum(series: str, window: str, function: str = "rate") -> str:
    return f"(sum({function}({series}[{window}])) or vector(0))"  # no such series yet: nothing was counted


def _answered(inbound: str, window: str, function: str = "rate") -> str:
    return _sum(f"response_total{{{inbound}}}", window, function)


def _unreached(namespace: str, deployment: str, service: str, window: str, function: str = "rate") -> str:
    """See embedded.py: a failure that both sides saw is one failure."""
    failed = f'direction="outbound",classification="failure",dst_namespace="{namespace}"'
    called = f'{function}(response_total{{{failed},dst_deployment="{deployment}",dst_pod!=""}}[{window}])'
    # First the sum: a caller has a label `pod` of its own, which must not be overwritten while there are several callers.
    seen = f'label_replace(sum by (dst_pod) ({called}), "pod", "$1", "dst_pod", "(.+)")'
    own = f'sum by (pod) ({function}(response_total{{{_inbound(namespace, deployment)},classification="failure"}}[{window}]))'
    beyond = f"(sum(clamp_min(({seen} - on (pod) {own}) or on (pod) {seen}, 0)) or vector(0))"
    nowhere = _sum(f'response_total{{{failed},dst_pod="",dst_deployment="{deployment}"}}', window, function)
    no_endpoint = _sum(f'response_total{{{failed},dst_pod="",dst_deployment="",dst_service="{service}"}}', window, function)
    return f"{beyond} + {nowhere} + {no_endpoint}"


# -- questions about both arms, for evidence: counters as they stand


def arm_stamps(namespace: str, arms: tuple[str, ...]) -> str:
    """By pod: when its proxy was last scraped."""
    return f"max by (deployment, pod) (timestamp(response_total{{{_of_arms(namespace, arms)}}}))"


def arm_responses(namespace: str, arms: tuple[str, ...]) -> str:
    return f"sum by (deployment, pod, classification) (response_total{{{_of_arms(namespace, arms)}}})"


def arm_latency(namespace: str, arms: tuple[str, ...]) -> str:
    selected = f'{_of_arms(namespace, arms)},status_code!~"5.."'
    return f"sum by (deployment, pod, le) (response_latency_ms_bucket{{{selected}}})"


def arm_callers(namespace: str) -> str:
    """By calling pod and destination: failures that callers saw."""
    selected = f'direction="outbound",classification="failure",dst_namespace="{namespace}"'
    return f"sum by (namespace, pod, dst_namespace, dst_deployment, dst_pod, dst_service) (response_total{{{selected}}})"


def _of_arms(namespace: str, arms: tuple[str, ...]) -> str:
    either = "|".join(arms).replace(".", "[.]")  # a name may have dots, and no other character that means something here
    return f'direction="inbound",namespace="{namespace}",deployment=~"{either}"'


# -- answers


def value_of(body: bytes, asked_at: float, stale_after: float) -> float:
    """The number in an answer: of a vector the last element, as Flagger takes it.

    Args:
        asked_at: Unix seconds by the server's clock; `stale_after`: seconds, a value from longer ago is none.
    Raises NoValue (an empty vector, NaN, infinite, stale) and BadAnswer (anything that is not a vector)."""
    result = result_of(body)
    if not result:
        raise NoValue("no values found")
    at, value = _point(result[-1])
    if math.isnan(value):
        raise NoValue("the value is NaN")
    if math.isinf(value):
        raise NoValue(f"the value is {'+' if value > 0 else '-'}Inf")
    if asked_at - at > stale_after:
        raise NoValue(f"the value is {asked_at - at:.0f} s old, older than the interval of {stale_after:g} s")
    return value


def vector_of(body: bytes) -> list[tuple[dict[str, str], float]]:
    """(labels, value) of each element of a vector, those without a finite value left out.  Raises BadAnswer."""
    found = []
    for element in result_of(body):
        _, value = _point(element)
        labels = element.get("metric") if isinstance(element, dict) else None
        if not isinstance(labels, dict):
            raise BadAnswer(f"expected labels, found {labels!r:.60}")
        if math.isfinite(value):
            found.append(({str(name): str(content) for name, content in labels.items()}, value))
    return found


def _point(element: object) -> tuple[float, float]:
    """(Unix seconds, value) of an element of an instant vector."""
    pair = element.get("value") if isinstance(element, dict) and "values" not in element else None
    if not isinstance(pair, list) or len(pair) != 2:
        raise BadAnswer("it is not an instant vector: a query must give one number, not a range or a scalar")
    at, written = pair
    if isinstance(at, bool) or not isinstance(at, int | float) or not isinstance(written, str) or not _NUMBER.match(written):
        raise BadAnswer(f"expected a time and a number as text, found {pair!r:.60}")
    return at, float(written)


def result_of(body: bytes) -> list[object]:
    """data.result of an answer.  Raises BadAnswer."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise BadAnswer(f"it is not JSON: {body[:60]!r}") from None
    if not isinstance(answer, dict):
        raise BadAnswer(f"expected a JSON object, found {answer!r:.60}")
    if answer.get("status") == "error":
        raise BadAnswer(f"{answer.get('errorType', 'error')}: {answer.get('error', '')!s:.200}")
    data = answer.get("data")
    result = data.get("result") if isinstance(data, dict) else None
    if not isinstance(result, list):
        raise BadAnswer(f"it has no data.result: {body[:60]!r}")
    return result

"""MetricTemplate (flagger.app/v1beta1): a PromQL query with holes, and the Prometheus it is for.

    object -> parse_template() -> MetricTemplate -- server(secret) --> Server
                                                `-- render(query, blanks) --> PromQL

The query is a Go template in Flagger.  What its users write is holes with names in them, so that is what is understood:
`{{ namespace }}`, `{{- target -}}` (trims the space beside it), `{{ variables.direction }}`, `{{ index variables "a-b" }}`,
printf of these (holes.py), and comments.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from control.canary.declared.fields import SpecError, flag, items, mapping, text
from control.canary.declared.metric import MAX_QUERY, Metric
from control.canary.measuring.holes import Hole
from control.canary.measuring.promql import Server, server_url
from control.canary.measuring.source import Subject
from control.canary.objects.secret import secret_value

KIND = "MetricTemplate"
PROMETHEUS = "prometheus"
# Flagger's others (datadog, cloudwatch, ...) are services of somebody else's, each with a client of its own.

_HOLE = re.compile(r"(?P<left>\s*\{\{-\s|\{\{)(?P<inside>.*?)(?P<right>\s-\}\}\s*|\}\})", re.DOTALL)
_COMMENT = re.compile(r"\s*/\*.*\*/\s*\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Blanks:
    """What the holes of a query are filled with."""

    words: Mapping[str, str]  # name, namespace, target, service, ingress, route, interval
    variables: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, subject: Subject, metric: Metric) -> Blanks:
        # Without an ingressRef or routeRef, Flagger says the target's name for both.
        words = {
            "name": subject.canary,
            "namespace": subject.namespace,
            "target": subject.deployment,
            "service": subject.apex,
            "ingress": subject.deployment,
            "route": subject.deployment,
            "interval": prometheus_duration(metric.interval_s),
        }
        return cls(words, dict(metric.variables))


def render(query: str, blanks: Blanks) -> str:
    """`query` with its holes filled.  Raises SpecError on a hole that has no filling."""
    filled = _HOLE.sub(lambda hole: _fill(hole["inside"].strip(), blanks), query)
    # A brace that opened no whole hole.  PromQL itself has no doubled ones.
    bare = _HOLE.sub("", query)
    for brace in ("{{", "}}"):
        if brace in bare:
            raise SpecError(f"the query has a {brace} without its other half")
    return filled


def check_query(query: str) -> None:
    """Raises SpecError if no metric could fill the holes of `query`."""
    render(query, _ANY)


class _Anything(dict[str, str]):
    """Has every variable."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> str:
        return name


def _fill(inside: str, blanks: Blanks) -> str:
    return "" if _COMMENT.match(inside) else Hole(inside, blanks.words, blanks.variables).filled()


_ANY = Blanks(dict.fromkeys(("name", "namespace", "target", "service", "ingress", "route", "interval"), "x"), _Anything())


def prometheus_duration(seconds: float) -> str:
    """As PromQL writes it: 1m, 90s, 1500ms."""
    ms = max(1, round(seconds * 1000))
    if ms % 1000:
        return f"{ms}ms"
    return f"{ms // 1000}s" if ms % 60_000 else f"{ms // 60_000}m"


@dataclass(frozen=True, slots=True)
class MetricTemplate:
    namespace: str
    name: str
    query: str
    provider: str  # of spec.provider.type; only PROMETHEUS can be asked
    address: str
    secret: str = ""  # name of the Secret beside the template, "" for none
    headers: tuple[tuple[str, str], ...] = ()
    verify: bool = True  # the server's certificate

    def server(self, secret: Mapping[str, Any] | None) -> Server:
        """The server to ask, with what the Secret says (None: there is none).  Raises SpecError."""
        if self.provider != PROMETHEUS:
            raise SpecError(f"spec.provider.type: {self.provider!r} is not supported; expected {PROMETHEUS}")
        url = server_url(self.address, "spec.provider.address")
        if not self.secret:
            return Server(url, self.headers, verify=self.verify)
        if secret is None:
            raise SpecError(f"spec.provider.secretRef: secret {self.secret} does not exist in namespace {self.namespace}")
        token, username, password = (secret_value(secret, key) for key in ("token", "username", "password"))
        if token:
            return Server(url, self.headers, verify=self.verify, token=token)
        if not username or not password:
            raise SpecError(f"spec.provider.secretRef: secret {self.secret} has neither a token nor username and password")
        return Server(url, self.headers, verify=self.verify, username=username, password=password)


def parse_template(obj: Mapping[str, Any]) -> MetricTemplate:
    """The typed form of a MetricTemplate.  Raises SpecError."""
    metadata = obj["metadata"]
    spec = mapping(obj.get("spec"), "spec")
    provider = mapping(spec.get("provider"), "spec.provider")
    query = text(spec.get("query"), "spec.query")
    if len(query) > MAX_QUERY:
        raise SpecError(f"spec.query: expected at most {MAX_QUERY} characters, found {len(query)}")
    reference = provider.get("secretRef")
    where = "spec.provider.secretRef.name"
    return MetricTemplate(
        namespace=metadata.get("namespace") or "default",
        name=metadata["name"],
        query=query,
        provider=text(provider.get("type"), "spec.provider.type"),
        address=str(provider.get("address") or ""),
        secret=text(mapping(reference, "spec.provider.secretRef").get("name"), where) if reference is not None else "",
        headers=_headers(provider.get("headers")),
        verify=not flag(provider.get("insecureSkipVerify"), "spec.provider.insecureSkipVerify"),
    )


def _headers(value: object) -> tuple[tuple[str, str], ...]:
    """A map of names to lists of values; one value may stand without its list."""
    found = []
    for name, values in mapping(value, "spec.provider.headers").items():
        where = f"spec.provider.headers.{name}"
        for one in [values] if isinstance(values, str) else items(values, where):
            if not isinstance(one, str) or not re.fullmatch(r"[\t\x20-\x7e]*", one):
                raise SpecError(f"{where}: expected text of one line")
            if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", str(name)):
                raise SpecError(f"{where}: expected the name of a header")
            found.append((str(name), one))
    return tuple(found)

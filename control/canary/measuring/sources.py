"""Which source answers for which metric.

    template       -> the Prometheus that its MetricTemplate names
    inline query   -> spec.metricsServer, or the control plane's metrics server; without either there is nobody to ask
    built-in       -> the same; without either the mesh itself (embedded.py)

A Canary that is set up is told whether its servers are there (`problem`, Flagger's check); a release asks them anyway.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Collection
from dataclasses import replace

from control.canary.declared.fields import SpecError
from control.canary.declared.metric import SUCCESS_RATE, Kind, Metric
from control.canary.declared.spec import GROUP
from control.canary.machine.analysis import Measurement
from control.canary.measuring import promql
from control.canary.measuring.embedded import deployment_of, is_meshed
from control.canary.measuring.prometheus import PrometheusClient
from control.canary.measuring.prometheus_arms import PrometheusArms
from control.canary.measuring.promql import Server, server_url
from control.canary.measuring.source import Arms, MetricSource, Query, Subject
from control.canary.measuring.template import KIND, Blanks, MetricTemplate, parse_template, prometheus_duration, render
from control.store.store import Key, Store


class MetricSources(MetricSource):
    """`metrics_server`: what a Canary without spec.metricsServer uses; "" is the mesh's own numbers.
    `cross_namespace`: may a Canary use the templates of another namespace?"""

    def __init__(
        self,
        store: Store,
        embedded: MetricSource,
        prometheus: PrometheusClient,
        *,
        metrics_server: str = "",
        cross_namespace: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._embedded = embedded
        self._prometheus = prometheus
        self._metrics_server = metrics_server
        self._clock = clock
        self._cross_namespace = cross_namespace
        self._arms: dict[Subject, PrometheusArms] = {}

    def watch(self, subjects: Collection[Subject]) -> None:
        self._embedded.watch([subject for subject in subjects if not self._server_of(subject)])
        # Of all releases that run, not only of those in a hurry: minRequests counts too.
        self._arms = {subject: arms for subject, arms in self._arms.items() if subject in subjects}

    def hurry(self, subjects: Collection[Subject]) -> None:
        self._embedded.hurry([subject for subject in subjects if not self._server_of(subject)])

    async def counts(self, subject: Subject) -> Arms | None:
        if not self._server_of(subject):
            return await self._embedded.counts(subject)
        arms = self._arms.get(subject)
        if arms is None:
            try:
                server = self._server(subject)
            except SpecError:  # its metrics say so
                return None
            arms = self._arms[subject] = PrometheusArms(self._prometheus, server, subject, lambda: self._pods(subject))
        return await arms.look(self._clock())

    async def measure(self, query: Query) -> Measurement:
        metric, subject = query.metric, query.subject
        try:
            match metric.kind:
                case Kind.TEMPLATE:
                    template, server = self._template(metric, subject)
                    return await self._prometheus.ask(server, _rendered(template, subject, metric), query.window_s)
                case Kind.QUERY:
                    server = self._server(subject)
                    return await self._prometheus.ask(server, render(metric.query, Blanks.of(subject, metric)), query.window_s)
            if not self._server_of(subject):
                return await self._embedded.measure(query)
            return await self._built_in(self._server(subject), query)
        except SpecError as error:
            return Measurement(error=True, reason=str(error))

    async def _built_in(self, server: Server, query: Query) -> Measurement:
        subject, window = query.subject, prometheus_duration(query.window_s)
        deployment, service = query.whose
        whose = (subject.namespace, deployment)
        if query.metric.name == SUCCESS_RATE:
            asked = promql.success_rate(*whose, service, window)
        else:
            asked = promql.duration_p99(*whose, window)
        seen = await self._prometheus.ask(server, asked, query.window_s)
        if seen.value is None:
            return seen
        counted = await self._prometheus.ask(server, promql.requests(*whose, service, window), query.window_s)
        # increase() is an estimate from two samples: 9.97 is ten requests
        return seen if counted.value is None else replace(seen, requests=math.ceil(counted.value - 0.01))

    async def problem(self, subject: Subject, metrics: Collection[Metric]) -> str:
        servers: dict[Server, None] = {}
        for metric in metrics:
            try:
                if metric.kind is Kind.TEMPLATE:
                    template, server = self._template(metric, subject)
                    _rendered(template, subject, metric)
                elif metric.kind is Kind.BUILT_IN and not self._server_of(subject):
                    continue
                else:
                    server = self._server(subject)
            except SpecError as error:
                return f"metric {metric.name}: {error}"
            servers[server] = None
        for problem in await asyncio.gather(*(self._prometheus.problem(server) for server in servers)):
            if problem:
                return f"Prometheus is not available: {problem}"
        return ""

    def _pods(self, subject: Subject) -> list[str]:
        """Names of the pods of all arms that have a proxy."""
        pods = [pod for pod in self._store.list("", "Pod", subject.namespace) if is_meshed(pod)]
        arms = (subject.deployment, subject.primary, subject.baseline)
        return [pod["metadata"]["name"] for pod in pods if deployment_of(pod) in arms]

    def _server_of(self, subject: Subject) -> str:
        return subject.metrics_server or self._metrics_server

    def _server(self, subject: Subject) -> Server:
        """Raises SpecError if there is none."""
        address = self._server_of(subject)
        if not address:
            raise SpecError("it is PromQL and there is no Prometheus to ask: give spec.metricsServer, or use a templateRef")
        return Server(server_url(address, "spec.metricsServer"))

    def _template(self, metric: Metric, subject: Subject) -> tuple[MetricTemplate, Server]:
        """The template and the server it is for, as of now: an edit counts from the next check on.  Raises SpecError."""
        assert metric.template is not None
        namespace, name = metric.template
        where = f"metric template {name}.{namespace}"
        if namespace != subject.namespace and not self._cross_namespace:
            raise SpecError(f"{where}: references to other namespaces are switched off")
        obj = self._store.get(Key(GROUP, KIND, namespace, name))
        if obj is None:
            raise SpecError(f"{where} does not exist")
        try:
            template = parse_template(obj)
            secret = self._store.get(Key("", "Secret", namespace, template.secret)) if template.secret else None
            return template, template.server(secret)
        except SpecError as error:
            raise SpecError(f"{where}: {error}") from None


def _rendered(template: MetricTemplate, subject: Subject, metric: Metric) -> str:
    try:
        return render(template.query, Blanks.of(subject, metric))
    except SpecError as error:
        raise SpecError(f"metric template {template.name}.{template.namespace}: {error}") from None

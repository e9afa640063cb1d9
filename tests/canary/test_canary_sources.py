"""Which source is asked for which metric, with which query, and what is said when there is none."""

from __future__ import annotations

import json
import time
from itertools import count

import pytest
from canary_prometheus import Said, elements, scripted, vector

from control.canary.declared.metric import DURATION, SUCCESS_RATE, Metric
from control.canary.evidence.arms import ArmCounts
from control.canary.machine.analysis import Measurement
from control.canary.measuring.prometheus import PrometheusClient
from control.canary.measuring.source import Arms, MetricSource, Query, Subject
from control.canary.measuring.sources import MetricSources
from control.store.files import FileStore
from control.store.store import Key

SUBJECT = Subject("test", "podinfo", "podinfo-canary", "podinfo", "podinfo")
BUILT_IN = Metric(SUCCESS_RATE, 60.0, minimum=99.0)


class Mesh(MetricSource):
    """The embedded source's place."""

    def __init__(self) -> None:
        self.watched: list[Subject] = []
        self.arms: Arms | None = None

    async def measure(self, query: Query) -> Measurement:
        return Measurement(42.0, 7)

    async def counts(self, subject: Subject) -> Arms | None:
        return self.arms

    def watch(self, subjects) -> None:
        self.watched = list(subjects)


class Sources:
    def __init__(self, path, prometheus) -> None:
        self.store = FileStore(None, path, "canary")
        self.prometheus = prometheus
        self.client = PrometheusClient()
        self.mesh = Mesh()

    def of(self, **settings) -> MetricSources:
        return MetricSources(self.store, self.mesh, self.client, **settings)

    async def measure(self, metric: Metric, subject: Subject = SUBJECT, **settings) -> Measurement:
        return await self.of(**settings).measure(Query(metric, subject, metric.interval_s))

    async def template(self, query="up", namespace="test", **provider) -> None:
        given = {"type": "prometheus", "address": self.prometheus.server.address, **provider}
        await self.store.apply(
            {
                "apiVersion": "flagger.app/v1beta1",
                "kind": "MetricTemplate",
                "metadata": {"name": "latency", "namespace": namespace},
                "spec": {"provider": given, "query": query},
            }
        )

    @property
    def queries(self) -> list[str]:
        return [request.query["query"] for request in self.prometheus.requests]


@pytest.fixture
async def sources(tmp_path):
    async with scripted() as prometheus:
        prometheus.says = Said(vector("12.5"))
        made = Sources(tmp_path, prometheus)
        yield made
        await made.client.close()


def from_template(namespace="test", **variables: str) -> Metric:
    return Metric("latency", 60.0, template=(namespace, "latency"), variables=tuple(variables.items()))


async def test_built_in_metrics_are_the_meshs_own_unless_a_server_is_named(sources):
    assert await sources.measure(BUILT_IN) == Measurement(42.0, 7)
    assert sources.queries == []
    here = sources.prometheus.server.address
    for settings, subject in (
        ({"metrics_server": here}, SUBJECT),
        ({}, Subject("test", "podinfo", "podinfo-canary", metrics_server=here)),
        ({"metrics_server": "http://127.0.0.1:1"}, Subject("test", "podinfo", "podinfo-canary", metrics_server=here)),
    ):
        assert (await sources.measure(BUILT_IN, subject, **settings)).value == 12.5


async def test_the_mesh_watches_only_what_it_is_asked_about(sources):
    elsewhere = Subject("test", "other", "other-canary", metrics_server="http://prometheus:9090")
    sources.of().watch([SUBJECT, elsewhere])
    assert sources.mesh.watched == [SUBJECT]
    sources.of(metrics_server="http://prometheus:9090").watch([SUBJECT])
    assert sources.mesh.watched == []


async def test_a_built_in_knows_how_many_requests_it_is_made_of(sources):
    sources.prometheus.answers = {"increase(": Said(vector("19.7"))}
    seen = await sources.measure(BUILT_IN, metrics_server=sources.prometheus.server.address)
    assert (seen.value, seen.requests) == (12.5, 20)
    sources.prometheus.answers = {"increase(": Said(b"", status=500)}
    seen = await sources.measure(Metric(DURATION), metrics_server=sources.prometheus.server.address)
    assert (seen.value, seen.requests) == (12.5, None)


async def test_the_built_ins_select_the_labels_that_sidecars_have(sources):
    here = sources.prometheus.server.address
    await sources.measure(BUILT_IN, metrics_server=here)
    await sources.measure(Metric(DURATION, 30.0), metrics_server=here)
    rate, _, p99, _ = sources.queries
    assert (
        'rate(response_total{direction="inbound",namespace="test",deployment="podinfo",classification="success"}[1m])' in rate
    )
    assert p99 == (
        "histogram_quantile(0.99, sum by (le) (rate(response_latency_ms_bucket"
        '{direction="inbound",namespace="test",deployment="podinfo"}[30s])))'
    )


async def test_the_built_ins_of_a_promotion_step_are_the_primarys_and_queries_stay_as_they_are(sources):
    here = sources.of(metrics_server=sources.prometheus.server.address)
    subject = Subject("test", "podinfo", "podinfo-canary", apex="podinfo")
    await here.measure(Query(BUILT_IN, subject, 60.0, of_primary=True))
    rate, count = sources.queries
    for asked in (rate, count):
        assert 'deployment="podinfo-primary"' in asked
        assert 'dst_deployment="podinfo-primary"' in asked
        assert 'dst_service="podinfo-primary"' in asked
        assert '"podinfo"' not in asked
    await here.measure(Query(Metric("up", query='up{d="{{ target }}"}'), subject, 60.0, of_primary=True))
    assert sources.queries[-1] == 'up{d="podinfo"}'


async def test_a_template_is_rendered_for_its_canary_and_asked_of_its_own_server(sources):
    await sources.template('x{ns="{{ namespace }}",d="{{ variables.direction }}"}[{{ interval }}]')
    seen = await sources.measure(from_template(direction="inbound"), metrics_server="http://127.0.0.1:1")
    assert seen.value == 12.5
    assert sources.queries == ['x{ns="test",d="inbound"}[1m]']


async def test_an_inline_query_goes_to_the_metrics_server(sources):
    metric = Metric("custom", 30.0, query='y{target="{{ target }}"}[{{ interval }}]')
    assert (await sources.measure(metric, metrics_server=sources.prometheus.server.address)).value == 12.5
    assert sources.queries == ['y{target="podinfo"}[30s]']
    nobody = await sources.measure(metric)
    assert nobody.error
    assert "no Prometheus to ask" in nobody.reason


async def test_a_template_of_another_namespace_is_used_unless_that_is_switched_off(sources):
    await sources.template(namespace="flagger")
    assert (await sources.measure(from_template("flagger"))).value == 12.5
    refused = await sources.measure(from_template("flagger"), cross_namespace=False)
    assert (refused.error, refused.reason) == (
        True,
        "metric template latency.flagger: references to other namespaces are switched off",
    )


async def test_the_secret_is_the_one_beside_the_template(sources):
    await sources.template(namespace="flagger", secretRef={"name": "creds"})
    for namespace, token in (("test", "wrong"), ("flagger", "right")):
        assert "secret creds does not exist" in (await sources.measure(from_template("flagger"))).reason
        metadata = {"name": "creds", "namespace": namespace}
        await sources.store.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"token": token}})
    assert (await sources.measure(from_template("flagger"))).value == 12.5
    assert sources.prometheus.requests[-1].headers["Authorization"] == "Bearer right"


@pytest.mark.parametrize(
    ("provider", "query", "words"),
    [
        (None, "", "metric template latency.test does not exist"),
        ({"type": "datadog"}, "up", "metric template latency.test: spec.provider.type: 'datadog' is not supported"),
        ({}, "{{ variables.x }}", "metric template latency.test: the query asks for {{ variables.x }}"),
    ],
)
async def test_a_template_that_cannot_be_asked_fails_the_check_and_says_why(sources, provider, query, words):
    if provider is not None:
        await sources.template(query, **provider)
    seen = await sources.measure(from_template())
    assert (seen.value, seen.error) == (None, True)
    assert words in seen.reason
    assert words in await sources.of().problem(SUBJECT, [from_template()])


async def test_each_server_of_a_canary_is_asked_whether_it_is_there(sources):
    await sources.template()
    sources.prometheus.says = Said(vector("1"))
    metrics = [BUILT_IN, Metric(DURATION), from_template()]
    assert await sources.of(metrics_server=sources.prometheus.server.address).problem(SUBJECT, metrics) == ""
    assert sources.queries == ["vector(1)"]  # it is the same server
    assert await sources.of().problem(SUBJECT, [BUILT_IN]) == ""
    gone = await sources.of(metrics_server="http://127.0.0.1:1").problem(SUBJECT, metrics)
    assert gone.startswith("Prometheus is not available: http://127.0.0.1:1: Cannot connect")


async def test_an_answer_that_is_only_a_stub_suffices(sources):
    """Flagger reads no more than this of an answer."""
    sources.prometheus.says = Said(json.dumps({"data": {"result": [{"value": [time.time(), "100"]}]}}).encode())
    assert (await sources.measure(BUILT_IN, metrics_server=sources.prometheus.server.address)).value == 100.0


async def test_the_arms_are_counted_by_who_judges(sources):
    sources.mesh.arms = Arms(ArmCounts(1), ArmCounts(2))
    assert await sources.of().counts(SUBJECT) == sources.mesh.arms
    here = sources.prometheus.server.address
    pods = [({"deployment": name, "pod": f"{name}-1"}, 5) for name in ("podinfo", "podinfo-primary")]
    sources.prometheus.says = Said(elements(*pods))
    of_prometheus = sources.of(metrics_server=here, clock=map(float, count(7)).__next__)
    of_prometheus.watch([SUBJECT])
    assert await of_prometheus.counts(SUBJECT) == Arms(ArmCounts(epoch=7.0), ArmCounts(epoch=7.0))
    metadata = {"name": "podinfo-2", "labels": {"meshproxy.dev/proxy-deployment": "podinfo"}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {**metadata, "namespace": "test"}}
    pod["metadata"]["annotations"] = {"meshproxy.dev/proxy": "true"}
    await sources.store.apply(pod)
    await sources.store.status(Key("", "Pod", "test", "podinfo-2"), {"podIP": "127.0.0.1"})
    assert await of_prometheus.counts(SUBJECT) is None  # that pod is not scraped yet

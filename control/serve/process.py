"""The control plane as one process: everything it does, started in order and ended together.

    <state>/trust  --> CurrentAuthority --.
    manifests, <state>/objects --> FileStore --> CompiledSource --> ControlServer (Watch, Certify)
                                       `--> canary controller <-- metric sources <-- the proxies' /metrics, or a Prometheus
    admin listener: /ready is 503 until the streams are served

It keeps nothing that is not in its state directory: killed at any moment and started again it goes on.  Each part that ends
by itself, by a bug, ends the process: whoever started it starts it again.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from certs.authority import AuthorityError
from certs.issue import LIFETIME
from control.canary.controller import Controller
from control.canary.controller import Settings as CanarySettings
from control.canary.declared.spec import NO_FLAGS, Flags
from control.canary.measuring.embedded import EmbeddedSource
from control.canary.measuring.prometheus import PrometheusClient
from control.canary.measuring.sources import MetricSources
from control.canary.telling.wiring import Telling
from control.compile.settings import Settings as CompileSettings
from control.runtime.layout import Layout
from control.serve.admin import serve_admin
from control.serve.compiled import CompiledSource
from control.serve.discovery import scrape_targets
from control.serve.issuer import CurrentAuthority, describe
from control.serve.manifest_events import ManifestEvents
from control.serve.server import ControlServer, ControlServerError, Ports
from control.serve.tokens import sweep
from control.serve.traffic_status import TrafficStatus
from control.store.files import FileStore
from control.store.store import StoreError

log = logging.getLogger("meshproxy.control")

REFRESH: Final = 1.0  # s between looks at the authority's files
SWEEP: Final = 60.0  # s between sweeps of old tokens
SETTLE_S: Final = 1.0  # between a rollback's weights and the end of its pods; proxies hear of weights within 0.1 s
DRAIN: Final = 0.5  # s; streams are long-lived and come back, so there is nothing to wait for but an answer under way


class ControlError(Exception):
    """The control plane cannot start; `str()` says why and what to do."""


@dataclass(frozen=True, slots=True)
class ControlSettings:
    """`state` is the mesh's directory (control.runtime.layout.Layout); addresses are (host, port)."""

    state: Path
    manifests: Path
    listen: tuple[str, int]
    admin: tuple[str, int]
    trust_domain: str
    leaf_lifetime: float = LIFETIME  # s
    identity_issuer: Path | None = None  # a directory with ca.crt, tls.crt, tls.key: an issuer that somebody else renews
    metrics_server: str = ""  # URL of the Prometheus that Canaries are judged by; "": the mesh's own numbers
    cross_namespace_refs: bool = True  # may a Canary refer to a MetricTemplate or AlertProvider of another namespace?
    cluster_name: str = ""  # what alerts and event webhooks say they are from, "" for nothing
    canary_flags: Flags = NO_FLAGS
    gateway: str = ""  # host:port of the gateway's proxy: the way to webhooks that are Services of the mesh
    environment: Mapping[str, str] = field(default_factory=dict)  # EVENT_WEBHOOK_URL, SLACK_URL, ... (canary/telling/wiring.py)


async def run_control(settings: ControlSettings, announce: Callable[[str], None] = log.info) -> None:
    """Until SIGTERM or SIGINT.  Raises ControlError if it cannot start."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    layout = Layout(settings.state)
    try:
        layout.root.mkdir(parents=True, exist_ok=True)
        authority = CurrentAuthority(
            *(layout.trust, settings.trust_domain, time.time(), settings.identity_issuer, settings.leaf_lifetime),
            bundle_file=layout.trust_bundle,
            state_file=layout.trust_rotation,
        )
        # One store does for both: reading and accepting know no manager, and all that is written here is the canary's.
        with FileStore(settings.manifests, layout.objects, "canary", accepting=True) as store:
            store.refresh()
            await _serve(settings, layout, authority, store, stop, announce)
    except (AuthorityError, StoreError, ControlServerError) as error:
        raise ControlError(str(error)) from None


async def _serve(
    settings: ControlSettings,
    layout: Layout,
    authority: CurrentAuthority,
    store: FileStore,
    stop: asyncio.Event,
    announce: Callable[[str], None],
) -> None:
    source = CompiledSource(
        store, lambda: CompileSettings(settings.trust_domain, authority.bundle().anchors_der, authority().key_id)
    )
    authority.on_change(source.recompile)
    facts = EmbeddedSource(store, time.time)
    prometheus = PrometheusClient()
    sources = MetricSources(
        *(store, facts, prometheus),
        metrics_server=settings.metrics_server,
        cross_namespace=settings.cross_namespace_refs,
    )
    telling = Telling(
        *(store, time.time, settings.gateway, settings.environment),
        cross_namespace=settings.cross_namespace_refs,
        cluster_name=settings.cluster_name,
    )
    canary_settings = CanarySettings(settle_s=SETTLE_S, flags=settings.canary_flags)
    canaries = Controller(store, sources, hooks=telling.hooks, courier=telling.courier, settings=canary_settings)
    registry = CollectorRegistry()
    for collector in (
        ProcessCollector(registry=None),
        PlatformCollector(registry=None),
        canaries.metrics,
        telling,
        _Counts(source, store, facts, prometheus),
    ):
        registry.register(collector)
    server = ControlServer(authority, source, layout.tokens, settings.leaf_lifetime, registry=registry)
    ports: Ports | None = None

    def ready() -> tuple[bool, str]:
        return (ports is not None, f"ready: {source.size} resources" if ports is not None else "starting")

    try:
        runner, admin_port = await serve_admin(
            *(*settings.admin, registry, ready),
            lambda: describe(authority, server.peers(), settings.leaf_lifetime),
            lambda: scrape_targets(store.list("", "Pod")),
        )
    except OSError as error:
        raise ControlError(f"cannot listen on {settings.admin[0]}:{settings.admin[1]}: {error.strerror}") from None
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(store.run(), name="store"),
                group.create_task(_housekeeping(authority, server, layout.tokens), name="housekeeping"),
                group.create_task(ManifestEvents(store).run(), name="manifest events"),
                group.create_task(TrafficStatus(store).run(), name="traffic status"),
                group.create_task(facts.run(), name="metric source"),
                group.create_task(canaries.run(), name="canary controller"),
            ]
            try:
                ports = await server.start(*settings.listen)
                host = settings.listen[0]
                announce(f"control plane: streams {host}:{ports.watch}, identity {host}:{ports.certify}, admin :{admin_port}")
                await stop.wait()
            finally:
                for task in tasks:
                    task.cancel()
                await server.stop(DRAIN)
                await prometheus.close()
                await telling.close()
    except ExceptionGroup as failures:
        known = failures.subgroup((ControlServerError, StoreError, ControlError))
        if known is not None:
            raise known.exceptions[0] from None
        raise
    finally:
        await runner.cleanup()


async def _housekeeping(authority: CurrentAuthority, server: ControlServer, tokens_dir: Path) -> None:
    swept = 0.0
    while True:
        await asyncio.sleep(REFRESH)
        now = time.time()
        try:
            authority.refresh(now, server.peers)
            if now - swept >= SWEEP:
                swept = now
                sweep(tokens_dir, now)
        except OSError as error:  # the disk is out of reach: what is loaded stays in force
            log.warning("housekeeping: %s", error)


class _Counts(Collector):
    """What the parts count as plain integers, read at a scrape."""

    def __init__(self, source: CompiledSource, store: FileStore, scraper: EmbeddedSource, prometheus: PrometheusClient) -> None:
        self._source, self._store = source, store
        self._scraper, self._prometheus = scraper, prometheus

    def collect(self) -> Iterable[Metric]:
        source, store = self._source, self._store
        yield CounterMetricFamily("meshproxy_control_compilations", "Compilations of all objects", value=source.compilations)
        yield CounterMetricFamily("meshproxy_control_compile_errors", "Compilations that failed by a bug", value=source.errors)
        yield GaugeMetricFamily("meshproxy_control_resources", "Resources compiled", value=source.size)
        problems = GaugeMetricFamily(
            "meshproxy_control_diagnostics", "What is wrong with the manifests, by severity", labels=["severity"]
        )
        found = [*store.diagnostics(), *source.diagnostics]
        for severity in ("error", "warning"):
            problems.add_metric([severity], sum(1 for d in found if d.severity == severity))
        yield problems
        yield CounterMetricFamily(
            "meshproxy_control_store_errors", "Refreshes of the store that failed", value=store.refresh_errors
        )
        scraper, prometheus = self._scraper, self._prometheus
        for name, what, count in (
            ("scrapes", "Pages of proxies read for Canaries", scraper.scrapes),
            ("scrape_failures", "Pages of proxies that could not be read", scraper.scrape_failures),
            ("prometheus_queries", "Questions to a Prometheus for Canaries", prometheus.queries),
            ("prometheus_failures", "Of those: not answered, or with what is no answer", prometheus.failures),
        ):
            yield CounterMetricFamily(f"meshproxy_canary_{name}", what, value=count)

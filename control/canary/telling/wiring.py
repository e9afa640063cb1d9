"""Everything a release says to the world or asks of it, put together from settings.

webhooks that are asked  HookClient --.
events, alerts, notices  Courier -----+--> Poster --> http_proxy, or the gateway where a Service of the mesh is meant
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from control.canary.declared.hooks import TYPES, event_webhook
from control.canary.telling.alert_sender import AlertSender, default_provider
from control.canary.telling.courier import Courier
from control.canary.telling.hook_client import HookClient
from control.canary.telling.post import Poster, environment_proxy
from control.canary.telling.reach import through_the_gateway
from control.store.store import Store

NOTICES_AT_ONCE = 16  # apart from the webhooks that a release waits for: receivers that hang must not hold gates up


class Telling(Collector):
    """`clock` gives Unix seconds; `gateway` is host:port of its proxy, "" if there is none; `environment` may have
    EVENT_WEBHOOK_URL, and SLACK_URL with SLACK_TOKEN, SLACK_CHANNEL, SLACK_USER, or MSTEAMS_URL, as Flagger's.
    Raises SpecError where one of them is no address.  A prometheus_client collector of all of it."""

    def __init__(
        self,
        store: Store,
        clock: Callable[[], float],
        gateway: str = "",
        environment: Mapping[str, str] | None = None,
        *,
        cross_namespace: bool = True,
        cluster_name: str = "",
    ) -> None:
        environment = environment or {}
        proxy_for = through_the_gateway(store, gateway) if gateway else environment_proxy
        told = environment.get("EVENT_WEBHOOK_URL", "")
        self._posters = (Poster(proxy_for), Poster(proxy_for, concurrency=NOTICES_AT_ONCE))
        self.hooks = HookClient(self._posters[0])
        self._told = HookClient(self._posters[1])
        self.courier = Courier(
            store,
            self._told,
            AlertSender(store, self._posters[1], default_provider(environment), cross_namespace=cross_namespace),
            clock=clock,
            event_webhook=event_webhook(told) if told else None,
            cluster_name=cluster_name,
        )

    def collect(self) -> Iterator[Metric]:
        calls = CounterMetricFamily(
            "meshproxy_canary_webhook_calls", "Webhooks called, retries counted once.", labels=["type", "result"]
        )
        for kind in TYPES:
            for result in (True, False):
                number = sum(client.calls.get((kind, result), 0) for client in (self.hooks, self._told))
                calls.add_metric([kind, "ok" if result else "failed"], number)
        yield calls
        yield from self.courier.collect()

    async def close(self) -> None:
        await self.courier.close()
        for poster in self._posters:
            await poster.close()

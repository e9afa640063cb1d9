"""Handles, their bounds, and the page: judged by prometheus_client's own parser."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

import meshproxy
from meshproxy.telemetry.families import BUCKETS_MS
from meshproxy.telemetry.registry import Registry
from meshproxy.telemetry.snapshot import add, take

POD = (("namespace", "shop"), ("deployment", "web"), ("pod", "web-1"))


def page(registry: Registry, names: list[str] | None = None) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    samples = {}
    for family in text_string_to_metric_families(registry.render(names).decode()):
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in samples, f"{key} is on the page twice"
            samples[key] = sample.value
    return samples


def labelled(*pairs: tuple[str, str]) -> frozenset[tuple[str, str]]:
    return frozenset({*POD, *pairs})


# ---------------------------------------------------------------- the page


def test_a_request_shows_up_under_linkerds_names_and_labels() -> None:
    registry = Registry(POD)
    series = registry.http("outbound", (("dst_service", "prices"), ("tls", "true")))
    series.request()
    series.response(200, -1, True, 3.0, 12.0)
    seen = page(registry)
    common = (("direction", "outbound"), ("dst_service", "prices"), ("tls", "true"))
    assert seen["request_total", labelled(*common)] == 1
    assert seen["response_total", labelled(*common, ("status_code", "200"), ("classification", "success"))] == 1
    assert seen["response_total", labelled(*common, ("status_code", "503"), ("classification", "failure"))] == 0
    latency = [
        seen["response_latency_ms_bucket", labelled(*common, ("status_code", "200"), ("le", str(bound)))]
        for bound in [*BUCKETS_MS, "+Inf"]
    ]
    assert latency == [0, 0, *[1] * (len(BUCKETS_MS) - 1)]
    assert seen["response_latency_ms_count", labelled(*common, ("status_code", "200"))] == 1
    assert seen["response_latency_ms_sum", labelled(*common, ("status_code", "200"))] == 3.0
    assert seen["meshproxy_response_duration_ms_bucket", labelled(*common, ("le", "10"))] == 0
    assert seen["meshproxy_response_duration_ms_bucket", labelled(*common, ("le", "20"))] == 1


def test_grpc_codes_and_transport_errors_have_labels_of_their_own() -> None:
    registry = Registry(POD)
    series = registry.http("inbound")
    series.response(200, 14, False, 1.0, 1.0)
    series.failed("reset", 1.0)
    seen = page(registry)
    inbound = ("direction", "inbound")
    failure = ("classification", "failure")
    assert seen["response_total", labelled(inbound, failure, ("status_code", "200"), ("grpc_status", "14"))] == 1
    assert seen["response_total", labelled(inbound, failure, ("error", "reset"))] == 1
    # both 200s, whatever their gRPC status, are one latency histogram: Linkerd's has only status_code
    assert seen["response_latency_ms_count", labelled(inbound, ("status_code", "200"))] == 1


def test_exchanges_and_attempts_are_families_of_their_own() -> None:
    registry = Registry(POD)
    exchange = registry.route("outbound", (("dst_service", "prices"),))
    exchange.request()
    exchange.retried()
    exchange.retry_skipped("no_budget")
    attempt = registry.http("outbound", (("dst_service", "prices"),))
    attempt.request()
    attempt.request()
    seen = page(registry)
    where = (("direction", "outbound"), ("dst_service", "prices"))
    assert seen["request_total", labelled(*where)] == 2
    assert seen["route_request_total", labelled(*where)] == 1
    assert seen["route_retry_total", labelled(*where)] == 1
    assert seen["route_retry_skipped_total", labelled(*where, ("reason", "no_budget"))] == 1


def test_connections_show_up_under_linkerds_names() -> None:
    registry = Registry(POD)
    series = registry.tcp("inbound", (("peer", "src"), ("tls", "true")))
    series.opened()
    series.opened()
    series.closed("ECONNRESET")
    series.read_bytes += 10
    series.write_bytes += 20
    seen = page(registry)
    where = (("direction", "inbound"), ("peer", "src"), ("tls", "true"))
    assert seen["tcp_open_total", labelled(*where)] == 2
    assert seen["tcp_open_connections", labelled(*where)] == 1
    assert seen["tcp_close_total", labelled(*where, ("errno", "ECONNRESET"))] == 1
    assert seen["tcp_read_bytes_total", labelled(*where)] == 10
    assert seen["tcp_write_bytes_total", labelled(*where)] == 20


def test_label_values_survive_whatever_is_in_them() -> None:
    registry = Registry()
    nasty = 'a"b\\c\nd}e{f,g=ü'
    registry.http("outbound", (("authority", nasty),)).request()
    assert page(registry)["request_total", frozenset({("direction", "outbound"), ("authority", nasty)})] == 1


def test_the_pods_own_labels_may_come_later_than_its_series() -> None:
    registry = Registry()
    registry.http("inbound").request()
    registry.set_common(POD)
    assert page(registry)["request_total", labelled(("direction", "inbound"))] == 1


def test_plain_counters_gauges_and_facts_about_the_process_are_on_the_page() -> None:
    registry = Registry()
    registry.refused("no_endpoints", "outbound").value += 2
    registry.cert_expiration().value = 1_900_000_000.5
    seen = page(registry)
    assert seen["meshproxy_refused_total", frozenset({("reason", "no_endpoints"), ("direction", "outbound")})] == 2
    assert seen["identity_cert_expiration_timestamp_seconds", frozenset()] == 1_900_000_000.5
    assert seen["process_resident_memory_bytes", frozenset()] > 1e6
    assert any(name == "meshproxy_build_info" and ("version", meshproxy.__version__) in labels for name, labels in seen)


def test_a_page_of_some_families_holds_only_those() -> None:
    registry = Registry(POD)
    registry.http("inbound").request()
    names = {name for name, _ in page(registry, ["request_total", "response_latency_ms"])}
    assert names == {"request_total", "response_latency_ms_bucket", "response_latency_ms_count", "response_latency_ms_sum"}


def test_what_must_be_read_at_a_scrape_is_read_then() -> None:
    registry = Registry()
    gauge = registry.gauge("meshproxy_x", "x")
    readings = iter([5, 7])
    registry.on_scrape(lambda: setattr(gauge, "value", next(readings)))
    assert page(registry)["meshproxy_x", frozenset()] == 5
    assert page(registry)["meshproxy_x", frozenset()] == 7


# ---------------------------------------------------------------- handles


def test_the_same_labels_in_any_order_are_the_same_handle() -> None:
    registry = Registry()
    one = registry.http("outbound", (("tls", "true"), ("dst_pod", "p")))
    assert registry.http("outbound", (("dst_pod", "p"), ("tls", "true"), ("authority", ""))) is one
    assert registry.http("inbound", (("dst_pod", "p"), ("tls", "true"))) is not one
    assert registry.counter("x_total", "x", (("b", "1"), ("a", "2"))) is registry.counter(
        "x_total", "x", (("a", "2"), ("b", "1"))
    )


def test_a_label_nobody_declared_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown metric label 'user'"):
        Registry().http("inbound", (("user", "x"),))


def test_a_counter_says_what_it_is_in_its_name_and_is_not_a_gauge_elsewhere() -> None:
    registry = Registry()
    with pytest.raises(ValueError, match="_total"):
        registry.counter("refusals", "x")
    registry.gauge("x_total", "x")
    with pytest.raises(ValueError, match="already a gauge"):
        registry.counter("x_total", "x")


# ---------------------------------------------------------------- bounds


def test_too_many_label_sets_are_counted_together_and_said_so() -> None:
    registry = Registry(max_series=10)
    for i in range(100):
        registry.http("outbound", (("dst_pod", f"p{i}"),)).request()
        registry.tcp("outbound", (("dst_pod", f"p{i}"),)).opened()
        registry.refused(f"reason-{i}", "outbound").value += 1
    seen = page(registry)
    other = frozenset({("direction", "outbound"), ("dst_pod", "other")})
    assert len([key for key in seen if key[0] == "request_total"]) == 11
    assert seen["request_total", other] == 90
    assert seen["tcp_open_total", other] == 90
    assert sum(value for (name, _), value in seen.items() if name == "meshproxy_refused_total") == 100
    assert seen["meshproxy_series_folded_total", frozenset()] == 270


def test_a_released_handle_goes_once_it_has_been_idle_and_makes_room() -> None:
    registry = Registry(max_series=1)
    gone = registry.http("outbound", (("dst_pod", "old"),))
    gone.request()
    gone.response(200, -1, True, 1.0, 1.0)
    registry.release(gone, now=0.0)
    registry.sweep(599.0)
    assert ("request_total", frozenset({("direction", "outbound"), ("dst_pod", "old")})) in page(registry)
    registry.sweep(601.0)
    assert not [key for key in page(registry) if key[0] == "request_total"]
    registry.http("outbound", (("dst_pod", "new"),)).request()
    assert ("request_total", frozenset({("direction", "outbound"), ("dst_pod", "new")})) in page(registry)


def test_a_handle_in_use_is_never_swept() -> None:
    registry = Registry()
    shared = registry.http("outbound", (("dst_pod", "p"),))
    assert registry.http("outbound", (("dst_pod", "p"),)) is shared
    registry.release(shared, 0.0)  # one of two owners
    back = registry.http("outbound", (("dst_pod", "q"),))
    registry.release(back, 0.0)
    assert registry.http("outbound", (("dst_pod", "q"),)) is back  # its endpoint came back
    waiting = registry.http("outbound", (("dst_pod", "r"),))
    waiting.request()  # and is still in flight
    registry.release(waiting, 0.0)
    for now in (700.0, 1_400.0):
        registry.sweep(now)
    assert {name for name, _ in [key for key in page(registry) if key[0] == "request_total"]} == {"request_total"}
    assert len(registry.https) == 3
    waiting.failed("reset", 1.0)
    registry.sweep(2_100.0)
    assert len(registry.https) == 2


# ---------------------------------------------------------------- fine latency


FINE = "meshproxy_inbound_success_latency_total"


def fine(registry: Registry) -> dict[float, float]:
    """upto_ms -> count"""
    return {float(dict(labels)["upto_ms"]): value for (_, labels), value in page(registry, [FINE]).items()}


def test_inbound_successes_are_counted_finely_from_the_first_time_somebody_asks_by_name() -> None:
    registry = Registry(POD)
    inbound, outbound = registry.http("inbound"), registry.http("outbound")
    inbound.response(200, -1, True, 12.0, 12.0)
    assert fine(registry) == {}
    assert all(not name.startswith(FINE) for name, _ in page(registry))  # never on the whole page
    later = registry.http("inbound", (("client_id", "spiffe://mesh/ns/shop/sa/web"),))
    for series in (inbound, later):
        series.response(200, -1, True, 12.0, 99.0)
    inbound.response(500, -1, False, 12.0, 12.0)
    outbound.response(200, -1, True, 12.0, 12.0)
    ((bound, count),) = fine(registry).items()
    assert count == 2
    assert 12.0 <= bound <= 12.0 * 1.02


def test_the_fine_latencies_of_several_processes_add_up() -> None:
    whole = Registry(POD)
    for _ in range(2):
        worker = Registry()
        worker.refine()
        worker.http("inbound").response(200, -1, True, 5.0, 5.0)
        add(whole, take(worker))
    assert list(fine(whole).values()) == [2]

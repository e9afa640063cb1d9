"""What a Service's annotations say of its balancer and its breaker: Linkerd's names, ours, and what is wrong with them."""

from __future__ import annotations

import pytest
from resource_helpers import told

from control.resources.annotations import PLACES
from control.resources.balancing import ON_SERVICES, Balancing, Breaker, balancing, weight
from control.resources.concurrency import CONCURRENCY, Limit, concurrency

OURS = "meshproxy.dev/"
ACCRUAL = "balancer.linkerd.io/failure-accrual"
ALPHA = "balancer.alpha.linkerd.io/failure-accrual-success-rate"


def lint(kind: str, **annotations: str) -> list[str]:
    written = ", ".join(f'"{name}": "{value}"' for name, value in annotations.items())
    service = f"""
        apiVersion: v1
        kind: Service
        metadata: {{name: web, annotations: {{{written}}}}}
        spec: {{selector: {{app: web}}, ports: [{{port: 80}}]}}
    """
    pod = f"""
        apiVersion: v1
        kind: Pod
        metadata: {{name: web, annotations: {{{written}}}}}
        spec: {{containers: [{{name: a, command: [a]}}]}}
    """
    return told(service if kind == "Service" else pod)


def test_without_a_declaration_there_is_nothing_to_send() -> None:
    assert balancing({}) == Balancing()
    assert balancing({}).is_default()
    assert balancing({OURS + "breaker": "off", OURS + "zone": "any", OURS + "slow-start": "0"}).is_default()


def test_linkerds_annotations_have_linkerds_defaults() -> None:
    assert balancing({ACCRUAL: "consecutive"}).breaker == Breaker(7, 0.0, 10.0, 5, 1.0, 60.0, 0.5, 0.5)
    assert balancing({ACCRUAL: "unified"}).breaker == Breaker(7, 0.8, 10.0, 5, 1.0, 60.0, 0.5, 0.5)


def test_linkerds_annotations_are_read_by_their_names() -> None:
    found = balancing(
        {
            ACCRUAL: "unified",
            f"{ACCRUAL}-consecutive-max-failures": "3",
            f"{ACCRUAL}-consecutive-min-penalty": "500ms",
            f"{ACCRUAL}-consecutive-max-penalty": "1m30s",
            f"{ACCRUAL}-consecutive-jitter-ratio": "2",
            f"{ALPHA}-threshold": "0.95",
            f"{ALPHA}-window": "30s",
            f"{ALPHA}-min-requests": "20",
        }
    )
    assert found.breaker == Breaker(3, 0.95, 30.0, 20, 0.5, 90.0, 2.0, 0.5)
    assert found.mistakes == ()


def test_ours_win_over_linkerds() -> None:
    found = balancing({ACCRUAL: "consecutive", OURS + "breaker": "unified", OURS + "breaker-max-ejected": "1"})
    assert found.breaker is not None
    assert (found.breaker.success_rate, found.breaker.max_ejected) == (0.8, 1.0)
    assert balancing({ACCRUAL: "consecutive", OURS + "breaker": "off"}).breaker is None


def test_a_balancer_by_hash_has_a_key() -> None:
    found = balancing({OURS + "balancer": "maglev", OURS + "balancer-key": "cookie=session"})
    assert (found.balancer, found.key) == ("maglev", ("cookie", "session"))
    found = balancing({OURS + "balancer": "ring-hash"})
    assert found.balancer == "ewma"
    assert found.mistakes == ((OURS + "balancer", "ring-hash needs meshproxy.dev/balancer-key", "ewma is in force"),)


def test_a_slow_start_and_a_zone_are_declared() -> None:
    found = balancing({OURS + "slow-start": "1m", OURS + "zone": "prefer"})
    assert (found.slow_start_s, found.prefer_zone) == (60.0, True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("balancer", "ewmaa"),
        ("balancer-key", "query=x"),
        ("slow-start", "2h"),
        ("slow-start", "-1s"),
        ("zone", "a"),
        ("breaker", "on"),
        ("breaker-max-failures", "0"),
        ("breaker-max-failures", "7.5"),
        ("breaker-min-penalty", "0s"),
        ("breaker-max-penalty", "1ms"),
        ("breaker-jitter", "101"),
        ("breaker-success-rate", "80%"),
        ("breaker-success-rate", "1.1"),
        ("breaker-window", "10ms"),
        ("breaker-min-requests", "²"),
        ("breaker-max-ejected", "nan"),
    ],
)
def test_a_value_that_cannot_be_read_is_told_and_its_default_holds(name: str, value: str) -> None:
    annotations = {OURS + "breaker": "unified", OURS + name: value}
    found = balancing(annotations)
    assert [annotation for annotation, _, _ in found.mistakes] == [OURS + name]
    assert "expected" in found.mistakes[0][1]
    left_out = balancing({key: other for key, other in annotations.items() if key != OURS + name})
    assert (found.balancer, found.slow_start_s, found.prefer_zone) == ("ewma", 0.0, False)
    assert found.breaker == left_out.breaker
    (line,) = lint("Service", **annotations)
    assert line.startswith(f'3 warning metadata.annotations["{OURS + name}"]: found ')


def test_what_has_no_effect_is_told() -> None:
    assert balancing({OURS + "breaker-jitter": "1"}).mistakes[0][1].startswith("has no effect without meshproxy.dev/breaker")
    assert balancing({OURS + "balancer-key": "header=x"}).mistakes[0][1].startswith("has no effect without")


def test_lint_knows_them_all_and_where_they_belong() -> None:
    assert all(PLACES[name] == ("Service",) for name in ON_SERVICES if name.startswith(OURS))
    assert lint("Service", **{OURS + "breaker": "consecutive", OURS + "balancer": "least-request"}) == []
    (line,) = lint("Pod", **{OURS + "breaker": "consecutive"})
    assert "it is read on a Service" in line
    (line,) = lint("Service", **{OURS + "brakers": "consecutive"})
    assert "meshproxy.dev/breaker" in line


@pytest.mark.parametrize(("value", "read"), [("5", 5), ("1000", 1000), ("0", 1), ("1001", 1), ("x", 1), ("", 1)])
def test_a_pods_weight_is_a_number_up_to_a_thousand(value: str, read: int) -> None:
    assert weight({OURS + "weight": value}) == read
    lines = lint("Pod", **{OURS + "weight": value})
    if str(read) == value:
        assert lines == []
    else:
        assert len(lines) == 1
        assert "expected a number from 1 to 1000" in lines[0]


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("1", Limit(1, False)),
        ("1000000", Limit(1_000_000, False)),
        ("adaptive", Limit(1000, True)),
        ("adaptive up to 50", Limit(50, True)),
        ("0", None),
        ("1000001", None),
        ("adaptive up to 3", None),
        ("adaptive 50", None),
        ("many", None),
        ("", None),
        ("²", None),
    ],
)
def test_a_pods_concurrency_limit_is_a_number_or_finds_itself(value: str, read: Limit | None) -> None:
    assert concurrency({CONCURRENCY: value}) == read
    lines = lint("Pod", **{CONCURRENCY: value})
    assert [line for line in lines if CONCURRENCY not in line] == []
    assert bool(lines) == (read is None)

"""The built-in queries, evaluated by Prometheus' own engine (promtool) on series as sidecars export them.

The cases are those of test_canary_embedded.py: the two sources must mean the same."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from control.canary.declared.metric import Metric
from control.canary.measuring import promql
from control.canary.measuring.source import Subject
from control.canary.measuring.template import Blanks, parse_template, render

pytestmark = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian: prometheus)")

RATE = promql.success_rate("test", "podinfo", "podinfo-canary", "1m")
REQUESTS = promql.requests("test", "podinfo", "podinfo-canary", "1m")
P99 = promql.duration_p99("test", "podinfo", "1m")


def series(name: str, per_10_s: float, **labels: str) -> dict[str, str]:
    written = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return {"series": f"{name}{{{written}}}", "values": f"0+{per_10_s}x12"}


def inbound(good: float = 0, bad: float = 0, pod: str = "podinfo-1", deployment: str = "podinfo", **more: str):
    labels = {"direction": "inbound", "namespace": "test", "deployment": deployment, "pod": pod, **more}
    return [
        series("response_total", good, **labels, classification="success", status_code="200"),
        series("response_total", bad, **labels, classification="failure", status_code="500"),
    ]


def failed(
    times: float, *, caller: str = "web-1", pod: str = "podinfo-1", deployment: str = "podinfo", service: str = "podinfo-canary"
):
    to = {"dst_namespace": "test", "dst_deployment": deployment, "dst_pod": pod, "dst_service": service}
    to = {name: value for name, value in to.items() if value}
    own = {"direction": "outbound", "namespace": "test", "deployment": "web", "pod": caller}
    return [series("response_total", times, **own, **to, classification="failure", error="connect")]


def evaluated(tmp_path, query: str, given: list[list[dict[str, str]]], expected: float | None) -> None:
    """Raises unless `query` gives `expected` (None: nothing that is a number) two minutes into the series."""
    rounded = f"round({query}, 0.001)"
    test = {
        "expr": rounded if expected is not None else f"({rounded}) == ({rounded})",  # NaN is the one that is not itself
        "eval_time": "2m",
        "exp_samples": [{"labels": "{}", "value": expected}] if expected is not None else [],
    }
    path = tmp_path / "test.yaml"
    every = [one for group in given for one in group]
    path.write_text(yaml.safe_dump({"tests": [{"interval": "10s", "input_series": every, "promql_expr_test": [test]}]}))
    done = subprocess.run(["promtool", "test", "rules", str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


CASES = {
    "over all pods of the target and no others": (
        [inbound(60), inbound(30, 10, pod="podinfo-2"), inbound(bad=500, pod="x", deployment="podinfo-primary")],
        90.0,
    ),
    "not the pods of the same name elsewhere": (
        [inbound(60), [{**inbound(bad=60)[1], "series": inbound(bad=60)[1]["series"].replace('"test"', '"prod"')}]],
        100.0,
    ),
    "requests that never reached the pod are failures": ([inbound(90), failed(6), failed(4, caller="web-2")], 90.0),
    "a failure that both sides saw is one": ([inbound(80, 20), failed(20)], 80.0),
    "what both sides saw is told apart pod by pod": (
        [inbound(40, 10), inbound(40, 0, pod="podinfo-2"), failed(5), failed(10, pod="podinfo-2")],
        80.0,
    ),
    "failures towards others are not the canary's": (
        [
            inbound(10),
            failed(50, pod="podinfo-primary-1", deployment="podinfo-primary"),
            failed(9, deployment="", pod="", service="podinfo-primary"),
        ],
        100.0,
    ),
    "failures that found no pod": ([inbound(90), failed(6, pod=""), failed(4, pod="", deployment="")], 90.0),
    "everything fails": ([inbound(0, 10)], 0.0),
    "everything fails before it arrives": ([failed(10)], 0.0),
    "no success was ever counted": ([inbound(0, 10)[1:]], 0.0),
    "silence": ([inbound(0, 0)], None),
    "nothing is known": ([[]], None),
    "only the primary has traffic": ([inbound(0, 0), inbound(10, deployment="podinfo-primary")], None),
}


@pytest.mark.parametrize(("given", "expected"), CASES.values(), ids=CASES.keys())
def test_the_success_rate_means_what_the_embedded_source_means(tmp_path, given, expected):
    evaluated(tmp_path, RATE, given, expected)


def test_the_requests_are_those_the_rate_is_made_of(tmp_path):
    evaluated(tmp_path, REQUESTS, [inbound(8, 1), failed(3)], 66.0)  # (9 answered, 2 unreached) six times


def latency(*per_10_s: tuple[str, float], deployment: str = "podinfo"):
    labels = {"direction": "inbound", "namespace": "test", "deployment": deployment, "pod": "p", "status_code": "200"}
    return [series("response_latency_ms_bucket", count, **labels, le=le) for le, count in per_10_s]


def test_the_duration_is_the_p99_of_the_targets_pods(tmp_path):
    mine = latency(("10", 98), ("20", 100), ("+Inf", 100))
    others = latency(("10", 0), ("20", 0), ("+Inf", 900), deployment="podinfo-primary")
    evaluated(tmp_path, P99, [mine, others], 15.0)


def test_no_latency_is_no_value(tmp_path):
    evaluated(tmp_path, P99, [latency(("10", 0), ("+Inf", 0))], None)


PAGE = (Path(__file__).parents[2] / "docs" / "canary" / "metrics.md").read_text()


def test_the_configuration_of_the_page_is_one_that_prometheus_takes(tmp_path):
    (config,) = re.findall(r"```yaml\n(scrape_configs:.*?)```", PAGE, re.DOTALL)
    (tmp_path / "prometheus.yml").write_text(config)
    done = subprocess.run(
        ["promtool", "check", "config", str(tmp_path / "prometheus.yml")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_template_of_the_page_measures_what_it_says(tmp_path):
    (text,) = re.findall(r"```yaml\n(apiVersion: flagger.app/v1beta1\nkind: MetricTemplate.*?)```", PAGE, re.DOTALL)
    template = parse_template(yaml.safe_load(text))
    metric = Metric("not-found", 60.0, variables=(("direction", "inbound"),))
    query = render(template.query, Blanks.of(Subject("test", "podinfo", "podinfo-canary"), metric))
    missing = [{**inbound(10)[0], "series": inbound(10)[0]["series"].replace('"200"', '"404"')}]
    evaluated(tmp_path, query, [inbound(30), missing], 25.0)

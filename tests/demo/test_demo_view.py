"""What the audience is shown: figures from real expositions, the picture, the plain lines."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from control.runtime.podobjects import ANNOTATION_TERMINATING
from meshproxy.demo.mesh import Mesh, Pod, _pod, _settled
from meshproxy.demo.verdict import Finding
from meshproxy.demo.view import LiveView, PlainView, picture
from meshproxy.demo.watch import Figures, Recent, Release, Watch, figures
from meshproxy.telemetry.golden import Golden, parse
from meshproxy.telemetry.registry import Registry
from meshproxy.telemetry.render import render


def console():
    return Console(file=io.StringIO(), width=120, highlight=False)


@pytest.fixture
def watch(tmp_path):
    watch = Watch(Mesh("nobody", tmp_path, tmp_path))
    watch.table = [
        Figures("web", "v1", 2, 40.0, 100.0, 3.0, 8.0, 12.4),
        Figures("catalogue", "v3", 2, 4.0, 79.6, 900.0, 990.0, 998.0),
        Figures("prices", "v1", 3, 0.0, None, None, None, None),
    ]
    watch.release = Release("Progressing", 10, "v3", 1)
    watch.pods = [
        Pod("shop", "web-1", "127.80.0.10", "web", "v1", "web", True, False, {"app": 4711, "sidecar": 4712}),
        Pod("shop", "web-2", "127.80.0.11", "web", "v1", "web", False, True, {}),
    ]
    return watch


def test_nothing_counted_is_no_success_rate_and_not_a_perfect_one():
    assert figures("web", "v1", 2, []) == Figures("web", "v1", 2, 0.0, None, None, None, None)
    assert figures("web", "v1", 2, [Golden(5.0)]) == Figures("web", "v1", 2, 0.0, None, None, None, None)


def test_pods_of_one_version_are_added_up_each_over_its_own_time():
    row = figures("web", "v1", 2, [Golden(5.0, success=50), Golden(2.0, success=10, failure=20)])
    assert (row.rps, row.success) == (25.0, 75.0)


def test_the_picture_shows_figures_release_and_processes(watch):
    out = console()
    out.print(picture(watch, "scene 7 of 7"))
    text = out.file.getvalue()
    for words in ("scene 7 of 7", "79.6 %", "998 ms", "Progressing", "10 %", "failed checks 1", "4711", "4712", "ending"):
        assert words in text, words


def test_without_a_terminal_there_is_a_line_of_figures_every_few_seconds(watch):
    now = 100.0
    view = PlainView(console(), lambda: now)
    view.figures(watch)
    view.figures(watch)
    now = 106.0
    view.figures(watch)
    lines = view.console.file.getvalue().splitlines()
    assert len(lines) == 2
    assert "canary Progressing 10 %  |  web v1 40/s 100 % p99 12 ms  |  catalogue v3 4/s 80 % p99 998 ms" in lines[0]


def test_a_claim_that_does_not_hold_is_marked_in_words_and_not_only_in_colour(watch):
    view = LiveView(console())
    view.open()
    try:
        view.scene(2, 7, "A slow replica", "Some words.")
        view.figures(watch)
        view.verdict([Finding("this happened", True, "so"), Finding("that happened", False, "not so")])
        view.conclude(Finding("this too", False, "nothing was left", judged=False))
    finally:
        view.close()
    text = view.console.file.getvalue()
    assert "ok      this happened: so" in text
    assert "FAILED  that happened: not so" in text
    assert "?       this too: not judged: nothing was left" in text


@pytest.mark.parametrize("width", [60, 80, 120])
def test_on_a_terminal_lines_break_between_words_and_elsewhere_not_at_all(width):
    words = " ".join(f"word{'x' * (number % 9)}" for number in range(60))
    terminal = PlainView(Console(file=io.StringIO(), width=width, highlight=False, force_terminal=True, color_system=None))
    for view in (terminal, PlainView(console())):
        view.say(words)
        view.warn(f"{words}\n  and another line")
        view.conclude(Finding("this happened", True, words))
    lines = terminal.console.file.getvalue().splitlines()
    assert max(map(len, lines)) < width
    assert " ".join(lines).split() == [*f"{words} {words} and another line ok this happened: {words}".split()]
    assert len(view.console.file.getvalue().splitlines()) == 4


@pytest.mark.parametrize("width", [80, 120])
def test_the_columns_of_the_picture_stay_where_they_are(watch, width):
    def places():
        out = Console(file=io.StringIO(), width=width, highlight=False)
        out.print(picture(watch, "scene 1 of 7"))
        lines = out.file.getvalue().splitlines()
        headers = [line for line in lines if "SERVICE" in line or "SIDECAR" in line]
        return [*headers, next(line for line in lines if "canary catalogue" in line).index("%")]

    before = places()
    watch.release = Release("WaitingPromotion", 100, "v12", 0)
    watch.table = [Figures("catalogue", "v1234", 12, 1234.5, 100.0, 12345.0, 12345.0, 12345.0)]
    watch.pods = [
        Pod("shop", "catalogue-primary-7d9f8c6b5-x2x4z-and-so-on", "127.255.255.254", "c", "v1", "c", False, False, {})
    ]
    assert places() == before


def test_a_pod_is_read_as_kubernetes_writes_it():
    written = {
        "metadata": {
            "name": "catalogue-primary-7d9-x",
            "namespace": "shop",
            "labels": {"app": "catalogue-primary", "version": "v2"},
        },
        "status": {"podIP": "127.80.0.12", "conditions": [{"type": "Ready", "status": "True"}]},
    }
    pod = _pod(written, {("shop", "catalogue-primary-7d9-x"): {"app": 7}})
    assert (pod.app, pod.version, pod.ip, pod.ready, pod.pids) == ("catalogue", "v2", "127.80.0.12", True, {"app": 7})
    bare = _pod({"metadata": {"name": "new", "deletionTimestamp": "2026-01-01T00:00:00Z"}}, {})
    assert (bare.ready, bare.terminating, bare.ip) == (False, True, "")
    scaled_away = {"metadata": {"name": "old", "annotations": {ANNOTATION_TERMINATING: "2026-01-01T00:00:00Z"}}}
    assert _pod(scaled_away, {}).terminating


@pytest.mark.parametrize(
    ("change", "settled"),
    [
        ({}, True),
        ({"observedGeneration": 1}, False),
        ({"availableReplicas": 1}, False),
        ({"updatedReplicas": 1}, False),
        ({"replicas": 3}, False),  # an old pod is still there
    ],
)
def test_a_deployment_is_settled_when_all_and_only_its_new_pods_are_there(change, settled):
    status = {"observedGeneration": 2, "availableReplicas": 2, "updatedReplicas": 2, "replicas": 2}
    deployment = {"metadata": {"name": "web", "generation": 2}, "spec": {"replicas": 2}, "status": status | change}
    assert _settled(deployment) is settled


def test_a_deployment_scaled_to_nothing_is_settled_without_counts():
    assert _settled({"metadata": {"name": "c", "generation": 3}, "spec": {"replicas": 0}, "status": {"observedGeneration": 3}})


def test_figures_come_from_what_a_sidecar_exposes():
    registry = Registry()
    series = registry.http("inbound", (("namespace", "shop"), ("deployment", "web"), ("pod", "web-1")))
    onward = registry.http("outbound", (("namespace", "shop"), ("deployment", "web"), ("dst_service", "catalogue")))
    recent = Recent()
    recent.add(100.0, parse(render(registry).decode()))
    assert recent.golden() is None
    for _ in range(40):
        series.request()
        series.response(200, -1, True, 7.0, 8.0)
        onward.request()
        onward.response(200, -1, True, 3.0, 4.0)
    for _ in range(10):
        series.request()
        series.response(500, -1, False, 250.0, 251.0)
    recent.add(105.0, parse(render(registry).decode()))
    row = figures("web", "v1", 1, [recent.golden()])
    assert (row.rps, row.success) == (10.0, 80.0)
    assert 5.0 < row.p50 <= 10.0
    assert 200.0 < row.p99 <= 300.0

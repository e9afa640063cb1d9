"""`meshproxy canary simulate`: the same machine on a made-up world, from the command line."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from canary_plays import canary_object
from click.testing import CliRunner, Result

from control.canary.declared.metric import DURATION, SUCCESS_RATE, Metric
from control.canary.simulate.model import Fault, ScenarioError, Traffic, measure, parse_scenario
from control.canary.simulate.replay import ReplayError
from control.canary.simulate.replay import load as load_recording
from control.canary.simulate.text import sparkline
from meshproxy.cli import main


def canary(name: str = "podinfo", analysis: dict[str, Any] | None = None, **rest: Any) -> dict[str, Any]:
    obj = canary_object(analysis, **rest)
    obj["metadata"] = {"name": name, "namespace": "test", "annotations": obj["metadata"]["annotations"]}
    obj["spec"]["targetRef"]["name"] = name
    return obj


def write(path: Path, *objects: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump_all(objects))
    return path


def simulate(*words: object, code: int = 0) -> Result:
    with ThreadPoolExecutor(1) as thread:  # the verb starts an event loop of its own
        result = thread.submit(CliRunner().invoke, main, ["canary", "simulate", *map(str, words)]).result()
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "canary.yaml", canary())


def told(file: Path, *words: str, code: int = 1) -> dict[str, Any]:
    return json.loads(simulate(file, "-o", "json", *words, code=code).output)


def test_a_good_canary_is_promoted_tick_by_tick(file: Path):
    lines = simulate(file).output.splitlines()
    assert lines[0].split() == ["TIME", "PHASE", "WEIGHT", "CHECKS", "WHAT"]
    assert lines[1].split(None, 4)[:4] == ["+0:10", "Progressing", "0", "%"]
    assert any("+0:30" in line and "request-success-rate 100 % of 20 requests" in line for line in lines)
    assert any(line.startswith("weight ") and "▁▂▄▅▇██▁▁  0 .. 50 %" in line for line in lines)
    assert lines[-1] == "podinfo.test is promoted after 1:30"


@pytest.mark.parametrize(
    ("scenario", "text"),
    [
        ("errors:5%", "Halt podinfo.test advancement success rate 95.00% < 99%"),
        ("slow", "Halt podinfo.test advancement request duration 1s > 500ms"),
        ("slow:501ms@20%", "Halt podinfo.test advancement request duration 501ms > 500ms"),
        ("silent", "no values found"),
        ("down@30s", "does not answer"),
        ("podinfo=errors:100%@30%", "success rate 0.00% < 99%"),
        ("request-success-rate:98.9", "success rate 98.90% < 99%"),
        ("bad:request-duration", "request duration"),
        ("unready", "progress deadline"),
    ],
)
def test_a_bad_one_is_rolled_back_and_the_exit_status_says_so(file: Path, scenario: str, text: str):
    found = told(file, "--scenario", scenario)
    assert found["outcome"] == "rolled back"
    assert text in json.dumps(found["entries"])
    assert found["entries"][-1]["canaryWeight"] == 0
    if "@20%" in scenario:
        assert max(entry["canaryWeight"] for entry in found["entries"]) == 20


def test_five_percent_of_errors_at_ten_percent_of_the_traffic_are_pulled_within_two_intervals(tmp_path: Path):
    interval, errors = 10, 0.05
    analysis = {"interval": f"{interval}s", "threshold": 1, "stepWeight": 10, "maxWeight": 50}
    metrics = [{"name": "request-success-rate", "thresholdRange": {"min": 99}, "interval": f"{interval}s"}]
    file = write(tmp_path / "canary.yaml", canary(analysis={**analysis, "metrics": metrics}))
    entries = told(file, "--scenario", f"errors:{errors:.0%}")["entries"]
    exposed = [entry for entry in entries if entry["canaryWeight"]]
    assert {entry["canaryWeight"] for entry in exposed} == {10}
    assert entries[-1]["phase"] == "Failed"
    assert entries[-1]["seconds"] - exposed[0]["seconds"] == 2 * interval
    since = entries[-1]["seconds"] - exposed[0]["seconds"]
    failed = sum(entry["canaryWeight"] / 100 * errors * interval for entry in exposed)
    assert failed / since < 0.01  # of all requests, while any could fail


def test_several_canaries_are_simulated_together_and_all_must_be_promoted(tmp_path: Path):
    file = write(tmp_path / "all.yaml", canary(), canary("cart"))
    assert told(file, code=0)["canaries"] == {"cart.test": "promoted", "podinfo.test": "promoted"}
    found = told(file, "--scenario", "cart=errors:50%")
    assert found["canaries"] == {"cart.test": "rolled back", "podinfo.test": "promoted"}
    assert "CANARY" in simulate(file).output.splitlines()[0]


def test_a_gate_that_stays_shut_leaves_it_undecided_and_one_that_opens_later_does_not(tmp_path: Path):
    file = write(tmp_path / "gated.yaml", canary(annotations={"meshproxy.dev/confirm": "rollout,promotion"}))
    assert told(file, code=0)["outcome"] == "promoted"
    found = told(file, "--deny", "promotion", "--limit", "10m")
    assert (found["outcome"], found["entries"][-1]["phase"]) == ("not decided", "WaitingPromotion")
    assert "waiting for promotion approval" in found["waitsFor"]
    assert (
        "waiting for promotion approval"
        in simulate(file, "--deny", "promotion", "--limit", "10m", code=1).output.splitlines()[-1]
    )
    late = told(file, "--deny", "rollout:5", code=0)
    assert late["entries"][-1]["seconds"] > told(file, code=0)["entries"][-1]["seconds"]


def test_recorded_metrics_are_replayed(file: Path, tmp_path: Path):
    recorded = tmp_path / "metrics.json"
    good = [[0, 100], [10, 100], [20, 100], [30, 99.5], [40, 100], [50, 100]]
    prometheus = {"status": "success", "data": {"result": [{"values": [[1000.0 + 10 * n, "12"] for n in range(9)]}]}}
    recorded.write_text(json.dumps({"metrics": {SUCCESS_RATE: good, DURATION: prometheus}}))
    assert told(file, "--replay", str(recorded), code=0)["outcome"] == "promoted"
    bad = [*good[:3], [25, 80], [26, None]]
    recorded.write_text(json.dumps({"metrics": {SUCCESS_RATE: {"requests": 40, "values": bad}, DURATION: prometheus}}))
    found = told(file, "--replay", str(recorded))
    assert "no data was recorded then" in json.dumps(found)


def test_a_recording_that_ends_is_no_data_after_the_metrics_interval(tmp_path: Path):
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps({"metrics": {"x": [[0, 1], [5, "NaN"]]}}))
    recording = load_recording(path)
    metric = Metric("x", 30.0, maximum=2)
    assert recording.measure(metric, 4.9).value == 1
    assert recording.measure(metric, 5).value is None
    assert recording.measure(metric, 35.1).reason == "nothing was recorded then"
    assert recording.measure(metric, -1).value is None
    assert recording.measure(Metric("y"), 0).error


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[]", 'expected {"metrics"'),
        ('{"metrics": {"x": [[0, 1], [0, 2]]}}', "metrics.x[1]: its time is not after the one before"),
        ('{"metrics": {"x": [[0, "many"]]}}', "metrics.x[0]: found 'many', expected a number or null"),
        ('{"metrics": {"x": [5]}}', "metrics.x[0]: found 5, expected [seconds, value]"),
        ('{"metrics": {"x": {"data": {"result": []}}}}', "has no series with values"),
        ("{", "metrics.json: Expecting property name"),
    ],
)
def test_a_recording_that_cannot_be_read_says_where(file: Path, tmp_path: Path, text: str, expected: str):
    path = tmp_path / "metrics.json"
    path.write_text(text)
    with pytest.raises(ReplayError) as error:
        load_recording(path)
    assert expected in str(error.value)
    simulate(file, "--replay", path, code=2)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--scenario", "explode"), "no such scenario; expected good, errors"),
        (("--scenario", "errors:120%"), "expected a percentage from 0 to 100"),
        (("--scenario", "eror:5%"), "(did you mean errors?)"),
        (("--scenario", "eror:5"), "there is no metric 'eror' in the manifests, only"),
        (("--scenario", "eror:5"), "(did you mean errors?)"),
        (("--scenario", "bad:nosuch"), "there is no metric 'nosuch' in the manifests, only request-duration, request-success"),
        (("--scenario", "podimfo=down"), "there is no Canary 'podimfo' in the manifests, only podinfo (did you mean podinfo?)"),
        (("--deny", "nosuch"), "there is no webhook or gate 'nosuch' in the manifests, only none"),
        (("--deny", "promotion:2"), "there is no webhook or gate 'promotion' in the manifests, only none"),
        (("--scenario", "slow:fast"), "is not a duration"),
        (("--deny", "promotion:often"), "expected NAME or NAME:N"),
        (("--limit", "soon"), "is not a duration"),
        (("--start", "monday"), "Invalid isoformat"),
    ],
)
def test_misuse_ends_with_2_and_says_what_was_expected(file: Path, words: tuple[str, ...], expected: str):
    assert expected in " ".join(simulate(file, *words, code=2).output.replace("│", " ").split())


def test_a_route_that_comes_before_the_weights_holds_the_release_as_it_would_in_the_mesh(tmp_path: Path):
    route = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "mine", "namespace": "test"},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "podinfo", "port": 80}],
            "rules": [{"backendRefs": [{"name": "podinfo", "port": 80}]}],
        },
    }
    found = simulate(write(tmp_path / "all.yaml", canary(progressDeadlineSeconds=30), route), code=1).output
    assert "HTTPRoutes or GRPCRoutes are attached to Service podinfo" in found
    assert "podinfo.test is rolled back" in found


def test_manifests_that_would_be_refused_are_refused_by_line(tmp_path: Path):
    wrong = canary()
    del wrong["spec"]["service"]["port"]
    output = simulate(write(tmp_path / "wrong.yaml", wrong), code=2).output
    assert "wrong.yaml:" in output
    assert "spec.service.port: is missing" in output
    assert "there is no Canary in it" in simulate(write(tmp_path / "none.yaml"), code=2).output
    mistaken = write(
        tmp_path / "metric.yaml", canary(analysis={"metrics": [{"name": "request-success-rte", "thresholdRange": {"min": 99}}]})
    )
    assert "'request-success-rte' is not a built-in metric" in simulate(mistaken, code=2).output


def test_the_plot_is_a_picture_with_a_panel_for_the_weight_and_each_metric(file: Path, tmp_path: Path):
    simulate(file, "--plot", tmp_path / "plot.svg", "--scenario", "errors:5%@20%", code=1)
    root = ElementTree.parse(tmp_path / "plot.svg").getroot()
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "podinfo.test: percent of the requests to the canary (rolled back)" in texts
    assert {"podinfo.test: request-success-rate", "podinfo.test: request-duration", "at least 99"} <= set(texts)
    assert len(list(root.iter("{http://www.w3.org/2000/svg}circle"))) == 2 * 3


SCENARIOS = [
    ("good", Fault("good")),
    ("errors:5%", Fault("errors", 0.05)),
    ("errors:0.5", Fault("errors", 0.005)),
    ("slow:1.2s@2m", Fault("slow", 1200.0, after_s=120.0)),
    ("bad:error-rate@30%", Fault("bad", metric="error-rate", from_weight=30.0)),
    ("error-rate:12.5", Fault("metric", 12.5, "error-rate")),
]


@pytest.mark.parametrize(("text", "expected"), SCENARIOS, ids=[text for text, _ in SCENARIOS])
def test_scenarios(text: str, expected: Fault):
    assert parse_scenario(text) == expected


@pytest.mark.parametrize("text", ["", "errors", "bad", "good:1", "x:nan", "errors:5%@", "a b"])
def test_scenarios_that_mean_nothing(text: str):
    with pytest.raises(ScenarioError):
        parse_scenario(text)


@pytest.mark.parametrize("metric", [Metric("m", minimum=5), Metric("m", maximum=-3), Metric("m", minimum=1, maximum=2)])
def test_a_custom_metric_is_good_by_default_and_beyond_its_limit_when_bad(metric: Metric):
    traffic = Traffic(10.0, 50.0, 60.0)
    for faults, good in (([], True), ([Fault("bad", metric="m")], False)):
        value = measure(metric, faults, traffic).value
        assert value is not None
        assert (
            (metric.minimum is None or value >= metric.minimum) and (metric.maximum is None or value <= metric.maximum)
        ) is good


def test_a_sparkline_is_never_wider_than_a_terminal():
    assert sparkline([0, 50, None, 100], 0, 100) == "▁▅ █"
    assert len(sparkline([1.0] * 1001, 0, 2)) <= 100


def test_a_simulation_that_holds_for_ever_ends_and_says_what_it_waited_for(tmp_path: Path):
    policy = {
        "apiVersion": "meshproxy.dev/v1alpha1",
        "kind": "ReleasePolicy",
        "metadata": {"name": "podinfo", "namespace": "test"},
    }
    file = write(tmp_path / "canary.yaml", canary(), {**policy, "spec": {"evidence": {}, "onInconclusive": "hold"}})
    found = told(file, "--scenario", "silent", "--limit", "12h")
    late = [entry["seconds"] for entry in found["entries"] if entry["seconds"] > 7200]
    assert late[-1] > 11 * 3600
    assert 10 < len(late) < 1000, "a day of one look a second takes minutes"
    assert found["waitsFor"] == "podinfo.test: Halt podinfo.test advancement: more requests at weight 10 needed"


def test_a_policy_that_does_not_fit_its_canary_is_a_mistake_that_is_told(tmp_path: Path):
    policy = {
        "apiVersion": "meshproxy.dev/v1alpha1",
        "kind": "ReleasePolicy",
        "metadata": {"name": "podinfo", "namespace": "test"},
    }
    file = write(
        tmp_path / "canary.yaml", canary(analysis={"mirror": True}), {**policy, "spec": {"evidence": {"baseline": True}}}
    )
    assert "ReleasePolicy podinfo: spec.evidence.baseline: analysis.mirror gives" in simulate(file, code=2).output


def test_a_member_that_is_not_among_the_manifests_is_told_with_the_one_that_may_be_meant(tmp_path: Path):
    group = {
        "apiVersion": "meshproxy.dev/v1alpha1",
        "kind": "ReleasePolicy",
        "metadata": {"name": "podinfo", "namespace": "test"},
    }
    file = write(tmp_path / "all.yaml", canary(), canary("cart"), {**group, "spec": {"members": ["carts", "cart"]}})
    said = simulate(file)
    assert said.stderr == (
        "Warning: ReleasePolicy podinfo: spec.members: there is no Canary carts in the manifests (did you mean cart?): "
        "it takes no part, and nothing here says how it would go with it\n"
    )
    assert said.stdout.splitlines()[-1].startswith("cart.test is promoted")
    found = json.loads(simulate(file, "-o", "json").stdout)
    assert found["warnings"] == [said.stderr.removeprefix("Warning: ").rstrip()]
    write(file, canary(), canary("cart"), {**group, "spec": {"members": ["cart"]}})
    assert simulate(file).stderr == ""


def test_the_start_of_the_analysis_is_told_once_in_a_run(tmp_path: Path):
    group = {
        "apiVersion": "meshproxy.dev/v1alpha1",
        "kind": "ReleasePolicy",
        "metadata": {"name": "podinfo", "namespace": "test"},
    }
    slow = canary("cart", {"interval": "40s"})
    file = write(tmp_path / "all.yaml", canary(), slow, {**group, "spec": {"members": ["cart"]}})
    events = [said["message"] for entry in told(file, code=0)["entries"] for said in entry["events"]]
    assert events.count("Starting canary analysis for podinfo.test") > 1, "this release begins at once"
    lines = simulate(file).output.splitlines()
    for name in ("podinfo", "cart"):
        assert sum(f"Starting canary analysis for {name}.test" in line for line in lines) == 1
    waits = [line for line in lines if "waiting for the other members of the release: cart (step 0)" in line]
    assert waits[0].split()[0] == "+0:40", "what happens besides keeps its line"


def test_a_rollback_hook_is_marked_where_it_wants_a_roll_back(tmp_path: Path):
    hook = {"name": "stop it", "type": "rollback", "url": "http://gates.test/rollback"}
    file = write(tmp_path / "hooked.yaml", canary(analysis={"webhooks": [hook]}))
    good = [line for line in simulate(file).output.splitlines() if "webhook stop it" in line]
    assert good
    assert all(line.endswith("webhook stop it: no") and "!" not in line for line in good)
    bad = [line for line in simulate(file, "--deny", "stop it", code=1).output.splitlines() if "webhook stop it" in line]
    assert [line.partition("! ")[2] for line in bad] == ["webhook stop it: yes, roll back"]
    events = [said for entry in told(file, code=0)["entries"] for said in entry["events"] if "webhook" in said["message"]]
    assert {said["type"] for said in events} == {"Normal"}


def test_looks_that_change_nothing_are_one_line(tmp_path: Path):
    policy = {
        "apiVersion": "meshproxy.dev/v1alpha1",
        "kind": "ReleasePolicy",
        "metadata": {"name": "podinfo", "namespace": "test"},
    }
    file = write(tmp_path / "judged.yaml", canary(), {**policy, "spec": {"evidence": {}, "steps": [{"weight": 10}]}})
    lines = simulate(file).output.splitlines()
    assert sum("request-success-rate 100 % of" in line for line in lines) < 10
    halted = next(index for index, line in enumerate(lines) if "not certain yet" in line)
    assert any("(the same" in line and "more times, until" in line for line in lines[halted : halted + 4])


def test_a_recording_is_of_the_metrics_there_are_and_is_all_that_they_say(file: Path, tmp_path: Path):
    recorded = tmp_path / "metrics.json"
    recorded.write_text(json.dumps({"metrics": {"request-success-rat": [[0, 100]]}}))
    said = simulate(file, "--replay", recorded, code=2).stderr
    assert "--replay: there is no metric 'request-success-rat' in the manifests" in said
    assert "(did you mean request-success-rate?)" in said
    recorded.write_text(json.dumps({"metrics": {SUCCESS_RATE: [[0, 100]]}}))
    warning = "Warning: the recording has no metric request-duration: each look at it fails, as if its source did not answer"
    assert simulate(file, "--replay", recorded, code=1).stderr.splitlines() == [warning]
    refused = simulate(file, "--replay", recorded, "--scenario", "errors:5%", code=2).stderr
    assert "with --replay the recording is what the metrics say" in refused
    simulate(file, "--replay", recorded, "--scenario", "unready", code=1)

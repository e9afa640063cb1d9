"""`meshproxy canary` on the state of a mesh: what it prints, what it writes, how it ends."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from canary_cluster import CANARY, PRIMARY, Cluster, deployment
from canary_plays import canary_object
from click.testing import CliRunner, Result
from test_canary_policy import policy_object

from control.canary.declared.commands import Command, Commands, Signature
from control.canary.declared.hooks import HookResult
from control.canary.declared.spec import DURATION, SUCCESS_RATE
from control.canary.machine.analysis import Measurement
from control.canary.machine.status import Phase
from control.runtime.layout import Layout, MeshInfo
from control.runtime.meshes import start_time, write_info
from meshproxy.cli import main


class Shell:
    """A mesh that is up (this process stands for its supervisor) and a way to type commands at it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def run(self, *words: str, code: int = 0) -> Result:
        with ThreadPoolExecutor(1) as thread:  # a verb starts an event loop of its own
            result = thread.submit(CliRunner().invoke, main, ["canary", *words]).result()
        assert result.exit_code == code, result.output
        self.cluster.refresh()
        return result

    def commands(self) -> Commands:
        return Commands.of(self.cluster.store.get(CANARY)["metadata"].get("annotations") or {})


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    monkeypatch.setenv("MESHPROXY_STATE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MESHPROXY_NAME", raising=False)
    layout = Layout.of("default")
    layout.objects.mkdir(parents=True)
    pid = os.getpid()
    info = MeshInfo("default", str(tmp_path), "127.83.4", "t", "g:1", "c:1", "c:2", pid, start_time(pid), time.time())
    write_info(layout, info)
    cluster = Cluster(tmp_path, layout.objects)
    cluster.now = time.time() - 3600
    yield Shell(cluster)
    cluster.store.close()


async def released(shell: Shell, ticks: int = 3, **canary) -> None:
    """Initialised, v2 applied, and some ticks into its release."""
    cluster = shell.cluster
    cluster.begin(**canary)
    await cluster.roll_out()
    for _ in range(2):
        await cluster.tick()
    cluster.write(deployment("v2"))
    for _ in range(ticks):
        await cluster.tick()


async def test_status_shows_phase_weight_and_failed_checks(shell):
    await released(shell)
    lines = shell.run("status", "-n", "test").output.splitlines()
    assert lines[0].split() == ["NAME", "STATUS", "WEIGHT", "FAILEDCHECKS", "LASTTRANSITION", "MESSAGE"]
    assert lines[1].split()[:4] == ["podinfo", "Progressing", "20", "0"]
    assert lines[1].endswith("New revision detected, progressing canary analysis.")
    assert shell.run("status", "-A").output.splitlines()[1].split()[:3] == ["test", "podinfo", "Progressing"]
    assert "New revision detected, progressing canary analysis." in shell.run("status", "-A", "-o", "wide").output
    assert json.loads(shell.run("status", "podinfo", "-n", "test", "-o", "json").output)["status"]["canaryWeight"] == 20
    assert yaml.safe_load(shell.run("status", "-n", "test", "-o", "yaml").output)["kind"] == "List"
    assert "-A shows all" in shell.run("status").output


async def test_status_shows_the_exact_weight_and_the_step_of_a_policy(shell):
    shell.cluster.write(policy_object(steps=[{"weight": 0.25, "duration": "10s", "pause": True}, {"weight": 50}]))
    await released(shell, ticks=4)
    line = shell.run("status", "-n", "test", "-o", "wide").output.splitlines()[1]
    assert line.split()[:3] == ["podinfo", "Progressing", "0.25"]
    assert "1/2 (waits)" in line
    assert line.endswith("Waiting for approval of step 1.")
    shell.run("approve", "podinfo", "-n", "test", "--by", "ann", "--reason", "fine")
    await shell.cluster.tick()
    assert shell.run("status", "-n", "test").output.splitlines()[1].split()[2] == "50"
    assert "Step 1 of podinfo.test approved (by ann: fine)" in shell.run("history", "podinfo", "-n", "test").output


async def test_a_pause_is_in_the_history_with_who_and_why_and_so_is_its_end(shell):
    await released(shell)
    shell.run("pause", "podinfo", "-n", "test", "--by", "ann", "--reason", "lunch")
    await shell.cluster.tick()
    await shell.cluster.tick()
    assert "Paused (by ann: lunch)." in shell.run("status", "-n", "test").output
    shell.run("resume", "podinfo", "-n", "test", "--by", "bob")
    await shell.cluster.tick()
    said = [
        line
        for line in shell.run("history", "podinfo", "-n", "test").output.splitlines()
        if "paused" in line or "resumed" in line
    ]
    assert len(said) == 2
    assert "is paused at weight 20 (by ann: lunch)" in said[0]
    assert "is resumed (by bob)" in said[1]


async def test_retry_releases_the_revision_that_failed_once_more(shell):
    await released(shell)
    shell.run("abort", "podinfo", "-n", "test", "--by", "ann", "--reason", "customers complain")
    await shell.cluster.tick()
    assert "aborted by hand (by ann: customers complain)" in shell.run("history", "podinfo", "-n", "test").output
    shell.cluster.now = time.time() + 1
    shell.run("retry", "podinfo", "-n", "test", "--by", "bob", "--reason", "they do not any more")
    while shell.cluster.status().phase is not Phase.SUCCEEDED:
        await shell.cluster.tick()
    assert shell.cluster.image(PRIMARY) == "podinfo:v2"


async def test_members_of_one_release_are_promoted_together(shell):
    other = canary_object()
    other["metadata"]["name"] = other["spec"]["targetRef"]["name"] = "cart"
    shell.cluster.write(other, policy_object(steps=[{"weight": 10}], members=["cart"]))
    await released(shell)
    assert (
        shell.run("promote", "podinfo", "-n", "test").output == "canary.flagger.app/podinfo promoting\n"
    )  # cart has no release


async def test_status_wide_says_why_a_canary_is_refused(shell):
    shell.cluster.begin(provider="istio")
    await shell.cluster.roll_out()
    await shell.cluster.tick()
    assert "spec.provider istio is not supported" in shell.run("status", "-n", "test", "-o", "wide").output


async def test_a_name_that_does_not_exist_ends_with_1_and_says_what_does(shell):
    await released(shell)
    assert "there is podinfo -n test" in shell.run("status", "podinfo", code=1).output


async def test_wait_ends_with_0_when_the_phase_is_reached_and_with_1_otherwise(shell):
    await released(shell)
    wait = ("status", "podinfo", "-n", "test", "--timeout", "1ms", "--wait")
    shell.run(*wait, "progressing")
    assert "is Progressing, not Succeeded" in shell.run(*wait, "succeeded", code=1).output
    while shell.cluster.status().phase is not Phase.SUCCEEDED:
        await shell.cluster.tick()
    shell.run(*wait, "succeeded")
    shell.cluster.write(deployment("v3"))
    # Still "Succeeded", but of v2: the release of v3 has not begun.
    shell.run(*wait, "succeeded", code=1)
    shell.cluster.measurements = {SUCCESS_RATE: Measurement(0.0, 5), DURATION: Measurement(1.0, 5)}
    while shell.cluster.status().phase is not Phase.FAILED:
        await shell.cluster.tick()
    said = shell.run("status", "podinfo", "-n", "test", "--wait", "succeeded", code=1).output
    assert "podinfo.test failed: Rolling back podinfo.test failed checks threshold reached" in said
    checked = "(request-success-rate 0 % of 5 requests (at least 99 %))"
    assert f"Halt podinfo.test advancement success rate 0.00% < 99% {checked}" in said
    assert "`meshproxy canary history podinfo -n test` has all of it" in said
    shell.run(*wait, "failed")


@pytest.mark.parametrize(
    "words",
    [
        ("status", "--wait", "succeeded"),
        ("status", "podinfo", "-n", "test", "--wait", "done"),
        ("status", "podinfo", "--timeout", "soon"),
    ],
)
async def test_misuse_ends_with_2(shell, words):
    await released(shell)
    shell.run(*words, code=2)


async def test_pause_holds_the_release_and_resume_lets_it_go_on(shell):
    await released(shell)
    assert shell.run("pause", "podinfo", "-n", "test").output == "canary.flagger.app/podinfo paused\n"
    await shell.cluster.tick()
    assert shell.cluster.status().canary_weight == 20
    assert "Progressing (paused)" in shell.run("status", "-n", "test").output
    shell.run("resume", "podinfo", "-n", "test")
    assert "(paused)" not in shell.run("status", "-n", "test").output
    await shell.cluster.tick()
    assert shell.cluster.status().canary_weight == 30


async def test_pause_where_nothing_is_released_holds_the_next_release_and_says_so(shell):
    await released(shell)
    while shell.cluster.status().phase is not Phase.SUCCEEDED:
        await shell.cluster.tick()
    assert "the next release will wait" in shell.run("pause", "podinfo", "-n", "test").output
    shell.cluster.write(deployment("v3"))
    for _ in range(5):
        await shell.cluster.tick()
    assert (shell.cluster.status().phase, shell.cluster.status().canary_weight) == (Phase.PROGRESSING, 0)


async def test_abort_rolls_back_and_there_is_nothing_to_abort_after_that(shell):
    await released(shell)
    shell.run("abort", "podinfo", "-n", "test")
    await shell.cluster.tick()
    assert shell.cluster.status().phase is Phase.FAILED
    assert "podinfo is Failed: there is no release to abort" in shell.run("abort", "podinfo", "-n", "test", code=1).output


async def test_what_cannot_be_meant_any_more_can_be_aborted_but_not_approved(shell):
    await released(shell)
    metadata = {"name": "podinfo", "namespace": "test", "annotations": {"meshproxy.dev/confirm": "lunch"}}
    await shell.cluster.cli.apply({"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": metadata})
    wrong = "canary podinfo is not run until this is mended: metadata.annotations[meshproxy.dev/confirm]: 'lunch' is no gate"
    assert wrong in shell.run("approve", "podinfo", "-n", "test", code=1).output
    shell.run("abort", "podinfo", "-n", "test")
    await shell.cluster.tick()
    assert shell.cluster.status().phase is Phase.FAILED


async def test_promote_skips_the_rest(shell):
    await released(shell)
    shell.run("promote", "podinfo", "-n", "test")
    await shell.cluster.tick()
    assert shell.cluster.status().phase is Phase.PROMOTING


async def test_approve_opens_the_gate_the_release_waits_at_and_only_that(shell):
    await released(shell, annotations={"meshproxy.dev/confirm": "rollout,traffic-increase"})
    assert shell.cluster.status().phase is Phase.WAITING
    shell.run("approve", "podinfo", "-n", "test")
    await shell.cluster.tick()
    await shell.cluster.tick()
    assert (shell.cluster.status().phase, shell.cluster.status().canary_weight) == (Phase.PROGRESSING, 0)
    for weight in (10, 20):
        shell.run("approve", "podinfo", "-n", "test")
        await shell.cluster.tick()
        await shell.cluster.tick()
        assert shell.cluster.status().canary_weight == weight


async def test_approve_without_a_gate_is_refused(shell):
    await released(shell)
    assert "it waits at no gate" in shell.run("approve", "podinfo", "-n", "test", code=1).output


@pytest.mark.parametrize(
    ("kind", "phase"),
    [
        ("confirm-rollout", Phase.WAITING),
        ("confirm-traffic-increase", Phase.PROGRESSING),
        ("confirm-promotion", Phase.WAITING_PROMOTION),
    ],
)
async def test_approve_names_the_webhook_that_a_release_waits_for_and_so_does_status(shell, kind, phase):
    shell.cluster.hooks["second"] = HookResult(False)
    hooks = [{"name": name, "type": kind, "url": f"http://gates.test/{name}"} for name in ("first", "second")]
    await released(shell, ticks=7, analysis={"webhooks": hooks})
    assert shell.cluster.status().phase is phase
    assert "Waiting for approval of second" in shell.run("status", "podinfo", "-n", "test").output
    said = shell.run("approve", "podinfo", "-n", "test", code=1).output
    assert "it waits for webhook 'second' (http://gates.test/second); open it there" in said
    shell.cluster.hooks["second"] = HookResult(True)
    await shell.cluster.tick()
    await shell.cluster.tick()
    assert "Waiting for approval" not in shell.run("status", "podinfo", "-n", "test").output


async def test_an_order_says_who_gave_it_and_why(shell):
    await released(shell)
    shell.run("pause", "podinfo", "-n", "test", "--by", "ann", "--reason", "lunch: back at one")
    shell.run("abort", "podinfo", "-n", "test", "--by", "b o:b", "--reason", "customers\ncomplain by mail")
    orders = shell.commands()
    assert (orders.pause, orders.pause_signature) == (True, Signature("ann", "lunch: back at one"))
    assert orders.abort is not None
    assert orders.abort.signature == Signature("bob", "customers complain by mail")


@pytest.mark.parametrize(
    "text", ["v2 2026-01-31T12:00:00Z", "v2 2026-01-31T12:00:00Z promotion by ann", "v2 2026-01-31T12:00:00Z by x: y"]
)
def test_an_order_reads_back_as_it_was_written(text):
    command = Command.parse(text)
    assert command is not None
    assert str(command) == text


async def test_retry_needs_a_release_that_failed(shell):
    await released(shell)
    assert "there is no failed release to retry" in shell.run("retry", "podinfo", "-n", "test", code=1).output
    shell.run("abort", "podinfo", "-n", "test")
    await shell.cluster.tick()
    shell.run("retry", "podinfo", "-n", "test", "--by", "ann", "--reason", "the database was down")
    order = shell.commands().retry
    assert order is not None
    assert order.revision == shell.cluster.status().last_applied
    shell.cluster.write(deployment("v1"))
    assert "there is nothing to release" in shell.run("retry", "podinfo", "-n", "test", code=1).output
    shell.cluster.write(deployment("v3"))
    assert "that is a new release" in shell.run("retry", "podinfo", "-n", "test", code=1).output


async def test_one_order_does_not_erase_another(shell):
    await released(shell)
    shell.run("pause", "podinfo", "-n", "test")
    shell.run("abort", "podinfo", "-n", "test")
    orders = shell.commands()
    assert orders.pause
    assert orders.abort is not None


async def test_history_shows_every_decision_with_its_numbers(shell):
    await released(shell)
    shell.cluster.measurements = {SUCCESS_RATE: Measurement(75.0, 40), DURATION: Measurement(1.0, 40)}
    await shell.cluster.tick()
    lines = shell.run("history", "podinfo", "-n", "test").output.splitlines()
    assert lines[0].split() == ["TIME", "PHASE", "WEIGHT", "FAILED", "REVISION", "MESSAGE", "CHECKS"]
    assert "Initialization done! podinfo.test" in lines[1]
    assert "Halt podinfo.test advancement success rate 75.00% < 99%" in lines[-1]
    assert "request-success-rate 75 % of 40 requests" in lines[-1]
    items = json.loads(shell.run("history", "podinfo", "-n", "test", "-o", "json").output)["items"]
    assert items[-1]["failedChecks"] == 1


@pytest.mark.parametrize("where", [("-n", "test"), ("-A",), ()])
async def test_history_without_a_name_says_which_there_are(shell, where):
    assert shell.run("history", *where).output == "No canaries found.\n"
    await released(shell)
    assert "  meshproxy canary history podinfo -n test\n" in shell.run("history", *where).output
    assert "needs NAME" in shell.run("history", *where, "-o", "json", code=2).output

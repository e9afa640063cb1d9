"""Containers, probes, back-off and the pod's order, on simulated time."""

from __future__ import annotations

from typing import Any

import pytest

from control.runtime.container import Action, Ask, Container, IllegalMove, Kill, Note, Phase, Start, Terminate
from control.runtime.pod import PodMachine, Stage
from control.runtime.podstatus import pod_status
from control.runtime.probes import Backoff, Exec, Grpc, HttpGet, Probe, Prober, TcpSocket
from control.runtime.process import Exit


def kinds(actions: list[Action]) -> list[str]:
    return [type(action).__name__ for action in actions if not isinstance(action, Note)]


# ---------------------------------------------------------------- back-off


def test_back_off_starts_at_once_then_doubles_to_its_limit() -> None:
    backoff = Backoff(base=10.0, limit=300.0)
    assert [backoff.next_delay(1.0) for _ in range(8)] == [0.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0]


def test_back_off_is_forgotten_after_ten_minutes_of_health() -> None:
    backoff = Backoff(base=1.0)
    assert [backoff.next_delay(1.0) for _ in range(3)] == [0.0, 1.0, 2.0]
    assert backoff.next_delay(599.9) == 4.0
    assert backoff.next_delay(600.0) == 0.0


def test_a_crash_loop_waits_longer_each_time() -> None:
    app = Container("app", backoff=Backoff(base=1.0))
    now, starts = 0.0, []
    app.retry_at = now
    for _ in range(6):
        now = app.due_at() or now
        app.start(now)
        starts.append(now)
        now += 0.5
        app.exited(Exit(1), now)
    assert starts == [0.0, 0.5, 2.0, 4.5, 9.0, 17.5]
    assert app.restarts == 5
    assert app.reason == "CrashLoopBackOff"


def test_an_app_without_a_probe_is_proven_once_it_has_run_for_a_while_and_longer_after_each_end() -> None:
    app = Container("app", backoff=Backoff(base=1.0))
    assert not app.proven(100.0)
    app.start(0.0)
    assert (app.ready, app.proven(0.9), app.proven(1.0)) == (True, False, True)
    app.exited(Exit(7), 5.0)
    assert not app.proven(50.0)
    app.start(5.0)
    assert (app.ready, app.proven(6.9), app.proven(7.0)) == (True, False, True)


def test_a_probe_s_yes_is_proof_at_once_and_a_liveness_probe_says_nothing_of_it() -> None:
    asked = Container("app", probes={"readiness": Probe(TcpSocket(1), period=1.0)})
    ((_, readiness),) = [
        (action.kind, action.prober) for action in asked.start(0.0) + asked.tick(0.0) if isinstance(action, Ask)
    ]
    assert not asked.proven(30.0)
    asked.answered("readiness", readiness, True, 0.1)
    assert asked.proven(0.1)
    alive = Container("app", probes={"liveness": Probe(TcpSocket(1), period=1.0)})
    alive.start(0.0)
    assert (alive.proven(0.5), alive.proven(1.0)) == (False, True)


# ---------------------------------------------------------------- probes


def test_a_probe_has_kubernetes_defaults() -> None:
    probe = Probe.parse({"httpGet": {"port": 8080}})
    assert probe is not None
    assert (probe.initial_delay, probe.period, probe.timeout) == (0.0, 10.0, 1.0)
    assert (probe.success_threshold, probe.failure_threshold) == (1, 3)
    assert probe.check == HttpGet(8080, "/", "HTTP")


@pytest.mark.parametrize(
    ("spec", "check"),
    [
        ({"tcpSocket": {"port": "http"}}, TcpSocket("http")),
        ({"exec": {"command": ["cat", "/tmp/x"]}}, Exec(("cat", "/tmp/x"))),
        ({"grpc": {"port": 9090, "service": "prices"}}, Grpc(9090, "prices")),
        ({"httpGet": {"port": 1, "path": "ready", "scheme": "HTTPS"}}, HttpGet(1, "/ready", "HTTPS")),
    ],
)
def test_all_kinds_of_probe_are_read(spec: dict[str, Any], check: object) -> None:
    probe = Probe.parse(spec)
    assert probe is not None
    assert probe.check == check


def test_a_verdict_needs_its_threshold_of_equal_answers_in_a_row() -> None:
    prober = Prober(Probe(TcpSocket(1), success_threshold=2, failure_threshold=3), 0.0)
    changes = []
    for index, ok in enumerate([True, False, True, True, False, False, True, False, False, False]):
        prober.begin(index)
        changes.append((prober.answer(ok, index + 0.1), prober.verdict))
    assert changes[2:4] == [(False, None), (True, True)]
    assert changes[6] == (False, True)
    assert changes[-1] == (True, False)
    assert sum(changed for changed, _ in changes) == 2


def test_questions_come_once_a_period_and_never_two_at_a_time() -> None:
    prober = Prober(Probe(TcpSocket(1), initial_delay=5.0, period=10.0), 100.0)
    assert prober.due_at() == 105.0
    prober.begin(105.0)
    assert prober.due_at() is None
    prober.answer(True, 106.0)
    assert prober.due_at() == 115.0
    prober.begin(115.0)
    prober.answer(True, 140.0)  # it took longer than a period
    assert prober.due_at() == 140.0


def test_an_eager_readiness_probe_asks_often_until_the_first_yes_and_is_as_patient() -> None:
    prober = Prober(Probe(TcpSocket(1), period=10.0, failure_threshold=3), 0.0, eager=0.25)
    now, verdicts = 0.0, []
    while now < 20.0:
        prober.begin(now)
        verdicts.append(prober.answer(False, now))
        now += 0.25
        assert prober.due_at() == now
    assert not any(verdicts)
    prober.begin(20.0)
    assert prober.answer(False, 20.0)
    prober.begin(20.25)
    assert prober.answer(True, 20.25)
    prober.begin(30.25)
    assert prober.due_at() is None
    prober.answer(False, 30.25)
    assert prober.due_at() == 40.25


def ask(container: Container, now: float, ok: bool) -> list[Action]:
    found: list[Action] = []
    for action in container.tick(now):
        assert isinstance(action, Ask)
        found += container.answered(action.kind, action.prober, ok, now, "refused")
    return found


def test_the_other_probes_wait_for_the_startup_probe() -> None:
    probes: Any = {kind: Probe(TcpSocket(1), period=1.0, failure_threshold=2) for kind in ("startup", "readiness", "liveness")}
    app = Container("app", probes=probes)
    app.start(0.0)
    assert [action.kind for action in app.tick(0.0) if isinstance(action, Ask)] == ["startup"]
    app._probers["startup"].answer(True, 0.5)
    assert app.started
    assert not app.ready
    assert {action.kind for action in app.tick(1.0) if isinstance(action, Ask)} == {"readiness", "liveness"}


def notes(actions: list[Action]) -> list[str]:
    return [action.message for action in actions if isinstance(action, Note)]


def test_an_app_that_takes_its_time_to_start_is_no_news() -> None:
    app = Container("app", probes={"readiness": Probe(TcpSocket(1), period=1.0, failure_threshold=1)})
    app.start(0.0)
    assert notes(ask(app, 0.5, ok=False)) == []
    assert app.unready_probe is not None
    assert notes(ask(app, 2.0, ok=True)) == []
    assert app.ready
    assert notes(ask(app, 4.0, ok=False)) == ["app: readiness probe failed: refused"]  # it was ready: that is news at once


def test_an_app_that_is_not_ready_long_after_its_start_is_news() -> None:
    app = Container("app", probes={"readiness": Probe(TcpSocket(1), period=10.0, failure_threshold=3)})
    app.start(0.0)
    told = [notes(ask(app, float(second), ok=False)) for second in range(31)]
    assert [second for second, said in enumerate(told) if said] == [20]


def test_a_startup_probe_that_never_says_yes_ends_the_container() -> None:
    app = Container("app", probes={"startup": Probe(TcpSocket(1), period=1.0, failure_threshold=3)}, grace=4.0)
    app.start(0.0)
    assert kinds(ask(app, 0.0, False)) == kinds(ask(app, 1.0, False)) == []
    assert kinds(ask(app, 2.0, False)) == ["Terminate"]
    assert app.phase is Phase.STOPPING
    assert app.due_at() == 6.0
    assert kinds(app.tick(6.0)) == ["Kill"]
    app.exited(Exit(137, 9), 6.1)
    assert app.phase is Phase.WAITING


def test_an_answer_about_an_earlier_life_is_ignored() -> None:
    app = Container("app", probes={"liveness": Probe(TcpSocket(1), failure_threshold=1)})
    app.start(0.0)
    (question,) = app.tick(0.0)
    assert isinstance(question, Ask)
    app.exited(Exit(1), 0.5)
    app.start(0.5)
    assert app.answered(question.kind, question.prober, False, 1.0, "too late") == []
    assert app.phase is Phase.RUNNING


def test_restart_policies_decide_whether_an_ended_container_starts_again() -> None:
    outcomes = {}
    for policy in ("Always", "OnFailure", "Never"):
        for code in (0, 1):
            app = Container("app", restart=policy)
            app.start(0.0)
            app.exited(Exit(code), 1.0)
            outcomes[policy, code] = app.phase
    assert [key for key, phase in outcomes.items() if phase is Phase.ENDED] == [("OnFailure", 0), ("Never", 0), ("Never", 1)]


def test_an_illegal_move_raises() -> None:
    app = Container("app")
    with pytest.raises(IllegalMove, match="app"):
        app.exited(Exit(0), 1.0)
    app.start(0.0)
    with pytest.raises(IllegalMove):
        app.start(1.0)


# ---------------------------------------------------------------- the pod


def machine(**more: Any) -> tuple[PodMachine, Container, Container]:
    sidecar = Container("proxy", probes={"startup": Probe(TcpSocket(4191), period=1.0)})
    app = Container("app", grace=30.0)
    return PodMachine(app, sidecar, created=0.0, drain=1.0, sidecar_grace=10.0, **more), app, sidecar


def yes(pod: PodMachine, container: Container, now: float) -> list[Action]:
    """Answers everything `container` is asked with yes."""
    found = []
    for action in pod.tick(now):
        if isinstance(action, Ask) and action.container is container:
            found += container.answered(action.kind, action.prober, True, now)
        else:
            found.append(action)
    return found + pod.tick(now)


def test_the_app_waits_for_its_sidecar() -> None:
    pod, app, sidecar = machine()
    actions = pod.tick(0.0)
    assert [action.container for action in actions if isinstance(action, Start)] == [sidecar]
    assert pod.stage is Stage.SIDECAR
    actions = yes(pod, sidecar, 3.0)
    prober = sidecar._probers["startup"]
    if not app.alive:  # the first question was asked at the start and is still out
        prober.answer(True, 3.0)
        actions = pod.tick(3.0)
    assert [action.container for action in actions if isinstance(action, Start)] == [app]
    assert pod.stage is Stage.APP
    assert pod.ready


def running() -> tuple[PodMachine, Container, Container]:
    pod, app, sidecar = machine()
    pod.tick(0.0)
    sidecar._probers["startup"].answer(True, 0.0)
    pod.tick(0.0)
    assert pod.ready
    return pod, app, sidecar


def test_a_deleted_pod_drains_then_ends_its_app_then_its_sidecar() -> None:
    pod, app, sidecar = running()
    assert kinds(pod.delete(10.0)) == []
    assert (pod.stage, pod.ready, pod.serving, pod.due_at()) == (Stage.DRAINING, False, True, 11.0)
    assert kinds(pod.tick(11.0)) == ["AskCallers"]
    assert (pod.stage, pod.due_at()) == (Stage.INFORMING, 21.0)
    actions = pod.callers_know(True, 11.0)
    assert kinds(actions) == ["Terminate"]
    assert isinstance(actions[0], Terminate)
    assert actions[0].container is app
    assert pod.due_at() == 40.0  # the grace counts from the deletion
    app.exited(Exit(0), 12.0)
    actions = pod.tick(12.0)
    assert [action.container for action in actions if isinstance(action, Terminate)] == [sidecar]
    assert pod.due_at() == 22.0
    sidecar.exited(Exit(0), 13.0)
    pod.tick(13.0)
    assert pod.stage is Stage.GONE


def test_an_app_that_does_not_end_is_killed_when_its_grace_is_over() -> None:
    pod, app, _ = running()
    pod.delete(10.0)
    pod.tick(11.0)
    pod.callers_know(True, 11.0)
    actions = pod.tick(40.0)
    assert [action.container for action in actions if isinstance(action, Kill)] == [app]


def test_an_app_that_is_to_end_serves_until_all_callers_know_it_or_have_had_their_time() -> None:
    pod, app, _ = running()
    pod.delete(10.0)
    assert kinds(pod.tick(11.0)) == ["AskCallers"]
    assert (kinds(pod.tick(11.1)), pod.due_at()) == ([], 21.0)  # one question at a time
    assert (kinds(pod.callers_know(False, 12.0)), pod.due_at()) == ([], 12.25)
    assert kinds(pod.tick(12.25)) == ["AskCallers"]
    assert kinds(pod.callers_know(False, 20.9)) == []
    assert app.phase is Phase.RUNNING
    assert kinds(pod.tick(21.0)) == ["Terminate"]  # who does not know it now may never
    assert kinds(pod.callers_know(True, 21.5)) == []  # an answer that comes late says nothing new


def test_callers_are_not_waited_for_by_an_app_that_serves_nobody_or_has_little_time() -> None:
    pod, app, _ = running()
    pod.delete(10.0)
    pod.tick(11.0)
    app.exited(Exit(0), 11.5)
    assert kinds(pod.tick(11.5)) == ["Terminate"]  # the sidecar's
    pod, _, _ = running()
    pod.delete(10.0, grace=4.0)
    pod.tick(11.0)
    assert (pod.due_at(), kinds(pod.tick(12.0))) == (12.0, ["Terminate"])
    pod, _, _ = running()
    pod.delete(10.0)
    pod.tick(11.0)
    assert kinds(pod.delete(11.5, drain=0.0)) == ["Terminate"]


def test_a_second_delete_with_less_patience_shortens_the_wait() -> None:
    pod, app, _ = running()
    pod.delete(10.0)
    pod.tick(11.0)
    actions = pod.delete(12.0, drain=0.0, grace=0.0)
    assert [action.container for action in actions if isinstance(action, Kill)] == [app]


def test_nothing_starts_again_in_a_pod_that_is_to_end() -> None:
    pod, app, sidecar = running()
    pod.delete(10.0)
    app.exited(Exit(1), 10.5)
    assert kinds(pod.tick(10.5)) == ["Terminate"]  # nobody is served any more: no reason to drain; the sidecar ends
    assert app.phase is Phase.ENDED
    sidecar.exited(Exit(0), 10.6)
    pod.tick(10.6)
    assert pod.stage is Stage.GONE


def test_a_crashed_sidecar_makes_the_pod_unready_and_leaves_the_app_alone() -> None:
    pod, app, sidecar = running()
    sidecar.exited(Exit(1), 5.0)
    actions = pod.tick(5.0)
    assert [action.container for action in actions if isinstance(action, Start)] == [sidecar]
    assert not pod.ready
    assert app.alive
    assert app.restarts == 0


def test_a_pod_deleted_before_it_began_is_gone_at_once() -> None:
    pod, _, _ = machine()
    assert pod.delete(0.0) == []
    assert pod.stage is Stage.GONE


def test_status_tells_a_crash_loop_as_the_kubelet_does() -> None:
    pod, app, _ = running()
    for start in (1.0, 2.0):
        app.exited(Exit(137, 9), start)
        pod.tick(start)
    app_status = pod_status(pod, 2.0, pod_ip="127.1.2.10", images={"app": "web:1"})["containerStatuses"][0]
    assert app_status["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert app_status["lastState"]["terminated"]["exitCode"] == 137
    assert app_status["lastState"]["terminated"]["signal"] == 9
    assert (app_status["restartCount"], app_status["ready"], app_status["image"]) == (1, False, "web:1")


def test_conditions_keep_the_time_of_their_last_transition() -> None:
    pod, app, _ = running()

    def ready(now: float) -> tuple[str, str]:
        found = pod_status(pod, now, pod_ip="127.1.2.10", images={})["conditions"][3]
        return found["status"], found["lastTransitionTime"]

    assert ready(1.0) == ready(5.0) == ("True", "1970-01-01T00:00:01Z")
    app.exited(Exit(1), 6.0)
    assert ready(7.0) == ready(8.0) == ("False", "1970-01-01T00:00:07Z")


def test_a_pod_that_is_done_says_succeeded_or_failed() -> None:
    for code, phase in ((0, "Succeeded"), (2, "Failed")):
        app = Container("app", restart="Never")
        pod = PodMachine(app, None, created=0.0)
        pod.tick(0.0)
        app.exited(Exit(code), 1.0)
        pod.tick(1.0)
        status = pod_status(pod, 1.0, pod_ip="127.1.2.10", images={})
        assert status["phase"] == phase
        assert status["containerStatuses"][0]["state"]["terminated"]["exitCode"] == code


def test_what_keeps_a_container_from_starting_is_said_once_however_often_it_is_tried() -> None:
    container = Container("app")
    container.start(0.0)
    said = container.blocked("PortBusy", "port 80 is taken", 2.0)
    for now in (2.0, 4.0):
        container.start(now)
        assert container.blocked("PortBusy", "port 80 is taken", now + 2.0) == []
    container.start(6.0)
    assert [type(note) for note in [*said, *container.blocked("PortBusy", "by somebody else", 8.0)]] == [Note, Note]

"""The verdict: a good run is good, and each way in which a mesh could fail to do what is claimed is found."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from demo_runs import KILLED_AT, MARKER, good_run

from meshproxy.demo import verdict
from meshproxy.demo.chance import binomial_at_most, plausible
from meshproxy.demo.ledger import Handled, Hop, Request
from meshproxy.demo.observed import Intrusion, Moment, Recording, steps
from meshproxy.demo.verdict import Finding


def refuted(observed):
    """The claims that do not hold, by what they say."""
    return {finding.claim: finding.detail for finding in verdict.judge(observed) if not finding.ok}


def one(observed, words):
    """The only refuted claim; it speaks of `words`.  Returns its detail."""
    found = refuted(observed)
    assert len(found) == 1, found
    ((claim, detail),) = found.items()
    assert words in claim
    return detail


@pytest.mark.parametrize("seed", range(5))
def test_a_run_as_promised_satisfies_every_claim(seed):
    assert refuted(good_run(seed)) == {}


def test_an_empty_run_satisfies_no_claim():
    nothing = replace(
        good_run(), requests=[], handled=[], timeline=[], slow_pod="", kill=None, recording=Recording(), intrusions=[]
    )
    assert len(refuted(nothing)) == len(verdict.CLAIMS)


# ---------------------------------------------------------------- a release that was taken back


HALT = "Halt catalogue.shop advancement request duration 2.509s > 1s"


def taken_back_at(phase_before):
    """v2 failed after this phase, and catalogue v1 went on; v3 was taken back to v1."""
    observed = good_run()
    end = next(moment.at for moment in observed.timeline if (moment.phase, moment.weight) == phase_before)
    observed.timeline = [
        *(moment for moment in observed.timeline if moment.at < end),
        Moment(end, "Failed", 0, "v2", HALT),
        *(moment for moment in observed.timeline if moment.version == "v3"),
    ]
    observed.handled[:] = [
        replace(line, version="v1") if line.service == "catalogue" and line.version == "v2" and line.at > end else line
        for line in observed.handled
    ]
    return observed


def test_a_v2_that_was_taken_back_says_by_which_check_and_what_follows_from_it_is_not_judged():
    findings = {finding.claim: finding for finding in verdict.judge(taken_back_at(("Promoting", 60)))}
    promoted = findings["catalogue v2 was promoted and got all traffic"]
    assert (
        promoted.detail == f"never succeeded; phases seen: Initialized -> Progressing -> Failed; its last failed check: {HALT}"
    )
    assert (promoted.ok, promoted.judged) == (False, True)
    back = findings["catalogue v3 was rolled back in time, to v2"]
    assert (back.ok, back.judged) == (False, False)
    assert back.detail == "v2 was not promoted, so there is no v2 to go back to"


def test_steps_that_a_release_never_came_to_are_not_judged_and_those_before_are():
    claim = "catalogue v2: its share of requests followed its weight"
    early = taken_back_at(("Progressing", 60))
    found = next(finding for finding in verdict.judge(early) if finding.claim == claim)
    assert (found.ok, found.judged, found.detail) == (False, False, "v2 was taken back before its step of 60 %")
    early.handled[:] = [
        replace(line, version="v2") if line.service == "catalogue" and 26.0 < line.at < 30.0 else line for line in early.handled
    ]
    found = next(finding for finding in verdict.judge(early) if finding.claim == claim)
    assert (found.ok, found.judged) == (False, True)
    assert "not by chance" in found.detail


def test_the_last_line_counts_what_does_not_hold_and_what_was_not_judged():
    good, broken, unjudged = Finding("a", True, ""), Finding("b", False, ""), Finding("c", False, "", judged=False)
    assert verdict.count([good, good]) == "All 2 claims hold."
    assert verdict.count([good, broken]) == "1 of 2 claims does not hold."
    assert verdict.count([good, broken, broken, unjudged]) == "2 of 4 claims do not hold, 1 could not be judged for that."


def test_a_busy_machine_is_named_as_what_may_be_the_reason():
    assert verdict.busy(3.0, 2) == ""
    assert "load 20, processors 2" in verdict.busy(20.4, 2)


# ---------------------------------------------------------------- failures


def test_a_failure_that_v3_did_not_cause_is_found():
    observed = good_run()
    lost = observed.requests[1500]
    observed.requests[1500] = replace(lost, status=503, error="no healthy endpoint", path=())
    assert "503 no healthy endpoint" in one(observed, "no others")


def test_a_failure_of_v3_that_was_hidden_from_the_client_is_found():
    observed = good_run()
    index = next(i for i, request in enumerate(observed.requests) if not request.ok)
    observed.requests[index] = replace(observed.requests[index], status=200, path=())
    assert "never reached a client" in refuted(observed)["clients saw the failures of catalogue v3 and no others"]


def test_a_request_that_got_no_answer_at_all_is_a_failure():
    observed = good_run()
    observed.requests.append(Request("r-lost", 60.0, 68.0, 0, "TimeoutError"))
    assert "r-lost: 0 TimeoutError" in one(observed, "no others")


def test_a_v3_that_is_healthy_is_found():
    observed = good_run()
    faults = {line.id for line in observed.handled if line.service == "catalogue" and not line.ok}
    observed.requests[:] = [r for r in observed.requests if r.id not in faults]
    observed.handled[:] = [line for line in observed.handled if line.id not in faults]
    observed.timeline[-1] = Moment(64.0, "Succeeded", 0, "v3")
    assert set(refuted(observed)) == {
        "clients saw the failures of catalogue v3 and no others",
        "catalogue v3 was rolled back in time, to v2",
    }


def test_a_price_server_that_fails_is_found_though_it_is_behind_v3():
    observed = good_run()
    index = next(i for i, line in enumerate(observed.handled) if line.service == "prices")
    observed.handled[index] = replace(observed.handled[index], status=500)
    assert "apps other than catalogue v3" in one(observed, "no others")


# ---------------------------------------------------------------- the ledgers agree


def test_a_reply_from_a_pod_that_wrote_nothing_down_is_found():
    observed = good_run()
    request = observed.requests[100]
    observed.requests[100] = replace(request, path=(*request.path[:2], replace(request.path[2], pod="prices-z")))
    assert "r100 at prices-z" in one(observed, "path is what the services wrote down")


def test_a_request_that_nobody_sent_is_found():
    observed = good_run()
    observed.handled.append(replace(observed.handled[0], id="ghost"))
    assert "ghost" in one(observed, "path is what the services wrote down")


def test_a_request_the_catalogue_was_asked_twice_is_found():
    observed = good_run()
    observed.handled.append(next(line for line in observed.handled if line.service == "catalogue"))
    assert "x2" in one(observed, "path is what the services wrote down")


def test_a_prices_call_that_a_dying_replica_had_begun_may_be_repeated():
    observed = good_run()
    line = next(line for line in observed.handled if line.service == "prices" and line.pod == "prices-b")
    observed.handled.append(replace(line, pod="prices-a"))
    assert refuted(observed) == {}


# ---------------------------------------------------------------- identity, encryption, intruders


@pytest.mark.parametrize("peer", ["", "spiffe://cluster.local/ns/shop/sa/prices", "spiffe://other/ns/shop/sa/web"])
def test_a_caller_with_another_identity_is_found_in_replies_and_in_the_ledger(peer):
    observed = good_run()
    request = observed.requests[7]
    bent = Hop("catalogue", request.path[1].version, request.path[1].pod, peer)
    observed.requests[7] = replace(request, path=(request.path[0], bent, request.path[2]))
    assert "expected spiffe://cluster.local/ns/shop/sa/web" in one(observed, "verified identity")

    observed = good_run()
    index = next(i for i, line in enumerate(observed.handled) if line.service == "catalogue")
    observed.handled[index] = replace(observed.handled[index], peer=peer)
    assert "expected spiffe://cluster.local/ns/shop/sa/web" in one(observed, "verified identity")


def test_a_marker_on_the_wire_is_found():
    observed = good_run()
    observed.recording = replace(observed.recording, leaks=3)
    assert "stands 3 times" in one(observed, "recorded hop")


def test_a_relay_that_nothing_passed_proves_nothing():
    observed = good_run()
    observed.recording = replace(observed.recording, received=500)
    assert "too little passed" in one(observed, "recorded hop")


def test_a_marker_that_never_arrived_proves_nothing():
    observed = good_run()
    observed.handled[:] = [replace(line, note="") if line.service == "prices" else line for line in observed.handled]
    assert "never arrived" in one(observed, "recorded hop")


def test_an_intruder_who_was_let_in_is_found():
    observed = good_run()
    observed.intrusions = [observed.intrusions[0], Intrusion("a forged certificate", False, "answered 200")]
    assert one(observed, "refused") == "a forged certificate: answered 200"


def test_an_intrusion_that_was_not_tried_is_not_taken_as_refused():
    observed = good_run()
    observed.intrusions = observed.intrusions[:1]
    assert "1 of 2" in one(observed, "refused")


# ---------------------------------------------------------------- replicas


def test_a_slow_replica_with_its_fair_share_is_found():
    observed = good_run()
    rng = random.Random(2)
    observed.handled[:] = [
        replace(line, pod=rng.choice(observed.prices_pods)) if line.service == "prices" and line.at < KILLED_AT else line
        for line in observed.handled
    ]
    assert "no clear difference from 1 in 3" in refuted(observed)["the slow prices replica got less than its share"]


def test_a_quick_replica_without_any_calls_is_found():
    observed = good_run()
    observed.prices_pods = (*observed.prices_pods, "prices-idle")
    assert "prices-idle got nothing" in one(observed, "slow prices replica")


def test_a_get_under_way_in_the_killed_replica_may_be_repeated_once_and_no_other_ever():
    observed = good_run()
    under_way = next(r for r in observed.requests if r.sent < KILLED_AT < r.done)
    line = next(line for line in observed.handled if line.id == under_way.id and line.service == "catalogue")
    observed.handled.append(line)
    assert refuted(observed) == {}
    observed.handled.append(line)
    assert "x3" in one(observed, "path is what the services wrote down")


def test_a_killed_replica_whose_process_is_still_there_was_not_killed():
    observed = good_run()
    observed.kill = replace(observed.kill, ended=False)
    assert "did not end" in one(observed, "no client noticed")


def test_a_replica_that_had_nothing_to_do_proves_nothing_by_its_end():
    observed = good_run()
    observed.kill = replace(observed.kill, pod="prices-idle")
    assert "had served nothing" in one(observed, "no client noticed")


def test_a_request_that_was_under_way_when_the_replica_died_counts():
    observed = good_run()
    index = next(i for i, r in enumerate(observed.requests) if r.sent < KILLED_AT < r.done)
    observed.requests[index] = replace(observed.requests[index], status=502, error="reset")
    assert "1 of " in refuted(observed)["a web replica was killed and no client noticed"]


# ---------------------------------------------------------------- the releases


def test_a_split_that_is_ignored_is_found():
    observed = good_run()
    flip = random.Random(3)
    catalogue = {step.version: step for step in steps(observed.timeline)}
    assert set(catalogue) == {"v2", "v3"}
    bent = []
    for line in observed.handled:
        phase, version = None, line.version
        for moment in observed.timeline:
            if moment.at <= line.at:
                phase = moment
        if line.service == "catalogue" and phase.version == "v2" and phase.phase == "Progressing" and phase.weight:
            version = flip.choice(["v1", "v2"])  # half and half, whatever the weights say
        bent.append(replace(line, version=version))
    observed.handled[:] = bent
    assert "at 10 % it got" in refuted(observed)["catalogue v2: its share of requests followed its weight"]


def test_a_split_that_gives_the_canary_nothing_is_found():
    observed = good_run()
    observed.handled[:] = [
        replace(line, version="v1") if line.service == "catalogue" and line.at < 38.0 else line for line in observed.handled
    ]
    assert "it got 0 of" in refuted(observed)["catalogue v2: its share of requests followed its weight"]


def test_a_step_with_too_few_requests_is_not_taken_as_seen():
    observed = good_run()
    observed.requests[:] = [r for r in observed.requests if not 30.0 <= r.sent < 34.0 or r.id.endswith("0")]
    kept = {r.id for r in observed.requests}
    observed.handled[:] = [line for line in observed.handled if line.id in kept]
    assert one(observed, "catalogue v2: its share").startswith("at 30 % only")


def test_a_step_that_was_skipped_is_found():
    observed = good_run()
    observed.timeline = [replace(moment, weight=60) if moment.weight == 30 else moment for moment in observed.timeline]
    assert "step of 30 % was not seen" in refuted(observed)["catalogue v2: its share of requests followed its weight"]


def test_requests_that_still_go_to_v1_after_the_promotion_are_found():
    observed = good_run()
    at = next(r for r in observed.requests if r.sent > 48.0).id
    observed.handled[:] = [
        replace(line, version="v1") if line.service == "catalogue" and line.id == at else line for line in observed.handled
    ]
    assert "'v1': 1" in refuted(observed)["catalogue v2 was promoted and got all traffic"]


def test_a_rollback_that_comes_too_late_is_found():
    observed = good_run()
    first = min(line.at for line in observed.handled if not line.ok and line.service == "catalogue")
    observed.timeline[-1] = replace(observed.timeline[-1], at=first + 12.5)
    assert "12.5 s after its first failure; 3 intervals are 12 s" in refuted(observed).popitem()[1]


def test_traffic_that_stays_on_v3_after_the_rollback_is_found():
    observed = good_run()
    late = next(r for r in observed.requests if r.sent > 66.0)
    observed.handled[:] = [
        replace(line, version="v3") if line.service == "catalogue" and line.id == late.id else line for line in observed.handled
    ]
    assert "'v3': 1" in refuted(observed)["catalogue v3 was rolled back in time, to v2"]


# ---------------------------------------------------------------- numbers


def test_the_binomial_sum_is_exact():
    assert binomial_at_most(0, 10, 0.5) == pytest.approx(0.5**10)
    assert binomial_at_most(5, 10, 0.5) == pytest.approx(0.623046875)
    assert binomial_at_most(10, 10, 0.3) == 1.0
    assert binomial_at_most(3, 1000, 0.1) == pytest.approx(
        sum(c * 0.1**i * 0.9 ** (1000 - i) for i, c in enumerate([1, 1000, 499500, 166167000]))
    )


def test_chance_fails_a_sound_mesh_hardly_ever_and_a_wrong_share_nearly_always():
    rng = random.Random(4)
    draws = [sum(rng.random() < 0.3 for _ in range(120)) for _ in range(2000)]
    assert all(plausible(k, 120, 0.3) for k in draws)
    wrong = [sum(rng.random() < 0.6 for _ in range(120)) for _ in range(2000)]
    assert sum(plausible(k, 120, 0.3) for k in wrong) < 200


def test_weights_and_phase_written_one_after_the_other_are_one_step():
    timeline = [
        Moment(0, "Progressing", 0, "v2"),
        Moment(1, "Progressing", 10, "v2"),
        Moment(1.1, "Progressing", 10, "v2"),
        Moment(5, "Progressing", 30, "v2"),
        Moment(9, "Promoting", 30, "v2"),
    ]
    assert [(step.weight, step.start, step.end) for step in steps(timeline)] == [(10, 1, 5), (30, 5, 9)]


def test_a_ledger_line_in_the_middle_of_being_written_is_read_later(tmp_path):
    from meshproxy.demo.ledger import LedgerError, ServiceLedger

    path = tmp_path / "ledger"
    ledger = ServiceLedger(path)
    assert ledger.read() == []
    line = '{"at": 1.5, "id": "a", "service": "web", "version": "v1", "pod": "p", "status": 200, "peer": "x", "note": ""}\n'
    path.write_text(line + line[:30])
    assert [entry.id for entry in ledger.read()] == ["a"]
    with path.open("a") as file:
        file.write(line[30:])
    assert ledger.read() == [Handled(1.5, "a", "web", "v1", "p", 200, "x", "")] * 2
    with path.open("a") as file:
        file.write('{"id": 1}\n')
    with pytest.raises(LedgerError, match="ledger:3: not a line"):
        ledger.read()


def test_the_marker_of_the_good_run_is_what_came_back():
    assert {r.note for r in good_run().requests if r.ok} == {MARKER}

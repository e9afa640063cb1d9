"""Which test shows which behaviour of releases: what was to be shown end to end, and the rows of the list of failures.

behaviour --SHOWN_BY--> file :: test         every test that is named exists; each end-to-end behaviour has a real mesh

A test that is renamed or removed makes this fail: find what shows the behaviour now.
"""

from __future__ import annotations

import pytest
from named_tests import are_there

RELEASES = "mesh_e2e/test_e2e_releases.py::"
KILLS = "mesh_e2e/test_e2e_release_kills.py::"
HOOKS = "mesh_e2e/test_e2e_release_hooks.py::"
PROMETHEUS = "mesh_e2e/test_e2e_prometheus.py::"
EVIDENCE = "mesh_e2e/test_e2e_evidence.py::"
STEPS = "mesh_e2e/test_e2e_release_steps.py::"

END_TO_END: dict[str, tuple[str, ...]] = {
    "promoted step by step": (
        f"{RELEASES}test_users_move_to_a_new_revision_by_its_weights_and_a_pause_holds_them",
        f"{HOOKS}test_a_release_waits_for_its_gate_is_tested_and_loaded_and_promoted",
    ),
    "rolled back by errors": (
        f"{RELEASES}test_a_revision_that_fails_is_rolled_back",
        f"{PROMETHEUS}test_errors_and_slowness_are_seen_by_the_built_in_queries",
    ),
    "rolled back by latency": (
        f"{RELEASES}test_a_revision_that_is_slow_is_rolled_back",
        f"{PROMETHEUS}test_errors_and_slowness_are_seen_by_the_built_in_queries",
    ),
    "rolled back by custom PromQL on a real Prometheus": (
        f"{PROMETHEUS}test_a_good_revision_is_promoted_and_one_that_a_template_measures_badly_is_not",
    ),
    "A/B by header, by splits and by routes": (
        f"{RELEASES}test_in_an_ab_test_by_splits_only_who_matches_meets_the_canary",
        f"{RELEASES}test_promoted_by_hand_it_is_everyones",
        f"{RELEASES}test_in_an_ab_test_by_routes_only_who_matches_meets_the_canary",
    ),
    "blue/green": (f"{RELEASES}test_blue_green_shows_the_new_version_to_nobody_until_it_is_approved",),
    "mirroring": (f"{RELEASES}test_a_mirrored_canary_gets_a_copy_of_each_request_and_answers_nobody",),
    "session affinity": (f"{RELEASES}test_who_has_met_the_canary_once_stays_with_it_until_its_release_ends",),
    "a gate approved: by a webhook, by an annotation": (
        f"{HOOKS}test_a_release_waits_for_its_gate_is_tested_and_loaded_and_promoted",
        f"{RELEASES}test_a_release_that_is_approved_begins",
    ),
    "a gate denied: by a webhook, by an annotation": (
        f"{RELEASES}test_blue_green_shows_the_new_version_to_nobody_until_it_is_approved",
        f"{RELEASES}test_a_release_that_is_not_approved_reaches_nobody",
    ),
    "a changed ConfigMap": (f"{RELEASES}test_a_changed_config_map_is_released_like_a_changed_template",),
    "pause and resume": (f"{RELEASES}test_users_move_to_a_new_revision_by_its_weights_and_a_pause_holds_them",),
    "abort": (f"{RELEASES}test_aborted_by_hand_everyone_is_back",),
    "retry, and the history with reasons": (
        f"{STEPS}test_a_release_that_was_aborted_is_retried_and_the_history_has_both_reasons",
    ),
    "several Canaries as one release: all or none": (
        f"{STEPS}test_canaries_released_together_take_each_step_together_and_are_both_promoted",
        f"{STEPS}test_when_one_of_them_fails_all_are_rolled_back",
    ),
    "suspend": (f"{RELEASES}test_a_suspended_canary_releases_nothing_until_it_is_resumed",),
    "CA-05 the controller killed in every phase": (
        f"{KILLS}test_a_controller_that_is_killed_in_any_phase_is_gone_on_from",
        f"{KILLS}test_weights_were_at_every_moment_a_hundred_and_went_by_their_steps",
        f"{KILLS}test_phases_went_forward_only",
    ),
    "CA-09 its target deleted in the middle": (
        f"{RELEASES}test_a_target_that_is_deleted_in_the_middle_leaves_everyone_with_the_primary",
    ),
    "CA-09 the Canary deleted in the middle": (
        f"{RELEASES}test_a_canary_with_revert_on_deletion_gives_everything_back_in_the_middle_of_a_release",
    ),
    "evidence beside a baseline of the canary's size": (
        "mesh_e2e/test_e2e_baseline.py::"
        "test_canary_and_baseline_get_equal_shares_and_a_worse_canary_takes_the_baseline_with_it",
    ),
    "evidence pulls a bad canary, and promotes a good one": (
        f"{RELEASES}test_evidence_pulls_a_canary_that_fails_one_request_in_five",
        f"{EVIDENCE}test_a_bad_revision_is_pulled_by_evidence_and_the_history_says_on_which_numbers",
        f"{EVIDENCE}test_a_good_revision_is_promoted_once_all_metrics_are_within_their_margins",
    ),
    "steps of a policy, the first below a percent": (
        f"{RELEASES}test_steps_of_a_policy_begin_below_a_percent_and_wait_for_approval",
        f"{STEPS}test_a_step_below_a_percent_lasts_until_the_canary_has_answered_its_requests",
    ),
    "a step that waits to be approved": (f"{STEPS}test_a_paused_step_holds_its_weight_until_it_is_approved",),
    "promotion by steps": (f"{STEPS}test_the_primary_takes_the_traffic_back_by_promotion_steps_and_no_user_sees_a_failure",),
}

OTHERWISE: dict[str, tuple[str, ...]] = {
    "CA-01 Prometheus down for the whole analysis": (
        "canary/test_canary_lost_source.py::test_a_prometheus_that_is_gone_for_the_whole_analysis_rolls_back",
    ),
    "CA-02 empty, NaN, Inf, stale, HTML": (
        "canary/test_canary_lost_source.py::test_nonsense_from_prometheus_rolls_back_at_the_threshold",
        "canary/test_canary_prometheus.py::test_no_values_never_pass",
    ),
    "CA-03 no traffic to the canary": ("canary/test_canary_timeline.py::test_no_data_is_a_failed_check_and_rolls_back",),
    "CA-04 5 % of errors at 10 % of the traffic": (
        "canary/test_canary_simulate.py::"
        "test_five_percent_of_errors_at_ten_percent_of_the_traffic_are_pulled_within_two_intervals",
    ),
    "CA-05 a crash at every action and every write": (
        "canary/test_canary_crash.py::test_a_good_release_is_promoted_wherever_it_crashed",
        "canary/test_canary_crash.py::test_a_bad_release_is_rolled_back_wherever_it_crashed",
        "canary/test_canary_crash.py::test_on_files_a_good_release_is_promoted_whatever_write_it_crashed_at",
        "canary/test_canary_crash.py::test_on_files_a_bad_release_is_rolled_back_whatever_write_it_crashed_at",
    ),
    "CA-09 a newer revision in the middle": (
        "canary/test_canary_timeline.py::test_a_newer_revision_restarts_the_analysis_from_nothing",
        "canary/test_canary_strategies.py::test_a_newer_revision_begins_again_from_nothing",
    ),
}

ALL = {**END_TO_END, **OTHERWISE}


@pytest.mark.parametrize("behaviour", ALL)
def test_the_tests_that_show_a_behaviour_of_releases_are_there(behaviour: str) -> None:
    are_there(ALL[behaviour], behaviour)


@pytest.mark.parametrize("behaviour", END_TO_END)
def test_each_of_these_behaviours_is_shown_by_real_processes(behaviour: str) -> None:
    assert all(name.startswith("mesh_e2e/") for name in END_TO_END[behaviour])

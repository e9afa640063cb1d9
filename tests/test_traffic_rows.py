"""Which end-to-end test shows which behaviour of traffic policy, access and identity.

behaviour --SHOWN_BY--> file :: test      every test that is named exists; each behaviour has one in a real mesh, with two
                                          real sidecars, but for those that say why not

A test that is renamed or removed makes this fail: find what shows the behaviour now.
"""

from __future__ import annotations

import pytest
from named_tests import are_there

ACCESS = "mesh_e2e/test_e2e_access.py::"
BALANCING = "mesh_e2e/test_e2e_balancing.py::"
BREAKER = "mesh_e2e/test_e2e_breaker.py::"
CALLS = "mesh_e2e/test_e2e_calls.py::"
FAILURES = "mesh_e2e/test_e2e_failures.py::"
IDENTITY = "identity/test_identity_mesh.py::"
LIMITS = "mesh_e2e/test_e2e_limits.py::"
MIRRORS = "mesh_e2e/test_e2e_mirrors.py::"
MODES = "mesh_e2e/test_e2e_modes.py::"
REFUSALS = "mesh_e2e/test_e2e_refusals.py::"
RENEWAL = "mesh_e2e/test_e2e_renewal.py::"
RETRIES = "mesh_e2e/test_e2e_retries.py::"
ROUTES = "mesh_e2e/test_e2e_routes.py::"
SPLITS = "mesh_e2e/test_e2e_splits.py::"
TIMES = "mesh_e2e/test_e2e_times.py::"

# Where a real mesh runs: `meshproxy up`, or its processes, and requests through the caller's sidecar and the callee's.
REAL = ("mesh_e2e/", "identity/test_identity_mesh.py", "grpc_interop/")

SHOWN_BY: dict[str, tuple[str, ...]] = {
    # ---- splitting
    "a split is per request, exact over whole blocks for 50/50, 99/1, 99.9/0.1 and 0/100": (
        f"{ROUTES}test_shares_are_exact_over_a_whole_block",
        f"{FAILURES}test_every_block_of_requests_has_exactly_the_split",
    ),
    "no aliasing with a client that sends in a pattern": (
        f"{SPLITS}test_a_client_that_sends_in_a_pattern_does_not_lock_on_to_a_backend",
        f"{SPLITS}test_a_client_whose_period_is_the_block_finds_the_canary_in_every_place",
    ),
    "weights change under load without an error": (
        f"{ROUTES}test_weights_and_rules_change_under_load_without_an_error",
        f"{FAILURES}test_weights_change_under_load_without_a_dropped_request_and_shares_are_exact",
    ),
    "precedence of matches": (
        f"{SPLITS}test_what_says_most_decides_between_splits_and_what_fits_none_goes_on",
        f"{SPLITS}test_routes_come_before_splits",
        f"{ROUTES}test_a_split_with_matches_is_for_the_requests_that_they_fit",
        f"{ROUTES}test_a_header_decides_which_backend_gets_the_request",
    ),
    "a backend without endpoints: fail, with metric and event": (
        f"{SPLITS}test_the_share_of_a_backend_without_endpoints_fails_at_once_and_is_counted_against_it",
    ),
    "a backend without endpoints: redistribute, with metric and event": (
        f"{SPLITS}test_declared_so_its_share_goes_to_the_others_that_have_a_weight",
    ),
    "a user stays with a backend": (
        f"{SPLITS}test_a_user_stays_with_one_backend_and_who_has_the_canary_keeps_it_when_its_share_grows",
    ),
    "bytes are split by connection": (f"{SPLITS}test_what_is_carried_as_bytes_is_split_by_connection",),
    # ---- balancing
    "peak EWMA of two choices": (f"{BALANCING}test_a_slow_replica_is_avoided",),
    "a failure does not look fast": (f"{BALANCING}test_a_replica_that_fails_at_once_does_not_look_fast",),
    "slow start": (f"{BALANCING}test_a_new_endpoint_gets_less_than_its_share_until_its_window_has_passed",),
    "least request": (f"{BALANCING}test_least_request_looks_at_what_is_under_way_and_not_at_time",),
    "consistent hash": (
        f"{BALANCING}test_a_key_keeps_its_endpoint_and_only_those_of_an_endpoint_that_goes_are_moved",
        f"{BREAKER}test_a_cookie_keeps_its_pod",
    ),
    "endpoint weights": (f"{BALANCING}test_shares_are_in_proportion_to_weights",),
    "zone preference with spill-over": (f"{BALANCING}test_the_own_zone_is_preferred_and_spills_over_what_it_cannot_do",),
    "simulated: one slow of ten, a herd, flapping": (
        "policy/test_simulation.py::test_one_slow_replica_of_ten_costs_round_robin_most_and_peak_ewma_least",
        "policy/test_simulation.py::test_nobody_stampedes_to_a_new_endpoint_and_it_gets_its_share",
        "policy/test_simulation.py::test_a_breaker_halves_what_a_dead_replica_costs_and_a_flapping_one_is_not_believed_each_time",
    ),
    # ---- retries
    "a budget, kept across configurations, bounds the amplification": (
        f"{RETRIES}test_an_outage_is_amplified_by_no_more_than_the_budget_which_survives_a_new_configuration",
        "policy/test_simulation.py::test_an_outage_is_amplified_by_a_fifth_and_the_floor_however_many_attempts_are_allowed",
    ),
    "by default: failed connects": (f"{RETRIES}test_what_could_not_connect_is_tried_elsewhere_whatever_the_method",),
    "by default: refused streams": (f"{RETRIES}test_what_no_app_took_is_tried_elsewhere_whatever_the_method",),
    "by declaration: 5xx, gateway-error": (f"{RETRIES}test_an_answer_is_tried_again_only_where_that_is_declared",),
    "by declaration: gRPC codes": (f"{RETRIES}test_a_grpc_call_is_tried_again_for_the_codes_that_are_declared",),
    "idempotent or declared requests only": (
        f"{RETRIES}test_what_may_have_been_done_is_not_done_twice",
        f"{FAILURES}test_killing_a_replica_under_load_never_repeats_a_post",
        f"{FAILURES}test_killing_a_replica_under_load_fails_no_get",
    ),
    "within the same backend": (f"{RETRIES}test_a_retry_stays_with_its_backend_so_that_a_bad_canary_is_seen",),
    "back-off": (f"{RETRIES}test_between_two_tries_there_is_a_wait_that_grows",),
    "Retry-After is respected": (f"{RETRIES}test_who_is_told_to_come_back_later_is_not_hurried",),
    "GOAWAY is respected": (
        "grpc_interop/test_negative_http2.py::test_after_goaway_calls_go_on_on_another_connection",
        f"{FAILURES}test_a_rolling_replacement_under_load_fails_no_post",
    ),
    # ---- timeouts and deadlines
    "request timeout: 504, named, cancelled at the app": (
        f"{RETRIES}test_a_request_whose_time_is_up_is_504_by_name_and_cancelled_at_the_app",
    ),
    "timeout of a try": (f"{RETRIES}test_a_try_that_takes_too_long_is_cancelled_and_tried_again_or_named",),
    "timeout of an answer's beginning, of its end": (
        f"{TIMES}test_each_time_is_504_by_its_name_counted_by_it_and_cancelled_at_the_app",
        f"{TIMES}test_an_answer_that_does_not_begin_is_tried_again_where_that_is_declared",
        "proxy/test_timed.py::test_it_counts_from_the_end_of_the_request_however_long_that_takes",
    ),
    "times declared on a route, by Linkerd's annotation": (
        f"{TIMES}test_what_a_route_declares_of_times_takes_the_place_of_its_services",
    ),
    "idle timeout": (
        f"{TIMES}test_each_time_is_504_by_its_name_counted_by_it_and_cancelled_at_the_app",
        "proxy/test_timed.py::test_it_is_watched_before_there_is_a_stream_and_within_the_answer",
        "proxy/test_slow_clients.py::test_a_body_that_stops_coming_ends_its_connection_and_frees_the_upstream",
    ),
    "gRPC: DEADLINE_EXCEEDED by name, a try tried again": (
        f"{RETRIES}test_a_grpc_call_has_the_times_of_its_service_and_rule",
        f"{TIMES}test_a_grpc_call_is_told_the_same_by_status_and_message",
    ),
    "a deadline over plain HTTP: kept by every hop, goes on less what was used, and the app sees it": (
        f"{TIMES}test_a_request_has_the_time_its_client_gives_it_and_its_app_sees_what_is_left",
        f"{TIMES}test_a_try_that_was_too_long_comes_off_what_is_left",
        f"{TIMES}test_a_pods_own_sidecar_keeps_the_deadline_whoever_asks",
    ),
    "a Service's timeout goes on where that is declared": (f"{TIMES}test_a_service_that_says_so_sends_its_timeout_on",),
    "gRPC: a deadline goes on to the next hop, less what was used": (
        f"{RETRIES}test_a_calls_own_deadline_goes_on_less_the_time_it_has_used",
        f"{CALLS}test_a_deadline_reaches_the_server_and_ends_the_call_there",
    ),
    # ---- circuit breaking, ejection, limits
    "ejection after failures in a row; probing with back-off": (
        f"{BREAKER}test_an_endpoint_that_fails_is_ejected_probed_once_a_penalty_and_taken_back",
    ),
    "ejection by success rate": (
        f"{LIMITS}test_an_endpoint_whose_success_rate_is_low_is_left_out_though_it_never_fails_often_in_a_row",
    ),
    "a cap on the ejected share": (f"{LIMITS}test_where_all_fail_no_more_than_half_are_left_out",),
    "failing fast": (f"{LIMITS}test_with_all_left_out_requests_fail_at_once_and_reach_no_app",),
    "a fixed limit: 503 and Retry-After": (
        f"{BREAKER}test_a_pod_turns_away_what_is_too_much_at_once_and_says_when_to_come_back",
    ),
    "an adaptive limit": (f"{LIMITS}test_an_adaptive_limit_grows_while_answers_are_quick_and_shrinks_when_they_are_not",),
    "over the limit, gRPC: UNAVAILABLE with push-back": (
        f"{LIMITS}test_a_grpc_call_that_is_too_much_is_unavailable_and_told_when_to_come_back",
    ),
    "the lowest priority is shed first": (f"{LIMITS}test_the_lowest_priority_is_shed_first_and_the_highest_finds_room",),
    # ---- mirroring, faults
    "copies with bodies, answers dropped, counted apart": (
        f"{MIRRORS}test_a_copy_has_the_body_and_its_answer_goes_nowhere",
        f"{MIRRORS}test_of_a_share_every_block_has_exactly_its_copies",
    ),
    "a copy never slows or fails the original": (f"{MIRRORS}test_a_copy_that_is_never_answered_holds_up_no_request",),
    "faults by share and match, off unless declared": (
        f"{MIRRORS}test_an_abort_happens_to_its_share_of_the_requests_it_is_meant_for",
        f"{MIRRORS}test_a_delay_happens_to_its_share_and_is_counted",
        f"{BREAKER}test_a_fault_happens_to_the_requests_that_are_meant_and_to_no_other",
    ),
    # ---- access
    "deny by default once a destination is selected": (
        f"{ACCESS}test_another_workload_of_the_mesh_may_nothing_and_that_is_counted_and_logged",
        f"{ACCESS}test_a_source_may_what_a_rule_allows_and_nothing_else",
    ),
    "AND and OR of rules, ports of TCPRoutes": (
        f"{MODES}test_what_a_target_selects_takes_what_fits_all_of_one_match_and_each_target_counts_what_it_let_in",
        f"{ACCESS}test_a_connection_is_carried_for_a_source_on_its_ports_and_closed_for_others",
    ),
    "mode all-authenticated": (f"{MODES}test_where_nothing_is_declared_every_identity_of_the_mesh_is_let_in_and_nobody_else",),
    "mode all-unauthenticated": (f"{MODES}test_a_pod_may_take_plaintext_from_anybody",),
    "mode deny": (f"{MODES}test_a_pod_may_take_nothing_but_health_probes",),
    "health probes": (
        f"{ACCESS}test_health_probes_are_let_in_and_other_plaintext_is_not",
        f"{REFUSALS}test_a_plaintext_health_probe_is_let_in_on_exactly_its_path",
    ),
    "denied: 403, PERMISSION_DENIED, closed; metric, log, mesh-error": (
        f"{ACCESS}test_another_workload_of_the_mesh_may_nothing_and_that_is_counted_and_logged",
        f"{ACCESS}test_a_grpc_method_is_a_path_and_a_denied_call_ends_with_permission_denied",
        f"{ACCESS}test_a_connection_is_carried_for_a_source_on_its_ports_and_closed_for_others",
    ),
    "audit only reports": (f"{ACCESS}test_audit_lets_everyone_in_and_reports_who_would_be_denied",),
    "pathRegex is anchored at the start, on demand at the end": (
        f"{MODES}test_a_path_regex_is_anchored_at_the_start_and_on_demand_at_the_end",
    ),
    "matching in linear time": ("access/test_regex.py::test_no_pattern_makes_a_text_take_long",),
    "paths are matched in one spelling, and refused without": (
        f"{ACCESS}test_no_spelling_of_a_path_gets_past_the_rules",
        f"{ACCESS}test_an_allowed_path_reaches_the_app_in_the_spelling_it_was_judged_by",
    ),
    # ---- identity
    "several anchors; root and issuer replaced under load without an error": (
        f"{IDENTITY}test_root_and_issuer_are_replaced_under_load_without_an_error",
    ),
    "revocation by short life": (
        f"{RENEWAL}test_short_lived_certificates_are_renewed_under_load_without_an_error",
        f"{IDENTITY}test_a_control_plane_away_for_longer_than_a_certificate_lives",
    ),
    "nobody gets a certificate for somebody else": (
        "serve/test_certify.py::test_a_csr_for_another_account_than_the_tokens_is_refused",
        "serve/test_certify.py::test_a_token_is_for_one_pod_and_account_only",
    ),
    "key usage and EKU are checked both ways": (
        f"{REFUSALS}test_a_peer_whose_certificate_says_the_wrong_thing_is_refused_by_name",
        "identity/test_handshake_rows.py::test_a_leaf_for_one_purpose_only_is_refused_in_both_roles",
    ),
    "expiry is in the metrics": (f"{RENEWAL}test_short_lived_certificates_are_renewed_under_load_without_an_error",),
    "a control plane that is late, or away for longer than a life": (
        f"{IDENTITY}test_a_control_plane_away_for_longer_than_a_certificate_lives",
    ),
    "an external CA by files": (
        "identity/test_external_issuer.py::test_a_proxy_is_there_first_and_follows_every_change_of_an_external_issuer",
    ),
    "SPIRE": ("identity/test_spire.py::test_a_proxy_with_the_agents_identity_gets_its_configuration",),
    # ---- explain
    "explain: rules and why not, shares, scores, retries, times, breaker, the far side": (
        f"{MODES}test_the_trail_tells_rules_times_retries_shares_scores_breaker_and_far_side",
        "mesh_e2e/test_e2e_explain.py::test_a_trail_names_service_shares_endpoints_and_the_far_sides_decision",
        "mesh_e2e/test_e2e_explain.py::test_a_request_that_would_be_denied_says_so_and_the_verb_fails",
    ),
    "explain: the trail of a real request": (
        f"{MODES}test_the_trail_tells_rules_times_retries_shares_scores_breaker_and_far_side",
        "mesh_e2e/test_e2e_workers.py::test_explaining_names_the_worker_whose_state_it_is_and_a_request_can_ask_its_own",
    ),
}

# Why two sidecars would show no more.
OTHERWISE = {
    "simulated: one slow of ten, a herd, flapping": "a simulation, by what it says",
    "matching in linear time": "a property of the matcher: what a sidecar adds is not in it",
    "nobody gets a certificate for somebody else": "between one proxy and the control plane: a real server is asked",
    "an external CA by files": "between one proxy and the control plane: both are real processes",
    "SPIRE": "an agent of ours stands in for SPIRE's; the proxy and its Workload API are real",
}


@pytest.mark.parametrize("behaviour", SHOWN_BY)
def test_the_tests_that_show_a_behaviour_are_there(behaviour: str) -> None:
    are_there(SHOWN_BY[behaviour], behaviour)


@pytest.mark.parametrize("behaviour", SHOWN_BY)
def test_each_behaviour_is_shown_by_a_real_mesh_or_says_why_not(behaviour: str) -> None:
    real = any(name.startswith(REAL) for name in SHOWN_BY[behaviour])
    assert real is not (behaviour in OTHERWISE), "has one; or a reason, and only then"

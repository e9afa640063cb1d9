"""Which test shows which requirement: identity (ID), access (AP), retries, time-outs, breaking and splitting (RT).

row --SHOWN_BY--> file :: test         every test that is named exists; no row is without one

The rows are those of the list of attacks and failures that the project is built against (6.6, 6.7, 6.9); beside each is
what it is about.  A test that is renamed or removed makes this fail: find what shows the row now.
"""

from __future__ import annotations

import pytest
from named_tests import are_there

SHOWN_BY: dict[str, tuple[str, ...]] = {
    # ---- 6.6: mutual TLS and identity
    "ID-01 no client certificate": (
        "identity/test_handshake_rows.py::test_a_client_without_a_certificate_is_refused",
        "mesh_e2e/test_e2e_refusals.py::test_a_peer_without_a_certificate_is_refused",
    ),
    "ID-02 a leaf that expired a second ago": (
        "certs/test_verify.py::test_a_leaf_that_expired_a_second_ago_is_refused",
        "identity/test_handshake_rows.py::test_a_leaf_that_no_peer_may_show_is_refused",
    ),
    "ID-04 a chain to another root": (
        "identity/test_handshake_rows.py::test_a_chain_that_leads_to_no_anchor_is_refused",
        "mesh_e2e/test_e2e_refusals.py::test_a_peer_of_another_root_is_refused_whatever_it_calls_itself",
    ),
    "ID-05 a self-signed leaf": ("identity/test_handshake_rows.py::test_a_chain_that_leads_to_no_anchor_is_refused",),
    "ID-07 a leaf that is a CA": ("identity/test_handshake_rows.py::test_a_leaf_that_no_peer_may_show_is_refused",),
    "ID-09 a leaf with cRLSign": ("identity/test_handshake_rows.py::test_a_leaf_that_no_peer_may_show_is_refused",),
    "ID-11 a leaf for one purpose in the other role": (
        "identity/test_handshake_rows.py::test_a_leaf_for_one_purpose_only_is_refused_in_both_roles",
    ),
    "ID-12 two URIs": ("identity/test_handshake_rows.py::test_a_leaf_that_no_peer_may_show_is_refused",),
    "ID-13 another trust domain": ("identity/test_handshake_rows.py::test_a_leaf_that_no_peer_may_show_is_refused",),
    "ID-14 an identity in the subject only": ("identity/test_handshake_rows.py::test_a_leaf_that_no_peer_may_show_is_refused",),
    "ID-16 a SPIFFE ID with dots or empty segments": (
        "identity/test_handshake_rows.py::test_a_leaf_that_no_peer_may_show_is_refused",
        "certs/test_spiffe.py::test_anything_else_is_refused",
    ),
    "ID-18 a SPIFFE ID without a path": ("identity/test_handshake_rows.py::test_a_leaf_that_no_peer_may_show_is_refused",),
    "ID-20 a wildcard name": ("identity/test_handshake_rows.py::test_a_leaf_that_no_peer_may_show_is_refused",),
    "ID-22 below pathlen 0; a leaf that signs": (
        "identity/test_handshake_rows.py::test_a_chain_that_leads_to_no_anchor_is_refused",
    ),
    "ID-25 a server that is another workload": (
        "identity/test_handshake_rows.py::test_a_server_that_is_another_workload_is_refused",
        "mesh_e2e/test_e2e_refusals.py::test_a_server_that_is_not_the_expected_one_gets_nothing_and_the_caller_answers_502",
    ),
    "ID-26 a server without TLS where one is expected": (
        "mesh_e2e/test_e2e_refusals.py::test_a_server_without_tls_in_an_endpoints_place_gets_only_a_hello",
        "proxy/test_tls_forward.py::test_a_server_that_only_speaks_plaintext_is_not_sent_the_request",
    ),
    "ID-27 a plaintext client": (
        "mesh_e2e/test_e2e_refusals.py::test_a_plaintext_request_to_an_inbound_port_is_answered_403_and_reaches_no_app",
        "mesh_e2e/test_e2e_refusals.py::test_bytes_that_are_no_http_are_cut_off_at_an_inbound_port",
    ),
    "ID-28 older TLS, other suites, other ALPN": (
        "identity/test_handshake_rows.py::test_only_tls_1_3_is_spoken",
        "mesh_e2e/test_e2e_refusals.py::test_tls_that_is_not_the_meshs_own_is_refused_before_any_handshake",
    ),
    "ID-30 a connection longer than its certificate": (
        "identity/test_outlived_connections.py::test_what_takes_longer_than_the_grace_is_cut_and_the_caller_is_told",
        "identity/test_outlived_connections.py::test_a_peer_that_stays_is_told_to_go_and_then_cut",
    ),
    "ID-31 headers that claim an identity": (
        "mesh_e2e/test_e2e_refusals.py::test_headers_of_the_mesh_sent_by_an_app_never_arrive_and_the_verified_identity_does",
        "proxy/test_tls_forward.py::test_mtls_tells_the_backend_who_is_calling_and_believes_no_header",
    ),
    "ID-33 a CSR for another account than the token's": (
        "serve/test_certify.py::test_a_csr_for_another_account_than_the_tokens_is_refused",
        "serve/test_certify.py::test_a_token_is_for_one_pod_and_account_only",
    ),
    "ID-34 a CSR with other names": ("certs/test_issue.py::test_a_request_for_any_other_name_is_refused",),
    "ID-35 a CSR for a CA of ten years": ("certs/test_issue.py::test_a_request_for_a_ca_of_ten_years_gets_an_ordinary_leaf",),
    "ID-39 a token that is none": (
        "serve/test_certify.py::test_a_token_that_was_never_issued_is_refused",
        "serve/test_certify.py::test_an_expired_token_is_refused",
        "serve/test_certify.py::test_a_record_that_is_not_right_is_refused",
        "serve/test_certify.py::test_a_malformed_request_is_an_invalid_argument",
    ),
    "ID-41 the token of a pod that is gone": ("serve/test_certify.py::test_the_token_of_a_pod_that_is_gone_is_refused",),
    "ID-42 a leaf that outlives its issuer": (
        "certs/test_issue.py::test_a_leaf_never_outlives_its_issuer",
        "identity/test_authority_files.py::test_a_leaf_never_outlives_what_is_above_its_issuer",
    ),
    "ID-43 an issuer that cannot issue": (
        "identity/test_authority_files.py::test_material_that_cannot_issue_is_refused_naming_the_file",
        "mesh/test_control_process.py::test_it_does_not_start_on_bad_material_and_says_which_file",
        "serve/test_stream.py::test_bad_material_on_disk_leaves_the_last_good_in_force",
    ),
    "ID-44 when a certificate is renewed": (
        "mesh/test_renewal.py::test_the_renewal_point_is_between_60_and_80_per_cent_of_the_life",
        "mesh/test_renewal.py::test_it_is_never_later_than_80_per_cent_whatever_is_drawn",
    ),
    "ID-45 no control plane for longer than a life": (
        "identity/test_identity_mesh.py::test_a_control_plane_away_for_longer_than_a_certificate_lives",
        "mesh/test_renewal.py::test_after_the_return_of_the_control_plane_the_next_attempt_is_within_10_s",
    ),
    "ID-47 a thousand proxies renew at once": (
        "mesh/test_renewal.py::test_a_thousand_proxies_that_started_together_are_spread_out",
        "identity/test_new_issuer.py::test_a_thousand_proxies_renew_within_half_a_minute_and_not_at_once",
    ),
    "ID-48 a new root under load": (
        "identity/test_identity_mesh.py::test_root_and_issuer_are_replaced_under_load_without_an_error",
        "identity/test_handshake_rows.py::test_new_anchors_are_in_force_for_the_next_connection_and_the_ones_there_stay",
        "certs/test_rotation.py::test_at_every_moment_every_proxy_trusts_every_other",
    ),
    "ID-50 a clock that is wrong": (
        "mesh/test_membership.py::test_a_clock_that_is_far_off_is_named",
        "certs/test_verify.py::test_a_leaf_of_tomorrow_is_refused_and_the_clock_is_named",
    ),
    "ID-51 keys and tokens in files, logs and pages": (
        "certs/test_authority.py::test_the_key_is_for_its_owner_only",
        "certs/test_context.py::test_the_key_leaves_no_file_and_no_descriptor",
        "serve/test_certify.py::test_no_secret_is_in_any_log_line",
        "identity/test_authority_files.py::test_the_key_is_in_nothing_that_is_said",
    ),
    "ID-52 names that end alike": ("identity/test_handshake_rows.py::test_a_shorter_name_that_ends_alike_is_another_workload",),
    "ID-53 an address that a header claims": (
        "access/test_traffic_target.py::test_what_a_client_says_of_itself_gives_it_nothing",
    ),
    "ID-54 before the first certificate": (
        "identity/test_handshake_rows.py::test_before_the_first_certificate_nothing_is_let_in_or_out",
        "proxy/test_admin.py::test_ready_follows_the_status_and_the_drain",
    ),
    "ID-55 an admin page that ends the proxy": ("proxy/test_admin.py::test_what_is_no_page_is_refused",),
    # ---- 6.7: access
    "AP-01 no TrafficTarget, strict": (
        "access/test_inbound_access.py::test_without_any_target_the_mode_deny_refuses_everyone",
    ),
    "AP-02 other spellings of a path": (
        "access/test_traffic_target.py::test_a_path_is_judged_and_forwarded_in_its_one_spelling",
        "mesh_e2e/test_e2e_access.py::test_no_spelling_of_a_path_gets_past_the_rules",
    ),
    "AP-03 encoded spellings of a path": (
        "access/test_traffic_target.py::test_a_path_is_judged_and_forwarded_in_its_one_spelling",
        "access/test_normal_path.py::test_what_two_servers_may_read_as_two_paths_has_no_normal_form",
        "mesh_e2e/test_e2e_access.py::test_no_spelling_of_a_path_gets_past_the_rules",
    ),
    "AP-05 other spellings of a host": (
        "access/test_traffic_target.py::test_a_host_is_judged_in_its_one_spelling",
        "mesh_e2e/test_e2e_access.py::test_another_spelling_of_the_host_is_judged_the_same",
    ),
    "AP-08 other spellings of a gRPC method": (
        "access/test_traffic_target.py::test_a_grpc_method_has_one_spelling_only",
        "mesh_e2e/test_e2e_access.py::test_a_grpc_method_is_a_path_and_a_denied_call_ends_with_permission_denied",
    ),
    "AP-10 withdrawn while connections are open": (
        "mesh_e2e/test_e2e_access.py::test_what_is_withdrawn_ends_tunnels_and_is_denied_on_connections_that_are_open",
    ),
    "AP-11 a pattern that never ends": ("access/test_regex.py::test_no_pattern_makes_a_text_take_long",),
    "AP-12 a pattern without anchors": (
        "access/test_regex.py::test_a_pattern_is_anchored_at_the_start_and_on_demand_at_the_end",
        "resources/test_smi_statements.py::test_the_statement_holds",
    ),
    "AP-13 a target that says too little": (
        "access/test_access_problems.py::test_a_target_that_says_too_little_is_refused_with_its_reason",
        "mesh_e2e/test_e2e_access.py::test_a_target_that_is_spoilt_is_refused_and_the_last_good_one_stays",
        "access/test_refused_target.py::test_a_first_version_that_is_refused_selects_its_pods_and_lets_nobody_in",
        "mesh_e2e/test_e2e_access.py::test_a_target_whose_first_version_is_refused_closes_its_pods_and_says_so",
    ),
    # ---- 6.9: retries, time-outs, breaking, splitting
    "RT-01 an outage of everything": (
        "policy/test_simulation.py::test_an_outage_is_amplified_by_a_fifth_and_the_floor_however_many_attempts_are_allowed",
        "policy/test_budget.py::test_no_window_of_a_ttl_sees_more_retries_than_ratio_and_floor_allow",
        "proxy/test_rules.py::test_retries_of_all_rules_are_paid_from_the_services_budget",
    ),
    "RT-02 three hops that retry": ("policy/test_simulation.py::test_three_retrying_hops_stay_under_twice_the_load",),
    "RT-03 a POST whose bytes were sent": (
        "proxy/test_forward.py::test_a_post_that_may_have_been_acted_on_is_not_sent_again",
        "mesh_e2e/test_e2e_failures.py::test_killing_a_replica_under_load_never_repeats_a_post",
    ),
    "RT-04 a POST that nobody can have seen": (
        "proxy/test_forward.py::test_a_post_whose_connection_was_refused_goes_to_another_endpoint",
        "proxy/test_pool.py::test_streams_above_goaways_last_id_are_sent_again_whatever_their_method",
        "policy/test_retry.py::test_by_default_what_certainly_was_not_processed_is_retried_whatever_the_method",
    ),
    "RT-05 a large body with retries on": ("proxy/test_retry_paths.py::test_a_body_beyond_the_replay_bound_is_not_sent_twice",),
    "RT-08 time-outs of request and attempt": (
        "proxy/test_rules.py::test_an_attempt_that_takes_too_long_is_tried_again_where_the_rule_says_so",
        "proxy/test_rules.py::test_and_else_the_client_is_told_which_timer_it_was",
        "proxy/test_forward.py::test_the_request_timeout_answers_504_and_cancels_upstream",
    ),
    "RT-09 a client that goes": ("proxy/test_forward.py::test_a_client_that_leaves_cancels_upstream_and_is_counted_apart",),
    "RT-12 seven failures in a row": (
        "proxy/test_ejection_paths.py::"
        "test_seven_failures_in_a_row_eject_an_endpoint_one_request_probes_it_and_success_brings_it_back",
        "policy/test_breaker.py::test_the_penalty_doubles_from_one_second_to_sixty",
        "mesh_e2e/test_e2e_breaker.py::test_an_endpoint_that_fails_is_ejected_probed_once_a_penalty_and_taken_back",
    ),
    "RT-13 all of them ejected": (
        "proxy/test_ejection_paths.py::test_with_all_of_them_out_requests_fail_at_once_and_are_told_when_to_come_back",
    ),
    "RT-14 a split of 90 and 10": (
        "policy/test_split.py::test_each_block_holds_exactly_the_weights",
        "mesh_e2e/test_e2e_failures.py::test_every_block_of_requests_has_exactly_the_split",
    ),
    "RT-15 weights of all kinds": (
        "policy/test_split.py::test_every_split_is_exact_in_the_large",
        "policy/test_split.py::test_no_weight_at_all_draws_nobody",
        "policy/test_tables.py::test_a_backend_that_is_missing_or_has_no_endpoints_keeps_its_weight",
        "proxy/test_rules.py::test_a_backend_without_endpoints_keeps_its_share_and_answers_503",
    ),
    "RT-16 weights change under load": (
        "mesh_e2e/test_e2e_failures.py::test_weights_change_under_load_without_a_dropped_request_and_shares_are_exact",
    ),
    "RT-18 a full queue": ("proxy/test_pool.py::test_above_the_queue_the_answer_is_503_at_once",),
}

ROWS = {
    "ID": "01 02 04 05 07 09 11 12 13 14 16 18 20 22 25 26 27 28 30 31 33 34 35 39 41 42 43 44 45 47 48 50 51 52 53 54 55",
    "AP": "01 02 03 05 08 10 11 12 13",
    "RT": "01 02 03 04 05 08 09 12 13 14 15 16 18",
}


def test_every_row_is_in_the_table_and_once() -> None:
    wanted = [f"{family}-{number}" for family, numbers in ROWS.items() for number in numbers.split()]
    assert [name.split()[0] for name in SHOWN_BY] == wanted


@pytest.mark.parametrize("row", SHOWN_BY)
def test_the_tests_that_show_a_row_are_there(row: str) -> None:
    are_there(SHOWN_BY[row], row)

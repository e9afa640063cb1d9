"""Success or failure, as Linkerd counts it."""

from __future__ import annotations

import pytest

from meshproxy.policy.classify import NO_GRPC, is_success, parse_grpc_status


def test_http_fails_from_500_on() -> None:
    assert [status for status in (200, 204, 301, 400, 404, 429, 499) if not is_success(status)] == []
    assert [status for status in (500, 502, 503, 504, 599) if is_success(status)] == []


def test_grpc_fails_with_six_codes() -> None:
    assert [code for code in range(17) if not is_success(200, code)] == [2, 4, 7, 13, 14, 15]


def test_grpc_without_a_status_is_judged_by_its_http_status() -> None:
    assert is_success(200, NO_GRPC)
    assert not is_success(503, NO_GRPC)
    assert not is_success(503, 0)


@pytest.mark.parametrize(
    ("value", "code"), [(b"", NO_GRPC), (b"0", 0), (b"14", 14), (b"17", 2), (b"-1", 2), (b"x", 2), (b"1 4", 2), (b"014", 2)]
)
def test_what_is_no_grpc_code_counts_as_unknown(value: bytes, code: int) -> None:
    assert parse_grpc_status(value) == code

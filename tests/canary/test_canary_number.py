"""Shares of requests have their unit where people read them, and nothing else has."""

from __future__ import annotations

import pytest

from meshproxy.cli.canary_rows import check


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ({"metric": "failures", "value": 37.037, "requests": 27, "max": 1.0}, "failures 37.04 % of 27 requests (at most 1 %)"),
        (
            {"metric": "slower than p50", "value": 100.0, "requests": 1, "max": 72.657},
            "slower than p50 100 % of 1 request (at most 72.66 %)",
        ),
        (
            {"metric": "request-success-rate", "value": 99.998, "requests": 50000, "min": 99.999},
            "request-success-rate 99.998 % of 50000 requests (at least 99.999 %)",
        ),
        (
            {"metric": "request-duration", "value": 512.0, "requests": 40, "max": 500},
            "request-duration 512 of 40 requests (at most 500)",
        ),
        ({"metric": "failures", "value": 3.0, "max": 1}, "failures 3 (at most 1)"),  # a query of that name
        (
            {"metric": "request-success-rate", "requests": 0, "min": 99},
            "request-success-rate no data of 0 requests (at least 99 %)",
        ),
    ],
)
def test_a_share_of_requests_is_percent_and_nothing_else_is(seen, said):
    assert check(seen) == said

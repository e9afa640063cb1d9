"""HTTP's dates: three spellings, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.policy.http_date import parse_http_date

EXAMPLE = 784111777.0  # of RFC 9110 5.6.7
NOW = datetime(2026, 11, 24, tzinfo=UTC).timestamp()

SECONDS = st.datetimes(timezones=st.just(UTC)).map(lambda at: at.replace(microsecond=0))


@pytest.mark.parametrize(
    "value", [b"Sun, 06 Nov 1994 08:49:37 GMT", b"Sunday, 06-Nov-94 08:49:37 GMT", b"Sun Nov  6 08:49:37 1994"]
)
def test_the_three_spellings_of_one_moment_are_read_alike(value: bytes) -> None:
    assert parse_http_date(value, NOW) == EXAMPLE


@given(SECONDS)
def test_what_is_sent_today_is_read_as_it_was_meant(at: datetime) -> None:
    assert parse_http_date(format_datetime(at, usegmt=True).encode(), NOW) == at.timestamp()


@given(SECONDS)
def test_the_form_of_c_is_read_as_it_was_meant(at: datetime) -> None:
    assert parse_http_date(at.ctime().encode(), NOW) == at.timestamp()


@pytest.mark.parametrize(
    ("digits", "year"), [("26", 2026), ("27", 2027), ("76", 2076), ("77", 1977), ("99", 1999), ("00", 2000)]
)
def test_a_year_of_two_digits_is_the_nearest_that_is_at_most_50_years_ahead(digits: str, year: int) -> None:
    meant = datetime(year, 5, 1, tzinfo=UTC).timestamp()
    assert parse_http_date(f"Friday, 01-May-{digits} 00:00:00 GMT".encode(), NOW) == meant


def test_a_leap_second_is_the_next_minute() -> None:
    at = datetime(2017, 1, 1, tzinfo=UTC).timestamp()
    assert parse_http_date(b"Sat, 31 Dec 2016 23:59:60 GMT", NOW) == at


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"soon",
        b"Sun, 06 Nov 1994 08:49:37",
        b"Sun, 06 Nov 1994 08:49:37 CET",
        b"Sun, 06 Nov 1994 08:49:37 +0000",
        b"sun, 06 nov 1994 08:49:37 gmt",
        b"Sun,  06 Nov 1994 08:49:37 GMT",
        b"Sun, 6 Nov 1994 08:49:37 GMT",
        b"Sun, 06 Nov 1994 24:00:00 GMT",
        b"Sun, 06 Nov 1994 08:60:00 GMT",
        b"Sun, 06 Nov 1994 08:49:61 GMT",
        b"Sun, 30 Feb 1994 08:49:37 GMT",
        b"Sun, 06 Nov 0000 08:49:37 GMT",
        b"Sun, 06 Nov 1994 08:49:37 GMT ",
        b"Sun Nov 6 08:49:37 1994",
        b"Sunday, 06 Nov 1994 08:49:37 GMT",
        "Sun, ٠٦ Nov 1994 08:49:37 GMT".encode(),
        b"1994-11-06T08:49:37Z",
    ],
)
def test_what_is_no_date_says_nothing(value: bytes) -> None:
    assert parse_http_date(value, NOW) is None

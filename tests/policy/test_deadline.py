"""grpc-timeout and x-envoy-expected-rq-timeout-ms: what is read, what is written, and that what is written is what is left."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.policy.deadline import MALFORMED, format_timeout, own_timeout, parse_timeout, with_timeout
from meshproxy.wire.message import Field, Head, add_field


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"1H", 3600.0),
        (b"2M", 120.0),
        (b"3S", 3.0),
        (b"250m", 0.25),
        (b"250u", 250e-6),
        (b"250n", 250e-9),
        (b"0m", 0.0),
        (b"00000001S", 1.0),
        (b"99999999H", 99_999_999 * 3600.0),
    ],
)
def test_digits_and_a_unit_are_a_duration(value: bytes, seconds: float) -> None:
    assert parse_timeout(value) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value",
    [
        b"", b"S", b"1", b"1s", b"1h", b"1x", b"-1S", b"+1S", b"1.5S", b" 1S", b"1 S", b"1S ", b"1_0S", b"123456789S", b"1SS",
        b"0x1S", b"1e3m", b"\xb2S", "²S".encode(), "١S".encode(),
    ],
)  # fmt: skip
def test_anything_else_is_malformed(value: bytes) -> None:
    assert parse_timeout(value) == MALFORMED


@given(st.floats(min_value=-1.0, max_value=1e9))
def test_what_is_written_is_never_less_than_what_is_left_and_hardly_more(seconds: float) -> None:
    written = format_timeout(seconds)
    assert 2 <= len(written) <= 9
    read = parse_timeout(written)
    assert read > 0.0
    left = max(seconds, 0.0)
    assert left * (1 - 1e-12) <= read <= left * (1 + 1e-5) + 1.1e-6


@given(st.integers(1, 10**12))
def test_what_needs_a_coarser_unit_is_rounded_up(seconds: int) -> None:
    read = parse_timeout(format_timeout(float(seconds)))
    assert min(seconds, 99_999_999 * 3600) <= read <= seconds * 1.001


def test_the_copy_differs_in_the_timeout_alone_and_the_original_in_nothing() -> None:
    head = Head()
    head.method, head.version, head.authority, head.path, head.trailers_ok = b"POST", 20, b"svc", b"/a.B/C", True
    for name, value in ((b"content-type", b"application/grpc"), (b"grpc-timeout", b"1S"), (b"x", b"y")):
        add_field(head, Field(name, value))
    names = [name for name in dir(Head) if not name.startswith("_") and not callable(getattr(head, name))]
    assert "content_length" in names
    before = {name: getattr(head, name) for name in names}
    fields = list(head.fields)
    copy = with_timeout(head, 0.25)
    assert {name: getattr(head, name) for name in names} == before
    assert head.fields == fields
    assert [(f.name, f.value) for f in copy.fields] == [
        (b"content-type", b"application/grpc"),
        (b"grpc-timeout", b"250000u"),
        (b"x", b"y"),
    ]
    unlike = {name for name in names if getattr(copy, name) != before[name]}
    assert unlike == {"fields", "grpc_timeout"}


def asked(grpc: bool, **fields: str) -> Head:
    head = Head()
    head.method, head.path = b"POST", b"/"
    if grpc:
        add_field(head, Field(b"content-type", b"application/grpc"))
    for name, value in fields.items():
        add_field(head, Field({"calls": b"grpc-timeout", "any": EXPECTED}[name], value.encode()))
    return head


EXPECTED = b"x-envoy-expected-rq-timeout-ms"


@pytest.mark.parametrize(
    ("grpc", "fields", "seconds"),
    [
        (False, {}, MALFORMED),
        (False, {"any": "1500"}, 1.5),
        (False, {"any": "0"}, MALFORMED),
        (False, {"calls": "1S"}, MALFORMED),  # no call
        (False, {"calls": "1S", "any": "1500"}, 1.5),
        (True, {"calls": "1S", "any": "1500"}, 1.0),
        (True, {"calls": "2S", "any": "1500"}, 1.5),
        (True, {"calls": "2x", "any": "1500"}, 1.5),
        (True, {"calls": "2x"}, MALFORMED),
        (True, {"calls": "0m", "any": "1500"}, 0.0),
        (True, {"any": "1500"}, 1.5),
    ],
)
def test_of_two_times_the_shorter_binds(grpc: bool, fields: dict[str, str], seconds: float) -> None:
    assert own_timeout(asked(grpc, **fields)) == seconds


@pytest.mark.parametrize(
    ("grpc", "fields", "then"),
    [
        (False, {}, {EXPECTED: b"251"}),
        (False, {"any": "1500"}, {EXPECTED: b"251"}),
        (False, {"calls": "1S"}, {b"grpc-timeout": b"1S", EXPECTED: b"251"}),
        (True, {}, {b"grpc-timeout": b"250001u"}),
        (True, {"calls": "1S", "any": "1500"}, {b"grpc-timeout": b"250001u", EXPECTED: b"251"}),
        (True, {"calls": "2x", "any": "1500"}, {b"grpc-timeout": b"2x", EXPECTED: b"251"}),
        (True, {"any": "1500"}, {EXPECTED: b"251"}),
    ],
)
def test_each_kind_of_request_says_what_is_left_in_the_field_that_it_has(
    grpc: bool, fields: dict[str, str], then: dict[bytes, bytes]
) -> None:
    copy = with_timeout(asked(grpc, **fields), 0.250001)
    said = {field.name: field.value for field in copy.fields if field.name != b"content-type"}
    assert said == then
    assert len(copy.fields) == len(then) + grpc
    assert copy.expected_ms == int(then.get(EXPECTED, b"0"))


@given(st.floats(-1e3, 1e12, allow_nan=False))
def test_milliseconds_are_never_none_nor_more_than_can_be_read(seconds: float) -> None:
    written = with_timeout(asked(False), seconds).expected_ms
    assert 1 <= written <= 2**31 - 1
    assert written >= min(seconds * 1e3, 2**31 - 1)

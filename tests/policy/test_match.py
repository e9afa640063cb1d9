"""The matcher itself, and what its callers rely on: bounds, decoding, the first that fits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.policy.match import (
    EXACT,
    MAX_PARAMETERS,
    NO_MATCH,
    PREFIX,
    REGEX,
    REGEX_START,
    UNSAFE,
    Match,
    Matches,
    Value,
    parse_query,
)
from meshproxy.wire.message import Head


def head(path: str = "/", method: str = "GET", protocol: str = "") -> Head:
    made = Head()
    made.path, made.method, made.protocol = path.encode(), method.encode(), protocol.encode()
    return made


@pytest.mark.parametrize(
    ("how", "text", "fits", "fits_not"),
    [
        (EXACT, "a", ["a"], ["A", "ab", ""]),
        (PREFIX, "/a", ["/a", "/a/", "/a/b"], ["/ab", "/", ""]),
        (REGEX, "a+", ["a", "aaa"], ["ab", ""]),
        (REGEX_START, "a+", ["a", "ab"], ["ba", ""]),
    ],
)
def test_a_value_is_compared_as_it_says(how: int, text: str, fits: list[str], fits_not: list[str]) -> None:
    value = Value(how, text)
    assert [value.fits(one.encode()) for one in fits] == [True] * len(fits)
    assert [value.fits(one.encode()) for one in fits_not] == [False] * len(fits_not)


def test_a_way_of_comparing_that_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match="way 9"):
        Value(9, "a")


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=6), st.sampled_from("abcd"))
def test_the_first_match_that_fits_decides(methods: list[str], asked: str) -> None:
    matches = Matches([Match(i, methods=(one.encode(),)) for i, one in enumerate(methods)])
    expected = methods.index(asked) if asked in methods else NO_MATCH.route
    assert matches.find(head(method=asked)).route == expected


def test_a_misfit_is_named_for_whoever_explains() -> None:
    match = Match(0, Value(PREFIX, "/a"), (b"GET",), (Value(EXACT, "1", "x"),), (Value(EXACT, "1", "q"),))
    assert match.misfit(head(), b"/b", {}) == "path"
    assert match.misfit(head(method="PUT"), b"/a", {}) == "method"
    assert match.misfit(head(), b"/a", {}) == "header x"


def test_paths_are_read_only_where_a_match_is_on_them() -> None:
    unsafe = head("/a%2fb")
    assert Matches([Match(0, Value(PREFIX, "/a"))]).find(unsafe) is UNSAFE
    assert Matches([Match(0)]).find(unsafe).route == 0


def test_a_websocket_is_the_get_it_begins_with() -> None:
    matches = Matches([Match(0, methods=(b"GET",))])
    assert matches.find(head(method="CONNECT", protocol="websocket")).route == 0
    assert matches.find(head(method="CONNECT")) is NO_MATCH


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/", {}),
        ("/?", {}),
        ("/?a", {b"a": b""}),
        ("/?a=1&b=2&a=3", {b"a": b"1", b"b": b"2"}),
        ("/?a=1=2", {b"a": b"1=2"}),
        ("/?a+b=c%20d%2B", {b"a b": b"c d+"}),
        ("/?a=%zz%4", {b"a": b"%zz%4"}),
        ("/?&&a=1", {b"a": b"1"}),
    ],
)
def test_a_query_is_read_as_forms_are(target: str, expected: dict[bytes, bytes]) -> None:
    assert parse_query(target.encode()) == expected


def test_of_a_query_without_end_the_first_parameters_count() -> None:
    found = parse_query(b"/?" + b"&".join(b"p%d=1" % i for i in range(MAX_PARAMETERS + 50)))
    assert len(found) == MAX_PARAMETERS
    assert b"p0" in found
    assert b"p%d" % (MAX_PARAMETERS + 1) not in found

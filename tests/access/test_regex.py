"""Patterns of rules: what Python's `re` says of them, in linear time, and a reason for what is not taken."""

from __future__ import annotations

import random
import re

import pytest

from meshproxy.policy.regex import MAX_PATTERN, MAX_STEPS, Regex


def invented(chance: random.Random, depth: int) -> str:
    """Some pattern over a, b, c and 1."""
    draw = chance.random()
    if depth == 0 or draw < 0.3:
        return chance.choice(["a", "b", ".", "[ab]", "[^a]", "c", r"\d", "1", r"[\dc-]", r"\x61", r"\W"])
    if draw < 0.5:
        return invented(chance, depth - 1) + invented(chance, depth - 1)
    if draw < 0.65:
        return f"({invented(chance, depth - 1)}|{invented(chance, depth - 1)})"
    if draw < 0.95:
        counts = chance.choice(["*", "+", "?", "{2}", "{1,}", "{0,2}", "{0}", "{1,3}", "*?", "+?"])
        return f"(?:{invented(chance, depth - 1)}){counts}"
    return chance.choice(["(^|a)", "^", "(b|$)", "$"]) + invented(chance, depth - 1)


@pytest.mark.parametrize("seed", range(8))
def test_it_agrees_with_pythons_own_engine_wherever_both_take_a_pattern(seed: int) -> None:
    chance = random.Random(seed)
    compared = 0
    for _ in range(150):
        pattern = invented(chance, 4)
        for full in (False, True):
            ours, theirs = Regex(pattern, full), re.compile(pattern.encode(), re.DOTALL)
            for _ in range(10):
                text = "".join(chance.choice("abc1") for _ in range(chance.randrange(8))).encode()
                expected = (theirs.fullmatch(text) if full else theirs.match(text)) is not None
                assert ours.matches(text) == expected, (pattern, text, full)
                compared += 1
    assert compared == 3000


@pytest.mark.parametrize(
    ("pattern", "text", "from_start", "whole"),
    [
        ("/api", b"/api", True, True),
        ("/api", b"/api/v1", True, False),
        ("/api", b"/apix", True, False),
        ("api", b"/api", False, False),
        ("^/api$", b"/api", True, True),
        ("^/api$", b"/api/v1", False, False),
        (".*", b"", True, True),
        ("", b"/x", True, False),
        ("(?i)/Books", b"/bOOKS", True, True),
        ("/[[:alpha:]]+", b"/abc1", True, False),
        ("/caf(é|e)", "/café".encode(), True, True),
        (r"\A/a\.b\z", b"/a.b", True, True),
        (r"\A/a\.b\z", b"/axb", False, False),
        ("(?P<first>a)(?:b)", b"ab", True, True),
        ("a{2,3}", b"aaaa", True, False),
        ("[]a]+", b"]a", True, True),
        ("[a-]+", b"-a", True, True),
    ],
)
def test_a_pattern_is_anchored_at_the_start_and_on_demand_at_the_end(
    pattern: str, text: bytes, from_start: bool, whole: bool
) -> None:
    assert (Regex(pattern).matches(text), Regex(pattern, full=True).matches(text)) == (from_start, whole)


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(?=a)b", "look-around"),
        ("(?<!a)b", "look-around"),
        (r"(a)\1", "back-reference"),
        ("(?P=name)", "back-reference, atomic or conditional"),
        ("(?>a)", "back-reference, atomic or conditional"),
        ("a*+", "possessive"),
        ("a**", "repetition of a repetition"),
        (r"\bword", "is not supported"),
        ("(a", "not closed"),
        ("a)", "unmatched"),
        ("[a", "not closed"),
        ("[z-a]", "goes from no smaller"),
        ("[é]", "ASCII"),
        ("a{", "literal one is written"),
        ("a{3,2}", "from 3 to 2"),
        ("a{1001}", "more than 1000"),
        ("*a", "nothing to repeat"),
        ("^*", "an anchor is repeated"),
        ("a\\", "ends with a backslash"),
        ("(?m)a", "sets flags"),
        ("x" * (MAX_PATTERN + 1), "characters, more than"),
        ("x{257}", "takes more than 256"),
        ("((((x{10}){10}){10}){10}){10}", "takes more than 256"),
        ("((((){1000}){1000}){1000}){1000}", "too large"),
        ("(" * 60 + ")" * 60, "nested deeper"),
    ],
)
def test_what_is_not_taken_is_refused_with_a_reason(pattern: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Regex(pattern)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("(a+)+$", b"a" * 40 + b"b"),
        ("(a|a)*b", b"a" * 8000),
        (".*.*.*.*.*x", b"a" * 8000),
        ("(.*a.{100})*x", bytes(random.Random(1).choices(b"ab", k=8000))),
    ],
)
def test_no_pattern_makes_a_text_take_long(pattern: str, text: bytes) -> None:
    """A backtracking engine needs days for any of these, so the test's own time limit ends it."""
    regex = Regex(pattern, full=True)
    assert not regex.matches(text)
    assert regex._steps <= MAX_STEPS

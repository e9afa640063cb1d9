from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.resources.quantity import milli, quantity, seconds


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (1, 1),
        ("1", 1),
        ("500m", Fraction(1, 2)),
        ("1500m", Fraction(3, 2)),
        ("0", 0),
        ("1k", 1000),
        ("1Ki", 1024),
        ("2Gi", 2 * 1024**3),
        ("1e3", 1000),
        ("1E", 10**18),
        ("1E2", 100),
        ("1e-3", Fraction(1, 1000)),
        ("0.1", Fraction(1, 10)),
        (".5", Fraction(1, 2)),
        ("10u", Fraction(1, 100_000)),
        ("-1", -1),
        (0.1, Fraction(1, 10)),
    ],
)
def test_a_quantity_is_exact(text: int | float | str, value: Fraction) -> None:
    assert quantity(text) == value


@pytest.mark.parametrize("text", ["", "m", "1mm", "1 k", "1KI", "ten", "1e", "0x10", "1_000", "1e999", "nan", True])
def test_what_is_no_quantity_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="expected a quantity such as"):
        quantity(text)


def test_milli_rounds_up_as_kubernetes_does() -> None:
    assert [milli("1"), milli("100m"), milli("1u"), milli("1500u")] == [1000, 100, 1, 2]


@pytest.mark.parametrize(
    ("text", "value"),
    [("90s", 90), ("1m30s", 90), ("500ms", 0.5), ("1.5h", 5400), ("0", 0), ("0s", 0), ("10us", 1e-5), ("10µs", 1e-5)],
)
def test_a_duration_is_gos(text: str, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "10", "s", "1 s", "-1s", "1d", "1m 30s", "tens"])
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration such as"):
        seconds(text)


@given(st.text(max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    for reader in (quantity, seconds):
        try:
            reader(text)
        except ValueError:
            continue

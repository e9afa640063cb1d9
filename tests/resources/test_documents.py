"""YAML as kubectl reads it, with the line of every field, and bounds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.resources.documents import MAX_DEPTH, MAX_FILE_BYTES, field_name, parse_documents


def values(text: str) -> list[Any]:
    parsed = parse_documents(text.encode(), "f.yaml")
    assert parsed.diagnostics == []
    return [document.obj for document in parsed.documents]


def complaint(text: str | bytes) -> tuple[int, str, str]:
    parsed = parse_documents(text.encode() if isinstance(text, str) else text, "f.yaml")
    assert parsed.broken
    found = parsed.diagnostics[0]
    assert found.file == "f.yaml"
    return found.line, found.message, found.hint


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8080", 8080),
        ("0x10", 16),
        ("010", 8),
        ("0b11", 3),
        ("-1_000", -1000),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ('"1e3"', "1e3"),
        ("yes", True),
        ("Off", False),
        ("y", "y"),
        ("~", None),
        ("10:30", "10:30"),
        ("1:2:3.5", "1:2:3.5"),
        ("2026-11-23", "2026-11-23"),
        ("100m", "100m"),
        ("1.2.3", "1.2.3"),
        ("''", ""),
    ],
)
def test_a_scalar_means_what_it_means_to_kubectl(text: str, value: object) -> None:
    (found,) = values(f"a: {text}")
    assert found["a"] == value
    assert type(found["a"]) is type(value)


def test_documents_are_told_apart_and_empty_ones_left_out() -> None:
    assert values("---\na: 1\n---\n---\n# nothing\n---\nb: 2\n...\n") == [{"a": 1}, {"b": 2}]


def test_json_is_read_too() -> None:
    assert values('{"a": [1, {"b": null}]}') == [{"a": [1, {"b": None}]}]


def test_a_byte_order_mark_is_passed_over() -> None:
    assert parse_documents(b"\xef\xbb\xbfa: 1").documents[0].obj == {"a": 1}


def test_keys_that_are_numbers_or_booleans_become_strings() -> None:
    assert values("{80: a, true: b}") == [{"80": "a", "true": "b"}]


def test_every_field_knows_its_line() -> None:
    (document,) = parse_documents(b"a:\n  b:\n  - x\n  - c: 1\n    d: 2\n").documents
    assert document.line_of(("a", "b", 1, "d")) == 5
    assert document.line_of(("a", "b", 0)) == 3
    assert document.line_of(("a", "b", 1, "missing", "deeper")) == 4
    assert document.line_of(("nowhere",)) == document.line == 1


def test_a_list_object_is_opened_and_its_items_know_their_lines() -> None:
    parsed = parse_documents(b"kind: List\napiVersion: v1\nitems:\n- kind: A\n  x: 1\n- kind: B\n  x:\n    y: 2\n")
    assert [document.obj["kind"] for document in parsed.documents] == ["A", "B"]
    assert [document.line for document in parsed.documents] == [4, 6]
    assert parsed.documents[1].line_of(("x", "y")) == 8


def test_a_key_given_twice_is_an_error_that_names_both_lines() -> None:
    parsed = parse_documents(b"a:\n  x: 1\n  y: 2\n  x: 3\n", "f.yaml")
    assert parsed.broken
    (found,) = parsed.diagnostics
    assert (found.line, found.field, found.message) == (4, "a.x", "given twice, first in line 2")


def test_anchors_and_merge_keys_work_and_own_keys_win() -> None:
    assert values("base: &b {x: 1, y: 2}\nother: {<<: *b, y: 3}\nsame: *b") == [
        {"base": {"x": 1, "y": 2}, "other": {"x": 1, "y": 3}, "same": {"x": 1, "y": 2}}
    ]


def test_of_several_merged_maps_the_first_wins() -> None:
    (found,) = values("a: &a {x: 1}\nb: &b {x: 2, z: 3}\nc: {<<: [*a, *b]}")
    assert found["c"] == {"x": 1, "z": 3}


def test_aliases_that_multiply_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 8)]
    _, message, _ = complaint("\n".join(lines))
    assert "once aliases are expanded" in message


def test_an_alias_of_itself_is_refused() -> None:
    _, message, _ = complaint("a: &a [*a]")
    assert "once aliases are expanded" in message


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ("{a: ", "}")])
def test_nesting_is_bounded(depth: int, opening: str, closing: str) -> None:
    _, message, _ = complaint(opening * depth + closing * depth)
    assert message == f"nested deeper than {MAX_DEPTH} levels"


def test_nesting_up_to_the_bound_is_read() -> None:
    assert values("[" * MAX_DEPTH + "]" * MAX_DEPTH)


def test_a_file_too_large_is_refused_unread() -> None:
    _, message, hint = complaint(b"#" * (MAX_FILE_BYTES + 1))
    assert "more than 4,194,304" in message
    assert hint == "split it"


@pytest.mark.parametrize(
    ("text", "line", "message", "hint"),
    [
        ("a:\n\tb: 2\n", 2, "cannot start any token", "is the line indented with a tab? YAML wants spaces"),
        ("a: 1\n\tb: 2\n", 2, "tab character", "is the line indented with a tab? YAML wants spaces"),
        ("a: b: c\n", 1, "mapping values are not allowed", "check the indentation, and quote values that contain ': '"),
        ("a: [1,\n", 2, "did not find expected node content", "is the '[' of line 1 closed?"),
        ("a: {b: 20\nc: 1\n", 2, "did not find expected ',' or '}'", "is the '{' of line 1 closed?"),
        ("a: {b: {c: 1},\n  d: [x}\n", 2, "did not find expected ',' or ']'", ""),
        ("x: [1]\ny:\n  z: {a: 'é{', b: [2],\n\n\nw: 3\n", 7, "did not find expected", "is the '{' of line 3 closed?"),
        ("a: [1 2]\nb: {c: 'x' y}\n", 2, "did not find expected", ""),
        ("a: *nobody\n", 1, "undefined alias", ""),
        ("a: .inf\n", 1, ".inf cannot be sent", "give a number"),
        ("a: !!binary aGk=\n", 1, "'!!binary' is not supported", "write the base64 text itself"),
        ("? [1]\n: 2\n", 1, "a key is a list or a map", ""),
    ],
)
def test_bad_yaml_is_named_with_its_line_and_a_hint(text: str, line: int, message: str, hint: str) -> None:
    found = complaint(text)
    assert found[0] == line
    assert message in found[1]
    assert found[2] == hint


def test_bytes_that_are_no_utf8_are_named_with_their_line() -> None:
    line, message, _ = complaint(b"a: 1\nb: \xff\n")
    assert (line, message) == (2, "not UTF-8 text")


def test_what_stands_before_a_syntax_error_is_still_read() -> None:
    parsed = parse_documents(b"a: 1\n---\nb: [\n")
    assert parsed.broken
    assert [document.obj for document in parsed.documents] == [{"a": 1}]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ((), ""),
        (("spec", "backends", 0, "weight"), "spec.backends[0].weight"),
        (("metadata", "annotations", "a.b/c"), 'metadata.annotations["a.b/c"]'),
    ],
)
def test_a_field_is_named_as_people_write_it(path: tuple[str | int, ...], name: str) -> None:
    assert field_name(path) == name


@given(st.binary(max_size=200))
def test_no_bytes_make_the_parser_raise(data: bytes) -> None:
    parsed = parse_documents(data, "f.yaml")
    assert parsed.broken == bool(parsed.diagnostics)


@given(st.text(alphabet="ab:-[]{}&*!|>'\"%#\n \t,?<0", max_size=60))
def test_no_yaml_like_text_makes_the_parser_raise(text: str) -> None:
    parsed = parse_documents(text.encode(), "f.yaml")
    assert parsed.broken == bool(parsed.diagnostics)

"""What rules change of heads: pure, and the head that came stays as it is."""

from __future__ import annotations

import pytest

from meshproxy.policy.filters import HeaderChanges, NewPath, Redirect, Rewrite, changed
from meshproxy.policy.match import EXACT, PREFIX, Match, Value
from meshproxy.wire.message import Field, Head, MalformedField

ANY = Match(0)
UNDER_A = Match(0, Value(PREFIX, "/a"))


def head(path: str = "/a/b?q=1", **fields: str) -> Head:
    made = Head()
    made.method, made.path, made.authority = b"GET", path.encode(), b"web.shop:8080"
    made.fields = [Field(name.encode(), value.encode()) for name, value in fields.items()]
    return made


def lines(fields: list[Field]) -> list[tuple[str, str]]:
    return [(field.name.decode(), field.value.decode()) for field in fields]


def test_set_replaces_every_line_add_appends_one_and_remove_takes_all() -> None:
    fields = [Field(b"a", b"1"), Field(b"b", b"2"), Field(b"a", b"3"), Field(b"c", b"4")]
    changes = HeaderChanges((("a", "9"),), (("b", "8"),), ("c",))
    assert lines(changes.apply(fields)) == [("b", "2"), ("a", "9"), ("b", "8")]
    assert len(fields) == 4


def test_what_would_break_a_message_is_refused_when_it_is_built() -> None:
    with pytest.raises(MalformedField):
        HeaderChanges((("a", "x\r\ny"),))


@pytest.mark.parametrize(
    ("path", "new", "match", "expected"),
    [
        ("/a/b?q=1", NewPath(False, "/v2"), UNDER_A, "/v2/b?q=1"),
        ("/a?q=1", NewPath(False, "/v2"), UNDER_A, "/v2?q=1"),
        ("/a/", NewPath(False, "/v2"), UNDER_A, "/v2/"),
        ("/a/b", NewPath(False, ""), UNDER_A, "/b"),
        ("/a", NewPath(False, ""), UNDER_A, "/"),
        ("/x", NewPath(False, "/v2"), Match(0), "/v2/x"),
        ("//a/./b", NewPath(False, "/v2"), UNDER_A, "/v2/b"),
        ("/a/b?q=1", NewPath(True, "/new"), UNDER_A, "/new?q=1"),
        ("/a", NewPath(True, ""), UNDER_A, "/"),
        ("/a", NewPath(True, "/new"), Match(0, Value(EXACT, "/a")), "/new"),
    ],
)
def test_a_path_is_rewritten_and_the_query_stays(path: str, new: NewPath, match: Match, expected: str) -> None:
    assert new.apply(path.encode(), match).decode() == expected


def test_a_rewrite_changes_path_and_host_of_a_copy() -> None:
    original = head()
    sent = changed(original, UNDER_A, True, Rewrite("books.shop", NewPath(False, "/v2")), HeaderChanges((("x", "1"),)))
    assert (sent.path, sent.authority, lines(sent.fields)) == (b"/v2/b?q=1", b"books.shop", [("x", "1")])
    assert (original.path, original.authority, original.fields) == (b"/a/b?q=1", b"web.shop:8080", [])


def test_the_path_that_is_sent_is_the_one_by_which_it_was_decided() -> None:
    assert changed(head("/x/..//a?q=%2F"), UNDER_A, True, None, None).path == b"/a?q=%2F"
    same = head("/a")
    assert changed(same, UNDER_A, True, None, None) is same
    untouched = head("/x/../a")
    assert changed(untouched, ANY, False, None, None) is untouched


@pytest.mark.parametrize(
    ("redirect", "port", "expected"),
    [
        (Redirect(302), 80, "http://web.shop/a/b?q=1"),
        (Redirect(302), 8080, "http://web.shop:8080/a/b?q=1"),
        (Redirect(301, "https"), 80, "https://web.shop/a/b?q=1"),
        (Redirect(301, "https", "shop.example", 8443), 80, "https://shop.example:8443/a/b?q=1"),
        (Redirect(302, "", "shop.example", 80), 8080, "http://shop.example/a/b?q=1"),
        (Redirect(308, "", "", 0, NewPath(True, "/new")), 80, "http://web.shop/new?q=1"),
        (Redirect(308, "", "", 0, NewPath(False, "/c")), 80, "http://web.shop/c/b?q=1"),
    ],
)
def test_a_redirect_says_what_it_was_told_and_else_what_was_asked(redirect: Redirect, port: int, expected: str) -> None:
    assert redirect.location(head(), UNDER_A, port).decode() == expected


@pytest.mark.parametrize("text", ["a", "/a b", "/a#b"])
def test_a_new_path_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no path"):
        NewPath(True, text)


def test_a_new_host_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="is no host"):
        Rewrite("a b")

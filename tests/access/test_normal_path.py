"""Many spellings, one path; and what has no safe reading is refused."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.policy.path import normal_path, with_path


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        (b"/admin", b"/admin"),
        (b"/admin?x=/../y//z%2f", b"/admin"),
        (b"//admin", b"/admin"),
        (b"/public///admin//", b"/public/admin/"),
        (b"/./admin", b"/admin"),
        (b"/public/../admin", b"/admin"),
        (b"/public/./x/../y/.", b"/public/y/"),
        (b"/public/x/..", b"/public/"),
        (b"/%61dmin", b"/admin"),
        (b"/%2e/admin", b"/admin"),
        (b"/public/%2E%2e/admin", b"/admin"),
        (b"/public/.%2e//admin", b"/admin"),
        (b"/%7euser/%2d", b"/~user/-"),
        (b"/caf%c3%a9", b"/caf%C3%A9"),
        (b"/a%20b%3f", b"/a%20b%3F"),
        (b"/%252e%252e/", b"/%252e%252e/"),  # decoded once, never twice
        (b"/.well-known/..data/...", b"/.well-known/..data/..."),
        (b"/a;v=1/b", b"/a;v=1/b"),
        (b"/", b"/"),
        (b"/?", b"/"),
        (b"*", b"*"),
        (b"", b""),
    ],
)
def test_each_path_has_one_spelling(path: bytes, normal: bytes) -> None:
    assert normal_path(path) == normal


@pytest.mark.parametrize(
    "path",
    [
        b"/admin%2f",
        b"/public%2F..%2Fadmin",
        b"/%5cadmin",
        b"/public\\..\\admin",
        b"/a%",
        b"/a%4",
        b"/a%zz",
        b"/a%+1",
        b"/a%00",
        b"/%c0%ae%c0%ae/",
        b"/%e0%80%af",
        b"/latin%e9",
        b"/..",
        b"/a/../../b",
        b"/%2e%2e/",
        b"/public/..;/admin",
        b"/public/.;x=1/admin",
        b"/public/%2e%2e;/admin",
    ],
)
def test_what_two_servers_may_read_as_two_paths_has_no_normal_form(path: bytes) -> None:
    assert normal_path(path) is None


_PIECES = st.sampled_from(["/", "/", ".", "..", "%2e", "%2F", "%61", "a", ";", "%", "\\", "%c3%a9", "%C0", "?", "~", "%7e"])


@given(st.lists(_PIECES, max_size=12).map(lambda pieces: ("/" + "".join(pieces)).encode()))
def test_a_normal_form_is_its_own_normal_form_and_climbs_nowhere(path: bytes) -> None:
    normal = normal_path(path)
    if normal is not None:
        assert normal_path(normal) == normal
        segments = normal[1:].split(b"/")
        assert b"." not in segments
        assert b".." not in segments
        assert b"" not in segments[:-1]


@given(st.text(string.ascii_letters + string.digits + "-._~", min_size=1, max_size=8))
def test_unreserved_characters_mean_the_same_encoded(word: str) -> None:
    encoded = "".join(f"%{ord(char):02x}" for char in word)
    assert normal_path(f"/x/{encoded}".encode()) == normal_path(f"/x/{word}".encode())


def test_a_target_keeps_its_query() -> None:
    assert with_path(b"/%61?q=1?2", b"/a") == b"/a?q=1?2"
    assert with_path(b"/%61", b"/a") == b"/a"

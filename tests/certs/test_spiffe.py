import pytest
from hypothesis import given
from hypothesis import strategies as st

from certs.spiffe import SpiffeError, SpiffeId

GOOD = [
    "spiffe://cluster.local/ns/shop/sa/prices",
    "spiffe://td",
    "spiffe://td/a",
    "spiffe://td/A.b-c_d/0/...",
    "spiffe://1.2.3.4/x",
    "spiffe://under_score.td/x",
    "spiffe://" + "d" * 255 + "/x",
]
BAD = [
    "",
    "spiffe:",
    "spiffe://",
    "spiffe:///ns/a",
    "SPIFFE://td/a",
    "https://td/a",
    "spiffe://TD/a",
    "spiffe://td:80/a",
    "spiffe://user@td/a",
    "spiffe://td/",
    "spiffe://td/a/",
    "spiffe://td//a",
    "spiffe://td/./a",
    "spiffe://td/a/..",
    "spiffe://td/a?b",
    "spiffe://td/a#b",
    "spiffe://td/a%20b",
    "spiffe://td/\u00fc",
    "spiffe://\u0661/a",
    "spiffe://td/a\n",
    "spiffe://td\n/a",
    " spiffe://td/a",
    "spiffe://" + "d" * 256 + "/x",
    "spiffe://td/" + "a" * 2048,
]


@pytest.mark.parametrize("text", GOOD)
def test_a_well_formed_id_is_read_and_written_back_unchanged(text: str) -> None:
    assert str(SpiffeId.parse(text)) == text


@pytest.mark.parametrize("text", BAD)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(SpiffeError):
        SpiffeId.parse(text)


def test_the_parts_of_a_workload_id() -> None:
    made = SpiffeId.workload("cluster.local", "shop", "prices")
    assert str(made) == "spiffe://cluster.local/ns/shop/sa/prices"
    assert (made.trust_domain, made.namespace, made.service_account) == ("cluster.local", "shop", "prices")


@pytest.mark.parametrize("path", ["", "/ns/a", "/ns/a/sa", "/sa/a/ns/b", "/ns/a/sa/b/c"])
def test_another_shape_has_no_namespace(path: str) -> None:
    assert SpiffeId.parse(f"spiffe://td{path}").namespace is None


@pytest.mark.parametrize(("namespace", "account"), [("", "a"), ("a", ""), ("a/b", "c"), ("..", "c"), ("a", "b c")])
def test_a_workload_id_cannot_be_made_of_bad_names(namespace: str, account: str) -> None:
    with pytest.raises(SpiffeError):
        SpiffeId.workload("td", namespace, account)


@given(st.text(max_size=60) | st.text("spife:/.td%@A", max_size=30).map("spiffe://".__add__))
def test_what_is_accepted_has_one_spelling(text: str) -> None:
    try:
        parsed = SpiffeId.parse(text)
    except SpiffeError:
        return
    assert str(parsed) == text
    assert text.isascii()
    assert "//" not in text[9:]

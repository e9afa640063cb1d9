"""Damaged framing fields by the thousand, and every smuggling vector cut at every byte, through one proxy and two in a row.

What is asked is always the same: the origin sees, to three different parsers, exactly the requests that were answered, or
none; and the honest request behind an attack gets its own answer or none.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from http1_chain import Chain
from http1_judge import Request, same_to_all
from http1_mutations import AFTER, BODY, TARGETS, attack, chunk_games, default, doubles, exhaustive
from http1_play import bytewise, halves

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "http1.json").read_text())["vectors"]
FRAMING = [v for v in VECTORS if v["id"][:2] in ("SM", "CL", "CH")]
FAMILIES = {"default": default, "exhaustive": exhaustive, "doubles": doubles}


def answers(out: bytes) -> list[tuple[int, bytes]]:
    """(status, body) of each; every answer here has a length."""
    found = []
    while out:
        head, end, out = out.partition(b"\r\n\r\n")
        assert end, head
        size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        found.append((int(head[9:12]), out[:size]))
        assert len(out) >= size
        out = out[size:]
    return found


def seen(chain: Chain) -> list[Request]:
    assert [origin.fault for origin in chain.origins] == [""] * len(chain.origins)
    return [request for origin in chain.origins for request in same_to_all(origin.raw)]


def judge(chain: Chain, pieces: list[bytes], what: bytes) -> list[Request]:
    """The requests that reached the origin, each of which is one that was answered, in order."""
    got = answers(chain.feed(pieces))
    requests = seen(chain)
    served = [body for status, body in got if status == 200]
    assert served == [b"echo %b %b %d" % (r.method, r.target, len(r.body)) for r in requests], what
    if len(got) > len(served):  # a refusal is the last answer, and says so
        assert [status for status, _ in got[:-1]] == [200] * (len(got) - 1), what
        assert 400 <= got[-1][0] <= 505, what
        assert chain.closing, what
    return requests


@pytest.mark.parametrize("hops", [1, 2], ids=["one", "two"])
@pytest.mark.parametrize("beside", ["length", "chunked", "alone"])
@pytest.mark.parametrize("name", TARGETS, ids=lambda name: name.decode())
@pytest.mark.parametrize("family", FAMILIES)
def test_a_damaged_framing_field_hides_no_request(family: str, name: bytes, beside: str, hops: int) -> None:
    served = refused = 0
    for mutation in FAMILIES[family](name, TARGETS[name]):
        chain = Chain(hops)
        requests = judge(chain, [attack(mutation, beside)], mutation)
        read = [(r.method, r.target, r.body) for r in requests]
        if not requests:
            assert chain.closing or beside == "alone", mutation  # a length that is larger than what comes
            refused += chain.closing
        elif beside == "alone":  # no framing but the damaged one: what it says is what it says, to everyone alike
            assert read[0][:2] == (b"POST", b"/m"), mutation
            served += 1
        else:
            honest = [(b"POST", b"/m", BODY), (b"GET", b"/after", b"")]
            assert read == honest[: len(read)], mutation
            assert len(read) == 2 or b"close" in mutation.lower(), mutation
            served += 1
    assert refused
    # Not all is refused: a byte may turn the field into another one, which then means nothing and is passed on or dropped.
    assert served or family == "doubles"


@pytest.mark.parametrize("hops", [1, 2], ids=["one", "two"])
def test_a_chunked_body_is_read_as_the_origin_reads_it_or_refused(hops: int) -> None:
    served = refused = 0
    for game in chunk_games():
        chain = Chain(hops)
        requests = judge(chain, [game], game)
        outcome = [(r.target, r.body) for r in requests]
        again = Chain(hops)
        assert [(r.target, r.body) for r in judge(again, bytewise(game), game)] == outcome, game
        served += bool(requests)
        refused += not requests
    assert served
    assert refused > served


def test_the_families_are_as_large_as_the_known_ones() -> None:
    for name, value in TARGETS.items():
        assert [len(make(name, value)) >= size for make, size in ((default, 134), (exhaustive, 668), (doubles, 966))] == [
            True
        ] * 3


def cuts(data: bytes) -> list[list[bytes]]:
    return [[data], bytewise(data), *halves(data)]


@pytest.mark.parametrize("vector", FRAMING, ids=lambda vector: vector["id"])
def test_a_vector_cut_anywhere_has_one_outcome_through_two_proxies(vector: dict[str, str]) -> None:
    data = vector["bytes"].encode("latin-1")
    outcomes = []
    for pieces in cuts(data):
        chain = Chain(2)
        requests = judge(chain, [*pieces, AFTER], pieces[0])
        outcomes.append([(r.method, r.target, r.body, r.trailers) for r in requests])
        if chain.closing:
            assert (b"GET", b"/after", b"", []) not in outcomes[-1]
        else:
            assert outcomes[-1][-1][1] == b"/after"
    assert all(outcome == outcomes[0] for outcome in outcomes)

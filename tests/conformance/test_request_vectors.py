"""The catalogue of HTTP/1.1 requests (tests/vectors/http1.json) sent to real proxies.

The rule is about the bytes the backend saw, not about the status: a refused request never arrives whole, and a served one
arrives in a form that has one reading only, behind one proxy or two and whatever the proxies speak between them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from forward_process import Reader, ask, connect, send

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "http1.json").read_text())["vectors"]
BY_ID = {vector["id"]: vector for vector in VECTORS}
AFTER = b"GET /after HTTP/1.1\r\nHost: after.test\r\nConnection: close\r\n\r\n"

# How many answers.  Where the catalogue leaves a choice (REJ|ONE) the proxy refuses, equal Content-Lengths and zeros before a
# chunk size apart.
SERVED = {
    "SM-25": 1, "SM-26": 1, "CL-01": 1, "CL-03": 1, "CL-10": 1, "CL-17": 1, "CH-15": 1, "CH-17": 1, "CH-18": 1, "CH-24": 2,
    "RL-01": 1, "RL-07": 1, "RL-15": 1, "RL-16": 1, "HB-01": 1, "HB-03": 1, "HB-05": 3, "HB-07": 1,
}  # fmt: skip
CLOSES = {"HB-01"}
ORDERED = {"CH-24": [b"/", b"/smug"], "HB-05": [b"/1", b"/2", b"/3"]}
SMALL_BYTES = 600


def statuses(verdict: str) -> set[int]:
    return {int(number) for number in re.findall(r"\b[45]\d\d\b", verdict)} or {400}


def control(chain) -> None:
    """A request of its own, after which everything the proxies did before has reached the backend."""
    answer = ask(chain.port, "/control")
    assert answer is not None
    assert (answer.status, answer.body) == (200, b"echo GET /control 0")
    chain.backend.settle()


def deliver(chain, pieces: list[bytes], count: int) -> list:
    with connect(chain.port) as sock:
        for piece in pieces:
            send(sock, piece)
        reader = Reader(sock)
        answers = []
        while len(answers) < count:
            answer = reader.answer()
            if answer is None:
                break
            answers.append(answer)
        if len(answers) < count or answers[-1].fields.get(b"connection") == b"close":
            assert reader.at_end(), reader.data[:200]
        return answers


def play(chain, identity: str, pieces: list[bytes], followed: bool) -> None:
    vector = BY_ID[identity]
    served = SERVED.get(identity, 0)
    mark = chain.backend.mark()
    expected = (served or 1) + (1 if followed and served and identity not in CLOSES else 0)
    answers = deliver(chain, pieces, expected)
    control(chain)
    seen = [request for request in chain.backend.since(mark) if request.target != b"/control"]
    if not served:
        assert len(answers) == 1
        assert answers[0].status in statuses(vector["verdict"])
        assert answers[0].fields[b"connection"] == b"close"
        assert answers[0].fields[b"mesh-error"].startswith(b"h1_")
        assert seen == []
        return
    assert len(answers) == expected
    if identity in ORDERED:
        assert [answer.body.split(b" ")[2] for answer in answers[:served]] == ORDERED[identity]
    echoes = {b"echo %b %b %d" % (r.method, r.target, len(r.body)): r for r in seen}  # safe ones may arrive in any order
    assert len(echoes) == len(seen) == len(answers)
    seen = [echoes[answer.body] for answer in answers]
    assert [(answer.status, answer.complete) for answer in answers] == [(200, True)] * expected
    for request in seen[:served]:
        assert request.values(b"host") == [b"svc.test"]
        assert request.values(b"x-secret") == []
        assert request.values(b"upgrade") == request.values(b"http2-settings") == []
        assert all(name == b"x-t" for name, _ in request.trailers)
    if expected > served:
        assert seen[-1].target == b"/after"
        assert seen[-1].values(b"host") == [b"after.test"]


def test_what_is_served_agrees_with_the_catalogue() -> None:
    for vector in VECTORS:
        verdict = vector["verdict"]
        if verdict.startswith("REJ") and "ONE" not in verdict:
            assert vector["id"] not in SERVED
        if verdict.startswith(("ONE", "OK")):
            assert vector["id"] in SERVED


@pytest.mark.parametrize("identity", BY_ID)
def test_a_request_has_its_verdict_when_it_arrives_whole(chain, identity: str) -> None:
    play(chain, identity, [BY_ID[identity]["bytes"].encode("latin-1")], False)


@pytest.mark.parametrize("identity", [i for i, vector in BY_ID.items() if len(vector["bytes"]) <= SMALL_BYTES])
def test_a_request_has_its_verdict_one_byte_a_segment(chain, identity: str) -> None:
    data = BY_ID[identity]["bytes"].encode("latin-1")
    play(chain, identity, [bytes((byte,)) for byte in data], False)


@pytest.mark.parametrize("identity", BY_ID)
def test_the_request_behind_it_gets_its_own_answer_or_none(chain, identity: str) -> None:
    play(chain, identity, [BY_ID[identity]["bytes"].encode("latin-1") + AFTER], True)

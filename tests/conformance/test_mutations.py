"""The families of damaged framing fields sent to real proxies, one and two in a row; see tests/wire/test_http1_mutations.py,
which plays all of them between engines."""

from __future__ import annotations

import random
import socket

from forward_process import Reader, ask, connect, send
from http1_mutations import BODY, TARGETS, attack, default, doubles, exhaustive

BATCH = 50  # connections at once
SAMPLED = 300  # of the two large families; the default one goes whole


def attacks(seed: int) -> list[bytes]:
    found = []
    chance = random.Random(seed)
    for name, value in TARGETS.items():
        for family, count in ((default, 0), (exhaustive, SAMPLED), (doubles, SAMPLED)):
            made = family(name, value)
            picked = chance.sample(made, count) if count else made
            found += [attack(mutation, "chunked" if chance.random() < 0.25 else "length") for mutation in picked]
    return found


def talk(socks: list[socket.socket], sent: list[bytes]) -> list[list]:
    """All of them at once: every answer on each connection, which ends after a refusal and is ended here otherwise."""
    for sock, data in zip(socks, sent, strict=True):
        send(sock, data)
    answered = []
    for sock in socks:
        reader = Reader(sock)
        answers = []
        while len(answers) < 2 and (answer := reader.answer()) is not None:
            answers.append(answer)
        assert len(answers) == 2 or reader.at_end()
        answered.append(answers)
    return answered


def test_no_damaged_field_hides_a_request(chain) -> None:
    todo = attacks(20)
    if chain.name == "tls client":
        todo = todo[::8]  # a handshake each, and nothing that the clear chain does not have
    served = refused = 0
    for at in range(0, len(todo), BATCH):
        mark = chain.backend.mark()
        batch = todo[at : at + BATCH]
        socks = [connect(chain.port) for _ in batch]
        try:
            answered = talk(socks, batch)
        finally:
            for sock in socks:
                sock.close()
        control = ask(chain.port, "/control")
        assert control is not None
        assert control.body == b"echo GET /control 0"
        chain.backend.settle()
        seen = [(r.method, r.target, r.body) for r in chain.backend.since(mark) if r.target != b"/control"]
        for answers in answered:
            if answers[0].status == 400:
                refused += 1
                continue
            served += 1
            assert answers[0].body == b"echo POST /m %d" % len(BODY)
            assert [answer.body for answer in answers[1:]] in ([b"echo GET /after 0"], [])
        posts = sum(answers[0].status == 200 for answers in answered)
        afters = sum(len(answers) == 2 for answers in answered)
        assert sorted(seen) == sorted([(b"POST", b"/m", BODY)] * posts + [(b"GET", b"/after", b"")] * afters)
    assert served
    assert refused > served

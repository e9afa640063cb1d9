"""Fault injection: shares are kept, draws are repeatable, what is out of range is refused."""

from __future__ import annotations

from collections import Counter

import pytest

from meshproxy.policy.fault import FaultPolicy
from meshproxy.policy.random import Rng
from meshproxy.wire.message import Field, Head


def drawn(policy: FaultPolicy, seed: int = 1, draws: int = 100_000) -> Counter[tuple[bool, bool]]:
    rng = Rng(seed)
    counts: Counter[tuple[bool, bool]] = Counter()
    for _ in range(draws):
        fault = policy.draw(rng)
        counts[(fault is not None and fault.delay_s > 0.0, fault is not None and fault.status != 0)] += 1
    return counts


def test_delays_and_aborts_fall_on_their_shares_independently() -> None:
    counts = drawn(FaultPolicy(delay_s=0.2, delay_ppm=100_000, status=500, abort_ppm=200_000))
    assert counts[(True, True)] == pytest.approx(2_000, abs=250)
    assert counts[(True, False)] == pytest.approx(8_000, abs=450)
    assert counts[(False, True)] == pytest.approx(18_000, abs=650)


def test_all_and_none_are_exact() -> None:
    assert drawn(FaultPolicy(delay_s=1.0, delay_ppm=1_000_000), draws=1_000) == {(True, False): 1_000}
    assert drawn(FaultPolicy(abort_ppm=1_000_000), draws=1_000) == {(False, True): 1_000}
    assert drawn(FaultPolicy(delay_s=1.0), draws=1_000) == {(False, False): 1_000}
    assert drawn(FaultPolicy(delay_ppm=1_000_000), draws=1_000) == {(False, False): 1_000}  # no time to delay by


def test_changing_one_share_does_not_move_the_other() -> None:
    def aborted(policy: FaultPolicy) -> list[bool]:
        rng = Rng(9)
        return [(fault := policy.draw(rng)) is not None and fault.status == 503 for _ in range(2_000)]

    with_delay = FaultPolicy(delay_s=1.0, delay_ppm=500_000, abort_ppm=100_000)
    assert aborted(with_delay) == aborted(FaultPolicy(abort_ppm=100_000))


def test_an_abort_says_what_was_declared() -> None:
    fault = FaultPolicy(status=418, abort_ppm=1_000_000, grpc_status=8).draw(Rng(1))
    assert fault is not None
    assert (fault.status, fault.grpc_status, fault.delay_s) == (418, 8, 0.0)


@pytest.mark.parametrize(
    "wrong",
    [{"delay_s": -1.0}, {"delay_s": 61.0}, {"delay_ppm": 1_000_001}, {"abort_ppm": -1}, {"status": 100}, {"grpc_status": 17}],
)
def test_what_is_out_of_range_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="fault: "):
        FaultPolicy(**wrong)


def test_only_requests_with_the_declared_header_are_meant() -> None:
    head = Head()
    head.fields = [Field(b"x-test", b"chaos")]
    other = Head()
    assert FaultPolicy(header="X-Test", value="chaos").matches(head)
    assert not FaultPolicy(header="x-test", value="other").matches(head)
    assert not FaultPolicy(header="x-test", value="chaos").matches(other)
    assert FaultPolicy().matches(other)

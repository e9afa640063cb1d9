"""The books of both arms: what belongs to whom, and that nothing counts twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from control.canary.measuring.ledger import MAX_PODS, Ledger
from control.canary.measuring.source import Subject
from control.canary.measuring.window import Totals, tally

SUBJECT = Subject("test", "podinfo", "podinfo-canary", "podinfo", "podinfo")
INF = float("inf")


def ledger() -> Ledger:
    return Ledger(SUBJECT, 7.0)


def calls(failures: float, *, namespace="test", deployment="podinfo", pod="c-1", service="podinfo-canary") -> Totals:
    return Totals(failed_to={(namespace, deployment, pod, service): failures})


def test_a_failure_that_both_sides_saw_is_one_in_whichever_order_it_is_told():
    for order in (1, -1):
        books = ledger()
        for told in [("podinfo", "c-1", Totals(failure=2)), ("web", "w-1", calls(3))][::order]:
            books.counted("test", *told)
        assert books.arms().canary.failures == 3


def test_a_baseline_has_books_of_its_own_that_are_shown_while_it_is_there():
    books = ledger()
    books.counted("test", "podinfo-baseline", "b-1", Totals(success=5, failure=1))
    books.counted("test", "web", "w-1", calls(3, deployment="podinfo-baseline", pod="b-1", service="podinfo-baseline"))
    assert books.arms().baseline is None
    arms = books.arms(baseline=True)
    assert arms.baseline is not None
    assert (arms.baseline.successes, arms.baseline.failures) == (5, 3)
    assert (arms.canary.requests, arms.primary.requests) == (0, 0)


def test_failures_without_a_pod_are_the_arms_that_was_meant():
    books = ledger()
    books.counted("shop", "web", "w-1", calls(1, pod=""))
    books.counted("shop", "web", "w-1", calls(2, pod="", deployment=""))
    books.counted("shop", "web", "w-1", calls(4, pod="", deployment="", service="podinfo-primary"))
    books.counted("shop", "web", "w-1", calls(8, pod="", deployment="", service="podinfo"))  # the apex: nobody's in particular
    books.counted("shop", "web", "w-1", calls(16, namespace="prod"))
    assert (books.arms().canary.failures, books.arms().primary.failures) == (3, 4)


def test_pods_of_the_same_name_elsewhere_are_not_the_arms():
    books = ledger()
    books.counted("prod", "podinfo", "c-1", Totals(success=5, failure=5))
    assert books.arms().canary.requests == 0


def test_coarse_latency_is_of_what_was_not_answered_with_5xx():
    books, page = ledger(), Totals()
    for status, count in (("200", 3.0), ("404", 1.0), ("503", 9.0)):
        for le in ("5", "+Inf"):
            labels = {"direction": "inbound", "status_code": status, "le": le}
            tally(page, "response_latency_ms_bucket", labels, count if le == "+Inf" else count - 1)
    books.counted("test", "podinfo", "c-1", page)
    assert books.arms().canary.latency == ((5.0, 2), (INF, 2))


def test_pods_beyond_the_bound_are_told_apart_no_longer_and_still_counted():
    books = ledger()
    for number in range(2 * MAX_PODS):
        books.counted("test", "podinfo", f"c-{number}", Totals(failure=1))
        books.counted("test", "web", "w-1", calls(1, pod=f"c-{number}"))
    assert books.arms().canary.failures == 2 * MAX_PODS


def test_beginning_anew_keeps_totals_and_forbids_to_compare_across():
    books = ledger()
    books.counted("test", "podinfo", "c-1", Totals(success=5))
    before = books.arms()
    books.begin_anew(8.0)
    after = books.arms()
    assert (after.canary.successes, after.canary.since(before.canary)) == (5, None)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["own", "seen", "nowhere"]), st.sampled_from(["c-1", "c-2"]), st.integers(min_value=1, max_value=9)
        ),
        max_size=40,
    )
)
def test_totals_never_fall_and_no_failure_is_lost_or_counted_twice(told):
    books, last = ledger(), 0
    own, seen, nowhere = {}, {}, 0
    for kind, pod, count in told:
        if kind == "own":
            own[pod] = own.get(pod, 0) + count
            books.counted("test", "podinfo", pod, Totals(failure=count))
        elif kind == "seen":
            seen[pod] = seen.get(pod, 0) + count
            books.counted("shop", "web", "w-1", calls(count, pod=pod))
        else:
            nowhere += count
            books.counted("shop", "web", "w-1", calls(count, pod=""))
        failures = books.arms().canary.failures
        assert failures >= last
        last = failures
    least, most = max(sum(own.values()), sum(seen.values())), sum(own.values()) + sum(seen.values())
    assert least <= last - nowhere <= most
    assert books.arms().primary.failures == 0

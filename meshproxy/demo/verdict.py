"""Was it observed?  Pure functions from what was written down to findings; the demo succeeds only if all are good.

    Observed ----> one function a claim ----> Finding(claim, ok, detail)

    client ledger    (Request)   what visitors saw
    service ledger   (Handled)   what the apps handled: they are counted, not the proxies' own metrics
    timeline         (Moment)    the canary's phase and the split's weights, as stored

A claim that could not be tested, for want of requests, is not true: each has its minimum.

**Shares.**  The mesh draws from shuffled blocks, so shares are closer to the weights than chance would be.  What is demanded is
only that chance alone would not be further off but once in a million (ALPHA, two-sided, exact binomial): a sound mesh
is not failed by bad luck, and one that ignores the weights is caught with the requests of one step.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from meshproxy.demo.chance import ALPHA, binomial_at_most, plausible
from meshproxy.demo.ledger import Handled
from meshproxy.demo.observed import Observed, since, steps

GUARD_S = 0.6  # around a change of weights: the change travels from the store to each proxy, and requests are under way
MIN_REQUESTS = 200  # of the whole run
MIN_STEP = 40  # of one step of a release: with fewer, hardly any share would be out of bounds
MIN_SLOW = 100  # to judge the slow replica's share
MIN_KILL = 40  # after a replica was killed
MIN_RELAYED_BYTES = 2_000  # each way through the recording relay: far more than a handshake
ROLLBACK_INTERVALS = 3
BUSY = 3.0  # load for each processor: from here on what takes 10 ms takes 30 and more


@dataclass(frozen=True, slots=True)
class Finding:
    """judged: False where another claim that does not hold leaves nothing to judge; it is not ok then either."""

    claim: str
    ok: bool
    detail: str
    judged: bool = True


def _of(handled: Iterable[Handled], service: str) -> dict[str, list[Handled]]:
    """The lines of one service by request id."""
    lines: dict[str, list[Handled]] = {}
    for line in handled:
        if line.service == service:
            lines.setdefault(line.id, []).append(line)
    return lines


def _some(items: Iterable[str], limit: int = 3) -> str:
    """A few examples for a message."""
    listed = sorted(set(items))
    return ", ".join(listed[:limit]) + (f" and {len(listed) - limit} more" if len(listed) > limit else "")


# ---------------------------------------------------------------- the claims


def failures_are_v3s(observed: Observed) -> Finding:
    """Client failures = failures counted at v3 pods, and none else; and v3 did fail."""
    claim = "clients saw the failures of catalogue v3 and no others"
    failed = {request.id for request in observed.requests if not request.ok}
    faults = {line.id for line in observed.handled if line.service == "catalogue" and line.version == "v3" and not line.ok}
    # web's 502 is the same failure passed on; anything else an app counted as failed is somebody else's.
    elsewhere = {line.id for line in observed.handled if not line.ok} - faults
    if len(observed.requests) < MIN_REQUESTS:
        return Finding(claim, False, f"only {len(observed.requests)} requests were sent, {MIN_REQUESTS} are needed")
    if failed - faults:
        first = next(request for request in observed.requests if not request.ok and request.id not in faults)
        return Finding(
            claim, False, f"{len(failed - faults)} failed for another reason; {first.id}: {first.status} {first.error}".rstrip()
        )
    if faults - failed:
        return Finding(claim, False, f"{len(faults - failed)} failures of v3 never reached a client: {_some(faults - failed)}")
    if elsewhere:
        return Finding(claim, False, f"apps other than catalogue v3 failed requests: {_some(elsewhere)}")
    if not faults:
        return Finding(claim, False, "catalogue v3 failed no request, though it was told to fail 20 %")
    return Finding(
        claim,
        True,
        f"{len(observed.requests)} requests, {len(failed)} failed at clients, {len(faults)} at v3 pods, the same ones",
    )


def every_request_is_in_both_ledgers(observed: Observed) -> Finding:
    """A reply with a path passed exactly these pods, according to the pods; and no app saw a request nobody sent.

    Nothing is asked twice, with one exception: a GET that was under way in the web replica when that was killed may be
    repeated once by the gateway, and its first life may have got as far as the catalogue."""
    claim = "each reply's path is what the services wrote down"
    seen = {(line.id, line.service, line.pod, line.version) for line in observed.handled}
    missing = [
        f"{request.id} at {hop.pod}"
        for request in observed.requests
        for hop in request.path
        if (request.id, hop.service, hop.pod, hop.version) not in seen
    ]
    sent = {request.id for request in observed.requests}
    unknown = {line.id for line in observed.handled} - sent
    ok = [request for request in observed.requests if request.ok]
    short = [request.id for request in ok if [hop.service for hop in request.path] != ["web", "catalogue", "prices"]]
    kill = observed.kill
    repeated = {r.id for r in observed.requests if kill is not None and r.sent <= kill.at <= r.done}
    asked = {key: len(lines) for key, lines in _of(observed.handled, "catalogue").items()}
    twice = [f"{key} x{count}" for key, count in asked.items() if count > (2 if key in repeated else 1)]
    if not ok:
        return Finding(claim, False, "no request succeeded")
    if missing:
        return Finding(claim, False, f"not in the services' ledger: {_some(missing)}")
    if unknown:
        return Finding(claim, False, f"services handled requests that no client sent: {_some(unknown)}")
    if short:
        return Finding(claim, False, f"replies whose path is not web, catalogue, prices: {_some(short)}")
    if twice:
        return Finding(claim, False, f"the catalogue was asked more than once: {_some(twice)}")
    return Finding(claim, True, f"{len(ok)} replies with {3 * len(ok)} hops, all of them confirmed")


def identities_are_verified(observed: Observed) -> Finding:
    """Every app saw the identity its caller must have, in every request: in replies and in the services' ledger."""
    claim = "every app saw its caller's verified identity"
    domain = f"spiffe://{observed.trust_domain}/ns"
    expected = {
        "web": f"{domain}/meshproxy/sa/gateway",
        "catalogue": f"{domain}/shop/sa/web",
        "prices": f"{domain}/shop/sa/catalogue",
    }
    echoed = [(hop.service, hop.peer) for request in observed.requests for hop in request.path]
    noted = [(line.service, line.peer) for line in observed.handled]
    counts = Counter(echoed)
    wrong = {pair for pair in [*echoed, *noted] if pair[1] != expected.get(pair[0])}
    if wrong:
        service, peer = sorted(wrong)[0]
        return Finding(
            claim, False, f"{service} was called by {peer or 'nobody it could name'}, expected {expected.get(service)}"
        )
    if set(counts) != set(expected.items()):
        return Finding(claim, False, f"no reply passed {_some(set(expected) - {service for service, _ in counts})}")
    return Finding(claim, True, f"{len(echoed)} hops echoed, {len(noted)} ledger lines")


def shares_follow_weights(observed: Observed, version: str, weights: Sequence[int]) -> Finding:
    """At each step the new version's share, counted at the services, is within the binomial bound of its weight."""
    claim = f"catalogue {version}: its share of requests followed its weight"
    catalogue = _of(observed.handled, "catalogue")
    found = [step for step in steps(observed.timeline) if step.version == version]
    told = []
    for weight in weights:
        step = next((step for step in found if step.weight == weight), None)
        if step is None and since(observed.timeline, version, "Failed") is not None:
            return Finding(claim, False, f"{version} was taken back before its step of {weight} %", judged=False)
        if step is None:
            return Finding(claim, False, f"the step of {weight} % was not seen; seen: {[s.weight for s in found]}")
        within = [r for r in observed.requests if step.start + GUARD_S <= r.sent <= step.end - GUARD_S]
        lines = [catalogue[r.id][0] for r in within if r.id in catalogue]
        n, k = len(lines), sum(line.version == version for line in lines)
        if n < MIN_STEP:
            return Finding(claim, False, f"at {weight} % only {n} requests were counted, {MIN_STEP} are needed")
        if not plausible(k, n, weight / 100):
            return Finding(claim, False, f"at {weight} % it got {k} of {n} requests ({100 * k / n:.1f} %): not by chance")
        told.append(f"{weight} %: {k} of {n}")
    unexpected = [step.weight for step in found if step.weight not in weights]
    if unexpected:
        return Finding(claim, False, f"steps of {unexpected} % were seen, which nobody asked for")
    return Finding(claim, True, ", ".join(told))


def v2_is_promoted(observed: Observed) -> Finding:
    """The release of v2 succeeded, and from then until v3's first step every request was served by v2."""
    claim = "catalogue v2 was promoted and got all traffic"
    at = since(observed.timeline, "v2", "Succeeded")
    if at is None:
        why = next((m.why for m in observed.timeline if m.version == "v2" and m.why), "")
        told = f"never succeeded; phases seen: {_phases(observed, 'v2')}"
        return Finding(claim, False, told + (f"; its last failed check: {why}" if why else ""))
    until = min((step.start for step in steps(observed.timeline) if step.version == "v3"), default=math.inf)
    return _all_on_v2(observed, claim, at, until)


def v3_is_rolled_back(observed: Observed) -> Finding:
    """The release of v3 failed within three intervals of the first failure, and all traffic is on v2 again."""
    claim = "catalogue v3 was rolled back in time, to v2"
    failures = [line.at for line in observed.handled if line.service == "catalogue" and line.version == "v3" and not line.ok]
    at = since(observed.timeline, "v3", "Failed")
    if not failures:
        return Finding(claim, False, "v3 failed no request")
    if at is None:
        return Finding(claim, False, f"never failed; phases seen: {_phases(observed, 'v3')}")
    moved = next((m.at for m in observed.timeline if m.version == "v3" and m.at > min(failures) and m.weight == 0), None)
    if moved is None:
        return Finding(claim, False, "its share was never taken back")
    took, allowed = moved - min(failures), ROLLBACK_INTERVALS * observed.interval
    if took > allowed:
        return Finding(claim, False, f"{took:.1f} s after its first failure; {ROLLBACK_INTERVALS} intervals are {allowed:g} s")
    if since(observed.timeline, "v2", "Succeeded") is None:
        return Finding(claim, False, "v2 was not promoted, so there is no v2 to go back to", judged=False)
    back = _all_on_v2(observed, claim, moved, math.inf)
    return Finding(
        claim, back.ok, f"{took:.1f} s ({took / observed.interval:.1f} intervals) after its first failure; {back.detail}"
    )


def _all_on_v2(observed: Observed, claim: str, start: float, end: float) -> Finding:
    catalogue = _of(observed.handled, "catalogue")
    within = [r for r in observed.requests if start + GUARD_S <= r.sent <= end - GUARD_S]
    versions = Counter(line.version for r in within for line in catalogue.get(r.id, []))
    if versions.total() < MIN_STEP:
        return Finding(claim, False, f"only {versions.total()} requests were counted afterwards, {MIN_STEP} are needed")
    if set(versions) != {"v2"}:
        return Finding(claim, False, f"afterwards requests went to {dict(versions)}")
    return Finding(claim, True, f"{versions['v2']} requests afterwards, all on v2")


def _phases(observed: Observed, version: str) -> str:
    return " -> ".join(dict.fromkeys(m.phase for m in observed.timeline if m.version == version)) or "none"


def slow_replica_is_avoided(observed: Observed) -> Finding:
    """The slow replica's share is below its fair share by more than chance, and the others took what it lost."""
    claim = "the slow prices replica got less than its share"
    start, end = observed.slow_window
    counts = Counter(line.pod for line in observed.handled if line.service == "prices" and start <= line.at <= end)
    n, k = counts.total(), counts[observed.slow_pod]
    told = ", ".join(f"{pod} {counts[pod]}" for pod in sorted(observed.prices_pods))
    if n < MIN_SLOW or not observed.slow_pod:
        return Finding(claim, False, f"only {n} calls were counted, {MIN_SLOW} are needed")
    idle = [pod for pod in observed.prices_pods if not counts[pod]]  # also the slow one: not slow, but never tried
    if idle:
        return Finding(claim, False, f"{_some(idle)} got nothing at all ({told})")
    if binomial_at_most(k, n, 1 / len(observed.prices_pods)) > ALPHA:
        return Finding(claim, False, f"it got {k} of {n}, no clear difference from 1 in {len(observed.prices_pods)} ({told})")
    return Finding(
        claim, True, f"{k} of {n} calls, {100 * k / n:.1f} %; a fair share is {100 / len(observed.prices_pods):.0f} % ({told})"
    )


def kill_goes_unnoticed(observed: Observed) -> Finding:
    """The replica was serving when it was killed, and no request under way then or sent in the seconds after failed."""
    claim = "a web replica was killed and no client noticed"
    kill = observed.kill
    if kill is None:
        return Finding(claim, False, "no replica was killed")
    before = sum(line.pod == kill.pod and line.at <= kill.at for line in observed.handled)
    around = [r for r in observed.requests if r.done >= kill.at and r.sent <= kill.until]
    failed = [r for r in around if not r.ok]
    if not kill.ended:
        return Finding(claim, False, f"the process of {kill.pod} did not end")
    if not before:
        return Finding(claim, False, f"{kill.pod} had served nothing before")
    if len(around) < MIN_KILL:
        return Finding(claim, False, f"only {len(around)} requests were sent afterwards, {MIN_KILL} are needed")
    if failed:
        first = f"{failed[0].id}: {failed[0].status} {failed[0].error}"
        return Finding(claim, False, f"{len(failed)} of {len(around)} requests failed; {first}")
    return Finding(claim, True, f"{kill.pod} had served {before} calls; {len(around)} requests around its end, none failed")


def wire_is_encrypted(observed: Observed) -> Finding:
    """Traffic passed the relay, the marker was in it (the pod behind it read it), and no byte of the marker was on the wire."""
    claim = "a recorded hop shows nothing of what passed it"
    recording = observed.recording
    arrived = sum(line.pod == recording.pod and line.note == observed.marker for line in observed.handled)
    told = f"{recording.sent} bytes to {recording.pod or 'no pod'}, {recording.received} back"
    if not observed.marker:
        return Finding(claim, False, "no marker was sent")
    if min(recording.sent, recording.received) < MIN_RELAYED_BYTES:
        return Finding(claim, False, f"too little passed the relay to say so: {told}")
    if not arrived:
        return Finding(claim, False, f"the marker never arrived at {recording.pod}")
    if recording.leaks:
        return Finding(claim, False, f"the marker stands {recording.leaks} times in {told}")
    return Finding(claim, True, f"{told}; the marker arrived {arrived} times and is nowhere in them")


def intruders_are_refused(observed: Observed) -> Finding:
    """Every call that must be refused was tried and refused."""
    claim = "plaintext and a forged certificate were refused"
    let_in = [intrusion for intrusion in observed.intrusions if not intrusion.refused]
    if let_in:
        return Finding(claim, False, "; ".join(f"{intrusion.what}: {intrusion.detail}" for intrusion in let_in))
    if len(observed.intrusions) < observed.expected_intrusions:
        return Finding(claim, False, f"{len(observed.intrusions)} of {observed.expected_intrusions} calls were tried")
    return Finding(claim, True, "; ".join(f"{intrusion.what}: {intrusion.detail}" for intrusion in observed.intrusions))


CLAIMS: tuple[Callable[[Observed], Finding], ...] = (
    slow_replica_is_avoided,
    kill_goes_unnoticed,
    wire_is_encrypted,
    intruders_are_refused,
    identities_are_verified,
    lambda observed: shares_follow_weights(observed, "v2", observed.steps),
    v2_is_promoted,
    lambda observed: shares_follow_weights(observed, "v3", observed.steps[:1]),
    v3_is_rolled_back,
    every_request_is_in_both_ledgers,
    failures_are_v3s,
)


def count(findings: Sequence[Finding]) -> str:
    """The last line: how many hold."""
    broken = sum(not finding.ok and finding.judged for finding in findings)
    unjudged = sum(not finding.judged for finding in findings)
    if not broken and not unjudged:
        return f"All {len(findings)} claims hold."
    told = f"{broken} of {len(findings)} claims {'does' if broken == 1 else 'do'} not hold"
    return told + (f", {unjudged} could not be judged for that." if unjudged else ".")


def busy(load: float, processors: int) -> str:
    """A hint for whoever has to find out why; "" if the machine had time.  `load`: of the last minute.  A quiet machine of two
    processors has 2 to 3 during the demo."""
    if load <= BUSY * processors:
        return ""
    return (
        f"This machine is busy (load {load:.0f}, processors {processors}): services are slow then, and a release whose requests"
        " take over a second is taken back, as it should be. Try again when it has less to do."
    )


def judge(observed: Observed) -> list[Finding]:
    """All findings, in the order of the scenes."""
    return [claim(observed) for claim in CLAIMS]

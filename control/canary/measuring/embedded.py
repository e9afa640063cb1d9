"""The mesh as its own metric source: the control plane reads the proxies' /metrics, once a second, while a release runs.

    store -> meshed pods -> GET http://<podIP>:4191/metrics -> PodWindow a pod -> measure()     what is known now
                                                            -> Ledger a release -> counts()     as of a look

Each pod is asked by itself: it has one question at most, which it may take seconds to answer (a proxy on a saturated machine
does), while all others are asked and heard again.

request-success-rate  = 100 * success / (success + failure + unreached)
    success, failure    inbound response_total at the target's pods, by `classification`
    unreached           failures that callers counted and no target pod did, because the request never got there (connection
                        refused, reset, timed out).  Per target pod: max(0, outbound failures to it at all callers - its own
                        inbound failures): a failure seen on both sides is one failure.  Failures with no pod named, to the
                        canary's Service or Deployment (no endpoint to choose), count whole.
    Callers outside the mesh are not seen; their requests that reached a pod are in its inbound numbers.
request-duration      = p99 of inbound response_latency_ms_bucket at the target's pods, milliseconds

A look: both arms as of one moment, taken when every pod of both has answered a question that was put after the look before.
    What comes late delays a look, and with it the news of both arms alike; it never makes one arm's news older than the
    other's.  Else an outage of what both share would be seen in the arm that answers first only, and be evidence of harm.
    Nobody else is waited for: what a caller saw fail, it saw of both arms, and its page brings both at the same moment.
    A pod of an arm that is silent for longer (STALE_S) is lost: see _lose_silent.

Only pods that exist now and are not terminating count, so a previous revision's numbers never mix with this one's.
Nothing is scraped while no release runs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from control.canary.declared.commands import from_rfc3339
from control.canary.declared.metric import DURATION, SUCCESS_RATE, Kind
from control.canary.machine.analysis import Measurement
from control.canary.measuring.ledger import Ledger
from control.canary.measuring.source import Arms, MetricSource, Query, Subject
from control.canary.measuring.window import FINE, RESPONSES, PodWindow, Totals, quantile
from control.runtime.layout import ADMIN_PORT, ANNOTATION_PROXY, LABEL_DEPLOYMENT
from control.store.store import Object, Store

log = logging.getLogger(__name__)

INTERVAL_S = 1.0  # between scrapes: a check every 2 s must rest on more than one sample
HURRY_S = 0.5  # ... while evidence is gathered: three bad looks roll a release back (evidence/sequence.py)
STALE_S = 5.0  # a pod not heard of for this long has no present numbers
CONNECT_S = 0.9  # the kernel takes a connection for a proxy that is busy; where none is taken, nobody is there
# Of one answer: later ones would be stale.  To give up earlier is to be told nothing by a busy proxy.
TIMEOUT_S = STALE_S - INTERVAL_S
LOOK_STALE_S = 2 * TIMEOUT_S + INTERVAL_S  # a look waits for questions put after the one before: two answers may lie between
MAX_PODS = 500  # asked at a time, by a connection each; more is not "embedded", use Prometheus
MAX_PAGE_BYTES = 8 << 20  # of one page; a bounded proxy stays far below
PATH = "/metrics?" + "&".join(f"name[]={family}" for family in (RESPONSES, "response_latency_ms", FINE))
ANNOTATION_TERMINATING = "meshproxy.dev/terminating-since"  # the embedded runtime's metadata.deletionTimestamp

PodKey = tuple[str, str]  # namespace, name


@dataclass(slots=True)
class _Release:
    """One that is watched."""

    ledger: Ledger
    pods: dict[str, list[PodKey]] = field(default_factory=dict)  # Deployment of an arm -> those that exist
    arms: Arms | None = None  # as of the last look
    looked: int = 0  # number of the last look, see EmbeddedSource._number
    looked_at: float = 0.0


class EmbeddedSource(MetricSource):
    """`await source.run()` gathers until cancelled; `measure` answers from memory.

    `address(pod)` gives host:port of a pod's admin listener; by default its podIP and 4191."""

    def __init__(self, store: Store, clock: Callable[[], float], address: Callable[[Object], str] | None = None) -> None:
        self._store = store
        self._clock = clock
        self._address = address or admin_address
        self._subjects: frozenset[Subject] = frozenset()
        self._watching_since: float | None = None
        self._alive: dict[PodKey, str] = {}  # pods that are not leaving -> uid
        self._pods: dict[PodKey, PodWindow] = {}  # those of them that were heard of
        self._releases: dict[Subject, _Release] = {}
        self._number = 0  # of questions and looks, in their order
        self._asked: dict[PodKey, int] = {}  # those that have a question to answer, and its number
        self._answered: dict[PodKey, int] = {}  # number of the last question that was answered
        self._interval_s = INTERVAL_S
        self._wake = asyncio.Event()
        self.scrapes = 0
        self.scrape_failures = 0

    # -- the question

    def watch(self, subjects: Collection[Subject]) -> None:
        wanted = frozenset(subjects)
        if wanted and not self._subjects:
            self._watching_since = self._clock()
        if not wanted:
            self._watching_since = None
            self._pods.clear()
        self._releases = {
            subject: self._releases.get(subject) or _Release(Ledger(subject, self._clock())) for subject in wanted
        }
        self._subjects = wanted
        self._wake.set()

    def hurry(self, subjects: Collection[Subject]) -> None:
        self._interval_s = HURRY_S if subjects else INTERVAL_S

    async def measure(self, query: Query) -> Measurement:
        now = self._clock()
        subject = query.subject
        if query.metric.kind is not Kind.BUILT_IN:
            return Measurement(reason="it is PromQL, and there is no Prometheus: give spec.metricsServer", error=True)
        if self._watching_since is None or subject not in self._subjects:
            return Measurement(reason="the metric source has just been asked to watch it", warming=True)
        deployment, service = query.whose
        pods = [pod for pod in self._meshed_pods() if _is_in(pod, subject.namespace, deployment)]
        if not pods:
            return Measurement(reason=f"no pod of {deployment}.{subject.namespace} has a proxy")
        windows = {pod_key(pod): self._pods.get(pod_key(pod)) for pod in pods}
        fresh = {key: window for key, window in windows.items() if window and _is_fresh(window, now)}
        if not fresh:
            if now - self._watching_since < STALE_S:
                return Measurement(reason="the metric source is starting", warming=True)
            return Measurement(reason=f"no proxy of {deployment}.{subject.namespace} answered in {STALE_S:g} s")
        inbound = Totals()
        seen: dict[PodKey, Totals] = {}
        for key, window in fresh.items():
            counted = window.over(now, query.window_s)
            if counted is not None:
                seen[key] = counted
                inbound.add(counted)
        if not seen:
            return Measurement(reason="the metric source is starting", warming=True)
        if query.metric.name == SUCCESS_RATE:
            unreached = self._unreached((subject.namespace, deployment, service), seen, windows, now, query.window_s)
            total = inbound.success + inbound.failure + unreached
            if not total:
                return Measurement(requests=0, reason=f"no request in {query.window_s:g} s")
            return Measurement(100.0 * inbound.success / total, total)
        if query.metric.name == DURATION:
            value = quantile(0.99, inbound.buckets.items())
            count = max(inbound.buckets.values(), default=0.0)
            if value is None:
                return Measurement(requests=0, reason=f"no request in {query.window_s:g} s")
            return Measurement(value, count)
        return Measurement(reason=f"unknown metric {query.metric.name}", error=True)

    async def counts(self, subject: Subject) -> Arms | None:
        release = self._releases.get(subject)
        return release.arms if release is not None and self._clock() - release.looked_at <= LOOK_STALE_S else None

    def _unreached(
        self,
        whose: tuple[str, str, str],
        seen: Mapping[PodKey, Totals],
        pods: Collection[PodKey],
        now: float,
        window_s: float,
    ) -> float:
        """Failures callers saw that no target pod counted (see the top of this file).  `whose`: namespace, Deployment,
        Service."""
        home, own_deployment, own_service = whose
        outbound: dict[str, float] = {}
        homeless = 0.0
        for window in self._pods.values():
            counted = window.over(now, window_s) if _is_fresh(window, now) else None
            if counted is None:
                continue
            for (namespace, deployment, pod, service), failures in counted.failed_to.items():
                if namespace != home or failures <= 0:
                    continue
                if (namespace, pod) in pods:
                    outbound[pod] = outbound.get(pod, 0.0) + failures
                elif not pod and (deployment == own_deployment or (not deployment and service == own_service)):
                    homeless += failures
        excess = 0.0
        for pod, failures in outbound.items():
            own = seen.get((home, pod))
            excess += max(0.0, failures - (own.failure if own else 0.0))
        return excess + homeless

    # -- gathering

    async def run(self) -> None:
        """Ask while something is watched; returns only by cancellation."""
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S, sock_connect=CONNECT_S)
        connector = aiohttp.TCPConnector(limit=MAX_PODS)
        async with (
            aiohttp.ClientSession(timeout=timeout, connector=connector, trust_env=False) as session,
            asyncio.TaskGroup() as asking,
        ):
            while True:
                if not self._subjects:
                    self._wake.clear()
                    await self._wake.wait()
                    continue
                for pod in self._due():
                    asking.create_task(self._scrape_pod(session, pod))
                await asyncio.sleep(self._interval_s)

    async def scrape(self, session: aiohttp.ClientSession) -> None:
        """Ask every pod that is due, and wait for the answers."""
        await asyncio.gather(*(self._scrape_pod(session, pod) for pod in self._due()))
        self._lose_silent()

    def _due(self) -> list[Object]:
        """The pods that have no question to answer; forgets those that are gone."""
        pods = self._meshed_pods()[:MAX_PODS]
        arms: dict[tuple[str, str], list[PodKey]] = {}
        for pod in pods:
            arms.setdefault((pod_key(pod)[0], deployment_of(pod)), []).append(pod_key(pod))
        alive = {pod_key(pod): _uid(pod) for pod in pods}
        for key in [key for key, uid in self._alive.items() if alive.get(key) != uid]:
            self._pods.pop(key, None)
            self._answered.pop(key, None)
        self._alive = alive
        for subject, release in self._releases.items():
            names = (subject.deployment, subject.primary, subject.baseline)
            release.pods = {name: arms.get((subject.namespace, name), []) for name in names}
        self._lose_silent()
        return [pod for pod in pods if pod_key(pod) not in self._asked]

    async def _scrape_pod(self, session: aiohttp.ClientSession, pod: Object) -> None:
        key = pod_key(pod)
        self._number += 1
        self._asked[key] = number = self._number
        try:
            page = await self._page(session, pod)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self.scrape_failures += 1
            log.debug("scraping %s/%s: %s", *key, error)
            return
        finally:
            self._asked.pop(key, None)
        self.scrapes += 1
        if self._watching_since is None or self._alive.get(key) != _uid(pod):
            return  # told to rest meanwhile; or the pod has left, and its window with all it had counted: not to begin again
        try:
            self._take_in(key, pod, page, number)
        except Exception:  # a page that we cannot read must not end the control plane; counted, logged with its trace
            self.scrape_failures += 1
            log.exception("the page of %s/%s", *key)

    def _take_in(self, key: PodKey, pod: Object, page: str, number: int) -> None:
        assert self._watching_since is not None
        window = self._pods.get(key)
        if window is None:
            window = self._pods[key] = PodWindow(newborn=_born(pod) > self._watching_since)
        gained = window.page(self._clock(), page)
        self._answered[key] = number
        deployment = deployment_of(pod)
        for subject, release in self._releases.items():
            release.ledger.counted(key[0], deployment, key[1], gained)
            if gained.failed_to or key in release.pods.get(deployment, ()):
                self._look(subject, release)

    async def _page(self, session: aiohttp.ClientSession, pod: Object) -> str:
        """Raises aiohttp.ClientError, TimeoutError or OSError."""
        async with session.get(f"http://{self._address(pod)}{PATH}") as answer:
            if answer.status != 200:
                raise aiohttp.ClientError(f"HTTP {answer.status}")
            page = await answer.content.read(MAX_PAGE_BYTES)
            while more := await answer.content.read(MAX_PAGE_BYTES):
                page += more
                if len(page) > MAX_PAGE_BYTES:
                    raise aiohttp.ClientError(f"more than {MAX_PAGE_BYTES} bytes")
        return page.decode("utf-8", "replace")

    # -- looks

    def _look(self, subject: Subject, release: _Release) -> None:
        """After an answer: if it was the last that was waited for, both arms are known as of now."""
        heard = {name: [key for key in pods if key in self._pods] for name, pods in release.pods.items()}
        if not heard.get(subject.deployment) or not heard.get(subject.primary):
            return
        news = {self._answered.get(key, 0) > release.looked for pods in heard.values() for key in pods}
        if news == {True}:
            self._number += 1
            release.looked, release.looked_at = self._number, self._clock()
        elif news != {False} or release.arms is None:  # some have answered: the arms are not as of one moment
            return
        release.arms = release.ledger.arms(baseline=bool(heard[subject.baseline]))  # with what a caller told after the look

    def _lose_silent(self) -> None:
        """A pod of an arm that was heard of and does not answer any more: callers' failures at it are known and its successes
        are not, and to leave it out would be to leave out the worst of that arm.  The arms are unknown until it answers, or is
        gone, and nothing is compared across that gap."""
        now = self._clock()
        for release in self._releases.values():
            windows = [self._pods.get(key) for pods in release.pods.values() for key in pods]
            if any(window is not None and not _is_fresh(window, now) for window in windows):
                release.ledger.begin_anew(now)
                release.arms = None

    def _meshed_pods(self) -> list[Object]:
        """Pods with a proxy, an address, and no deletion under way; those asked about first, so that a bound on the number
        of pods never costs the ones that matter."""
        pods = [pod for pod in self._store.list("", "Pod") if is_meshed(pod)]
        return sorted(pods, key=lambda pod: not any(is_of(pod, subject) for subject in self._subjects))


def _uid(pod: Object) -> str:
    return str(pod["metadata"].get("uid") or "")


def admin_address(pod: Object) -> str:
    return f"{pod['status']['podIP']}:{ADMIN_PORT}"


def pod_key(pod: Object) -> PodKey:
    metadata = pod["metadata"]
    return metadata.get("namespace") or "default", metadata["name"]


def is_of(pod: Mapping[str, Any], subject: Subject) -> bool:
    return _is_in(pod, subject.namespace, subject.deployment)


def deployment_of(pod: Mapping[str, Any]) -> str:
    """ "" if no Deployment owns it."""
    return str((pod["metadata"].get("labels") or {}).get(LABEL_DEPLOYMENT) or "")


def _is_in(pod: Mapping[str, Any], namespace: str, deployment: str) -> bool:
    return (pod["metadata"].get("namespace") or "default") == namespace and deployment_of(pod) == deployment


def is_meshed(pod: Mapping[str, Any]) -> bool:
    """It has a proxy and an address, and is not being deleted."""
    metadata = pod["metadata"]
    annotations = metadata.get("annotations") or {}
    if metadata.get("deletionTimestamp") or ANNOTATION_TERMINATING in annotations:
        return False
    return bool((pod.get("status") or {}).get("podIP")) and annotations.get(ANNOTATION_PROXY) == "true"


def _born(pod: Mapping[str, Any]) -> float:
    """When the pod was created; 0 if unknown, which makes its first page a baseline (counts too little, never too much)."""
    text = pod["metadata"].get("creationTimestamp") or (pod.get("status") or {}).get("startTime")
    try:
        return from_rfc3339(text) if text else 0.0
    except ValueError:
        return 0.0


def _is_fresh(window: PodWindow, now: float) -> bool:
    return window.last_seen is not None and now - window.last_seen <= STALE_S

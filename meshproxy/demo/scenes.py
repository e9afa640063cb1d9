"""The acts, in order.  Each is data: a title, what it shows, and what is done; what came of it is judged at the end.

the shop opens -> the slow replica -> the recorded hop -> the intruders -> the killed replica -> v2 -> v3 -> (verdict)
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from certs.spiffe import SpiffeId
from control.runtime.layout import INBOUND_PORT
from control.runtime.meshes import alive, start_time
from meshproxy.demo import intruders, verdict
from meshproxy.demo.mesh import Pod, Stalled
from meshproxy.demo.observed import Kill
from meshproxy.demo.relay import Relay
from meshproxy.demo.scratch import RELAY_SLICE, V2, relay_manifest
from meshproxy.demo.stage import Stage

PRICES_PORT = 9090
RELAY_HOST = 240  # of the mesh's /24; pods are numbered from 10 up
READY_S = 90.0
SLOW_S = 8.0
KILL_S = 5.0
RECENT_S = 5.0  # of the ledger, to see which replica is busy


@dataclass(frozen=True, slots=True)
class Scene:
    title: str
    explain: str
    run: Callable[[Stage], Awaitable[None]]


async def the_shop_opens(stage: Stage) -> None:
    stage.view.say(f"meshproxy up {stage.scratch.directory} --name {stage.mesh.name}")
    await stage.open()
    info = stage.mesh.info
    stage.view.say(
        f"addresses {info.prefix}.0/24, trust domain {info.trust_domain}; the shop starts, each pod with its sidecar"
    )

    def opened() -> bool:
        canary = stage.watch.release.phase == "Initialized"
        return canary and bool(stage.replicas("web")) and stage.mesh.settled()

    await stage.until(opened, READY_S, "all pods to be ready and the Canary to be Initialized")
    stage.view.say(f"{len(stage.mesh.pods())} pods are ready; visitors come in by way of the gateway, {stage.rate:g} a second")
    stage.view.say(f"try it yourself: curl -x {stage.mesh.gateway} http://web.shop/")
    stage.visitors()
    await stage.counted(int(2 * stage.rate), 30)


async def the_slow_replica(stage: Stage) -> None:
    replicas = stage.replicas("prices")
    slow = next(pod.name for pod in replicas if pod.deployment == "prices-slow")
    load = stage.load
    assert load is not None, "no visitors yet"
    start = load.requests[0].sent  # from the first visitor: also the calls by which balancers learn who is slow
    needed = int(1.2 * verdict.MIN_SLOW)

    def measured() -> bool:
        calls = [line.pod for line in stage.ledger.read() if line.service == "prices" and line.at >= start]
        # One that was never tried would be forgotten, not slow.  It is tried at the latest when its estimate has decayed.
        return time.time() > start + SLOW_S and len(calls) >= needed and slow in calls

    await stage.until(measured, 60, f"{needed} calls of prices, one of them at the slow replica")
    stage.noted.slow_pod = slow
    stage.noted.prices_pods = tuple(pod.name for pod in replicas)
    stage.noted.slow_window = (start, time.time())
    stage.view.conclude(verdict.slow_replica_is_avoided(stage.observed()))


async def the_recorded_hop(stage: Stage) -> None:
    pod = _quick(stage)[0]
    address = f"{stage.mesh.info.prefix}.{RELAY_HOST}"
    relay = Relay(address, (INBOUND_PORT, PRICES_PORT), pod.ip, stage.marker, stage.home / "recording.bin", pod.name)
    try:
        await relay.start()
    except OSError as error:
        raise Stalled(f"the relay cannot listen on {address}: {error.strerror or error}") from None
    stage.relay = relay
    stage.scratch.add(RELAY_SLICE, relay_manifest(address, pod.name, PRICES_PORT))
    stage.view.say(f"{address} now leads to {pod.name}, and keeps every byte; each request carries {stage.marker!r}")
    needed = 4 * verdict.MIN_RELAYED_BYTES
    await stage.until(lambda: min(relay.sent, relay.received) >= needed, 30, f"{needed} bytes to pass the relay")
    stage.view.conclude(verdict.wire_is_encrypted(stage.observed()))


async def the_intruders(stage: Stage) -> None:
    victim = stage.replicas("catalogue")[0]
    claimed = SpiffeId.workload(stage.mesh.info.trust_domain, "shop", "web")
    stage.view.say(f"{victim.name} serves visitors right now; two others call {victim.ip}:{INBOUND_PORT} as {claimed}")
    stage.noted.intrusions.append(await intruders.plaintext(victim.ip, INBOUND_PORT, str(claimed)))
    stage.noted.intrusions.append(
        await intruders.forged(victim.ip, INBOUND_PORT, stage.mesh.info.trust_domain, claimed),
    )
    stage.view.conclude(verdict.intruders_are_refused(stage.observed()))


async def the_killed_replica(stage: Stage) -> None:
    served = Counter(line.pod for line in stage.ledger.read() if line.service == "web" and line.at >= time.time() - RECENT_S)
    victim = max(stage.replicas("web"), key=lambda pod: served[pod.name])  # the busier one: its end must be felt
    processes = {pid: start_time(pid) for pid in victim.pids.values()}
    if not processes:
        raise Stalled(f"waited for nothing: it is not known which processes {victim.name} is")
    stage.view.say(f"kill -9 {' '.join(map(str, processes))}   ({victim.name}: {' and '.join(victim.pids)})")
    at = time.time()
    for pid in processes:
        os.kill(pid, signal.SIGKILL)
    await stage.until(lambda: not any(alive(*process) for process in processes.items()), 5, f"the end of {list(processes)}")
    await stage.counted(verdict.MIN_KILL, 30)
    await stage.until(lambda: time.time() >= at + KILL_S, KILL_S + 1, "the dust to settle")
    stage.noted.kill = Kill(victim.name, at, time.time(), ended=True)
    stage.view.conclude(verdict.kill_goes_unnoticed(stage.observed()))
    await stage.until(lambda: len(stage.replicas("web")) == 2, 60, "the killed replica to be back")
    stage.view.say(f"{victim.name} was started again")


def _quick(stage: Stage) -> list[Pod]:
    """The quick replicas of prices, by name."""
    return [pod for pod in stage.replicas("prices") if pod.name != stage.noted.slow_pod]


async def catalogue_v2(stage: Stage) -> None:
    stage.view.diff(stage.scratch.edit("catalogue.yaml", V2))
    await _released(stage, "v2")
    await stage.counted(int(1.5 * verdict.MIN_STEP + 2 * verdict.GUARD_S * stage.rate), 30)
    stage.view.conclude(verdict.shares_follow_weights(stage.observed(), "v2", stage.steps))
    stage.view.conclude(verdict.v2_is_promoted(stage.observed()))


async def catalogue_v3(stage: Stage) -> None:
    stage.view.diff(stage.scratch.edit("catalogue.yaml", stage.breakage.v3))
    await _released(stage, "v3")
    await stage.counted(int(1.5 * verdict.MIN_STEP + 2 * verdict.GUARD_S * stage.rate), 30)
    stage.view.conclude(verdict.v3_is_rolled_back(stage.observed()))


async def _released(stage: Stage, version: str) -> None:
    """Wait until the release has ended, well or badly, and tell its steps."""
    told = len(stage.watch.timeline)
    began = False

    def ended() -> bool:
        nonlocal told, began
        for moment in stage.watch.timeline[told:]:
            stage.view.say(f"catalogue {moment.version}: {moment.phase}, {moment.weight} % of requests")
        told = len(stage.watch.timeline)
        release = stage.watch.release
        began = began or (release.version == version and release.phase == "Progressing")
        return began and release.phase in ("Succeeded", "Failed")

    # New revision, its pods, a tick a step, promotion, routing back, the end: ticks may wait for pods.
    ticks = len(stage.steps) + 6
    await stage.until(ended, ticks * stage.interval + 60, f"the release of {version} to end")


SCENES: tuple[Scene, ...] = (
    Scene(
        "The shop opens",
        "Plain Kubernetes manifests become local processes. Every replica is an app and a sidecar with an address of its own; "
        "the sidecars get short-lived certificates and speak mutual TLS with one another.",
        the_shop_opens,
    ),
    Scene(
        "A slow replica",
        "One of three prices replicas waits 80 ms before each answer. Nobody takes it out: callers measure latency (peak-EWMA) "
        "and choose the better of two replicas drawn at random.",
        the_slow_replica,
    ),
    Scene(
        "A recorded hop",
        "A relay is put between the catalogue's sidecars and one prices pod, as one more address of that pod. It keeps every "
        "byte. All requests carry a marker; in the recording there must be none.",
        the_recorded_hop,
    ),
    Scene(
        "Intruders",
        "Somebody on this machine calls a pod's inbound port: once in plaintext, claiming to be web in a header; once with a "
        "certificate that says web but comes from another authority.",
        the_intruders,
    ),
    Scene(
        "A killed replica",
        "One web replica, app and sidecar, is killed with SIGKILL while it serves. GETs under way are put to the other "
        "replica, within the retry budget, because a GET may be repeated; the runtime starts it again.",
        the_killed_replica,
    ),
    Scene(
        "Catalogue v2",
        "The manifest is edited. The Canary gives v2 a growing share of requests as long as success rate and latency of v2 "
        "are good, then makes it the primary.",
        catalogue_v2,
    ),
    Scene(
        "Catalogue v3",
        "Edited again: v3 fails 20 % of its requests and takes 1.5 s for each. The first check sees it, and the Canary takes "
        "its share back.",
        catalogue_v3,
    ),
)

"""`make bench`: us and our peers in one run, interleaved, one worker each.

    plan --> for each round: for each workload: for each peer: warm up, measure --> results JSON
     |                                           |                  |
     ` printed, with how long it takes           ` cannot: skipped  ` errors: invalid; the proxy is started anew

The proxies have one core, load generators and backends the other.  The headline is CPU time a request, because it is the
steadiest: it does not depend on how fast the load generator is.  Each round begins with another peer.  Rounds: five of
workloads a to c (--rounds; of identical requests three), three of the others, one of memory.
Tables and plots: python -m benchmarks.report RESULTS.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

from benchmarks import measure, memory
from benchmarks.fleet import Fleet
from benchmarks.load import driver, h2load, wrk
from benchmarks.load.measured import Ask, Load
from benchmarks.measure import LoadFailed, NotReady
from benchmarks.peers import all_peers
from benchmarks.peers.peer import Peer, Running, Unsupported, find_program
from benchmarks.record import Record
from benchmarks.workloads import Workload, choose

RESULTS = Path(__file__).parent.parent / "docs" / "benchmarks" / "results.json"
FULL_ROUNDS = 5
START_S = {1: 0.7, 2: 3.0}  # about what it takes to start a peer for so many hops
QUICK = 0.3  # of the load's duration, with --quick
PROGRAMS = {"wrk": "wrk", "h2load": "nghttp2-client", "nginx": "nginx-light"}  # and their Debian packages


class Invalid(Exception):
    """What was measured is no measurement; `str()` says why."""


def rounds_of(workload: Workload, rounds: int) -> int:
    """`rounds` replaces the five of a to c; the others keep their proportion to it; once stays once."""
    return 1 if workload.rounds == 1 else max(1, math.ceil(workload.rounds * rounds / FULL_ROUNDS))


def takes_part(peer: Peer, workload: Workload) -> bool:
    return asked(peer, workload) and not peer.unable(workload.hops, workload.kind)


def asked(peer: Peer, workload: Workload) -> bool:
    """Those that only some workloads ask for (direct, more workers) take part in no other."""
    return peer.name in workload.peers if workload.peers else not peer.special


def scaled(workload: Workload, quick: bool) -> Workload:
    if not quick:
        return workload
    seconds = max(0.5, workload.seconds * QUICK)
    return replace(
        workload,
        seconds=seconds,
        warm=0.5,
        calls=max(200, int(workload.calls * QUICK)),
        connections=min(workload.connections, 500),
    )


def schedule(workloads: Sequence[Workload], peers: Sequence[Peer], rounds: int) -> Iterator[tuple[int, Workload, Peer]]:
    """(round from 1, workload, peer).  Each round begins with another peer, so that none always follows the same one."""
    for number in range(1, max(rounds_of(each, rounds) for each in workloads) + 1):
        for workload in workloads:
            if number <= rounds_of(workload, rounds):
                able = [peer for peer in peers if takes_part(peer, workload)]
                first = (number - 1) % len(able) if able else 0
                for peer in able[first:] + able[:first]:
                    yield number, workload, peer


def estimate(workloads: Sequence[Workload], peers: Sequence[Peer], rounds: int) -> dict[str, float]:
    """Seconds by workload, all peers and rounds, with starting."""
    costs = {each.id: 0.0 for each in workloads}
    started = set()
    for _, workload, peer in schedule(workloads, peers, rounds):
        key = (peer.name, workload.hops, workload.kind)
        if workload.tool.startswith("memory") or key not in started:
            costs[workload.id] += START_S[workload.hops]
            started.add(key)
        costs[workload.id] += workload.cost_s()
    return costs


def print_plan(workloads: Sequence[Workload], peers: Sequence[Peer], rounds: int, record: Record) -> None:
    costs = estimate(workloads, peers, rounds)
    for each in workloads:
        names = " ".join(peer.name for peer in peers if takes_part(peer, each))
        print(f"{each.title:52} {rounds_of(each, rounds)} x {names or '(nobody)':60} {costs[each.id]:5.0f} s")
    for name, why in record.data["missing"].items():
        print(f"missing: {name}: {why}")
    machine = record.data["machine"]
    print(f"\nabout {sum(costs.values()) / 60:.0f} min on {machine['cores']} cores of {machine['cpu']}")
    if machine["load_average"] > 0.7:
        print(f"warning: the load average is {machine['load_average']}: others work here, figures will suffer")
    if not machine["pinned"]:
        print("warning: one core only: load generator and backend take the proxy's time, figures of CPU still hold")


def ask_for(workload: Workload, running: Running, seconds: float) -> Ask:
    paths, held = workload.paths(), workload.connections
    return Ask(running.address, running.authority, paths, held, workload.streams, seconds, workload.body)


def load(workload: Workload, running: Running, work: Path, warming: bool = False) -> Load:
    """One run of the workload's generator.  Raises LoadFailed."""
    ask = ask_for(workload, running, workload.warm if warming else workload.seconds)
    if workload.tool == "wrk":
        return wrk.run(ask, work)
    if workload.tool == "h2load":
        return h2load.run(ask, work)
    if workload.tool == "grpc":
        calls = max(100, workload.calls // 5) if warming else workload.calls
        return driver.grpc(ask, calls, stream=workload.id.endswith("stream"))
    if workload.tool == "pace":
        return driver.pace(ask, workload.rate)
    raise LoadFailed(f"nobody knows the tool {workload.tool!r} of workload {workload.id}")


def measured(workload: Workload, running: Running, work: Path) -> dict[str, Any]:
    """What goes into the round's entry.  Raises Invalid, LoadFailed, ProcessLookupError (the proxy has ended)."""
    if workload.tool != "pace":  # it warms up by itself
        warm = load(workload, running, work, warming=True)
        if warm.errors:
            raise Invalid(f"{warm.errors} of {warm.requests} requests failed while warming up")
    before = {role: measure.cpu_seconds(pid) for role, pid in running.pids.items()}
    done = load(workload, running, work)
    spent = {role: measure.cpu_seconds(pid) - before[role] for role, pid in running.pids.items()}
    if not done.requests:
        raise Invalid("not a single request was answered")
    return {
        "requests": done.requests,
        "seconds": round(done.seconds, 4),
        "errors": done.errors,
        "cpu_us": {role: round(seconds * 1e6 / (done.requests + done.warm), 3) for role, seconds in spent.items()},
        "rss": {role: measure.rss_bytes(pid) for role, pid in running.pids.items()},
        "latency_us": {name: round(value, 1) for name, value in done.latency_us.items()},
        **done.extra,
    }


def one_measurement(fleet: Fleet, number: int, workload: Workload, peer: Peer) -> dict[str, Any]:
    """The round's entry, valid or not.  Raises Unsupported."""
    entry: dict[str, Any] = {"workload": workload.id, "peer": peer.name, "round": number}
    entry |= {"requests": 0, "seconds": 0.0, "errors": 0}
    try:
        if workload.tool.startswith("memory"):
            with fleet.fresh(peer, workload) as running, running.inside():
                entry.update(memory.read(workload, running, fleet.work))
        else:
            running = fleet.need(peer, workload)
            with running.inside():
                entry.update(measured(workload, running, fleet.work))
        if entry["errors"]:
            raise Invalid(f"{entry['errors']} of {entry['requests']} requests failed")
    except (Invalid, LoadFailed, NotReady, ProcessLookupError, memory.NoAnswer) as error:
        entry["invalid"] = str(error)
        entry["errors"] = max(1, entry["errors"])
        fleet.drop(peer, workload)
    return entry


def say(entry: dict[str, Any], workload: Workload, peer: Peer) -> None:
    if "invalid" in entry:
        what = "INVALID: " + entry["invalid"].splitlines()[0][:200]
    elif "cpu_us" in entry:
        parts = " + ".join(f"{value:.1f}" for value in entry["cpu_us"].values()) or "-"
        rate = f"{entry['requests'] / entry['seconds']:8.0f}/s" if entry["seconds"] else ""
        what = f"{parts:>15} us a request {rate} p99 {entry['latency_us'].get('p99', 0):.0f} us"
    else:
        what = " + ".join(f"{value / 1e6:.1f}" for value in entry["rss"].values()) + " MB"
        if "rss_before" in entry:
            grown = sum(entry["rss"].values()) - sum(entry["rss_before"].values())
            what += f", {grown / entry['connections'] / 1000:.2f} kB for each of {entry['connections']} connections"
    print(f"{entry['round']}  {workload.id:24} {peer.name:14} {what}", flush=True)


def summary(record: Record) -> None:
    """Medians of CPU by workload and peer, for the eye; the report has the rest."""
    found: dict[tuple[str, str], list[float]] = {}
    for entry in record.data["rounds"]:
        if entry.get("cpu_us") and "invalid" not in entry:
            found.setdefault((entry["workload"], entry["peer"]), []).append(sum(entry["cpu_us"].values()))
    if found:
        print("\nCPU us a request (two hops: the sum), median [min-max]")
    for (workload, peer), values in found.items():
        print(f"{workload:24} {peer:14} {statistics.median(values):8.1f} [{min(values):.1f}-{max(values):.1f}]")
    invalid = [entry for entry in record.data["rounds"] if "invalid" in entry]
    if invalid:
        print(f"\n{len(invalid)} invalid rounds, not counted:")
        for entry in invalid:
            print(f"  {entry['workload']} {entry['peer']} round {entry['round']}: {entry['invalid'].splitlines()[0]}")


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=FULL_ROUNDS, help="of workloads a to c (%(default)s)")
    parser.add_argument("--only", default="", metavar="W,W", help="workloads: ids, their beginnings, or letters a to i")
    parser.add_argument("--peers", default="", metavar="P,P", help="peers by name; without it all that are there")
    parser.add_argument("--quick", action="store_true", help="one round of short loads: does everything work?")
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON to write (%(default)s)")
    parser.add_argument("--plan", action="store_true", help="print what would be done, and end")
    return parser


def words(text: str) -> list[str]:
    return [word for word in text.replace(",", " ").split() if word]


def main(arguments: Sequence[str] | None = None) -> int:
    """0: every measurement was valid; 1: some were not; 2: it cannot run so."""
    given = options().parse_args(arguments)
    peers = all_peers()
    names = {peer.name for peer in peers}
    try:
        workloads = [scaled(each, given.quick) for each in choose(words(given.only))]
        if unknown := set(words(given.peers)) - names:
            raise ValueError(f"no peer {', '.join(sorted(unknown))}; known: {', '.join(sorted(names))}")
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if given.peers:
        peers = [peer for peer in peers if peer.name in words(given.peers)]
    lost = {name: how for name, how in PROGRAMS.items() if not find_program(name)}
    if lost and not given.plan:
        print(
            f"error: the bench itself needs {', '.join(f'{name} (apt install {how})' for name, how in lost.items())}",
            file=sys.stderr,
        )
        return 2
    rounds = 1 if given.quick else max(1, given.rounds)
    record = Record(given.results, peers, workloads)
    able = [peer for peer in peers if peer.name not in record.data["missing"]]
    print_plan(workloads, able, rounds, record)
    if given.plan:
        return 0
    os.sched_setaffinity(0, measure.core(measure.LOAD_CORE))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what runs is ended, what is measured is kept
    try:
        run(workloads, able, rounds, record)
    except KeyboardInterrupt:
        print(f"\ninterrupted: {given.results} has what was measured", file=sys.stderr)
        record.save()
        return 130
    record.save(finished=True)
    summary(record)
    print(f"\n{len(record.data['rounds'])} measurements in {record.data['took_s'] / 60:.1f} min: {given.results}")
    print(f"tables and charts: python -m benchmarks.report {given.results}")
    return 1 if any("invalid" in entry for entry in record.data["rounds"]) else 0


def run(workloads: Sequence[Workload], peers: Sequence[Peer], rounds: int, record: Record) -> None:
    for workload in workloads:
        for peer in peers:
            if asked(peer, workload) and (why := peer.unable(workload.hops, workload.kind)):
                record.skip(workload, peer, why)
    began, last = monotonic(), 0
    with tempfile.TemporaryDirectory(prefix="meshproxy-bench-") as work, Fleet(Path(work)) as fleet:
        unable: set[tuple[str, str]] = set()
        for number, workload, peer in schedule(workloads, peers, rounds):
            if (workload.id, peer.name) in unable:
                continue
            if number != last:
                last = number
                print(f"\nround {number}, after {monotonic() - began:.0f} s", flush=True)
            try:
                entry = one_measurement(fleet, number, workload, peer)
            except Unsupported as reason:
                unable.add((workload.id, peer.name))
                record.skip(workload, peer, str(reason))
                continue
            record.add(entry)
            say(entry, workload, peer)


if __name__ == "__main__":
    sys.exit(main())

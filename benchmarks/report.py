"""results.json -> docs/benchmarks.md and the charts beside it.  `python -m benchmarks.report [results.json] [--page FILE]`

    Results --> targets (met or missed) --> tables by group of workloads --> charts (SVG)
                                        `-> how it was measured, settings of each peer, what favours whom, who was missing

Everything on the page comes from the JSON or from this file; run it again after each `make bench`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.chart import Bar, Group, chart, figure
from benchmarks.results import (
    Reading,
    Results,
    Spread,
    cpu_of,
    cpu_us,
    dominated,
    largest_rss_mb,
    latency,
    lateness,
    per_connection_kb,
    rate,
    response_p99,
    spread,
)
from benchmarks.targets import COMPILED, INTERPRETED, TARGETS, Verdict
from benchmarks.workloads import WORKLOADS, Workload

DOCS: Final = Path(__file__).parent.parent / "docs"
GROUPS: Final = {
    "a": "HTTP/1.1 to HTTP/1.1",
    "b": "HTTP/2 in clear, both sides",
    "c": "Two hops, mutual TLS and HTTP/2 between, HTTP/1.1 at the ends",
    "d": "Two hops, gRPC",
    "e": "Bodies",
    "f": "Latency at a fixed rate",
    "g": "Memory",
    "h": "Scaling with --workers",
    "i": "What declared policy costs",
}
CHARTS: Final = {  # file -> title, workloads
    "one-hop": ("One hop: CPU a request", ("h1-varied", "h2-varied")),
    "two-hops": ("Two hops with mutual TLS: CPU a request, both proxies", ("mesh-c64", "mesh-c4", "mesh-c1", "grpc-unary")),
    "bodies": ("Bodies: CPU a request", ("h1-64k", "h2-64k", "h1-1m", "h2-1m")),
    "uploads": ("Bodies of requests: CPU a request", ("h1-up-64k", "h2-up-64k", "h1-up-1m", "h2-up-1m")),
}
METHOD: Final = """\
* One run, all peers interleaved: round by round, workload by workload, peer by peer, in an order that rotates. Absolute figures
  of different runs, and even of different minutes, differ by 30 % on a virtual machine; ratios inside a round do not. Every
  ratio is computed inside one round; the table gives the median over the rounds, with the least and the greatest in brackets.
* One worker each. The proxy has one core to itself (two hops: both proxies share it), load generator and backend have the
  other. What is read is the time the proxy's threads spent on a core, from the scheduler's own count
  (`/proc/PID/task/*/schedstat`), so the load generator's speed does not enter. CPU a request is the headline: it is what a
  sidecar costs, and the steadiest figure there is. Requests a second of a closed loop follow from it.
* "Varied" requests differ in path, query and trace header; "identical" ones flatter caches (ours too). Both are measured.
* Uploads are POSTs, which the backend answers when it has read the whole body.
* A round in which a request failed is not a measurement: it is listed below and not used.
* All features on, everywhere: metrics, balancing by latency or load, timeouts, retry policy. No access log, no tracing.
* Latencies at a fixed rate are from an open loop that counts from when a request was due, so that a stall is seen by every
  request it delays ("coordinated omission" is excluded). How late the generator itself was is measured; where that is of the
  size of the result the table says "pacer" and no difference can be claimed. Beside it is the same percentile less the
  generator's own lateness."""
FAVOURS: Final = """\
* For us: requests repeat their header lines, which suits our memos of validated fields (the varied rows bound that: their
  paths, queries and trace headers never repeat in a cache's lifetime). Envoy and linkerd2-proxy count more metrics a request
  than we do. linkerd2-proxy runs with the redirection it has in a pod, and its CPU includes the connection tracking that this
  needs, a little for each packet; we run without, as an app that knows its proxy does. Envoy is set up as a mesh would set it,
  not tuned. Two cores are few: a proxy that spreads over many cores is not
  shown at its best.
* For the others: HAProxy, nginx and nghttpx have no mesh features on (no identity, no per-endpoint latency, no retry budget),
  and count less. Envoy runs without the redirection by iptables that it has in a cluster. Bodies are
  copied through user space by us; nginx and HAProxy may use splice(2) or large buffers.
* For nobody: one machine, loopback, no packet loss, no real network latency."""


def page(results: Results, charts: Sequence[str]) -> str:
    """The text of docs/benchmarks.md.  `charts`: names of the SVG files that were written."""
    parts = [
        "# Benchmarks",
        "<!-- written by `python -m benchmarks.report`; change that or the run, not this page -->",
        "`make bench` measures us and other proxies in one run on this machine; this page is one such run. "
        "`make bench-smoke` gives a rough figure of ours in seconds.",
        *([] if results.finished else ["**This run was interrupted: some rounds are missing.**"]),
        *_machine(results),
        "## Targets",
        *_targets([target.judge(results) for target in TARGETS]),
    ]
    parts += _glance(results)
    if charts:
        parts += [*(f"![{CHARTS[name][0]}](benchmarks/{name}.svg)" for name in charts)]
    for letter, title in GROUPS.items():
        table = _group(results, letter)
        if table:
            parts += [f"## ({letter}) {title}", *table]
    parts += ["## How it is measured", METHOD, "## Settings of each peer", *_settings(results)]
    parts += ["## What favours whom", FAVOURS, *_gaps(results)]
    return "\n\n".join(parts) + "\n"


def _machine(results: Results) -> list[str]:
    facts = [(str(name), value) for name, value in results.machine.items() if not isinstance(value, dict)]
    for value in results.machine.values():
        if isinstance(value, dict):  # versions; a variant of ours ("compiled-w2") is the same program
            facts += [(str(each), said) for each, said in value.items() if said and "-" not in each]
    lines = "\n".join(f"* {name}: {_plain(value)}" for name, value in facts)
    return ["## Machine and versions", lines] if facts else []


def _targets(verdicts: Sequence[Verdict]) -> list[str]:
    rows = [
        [one.what, one.against, one.limit, _spread(one.found), f"**{one.said}**" if one.found else one.said, one.note]
        for one in verdicts
    ]
    said = [one.said for one in verdicts]
    counts = ", ".join(f"{said.count(word)} {word}" for word in dict.fromkeys(said))
    return [
        f"CPU a request, ours / theirs, unless a unit is given. {counts}.",
        table(["what", "against", "target", "median [min-max]", "", ""], rows),
    ]


def _glance(results: Results) -> list[str]:
    """Ours against each peer, workload by workload: who is passed (bold) and who is not."""
    parts = []
    for ours in (COMPILED, INTERPRETED):
        measured = [workload for workload in WORKLOADS if results.spread(workload.id, ours, cpu_us)]
        peers = dict.fromkeys(peer for workload in measured for peer in results.peers_of(workload.id))
        others = [peer for peer in peers if peer not in (COMPILED, INTERPRETED, "direct") and "-" not in peer]  # ours have one
        rows = []
        for workload in measured:
            ratios = [results.ratio(workload.id, ours, peer, cpu_us) for peer in others]
            if any(ratios):
                rows.append(
                    [workload.title, *(f"**{_spread(one)}**" if one and one.median < 1 else _spread(one) for one in ratios)]
                )
        if rows:
            title = results.peers.get(ours, {}).get("title", ours)
            head = ["", *(results.peers.get(peer, {}).get("title", peer) for peer in others)]
            parts += [f"CPU a request of **{title}** / that of each peer; bold where ours is less:", table(head, rows)]
    return ["## At a glance", *parts] if parts else []


def _group(results: Results, letter: str) -> list[str]:
    known = [one for one in WORKLOADS if one.group == letter]
    found = []
    for workload in known:
        peers = results.peers_of(workload.id)
        if peers:
            found += [f"### {workload.title.partition(') ')[2]}", _workload(results, workload, peers)]
    return found


def _workload(results: Results, workload: Workload, peers: Sequence[str]) -> str:
    if workload.tool.startswith("memory"):
        return _memory(results, workload, peers)
    two = workload.hops == 2
    head = [
        "",
        "CPU us/request",
        *(["A", "B"] if two else []),
        *_over(peers),
        "requests/s",
        "p50 us",
        "p99 us",
        "p99.9 us",
        "MB",
    ]
    rows = []
    for peer in peers:
        name = results.peers.get(peer, {}).get("title", peer)
        row = [name, _spread(results.spread(workload.id, peer, cpu_us))]
        if two:
            row += [_median(results.spread(workload.id, peer, cpu_of(role))) for role in ("A", "B")]
        for ours in _ours(peers):
            row.append("" if peer == ours else _spread(results.ratio(workload.id, ours, peer, cpu_us)))
        row.append(_median(results.spread(workload.id, peer, rate)))
        row += [_median(results.spread(workload.id, peer, latency(name))) for name in ("p50", "p99", "p999")]
        row.append(_median(results.spread(workload.id, peer, largest_rss_mb)))
        if any(dominated(one) for one in results.rounds if one["workload"] == workload.id and one["peer"] == peer):
            row[-3] += " (pacer)"
        rows.append(row)
    if workload.tool == "pace":
        head += ["p99 less lateness", "lateness p99"]
        for row, peer in zip(rows, peers, strict=True):
            row += [_median(results.spread(workload.id, peer, reading)) for reading in (response_p99, lateness)]
    text = table(head, rows)
    if workload.id == "policy-cost":
        return f"{text}\n\n{_policy(results, workload.id)}"
    return f"{text}\n\n{_added(results, workload, peers)}" if workload.tool == "pace" else text


def _added(results: Results, workload: Workload, peers: Sequence[str]) -> str:
    """Latency less that of the same round without a proxy; two hops have no such round of their own, so one hop's is taken."""
    known = (workload.id, workload.id.removeprefix("mesh-"))
    without = next((each for each in known if "direct" in results.peers_of(each)), None)
    if without is None:
        return "What the same load takes without a proxy was not measured."
    rows = []
    for peer in peers:
        if peer != "direct":
            row = [results.peers.get(peer, {}).get("title", peer)]
            row += [
                _spread(_difference(results, workload.id, peer, without, latency(name)))
                for name in ("p50", "p90", "p99", "p999")
            ]
            rows.append(row)
    return "Added to what the same load takes without a proxy, us:\n\n" + table(["", "p50", "p90", "p99", "p99.9"], rows)


def _policy(results: Results, workload: str) -> str:
    """What declared policy adds to a request, both hops together: round by round, as a difference and as a ratio."""
    bare, declared = (results.by_round(workload, peer, cpu_us) for peer in (COMPILED, f"{COMPILED}-policy"))
    both = [number for number in declared if bare.get(number)]
    added = spread(declared[number] - bare[number] for number in both)
    if added is None:
        return "What policy adds was not measured: a round of each is needed."
    ratio = spread(declared[number] / bare[number] for number in both)
    return f"Declared policy adds {_spread(added)} us of CPU to a request, of both proxies: {_spread(ratio)} times as much."


def _difference(results: Results, workload: str, peer: str, without: str, reading: Reading) -> Spread | None:
    direct = results.by_round(without, "direct", reading)
    with_proxy = results.by_round(workload, peer, reading)
    return spread(value - direct[number] for number, value in with_proxy.items() if number in direct)


def _memory(results: Results, workload: Workload, peers: Sequence[str]) -> str:
    each = [peer for peer in peers if results.spread(workload.id, peer, per_connection_kb)]
    head = ["", "MB, largest process", *(["kB a connection"] if each else [])]
    rows = []
    for peer in peers:
        row = [results.peers.get(peer, {}).get("title", peer), _spread(results.spread(workload.id, peer, largest_rss_mb))]
        rows.append(row + ([_spread(results.spread(workload.id, peer, per_connection_kb))] if each else []))
    return table(head, rows) + _fewer(results, workload)


def _fewer(results: Results, workload: Workload) -> str:
    """What is to be said where not as many connections were held as the heading has."""
    rounds = [one for one in results.rounds if one["workload"] == workload.id and one.get("connections")]
    held = min((one["connections"] for one in rounds), default=workload.connections)
    if not rounds or held >= workload.connections:
        return ""
    limit = results.machine.get("open_files")
    why = f" ({limit:,} here)" if limit else ""
    return (
        f"\n\n{held:,} connections were held, not {workload.connections:,}: a proxy may need two descriptors for each, "
        f"and the hard limit of descriptors{why} bounds them."
    )


def _settings(results: Results) -> list[str]:
    rows = []
    for name, peer in results.peers.items():
        version = peer.get("version") or ""
        rows.append(f"* **{peer.get('title', name)}**{f' ({version})' if version else ''}: {peer.get('settings', '')}")
    return ["\n".join(rows)] if rows else []


def _gaps(results: Results) -> list[str]:
    """Nothing that is not on the page is passed over in silence."""
    parts = []
    if results.missing:
        parts += ["## Missing peers", "\n".join(f"* **{peer}**: {_plain(why)}" for peer, why in results.missing.items())]
    if results.skipped:
        parts += ["## Not measured", "\n".join(f"* {_skipped(one)}" for one in results.skipped)]
    if results.failed:
        lines = [f"* {one['workload']}, {one['peer']}, round {one['round']}: {_why(one)}" for one in results.failed]
        parts += ["## Rounds that failed", "\n".join(lines)]
    return parts


def _why(one: Any) -> str:
    return _plain(one.get("invalid") or f"{one['errors']} of {one['requests']} requests failed")


def _skipped(one: Any) -> str:
    return ", ".join(f"{name}: {_plain(value)}" for name, value in one.items()) if isinstance(one, dict) else _plain(one)


def charts(results: Results) -> dict[str, str]:
    """Name -> SVG, of those for which there are figures."""
    made = {}
    titles = {workload.id: workload.title.partition(") ")[2] for workload in WORKLOADS}
    for name, (title, workloads) in CHARTS.items():
        groups = []
        for workload in workloads:
            bars = []
            for peer in results.peers_of(workload):
                found = results.spread(workload, peer, cpu_us)
                if found:
                    shown = results.peers.get(peer, {}).get("title", peer)
                    bars.append(Bar(peer, shown, found.median, found.low, found.high))
            if bars:
                groups.append(Group(titles.get(workload, workload), bars))
        if groups:
            made[name] = chart(title, "microseconds of CPU a request", groups)
    return made


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, columns aligned so that it can be read as text too."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in [head, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _ours(peers: Sequence[str]) -> list[str]:
    return [peer for peer in (COMPILED, INTERPRETED) if peer in peers]


def _over(peers: Sequence[str]) -> list[str]:
    return [f"{ours} / it" for ours in _ours(peers)]


def _spread(found: Spread | None) -> str:
    if found is None:
        return "-"
    if found.count == 1:
        return figure(found.median)
    dash = "-" if found.low >= 0 else " to "
    return f"{figure(found.median)} [{figure(found.low)}{dash}{figure(found.high)}]"


def _median(found: Spread | None) -> str:
    return figure(found.median) if found else "-"


def _plain(value: object) -> str:
    return " ".join(str(value).split())


def summary(results: Results) -> str:
    """For the terminal: the targets."""
    return "\n\n".join(_targets([target.judge(results) for target in TARGETS]))


def write(results: Results, where: Path) -> None:
    """The page at `where`, the charts in the folder `benchmarks` beside it."""
    made = charts(results)
    folder = where.parent / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in made.items():
        (folder / f"{name}.svg").write_text(text)
    where.write_text(page(results, list(made)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="?", type=Path, default=DOCS / "benchmarks" / "results.json")
    parser.add_argument("--page", type=Path, default=DOCS / "benchmarks.md")
    options = parser.parse_args()
    try:
        results = Results.read(options.results)
    except (OSError, ValueError) as error:
        sys.exit(f"{options.results}: {error}\nmake bench writes it")
    write(results, options.page)
    print(summary(results))
    print(f"\n{options.page}")


if __name__ == "__main__":
    main()

"""`meshproxy stat`: golden metrics, with Linkerd's columns.

    pods of the mesh --scrape, wait for the window, scrape--> what each pod counted in between --add up--> a row each

A workload's row (pod, deployment, namespace) is what its own proxies counted for requests that came in.  A service's row
is what the callers' proxies counted for requests that went out to it, as in Linkerd.  With --to the row's workload is the
caller and with --from the called, and both read the callers' side.

Towards a service, exchanges are read: what clients saw, after retries.  Towards a workload, and towards a Service that is
only ever a leaf of a split, there are only attempts.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isnan
from typing import TYPE_CHECKING, Any, Final

import click

from meshproxy.cli.common import (
    columns,
    fail,
    find_mesh,
    mesh_option,
    namespace_options,
    open_store,
    output_option,
    watch_option,
)

if TYPE_CHECKING:
    from control.store.store import Store
    from meshproxy.telemetry.golden import Golden
    from meshproxy.telemetry.scrape import Scrape

KINDS: Final = {
    "deployment": ("deploy", "deployments"),
    "pod": ("po", "pods"),
    "service": ("svc", "services"),
    "namespace": ("ns", "namespaces"),
}
MIN_WINDOW_S: Final = 1.0
MAX_WINDOW_S: Final = 600.0
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0}


@dataclass(frozen=True, slots=True)
class Resource:
    """What a row is about, or what --from and --to name: a kind and a name, "" for all of the kind."""

    kind: str
    name: str = ""

    @classmethod
    def parse(cls, text: str, name: str = "") -> Resource:
        """`deploy`, `deploy/x`, `deploy x`.  Raises click.UsageError."""
        word, slash, after = text.partition("/")
        if slash and (name or not after):
            raise click.UsageError(f"say KIND, KIND/NAME or KIND NAME, not {text!r} {name!r}")
        for kind, aliases in KINDS.items():
            if word.lower() in (kind, *aliases):
                return cls(kind, name or after)
        raise click.UsageError(f"cannot show metrics of {word!r}; kinds: deploy, pod, svc, ns")


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod as the store knows it."""

    namespace: str
    name: str
    deployment: str
    address: str
    meshed: bool
    running: bool

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    def owner(self, kind: str) -> tuple[str, str]:
        """(namespace, name) of the row this pod counts for."""
        if kind == "namespace":
            return "", self.namespace
        return self.namespace, self.deployment if kind == "deployment" else self.name


@dataclass(slots=True)
class Row:
    """One line: how many of its pods are meshed, and what was measured (None: nobody was asked)."""

    namespace: str
    name: str
    meshed: int = 0
    pods: int = 0
    golden: Golden | None = None


class Window(click.ParamType[float]):
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m)", str(value))
        if match is None:
            self.fail(f"{value!r} is not a duration such as 10s, 1m or 1500ms", param, ctx)
        seconds = float(match[1]) * _UNITS[match[2]]
        if not MIN_WINDOW_S <= seconds <= MAX_WINDOW_S:
            self.fail(f"{value} is not within 1s and 10m", param, ctx)
        return seconds


@click.command(name="stat", short_help="Golden metrics.")
@click.argument("kind", metavar="KIND[/NAME]")
@click.argument("name", required=False, default="")
@click.option("--to", "to", metavar="KIND/NAME", help="Only requests to this; the rows are the callers.")
@click.option("--from", "source", metavar="KIND/NAME", help="Only requests from this; the rows are the called.")
@click.option("--window", type=Window(), default="10s", show_default=True, help="How long to measure: 1s to 10m.")
@mesh_option
@namespace_options
@output_option
@watch_option
def command(
    kind: str,
    name: str,
    to: str | None,
    source: str | None,
    window: float,
    mesh: str | None,
    namespace: str | None,
    output: str,
    watch: bool,
) -> None:
    """Success rate, request rate and latency percentiles of deployments, pods, services or namespaces.

    \b
      meshproxy stat deploy -n shop                     everything in a namespace
      meshproxy stat deploy/catalogue -n shop -w        one deployment, again and again
      meshproxy stat svc -A                             services, as their callers see them
      meshproxy stat deploy/web -n shop --to svc/prices what web experiences when it calls prices

    MESHED says how many of the pods have a sidecar.  A dash means that nothing was measured.  The measuring takes as long
    as the window, because proxies keep counts and not rates.  --to and --from are looked for in the same namespace (-A: any).
    """
    subject = Resource.parse(kind, name)
    if to and source:
        raise click.UsageError("use --to or --from, not both: the other end is the resource itself")
    if subject.kind == "service" and to:
        raise click.UsageError("a service receives requests and makes none: use --from, or name the calling workload")
    other = Resource.parse(to or source or "ns")
    if other.kind == "service" and source:
        raise click.UsageError("a service makes no requests: --from takes a deploy, pod or ns")
    found = find_mesh(mesh)
    store = open_store(found)
    if subject.kind == "namespace":
        namespace = None

    def rows(before: Scrape, after: Scrape) -> list[Row]:
        return measure(store, subject, namespace, before, after, to=other if to else None, source=other if source else None)

    if not known_rows(store, subject, namespace):
        where = "" if namespace is None else f" in namespace {namespace} (-A for all)"
        what = f"{subject.kind} {subject.name!r}" if subject.name else f"{subject.kind}s"
        raise fail(f"no {what}{where}")
    try:
        asyncio.run(look(store, rows, subject, namespace, window, output, watch))
    except KeyboardInterrupt:
        raise SystemExit(130) from None


async def look(
    store: Store,
    rows: Callable[[Scrape, Scrape], list[Row]],
    subject: Resource,
    namespace: str | None,
    window: float,
    output: str,
    watch: bool,
) -> None:
    """Scrape, wait, scrape, print; with `watch` until interrupted."""
    from control.runtime.layout import ADMIN_PORT
    from meshproxy.telemetry.scrape import scrape

    def targets() -> dict[str, str]:
        return {pod.key: f"{pod.address}:{ADMIN_PORT}" for pod in pods_of(store) if pod.meshed and pod.running and pod.address}

    before = await scrape(targets())
    while True:
        if sys.stderr.isatty() and not watch:
            click.echo(f"measuring for {window:g} s ...", err=True)
        await asyncio.sleep(window)
        refresh = getattr(store, "refresh", None)
        if refresh is not None:
            refresh()
        after = await scrape(targets())
        counted = rows(before, after)
        text = show(counted, subject.kind, output, everywhere=namespace is None)
        if watch and sys.stdout.isatty():
            click.clear()
        click.echo(text)
        if not watch and output in ("table", "wide") and not any(row.golden and row.golden.requests for row in counted):
            click.echo(
                f"no request ended in the {window:g} s that were measured: send some meanwhile (-w goes on measuring)", err=True
            )
        for pod, problem in sorted(after.problems.items()):
            click.echo(f"pod {pod} is not counted: {problem}", err=True)
        if not watch:
            return
        before = after


# ---------------------------------------------------------------- facts


def pods_of(store: Store) -> list[Pod]:
    """All pods that have not ended."""
    from control.runtime.layout import ANNOTATION_PROXY, LABEL_DEPLOYMENT

    pods = []
    for obj in store.list("", "Pod"):
        metadata, status = obj["metadata"], obj.get("status") or {}
        if status.get("phase") in ("Succeeded", "Failed"):
            continue
        pods.append(
            Pod(
                namespace=metadata.get("namespace") or "default",
                name=metadata["name"],
                deployment=(metadata.get("labels") or {}).get(LABEL_DEPLOYMENT, ""),
                address=status.get("podIP") or "",
                meshed=(metadata.get("annotations") or {}).get(ANNOTATION_PROXY) == "true",
                running=status.get("phase") == "Running",
            )
        )
    return pods


def known_rows(store: Store, subject: Resource, namespace: str | None) -> dict[tuple[str, str], Row]:
    """The rows there are, with or without traffic: (namespace, name) -> Row."""
    rows: dict[tuple[str, str], Row] = {}
    group_and_kind = {"deployment": ("apps", "Deployment"), "service": ("", "Service")}.get(subject.kind)
    if group_and_kind is not None:
        for obj in store.list(*group_and_kind, namespace):
            key = (obj["metadata"].get("namespace") or "default", obj["metadata"]["name"])
            rows[key] = Row(*key)
    if subject.kind != "service":
        for pod in pods_of(store):
            key = pod.owner(subject.kind)
            if not key[1] or (namespace is not None and pod.namespace != namespace):
                continue
            row = rows.setdefault(key, Row(*key))
            if pod.running:
                row.pods += 1
                row.meshed += pod.meshed
    return {key: row for key, row in sorted(rows.items()) if not subject.name or row.name == subject.name}


# ---------------------------------------------------------------- computation


def measure(
    store: Store,
    subject: Resource,
    namespace: str | None,
    before: Scrape,
    after: Scrape,
    to: Resource | None = None,
    source: Resource | None = None,
) -> list[Row]:
    """The rows of `subject` for what happened between two scrapes.

    A pod that appeared in between is counted from zero; one that did not answer one of the scrapes is left out.
    """
    from meshproxy.telemetry.golden import golden_by

    rows = known_rows(store, subject, namespace)
    by = destination_labels(subject.kind) if subject.kind == "service" or source is not None else ()
    accept = _outbound(to, namespace) if by or to is not None else _inbound
    target = subject.kind if by else to.kind if to is not None else ""
    found: dict[str, dict[tuple[str, str], Golden]] = {"": {}, "route_": {}}
    for pod in pods_of(store):
        page = after.pages.get(pod.key)
        if page is None or pod.key in before.problems or not _is_source(pod, source, namespace):
            continue
        seconds = after.at[pod.key] - before.at.get(pod.key, min(before.at.values(), default=after.at[pod.key]))
        for prefix, totals in found.items():
            for group, golden in golden_by(before.pages.get(pod.key, {}), page, seconds, by, accept, prefix).items():
                key = (group[0], group[1]) if len(by) == 2 else ("", group[0]) if by else pod.owner(subject.kind)
                if key in totals:
                    totals[key].add(golden)
                else:
                    totals[key] = golden
    for key, row in rows.items():
        attempts, exchanges = found[""].get(key), found["route_"].get(key)
        row.golden = exchanges if target == "service" and exchanges is not None and exchanges.requests else attempts
    return list(rows.values())


def _is_source(pod: Pod, source: Resource | None, namespace: str | None) -> bool:
    """Do this pod's requests count?  --from is looked for in the namespace of the rows, as Linkerd does."""
    if source is None:
        return True
    if namespace is not None and source.kind != "namespace" and pod.namespace != namespace:
        return False
    return not source.name or pod.owner(source.kind)[1] == source.name


def destination_labels(kind: str) -> tuple[str, ...]:
    return ("dst_namespace",) if kind == "namespace" else ("dst_namespace", f"dst_{kind}")


def _inbound(labels: Mapping[str, str]) -> bool:
    return labels.get("direction") == "inbound" and labels.get("peer", "src") == "src"


def _outbound(to: Resource | None, namespace: str | None) -> Callable[[Mapping[str, str]], bool]:
    """Requests to `to`, which is looked for in the same namespace as the rows (as Linkerd does)."""
    named = {}
    if to is not None and to.name:
        named[destination_labels(to.kind)[-1]] = to.name
        if namespace is not None and to.kind != "namespace":
            named["dst_namespace"] = namespace

    def accept(labels: Mapping[str, str]) -> bool:
        if labels.get("direction") != "outbound" or labels.get("peer", "dst") != "dst":
            return False
        return all(labels.get(label) == value for label, value in named.items())

    return accept


# ---------------------------------------------------------------- printing


def show(rows: list[Row], kind: str, output: str, *, everywhere: bool) -> str:
    if output in ("json", "yaml"):
        document = [record(row, kind) for row in rows]
        if output == "json":
            return json.dumps(document, indent=2)
        import yaml

        return yaml.safe_dump(document, sort_keys=False).rstrip("\n")
    wide = output == "wide"
    header = ["NAME", "MESHED", "SUCCESS", "RPS", "LATENCY_P50", "LATENCY_P95", "LATENCY_P99", "TCP_CONN"]
    if everywhere and kind != "namespace":
        header.insert(0, "NAMESPACE")
    if wide:
        header += ["READ_BYTES/SEC", "WRITE_BYTES/SEC"]
    lines = []
    for row in rows:
        line = [row.name, "-" if kind == "service" else f"{row.meshed}/{row.pods}", *measured(row.golden, wide)]
        if everywhere and kind != "namespace":
            line.insert(0, row.namespace)
        lines.append(line)
    return columns(header, lines)


def measured(golden: Golden | None, wide: bool) -> list[str]:
    if golden is None:
        return ["-"] * (8 if wide else 6)
    cells = ["-"] * 5
    if golden.requests:
        cells = [f"{golden.success_rate * 100:.2f}%", f"{golden.rps:.1f}rps"]
        cells += [_milliseconds(golden.latency_ms(q)) for q in (0.5, 0.95, 0.99)]
    cells.append("-" if isnan(golden.tcp_open) else f"{golden.tcp_open:.0f}")
    if wide:
        cells += [f"{count / golden.seconds:.1f}B/s" for count in (golden.read_bytes, golden.write_bytes)]
    return cells


def record(row: Row, kind: str) -> dict[str, Any]:
    """Linkerd's field names; null where nothing was measured."""
    golden = row.golden
    busy = golden is not None and golden.requests > 0
    fields: dict[str, Any] = {"namespace": row.namespace or row.name, "kind": kind, "name": row.name}
    if kind != "service":
        fields["meshed"] = f"{row.meshed}/{row.pods}"
    fields["success"] = golden.success_rate if golden is not None and busy else None
    fields["rps"] = golden.rps if golden is not None else None
    for q, name in ((0.5, "latency_ms_p50"), (0.95, "latency_ms_p95"), (0.99, "latency_ms_p99")):
        latency = golden.latency_ms(q) if golden is not None else float("nan")
        fields[name] = None if isnan(latency) else round(latency, 3)
    fields["tcp_open_connections"] = None if golden is None or isnan(golden.tcp_open) else int(golden.tcp_open)
    return fields


def _milliseconds(value: float) -> str:
    if isnan(value):
        return "-"
    return f"{value:.0f}ms" if value >= 10.0 else f"{value:.1f}ms"

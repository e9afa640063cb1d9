"""`meshproxy canary simulate FILE`: what a Canary would do, before it matters.  See control/canary/simulate."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import click

from meshproxy.cli.canary_flags import SELECTOR_LABELS, CanaryOptions
from meshproxy.cli.common import columns, fail

if TYPE_CHECKING:
    from control.canary.simulate.model import Fault
    from control.canary.simulate.timeline import Timeline

_EPILOG = """\b
Scenarios:
  good            all is well (the default)
  errors:5%       5 % of the canary's requests fail
  slow:900ms      its p99; slow alone: twice what is allowed
  bad:NAME        a metric beyond its limit;  NAME:12.5 a metric that says just that
  silent          the canary has no requests
  down            the metric source does not answer
  unready         its pods never become ready
Each may begin later, @2m after the first weight or @20% from that weight on, and be one Canary's only: cart=errors:5%@20%.

Exit status: 0 promoted, 1 rolled back or not decided, 2 wrong usage, or manifests that are refused.
"""


def _duration(context: click.Context, parameter: click.Parameter, value: str) -> float:
    from control.canary.declared.fields import SpecError, duration

    try:
        return duration(value, f"--{parameter.name}", 0.0)
    except SpecError as error:
        raise click.BadParameter(str(error)) from None


@click.command(epilog=_EPILOG)
@click.argument("file", metavar="FILE", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--scenario", "scenarios", multiple=True, metavar="WHAT", help="What the metrics say; may be given several times."
)
@click.option(
    "--replay", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Metrics as recorded, instead (JSON)."
)
@click.option(
    "--deny",
    "denials",
    multiple=True,
    metavar="NAME[:N]",
    help="A webhook (name or type) or gate that says no: for ever, or N times. All others say yes.",
)
@click.option("--rps", default=20.0, show_default=True, type=click.FloatRange(0, 1e6), help="Requests a second to the Service.")
@click.option("--limit", default="24h", show_default=True, callback=_duration, help="Simulated time after which it ends.")
@click.option("--start", default="2026-01-05T09:00:00Z", show_default=True, help="When it begins (time windows).")
@SELECTOR_LABELS
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Write a picture of it (SVG).")
@click.option(
    "-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True, help="Form of the output."
)
@click.pass_context
def command(
    context: click.Context,
    file: Path,
    scenarios: tuple[str, ...],
    replay: Path | None,
    denials: tuple[str, ...],
    rps: float,
    limit: float,
    start: str,
    canary_selector_labels: tuple[str, ...],
    plot: Path | None,
    output: str,
) -> None:
    """Walk the Canaries in FILE (a manifest or a directory) through a release, with a clock and metrics that are made up.

    What decides is what would decide in a mesh: the same controller, with the ReleasePolicy and MetricTemplates in FILE. A
    target that is not in FILE is made up. Nothing is run and nothing is sent: webhooks and gates are answered by the flags.
    """
    from control.canary.declared.commands import from_rfc3339
    from control.canary.declared.fields import SpecError
    from control.canary.simulate.given import Given, GivenError, SimulationError, check, doubts, load
    from control.canary.simulate.plot import svg
    from control.canary.simulate.replay import ReplayError
    from control.canary.simulate.replay import load as load_recording
    from control.canary.simulate.timeline import Outcome
    from control.canary.simulate.world import World

    try:
        begins = from_rfc3339(start)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--start") from None
    ours = logging.getLogger("meshproxy")
    before = ours.level
    ours.setLevel(logging.CRITICAL)  # what happens is in the timeline
    try:
        given = Given(
            faults=[_scenario(text) for text in scenarios],
            recording=load_recording(replay) if replay else None,
            denied=dict(_denial(text) for text in denials),
            rate=rps,
            limit_s=limit,
            start=begins,
            flags=CanaryOptions(canary_selector_labels).flags,
        )
        objects = load(file)
        check(objects, given)
        warnings = doubts(objects, given)
        timeline = asyncio.run(World(objects, given).run())
    except ReplayError as error:
        raise click.BadParameter(str(error), param_hint="--replay") from None
    except GivenError as error:
        raise click.BadParameter(str(error), param_hint=error.option) from None
    except (SimulationError, SpecError) as error:
        raise fail(str(error), 2) from None
    finally:
        ours.setLevel(before)  # the process may go on: tests call verbs
    if plot:
        plot.write_text(svg(timeline))
    click.echo(json.dumps({**_as_json(timeline), "warnings": warnings}, indent=2) if output == "json" else _as_text(timeline))
    for warning in warnings:
        click.echo(f"Warning: {warning}", err=True)
    context.exit(0 if timeline.outcome is Outcome.PROMOTED else 1)


def _scenario(text: str) -> tuple[str, Fault]:
    from control.canary.simulate.model import ScenarioError, parse_scenario

    whose, mark, rest = text.rpartition("=")
    try:
        return whose if mark else "", parse_scenario(rest)
    except ScenarioError as error:
        raise click.BadParameter(str(error), param_hint="--scenario") from None


def _denial(text: str) -> tuple[str, int | None]:
    name, mark, times = text.partition(":")
    if not mark:
        return name, None
    if not times.isdigit() or len(times) > 6:
        raise click.BadParameter(f"{text!r}: expected NAME or NAME:N, how many times it says no", param_hint="--deny")
    return name, int(times)


def _as_text(timeline: Timeline) -> str:
    from control.canary.simulate.text import bars, rows, verdict

    header, body = rows(timeline)
    parts = [columns(header, body)] if body else []
    lines = bars(timeline)
    if lines:
        name = max(len(line[0]) for line in lines)
        width = max(len(line[1]) for line in lines)
        parts.append("\n".join(f"{what:<{name}}  {drawn:<{width}}  {said}" for what, drawn, said in lines))
    parts.append(verdict(timeline))
    return "\n\n".join(parts)


def _as_json(timeline: Timeline) -> dict[str, object]:
    return {
        "outcome": timeline.outcome.value,
        "canaries": {name: outcome.value for name, outcome in timeline.outcomes.items()},
        "waitsFor": timeline.waits_for,
        "entries": [
            {
                "seconds": round(entry.at, 3),
                "canary": entry.canary,
                "phase": entry.phase,
                "canaryWeight": entry.weight,
                "iterations": entry.iteration,
                "failedChecks": entry.failed_checks,
                "checks": [
                    {"metric": seen.metric, "value": seen.value, "requests": seen.requests, "passed": seen.good}
                    for seen in entry.seen
                ],
                "events": [{"type": "Warning" if said.warning else "Normal", "message": said.text} for said in entry.said],
            }
            for entry in timeline.entries
        ],
    }

"""`meshproxy canary`: watch and steer releases.

status    read Canary objects                        (here)
history   read the decisions kept beside them        (here)
simulate  walk one through modelled metrics          simulate.py
approve pause resume abort retry promote             canary_orders.py
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from meshproxy.cli import canary_objects, canary_orders
from meshproxy.cli.common import (
    age,
    columns,
    dump,
    find_mesh,
    mesh_option,
    namespace_options,
    open_store,
    output_option,
    repeat,
    watch_option,
)
from meshproxy.cli.simulate import command as simulate

if TYPE_CHECKING:
    from control.canary.machine.status import Status
    from control.store.store import Object, Store

POLL_S = 0.2  # how often --wait looks: well below the shortest interval of a release, 1 s


@click.group()
def command() -> None:
    """Watch and steer releases.

    \b
    meshproxy canary status -n shop              where every release is
    meshproxy canary status catalogue -n shop --wait succeeded --timeout 5m
    meshproxy canary pause catalogue -n shop     hold the weight (checks go on); resume lets go
    meshproxy canary abort catalogue -n shop --reason "customers complain"
    meshproxy canary history catalogue -n shop   every decision, and the numbers it was made on
    meshproxy canary simulate release.yaml       what it would do, before it matters
    """


# ---------------------------------------------------------------- reading


def _seconds(context: click.Context, parameter: click.Parameter, value: str) -> float:
    from control.canary.declared.spec import SpecError, duration

    try:
        return duration(value, "--timeout", 0.0)
    except SpecError as error:
        raise click.BadParameter(str(error)) from None


@command.command()
@click.argument("name", required=False)
@mesh_option
@namespace_options
@output_option
@watch_option
@click.option("--wait", "wanted", metavar="PHASE", help="Wait until the release of what the target now says is in PHASE.")
@click.option("--timeout", default="5m", show_default=True, callback=_seconds, help="How long --wait waits.")
def status(
    name: str | None, mesh: str | None, namespace: str | None, output: str, watch: bool, wanted: str | None, timeout: float
) -> None:
    """Show where releases are.

    With --wait the exit status is 0 once NAME is in PHASE (initialized, succeeded, failed ...), and 1 when it ended otherwise
    or the time is over: `meshproxy canary status NAME --wait succeeded && echo released`.
    """
    store = open_store(find_mesh(mesh, down_too=wanted is None))

    def once() -> str:
        canary_objects.refresh(store)
        found = canary_objects.canaries(store, namespace, name)
        if output in ("json", "yaml"):
            return dump(found, output, single=name is not None)
        return _table(found, wide=output == "wide", everywhere=namespace is None)

    if wanted is None:
        repeat(once, watch=watch, changed=lambda: _marks(store, namespace, name))
        return
    if name is None or namespace is None:
        raise click.UsageError("--wait needs one release: NAME, and -n NS rather than -A")
    reached = _wait(store, namespace, name, wanted, timeout)
    click.echo(once())
    if not reached:
        raise SystemExit(1)


def _wait(store: Store, namespace: str, name: str, wanted: str, timeout: float) -> bool:
    from control.canary.machine.status import Phase

    phases = {phase.value.lower(): phase for phase in Phase if phase}
    if wanted.lower() not in phases:
        raise click.UsageError(f"--wait: {wanted!r} is no phase; expected one of {', '.join(sorted(phases))}")
    goal = phases[wanted.lower()]
    ends = {Phase.INITIALIZED, Phase.SUCCEEDED, Phase.FAILED}
    deadline = time.monotonic() + timeout
    while True:
        canary_objects.refresh(store)
        found = canary_objects.canaries(store, namespace, name)[0]
        now = canary_objects.status_of(found)
        current = _is_about_the_present(store, found, now)
        if now.phase is goal and (current or goal not in ends):
            return True
        if current and now.phase is Phase.FAILED:
            click.echo(f"{name}.{namespace} failed{_why(store, namespace, name)}", err=True)
            return False
        if current and now.phase is Phase.SUCCEEDED:
            click.echo(f"{name}.{namespace} has succeeded, it will not be {goal.value}", err=True)
            return False
        if time.monotonic() >= deadline:
            click.echo(f"{name}.{namespace} is {now.phase or 'new'}, not {goal.value}, after {timeout:g} s", err=True)
            return False
        time.sleep(POLL_S)


def _why(store: Store, namespace: str, name: str) -> str:
    """Of a release that failed: what ended it, and the last check that did not pass."""
    from control.canary.history import decisions, policy_key

    told = [entry for entry in decisions(store.get(policy_key(namespace, name))) if entry.get("message")]
    halted = [entry for entry in told if entry["message"].startswith("Halt ")]
    lines = [told[-1]["message"]] if told else []
    if halted and halted[-1] is not told[-1] and halted[-1].get("revision") == told[-1].get("revision"):
        checks = ", ".join(_said(check) for check in halted[-1].get("checks") or () if check.get("outcome") != "passed")
        lines.append(halted[-1]["message"] + (f" ({checks})" if checks else ""))
    lines.append(f"`meshproxy canary history {name} -n {namespace}` has all of it")
    return ": " + "\n  ".join(lines)


def _is_about_the_present(store: Store, canary: Object, now: Status) -> bool:
    """Does the status speak of what the target says now, and not of an earlier release?"""
    from control.canary.objects import manifests
    from control.store.store import Key

    target = store.get(Key("apps", "Deployment", canary["metadata"]["namespace"], canary["spec"]["targetRef"]["name"]))
    return target is not None and manifests.revision(target) == now.last_applied


@command.command()
@click.argument("name", required=False)
@mesh_option
@namespace_options
@output_option
def history(name: str | None, mesh: str | None, namespace: str | None, output: str) -> None:
    """Show the decisions about a release, oldest first, with the numbers they were made on (the last hundred).

    Without NAME: which canaries there are to ask about.
    """
    from control.canary.history import decisions, policy_key

    if name is None and output in ("json", "yaml"):
        raise click.UsageError(f"-o {output} needs NAME")
    store = open_store(find_mesh(mesh, down_too=True))
    if name is None:
        click.echo(_askable(store, namespace))
        return
    canary = canary_objects.one(store, namespace, name)
    found = decisions(store.get(policy_key(canary["metadata"]["namespace"], name)))
    if output in ("json", "yaml"):
        click.echo(dump(found, output))
        return
    if not found:
        click.echo(f"Nothing has been decided about {name} yet.", err=True)
        return
    header = ["TIME", "PHASE", "WEIGHT", "FAILED", "REVISION", "MESSAGE", "CHECKS"]
    rows = [
        [
            entry["time"],
            entry["phase"],
            entry["canaryWeight"],
            entry["failedChecks"],
            entry["revision"][:8],
            entry["message"] + (f" ({entry['count']} times, until {entry['lastTime']})" if "count" in entry else ""),
            ", ".join(_said(check) for check in entry.get("checks") or ()),
        ]
        for entry in found
    ]
    click.echo(columns(header, rows))


def _askable(store: Store, namespace: str | None) -> str:
    """The commands that show a history: of the canaries of the namespace, of all if it has none."""
    found = store.list("flagger.app", "Canary", namespace) or store.list("flagger.app", "Canary")
    if not found:
        return "No canaries found."
    names = sorted((obj["metadata"]["namespace"], obj["metadata"]["name"]) for obj in found)
    return "\n".join(["The history of which canary?", *(f"  meshproxy canary history {name} -n {ns}" for ns, name in names)])


def _said(check: Object) -> str:
    value = check.get("value")
    seen = "no data" if value is None else f"{value:g}"
    requests = f" of {check['requests']:g} requests" if "requests" in check else ""
    allowed = [f"at least {check['min']:g}"] if "min" in check else []
    allowed += [f"at most {check['max']:g}"] if "max" in check else []
    limits = f" ({', '.join(allowed)})" if allowed else ""
    return f"{check['metric']} {seen}{requests}{limits}"


command.add_command(simulate, "simulate")
canary_orders.register(command)


def _marks(store: Store, namespace: str | None, name: str | None) -> Sequence[Any]:
    canary_objects.refresh(store)
    return [obj["metadata"]["resourceVersion"] for obj in canary_objects.canaries(store, namespace, name)]


def _table(canaries: Sequence[Object], *, wide: bool, everywhere: bool) -> str:
    header = [*(["NAMESPACE"] if everywhere else []), "NAME", "STATUS", "WEIGHT", "FAILEDCHECKS", "LASTTRANSITION"]
    if wide:
        header += ["TARGET", "INTERVAL", "STEP", "STEPWEIGHT", "STEPWEIGHTS", "MAXWEIGHT", "PAUSED"]
    header.append("MESSAGE")
    rows = []
    for obj in canaries:
        now, spec, metadata = obj.get("status") or {}, obj.get("spec") or {}, obj["metadata"]
        row: list[object] = [metadata["namespace"]] if everywhere else []
        row += [
            metadata["name"],
            (now.get("phase") or "<none>") + (" (paused)" if _is_paused(metadata) else ""),
            _weight(now),
            now.get("failedChecks", 0),
            f"{age(now.get('lastTransitionTime'))} ago" if now.get("lastTransitionTime") else "<none>",
        ]
        if wide:
            row += _details(spec, metadata, now)
        row.append(_message(now))
        rows.append(row)
    if not rows:
        return "No canaries found." if everywhere else "No canaries found in this namespace (-A shows all)."
    return columns(header, rows)


def _is_paused(metadata: Object) -> bool:
    from control.canary.declared.commands import Commands

    return Commands.of(metadata.get("annotations") or {}).pause


def _message(now: Object) -> str:
    """Why it is refused, else what its phase means."""
    said = {c.get("type"): str(c.get("message", "")) for c in now.get("conditions") or ()}
    return said.get("Accepted") or said.get("Promoted") or ""


def _weight(now: Object) -> str:
    """Exact where a policy's steps say so: the object itself has whole percent."""
    from control.canary.machine.status import Status

    try:
        return f"{Status.of(now).canary_weight:g}"
    except ValueError:  # another controller's phase
        return str(now.get("canaryWeight", 0))


def _step(now: Object) -> str:
    """Of a ReleasePolicy's steps: which, and whether something else is waited for."""
    from control.canary.machine.progress import State, progress
    from control.canary.machine.status import Status

    try:
        at = progress(Status.of(now))
    except ValueError:
        return ""
    if at is None:
        return ""
    return f"{'back ' if at.promoting else ''}{at.step}{'' if at.state is State.LOOKED_AT else ' (waits)'}"


def _details(spec: Object, metadata: Object, now: Object) -> list[object]:
    analysis = spec.get("analysis") or {}
    return [
        (spec.get("targetRef") or {}).get("name", ""),
        analysis.get("interval", "60s"),
        _step(now),
        analysis.get("stepWeight", ""),
        ",".join(str(step) for step in analysis.get("stepWeights") or ()),
        analysis.get("maxWeight", ""),
        "yes" if _is_paused(metadata) else "",
    ]

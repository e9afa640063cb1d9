"""`meshproxy canary status` tells where every release is: once, as it goes on (-w), or until it is there (--wait).

store --refresh--> Canaries --cells--> table             canary_rows.py
                     ^         '--changed?--> its line, under the one header   (-w)
                     '-- again, every WATCH_S --'
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import click

from meshproxy.cli import canary_objects, canary_standing
from meshproxy.cli.canary_rows import Form, Lines
from meshproxy.cli.common import (
    dump,
    find_mesh,
    mesh_option,
    namespace_options,
    open_store,
    output_option,
    watch_option,
)

if TYPE_CHECKING:
    from control.canary.machine.status import Status
    from control.store.store import Object, Store

POLL_S = 0.2  # how often --wait looks: well below the shortest interval of a release, 1 s
WATCH_S = 0.5  # how often -w does: reads every Canary


def _seconds(context: click.Context, parameter: click.Parameter, value: str) -> float:
    from control.canary.declared.spec import SpecError, duration

    try:
        return duration(value, "--timeout", 0.0)
    except SpecError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
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
    if watch and wanted is not None:
        raise click.UsageError("-w goes on for ever and --wait ends: one of them")
    if wanted is not None and (name is None or namespace is None):
        raise click.UsageError("--wait needs one release: NAME, and -n NS rather than -A")
    store = open_store(find_mesh(mesh, down_too=wanted is None))
    form = Form(store, wide=output == "wide", everywhere=namespace is None)

    def look() -> list[Object]:
        canary_objects.refresh(store)
        return canary_objects.canaries(store, namespace, name)

    def show(found: Sequence[Object]) -> str:
        if output in ("json", "yaml"):
            return dump(found, output, single=name is not None)
        return form.table(found) if found else _none(namespace)

    if wanted is not None and name is not None and namespace is not None:
        reached = _wait(store, namespace, name, wanted, timeout, canary_objects.of_mesh(mesh))
        click.echo(show(look()))
        if not reached:
            raise SystemExit(1)
    elif watch:
        _watch(look, Lines(form) if output not in ("json", "yaml") else None, output, namespace)
    else:
        click.echo(show(look()))


def _none(namespace: str | None) -> str:
    return "No canaries found." if namespace is None else "No canaries found in this namespace (-A shows all)."


# ---------------------------------------------------------------- as it goes on


def _watch(look: Callable[[], list[Object]], lines: Lines | None, output: str, namespace: str | None) -> None:
    """Until Ctrl-C.  With `lines` a table that grows, else each object anew, whole, whenever it changed."""
    found = look()
    if not found:
        click.echo(_none(namespace), err=True)
    before: dict[str, str] = {}
    try:
        while True:
            for text in lines.after(found) if lines is not None else _changed(found, before, output):
                click.echo(text)
            time.sleep(WATCH_S)
            found = look()
    except KeyboardInterrupt:
        return


def _changed(found: Sequence[Object], before: dict[str, str], output: str) -> Iterator[str]:
    for obj in found:
        uid, version = obj["metadata"]["uid"], obj["metadata"]["resourceVersion"]
        if before.get(uid) != version:
            mark = "---\n" if before and output == "yaml" else ""
            before[uid] = version
            yield mark + dump([obj], output, single=True)


# ---------------------------------------------------------------- until it is there


def _wait(store: Store, namespace: str, name: str, wanted: str, timeout: float, mesh: str) -> bool:
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
            click.echo(f"{name}.{namespace} failed{_why(store, namespace, name, mesh)}", err=True)
            return False
        if current and now.phase is Phase.SUCCEEDED:
            click.echo(f"{name}.{namespace} has succeeded, it will not be {goal.value}", err=True)
            return False
        if time.monotonic() >= deadline:
            said = canary_standing.message(store, found)
            click.echo(f"{name}.{namespace} is {now.phase or 'new'}, not {goal.value}, after {timeout:g} s: {said}", err=True)
            return False
        time.sleep(POLL_S)


def _why(store: Store, namespace: str, name: str, mesh: str) -> str:
    """Of a release that failed: what ended it, and the last check that did not pass."""
    from control.canary.history import decisions, policy_key
    from meshproxy.cli.canary_rows import check

    told = [entry for entry in decisions(store.get(policy_key(namespace, name))) if entry.get("message")]
    halted = [entry for entry in told if entry["message"].startswith("Halt ")]
    lines = [told[-1]["message"]] if told else []
    if halted and halted[-1] is not told[-1] and halted[-1].get("revision") == told[-1].get("revision"):
        checks = ", ".join(check(one) for one in halted[-1].get("checks") or () if one.get("outcome") != "passed")
        lines.append(halted[-1]["message"] + (f" ({checks})" if checks else ""))
    lines.append(f"`meshproxy canary history {name} -n {namespace}{mesh}` has all of it")
    return ": " + "\n  ".join(lines)


def _is_about_the_present(store: Store, canary: Object, now: Status) -> bool:
    """Does the status speak of what the target says now, and not of an earlier release?"""
    from control.canary.objects import manifests
    from control.store.store import Key

    target = store.get(Key("apps", "Deployment", canary["metadata"]["namespace"], canary["spec"]["targetRef"]["name"]))
    return target is not None and manifests.revision(target) == now.last_applied

"""`meshproxy lint DIR`: what the store would say of a directory of manifests, without running anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from control.store.store import Diagnostic

_COLOURS = {"error": "red", "warning": "yellow", "info": "cyan"}


@click.command(epilog="Exit status: 0 no errors (warnings may be there; not with --strict), 1 errors, 2 wrong usage.")
@click.argument("directory", metavar="DIR", type=click.Path(exists=True, path_type=Path))
@click.option(
    "-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True, help="Form of the output."
)
@click.option("--strict", is_flag=True, help="Warnings fail too: for CI, where a misspelt kind is a mistake.")
@click.pass_context
def command(ctx: click.Context, directory: Path, output: str, strict: bool) -> None:
    """Check the manifests in DIR (a directory or one file) as `meshproxy up DIR` would.

    Every mistake is shown, with file, line, field, what was found and what was expected. An error means that the document
    is refused, or a Canary not run; a warning, that something has no effect here; an info, that it may mean more than it says.
    """
    found, documents, files = diagnose(directory)
    errors = sum(1 for diagnostic in found if diagnostic.severity == "error")
    warnings = sum(1 for diagnostic in found if diagnostic.severity == "warning")
    if not files and not errors:
        raise click.UsageError(f"no manifests in {directory}: expected .yaml, .yml or .json files (folders in it are not read)")
    if output == "json":
        click.echo(json.dumps([_as_json(diagnostic) for diagnostic in found], indent=2))
    else:
        for diagnostic in found:
            click.secho(str(diagnostic), fg=_COLOURS[diagnostic.severity])
        summary = f"{_count(files, 'file')}, {_count(documents, 'document')}: "
        summary += f"{_count(errors, 'error')}, {_count(warnings, 'warning')}"
        click.echo(summary + (" (--strict: they fail)" if strict and warnings else ""))
    ctx.exit(1 if errors or (strict and warnings) else 0)


def diagnose(directory: Path) -> tuple[list[Diagnostic], int, int]:
    """All diagnostics in the order of the files, the number of documents, and of files."""
    from control.resources.crosscheck import crosscheck, notes
    from control.resources.documents import Path as FieldPath
    from control.resources.documents import field_name
    from control.resources.refused import Refused
    from control.resources.routegroup import open_ended
    from control.resources.validate import review
    from control.store.store import Diagnostic, Key
    from control.store.userfiles import UserFiles

    user = UserFiles(directory)
    user.scan()
    reviewed = review(user.files)
    good = {**reviewed.accepted, **reviewed.withheld}

    def locate(key: Key, path: FieldPath) -> tuple[str, int]:
        document = good[key].document
        return document.file, document.line_of(path)

    objects = [checked.obj for checked in good.values() if checked.obj is not None]
    found = [*user.problems, *reviewed.diagnostics]
    found += crosscheck(objects, locate, Refused.reviewed(user.problems, user.files, reviewed))
    found += notes(objects, locate)
    for obj in objects:
        if obj["kind"] == "HTTPRouteGroup":
            key = Key.of(obj)
            for path, message, hint in open_ended(obj):
                found.append(Diagnostic("info", *locate(key, path), field_name(path), message, hint, key))
    found.sort(key=lambda diagnostic: (diagnostic.file, diagnostic.line))
    return found, reviewed.documents, len(user.files)


def _as_json(diagnostic: Diagnostic) -> dict[str, object]:
    return {
        "severity": diagnostic.severity,
        "file": diagnostic.file,
        "line": diagnostic.line,
        "field": diagnostic.field,
        "message": diagnostic.message,
        "hint": diagnostic.hint,
        "object": str(diagnostic.key) if diagnostic.key else None,
    }


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")

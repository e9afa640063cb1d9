"""What the audience sees.  Two forms of one thing:

PlainView   lines, one after the other; a line of figures every few seconds        (no terminal, or --plain)
LiveView    the same lines, and below them a picture that moves                     (rich)
"""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from meshproxy.demo.verdict import Finding

if TYPE_CHECKING:
    from meshproxy.demo.watch import Figures, Watch

FIGURES_S = 5.0  # between two lines of figures without a terminal
MAX_PODS = 14  # rows of the table of processes; a terminal is not endless


class View:
    """Lines.  `figures` is called about twice a second with what is to be seen."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console
        self._clock = clock

    def open(self) -> None:
        """Begin to show the picture, if there is one."""

    def close(self) -> None:
        """Leave the terminal as it was."""

    def scene(self, number: int, total: int, title: str, explain: str) -> None:
        self.console.print()
        self.console.print(Text(f"Scene {number} of {total}: {title}", style="bold cyan"))
        width = min(100, self.console.width - 3) if self.console.is_terminal else 100
        self.console.print(Text(textwrap.indent(textwrap.fill(explain, max(width, 20)), "  "), style="dim"))

    def say(self, text: str) -> None:
        self._line(Text(f"  {text}"), 2)

    def warn(self, text: str) -> None:
        self._line(Text(f"  {text}", style="bold red"), 2)

    def diff(self, lines: Sequence[str]) -> None:
        styles = {"+": "green", "-": "red", "@": "cyan"}
        for line in lines:
            self.console.print(Text(f"  {line}", style=styles.get(line[:1], "")))

    def conclude(self, finding: Finding) -> None:
        """What came of a scene."""
        mark, style = ("ok    ", "green") if finding.ok else ("FAILED", "bold red") if finding.judged else ("?     ", "yellow")
        self._line(
            Text.assemble(
                "  ", (mark, style), f"  {finding.claim}: {'' if finding.judged else 'not judged: '}{finding.detail}"
            ),
            10,
        )

    def verdict(self, findings: Sequence[Finding]) -> None:
        self.console.print()
        self.console.print(
            Text("What was observed, counted by request ids in the ledgers of clients and services", style="bold")
        )
        for finding in findings:
            self.conclude(finding)

    def figures(self, watch: Watch) -> None:
        """Show the state of things."""

    def _line(self, text: Text, indent: int) -> None:
        """On a terminal wrapped at words, what follows below the first word; elsewhere one line, however long."""
        if not self.console.is_terminal:
            self.console.print(text, soft_wrap=True)
            return
        for line in text.split("\n", allow_blank=True):
            room = max(self.console.width - indent - 1, 20)
            first, *more = line[indent:].wrap(self.console, room) or [Text()]
            self.console.print(Text.assemble(line[:indent], first), soft_wrap=True)
            for part in more:
                self.console.print(Text.assemble(" " * indent, part), soft_wrap=True)


class PlainView(View):
    """A line of figures now and then."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(console, clock)
        self._due = 0.0

    def figures(self, watch: Watch) -> None:
        now = self._clock()
        if now < self._due or not any(row.rps for row in watch.table):
            return
        self._due = now + FIGURES_S
        cells = [_brief(row) for row in watch.table]
        release = watch.release
        self._line(Text(f"  . canary {release.phase or '-'} {release.weight} %  |  {'  |  '.join(cells)}", style="dim"), 4)


class LiveView(View):
    """A picture at the bottom of the terminal."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(console, clock)
        self._live = Live(console=console, auto_refresh=False, transient=False)
        self._title = ""

    def open(self) -> None:
        self._live.start()

    def close(self) -> None:
        self._live.stop()

    def scene(self, number: int, total: int, title: str, explain: str) -> None:
        self._title = f"scene {number} of {total}: {title}"
        super().scene(number, total, title, explain)

    def figures(self, watch: Watch) -> None:
        self._live.update(picture(watch, self._title), refresh=True)


# ---------------------------------------------------------------- the picture


def picture(watch: Watch, title: str) -> RenderableType:
    """Golden metrics, the release, the processes."""
    return Panel(Group(_metrics(watch.table), _release(watch), _processes(watch)), title=title, border_style="cyan")


def _metrics(rows: Sequence[Figures]) -> Table:
    table = Table(box=None, expand=True, header_style="bold")
    table.add_column("SERVICE", ratio=1, no_wrap=True)  # what the others leave: nothing depends on what is in a cell
    table.add_column("VERSION", width=7, no_wrap=True)
    for name, width in (("PODS", 4), ("SUCCESS", 7), ("RPS", 6), ("P50", 8), ("P95", 8), ("P99", 8)):
        table.add_column(name, justify="right", width=width, no_wrap=True)
    for row in rows:
        success = Text("-" if row.success is None else f"{row.success:.1f} %")
        if row.success is not None and row.success < 99:
            success.stylize("bold red")
        latencies = [_ms(value) for value in (row.p50, row.p95, row.p99)]
        table.add_row(row.service, row.version, str(row.pods), success, f"{row.rps:.1f}", *latencies)
    return table


def _release(watch: Watch) -> RenderableType:
    release = watch.release
    styles = {"Progressing": "yellow", "Promoting": "yellow", "Finalising": "yellow", "Failed": "bold red"}
    line = Table.grid(padding=(0, 1), expand=True)
    for width in (16, 4, 16):
        line.add_column(width=width, no_wrap=True)
    line.add_column(ratio=1)
    line.add_column(width=5, justify="right", no_wrap=True)
    line.add_column(width=16, no_wrap=True)
    line.add_row(
        Text("canary catalogue", style="bold"),
        Text(release.version),
        Text(release.phase or "-", style=styles.get(release.phase, "green")),
        ProgressBar(total=100, completed=release.weight),
        Text(f"{release.weight} %"),
        Text(f"failed checks {release.failed_checks}" if release.failed_checks else ""),
    )
    return line


def _processes(watch: Watch) -> Table:
    table = Table(box=None, expand=True, header_style="bold")
    table.add_column("POD", ratio=1, no_wrap=True)
    table.add_column("ADDRESS", width=15, no_wrap=True)
    table.add_column("VERSION", width=7, no_wrap=True)
    for name in ("APP", "SIDECAR"):
        table.add_column(name, width=7, justify="right", no_wrap=True)
    table.add_column("STATE", width=8, no_wrap=True)
    for pod in watch.pods[:MAX_PODS]:
        state = "ending" if pod.terminating else "ready" if pod.ready else "starting"
        style = {"ready": "green", "starting": "yellow", "ending": "dim"}[state]
        app, sidecar = (str(pod.pids.get(name, "-")) for name in ("app", "sidecar"))
        table.add_row(pod.name, pod.ip, pod.version, app, sidecar, Text(state, style=style))
    if len(watch.pods) > MAX_PODS:
        table.add_row(f"and {len(watch.pods) - MAX_PODS} more", "", "", "", "", "")
    return table


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} ms"


def _brief(row: Figures) -> str:
    success = "-" if row.success is None else f"{row.success:.0f} %"
    return f"{row.service} {row.version} {row.rps:.0f}/s {success} p99 {_ms(row.p99)}"

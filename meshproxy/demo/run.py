"""The whole evening: scenes, verdict, and the end of everything that was started.

Stage.open in scene 1 --> scenes in order --> last visitors leave --> verdict --> (stay) --> Stage.close
                               |
                               `-- one that stalls ends the play; what was seen until then is judged all the same
"""

from __future__ import annotations

import asyncio
import os
import select
import shutil
import signal
import sys
import tempfile
import termios
import tty
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from meshproxy.demo import verdict
from meshproxy.demo.breakage import VARIABLE, Break
from meshproxy.demo.mesh import MeshFailed, Stalled
from meshproxy.demo.scenes import SCENES
from meshproxy.demo.stage import Stage
from meshproxy.demo.view import LiveView, PlainView, View

FIGURES_S = 0.5


@dataclass(frozen=True, slots=True)
class Options:
    name: str = "demo"  # of the mesh
    rate: float = 40.0  # requests a second
    step: bool = False  # wait for a key before each scene
    keep: bool | None = None  # stay up at the end; None: on a terminal
    plain: bool = False


def main(options: Options) -> int:
    """0: everything was observed.  1: something was not.  130: interrupted."""
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    console = Console(highlight=False, soft_wrap=not terminal)
    live = terminal and not options.plain
    view: View = LiveView(console) if live else PlainView(console)
    keep = terminal if options.keep is None else options.keep
    home = Path(tempfile.mkdtemp(prefix="meshproxy-demo-"))
    stage = Stage(home, options.name, options.rate, view, Break(os.environ.get(VARIABLE, "")))
    code = 1
    try:
        with _keys(terminal) as keys:
            code = asyncio.run(_interruptible(_play(stage, options.step, keep, keys)))
    except (KeyboardInterrupt, asyncio.CancelledError):
        code = 130
    finally:
        view.close()
    if code != 1:  # nothing to find out
        shutil.rmtree(home, ignore_errors=True)
    else:
        console.print(f"\nKept for a look: {home} (manifests, ledgers, recording, up.log) and {stage.mesh.layout.root} (logs)")
    return code


async def _interruptible(play: Coroutine[Any, Any, int]) -> int:
    """SIGTERM and SIGHUP end the play as Ctrl-C does: through its `finally`."""
    task = asyncio.ensure_future(play)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel)
    return await task


async def _play(stage: Stage, step: bool, keep: bool, keys: Keys) -> int:
    view = stage.view
    ok: bool | None = None  # None: nobody knows yet
    interrupted = False
    view.open()
    pictures = asyncio.create_task(_pictures(stage), name="pictures")
    try:
        complete = await _scenes(stage, step, keys)
        await stage.last_visitors()
        stage.check()
        findings = verdict.judge(stage.observed()) if stage.load else []
        ok = complete and bool(findings) and all(finding.ok for finding in findings)
        if findings:
            view.verdict(findings)
        view.say("")
        if not findings:
            view.warn("Nothing was observed.")
        elif ok:
            view.say(verdict.count(findings))
        else:
            view.warn(verdict.count(findings))
        if not ok and (hint := verdict.busy(os.getloadavg()[0], len(os.sched_getaffinity(0)))):
            view.say(hint)
        if keep and stage.load:
            stage.visitors("guest")  # something to look at; not counted
            view.say(f"The mesh stays up: try `meshproxy get pods -n shop --name {stage.mesh.name}`. {keys.what} ends it.")
            await keys.wait()
    except asyncio.CancelledError:
        interrupted = True
        raise
    finally:
        pictures.cancel()
        (shown,) = await asyncio.gather(pictures, return_exceptions=True)
        view.close()
        if isinstance(shown, Exception):  # the picture is not the play: said, not raised
            view.warn(f"the picture ended early: {shown!r}")
        view.say("Ending everything that was started ...")
        await stage.close()
        if ok or (ok is None and interrupted):  # of a run that failed the logs stay
            await stage.mesh.forget()
    return 0 if ok else 1


async def _scenes(stage: Stage, step: bool, keys: Keys) -> bool:
    """Play them; False when one did not come to its end."""
    for number, scene in enumerate(SCENES, 1):
        stage.view.scene(number, len(SCENES), scene.title, scene.explain)
        if step:
            stage.view.say("(any key)")
            await keys.wait()
        try:
            await scene.run(stage)
        except (MeshFailed, Stalled) as problem:
            stage.view.warn(str(problem))
            if isinstance(problem, Stalled):
                for line in stage.mesh.explain():
                    stage.view.say(line)
            return False
    return True


async def _pictures(stage: Stage) -> None:
    while True:
        stage.view.figures(stage.watch)
        await asyncio.sleep(FIGURES_S)


# ---------------------------------------------------------------- keys


class Keys:
    """Waits for a key; without a terminal there are none, and only Ctrl-C ends the wait."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        self.what = "Ctrl-C" if descriptor is None else "Any key"

    async def wait(self) -> None:
        if self._descriptor is None:
            await asyncio.Event().wait()
            return
        loop = asyncio.get_running_loop()
        pressed = asyncio.Event()
        loop.add_reader(self._descriptor, pressed.set)
        try:
            await pressed.wait()
        finally:
            loop.remove_reader(self._descriptor)
        while select.select([self._descriptor], [], [], 0)[0]:  # one key may be several bytes
            if not os.read(self._descriptor, 64):
                break


@contextmanager
def _keys(terminal: bool) -> Iterator[Keys]:
    """Keys without Enter, and the terminal as it was afterwards."""
    if not terminal:
        yield Keys(None)
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield Keys(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)

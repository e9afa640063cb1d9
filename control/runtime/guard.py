"""`python -m control.runtime.guard RECORDS`: waits on stdin for the supervisor's end, then kills what it left.

The kernel kills a supervisor's children with it (PR_SET_PDEATHSIG), but not their children: an app started by a shell
would live on.  The supervisor holds the other end of the pipe; when it is gone, however it went, this reads the end of
the file.  After an orderly end there is nothing recorded and nothing to do.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from control.runtime.process import reap


def start_guard(records: Path) -> subprocess.Popen[bytes]:
    """It holds the read end of a pipe, this process the only write end."""
    return subprocess.Popen(
        [sys.executable, "-m", "control.runtime.guard", str(records)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def end_guard(guard: subprocess.Popen[bytes]) -> None:
    """The orderly end: it reaps what is still recorded, which is nothing."""
    assert guard.stdin is not None
    guard.stdin.close()
    try:
        guard.wait(10)
    except subprocess.TimeoutExpired:
        guard.kill()
        guard.wait()


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while os.read(0, 4096):
        pass
    reap(Path(sys.argv[1]))


if __name__ == "__main__":
    main()

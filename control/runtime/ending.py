"""The way down, from another process: what `meshproxy down` does.

supervisor alive (pid and start time)? -> SIGTERM -> it ends in order   `- not within the patience: SIGKILL
then, in any case: what supervisors that are no more left running is killed
"""

from __future__ import annotations

import os
import shutil
import signal
import time

from control.runtime.layout import Layout, MeshInfo
from control.runtime.meshes import MeshError, alive, read_info
from control.runtime.process import reap_abandoned


def end_mesh(layout: Layout, *, patience: float = 90.0) -> list[str]:
    """End a running mesh and what killed ones left.  Returns lines about what was done; none: there was nothing.

    Args:
        patience: seconds for an orderly end; then the supervisor is killed, and with it everything.

    Raises:
        MeshError: it is still there after that.
    """
    lines = []
    info = read_info(layout)
    if info is not None and alive(info.supervisor_pid, info.supervisor_start):
        descriptor = os.pidfd_open(info.supervisor_pid)
        try:
            # The descriptor names the process from here on; was it this one already?
            if alive(info.supervisor_pid, info.supervisor_start):
                signal.pidfd_send_signal(descriptor, signal.SIGTERM)
                if _gone(info, patience):
                    lines.append(f'mesh "{info.name}" ended')
                else:
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                    lines.append(f'mesh "{info.name}" did not end within {patience:g} s and was killed')
                    if not _gone(info, 10.0):
                        raise MeshError(f"the supervisor (pid {info.supervisor_pid}) cannot be killed")
        finally:
            os.close(descriptor)
    lines += [f"ended a leftover: {name}" for name in reap_abandoned(layout.processes)]
    return lines


def _gone(info: MeshInfo, patience: float) -> bool:
    deadline = time.monotonic() + patience
    while alive(info.supervisor_pid, info.supervisor_start):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)
    return True


def purge(layout: Layout) -> None:
    """Forget a mesh that is down: objects, the root of its identities, logs."""
    shutil.rmtree(layout.root, ignore_errors=True)

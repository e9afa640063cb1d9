"""For all tests, before anything imports grpc."""

from __future__ import annotations

import os

# Tests that use grpc and tests that fork (control.runtime.process.spawn has a preexec_fn) share one process here, which the
# project's own processes never do.  grpc's fork handlers start threads in the forked child; these abort it when it closes its
# descriptors before exec: 4 of 40 children, measured.  Without the handlers: none.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

"""For all tests, before anything imports grpc."""

from __future__ import annotations

import os
import signal

# A shell starts background jobs with SIGINT ignored (CI runs two halves of the suite at a time), and what is started from there
# inherits that: tests that interrupt a process would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests that use grpc and tests that fork (control.runtime.process.spawn has a preexec_fn) share one process here, which the
# project's own processes never do.  grpc's fork handlers start threads in the forked child; these abort it when it closes its
# descriptors before exec: 4 of 40 children, measured.  Without the handlers: none.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

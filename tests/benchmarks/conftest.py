"""The tests with a real linkerd2-proxy need LINKERD2_PROXY_BIN: without it they are no tests of this machine."""

from __future__ import annotations

import os

collect_ignore = [] if os.environ.get("LINKERD2_PROXY_BIN") else ["test_bench_linkerd_proxy.py"]

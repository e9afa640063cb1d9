"""A real mesh under every kind of traffic for some seconds: nothing fails, and client, proxies and app counted the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.soak.app import PORTS

REPOSITORY = Path(__file__).parents[2]


def test_the_books_of_client_proxies_and_app_agree() -> None:
    """As `make soak` runs it, shorter; it ends with 1 where anything failed, escaped or disagreed."""
    command = [sys.executable, "-m", "benchmarks.soak", "--minutes", "0.08", "--scale", "0.3"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    rows = [line.split() for line in done.stdout.splitlines()]
    counts = {row[0]: row[1:] for row in rows if len(row) == 7 and row[0] in PORTS and row[1].isdigit()}
    assert counts.keys() == PORTS.keys()
    for name, (client, exchanges, _, attempts, inbound, _) in counts.items():
        assert int(client) > 0, name
        assert client == exchanges, name
        assert attempts == inbound, name

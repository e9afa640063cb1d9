"""Chains of real proxies (forward_chains.py), one per test module and shape; the engines of the tables (http2_rows.py)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from forward_chains import CHAINS, end_chain, make_forwards
from forward_process import Forward
from http2_differences import SERVERS
from recorders import Http1Recorder, Http2Recorder, RecordingBackend


class Chain:
    """Client -> forward [-> forward] -> recorder."""

    def __init__(self, name: str, forwards: list[Forward], backend: RecordingBackend) -> None:
        self.name = name
        self.forwards = forwards
        self.backend = backend
        self.port = forwards[0].port

    def stop(self) -> None:
        end_chain(self.forwards, self.backend)


@pytest.fixture(scope="module", params=list(SERVERS))
def which(request: pytest.FixtureRequest) -> str:
    """The engine that a table is played against (http2_differences.py)."""
    return str(request.param)


@pytest.fixture(scope="module", params=CHAINS)
def chain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    backend = RecordingBackend(Http2Recorder if request.param == "http2 backend" else Http1Recorder)
    made = Chain(request.param, make_forwards(request.param, backend.port, tmp_path_factory.mktemp("chain")), backend)
    yield made
    made.stop()

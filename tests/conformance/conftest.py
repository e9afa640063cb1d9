"""Chains of `forward` processes, each with a recording backend at its end; one per test module and shape."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from forward_process import Forward
from recorders import Http1Recorder, Http2Recorder, RecordingBackend


class Chain:
    """Client -> forward [-> forward] -> recorder."""

    def __init__(self, name: str, forwards: list[Forward], backend: RecordingBackend) -> None:
        self.name = name
        self.forwards = forwards
        self.backend = backend
        self.port = forwards[0].port
        self.marked = backend.mark()

    def stop(self) -> None:
        try:
            for forward in self.forwards:
                forward.stop()
        finally:
            self.backend.stop()


def make_chain(name: str) -> Chain:
    backend = RecordingBackend(Http2Recorder if name == "http2 backend" else Http1Recorder)
    if name == "http1 backend":
        return Chain(name, [Forward(backend.port)], backend)
    if name == "http2 backend":
        return Chain(name, [Forward(backend.port, "--upstream", "http2")], backend)
    inner = Forward(backend.port)
    between = "http2" if name == "http2 between" else "http1"
    return Chain(name, [Forward(inner.port, "--upstream", between), inner], backend)


CHAINS = ["http1 backend", "http2 backend", "http1 between", "http2 between"]


@pytest.fixture(scope="module", params=CHAINS)
def chain(request: pytest.FixtureRequest) -> Iterator[Chain]:
    made = make_chain(request.param)
    yield made
    made.stop()

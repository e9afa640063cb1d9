"""`meshproxy.dev/workers` on a pod template: how many processes its sidecar is."""

from __future__ import annotations

import pytest

from control.resources.annotations import MAX_WORKERS
from control.runtime.environment import ConfigError
from control.runtime.sidecar import workers_arguments
from meshproxy.cli import forward


def pod(**annotations: str) -> dict[str, object]:
    return {"metadata": {"name": "p", "annotations": {f"meshproxy.dev/{name}": value for name, value in annotations.items()}}}


def test_the_annotation_becomes_an_argument_of_the_sidecar() -> None:
    assert workers_arguments({"metadata": {}}) == []
    assert workers_arguments(pod(inject="enabled")) == []
    assert workers_arguments(pod(workers="2")) == ["--workers", "2"]
    assert workers_arguments(pod(workers="auto")) == ["--workers", "auto"]


@pytest.mark.parametrize("wrong", ["0", "65", "-1", "two", "", "2.0", " 2", "²"])
def test_what_is_no_number_of_processes_is_refused_with_what_would_be(wrong: str) -> None:
    with pytest.raises(ConfigError, match="expected a number from 1 to 64, or auto"):
        workers_arguments(pod(workers=wrong))


def test_the_runtime_allows_what_the_proxy_takes() -> None:
    assert MAX_WORKERS == forward.MAX_WORKERS

"""What a Service's annotations say of faults to inject."""

from __future__ import annotations

import pytest
from resource_helpers import told

from control.api import mesh_pb2
from control.resources.fault import ABORT, DELAY, HEADER, Fault, fault
from meshproxy.mesh.convert import fault_of


def lint(**annotations: str) -> list[str]:
    written = ", ".join(f'"{name}": "{value}"' for name, value in annotations.items())
    return told(
        f"""
        apiVersion: v1
        kind: Service
        metadata: {{name: web, annotations: {{{written}}}}}
        spec: {{selector: {{app: web}}, ports: [{{port: 80}}]}}
        """
    )


@pytest.mark.parametrize(
    ("annotations", "declared"),
    [
        ({}, None),
        ({DELAY: "200ms 10%"}, Fault(0.2, 100_000)),
        ({ABORT: "500 0.01%"}, Fault(0.0, 0, 500, 100)),
        ({DELAY: "1m 100%", ABORT: "503 0.0001%"}, Fault(60.0, 1_000_000, 503, 1)),
        ({ABORT: "418 5%", HEADER: "X-Test=chaos monkey"}, Fault(0.0, 0, 418, 50_000, ("x-test", "chaos monkey"))),
        ({DELAY: "200ms 0%"}, None),
    ],
)
def test_faults_are_declared_by_time_or_status_and_share(annotations: dict[str, str], declared: Fault | None) -> None:
    assert fault(annotations) == (declared, [])
    assert lint(**annotations) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (DELAY, "200ms"),
        (DELAY, "10% 200ms"),
        (DELAY, "0s 10%"),
        (DELAY, "61s 10%"),
        (DELAY, "200ms 101%"),
        (DELAY, "200ms 0.00001%"),
        (DELAY, "200ms 10"),
        (ABORT, "100 1%"),
        (ABORT, "600 1%"),
        (ABORT, "5xx 1%"),
        (ABORT, ""),
        (HEADER, "x-test"),
        (HEADER, "x test=1"),
    ],
)
def test_a_mistake_in_one_of_them_is_told_and_nothing_is_injected(name: str, value: str) -> None:
    annotations = {ABORT: "503 100%", DELAY: "1s 100%", name: value}
    declared, mistakes = fault(annotations)
    assert declared is None
    assert [(annotation, hint) for annotation, _, hint in mistakes] == [(name, "no fault is injected")]
    (line,) = lint(**annotations)
    assert line.startswith(f'3 warning metadata.annotations["{name}"]: found ')


def test_a_header_alone_does_nothing() -> None:
    declared, mistakes = fault({HEADER: "x-test=1"})
    assert declared is None
    assert "has no effect without" in mistakes[0][1]


def test_the_proxy_reads_what_the_control_plane_sends() -> None:
    header = mesh_pb2.HeaderValue(name="x-test", value="1")
    policy = fault_of(mesh_pb2.Fault(delay_ms=250, delay_ppm=5, status=418, abort_ppm=7, header=header))
    assert (policy.delay_s, policy.delay_ppm, policy.status, policy.abort_ppm) == (0.25, 5, 418, 7)
    assert (policy.header, policy.value, policy.grpc_status) == (b"x-test", b"1", 14)

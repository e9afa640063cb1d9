"""`meshproxy canary simulate` of a Canary whose target is a DaemonSet, on a made-up cluster: embedded mode has none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from canary_plays import canary_object
from test_canary_simulate import told

TARGET = {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "podinfo"}
MANIFEST = {
    "apiVersion": "apps/v1",
    "kind": "DaemonSet",
    "metadata": {"name": "podinfo", "namespace": "test"},
    "spec": {
        "selector": {"matchLabels": {"app": "podinfo"}},
        "template": {
            "metadata": {"labels": {"app": "podinfo"}},
            "spec": {"containers": [{"name": "podinfo", "image": "podinfo:v1"}]},
        },
    },
}


def written(path: Path, *more: dict[str, Any]) -> Path:
    made = canary_object(targetRef=TARGET, progressDeadlineSeconds=120)
    del made["metadata"]["uid"]
    file = path / "canary.yaml"
    file.write_text(yaml.safe_dump_all([made, *more]))
    return file


@pytest.mark.parametrize("more", [(), (MANIFEST,)], ids=["made up", "among the manifests"])
def test_a_daemon_sets_release_is_promoted_weight_by_weight(tmp_path, more):
    found = told(written(tmp_path, *more), code=0)
    weights = [entry["canaryWeight"] for entry in found["entries"]]
    assert found["outcome"] == "promoted"
    assert [weight for weight in dict.fromkeys(weights) if weight] == [10, 20, 30, 40, 50]


@pytest.mark.parametrize(
    ("scenario", "text"),
    [
        ("errors:5%@20%", "Halt podinfo.test advancement success rate 95.00% < 99%"),
        ("unready", "exceeded its progressDeadlineSeconds: 120"),
    ],
)
def test_a_bad_one_is_rolled_back(tmp_path, scenario, text):
    found = told(written(tmp_path), "--scenario", scenario)
    assert found["outcome"] == "rolled back"
    assert text in json.dumps(found["entries"])

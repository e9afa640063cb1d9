"""SMI's objects have no status: `meshproxy get` says in a column what lint and Events say of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from runtime_support import mesh_that_is_down, service

from control.store.files import FileStore
from control.store.store import Object
from meshproxy.cli.get import changes, find, parse_request, show, standing
from meshproxy.cli.get import command as get_command

Write = Callable[..., FileStore]


def split(name: str, service: str, groups: tuple[str, ...] = (), **weights: int) -> Object:
    spec: Object = {"service": service, "backends": [{"service": name, "weight": weights[name]} for name in weights]}
    if groups:
        spec["matches"] = [{"kind": "HTTPRouteGroup", "name": group} for group in groups]
    return {
        "apiVersion": "split.smi-spec.io/v1alpha4",
        "kind": "TrafficSplit",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": spec,
    }


def group(name: str, **match: Any) -> Object:
    return {
        "apiVersion": "specs.smi-spec.io/v1alpha4",
        "kind": "HTTPRouteGroup",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"matches": [{"name": "m", **match}]},
    }


def target(name: str, group: str, **spec: Any) -> Object:
    return {
        "apiVersion": "access.smi-spec.io/v1alpha3",
        "kind": "TrafficTarget",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "destination": {"kind": "ServiceAccount", "name": "web"},
            "sources": [{"kind": "ServiceAccount", "name": "api"}],
            "rules": [{"kind": "HTTPRouteGroup", "name": group}],
            **spec,
        },
    }


def ready(name: str) -> Object:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"{name}-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["127.9.9.9"], "conditions": {"ready": True}}],
        "ports": [{"name": "", "port": 8080}],
    }


SERVICES = [one for name in ("web", "api", "a", "b", "c", "d", "e", "f", "g") for one in (service(name), ready(name))]


@pytest.fixture
def write(tmp_path: Path, state_home: Path) -> Write:
    """Write the manifests of a mesh that is down, and have them accepted; gives a reader."""
    layout = mesh_that_is_down()
    manifests = tmp_path / "manifests"
    manifests.mkdir()

    def write(*objects: Object) -> FileStore:
        (manifests / "all.yaml").write_text(yaml.safe_dump_all([*SERVICES, *objects]))
        with FileStore(manifests, layout.objects, "control", accepting=True) as store:
            store.refresh()
        reader = FileStore(None, layout.objects, "cli")
        reader.refresh()
        return reader

    return write


def column(words: str, name: str = "STATUS") -> dict[str, str]:
    result = CliRunner().invoke(get_command, [*words.split(), "-n", "shop"])
    assert result.exit_code == 0, result.output
    header, *lines = result.stdout.splitlines()
    at = header.index(name)
    return {line.split()[0]: line[at:].split("   ")[0].strip() for line in lines}


def test_a_split_says_what_is_wrong_with_it(write: Write) -> None:
    write(
        split("first", "web", e=1, f=1),
        split("second", "web", g=1),
        split("zero", "api", e=0),
        split("chain", "c", d=1),
        split("cycle", "d", c=1),
        split("nobody", "a", missing=1),
        split("groups", "b", ("none",), e=1),
        split("good", "b", b=9, e=1),
    )
    assert column("ts") == {
        "first": "ok",
        "second": "ShadowedSplit",
        "zero": "AllWeightsZero",
        "chain": "SplitChain",
        "cycle": "SplitChain",
        "nobody": "BackendMissing",
        "groups": "MatchGroupMissing",
        "good": "ok",
    }
    messages = column("ts -o wide", "MESSAGE")
    assert messages["second"].startswith("web is already split by first, which is older, or first by name")
    assert "and that leads back" in messages["cycle"]
    assert messages["groups"] == "HTTPRouteGroup none does not exist: no request fits it, so they go to b itself"
    assert messages["first"] == ""


def test_several_things_that_are_wrong_are_all_named_each_once(write: Write) -> None:
    write(split("s", "nowhere", gone=0, lost=0))
    assert column("ts") == {"s": "RootMissing,AllWeightsZero,BackendMissing"}


def test_a_target_says_what_is_wrong_with_it(write: Write) -> None:
    write(
        group("books", pathRegex="/books"), target("good", "books"), target("none", "nope"), target("first", "books", rules=[])
    )
    assert column("tt") == {"good": "ok", "none": "RuleMissing", "first": "ManifestRefused,TargetRefused"}
    assert "no version from before is in force" in column("tt -o wide", "MESSAGE")["first"]


def test_a_group_whose_edit_was_refused_says_so(write: Write) -> None:
    write(group("books", pathRegex="/books"), group("other", pathRegex="/other"))
    assert column("htr") == {"books": "ok", "other": "ok"}
    write(group("books", pathRegex="(?=x)"), group("other", pathRegex="/other"))
    assert column("htr") == {"books": "ManifestRefused", "other": "ok"}
    assert "pathRegex" in column("htr -o wide", "MESSAGE")["books"]


def test_the_objects_themselves_are_shown_as_they_are(write: Write) -> None:
    write(split("zero", "api", b=0))
    shown = CliRunner().invoke(get_command, ["ts", "zero", "-n", "shop", "-o", "json"])
    assert "status" not in json.loads(shown.stdout)


def test_watching_shows_what_another_object_has_changed(write: Write) -> None:
    store = write(split("s", "web", ("books",), a=1))
    request = parse_request(["ts"], "shop")
    seen = changes(store, request, find(store, request), interval=0.0)
    write(split("s", "web", ("books",), a=1), group("books", pathRegex="/books"))
    _, changed = next(seen)
    assert [obj["metadata"]["name"] for _, objects in changed for obj in objects] == ["s"]
    assert "MatchGroupMissing" not in show(changed, request, "table", standing=standing(store, request))

"""Environment and command line, as Kubernetes makes them."""

from __future__ import annotations

import base64
import sys
from typing import Any

import pytest

from control.runtime.environment import (
    ConfigError,
    ServiceListener,
    command_line,
    container_environment,
    expand,
    inherited,
    mesh_environment,
    service_environment,
)

POD = {
    "metadata": {"name": "web-1", "namespace": "shop", "uid": "u-1", "labels": {"app": "web"}, "annotations": {"a/b": "c"}},
    "spec": {"serviceAccountName": "web"},
}
OBJECTS = {
    ("ConfigMap", "settings"): {
        "kind": "ConfigMap",
        "metadata": {"name": "settings"},
        "data": {"COLOUR": "green", "LEVEL": "3", "not a name": "x"},
    },
    ("Secret", "keys"): {
        "kind": "Secret",
        "metadata": {"name": "keys"},
        "data": {"TOKEN": base64.b64encode(b"s3cret").decode()},
        "stringData": {"PLAIN": "text"},
    },
}


def resolve(container: dict[str, Any], base: dict[str, str] | None = None) -> dict[str, str]:
    def lookup(kind: str, name: str) -> dict[str, Any] | None:
        return OBJECTS.get((kind, name))

    return container_environment({"name": "app", **container}, POD, "127.8.9.10", lookup, base or {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)-$(B)", "1-2"),
        ("$$(A)", "$(A)"),
        ("$(UNKNOWN)", "$(UNKNOWN)"),
        ("$$$(A)", "$1"),
        ("$A ${A} $(A", "$A ${A} $(A"),
        ("cost: $5", "cost: $5"),
    ],
)
def test_references_expand_as_kubernetes_expands_them(text: str, expected: str) -> None:
    assert expand(text, {"A": "1", "B": "2"}) == expected


def test_env_refers_only_to_what_came_before_it() -> None:
    env = [{"name": "A", "value": "$(B)"}, {"name": "B", "value": "2"}, {"name": "C", "value": "$(B)$(COLOUR)"}]
    found = resolve({"env": env, "envFrom": [{"configMapRef": {"name": "settings"}}]})
    assert (found["A"], found["C"]) == ("$(B)", "2green")


def test_env_wins_over_env_from_which_wins_over_the_rest() -> None:
    container = {"env": [{"name": "COLOUR", "value": "red"}], "envFrom": [{"configMapRef": {"name": "settings"}}]}
    found = resolve(container, {"COLOUR": "blue", "LEVEL": "1", "PATH": "/bin"})
    assert (found["COLOUR"], found["LEVEL"], found["PATH"]) == ("red", "3", "/bin")
    assert "not a name" not in found


def test_env_from_takes_a_prefix_and_secrets_are_decoded() -> None:
    found = resolve({"envFrom": [{"prefix": "K_", "secretRef": {"name": "keys"}}]})
    assert (found["K_TOKEN"], found["K_PLAIN"]) == ("s3cret", "text")


def test_every_field_of_the_downward_api_resolves() -> None:
    paths = {
        "metadata.name": "web-1",
        "metadata.namespace": "shop",
        "metadata.uid": "u-1",
        "metadata.labels['app']": "web",
        "metadata.annotations['a/b']": "c",
        "spec.serviceAccountName": "web",
        "status.podIP": "127.8.9.10",
        "status.hostIP": "127.0.0.1",
    }
    env = [{"name": f"V{i}", "valueFrom": {"fieldRef": {"fieldPath": path}}} for i, path in enumerate(paths)]
    found = resolve({"env": env})
    assert [found[f"V{i}"] for i in range(len(paths))] == list(paths.values())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"configMapKeyRef": {"name": "none", "key": "k"}}, 'configmap "none" not found'),
        ({"secretKeyRef": {"name": "keys", "key": "k"}}, 'secret "keys" has no key "k"'),
        ({"fieldRef": {"fieldPath": "status.phase"}}, "status.phase"),
        ({"resourceFieldRef": {"resource": "limits.cpu"}}, "resourceFieldRef"),
    ],
)
def test_what_does_not_resolve_is_named(source: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        resolve({"env": [{"name": "X", "valueFrom": source}]})


def test_what_is_optional_may_be_missing() -> None:
    source = {"configMapKeyRef": {"name": "none", "key": "k", "optional": True}}
    container = {
        "env": [{"name": "X", "valueFrom": source}],
        "envFrom": [{"secretRef": {"name": "none", "optional": True}}],
    }
    assert resolve(container) == {}


def test_services_are_named_as_kubernetes_names_them_in_their_own_namespace_only() -> None:
    listeners = [
        ServiceListener("shop/price-list", 80, "web", "127.8.9.10:20000"),
        ServiceListener("shop/price-list", 9090, "grpc-api", "127.8.9.10:20001"),
        ServiceListener("bank/ledger", 80, "", "127.8.9.10:20002"),
    ]
    assert service_environment(listeners, "shop") == {
        "PRICE_LIST_SERVICE_HOST": "127.8.9.10",
        "PRICE_LIST_SERVICE_PORT": "20000",
        "PRICE_LIST_SERVICE_PORT_WEB": "20000",
        "PRICE_LIST_SERVICE_PORT_GRPC_API": "20001",
    }


def test_the_proxy_is_not_used_for_the_pod_itself_but_for_every_other_pod() -> None:
    found = mesh_environment("web-1", "127.8.9.10", "127.8.9.10:4140")
    assert found["http_proxy"] == found["HTTP_PROXY"] == found["grpc_proxy"] == "http://127.8.9.10:4140"
    assert found["no_proxy"] == found["NO_PROXY"] == "localhost,127.0.0.1,127.8.9.10"
    assert "http_proxy" not in mesh_environment("web-1", "127.8.9.10", None)


def test_the_users_own_environment_stays_out() -> None:
    assert inherited({"PATH": "/bin", "AWS_SECRET_ACCESS_KEY": "x", "http_proxy": "y"}) == {"PATH": "/bin"}


def test_command_and_args_expand_and_python_and_meshproxy_are_these_very_ones() -> None:
    words = command_line(
        {"name": "app", "command": ["python3", "-m", "$(MODULE)"], "args": ["$(N)"]}, {"MODULE": "web", "N": "7"}
    )
    assert words == [sys.executable, "-m", "web", "7"]
    assert command_line({"command": ["/usr/bin/python3"]}, {}) == ["/usr/bin/python3"]
    own = command_line({"command": ["meshproxy", "loadtester"], "args": ["--port", "8080"]}, {})
    assert own == [sys.executable, "-m", "meshproxy", "loadtester", "--port", "8080"]


def test_an_image_alone_is_refused_with_the_way_out() -> None:
    with pytest.raises(ConfigError, match="give it a command"):
        command_line({"name": "app", "image": "nginx", "args": ["-g"]}, {})

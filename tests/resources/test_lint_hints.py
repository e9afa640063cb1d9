"""What a reader is told to do about a mistake that people make every day."""

from __future__ import annotations

import pytest
from resource_helpers import told
from test_crosscheck import canary, deployment, obj, on_the_apex, service, split

from control.resources.crosscheck import crosscheck
from control.store.store import Object


def hints(*objects: Object) -> list[str]:
    return [f"{one.message} ({one.hint})" for one in crosscheck(objects)]


def policy(name: str, namespace: str) -> Object:
    made = obj("meshproxy.dev/v1alpha1", "ReleasePolicy", name, {"steps": [{"weight": 5}]})
    made["metadata"]["namespace"] = namespace
    return made


def test_what_is_missing_is_told_with_the_name_that_is_nearest() -> None:
    web = service("web")
    assert hints(canary("web", "wbe"), deployment("web")) == [
        "Deployment wbe does not exist: there is nothing to release (did you mean web?)"
    ]
    assert hints(web, split("s", "web", wbe=1))[0].endswith("(did you mean web?)")
    assert hints(service("wob"), on_the_apex())[0].endswith("the route is not attached to it (did you mean wob?)")


def test_what_is_in_another_namespace_is_told_where_it_is() -> None:
    (line,) = hints(policy("web", "default"), canary("web", "web"), deployment("web"))
    assert line.startswith("there is no Canary web in namespace default: the policy says nothing about any")
    assert line.endswith("(give it the Canary's name and namespace; there is one in namespace shop)")
    (line,) = hints(policy("any", "shop"), canary("web", "web"), deployment("web"))
    assert line.endswith("(give it the Canary's name and namespace)")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kind: Service\nmetadata: {name: a}\n", "1 error apiVersion: is missing (a Service has apiVersion: v1)"),
        ("apiVersion: apps/v1\nmetadata: {name: a}\n", "1 error kind: is missing (of apps/v1 there are Deployment)"),
        (
            "metadata:\n  name: {{ .Release.Name }}-a\n",
            "2 error : not valid YAML: did not find expected key while parsing a block mapping"
            " (a template of Helm? `helm template` makes the manifests: check those)",
        ),
        (
            "apiVersion: split.smi-spec.io/v1alpha2\nkind: TrafficSplit\nmetadata: {name: a}\n"
            "spec: {service: a, backends: [{service: b, weight: 50%}]}\n",
            '4 error spec.backends[0].weight: found the string "50%", expected a quantity such as 1, 500m or 1Gi'
            " (weights are shares of their sum: leave the % out)",
        ),
        (
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: a}\n"
            "spec: {parentRefs: [{kind: Service, name: a}], rules: []}\n",
            '4 error spec.parentRefs[0]: Service is no kind of gateway.networking.k8s.io (a Service needs group: "")',
        ),
    ],
)
def test_a_mistake_is_told_once_with_what_to_do(text: str, expected: str) -> None:
    assert told(text) == [expected]


def test_the_hint_at_helm_is_not_for_the_holes_of_a_query() -> None:
    (line,) = told("spec:\n  query: up{name='{{ name }}'}\n\tx: 1\n")
    assert "helm" not in line

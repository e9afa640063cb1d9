"""Every mistake of a manifest: file, line, field, what was found, what was expected, what to do."""

# ruff: noqa: E501 - a case is one line

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import kubernetes_validate
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from resource_helpers import look, taken, told

from control.resources import core
from control.resources.documents import Document
from control.resources.shape import Shape
from control.resources.validate import check_document
from control.store.store import Key

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports:
  - port: 80
"""

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        command: [python3, app.py]
"""


def test_a_good_manifest_is_taken_without_a_word() -> None:
    assert told(SERVICE + "---" + DEPLOYMENT) == []
    service, deployment = taken(SERVICE + "---" + DEPLOYMENT)
    assert service["metadata"] == {"name": "web", "namespace": "default"}
    assert deployment["spec"]["selector"] == {"matchLabels": {"app": "web"}}


def test_all_mistakes_of_a_file_are_told_not_only_the_first() -> None:
    assert told(
        """
        apiVersion: v1
        kind: Service
        metadata:
          name: web
          labels: {version: 1}
        spec:
          sellector: {app: web}
          ports:
          - port: 80
            targetPort: "8080"
          - port: 99999
          - name: x
        ---
        apiVersion: apps/v1
        kind: Deployment
        metadata: {name: web}
        spec:
          replicas: -1
          selector: {matchLabels: {app: web}}
          template:
            metadata: {labels: {app: wob}}
            spec:
              containers:
              - name: web
                command: python3 app.py
                readinessProbe: {httpGet: {port: http}}
        """
    ) == [
        "5 error metadata.labels.version: found the number 1, expected a string (put it in quotes)",
        "7 error spec.sellector: unknown field of spec (did you mean selector?)",
        '10 error spec.ports[0].targetPort: found the string "8080", expected a number or a name with a letter (remove the quotes)',
        "11 error spec.ports[1].port: found the number 99999, expected a whole number from 1 to 65535",
        "12 error spec.ports[2].port: is missing, expected a whole number from 1 to 65535",
        "18 error spec.replicas: found the number -1, expected a whole number from 0 to 2147483647",
        '21 error spec.template.metadata.labels.app: found the string "wob", expected "web" as spec.selector.matchLabels says',
        "25 error spec.template.spec.containers[0].command: found the string \"python3 app.py\", expected a list (begin each item with '- ')",
        "26 error spec.template.spec.containers[0].readinessProbe.httpGet.port: no container port is named http"
        " (give a number or name the port)",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "just text",
            '1 error : found the string "just text", expected a Kubernetes object (it begins with apiVersion and kind)',
        ),
        ("a: 1", "1 error apiVersion: is missing"),
        ("apiVersion: v1\nkind: Service", "1 error metadata: is missing, expected a map with a name"),
        ("apiVersion: v1\nkind: Service\nmetadata: {}", "3 error metadata.name: is missing, expected a string"),
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: 7}",
            "3 error metadata.name: found the number 7, expected lower-case letters, digits, '-' and '.' (put it in quotes)",
        ),
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: My_Shop}",
            "3 error metadata.namespace: found the string \"My_Shop\", expected lower-case letters, digits and '-'",
        ),
        (
            "apiVersion: v2\nkind: Service\nmetadata: {name: web}\nspec: {}",
            "1 error apiVersion: found v2, expected v1",
        ),
        (
            "apiVersion: split.smi-spec.io/v1\nkind: TrafficSplit\nmetadata: {name: web}\nspec: {}",
            "1 warning apiVersion: found split.smi-spec.io/v1, expected split.smi-spec.io/v1alpha1 or split.smi-spec.io/v1alpha2"
            " or split.smi-spec.io/v1alpha3 or split.smi-spec.io/v1alpha4 (it is read as v1alpha4)",
        ),
    ],
)
def test_what_is_no_object_is_told_from_what_has_no_name(text: str, expected: str) -> None:
    assert told(text)[0] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: a}",
            "2 warning kind: ignored: autoscaling/v2 HorizontalPodAutoscaler is not used in embedded mode"
            " (replicas are the Deployment's own)",
        ),
        (
            "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: a}",
            "2 warning kind: ignored: networking.k8s.io/v1 Ingress is not used in embedded mode"
            " (people come in by the mesh's own gateway)",
        ),
        (
            "apiVersion: linkerd.io/v1alpha2\nkind: ServiceProfile\nmetadata: {name: a}",
            "2 warning kind: ignored: linkerd.io/v1alpha2 ServiceProfile is not used in embedded mode"
            " (times and retries are annotations of the Service or of an HTTPRoute: docs/annotations.md)",
        ),
        (
            "apiVersion: policy.linkerd.io/v1beta3\nkind: Server\nmetadata: {name: a}",
            "2 warning kind: ignored: policy.linkerd.io/v1beta3 Server is not used in embedded mode"
            " (who may call whom is said by TrafficTargets: docs/access.md)",
        ),
        (
            "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {name: a}",
            "2 warning kind: ignored: gateway.networking.k8s.io/v1beta1 ReferenceGrant is not used in embedded mode"
            " (it is for routes of a Gateway; those of a Service need no grant:"
            " who may call whom is said by TrafficTargets: docs/access.md)",
        ),
        (
            "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [a.yaml]",
            "2 warning kind: ignored: Kustomization is kustomize's own (`kubectl kustomize DIR` makes the manifests: check those)",
        ),
        (
            "apiVersion: v1\nkind: Deployment\nmetadata: {name: a}",
            "2 warning kind: ignored: v1 Deployment is not used in embedded mode (did you mean apiVersion: apps/v1?)",
        ),
        (
            "apiVersion: apps/v1\nkind: Deploymnet\nmetadata: {name: a}",
            "2 warning kind: ignored: apps/v1 Deploymnet is not used in embedded mode (did you mean Deployment?)",
        ),
    ],
)
def test_a_kind_that_is_not_used_is_ignored_with_a_line(text: str, expected: str) -> None:
    assert told(text) == [expected]
    assert look(text).accepted == {}
    assert look(text).refused == set()


@pytest.mark.parametrize("kind", ["batch/v1 Job", "batch/v1 CronJob", "apps/v1 StatefulSet", "v1 PersistentVolumeClaim"])
def test_a_kind_that_would_run_differently_is_refused_with_the_way_out(kind: str) -> None:
    api_version, name = kind.split()
    (line,) = told(f"apiVersion: {api_version}\nkind: {name}\nmetadata: {{name: a}}")
    assert line.startswith(f"2 error kind: {name} does not run in embedded mode (")


# ---------------------------------------------------------------- meaning


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (
            "- port: 80",
            "- {port: 80, name: a}\n  - {port: 81}",
            "spec.ports[1].name: is missing, expected a name since there are several",
        ),
        ("- port: 80", "- {port: 80, name: a}\n  - {port: 81, name: a}", "spec.ports[1].name: a is also the name of ports[0]"),
        ("- port: 80", "- {port: 80, name: a}\n  - {port: 80, name: b}", "spec.ports[1].port: 80/TCP is also ports[0]"),
        ("- port: 80", "- {port: 80, targetPort: 0}", "spec.ports[0].targetPort: found 0, expected a port from 1 to 65535"),
        ("- port: 80", "- {port: 80, protocol: UDP}", "spec.ports[0].protocol: UDP does not go through the mesh"),
        ("  ports:\n  - port: 80", "", "spec.ports: is missing, expected at least one port"),
        (
            "  selector: {app: web}",
            "",
            "spec.selector: is missing: the Service has the endpoints of EndpointSlices you give it",
        ),
        ("name: web", "name: web.shop", 'metadata.name: found the string "web.shop", expected a DNS label'),
        (
            "metadata: {name: web}",
            "metadata: {name: web, annotations: {retry.linkerd.io/http: 5xy}}",
            "metadata.annotations[\"retry.linkerd.io/http\"]: found '5xy', expected reset, 5xx, gateway-error",
        ),
        (
            "metadata: {name: web}",
            "metadata: {name: web, annotations: {timeout.linkerd.io/request: soon}}",
            "metadata.annotations[\"timeout.linkerd.io/request\"]: found 'soon', expected a duration",
        ),
        (
            "metadata: {name: web}",
            "metadata: {name: web, annotations: {timeout.linkerd.io/connect: 1s}}",
            'metadata.annotations["timeout.linkerd.io/connect"]: is not supported and has no effect',
        ),
    ],
)
def test_a_service_that_means_nothing_is_told(before: str, after: str, expected: str) -> None:
    assert before in SERVICE
    (line,) = told(SERVICE.replace(before, after))
    assert expected in line


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("metadata: {labels: {app: web}}", "metadata: {}", 'template.metadata.labels.app: is missing, expected "web"'),
        ("matchLabels: {app: web}", "matchLabels: {}", "spec.selector: is empty, expected matchLabels"),
        ("- name: web", "- name: web\n        ports: [{containerPort: 0}]", "containerPort: found the number 0"),
        (
            "- name: web",
            "- name: web\n        livenessProbe: {tcpSocket: {port: http}}",
            "tcpSocket.port: no container port is named http (give a number or name the port)",
        ),
        (
            "- name: web",
            "- name: web\n        livenessProbe: {}",
            "livenessProbe: found none, expected exactly one of httpGet, tcpSocket, grpc, exec",
        ),
        (
            "- name: web",
            "- name: web\n        livenessProbe: {exec: {command: [x]}, successThreshold: 2}",
            "livenessProbe.successThreshold: found 2, expected 1",
        ),
        (
            "- name: web",
            "- name: web\n        env: [{name: A, value: x, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]",
            "env[0].valueFrom: A has both value and valueFrom (keep one)",
        ),
        (
            "- name: web",
            "- name: web\n        env: [{name: A, value: 1}]",
            "env[0].value: found the number 1, expected a string (put it in quotes)",
        ),
        (
            "spec:\n  selector",
            "spec:\n  strategy: {rollingUpdate: {maxSurge: a lot}}\n  selector",
            'maxSurge: found the string "a lot", expected a count or a percentage such as 25%',
        ),
        (
            "spec:\n  selector",
            "spec:\n  strategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 0}}\n  selector",
            "no pod could ever be replaced",
        ),
        (
            "metadata: {labels: {app: web}}",
            "metadata: {labels: {app: web}, annotations: {meshproxy.dev/default-inbound-policy: all}}",
            "expected all-authenticated, all-unauthenticated, deny",
        ),
    ],
)
def test_a_deployment_that_means_nothing_is_refused(before: str, after: str, expected: str) -> None:
    assert before in DEPLOYMENT
    (line,) = told(DEPLOYMENT.replace(before, after))
    assert " error " in line
    assert expected in line


@pytest.mark.parametrize(
    ("after", "severity", "expected"),
    [
        (
            "- name: web\n        image: nginx",
            "error",
            "command: is missing: container web has only an image (nginx), and embedded mode runs processes (give a command,",
        ),
        ("- {name: web, command: [a]}\n      - {name: log, command: [b]}", "error", "2 containers (web, log), expected one"),
        (
            "- {name: web, command: [a]}\n      initContainers: [{name: i, command: [b]}]",
            "error",
            "initContainers: are not run",
        ),
        (
            "- {name: web, command: [a]}\n      volumes: [{name: v, hostPath: {path: /}}]",
            "error",
            "volume v: hostPath is not mounted",
        ),
        (
            "- {name: web, command: [a]}\n      volumes: [{name: v, persistentVolumeClaim: {claimName: c}}]",
            "error",
            "volume v: there are no persistent volumes",
        ),
        (
            "- {name: web, command: [a]}\n      hostNetwork: true",
            "error",
            "hostNetwork: would leave the pod without an address",
        ),
        (
            "- {name: web, command: [a]}\n      affinity: {nodeAffinity: {}}",
            "warning",
            "affinity: ignored: there is one machine",
        ),
        ("- {name: web, command: [a], resources: {limits: {cpu: 1}}}", "warning", "resources: ignored: processes share"),
        (
            "- {name: web, command: [a]}\n      volumes: [{name: v, emptyDir: {}}]",
            "warning",
            "ignored: volume v is not mounted",
        ),
    ],
)
def test_the_subset_of_embedded_mode_is_stated(after: str, severity: str, expected: str) -> None:
    (line,) = told(DEPLOYMENT.replace("- name: web\n        command: [python3, app.py]", after))
    assert f" {severity} " in line
    assert expected in line


def test_values_of_secrets_are_never_shown() -> None:
    lines = told(
        """
        apiVersion: v1
        kind: Secret
        metadata: {name: s}
        data: {a: 1234567, b: "hunter2!"}
        stringData: {c: [hunter2]}
        """
    )
    assert len(lines) == 3
    assert not any("hunter" in line or "1234567" in line for line in lines)


def test_nulls_count_as_absent() -> None:
    (service,) = taken(SERVICE + "  type:\n  clusterIP: null\n")
    assert set(service["spec"]) == {"selector", "ports"}


def test_a_namespace_is_named_on_all_but_what_belongs_to_the_cluster() -> None:
    namespace, service = taken("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---" + SERVICE)
    assert "namespace" not in namespace["metadata"]
    assert service["metadata"]["namespace"] == "default"


def test_a_mistake_in_one_document_refuses_only_that_one() -> None:
    result = look(SERVICE.replace("port: 80", "port: x") + "---" + DEPLOYMENT)
    assert result.refused == {Key("", "Service", "default", "web")}
    assert list(result.accepted) == [Key("apps", "Deployment", "default", "web")]


# ---------------------------------------------------------------- nothing Kubernetes has is "unknown"


def _definitions() -> dict[str, Any]:
    root = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
    newest = max(
        (path for path in root.iterdir() if path.name.endswith("-local")),
        key=lambda path: [*map(_number, path.name.split("."))],
    )
    found: dict[str, Any] = json.loads((newest / "_definitions.json").read_text())["$defs"]
    return found


def _number(text: str) -> int:
    return int("".join(character for character in text if character.isdigit()) or 0)


@pytest.mark.parametrize(
    ("shape", "definition"),
    [
        (core.ObjectMeta, "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"),
        (core.Container, "io.k8s.api.core.v1.Container"),
        (core.ContainerPort, "io.k8s.api.core.v1.ContainerPort"),
        (core.Probe, "io.k8s.api.core.v1.Probe"),
        (core.HttpGetAction, "io.k8s.api.core.v1.HTTPGetAction"),
        (core.TcpSocketAction, "io.k8s.api.core.v1.TCPSocketAction"),
        (core.GrpcAction, "io.k8s.api.core.v1.GRPCAction"),
        (core.EnvVar, "io.k8s.api.core.v1.EnvVar"),
        (core.EnvVarSource, "io.k8s.api.core.v1.EnvVarSource"),
        (core.EnvFromSource, "io.k8s.api.core.v1.EnvFromSource"),
        (core.PodSpec, "io.k8s.api.core.v1.PodSpec"),
        (core.Pod, "io.k8s.api.core.v1.Pod"),
        (core.DeploymentSpec, "io.k8s.api.apps.v1.DeploymentSpec"),
        (core.Deployment, "io.k8s.api.apps.v1.Deployment"),
        (core.ServiceSpec, "io.k8s.api.core.v1.ServiceSpec"),
        (core.ServicePort, "io.k8s.api.core.v1.ServicePort"),
        (core.Service, "io.k8s.api.core.v1.Service"),
        (core.ServiceAccount, "io.k8s.api.core.v1.ServiceAccount"),
        (core.Namespace, "io.k8s.api.core.v1.Namespace"),
        (core.ConfigMap, "io.k8s.api.core.v1.ConfigMap"),
        (core.Secret, "io.k8s.api.core.v1.Secret"),
        (core.EndpointSlice, "io.k8s.api.discovery.v1.EndpointSlice"),
        (core.SliceEndpoint, "io.k8s.api.discovery.v1.Endpoint"),
        (core.SlicePort, "io.k8s.api.discovery.v1.EndpointPort"),
    ],
)
def test_every_field_kubernetes_has_is_known(shape: type[Shape], definition: str) -> None:
    known = {field.encode_name for field in msgspec.structs.fields(shape)} | shape.unread
    assert set(_definitions()[definition]["properties"]) - known == set()


junk = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 70000), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)


@given(
    data=st.data(),
    junk=junk,
    kind=st.sampled_from(["Service", "Deployment", "TrafficSplit", "Canary", "EndpointSlice", "Secret"]),
)
def test_nothing_put_anywhere_in_an_object_makes_the_checks_raise(data: st.DataObject, junk: object, kind: str) -> None:
    obj: Any = json.loads(json.dumps(_GOOD[kind]))
    assert check_document(Document(obj)).obj is not None
    holder = obj
    while True:
        place = data.draw(st.sampled_from(sorted(holder) if isinstance(holder, dict) else list(range(len(holder)))))
        inner = holder[place]
        if not isinstance(inner, (dict, list)) or not inner or data.draw(st.booleans()):
            holder[place] = junk
            break
        holder = inner
    checked = check_document(Document(obj))
    assert checked.obj is None or not any(one.severity == "error" for one in checked.diagnostics)


_META = {"name": "a", "namespace": "shop", "labels": {"app": "a"}, "annotations": {"retry.linkerd.io/http": "5xx"}}
_GOOD: dict[str, Any] = {
    "Service": {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _META,
        "spec": {"selector": {"app": "a"}, "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}]},
    },
    "Deployment": {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _META,
        "spec": {
            "replicas": 2,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 0}},
            "selector": {"matchLabels": {"app": "a"}},
            "template": {
                "metadata": {"labels": {"app": "a"}},
                "spec": {
                    "containers": [
                        {
                            "name": "a",
                            "command": ["a"],
                            "ports": [{"name": "http", "containerPort": 80}],
                            "env": [
                                {"name": "A", "value": "1"},
                                {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                            ],
                            "readinessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1},
                        }
                    ],
                    "volumes": [{"name": "v", "emptyDir": {}}],
                },
            },
        },
    },
    "TrafficSplit": {
        "apiVersion": "split.smi-spec.io/v1alpha2",
        "kind": "TrafficSplit",
        "metadata": _META,
        "spec": {"service": "a", "backends": [{"service": "b", "weight": 1}, {"service": "c", "weight": "500m"}]},
    },
    "Canary": {
        "apiVersion": "flagger.app/v1beta1",
        "kind": "Canary",
        "metadata": _META,
        "spec": {
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "a"},
            "service": {"port": 80},
            "analysis": {
                "interval": "1s",
                "threshold": 1,
                "stepWeights": [1, 2],
                "metrics": [{"name": "request-success-rate", "thresholdRange": {"min": 99}, "interval": "1m"}],
                "webhooks": [{"name": "w", "url": "http://x/", "timeout": "1s"}],
            },
        },
    },
    "EndpointSlice": {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "a", "labels": {"kubernetes.io/service-name": "a"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 80}],
        "endpoints": [{"addresses": ["127.1.1.1"], "conditions": {"ready": True}}],
    },
    "Secret": {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "a"},
        "data": {"a": "aGk="},
        "stringData": {"b": "hi"},
    },
}

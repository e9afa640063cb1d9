"""What only shows between objects."""

from __future__ import annotations

from typing import Any

from control.resources.crosscheck import crosscheck
from control.resources.refused import Refused
from control.store.store import Diagnostic, Key, Object


def obj(api_version: str, kind: str, name: str, spec: Any = None, **more: Any) -> Object:
    out: Object = {"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": "shop"}, **more}
    if spec is not None:
        out["spec"] = spec
    return out


def service(name: str, *ports: int, selector: dict[str, str] | None = None, target: Any = None) -> Object:
    made: list[Any] = [
        {"port": port, "name": f"p{port}", **({"targetPort": target} if target else {})} for port in ports or (80,)
    ]
    return obj("v1", "Service", name, {"ports": made, **({"selector": selector} if selector else {})})


def split(name: str, apex: str, created: str = "", **weights: int) -> Object:
    made = [{"service": backend, "weight": weight} for backend, weight in weights.items()]
    out = obj("split.smi-spec.io/v1alpha2", "TrafficSplit", name, {"service": apex, "backends": made})
    if created:
        out["metadata"]["creationTimestamp"] = created
    return out


def deployment(name: str, container: dict[str, Any] | None = None, **spec: Any) -> Object:
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": {"containers": [{"name": "a", "command": ["a"], **(container or {})}], **spec},
    }
    return obj("apps/v1", "Deployment", name, {"selector": {"matchLabels": {"app": name}}, "template": template})


def told(*objects: Object, severity: str = "warning") -> list[str]:
    found = crosscheck(objects)
    assert all(diagnostic.severity == severity for diagnostic in found)
    return [f"{diagnostic.key}: {diagnostic.field}: {diagnostic.message}" for diagnostic in found]


def test_objects_that_fit_together_are_passed_without_a_word() -> None:
    assert told(service("web"), service("a"), service("b"), split("s", "web", a=1, b=1)) == []


def test_of_two_splits_for_one_service_the_older_is_in_force_and_the_other_is_told() -> None:
    first, second = split("z", "web", "2026-01-01T00:00:00Z", a=1), split("a", "web", "2026-01-02T00:00:00Z", a=1)
    (line,) = told(service("web"), service("a"), second, first)
    assert line.startswith("TrafficSplit.split.smi-spec.io shop/a: spec.service: web is already split by z")


def test_of_two_splits_of_one_age_the_first_by_name_is_in_force() -> None:
    (line,) = told(service("web"), service("a"), split("y", "web", a=1), split("x", "web", a=1))
    assert line.startswith("TrafficSplit.split.smi-spec.io shop/y:")


def test_a_backend_that_does_not_exist_is_told() -> None:
    (line,) = told(service("web"), split("s", "web", gone=1))
    assert "spec.backends[0].service: Service gone does not exist" in line


def test_a_split_that_names_its_own_service_is_fine() -> None:
    assert told(service("web"), service("b"), split("s", "web", web=1, b=1)) == []


def test_a_split_with_all_weights_zero_is_told() -> None:
    (line,) = told(service("web"), service("a"), split("s", "web", a=0))
    assert "all weights are 0: requests are answered with 503" in line


def test_a_backend_without_the_services_port_is_told() -> None:
    (line,) = told(service("web", 80, 81), service("a", 80), split("s", "web", a=1))
    assert "Service a has no port 81" in line


def test_a_split_for_a_service_that_does_not_exist_is_told() -> None:
    (line,) = told(service("a"), split("s", "web", a=1))
    assert "spec.service: Service web does not exist" in line


def test_a_service_that_selects_nothing_is_told() -> None:
    (line,) = told(service("web", selector={"app": "wob"}), deployment("web"))
    assert "spec.selector: selects no pod of any Deployment" in line


def test_a_target_port_that_no_selected_pod_names_is_told() -> None:
    ports = {"ports": [{"containerPort": 80, "name": "web"}]}
    (line,) = told(service("web", selector={"app": "web"}, target="http"), deployment("web", ports))
    assert "spec.ports[0].targetPort: no selected pod has a container port named http (named ports: web)" in line


def test_a_service_account_that_does_not_exist_is_told_and_default_needs_none() -> None:
    assert told(deployment("web", serviceAccountName="default")) == []
    (line,) = told(deployment("web", serviceAccountName="web"))
    assert "ServiceAccount web does not exist" in line
    assert told(deployment("web", serviceAccountName="web"), obj("v1", "ServiceAccount", "web")) == []


def test_configuration_that_does_not_exist_is_told_unless_it_is_optional() -> None:
    env = [
        {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "gone", "key": "k"}}},
        {"name": "B", "valueFrom": {"secretKeyRef": {"name": "gone", "key": "k", "optional": True}}},
    ]
    lines = told(deployment("web", {"env": env, "envFrom": [{"secretRef": {"name": "away"}}]}))
    assert [line.split(": ", 1)[1] for line in lines] == [
        "spec.template.spec.containers[0].env[0].valueFrom.configMapKeyRef: ConfigMap gone does not exist:"
        " the pod cannot start until it does",
        "spec.template.spec.containers[0].envFrom[0].secretRef: Secret away does not exist: the pod cannot start until it does",
    ]


def canary(name: str, target: str) -> Object:
    spec = {
        "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target},
        "service": {"port": 80},
        "skipAnalysis": True,
    }
    return obj("flagger.app/v1beta1", "Canary", name, spec)


def on_the_apex(name: str = "mine", **more: Any) -> Object:
    spec = {
        "parentRefs": [{"group": "", "kind": "Service", "name": "web", "port": 80}],
        "rules": [{"backendRefs": [{"name": "web", "port": 80}]}],
    }
    return obj("gateway.networking.k8s.io/v1", "HTTPRoute", name, spec, **more)


def released(provider: str = "", **asked: Any) -> Object:
    spec = {"targetRef": {"kind": "Deployment", "name": "web"}, "service": {"port": 80, **asked}, "skipAnalysis": True}
    return obj("flagger.app/v1beta1", "Canary", "web", {**spec, **({"provider": provider} if provider else {})})


def test_a_route_on_the_service_that_a_canary_shares_out_by_splits_is_told() -> None:
    pods = [service("web", selector={"app": "web"}), deployment("web")]
    (line,) = told(*pods, released(), on_the_apex())
    assert line.startswith(
        "HTTPRoute.gateway.networking.k8s.io shop/mine: spec.parentRefs: HTTPRoute mine is attached to Service"
    )
    assert "routes come before splits" in line
    assert len(told(*pods, released(), on_the_apex("web"))) == 1
    for canary in (released("gatewayapi:v1"), released("kubernetes"), released(timeout="2s")):
        assert told(*pods, canary, on_the_apex()) == []


def test_once_the_split_is_there_the_route_before_it_is_told_of_the_split_alone() -> None:
    pods = [service(name, selector={"app": "web"}) for name in ("web", "web-canary", "web-primary")]
    made = split("web", "web", **{"web-canary": 0, "web-primary": 100})
    (line,) = told(*pods, deployment("web"), released(), on_the_apex(), made)
    assert line.startswith("TrafficSplit.split.smi-spec.io shop/web: spec.service: HTTPRoutes or GRPCRoutes are attached")


def test_the_route_of_a_canary_itself_is_not_told() -> None:
    mine = on_the_apex("web")
    mine["metadata"]["ownerReferences"] = [{"kind": "Canary", "name": "web"}]
    assert told(service("web", selector={"app": "web"}), deployment("web"), released(), mine) == []


def test_a_canary_without_its_target_is_told() -> None:
    (line,) = told(canary("web", "wob"), deployment("web"))
    assert "spec.targetRef.name: Deployment wob does not exist" in line


def test_of_two_canaries_with_one_target_the_second_is_not_run_which_is_an_error() -> None:
    (line,) = told(canary("a", "web"), canary("b", "web"), deployment("web"), severity="error")
    assert line.startswith("Canary.flagger.app shop/b:")
    assert "also the target of Canary a: this one is not run" in line


def test_a_canary_that_asks_for_what_this_mesh_cannot_do_is_an_error_as_it_is_not_run() -> None:
    made = canary("web", "web")
    made["spec"]["service"]["corsPolicy"] = {"allowMethods": ["GET"]}
    (found,) = crosscheck([made, deployment("web")])
    assert (found.severity, found.field) == ("error", "spec.service.corsPolicy")
    assert found.message == "is not supported: let the application answer preflight requests; so the Canary is not run"


def test_a_canary_of_a_daemon_set_is_an_error_where_none_can_run() -> None:
    made = canary("web", "web")
    made["spec"]["targetRef"]["kind"] = "DaemonSet"
    (found,) = crosscheck([made], refused=Refused(frozenset({Key("apps", "DaemonSet", "shop", "web")})))
    assert (found.severity, found.field) == ("error", "spec.targetRef.kind")


def test_a_metric_without_its_template_is_told() -> None:
    def judged(by: str) -> Object:
        made = canary("web", "web")
        metric = {"name": "latency", "threshold": 1, "templateRef": {"name": by, "namespace": "flagger"}}
        made["spec"]["analysis"] = {"stepWeight": 10, "metrics": [metric]}
        return made

    template = obj("flagger.app/v1beta1", "MetricTemplate", "there", {})
    template["metadata"]["namespace"] = "flagger"
    assert told(judged("there"), deployment("web"), template) == []
    (line,) = told(judged("gone"), deployment("web"), template)
    assert "spec.analysis.metrics[0].templateRef.name: MetricTemplate gone does not exist" in line


def test_objects_of_another_shape_are_passed_over() -> None:
    assert told(obj("v1", "Service", "a", {"ports": 7}), obj("split.smi-spec.io/v1alpha2", "TrafficSplit", "s", {})) == []


def test_a_finding_has_the_line_of_the_field() -> None:
    (found,) = crosscheck([service("web"), split("s", "web", gone=1)], lambda key, path: (f"{key.name}.yaml", len(path)))
    assert (found.file, found.line) == ("s.yaml", 4)


def refused(*keys: Key | None) -> Refused:
    return Refused.of(Diagnostic("error", "", 0, "", "", "", key) for key in keys)


def test_what_only_follows_from_a_refused_object_is_not_told() -> None:
    web = service("web", selector={"app": "web"})
    parts = [web, service("a"), split("s", "web", a=1, b=1), deployment("other", envFrom=None)]
    keys = [Key("apps", "Deployment", "shop", "web"), Key("", "Service", "shop", "b")]
    assert len(crosscheck(parts)) == 2
    assert crosscheck(parts, refused=refused(*keys)) == []
    assert len(crosscheck(parts, refused=refused(Key("apps", "Deployment", "elsewhere", "web")))) == 2


def test_beside_something_of_which_only_an_error_is_left_nothing_is_said_to_be_missing() -> None:
    assert crosscheck([service("web", selector={"app": "web"})], refused=refused(None)) == []

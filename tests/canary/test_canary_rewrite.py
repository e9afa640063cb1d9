"""spec.service.rewrite: what a request's path and host become, asked of the tables that proxies have."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from canary_plays import canary_object
from router_world import asked, entry, rule, services, shares, wanted
from routing_objects import request

from control.canary.declared.fields import SpecError
from control.canary.declared.spec import CanarySpec, parse
from control.canary.machine.routing import TO_PRIMARY, Routing
from control.resources.documents import as_document
from control.resources.validate import check_document
from meshproxy.policy.filters import changed
from meshproxy.policy.service import RouteEntry

# The shape of Flagger's own sample for Istio, its autoscaler included, without the provider's name.
ISTIO = """
apiVersion: flagger.app/v1beta1
kind: Canary
metadata: {name: podinfo, namespace: test}
spec:
  progressDeadlineSeconds: 600
  targetRef: {apiVersion: apps/v1, kind: Deployment, name: podinfo}
  autoscalerRef: {apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, name: podinfo}
  service:
    name: podinfo
    port: 80
    targetPort: 9898
    portName: http
    portDiscovery: true
    gateways: [istio-system/public-gateway, mesh]
    hosts: [app.example.com]
    trafficPolicy: {tls: {mode: DISABLE}}
    match: [{uri: {prefix: /}}]
    rewrite: {uri: /}
    timeout: 30s
  skipAnalysis: false
  analysis:
    interval: 15s
    threshold: 10
    maxWeight: 50
    stepWeight: 5
    metrics:
    - {name: request-success-rate, thresholdRange: {min: 99}, interval: 1m}
    - {name: request-duration, thresholdRange: {max: 500}, interval: 30s}
    webhooks:
    - name: conformance-test
      type: pre-rollout
      url: http://flagger-loadtester.test/
      timeout: 15s
      metadata: {type: bash, cmd: "curl -sd 'test' http://podinfo-canary.test/token | grep token"}
"""
TENTH = Routing(10)
AFFINITY = {"cookieName": "seen", "primaryCookieName": "unseen"}


def sent(spec: CanarySpec, path: str, routing: Routing = TENTH, **headers: str) -> tuple[str, str]:
    """Path and host of a request, as the pod gets it."""
    table, head = entry(spec, *wanted(spec, routing)), request(f"GET {path}", **headers)
    found = rule(table, f"GET {path}", **headers)
    assert isinstance(found, RouteEntry)
    assert not found.spec.refuse
    assert table.matches is not None
    after = changed(head, table.matches.find(head), table.matches.on_paths, found.spec.rewrite, found.spec.request_headers)
    return after.path.decode(), after.authority.decode()


@pytest.mark.parametrize("routing", [TO_PRIMARY, Routing(5), Routing(100)])
@pytest.mark.parametrize("path", ["/token/abc?x=1", "/", "/a%2Fb/", "//a"])
def test_flaggers_sample_for_istio_leaves_every_path_as_it_is(routing: Routing, path: str) -> None:
    spec = parse(yaml.safe_load(ISTIO))
    assert spec.refused == ()
    assert sent(spec, path, routing) == (path, "web.shop")
    canary = f"{routing.canary:g}"
    expected = {"0": "podinfo-primary 100", "100": "podinfo-canary 100"}.get(canary, "podinfo-primary 95, podinfo-canary 5")
    assert shares(spec, routing, f"GET {path}") == expected


def test_flaggers_sample_for_istio_has_no_errors_and_its_services_are_made() -> None:
    document = yaml.safe_load(ISTIO)
    found = check_document(as_document(document)).diagnostics
    assert [str(one) for one in found if one.severity == "error"] == []
    assert [obj["metadata"]["name"] for obj in services(parse(document))][:2] == ["podinfo-canary", "podinfo-primary"]


@pytest.mark.parametrize("provider", ["", "linkerd", "osm", "smi:v1alpha2"])
@pytest.mark.parametrize(
    ("match", "uri", "path", "becomes"),
    [
        (None, "/", "/a/b?c=d", "/a/b?c=d"),
        (None, "/v2", "/a/b?c=d", "/v2/a/b?c=d"),
        ([{"headers": {"x-a": {"exact": "1"}}}], "/", "/a/b", "/a/b"),
        ([{"uri": {"prefix": "/api"}}], "/", "/api/b?c=d", "/b?c=d"),
        ([{"uri": {"prefix": "/api"}}], "/", "/api", "/"),
        ([{"uri": {"prefix": "/api/"}}], "/api", "/api/b", "/api/b"),
        ([{"uri": {"prefix": "/api"}}], "/v2/", "/api/b", "/v2/b"),
        ([{"uri": {"exact": "/old"}}], "/new", "/old?a=b", "/new?a=b"),
        ([{"uri": {"regex": "/[0-9]+"}}], "/number", "/12", "/number"),
        ([{"uri": {"exact": "/a"}}, {"uri": {"prefix": "/b"}}, {"uri": {"prefix": "/c"}}], "/n", "/b/x", "/n/x"),
        ([{"uri": {"exact": "/a"}}, {"uri": {"prefix": "/b"}}, {"uri": {"prefix": "/c"}}], "/n", "/c/x", "/n/x"),
        ([{"uri": {"exact": "/a"}}, {"uri": {"prefix": "/b"}}, {"uri": {"prefix": "/c"}}], "/n", "/a", "/n"),
    ],
)
def test_without_a_type_what_the_match_fitted_is_replaced_as_with_istio(
    provider: str, match: list[Any] | None, uri: str, path: str, becomes: str
) -> None:
    spec = asked(provider=provider, rewrite={"uri": uri}, **({"match": match} if match else {}))
    assert sent(spec, path, x_a="1") == (becomes, "web.shop")


@pytest.mark.parametrize("analysis", [{"sessionAffinity": AFFINITY}, {"match": [{"headers": {"x-a": {"exact": "1"}}}]}])
def test_rules_on_cookies_and_for_a_trial_rewrite_as_the_others_do(analysis: dict[str, Any]) -> None:
    spec = asked(analysis, rewrite={"uri": "/v2", "authority": "inner.test"}, match=[{"uri": {"prefix": "/api"}}])
    for routing in (TO_PRIMARY, Routing(10), Routing(100)):
        assert sent(spec, "/api/b", routing) == ("/v2/b", "inner.test")
        assert sent(spec, "/api/b", routing, x_a="1") == ("/v2/b", "inner.test")


def test_the_host_is_rewritten_also_where_the_path_is_not() -> None:
    assert sent(asked(rewrite={"uri": "/", "authority": "inner.test"}), "/a/b") == ("/a/b", "inner.test")


@pytest.mark.parametrize("provider", ["", "gatewayapi:v1"])
def test_a_type_that_is_given_holds_with_every_provider(provider: str) -> None:
    whole = asked(provider=provider, match=[{"uri": {"prefix": "/a"}}], rewrite={"uri": "/", "type": "ReplaceFullPath"})
    assert sent(whole, "/a/b?c=d") == ("/?c=d", "web.shop")
    part = asked(provider=provider, match=[{"uri": {"prefix": "/a"}}], rewrite={"uri": "/", "type": "ReplacePrefixMatch"})
    assert sent(part, "/a/b?c=d") == ("/b?c=d", "web.shop")


def test_with_gateway_api_the_whole_path_is_replaced_unless_a_type_is_given_as_with_flagger() -> None:
    spec = asked(provider="gatewayapi:v1", match=[{"uri": {"prefix": "/a"}}], rewrite={"uri": "/v2"})
    assert sent(spec, "/a/b") == ("/v2", "web.shop")


def test_rules_are_only_as_many_as_are_needed() -> None:
    exact = [{"uri": {"exact": f"/{number}"}} for number in range(40)]
    (route,) = wanted(asked(match=exact, rewrite={"uri": "/x"}), Routing(10))
    assert len(route["spec"]["rules"]) == 1
    mixed = asked(match=[{"uri": {"prefix": "/a"}}, *exact, {"uri": {"prefix": "/b"}}], rewrite={"uri": "/x"})
    (route,) = wanted(mixed, Routing(10))
    assert [len(one["matches"]) for one in route["spec"]["rules"]] == [1, 40, 1]
    many = {"match": [{"uri": {"prefix": f"/{number}"}} for number in range(17)], "rewrite": {"uri": "/x"}}
    with pytest.raises(SpecError, match=r"spec\.service\.rewrite: .* a rule for each"):
        parse(canary_object(service={"port": 80, **many}))


def test_a_prefix_in_any_case_cannot_be_replaced_and_that_is_said() -> None:
    for field in ("match", "analysis"):
        one = [{"uri": {"prefix": "/Api"}, "ignoreUriCase": True}]
        service = {"port": 80, "rewrite": {"uri": "/"}, **({"match": one} if field == "match" else {})}
        spec = parse(canary_object({"match": one} if field == "analysis" else {}, service=service))
        assert spec.refused == (
            "spec.service.rewrite: a prefix that is matched in any case (ignoreUriCase) cannot be replaced; "
            "leave ignoreUriCase out, or say type: ReplaceFullPath",
        )
    whole = {"port": 80, "rewrite": {"uri": "/", "type": "ReplaceFullPath"}, "match": one}
    assert parse(canary_object(service=whole)).refused == ()


def told(provider: str, rewrite: dict[str, Any], match: list[Any] | None) -> list[str]:
    service = {"port": 80, "rewrite": rewrite, **({"match": match} if match is not None else {})}
    found = check_document(as_document(canary_object(provider=provider, service=service))).diagnostics
    return [str(one) for one in found if "rewrite" in str(one)]


@pytest.mark.parametrize(
    "match", [None, [], [{"uri": {"prefix": "/"}}], [{"uri": {"exact": "/a"}}, {"method": {"exact": "GET"}}]]
)
def test_lint_tells_of_gateway_apis_rewrite_that_makes_one_path_of_all(match: list[Any] | None) -> None:
    (line,) = told("gatewayapi:v1", {"uri": "/"}, match)
    assert "warning: spec.service.rewrite.uri: makes / of every path" in line
    assert "ReplacePrefixMatch" in line


@pytest.mark.parametrize(
    ("provider", "rewrite", "match"),
    [
        ("", {"uri": "/"}, None),
        ("gatewayapi:v1", {"uri": "/v2"}, None),
        ("gatewayapi:v1", {"authority": "a.b"}, None),
        ("gatewayapi:v1", {"uri": "/", "type": "ReplacePrefixMatch"}, None),
        ("gatewayapi:v1", {"uri": "/", "type": "ReplaceFullPath"}, None),
        ("gatewayapi:v1", {"uri": "/"}, [{"uri": {"exact": "/a"}}, {"uri": {"regex": "/b.*"}}]),
    ],
)
def test_lint_is_silent_about_rewrites_that_are_meant(provider: str, rewrite: dict[str, Any], match: list[Any] | None) -> None:
    assert told(provider, rewrite, match) == []

"""HTTPRoute and GRPCRoute: the specification's defaults, and what its CRD refuses."""

from __future__ import annotations

import pytest
from resource_helpers import look, short, taken, told

from control.resources.gateway import parse_grpc_route, parse_http_route

FULL = """
apiVersion: gateway.networking.k8s.io/{version}
kind: HTTPRoute
metadata: {{name: web, namespace: shop}}
spec:
  hostnames: [ignored.example]
  parentRefs:
  - {{group: "", kind: Service, name: web, port: 80}}
  - {{group: core, kind: Service, name: web, namespace: other, sectionName: main}}
  - {{name: front-door}}
  rules:
  - name: canary
    matches:
    - path: {{type: PathPrefix, value: /books}}
      headers: [{{name: X-Canary, value: always}}, {{type: RegularExpression, name: user-agent, value: ".*Firefox.*"}}]
      queryParams: [{{name: beta, value: "1"}}]
      method: GET
    filters:
    - type: RequestHeaderModifier
      requestHeaderModifier: {{set: [{{name: x-from, value: mesh}}], add: [{{name: x-more, value: a}}], remove: [x-gone]}}
    - type: ResponseHeaderModifier
      responseHeaderModifier: {{add: [{{name: x-served-by, value: canary}}]}}
    - type: URLRewrite
      urlRewrite: {{hostname: books.internal, path: {{type: ReplacePrefixMatch, replacePrefixMatch: /v2}}}}
    - type: RequestMirror
      requestMirror: {{backendRef: {{name: shadow, port: 80}}, fraction: {{numerator: 1, denominator: 1000}}}}
    backendRefs:
    - {{name: web-v1, port: 80, weight: 999}}
    - name: web-v2
      port: 80
      weight: 1
      filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{{name: a, value: b}}]}}}}]
    timeouts: {{request: 2s, backendRequest: 500ms}}
    retry: {{codes: [503], attempts: 2, backoff: 100ms}}
  - matches: [{{path: {{type: Exact, value: /old}}}}]
    filters:
    - type: RequestRedirect
      requestRedirect:
        {{scheme: https, hostname: a.com, port: 8443, statusCode: 308, path: {{type: ReplaceFullPath, replaceFullPath: /a}}}}
"""


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_a_route_with_everything_is_taken_without_a_word(version: str) -> None:
    (obj,) = taken(FULL.format(version=version))
    route = parse_http_route(obj)
    assert [short(one) for one in look(FULL.format(version=version)).diagnostics] == []
    assert [ref.is_service for ref in route.spec.parent_refs] == [True, True, False]
    first, second = route.spec.rules
    assert [backend.weight for backend in first.backend_refs] == [999, 1]
    assert second.filters[0].request_redirect is not None
    assert second.filters[0].request_redirect.status_code == 308


def test_what_is_not_said_has_the_specifications_defaults() -> None:
    (obj,) = taken("""
        apiVersion: gateway.networking.k8s.io/v1
        kind: HTTPRoute
        metadata: {name: web, namespace: shop}
        spec:
          parentRefs: [{group: "", kind: Service, name: web}]
          rules: [{backendRefs: [{name: web, port: 80}], matches: [{}]}]
        """)
    (rule,) = parse_http_route(obj).spec.rules
    assert (rule.matches[0].path.type, rule.matches[0].path.value) == ("PathPrefix", "/")
    (backend,) = rule.backend_refs
    assert (backend.group, backend.kind, backend.weight) == ("", "Service", 1)


def test_a_route_without_rules_has_one_that_fits_everything() -> None:
    (obj,) = taken("""
        apiVersion: gateway.networking.k8s.io/v1
        kind: HTTPRoute
        metadata: {name: web, namespace: shop}
        spec: {parentRefs: [{group: "", kind: Service, name: web}]}
        """)
    assert len(parse_http_route(obj).spec.rules) == 1


def test_a_grpc_route_is_taken() -> None:
    (obj,) = taken("""
        apiVersion: gateway.networking.k8s.io/v1
        kind: GRPCRoute
        metadata: {name: greeter, namespace: shop}
        spec:
          parentRefs: [{group: "", kind: Service, name: greeter}]
          rules:
          - matches: [{method: {service: greet.Greeter, method: SayHello}, headers: [{name: x-canary, value: "1"}]}]
            backendRefs: [{name: greeter-v2, port: 9090}]
        """)
    (rule,) = parse_grpc_route(obj).spec.rules
    method = rule.matches[0].method
    assert method is not None
    assert (method.type, method.service, method.method) == ("Exact", "greet.Greeter", "SayHello")


def http(rule: str, parents: str = '[{group: "", kind: Service, name: web}]') -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: web, namespace: shop}}
spec:
  parentRefs: {parents}
  rules: [{rule}]
"""


REFUSED = [
    ("{matches: [{path: {value: books}}]}", "expected a path that begins with /"),
    ("{matches: [{path: {type: Exact, value: /a//b}}]}", "expected a path without //"),
    ("{matches: [{path: {value: /a/../b}}]}", "expected a path without /../"),
    ("{matches: [{path: {value: /a%2fb}}]}", "expected a path without %2f"),
    ("{matches: [{path: {value: /a/..}}]}", "does not end with a dot segment"),
    ("{matches: [{path: {type: Prefix, value: /a}}]}", "expected one of Exact, PathPrefix, RegularExpression"),
    ("{matches: [{path: {type: RegularExpression, value: '(a+)+\\1'}}]}", "a back-reference at 5 is not supported"),
    ("{matches: [{headers: [{name: 'x y', value: a}]}]}", "expected the name of a header"),
    ("{matches: [{headers: [{name: x}]}]}", "value: is missing"),
    ("{matches: [{method: get}]}", "expected one of CONNECT"),
    ("{backendRefs: [{name: web}]}", "port: is missing, expected a port of the Service"),
    ("{backendRefs: [{name: web, port: 80, weight: -1}]}", "expected a whole number from 0 to 1000000"),
    ("{filters: [{type: RequestRedirect}]}", "requestRedirect: is missing"),
    ("{filters: [{type: URLRewrite, urlRewrite: {}, cors: {}}]}", "does not belong to a filter of type URLRewrite"),
    (
        "{filters: [{type: RequestRedirect, requestRedirect: {}}, {type: URLRewrite, urlRewrite: {}}]}",
        "RequestRedirect and URLRewrite cannot be together",
    ),
    (
        "{backendRefs: [{name: web, port: 80}], filters: [{type: RequestRedirect, requestRedirect: {}}]}",
        "a rule that redirects sends nothing",
    ),
    ("{filters: [{type: URLRewrite, urlRewrite: {}}, {type: URLRewrite, urlRewrite: {}}]}", "URLRewrite is there twice"),
    (
        "{matches: [{path: {type: Exact, value: /a}}], "
        "filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /a}}}]}",
        "ReplacePrefixMatch needs exactly one match",
    ),
    (
        "{matches: [{path: {value: /a}}, {path: {value: /b}}], "
        "filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /a}}}]}",
        "ReplacePrefixMatch needs exactly one match",
    ),
    ("{matches: [{path: {type: Exact, value: /café}}]}", "é is no character of a path (write %C3%A9)"),
    ("{matches: [{path: {value: '/a b'}}]}", "a space is no character of a path (write %20)"),
    (
        "{matches: [{path: {type: Exact, value: '/a?x=1'}}]}",
        "? is no character of a path (the query is matched by queryParams)",
    ),
    ("{matches: [{path: {value: '/a%zz'}}]}", "%zz is no encoded character (two hexadecimal digits stand after %)"),
    ("{matches: [{path: {value: '/a%4'}}]}", "%4 is no encoded character"),
    ("{matches: [{path: {value: '/a\\b'}}]}", "\\ is no character of a path"),
    (
        "{filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replacePrefixMatch: /a}}}]}",
        "replaceFullPath: is missing",
    ),
    (
        "{filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: '/a?b'}}}]}",
        "expected a path without query",
    ),
    (
        "{filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: Host, value: a}]}}]}",
        "Host cannot be changed",
    ),
    (
        '{filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: "b\\r\\nc"}]}}]}',
        "has a control character",
    ),
    (
        "{filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: b}], remove: [A]}}]}",
        "A is named twice in one filter",
    ),
    (
        "{filters: [{type: RequestMirror, requestMirror: {backendRef: {name: a, port: 1}, "
        "fraction: {numerator: 3, denominator: 2}}}]}",
        "is more than 1",
    ),
    ("{timeouts: {request: 1s, backendRequest: 2s}}", "is longer than the whole request may take"),
    ("{timeouts: {request: soon}}", "expected a duration"),
    (
        "{timeouts: {request: 1.5s}}",
        "expected a duration as GEP-2257 has it, such as 500ms, 10s or 1m30s (whole numbers: 1s500ms)",
    ),
    ("{timeouts: {backendRequest: 100000s}}", "expected a duration as GEP-2257 has it"),
    ("{timeouts: {request: '0'}}", "expected a duration as GEP-2257 has it"),
    ("{timeouts: {request: 1us}}", "expected a duration as GEP-2257 has it"),
    ("{retry: {backoff: 1h1m1s1ms1ms}}", "expected a duration as GEP-2257 has it"),
    (
        "{retry: {attempts: 0}}",
        'found the number 0, expected at least 1 (for none: the annotation meshproxy.dev/retry-limit: "0" on the route)',
    ),
    ("{retry: {codes: [200]}}", "expected a whole number from 400 to 599"),
    ("{name: a}, {name: a}", "a is the name of two rules"),
]


@pytest.mark.parametrize(
    "path",
    ["/a%5cb", "/a%00", "/a%ff", "/a/%2e%2e/%2e%2e", "/a/..;x/b"],
)
@pytest.mark.parametrize("kind", ["Exact", "PathPrefix"])
def test_a_path_that_no_request_can_have_is_warned_of(kind: str, path: str) -> None:
    (line,) = told(http(f"{{matches: [{{path: {{type: {kind}, value: '{path}'}}}}], backendRefs: [{{name: web, port: 80}}]}}"))
    assert " warning " in line
    assert "no request fits it" in line


@pytest.mark.parametrize("path", ["/caf%c3%a9", "/%7Euser", "/a%2Db", "/-._~!$&'()*+,;=:@", "/a%20b"])
def test_a_path_with_all_that_the_specification_allows_is_taken_without_a_word(path: str) -> None:
    assert (
        told(http(f'{{matches: [{{path: {{type: Exact, value: "{path}"}}}}], backendRefs: [{{name: web, port: 80}}]}}')) == []
    )


@pytest.mark.parametrize("matches", ["", "matches: [], ", "matches: [{}], ", "matches: [{method: GET}], "])
@pytest.mark.parametrize("place", ["rule", "redirect"])
def test_a_prefix_is_replaced_where_the_one_match_is_the_default(matches: str, place: str) -> None:
    path = "{path: {type: ReplacePrefixMatch, replacePrefixMatch: /v2}}"
    filters = {
        "rule": f"filters: [{{type: URLRewrite, urlRewrite: {path}}}], backendRefs: [{{name: web, port: 80}}]",
        "redirect": f"filters: [{{type: RequestRedirect, requestRedirect: {path}}}]",
    }
    assert told(http(f"{{{matches}{filters[place]}}}")) == []


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("timeouts: {request: 48h}", 'timeouts.request: found the string "48h": 24h is the longest, and holds'),
        ("timeouts: {backendRequest: 99999h}", 'timeouts.backendRequest: found the string "99999h": 24h is the longest'),
        ("retry: {attempts: 50}", "retry.attempts: found the number 50: 10 is the most, and holds"),
        ("retry: {backoff: 1m}", 'retry.backoff: found the string "1m": 10s is the longest, and holds'),
    ],
)
def test_what_goes_beyond_a_bound_of_ours_is_taken_with_a_warning(rule: str, expected: str) -> None:
    (line,) = told(http(f"{{{rule}, backendRefs: [{{name: web, port: 80}}]}}"))
    assert " warning " in line
    assert expected in line


@pytest.mark.parametrize("duration", ["0s", "24h", "1h30m5s10ms", "99999ms", "500ms"])
def test_durations_of_the_specification_are_taken_without_a_word(duration: str) -> None:
    assert told(http(f"{{timeouts: {{request: {duration}}}, backendRefs: [{{name: web, port: 80}}]}}")) == []


@pytest.mark.parametrize(("rule", "expected"), REFUSED)
def test_what_a_rule_cannot_mean_is_refused(rule: str, expected: str) -> None:
    lines = told(http(rule))
    assert any(expected in line and " error " in line for line in lines), lines


@pytest.mark.parametrize(
    ("parents", "expected"),
    [
        ("[{kind: Service, name: web}]", 'a Service needs group: ""'),
        ("[{name: gate}]", "names no Service: the route has no part in the mesh"),
        ('[{group: "", kind: Service, name: web}, {group: "", kind: Service, name: web}]', "web is named twice"),
    ],
)
def test_what_a_route_cannot_be_attached_to_is_told(parents: str, expected: str) -> None:
    lines = told(http("{backendRefs: [{name: web, port: 80}]}", parents))
    assert any(expected in line for line in lines), lines

"""MetricTemplate: what its holes are filled with, whom it asks, and what lint says of one that cannot work."""

from __future__ import annotations

import base64

import pytest

from control.canary.declared.fields import SpecError
from control.canary.declared.metric import Metric
from control.canary.measuring.source import Subject
from control.canary.measuring.template import Blanks, parse_template, prometheus_duration, render
from control.store.files import FileStore

SUBJECT = Subject("test", "podinfo", "web-canary", canary="release", apex="web")
BLANKS = Blanks.of(SUBJECT, Metric("x", 90.0, variables=(("direction", "inbound"), ("a-b", "c"))))


@pytest.mark.parametrize(
    ("query", "filled"),
    [
        ("{{ name }}/{{namespace}}/{{ target }}", "release/test/podinfo"),
        ("{{ service }} {{ ingress }} {{ route }} [{{ interval }}]", "web podinfo podinfo [90s]"),
        ('direction="{{ variables.direction }}"', 'direction="inbound"'),
        ('x{a="{{ index variables "a-b" }}"}', 'x{a="c"}'),
        ("rate(x[{{- interval -}}])", "rate(x[90s])"),
        ("a  {{- name -}}\n  b", "areleaseb"),
        ("sum(x){{/* of {all} */}}", "sum(x)"),
        ("sum by (pod) ({__name__=~'a.{2}'})", "sum by (pod) ({__name__=~'a.{2}'})"),
        # Of Flagger's tutorial for Skipper.
        (
            'x{route=~"{{ printf "kube(ew)?_%s__%s_canary__.*__%s_canary(_[0-9]+)?" namespace ingress service }}", le="+Inf"}',
            'x{route=~"kube(ew)?_test__podinfo_canary__.*__web_canary(_[0-9]+)?", le="+Inf"}',
        ),
        ('{{ printf "%s-%v|%d%%" target variables.direction 7 }}', "podinfo-inbound|7%"),
        ("{{- printf `a\\.%s` name -}}", "a\\.release"),
        ('{{ printf "a\\\\.\\"%s\\"" name }}', 'a\\."release"'),
        ('{{ target | printf "%s-%s" namespace }}', "test-podinfo"),
        ('{{ index variables "a-b" | printf "<%s>" | printf "%v%s" 1 }}', "1<c>"),
        ('{{ "a|b" }}', "a|b"),
    ],
)
def test_holes_are_filled_as_flagger_fills_them(query, filled):
    assert render(query, BLANKS) == filled


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("{{ variables.missing }}", "templateVariables have no 'missing'"),
        ("{{ canary }}", "asks for {{ canary }}; expected one of name, namespace"),
        ("{{ if true }}x{{ end }}", "{{ if true }}"),
        ("{{ namespace | upper }}", "expected one of"),
        ("{{ }}", "expected one of"),
        ("x{{ namespace }", "without its other half"),
        ("x namespace }}", "without its other half"),
        ("{{-name}}", "{{ -name }}"),
        ('{{ printf "%s" }}', "printf has 1 places for 0 values"),
        ('{{ printf "x" name }}', "printf has 0 places for 1 values"),
        ('{{ printf "%5s" name }}', "printf has %5, expected %s, %v, %d or %%"),
        ('{{ printf "%" }}', "expected %s, %v, %d or %%"),
        ('{{ printf "%d" name }}', "%d wants a whole number, found 'release'"),
        ('{{ printf "%s" 5 }}', "%s wants text, found 5"),
        ("{{ printf name }}", "printf wants a format in quotes"),
        ("{{ printf }}", "printf wants a format in quotes"),
        ('{{ printf "%s" variables.missing }}', "templateVariables have no 'missing'"),
        ('{{ printf "%s" (upper name) }}', "expected one of"),
        ('{{ printf "%s name }}', "expected one of"),
        ('{{ printf "\\q" }}', "expected one of"),
        ("{{ name | target }}", "target takes nothing"),
        ("{{ name | }}", "expected one of"),
    ],
)
def test_a_hole_with_no_filling_is_an_error(query, words):
    with pytest.raises(SpecError, match=words.replace("{", r"\{")):
        render(query, BLANKS)


def test_what_fills_a_hole_is_not_looked_at_again():
    blanks = Blanks.of(SUBJECT, Metric("x", variables=(("a", "{{ name }}"),)))
    assert render("{{ variables.a }}", blanks) == "{{ name }}"


@pytest.mark.parametrize(
    ("seconds", "text"), [(60, "1m"), (90, "90s"), (120, "2m"), (1.5, "1500ms"), (0.0001, "1ms"), (3600, "60m")]
)
def test_an_interval_is_written_as_promql_has_it(seconds, text):
    assert prometheus_duration(seconds) == text


def template(provider=None, query="up", **spec):
    return {
        "apiVersion": "flagger.app/v1beta1",
        "kind": "MetricTemplate",
        "metadata": {"name": "latency", "namespace": "test"},
        "spec": {
            "provider": {"type": "prometheus", "address": "http://prometheus:9090", **(provider or {})},
            "query": query,
            **spec,
        },
    }


def secret(**data):
    encoded = {name: base64.b64encode(value.encode()).decode() for name, value in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "creds", "namespace": "test"}, "data": encoded}


def test_a_secret_gives_a_token_or_a_name_and_a_password():
    parsed = parse_template(
        template({"secretRef": {"name": "creds"}, "insecureSkipVerify": True, "headers": {"X-Scope": ["a", "b"]}})
    )
    with_token = parsed.server(secret(token="t\n", username="u", password="p"))
    assert (with_token.token, with_token.username) == ("t", "")
    assert (with_token.verify, with_token.headers) == (False, (("X-Scope", "a"), ("X-Scope", "b")))
    basic = parsed.server({"stringData": {"username": "u", "password": "p"}})
    assert (basic.token, basic.username, basic.password) == ("", "u", "p")


def test_what_is_secret_does_not_show():
    server = parse_template(template({"secretRef": {"name": "creds"}, "headers": {"Authorization": ["hush"]}})).server(
        secret(token="hush")
    )
    assert "hush" not in repr(server)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (None, "secret creds does not exist"),
        (secret(username="u"), "neither a token nor username and password"),
        ({"metadata": {"name": "creds"}, "data": {"token": "%%"}}, "data.token is not Base64"),
    ],
)
def test_a_secret_that_does_not_help_is_an_error(given, words):
    with pytest.raises(SpecError, match=words):
        parse_template(template({"secretRef": {"name": "creds"}})).server(given)


@pytest.mark.parametrize(
    ("obj", "words"),
    [
        (template({"type": "datadog"}), "'datadog' is not supported; expected prometheus"),
        (template({"address": ""}), "spec.provider.address: expected a URL"),
        (template({"address": "prometheus:9090"}), "spec.provider.address: expected a URL"),
        (template({"address": "http://[::1"}), "spec.provider.address: expected a URL"),
        (template({"headers": {"X": ["a\r\nB: c"]}}), "headers.X: expected text of one line"),
        (template({"headers": {"X y": "a"}}), "expected the name of a header"),
        (template(query=""), "spec.query"),
        (template(query="x" * 20000), "at most 16384"),
    ],
)
def test_a_template_that_cannot_be_asked_says_why(obj, words):
    with pytest.raises(SpecError, match=words):
        parse_template(obj).server(None)


@pytest.mark.parametrize(
    ("obj", "severity", "words"),
    [
        (template({"type": "datadog"}), "warning", "datadog cannot be asked"),
        (template({"type": "promtheus"}), "error", "found promtheus, expected prometheus"),
        (template({"address": "prometheus:9090"}), "error", "expected a URL"),
        (template(query="{{ nmespace }}"), "error", "nmespace"),
    ],
)
def test_the_store_says_so_as_soon_as_the_file_is_saved(tmp_path, obj, severity, words):
    import yaml

    (tmp_path / "user").mkdir()
    (tmp_path / "user" / "template.yaml").write_text(yaml.safe_dump(obj))
    with FileStore(tmp_path / "user", tmp_path / "state", "canary", accepting=True) as store:
        store.refresh()
        (found,) = store.diagnostics()
    assert found.severity == severity
    assert words in f"{found.message} {found.hint}"


def test_a_template_as_flagger_documents_it_is_taken(tmp_path):
    import yaml

    query = 'sum(rate(x{namespace="{{ namespace }}",direction="{{ variables.direction }}"}[{{ interval }}]))'
    (tmp_path / "user").mkdir()
    (tmp_path / "user" / "template.yaml").write_text(yaml.safe_dump(template(query=query)))
    with FileStore(tmp_path / "user", tmp_path / "state", "canary", accepting=True) as store:
        store.refresh()
        assert store.diagnostics() == []
        (kept,) = store.list("flagger.app", "MetricTemplate")
    assert parse_template(kept).query == query

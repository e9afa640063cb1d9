"""AlertProvider, and what only shows between it, Canaries and Secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from control.resources.crosscheck import crosscheck
from meshproxy.cli import main

SECRET = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": "hook", "namespace": "shop"},
    "data": {"address": "aHR0cA=="},
}
TARGET = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web", "namespace": "shop"},
    "spec": {
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "a", "command": ["a"], "ports": [{"containerPort": 8080}]}]},
        },
    },
}


def provider(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "flagger.app/v1beta1",
        "kind": "AlertProvider",
        "metadata": {"name": "on-call", "namespace": "shop"},
        "spec": {"type": "slack", **spec},
    }


def canary(**analysis: Any) -> dict[str, Any]:
    return {
        "apiVersion": "flagger.app/v1beta1",
        "kind": "Canary",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "service": {"port": 80, "targetPort": 8080},
            "analysis": {"interval": "10s", "threshold": 1, "stepWeight": 10, **analysis},
        },
    }


def lint(tmp_path: Path, *objects: Any) -> str:
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(objects))
    return CliRunner().invoke(main, ["lint", str(tmp_path)]).output


def told(*objects: Any) -> list[str]:
    return [f"{one.key}: {one.field}: {one.message}" for one in crosscheck(objects)]


def test_providers_of_every_type_are_taken(tmp_path: Path) -> None:
    kinds = ("slack", "msteams", "discord", "rocket", "gchat")
    objects = [
        {**provider(type=kind, secretRef={"name": "hook"}), "metadata": {"name": kind, "namespace": "shop"}} for kind in kinds
    ]
    assert "0 errors, 0 warnings" in lint(tmp_path, SECRET, *objects)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({}, "error: spec: has neither address nor secretRef"),
        ({"type": "irc", "address": "http://x/"}, 'error: spec.type: found the string "irc", expected one of'),
        ({"address": "hooks.slack.com"}, "error: spec.address: 'hooks.slack.com' is no address; expected for instance http"),
        ({"address": "http://x/", "proxy": "proxy:3128"}, "error: spec.proxy: 'proxy:3128' is no address"),
        (
            {"address": "http://x/", "secretRef": {"name": "hook"}},
            "warning: spec.address: is not used where secretRef is given",
        ),
    ],
)
def test_a_provider_that_cannot_be_used_is_told(tmp_path: Path, spec: dict[str, Any], words: str) -> None:
    assert words in lint(tmp_path, SECRET, provider(**spec))


def test_an_alert_for_nobody_and_a_provider_without_its_secret_are_told() -> None:
    alerts = [
        {"name": "a", "severity": "error", "providerRef": {"name": "on-call"}},
        {"name": "b", "providerRef": {"name": "on-call", "namespace": "ops"}},
    ]
    assert told(TARGET, canary(alerts=alerts), provider(secretRef={"name": "hook"})) == [
        "Canary.flagger.app shop/web: spec.analysis.alerts[1].providerRef: AlertProvider ops/on-call does not exist: "
        "the alert reaches nobody",
        "AlertProvider.flagger.app shop/on-call: spec.secretRef: Secret hook does not exist: no alert can be sent",
    ]
    assert told(TARGET, canary(alerts=alerts[:1]), provider(secretRef={"name": "hook"}), SECRET) == []


@pytest.mark.parametrize(
    ("hook", "words"),
    [
        ({"timeout": "5"}, ""),
        ({"timeout": "0s"}, ""),
        ({"timeout": "ten"}, "spec.analysis.webhooks[0].timeout"),
        ({"url": "gate"}, "spec.analysis.webhooks[0].url: 'gate' is no address"),
        ({"type": "confirm"}, 'spec.analysis.webhooks[0].type: found the string "confirm", expected one of'),
    ],
)
def test_webhooks_are_checked_as_the_controller_reads_them(tmp_path: Path, hook: dict[str, Any], words: str) -> None:
    said = lint(tmp_path, TARGET, canary(webhooks=[{"name": "gate", "url": "http://gate.test/", **hook}]))
    if words:
        assert words in said
    else:
        assert "0 errors" in said
        assert "webhooks" not in said

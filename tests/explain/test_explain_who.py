"""`meshproxy explain` without --from: why it is needed, who could ask, and a command that works."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from meshproxy.cli.explain import caller, command, who_asks
from meshproxy.cli.stat import Pod


def pod(namespace: str, name: str, deployment: str = "", *, meshed: bool = True) -> Pod:
    return Pod(namespace, name, deployment, "127.0.0.1", meshed, running=True)


PODS = [
    pod("shop", "web-1", "web"),
    pod("shop", "web-2", "web"),
    pod("shop", "cron", "cron", meshed=False),
    pod("shop", "alone"),
    pod("meshproxy", "gateway-1", "gateway"),
]


def test_without_from_it_says_what_it_is_for_who_there_is_and_an_example():
    said = who_asks(PODS, "GET", "http://web.shop/", "")
    assert said.startswith("--from WORKLOAD is missing. The caller's own sidecar decides")
    assert "\n  meshproxy explain GET http://web.shop/ --from deploy/gateway.meshproxy\n" in said
    assert "there are: deploy/cron.shop, deploy/gateway.meshproxy, deploy/web.shop, pod/alone.shop" in said


def test_the_example_is_about_the_same_mesh_and_quoted_for_a_shell():
    said = who_asks(PODS[:1], "GET", "web/?a=1&b=2", " --name other")
    assert "  meshproxy explain GET 'web/?a=1&b=2' --from deploy/web.shop --name other\n" in said


def test_only_a_workload_with_a_sidecar_can_be_the_example():
    assert "No pod of this mesh has a sidecar" in who_asks(PODS[2:3], "GET", "web.shop", "")


@pytest.mark.parametrize("text", ["deploy/gateway.meshproxy", "deploy/web.shop", "pod/alone.shop"])
def test_every_name_that_is_offered_is_taken(text):
    assert caller(PODS, text, "default", "m")[0].meshed


def test_the_help_says_why_it_is_always_needed():
    shown = CliRunner().invoke(command, ["--help"]).output
    assert "caller's own sidecar decides" in " ".join(shown.split())

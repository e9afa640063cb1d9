"""What `meshproxy forward` refuses before it listens, and what it says then."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from meshproxy.cli.forward import clash, command
from meshproxy.cli.proxy import command as sidecar
from meshproxy.proxy.forward import Target
from meshproxy.proxy.memory import FORWARD, SIDECAR


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["127.0.0.1:1", "http://127.0.0.1:2"], "'http://127.0.0.1:2' is a URL; HOST:PORT is expected"),
        (["127.0.0.1:1", "127.0.0.1"], "is not HOST:PORT"),
        (["127.0.0.1:1", "127.0.0.1:1"], "TARGET 127.0.0.1:1 is LISTEN itself"),
        (["127.0.0.1:1", "127.0.0.1:2", "--admin", "127.0.0.1:1"], "--admin 127.0.0.1:1 and LISTEN 127.0.0.1:1 are the same"),
        (["127.0.0.1:1", "127.0.0.1:2", "--admin", "localhost:1"], "give the admin pages another port"),
        (["0.0.0.0:1", "127.0.0.1:2", "--admin", "127.0.0.1:1"], "give the admin pages another port"),
        (["127.0.0.1:1", "127.0.0.1:2", "--timeout", "-1"], "-1.0 is not in the range"),
        (["127.0.0.1:1", "127.0.0.1:2", "--upstream", "tcp", "--forwarded-for"], "--forwarded-for is about requests"),
        (["127.0.0.1:1", "127.0.0.1:2", "--upstream", "tcp", "--via", "x"], "--via is about requests"),
        (["127.0.0.1:1", "127.0.0.1:2", "--upstream", "tcp", "--timeout", "1"], "with --upstream tcp nothing is read"),
    ],
)
def test_a_mistake_in_the_command_is_said_with_what_was_expected(words: list[str], said: str) -> None:
    result = CliRunner().invoke(command, words)
    assert result.exit_code == 2
    assert said in result.output


def test_two_addresses_of_free_ports_or_of_different_hosts_do_not_clash() -> None:
    assert not clash(Target("127.0.0.1", 0), Target("127.0.0.1", 0))
    assert not clash(Target("127.0.0.1", 1), Target("127.0.0.2", 1))
    assert not clash(Target("127.0.0.1", 1), Target("127.0.0.1", 2))


def test_a_sidecar_with_one_address_for_two_things_is_refused(tmp_path: Path) -> None:
    bundle = tmp_path / "root.pem"
    bundle.touch()
    words = "--namespace n --pod p --service-account s --pod-ip 127.0.0.1 --trust-domain t --control c:1 --identity c:2"
    paths = ["--trust-bundle", str(bundle), "--token-file", str(bundle)]
    result = CliRunner().invoke(sidecar, [*words.split(), *paths, "--inbound", "127.0.0.1:4191"])
    assert result.exit_code == 2
    assert "--inbound and --admin are the same address, 127.0.0.1:4191" in result.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["39"], "a memory limit of 39 MiB is less than an idle proxy needs: at least 40 MiB; raise"),
        (["119", "--workers", "2"], "at least 120 MiB (40 for the parent, 40 for each of 2 workers)"),
    ],
)
def test_a_memory_limit_below_what_an_idle_proxy_needs_is_refused_with_the_least(words: list[str], said: str) -> None:
    result = CliRunner().invoke(command, ["127.0.0.1:1", "127.0.0.1:2", "--memory-limit-mb", *words])
    assert result.exit_code == 1
    assert said in result.output


def test_the_least_memory_is_enough_and_no_limit_is_no_mistake() -> None:
    assert FORWARD.too_little(0, 64) == FORWARD.too_little(40 << 20, 1) == FORWARD.too_little(120 << 20, 2) == ""
    assert "at least 192 MiB (80 for the parent, 56 for each of 2 workers)" in SIDECAR.too_little(1, 2)

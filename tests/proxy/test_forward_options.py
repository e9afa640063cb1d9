"""What `meshproxy forward` refuses before it listens, and what it says then."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from meshproxy.cli.forward import command


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["127.0.0.1:1", "http://127.0.0.1:2"], "'http://127.0.0.1:2' is a URL; HOST:PORT is expected"),
        (["127.0.0.1:1", "127.0.0.1"], "is not HOST:PORT"),
        (["127.0.0.1:1", "127.0.0.1:1"], "TARGET 127.0.0.1:1 is LISTEN itself"),
        (["127.0.0.1:1", "127.0.0.1:2", "--timeout", "-1"], "-1.0 is not in the range"),
    ],
)
def test_a_mistake_in_the_command_is_said_with_what_was_expected(words: list[str], said: str) -> None:
    result = CliRunner().invoke(command, words)
    assert result.exit_code == 2
    assert said in result.output

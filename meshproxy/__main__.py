"""`python -m meshproxy`: the same as the `meshproxy` command."""

from meshproxy.cli import main

main(prog_name="meshproxy")

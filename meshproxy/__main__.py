"""`python -m meshproxy`: the same as the `meshproxy` script, for parents that know only their interpreter."""

from __future__ import annotations

from meshproxy.cli import main

if __name__ == "__main__":
    main(prog_name="meshproxy")

"""The contract of stores, on files."""

from __future__ import annotations

from contract import StoreContract


class TestFileStore(StoreContract):
    """`cluster` comes from conftest."""

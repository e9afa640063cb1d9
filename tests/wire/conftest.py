"""Memos keep whatever they see at once here, so that whoever sends something twice meets the memo."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from meshproxy.wire.message import CACHES


@pytest.fixture(autouse=True)
def eager_memos() -> Iterator[None]:
    CACHES.eager = True
    yield
    CACHES.eager = False

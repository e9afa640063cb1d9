from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from canary_cluster import Cluster
from canary_receiver import Receiver


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """Listens, and says OK until it is given `answers`."""
    async with Receiver() as made:
        yield made

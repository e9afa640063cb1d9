from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("contract", "file_cluster")

from file_cluster import FileCluster  # noqa: E402


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[FileCluster]:
    made = FileCluster(tmp_path)
    yield made
    for store in made.stores.values():
        store.close()

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from plane import Plane


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Plane]:
    made = Plane(tmp_path)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

for area in ("certs", "mesh_e2e", "proxy", "serve"):  # forge.py, mesh_run.py, proxy_house.py, plane.py
    sys.path.append(str(Path(__file__).parent.parent / area))


def pytest_asyncio_loop_factories(config: Any, item: Any) -> dict[str, Any]:
    """On the loop that users run a proxy on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def pair() -> AsyncIterator[Any]:
    from identity_pair import Pair

    made = Pair()
    await made.start()
    try:
        yield made
    finally:
        await made.stop()

from __future__ import annotations

import sys
from pathlib import Path

import pytest

for area in ("compile", "access"):  # their short ways to write objects, and from them to a decision
    sys.path.append(str(Path(__file__).parent.parent / area))
pytest.register_assert_rewrite("resource_helpers", "smi_world", "access_objects", "compile_objects", "routing_objects")

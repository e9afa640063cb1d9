"""The one word the wire package needs of mypyc, for when mypy_extensions is not installed (it comes with mypy, not with us).

This module itself stays interpreted: mypyc reads the decorator from the types, so only the name has to exist at run time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr as mypyc_attr
else:

    def mypyc_attr(**attributes):
        """Leaves the class as it is."""
        return _unchanged

    def _unchanged(cls):
        return cls

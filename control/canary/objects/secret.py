"""One key of a Secret, as text."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from control.canary.declared.fields import SpecError


def secret_value(secret: Mapping[str, Any], key: str) -> str:
    """ "" if it has none.  `data` is Base64; `stringData`, which wins as in the API server, is not.  The newline that an editor
    leaves at the end is not part of the value.  Raises SpecError, without the value."""
    plain = (secret.get("stringData") or {}).get(key)
    if plain is not None:
        return str(plain).strip()
    try:
        return base64.b64decode(str((secret.get("data") or {}).get(key) or ""), validate=True).decode().strip()
    except (binascii.Error, UnicodeDecodeError):
        name = (secret.get("metadata") or {}).get("name", "")
        raise SpecError(f"secret {name}: data.{key} is not Base64 of text") from None

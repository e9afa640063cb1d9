"""Embedded mode's proof of who a pod is: a random token in a 0600 file, good for one certificate.

    runtime: write_token()  ->  tokens/<sha256>.json   what the token stands for (never the token itself)
                            ->  pods/<ns>/<pod>/token  the token, for the sidecar
    Certify: peek() -> checks -> burn()                tokens/<sha256>.json -> tokens/<sha256>.burned, one rename
    runtime: refresh_token_if_burned()                 the file always holds an unused token, as a kubelet's projected one does

A rename is atomic, so of two uses of one token one fails.  The record is written before the token's file: a token that
can be read is always known.  A thief of tokens/ gains nothing: a sha256 of 256 random bits cannot be turned back.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

AUDIENCE: Final = "meshproxy-identity"
TTL: Final = 600.0  # s; a token is replaced at half of it
MAX_TOKEN_CHARACTERS: Final = 4096  # a Kubernetes token is about 1,000
BURNED_KEPT: Final = 600.0  # s after expiry, so that "already used" can be told from "unknown"


class TokenRefused(Exception):
    """The token proves nothing.  `reason` is one of: unknown, used, expired, wrong_audience, damaged."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token stands for."""

    namespace: str
    service_account: str
    pod: str
    audience: str
    expires_unix: float


def write_token(
    tokens_dir: Path, token_file: Path, namespace: str, service_account: str, pod: str, ttl: float, now: float
) -> None:
    """Put a fresh token for the pod into `token_file` (0600) and its record into `tokens_dir` (0700); an unused token that
    was in the file before is withdrawn.  `ttl` in seconds, `now` in Unix seconds.  Raises OSError."""
    previous = _read_token(token_file)
    token = secrets.token_urlsafe(32)
    claims = {
        "namespace": namespace,
        "service_account": service_account,
        "pod": pod,
        "audience": AUDIENCE,
        "expires_unix": now + ttl,
    }
    for directory in (tokens_dir, token_file.parent):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    _replace(_record(tokens_dir, token), json.dumps(claims))
    _replace(token_file, token)
    if previous:
        _record(tokens_dir, previous).unlink(missing_ok=True)


def refresh_token_if_burned(
    tokens_dir: Path, token_file: Path, namespace: str, service_account: str, pod: str, ttl: float, now: float
) -> bool:
    """Write a fresh token if the one in `token_file` is missing, used, unknown or past half of its life.  True: written.

    Costs a read of two small files: call it about once a second for each pod.  Raises OSError."""
    token = _read_token(token_file)
    if token:
        try:
            if peek(tokens_dir, token, now).expires_unix - now > ttl / 2:
                return False
        except TokenRefused:
            pass
    write_token(tokens_dir, token_file, namespace, service_account, pod, ttl, now)
    return True


def withdraw_token(tokens_dir: Path, token_file: Path) -> None:
    """Remove a pod's token and its record; no error if there is none."""
    token = _read_token(token_file)
    if token:
        _record(tokens_dir, token).unlink(missing_ok=True)
    token_file.unlink(missing_ok=True)


def peek(tokens_dir: Path, token: str, now: float) -> Claims:
    """What an unused, unexpired token stands for, without using it.  Raises TokenRefused."""
    record = _record(tokens_dir, token)
    try:
        text = record.read_text()
    except FileNotFoundError:
        if record.with_suffix(".burned").exists():
            raise TokenRefused("used", "the token has been used; each is good for one certificate") from None
        raise TokenRefused("unknown", "no such token was issued by this mesh, or it was withdrawn") from None
    try:
        claims = Claims(**json.loads(text))
        alive = now < claims.expires_unix
    except (ValueError, TypeError):
        raise TokenRefused("damaged", f"the record {record.name} cannot be read; the runtime will write another") from None
    if claims.audience != AUDIENCE:
        raise TokenRefused("wrong_audience", f"the token is for {claims.audience!r}, not for {AUDIENCE!r}")
    if not alive:
        raise TokenRefused("expired", f"the token ended {now - claims.expires_unix:.0f} s ago")
    return claims


def burn(tokens_dir: Path, token: str) -> None:
    """Use the token up.  Of several callers one succeeds.  Raises TokenRefused("used") for the others."""
    record = _record(tokens_dir, token)
    try:
        os.rename(record, record.with_suffix(".burned"))
    except FileNotFoundError:
        raise TokenRefused("used", "the token was used a moment ago; each is good for one certificate") from None


def sweep(tokens_dir: Path, now: float) -> int:
    """Remove records of tokens long expired, used or not; returns how many."""
    removed = 0
    if not tokens_dir.is_dir():
        return 0
    for record in tokens_dir.iterdir():
        if record.suffix not in (".json", ".burned"):
            continue
        try:
            expires = float(json.loads(record.read_text())["expires_unix"])
        except FileNotFoundError:
            continue  # burned or withdrawn meanwhile
        except (ValueError, TypeError, KeyError):
            expires = 0.0
        if now > expires + BURNED_KEPT:
            record.unlink(missing_ok=True)
            removed += 1
    return removed


def _record(tokens_dir: Path, token: str) -> Path:
    return tokens_dir / f"{hashlib.sha256(token.encode('utf-8', 'replace')).hexdigest()}.json"


def _read_token(token_file: Path) -> str:
    try:
        return token_file.read_text().strip()
    except (FileNotFoundError, NotADirectoryError):
        return ""


def _replace(path: Path, text: str) -> None:
    """Write a 0600 file by rename, so that a reader sees the old text or the new."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    os.rename(temporary, path)

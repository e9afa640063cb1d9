"""Asks webhooks: the network behind hooks.py.

    AskHook(hook, phase) -> payload() -> HookClient.call() -> HookResult      for an answer that the machine waits for

A result is the receiver's verdict or the reason why there is none; a network that fails is a "no", never an exception.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from control.canary.declared.hooks import HookResult, Webhook, shown_url
from control.canary.telling.post import Answer, Poster, PostError

MAX_TEXT = 256  # bytes of a receiver's words that are kept: they end up in Events (1,024 bytes) and in the history
LAST_GOOD = 202  # 203, 204 and up are failures, as in Flagger


class HookClient:
    """Calls webhooks through `poster`, which it does not own unless it made it itself."""

    def __init__(self, poster: Poster | None = None) -> None:
        self._poster = poster or Poster()
        self.calls: dict[tuple[str, bool], int] = {}  # (type, ok) -> calls, tries of one call counted once

    async def call(self, hook: Webhook, body: Mapping[str, Any]) -> HookResult:
        """The verdict on `body`.  Never raises for the network's faults."""
        try:
            answer = await self._poster.post(
                hook.url, body, timeout_s=hook.timeout_s, retries=hook.retries, verify=not hook.disable_tls
            )
            result = HookResult(answer.status <= LAST_GOOD, _verdict(hook, answer))
        except PostError as error:
            result = HookResult(False, clipped(f"POST {shown_url(hook.url)}: {error}"))
        key = (hook.type, result.ok)
        self.calls[key] = self.calls.get(key, 0) + 1
        return result

    async def close(self) -> None:
        await self._poster.close()


def clipped(text: str) -> str:
    """At most MAX_TEXT bytes of one line: control characters become spaces, for a receiver's words go to terminals and logs."""
    line = "".join(c if c.isprintable() else " " for c in text).strip()
    cut = line.encode()[:MAX_TEXT].decode("utf-8", "ignore")
    return cut


def _verdict(hook: Webhook, answer: Answer) -> str:
    """The receiver's words.  Where go-retryablehttp gave up they would be lost in Flagger; here they stay, after its own."""
    said = clipped(answer.text)
    if answer.gave_up:
        return f"POST {shown_url(hook.url)} giving up after {answer.tries} attempt(s): HTTP {answer.status} {said}".rstrip()
    if answer.status > LAST_GOOD and not said:
        return f"POST {shown_url(hook.url)}: HTTP {answer.status}"
    return said

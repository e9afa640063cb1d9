"""Sends alerts: finds the AlertProvider and its Secret in the store, at the time of sending, and posts.

    Alert + AlertRef -> store: AlertProvider, Secret -> message() -> POST, a few tries -> "" or the reason why not

Whoever calls is the courier (courier.py): nothing here waits for a tick, and no tick waits for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from control.canary.declared.alerts import (
    DEFAULT_CHANNEL,
    DEFAULT_USERNAME,
    SLACK,
    TEAMS,
    Alert,
    AlertRef,
    Provider,
    message,
    parse_provider,
    secret_name,
)
from control.canary.declared.fields import SpecError
from control.canary.declared.hooks import hook_url
from control.canary.telling.hook_client import clipped
from control.canary.telling.post import Poster, PostError
from control.store.store import Key, Store

TIMEOUT_S = 5.0  # of a try; Flagger's
RETRIES = 2  # after 1 and 2 s: chat services have a bad second now and then.  Flagger tries once


class AlertSender:
    """Reads providers from `store`; `default` gets the alerts of Canaries that name none, of every severity.
    `cross_namespace`: may a Canary name a provider of another namespace?"""

    def __init__(self, store: Store, poster: Poster, default: Provider | None = None, *, cross_namespace: bool = True) -> None:
        self._cross_namespace = cross_namespace
        self._store = store
        self._poster = poster
        self.default = default

    async def send(self, reference: AlertRef | None, about: str, alert: Alert) -> str:
        """ "" when it was taken, else why not (never with address or token, which are secret).  `about`: `<name>.<namespace>`;
        without a reference to the default provider."""
        try:
            if reference is not None and not self._cross_namespace and not about.endswith(f".{reference.namespace}"):
                return "references to another namespace are switched off (--no-cross-namespace-refs)"
            provider = self.default if reference is None else self._provider(reference)
        except SpecError as error:
            return str(error)
        return await self._post(provider, about, alert) if provider is not None else ""

    def _provider(self, reference: AlertRef) -> Provider:
        obj = self._store.get(Key("flagger.app", "AlertProvider", reference.namespace, reference.provider))
        if obj is None:
            raise SpecError(f"it does not exist; alert {reference.name!r} of the Canary names it")
        name = secret_name(obj)
        return parse_provider(obj, self._store.get(Key("", "Secret", reference.namespace, name)) if name else None)

    async def _post(self, provider: Provider, about: str, alert: Alert) -> str:
        sent = message(provider, about, alert)
        try:
            answer = await self._poster.post(
                sent.url, sent.body, headers=sent.headers, timeout_s=TIMEOUT_S, retries=RETRIES, proxy=provider.proxy
            )
        except PostError as error:
            return clipped(str(error))
        if not 200 <= answer.status < 300:
            return clipped(f"HTTP {answer.status} {answer.text}")
        return _slack_error(answer.text) if provider.token else ""


def default_provider(environment: Mapping[str, str]) -> Provider | None:
    """Flagger's -slack-url and -msteams-url, by the names of environment variables that its chart uses.  Raises SpecError."""
    if url := environment.get("SLACK_URL"):
        return Provider(
            SLACK,
            hook_url(url, "SLACK_URL"),
            token=environment.get("SLACK_TOKEN", ""),
            channel=environment.get("SLACK_CHANNEL") or DEFAULT_CHANNEL,
            username=environment.get("SLACK_USER") or DEFAULT_USERNAME,
        )
    if url := environment.get("MSTEAMS_URL"):
        return Provider(TEAMS, hook_url(url, "MSTEAMS_URL"))
    return None


def _slack_error(text: str) -> str:
    """Slack's API (chat.postMessage, used with a token) says 200 to everything; "ok" in the answer tells."""
    try:
        said = json.loads(text)
    except ValueError:
        return ""
    if isinstance(said, dict) and said.get("ok") is False:
        return clipped(f"Slack refuses it: {said.get('error', 'no reason given')}")
    return ""

"""Alerts of a Canary: what is said, to whom, and in which shape each chat service wants it.  Pure; alert_sender.py sends.

    the machine -> Alert(severity, text, fields) --.
    spec.analysis.alerts[] -> AlertRef ------------+-> wanted() -> AlertProvider + Secret -> parse_provider() -> Provider
                                                                                                  |
                                                       message(provider, about, alert) -> Message (address, headers, body)

Shapes and defaults are Flagger's (pkg/notifier), so that channels and their filters go on working.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from control.canary.declared.fields import SpecError, items, mapping, text
from control.canary.declared.hooks import hook_url
from control.canary.objects.secret import secret_value

INFO, WARN, ERROR = "info", "warn", "error"
SEVERITIES = (INFO, WARN, ERROR)  # ascending

SLACK, TEAMS, DISCORD, ROCKET, GOOGLE_CHAT = "slack", "msteams", "discord", "rocket", "gchat"
PROVIDERS = (SLACK, TEAMS, DISCORD, ROCKET, GOOGLE_CHAT)

DEFAULT_CHANNEL = "general"
DEFAULT_USERNAME = "flagger"


@dataclass(frozen=True, slots=True)
class Alert:
    """Something a person should hear of.  `fields` are shown below the text, name and value."""

    severity: str  # of SEVERITIES
    text: str
    fields: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class AlertRef:
    """One entry of spec.analysis.alerts: alerts of `severity` and above go to AlertProvider `provider` of `namespace`."""

    name: str
    severity: str
    namespace: str
    provider: str

    def wants(self, alert: Alert) -> bool:
        return SEVERITIES.index(alert.severity) >= SEVERITIES.index(self.severity)


@dataclass(frozen=True, slots=True)
class Provider:
    """An AlertProvider with its Secret read.  `repr` shows neither address nor token: both are secrets."""

    type: str  # of PROVIDERS
    address: str
    token: str = ""  # sent as Bearer, by Slack's API only, as in Flagger
    channel: str = DEFAULT_CHANNEL
    username: str = DEFAULT_USERNAME
    proxy: str = ""

    def __repr__(self) -> str:
        return f"Provider({self.type}, channel={self.channel!r})"


@dataclass(frozen=True, slots=True)
class Message:
    """A POST of JSON."""

    url: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]


def parse_alerts(value: object, namespace: str, where: str = "spec.analysis.alerts") -> tuple[AlertRef, ...]:
    """The entries of spec.analysis.alerts of a Canary in `namespace`.  Raises SpecError."""
    return tuple(_reference(entry, namespace, f"{where}[{index}]") for index, entry in enumerate(items(value, where)))


def _reference(obj: object, namespace: str, where: str) -> AlertRef:
    fields = mapping(obj, where)
    severity = fields.get("severity") or INFO
    if severity not in SEVERITIES:
        raise SpecError(f"{where}.severity: {severity!r:.60}; expected one of {', '.join(SEVERITIES)}")
    provider = mapping(fields.get("providerRef"), f"{where}.providerRef")
    return AlertRef(
        name=str(fields.get("name") or ""),
        severity=severity,
        namespace=str(provider.get("namespace") or namespace),
        provider=text(provider.get("name"), f"{where}.providerRef.name"),
    )


def secret_name(provider: Mapping[str, Any]) -> str:
    """The Secret an AlertProvider reads its address from; "" if it says its address itself."""
    spec = mapping(provider.get("spec"), "spec")
    reference = spec.get("secretRef")
    return text(mapping(reference, "spec.secretRef").get("name"), "spec.secretRef.name") if reference is not None else ""


def parse_provider(obj: Mapping[str, Any], secret: Mapping[str, Any] | None) -> Provider:
    """A Provider of an AlertProvider and the Secret that secret_name() names (None: there is none).  Raises SpecError."""
    spec = mapping(obj.get("spec"), "spec")
    kind = spec.get("type")
    if kind not in PROVIDERS:
        raise SpecError(f"spec.type: {kind!r:.60} is no alert provider; expected one of {', '.join(PROVIDERS)}")
    address, token = str(spec.get("address") or ""), ""
    if name := secret_name(obj):
        if secret is None:
            raise SpecError(f"spec.secretRef: secret {name} does not exist")
        address, token = secret_value(secret, "address"), secret_value(secret, "token")
        if not address:
            raise SpecError(f"spec.secretRef: secret {name} has no key address in its data")
    return Provider(
        type=kind,
        address=_address(kind, hook_url(address, "spec.address")),
        token=token if kind == SLACK else "",
        channel=str(spec.get("channel") or DEFAULT_CHANNEL),
        username=str(spec.get("username") or DEFAULT_USERNAME),
        proxy=hook_url(spec["proxy"], "spec.proxy") if spec.get("proxy") else "",
    )


def _address(kind: str, url: str) -> str:
    """Discord takes Slack's shape at its hooks' path + /slack."""
    if kind != DISCORD or url.endswith("/slack"):
        return url
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") + "/slack"))


def message(provider: Provider, about: str, alert: Alert) -> Message:
    """What to send.  `about` is `<name>.<namespace>` of the Canary."""
    headers = {"Authorization": f"Bearer {provider.token}"} if provider.token else {}
    if provider.type == TEAMS:
        body = _teams(about, alert)
    elif provider.type == GOOGLE_CHAT:
        body = _google_chat(about, alert)
    else:
        body = _slack(provider, about, alert)
    return Message(provider.address, headers, body)


def _slack(provider: Provider, about: str, alert: Alert) -> dict[str, Any]:
    """Slack, and what takes its shape: Rocket.Chat with colours of its own, Discord."""
    good, bad = ("#0076D7", "#FF0000") if provider.type == ROCKET else ("good", "danger")
    attachment = {
        "color": bad if alert.severity == ERROR else good,
        "author_name": about,
        "text": alert.text,
        "mrkdwn_in": ["text"],
        "fields": [{"title": name, "value": value, "short": False} for name, value in alert.fields],
    }
    return {
        "channel": provider.channel,
        "username": provider.username,
        "icon_url": "",
        "icon_emoji": ":rocket:",
        "attachments": [attachment],
    }


def _teams(about: str, alert: Alert) -> dict[str, Any]:
    section = {
        "activityTitle": alert.text,
        "activitySubtitle": about,
        "facts": [{"name": name, "value": value} for name, value in alert.fields],
    }
    return {
        "@type": "MessageCard",
        "@context": "http://schema.org/extensions",
        "themeColor": "FF0000" if alert.severity == ERROR else "0076D7",
        "summary": about,
        "sections": [section],
    }


def _google_chat(about: str, alert: Alert) -> dict[str, Any]:
    def section(paragraph: str) -> dict[str, Any]:
        return {"widgets": [{"textParagraph": {"text": paragraph}}]}

    def strong(words: str) -> str:
        return f"<font color=#848484><strong>{words}</strong></font>"

    sections = [section(strong(alert.text)), *(section(f"{name}<br>{strong(value)}") for name, value in alert.fields)]
    header = {"title": "Flagger", "subtitle": about, "imageUrl": "https://flagger.app/favicon.png"}
    return {"cards": [{"header": header, "sections": sections}]}

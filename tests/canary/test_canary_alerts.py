"""Alerts against a real HTTP server: which provider gets which, in which shape, and what becomes of one that cannot be sent."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest
from canary_cluster import CANARY, Cluster
from canary_receiver import Receiver, says

from control.canary.declared.alerts import Alert, AlertRef, Provider, message, parse_alerts, parse_provider
from control.canary.declared.fields import SpecError
from control.canary.telling.alert_sender import AlertSender, default_provider
from control.canary.telling.post import Poster

ALERT = Alert("warn", "Canary is waiting for approval.", (("Target", "Deployment/podinfo.test"), ("Progress deadline", "600s")))
SECRET = "T0KEN-in-the-path"


def provider(type_: str, namespace: str = "test", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "flagger.app/v1beta1",
        "kind": "AlertProvider",
        "metadata": {"name": "on-call", "namespace": namespace},
        "spec": {"type": type_, **spec},
    }


def secret(namespace: str = "test", **data: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "hook", "namespace": namespace},
        "data": {name: base64.b64encode(value.encode()).decode() for name, value in data.items()},
    }


REFERENCE = AlertRef("on-call", "info", "test", "on-call")


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
async def sender(cluster: Cluster, waits: list[float]) -> AsyncIterator[AlertSender]:
    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    poster = Poster(sleep=sleep)
    yield AlertSender(cluster.store, poster)
    await poster.close()


# ---------------------------------------------------------------- who wants what


@pytest.mark.parametrize(
    ("severity", "gets"), [("info", ["info", "warn", "error"]), ("warn", ["warn", "error"]), ("error", ["error"]), ("", "all")]
)
def test_a_severity_takes_itself_and_what_is_worse(severity: str, gets: list[str] | str) -> None:
    (reference,) = parse_alerts([{"name": "a", "severity": severity, "providerRef": {"name": "p"}}], "test")
    wanted = [one for one in ("info", "warn", "error") if reference.wants(Alert(one, ""))]
    assert wanted == (["info", "warn", "error"] if gets == "all" else gets)


def test_a_reference_may_name_another_namespace() -> None:
    found = parse_alerts(
        [{"name": "a", "providerRef": {"name": "p"}}, {"name": "b", "providerRef": {"name": "p", "namespace": "ops"}}], "test"
    )
    assert [one.namespace for one in found] == ["test", "ops"]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"severity": "loud", "providerRef": {"name": "p"}}, "alerts[0].severity: 'loud'; expected one of info, warn, error"),
        ({"name": "a"}, "alerts[0].providerRef.name: expected a name"),
        ("slack", "alerts[0]: expected an object"),
    ],
)
def test_a_wrong_reference_is_refused_by_name(entry: object, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_alerts([entry], "test")
    assert words in str(caught.value)


# ---------------------------------------------------------------- shapes


def test_slack_gets_an_attachment_coloured_by_severity() -> None:
    slack = Provider("slack", "http://x/", channel="ops", username="mesh")
    body = message(slack, "podinfo.test", ALERT).body
    assert body == {
        "channel": "ops",
        "username": "mesh",
        "icon_url": "",
        "icon_emoji": ":rocket:",
        "attachments": [
            {
                "color": "good",
                "author_name": "podinfo.test",
                "text": "Canary is waiting for approval.",
                "mrkdwn_in": ["text"],
                "fields": [
                    {"title": "Target", "value": "Deployment/podinfo.test", "short": False},
                    {"title": "Progress deadline", "value": "600s", "short": False},
                ],
            }
        ],
    }
    assert message(slack, "podinfo.test", Alert("error", "x")).body["attachments"][0]["color"] == "danger"


def test_rocket_and_discord_take_slacks_shape() -> None:
    rocket = message(Provider("rocket", "http://x/"), "p.t", Alert("error", "x"))
    assert rocket.body["attachments"][0]["color"] == "#FF0000"
    assert message(Provider("rocket", "http://x/"), "p.t", ALERT).body["attachments"][0]["color"] == "#0076D7"
    discord = parse_provider(provider("discord", address="https://discord.test/api/webhooks/1/a?wait=true"), None)
    assert discord.address == "https://discord.test/api/webhooks/1/a/slack?wait=true"
    assert parse_provider(provider("discord", address="https://d.test/1/slack"), None).address == "https://d.test/1/slack"
    assert message(discord, "p.t", ALERT).body["attachments"][0]["color"] == "good"


def test_teams_gets_a_message_card() -> None:
    body = message(Provider("msteams", "http://x/"), "podinfo.test", ALERT).body
    assert body == {
        "@type": "MessageCard",
        "@context": "http://schema.org/extensions",
        "themeColor": "0076D7",
        "summary": "podinfo.test",
        "sections": [
            {
                "activityTitle": "Canary is waiting for approval.",
                "activitySubtitle": "podinfo.test",
                "facts": [
                    {"name": "Target", "value": "Deployment/podinfo.test"},
                    {"name": "Progress deadline", "value": "600s"},
                ],
            }
        ],
    }
    assert message(Provider("msteams", "http://x/"), "p.t", Alert("error", "x")).body["themeColor"] == "FF0000"


def test_google_chat_gets_a_card_with_a_section_for_each_field() -> None:
    (card,) = message(Provider("gchat", "http://x/"), "podinfo.test", ALERT).body["cards"]
    assert card["header"]["subtitle"] == "podinfo.test"
    texts = [section["widgets"][0]["textParagraph"]["text"] for section in card["sections"]]
    assert texts == [
        "<font color=#848484><strong>Canary is waiting for approval.</strong></font>",
        "Target<br><font color=#848484><strong>Deployment/podinfo.test</strong></font>",
        "Progress deadline<br><font color=#848484><strong>600s</strong></font>",
    ]


# ---------------------------------------------------------------- providers and secrets


def test_defaults_are_flaggers() -> None:
    found = parse_provider(provider("slack", address="https://hooks.test/x"), None)
    assert (found.channel, found.username, found.token, found.proxy) == ("general", "flagger", "", "")


def test_address_and_token_come_from_the_secret() -> None:
    kept = secret(address="https://slack.test/api/chat.postMessage\n", token="xoxb-1")
    found = parse_provider(provider("slack", address="https://not.this/", secretRef={"name": "hook"}), kept)
    assert (found.address, found.token) == ("https://slack.test/api/chat.postMessage", "xoxb-1")
    assert message(found, "p.t", ALERT).headers == {"Authorization": "Bearer xoxb-1"}
    assert "xoxb" not in repr(found)
    assert "slack.test" not in repr(found)
    # Only Slack's API knows tokens.
    assert message(parse_provider(provider("rocket", secretRef={"name": "hook"}), kept), "p.t", ALERT).headers == {}


@pytest.mark.parametrize(
    ("obj", "kept", "words"),
    [
        (provider("irc", address="http://x/"), None, "spec.type: 'irc' is no alert provider; expected one of slack, msteams"),
        (provider("slack"), None, "spec.address: expected a name"),
        (provider("slack", address="hooks.slack.com"), None, "spec.address"),
        (provider("slack", secretRef={"name": "hook"}), None, "spec.secretRef: secret hook does not exist"),
        (provider("slack", secretRef={"name": "hook"}), secret(token="x"), "secret hook has no key address"),
        (provider("slack", secretRef={"name": "hook"}), {"data": {"address": "?"}}, "data.address is not Base64"),
    ],
)
def test_a_provider_that_cannot_be_used_says_why(obj: dict[str, Any], kept: dict[str, Any] | None, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_provider(obj, kept)
    assert words in str(caught.value)


def test_the_environment_may_name_a_provider_for_all() -> None:
    assert default_provider({}) is None
    slack = default_provider({"SLACK_URL": "https://s.test/x", "SLACK_CHANNEL": "ops", "SLACK_TOKEN": "t"})
    assert slack == Provider("slack", "https://s.test/x", "t", "ops", "flagger")
    teams = default_provider({"MSTEAMS_URL": "https://t.test/x"})
    assert teams is not None
    assert teams.type == "msteams"


# ---------------------------------------------------------------- sending


async def test_an_alert_reaches_its_provider(cluster: Cluster, receiver: Receiver, sender: AlertSender) -> None:
    cluster.write(provider("slack", secretRef={"name": "hook"}), secret(address=f"{receiver.url}/hook", token="xoxb-1"))
    assert await sender.send(REFERENCE, "podinfo.test", ALERT) == ""
    (seen,) = receiver.seen
    assert (seen.path, seen.headers["Authorization"], seen.json["channel"]) == ("/hook", "Bearer xoxb-1", "general")
    assert seen.json["attachments"][0]["author_name"] == "podinfo.test"


async def test_a_provider_of_another_namespace_reads_its_own_secret(
    cluster: Cluster, receiver: Receiver, sender: AlertSender
) -> None:
    cluster.write(provider("msteams", "ops", secretRef={"name": "hook"}), secret("ops", address=f"{receiver.url}/ops"))
    assert await sender.send(AlertRef("a", "info", "ops", "on-call"), "podinfo.test", ALERT) == ""
    assert receiver.seen[0].path == "/ops"


async def test_a_changed_secret_counts_at_once(cluster: Cluster, receiver: Receiver, sender: AlertSender) -> None:
    cluster.write(provider("slack", secretRef={"name": "hook"}), secret(address=f"{receiver.url}/old"))
    await sender.send(REFERENCE, "podinfo.test", ALERT)
    cluster.write(secret(address=f"{receiver.url}/new"))
    await sender.send(REFERENCE, "podinfo.test", ALERT)
    assert [seen.path for seen in receiver.seen] == ["/old", "/new"]


async def test_a_bad_second_of_the_service_is_waited_out(
    cluster: Cluster, receiver: Receiver, sender: AlertSender, waits: list[float]
) -> None:
    cluster.write(provider("slack", address=receiver.url))
    receiver.answers = [says(503), says(429, Retry_After="3"), says(200)]
    assert await sender.send(REFERENCE, "podinfo.test", ALERT) == ""
    assert waits == [1, 3]


async def test_what_cannot_be_sent_says_why_without_the_address(
    cluster: Cluster, receiver: Receiver, sender: AlertSender
) -> None:
    assert "it does not exist" in await sender.send(REFERENCE, "podinfo.test", ALERT)
    cluster.write(provider("slack", address=f"{receiver.url}/{SECRET}"))
    receiver.answers = [says(404, "no_team")]
    assert await sender.send(REFERENCE, "podinfo.test", ALERT) == "HTTP 404 no_team"
    await receiver.stop()
    refused = await sender.send(REFERENCE, "podinfo.test", ALERT)
    assert "127.0.0.1" in refused
    assert SECRET not in refused


async def test_a_proxy_that_fails_does_not_give_the_address_away(
    cluster: Cluster, receiver: Receiver, sender: AlertSender
) -> None:
    cluster.write(provider("slack", address=f"https://hooks.invalid/{SECRET}", proxy=receiver.url))
    refused = await sender.send(REFERENCE, "podinfo.test", ALERT)
    assert "Proxy" in refused
    assert SECRET not in refused


async def test_the_providers_proxy_is_used(cluster: Cluster, receiver: Receiver, sender: AlertSender) -> None:
    cluster.write(provider("slack", address="http://hooks.invalid/services/1", proxy=receiver.url))
    assert await sender.send(REFERENCE, "podinfo.test", ALERT) == ""
    assert receiver.seen[0].headers["Host"] == "hooks.invalid"


async def test_slacks_api_says_no_with_a_200(cluster: Cluster, receiver: Receiver, sender: AlertSender) -> None:
    cluster.write(provider("slack", secretRef={"name": "hook"}), secret(address=receiver.url, token="t"))
    receiver.answers = [says(200, '{"ok": false, "error": "channel_not_found"}'), says(200, '{"ok": true}'), says(200, "ok")]
    assert await sender.send(REFERENCE, "podinfo.test", ALERT) == "Slack refuses it: channel_not_found"
    assert await sender.send(REFERENCE, "podinfo.test", ALERT) == ""
    assert await sender.send(REFERENCE, "podinfo.test", ALERT) == ""


async def test_a_canary_without_providers_uses_the_default(cluster: Cluster, receiver: Receiver, sender: AlertSender) -> None:
    sender.default = Provider("slack", f"{receiver.url}/default")
    assert await sender.send(None, f"{CANARY.name}.{CANARY.namespace}", ALERT) == ""
    assert receiver.seen[0].path == "/default"

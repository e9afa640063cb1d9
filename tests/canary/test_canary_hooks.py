"""Webhooks against real HTTP servers: what is sent, which answers are a yes, what is tried again and after how long."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from canary_receiver import Receiver, hangs_up, never_answers, says

from control.canary.declared.fields import SpecError
from control.canary.declared.hooks import (
    HookResult,
    Webhook,
    checksum,
    event_metadata,
    event_webhook,
    parse_webhook,
    parse_webhooks,
    payload,
    shown_url,
)
from control.canary.telling.hook_client import MAX_TEXT, HookClient
from control.canary.telling.post import MAX_BODY_BYTES, Poster, environment_proxy

NOW = 1_800_000_000.0
BODY = payload("podinfo", "test", "Progressing", "abc", {"cmd": "hey"})


class Waits:
    """Stands for asyncio.sleep: keeps what was asked and returns at once."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.asked.append(seconds)


@pytest.fixture
def waits() -> Waits:
    return Waits()


@pytest.fixture
async def client(waits: Waits) -> AsyncIterator[HookClient]:
    made = HookClient(Poster(sleep=waits, now=lambda: NOW))
    yield made
    await made.close()


def hook(receiver: Receiver, path: str = "/gate", **fields: object) -> Webhook:
    return replace(Webhook("rollout", "load", receiver.url + path), **fields)  # type: ignore[arg-type]


# ---------------------------------------------------------------- what a webhook is


def test_a_webhook_is_read_with_flaggers_defaults() -> None:
    assert parse_webhook({"name": "a", "url": "http://gate.test/"}, "w") == Webhook("rollout", "a", "http://gate.test/", 10.0)
    full = {
        "type": "confirm-rollout",
        "name": "gate",
        "url": "https://gate.test:8443/x?y=1",
        "timeout": "1m30s",
        "retries": 3,
        "muteAlert": True,
        "disableTLS": True,
        "metadata": {"cmd": "hey -z 1m", "logCmdOutput": "true", "quick": True, "count": 3},
    }
    metadata = (("cmd", "hey -z 1m"), ("logCmdOutput", "true"), ("quick", "true"), ("count", "3"))
    assert parse_webhook(full, "w") == Webhook(
        "confirm-rollout", "gate", "https://gate.test:8443/x?y=1", 90.0, 3, True, True, metadata
    )


@pytest.mark.parametrize(("text", "seconds"), [("", 10.0), ("5", 10.0), ("5s", 5.0), ("2h", 3600.0), ("0s", 3600.0)])
def test_timeouts_too_short_to_be_one_mean_the_default_and_none_means_the_bound(text: str, seconds: float) -> None:
    assert parse_webhook({"name": "a", "url": "http://g/", "timeout": text}, "w").timeout_s == seconds


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": ""}, "w.name: expected a name"),
        ({"url": None}, "w.url: expected a name"),
        ({"url": "ftp://gate/"}, "w.url: 'ftp://gate/' is no address; expected for instance http"),
        ({"url": "http:///x"}, "w.url"),
        ({"url": "http://gate:port/"}, "w.url"),
        ({"type": "confirm"}, "w.type: 'confirm' is no type of webhook; expected one of confirm-rollout"),
        ({"timeout": "10 seconds"}, "w.timeout: '10 seconds' is not a duration"),
        ({"retries": -1}, "w.retries: expected a whole number from 0"),
        ({"retries": "3"}, "w.retries"),
        ({"muteAlert": "yes"}, "w.muteAlert: expected true or false"),
        ({"metadata": ["cmd"]}, "w.metadata: expected an object"),
        ({"metadata": {"cmd": ["hey"]}}, "w.metadata.cmd: expected a string"),
    ],
)
def test_a_field_that_cannot_be_meant_is_refused_by_name(fields: dict[str, object], words: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_webhook({"name": "a", "url": "http://gate/", **fields}, "w")
    assert words in str(caught.value)


def test_a_list_of_webhooks_keeps_its_order_and_names_the_wrong_entry() -> None:
    good = {"name": "a", "url": "http://gate/"}
    assert [h.name for h in parse_webhooks([good, {**good, "name": "b"}])] == ["a", "b"]
    assert parse_webhooks(None) == ()
    with pytest.raises(SpecError, match=r"spec\.analysis\.webhooks\[1\]\.url"):
        parse_webhooks([good, {"name": "b"}])


def test_what_may_be_secret_in_an_address_is_not_shown() -> None:
    assert shown_url("https://user:pass@gate.test:1/a/b?token=x#y") == "https://gate.test:1/a/b"
    with pytest.raises(SpecError) as caught:
        event_webhook("ftp://user:hunter2@gate/?key=hunter2")
    assert "hunter2" not in str(caught.value)


def test_a_checksum_names_revision_and_configs() -> None:
    one = checksum({"configmap/a": "1", "secret/b": "2"}, "r1")
    assert one == checksum({"secret/b": "2", "configmap/a": "1"}, "r1")
    assert len({one, checksum({}, "r1"), checksum({"configmap/a": "2", "secret/b": "2"}, "r1"), checksum({}, "r2")}) == 4
    assert set(one) <= set("bcdfghjklmnpqrstvwxz2456789")


def test_an_events_own_words_cannot_be_overridden_by_metadata() -> None:
    told = event_metadata("New revision", True, NOW + 0.25, {"environment": "prod", "eventMessage": "all is well"})
    assert told == {
        "environment": "prod",
        "eventMessage": "New revision",
        "eventType": "Warning",
        "timestamp": "1800000000250",
    }
    assert event_metadata("x", False, NOW, {})["eventType"] == "Normal"


# ---------------------------------------------------------------- one call


async def test_a_call_is_a_post_of_flaggers_json(receiver: Receiver, client: HookClient) -> None:
    assert await client.call(hook(receiver, "/gate/approve?a=1"), BODY) == HookResult(True, "OK")
    (seen,) = receiver.seen
    assert (seen.method, seen.path, seen.headers["Content-Type"]) == ("POST", "/gate/approve?a=1", "application/json")
    assert seen.json == {
        "name": "podinfo",
        "namespace": "test",
        "phase": "Progressing",
        "checksum": "abc",
        "metadata": {"cmd": "hey"},
    }
    assert "metadata" not in payload("podinfo", "test", "Progressing", "abc", {})


@pytest.mark.parametrize(
    ("status", "ok"),
    [(200, True), (201, True), (202, True), (203, False), (204, False), (304, False), (400, False), (403, False)],
)
async def test_success_ends_at_202(receiver: Receiver, client: HookClient, waits: Waits, status: int, ok: bool) -> None:
    receiver.answers = [says(status, "" if status in (204, 304) else "said so")]
    result = await client.call(hook(receiver, retries=3), BODY)
    assert result.ok is ok
    assert ("said so" in result.text) is (status not in (204, 304))
    assert result.text
    assert len(receiver.seen) == 1
    assert waits.asked == []


async def test_the_receivers_words_are_kept_short_and_printable(receiver: Receiver, client: HookClient) -> None:
    receiver.answers = [says(403, "not today\x1b[2J\n" + "é" * 2000)]
    result = await client.call(hook(receiver), BODY)
    assert result.text.startswith("not today [2J é")
    assert MAX_TEXT - 2 <= len(result.text.encode()) <= MAX_TEXT


async def test_an_answer_without_end_is_read_up_to_its_bound(receiver: Receiver, client: HookClient) -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        answer = web.StreamResponse(status=403)
        await answer.prepare(request)
        try:
            while sent < 1000 * MAX_BODY_BYTES:
                await answer.write(b"x" * MAX_BODY_BYTES)
                sent += MAX_BODY_BYTES
        except (ConnectionError, asyncio.CancelledError):
            pass
        return answer

    receiver.answers = [endless]
    result = await client.call(hook(receiver), BODY)
    assert result == HookResult(False, "x" * MAX_TEXT)
    assert sent < 1000 * MAX_BODY_BYTES


# ---------------------------------------------------------------- again


async def test_a_5xx_is_tried_again_after_1_2_4_to_30_seconds(receiver: Receiver, client: HookClient, waits: Waits) -> None:
    receiver.answers = [says(503, "starting")]
    result = await client.call(hook(receiver, "/gate?key=secret", retries=7), BODY)
    assert waits.asked == [1, 2, 4, 8, 16, 30, 30]
    assert len(receiver.seen) == 8
    assert result == HookResult(False, f"POST {receiver.url}/gate giving up after 8 attempt(s): HTTP 503 starting")


async def test_a_retry_that_succeeds_is_a_success(receiver: Receiver, client: HookClient, waits: Waits) -> None:
    receiver.answers = [says(500), hangs_up, says(200, "fine")]
    assert await client.call(hook(receiver, retries=2), BODY) == HookResult(True, "fine")
    assert waits.asked == [1, 2]
    assert [seen.json for seen in receiver.seen] == [BODY] * 3


async def test_without_retries_there_is_one_try(receiver: Receiver, client: HookClient, waits: Waits) -> None:
    receiver.answers = [says(500, "boom")]
    result = await client.call(hook(receiver), BODY)
    assert result == HookResult(False, f"POST {receiver.url}/gate giving up after 1 attempt(s): HTTP 500 boom")
    assert (len(receiver.seen), waits.asked) == (1, [])


@pytest.mark.parametrize("status", [501, 400, 403, 404, 408])
async def test_what_will_not_change_is_not_tried_again(receiver: Receiver, client: HookClient, status: int) -> None:
    receiver.answers = [says(status, "no"), says(200)]
    assert await client.call(hook(receiver, retries=3), BODY) == HookResult(False, "no")


@pytest.mark.parametrize(
    ("status", "after", "wait"),
    [
        (429, "7", 7.0),
        (503, "120", 120.0),
        (503, "86400", 300.0),
        (503, "Fri, 15 Jan 2028 08:00:00 GMT", 300.0),
        (500, "7", 1.0),
        (429, "Fri, 15 Jan 2027 08:00:42 GMT", 42.0),
        (429, "Fri, 15 Jan 2027 07:00:00 GMT", 0.0),
        (429, "soon", 1.0),
        (429, "-5", 1.0),
    ],
)
async def test_retry_after_is_honoured_on_429_and_503(
    receiver: Receiver, client: HookClient, waits: Waits, status: int, after: str, wait: float
) -> None:
    receiver.answers = [says(status, Retry_After=after), says(200)]
    assert (await client.call(hook(receiver, retries=1), BODY)).ok
    assert waits.asked == [wait]


async def test_a_refused_connection_is_tried_again_and_then_told(client: HookClient, waits: Waits) -> None:
    with socket.socket() as held:  # bound and not listening: refused for as long as the test runs
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}/gate"
        result = await client.call(Webhook("rollout", "load", url, retries=2), BODY)
    assert not result.ok
    assert result.text.startswith(f"POST {url}: ")
    assert "giving up after 3 attempt(s)" in result.text
    assert waits.asked == [1, 2]


async def test_a_receiver_that_never_answers_is_left_after_the_timeout(receiver: Receiver, client: HookClient) -> None:
    receiver.answers = [never_answers]
    result = await client.call(hook(receiver, timeout_s=0.05), BODY)
    assert result == HookResult(False, f"POST {receiver.url}/gate: no answer in 0.05 s")


async def test_the_timeout_counts_for_the_body_too(receiver: Receiver, client: HookClient) -> None:
    async def half(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(b"all is ")
        await asyncio.Event().wait()
        return answer

    receiver.answers = [half]
    assert not (await client.call(hook(receiver, timeout_s=0.05), BODY)).ok


async def test_a_name_that_does_not_exist_is_a_no(client: HookClient) -> None:
    result = await client.call(Webhook("rollout", "load", "http://gate.invalid/"), BODY)
    assert not result.ok
    assert result.text.startswith("POST http://gate.invalid/: ")


# ---------------------------------------------------------------- redirects


@pytest.mark.parametrize(("status", "method"), [(301, "GET"), (302, "GET"), (303, "GET"), (307, "POST"), (308, "POST")])
async def test_redirects_are_followed_as_go_does(receiver: Receiver, client: HookClient, status: int, method: str) -> None:
    receiver.answers = [says(status, Location="/other?x=1"), says(200, "there")]
    assert await client.call(hook(receiver), BODY) == HookResult(True, "there")
    assert (receiver.seen[1].method, receiver.seen[1].path) == (method, "/other?x=1")
    assert receiver.seen[1].json == (BODY if method == "POST" else None)


async def test_a_circle_of_redirects_ends(receiver: Receiver, client: HookClient, waits: Waits) -> None:
    receiver.answers = [says(307, Location="/gate")]
    result = await client.call(hook(receiver, retries=3), BODY)
    assert "stopped after 10 redirects" in result.text
    assert (len(receiver.seen), waits.asked) == (11, [])


@pytest.mark.parametrize("location", ["file:///etc/passwd", "http://[", ""])
async def test_a_redirect_to_nowhere_is_a_no(receiver: Receiver, client: HookClient, location: str) -> None:
    receiver.answers = [says(302, **({"Location": location} if location else {}))]
    assert not (await client.call(hook(receiver), BODY)).ok


# ---------------------------------------------------------------- TLS, proxies


async def test_certificates_are_verified_unless_tls_is_disabled(client: HookClient, waits: Waits, tmp_path: Path) -> None:
    async with Receiver(context=_self_signed(tmp_path)) as receiver:
        refused = await client.call(hook(receiver, retries=3), BODY)
        assert not refused.ok
        assert "CERTIFICATE_VERIFY_FAILED" in refused.text.upper()
        assert (receiver.seen, waits.asked) == ([], [])  # trying again would not help
        assert (await client.call(hook(receiver, disable_tls=True), BODY)).ok


def test_the_environments_proxy_is_used_but_never_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.corp:3128")
    monkeypatch.setenv("no_proxy", ".internal")
    assert environment_proxy("http://hooks.example.com/") == "http://proxy.corp:3128"
    assert environment_proxy("http://gate.internal/") is None
    assert environment_proxy("http://127.0.0.7:80/") is None
    assert environment_proxy("http://localhost/") is None


def _self_signed(path: Path) -> ssl.SSLContext:
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gate")])
    today = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (path / "crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (path / "key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path / "crt", path / "key")
    return context

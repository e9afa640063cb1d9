"""Identity.Certify on real sockets: the happy path, and each refusal with its status."""

import json
import logging
import stat
import time
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from plane import TD, Plane, soon

from certs.csr import make_csr, new_key
from certs.spiffe import SpiffeId
from certs.verify import verify_peer
from control.api import mesh_pb2, mesh_pb2_grpc
from control.serve.identity import PodRate
from control.serve.tokens import (
    TokenRefused,
    burn,
    peek,
    refresh_token_if_burned,
    sweep,
    withdraw_token,
    write_token,
)

NOW = 1_800_000_000.0
Code = grpc.StatusCode


def request(token: str, **changes: object) -> mesh_pb2.CertifyRequest:
    fields = {"namespace": "shop", "service_account": "web", "pod": "web-1", "token": token}
    made = mesh_pb2.CertifyRequest(**(fields | changes))  # type: ignore[arg-type]
    if not made.csr_der and "csr_der" not in changes:
        made.csr_der = make_csr(new_key(), SpiffeId.workload(TD, "shop", "web"))
    return made


async def certify(plane: Plane, made: mesh_pb2.CertifyRequest) -> mesh_pb2.CertifyResponse:
    async with plane.channel(plane.certify) as channel:
        answer = await soon(mesh_pb2_grpc.IdentityStub(channel).Certify(made))
    assert isinstance(answer, mesh_pb2.CertifyResponse)
    return answer


async def refused(plane: Plane, made: mesh_pb2.CertifyRequest, code: Code, reason: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await certify(plane, made)
    assert (error.value.code(), (error.value.details() or "").split(":")[0]) == (code, reason)
    assert plane.metric("certify_refused_total", reason=reason) >= 1


async def test_a_token_and_a_csr_give_a_certificate(plane: Plane) -> None:
    token = plane.token_file().read_text()
    answer = await certify(plane, request(token))
    found = verify_peer(answer.leaf_der, list(answer.intermediates_der), plane.issuer.bundle, time.time())
    assert str(found) == "spiffe://cluster.local/ns/shop/sa/web"
    assert answer.not_after_unix == x509.load_der_x509_certificate(answer.leaf_der).not_valid_after_utc.timestamp()
    assert list(answer.trust.anchors_der) == list(plane.issuer.bundle.anchors_der)
    assert plane.metric("certificates_total") == 1
    assert plane.metric("certify_duration_seconds_count") == plane.metric("certify_duration_seconds_bucket", le="+Inf") == 1


async def test_a_token_is_good_for_one_certificate(plane: Plane) -> None:
    token = plane.token_file().read_text()
    await certify(plane, request(token))
    await refused(plane, request(token), Code.UNAUTHENTICATED, "used")
    assert plane.metric("certify_duration_seconds_count") == 2, "work is work, whatever came of it"


async def test_a_token_still_counts_as_used_after_a_restart(plane: Plane) -> None:
    token = plane.token_file().read_text()
    await certify(plane, request(token))
    await plane.stop()
    await plane.start()
    await refused(plane, request(token), Code.UNAUTHENTICATED, "used")


@pytest.mark.parametrize(
    "changes",
    [
        {"token": ""},
        {"token": "x" * 5000},
        {"namespace": ""},
        {"pod": "p" * 254},
        {"service_account": "../root"},
        {"csr_der": b""},
        {"csr_der": b"x" * 5000},
    ],
    ids=str,
)
async def test_a_malformed_request_is_an_invalid_argument(plane: Plane, changes: dict[str, object]) -> None:
    token = plane.token_file().read_text()
    await refused(plane, request(**({"token": token} | changes)), Code.INVALID_ARGUMENT, "bad_request")


async def test_a_token_that_was_never_issued_is_refused(plane: Plane) -> None:  # ID-39
    await refused(plane, request("garbage"), Code.UNAUTHENTICATED, "unknown")
    await refused(plane, request("../../trust/issuer"), Code.UNAUTHENTICATED, "unknown")


async def test_an_expired_token_is_refused(plane: Plane) -> None:  # ID-39
    await refused(plane, request(plane.token_file(ttl=-1).read_text()), Code.UNAUTHENTICATED, "expired")


@pytest.mark.parametrize(("change", "reason"), [({"audience": "other"}, "wrong_audience"), ({"surplus": 1}, "damaged")])
async def test_a_record_that_is_not_right_is_refused(plane: Plane, change: dict[str, object], reason: str) -> None:  # ID-39
    token = plane.token_file().read_text()
    record = next(plane.tokens.iterdir())
    record.write_text(json.dumps(json.loads(record.read_text()) | change))
    await refused(plane, request(token), Code.UNAUTHENTICATED, reason)


@pytest.mark.parametrize("change", [{"service_account": "prices"}, {"pod": "web-2"}, {"namespace": "bank"}], ids=str)
async def test_a_token_is_for_one_pod_and_account_only(plane: Plane, change: dict[str, str]) -> None:  # ID-33
    token = plane.token_file().read_text()
    await refused(plane, request(token, **change), Code.FAILED_PRECONDITION, "other_identity")
    await certify(plane, request(token))  # and it was not used up by that


async def test_a_csr_for_another_account_than_the_tokens_is_refused(plane: Plane) -> None:  # ID-33
    token = plane.token_file().read_text()
    csr = make_csr(new_key(), SpiffeId.workload(TD, "shop", "prices"))
    await refused(plane, request(token, csr_der=csr), Code.FAILED_PRECONDITION, "bad_names")
    await certify(plane, request(token))


async def test_a_csr_with_another_kind_of_key_is_refused(plane: Plane) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    made = request(plane.token_file().read_text(), csr_der=csr.public_bytes(Encoding.DER))
    await refused(plane, made, Code.INVALID_ARGUMENT, "bad_key")


async def test_the_token_of_a_pod_that_is_gone_is_refused(plane: Plane) -> None:  # ID-41
    token = plane.token_file().read_text()
    plane.source.remove(mesh_pb2.WORKLOAD, "shop/web-1")
    await refused(plane, request(token), Code.FAILED_PRECONDITION, "unknown_pod")


async def test_a_pod_that_asks_without_end_is_slowed_down_and_others_are_not(plane: Plane) -> None:
    for _ in range(10):
        await certify(plane, request(plane.token_file().read_text()))
    await refused(plane, request(plane.token_file().read_text()), Code.RESOURCE_EXHAUSTED, "rate")
    other = plane.token_file(account="prices", pod="prices-1").read_text()
    csr = make_csr(new_key(), SpiffeId.workload(TD, "shop", "prices"))
    await certify(plane, request(other, service_account="prices", pod="prices-1", csr_der=csr))


async def test_an_issuer_that_has_expired_says_so(plane: Plane) -> None:  # ID-43
    token = plane.token_file(ttl=20 * 365 * 86400).read_text()
    ended = plane.issuer.not_after + 1
    plane.clock = lambda: ended  # the server's own certificate cannot be renewed either: the one it has stays
    await refused(plane, request(token), Code.UNAVAILABLE, "issuer")


async def test_a_client_that_does_not_know_our_root_does_not_talk_to_us(plane: Plane, tmp_path: Path) -> None:
    other = Plane(tmp_path / "other")
    async with plane.channel(plane.certify, anchors=other.issuer.bundle.pem) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await soon(mesh_pb2_grpc.IdentityStub(channel).Certify(request("x")))
    assert error.value.code() == Code.UNAVAILABLE


async def test_no_secret_is_in_any_log_line(plane: Plane, caplog: pytest.LogCaptureFixture) -> None:  # ID-51
    caplog.set_level(logging.DEBUG)
    token = plane.token_file().read_text()
    made = request(token)
    await certify(plane, made)
    await refused(plane, made, Code.UNAUTHENTICATED, "used")
    assert "no certificate for" in caplog.text
    for secret in (token, made.csr_der.hex(), repr(made.csr_der), "PRIVATE KEY"):
        assert secret not in caplog.text


# ---------------------------------------------------------------- token files


def paths(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "tokens", tmp_path / "pods" / "shop" / "web-1" / "token"


def put(tmp_path: Path, now: float = NOW) -> str:
    write_token(*paths(tmp_path), "shop", "web", "web-1", 600, now)
    return paths(tmp_path)[1].read_text()


def refresh(tmp_path: Path, now: float) -> bool:
    return refresh_token_if_burned(*paths(tmp_path), "shop", "web", "web-1", 600, now)


def test_tokens_are_for_their_owner_only_and_never_in_the_records(tmp_path: Path) -> None:
    token = put(tmp_path)
    tokens, file = paths(tmp_path)
    record = next(tokens.iterdir())
    assert [stat.S_IMODE(p.stat().st_mode) for p in (tokens, record, file)] == [0o700, 0o600, 0o600]
    assert token not in record.read_text() + record.name
    assert len(token) >= 43  # 256 bits


def test_a_fresh_token_withdraws_the_one_before(tmp_path: Path) -> None:
    first, second = put(tmp_path), put(tmp_path)
    with pytest.raises(TokenRefused, match="unknown"):
        peek(paths(tmp_path)[0], first, NOW)
    assert peek(paths(tmp_path)[0], second, NOW).pod == "web-1"


def test_of_two_uses_one_fails(tmp_path: Path) -> None:
    token = put(tmp_path)
    burn(paths(tmp_path)[0], token)
    with pytest.raises(TokenRefused, match="used"):
        burn(paths(tmp_path)[0], token)


def test_the_file_always_holds_an_unused_token_that_lives(tmp_path: Path) -> None:
    tokens, file = paths(tmp_path)
    assert refresh(tmp_path, NOW)  # there was none
    first = file.read_text()
    assert not refresh(tmp_path, NOW + 299)
    assert file.read_text() == first
    burn(tokens, first)
    assert refresh(tmp_path, NOW + 299)
    second = file.read_text()
    assert second != first
    assert refresh(tmp_path, NOW + 600)  # past half of its life
    file.unlink()
    assert refresh(tmp_path, NOW + 600)
    withdraw_token(tokens, file)
    assert not file.exists()
    withdraw_token(tokens, file)


def test_records_are_swept_when_their_time_is_long_over(tmp_path: Path) -> None:
    tokens, _ = paths(tmp_path)
    burn(tokens, put(tmp_path))
    put(tmp_path)
    (tokens / "damaged.json").write_text("{")
    assert sweep(tokens, NOW + 600) == 1
    assert len(list(tokens.iterdir())) == 2
    assert sweep(tokens, NOW + 1201) == 2
    assert list(tokens.iterdir()) == []
    assert sweep(tmp_path / "nowhere", NOW) == 0


def test_a_pod_has_a_burst_and_then_a_rate() -> None:
    rate = PodRate(burst=2, interval=10)
    assert [rate.allow("a", "b", NOW) for _ in range(3)] == [True, True, False]
    assert rate.allow("a", "c", NOW)
    assert not rate.allow("a", "b", NOW + 9)
    assert rate.allow("a", "b", NOW + 11)


def test_the_buckets_are_bounded_and_full_ones_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PodRate, "MAX_PODS", 3)
    rate = PodRate(burst=2, interval=10)
    assert [rate.allow("a", str(pod), NOW) for pod in range(5)] == [True, True, True, False, False]
    assert rate.allow("a", "4", NOW + 60)
    assert len(rate._buckets) == 1

"""Configuration.Watch on real sockets with real certificates."""

import time
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from plane import TD, Plane, names, service, soon, until, workload

from certs.authority import create_authority, load_authority
from certs.csr import key_pem
from certs.issue import issue_svid
from certs.spiffe import SpiffeId
from control.api import mesh_pb2, mesh_pb2_grpc
from control.api.names import CERTIFY_PORT_OFFSET, CONTROL_DNS_NAME, PROTOCOL
from control.runtime import layout
from control.serve import stream as stream_module
from control.serve.source import key_of

A, A2, A3, B = service("shop/a"), service("shop/a", 81), service("shop/a", 82), service("shop/b")


async def test_a_proxy_gets_its_own_workload_and_every_service_at_once(plane: Plane) -> None:
    plane.source.put(A, B)
    async with plane.stream() as stream:
        assert names(await stream.begin()) == ["shop/a", "shop/b", "shop/web-1"]
        await until(lambda: plane.metric("streams") == 1)
    await until(lambda: plane.metric("streams") == 0)
    assert plane.source.subscribers == 0


async def test_then_it_gets_what_changes(plane: Plane) -> None:
    plane.source.put(A, B)
    async with plane.stream() as stream:
        await stream.begin()
        plane.source.put(A2)
        update = await stream.update()
        assert (names(update), update.version) == (["shop/a"], 2)
        await stream.ack(update)
        plane.source.remove(mesh_pb2.SERVICE, "shop/b")
        update = await stream.update()
        assert ([n.name for n in update.removed], names(update)) == (["shop/b"], [])


async def test_a_slow_reader_gets_the_newest_state_in_one_update(plane: Plane) -> None:
    async with plane.stream() as stream:
        await stream.hello()
        first = await stream.update()  # not acknowledged yet
        for port in range(1000, 1100):
            plane.source.put(service("shop/a", port))
        plane.source.put(B)
        await until(lambda: plane.metric("updates_total") == 1)
        await stream.ack(first)
        update = await stream.update()
        assert names(update) == ["shop/a", "shop/b"]
        assert next(r for r in update.set if r.name.name == "shop/a").service.ports[0].port == 1099
        assert plane.metric("updates_total") == 2


async def test_a_refused_resource_is_frozen_and_the_rest_goes_on(plane: Plane) -> None:
    plane.source.put(A)
    async with plane.stream() as stream:
        await stream.begin()
        plane.source.put(A2)
        await stream.ack(await stream.update(), A2)
        plane.source.put(B)
        update = await stream.update()
        assert names(update) == ["shop/b"]
        await stream.ack(update)
        plane.source.put(A3)
        update = await stream.update()
        assert update.set[0] == A3
        assert plane.metric("resources_rejected_total") == 1


async def test_a_returning_proxy_gets_only_what_changed(plane: Plane) -> None:
    plane.source.put(A, B)
    async with plane.stream() as stream:
        first = await stream.begin()
    held = {key_of(r.name): r.hash for r in first.set}
    plane.source.put(A2)
    plane.source.remove(mesh_pb2.SERVICE, "shop/b")
    async with plane.stream() as stream:
        update = await stream.begin(held=held)
        assert (names(update), [n.name for n in update.removed]) == (["shop/a"], ["shop/b"])


async def test_a_newer_stream_of_the_same_pod_ends_the_older(plane: Plane) -> None:
    async with plane.stream() as older, plane.stream() as newer:
        await older.begin()
        await newer.begin()
        assert (await older.ended())[0] == grpc.StatusCode.ABORTED
        plane.source.put(A)
        assert names(await newer.update()) == ["shop/a"]


async def test_a_pod_that_vanishes_keeps_what_it_has(plane: Plane) -> None:
    plane.source.put(A)
    async with plane.stream() as stream:
        await stream.begin()
        gone = plane.source.pods["shop/web-1"]
        plane.source.remove(mesh_pb2.WORKLOAD, "shop/web-1")
        plane.source.put(A2)
        plane.source.put(gone)
        update = await stream.update()
        assert (names(update), list(update.removed)) == (["shop/a"], [])


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("protocol", [PROTOCOL - 1, PROTOCOL + 1])
async def test_one_protocol_version_either_way_works(plane: Plane, protocol: int) -> None:
    async with plane.stream() as stream:
        assert names(await stream.begin(protocol=protocol)) == ["shop/web-1"]


async def test_two_versions_apart_is_refused_naming_both(plane: Plane) -> None:
    async with plane.stream() as stream:
        await stream.hello(protocol=PROTOCOL + 2)
        code, details = await stream.ended()
        assert code == grpc.StatusCode.FAILED_PRECONDITION
        assert f"protocol {PROTOCOL + 2}" in details
        assert plane.metric("streams_refused_total", reason="protocol") == 1


async def test_another_identitys_pod_is_refused(plane: Plane) -> None:  # CP-08
    async with plane.stream(plane.svid(account="web")) as stream:
        await stream.hello(pod="prices-1")
        code, details = await stream.ended()
        assert code == grpc.StatusCode.PERMISSION_DENIED
        assert "sa/web asked for the configuration of shop/prices-1" in details


async def test_an_unknown_pod_is_told_so(plane: Plane) -> None:
    async with plane.stream() as stream:
        await stream.hello(pod="web-2")
        assert (await stream.ended())[0] == grpc.StatusCode.NOT_FOUND


async def test_a_pod_that_changes_its_account_loses_the_stream(plane: Plane) -> None:
    async with plane.stream() as stream:
        await stream.begin()
        plane.source.put(workload("shop", "web-1", "other"))
        assert (await stream.ended())[0] == grpc.StatusCode.PERMISSION_DENIED


async def test_without_a_client_certificate_there_is_no_stream(plane: Plane) -> None:  # ID-01, CP-08
    async with plane.channel(plane.watch) as channel:
        call = mesh_pb2_grpc.ConfigurationStub(channel).Watch()
        assert await soon(call.code()) == grpc.StatusCode.UNAVAILABLE
    assert plane.metric("streams_refused_total", reason="unknown_pod") == 0


async def test_a_certificate_of_another_mesh_is_refused(plane: Plane, tmp_path: Path) -> None:  # ID-04
    create_authority(tmp_path / "other", TD, time.time())
    other = load_authority(tmp_path / "other", TD, time.time())
    async with plane.stream(issue_svid(other, SpiffeId.workload(TD, "shop", "web"), time.time())) as stream:
        assert (await stream.ended())[0] == grpc.StatusCode.UNAVAILABLE


async def test_an_authority_of_ours_cannot_pass_as_a_workload(plane: Plane) -> None:  # ID-07
    issuer = plane.issuer
    shown = replace(plane.svid(), chain_pem=issuer.issuer.public_bytes(Encoding.PEM), key_pem=key_pem(issuer.key))
    async with plane.stream(shown) as stream:
        assert (await stream.ended())[0] in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNAVAILABLE)


async def test_the_stream_ends_with_the_certificate_it_was_opened_with(plane: Plane) -> None:  # ID-30
    """The server's clock is just before the end of the certificate; OpenSSL's, the real one, is not."""
    svid = plane.svid(lifetime=20)  # less than the 30 s by which the server's own certificate is back-dated
    ahead = svid.not_after - 0.2 - time.time()
    plane.clock = lambda: time.time() + ahead
    await plane.stop()
    await plane.start()
    async with plane.stream(svid) as stream:
        await stream.begin()
        code, details = await stream.ended()
        assert code == grpc.StatusCode.UNAUTHENTICATED
        assert "expired" in details


async def test_an_expired_certificate_is_refused(plane: Plane) -> None:  # ID-02
    svid = plane.svid(lifetime=20)
    plane.clock = lambda: svid.not_after + 1
    await plane.stop()
    await plane.start()
    async with plane.stream(svid) as stream:
        code, details = await stream.ended()
        assert (code, details.split(":")[0]) == (grpc.StatusCode.UNAUTHENTICATED, "expired")


async def test_what_is_said_out_of_turn_ends_the_stream(plane: Plane) -> None:
    async with plane.stream() as stream:
        await stream.ack(mesh_pb2.Update(version=1))
        assert (await stream.ended())[0] == grpc.StatusCode.INVALID_ARGUMENT
    async with plane.stream() as stream:
        update = await stream.begin()
        await stream.ack(update)
        assert (await stream.ended())[0] == grpc.StatusCode.INVALID_ARGUMENT
    async with plane.stream() as stream:
        await stream.begin()
        await stream.hello()
        assert (await stream.ended())[0] == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_proxy_that_says_nothing_or_never_acknowledges_is_let_go(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "HELLO_TIMEOUT", 0.05)
    monkeypatch.setattr(stream_module, "ACK_TIMEOUT", 0.05)
    async with plane.stream() as stream:
        assert "no_hello" in (await stream.ended())[1]
    async with plane.stream() as stream:
        await stream.hello()
        assert "no_ack" in (await stream.ended())[1]


async def test_new_anchors_count_from_the_next_connection_on(plane: Plane, tmp_path: Path) -> None:  # ID-48
    create_authority(tmp_path / "new", TD, time.time())
    new = load_authority(tmp_path / "new", TD, time.time())
    svid = issue_svid(new, SpiffeId.workload(TD, "shop", "web"), time.time())
    async with plane.stream(svid) as stream:
        assert (await stream.ended())[0] == grpc.StatusCode.UNAVAILABLE
    root = plane.directory / "trust" / "root.pem"
    root.write_bytes(root.read_bytes() + new.bundle.pem.encode())
    assert plane.authority.refresh(time.time())
    async with plane.stream(svid) as stream:
        assert names(await stream.begin()) == ["shop/web-1"]


async def test_bad_material_on_disk_leaves_the_last_good_in_force(plane: Plane) -> None:  # ID-43
    issuer = plane.directory / "trust" / "issuer.pem"
    good = issuer.read_bytes()
    issuer.write_bytes(b"nonsense")
    assert not plane.authority.refresh(time.time())
    async with plane.stream() as stream:
        assert names(await stream.begin()) == ["shop/web-1"]
    issuer.write_bytes(good)
    assert plane.authority.refresh(time.time())


def test_both_planes_spell_the_name_alike() -> None:
    assert layout.CONTROL_DNS_NAME == CONTROL_DNS_NAME
    assert layout.CERTIFY_PORT == layout.CONTROL_PORT + CERTIFY_PORT_OFFSET

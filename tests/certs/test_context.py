"""Real handshakes over real sockets."""

import asyncio
import os
import ssl
import time
from pathlib import Path

import pytest
from forge import Forged, forge, forge_ca

from certs import context as context_module
from certs.authority import Authority, create_authority, load_authority
from certs.context import MESH_ALPN, client_context, mesh_contexts, server_context
from certs.issue import issue_svid
from certs.material import MaterialError, read_material
from certs.spiffe import SpiffeId
from certs.svid import Svid
from certs.verify import check_leaf

TD = "cluster.local"
WEB, PRICES = SpiffeId.workload(TD, "shop", "web"), SpiffeId.workload(TD, "shop", "prices")


@pytest.fixture
def now() -> float:
    return time.time()  # OpenSSL reads the clock itself


@pytest.fixture
def authority(tmp_path: Path, now: float) -> Authority:
    create_authority(tmp_path / "trust", TD, now)
    return load_authority(tmp_path / "trust", TD, now)


async def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Both ends' view after one byte went each way.  Raises what the client saw (ssl.SSLError or OSError)."""
    seen: asyncio.Future[ssl.SSLObject] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.set_result(writer.get_extra_info("ssl_object"))
        writer.write(await reader.readexactly(1))
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server)
    try:
        port = listener.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
        try:
            writer.write(b"x")
            assert await asyncio.wait_for(reader.readexactly(1), 10) == b"x"
            return await seen, writer.get_extra_info("ssl_object")
        finally:
            writer.close()
    finally:
        listener.close()


async def test_two_svids_meet_over_tls_13_and_each_reads_the_other(authority: Authority, now: float) -> None:
    web, prices = issue_svid(authority, WEB, now), issue_svid(authority, PRICES, now)
    inbound, outbound = await handshake(
        mesh_contexts(prices, authority.bundle).server, mesh_contexts(web, authority.bundle).client
    )
    assert inbound.version() == outbound.version() == "TLSv1.3"
    assert inbound.selected_alpn_protocol() == MESH_ALPN
    assert check_leaf(inbound.getpeercert(True) or b"", TD) == WEB
    assert check_leaf(outbound.getpeercert(True) or b"", TD) == PRICES
    assert outbound.session is None or not outbound.session.has_ticket


async def test_a_client_without_a_certificate_is_refused(authority: Authority, now: float) -> None:  # ID-01
    prices = issue_svid(authority, PRICES, now)
    nobody = client_context(None, None, authority.bundle.pem.encode(), (MESH_ALPN,))
    with pytest.raises((OSError, asyncio.IncompleteReadError)):
        await handshake(mesh_contexts(prices, authority.bundle).server, nobody)


async def test_a_client_of_another_mesh_is_refused(authority: Authority, now: float, tmp_path: Path) -> None:  # ID-04
    create_authority(tmp_path / "other", TD, now)
    stranger = issue_svid(load_authority(tmp_path / "other", TD, now), WEB, now)
    with pytest.raises((OSError, asyncio.IncompleteReadError)):
        await handshake(
            mesh_contexts(issue_svid(authority, PRICES, now), authority.bundle).server,
            client_context(stranger.chain_pem, stranger.key_pem, authority.bundle.pem.encode(), (MESH_ALPN,)),
        )


async def test_an_expired_svid_is_refused(authority: Authority, now: float) -> None:  # ID-02
    expired = issue_svid(authority, WEB, now - 20, 10)
    with pytest.raises((OSError, asyncio.IncompleteReadError)):
        await handshake(
            mesh_contexts(issue_svid(authority, PRICES, now), authority.bundle).server,
            mesh_contexts(expired, authority.bundle).client,
        )


async def test_tls_12_is_not_spoken(authority: Authority, now: float) -> None:  # ID-28
    svid = issue_svid(authority, PRICES, now)
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    old.check_hostname = False
    old.verify_mode = ssl.CERT_NONE
    with pytest.raises(OSError):
        await handshake(mesh_contexts(svid, authority.bundle).server, old)


def test_equal_material_gives_the_same_contexts_and_the_cache_is_bounded(authority: Authority, now: float) -> None:
    svids: list[Svid] = [issue_svid(authority, WEB, now) for _ in range(context_module.CACHED + 2)]
    first = mesh_contexts(svids[0], authority.bundle)
    assert mesh_contexts(svids[0], authority.bundle) is first
    for svid in svids[1:]:
        assert mesh_contexts(svid, authority.bundle) is not first
    assert len(context_module._cache) <= context_module.CACHED


@pytest.mark.parametrize("memory", ["memfd", "file"])
def test_the_key_leaves_no_file_and_no_descriptor(
    authority: Authority, now: float, memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    svid = issue_svid(authority, WEB, now)
    if memory == "file":
        monkeypatch.delattr(os, "memfd_create")
    shm, open_before = set(os.listdir("/dev/shm")), set(os.listdir("/proc/self/fd"))
    mesh_contexts(svid, authority.bundle)
    assert set(os.listdir("/dev/shm")) == shm
    assert len(os.listdir("/proc/self/fd")) == len(open_before)


# ---------------------------------------------------------------- a user's directory


def user_directory(directory: Path, now: float) -> tuple[Path, Forged]:
    root = forge_ca(now)
    leaf = forge(now, root, dns=("localhost",), cn="localhost")
    directory.mkdir()
    (directory / "cert.pem").write_bytes(leaf.pem)
    (directory / "key.pem").write_bytes(leaf.key_pem)
    (directory / "key.pem").chmod(0o600)
    (directory / "ca.pem").write_bytes(root.pem)
    return directory, leaf


async def test_a_users_certificate_serves_tls_with_http_in_alpn(tmp_path: Path, now: float) -> None:
    directory, leaf = user_directory(tmp_path / "tls", now)
    material = read_material(directory, now)
    assert material.leaf_der == leaf.der
    assert material.warnings == ()
    assert material.ca_pem is not None
    curl = client_context(None, None, material.ca_pem)
    inbound, _ = await handshake(server_context(material.chain_pem, material.key_pem, None), curl)
    assert inbound.selected_alpn_protocol() == "h2"
    with pytest.raises((OSError, asyncio.IncompleteReadError)):  # and with mTLS it asks for one
        await handshake(server_context(material.chain_pem, material.key_pem, material.ca_pem), curl)
    known = client_context(material.chain_pem, material.key_pem, material.ca_pem)
    await handshake(server_context(material.chain_pem, material.key_pem, material.ca_pem), known)


def refused(directory: Path, now: float, *parts: str, need_ca: bool = True) -> None:
    with pytest.raises(MaterialError) as error:
        read_material(directory, now, need_ca)
    for part in parts:
        assert part in str(error.value)


def test_each_mistake_in_a_users_directory_is_named(tmp_path: Path, now: float) -> None:
    refused(tmp_path / "nowhere", now, "nowhere", "not a directory")
    directory, leaf = user_directory(tmp_path / "tls", now)
    refused(directory, now + 7200, "cert.pem", "expired on")
    refused(directory, now - 7200, "cert.pem", "valid only from", "clock")

    (directory / "key.pem").write_bytes(forge(now, uris=("spiffe://a/b",)).key_pem)
    refused(directory, now, "key.pem", "does not belong", "cert.pem")
    (directory / "key.pem").write_bytes(b"nonsense")
    refused(directory, now, "key.pem", "no readable PEM private key")
    (directory / "key.pem").write_bytes(leaf.key_pem)

    (directory / "ca.pem").write_bytes(leaf.pem)
    refused(directory, now, "ca.pem", "not a CA")
    (directory / "ca.pem").unlink()
    refused(directory, now, "ca.pem", "No such file")
    assert read_material(directory, now, need_ca=False).ca_pem is None

    (directory / "cert.pem").write_bytes(b"")
    refused(directory, now, "cert.pem", "no readable PEM certificate", need_ca=False)


def test_an_encrypted_key_is_refused_with_the_remedy(tmp_path: Path, now: float) -> None:
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

    directory, leaf = user_directory(tmp_path / "tls", now)
    pem = leaf.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    (directory / "key.pem").write_bytes(pem)
    refused(directory, now, "key.pem", "encrypted", "openssl")


def test_a_key_that_others_can_read_is_a_warning(tmp_path: Path, now: float) -> None:
    directory, _ = user_directory(tmp_path / "tls", now)
    (directory / "key.pem").chmod(0o644)
    assert "chmod 600" in read_material(directory, now).warnings[0]

"""Certificates of a SPIFFE Workload API, from an agent that speaks its public form: messages are encoded by hand here, by the
numbers of the specification, not by the code that reads them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from forge import Forged, forge, forge_ca
from plane import Plane, until

from certs.bundle import TrustBundle
from meshproxy.cli.proxy import command, spire_socket
from meshproxy.mesh.identity import IdentitySettings
from meshproxy.mesh.membership import Membership
from meshproxy.mesh.spire import SpireIdentity, split_der

TD = "cluster.local"
WEB = f"spiffe://{TD}/ns/shop/sa/web"
NOW = time.time()
ROOT = forge_ca(NOW, cn="SPIRE root", uris=(f"spiffe://{TD}",))
ISSUER = forge_ca(NOW, ROOT, "SPIRE server", pathlen=0, uris=(f"spiffe://{TD}",))


# ---------------------------------------------------------------- an agent


def field(number: int, value: bytes) -> bytes:
    """One length-delimited field of protobuf."""
    length, size = b"", len(value)
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + value


def leaf(issuer: Forged = ISSUER, uri: str = WEB, **shape: Any) -> Forged:
    """As SPIRE's server issues them: a subject, three key usages, both extended ones."""
    bits = ("digital_signature", "key_encipherment", "key_agreement")
    return forge(NOW, issuer, **({"uris": (uri,), "cn": "SPIRE", "key_usage": bits} | shape))


def entry(
    made: Forged, *chain: Forged, uri: str = WEB, anchors: tuple[Forged, ...] = (ROOT,), key: bytes | None = None
) -> bytes:
    der = made.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()) if key is None else key
    fields = [(1, uri.encode()), (2, made.der + b"".join(c.der for c in chain)), (3, der)]
    fields += [(4, b"".join(anchor.der for anchor in anchors)), (5, b"internal")]
    return field(1, b"".join(field(number, value) for number, value in fields))


class Agent:
    """Answers every stream with the state of the moment and each later one; `state` None: it knows nobody."""

    def __init__(self, directory: Path) -> None:
        self.address = f"unix://{directory / 'agent.sock'}"
        self.state: bytes | None = None
        self.changed = asyncio.Event()
        self.metadata: list[dict[str, Any]] = []
        self.server: grpc.aio.Server | None = None

    async def start(self) -> None:
        self.server = grpc.aio.server()
        handler = grpc.unary_stream_rpc_method_handler(self.fetch)  # bytes in, bytes out
        self.server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("SpiffeWorkloadAPI", {"FetchX509SVID": handler}),)
        )
        self.server.add_insecure_port(self.address)
        await self.server.start()

    async def stop(self) -> None:
        if self.server is not None:
            await self.server.stop(0)
            self.server = None

    def push(self, *entries: bytes) -> None:
        self.state = b"".join(entries)
        self.changed.set()
        self.changed = asyncio.Event()

    async def fetch(self, request: bytes, context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        self.metadata.append({str(key): value for key, value in context.invocation_metadata() or ()})
        assert request == b""
        if self.state is None:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "no identity issued")
        while True:
            changed = self.changed
            assert self.state is not None
            yield self.state
            await changed.wait()


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    made = Agent(tmp_path)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


def settings(agent: Agent, bundle: Path, certify: str = "") -> IdentitySettings:
    return IdentitySettings(certify, "shop", "web", "web-1", TD, bundle, Path(), agent.address)


@pytest.fixture
async def identity(agent: Agent, tmp_path: Path) -> AsyncIterator[SpireIdentity]:
    (tmp_path / "bundle.pem").write_bytes(forge_ca(NOW, cn="of the control plane").pem)
    made = SpireIdentity(settings(agent, tmp_path / "bundle.pem"))
    task = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


# ---------------------------------------------------------------- taking


async def test_a_proxy_takes_its_own_among_the_svids_of_the_agent(agent: Agent, identity: SpireIdentity) -> None:
    other = f"spiffe://{TD}/ns/shop/sa/other"
    mine = leaf()
    agent.push(entry(leaf(uri=other), ISSUER, uri=other), entry(mine, ISSUER))
    await until(lambda: identity.svid is not None)
    assert identity.svid is not None
    assert (identity.svid.leaf_der, str(identity.svid.spiffe_id)) == (mine.der, WEB)
    assert identity.bundle == TrustBundle.of(TD, [ROOT.der])
    assert identity.contexts is not None
    assert agent.metadata[0]["workload.spiffe.io"] == "true"
    assert len(identity.control_bundle().anchors_der) == 2  # the agent's, and the file's for the control plane


async def test_every_push_is_in_force_at_once_on_the_same_stream(agent: Agent, identity: SpireIdentity) -> None:
    told: list[int] = []
    identity.on_change(lambda: told.append(identity.renewals))
    agent.push(entry(leaf(), ISSUER))
    await until(lambda: identity.renewals == 1)
    contexts, new = identity.contexts, forge_ca(NOW, cn="next root")
    agent.push(entry(leaf(), ISSUER, anchors=(ROOT, new)))
    await until(lambda: identity.renewals == 2)
    assert len(identity.bundle.anchors_der) == 2
    agent.push(entry(leaf(new), anchors=(new,)))
    await until(lambda: identity.renewals == 3)
    assert identity.contexts is not contexts
    assert identity.bundle.anchors_der == (new.der,)
    assert (told, len(agent.metadata), identity.failures) == ([1, 2, 3], 1, 0)


async def test_an_rsa_key_of_the_agent_is_taken(agent: Agent, identity: SpireIdentity) -> None:
    agent.push(entry(leaf(key=rsa.generate_private_key(65537, 2048)), ISSUER))
    await until(lambda: identity.contexts is not None)


async def test_anchors_of_the_control_plane_are_not_taken(agent: Agent, identity: SpireIdentity) -> None:
    agent.push(entry(leaf(), ISSUER))
    await until(lambda: identity.svid is not None)
    identity.set_bundle(TrustBundle.of(TD, [forge_ca(NOW, cn="pushed").der]))
    assert identity.bundle.anchors_der == (ROOT.der,)


# ---------------------------------------------------------------- not taking


async def test_a_process_that_is_not_registered_says_so_and_goes_on_asking(agent: Agent, identity: SpireIdentity) -> None:
    await until(lambda: identity.failures >= 2)
    assert f"register {WEB}" in identity.last_error
    agent.push(entry(leaf(), ISSUER))
    await until(lambda: identity.svid is not None)
    assert identity.last_error == ""


async def test_an_agent_that_goes_leaves_what_there_is_and_is_found_when_it_returns(
    agent: Agent, identity: SpireIdentity
) -> None:
    agent.push(entry(leaf(), ISSUER))
    await until(lambda: identity.renewals == 1)
    svid = identity.svid
    await agent.stop()
    await until(lambda: identity.failures >= 2)
    assert identity.svid is svid
    assert identity.valid(time.time())
    await agent.start()
    await until(lambda: identity.renewals == 2)


STRANGER = forge_ca(NOW, cn="stranger")
UNUSABLE = {
    "another identity only": (lambda: entry(leaf(uri=f"{WEB}x"), ISSUER, uri=f"{WEB}x"), f"the agent offers {WEB}x"),
    "nothing": (lambda: b"", "the agent offers nothing"),
    "a name that the certificate does not have": (lambda: entry(leaf(uri=f"{WEB}x"), ISSUER), f"names {WEB}x, not {WEB}"),
    "another trust domain": (lambda: entry(leaf(uri="spiffe://other/ns/shop/sa/web"), ISSUER), "foreign_trust_domain"),
    "not under its bundle": (lambda: entry(leaf(STRANGER)), "untrusted"),
    "ended": (lambda: entry(leaf(ends=-1.0), ISSUER), "expired"),
    "a key of another": (
        lambda: entry(leaf(), ISSUER, key=STRANGER.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())),
        "another key",
    ),
    "a key that is none": (lambda: entry(leaf(), ISSUER, key=b"\x30\x03abc"), "not DER"),
    "no bundle": (lambda: entry(leaf(), ISSUER, anchors=()), "not DER"),
    "a bundle without CA": (lambda: entry(leaf(), ISSUER, anchors=(leaf(),)), "not a CA"),
    "an authority instead of a leaf": (lambda: entry(ISSUER), "ca_leaf"),
}


@pytest.mark.parametrize("what", UNUSABLE)
async def test_an_answer_that_is_not_usable_keeps_the_last_good_and_says_why(
    agent: Agent, identity: SpireIdentity, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    agent.push(entry(leaf(), ISSUER))
    await until(lambda: identity.renewals == 1)
    good = identity.svid
    make, said = UNUSABLE[what]
    agent.push(make())
    await until(lambda: said in identity.last_error, said)
    assert identity.svid is good
    assert "PRIVATE" not in caplog.text
    agent.push(entry(leaf(), ISSUER))
    await until(lambda: identity.renewals == 2)


@pytest.mark.parametrize(
    "junk", [b"", b"\x30", b"\x30\x05ab", b"\x31\x00", b"\x30\x85\x01\x01\x01\x01\x01", b"\x30\x80", ROOT.der + b"x"]
)
def test_der_that_is_cut_or_none_is_refused(junk: bytes) -> None:
    with pytest.raises(ValueError):
        split_der(junk)


def test_der_values_are_told_apart() -> None:
    assert split_der(ROOT.der + ISSUER.der + b"\x30\x00") == [ROOT.der, ISSUER.der, b"\x30\x00"]


# ---------------------------------------------------------------- in the mesh


async def test_a_proxy_with_the_agents_identity_gets_its_configuration(agent: Agent, tmp_path: Path) -> None:
    """The control plane's certificate is of its own issuer; the agent's root is beside it in the anchors."""
    plane = Plane(tmp_path)
    root = tmp_path / "trust" / "root.pem"
    root.write_bytes(root.read_bytes() + ROOT.pem)
    plane.authority.refresh(time.time())
    await plane.start()
    agent.push(entry(leaf(), ISSUER))
    membership = Membership(settings(agent, root), plane.watch, lambda known: None)
    task = asyncio.create_task(membership.run())
    try:
        await until(lambda: membership.ready(time.time()) == (True, "ready"))
        assert membership.identity.svid is not None
        assert membership.identity.svid.issuer_key_id != plane.issuer.key_id
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await plane.stop()


@pytest.mark.parametrize("source", ["spire", "spire:", "spire:/run/agent.sock", "spire:unix:agent.sock", "vault:unix:///x", ""])
def test_a_source_that_is_none_is_refused_with_an_example(source: str) -> None:
    result = CliRunner().invoke(command, _arguments("--identity-source", source))
    assert (result.exit_code, "spire:unix:///run/spire/sockets/agent.sock" in result.output) == (2, True)


def test_without_an_agent_the_control_plane_needs_its_options() -> None:
    result = CliRunner().invoke(command, _arguments())
    assert (result.exit_code, "--identity and --token-file are needed" in result.output) == (2, True)


def test_a_source_names_its_socket() -> None:
    assert spire_socket("control") == ""
    assert spire_socket("spire:unix:///run/a.sock") == "unix:///run/a.sock"


def _arguments(*more: str) -> list[str]:
    who = ("--namespace", "shop", "--pod", "web-1", "--service-account", "web", "--pod-ip", "127.0.0.1")
    return [*who, "--trust-domain", TD, "--trust-bundle", __file__, "--control", "127.0.0.1:1", *more]

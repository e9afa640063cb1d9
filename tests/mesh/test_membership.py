"""A proxy's identity and configuration against a real control plane, through its absences."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from plane import TD, Plane, names, service, soon, until

from certs.authority import create_authority, load_authority
from certs.verify import verify_peer
from control.api import mesh_pb2
from control.serve.tokens import refresh_token_if_burned
from meshproxy.mesh.identity import IdentityClient, IdentitySettings
from meshproxy.mesh.knowledge import Knowledge, Known
from meshproxy.mesh.membership import Membership
from meshproxy.mesh.watch import ConfigurationWatch


def settings(plane: Plane, token_file: Path | None = None) -> IdentitySettings:
    return IdentitySettings(
        target=plane.certify,
        namespace="shop",
        service_account="web",
        pod="web-1",
        trust_domain=TD,
        bundle_file=plane.directory / "trust" / "root.pem",
        token_file=token_file or plane.token_file(),
    )


@asynccontextmanager
async def running(*coroutines: Awaitable[None]) -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(c) for c in coroutines]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(result, asyncio.CancelledError), result


async def keep_tokens(plane: Plane) -> None:
    """What the runtime does: the file always holds an unused token."""
    file = plane.directory / "pods" / "shop" / "web-1" / "token"
    while True:
        refresh_token_if_burned(plane.tokens, file, "shop", "web", "web-1", 600, time.time())
        await asyncio.sleep(0.01)


class Proxy:
    def __init__(self, plane: Plane) -> None:
        self.states: list[Known] = []
        self.membership = Membership(settings(plane), plane.watch, self.states.append)

    @property
    def services(self) -> list[str]:
        return sorted(self.states[-1].services) if self.states else []

    @property
    def ready(self) -> tuple[bool, str]:
        return self.membership.ready(time.time())


# ---------------------------------------------------------------- identity


async def test_a_proxy_gets_its_certificate_and_contexts(plane: Plane) -> None:
    identity = IdentityClient(settings(plane))
    assert identity.contexts is None
    async with running(identity.run()):
        svid = await soon(identity.wait_svid())
        assert str(svid.spiffe_id) == "spiffe://cluster.local/ns/shop/sa/web"
        assert identity.contexts is not None
        assert identity.valid(time.time())
        assert not identity.valid(svid.not_after + 1)


async def test_each_certificate_has_a_key_of_its_own(plane: Plane) -> None:
    plane.token_file()
    identity = IdentityClient(settings(plane))
    first, bundle = await identity.certify()
    plane.token_file()
    second, _ = await identity.certify()
    assert first.key_pem != second.key_pem
    verify_peer(second.leaf_der, plane.issuer.intermediates_der, bundle, time.time())


async def test_certificates_renew_while_they_live_and_the_listeners_are_told(tmp_path: Path) -> None:
    plane = Plane(tmp_path, lifetime=5)
    await plane.start()
    try:
        identity = IdentityClient(settings(plane))
        seen: list[float] = []
        identity.on_change(lambda: seen.append(time.time()))
        async with running(identity.run(), keep_tokens(plane)):
            first = await soon(identity.wait_svid())
            contexts = identity.contexts
            await until(lambda: identity.renewals >= 2)
            assert identity.svid is not first
            assert identity.contexts is not contexts
            assert len(seen) == identity.renewals
            assert seen[1] < first.not_after
            assert identity.failures == 0
    finally:
        await plane.stop()


async def test_without_a_usable_token_it_says_why_and_keeps_asking(plane: Plane, tmp_path: Path) -> None:
    file = tmp_path / "absent" / "token"
    identity = IdentityClient(settings(plane, file))
    async with running(identity.run()):
        await until(lambda: "No such file" in identity.last_error)
        file.parent.mkdir()
        file.write_text("")
        await until(lambda: "empty" in identity.last_error)
        file.write_text("garbage")
        await until(lambda: "UNAUTHENTICATED: unknown" in identity.last_error)
        file.write_text(plane.token_file().read_text())
        await soon(identity.wait_svid())
        assert identity.last_error == ""


async def test_a_control_plane_under_another_root_is_not_believed(plane: Plane, tmp_path: Path) -> None:
    create_authority(tmp_path / "other", TD, time.time())
    made = settings(plane)
    wrong = IdentitySettings(
        made.target, "shop", "web", "web-1", TD, bundle_file=tmp_path / "other" / "root.pem", token_file=made.token_file
    )
    identity = IdentityClient(wrong)
    async with running(identity.run()):
        await until(lambda: "CERTIFICATE_VERIFY_FAILED" in identity.last_error)
    assert identity.svid is None
    assert plane.metric("certificates_total") == 0
    assert list(plane.tokens.glob("*.burned")) == []  # and it was not shown the token


async def test_a_workload_cannot_pass_as_the_control_plane(plane: Plane) -> None:
    """A server with a good mesh certificate but without the control plane's name."""
    import ssl

    svid = plane.svid(account="prices")
    seen: list[bytes] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    chain = plane.directory / "chain.pem"
    chain.write_bytes(svid.chain_pem + svid.key_pem)
    context.load_cert_chain(chain)
    context.set_alpn_protocols(["h2"])

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.read(100))
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0, ssl=context)
    try:
        plane.certify = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        identity = IdentityClient(settings(plane))
        async with running(identity.run()):
            await until(lambda: identity.failures >= 2)
        assert "control.meshproxy.internal" in identity.last_error or "UNAVAILABLE" in identity.last_error
        assert not any(seen)  # no byte of a request came through
    finally:
        server.close()


async def test_a_clock_that_is_far_off_is_named(plane: Plane) -> None:  # ID-50
    identity = IdentityClient(settings(plane), clock=lambda: time.time() - 300)
    async with running(identity.run()):
        await until(lambda: "not_yet_valid" in identity.last_error)
    assert "clock" in identity.last_error


# ---------------------------------------------------------------- configuration


async def test_a_proxy_becomes_ready_with_its_configuration(plane: Plane) -> None:
    plane.source.put(service("shop/a"))
    proxy = Proxy(plane)
    assert proxy.ready == (False, "no certificate yet: asking")
    async with running(proxy.membership.run()):
        await until(lambda: proxy.ready == (True, "ready"))
        assert proxy.services == ["shop/a"]
        plane.source.put(service("shop/b"))
        await until(lambda: proxy.services == ["shop/a", "shop/b"])
        plane.source.remove(mesh_pb2.SERVICE, "shop/a")
        await until(lambda: proxy.services == ["shop/b"])


async def test_a_proxy_without_control_plane_keeps_what_it_has_and_catches_up(plane: Plane) -> None:
    plane.source.put(service("shop/a"), service("shop/b"))
    proxy = Proxy(plane)
    watch = proxy.membership.watch
    async with running(proxy.membership.run()):
        await until(lambda: proxy.ready == (True, "ready"))
        await plane.stop()
        await until(lambda: watch.stale_since is not None)
        ready, line = proxy.ready
        assert ready
        assert line.startswith("no control plane for ")
        assert proxy.services == ["shop/a", "shop/b"]
        plane.source.put(service("shop/a", 81))
        updates = len(proxy.states)
        await plane.start()
        await until(lambda: proxy.ready == (True, "ready"))
        assert proxy.states[-1].services["shop/a"].ports[0].port == 81
        assert len(proxy.states) == updates + 1  # one update, of what had changed
        assert (watch.connects, plane.metric("updates_total")) == (2, 1)
        assert proxy.membership.identity.renewals == 1


async def test_after_a_reconnect_only_what_changed_is_sent(plane: Plane) -> None:
    plane.source.put(service("shop/a"), service("shop/b"))
    identity = IdentityClient(settings(plane))
    knowledge = Knowledge(lambda known: None)
    received: list[list[str]] = []

    def apply(update: mesh_pb2.Update) -> list[mesh_pb2.Rejected]:
        received.append(names(update))
        return knowledge.apply(update)

    watch = ConfigurationWatch(plane.watch, "shop", "web-1", identity, knowledge.held, apply)
    async with running(identity.run(), watch.run()):
        await until(lambda: watch.connects == 1)
        await plane.stop()
        plane.source.put(service("shop/a", 81))
        await plane.start()
        await until(lambda: watch.connects == 2)
        await plane.stop()
        await plane.start()
        await until(lambda: watch.connects == 3)
    assert received == [["shop/a", "shop/b", "shop/web-1"], ["shop/a"], []]


async def test_a_resource_the_proxy_refuses_is_frozen_and_the_rest_goes_on(plane: Plane) -> None:
    plane.source.put(service("shop/a"))
    proxy = Proxy(plane)
    async with running(proxy.membership.run()):
        await until(lambda: proxy.services == ["shop/a"])
        plane.source.put(service("shop/a", 70000), service("shop/b"))
        await until(lambda: proxy.services == ["shop/a", "shop/b"])
        assert proxy.states[-1].services["shop/a"].ports[0].port == 80
        await until(lambda: plane.metric("resources_rejected_total") == 1)
        plane.source.put(service("shop/a", 82))
        await until(lambda: proxy.states[-1].services["shop/a"].ports[0].port == 82)


async def test_the_stream_comes_again_with_each_new_certificate(tmp_path: Path) -> None:
    plane = Plane(tmp_path, lifetime=5)
    await plane.start()
    try:
        proxy = Proxy(plane)
        async with running(proxy.membership.run(), keep_tokens(plane)):
            await until(lambda: proxy.membership.identity.renewals >= 2)
            await until(lambda: proxy.membership.watch.connects >= 2 and proxy.membership.watch.connected_since is not None)
            plane.source.put(service("shop/late"))
            await until(lambda: proxy.services == ["shop/late"])
            assert plane.metric("streams_refused_total", reason="expired") == 0
    finally:
        await plane.stop()


async def test_anchors_are_taken_live(plane: Plane, tmp_path: Path) -> None:  # ID-48
    create_authority(tmp_path / "new", TD, time.time())
    both = [*plane.issuer.bundle.anchors_der, *load_authority(tmp_path / "new", TD, time.time()).bundle.anchors_der]
    proxy = Proxy(plane)
    identity = proxy.membership.identity
    async with running(proxy.membership.run()):
        await until(lambda: proxy.ready[0])
        contexts = identity.contexts
        plane.source.put(anchors(TD, both))
        await until(lambda: len(identity.bundle.anchors_der) == 2)
        assert identity.contexts is not contexts
        plane.source.put(anchors("other.example", both))
        await until(lambda: plane.metric("resources_rejected_total") == 1)
        assert identity.bundle.trust_domain == TD
        assert proxy.membership.watch.connects == 1  # the stream went on


def anchors(trust_domain: str, ders: list[bytes]) -> mesh_pb2.Resource:
    from plane import resource

    return resource(mesh_pb2.TRUST, "", trust=mesh_pb2.TrustBundle(trust_domain=trust_domain, anchors_der=ders))


@pytest.mark.parametrize("what", ["namespace", "trust domain"])
async def test_settings_that_cannot_work_are_refused_at_the_start(plane: Plane, what: str) -> None:
    good = settings(plane)
    make: Callable[[], IdentitySettings] = lambda: IdentitySettings(  # noqa: E731
        good.target,
        "no/name" if what == "namespace" else "shop",
        "web",
        "web-1",
        "Not A Domain" if what == "trust domain" else TD,
        good.bundle_file,
        good.token_file,
    )
    with pytest.raises(ValueError):
        IdentityClient(make())

"""Who is refused, where, how, and that the metrics say so.  Nothing that was refused reaches an app."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mesh_intruder import call, certificate, client_context, server_context
from mesh_manifests import service, slice_of_pod
from mesh_run import MeshRun, Page, Pod, request, until

from certs.authority import Authority, load_authority, open_authority

ALPN = ("meshproxy/1",)
CLIENT = "spiffe://cluster.local/ns/e2e/sa/client"
PORT = ("mesh-target-port", "8080")


@pytest.fixture(scope="module")
def authority(shop: MeshRun) -> Authority:
    """The mesh's own."""
    return load_authority(shop.layout.trust, "cluster.local", time.time())


@pytest.fixture(scope="module")
def web(shop: MeshRun) -> Pod:
    return shop.pods("web")[0]


class Counted:
    """What a page's reasons grew by while something was done."""

    def __init__(self, shop: MeshRun, pod: Pod, name: str, direction: str) -> None:
        self._shop, self._pod, self._name, self._direction = shop, pod, name, direction
        self._before = self._now()

    def _now(self) -> dict[str, float]:
        page = self._shop.metrics(self._pod.ip)
        return Page(s for s in page if s.labels.get("direction") == self._direction).values(self._name, "reason")

    def grown(self) -> dict[str, float]:
        now = self._now()
        return {
            reason: now[reason] - self._before.get(reason, 0.0) for reason in now if now[reason] != self._before.get(reason)
        }


def handshakes(shop: MeshRun, pod: Pod, direction: str = "inbound") -> Counted:
    return Counted(shop, pod, "meshproxy_tls_failures_total", direction)


def refusals(shop: MeshRun, pod: Pod, direction: str = "inbound") -> Counted:
    return Counted(shop, pod, "meshproxy_refused_total", direction)


# ---------------------------------------------------------------- plaintext


@pytest.mark.parametrize("port", ["", ":8080", ":4191"])
def test_a_plaintext_request_to_an_inbound_port_is_answered_403_and_reaches_no_app(shop: MeshRun, web: Pod, port: str) -> None:
    counted = refusals(shop, web)
    name = f"plain{port}"
    claims = {"host": f"web.e2e{port}", "mesh-client-id": CLIENT, "l5d-client-id": CLIENT, "mesh-target-port": "8080"}
    answer = request(web.ip, 4143, "GET", f"/work?id={name}", headers=claims)
    assert answer.status == 403
    assert answer.headers["mesh-error"] == "not_authenticated"
    assert counted.grown() == {"not_authenticated": 1.0}
    assert name not in shop.executions()


async def test_plaintext_http2_to_an_inbound_port_is_refused_too(shop: MeshRun, web: Pod) -> None:
    reply = await call(web.ip, None, "/work?id=plain-h2", (PORT,))
    assert (reply.status, reply.mesh_error) == (403, "not_authenticated")
    assert "plain-h2" not in shop.executions()


async def test_bytes_that_are_no_http_are_cut_off_at_an_inbound_port(shop: MeshRun, web: Pod) -> None:
    counted = refusals(shop, web)
    reader, writer = await asyncio.open_connection(web.ip, 4143)
    writer.write(b"\x00\x01\x02 no protocol at all\r\n\r\n")
    async with asyncio.timeout(10):
        assert await reader.read() == b""
    writer.close()
    assert counted.grown() == {"unknown_protocol": 1.0}


def test_a_plaintext_health_probe_is_let_in_on_exactly_its_path(shop: MeshRun, web: Pod) -> None:
    assert request(web.ip, 4143, "GET", "/ready").status == 200
    for method, path in (("POST", "/ready"), ("GET", "/ready/"), ("GET", "/ready?x"), ("GET", "//ready")):
        answer = request(web.ip, 4143, method, path)
        assert (answer.status, answer.headers["mesh-error"]) == (403, "not_authenticated")


# ---------------------------------------------------------------- TLS clients


async def test_a_peer_with_a_certificate_of_the_mesh_is_served(
    shop: MeshRun, web: Pod, authority: Authority, tmp_path: Path
) -> None:
    context = client_context(tmp_path, certificate(authority, uris=(CLIENT,)), ALPN)
    reply = await call(web.ip, context, "/work?id=welcome", (PORT, ("mesh-orig-proto", "HTTP/1.1")))
    assert reply.status == 200
    assert "welcome" in shop.executions()


@pytest.mark.parametrize(
    ("names", "ends", "reason"),
    [
        ({"uris": ("spiffe://other.example/ns/e2e/sa/client",)}, 3600.0, "foreign_trust_domain"),
        ({"dns": ("client.e2e",)}, 3600.0, "no_uri_san"),
        ({"uris": (CLIENT, "spiffe://cluster.local/ns/e2e/sa/web")}, 3600.0, "several_uri_sans"),
        ({"uris": ("https://cluster.local/ns/e2e/sa/client",)}, 3600.0, "bad_spiffe_id"),
        ({"uris": (CLIENT,)}, -1.0, "expired"),
    ],
    ids=["other trust domain", "no URI", "two URIs", "no SPIFFE ID", "expired"],
)
async def test_a_peer_whose_certificate_says_the_wrong_thing_is_refused_by_name(
    shop: MeshRun, web: Pod, authority: Authority, tmp_path: Path, names: dict[str, tuple[str, ...]], ends: float, reason: str
) -> None:
    counted = handshakes(shop, web)
    context = client_context(tmp_path, certificate(authority, ends=ends, **names), ALPN)
    reply = await call(web.ip, context, f"/work?id=wrong-{reason}", (PORT,))
    assert reply.refused
    assert counted.grown() == {reason: 1.0}
    assert f"wrong-{reason}" not in shop.executions()


@pytest.mark.parametrize("trust_domain", ["cluster.local", "other.example"])
async def test_a_peer_of_another_root_is_refused_whatever_it_calls_itself(
    shop: MeshRun, web: Pod, tmp_path: Path, trust_domain: str
) -> None:
    counted = handshakes(shop, web)
    foreign = open_authority(tmp_path / "authority", trust_domain, time.time())
    uri = f"spiffe://{trust_domain}/ns/e2e/sa/client"
    reply = await call(web.ip, client_context(tmp_path, certificate(foreign, uris=(uri,)), ALPN), "/work?id=foreign", (PORT,))
    assert reply.refused
    assert counted.grown() == {"certificate_verify_failed": 1.0}
    assert "foreign" not in shop.executions()


async def test_a_peer_without_a_certificate_is_refused(shop: MeshRun, web: Pod, tmp_path: Path) -> None:
    counted = handshakes(shop, web)
    reply = await call(web.ip, client_context(tmp_path, None, ALPN), "/work?id=bare", (PORT,))
    assert reply.refused
    assert counted.grown() == {"no_client_certificate": 1.0}
    assert "bare" not in shop.executions()


@pytest.mark.parametrize("alpn", [(), ("h2",), ("http/1.1", "meshproxy/2")], ids=["none", "h2", "another version"])
async def test_tls_that_is_not_the_meshs_own_is_refused_before_any_handshake(
    shop: MeshRun, web: Pod, authority: Authority, tmp_path: Path, alpn: tuple[str, ...]
) -> None:
    counted, failed = refusals(shop, web), handshakes(shop, web)
    context = client_context(tmp_path, certificate(authority, uris=(CLIENT,)), alpn)
    reply = await call(web.ip, context, "/work?id=alpn", (PORT,))
    assert reply.refused
    assert counted.grown() == {"tls_refused": 1.0}
    assert failed.grown() == {}
    assert "alpn" not in shop.executions()


# ---------------------------------------------------------------- no open relay


@pytest.mark.parametrize("port", ["22", "4191", "4140", "4143", "8081", "65535"])
async def test_a_port_that_the_pod_does_not_list_is_403_also_for_a_peer(
    shop: MeshRun, web: Pod, authority: Authority, tmp_path: Path, port: str
) -> None:
    counted = refusals(shop, web)
    context = client_context(tmp_path, certificate(authority, uris=(CLIENT,)), ALPN)
    reply = await call(web.ip, context, "/metrics", (("mesh-target-port", port),))
    assert (reply.status, reply.mesh_error) == (403, "port_not_listed")
    assert counted.grown() == {"port_not_listed": 1.0}


@pytest.mark.parametrize(
    "headers", [(), (("mesh-target-port", "0"),), (("mesh-target-port", "80a"),), (("mesh-target-port", "123456"),)]
)
async def test_a_peer_that_names_no_valid_port_is_told_so(
    shop: MeshRun, web: Pod, authority: Authority, tmp_path: Path, headers: tuple[tuple[str, str], ...]
) -> None:
    context = client_context(tmp_path, certificate(authority, uris=(CLIENT,)), ALPN)
    reply = await call(web.ip, context, "/work?id=nowhere", headers)
    assert (reply.status, reply.mesh_error) == (400, "bad_target")
    assert "nowhere" not in shop.executions()


# ---------------------------------------------------------------- headers of the mesh


def test_headers_of_the_mesh_sent_by_an_app_never_arrive_and_the_verified_identity_does(shop: MeshRun) -> None:
    client = shop.pod("client")
    lies = {
        "host": "web.e2e",
        "mesh-client-id": "spiffe://cluster.local/ns/e2e/sa/root",
        "l5d-client-id": "spiffe://cluster.local/ns/e2e/sa/root",
        "mesh-target-port": "4191",
        "mesh-orig-proto": "HTTP/2",
        "MESH-Anything": "x",
        "l5d-dst-override": "other.e2e",
        "mesh_client_id": "spiffe://cluster.local/ns/e2e/sa/root",  # the same name to a CGI or WSGI server
        "x-mesh": "stays",
    }
    answer = request(client.ip, 4140, "GET", "/echo", headers=lies)
    assert answer.status == 200
    arrived = [(name, value) for name, value in answer.json["headers"] if name.startswith(("mesh", "l5d"))]
    assert sorted(arrived) == [("l5d-client-id", CLIENT), ("mesh-client-id", CLIENT)]
    assert ["x-mesh", "stays"] in answer.json["headers"]
    assert not [name for name in answer.headers if name.startswith(("mesh-", "l5d-"))]  # nor an app's, on the way back
    assert answer.headers["x-app"] == answer.json["pod"]


# ---------------------------------------------------------------- outside the mesh


@pytest.fixture
def outside() -> Iterator[tuple[int, list[bytes]]]:
    """Somebody outside the mesh: answers every request, keeps what it got.  (port, heads)"""
    import http.server
    import threading

    heads: list[bytes] = []

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heads.append(f"{self.path}\n{self.headers}".encode())
            self.send_response(200)
            self.send_header("content-length", "7")
            self.end_headers()
            self.wfile.write(b"outside")

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.server_address[1], heads
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_names_outside_the_mesh_pass_through_and_are_counted(shop: MeshRun, outside: tuple[int, list[bytes]]) -> None:
    port, heads = outside
    client = shop.pod("client")
    before = shop.metrics(client.ip).total("meshproxy_external_total")
    direct = request(client.ip, 4140, "GET", f"http://localhost:{port}/direct", headers={"mesh-target-port": "1", "l5d-x": "1"})
    assert (direct.status, direct.body) == (200, b"outside")
    ran = shop.run_in(client, "curl", "-sS", "--noproxy", "", "-p", f"http://localhost:{port}/tunnelled")
    assert ran["out"] == "outside", ran
    assert shop.metrics(client.ip).total("meshproxy_external_total") == before + 2
    assert [head.split(b"\n")[0] for head in heads] == [b"/direct", b"/tunnelled"]
    assert not [head for head in heads if b"mesh-" in head.lower() or b"l5d-" in head.lower()]


def test_a_name_outside_that_does_not_exist_is_502(shop: MeshRun) -> None:
    client = shop.pod("client")
    answer = request(client.ip, 4140, "GET", "http://nobody.invalid/", headers={"host": "nobody.invalid"})
    assert (answer.status, answer.headers["mesh-error"]) == (502, "name_not_found")


def test_a_request_to_the_sidecars_own_port_is_a_loop(shop: MeshRun) -> None:
    client = shop.pod("client")
    answer = request(client.ip, 4140, "GET", f"http://{client.ip}:4140/")
    assert (answer.status, answer.headers["mesh-error"]) == (508, "loop")


# ---------------------------------------------------------------- a server that is not who it should be


class Impostor:
    """Listens where an endpoint is said to be, and keeps what callers send after the handshake."""

    def __init__(self) -> None:
        self.received = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                self.received += data
        except OSError:
            pass
        finally:
            writer.close()


@pytest.mark.parametrize(
    ("uris", "alpn", "reason"),
    [
        (("spiffe://cluster.local/ns/e2e/sa/client",), ALPN, "wrong_server_identity"),
        (("spiffe://cluster.local/ns/other/sa/web",), ALPN, "wrong_server_identity"),
        (("spiffe://other.example/ns/e2e/sa/web",), ALPN, "foreign_trust_domain"),
        ((), ALPN, "no_uri_san"),
        (("spiffe://cluster.local/ns/e2e/sa/web",), (), "alpn_mismatch"),
    ],
    ids=["another account", "another namespace", "another trust domain", "no URI", "no ALPN"],
)
async def test_a_server_that_is_not_the_expected_one_gets_nothing_and_the_caller_answers_502(
    shop: MeshRun, web: Pod, authority: Authority, tmp_path: Path, uris: tuple[str, ...], alpn: tuple[str, ...], reason: str
) -> None:
    client = shop.pod("client")
    address = f"{shop.info.prefix}.251"
    material = certificate(authority, uris=uris, dns=() if uris else ("web.e2e",))
    impostor = Impostor()
    server = await asyncio.start_server(impostor.serve, address, 4143, ssl=server_context(tmp_path, material, alpn))
    counted, refused = handshakes(shop, client, "outbound"), refusals(shop, client, "outbound")
    shop.write("victim", service("victim", selector={}), slice_of_pod("victim", web.name, address))
    try:
        await asyncio.to_thread(until, lambda: address in str(shop.config(client.ip)), "the endpoint to be known")
        marker = "a-marker-nobody-else-sends"
        answer = await asyncio.to_thread(
            request, client.ip, 4140, "POST", f"http://victim.e2e/{marker}", marker.encode(), {"x-marker": marker}
        )
        assert (answer.status, answer.headers["mesh-error"]) == (502, "peer_identity")
        assert refused.grown() == {"peer_identity": 1.0}
        assert set(counted.grown()) == {reason}
        assert impostor.received == b""
    finally:
        shop.write("victim", service("victim", selector={}))
        await asyncio.to_thread(until, lambda: address not in str(shop.config(client.ip)), "the endpoint to be forgotten")
        server.close()
        await server.wait_closed()


async def test_a_server_without_tls_in_an_endpoints_place_gets_only_a_hello(shop: MeshRun, web: Pod, tmp_path: Path) -> None:
    client = shop.pod("client")
    address = f"{shop.info.prefix}.252"
    impostor = Impostor()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        impostor.received += await reader.read(65536)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, address, 4143, family=socket.AF_INET)
    shop.write("victim", service("victim", selector={}), slice_of_pod("victim", web.name, address))
    try:
        await asyncio.to_thread(until, lambda: address in str(shop.config(client.ip)), "the endpoint to be known")
        marker = "a-marker-for-plaintext"
        answer = await asyncio.to_thread(request, client.ip, 4140, "GET", f"http://victim.e2e/{marker}")
        assert (answer.status, answer.headers["mesh-error"]) == (502, "peer_identity")
        assert impostor.received.startswith(b"\x16\x03")  # a TLS handshake record
        assert marker.encode() not in impostor.received
    finally:
        shop.write("victim", service("victim", selector={}))
        await asyncio.to_thread(until, lambda: address not in str(shop.config(client.ip)), "the endpoint to be forgotten")
        server.close()
        await server.wait_closed()

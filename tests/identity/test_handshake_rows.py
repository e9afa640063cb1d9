"""Certificates that no mesh peer may show, in both roles: rows ID-01 to ID-25, through two proxies and real handshakes.

Whatever is wrong: refused by name, counted, nothing reaches the app, and never a connection without TLS.
"""

from __future__ import annotations

import ssl
import time
import warnings
from typing import Any

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from forge import Forged, forge, forge_ca
from identity_pair import PRICES, TD, WEB, Issuer, Pair, svid_of

from certs.context import _as_file, client_context

UNTRUSTED = "certificate_verify_failed"  # OpenSSL's word for chains and purposes
EXPIRED = {"ends": -1.0}
CA = {"ca": True, "key_usage": ("digital_signature", "key_cert_sign"), "cn": "web"}  # OpenSSL wants a subject there

# row -> (what is wrong with the leaf, the reason)
LEAVES: dict[str, tuple[dict[str, Any], str]] = {
    "ID-02 ended a second ago": (EXPIRED, "expired"),
    "ID-03 begins tomorrow": ({"begins": 86400.0, "ends": 90000.0}, "not_yet_valid"),
    "ID-07 a CA": (CA, "ca_leaf"),
    "ID-08 keyCertSign": ({"key_usage": ("digital_signature", "key_cert_sign"), "cn": "web"}, UNTRUSTED),
    "ID-09 cRLSign": ({"key_usage": ("digital_signature", "crl_sign"), "cn": "web"}, "bad_key_usage"),
    "no key usage": ({"key_usage": None}, "bad_key_usage"),
    "key usage not critical": ({"usage_critical": False}, "bad_key_usage"),
    "ID-12 two URIs": ({"uris": (WEB, PRICES)}, "several_uri_sans"),
    "ID-13 another trust domain": ({"uris": ("spiffe://other.test/ns/shop/sa/web",)}, "foreign_trust_domain"),
    "ID-14 identity in the subject": ({"uris": (), "cn": WEB}, "no_uri_san"),
    "ID-16 dot segments": ({"uris": (f"spiffe://{TD}/ns/../sa/web",)}, "bad_spiffe_id"),
    "ID-16 trailing slash": ({"uris": (f"{WEB}/",)}, "bad_spiffe_id"),
    "ID-17 no SPIFFE ID": ({"uris": ("https://mesh.test/ns/shop/sa/web",)}, "bad_spiffe_id"),
    "ID-18 no path": ({"uris": (f"spiffe://{TD}",)}, "bad_spiffe_id"),
    "ID-20 a wildcard name": ({"uris": (), "dns": ("*.shop.serviceaccount.identity.mesh.test",)}, "no_uri_san"),
}
# Of the purpose that the role does not need, OpenSSL does not ask: what it lets pass is refused by ours.
PURPOSES = {
    "ID-11 server only, as client": ("client", ExtendedKeyUsageOID.SERVER_AUTH, UNTRUSTED),
    "ID-11 client only, as client": ("client", ExtendedKeyUsageOID.CLIENT_AUTH, "bad_extended_key_usage"),
    "ID-11 client only, as server": ("server", ExtendedKeyUsageOID.CLIENT_AUTH, UNTRUSTED),
    "ID-11 server only, as server": ("server", ExtendedKeyUsageOID.SERVER_AUTH, "bad_extended_key_usage"),
}


async def refused(pair: Pair, role: str, leaf: Forged, reason: str, chain: bytes = b"") -> None:
    """Whoever is in this role shows the leaf; the other refuses it."""
    shows, identity, judge = (pair.web, WEB, pair.server) if role == "client" else (pair.prices, PRICES, pair.client)
    svid = svid_of(leaf, identity)
    object.__setattr__(svid, "chain_pem", svid.chain_pem + chain)
    shows.identity(svid, pair.issuer.bundle)
    assert (await pair.get())[0] == 502
    assert pair.app.seen == []
    direction = "inbound" if role == "client" else "outbound"
    counted = pair.failures(judge)
    assert set(counted) == {f"{reason} {direction}"}
    shows.identity(svid_of(pair.issuer.leaf(identity), identity), pair.issuer.bundle)
    assert await pair.get() == (200, "")  # and it was this that was wrong, nothing else


@pytest.mark.parametrize("role", ["client", "server"])
@pytest.mark.parametrize("row", LEAVES)
async def test_a_leaf_that_no_peer_may_show_is_refused(pair: Pair, row: str, role: str) -> None:
    shape, reason = LEAVES[row]
    mine = {"uris": (WEB if role == "client" else PRICES,)}
    await refused(pair, role, forge(time.time(), pair.issuer.root, **(mine | shape)), reason)


@pytest.mark.parametrize("row", PURPOSES)
async def test_a_leaf_for_one_purpose_only_is_refused_in_both_roles(pair: Pair, row: str) -> None:
    role, purpose, reason = PURPOSES[row]
    identity = WEB if role == "client" else PRICES
    await refused(pair, role, pair.issuer.leaf(identity, eku=(purpose,)), reason)


@pytest.mark.parametrize("role", ["client", "server"])
@pytest.mark.parametrize("row", ["ID-04 another root", "ID-05 self-signed", "ID-22 below pathlen 0", "ID-22 a leaf that signs"])
async def test_a_chain_that_leads_to_no_anchor_is_refused(pair: Pair, row: str, role: str) -> None:
    now, uris, chain = time.time(), (WEB if role == "client" else PRICES,), b""
    if row.startswith("ID-04"):
        leaf = Issuer("root").leaf(uris[0])
    elif row.startswith("ID-05"):
        leaf = forge(now, uris=uris)
    else:
        issuer = forge_ca(now, pair.issuer.root, "issuer", pathlen=0)
        if row.endswith("pathlen 0"):
            signer = forge_ca(now, issuer, "one too deep")
        else:
            signer = forge(now, issuer, uris=uris, cn="a leaf")
        leaf, chain = forge(now, signer, uris=uris), signer.pem + issuer.pem
    await refused(pair, role, leaf, UNTRUSTED, chain)


async def test_a_client_without_a_certificate_is_refused(pair: Pair) -> None:  # ID-01
    bare = client_context(None, None, pair.issuer.root.pem, ("meshproxy/1",))
    pair.web.credentials.client = bare
    assert (await pair.get())[0] == 502
    assert pair.app.seen == []
    assert set(pair.failures(pair.server)) == {"no_client_certificate inbound"}


@pytest.mark.parametrize("role", ["client", "server"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2])
async def test_only_tls_1_3_is_spoken(pair: Pair, role: str, version: ssl.TLSVersion) -> None:  # ID-28
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if role == "client" else ssl.PROTOCOL_TLS_SERVER)
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = context.maximum_version = version
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.set_alpn_protocols(["meshproxy/1"])
    leaf = pair.issuer.leaf(WEB if role == "client" else PRICES)
    with _as_file(leaf.pem + leaf.key_pem) as path:
        context.load_cert_chain(path)
    credentials = (pair.web if role == "client" else pair.prices).credentials
    if role == "client":
        credentials.client = context
    else:
        credentials.server = context
    assert (await pair.get())[0] == 502
    assert pair.app.seen == []
    judge, direction = (pair.server, "inbound") if role == "client" else (pair.client, "outbound")
    assert set(pair.failures(judge)) == {f"tls_version {direction}"}


async def test_a_server_that_is_another_workload_is_refused(pair: Pair) -> None:  # ID-25
    await refused(pair, "server", pair.issuer.leaf(WEB), "wrong_server_identity")


async def test_a_shorter_name_that_ends_alike_is_another_workload(pair: Pair) -> None:  # ID-52
    for uri in (f"spiffe://{TD}/ns/shop/sa/pricesx", f"spiffe://{TD}/ns/shop/sa/price", f"spiffe://{TD}/x/ns/shop/sa/prices"):
        leaf = forge(time.time(), pair.issuer.root, uris=(uri,))
        pair.prices.identity(svid_of(leaf, PRICES), pair.issuer.bundle)
        assert (await pair.get())[0] == 502
    assert set(pair.failures(pair.client)) == {"wrong_server_identity outbound"}
    assert pair.app.seen == []


async def test_before_the_first_certificate_nothing_is_let_in_or_out(pair: Pair) -> None:  # ID-54
    server, pair.prices.credentials.server = pair.prices.credentials.server, None
    assert (await pair.get())[0] == 502
    assert set(pair.failures(pair.server)) == {"no_identity inbound"}
    pair.prices.credentials.server = server
    client, pair.web.credentials.client = pair.web.credentials.client, None
    assert (await pair.get())[0] == 502
    assert "no_identity outbound" in pair.failures(pair.client)
    assert pair.app.seen == []
    pair.web.credentials.client = client
    assert await pair.get() == (200, "")


@pytest.mark.parametrize("role", ["client", "server"])
async def test_new_anchors_are_in_force_for_the_next_connection_and_the_ones_there_stay(pair: Pair, role: str) -> None:  # ID-48
    """One side after the other through {A}, {A, B}, {B}: a request after each step."""
    from certs.bundle import TrustBundle

    old, new = pair.issuer, Issuer("new root")
    both = TrustBundle.of(TD, [old.root.der, new.root.der])
    sides = [(pair.web, WEB), (pair.prices, PRICES)]
    if role == "server":
        sides.reverse()
    for signer, bundle in ((old, both), (new, both), (new, new.bundle)):
        for side, identity in sides:
            side.identity(svid_of(signer.leaf(identity), identity), bundle)
            assert await pair.get() == (200, "")
            for endpoint in list(pair.client.ctx.endpoints):
                for upstream in list(endpoint.http2.connections):
                    upstream.drain()  # the next request needs a handshake
            assert await pair.get() == (200, "")
    assert pair.failures(pair.client) == pair.failures(pair.server) == {}
    pair.show(pair.web, WEB)  # under the old root, which is gone
    for endpoint in list(pair.client.ctx.endpoints):
        for upstream in list(endpoint.http2.connections):
            upstream.drain()
    assert (await pair.get())[0] == 502

"""One row, one bad shape: reliability rows ID-02 to ID-22."""

from typing import Any

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from forge import Forged, forge, forge_ca

from certs import verify
from certs.bundle import TrustBundle
from certs.spiffe import SpiffeId
from certs.verify import REASONS, PeerRefused, check_leaf, verify_peer

NOW = 1_800_000_000.0
TD = "cluster.local"
ID = "spiffe://cluster.local/ns/shop/sa/prices"
ROOT = forge_ca(NOW)
ISSUER = forge_ca(NOW, ROOT, "forged issuer", pathlen=0)
BUNDLE = TrustBundle.of(TD, [ROOT.der])


def verify_it(leaf: Forged, *chain: Forged, bundle: TrustBundle = BUNDLE) -> SpiffeId:
    return verify_peer(leaf.der, [c.der for c in chain], bundle, NOW)


def test_a_good_leaf_gives_its_identity() -> None:
    assert str(verify_it(forge(NOW, ISSUER, uris=(ID,)), ISSUER)) == ID


def test_a_leaf_signed_by_the_anchor_itself_is_good() -> None:
    assert str(verify_it(forge(NOW, ROOT, uris=(ID,)))) == ID


def test_a_dns_name_beside_the_uri_does_no_harm() -> None:
    assert str(verify_it(forge(NOW, ISSUER, uris=(ID,), dns=("control.example",)), ISSUER)) == ID


def test_either_of_two_anchors_will_do() -> None:
    other = forge_ca(NOW, cn="other root")
    both = TrustBundle.of(TD, [ROOT.der, other.der])
    assert str(verify_it(forge(NOW, other, uris=(ID,)), bundle=both)) == ID
    assert str(verify_it(forge(NOW, ISSUER, uris=(ID,)), ISSUER, bundle=both)) == ID


PROFILE: list[tuple[str, str, dict[str, Any]]] = [
    ("ID-07", "ca_leaf", {"ca": True, "key_usage": ("digital_signature", "key_cert_sign")}),
    ("ID-08", "bad_key_usage", {"key_usage": ("digital_signature", "key_cert_sign")}),
    ("ID-09", "bad_key_usage", {"key_usage": ("digital_signature", "crl_sign")}),
    ("no digitalSignature", "bad_key_usage", {"key_usage": ("key_agreement",)}),
    ("no key usage", "bad_key_usage", {"key_usage": None}),
    ("key usage not critical", "bad_key_usage", {"usage_critical": False}),
    ("ID-11 server only", "bad_extended_key_usage", {"eku": (ExtendedKeyUsageOID.SERVER_AUTH,)}),
    ("ID-11 client only", "bad_extended_key_usage", {"eku": (ExtendedKeyUsageOID.CLIENT_AUTH,)}),
    ("ID-12", "several_uri_sans", {"uris": (ID, "spiffe://cluster.local/ns/shop/sa/web")}),
    ("ID-12 equal", "several_uri_sans", {"uris": (ID, ID)}),
    ("ID-13", "foreign_trust_domain", {"uris": ("spiffe://other.example/ns/shop/sa/prices",)}),
    ("ID-14", "no_uri_san", {"uris": (), "cn": ID}),
    ("ID-16 dots", "bad_spiffe_id", {"uris": ("spiffe://cluster.local/ns/../sa/prices",)}),
    ("ID-16 empty segment", "bad_spiffe_id", {"uris": ("spiffe://cluster.local/ns//sa/prices",)}),
    ("ID-16 trailing slash", "bad_spiffe_id", {"uris": (ID + "/",)}),
    ("ID-17 https", "bad_spiffe_id", {"uris": ("https://cluster.local/ns/shop/sa/prices",)}),
    ("ID-18", "bad_spiffe_id", {"uris": ("spiffe://cluster.local",)}),
    ("ID-20", "no_uri_san", {"uris": (), "dns": ("*.shop.serviceaccount.identity",)}),
]


@pytest.mark.parametrize(("row", "reason", "changes"), PROFILE, ids=[row for row, _, _ in PROFILE])
def test_a_leaf_of_a_bad_shape_is_refused_with_its_reason(row: str, reason: str, changes: dict[str, Any]) -> None:
    leaf = forge(NOW, ISSUER, **({"uris": (ID,)} | changes))
    with pytest.raises(PeerRefused) as refused:
        verify_it(leaf, ISSUER)
    assert refused.value.reason == reason
    for _ in range(2):  # fresh, and from the memo
        with pytest.raises(PeerRefused) as refused:
            check_leaf(leaf.der, TD)
        assert refused.value.reason == reason
    assert reason in REASONS


def test_a_leaf_that_expired_a_second_ago_is_refused() -> None:  # ID-02
    with pytest.raises(PeerRefused, match="expired"):
        verify_it(forge(NOW, ISSUER, uris=(ID,), ends=-1), ISSUER)


def test_a_leaf_of_tomorrow_is_refused_and_the_clock_is_named() -> None:  # ID-03, ID-50
    with pytest.raises(PeerRefused, match=r"not_yet_valid.*clock"):
        verify_it(forge(NOW, ISSUER, uris=(ID,), begins=300, ends=600), ISSUER)


CHAINS: dict[str, tuple[Forged, list[Forged]]] = {}
_other = forge_ca(NOW, cn="forged root")  # the same name as ROOT, another key
CHAINS["ID-04 another root of the same name"] = (forge(NOW, _other, uris=(ID,)), [])
CHAINS["ID-05 self-signed"] = (forge(NOW, uris=(ID,)), [])
CHAINS["ID-06 intermediate missing"] = (forge(NOW, ISSUER, uris=(ID,)), [])
_deep = forge_ca(NOW, ISSUER, "below pathlen 0")
CHAINS["ID-22 below pathlen 0"] = (forge(NOW, _deep, uris=(ID,)), [_deep, ISSUER])
_leaf = forge(NOW, ISSUER, uris=(ID,), cn="a leaf")
CHAINS["ID-22 a leaf that signs"] = (forge(NOW, _leaf, uris=(ID,)), [_leaf, ISSUER])
_old = forge_ca(NOW, ROOT, "expired issuer", ends=-1)
CHAINS["expired intermediate"] = (forge(NOW, _old, uris=(ID,)), [_old])


@pytest.mark.parametrize("row", CHAINS)
def test_a_chain_that_does_not_lead_to_an_anchor_is_refused(row: str) -> None:
    leaf, chain = CHAINS[row]
    with pytest.raises(PeerRefused) as refused:
        verify_it(leaf, *chain)
    assert refused.value.reason == "untrusted"


@pytest.mark.parametrize("junk", [b"", b"junk", b"\x30\x80", ROOT.der[:100]])
def test_bytes_that_are_no_certificate_are_refused(junk: bytes) -> None:
    with pytest.raises(PeerRefused, match="malformed"):
        verify_peer(junk, [], BUNDLE, NOW)
    with pytest.raises(PeerRefused, match="malformed"):
        verify_peer(forge(NOW, ISSUER, uris=(ID,)).der, [junk], BUNDLE, NOW)


def test_the_memo_is_bounded_and_keeps_trust_domains_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "MEMO_ENTRIES", 3)
    monkeypatch.setattr(verify, "_memo", {})
    leaves = [forge(NOW, ISSUER, uris=(f"{ID}{n}",)).der for n in range(5)]
    assert [str(check_leaf(der, TD)) for der in leaves + leaves] == [f"{ID}{n}" for n in range(5)] * 2
    assert len(verify._memo) == 3
    with pytest.raises(PeerRefused, match="foreign_trust_domain"):
        check_leaf(leaves[0], "other.example")


def test_the_dates_come_with_the_identity() -> None:
    leaf = verify.read_leaf(forge(NOW, ISSUER, uris=(ID,), ends=20).der, TD)
    assert leaf.not_after == NOW + 20

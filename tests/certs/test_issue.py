from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from forge import usage

from certs.authority import Authority, create_authority, load_authority
from certs.bundle import TrustBundle
from certs.csr import CsrRefused, make_csr, new_key
from certs.issue import IssueError, issue_for_csr, issue_leaf, issue_svid
from certs.spiffe import SpiffeId
from certs.svid import Svid, SvidMismatch
from certs.verify import PeerRefused, verify_peer

NOW = 1_800_000_000.25
TD = "cluster.local"
ID = SpiffeId.workload(TD, "shop", "prices")
OTHER = SpiffeId.workload(TD, "shop", "web")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    create_authority(tmp_path / "trust", TD, NOW)
    return load_authority(tmp_path / "trust", TD, NOW)


def uri(name: object) -> x509.GeneralName:
    return x509.UniformResourceIdentifier(str(name))


def csr(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, *names: x509.GeneralName, cn: str = "", ca: bool = False) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cn)] if cn else [])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    if ca:
        builder = builder.add_extension(x509.BasicConstraints(True, None), critical=True)
        builder = builder.add_extension(usage("key_cert_sign", "digital_signature"), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def test_the_leaf_has_the_profile_of_an_svid(authority: Authority) -> None:
    key = new_key()
    issued = issue_for_csr(authority, make_csr(key, ID), ID, NOW, 600)
    leaf = x509.load_der_x509_certificate(issued.leaf_der)
    get = leaf.extensions.get_extension_for_class
    assert list(leaf.subject) == []
    assert get(x509.SubjectAlternativeName).critical
    assert list(get(x509.SubjectAlternativeName).value) == [uri(ID)]
    assert get(x509.KeyUsage).critical
    assert get(x509.KeyUsage).value == usage("digital_signature")
    assert set(get(x509.ExtendedKeyUsage).value) == {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}
    assert not get(x509.BasicConstraints).value.ca
    assert leaf.public_key() == key.public_key()
    assert leaf.serial_number.bit_length() == 128
    assert leaf.not_valid_before_utc.timestamp() == int(NOW - 30)
    assert issued.not_after == leaf.not_valid_after_utc.timestamp() == int(NOW + 600)


def test_a_stranger_with_the_root_alone_can_check_it(authority: Authority) -> None:
    issued = issue_for_csr(authority, make_csr(new_key(), ID), ID, NOW)
    bundle = TrustBundle.from_pem(TD, authority.bundle.pem.encode())
    assert verify_peer(issued.leaf_der, issued.intermediates_der, bundle, NOW) == ID
    with pytest.raises(PeerRefused, match="expired"):
        verify_peer(issued.leaf_der, issued.intermediates_der, bundle, NOW + 24 * 3600 + 1)
    with pytest.raises(PeerRefused, match="not_yet_valid"):
        verify_peer(issued.leaf_der, issued.intermediates_der, bundle, NOW - 32)


def test_two_leaves_have_two_serials(authority: Authority) -> None:
    request = make_csr(new_key(), ID)
    leaves = [x509.load_der_x509_certificate(issue_for_csr(authority, request, ID, NOW).leaf_der) for _ in range(2)]
    assert leaves[0].serial_number != leaves[1].serial_number


def test_a_request_for_a_ca_of_ten_years_gets_an_ordinary_leaf(authority: Authority) -> None:  # ID-35
    issued = issue_for_csr(authority, csr(new_key(), uri(ID), ca=True), ID, NOW)
    leaf = x509.load_der_x509_certificate(issued.leaf_der)
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not leaf.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign


def test_a_request_without_names_is_fine(authority: Authority) -> None:
    issued = issue_for_csr(authority, csr(new_key()), ID, NOW)
    assert verify_peer(issued.leaf_der, issued.intermediates_der, authority.bundle, NOW) == ID


@pytest.mark.parametrize(
    ("names", "cn"),
    [
        ([uri(OTHER)], ""),
        ([uri(ID), uri(OTHER)], ""),
        ([uri(ID), uri(ID)], ""),
        ([x509.DNSName("a.example"), x509.DNSName("b.example")], ""),
        ([uri(ID), x509.DNSName("a.example")], ""),
        ([uri(ID), x509.RFC822Name("a@example.org")], ""),
        ([uri(ID)], "web"),
        ([], str(ID)),
    ],
)
def test_a_request_for_any_other_name_is_refused(authority: Authority, names: list[x509.GeneralName], cn: str) -> None:  # ID-34
    with pytest.raises(CsrRefused) as refused:
        issue_for_csr(authority, csr(new_key(), *names, cn=cn), ID, NOW)
    assert refused.value.reason == "bad_names"


def test_a_request_signed_by_another_key_is_refused(authority: Authority) -> None:
    mine, theirs = make_csr(new_key(), ID), make_csr(new_key(), ID)
    forged = bytearray(mine)
    place = forged.index(x509.load_der_x509_csr(mine).signature)
    other = x509.load_der_x509_csr(theirs).signature
    forged[place + 10 : place + 30] = other[10:30]
    with pytest.raises(CsrRefused) as refused:
        issue_for_csr(authority, bytes(forged), ID, NOW)
    assert refused.value.reason in ("bad_signature", "malformed")


@pytest.mark.parametrize("key", [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)])
def test_only_p256_keys_are_certified(authority: Authority, key: ec.EllipticCurvePrivateKey) -> None:
    with pytest.raises(CsrRefused, match="P-256") as refused:
        issue_for_csr(authority, csr(key, uri(ID)), ID, NOW)
    assert refused.value.reason == "bad_key"


@pytest.mark.parametrize("junk", [b"", b"junk", b"\x30" * 5000])
def test_bytes_that_are_no_request_are_refused(authority: Authority, junk: bytes) -> None:
    with pytest.raises(CsrRefused) as refused:
        issue_for_csr(authority, junk, ID, NOW)
    assert refused.value.reason == "malformed"


def test_a_leaf_never_outlives_its_issuer(tmp_path: Path) -> None:  # ID-42
    create_authority(tmp_path / "short", TD, NOW, lifetime=100)
    short = load_authority(tmp_path / "short", TD, NOW)
    assert issue_for_csr(short, make_csr(new_key(), ID), ID, NOW, 600).not_after == short.not_after == int(NOW + 100)
    with pytest.raises(IssueError, match="expired"):
        issue_for_csr(short, make_csr(new_key(), ID), ID, NOW + 101, 600)


def test_a_leaf_that_could_not_be_renewed_in_time_is_not_made(authority: Authority) -> None:
    with pytest.raises(IssueError, match="too short"):
        issue_for_csr(authority, make_csr(new_key(), ID), ID, NOW, 1)


def test_what_does_not_verify_never_leaves(authority: Authority) -> None:
    """The issuer's template is fine, its key is not the one of its certificate: only the second look can see that."""
    crooked = replace(authority, key=new_key())
    with pytest.raises(IssueError, match="does not verify"):
        issue_leaf(crooked, new_key().public_key(), ID, NOW)


def test_an_identity_of_another_trust_domain_is_not_issued(authority: Authority) -> None:
    with pytest.raises(IssueError, match="foreign_trust_domain"):
        issue_leaf(authority, new_key().public_key(), SpiffeId.workload("other.example", "a", "b"), NOW)


def test_the_control_planes_leaf_has_a_dns_name_too(authority: Authority) -> None:
    svid = issue_svid(authority, ID, NOW, 600, dns_name="control.example")
    names = x509.load_der_x509_certificate(svid.leaf_der).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert list(names.value) == [uri(ID), x509.DNSName("control.example")]
    assert svid.spiffe_id == ID


def test_an_svid_shows_no_key_and_takes_no_foreign_one(authority: Authority) -> None:
    svid = issue_svid(authority, ID, NOW)
    assert b"PRIVATE KEY" in svid.key_pem
    assert "PRIVATE" not in repr(svid)
    with pytest.raises(SvidMismatch):
        Svid.of(new_key(), svid.leaf_der, [], TD)

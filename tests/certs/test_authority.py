import re
import stat
from pathlib import Path

import pytest
from forge import forge, forge_ca

from certs.authority import AuthorityError, create_authority, load_authority, open_authority

NOW = 1_800_000_000.0
TD = "cluster.local"
YEAR = 365 * 86400


def made(directory: Path) -> Path:
    create_authority(directory, TD, NOW)
    return directory


def test_opening_makes_an_authority_once_and_finds_it_again(tmp_path: Path) -> None:
    first = open_authority(tmp_path / "mesh" / "trust", TD, NOW)
    again = open_authority(tmp_path / "mesh" / "trust", TD, NOW + 60)
    assert first.issuer == again.issuer
    assert first.bundle == again.bundle
    assert first.trust_domain == TD


def test_an_empty_directory_is_filled(tmp_path: Path) -> None:
    (tmp_path / "trust").mkdir()
    assert open_authority(tmp_path / "trust", TD, NOW).issuer is not None


def test_the_key_is_for_its_owner_only(tmp_path: Path) -> None:
    directory = made(tmp_path / "trust")
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / "issuer.key").stat().st_mode) == 0o600
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["issuer.key", "issuer.pem", "root.pem", "trust"]


def test_the_key_is_in_no_repr(tmp_path: Path) -> None:
    authority = load_authority(made(tmp_path / "trust"), TD, NOW)
    assert "EllipticCurvePrivateKey" not in repr(authority)
    assert "PRIVATE" not in repr(authority)


def test_serials_are_128_random_bits(tmp_path: Path) -> None:
    serials = {load_authority(made(tmp_path / str(n)), TD, NOW).issuer.serial_number for n in range(4)}
    assert len(serials) == 4
    assert {serial.bit_length() for serial in serials} == {128}


def test_a_second_creation_changes_nothing(tmp_path: Path) -> None:
    directory = made(tmp_path / "trust")
    before = (directory / "issuer.key").read_bytes()
    with pytest.raises(AuthorityError, match="cannot be written"):
        create_authority(directory, TD, NOW)
    assert (directory / "issuer.key").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["trust"]


def refused(directory: Path, *parts: str, trust_domain: str = TD, now: float = NOW) -> None:
    """Loading fails, and the message holds all `parts`."""
    with pytest.raises(AuthorityError) as error:
        load_authority(directory, trust_domain, now)
    for part in parts:
        assert re.search(part, str(error.value)), str(error.value)
    assert "PRIVATE" not in str(error.value)


def test_expired_material_is_refused_with_the_date(tmp_path: Path) -> None:
    refused(made(tmp_path / "trust"), "issuer.pem", "expired on 2037", now=NOW + 11 * YEAR)


def test_material_of_the_future_is_refused_and_the_clock_named(tmp_path: Path) -> None:
    refused(made(tmp_path / "trust"), "valid only from", "clock", now=NOW - YEAR)


def test_another_trust_domain_is_refused(tmp_path: Path) -> None:
    refused(made(tmp_path / "trust"), "issuer.pem", "spiffe://cluster.local", "other.example", trust_domain="other.example")


def test_an_issuer_under_another_root_is_refused(tmp_path: Path) -> None:
    mine, other = made(tmp_path / "mine"), made(tmp_path / "other")
    (mine / "root.pem").write_bytes((other / "root.pem").read_bytes())
    refused(mine, "issuer.pem", "not signed by a root in", "root.pem")


def test_a_key_of_another_issuer_is_refused(tmp_path: Path) -> None:
    mine, other = made(tmp_path / "mine"), made(tmp_path / "other")
    (mine / "issuer.key").write_bytes((other / "issuer.key").read_bytes())
    refused(mine, "issuer.key", "does not belong to the certificate", "issuer.pem")


def test_an_issuer_that_is_no_ca_is_refused(tmp_path: Path) -> None:
    directory = made(tmp_path / "trust")
    root = forge_ca(NOW)
    leaf = forge(NOW, root, uris=("spiffe://cluster.local/ns/a/sa/b",))
    (directory / "root.pem").write_bytes(root.pem)
    (directory / "issuer.pem").write_bytes(leaf.pem)
    refused(directory, "issuer.pem", "not a CA")


def test_a_root_that_is_no_ca_is_refused(tmp_path: Path) -> None:
    directory = made(tmp_path / "trust")
    (directory / "root.pem").write_bytes(forge(NOW, uris=("spiffe://cluster.local",)).pem)
    refused(directory, "root.pem", "not a CA")


@pytest.mark.parametrize("name", ["root.pem", "issuer.pem", "issuer.key"])
def test_malformed_and_missing_files_are_named(tmp_path: Path, name: str) -> None:
    directory = made(tmp_path / "trust")
    (directory / name).write_bytes(b"-----BEGIN NONSENSE-----\nAAAA\n-----END NONSENSE-----\n")
    refused(directory, name, "not")
    (directory / name).unlink()
    refused(directory, name, "No such file")


def test_a_key_that_others_can_read_is_refused_with_the_remedy(tmp_path: Path) -> None:
    directory = made(tmp_path / "trust")
    (directory / "issuer.key").chmod(0o640)
    refused(directory, "0640", "chmod 600")


def test_a_second_root_may_stand_beside_the_first(tmp_path: Path) -> None:
    mine, other = made(tmp_path / "mine"), made(tmp_path / "other")
    with (mine / "root.pem").open("ab") as file:
        file.write((other / "root.pem").read_bytes())
    assert len(load_authority(mine, TD, NOW).bundle.anchors_der) == 2

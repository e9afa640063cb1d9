"""The authority's files, ours and somebody else's: replaced by users at any moment, cut short at any step."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import stat
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import SubjectKeyIdentifier
from forge import Forged, forge, forge_ca

from certs import authority as authority_module
from certs.authority import (
    KUBERNETES,
    AuthorityError,
    create_authority,
    load_authority,
    open_authority,
    replace_authority,
    retire_anchors,
)
from certs.bundle import MAX_ANCHORS, TrustBundle
from certs.issue import issue_svid
from certs.rotation import Phase
from certs.spiffe import SpiffeId
from certs.svid import authority_key_id
from certs.verify import verify_peer
from control.serve.issuer import CurrentAuthority, describe

TD = "cluster.local"
WEB = SpiffeId.workload(TD, "shop", "web")
NOW = time.time()


@pytest.fixture
def own(tmp_path: Path) -> Path:
    create_authority(tmp_path / "trust", TD, NOW)
    return tmp_path / "trust"


def secret(directory: Path, root: Forged, *chain: Forged, others: tuple[Forged, ...] = (), mode: int = 0o644) -> Path:
    """What cert-manager writes; `chain` begins with the issuer."""
    directory.mkdir(exist_ok=True)
    issuer = chain[0] if chain else root
    files = {
        "ca.crt": b"".join(one.pem for one in (root, *others)),
        "tls.crt": b"".join(one.pem for one in chain or (root,)),
        "tls.key": issuer.key_pem,
    }
    for name, data in files.items():
        (directory / f".{name}").write_bytes(data)
        (directory / f".{name}").chmod(mode)
        (directory / f".{name}").rename(directory / name)
    return directory


# ---------------------------------------------------------------- our own, replaced


def test_a_replaced_authority_has_a_new_root_beside_the_old_one(own: Path) -> None:
    old = load_authority(own, TD, NOW)
    replace_authority(own, TD, NOW)
    new = load_authority(own, TD, NOW)
    assert new.bundle.anchors_der[1:] == old.bundle.anchors_der
    assert new.issuer != old.issuer
    assert new.anchor == new.bundle.anchors[0]
    before, after = issue_svid(old, WEB, NOW), issue_svid(new, WEB, NOW)
    for svid, issuer in ((before, old), (after, new)):
        assert verify_peer(svid.leaf_der, issuer.intermediates_der, new.bundle, NOW) == WEB
        assert svid.issuer_key_id == issuer.key_id
    assert sorted(path.name for path in own.iterdir()) == ["issuer.key", "issuer.pem", "root.pem"]
    assert (own / "issuer.key").stat().st_mode & 0o777 == 0o600


class Killed(Exception):
    pass


@pytest.mark.parametrize("step", range(5))
def test_a_replacement_that_is_killed_leaves_an_authority_that_loads_and_can_be_replaced_again(
    own: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_authority(own, TD, NOW).bundle.anchors_der
    rename, left = os.rename, [step + 1]  # one rename is create_authority's own

    def until_killed(source: object, target: object) -> None:
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        rename(source, target)  # type: ignore[arg-type]

    monkeypatch.setattr(authority_module.os, "rename", until_killed)
    if step < 4:
        with pytest.raises(Killed):
            replace_authority(own, TD, NOW)
    else:
        replace_authority(own, TD, NOW)
    monkeypatch.undo()
    found = load_authority(own, TD, NOW)
    assert set(first) <= set(found.bundle.anchors_der)  # nobody's leaf has become worthless
    issue_svid(found, WEB, NOW)
    replace_authority(own, TD, NOW)
    again = load_authority(own, TD, NOW)
    assert again.issuer != found.issuer
    assert set(found.bundle.anchors_der) <= set(again.bundle.anchors_der)
    issue_svid(again, WEB, NOW)


def test_only_the_issuers_own_root_is_left_when_the_others_retire(own: Path) -> None:
    replace_authority(own, TD, NOW)
    replace_authority(own, TD, NOW)
    assert len(load_authority(own, TD, NOW).bundle.anchors_der) == 3
    assert len(retire_anchors(own, TD, NOW)) == 2
    left = load_authority(own, TD, NOW)
    assert left.bundle.anchors == (left.anchor,)
    assert retire_anchors(own, TD, NOW) == []


def test_many_replacements_do_not_grow_the_bundle_without_bound(own: Path, tmp_path: Path) -> None:
    current = load_authority(own, TD, NOW)
    many = [current.anchor, *(forge_ca(NOW, cn=f"old {n}").certificate for n in range(MAX_ANCHORS - 1))]
    (own / "root.pem").write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in reversed(many)))
    replace_authority(own, TD, NOW)
    bundle = load_authority(own, TD, NOW).bundle
    assert len(bundle.anchors) == MAX_ANCHORS
    assert current.anchor in bundle.anchors  # leaves in use are under this one


# ---------------------------------------------------------------- somebody else's


def test_an_issuer_of_cert_manager_issues(tmp_path: Path) -> None:
    root = forge_ca(NOW, cn="corporate root")
    middle = forge_ca(NOW, root, "corporate intermediate")
    issuer = forge_ca(NOW, middle, "mesh issuer", pathlen=0)
    made = load_authority(secret(tmp_path / "s", root, issuer, middle), TD, NOW, KUBERNETES)
    svid = issue_svid(made, WEB, NOW)
    assert verify_peer(svid.leaf_der, made.intermediates_der, TrustBundle.of(TD, [root.der]), NOW) == WEB
    assert len(made.intermediates_der) == 2


def test_an_issuer_that_is_itself_the_anchor_sends_no_chain(tmp_path: Path) -> None:
    """cert-manager's CA issuer on a self-signed certificate: tls.crt is ca.crt."""
    root = forge_ca(NOW, cn="self-signed")
    made = load_authority(secret(tmp_path / "s", root), TD, NOW, KUBERNETES)
    svid = issue_svid(made, WEB, NOW)
    assert made.intermediates_der == []
    assert verify_peer(svid.leaf_der, [], made.bundle, NOW) == WEB


def test_a_chain_file_that_repeats_the_root_is_understood(tmp_path: Path) -> None:
    root = forge_ca(NOW)
    issuer = forge_ca(NOW, root, "issuer", pathlen=0)
    made = load_authority(secret(tmp_path / "s", root, issuer, root), TD, NOW, KUBERNETES)
    assert made.intermediates_der == [issuer.der]


@pytest.mark.parametrize("kind", ["RSA 2048", "P-384"])
def test_other_keys_that_cert_manager_makes_issue_too(tmp_path: Path, kind: str) -> None:
    key = rsa.generate_private_key(65537, 2048) if kind == "RSA 2048" else ec.generate_private_key(ec.SECP384R1())
    root = forge_ca(NOW, key=key)
    made = load_authority(secret(tmp_path / "s", root), TD, NOW, KUBERNETES)
    assert verify_peer(issue_svid(made, WEB, NOW).leaf_der, [], made.bundle, NOW) == WEB


@pytest.mark.parametrize("key", [rsa.generate_private_key(65537, 1024), ec.generate_private_key(ec.SECP521R1())])
def test_a_key_that_peers_would_not_take_is_refused(tmp_path: Path, key: rsa.RSAPrivateKey) -> None:
    root = forge_ca(NOW)
    directory = secret(tmp_path / "s", root)
    (directory / "tls.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(AuthorityError, match=r"tls\.key: an ECDSA P-256"):
        load_authority(directory, TD, NOW, KUBERNETES)


def test_leaves_name_the_issuers_key_as_the_issuer_does_itself(tmp_path: Path) -> None:
    """Go computes it otherwise than we would; OpenSSL compares."""
    root = forge_ca(NOW, ski=SubjectKeyIdentifier(b"\x01" * 20))
    made = load_authority(secret(tmp_path / "s", root), TD, NOW, KUBERNETES)
    assert made.key_id == b"\x01" * 20
    assert authority_key_id(issue_svid(made, WEB, NOW).leaf_der) == b"\x01" * 20


def test_a_leaf_never_outlives_what_is_above_its_issuer(tmp_path: Path) -> None:  # ID-42
    root = forge_ca(NOW)
    middle = forge_ca(NOW, root, "ends first", ends=100.0)
    issuer = forge_ca(NOW, middle, "issuer", pathlen=0)
    made = load_authority(secret(tmp_path / "s", root, issuer, middle), TD, NOW, KUBERNETES)
    assert issue_svid(made, WEB, NOW).not_after <= NOW + 100


REFUSED = {  # ID-43
    "not under the anchors": ("tls.crt: not signed by a root in", lambda r: (forge_ca(NOW, cn="other"), forge_ca(NOW, r, "i"))),
    "intermediate missing": ("tls.crt: not signed by", lambda r: (r, forge_ca(NOW, forge_ca(NOW, r, "m"), "i"))),
    "expired": ("tls.crt: expired on", lambda r: (r, forge_ca(NOW, r, "i", ends=-1.0))),
    "not yet valid": ("valid only from", lambda r: (r, forge_ca(NOW, r, "i", begins=600.0))),
    "root expired": ("ca.crt: expired on", lambda r: ((e := forge_ca(NOW, cn="e", ends=-1.0)), forge_ca(NOW, e, "i"))),
    "a leaf": ("not a CA certificate", lambda r: (r, forge(NOW, r, cn="leaf", uris=(str(WEB),)))),
    "may not sign certificates": ("keyCertSign", lambda r: (r, forge_ca(NOW, r, "i", key_usage=("crl_sign",)))),
    "another trust domain": ("is of spiffe://other", lambda r: (r, forge_ca(NOW, r, "i", uris=("spiffe://other",)))),
}


@pytest.mark.parametrize("row", REFUSED)
def test_material_that_cannot_issue_is_refused_naming_the_file(tmp_path: Path, row: str) -> None:
    said, make = REFUSED[row]
    directory = secret(tmp_path / "s", *make(forge_ca(NOW)))
    with pytest.raises(AuthorityError) as refused:
        load_authority(directory, TD, NOW, KUBERNETES)
    assert said in str(refused.value)
    assert str(directory) in str(refused.value)


# ---------------------------------------------------------------- watched


class Watched:
    """The control plane's look at the files, second by second, with no proxies."""

    def __init__(self, home: Path, external: Path | None = None, state: Path | None = None) -> None:
        self.bundle_file = (state or home) / "trust-bundle.pem"
        self.state_file = (state or home) / "trust-rotation.json"
        self.now = NOW
        self.changes = 0
        self.home, self.external = home, external
        self.restart()

    def restart(self) -> None:
        """Nothing is left of the one before but its files."""
        self.current = CurrentAuthority(
            *(self.home / "trust", TD, self.now, self.external, 86400, self.bundle_file, self.state_file)
        )
        self.current.on_change(self.count)

    def count(self) -> None:
        self.changes += 1

    def look(self, times: int = 1) -> None:
        for _ in range(times):
            self.now += 1
            self.current.refresh(self.now)


def test_an_external_issuer_that_is_renewed_comes_into_force_and_its_old_root_goes_later(tmp_path: Path) -> None:
    first, second = forge_ca(NOW, cn="first"), forge_ca(NOW, cn="second")
    watched = Watched(tmp_path, secret(tmp_path / "s", first))
    assert not (tmp_path / "trust").exists()  # nothing of our own is made
    secret(tmp_path / "s", second)
    watched.look()
    assert watched.current.phase is Phase.ANNOUNCING
    watched.look(2)
    assert watched.current().anchor == second.certificate
    assert watched.current.bundle().anchors_der == (second.der, first.der)
    assert watched.bundle_file.read_text() == watched.current.bundle().pem
    watched.look(70)
    assert watched.current.bundle().anchors_der == (second.der,)
    assert watched.bundle_file.read_text() == watched.current.bundle().pem


def test_a_restart_in_the_middle_of_a_rotation_goes_on_with_it(tmp_path: Path) -> None:
    first, second = forge_ca(NOW, cn="first"), forge_ca(NOW, cn="second")
    watched = Watched(tmp_path, secret(tmp_path / "s", first))
    secret(tmp_path / "s", second)
    watched.look()
    watched.restart()
    assert watched.current.phase is Phase.ANNOUNCING
    assert watched.current().issuer == first.certificate, "who is not back yet does not know the second one"
    assert set(watched.current.bundle().anchors_der) == {first.der, second.der}
    issue_svid(watched.current(), WEB, watched.now)
    watched.look(20)
    assert watched.current().issuer == second.certificate
    watched.restart()
    assert watched.current().issuer == second.certificate
    assert watched.current.bundle().anchors_der == (second.der, first.der), "leaves of the first one are in use"
    assert watched.bundle_file.read_text() == watched.current.bundle().pem
    watched.look(90)
    assert watched.current.bundle().anchors_der == (second.der,)
    watched.restart()
    assert watched.current.rotation.over
    assert watched.current.bundle().anchors_der == (second.der,)


def test_the_state_of_a_rotation_is_for_its_owner_alone_and_holds_a_key_no_longer_than_it_must(tmp_path: Path) -> None:
    first, second = forge_ca(NOW, cn="first"), forge_ca(NOW, cn="second")
    watched = Watched(tmp_path, secret(tmp_path / "s", first))
    assert "PRIVATE" not in watched.state_file.read_text()
    secret(tmp_path / "s", second)
    watched.look()
    assert "PRIVATE" in watched.state_file.read_text()
    assert watched.state_file.stat().st_mode & 0o777 == 0o600
    watched.look(20)
    assert watched.current.phase is Phase.SETTLED
    assert "PRIVATE" not in watched.state_file.read_text()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".trust")] == []


@pytest.mark.parametrize("text", ["", "{}", "nonsense", '{"trust_domain": "other"}'])
def test_a_state_that_cannot_be_read_is_said_and_the_files_are_taken_at_their_word(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    root = forge_ca(NOW)
    watched = Watched(tmp_path, secret(tmp_path / "s", root))
    watched.state_file.write_text(text)
    watched.restart()
    assert watched.current.bundle().anchors_der == (root.der,)
    assert "trust-rotation.json: cannot be read (not the state of a rotation)" in caplog.text
    watched.restart()
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1  # it was written anew


def errors_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]


FOREIGN = {
    "of tomorrow": (
        {"format": 2},
        "trust-rotation.json: cannot be read (not in a format that is known here, which is 1 alone)",
    ),
    "of another mesh": ({"trust_domain": "other.test"}, "trust-rotation.json: of trust domain other.test"),
    "damaged": ({"kept": [[float("inf"), 1.0]]}, "trust-rotation.json: cannot be read (not the state of a rotation)"),
}


@pytest.mark.parametrize("row", FOREIGN)
def test_a_state_that_is_not_for_this_version_or_mesh_is_said_and_not_gone_on_with(
    tmp_path: Path, row: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = forge_ca(NOW, cn="first"), forge_ca(NOW, cn="second")
    watched = Watched(tmp_path, secret(tmp_path / "s", first))
    secret(tmp_path / "s", second)
    watched.look()
    change, said = FOREIGN[row]
    watched.state_file.write_text(json.dumps(json.loads(watched.state_file.read_text()) | change))
    watched.restart()
    assert watched.current.bundle().anchors_der == (second.der,)
    errors = errors_of(caplog)
    assert len(errors) == 1
    assert said in errors[0]
    assert errors[0].endswith("the authority's files are taken at their word")
    assert json.loads(watched.state_file.read_text())["format"] == 1


def test_what_could_not_be_written_is_written_as_soon_as_it_can_be(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where its directory should be is a file: this stops root too."""
    first, second = forge_ca(NOW, cn="first"), forge_ca(NOW, cn="second")
    (tmp_path / "state").write_text("in the way")
    watched = Watched(tmp_path, secret(tmp_path / "s", first), state=tmp_path / "state")
    caplog.clear()  # of what the start has said
    secret(tmp_path / "s", second)
    watched.look(5)
    assert errors_of(caplog) == [], "it was said, and is no other error"
    (tmp_path / "state").unlink()
    (tmp_path / "state").mkdir()
    changes = watched.changes
    watched.look()
    assert watched.changes == changes, "nothing else was to be written"
    assert watched.bundle_file.read_text() == watched.current.bundle().pem
    watched.restart()
    assert set(watched.current.bundle().anchors_der) == {first.der, second.der}
    assert errors_of(caplog) == []


def test_a_disk_that_is_full_during_a_change_loses_nothing_of_it_when_it_is_free_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = forge_ca(NOW, cn="first"), forge_ca(NOW, cn="second")
    watched = Watched(tmp_path, secret(tmp_path / "s", first))
    settled = watched.state_file.read_text()

    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    secret(tmp_path / "s", second)
    watched.look()
    assert watched.current.phase is Phase.ANNOUNCING
    assert watched.state_file.read_text() == settled
    assert "trust-rotation.json: the state of the change of authority cannot be written: No space left" in caplog.text
    assert list(tmp_path.glob(".trust*")) == [], "there is a key in what was written of it"
    watched.look(100)
    assert watched.current.rotation.over
    assert watched.state_file.read_text() == settled
    assert len(errors_of(caplog)) == 2
    monkeypatch.undo()
    watched.look()
    assert watched.state_file.read_text() != settled
    assert watched.bundle_file.read_text() == watched.current.bundle().pem == TrustBundle.of(TD, [second.der]).pem
    watched.restart()
    assert watched.current.rotation.over


def test_a_state_whose_directory_could_not_be_synced_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(tmp_path, secret(tmp_path / "s", forge_ca(NOW, cn="first")))
    fsync, synced = os.fsync, []
    failing = [True]

    def sync(number: int) -> None:
        if stat.S_ISDIR(os.fstat(number).st_mode):
            if failing[0]:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            synced.append({path.name for path in tmp_path.iterdir() if path.name.startswith(".trust")})
        fsync(number)

    monkeypatch.setattr(os, "fsync", sync)
    secret(tmp_path / "s", forge_ca(NOW, cn="second"))
    watched.look()
    assert synced == []
    failing[0] = False
    watched.look()  # of the next phase, and the files of this one
    assert synced == [set(), set()], "after the rename, once for each file"
    synced.clear()
    watched.look(100)
    assert watched.current.rotation.over
    synced.clear()
    watched.look(10)
    assert synced == [], "nothing is written when nothing has changed"


@pytest.mark.parametrize("error", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_cannot_sync_directories_is_no_error(
    tmp_path: Path, error: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fsync = os.fsync

    def sync(number: int) -> None:
        if stat.S_ISDIR(os.fstat(number).st_mode):
            raise OSError(error, os.strerror(error))
        fsync(number)

    monkeypatch.setattr(os, "fsync", sync)
    watched = Watched(tmp_path, secret(tmp_path / "s", forge_ca(NOW)))
    watched.look(2)
    assert errors_of(caplog) == []
    assert watched.state_file.exists()


def test_what_a_killed_control_plane_had_half_written_is_removed_at_the_next_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = forge_ca(NOW)
    for name in (".trust-rotation.json.1", ".trust-rotation.json.99999", ".trust-bundle.pem.7", ".trust-rotation.jsonl"):
        (tmp_path / name).write_bytes(root.key_pem)
    (tmp_path / ".trust-rotation.json.2").mkdir()  # cannot be removed by unlink
    watched = Watched(tmp_path, secret(tmp_path / "s", root))
    assert {path.name for path in tmp_path.glob(".trust*")} == {".trust-rotation.jsonl", ".trust-rotation.json.2"}
    assert ".trust-rotation.json.2: left by a write that was cut short, cannot be removed" in caplog.text
    assert watched.state_file.exists()


def test_a_root_that_must_go_now_goes_when_the_state_is_removed_with_it(tmp_path: Path) -> None:
    first, second = forge_ca(NOW, cn="first"), forge_ca(NOW, cn="second")
    watched = Watched(tmp_path, secret(tmp_path / "s", first))
    secret(tmp_path / "s", second)
    watched.state_file.unlink()
    watched.restart()
    assert watched.current().issuer == second.certificate
    assert watched.current.bundle().anchors_der == (second.der,)


def test_a_secret_that_is_swapped_by_its_link_is_seen(tmp_path: Path) -> None:
    """The kubelet puts a new directory beside the old one and turns a link."""
    volume = tmp_path / "volume"
    volume.mkdir()
    first, second = forge_ca(NOW, cn="first"), forge_ca(NOW, cn="second")
    for name, root in (("..1", first), ("..2", second)):
        secret(volume / name, root)
    (volume / "..data").symlink_to("..1")
    for name in ("ca.crt", "tls.crt", "tls.key"):
        (volume / name).symlink_to(f"..data/{name}")
    watched = Watched(tmp_path, volume)
    (volume / "..tmp").symlink_to("..2")
    (volume / "..tmp").rename(volume / "..data")
    shutil.rmtree(volume / "..1")
    watched.look(3)
    assert watched.current().anchor == second.certificate


@pytest.mark.parametrize(
    "order", [("tls.crt", "tls.key", "ca.crt"), ("ca.crt", "tls.key", "tls.crt"), ("tls.key", "ca.crt", "tls.crt")]
)
def test_files_replaced_one_by_one_are_taken_when_they_fit(
    tmp_path: Path, order: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    watched = Watched(tmp_path, secret(tmp_path / "s", forge_ca(NOW, cn="first")))
    before = watched.current()
    second = forge_ca(NOW, cn="second")
    secret(tmp_path / "new", second)
    for name in order:
        assert watched.current().issuer == before.issuer
        (tmp_path / "new" / name).rename(tmp_path / "s" / name)
        watched.look()
    watched.look(2)
    assert watched.current().anchor == second.certificate
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []  # each state lasted one look


def test_a_broken_replacement_keeps_the_last_good_one_says_so_once_and_is_over_when_mended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = forge_ca(NOW)
    directory = secret(tmp_path / "s", root)
    watched = Watched(tmp_path, directory)
    (directory / "tls.crt").write_bytes(b"nonsense")
    watched.look()
    assert watched.current.problem == ""  # perhaps the other files are on their way
    watched.look(5)
    assert "tls.crt" in watched.current.problem
    assert watched.current().anchor == root.certificate
    assert describe(watched.current, (), 86400)["problem"] == watched.current.problem
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1
    issue_svid(watched.current(), WEB, NOW)
    (directory / "tls.crt").unlink()
    watched.look(2)
    assert "cannot be read" in watched.current.problem
    secret(directory, root)
    watched.look()
    assert watched.current.problem == ""
    assert watched.current().anchor == root.certificate


def test_the_key_is_in_nothing_that_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:  # ID-51
    root = forge_ca(NOW)
    directory = secret(tmp_path / "s", root)
    watched = Watched(tmp_path, directory)
    inner = root.key_pem.splitlines()[1].decode()
    (directory / "tls.crt").write_bytes(root.key_pem)  # mistaken for one another
    watched.look(3)
    said = f"{caplog.text}{watched.current.problem}{describe(watched.current, (), 86400)}{watched.current()!r}"
    assert watched.current.problem
    assert inner not in said
    assert "PRIVATE" not in said


def test_it_does_not_start_on_a_directory_without_the_files(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(AuthorityError, match=r"ca\.crt: cannot be read"):
        CurrentAuthority(tmp_path / "trust", TD, NOW, tmp_path / "empty")


def test_our_own_is_made_when_there_is_none_and_its_bundle_written(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    assert open_authority(tmp_path / "trust", TD, NOW).bundle.pem == watched.bundle_file.read_text()

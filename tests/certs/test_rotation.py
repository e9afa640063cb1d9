"""A change of authority, against time and proxies: whatever the order of the files, no two proxies are ever unable to talk."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from forge import Forged, forge_ca

from certs.authority import Authority
from certs.bundle import MAX_ANCHORS, TrustBundle
from certs.rotation import ANNOUNCE, KEEP_ANCHORS, RETURN, Peer, Phase, Rotation
from certs.saved_rotation import UnknownFormat, decode, encode

NOW = 1_800_000_000.0
TD = "mesh.test"
DAY = 86400.0
ROOTS = [forge_ca(NOW, cn=f"root {n}", ends=10 * DAY) for n in range(4)]
ISSUERS = [forge_ca(NOW, root, f"issuer {n}", pathlen=0, ends=10 * DAY) for n, root in enumerate(ROOTS)]
DER = {root.certificate: root.der for root in ROOTS}
SECOND = forge_ca(NOW, ROOTS[0], "second issuer under root 0", pathlen=0, ends=10 * DAY)


def files(issuer: int | Forged, *anchors: int) -> Authority:
    """The issuer of that number, under its root; `anchors`: all roots in the file (its own if none are given)."""
    number = 0 if isinstance(issuer, Forged) else issuer
    made = ISSUERS[issuer] if isinstance(issuer, int) else issuer
    bundle = TrustBundle.of(TD, [ROOTS[n].der for n in anchors or (number,)])
    return Authority(bundle, made.certificate, made.key, (made.certificate,), ROOTS[number].certificate)


def trusted(rotation: Rotation) -> set[int]:
    return {n for n, root in enumerate(ROOTS) if root.der in rotation.in_force.bundle.anchors_der}


def issuing(rotation: Rotation) -> Forged:
    return next(made for made in [*ISSUERS, SECOND] if made.certificate == rotation.in_force.issuer)


def peers(*shown: int, informed: bool = True) -> list[Peer]:
    return [Peer(informed, files(n).key_id) for n in shown]


def test_a_new_root_is_announced_before_its_issuer_issues() -> None:
    rotation = Rotation(files(0), DAY)
    assert rotation.replace(files(1), NOW)  # as cert-manager does it: everything at once
    assert (trusted(rotation), issuing(rotation), rotation.phase) == ({0, 1}, ISSUERS[0], Phase.ANNOUNCING)
    assert not rotation.advance(peers(0, 0, informed=False), NOW + 1)
    assert rotation.advance(peers(0, 0), NOW + 2)
    assert (trusted(rotation), issuing(rotation), rotation.phase) == ({0, 1}, ISSUERS[1], Phase.RENEWING)


def test_the_old_root_goes_when_nobody_shows_it_any_more_and_not_before() -> None:
    rotation = Rotation(files(0), DAY)
    rotation.replace(files(1), NOW)
    rotation.advance(peers(0), NOW + 1)
    assert not rotation.advance(peers(1, 0), NOW + 3600)
    assert not rotation.advance(peers(1, 1), NOW + 3601)
    assert (trusted(rotation), rotation.phase) == ({0, 1}, Phase.SETTLED)
    assert not rotation.advance(peers(1, 1), NOW + 3600 + KEEP_ANCHORS)  # a proxy may be between two streams
    assert rotation.advance(peers(1, 1), NOW + 3601 + KEEP_ANCHORS)
    assert trusted(rotation) == {1}
    assert rotation.over


def test_a_proxy_that_never_renews_does_not_keep_a_root_for_longer_than_its_leaf_lives() -> None:
    rotation = Rotation(files(0), DAY)
    rotation.replace(files(1), NOW)
    rotation.advance(peers(0), NOW + 1)
    assert not rotation.advance(peers(0), NOW + DAY)
    assert rotation.advance(peers(0), NOW + DAY + 1)
    assert trusted(rotation) == {1}


def test_a_proxy_that_does_not_answer_does_not_stop_a_rotation() -> None:
    rotation = Rotation(files(0), DAY)
    rotation.replace(files(1), NOW)
    assert not rotation.advance(peers(0, informed=False), NOW + ANNOUNCE - 1)
    assert rotation.advance(peers(0, informed=False), NOW + ANNOUNCE)
    assert issuing(rotation) == ISSUERS[1]


def test_an_issuer_that_has_ended_is_not_waited_with() -> None:
    ended = forge_ca(NOW, ROOTS[0], "ends soon", pathlen=0, ends=5.0)
    rotation = Rotation(files(ended), DAY)
    rotation.replace(files(1), NOW)
    assert rotation.advance(peers(0, informed=False), NOW + 5)
    assert issuing(rotation) == ISSUERS[1]


def test_a_new_issuer_under_the_same_root_issues_at_once() -> None:
    rotation = Rotation(files(0), DAY)
    assert rotation.replace(files(SECOND), NOW)
    assert (trusted(rotation), issuing(rotation), rotation.phase) == ({0}, SECOND, Phase.RENEWING)
    assert not rotation.advance(peers(0), NOW + 1)
    assert rotation.phase is Phase.RENEWING
    rotation.advance([Peer(True, files(SECOND).key_id)], NOW + 2)
    assert rotation.over


def test_by_hand_step_by_step() -> None:
    """{A} - {A, B} - issue from B - {B}: ID-48."""
    rotation = Rotation(files(0), DAY)
    assert rotation.replace(files(0, 0, 1), NOW)
    assert (trusted(rotation), rotation.phase) == ({0, 1}, Phase.SETTLED)
    rotation.replace(files(1, 0, 1), NOW + 60)
    assert rotation.advance(peers(0), NOW + 61)
    assert issuing(rotation) == ISSUERS[1]
    assert not rotation.advance(peers(1), NOW + 70)
    assert rotation.over  # nothing is kept: the files themselves name both
    rotation.replace(files(1), NOW + 100)
    assert trusted(rotation) == {0, 1}  # kept until it is certain that nobody needs it
    assert rotation.advance(peers(1), NOW + 100 + KEEP_ANCHORS)
    assert trusted(rotation) == {1}


def test_a_rotation_that_is_taken_back_leaves_everything_as_it_was() -> None:
    rotation = Rotation(files(0), DAY)
    rotation.replace(files(1), NOW)
    rotation.replace(files(0), NOW + 1)
    assert (issuing(rotation), rotation.phase) == (ISSUERS[0], Phase.SETTLED)
    assert rotation.advance(peers(0), NOW + 1 + KEEP_ANCHORS)
    assert trusted(rotation) == {0}


def test_a_root_that_comes_back_is_no_longer_only_kept() -> None:
    rotation = Rotation(files(0, 0, 1), DAY)
    rotation.replace(files(0), NOW)
    assert rotation.kept == (ROOTS[1].der,)
    rotation.replace(files(0, 0, 1), NOW + 1)
    assert rotation.kept == ()
    assert rotation.over


def test_too_many_anchors_lose_what_is_only_kept_but_never_the_issuers() -> None:
    many = [forge_ca(NOW, cn=f"other {n}") for n in range(MAX_ANCHORS - 1)]
    rotation = Rotation(files(0, 2, 0), DAY)
    full = replace(files(1), bundle=TrustBundle.of(TD, [ROOTS[1].der, *(made.der for made in many[:-1])]))
    rotation.replace(full, NOW)
    assert len(rotation.in_force.bundle.anchors_der) == MAX_ANCHORS
    assert trusted(rotation) == {0, 1}


def test_nothing_is_done_when_nothing_is_to_do() -> None:
    rotation = Rotation(files(0), DAY)
    assert rotation.over
    assert not rotation.replace(files(0), NOW)
    assert rotation.over


# ---------------------------------------------------------------- across a restart


def again(rotation: Rotation, files: Authority, now: float) -> Rotation:
    return Rotation.resume(files, DAY, decode(encode(rotation.saved())), now)


def test_a_restart_while_the_new_root_is_announced_goes_on_issuing_with_the_old_one() -> None:
    rotation = Rotation(files(0), DAY)
    rotation.replace(files(1), NOW)
    rotation = again(rotation, files(1), NOW + 1)
    assert (trusted(rotation), issuing(rotation), rotation.phase) == ({0, 1}, ISSUERS[0], Phase.ANNOUNCING)
    assert rotation.in_force.key.public_key() == rotation.in_force.issuer.public_key()
    assert not rotation.advance([], NOW + 2), "nobody is connected yet, and so nobody is informed"
    assert not rotation.advance(peers(0), NOW + RETURN)
    assert rotation.advance(peers(0), NOW + 1 + RETURN)
    assert (trusted(rotation), issuing(rotation), rotation.phase) == ({0, 1}, ISSUERS[1], Phase.RENEWING)


def test_a_restart_while_proxies_renew_keeps_the_old_root_until_they_have() -> None:
    rotation = Rotation(files(0), DAY)
    rotation.replace(files(1), NOW)
    rotation.advance(peers(0), NOW + 1)
    rotation = again(rotation, files(1), NOW + 200)
    assert (trusted(rotation), issuing(rotation), rotation.phase) == ({0, 1}, ISSUERS[1], Phase.RENEWING)
    assert not rotation.advance([], NOW + 200 + RETURN - 1), "nobody is back yet, and so nobody has renewed"
    assert not rotation.advance(peers(0, 1), NOW + 300)
    rotation.advance(peers(1, 1), NOW + 301)
    assert not rotation.advance(peers(1, 1), NOW + 300 + KEEP_ANCHORS)
    assert rotation.advance(peers(1, 1), NOW + 301 + KEEP_ANCHORS)
    assert trusted(rotation) == {1}


def test_restarts_do_not_keep_a_root_for_longer_than_a_lifetime_of_leaves() -> None:
    rotation = Rotation(files(0), DAY)
    rotation.replace(files(1), NOW)
    rotation.advance(peers(0), NOW + 1)
    for hour in range(1, 24):
        rotation = again(rotation, files(1), NOW + 3600 * hour)
        assert trusted(rotation) == {0, 1}
    assert rotation.advance(peers(0), NOW + 1 + DAY)
    assert trusted(rotation) == {1}


def test_files_replaced_while_the_control_plane_was_away_do_not_end_the_old_root() -> None:
    rotation = again(Rotation(files(0), DAY), files(1), NOW)
    assert (trusted(rotation), issuing(rotation), rotation.phase) == ({0, 1}, ISSUERS[1], Phase.RENEWING)
    rotation.advance(peers(1), NOW + RETURN)
    assert rotation.advance(peers(1), NOW + RETURN + KEEP_ANCHORS)
    assert trusted(rotation) == {1}


def test_a_settled_authority_is_the_same_after_a_restart() -> None:
    rotation = again(Rotation(files(0), DAY), files(0), NOW)
    assert rotation.over
    assert rotation.in_force == files(0)


def test_an_old_issuer_that_ended_meanwhile_is_not_gone_on_with() -> None:
    rotation = Rotation(files(0), DAY)
    rotation.replace(files(1), NOW)
    rotation = again(rotation, files(1), NOW + 11 * DAY)
    assert issuing(rotation) == ISSUERS[1]


@pytest.mark.parametrize("cut", [0, 1, 100, -40])
def test_what_is_no_state_is_refused_without_repeating_it(cut: int) -> None:
    rotation = Rotation(files(0), DAY)
    rotation.replace(files(1), NOW)
    with pytest.raises(ValueError, match=r"^not the state of a rotation$"):
        decode(encode(rotation.saved())[:cut])
    other = encode(rotation.saved()).replace(b"announcing", b"resting")
    with pytest.raises(ValueError, match=r"^not the state of a rotation$"):
        decode(other)


def announcing() -> dict[str, Any]:
    """The state while root 1 is announced; root 0 is kept, and is anchor 1 of two."""
    rotation = Rotation(files(0), DAY)
    rotation.replace(files(1), NOW)
    found: dict[str, Any] = json.loads(encode(rotation.saved()))
    assert found["kept"] == [[1, NOW]]
    return found


DAMAGE = {
    "a number of an anchor without end": {"kept": [[float("inf"), 1.0]]},
    "a number of an anchor below the first": {"kept": [[-1, NOW]]},
    "a number of an anchor past the last": {"kept": [[2, NOW]]},
    "a number of an anchor that is none": {"kept": [[1.0, NOW]]},
    "a truth for the number of an anchor": {"kept": [[True, NOW]]},
    "a kept anchor without a time": {"kept": [[1]]},
    "a kept anchor since never": {"kept": [[1, float("nan")]]},
    "a kept anchor since the end of time": {"kept": [[1, float("inf")]]},
    "a kept anchor since a number that no float holds": {"kept": [[1, 10**400]]},
    "a time that is a text": {"since": "1.0"},
    "a phase since never": {"since": float("nan")},
    "a phase since the beginning of time": {"since": float("-inf")},
    "the key identifier of another issuer": {"issuer_key_id": "00"},
    "no hexadecimal": {"issuer_key_id": 7},
    "no anchors": {"anchors": []},
    "anchors that are none": {"anchors": [1]},
    "an authority that is none": {"before": []},
    "no such phase": {"phase": []},
}


@pytest.mark.parametrize("row", DAMAGE)
def test_a_state_in_which_one_thing_is_wrong_is_refused_as_any_other(row: str) -> None:
    whole = announcing()
    decode(json.dumps(whole).encode())
    with pytest.raises(ValueError, match=r"^not the state of a rotation$"):
        decode(json.dumps(whole | DAMAGE[row]).encode())


@pytest.mark.parametrize("data", [b"[" * 200_000, b'{"a":' * 200_000, b"[]", b"null", b"\xff\xfe", b"1" * 5000])
def test_what_is_not_even_an_object_is_refused_as_any_other(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"^not the state of a rotation$"):
        decode(data)


@pytest.mark.parametrize("form", [0, 2, "1", 1.0, True, None, []])
def test_a_format_that_is_not_known_is_told_from_damage(form: object) -> None:
    whole = announcing()
    assert whole["format"] == 1
    with pytest.raises(UnknownFormat, match=r"^not in a format that is known here, which is 1 alone$"):
        decode(json.dumps({"format": form, "of tomorrow": whole}).encode())


def test_a_state_from_before_formats_had_numbers_is_read() -> None:
    whole = announcing()
    del whole["format"]
    assert decode(json.dumps(whole).encode()).kept == ((ROOTS[0].der, NOW),)


# ---------------------------------------------------------------- a clock that is set back


BEHIND = 30 * DAY


def renewing(now: float) -> Rotation:
    rotation = Rotation(files(0), DAY)
    rotation.replace(files(1), now)
    rotation.advance(peers(0), now + 1)
    assert (trusted(rotation), rotation.phase) == ({0, 1}, Phase.RENEWING)
    return rotation


def back_by_a_restart(rotation: Rotation, now: float) -> Rotation:
    rotation = again(rotation, rotation.files, now)
    saved = rotation.saved()
    assert max(saved.since, *(since for _, since in saved.kept)) <= now, "what is saved next is right as well"
    return rotation


def back_while_it_runs(rotation: Rotation, now: float) -> Rotation:
    rotation.advance([Peer(False, b"")], now)
    return rotation


BACK = pytest.mark.parametrize("back", [back_by_a_restart, back_while_it_runs])


@BACK
def test_a_clock_that_was_ahead_keeps_an_old_root_for_no_more_than_a_lifetime(back: Any) -> None:
    rotation = back(renewing(NOW + BEHIND), NOW)
    assert not rotation.advance(peers(0), NOW + DAY - 1)
    assert rotation.advance(peers(0), NOW + DAY)
    assert trusted(rotation) == {1}


@BACK
def test_a_clock_that_was_ahead_keeps_an_old_root_for_a_minute_after_the_last_leaf(back: Any) -> None:
    rotation = back(renewing(NOW + BEHIND), NOW)
    rotation.advance(peers(1), NOW + RETURN)
    assert rotation.phase is Phase.SETTLED
    assert not rotation.advance(peers(1), NOW + RETURN + KEEP_ANCHORS - 1)
    assert rotation.advance(peers(1), NOW + RETURN + KEEP_ANCHORS)
    assert trusted(rotation) == {1}


@BACK
def test_a_clock_that_was_ahead_announces_for_no_longer(back: Any) -> None:
    rotation = Rotation(files(0), DAY)
    rotation.replace(files(1), NOW + DAY)
    rotation = back(rotation, NOW)
    deaf = peers(0, informed=False)
    assert not rotation.advance(deaf, NOW + ANNOUNCE - 1)
    assert rotation.advance(deaf, NOW + ANNOUNCE)
    assert issuing(rotation) == ISSUERS[1]


def test_a_kept_time_alone_that_is_ahead_counts_as_now() -> None:
    saved = replace(renewing(NOW - 5).saved(), kept=((ROOTS[0].der, NOW + BEHIND),), since=NOW - 5)
    rotation = Rotation.resume(files(1), DAY, saved, NOW)
    assert rotation.saved().kept == ((ROOTS[0].der, NOW),)
    assert rotation.saved().since == NOW - 5, "a time that is not ahead stays"


def test_a_clock_that_is_set_back_after_a_restart_makes_nobody_wait_for_its_return() -> None:
    rotation = again(renewing(NOW + BEHIND), files(1), NOW + BEHIND)
    rotation.advance(peers(1), NOW)
    assert rotation.phase is Phase.RENEWING
    rotation.advance(peers(1), NOW + RETURN)
    assert rotation.phase is Phase.SETTLED


# ---------------------------------------------------------------- a mesh in simulated time


key_ids = {made.certificate: files(made if made is SECOND else n).key_id for n, made in enumerate([*ISSUERS, SECOND])}


@dataclass
class Proxy:
    """Learns of new anchors after a while and renews a while after that; now and then it is between two streams."""

    chance: random.Random
    anchors: set[bytes]
    issuer: Authority
    informed_at: float = 0.0
    renews_at: float = field(default=float("inf"))
    away_until: float = 0.0

    def turn(self, rotation: Rotation, now: float) -> None:
        """One second."""
        in_force = rotation.in_force
        if now < self.away_until:
            return
        if self.chance.random() < 0.01:
            self.away_until = now + self.chance.uniform(0, 10)
        wanted = set(in_force.bundle.anchors_der)
        if wanted != self.anchors:
            self.informed_at = self.informed_at or now + self.chance.uniform(0, 3)
            if now >= self.informed_at:
                self.anchors, self.informed_at = wanted, 0.0
                if in_force.issuer != self.issuer.issuer:
                    self.renews_at = min(self.renews_at, now + self.chance.uniform(0, 30))
        elif in_force.issuer != self.issuer.issuer:
            self.renews_at = min(self.renews_at, now + self.chance.uniform(0, 30))
        if now >= self.renews_at:
            self.issuer, self.renews_at = in_force, float("inf")
            self.anchors = wanted  # they come with the certificate

    def peer(self, rotation: Rotation) -> Peer:
        return Peer(self.anchors == set(rotation.in_force.bundle.anchors_der), key_ids[self.issuer.issuer])


WAYS = {
    "all at once, as cert-manager does": [(0, files(1))],
    "step by step": [(0, files(0, 0, 1)), (100, files(1, 0, 1)), (300, files(1))],
    "step by step, in a hurry": [(0, files(0, 0, 1)), (1, files(1, 0, 1)), (2, files(1))],
    "as `identity rotate` writes it": [(0, files(0, 1, 0)), (1, files(1, 1, 0)), (200, files(1))],
    "twice in a minute": [(0, files(1)), (50, files(2))],
    "there and back": [(0, files(1)), (5, files(0)), (10, files(1))],
    "the issuer only": [(0, files(SECOND))],
}


@pytest.mark.parametrize("restarts", [0.0, 0.02, 0.2], ids=["never restarted", "restarted", "restarted all the time"])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("way", WAYS)
def test_at_every_moment_every_proxy_trusts_every_other(way: str, seed: int, restarts: float) -> None:
    """Also where the control plane is killed at any time during the changes, keeps nothing but its file, and is without its
    proxies until they have come back."""
    chance = random.Random(seed)
    rotation = Rotation(files(0), DAY)
    mesh = [Proxy(chance, {ROOTS[0].der}, files(0)) for _ in range(12)]
    steps = list(WAYS[way])
    for second in range(450):
        now = NOW + second
        if second < 320 and chance.random() < restarts:
            rotation = Rotation.resume(rotation.files, DAY, decode(encode(rotation.saved())), now)
            for proxy in mesh:
                proxy.away_until = now + chance.uniform(0, 10)
        elif steps and second >= steps[0][0]:
            rotation.replace(steps.pop(0)[1], now)
        else:
            rotation.advance([proxy.peer(rotation) for proxy in mesh if now >= proxy.away_until], now)
        for proxy in mesh:
            proxy.turn(rotation, now)
        shown = {DER[proxy.issuer.anchor] for proxy in mesh}
        for proxy in mesh:
            assert shown <= proxy.anchors, f"after {second} s"
    assert rotation.over
    last = WAYS[way][-1][1]
    assert (rotation.in_force, {proxy.issuer.key_id for proxy in mesh}) == (last, {last.key_id})

"""The difference between what a proxy has and what it wants, without a stream."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plane import names, service

from control.api import mesh_pb2
from control.serve.delta import Delta, ProtocolError
from control.serve.source import ResourceKey, key_of


def wanted(*resources: mesh_pb2.Resource) -> dict[ResourceKey, mesh_pb2.Resource]:
    return {key_of(r.name): r for r in resources}


def ack(delta: Delta, *rejected: mesh_pb2.Resource) -> None:
    refused = [mesh_pb2.Rejected(name=r.name, reason="no") for r in rejected]
    delta.acknowledge(mesh_pb2.Ack(version=delta.version, rejected=refused))


A, B, A2, A3 = service("shop/a"), service("shop/b"), service("shop/a", 81), service("shop/a", 82)


def offered(delta: Delta, *resources: mesh_pb2.Resource) -> mesh_pb2.Update:
    update = delta.offer(wanted(*resources))
    assert update is not None
    return update


def test_a_new_proxy_gets_everything_and_then_nothing() -> None:
    delta = Delta()
    assert names(offered(delta, A, B)) == ["shop/a", "shop/b"]
    ack(delta)
    assert delta.offer(wanted(A, B)) is None


def test_only_what_changed_is_sent() -> None:
    delta = Delta()
    offered(delta, A, B)
    ack(delta)
    update = offered(delta, A2)
    assert (names(update), [n.name for n in update.removed], update.version) == (["shop/a"], ["shop/b"], 2)


def test_nothing_is_offered_while_one_is_unacknowledged_and_then_the_newest() -> None:
    delta = Delta()
    offered(delta, A)
    assert delta.offer(wanted(A2)) is None
    assert delta.offer(wanted(A3)) is None
    ack(delta)
    assert offered(delta, A3).set[0] == A3


def test_a_returning_proxy_that_has_everything_gets_one_empty_update() -> None:
    delta = Delta([mesh_pb2.Held(name=A.name, hash=A.hash)])
    update = offered(delta, A)
    assert (names(update), list(update.removed), update.version) == ([], [], 1)
    ack(delta)
    assert delta.offer(wanted(A)) is None


def test_a_rejected_resource_is_frozen_until_it_changes() -> None:
    delta = Delta()
    offered(delta, A, B)
    ack(delta)
    offered(delta, A2, B)
    ack(delta, A2)
    assert delta.offer(wanted(A2, B)) is None
    assert delta.known[key_of(A.name)] == A.hash  # its last good form
    assert names(offered(delta, A3, B)) == ["shop/a"]
    ack(delta)
    assert delta.frozen == {}


def test_going_back_to_the_last_good_form_thaws_without_a_word() -> None:
    delta = Delta()
    offered(delta, A)
    ack(delta)
    offered(delta, A2)
    ack(delta, A2)
    assert delta.offer(wanted(A)) is None  # it has that one
    assert delta.frozen == {}


def test_a_rejected_new_resource_is_not_thought_to_be_there() -> None:
    delta = Delta()
    offered(delta, A)
    ack(delta, A)
    assert delta.known == {}
    assert delta.offer(wanted()) is None


def test_a_rejected_removal_is_not_repeated() -> None:
    delta = Delta()
    offered(delta, A)
    ack(delta)
    offered(delta)
    ack(delta, A)
    assert delta.offer(wanted()) is None
    assert delta.offer(wanted(A)) is None
    assert [n.name for n in offered(delta).removed] == ["shop/a"]


def test_an_acknowledgement_out_of_turn_is_an_error() -> None:
    delta = Delta()
    with pytest.raises(ProtocolError, match="expected none"):
        delta.acknowledge(mesh_pb2.Ack(version=0))
    offered(delta, A)
    with pytest.raises(ProtocolError, match="expected of version 1"):
        delta.acknowledge(mesh_pb2.Ack(version=2))
    with pytest.raises(ProtocolError, match="not in version 1"):
        ack(delta, B)


STATES = st.lists(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 3), max_size=4), min_size=1, max_size=8)


@given(STATES, st.data())
def test_a_proxy_that_follows_ends_with_what_is_wanted_except_what_it_refused(
    states: list[dict[str, int]], data: st.DataObject
) -> None:
    delta = Delta()
    proxy: dict[ResourceKey, str] = {}
    for state in states:
        now = wanted(*(service(f"shop/{name}", port) for name, port in state.items()))
        update = delta.offer(now)
        if update is not None:
            before = dict(proxy)
            proxy |= {key_of(r.name): r.hash for r in update.set}
            for name in update.removed:
                del proxy[key_of(name)]
            refused = data.draw(st.lists(st.sampled_from(list(update.set)), unique_by=lambda r: r.hash)) if update.set else []
            for resource in refused:
                key = key_of(resource.name)
                proxy.pop(key)
                if key in before:
                    proxy[key] = before[key]
            ack(delta, *refused)
        assert delta.known == proxy
        for key in now.keys() | proxy.keys():
            expected = now[key].hash if key in now else None
            assert proxy.get(key) == expected or delta.frozen[key] == expected

"""Whatever managers do in whatever order, all processes agree, and a process that starts later agrees too."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from contract import NAMESPACE
from file_cluster import FileCluster
from hypothesis import given, settings
from hypothesis import strategies as st

from control.store.files import FileStore
from control.store.overlay import leaves, merge
from control.store.store import Conflict, Key, NotFound, Object

MANAGERS = ("canary", "cli", "runtime")
NAMES = ("a", "b")

steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("apply"),
            st.sampled_from(MANAGERS),
            st.sampled_from(NAMES),
            st.dictionaries(st.sampled_from("xyz"), st.sampled_from("12"), max_size=3),
        ),
        st.tuples(st.just("status"), st.sampled_from(MANAGERS), st.sampled_from(NAMES), st.sampled_from("pq")),
        st.tuples(st.just("delete"), st.sampled_from(MANAGERS), st.sampled_from(NAMES)),
        st.tuples(st.just("user"), st.dictionaries(st.sampled_from(NAMES), st.sampled_from("34"), max_size=2)),
        st.tuples(st.just("wait")),
        st.tuples(st.just("restart"), st.sampled_from(MANAGERS)),
    ),
    max_size=20,
)


def thing(name: str, data: dict[str, Any]) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": NAMESPACE}, "data": data}


async def play(cluster: FileCluster, script: list[tuple[Any, ...]]) -> None:
    cluster.write("keep.yaml", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "keep"}})
    for step in script:
        try:
            match step:
                case ("apply", manager, name, data):
                    await cluster.store(manager).apply(thing(name, data))
                case ("status", manager, name, value):
                    await cluster.store(manager).status(Key("", "ConfigMap", NAMESPACE, name), {value: manager})
                case ("delete", manager, name):
                    await cluster.store(manager).delete(Key("", "ConfigMap", NAMESPACE, name))
                case ("user", objects):
                    cluster.write("user.yaml", *(thing(name, {"x": value}) for name, value in objects.items()))
                    cluster.refresh()
                case ("wait",):
                    cluster.pass_time(2)
                case ("restart", manager):
                    cluster.restart(manager)
        except (Conflict, NotFound):
            pass
    cluster.pass_time(2)
    cluster.pass_time(2)


@given(steps)
@settings(max_examples=60, deadline=None)
def test_all_processes_agree_and_so_does_one_that_starts_later(script: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        cluster = FileCluster(Path(directory))
        asyncio.run(play(cluster, script))
        late = FileStore(None, cluster.state, "late")
        late.refresh()
        for store in cluster.stores.values():
            assert store.all() == late.all()
            store.close()
        # What is on disk speaks of objects that are there, and of nothing else.
        there = {obj["metadata"]["name"] for obj in late.list("", "ConfigMap")}
        assert {path.stem for path in cluster.state.rglob("ConfigMap/*.yaml")} == there


@given(steps)
@settings(max_examples=60, deadline=None)
def test_watchers_can_follow_every_change_without_listing_again(script: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        cluster = FileCluster(Path(directory))
        script = [step for step in script if step != ("restart", "canary")]
        followed: dict[Key, Object] = {obj_key(obj): obj for obj in cluster.accepting.all()}

        def follow(changes: Any) -> None:
            for change in changes:
                assert followed.get(change.key) == change.old
                if change.new is None:
                    del followed[change.key]
                else:
                    followed[change.key] = change.new

        cluster.accepting.watch(follow)
        asyncio.run(play(cluster, script))
        assert followed == {obj_key(obj): obj for obj in cluster.accepting.all()}
        assert cluster.accepting.watcher_errors == 0
        for store in cluster.stores.values():
            store.close()


def obj_key(obj: Object) -> Key:
    return Key.of(obj)


values = st.recursive(
    st.one_of(st.integers(0, 3), st.text("ab", max_size=2), st.lists(st.integers(0, 3), max_size=2)),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
maps = st.dictionaries(st.sampled_from("abc"), values, max_size=3)


@given(maps, maps)
def test_a_merge_holds_every_field_of_the_upper_map(under: Object, over: Object) -> None:
    merged = dict(leaves(merge(under, over)))
    for path, value in leaves(over):
        if value != {}:
            assert merged[path] == value


@given(maps, maps)
def test_a_merge_changes_neither_map(under: Object, over: Object) -> None:
    before = repr((under, over))
    merge(under, over)
    assert repr((under, over)) == before

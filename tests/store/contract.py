"""What any Store must do, whatever it keeps objects in.  A backend gives a `cluster` fixture and inherits the tests:

    class TestFileStore(StoreContract): ...

The same tests run on files and on the Kubernetes API.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import pytest

from control.store.store import Change, Conflict, Key, NotFound, Object, Store, StoreError

NAMESPACE = "contract"


class Cluster(ABC):
    """One backend, with what the user gave it, and any number of stores over it."""

    @abstractmethod
    def store(self, manager: str) -> Store:
        """The store of a manager (always the same one for the same name)."""

    @abstractmethod
    async def sync(self) -> None:
        """Every store has seen everything written so far, and told its watchers."""

    @abstractmethod
    async def give(self, *objects: Object) -> None:
        """The user applies these, and only these; what was given before and is not named is deleted."""


def config_map(name: str, data: dict[str, str] | None = None, **metadata: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": NAMESPACE, **metadata},
        "data": data or {},
    }


def deployment(name: str, replicas: int | None = None, **spec: Any) -> Object:
    container = {"name": "app", "image": "app:1", "command": ["python3", "-m", "app"]}
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}}
    out: Object = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": template, **spec},
    }
    if replicas is not None:
        out["spec"]["replicas"] = replicas
    return out


def scale(name: str, replicas: int) -> Object:
    """Only the field to own."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"replicas": replicas},
    }


def annotate(name: str, **annotations: str) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": NAMESPACE, "annotations": annotations},
    }


def owner(obj: Object) -> Object:
    """An ownerReference to an object of the store."""
    return {
        "apiVersion": obj["apiVersion"],
        "kind": obj["kind"],
        "name": obj["metadata"]["name"],
        "uid": obj["metadata"]["uid"],
        "controller": True,
    }


def key(name: str, kind: str = "ConfigMap") -> Key:
    return Key("apps" if kind == "Deployment" else "", kind, NAMESPACE, name)


class StoreContract:
    # ------------------------------------------------------------ apply and ownership

    async def test_what_is_applied_can_be_read_by_everybody(self, cluster: Cluster) -> None:
        await cluster.store("runtime").apply(config_map("a", {"x": "1"}))
        await cluster.sync()
        seen = cluster.store("canary").get(key("a"))
        assert seen is not None
        assert seen["data"] == {"x": "1"}

    async def test_a_writer_reads_its_own_write_at_once(self, cluster: Cluster) -> None:
        store = cluster.store("runtime")
        made = await store.apply(config_map("a", {"x": "1"}))
        assert store.get(key("a")) == made
        assert made["data"] == {"x": "1"}

    async def test_a_new_object_gets_uid_creation_time_and_generation_1(self, cluster: Cluster) -> None:
        metadata = (await cluster.store("runtime").apply(deployment("web", 1)))["metadata"]
        assert metadata["uid"]
        assert metadata["creationTimestamp"].endswith("Z")
        assert metadata["resourceVersion"]
        assert metadata["generation"] == 1

    async def test_every_process_sees_the_same_uid_and_resource_version(self, cluster: Cluster) -> None:
        await cluster.store("runtime").apply(config_map("a", {"x": "1"}))
        await cluster.sync()
        seen = [cluster.store(manager).get(key("a")) for manager in ("runtime", "canary", "cli")]
        assert seen[0] is not None
        assert seen[0] == seen[1] == seen[2]

    async def test_a_manager_overrides_the_users_field_and_leaves_the_others(self, cluster: Cluster) -> None:
        await cluster.give(deployment("web", 3))
        await cluster.store("canary").apply(scale("web", 0))
        await cluster.sync()
        seen = cluster.store("runtime").get(key("web", "Deployment"))
        assert seen is not None
        assert seen["spec"]["replicas"] == 0
        assert seen["spec"]["selector"] == {"matchLabels": {"app": "web"}}

    async def test_a_field_no_longer_applied_goes_back_to_the_user(self, cluster: Cluster) -> None:
        await cluster.give(deployment("web", 3))
        store = cluster.store("canary")
        await store.apply(scale("web", 0))
        await store.apply(annotate("web", seen="yes"))
        await cluster.sync()
        seen = cluster.store("runtime").get(key("web", "Deployment"))
        assert seen is not None
        assert seen["spec"]["replicas"] == 3
        assert seen["metadata"]["annotations"] == {"seen": "yes"}

    async def test_a_field_nobody_applies_any_more_is_gone(self, cluster: Cluster) -> None:
        store = cluster.store("runtime")
        await store.apply(config_map("a", {"x": "1", "y": "2"}))
        await store.apply(config_map("a", {"y": "2"}))
        await cluster.sync()
        seen = cluster.store("canary").get(key("a"))
        assert seen is not None
        assert seen["data"] == {"y": "2"}

    async def test_two_managers_own_different_fields_of_one_map(self, cluster: Cluster) -> None:
        await cluster.give(deployment("web", 3))
        await cluster.store("canary").apply(annotate("web", a="1"))
        await cluster.store("runtime").apply(annotate("web", b="2"))
        await cluster.sync()
        seen = cluster.store("cli").get(key("web", "Deployment"))
        assert seen is not None
        assert seen["metadata"]["annotations"] == {"a": "1", "b": "2"}

    async def test_a_second_manager_with_another_value_is_refused_and_told_who_owns_the_field(self, cluster: Cluster) -> None:
        await cluster.give(deployment("web", 3))
        await cluster.store("canary").apply(scale("web", 0))
        with pytest.raises(Conflict, match=r"spec\.replicas.*canary"):
            await cluster.store("runtime").apply(scale("web", 5))
        await cluster.sync()
        seen = cluster.store("cli").get(key("web", "Deployment"))
        assert seen is not None
        assert seen["spec"]["replicas"] == 0

    async def test_two_managers_may_own_a_field_with_the_same_value(self, cluster: Cluster) -> None:
        await cluster.give(deployment("web", 3))
        await cluster.store("canary").apply(scale("web", 0))
        await cluster.store("runtime").apply(scale("web", 0))
        await cluster.store("canary").apply(annotate("web"))
        await cluster.sync()
        seen = cluster.store("cli").get(key("web", "Deployment"))
        assert seen is not None
        assert seen["spec"]["replicas"] == 0

    async def test_a_field_given_up_can_be_taken_by_another_manager(self, cluster: Cluster) -> None:
        await cluster.give(deployment("web", 3))
        await cluster.store("canary").apply(scale("web", 0))
        await cluster.store("canary").apply(annotate("web"))
        await cluster.store("runtime").apply(scale("web", 5))
        await cluster.sync()
        seen = cluster.store("cli").get(key("web", "Deployment"))
        assert seen is not None
        assert seen["spec"]["replicas"] == 5

    async def test_applying_the_same_again_changes_nothing(self, cluster: Cluster) -> None:
        store = cluster.store("runtime")
        first = await store.apply(config_map("a", {"x": "1"}))
        changes = _changes(store)
        second = await store.apply(config_map("a", {"x": "1"}))
        await cluster.sync()
        assert second == first
        assert changes == []

    async def test_an_object_without_a_name_is_refused(self, cluster: Cluster) -> None:
        with pytest.raises(StoreError):
            await cluster.store("runtime").apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}})

    @pytest.mark.parametrize("name", ["../../etc/passwd", "Upper", "a/b", "", "."])
    async def test_a_name_that_kubernetes_would_refuse_is_refused(self, cluster: Cluster, name: str) -> None:
        with pytest.raises(StoreError):
            await cluster.store("runtime").apply(config_map(name))

    # ------------------------------------------------------------ generation and resource version

    async def test_the_generation_counts_changes_of_the_spec_only(self, cluster: Cluster) -> None:
        await cluster.give(deployment("web", 3))
        store = cluster.store("canary")
        await cluster.sync()
        before = store.get(key("web", "Deployment"))
        assert before is not None
        annotated = await store.apply(annotate("web", a="1"))
        assert annotated["metadata"]["generation"] == before["metadata"]["generation"]
        assert annotated["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"]
        scaled = await store.apply(scale("web", 1))
        assert scaled["metadata"]["generation"] == before["metadata"]["generation"] + 1
        await store.status(key("web", "Deployment"), {"replicas": 1})
        await cluster.sync()
        seen = store.get(key("web", "Deployment"))
        assert seen is not None
        assert seen["metadata"]["generation"] == before["metadata"]["generation"] + 1

    # ------------------------------------------------------------ status

    async def test_status_is_written_beside_the_spec_and_seen_by_everybody(self, cluster: Cluster) -> None:
        await cluster.give(deployment("web", 3))
        await cluster.store("runtime").status(key("web", "Deployment"), {"replicas": 3, "readyReplicas": 2})
        await cluster.sync()
        seen = cluster.store("canary").get(key("web", "Deployment"))
        assert seen is not None
        assert seen["status"] == {"replicas": 3, "readyReplicas": 2}
        assert seen["spec"]["replicas"] == 3

    async def test_status_fields_not_named_stay(self, cluster: Cluster) -> None:
        store = cluster.store("runtime")
        await store.apply(deployment("web", 3))
        await store.status(key("web", "Deployment"), {"replicas": 3, "readyReplicas": 2})
        await store.status(key("web", "Deployment"), {"readyReplicas": 3})
        await cluster.sync()
        seen = store.get(key("web", "Deployment"))
        assert seen is not None
        assert seen["status"] == {"replicas": 3, "readyReplicas": 3}

    async def test_applying_does_not_touch_status(self, cluster: Cluster) -> None:
        store = cluster.store("runtime")
        await store.apply(deployment("web", 3))
        await store.status(key("web", "Deployment"), {"replicas": 3})
        after = await store.apply({**deployment("web", 4), "status": {"replicas": 99}})
        assert after["status"] == {"replicas": 3}

    async def test_status_of_an_object_that_does_not_exist_is_refused(self, cluster: Cluster) -> None:
        with pytest.raises(NotFound):
            await cluster.store("runtime").status(key("nobody"), {"x": 1})

    # ------------------------------------------------------------ delete and garbage

    async def test_a_deleted_object_is_gone_for_everybody(self, cluster: Cluster) -> None:
        store = cluster.store("runtime")
        await store.apply(config_map("a"))
        await cluster.sync()
        await store.delete(key("a"))
        assert store.get(key("a")) is None
        await cluster.sync()
        assert cluster.store("canary").get(key("a")) is None

    async def test_deleting_what_does_not_exist_is_refused(self, cluster: Cluster) -> None:
        with pytest.raises(NotFound):
            await cluster.store("runtime").delete(key("nobody"))

    async def test_what_an_object_owns_goes_with_it_down_to_the_last(self, cluster: Cluster) -> None:
        store = cluster.store("runtime")
        parent = await store.apply(config_map("parent"))
        child = await store.apply(config_map("child", ownerReferences=[owner(parent)]))
        await store.apply(config_map("grandchild", ownerReferences=[owner(child)]))
        await store.apply(config_map("stranger"))
        await cluster.sync()
        await store.delete(key("parent"))
        await cluster.sync()
        names = [obj["metadata"]["name"] for obj in cluster.store("canary").list("", "ConfigMap", NAMESPACE)]
        assert names == ["stranger"]

    async def test_what_another_manager_made_for_an_object_goes_with_it_too(self, cluster: Cluster) -> None:
        await cluster.give(deployment("web", 1))
        await cluster.sync()
        web = cluster.store("runtime").get(key("web", "Deployment"))
        assert web is not None
        await cluster.store("runtime").apply(config_map("pod-of-web", ownerReferences=[owner(web)]))
        await cluster.give()
        await cluster.sync()
        assert cluster.store("canary").get(key("web", "Deployment")) is None
        assert cluster.store("canary").get(key("pod-of-web")) is None

    async def test_an_object_with_one_owner_left_stays(self, cluster: Cluster) -> None:
        store = cluster.store("runtime")
        first = await store.apply(config_map("first"))
        second = await store.apply(config_map("second"))
        await store.apply(config_map("child", ownerReferences=[owner(first), owner(second)]))
        await store.delete(key("first"))
        await cluster.sync()
        assert store.get(key("child")) is not None

    # ------------------------------------------------------------ finalizers

    async def test_what_has_a_finalizer_stays_when_it_is_deleted_until_that_is_taken_off(self, cluster: Cluster) -> None:
        await cluster.give(config_map("a"), config_map("b"))
        await cluster.sync()
        store = cluster.store("canary")
        await store.apply(config_map("a", finalizers=["canary.test/held"]))
        await cluster.give(config_map("b"))
        await cluster.sync()
        held = store.get(key("a"))
        assert held is not None
        assert held["metadata"]["deletionTimestamp"].endswith("Z")
        await cluster.sync()
        assert cluster.store("cli").get(key("a")) == held
        await store.apply(config_map("a"))
        await cluster.sync()
        assert store.get(key("a")) is None

    async def test_what_is_made_again_while_a_finalizer_holds_the_old_one_comes_after_it(self, cluster: Cluster) -> None:
        await cluster.give(config_map("a", {"x": "1"}), config_map("b"))
        await cluster.sync()
        store = cluster.store("canary")
        await store.apply({**config_map("a", finalizers=["canary.test/held"]), "data": {}})
        await cluster.give(config_map("b"))
        await cluster.sync()
        await cluster.give(config_map("a", {"x": "1"}), config_map("b"))
        await cluster.sync()
        old = store.get(key("a"))
        assert old is not None
        assert "deletionTimestamp" in old["metadata"]
        await store.apply({**config_map("a"), "data": {}})
        await cluster.sync()
        new = store.get(key("a"))
        assert new is not None
        assert "deletionTimestamp" not in new["metadata"]
        assert new["metadata"]["uid"] != old["metadata"]["uid"]

    async def test_an_object_made_again_has_a_new_uid_and_nothing_of_the_old_one(self, cluster: Cluster) -> None:
        store = cluster.store("runtime")
        old = await store.apply(deployment("web", 1))
        await cluster.sync()
        await cluster.store("canary").apply(annotate("web", paused="yes"))
        await store.status(key("web", "Deployment"), {"replicas": 1})
        await store.delete(key("web", "Deployment"))
        new = await store.apply(deployment("web", 1))
        await cluster.sync()
        seen = cluster.store("cli").get(key("web", "Deployment"))
        assert seen is not None
        assert new["metadata"]["uid"] != old["metadata"]["uid"]
        assert seen["metadata"]["uid"] == new["metadata"]["uid"]
        assert "annotations" not in seen["metadata"]
        assert "status" not in seen

    # ------------------------------------------------------------ list and watch

    async def test_lists_are_sorted_and_by_kind_and_namespace(self, cluster: Cluster) -> None:
        store = cluster.store("runtime")
        for name in ("b", "a", "c"):
            await store.apply(config_map(name))
        await store.apply(deployment("web", 1))
        assert [obj["metadata"]["name"] for obj in store.list("", "ConfigMap", NAMESPACE)] == ["a", "b", "c"]
        assert store.list("", "ConfigMap", "elsewhere") == []
        assert [obj["kind"] for obj in store.list("apps", "Deployment")] == ["Deployment"]

    async def test_a_watcher_is_told_of_creation_change_and_deletion_by_others(self, cluster: Cluster) -> None:
        watching, writing = cluster.store("canary"), cluster.store("runtime")
        changes = _changes(watching)
        await writing.apply(config_map("a", {"x": "1"}))
        await cluster.sync()
        await writing.apply(config_map("a", {"x": "2"}))
        await cluster.sync()
        await writing.delete(key("a"))
        await cluster.sync()
        assert [(_data(change.old), _data(change.new)) for change in changes] == [
            (None, {"x": "1"}),
            ({"x": "1"}, {"x": "2"}),
            ({"x": "2"}, None),
        ]

    async def test_a_watcher_is_told_of_this_managers_own_writes_too(self, cluster: Cluster) -> None:
        store = cluster.store("runtime")
        changes = _changes(store)
        await store.apply(config_map("a"))
        await cluster.sync()
        assert [change.key for change in changes] == [key("a")]

    async def test_a_watch_that_was_ended_hears_nothing_more(self, cluster: Cluster) -> None:
        store = cluster.store("runtime")
        changes: list[Change] = []
        end = store.watch(changes.extend)
        end()
        await store.apply(config_map("a"))
        await cluster.sync()
        assert changes == []

    # ------------------------------------------------------------ events

    async def test_an_event_is_about_an_object_and_says_who_told_it(self, cluster: Cluster) -> None:
        await cluster.store("canary").apply(config_map("a"))
        await cluster.store("canary").event(key("a"), "Warning", "Synced", "Halt advancement")
        await cluster.sync()
        (event,) = cluster.store("cli").events(key("a"))
        assert (event["type"], event["reason"], event["message"]) == ("Warning", "Synced", "Halt advancement")
        assert event["involvedObject"]["name"] == "a"
        assert event["source"]["component"] == "canary"
        assert event["count"] == 1

    async def test_equal_events_are_counted_instead_of_repeated(self, cluster: Cluster) -> None:
        store = cluster.store("canary")
        await store.apply(config_map("a"))
        for _ in range(3):
            await store.event(key("a"), "Normal", "Synced", "waiting")
        await store.event(key("a"), "Normal", "Synced", "done")
        await cluster.sync()
        assert [(event["message"], event["count"]) for event in store.events(key("a"))] == [("waiting", 3), ("done", 1)]

    async def test_events_are_told_apart_by_object(self, cluster: Cluster) -> None:
        store = cluster.store("canary")
        await store.apply(config_map("a"))
        await store.apply(config_map("b"))
        await store.event(key("a"), "Normal", "Synced", "one")
        await store.event(key("b"), "Normal", "Synced", "two")
        await cluster.sync()
        assert [event["message"] for event in store.events(key("b"))] == ["two"]
        assert [event["message"] for event in store.events()] == ["one", "two"]

    async def test_events_are_no_objects_of_the_snapshot(self, cluster: Cluster) -> None:
        store = cluster.store("canary")
        await store.apply(config_map("a"))
        await store.event(key("a"), "Normal", "Synced", "one")
        await cluster.sync()
        assert [obj["kind"] for obj in store.all()] == ["ConfigMap"]


def _changes(store: Store) -> list[Change]:
    changes: list[Change] = []
    store.watch(changes.extend)
    return changes


def _data(obj: Object | None) -> Any:
    return None if obj is None else obj["data"]

"""What is particular to objects in files: whose directory is whose, last good objects, processes that come and go."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from contract import NAMESPACE, annotate, config_map, deployment, key, owner, scale
from file_cluster import FileCluster

from control.store import eventlog
from control.store.files import GRACE, FileStore
from control.store.store import Change, Diagnostic, Key, StoreError

CANARY = Key("flagger.app", "Canary", NAMESPACE, "web")
SPLIT = Key("split.smi-spec.io", "TrafficSplit", NAMESPACE, "web")


def errors(cluster: FileCluster) -> list[Diagnostic]:
    return [diagnostic for diagnostic in cluster.accepting.diagnostics() if diagnostic.severity == "error"]


def data(cluster: FileCluster, name: str, manager: str = "runtime") -> object:
    obj = cluster.store(manager).get(key(name))
    return None if obj is None else obj["data"]


# ---------------------------------------------------------------- whose directory is whose


async def test_the_users_directory_is_never_written(cluster: FileCluster) -> None:
    cluster.write("a.yaml", deployment("web", 3))
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in cluster.user.rglob("*")}
    directory_before = cluster.user.stat().st_mtime_ns
    cluster.refresh()
    await cluster.store("canary").apply(scale("web", 0))
    await cluster.store("runtime").status(key("web", "Deployment"), {"replicas": 0})
    cluster.refresh()
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in cluster.user.rglob("*")} == before
    assert cluster.user.stat().st_mtime_ns == directory_before


async def test_each_manager_writes_into_its_own_folder_only(cluster: FileCluster) -> None:
    cluster.write("a.yaml", deployment("web", 3))
    cluster.refresh()
    await cluster.store("cli").apply(annotate("web", paused="yes"))
    written = sorted(str(path.relative_to(cluster.state)) for path in cluster.state.rglob("*.yaml"))
    assert written == [
        f"accepted/{NAMESPACE}/Deployment.apps/web.yaml",
        f"cli/{NAMESPACE}/Deployment.apps/web.yaml",
    ]


async def test_secrets_are_readable_by_their_owner_only(cluster: FileCluster) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": NAMESPACE}, "stringData": {"p": "x"}}
    cluster.write("s.yaml", secret)
    cluster.refresh()
    await cluster.store("runtime").apply({**secret, "metadata": {"name": "t", "namespace": NAMESPACE}})
    paths = [path for path in cluster.state.rglob("*.yaml") if "Secret" in path.parts]
    assert len(paths) == 2
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {0o600}


def test_a_second_accepting_process_is_refused(cluster: FileCluster) -> None:
    with pytest.raises(StoreError, match="another process accepts"):
        FileStore(cluster.user, cluster.state, "other", accepting=True)


@pytest.mark.parametrize("manager", ["accepted", "events", "../x", "Runtime", ""])
def test_a_manager_whose_folder_would_be_another_is_refused(tmp_path: Path, manager: str) -> None:
    with pytest.raises(StoreError, match="cannot name a manager"):
        FileStore(None, tmp_path, manager)


# ---------------------------------------------------------------- the last good object stays


def test_a_file_that_does_not_parse_keeps_its_objects_and_the_others_go_on(cluster: FileCluster) -> None:
    cluster.write("a.yaml", config_map("a", {"x": "1"}))
    cluster.write("b.yaml", config_map("b", {"x": "1"}))
    cluster.refresh()
    cluster.write("a.yaml", "apiVersion: v1\nkind: [\n")
    cluster.write("b.yaml", config_map("b", {"x": "2"}))
    cluster.pass_time(10 * GRACE)
    assert data(cluster, "a") == {"x": "1"}
    assert data(cluster, "b") == {"x": "2"}
    (found,) = errors(cluster)
    assert found.file.endswith("a.yaml")
    assert found.line == 3
    assert "not valid YAML" in found.message


def test_nothing_of_a_file_that_breaks_off_is_taken(cluster: FileCluster) -> None:
    cluster.write("a.yaml", config_map("a", {"x": "1"}), config_map("b", {"x": "1"}))
    cluster.refresh()
    cluster.write("a.yaml", config_map("a", {"x": "2"}), "kind: [")
    cluster.pass_time(10 * GRACE)
    assert data(cluster, "a") == {"x": "1"}
    assert data(cluster, "b") == {"x": "1"}


def test_the_last_good_object_survives_a_restart(cluster: FileCluster) -> None:
    cluster.write("a.yaml", config_map("a", {"x": "1"}))
    cluster.refresh()
    before = cluster.accepting.get(key("a"))
    cluster.write("a.yaml", "{")
    cluster.refresh()
    restarted = cluster.restart("canary")
    cluster.pass_time(10 * GRACE)
    assert restarted.get(key("a")) == before
    assert len(errors(cluster)) == 1


def test_a_document_with_a_mistake_keeps_its_object_and_the_rest_of_the_file_is_taken(cluster: FileCluster) -> None:
    cluster.write("a.yaml", deployment("web", 3), config_map("a", {"x": "1"}))
    cluster.refresh()
    broken = deployment("web", 3)
    broken["spec"]["replica"] = broken["spec"].pop("replicas")
    cluster.write("a.yaml", broken, config_map("a", {"x": "2"}))
    cluster.pass_time(10 * GRACE)
    web = cluster.accepting.get(key("web", "Deployment"))
    assert web is not None
    assert web["spec"]["replicas"] == 3
    assert data(cluster, "a") == {"x": "2"}
    (found,) = errors(cluster)
    assert found.field == "spec.replica"
    assert found.hint == "did you mean replicas?"


def test_a_corrected_file_takes_effect_and_clears_the_diagnostics(cluster: FileCluster) -> None:
    cluster.write("a.yaml", "{")
    cluster.refresh()
    assert errors(cluster)
    cluster.write("a.yaml", config_map("a", {"x": "1"}))
    cluster.refresh()
    assert errors(cluster) == []
    assert data(cluster, "a") == {"x": "1"}


def test_a_file_in_which_a_document_cannot_be_named_deletes_nothing(cluster: FileCluster) -> None:
    cluster.write("a.yaml", config_map("a"), config_map("b"))
    cluster.refresh()
    nameless = config_map("b")
    del nameless["metadata"]["name"]
    cluster.write("a.yaml", config_map("a"), nameless)
    cluster.pass_time(10 * GRACE)
    assert cluster.accepting.get(key("b")) is not None
    assert len(errors(cluster)) == 1


def test_everybody_hears_the_accepting_processs_diagnostics(cluster: FileCluster) -> None:
    cluster.write("a.yaml", "{")
    cluster.refresh()
    assert cluster.store("cli").diagnostics() == cluster.accepting.diagnostics() != []


def test_an_object_that_cannot_be_written_is_reported_and_the_last_good_one_stays(cluster: FileCluster) -> None:
    (cluster.state / "accepted").mkdir(parents=True, exist_ok=True)
    (cluster.state / "accepted" / "blocked").write_text("a file where a folder is needed")
    blocked = config_map("a")
    blocked["metadata"]["namespace"] = "blocked"
    cluster.write("a.yaml", blocked)
    cluster.write("b.yaml", config_map("b"))
    cluster.refresh()
    assert errors(cluster)[0].message.startswith("cannot write")
    assert cluster.accepting.get(key("b")) is not None


# ---------------------------------------------------------------- files that vanish


def test_an_object_is_deleted_a_second_after_its_file_vanished_and_not_before(cluster: FileCluster) -> None:
    path = cluster.write("a.yaml", config_map("a"))
    cluster.write("b.yaml", config_map("b"))
    cluster.refresh()
    path.unlink()
    cluster.pass_time(GRACE * 0.9)
    assert cluster.accepting.get(key("a")) is not None
    cluster.pass_time(GRACE * 0.2)
    assert cluster.accepting.get(key("a")) is None
    assert cluster.store("runtime").get(key("a")) is None


def test_a_document_removed_from_its_file_is_deleted_too(cluster: FileCluster) -> None:
    cluster.write("a.yaml", config_map("a"), config_map("b"))
    cluster.refresh()
    cluster.write("a.yaml", config_map("a"))
    cluster.pass_time(GRACE)
    assert [obj["metadata"]["name"] for obj in cluster.accepting.list("", "ConfigMap")] == ["a"]


def test_a_file_that_moves_keeps_its_objects_uid(cluster: FileCluster) -> None:
    path = cluster.write("a.yaml", config_map("a"))
    cluster.write("b.yaml", config_map("b"))
    cluster.refresh()
    before = cluster.accepting.get(key("a"))
    path.rename(cluster.user / "parked.tmp")
    cluster.pass_time(GRACE / 2)
    (cluster.user / "parked.tmp").rename(cluster.user / "c.yaml")
    cluster.pass_time(10 * GRACE)
    assert cluster.accepting.get(key("a")) == before


def test_what_came_from_another_directory_goes_at_once(cluster: FileCluster) -> None:
    cluster.write("a.yaml", config_map("a"))
    cluster.refresh()
    cluster.user = cluster.user.with_name("elsewhere")
    cluster.user.mkdir()
    cluster.write("b.yaml", config_map("b"))
    cluster.restart("canary")
    assert [obj["metadata"]["name"] for obj in cluster.accepting.list("", "ConfigMap")] == ["b"]


async def test_of_what_is_deleted_and_held_and_what_goes_with_it_no_problem_is_told(cluster: FileCluster) -> None:
    canary = {
        "apiVersion": "flagger.app/v1beta1",
        "kind": "Canary",
        "metadata": {"name": "web", "namespace": NAMESPACE},
        "spec": {
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "service": {"port": 80},
            "analysis": {"stepWeight": 10, "maxWeight": 50},
        },
    }
    path = cluster.write("canary.yaml", canary)
    cluster.write("b.yaml", config_map("b"))
    cluster.refresh()
    held = {**canary, "metadata": {**canary["metadata"], "finalizers": ["canary.test/held"]}}
    await cluster.accepting.apply({name: held[name] for name in ("apiVersion", "kind", "metadata")})
    uid = cluster.accepting.get(CANARY)["metadata"]["uid"]
    owners = [{"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "name": "web", "uid": uid}]
    split = {
        "apiVersion": "split.smi-spec.io/v1alpha2",
        "kind": "TrafficSplit",
        "metadata": {"name": "web", "namespace": NAMESPACE, "ownerReferences": owners},
        "spec": {"service": "web", "backends": [{"service": "web-primary", "weight": 100}]},
    }
    await cluster.accepting.apply(split)
    cluster.refresh()
    told = {diagnostic.key.kind for diagnostic in cluster.accepting.diagnostics()}
    assert told == {"Canary", "TrafficSplit"}, "neither has what it names"
    path.unlink()
    cluster.pass_time(2 * GRACE)
    assert "deletionTimestamp" in cluster.accepting.get(CANARY)["metadata"]
    for manager in ("canary", "runtime"):
        assert cluster.store(manager).get(SPLIT) is not None
        assert cluster.store(manager).diagnostics() == []


def test_an_empty_directory_holds_everything_and_says_so(cluster: FileCluster) -> None:
    path = cluster.write("a.yaml", config_map("a"))
    cluster.refresh()
    path.unlink()
    cluster.pass_time(10 * GRACE)
    assert cluster.accepting.get(key("a")) is not None
    (warning,) = cluster.accepting.diagnostics()
    assert "the 1 accepted before stay in force" in warning.message


def test_a_directory_that_is_gone_holds_everything_and_says_so(cluster: FileCluster) -> None:
    path = cluster.write("a.yaml", config_map("a"))
    cluster.refresh()
    path.unlink()
    cluster.user.rmdir()
    cluster.pass_time(10 * GRACE)
    assert cluster.accepting.get(key("a")) is not None
    assert "cannot be read" in errors(cluster)[0].message


def test_files_that_are_no_manifests_are_passed_over(cluster: FileCluster) -> None:
    cluster.write("README.md", "# not YAML: [")
    cluster.write(".hidden.yaml", "{")
    (cluster.user / "folder.yaml").mkdir()
    os.mkfifo(cluster.user / "pipe.yaml")
    cluster.write("a.yaml", config_map("a"))
    cluster.refresh()
    assert errors(cluster) == []
    assert cluster.accepting.get(key("a")) is not None


# ---------------------------------------------------------------- duplicates


def test_an_object_in_two_files_is_refused_naming_both(cluster: FileCluster) -> None:
    first = cluster.write("a.yaml", config_map("a", {"x": "1"}))
    second = cluster.write("b.yaml", config_map("a", {"x": "2"}))
    cluster.refresh()
    assert cluster.accepting.get(key("a")) is None
    found = errors(cluster)
    assert [diagnostic.file for diagnostic in found] == [str(first), str(second)]
    assert f"{second}:1" in found[0].message
    assert f"{first}:1" in found[1].message


def test_a_copy_of_an_accepted_object_changes_nothing_until_one_of_them_goes(cluster: FileCluster) -> None:
    first = cluster.write("a.yaml", config_map("a", {"x": "1"}))
    cluster.refresh()
    cluster.write("b.yaml", config_map("a", {"x": "2"}))
    cluster.pass_time(10 * GRACE)
    assert data(cluster, "a") == {"x": "1"}
    first.unlink()
    cluster.pass_time(10 * GRACE)
    assert data(cluster, "a") == {"x": "2"}
    assert errors(cluster) == []


# ---------------------------------------------------------------- what the store keeps of an object


def test_an_edit_of_the_spec_raises_the_generation_and_keeps_the_uid(cluster: FileCluster) -> None:
    cluster.write("a.yaml", deployment("web", 3))
    cluster.refresh()
    before = cluster.accepting.get(key("web", "Deployment"))
    edited = deployment("web", 4)
    edited["metadata"]["annotations"] = {"note": "x"}
    cluster.write("a.yaml", edited)
    cluster.refresh()
    after = cluster.accepting.get(key("web", "Deployment"))
    assert before is not None
    assert after is not None
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["metadata"]["generation"] == before["metadata"]["generation"] + 1 == 2


def test_an_edit_of_an_annotation_leaves_the_generation(cluster: FileCluster) -> None:
    cluster.write("a.yaml", deployment("web", 3))
    cluster.refresh()
    edited = deployment("web", 3)
    edited["metadata"]["annotations"] = {"note": "x"}
    cluster.write("a.yaml", edited)
    cluster.refresh()
    after = cluster.accepting.get(key("web", "Deployment"))
    assert after is not None
    assert after["metadata"]["generation"] == 1
    assert after["metadata"]["annotations"] == {"note": "x"}


def test_status_and_what_servers_write_are_not_taken_from_a_manifest(cluster: FileCluster) -> None:
    exported = deployment("web", 3)
    exported["metadata"] |= {"uid": "theirs", "generation": 7, "resourceVersion": "1", "creationTimestamp": None}
    exported["status"] = {"replicas": 9}
    cluster.write("a.yaml", exported)
    cluster.refresh()
    seen = cluster.accepting.get(key("web", "Deployment"))
    assert seen is not None
    assert seen["metadata"]["uid"] != "theirs"
    assert seen["metadata"]["generation"] == 1
    assert "status" not in seen


async def test_an_object_a_manager_made_first_keeps_its_uid_when_the_user_gives_it_too(cluster: FileCluster) -> None:
    made = await cluster.store("runtime").apply(config_map("a", {"x": "1"}))
    cluster.write("a.yaml", config_map("a", {"y": "2"}))
    cluster.write("b.yaml", config_map("b"))
    cluster.refresh()
    seen = cluster.accepting.get(key("a"))
    assert seen is not None
    assert seen["metadata"]["uid"] == made["metadata"]["uid"]
    assert seen["data"] == {"x": "1", "y": "2"}
    (cluster.user / "a.yaml").unlink()
    cluster.pass_time(GRACE)
    assert data(cluster, "a") == {"x": "1"}


async def made_for_an_owner(cluster: FileCluster) -> None:
    """Manager "runtime" makes a ConfigMap for the user's Deployment; then the user writes one of that name."""
    cluster.write("a.yaml", deployment("web", 3))
    cluster.write("keep.yaml", config_map("keep"))
    cluster.refresh()
    runtime = cluster.store("runtime")
    web = runtime.get(key("web", "Deployment"))
    assert web is not None
    await runtime.apply(config_map("a", {"x": "1"}, ownerReferences=[owner(web)]))
    cluster.write("b.yaml", config_map("a", {"x": "9"}))
    cluster.refresh()


async def test_what_the_user_wrote_belongs_to_no_owner_that_a_manager_names(cluster: FileCluster) -> None:
    await made_for_an_owner(cluster)
    for store in cluster.stores.values():
        seen = store.get(key("a"))
        assert seen is not None
        assert "ownerReferences" not in seen["metadata"]
        assert seen["data"] == {"x": "1"}


@pytest.mark.parametrize("restarted", [False, True])
async def test_the_users_document_is_in_force_once_the_owner_it_was_overridden_for_is_gone(
    cluster: FileCluster, restarted: bool
) -> None:
    await made_for_an_owner(cluster)
    (cluster.user / "a.yaml").unlink()
    if restarted:  # the manager never comes back; what it wrote is still there
        cluster.refresh()
        cluster.stores.pop("runtime").close()
        cluster.now += GRACE
        cluster.restart("canary")
    for _ in range(3):
        cluster.pass_time(GRACE)
    seen = cluster.accepting.get(key("a"))
    assert seen is not None
    assert seen["data"] == {"x": "9"}
    assert not (cluster.state / "runtime" / NAMESPACE / "ConfigMap" / "a.yaml").exists()


async def test_a_manager_that_lets_go_of_the_owner_lets_go_of_the_users_object(cluster: FileCluster) -> None:
    await made_for_an_owner(cluster)
    await cluster.store("runtime").apply(config_map("a", {"x": "2"}))
    cluster.refresh()
    assert data(cluster, "a") == {"x": "2"}
    (cluster.user / "b.yaml").unlink()
    cluster.pass_time(GRACE)
    assert cluster.accepting.get(key("a")) is None


async def test_a_manager_cannot_delete_what_the_user_gave(cluster: FileCluster) -> None:
    cluster.write("a.yaml", config_map("a"))
    cluster.refresh()
    with pytest.raises(StoreError, match="the user's manifests"):
        await cluster.store("runtime").delete(key("a"))


# ---------------------------------------------------------------- processes come and go


async def test_while_no_process_accepts_the_others_go_on_with_what_was_accepted(cluster: FileCluster) -> None:
    cluster.write("a.yaml", deployment("web", 3))
    cluster.refresh()
    cluster.stores.pop("canary").close()
    cluster.write("a.yaml", deployment("web", 5))
    runtime = cluster.store("runtime")
    await runtime.status(key("web", "Deployment"), {"replicas": 3})
    runtime.refresh()
    seen = runtime.get(key("web", "Deployment"))
    assert seen is not None
    assert (seen["spec"]["replicas"], seen["status"]) == (3, {"replicas": 3})
    cluster.accepting = cluster.store("canary")
    cluster.refresh()
    seen = runtime.get(key("web", "Deployment"))
    assert seen is not None
    assert seen["spec"]["replicas"] == 5


async def test_a_restarted_process_sees_exactly_what_it_saw_before(cluster: FileCluster) -> None:
    cluster.write("a.yaml", deployment("web", 3))
    cluster.refresh()
    await cluster.store("canary").apply(scale("web", 1))
    await cluster.store("runtime").status(key("web", "Deployment"), {"replicas": 1})
    await cluster.sync()
    before = cluster.accepting.all()
    assert cluster.restart("canary").all() == before
    assert cluster.restart("runtime").all() == before


async def test_what_managers_said_of_a_deleted_object_is_swept_also_for_those_who_are_gone(cluster: FileCluster) -> None:
    cluster.write("a.yaml", deployment("web", 3))
    cluster.write("b.yaml", config_map("b"))
    cluster.refresh()
    await cluster.store("cli").apply(annotate("web", paused="yes"))
    cluster.stores.pop("cli")
    (cluster.user / "a.yaml").unlink()
    cluster.pass_time(GRACE)
    cluster.pass_time(GRACE)
    assert [path.name for path in cluster.state.rglob("*.yaml")] == ["b.yaml"]


async def test_the_files_of_what_an_object_owned_are_swept_by_the_manager_that_wrote_them(cluster: FileCluster) -> None:
    cluster.write("a.yaml", deployment("web", 3))
    cluster.write("b.yaml", config_map("b"))
    cluster.refresh()
    runtime = cluster.store("runtime")
    web = runtime.get(key("web", "Deployment"))
    assert web is not None
    await runtime.apply(config_map("pod", ownerReferences=[owner(web)]))
    (cluster.user / "a.yaml").unlink()
    cluster.pass_time(GRACE)
    assert runtime.get(key("pod")) is None
    cluster.pass_time(GRACE)
    assert not (cluster.state / "runtime" / NAMESPACE / "ConfigMap" / "pod.yaml").exists()


_HOLDER = """
import sys, time
from pathlib import Path
from control.store.files import FileStore
store = FileStore(Path(sys.argv[1]), Path(sys.argv[2]), "canary", accepting=True)
print("held", flush=True)
time.sleep(60)
"""


def test_the_accepting_process_gives_up_its_place_when_it_is_killed(tmp_path: Path) -> None:
    user, state = tmp_path / "user", tmp_path / "state"
    user.mkdir()
    holder = subprocess.Popen([sys.executable, "-c", _HOLDER, str(user), str(state)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StoreError, match="another process accepts"):
            FileStore(user, state, "canary", accepting=True)
        holder.kill()
        holder.wait(10)
        FileStore(user, state, "canary", accepting=True).close()
    finally:
        holder.kill()
        holder.wait(10)
        assert holder.stdout is not None
        holder.stdout.close()


_WRITER = """
import asyncio, sys
from pathlib import Path
from control.store.files import FileStore
manager, state = sys.argv[1], Path(sys.argv[2])
async def main():
    store = FileStore(None, state, manager)
    for turn in range(60):
        text = str(turn) * 500
        await store.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "shared", "namespace": "contract"},
                           "data": {manager: text}})
asyncio.run(main())
"""


def test_processes_that_write_at_once_lose_nothing_and_are_never_read_half(tmp_path: Path) -> None:
    reader = FileStore(None, tmp_path, "reader")
    asyncio.run(FileStore(None, tmp_path, "first").apply(config_map("shared", {"first": "x"})))
    writers = [subprocess.Popen([sys.executable, "-c", _WRITER, name, str(tmp_path)]) for name in ("a", "b", "c")]
    try:
        deadline = time.monotonic() + 60
        while any(writer.poll() is None for writer in writers):
            assert time.monotonic() < deadline
            reader.refresh()
            assert reader.diagnostics() == []
            obj = reader.get(key("shared"))
            for text in obj["data"].values() if obj else ():
                assert text == text[: len(text) // 500] * 500 or text == "x"
        assert [writer.returncode for writer in writers] == [0, 0, 0]
    finally:
        for writer in writers:
            writer.kill()
            writer.wait(10)
    reader.refresh()
    obj = reader.get(key("shared"))
    assert obj is not None
    assert obj["data"] == {"first": "x", "a": "59" * 500, "b": "59" * 500, "c": "59" * 500}


def test_an_edit_that_leaves_size_and_time_stamp_is_not_missed(cluster: FileCluster) -> None:
    stamp = time.time_ns() + 10**9
    for value in ("1", "2"):
        path = cluster.write("a.yaml", config_map("a", {"x": value}))
        os.utime(path, ns=(stamp, stamp))
        cluster.refresh()
        assert data(cluster, "a") == {"x": value}


async def test_a_write_that_leaves_the_folders_time_stamp_is_not_missed(cluster: FileCluster) -> None:
    stamp = time.time_ns() + 10**9
    for value in ("1", "2"):
        await cluster.store("cli").apply(config_map("a", {"x": value}))
        os.utime(cluster.state / "cli" / NAMESPACE / "ConfigMap", ns=(stamp, stamp))
        cluster.refresh()
        assert data(cluster, "a") == {"x": value}


def test_changes_within_one_tick_of_the_file_clock_are_not_missed(cluster: FileCluster) -> None:
    for turn in range(200):  # same size, and most often the same time stamp
        cluster.write("a.yaml", config_map("a", {"x": f"{turn:03}"}))
        cluster.refresh()
        assert data(cluster, "a") == {"x": f"{turn:03}"}


async def test_a_file_just_written_is_left_for_the_next_look_of_run(cluster: FileCluster) -> None:
    cluster.write("a.yaml", config_map("a"))
    cluster.accepting.refresh(settle=3600)
    assert cluster.accepting.get(key("a")) is None
    cluster.accepting.refresh()
    assert cluster.accepting.get(key("a")) is not None


async def test_run_tells_watchers_of_changes_and_ends_when_cancelled(cluster: FileCluster) -> None:
    runtime = cluster.store("runtime")
    told = asyncio.Event()
    runtime.watch(lambda changes: told.set())
    running = asyncio.create_task(runtime.run(0.01))
    await cluster.store("cli").apply(config_map("a"))
    await asyncio.wait_for(told.wait(), 10)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert runtime.get(key("a")) is not None


async def test_a_watcher_that_fails_is_counted_and_the_others_are_told(cluster: FileCluster) -> None:
    runtime = cluster.store("runtime")
    told: list[Change] = []

    def failing(changes: object) -> None:
        raise RuntimeError("a bug")

    runtime.watch(failing)
    runtime.watch(told.extend)
    await cluster.store("cli").apply(config_map("a"))
    runtime.refresh()
    assert [change.key for change in told] == [key("a")]
    assert runtime.watcher_errors == 1


async def test_a_watcher_may_refresh_and_write(cluster: FileCluster) -> None:
    runtime = cluster.store("runtime")
    seen: list[str] = []
    tasks: list[asyncio.Task[object]] = []

    def follow(changes: list[Change]) -> None:
        runtime.refresh()
        for change in changes:
            seen.append(change.key.name)
            if change.key.name == "a":
                tasks.append(asyncio.ensure_future(runtime.apply(config_map("b"))))

    runtime.watch(follow)
    await runtime.apply(config_map("a"))
    await cluster.sync()
    await asyncio.gather(*tasks)
    await cluster.sync()
    assert seen == ["a", "b"]


# ---------------------------------------------------------------- damage


async def test_a_damaged_state_file_is_reported_and_the_rest_goes_on(cluster: FileCluster) -> None:
    runtime = cluster.store("runtime")
    await runtime.apply(config_map("a"))
    await runtime.apply(config_map("b"))
    path = cluster.state / "runtime" / NAMESPACE / "ConfigMap" / "a.yaml"
    path.write_text('{"uid": ')
    fresh = FileStore(None, cluster.state, "fresh")
    fresh.refresh()
    assert [obj["metadata"]["name"] for obj in fresh.list("", "ConfigMap")] == ["b"]
    assert [diagnostic.file for diagnostic in fresh.diagnostics()] == [str(path)]
    await runtime.apply(config_map("a", {"x": "1"}))
    fresh.refresh()
    assert fresh.diagnostics() == []
    assert len(fresh.list("", "ConfigMap")) == 2


async def test_a_state_file_in_the_wrong_place_is_not_believed(cluster: FileCluster) -> None:
    runtime = cluster.store("runtime")
    await runtime.apply(config_map("a"))
    folder = cluster.state / "runtime" / NAMESPACE / "ConfigMap"
    (folder / "b.yaml").write_bytes((folder / "a.yaml").read_bytes())
    runtime.refresh()
    assert [obj["metadata"]["name"] for obj in runtime.list("", "ConfigMap")] == ["a"]
    assert "belongs in" in runtime.diagnostics()[0].message


async def test_an_object_too_large_is_refused_and_nothing_changes(cluster: FileCluster) -> None:
    runtime = cluster.store("runtime")
    await runtime.apply(config_map("a", {"x": "1"}))
    with pytest.raises(StoreError, match="more than"):
        await runtime.apply(config_map("a", {"x": "x" * 3_000_000}))
    assert data(cluster, "a") == {"x": "1"}
    assert [path.name for path in (cluster.state / "runtime").rglob("*") if path.is_file()] == ["a.yaml"]


async def test_names_as_long_as_kubernetes_allows_fit_into_file_names(cluster: FileCluster) -> None:
    runtime = cluster.store("runtime")
    names = ["n" * 252 + "a", "n" * 252 + "b"]
    for name in names:
        await runtime.apply(config_map(name))
    fresh = FileStore(None, cluster.state, "fresh")
    fresh.refresh()
    assert [obj["metadata"]["name"] for obj in fresh.list("", "ConfigMap")] == names


# ---------------------------------------------------------------- events


async def test_events_are_bounded_and_the_oldest_go_first(cluster: FileCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventlog, "MAX_EVENTS", 20)
    monkeypatch.setattr(eventlog, "MAX_LOG_BYTES", 10_000)
    runtime = cluster.store("runtime")
    await runtime.apply(config_map("a"))
    for turn in range(100):
        cluster.now += 1
        await runtime.event(key("a"), "Normal", "Synced", f"turn {turn}")
    messages = [event["message"] for event in cluster.store("cli").events(key("a"))]
    assert messages == [f"turn {turn}" for turn in range(80, 100)]
    assert (cluster.state / "events" / "runtime.log").stat().st_size <= 10_000 + 1_000


async def test_a_torn_line_in_the_event_log_costs_that_event_only(cluster: FileCluster) -> None:
    runtime = cluster.store("runtime")
    await runtime.apply(config_map("a"))
    (cluster.state / "events").mkdir()
    (cluster.state / "events" / "canary.log").write_text('{"hal\n')
    await runtime.event(key("a"), "Normal", "Synced", "fine")
    assert [event["message"] for event in cluster.store("cli").events()] == ["fine"]

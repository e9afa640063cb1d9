"""`meshproxy get` and `meshproxy logs` on a mesh that is down: its state directory is all they need."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from runtime_support import deployment, mesh_that_is_down, service, until_sync

from control.runtime.layout import Layout
from control.runtime.logfile import LogFile
from control.store.files import FileStore
from control.store.store import Key
from meshproxy.cli import selector
from meshproxy.cli.get import changes, find, parse_request, show
from meshproxy.cli.get import command as get_command
from meshproxy.cli.lint import command as lint_command
from meshproxy.cli.logs import command as logs_command

SPLIT = {
    "apiVersion": "split.smi-spec.io/v1alpha2",
    "kind": "TrafficSplit",
    "metadata": {"name": "web", "namespace": "shop"},
    "spec": {"service": "web", "backends": [{"service": "web", "weight": 90}, {"service": "api", "weight": 10}]},
}
ROUTE = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "HTTPRoute",
    "metadata": {"name": "web", "namespace": "shop"},
    "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "web"}], "rules": [{"backendRefs": []}]},
}
WEB = {"name": "web", "image": "x", "command": ["python3", "-m", "http.server"], "ports": [{"containerPort": 8080}]}


def pod(name: str, **labels: str) -> dict[str, object]:
    metadata = {"name": name, "namespace": "shop", "labels": labels}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [WEB]}}


OBJECTS = [
    deployment("web", WEB),
    deployment("api", WEB),
    service("web"),
    service("api"),
    SPLIT,
    ROUTE,
    pod("web-1", app="web", version="v1"),
    pod("web-2", app="web", version="v2", **{"meshproxy.dev/proxy-deployment": "web"}),
    pod("api-1", app="api"),
]


@pytest.fixture
def layout(tmp_path: Path, state_home: Path) -> Layout:
    layout = mesh_that_is_down()
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    (manifests / "all.yaml").write_text(yaml.safe_dump_all(OBJECTS))
    with FileStore(manifests, layout.objects, "control", accepting=True) as store:
        store.refresh()
        assert store.get(Key("", "Pod", "shop", "web-1")) is not None
    return layout


def get(*words: str) -> Result:
    return CliRunner().invoke(get_command, list(words))


def rows(result: Result) -> list[str]:
    """First words of all lines."""
    return [line.split()[0] if line else "" for line in result.stdout.splitlines()]


def test_several_kinds_are_tables_with_prefixed_names(layout: Layout) -> None:
    result = get("ts,deploy,svc", "-n", "shop")
    assert result.exit_code == 0
    assert rows(result) == [
        *("NAME", "trafficsplit.split.smi-spec.io/web", ""),
        *("NAME", "deployment.apps/api", "deployment.apps/web", ""),
        *("NAME", "service/api", "service/web"),
    ]


def test_one_kind_has_plain_names_and_several_names_keep_their_order(layout: Layout) -> None:
    assert rows(get("po", "web-2", "api-1", "-n", "shop")) == ["NAME", "web-2", "api-1"]
    assert rows(get("pods", "-n", "shop", "--no-headers")) == ["api-1", "web-1", "web-2"]


async def test_a_route_shows_its_services_and_whether_it_is_in_force(layout: Layout) -> None:
    assert get("httproutes", "-n", "shop", "--no-headers").stdout.split()[:4] == ["web", "web", "<unknown>", "<unknown>"]
    conditions = [
        {"type": "Accepted", "status": "True", "reason": "Accepted"},
        {"type": "ResolvedRefs", "status": "False", "reason": "BackendNotFound"},
    ]
    with FileStore(None, layout.objects, "control") as store:
        store.refresh()
        await store.status(
            Key("gateway.networking.k8s.io", "HTTPRoute", "shop", "web"), {"parents": [{"conditions": conditions}]}
        )
    assert get("httproute", "web", "-n", "shop", "--no-headers").stdout.split()[:4] == ["web", "web", "True", "BackendNotFound"]


def test_watching_gives_what_is_new_or_changed_and_nothing_else_again(layout: Layout, tmp_path: Path) -> None:
    request = parse_request(["pods"], "shop")
    store = FileStore(None, layout.objects, "cli")
    store.refresh()
    looks = changes(store, request, find(store, request), interval=0.001)
    for objects, names in (
        ([*OBJECTS, pod("new", app="new")], ["new"]),
        ([*OBJECTS[:-1], pod("api-1", app="other"), pod("new", app="new")], ["api-1"]),
        ([*OBJECTS[:-2], pod("last", app="last")], ["last"]),  # two are gone; those that went are not shown
    ):
        (tmp_path / "manifests" / "all.yaml").write_text(yaml.safe_dump_all(objects))
        with FileStore(tmp_path / "manifests", layout.objects, "control", accepting=True) as accepting:
            accepting.refresh()
        everything, changed = next(looks)
        assert [obj["metadata"]["name"] for _, found in changed for obj in found] == names
        assert {obj["metadata"]["name"] for _, found in everything for obj in found} > set(names)
        assert [line.split()[0] for line in show(changed, request, "table", headers=False).splitlines()] == names
        assert json.loads(show(changed, request, "json"))["items"][0]["metadata"]["name"] == names[0]


def test_kind_and_name_may_be_one_word_and_repeated(layout: Layout) -> None:
    assert rows(get("pod/web-1", "-n", "shop")) == ["NAME", "web-1"]
    result = get("deploy/web", "svc/api", "deploy/api", "-n", "shop", "-o", "name")
    assert result.stdout.split() == ["deployment.apps/web", "deployment.apps/api", "service/api"]
    mixed = get("deploy/web", "pods")
    assert (mixed.exit_code, "with KIND/NAME every word is one" in mixed.stderr) == (2, True)


def test_labels_select_and_are_shown(layout: Layout) -> None:
    result = get("po", "-n", "shop", "-l", "app=web,version!=v1", "--show-labels")
    header, row = result.stdout.splitlines()
    assert header.split()[-1] == "LABELS"
    assert row.split()[0] == "web-2"
    assert row.split()[-1] == "app=web,meshproxy.dev/proxy-deployment=web,version=v2"
    assert get("po", "web-1", "-l", "app=web", "-n", "shop").exit_code == 2
    assert get("po", "-l", "a b", "-n", "shop").exit_code == 2


def test_what_is_not_there_is_named_and_the_rest_is_shown(layout: Layout) -> None:
    result = get("deploy", "web", "nope", "-n", "shop")
    assert result.exit_code == 1
    assert 'Error from server (NotFound): deployments.apps "nope" not found in namespace "shop"' in result.stderr
    assert rows(result) == ["NAME", "web"]
    elsewhere = get("svc/web")
    assert (elsewhere.exit_code, elsewhere.stdout) == (1, "")
    assert 'services "web" not found in namespace "default" (there is some in shop: -n shop)' in elsewhere.stderr
    assert get("svc/web", "-A").exit_code == 0


def test_nothing_of_a_kind_is_no_error_and_says_where_there_is_some(layout: Layout) -> None:
    result = get("pods")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "No resources found in default namespace. (there is some in shop: -n shop)" in result.stderr
    assert "No resources found\n" in get("secrets", "-A").stderr
    assert json.loads(get("secrets", "-A", "-o", "json").stdout)["items"] == []


def test_an_unknown_kind_suggests_one(layout: Layout) -> None:
    result = get("deploymnets")
    assert (result.exit_code, 'no resource type "deploymnets"; did you mean deployments?' in result.stderr) == (2, True)
    assert "known: pods, services" in get("xyzzy").stderr
    assert get("deployments.apps,services.apps").exit_code == 2


@pytest.mark.parametrize("words", [("deploy/web",), ("all",), ("svc,ts", "web")])
def test_yaml_passes_lint_and_means_the_same(layout: Layout, tmp_path: Path, words: tuple[str, ...]) -> None:
    text = get(*words, "-n", "shop", "-o", "yaml").stdout
    (tmp_path / "again.yaml").write_text(text)
    result = CliRunner().invoke(lint_command, [str(tmp_path / "again.yaml")])
    assert (result.exit_code, " 0 errors" in result.output) == (0, True), result.output
    with FileStore(tmp_path, tmp_path / "again", "control", accepting=True) as store:
        store.refresh()
        spec = {"deploy/web": ("apps", "Deployment"), "all": ("", "Pod"), "svc,ts": ("split.smi-spec.io", "TrafficSplit")}
        found = store.list(*spec[words[0]])
        with FileStore(None, layout.objects, "cli") as before:
            before.refresh()
            assert found
            assert [item["spec"] for item in found] == [before.get(Key.of(item))["spec"] for item in found]  # type: ignore[index]


# ---------------------------------------------------------------- selectors


@pytest.mark.parametrize(
    ("text", "matching"),
    [
        ("", "abc"),
        ("app=web", "ab"),
        ("app==web,version!=v1", "b"),
        ("version", "ab"),
        ("!version", "c"),
        ("version in (v1, v3)", "a"),
        ("version notin (v1)", "bc"),
        ("app in (web,api),!version", "c"),
        ("example.com/tier=", "c"),
    ],
)
def test_selectors_mean_what_they_mean_to_kubectl(text: str, matching: str) -> None:
    objects = {
        "a": {"app": "web", "version": "v1"},
        "b": {"app": "web", "version": "v2"},
        "c": {"app": "api", "example.com/tier": ""},
    }
    matches = selector.parse(text)
    assert "".join(name for name, labels in objects.items() if matches(labels)) == matching


@pytest.mark.parametrize("text", ["a b", "=x", "app=we b", "app in web", "app in (a b)", "app,", "x" * 5000])
def test_what_is_no_selector_is_refused(text: str) -> None:
    with pytest.raises(selector.SelectorError):
        selector.parse(text)


# ---------------------------------------------------------------- logs


def logs(*words: str) -> Result:
    return CliRunner().invoke(logs_command, list(words))


def write_log(layout: Layout, name: str, *lives: str, container: str = "app") -> None:
    log = LogFile(layout.pod("shop", name) / f"{container}.log")
    for life in lives:
        log.mark_start()
        log.write(life.encode())
    log.close()


def test_logs_of_a_pod_of_its_containers_and_of_its_life_before(layout: Layout) -> None:
    write_log(layout, "web-1", "one\ncrash\n", "two\n")
    write_log(layout, "web-1", "sidecar here\n", container="sidecar")
    assert logs("web-1", "-n", "shop").stdout == "one\ncrash\ntwo\n"
    assert logs("pod/web-1", "-n", "shop", "-c", "web", "--tail", "1").stdout == "two\n"
    assert logs("web-1", "-n", "shop", "-c", "sidecar").stdout == "sidecar here\n"
    assert logs("web-1", "-n", "shop", "-p").stdout == "one\ncrash\n"
    assert logs("web-1", "-n", "shop", "-p", "--tail", "1").stdout == "crash\n"
    both = logs("web-1", "-n", "shop", "--all-containers", "--tail", "1").stdout
    assert both == "[web-1/app] two\n[web-1/sidecar] sidecar here\n"
    wrong = logs("web-1", "-n", "shop", "-c", "db")
    assert (wrong.exit_code, "no container 'db'; it has: app, sidecar, web" in wrong.stderr) == (2, True)
    early = logs("web-1", "-n", "shop", "-c", "sidecar", "-p")
    assert (early.exit_code, "no previous life: the sidecar of web-1 has been started once" in early.stderr) == (1, True)


def test_logs_of_a_deployment_and_of_labels_name_the_pod(layout: Layout) -> None:
    write_log(layout, "web-1", "one\n")
    write_log(layout, "web-2", "two\n")
    assert logs("deploy/web", "-n", "shop").stdout == "[web-2] two\n"
    assert logs("-l", "app=web", "-n", "shop").stdout == "[web-1] one\n[web-2] two\n"
    assert logs("-l", "app=web", "-n", "shop", "--no-prefix").stdout == "one\ntwo\n"
    assert logs("deploy/api", "-n", "shop").exit_code == 1


def test_logs_that_cannot_be_found_say_where_to_look(layout: Layout) -> None:
    assert "did you mean deploy/web?" in logs("web", "-n", "shop").stderr
    assert "(it is in shop: -n shop)" in logs("web-1").stderr
    assert 'deployments.apps "nope" not found in namespace "shop"' in logs("deploy/nope", "-n", "shop").stderr
    assert 'the app of pod "api-1" has said nothing yet' in logs("api-1", "-n", "shop").stderr
    assert "expected POD, pod/POD or deploy/NAME" in logs("svc/web", "-n", "shop").stderr
    assert logs().exit_code == logs("web-1", "-l", "app=web").exit_code == 2


def test_logs_of_a_pod_that_is_gone_and_of_the_control_plane(layout: Layout) -> None:
    write_log(layout, "gone-1", "last words\n")
    assert logs("gone-1", "-n", "shop").stdout == "last words\n"
    layout.control_log.write_text("control plane: here\n")
    assert logs("control-plane").stdout == "control plane: here\n"


def test_a_followed_log_goes_on_across_a_rotation_and_ends_with_its_pod(layout: Layout, tmp_path: Path) -> None:
    log = LogFile(layout.pod("shop", "web-1") / "app.log", limit=64)
    log.write(b"before 1\nbefore 2\n")
    follow = subprocess.Popen(
        [sys.executable, "-m", "meshproxy", "logs", "web-1", "-n", "shop", "-f", "--tail", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert follow.stdout is not None
        assert follow.stdout.readline() == "before 2\n"
        for number in range(3):  # each is 40 bytes: a file of its own
            line = f"line {number} {'.' * 32}\n"
            log.write(line.encode())
            assert follow.stdout.readline() == line
        (tmp_path / "manifests" / "all.yaml").write_text(yaml.safe_dump(service("web")))
        with FileStore(tmp_path / "manifests", layout.objects, "control", accepting=True) as store:

            def gone() -> bool:
                store.refresh()
                return store.get(Key("", "Pod", "shop", "web-1")) is None

            until_sync(gone, "the pod gone")
            assert follow.wait(30) == 0
            assert follow.stdout.read() == ""
    finally:
        follow.kill()
        follow.wait()
        log.close()

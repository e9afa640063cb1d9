"""What the control plane is started with and holds for all Canaries: which label tells target from primary, which labels the
copies keep, whether configs are tracked, how alerts name this mesh.  From the command line to what it does."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click
import pytest
from canary_cluster import APEX, CANARY, PRIMARY, SPLIT, Cluster, deployment, service
from canary_plays import START, canary_object
from canary_receiver import Receiver
from test_canary_controller import Numbers

from control.canary.controller import Controller, Settings
from control.canary.declared.alerts import INFO, Alert
from control.canary.declared.spec import Flags, parse
from control.canary.machine.decision import Event
from control.canary.machine.status import Phase, Status
from control.canary.simulate.given import Given, load
from control.canary.simulate.timeline import Outcome
from control.canary.simulate.world import World
from control.canary.telling.wiring import Telling
from control.runtime.control_plane import control_command
from control.runtime.layout import Layout
from control.runtime.sidecar import Settings as RuntimeSettings
from control.store.store import Key, Object
from meshproxy.cli import canary_flags
from meshproxy.cli.control import command as control
from meshproxy.cli.up import command as up

INSTANCE = "app.kubernetes.io/instance"


def by_instance(version: str = "v1") -> Object:
    """As Helm's charts label it: no `app`."""
    obj = deployment(version)
    labels = {INSTANCE: "podinfo", "app.kubernetes.io/component": "web"}
    obj["spec"]["selector"] = {"matchLabels": labels}
    obj["spec"]["template"]["metadata"] = {"labels": labels}
    spread = {"maxSkew": 1, "topologyKey": "zone", "labelSelector": {"matchLabels": {INSTANCE: "podinfo"}}}
    obj["spec"]["template"]["spec"]["topologySpreadConstraints"] = [spread]
    return obj


def called_by_instance() -> Object:
    obj = service()
    obj["spec"]["selector"] = {INSTANCE: "podinfo"}
    return obj


async def run(cluster: Cluster, ticks: int, flags: Flags) -> None:
    controller = Controller(cluster.store, Numbers(), clock=lambda: cluster.now, settings=Settings(flags=flags))
    for _ in range(ticks):
        await cluster.roll_out()
        await controller.step(cluster.now)
        cluster.refresh()
        cluster.now += 10


async def test_a_target_whose_label_is_not_in_the_list_is_not_released_and_the_words_say_what_would_do(cluster: Cluster):
    cluster.write(by_instance(), called_by_instance(), canary_object())
    await run(cluster, 2, Flags())
    assert cluster.status().phase is Phase.NEW
    (event,) = cluster.store.events(CANARY)
    assert "spec.selector.matchLabels must contain one of app, name, app.kubernetes.io/name" in event["message"]
    assert f"found app.kubernetes.io/component, {INSTANCE} " in event["message"]
    assert "--canary-selector-labels" in event["message"]


async def test_a_target_is_released_by_the_label_that_the_flag_names(cluster: Cluster):
    cluster.write(by_instance(), called_by_instance(), canary_object())
    flags = Flags(selector_labels=("app", INSTANCE))
    await run(cluster, 3, flags)
    assert cluster.status().phase is Phase.INITIALIZED
    primary = cluster.store.get(PRIMARY)
    assert primary["spec"]["selector"] == {"matchLabels": {INSTANCE: "podinfo-primary"}}
    assert primary["spec"]["template"]["metadata"]["labels"][INSTANCE] == "podinfo-primary"
    (spread,) = primary["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert spread["labelSelector"] == {"matchLabels": {INSTANCE: "podinfo-primary"}}
    assert cluster.store.get(APEX)["spec"]["selector"] == {INSTANCE: "podinfo-primary"}
    assert cluster.store.get(Key("", "Service", "test", "podinfo-canary"))["spec"]["selector"] == {INSTANCE: "podinfo"}
    cluster.write(by_instance("v2"))
    await run(cluster, 12, flags)
    assert (cluster.status().phase, cluster.image(PRIMARY)) == (Phase.SUCCEEDED, "podinfo:v2")
    assert cluster.store.get(SPLIT)["spec"]["backends"][0]["weight"] in (0, 100)


async def test_the_first_label_of_the_list_that_the_target_has_counts(cluster: Cluster):
    cluster.write(by_instance(), called_by_instance(), canary_object())
    await run(cluster, 3, Flags(selector_labels=("app.kubernetes.io/component", INSTANCE)))
    primary = cluster.store.get(PRIMARY)
    assert primary["spec"]["selector"] == {"matchLabels": {"app.kubernetes.io/component": "web-primary"}}
    # The apex keeps what its owner has in its selector besides; the primary's pods have it too.
    assert cluster.store.get(APEX)["spec"]["selector"] == {
        "app.kubernetes.io/component": "web-primary",
        INSTANCE: "podinfo",
    }
    assert primary["spec"]["template"]["metadata"]["labels"][INSTANCE] == "podinfo"


def labelled(obj: Object, **metadata: Any) -> Object:
    return {**obj, "metadata": {**obj["metadata"], **metadata}}


def config(text: str, **metadata: Any) -> Object:
    base = {"name": "settings", "namespace": "test"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {**base, **metadata}, "data": {"text": text}}


COPIED = Key("", "ConfigMap", "test", "settings-primary")
USES_CONFIG = {"envFrom": [{"configMapRef": {"name": "settings"}}]}


async def test_labels_with_a_prefix_are_copied_to_the_primary_and_its_configs_but_for_flux_own(cluster: Cluster):
    labels = {"team": "shop", "team.example/tier": "gold", "other": "x", "kustomize.toolkit.fluxcd.io/name": "apps"}
    target = labelled(deployment("v1", **USES_CONFIG), labels=labels, annotations={"team.example/pager": "1", "note": "n"})
    cluster.write(target, service(), canary_object(), config("a", labels=labels))
    await run(cluster, 3, Flags(label_prefixes=("team",)))
    primary = cluster.store.get(PRIMARY)["metadata"]
    assert primary["labels"] == {"app": "podinfo-primary", "team": "shop", "team.example/tier": "gold"}
    assert primary["annotations"]["team.example/pager"] == "1"
    assert "note" not in primary["annotations"]
    assert cluster.store.get(COPIED)["metadata"]["labels"] == {"team": "shop", "team.example/tier": "gold"}
    whole = Flags(label_prefixes=("*",))
    cluster.write(labelled(deployment("v2", **USES_CONFIG), labels=labels))
    await run(cluster, 12, whole)
    assert cluster.status().phase is Phase.SUCCEEDED
    assert cluster.store.get(PRIMARY)["metadata"]["labels"].keys() == {"app", "team", "team.example/tier", "other"}


async def test_without_a_prefix_no_label_is_copied(cluster: Cluster):
    cluster.write(labelled(deployment(), labels={"team": "shop"}), service(), canary_object())
    await run(cluster, 3, Flags())
    assert cluster.store.get(PRIMARY)["metadata"]["labels"] == {"app": "podinfo-primary"}


@pytest.mark.parametrize("tracked", [True, False])
async def test_a_changed_config_is_a_release_unless_tracking_is_switched_off(cluster: Cluster, tracked: bool):
    flags = Flags(tracks_configs=tracked)
    cluster.write(deployment("v1", **USES_CONFIG), service(), canary_object(), config("a"))
    await run(cluster, 3, flags)
    cluster.write(config("b"))
    await run(cluster, 2, flags)
    assert cluster.status().phase is (Phase.PROGRESSING if tracked else Phase.INITIALIZED)
    assert (cluster.store.get(COPIED) is not None) == tracked
    container = cluster.store.get(PRIMARY)["spec"]["template"]["spec"]["containers"][0]
    assert container["envFrom"] == [{"configMapRef": {"name": "settings-primary" if tracked else "settings"}}]


async def test_alerts_and_event_webhooks_name_the_cluster(cluster: Cluster, receiver: Receiver):
    cluster.begin()
    environment = {"EVENT_WEBHOOK_URL": f"{receiver.url}/events", "SLACK_URL": f"{receiver.url}/slack"}
    telling = Telling(cluster.store, lambda: START, "", environment, cluster_name="edge-7")
    alert = Alert(INFO, "hi", (("Target", "Deployment/podinfo.test"),))
    telling.courier.tell(CANARY, parse(canary_object()), Status(), [Event(False, "hello")], [alert])
    await telling.courier.settled()
    await telling.close()
    bodies = {seen.path: seen.json for seen in receiver.seen}
    fields = [(field["title"], field["value"]) for field in bodies["/slack"]["attachments"][0]["fields"]]
    assert fields == [("Cluster", "edge-7"), ("Target", "Deployment/podinfo.test")]  # the first, as Flagger has it
    assert bodies["/events"]["metadata"]["cluster"] == "edge-7"


def test_a_simulation_goes_by_the_labels_it_is_given(tmp_path: Path):
    import yaml

    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all([by_instance(), canary_object()]))
    world = World(load(tmp_path / "all.yaml"), Given(flags=Flags(selector_labels=(INSTANCE,))))
    assert asyncio.run(world.run()).outcome is Outcome.PROMOTED


# ---------------------------------------------------------------- from the command line

GIVEN = [
    *("--canary-selector-labels", f"app,{INSTANCE}"),
    *("--canary-include-label-prefix", "team,app.kubernetes.io/"),
    *("--cluster-name", "edge-7"),
    "--no-config-tracking",
    "--no-cross-namespace-refs",
]
NEEDED = ["--state", "s", "--manifests", "m", "--listen", "127.0.0.1:1", "--admin", "127.0.0.1:2"]


def options(command: click.Command, argv: list[str]) -> canary_flags.CanaryOptions:
    return canary_flags.CanaryOptions.of(command.make_context(command.name or "", argv).params)


def test_up_hands_on_to_the_control_plane_what_it_was_given(tmp_path: Path):
    found = options(up, ["examples/shop/manifests", *GIVEN])
    settings = RuntimeSettings(Layout(tmp_path), tmp_path, tmp_path, control="127.0.0.1:1", canary_options=found.arguments())
    argv = control_command(settings, "127.0.0.1:2")
    taken = options(control, argv[argv.index("control") + 1 :])
    assert taken == found
    assert taken.flags == Flags(("app", INSTANCE), ("team", "app.kubernetes.io/"), tracks_configs=False)
    assert (taken.cluster_name, taken.cross_namespace_refs) == ("edge-7", False)


def test_nothing_is_handed_on_where_nothing_was_given():
    assert options(up, ["examples/shop/manifests"]).arguments() == ()
    taken = options(control, NEEDED)
    assert (taken.flags, taken.cluster_name, taken.cross_namespace_refs) == (Flags(), "", True)


@pytest.mark.parametrize("wrong", ["", "app,,name", "app name", "-app", "a/b/c", "x" * 64])
def test_a_list_of_labels_that_is_none_is_refused(wrong: str):
    with pytest.raises(click.BadParameter, match="expected names of labels"):
        options(control, [*NEEDED, "--canary-selector-labels", wrong])

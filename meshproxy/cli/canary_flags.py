"""What holds for all Canaries of a mesh, as flags of `meshproxy control`, and of `meshproxy up`, which hands them on.

argv --canary_options--> CanaryOptions --arguments()--> argv of the control plane
                                       --flags--------> control.canary.declared.spec.Flags
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from control.canary.declared.spec import Flags

_NAME = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?\Z")


def labels(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    """Names of labels with commas between; () where the flag is not given."""
    if value is None:
        return ()
    names = tuple(name.strip() for name in value.split(","))
    if not all(map(_NAME.match, names)):
        raise click.BadParameter(
            f"{value!r}: expected names of labels with commas between, such as app,app.kubernetes.io/instance"
        )
    return names


def _prefixes(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    return tuple(prefix.strip() for prefix in (value or "").split(",") if prefix.strip())


SELECTOR_LABELS = click.option(
    "--canary-selector-labels",
    metavar="LABEL,...",
    callback=labels,
    help="Which label of a target's selector tells it from its primary; the first that it has.  "
    "[default: app,name,app.kubernetes.io/name]",
)
_OPTIONS = (
    SELECTOR_LABELS,
    click.option(
        "--canary-include-label-prefix",
        metavar="PREFIX,...",
        callback=_prefixes,
        help="Labels of a target that its primary gets too; * for all.  [default: none]",
    ),
    click.option("--no-config-tracking", is_flag=True, help="A changed ConfigMap or Secret is no release, and has no copy."),
    click.option(
        "--no-cross-namespace-refs", is_flag=True, help="Refuse references of a Canary to objects in another namespace."
    ),
    click.option("--cluster-name", default="", metavar="NAME", help="How alerts and event webhooks name this mesh."),
)


@dataclass(frozen=True, slots=True)
class CanaryOptions:
    """() and "" where nothing was given."""

    selector_labels: tuple[str, ...] = ()
    label_prefixes: tuple[str, ...] = ()
    config_tracking: bool = True
    cross_namespace_refs: bool = True
    cluster_name: str = ""

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> CanaryOptions:
        """From what click has parsed."""
        return cls(
            params["canary_selector_labels"],
            params["canary_include_label_prefix"],
            not params["no_config_tracking"],
            not params["no_cross_namespace_refs"],
            params["cluster_name"],
        )

    def arguments(self) -> tuple[str, ...]:
        """As they were given."""
        return (
            *(("--canary-selector-labels", ",".join(self.selector_labels)) if self.selector_labels else ()),
            *(("--canary-include-label-prefix", ",".join(self.label_prefixes)) if self.label_prefixes else ()),
            *(() if self.config_tracking else ("--no-config-tracking",)),
            *(() if self.cross_namespace_refs else ("--no-cross-namespace-refs",)),
            *(("--cluster-name", self.cluster_name) if self.cluster_name else ()),
        )

    @property
    def flags(self) -> Flags:
        from control.canary.declared.spec import SELECTOR_LABELS, Flags

        return Flags(self.selector_labels or SELECTOR_LABELS, self.label_prefixes, tracks_configs=self.config_tracking)


def canary_options(function: Callable[..., None]) -> Callable[..., None]:
    """The flags, as one argument `canary` of the command."""

    @functools.wraps(function)
    def collected(*args: Any, **params: Any) -> None:
        canary = CanaryOptions.of(params)
        for name in (
            *("canary_selector_labels", "canary_include_label_prefix"),
            *("no_config_tracking", "no_cross_namespace_refs", "cluster_name"),
        ):
            del params[name]
        function(*args, canary=canary, **params)

    for option in reversed(_OPTIONS):
        collected = option(collected)
    return collected

"""AlertProvider (flagger.app/v1beta1): its shape, and what the shape cannot say.  `control.canary.declared.alerts` reads it."""

from __future__ import annotations

from typing import Literal

from control.canary.declared.fields import SpecError
from control.canary.declared.hooks import hook_url
from control.resources.canary import ObjectRef
from control.resources.core import ObjectMeta
from control.resources.shape import Report, Shape, words
from control.store.store import Object


class ProviderSpec(Shape, frozen=True, kw_only=True):
    type: Literal["slack", "msteams", "discord", "rocket", "gchat"]
    channel: str = ""
    username: str = ""
    address: str = ""
    proxy: str = ""
    secret_ref: ObjectRef | None = None


class ProviderShape(Shape, frozen=True, kw_only=True):
    unread = words("apiVersion kind status")
    metadata: ObjectMeta
    spec: ProviderSpec


def check_provider(obj: Object, report: Report) -> None:
    """An address from one place; what a Secret holds is looked at when an alert is sent."""
    spec = obj["spec"]
    if not spec.get("address") and not spec.get("secretRef"):
        report.error(
            ("spec",),
            "has neither address nor secretRef",
            "the address of a hook is a secret: put it in a Secret's data.address",
        )
    if spec.get("address") and spec.get("secretRef"):
        report.warning(("spec", "address"), "is not used where secretRef is given")
    for field in ("address", "proxy"):
        if spec.get(field):
            try:
                hook_url(spec[field], "")
            except SpecError as mistake:
                report.error(("spec", field), str(mistake).removeprefix(": "))

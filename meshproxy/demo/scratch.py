"""The demonstration's own copy of the shop's manifests, and the edits that are made to it while it runs.

    examples/shop/manifests --copy--> scratch/*.yaml --edit--> scratch/*.yaml     (a diff is shown)

An edit is what a person would type: text is replaced by text, and comments stay.
"""

from __future__ import annotations

import difflib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

RELAY_SLICE = "prices-recorded.yaml"


class EditError(Exception):
    """The text to replace is not there (any more); names file and text."""


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace every `old` in a file by `new`; there must be at least one."""

    old: str
    new: str


def version_edits(old: str, new: str) -> list[Edit]:
    return [Edit(f"version: {old}\n", f"version: {new}\n"), Edit(f'value: "{old}"', f'value: "{new}"')]


def value_edit(variable: str, old: str, new: str) -> Edit:
    """The value of an environment variable, written on the line after its name (and perhaps a comment)."""
    return Edit(f'{variable}\n              value: "{old}"', f'{variable}\n              value: "{new}"')


V2 = version_edits("v1", "v2")
V3 = [
    *version_edits("v2", "v3"),
    value_edit("- name: FAIL_RATE # share of requests answered with an error, 0 to 1", "0", "0.2"),
    value_edit("- name: DELAY_MS # wait before each answer", "0", "1500"),
]
V3_HEALTHY = version_edits("v2", "v3")


class Scratch:
    """A directory of manifests that the mesh watches."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @classmethod
    def copy(cls, directory: Path, ledger: Path) -> Scratch:
        """Copy the shop's manifests to `directory`, with the apps' ledger at `ledger`."""
        directory.mkdir(parents=True, exist_ok=True)
        with as_file(files("examples.shop") / "manifests") as manifests:
            for file in sorted(manifests.glob("*.yaml")):
                shutil.copyfile(file, directory / file.name)
        scratch = cls(directory)
        setting = value_edit("- name: LEDGER # a file each handled request is written to; none when empty", "", str(ledger))
        for name in ("web.yaml", "catalogue.yaml", "prices.yaml"):
            scratch.edit(name, [setting])
        return scratch

    def edit(self, name: str, edits: Sequence[Edit]) -> list[str]:
        """Change a manifest; returns the difference as a unified diff.

        The file is replaced by rename: the mesh sees the old text or the new one, never half of it.
        Raises EditError, and then nothing was changed.
        """
        path = self.directory / name
        before = after = path.read_text()
        for edit in edits:
            if edit.old not in after:
                raise EditError(f"{path}: expected to find {edit.old!r} to replace it by {edit.new!r}")
            after = after.replace(edit.old, edit.new)
        self._write(name, after)
        lines = difflib.unified_diff(before.splitlines(), after.splitlines(), f"a/{name}", f"b/{name}", n=1, lineterm="")
        return list(lines)

    def add(self, name: str, text: str) -> None:
        """One manifest more."""
        self._write(name, text)

    def _write(self, name: str, text: str) -> None:
        temporary = self.directory / f".{name}.tmp"  # no manifest by its name, so nobody reads it
        temporary.write_text(text)
        temporary.rename(self.directory / name)


def relay_manifest(address: str, pod: str, port: int) -> str:
    """One more address for a pod of `prices`: that of a relay which leads to it.

    An EndpointSlice beside the one that the control plane keeps, as for any Service whose endpoints are partly managed
    by hand.  `targetRef` says which pod answers there, so callers expect that pod's identity and no other.
    """
    return f"""\
# Another way to the pod {pod}: the recording relay at {address}.
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: prices-recorded
  namespace: shop
  labels:
    kubernetes.io/service-name: prices
addressType: IPv4
ports:
  - name: grpc
    port: {port}
    protocol: TCP
    appProtocol: grpc
endpoints:
  - addresses:
      - {address}
    conditions:
      ready: true
      serving: true
      terminating: false
    targetRef:
      kind: Pod
      namespace: shop
      name: {pod}
"""

"""Ways to break the demonstration on purpose, to see that it notices: environment variable MESHPROXY_DEMO_BREAK.

    v3-healthy      the edit called v3 neither fails nor is slow      -> it is promoted, not rolled back
    mtls-off        prices has no sidecar, the others take plaintext  -> no identity, the marker on the wire, intruders let in
    split-ignored   web asks for catalogue-primary, not catalogue     -> the canary's share is nothing, whatever its weight

For tests.  Nothing of the mesh is changed by it, only what it is asked to run.
"""

from __future__ import annotations

import enum

from meshproxy.demo.scratch import V3, V3_HEALTHY, Edit, Scratch, value_edit

VARIABLE = "MESHPROXY_DEMO_BREAK"


class Break(enum.Enum):
    NOTHING = ""
    V3_HEALTHY = "v3-healthy"
    MTLS_OFF = "mtls-off"
    SPLIT_IGNORED = "split-ignored"

    @property
    def v3(self) -> list[Edit]:
        """The edit that makes v3."""
        return V3_HEALTHY if self is Break.V3_HEALTHY else V3

    def apply(self, scratch: Scratch) -> None:
        """Change the manifests before anything runs."""
        if self is Break.MTLS_OFF:
            scratch.edit("prices.yaml", [_annotated("prices", "linkerd.io/inject: disabled")])
            for app in ("web", "catalogue"):
                scratch.edit(f"{app}.yaml", [_annotated(app, "meshproxy.dev/default-inbound-policy: all-unauthenticated")])
        elif self is Break.SPLIT_IGNORED:
            old, new = "http://catalogue.shop", "http://catalogue-primary.shop"
            scratch.edit("web.yaml", [value_edit("- name: CATALOGUE_URL", old, new)])


def _annotated(app: str, annotation: str) -> Edit:
    """An annotation on the pod template."""
    labels = f"    metadata:\n      labels:\n        app: {app}\n"
    return Edit(labels, f"    metadata:\n      annotations:\n        {annotation}\n      labels:\n        app: {app}\n")

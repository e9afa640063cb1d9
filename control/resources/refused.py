"""What stands in the manifests and cannot be taken, and what is known of it all the same.

    files, what was taken of them --Refused.reviewed()--> Refused --hides(), may_select() ...--> checks between objects

Such a check says neither that an object is missing which is there, only wrong, nor keeps silent about all others because of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from control.resources.documents import Mentioned, Path
from control.resources.kinds import KIND_NAMES
from control.resources.shape import closest
from control.resources.validate import Checked, CheckedFile, Review
from control.store.store import Diagnostic, Key

_TEMPLATES: dict[str, Path] = {"Deployment": ("spec", "template"), "Pod": ()}  # where the pod stands in them


@dataclass(frozen=True, slots=True)
class Pods:
    """Of a refused Deployment or Pod; None: not known."""

    namespace: str
    labels: Mapping[str, str] | None = None
    account: str | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    keys: frozenset[Key] = frozenset()
    mentioned: tuple[Mentioned, ...] = ()  # what nobody can name, or not for sure
    pods: tuple[Pods, ...] = ()

    @classmethod
    def of(cls, diagnostics: Iterable[Diagnostic]) -> Refused:
        """Where nothing is left of them but what was said."""
        keys = {diagnostic.key for diagnostic in diagnostics if diagnostic.severity == "error"}
        named = frozenset(key for key in keys if key is not None)
        pods = tuple(Pods(key.namespace) for key in named if key.kind in _TEMPLATES)
        return cls(named, (Mentioned(),) if None in keys else (), pods)

    @classmethod
    def reviewed(cls, problems: Sequence[Diagnostic], files: Sequence[CheckedFile], review: Review) -> Refused:
        """`problems`: of the directory itself."""
        named = frozenset(review.refused - review.withheld.keys())
        documents = [checked for file in files for checked in file.documents]
        mentioned = [file.mentioned for file in files if file.mentioned is not None]
        mentioned += [one for checked in documents if (one := _mentioned(checked)) is not None]
        if any(problem.severity == "error" for problem in problems):
            mentioned.append(Mentioned())
        return cls(named, tuple(mentioned), tuple(_pods(documents, named)))

    def hides(self, key: Key) -> bool:
        """It may be there."""
        return key in self.keys or any(one.fits(key.kind, key.name) for one in self.mentioned)

    def may_select(self, namespace: str, selector: Mapping[str, str]) -> bool:
        """A selector may select a pod of something that was refused."""
        return self._any_pods or any(
            one.namespace == namespace and (one.labels is None or selector.items() <= one.labels.items()) for one in self.pods
        )

    def may_run_as(self, namespace: str, account: str) -> bool:
        """A pod of something that was refused may have this service account."""
        return self._any_pods or any(one.namespace == namespace and one.account in (None, account) for one in self.pods)

    @property
    def _any_pods(self) -> bool:
        return any(one.kinds is None or not one.kinds.isdisjoint(_TEMPLATES) for one in self.mentioned)


def _mentioned(checked: Checked) -> Mentioned | None:
    """A document without a name, or one that is ignored: the kind may be misspelt."""
    obj = checked.document.obj
    if not isinstance(obj, dict) or (checked.key is not None and not checked.ignored):
        return None
    kind, metadata = obj.get("kind"), obj.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    kinds = names = None
    if isinstance(kind, str):
        meant = kind if kind in KIND_NAMES else closest(kind, KIND_NAMES)
        kinds = frozenset({meant} if meant else ())
    if isinstance(name, str):
        names = frozenset({name})
    return Mentioned(kinds, names)


def _pods(documents: Iterable[Checked], refused: frozenset[Key]) -> Iterator[Pods]:
    for checked in documents:
        key = checked.key
        if key not in refused or key is None or key.kind not in _TEMPLATES:
            continue
        base = _TEMPLATES[key.kind]
        found: Any = checked.sound
        for part in base:
            found = found.get(part) if isinstance(found, dict) else None
        labels = account = None
        if found is not None and _untouched(checked.wrong, base, "metadata"):
            labels = (found.get("metadata") or {}).get("labels") or {}
        if found is not None and _untouched(checked.wrong, (*base, "spec"), "serviceAccountName"):
            account = (found.get("spec") or {}).get("serviceAccountName") or "default"
        yield Pods(key.namespace, labels, account)


def _untouched(wrong: Sequence[Path], base: Path, name: str) -> bool:
    """No mistake encloses the field `name` of `base`, is within it, or is of a field beside it: that may be it, misspelt."""
    depth = len(base)
    return not any(
        base[: len(path)] == path or (path[:depth] == base and (path[depth] == name or len(path) == depth + 1))
        for path in wrong
    )

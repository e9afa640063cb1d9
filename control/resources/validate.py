"""Is a document an object we can take?  All its mistakes, each with its line.

document -> apiVersion and kind known? -> metadata -> shape of the kind -> meaning -> (embedded mode's subset)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from control.resources import access, traffictarget
from control.resources.annotations import REFUSED as WHY_REFUSED
from control.resources.documents import Document, Mentioned, Parsed, Path, without_nulls
from control.resources.embedded import check_embedded
from control.resources.kinds import CLUSTER_SCOPED, INSTEAD, KIND_NAMES, KINDS, REFUSED
from control.resources.meaning import LABEL, check_meaning
from control.resources.shape import Report, check_shape, nearest, shown, without_mistakes
from control.store.store import Diagnostic, Key, Object

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")

# Written by servers; a document exported with `kubectl get -o yaml` has them, `kubectl apply` takes no notice.
_SERVER_METADATA = [
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "resourceVersion",
    "selfLink",
    "uid",
]


@dataclass(slots=True)
class Checked:
    """A document after checking.  `key` is None if it cannot be named; `obj` is None if it is refused or ignored; then `sound`
    is what is left of it without what is wrong in shape, if enough is, and `wrong` where the mistakes are."""

    document: Document
    key: Key | None = None
    obj: Object | None = None
    ignored: bool = False
    diagnostics: list[Diagnostic] = field(default_factory=list)
    sound: Object | None = None
    wrong: list[Path] = field(default_factory=list)


@dataclass(slots=True)
class CheckedFile:
    name: str
    documents: list[Checked] = field(default_factory=list)
    diagnostics: list[Diagnostic] = field(default_factory=list)  # of the file itself
    holds: bool = False  # not readable to its end, or a document in it has no name: nothing of it may be taken as gone
    mentioned: Mentioned | None = None  # in the part that is not readable


def check_file(name: str, parsed: Parsed) -> CheckedFile:
    documents = [check_document(document) for document in parsed.documents]
    unnamed = any(document.key is None and not document.ignored for document in documents)
    return CheckedFile(name, documents, list(parsed.diagnostics), parsed.broken or unnamed, parsed.mentioned)


def check_document(document: Document) -> Checked:
    """Check one document for embedded mode."""
    checked = _checked(document)
    if checked.obj is None and not checked.ignored and isinstance(document.obj, dict):
        _tell_what_is_open(checked, document.obj)
    return checked


def _tell_what_is_open(checked: Checked, obj: Object) -> None:
    """With the first mistake of a TrafficTarget: what becomes of the pods it is about."""
    if obj.get("kind") != "TrafficTarget":
        return
    stands = access.closed(obj, checked.key.namespace, checked.key.name, "") if checked.key is not None else None
    if stands is not None:
        selected = f"service account {stands['spec']['destination']['name']} is selected all the same"
        outcome = f"unless a version from before is in force, {selected}, and this allows nothing"
    else:
        outcome = "it cannot be said whom it selects: unless a version from before is in force, this target protects nothing"
    for number, first in enumerate(checked.diagnostics):
        if first.severity == "error":
            checked.diagnostics[number] = replace(first, hint=f"{first.hint}; {outcome}" if first.hint else outcome)
            break


def _checked(document: Document) -> Checked:
    report = Report(document)
    checked = Checked(document, diagnostics=report.diagnostics)
    obj = document.obj
    if not isinstance(obj, dict):
        report.error((), f"found {shown(obj)}, expected a Kubernetes object", "it begins with apiVersion and kind")
        return checked
    api_version, kind_name = obj.get("apiVersion"), obj.get("kind")
    for name, value in (("apiVersion", api_version), ("kind", kind_name)):
        if not isinstance(value, str) or not value:
            what = f"found {shown(value)}, expected a string" if value is not None else "is missing"
            report.error((name,), what, _beside(api_version, kind_name))
    if report.failed:
        return checked
    assert isinstance(api_version, str)
    assert isinstance(kind_name, str)
    group = api_version.rpartition("/")[0]
    kind = KINDS.get((group, kind_name))
    if group == "kustomize.config.k8s.io":  # it has no name
        report.warning(("kind",), f"ignored: {kind_name} is kustomize's own", INSTEAD[group, ""])
        checked.ignored = True
        return checked
    named = _name(obj, report)
    if named is None:
        return checked
    checked.key = report.key = Key(group, kind_name, *named)
    if (group, kind_name) in REFUSED:
        report.error(("kind",), f"{kind_name} does not run in embedded mode", REFUSED[group, kind_name])
        return checked
    if kind is None:
        hint = nearest(kind_name, KIND_NAMES) if group in {known.group for known in KINDS.values()} else ""
        others = [known for known in KINDS.values() if known.kind == kind_name]
        if others:
            hint = f"did you mean apiVersion: {others[0].api_versions[-1]}?"
        hint = hint or INSTEAD.get((group, kind_name)) or INSTEAD.get((group, ""), "")
        report.warning(("kind",), f"ignored: {api_version} {kind_name} is not used in embedded mode", hint)
        checked.ignored = True
        return checked
    if api_version not in kind.api_versions:
        expected = f"found {api_version}, expected {' or '.join(kind.api_versions)}"
        if not group.endswith(".smi-spec.io"):
            report.error(("apiVersion",), expected)
            return checked
        # Nobody writes SMI's versions any more, so one that is not known is a mistake or a draft; what it says is plain.
        report.warning(("apiVersion",), expected, f"it is read as {kind.versions[-1]}")
    report.secret = kind.shape.secret
    check_shape(obj, kind.shape, report)
    sound = without_mistakes(obj, kind.shape, report.paths) if report.failed else obj
    if sound is not None and isinstance(sound.get("metadata"), dict) and "name" in sound["metadata"]:
        clean = _cleaned(sound, kind.namespaced)
        _meaning_of_the_sound_part(clean, report)
        if not report.failed:
            checked.obj = clean
        checked.sound = clean
        found = zip(report.paths, report.diagnostics, strict=True)
        checked.wrong = [path for path, diagnostic in found if diagnostic.severity == "error"]
    # one order for all: by line, as the file is read
    report.diagnostics.sort(key=lambda diagnostic: diagnostic.line)
    return checked


def _beside(api_version: object, kind_name: object) -> str:
    """What goes with the one of the two that is there."""
    kinds = [kind for kind in KINDS.values() if kind.kind == kind_name or api_version in kind.api_versions]
    if not kinds:
        return ""
    if kinds[0].kind == kind_name:
        return f"a {kind_name} has apiVersion: {kinds[0].api_versions[-1]}"
    return f"of {api_version} there are {', '.join(kind.kind for kind in kinds)}"


def _name(obj: Object, report: Report) -> tuple[str, str] | None:
    """(namespace, name), or None when the document cannot be identified."""
    metadata = obj.get("metadata")
    if not isinstance(metadata, dict):
        report.error(
            ("metadata",),
            "is missing, expected a map with a name" if metadata is None else f"found {shown(metadata)}, expected a map",
        )
        return None
    name, namespace = metadata.get("name"), metadata.get("namespace")
    if name is None and metadata.get("generateName"):
        report.error(("metadata", "generateName"), "is not supported in manifests", "give metadata.name")
        return None
    if name is None:
        report.error(("metadata", "name"), "is missing, expected a string")
        return None
    if not isinstance(name, str) or len(name) > 253 or not _SUBDOMAIN.match(name):
        hint = "put it in quotes" if isinstance(name, (int, float)) else ""
        report.error(("metadata", "name"), f"found {shown(name)}, expected lower-case letters, digits, '-' and '.'", hint)
        return None
    if namespace is not None and (not isinstance(namespace, str) or len(namespace) > 63 or not LABEL.match(namespace)):
        report.error(("metadata", "namespace"), f"found {shown(namespace)}, expected lower-case letters, digits and '-'")
        return None
    if (str(obj["apiVersion"]).rpartition("/")[0], obj["kind"]) in CLUSTER_SCOPED:
        namespace = None
    return namespace or "default", name


def _cleaned(obj: Object, namespaced: bool) -> Object:
    """As the store keeps it: no nulls, no status, nothing that servers write, the namespace always named."""
    clean: Object = without_nulls(obj)
    clean.pop("status", None)
    metadata = clean["metadata"]
    for name in _SERVER_METADATA:
        metadata.pop(name, None)
    if namespaced:
        metadata["namespace"] = metadata.get("namespace") or "default"
    else:
        metadata.pop("namespace", None)
    if obj["kind"] == "TrafficTarget" and metadata.get("annotations"):
        metadata["annotations"].pop(WHY_REFUSED, None)
    return clean


def _meaning_of_the_sound_part(obj: Object, report: Report) -> None:
    """What is wrong in meaning; mistakes that only follow from one in shape are left out."""
    second = Report(report.document, report.key, report.secret)
    check_meaning(obj, second)
    check_embedded(obj, second)
    cut = report.paths[:]
    for path, diagnostic in zip(second.paths, second.diagnostics, strict=True):
        if not any(_follows(path, wrong, report.document.obj) for wrong in cut):
            report.paths.append(path)
            report.diagnostics.append(diagnostic)


def _follows(path: Path, wrong: Path, obj: Any) -> bool:
    """A complaint about `path` only follows from the mistake at `wrong`: one encloses the other, or a field is missing beside
    one that is misspelt."""
    if path == wrong[: len(path)] or wrong == path[: len(wrong)]:
        return True
    if path[:-1] != wrong[:-1]:
        return False
    for part in path[:-1]:
        obj = obj[part]
    return isinstance(obj, dict) and path[-1] not in obj


# ---------------------------------------------------------------- several files


@dataclass(slots=True)
class Review:
    """What a directory of manifests asks for."""

    accepted: dict[Key, Checked] = field(default_factory=dict)
    refused: set[Key] = field(default_factory=set)  # named but not acceptable: what was accepted before stays
    withheld: dict[Key, Checked] = field(default_factory=dict)  # of them: nothing wrong in it, only elsewhere in its file
    closed: dict[Key, tuple[Checked, Object]] = field(default_factory=dict)  # of the refused: what stands for TrafficTargets
    holding: set[str] = field(default_factory=set)  # files of which nothing may be taken as gone
    diagnostics: list[Diagnostic] = field(default_factory=list)
    documents: int = 0  # of any kind, good or bad


def review(files: Sequence[CheckedFile]) -> Review:
    """Put files together: an object that stands in two places is refused, naming both."""
    result = Review()
    places: dict[Key, list[Checked]] = {}
    for file in files:
        result.diagnostics.extend(file.diagnostics)
        if file.holds:
            result.holding.add(file.name)
        result.documents += len(file.documents)
        for checked in file.documents:
            result.diagnostics.extend(checked.diagnostics)
            if checked.key is not None and not checked.ignored:
                places.setdefault(checked.key, []).append(checked)
    broken = {file.name for file in files if any(d.severity == "error" for d in file.diagnostics)}
    for key, found in places.items():
        if len(found) > 1:
            result.refused.add(key)
            result.diagnostics.extend(_duplicates(key, found))
        elif found[0].obj is None or found[0].document.file in broken:
            result.refused.add(key)
            if found[0].obj is not None:
                result.withheld[key] = found[0]
        else:
            result.accepted[key] = found[0]
    for key in result.refused:
        if (key.group, key.kind) == (traffictarget.GROUP, "TrafficTarget") and (
            stands := _closed(key, places[key])
        ) is not None:
            result.closed[key] = stands
    result.diagnostics.sort(key=lambda diagnostic: (diagnostic.file, diagnostic.line))
    return result


def _closed(key: Key, found: Sequence[Checked]) -> tuple[Checked, Object] | None:
    """What stands for a refused TrafficTarget; of one in several places, the first that says whom it selects."""
    for checked in found:
        mistake = next((one for one in checked.diagnostics if one.severity == "error"), None)
        if mistake is not None:
            why = f"{mistake.field}: {mistake.message}" if mistake.field else mistake.message
        else:
            why = "it is in several places" if len(found) > 1 else "its file has a mistake elsewhere"
        stands = access.closed(checked.document.obj, key.namespace, key.name, why)
        if stands is not None:
            return checked, stands
    return None


def _duplicates(key: Key, found: list[Checked]) -> Iterator[Diagnostic]:
    for checked in found:
        document = checked.document
        others = ", ".join(f"{other.document.file}:{other.document.line}" for other in found if other is not checked)
        message = f"{key} is also in {others}; none of them is taken"
        yield Diagnostic("error", document.file, document.line, "metadata.name", message, "keep one", key)

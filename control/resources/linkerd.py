"""Linkerd's annotations that mean nothing here, so that nobody who brings manifests believes they do.

    annotation of Linkerd's --+-- read here (annotations.FOREIGN), and stands where it is read --> its own check has its value
                              +-- read here, and stands elsewhere    --> told where it belongs
                              +-- `NOT_READ`                         --> told, with what there is instead
                              +-- `WRITTEN` by Linkerd itself        --> nothing: it comes with what was exported
                              +-- none of them                       --> told, with the one that is nearest

The names are those of Linkerd 2.20 and of versions before it; docs/annotations.md lists them for people.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from control.resources.core import OPAQUE_PROTOCOLS
from control.resources.shape import PREFIXED, closest, nearest, shown
from control.store.store import Object

Finding = tuple[str, str, str]  # annotation, what is wrong, hint

INJECT = "linkerd.io/inject"
OPAQUE = "config.linkerd.io/opaque-ports"
_INJECTIONS = ("enabled", "disabled")

_CONFIG = "config.linkerd.io/"
_BALANCER = "balancer.alpha.linkerd.io/"
_BYTES = "give the Service's port appProtocol: tcp; a server that speaks first is found out without"
_SAMPLE = "without it a failure counts as a slow answer here, and meshproxy.dev/breaker leaves out endpoints that fail"

# What there is instead -> the annotations.
_INSTEAD: dict[str, Sequence[str]] = {
    _BYTES: (OPAQUE,),
    "meshproxy.dev/timeout-response-start, with retries of gateway-error": ("retry.linkerd.io/timeout",),
    "meshproxy.dev/default-inbound-policy, on the pod": (f"{_CONFIG}default-inbound-policy",),
    "meshproxy.dev/workers, on the pod, says how many processes its sidecar has": (
        f"{_CONFIG}proxy-cpu-limit",
        f"{_CONFIG}proxy-cpu-ratio-limit",
    ),
    "an app goes through its sidecar where http_proxy or NAME_SERVICE_HOST leads it, and past it otherwise": (
        f"{_CONFIG}skip-outbound-ports",
        f"{_CONFIG}skip-subnets",
    ),
    "a sidecar that ends accepts for another half second without it": (
        "config.alpha.linkerd.io/proxy-wait-before-exit-seconds",
    ),
    "`meshproxy explain` says where requests go, and why": (
        f"{_CONFIG}enable-debug-sidecar",
        f"{_CONFIG}debug-image",
        f"{_CONFIG}debug-image-version",
        f"{_CONFIG}debug-image-pull-policy",
    ),
    "there is no tap; `meshproxy stat` and `meshproxy explain` show requests": (
        "viz.linkerd.io/disable-tap",
        "viz.linkerd.io/external-prometheus",
        f"{_CONFIG}disable-tap",
    ),
    "every sidecar has an identity": (f"{_CONFIG}disable-identity", "linkerd.io/identity-mode"),
    "meshproxy.dev/empty-backend: redistribute gives the share of a backend without endpoints to the others": (
        "failover.linkerd.io/primary-service",
    ),
    _SAMPLE: (
        f"{_BALANCER}penalize-failures",
        *(f"{_BALANCER}load-bias{name}" for name in ("", "-penalty", "-penalty-decay")),
        *(f"{_BALANCER}load-biaser-{name}" for name in ("penalty", "max-retry-after")),
    ),
    "a breaker honours Retry-After without it": (f"{_BALANCER}failure-accrual-honor-retry-after",),
    # tuning of Linkerd's own sidecar, for which there is nothing to say here
    "": (
        *(
            f"{_CONFIG}{name}"
            for name in (
                "access-log",
                "admin-port",
                "close-wait-timeout",
                "control-port",
                "enable-external-profiles",
                "enable-gateway",
                "image-pull-policy",
                "inbound-port",
                "init-image",
                "init-image-version",
                "outbound-port",
                "pod-inbound-ports",
                "proxy-additional-env",
                "proxy-admin-shutdown",
                "proxy-await",
                "proxy-cpu-request",
                "proxy-disable-inbound-protocol-detect-timeout",
                "proxy-disable-outbound-protocol-detect-timeout",
                "proxy-enable-native-sidecar",
                "proxy-ephemeral-storage-limit",
                "proxy-ephemeral-storage-request",
                "proxy-gid",
                "proxy-image",
                "proxy-inbound-connect-timeout",
                "proxy-inbound-discovery-cache-unused-timeout",
                "proxy-log-format",
                "proxy-log-http-headers",
                "proxy-log-level",
                "proxy-memory-limit",
                "proxy-memory-request",
                "proxy-metrics-hostname-labels",
                "proxy-outbound-connect-timeout",
                "proxy-outbound-discovery-cache-unused-timeout",
                "proxy-require-identity-inbound-ports",
                "proxy-uid",
                "proxy-version",
                "shutdown-grace-period",
                "skip-inbound-ports",
                "trace-collector",
            )
        ),
        "config.alpha.linkerd.io/proxy-enable-native-sidecar",
        "config.alpha.linkerd.io/trace-collector-service-account",
        "config.beta.linkerd.io/proxy-enable-native-sidecar",
        "smi.linkerd.io/skip",
    ),
}
NOT_READ: dict[str, str] = {name: instead for instead, names in _INSTEAD.items() for name in names}

# Linkerd's injector, its tap and its mirror write them.
WRITTEN = frozenset(
    {
        *(f"linkerd.io/{name}" for name in ("created-by", "proxy-version", "trust-root-sha256", "identity-issuer-expiry")),
        "viz.linkerd.io/tap-enabled",
    }
)

_DOMAIN = re.compile(r"([a-z0-9-]+\.)*linkerd\.io/")
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?\Z")
_PORT_NAME = re.compile(r"(?=.*[a-z])[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?\Z")  # a container port's: of a pod only


def strays(
    annotations: Mapping[str, str], kind: str, read: Mapping[str, tuple[str, ...]], ports: Sequence[Object]
) -> list[Finding]:
    """Annotations of Linkerd's without effect on an object of this kind ("Pod": also a pod template); those of which the same
    is to be said are said in one.

    read    annotation -> the kinds on which it is read here
    ports   of a Service, as written"""
    found: list[Finding] = []
    for name in annotations:
        if not _DOMAIN.match(name) or name in WRITTEN:
            continue
        if name == INJECT:
            found += _inject(annotations[name], kind)
        elif name == OPAQUE:
            found += _opaque(annotations[name], kind, ports)
        elif name in NOT_READ:
            found.append((name, "is not supported and has no effect", NOT_READ[name]))
        elif name not in read:
            found.append((name, "is not supported and has no effect", _meant(name, kind, read)))
        elif kind not in read[name]:
            found.append((name, *misplaced(kind, read[name])))
    alike: dict[tuple[str, str], list[str]] = {}
    for name, message, hint in found:
        alike.setdefault((message, hint), []).append(name)
    return [_as_one(names, message, hint) for (message, hint), names in alike.items()]


def misplaced(kind: str, places: tuple[str, ...]) -> tuple[str, str]:
    """What is wrong with an annotation that is read on objects of other kinds; hint."""
    words = ["pod" if place == "Pod" else place for place in places]
    one_of = " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))
    hint = "put it into spec.template.metadata.annotations" if kind == "Deployment" and "Pod" in places else ""
    return f"has no effect on {'an' if kind[0] in 'AEHI' else 'a'} {kind}: it is read on a {one_of}", hint


def _as_one(names: list[str], message: str, hint: str) -> Finding:
    first, *others = names
    if others:
        message += f"; so it is with {' and '.join(filter(None, (', '.join(others[:-1]), others[-1])))}"
    return first, message, hint


def _inject(value: str, kind: str) -> list[Finding]:
    if kind == "Namespace":
        if value == "enabled":
            return []  # as it is anyway
        hint = "put it on the pods: spec.template.metadata.annotations of their Deployments"
        return [(INJECT, "has no effect on a Namespace: its pods have a sidecar if they do not say otherwise", hint)]
    if kind != "Pod":
        return [(INJECT, *misplaced(kind, ("Pod",)))]
    if value in _INJECTIONS:
        return []
    if value == "ingress":
        return [(INJECT, "there is no ingress mode: the sidecar is one as any other", "people come in by the gateway")]
    return [(INJECT, f"found {shown(value)}, expected enabled or disabled; it is enabled", nearest(value, list(_INJECTIONS)))]


def _opaque(value: str, kind: str, ports: Sequence[Object]) -> list[Finding]:
    if kind not in ("Namespace", "Pod", "Service"):
        places = "in Linkerd it is for a Namespace, pod or Service"
        return [
            (
                OPAQUE,
                f"is not supported, and has no effect on {'an' if kind[0] in 'AEHI' else 'a'} {kind} at all: {places}",
                _BYTES,
            )
        ]
    words = [word.strip() for word in value.split(",")]
    for word in words:
        ends = _PORTS.match(word)
        if ends is not None and 0 < int(ends[1]) <= int(ends[2] or ends[1]) <= 65535:
            continue
        if kind == "Service" or not _PORT_NAME.match(word):
            message = f"is not supported and has no effect; and {shown(word)} is no port, nor a range such as 3306-3310"
            return [(OPAQUE, message, _BYTES)]
    if kind != "Service":
        return [(OPAQUE, "is not supported and has no effect", _BYTES)]
    named = [port for port in ports if _listed(port, words)]
    plain = [str(port["port"]) for port in named if str(port.get("appProtocol", "")).lower() not in OPAQUE_PROTOCOLS]
    if named and not plain:
        return []  # said already, in the way that is read here
    hint = f"give port {' and '.join(plain)} of this Service appProtocol: tcp" if plain else _BYTES
    return [(OPAQUE, "is not supported and has no effect", hint)]


def _listed(port: Object, words: Sequence[str]) -> bool:
    numbers = {port.get("port"), port.get("targetPort")}
    for word in words:
        if (ends := _PORTS.match(word)) is not None:
            first, last = int(ends[1]), int(ends[2] or ends[1])
            if any(isinstance(number, int) and first <= number <= last for number in numbers):
                return True
    return False


def _meant(name: str, kind: str, read: Mapping[str, tuple[str, ...]]) -> str:
    """For an annotation that nobody knows: the one that may have been meant."""
    domain, _, word = name.partition("/")
    here = [known for known, kinds in read.items() if _DOMAIN.match(known) and kind in kinds]
    known = [*here, *(one for one in read if _DOMAIN.match(one)), *NOT_READ]
    meant = _alike(domain, word, here) or _alike(domain, word, known)
    meant = meant or closest(name, here, PREFIXED) or closest(name, known, PREFIXED)
    if not meant:
        same = [one for one in known if one.partition("/")[2] == word]  # in the wrong domain
        meant = same[0] if same else ""
    if not meant:
        return ""
    also = f" That is not supported either{': ' * bool(NOT_READ[meant])}{NOT_READ[meant]}" if meant in NOT_READ else ""
    return f"did you mean {meant}?{also}"


def _alike(domain: str, word: str, known: Sequence[str]) -> str:
    names = [one.partition("/")[2] for one in known if one.partition("/")[0] == domain]
    near = closest(word, names, 0.8)
    return f"{domain}/{near}" if near else ""

"""What an app is started with: its environment and command line, as Kubernetes would make them.  Pure.

    later wins:   the machine's basics < what the mesh sets < <SERVICE>_SERVICE_HOST/_PORT < envFrom < env
    $(VAR)        in `env` values: what was set before it in the list or came from envFrom;
                  in command and args: everything.   $$(VAR) is a literal $(VAR); an unknown one stays as it is.

What cannot be resolved (a ConfigMap that is missing and not `optional`) is `ConfigError`; the pod then waits with
reason CreateContainerConfigError and looks again, as in Kubernetes.
"""

from __future__ import annotations

import base64
import binascii
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
# (kind, name) -> the ConfigMap or Secret of the pod's namespace, None if there is none
Lookup = Callable[[str, str], Object | None]

# A process on a laptop needs these of its surroundings; the rest of the user's environment stays out, as in a container.
INHERITED = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR"),
    *("PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR"),
)
TELLING = (
    *("EVENT_WEBHOOK_URL", "SLACK_URL", "SLACK_TOKEN", "SLACK_CHANNEL", "SLACK_USER", "MSTEAMS_URL"),
    *("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
)
_REFERENCE = re.compile(r"\$(?:\$|\(([-._a-zA-Z][-._a-zA-Z0-9]*)\))")
_VARIABLE = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*\Z")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]\Z")


class ConfigError(Exception):
    """Something the container's configuration refers to is not there; `str()` says what."""


@dataclass(frozen=True, slots=True)
class ServiceListener:
    """One port of one Service, as the pod's own sidecar serves it."""

    service: str  # "<namespace>/<name>"
    port: int  # of the Service
    port_name: str
    address: str  # host:port on the pod's own address


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """The machine's basics, from the supervisor's own environment."""
    return {name: environment[name] for name in INHERITED if name in environment}


def of_the_mesh(environment: Mapping[str, str]) -> dict[str, str]:
    """What the mesh's own processes get: the basics, what people set for meshproxy, and unbuffered output."""
    own = {name: value for name, value in environment.items() if name.startswith("MESHPROXY_")}
    return {**inherited(environment), **own, "PYTHONUNBUFFERED": "1"}


def of_the_control_plane(environment: Mapping[str, str]) -> dict[str, str]:
    """What it has besides: whom to tell of releases, under Flagger's names, and the way to them."""
    return {name: environment[name] for name in TELLING if name in environment}


def mesh_environment(pod_name: str, pod_ip: str, outbound: str | None) -> dict[str, str]:
    """What the runtime sets: HOSTNAME, unbuffered Python (or its log stays empty), and the sidecar as the proxy.

    Args:
        outbound: host:port of the sidecar's outbound listener, None for a pod without one.

    `no_proxy` names the pod's own address and the machine's loopback names only: other pods have addresses in
    127.0.0.0/8 too, and reaching them is what the proxy is for.
    """
    found = {"HOSTNAME": pod_name, "PYTHONUNBUFFERED": "1", "POD_IP": pod_ip}
    if outbound is not None:
        found |= dict.fromkeys(("http_proxy", "HTTP_PROXY", "grpc_proxy"), f"http://{outbound}")
        found |= dict.fromkeys(("no_proxy", "NO_PROXY", "no_grpc_proxy"), f"localhost,127.0.0.1,{pod_ip}")
    return found


def service_environment(listeners: Sequence[ServiceListener], namespace: str) -> dict[str, str]:
    """<NAME>_SERVICE_HOST, _SERVICE_PORT (the first port) and _SERVICE_PORT_<PORT NAME> of the namespace's Services."""
    found: dict[str, str] = {}
    for listener in listeners:
        owner, _, name = listener.service.partition("/")
        if owner != namespace:
            continue
        prefix = name.upper().replace("-", "_").replace(".", "_")
        host, _, port = listener.address.rpartition(":")
        found.setdefault(f"{prefix}_SERVICE_HOST", host)
        found.setdefault(f"{prefix}_SERVICE_PORT", port)
        if listener.port_name:
            found[f"{prefix}_SERVICE_PORT_{listener.port_name.upper().replace('-', '_')}"] = port
    return found


def container_environment(
    container: Object, pod: Object, pod_ip: str, lookup: Lookup, base: Mapping[str, str]
) -> dict[str, str]:
    """The whole environment of a container.

    Raises:
        ConfigError: a reference that does not resolve.
    """
    result = dict(base)
    declared: dict[str, str] = {}
    for source in container.get("envFrom") or []:
        declared |= _env_from(source, lookup)
    for item in container.get("env") or []:
        name = str(item["name"])
        if item.get("valueFrom"):
            value = _value_from(item["valueFrom"], name, pod, pod_ip, lookup)
            if value is None:
                continue
        else:
            value = expand(str(item.get("value") or ""), {**result, **declared})
        declared[name] = value
    return result | declared


def command_line(container: Object, environment: Mapping[str, str]) -> list[str]:
    """command + args with $(VAR) expanded; `python` and `python3` are this very interpreter, so that an app finds the
    packages that meshproxy was installed with, and `meshproxy` is this very program.

    Raises:
        ConfigError: there is no command: an image cannot be run as a process.
    """
    words = [expand(str(word), environment) for word in [*(container.get("command") or []), *(container.get("args") or [])]]
    if not container.get("command") or not words[0]:
        raise ConfigError(
            f'container "{container.get("name")}" has an image but no command: a local pod is a process; give it a command'
        )
    if words[0] in ("python", "python3"):
        words[0] = sys.executable
    elif words[0] == "meshproxy":
        words[:1] = [sys.executable, "-m", "meshproxy"]
    return words


def expand(text: str, variables: Mapping[str, str]) -> str:
    """$(VAR) as Kubernetes expands it."""

    def replacement(match: re.Match[str]) -> str:
        if match.group(0) == "$$":
            return "$"
        name = match.group(1)
        return variables.get(name, match.group(0))

    return _REFERENCE.sub(replacement, text)


def _env_from(source: Object, lookup: Lookup) -> dict[str, str]:
    prefix = str(source.get("prefix") or "")
    for field, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
        if reference := source.get(field):
            found = lookup(kind, reference["name"])
            if found is None:
                if reference.get("optional"):
                    return {}
                raise ConfigError(f'{kind.lower()} "{reference["name"]}" not found (envFrom)')
            # Keys that are no variable names are left out, as Kubernetes does.
            return {prefix + key: value for key, value in _data(found).items() if _VARIABLE.match(prefix + key)}
    return {}


def _value_from(source: Object, name: str, pod: Object, pod_ip: str, lookup: Lookup) -> str | None:
    if reference := source.get("fieldRef"):
        return field_value(str(reference["fieldPath"]), pod, pod_ip)
    for field, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
        if reference := source.get(field):
            found = lookup(kind, reference["name"])
            values = _data(found) if found is not None else {}
            if reference["key"] in values:
                return values[reference["key"]]
            if reference.get("optional"):
                return None
            if found is None:
                raise ConfigError(f'{kind.lower()} "{reference["name"]}" not found (env {name})')
            raise ConfigError(f'{kind.lower()} "{reference["name"]}" has no key "{reference["key"]}" (env {name})')
    raise ConfigError(
        f"env {name}: {', '.join(source)} cannot be resolved for a local process; use fieldRef or a key reference"
    )


def field_value(path: str, pod: Object, pod_ip: str) -> str:
    """A downward API field.

    Raises:
        ConfigError: not one of those Kubernetes offers to env.
    """
    metadata = pod["metadata"]
    if match := _SUBSCRIPT.match(path):
        return str((metadata.get(match.group(1)) or {}).get(match.group(2), ""))
    fields = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata.get("namespace") or "default",
        "metadata.uid": metadata.get("uid", ""),
        "spec.nodeName": "localhost",
        "spec.serviceAccountName": pod["spec"].get("serviceAccountName") or "default",
        "status.hostIP": "127.0.0.1",
        "status.hostIPs": "127.0.0.1",
        "status.podIP": pod_ip,
        "status.podIPs": pod_ip,
    }
    if path not in fields:
        raise ConfigError(
            f"fieldPath {path!r} is not one of {', '.join(fields)}, metadata.labels['..'], metadata.annotations['..']"
        )
    return str(fields[path])


def _data(obj: Object) -> dict[str, str]:
    """The entries of a ConfigMap or Secret as text."""
    data = obj.get("data") or {}
    if obj["kind"] != "Secret":
        return {key: str(value) for key, value in data.items()}
    try:
        decoded = {key: base64.b64decode(value, validate=True).decode() for key, value in data.items()}
    except (binascii.Error, ValueError) as error:
        raise ConfigError(f'secret "{obj["metadata"]["name"]}": data is not base64 text: {error}') from None
    return decoded | {key: str(value) for key, value in (obj.get("stringData") or {}).items()}

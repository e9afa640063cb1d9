"""`meshproxy explain`: what would become of one request, decision by decision, with the state its sidecar has now.

--from --caller()--> pod --GET /explain--> its sidecar's trail
                           each endpoint <--GET /explain/inbound-- asked what it would say to that caller
                           --> printed (meshproxy/explain/show.py), or JSON
"""

from __future__ import annotations

import asyncio
import json
import shlex
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import click

from meshproxy.cli.common import fail, find_mesh, mesh_option, namespace_options, open_store
from meshproxy.cli.stat import Pod, Resource, pods_of

if TYPE_CHECKING:
    from meshproxy.explain.question import Question

TIMEOUT_S: Final = 3.0
MAX_PAGE: Final = 16 * 1024 * 1024  # a trail of 200 matches and 100 backends of 200 endpoints is some MB
MAX_ASKED: Final = 32  # pods whose access decision is asked for; the others are as these: they have the same service account


@click.command(epilog="Exit status: 0 the request would be sent, 1 it would not, or cannot be explained, 2 wrong usage.")
@click.argument("method")
@click.argument("url")
@click.option(
    "--from",
    "source",
    metavar="WORKLOAD",
    help="Who asks: deploy/NAME, pod/NAME or NAME[.NAMESPACE].  Always needed: the caller's own sidecar decides.",
)
@click.option("-H", "--header", "headers", metavar="'NAME: VALUE'", multiple=True, help="A header of the request; repeatable.")
@click.option(
    "-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True, help="Form of the output."
)
@mesh_option
@namespace_options
def command(
    method: str, url: str, source: str | None, headers: tuple[str, ...], output: str, mesh: str | None, namespace: str | None
) -> None:
    """Say what would become of a request, and why: the Service its name means, the rule that takes it and why no other does,
    shares, each endpoint's score and state, times and retries, and whether the far side would let it in.

    \b
      meshproxy explain GET http://prices.shop/price --from deploy/web -n shop
      meshproxy explain GET web.shop/ --from gateway.meshproxy -H 'x-canary: always'
      meshproxy explain POST http://prices.shop/shop.Prices/Get --from web.shop -H 'content-type: application/grpc' -o json

    Nothing is sent to any app, and nothing changes by it: no share is used up, no counter counts. The state is that of the
    caller's own sidecar at this moment.
    """
    from meshproxy.explain.question import Question
    from meshproxy.explain.show import served, show

    try:
        question = Question.parse(method, url, headers)
    except ValueError as error:
        raise fail(str(error), 2) from None
    found = find_mesh(mesh)
    pods = pods_of(open_store(found))
    if source is None:
        raise click.UsageError(who_asks(pods, method, url, f" --name {mesh}" if mesh is not None else ""))
    pod, others = caller(pods, source, namespace, found.name)
    trail = asyncio.run(ask(pod, question))
    trail["caller"] = {"pod": pod.name, **trail["caller"], "others": others}
    click.echo(json.dumps(trail, indent=2) if output == "json" else show(trail))
    if not served(trail):
        raise SystemExit(1)


# ---------------------------------------------------------------- who asks


def caller(pods: list[Pod], text: str, namespace: str | None, mesh: str) -> tuple[Pod, int]:
    """The pod that is meant (of a Deployment the first that runs), and how many others the Deployment has.  Raises Failure."""
    word, slash, name = text.rpartition("/")
    if slash:
        try:
            kind = Resource.parse(word).kind
        except click.UsageError:
            kind = ""
        if kind not in ("deployment", "pod") or not name:
            raise fail(f"--from {text}: expected deploy/NAME, pod/NAME or NAME.NAMESPACE", 2)
        kinds = [kind]
    else:
        kinds = ["deployment", "pod"]
    for wanted, where in places(name, namespace):
        for kind in kinds:
            of_it = [pod for pod in pods if pod.owner(kind)[1] == wanted and where in (None, pod.namespace)]
            if of_it:
                return chosen(of_it, text)
    raise fail(f'--from {text}: no such workload in mesh "{mesh}"{where_not(namespace)}; {there_are(pods)}')


def who_asks(pods: list[Pod], method: str, url: str, mesh: str) -> str:
    """Without --from: why it is needed, who could ask, and the command with the likeliest."""
    names = sorted({pod_name(pod) for pod in pods if pod.meshed})
    why = (
        "--from WORKLOAD is missing. The caller's own sidecar decides: a short name is one of its namespace, the scores of the "
        "endpoints are its own, and it is its identity that the far side lets in or not"
    )
    if not names:
        return f"{why}. No pod of this mesh has a sidecar"
    likeliest = next((name for name in names if name.endswith(".meshproxy")), names[0])  # the gateway: who lets a person in
    example = f"meshproxy explain {method} {shlex.quote(url)} --from {likeliest}{mesh}"
    return f"{why}. For instance\n\n  {example}\n\n{there_are(pods)}"


def places(name: str, namespace: str | None) -> list[tuple[str, str | None]]:
    """NAME in the namespace of -n; NAME.NAMESPACE as it says."""
    first, dot, last = name.rpartition(".")
    return [(name, namespace), *([(first, last)] if dot and first else [])]


def chosen(pods: list[Pod], text: str) -> tuple[Pod, int]:
    namespaces = sorted({pod.namespace for pod in pods})
    if len(namespaces) > 1:
        raise fail(f"--from {text} is in several namespaces: {', '.join(namespaces)}; say -n {namespaces[0]}")
    meshed = [pod for pod in pods if pod.meshed]
    if not meshed:
        raise fail(f"--from {text} has no sidecar: its requests go out as they are, and no decision is taken")
    running = sorted((pod for pod in meshed if pod.running and pod.address), key=lambda pod: pod.name)
    if not running:
        raise fail(f"--from {text}: no pod of it runs now; `meshproxy get pods -n {namespaces[0]}` says why")
    return running[0], len(running) - 1


def where_not(namespace: str | None) -> str:
    return f" (namespace {namespace}; -n or NAME.NAMESPACE for another)" if namespace is not None else ""


def pod_name(pod: Pod) -> str:
    """As --from takes it."""
    return f"deploy/{pod.deployment}.{pod.namespace}" if pod.deployment else f"pod/{pod.name}.{pod.namespace}"


def there_are(pods: list[Pod]) -> str:
    names = sorted({pod_name(pod) for pod in pods})
    if not names:
        return "there are no pods"
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return f"there are: {', '.join(names[:20])}{more}"


# ---------------------------------------------------------------- asking


async def ask(pod: Pod, question: Question) -> dict[str, Any]:
    """The caller's trail, with the far side's decision in each of its endpoints.  Raises Failure."""
    import aiohttp

    from control.runtime.layout import ADMIN_PORT
    from meshproxy.explain.question import Question

    # trust_env stays off: http_proxy is the mesh's own way in, and a proxy's page is not behind it.
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as session:

        async def page(address: str, path: str, query: Mapping[str, str] | list[tuple[str, str]]) -> dict[str, Any]:
            async with session.get(f"http://{address}:{ADMIN_PORT}{path}", params=query) as response:
                body = b""
                async for chunk in response.content.iter_chunked(1 << 18):
                    body += chunk
                    if len(body) > MAX_PAGE:
                        raise ValueError(f"the page is larger than {MAX_PAGE} bytes")
                if response.status != 200:
                    raise ValueError(body.decode("utf-8", "replace").strip() or f"status {response.status}")
                found = json.loads(body)
                assert isinstance(found, dict)
                return found

        try:
            trail = await page(pod.address, "/explain", question.query())
        except (aiohttp.ClientError, OSError, ValueError) as error:  # TimeoutError is an OSError
            raise fail(f"the sidecar of pod {pod.name} gives no trail: {error or type(error).__name__}") from None

        async def far(endpoint: dict[str, Any], sends: dict[str, Any]) -> None:
            there = Question(sends["method"], *split_url(sends["url"]), [(name, value) for name, value in sends["headers"]])
            client = trail["caller"]["identity"]
            query = [*there.query(), ("client", client), ("port", str(endpoint["port"]))]
            try:
                endpoint["access"] = await page(endpoint["address"], "/explain/inbound", query)
            except (aiohttp.ClientError, OSError, ValueError) as error:
                endpoint["access"] = {"problem": str(error) or type(error).__name__}

        asked: list[Any] = []
        for backend in trail.get("backends", []):
            for endpoint in backend["endpoints"]:
                if endpoint["mesh_port"] and len(asked) < MAX_ASKED:
                    asked.append(far(endpoint, backend.get("sends") or trail["sends"]))
        await asyncio.gather(*asked)
    if trail["outcome"]["kind"] == "outside" and not await has_address(trail["name"]["address"]):
        from meshproxy.explain.outbound import refused
        from meshproxy.proxy.refusals import NAME_NOT_FOUND

        trail["outcome"] = refused(NAME_NOT_FOUND)
    return trail


async def has_address(authority: str) -> bool:
    """Would the sidecar find an address for this name (NAME:PORT)?  Asked here: it is the sidecar's own machine.  A name server
    that takes its time leaves it open, and the trail as it is."""
    host, _, port = authority.rpartition(":")
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return bool(await asyncio.get_running_loop().getaddrinfo(host, int(port), type=socket.SOCK_STREAM))
    except TimeoutError:
        return True
    except (socket.gaierror, UnicodeError):  # UnicodeError: no name server could be asked for such a name
        return False


def split_url(url: str) -> tuple[str, str]:
    """ "http://host/path" -> ("host", "/path")"""
    host, slash, path = url.removeprefix("http://").partition("/")
    return host, slash + path

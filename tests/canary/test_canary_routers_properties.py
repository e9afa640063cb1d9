"""Whatever a Canary asks of routing: its objects are sound, share out exactly what was decided, and are read back as that."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from canary_plays import canary_object
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from router_world import RUNNING, entry, services, shared, wanted

from control.canary.declared.fields import SpecError
from control.canary.declared.spec import parse
from control.canary.machine.routing import PARTS, Routing
from control.canary.objects.baseline import unfit
from control.canary.routers import router_for, with_cookies
from control.store.files import FileStore
from control.store.store import Object

TEXTS = st.one_of(
    st.builds(
        lambda how, text: {how: text}, st.sampled_from(["exact", "prefix", "suffix"]), st.text("ab.*+(", min_size=1, max_size=4)
    ),
    st.sampled_from([{"regex": "a.*"}, {"regex": "(?i)b+"}, {}]),
)
PATHS = st.builds(
    lambda how, path: {how: path}, st.sampled_from(["exact", "prefix"]), st.sampled_from(["/", "/a", "/a/b", "/a.c"])
)
MATCHES = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "uri": PATHS,
            "method": st.sampled_from([{"exact": "GET"}, {"exact": "POST"}]),
            "headers": st.dictionaries(st.sampled_from(["x-a", "X-B"]), TEXTS, max_size=2),
            "queryParams": st.dictionaries(
                st.sampled_from(["q", "r"]), st.sampled_from([{"exact": "1"}, {"regex": "[0-9]"}]), max_size=1
            ),
            "ignoreUriCase": st.booleans(),
        },
    ),
    max_size=3,
)
SERVICES = st.fixed_dictionaries(
    {},
    optional={
        "match": MATCHES,
        "timeout": st.sampled_from(["5s", "1m"]),
        "retries": st.sampled_from([{"attempts": 2}, {"attempts": 20, "retryOn": "5xx,409", "perTryTimeout": "1s"}]),
        "headers": st.sampled_from(
            [{"request": {"set": {"x-c": "1"}}}, {"response": {"add": {"x-d": "1"}, "remove": ["x-e"]}}]
        ),
        "rewrite": st.sampled_from([{"authority": "a.b"}, {"uri": "/z"}, {"uri": "/z", "type": "ReplacePrefixMatch"}]),
        "mirror": st.just([{"backendRef": {"name": "podinfo-primary", "port": 80}}]),
        "hosts": st.sampled_from([["podinfo"], ["podinfo.test"], ["a.example.com"]]),
    },
)
ANALYSES = st.fixed_dictionaries(
    {},
    optional={
        "match": MATCHES,
        "mirror": st.booleans(),
        "mirrorWeight": st.integers(0, 100),
        "sessionAffinity": st.sampled_from([{"cookieName": "c"}, {"cookieName": "c", "primaryCookieName": "p", "path": "/"}]),
    },
)
PROVIDERS = st.sampled_from(["", "smi:v1alpha2", "gatewayapi:v1"])
ROUTINGS = st.builds(
    lambda parts, *flags: (parts / 100, *flags), st.integers(0, PARTS), st.booleans(), st.booleans(), st.booleans()
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(PROVIDERS, SERVICES, ANALYSES, st.lists(ROUTINGS, min_size=1, max_size=3))
def test_what_is_written_is_sound_does_what_was_decided_and_is_read_back(
    provider: str, service: dict[str, Any], analysis: dict[str, Any], routings: list[tuple[float, bool, bool, bool]]
) -> None:
    obj = canary_object(analysis, provider=provider, service={"port": 80, **service})
    try:
        refused = parse(obj).routes.refused
    except SpecError:
        return  # told where it stands; test_canary_routers.py has examples
    if replaces_caseless_prefix(provider, service, analysis):
        assert len(refused) == 1
        assert "ignoreUriCase" in refused[0]
        return
    assert refused == ()
    with tempfile.TemporaryDirectory() as home, FileStore(None, Path(home), "canary") as store:
        asyncio.run(walk(store, obj, routings))


def replaces_caseless_prefix(provider: str, service: dict[str, Any], analysis: dict[str, Any]) -> bool:
    """What no route can say: of a prefix that fits in any case nobody knows how it was written."""
    rewrite = service.get("rewrite") or {}
    if provider == "gatewayapi:v1" or "type" in rewrite or "uri" not in rewrite:
        return False
    matches = [*service.get("match", ()), *analysis.get("match", ())]
    return any(one.get("ignoreUriCase") and one.get("uri", {}).get("prefix", "/") != "/" for one in matches)


async def walk(store: FileStore, obj: Object, routings: list[tuple[float, bool, bool, bool]]) -> None:
    spec = parse(await store.apply(obj))
    for one in services(spec):
        await store.apply(one)
    router, status = router_for(spec), RUNNING
    for canary, mirrored, everyone, beside in routings:
        everyone = everyone and canary == 100 and bool(spec.routes.trial)
        routing = Routing(canary, spec.routes.mirror and mirrored and not canary, everyone)
        if beside and not unfit(spec):
            routing = routing.beside()
        status = with_cookies(spec, status, routing)
        made = wanted(spec, routing, status)  # and nothing is wrong with them
        for one in made:
            await store.apply(one)
        assert router.observed(store, spec, status) == routing
        assert router.problem(store, spec) == ""
        shares = [
            ("podinfo-primary", routing.primary),
            ("podinfo-canary", routing.canary),
            ("podinfo-baseline", routing.baseline),
        ]
        possible = {", ".join(f"{name} {share:g}" for name, share in shares if share)}
        if spec.routes.trial and not everyone:
            possible.add("podinfo-primary 100")
        if spec.routes.matches:
            possible.add("404")
        table = entry(spec, *made)
        for line in ("GET /", "POST /a?q=1", "GET /a/b", "GET /A.C"):
            for headers in ({}, {"x_a": "a"}, {"x_b": "b.*", "x_a": "("}):
                assert shared(table, line, **headers) in possible

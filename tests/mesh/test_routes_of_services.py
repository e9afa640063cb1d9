"""Routes as they come from the control plane: what cannot be used is refused, and the Service keeps what it had."""

from __future__ import annotations

import pytest

from control.api import mesh_pb2
from meshproxy.mesh.convert import service_spec, tables_of
from meshproxy.mesh.knowledge import Knowledge, Known, ResourceRejected
from meshproxy.mesh.routes import MAX_MATCHES

StringMatch = mesh_pb2.StringMatch
PORTS = [mesh_pb2.ServicePort(port=80)]


def web(*matches: mesh_pb2.RouteMatch, routes: tuple[mesh_pb2.Route, ...] = (mesh_pb2.Route(name="r"),)) -> mesh_pb2.Service:
    return mesh_pb2.Service(namespace="shop", name="web", ports=PORTS, matches=matches, routes=routes)


ALL = mesh_pb2.RouteMatch()
BAD_HEADER = mesh_pb2.HeaderChanges(set=[mesh_pb2.HeaderValue(name="a", value="b\r\nc")])

REFUSED = {
    "a match leads to route 1, and there are 1": web(mesh_pb2.RouteMatch(route=1)),
    "is not closed": web(mesh_pb2.RouteMatch(path=StringMatch(how=StringMatch.REGEX, value="("))),
    f"more than {MAX_MATCHES}": web(*[ALL] * (MAX_MATCHES + 1)),
    "control character": web(ALL, routes=(mesh_pb2.Route(request_headers=BAD_HEADER),)),
    "a redirect with status 200": web(ALL, routes=(mesh_pb2.Route(redirect=mesh_pb2.Redirect(status=200)),)),
    "is no path": web(ALL, routes=(mesh_pb2.Route(rewrite=mesh_pb2.Rewrite(full_path="a b")),)),
    "is no host": web(ALL, routes=(mesh_pb2.Route(rewrite=mesh_pb2.Rewrite(host="a b")),)),
    "unknown retry condition": web(ALL, routes=(mesh_pb2.Route(retry=mesh_pb2.Retry(conditions=["sometimes"])),)),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_routes_that_cannot_be_used_are_refused_with_the_reason(reason: str) -> None:
    with pytest.raises(ResourceRejected, match=reason) as rejected:
        service_spec(REFUSED[reason], "shop")
    assert rejected.value.key == (int(mesh_pb2.SERVICE), "shop/web")


def test_a_service_with_bad_routes_keeps_its_last_good_form_and_others_are_taken() -> None:
    built: list[Known] = []

    def build(known: Known) -> None:
        tables_of(1, known)
        built.append(known)

    def update(*services: mesh_pb2.Service) -> mesh_pb2.Update:
        resources = [
            mesh_pb2.Resource(
                name=mesh_pb2.ResourceName(kind=mesh_pb2.SERVICE, name=f"{one.namespace}/{one.name}"),
                hash=str(hash(one.SerializeToString())),
                service=one,
            )
            for one in services
        ]
        return mesh_pb2.Update(set=resources)

    knowledge = Knowledge(build)
    good, other = web(ALL), mesh_pb2.Service(namespace="shop", name="api", ports=PORTS)
    assert knowledge.apply(update(good)) == []
    (rejected,) = knowledge.apply(update(web(mesh_pb2.RouteMatch(route=7)), other))
    assert rejected.name.name == "shop/web"
    assert built[-1].services["shop/web"] == good
    assert "shop/api" in built[-1].services


def test_routes_of_other_namespaces_are_left_out() -> None:
    service = web(mesh_pb2.RouteMatch(client_namespace="people"), ALL)
    assert [len(service_spec(service, namespace).matches) for namespace in ("people", "shop")] == [2, 1]


def test_retries_may_be_declared_away() -> None:
    service = mesh_pb2.Service(namespace="shop", name="web", ports=PORTS, retry=mesh_pb2.Retry(none=True))
    spec = service_spec(service, "shop")
    assert (spec.retry.attempts, spec.retry.conditions) == (0, 0)


def test_a_pattern_is_built_once_however_often_tables_are_made() -> None:
    service = web(mesh_pb2.RouteMatch(path=StringMatch(how=StringMatch.REGEX, value="/a.*")))
    first, second = (service_spec(service, "shop").matches[0][0].path for _ in range(2))
    assert first is second

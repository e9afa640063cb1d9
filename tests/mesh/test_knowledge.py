import pytest
from plane import resource, service, workload

from control.api import mesh_pb2
from meshproxy.mesh.knowledge import Knowledge, Known, ResourceRejected

KEY_A = (int(mesh_pb2.SERVICE), "shop/a")


class Tables:
    """Stands where the proxy's tables stand: keeps each state it was given, refuses what it is told to."""

    def __init__(self) -> None:
        self.states: list[Known] = []
        self.refuse: dict[tuple[int, str], str] = {}
        self.bug = False

    def build(self, known: Known) -> None:
        if self.bug:
            raise KeyError("a bug")
        for key, hash_ in self.refuse.items():
            if key in known.resources and known.resources[key].hash == hash_:
                raise ResourceRejected(key, "the test says no")
        self.states.append(known)


@pytest.fixture
def tables() -> Tables:
    return Tables()


def update(*resources: mesh_pb2.Resource, removed: tuple[mesh_pb2.Resource, ...] = ()) -> mesh_pb2.Update:
    return mesh_pb2.Update(version=1, set=resources, removed=[r.name for r in removed])


def test_an_update_is_in_force_at_once_and_whole(tables: Tables) -> None:
    knowledge = Knowledge(tables.build)
    assert knowledge.apply(update(workload("shop", "web-1", "web"), service("shop/a"), service("shop/b"))) == []
    assert len(tables.states) == 1
    known = tables.states[0]
    assert known.workload is not None
    assert (known.workload.pod, sorted(known.services)) == ("web-1", ["shop/a", "shop/b"])
    assert knowledge.apply(update(service("shop/a", 81), removed=(service("shop/b"),))) == []
    assert sorted(knowledge.known.services) == ["shop/a"]
    assert knowledge.known.services["shop/a"].ports[0].port == 81
    assert sorted(known.services) == ["shop/a", "shop/b"]  # who has the old state keeps it


def test_it_names_what_it_holds(tables: Tables) -> None:
    knowledge = Knowledge(tables.build)
    a = service("shop/a")
    knowledge.apply(update(a))
    assert [(h.name.name, h.hash) for h in knowledge.held()] == [("shop/a", a.hash)]


def endpoints(**changes: object) -> mesh_pb2.Resource:
    fields = {"address": "127.83.4.10", "service_port": 80, "target_port": 8080}
    one = mesh_pb2.Endpoint(**(fields | changes))  # type: ignore[arg-type]
    content = mesh_pb2.Endpoints(namespace="shop", name="a", endpoints=[one])
    return resource(mesh_pb2.ENDPOINTS, "shop/a", endpoints=content)


def without_hash() -> mesh_pb2.Resource:
    made = service("shop/a")
    made.hash = ""
    return made


BAD = {
    "named 'shop/other'": resource(mesh_pb2.SERVICE, "shop/other", service=mesh_pb2.Service(namespace="shop", name="a")),
    "port 70000": service("shop/a", 70000),
    "port 0": endpoints(target_port=0),
    "does not appear to be an IPv4": endpoints(address="prices.shop"),
    "spiffe://": endpoints(identity="prices", mesh_port=4143),
    "port 0 is not": endpoints(identity="spiffe://td/ns/a/sa/b", mesh_port=0),
    "holds service, endpoints was expected": resource(mesh_pb2.ENDPOINTS, "shop/a", service=mesh_pb2.Service()),
    "holds None": resource(mesh_pb2.SERVICE, "shop/a"),
    "kind 0 is not known": resource(mesh_pb2.UNKNOWN, "shop/a", service=mesh_pb2.Service()),
    "has no hash": without_hash(),
    "at least one trust anchor": resource(mesh_pb2.TRUST, "", trust=mesh_pb2.TrustBundle(trust_domain="td")),
}


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_resource_is_rejected_with_its_reason_and_the_rest_is_taken(tables: Tables, reason: str) -> None:
    knowledge = Knowledge(tables.build)
    bad = BAD[reason]
    rejected = knowledge.apply(update(bad, service("shop/good")))
    assert [r.name for r in rejected] == [bad.name]
    assert reason in rejected[0].reason
    assert list(knowledge.known.services) == ["shop/good"]
    assert knowledge.rejected == 1


def test_a_rejected_resource_keeps_its_last_good_form(tables: Tables) -> None:
    knowledge = Knowledge(tables.build)
    good, bad = service("shop/a"), service("shop/a", 81)
    knowledge.apply(update(good))
    tables.refuse[KEY_A] = bad.hash
    rejected = knowledge.apply(update(bad, service("shop/b")))
    assert [(r.name.name, r.reason) for r in rejected] == [("shop/a", "the test says no")]
    assert knowledge.known.services["shop/a"].ports[0].port == 80
    assert [h.hash for h in knowledge.held() if h.name.name == "shop/a"] == [good.hash]
    assert "shop/b" in knowledge.known.services


def test_when_building_breaks_everything_stays_as_it_was_and_is_reported(tables: Tables) -> None:
    knowledge = Knowledge(tables.build)
    knowledge.apply(update(service("shop/a")))
    before = knowledge.known
    tables.bug = True
    rejected = knowledge.apply(update(service("shop/a", 81), service("shop/b")))
    assert sorted(r.name.name for r in rejected) == ["shop/a", "shop/b"]
    assert all("KeyError" in r.reason for r in rejected)
    assert knowledge.known is before
    tables.bug = False
    assert knowledge.apply(update(service("shop/b"))) == []
    assert sorted(knowledge.known.services) == ["shop/a", "shop/b"]


def test_what_was_held_and_no_longer_fits_refuses_the_whole_update(tables: Tables) -> None:
    knowledge = Knowledge(tables.build)
    a = service("shop/a")
    knowledge.apply(update(a))
    tables.refuse[KEY_A] = a.hash
    assert [r.name.name for r in knowledge.apply(update(service("shop/b")))] == ["shop/b"]
    assert list(knowledge.known.services) == ["shop/a"]


def test_an_empty_update_is_fine(tables: Tables) -> None:
    knowledge = Knowledge(tables.build)
    assert knowledge.apply(update()) == []
    assert knowledge.updates == 1

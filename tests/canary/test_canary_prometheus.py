"""Asking a Prometheus over a real socket: a server that says whatever it is told to, and what is made of it."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import time
from email.utils import formatdate

import pytest
from canary_plays import canary_object
from canary_prometheus import Said, scripted, vector

from control.canary.declared.spec import parse
from control.canary.machine.analysis import Outcome, analyse
from control.canary.measuring.prometheus import MAX_ANSWER, PrometheusClient
from control.canary.measuring.promql import Server

DAY = 86400.0


@pytest.fixture
async def prometheus():
    async with scripted() as server:
        yield server


@pytest.fixture
async def client():
    made = PrometheusClient(timeout_s=5.0)
    yield made
    await made.close()


def verdict(measurement):
    """Of a check that any number would pass."""
    metrics = [{"name": "custom", "query": "x", "thresholdRange": {}}]
    spec = parse(canary_object({"metrics": metrics}))
    return analyse(spec, {spec.metrics[0]: measurement})


async def test_the_last_element_of_a_vector_is_the_value(prometheus, client):
    prometheus.says = Said(vector("1", "99.5"))
    seen = await client.ask(prometheus.server, "sum(\n  up\t)\n", 60.0)
    assert (seen.value, seen.error, seen.reason) == (99.5, False, "")
    assert verdict(seen).outcome is Outcome.PASSED
    (request,) = prometheus.requests
    assert (request.method, request.path) == ("GET", "/api/v1/query")
    assert request.query["query"] == "sum( up )"


async def test_a_path_before_the_api_is_kept(prometheus, client):
    prometheus.says = Said(vector("1"))
    await client.ask(Server(prometheus.server.address + "/select/0/prometheus/"), "up", 60.0)
    assert prometheus.requests[0].path == "/select/0/prometheus/api/v1/query"


def page(body: object, **more) -> Said:
    return Said(json.dumps(body).encode(), **more)


def data(result: object, kind: str = "vector") -> dict:
    return {"status": "success", "data": {"resultType": kind, "result": result}}


NO_VALUES = {
    "empty": (Said(vector()), "no values found"),
    "NaN": (Said(vector("NaN")), "NaN"),
    "infinite": (Said(vector("+Inf")), r"\+Inf"),
    "minus infinite": (Said(vector("-Inf")), "-Inf"),
    "stale": (Said(vector("100", at=time.time() - 61)), "older than the interval of 60 s"),
    "stale without a date": (
        Said(vector("100", at=time.time() - DAY), headers={"Date": "long ago"}),
        "older than the interval",
    ),
    "stale out of a cache": (
        Said(
            vector("100", at=time.time() - DAY), headers={"Date": formatdate(time.time() - DAY, usegmt=True), "Age": str(DAY)}
        ),
        "older than the interval",
    ),
}

ERRORS = {
    "HTML": (Said(b"<html><body>Sign in</body></html>", headers={"Content-Type": "text/html"}), "not JSON"),
    "nothing": (Said(b""), "not JSON"),
    "truncated JSON": (Said(vector("100")[:-9]), "not JSON"),
    "truncated in flight": (Said(vector("100"), cut=20), ""),
    "not text": (Said(b"\xff\xfe\x00"), "not JSON"),
    "nested": (Said(b"[" * 100_000), "not JSON"),
    "a list": (page([]), "JSON object"),
    "no data": (page({"status": "success"}), "no data.result"),
    "null data": (page({"data": None}), "no data.result"),
    "an error with status 200": (
        page({"status": "error", "errorType": "bad_data", "error": "parse error"}),
        "bad_data: parse error",
    ),
    "a matrix": (page(data([{"metric": {}, "values": [[1, "1"]]}], "matrix")), "not an instant vector"),
    "a scalar": (page(data([time.time(), "1"], "scalar")), "not an instant vector"),
    "no value": (page(data([{"metric": {}}])), "not an instant vector"),
    "a bare number": (page(data([{"value": [time.time(), 100]}])), "a number as text"),
    "words": (Said(vector("soon")), "a number as text"),
    "a number of Python's": (Said(vector("1_000")), "a number as text"),
    "no time": (page(data([{"value": ["now", "100"]}])), "a number as text"),
    "400": (page({"status": "error", "errorType": "bad_data", "error": "invalid"}, status=400), "HTTP 400: .*invalid"),
    "500": (Said(b"oops", status=500), "HTTP 500: oops"),
    "503": (Said(vector("100"), status=503), "HTTP 503"),
    "too much": (Said(b" " * (MAX_ANSWER + 1)), "more than 1048576 bytes"),
    "compressed though nobody asked": (Said(b"\x1f\x8b garbage", headers={"Content-Encoding": "gzip"}), ""),
    "in circles": (Said(b"", status=302, headers={"Location": "/api/v1/query"}), ""),
}


@pytest.mark.parametrize(("says", "words"), NO_VALUES.values(), ids=NO_VALUES.keys())
async def test_no_values_never_pass(prometheus, client, says, words):
    prometheus.says = says
    seen = await client.ask(prometheus.server, "up", 60.0)
    assert (seen.value, seen.error) == (None, False)
    assert re.search(words, seen.reason), seen.reason
    assert verdict(seen).outcome is Outcome.FAILED
    assert verdict(seen).text.startswith("Halt advancement no values found for metric: custom: ")


@pytest.mark.parametrize(("says", "words"), ERRORS.values(), ids=ERRORS.keys())
async def test_what_is_no_answer_never_passes(prometheus, client, says, words):
    prometheus.says = says
    seen = await client.ask(prometheus.server, "up", 60.0)
    assert (seen.value, seen.error) == (None, True)
    assert re.search(words, seen.reason), seen.reason
    assert prometheus.server.address in seen.reason
    assert len(seen.reason) <= 400
    assert verdict(seen).outcome is Outcome.FAILED
    assert verdict(seen).text.startswith("Prometheus query failed for custom: ")


async def test_a_clock_that_is_a_day_off_is_no_staleness(prometheus, client):
    then = time.time() - DAY
    prometheus.says = Said(vector("7", at=then), headers={"Date": formatdate(then, usegmt=True)})
    assert (await client.ask(prometheus.server, "up", 60.0)).value == 7.0


async def test_a_server_that_is_not_there_is_an_error(client, unused_tcp_port):
    seen = await client.ask(Server(f"http://127.0.0.1:{unused_tcp_port}"), "up", 60.0)
    assert seen.error
    assert "Cannot connect" in seen.reason


@pytest.mark.parametrize("address", ["http://", "ftp://127.0.0.1", "http://127.0.0.1:99999", "nonsense", "http://a b"])
async def test_an_address_that_is_none_is_an_error(client, address):
    assert (await client.ask(Server(address), "up", 60.0)).error


async def test_a_server_that_hangs_is_given_up(prometheus):
    impatient = PrometheusClient(timeout_s=0.05)
    prometheus.says = Said(vector("1"), wait=asyncio.Event())
    seen = await impatient.ask(prometheus.server, "up", 60.0)
    await impatient.close()
    assert (seen.error, seen.reason) == (True, f"{prometheus.server.address} did not answer in 0.05 s")


async def test_credentials_are_sent_and_never_told(prometheus, client):
    prometheus.says = Said(b"denied", status=401)
    address = prometheus.server.address
    await client.ask(Server(address, token="hush"), "up", 60.0)
    await client.ask(Server(address, username="me", password="hush"), "up", 60.0)
    await client.ask(Server(address, headers=(("X-Scope-OrgID", "team"),)), "up", 60.0)
    inside = await client.ask(Server(address.replace("//", "//me:hush@")), "up", 60.0)
    assert [request.headers.get("Authorization") for request in prometheus.requests] == [
        "Bearer hush",
        "Basic bWU6aHVzaA==",
        None,
        "Basic bWU6aHVzaA==",
    ]
    assert prometheus.requests[2].headers["X-Scope-OrgID"] == "team"
    assert "hush" not in inside.reason


async def test_a_certificate_is_verified_unless_the_template_says_not_to(client, tls_context):
    async with scripted(tls_context) as server:
        server.says = Said(vector("1"))
        assert (await client.ask(server.server, "up", 60.0)).error
        assert (await client.ask(Server(server.server.address, verify=False), "up", 60.0)).value == 1.0


@pytest.fixture
def tls_context(tmp_path) -> ssl.SSLContext:
    from certs.authority import open_authority
    from certs.issue import issue_svid
    from certs.spiffe import SpiffeId

    authority = open_authority(tmp_path, "cluster.local", time.time())
    svid = issue_svid(authority, SpiffeId.workload("cluster.local", "a", "b"), time.time(), 3600.0, "localhost")
    (tmp_path / "chain.pem").write_bytes(svid.chain_pem)
    (tmp_path / "key.pem").write_bytes(svid.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "chain.pem", tmp_path / "key.pem")
    return context


async def test_online_means_that_vector_1_is_1(prometheus, client):
    prometheus.says = Said(vector("1"))
    assert await client.problem(prometheus.server) == ""
    assert prometheus.requests[0].query["query"] == "vector(1)"
    prometheus.says = Said(vector("2"))
    assert "says vector(1) is 2" in await client.problem(prometheus.server)
    prometheus.says = Said(b"<html>")
    assert "not JSON" in await client.problem(prometheus.server)

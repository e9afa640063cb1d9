"""The load generator against the shop itself: web answers an absolute-form request as a gateway would pass it on."""

from __future__ import annotations

import asyncio
import json

from aiohttp import web
from shop_processes import DEADLINE_S, free_address, shop

from meshproxy.demo.ledger import ServiceLedger
from meshproxy.demo.load import Load


async def until(condition):
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - the condition is in another process
            await asyncio.sleep(0.02)


async def served(handler):
    """A server of the test's own; returns its runner and its URL."""
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    address = free_address()
    await web.TCPSite(runner, address, 8080).start()
    return runner, f"http://{address}:8080"


async def one_request(handler, tmp_path):
    runner, gateway = await served(handler)
    load = Load(gateway, "http://web.shop/", 50, "mark", tmp_path / "client")
    task = asyncio.create_task(load.run())
    try:
        await until(lambda: load.requests)
        load.stop()
        await task
    finally:
        task.cancel()
        await runner.cleanup()
    return load.requests[0]


async def test_each_request_is_in_the_ledgers_of_client_and_services(tmp_path):
    with shop(tmp_path / "services") as running:
        at = running.start("prices", "prices-1")
        at = running.start("catalogue", "catalogue-1", PRICES_TARGET=f"{at}:9090", FAIL_RATE="0.3", SEED="1")
        at = running.start("web", "web-1", CATALOGUE_URL=f"http://{at}:8080")
        for pod, port in (("prices-1", 9090), ("catalogue-1", 8080), ("web-1", 8080)):
            await running.listening(pod, port)
        load = Load(f"http://{at}:8080", "http://web.shop/", 60, "mark", tmp_path / "client")
        task = asyncio.create_task(load.run())
        await until(lambda: len(load.requests) >= 40)
        load.stop()
        await task
        assert load.under_way == set()
        written = [json.loads(line) for line in (tmp_path / "client").read_text().splitlines()]
        assert [line["id"] for line in written] == [request.id for request in load.requests]
        lines = ServiceLedger(tmp_path / "services").read()
        sent = {request.id for request in load.requests}
        assert len(sent) == len(load.requests)
        assert {line.id for line in lines if line.service == "web"} == sent
        failed = {request.id for request in load.requests if not request.ok}
        assert failed == {line.id for line in lines if line.service == "catalogue" and line.status == 500}
        assert 0 < len(failed) < len(sent)
        assert {request.note for request in load.requests if request.ok} == {"mark"}
        assert {hop.pod for request in load.requests for hop in request.path} == {"web-1", "catalogue-1", "prices-1"}


async def test_an_error_page_that_is_not_the_shops_is_recorded_with_its_status(tmp_path):
    async def page(request):
        return web.Response(status=503, text="no endpoint")

    request = await one_request(page, tmp_path)
    assert (request.status, request.path) == (503, ())
    assert "no endpoint" in request.error


async def test_a_success_that_is_not_the_shops_is_none(tmp_path):
    async def page(request):
        return web.Response(text="<html>welcome</html>")

    request = await one_request(page, tmp_path)
    assert request.status == 0
    assert not request.ok
    assert "not the shop's answer" in request.error


async def test_the_answer_to_another_request_is_none(tmp_path):
    async def page(request):
        return web.json_response({"id": "r-77", "path": [], "note": "mark"})

    request = await one_request(page, tmp_path)
    assert not request.ok
    assert request.error == "the answer to request 'r-77'"


async def test_a_request_whose_connection_breaks_is_not_sent_again(tmp_path):
    seen = []

    async def cut(request):
        seen.append(request.headers["x-request-id"])
        request.transport.abort()
        return web.Response()

    request = await one_request(cut, tmp_path)
    assert (request.status, request.ok) == (0, False)
    assert request.error.startswith("Broken")
    assert seen.count(request.id) == 1

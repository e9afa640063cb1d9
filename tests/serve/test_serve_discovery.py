"""http_sd: what a Prometheus is told of the pods."""

from __future__ import annotations

import aiohttp
from prometheus_client import CollectorRegistry

from control.serve.admin import serve_admin
from control.serve.discovery import scrape_targets


def pod(name="web-1", ip="10.0.0.7", meshed="true", **labels):
    return {
        "metadata": {"name": name, "namespace": "shop", "labels": labels, "annotations": {"meshproxy.dev/proxy": meshed}},
        "status": {"podIP": ip} if ip else {},
    }


def test_a_meshed_pod_is_a_target_with_the_labels_that_queries_select_by():
    assert scrape_targets([pod(**{"meshproxy.dev/proxy-deployment": "web", "app": "web"})]) == [
        {
            "targets": ["10.0.0.7:4191"],
            "labels": {
                "namespace": "shop",
                "pod": "web-1",
                "deployment": "web",
                "__meta_meshproxy_pod_label_meshproxy_dev_proxy_deployment": "web",
                "__meta_meshproxy_pod_label_app": "web",
            },
        }
    ]


def test_pods_without_a_proxy_or_an_address_are_none():
    bare = {"metadata": {"name": "bare"}}
    assert scrape_targets([pod(meshed="false"), pod(ip=""), bare]) == []


def test_an_ipv6_address_is_written_in_brackets():
    assert scrape_targets([pod(ip="fd00::7")])[0]["targets"] == ["[fd00::7]:4191"]


async def test_the_page_is_a_json_list_as_of_now():
    pods: list = []
    runner, port = await serve_admin(
        "127.0.0.1", 0, CollectorRegistry(), lambda: (True, ""), dict, lambda: scrape_targets(pods)
    )
    try:
        async with aiohttp.ClientSession() as session:
            for expected in ([], ["10.0.0.7:4191"]):
                async with session.get(f"http://127.0.0.1:{port}/sd") as answer:
                    assert (answer.status, answer.content_type) == (200, "application/json")
                    assert [target for group in await answer.json() for target in group["targets"]] == expected
                pods.append(pod())
    finally:
        await runner.cleanup()

"""A run of the demonstration as it should be, written down request by request, for tests to bend."""

from __future__ import annotations

import random

from meshproxy.demo.ledger import Handled, Hop, Request
from meshproxy.demo.observed import Intrusion, Kill, Moment, Observed, Recording

DOMAIN = "cluster.local"
PEERS = {
    "web": f"spiffe://{DOMAIN}/ns/meshproxy/sa/gateway",
    "catalogue": f"spiffe://{DOMAIN}/ns/shop/sa/web",
    "prices": f"spiffe://{DOMAIN}/ns/shop/sa/catalogue",
}
MARKER = "marker-5f1c"
INTERVAL = 4.0
RATE = 40
# when: phase, weight, version of the target
TIMELINE = [
    (0.0, "Initialized", 0, "v1"),
    (20.0, "Initialized", 0, "v2"),
    (22.0, "Progressing", 0, "v2"),
    (26.0, "Progressing", 10, "v2"),
    (30.0, "Progressing", 30, "v2"),
    (34.0, "Progressing", 60, "v2"),
    (38.0, "Promoting", 60, "v2"),
    (42.0, "Finalising", 0, "v2"),
    (46.0, "Succeeded", 0, "v2"),
    (50.0, "Succeeded", 0, "v3"),
    (52.0, "Progressing", 0, "v3"),
    (56.0, "Progressing", 10, "v3"),
    (64.0, "Failed", 0, "v3"),
]
END = 70.0
KILLED_AT = 14.005  # while a request is under way


def state(at: float) -> tuple[str, int, str]:
    return [(phase, weight, version) for when, phase, weight, version in TIMELINE if when <= at][-1]


def good_run(seed: int = 1) -> Observed:
    """Facts of a run in which everything was as promised."""
    rng = random.Random(seed)
    requests: list[Request] = []
    handled: list[Handled] = []
    for index in range(int(END * RATE)):
        at = index / RATE
        name = f"r{index}"
        phase, weight, version = state(at)
        old = {"v1": "v1", "v2": "v1", "v3": "v2"}[version]
        if phase in ("Finalising", "Succeeded"):
            old = "v2"
        released = rng.random() * 100 < weight
        serving = version if released else old
        fails = serving == "v3" and rng.random() < 0.2
        prices = rng.choices(["prices-a", "prices-b", "prices-slow"], [10, 10, 1])[0]
        if prices == "prices-b" and at + 0.01 > KILLED_AT:
            prices = "prices-c"
        pods = {"web": "web-a", "catalogue": f"catalogue-{serving}", "prices": prices}
        services = ["web", "catalogue"] if fails else ["web", "catalogue", "prices"]
        versions = {"web": "v1", "catalogue": serving, "prices": "v1"}
        path = tuple(Hop(s, versions[s], pods[s], PEERS[s]) for s in services)
        statuses = {"web": 502 if fails else 200, "catalogue": 500 if fails else 200, "prices": 200}
        handled += [
            Handled(at + 0.01, name, s, versions[s], pods[s], statuses[s], PEERS[s], MARKER) for s in reversed(services)
        ]
        requests.append(Request(name, at, at + 0.02, statuses["web"], "boom" if fails else "", path, "" if fails else MARKER))
    return Observed(
        trust_domain=DOMAIN,
        interval=INTERVAL,
        steps=(10, 30, 60),
        requests=requests,
        handled=handled,
        timeline=[Moment(*moment) for moment in TIMELINE],
        marker=MARKER,
        slow_pod="prices-slow",
        prices_pods=("prices-a", "prices-b", "prices-slow"),
        slow_window=(2.0, 12.0),
        kill=Kill("prices-b", KILLED_AT, KILLED_AT + 5, ended=True),
        recording=Recording(sent=90_000, received=70_000, leaks=0, pod="prices-a"),
        intrusions=[Intrusion("plaintext", True, "connection closed"), Intrusion("forged", True, "unknown CA")],
    )

"""The trail as a header field: a Structured Fields dictionary (RFC 9651), short, the decisions in their order.

    service="shop/web:80", rule="HTTPRoute shop/web rule 1", not=("... rule 0: header x-beta is absent, wanted = always"),
    backends=("shop/web:80";share=0.9 "shop/web-v2:80";share=0.1), endpoints=("10.1.0.7:8080";cost=26.6;pending=0 ...), ...

What came of it (`took`, `attempts`) is put before it when the answer begins (proxy/explained.py).
"""

from __future__ import annotations

from typing import Any, Final

from meshproxy.explain.outbound import trail
from meshproxy.proxy.explained import Explainer
from meshproxy.proxy.outbound import Outbound
from meshproxy.wire.message import Head

RULES: Final = 5  # rules that did not take it, and endpoints of a backend: the nearest ones; the command lists all
ENDPOINTS: Final = 5


class LiveExplainer(Explainer):
    def __init__(self, side: Outbound) -> None:
        self.side = side

    def explain(self, head: Head) -> list[bytes]:
        return items(trail(self.side, head, self.side.ctx.now))


def items(found: dict[str, Any]) -> list[bytes]:
    """The parts of a trail that say most in little room."""
    name = found.get("name", {})
    parts = []
    if "service" in name:
        parts.append(f"service={quoted(name['service'])}")
    elif name:
        parts.append(f"name={quoted(name['how'])}")
    if "rule" in found:
        parts.append(f"rule={quoted(found['rule'])}")
    outcome = found["outcome"]
    if outcome["kind"] == "answered":
        parts.append(f"refused={quoted(outcome['reason'])}")
    others = [one for one in found.get("matches", ()) if not one["taken"]][:RULES]
    if others:
        parts.append(f"not=({' '.join(quoted(one['rule'] + ': ' + one['why']) for one in others)})")
    backends = found.get("backends", ())
    if backends:
        parts.append(f"backends=({' '.join(backend(one) for one in backends)})")
        parts += [f"endpoints{number or ''}=({endpoints(one)})" for number, one in enumerate(backends)]
    times, retry = found.get("times"), found.get("retry")
    if times is not None and times["request_s"]:
        parts.append(f"timeout={decimal(times['request_s'])}")
    if retry is not None:
        parts.append(f"retries={retry['attempts']};budget={retry['budget']['retries_left']}")
    if found.get("fault") is not None and found["fault"]["matches"]:
        parts.append("fault")
    return [part.encode() for part in parts]


def backend(one: dict[str, Any]) -> str:
    problem = f";problem={quoted(one['problem'])}" if one["problem"] else ""
    return f"{quoted(one['name'])};share={decimal(one['share'])}{problem}"


def endpoints(one: dict[str, Any]) -> str:
    said = []
    for item in one["endpoints"][:ENDPOINTS]:
        state = item["state"]["name"]
        out = "" if state == "ready" else f";state={quoted(state)}"
        where = quoted(f"{item['address']}:{item['port']}")
        said.append(f"{where};cost={decimal(item['cost'])};pending={item['pending']}{out}")
    return " ".join(said)


def quoted(text: str) -> str:
    """RFC 9651 3.3.3: visible ASCII and space; what else there is becomes "?"."""
    plain = "".join(c if " " <= c <= "~" else "?" for c in text)
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'


def decimal(value: float) -> str:
    """RFC 9651 3.3.2: three digits after the point, twelve before it."""
    return f"{min(max(value, 0.0), 999_999_999_999.0):.3f}".rstrip("0").rstrip(".") or "0"

"""The two admin pages: a query in, a trail out.

/explain           the pod's app asks: where does this request go?                (its own sidecar's live state)
/explain/inbound   somebody asks: would this pod let that caller's request in?    (the rules of the pod)
"""

from __future__ import annotations

from time import monotonic
from typing import Any
from urllib.parse import parse_qs

from meshproxy.explain.inbound import admission
from meshproxy.explain.outbound import trail
from meshproxy.explain.question import FIELDS, Question
from meshproxy.policy.access import Access
from meshproxy.policy.concurrency import Concurrency
from meshproxy.proxy.inbound import InboundPort
from meshproxy.proxy.outbound import Outbound


def outbound_page(side: Outbound, identity: str, query: str) -> dict[str, Any]:
    """Raises ValueError."""
    question = Question.of_query(query)
    return {"caller": {"identity": identity, "namespace": side.namespace}, **trail(side, question.head(), monotonic())}


def inbound_page(
    ports: dict[int, InboundPort], mode: int, access: Access | None, gate: Concurrency | None, query: str
) -> dict[str, Any]:
    """`client` absent: plaintext.  Raises ValueError."""
    question = Question.of_query(query)
    words = parse_qs(query, keep_blank_values=True, max_num_fields=FIELDS)
    port = words.get("port", [""])[0]
    if not port.isdigit() or not 0 < int(port[:6]) < 65536:
        raise ValueError(f"port={port!r}: expected a port of the pod, 1 to 65535")
    return admission(ports, mode, access, gate, words.get("client", [""])[0], int(port), question.head())

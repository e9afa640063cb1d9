"""Would this pod let a request in, and why: what its own sidecar decides when one comes.

    client, port, Head --admission()--> {"allowed", "by", "reason", "rules": why each does not allow it, "mode", "limit"}

By rules alone, on objects made for the purpose: what the live ones remember is not touched.
"""

from __future__ import annotations

from typing import Any, Final

from meshproxy.explain.matching import SHOWN, text
from meshproxy.policy.access import REASONS, Access
from meshproxy.policy.concurrency import Concurrency
from meshproxy.proxy.inbound import ALL_UNAUTHENTICATED, DENY, InboundPort
from meshproxy.proxy.refusals import FORBIDDEN, NOT_AUTHENTICATED, PORT_NOT_LISTED, Refusal
from meshproxy.wire.message import Head

MODES: Final = ("all-authenticated", "all-unauthenticated", "deny")


def admission(
    ports: dict[int, InboundPort],
    mode: int,
    access: Access | None,
    gate: Concurrency | None,
    client: str,
    number: int,
    head: Head,
) -> dict[str, Any]:
    """client: its identity, "" for plaintext.  number: the pod's port.

    "by": what lets it in or keeps it out: port, probe, rules or a rule's name, mode.  "status": of a refusal, else 0."""
    found: dict[str, Any] = {
        "client": client,
        "port": number,
        "mode": MODES[mode] if 0 <= mode < len(MODES) else str(mode),
        "selected": access is not None,
        "audit": access is not None and access.audit,
        "rules": [],
        "rules_left_out": 0,
        "limit": None if gate is None else {"at_once": int(gate.limit), "in_flight": gate.total},
        "path": "",
    }
    port = ports.get(number)
    if port is None:
        return found | refused(PORT_NOT_LISTED, "port")
    probe = head.method == b"GET" and head.path in port.probe_paths
    denied = ""
    if access is not None:
        rules = access.explain(client, number, head)
        found["rules"] = [{"name": name, "why_not": why} for name, why in rules[:SHOWN]]
        found["rules_left_out"] = max(0, len(rules) - SHOWN)
        decision = Access(tuple(rule for rule in access.rules if client in rule.clients)).decide(client, number, head)
        if decision.allowed and not access.audit:
            if decision.path is not None and decision.path != head.path.partition(b"?")[0]:
                found["path"] = text(decision.path)
            return found | {"allowed": True, "by": decision.rule, "status": 0, "reason": "", "text": ""}
        denied = decision.reason
    if probe:
        return found | {
            "allowed": True,
            "by": "probe",
            "status": 0,
            "reason": "",
            "text": "a health probe: GET, exactly its path",
        }
    if access is not None and not access.audit:
        return found | {"allowed": False, "by": "rules", "status": 403, "reason": denied, "text": REASONS[denied]}
    if denied:
        found["would_be_denied"] = {"reason": denied, "text": REASONS[denied]}
    if mode == DENY:
        return found | refused(FORBIDDEN, "mode")
    if not client and mode != ALL_UNAUTHENTICATED:
        return found | refused(NOT_AUTHENTICATED, "mode")
    return found | {"allowed": True, "by": "mode", "status": 0, "reason": "", "text": ""}


def refused(refusal: Refusal, by: str) -> dict[str, Any]:
    return {"allowed": False, "by": by, "status": refusal.status, "reason": refusal.reason, "text": refusal.text}

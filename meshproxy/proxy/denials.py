"""What TrafficTargets deny, or would deny in audit: counted by client, port and reason, and logged, but not once a request.
And what each of them allows, which is counted alone.

note() ----> meshproxy_access_denied_total{audit, client_id, reason, target_port}
        `--> a log line: the first of its kind, then at most one each LOG_S, with how many there were
a rule's `allowed` --take_in() when scraped, or when other rules come--> meshproxy_access_allowed_total{rule}
"""

from __future__ import annotations

from typing import Any, Final

from meshproxy.policy.access import Access
from meshproxy.proxy.context import Context, log
from meshproxy.wire.message import Head

KINDS: Final = 1000  # of client, port and reason, with a counter of their own; what comes after is counted as client "other"
LOG_S: Final = 10.0
PATH_BYTES: Final = 200  # of a path in the log

NAME: Final = "meshproxy_access_denied_total"
HELP: Final = "Requests and tunnels that no TrafficTarget allows; with audit=true they were let in all the same."

ALLOWED: Final = "meshproxy_access_allowed_total"
ALLOWED_HELP: Final = "Requests and tunnels let in by a TrafficTarget, by its name."


def take_in(ctx: Context, access: Access | None) -> None:
    """Put into metrics what these rules have allowed since last time: a request pays for one addition, not for a look-up."""
    if access is None:
        return
    for rule in access.rules:
        counter = ctx.registry.counter(ALLOWED, ALLOWED_HELP, (("rule", rule.name),))
        counter.value += rule.allowed
        rule.allowed = 0


class Denied:
    def __init__(self, counter: Any) -> None:
        self.counter = counter
        self.told = 0  # of them
        self.told_at = -LOG_S


class Denials:
    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.kinds: dict[tuple[str, str, int, bool], Denied] = {}

    def note(self, reason: str, client: str, port: int, head: Head, audit: bool) -> None:
        """`head`: the request; one that is no HTTP has the method CONNECT."""
        key = (reason, client, port, audit)
        denied = self.kinds.get(key)
        if denied is None:
            if len(self.kinds) >= KINDS:
                client = "other"
                key = (reason, client, port, audit)
                denied = self.kinds.get(key)
            if denied is None:
                denied = self.kinds[key] = Denied(self.counter(reason, client, port, audit))
        denied.counter.value += 1
        now = self.ctx.now
        if now - denied.told_at >= LOG_S:
            count = denied.counter.value
            log.warning(
                "access %s: client=%s port=%d reason=%s request=%s%s",
                "would be denied (audit)" if audit else "denied",
                client or "(no identity)",
                port,
                reason,
                f"{head.method.decode()} {head.path.partition(b'?')[0][:PATH_BYTES].decode('ascii', 'replace')}".strip(),
                f" and {count - denied.told - 1} more since the last such line" if count - denied.told > 1 else "",
            )
            denied.told = count
            denied.told_at = now

    def counter(self, reason: str, client: str, port: int, audit: bool) -> Any:
        labels = (
            ("audit", "true" if audit else "false"),
            ("client_id", client),
            ("reason", reason),
            ("target_port", str(port)),
        )
        return self.ctx.registry.counter(NAME, HELP, labels)

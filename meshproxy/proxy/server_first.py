"""Where the server speaks first (MySQL, SMTP, FTP): what was learnt of each destination, so that nobody waits twice.

A client that says nothing for `server_first_s` may be waiting for its server.  The server is then asked: a tunnel to it is
opened and nothing is sent.  Who speaks first decides; until then nothing is lost, because nothing was said.

    UNKNOWN --silence, asked: the server spoke--> KNOWN     the next connection is asked for at once
       ^                                            |
       +-------- the client spoke first, HTTP ------+

A destination that was learnt wrongly (or changed) costs a dial a connection until its next HTTP client speaks.
"""

from __future__ import annotations

from typing import Final

from meshproxy.telemetry.registry import Counter, Registry

DESTINATIONS: Final = 1024  # remembered; the one not used for longest goes
# Tunnels open at once to one destination in which neither side has spoken.  A hundred silent ones say that its server does
# not speak first: whoever holds thousands of idle connections open must not hold as many to the server.
ASKED: Final = 100


class ServerFirst:
    """The memory of one side, by destination as its listener or CONNECT names it ("host:port")."""

    def __init__(self, registry: Registry, direction: str) -> None:
        self.known: dict[bytes, None] = {}
        self.asked: dict[bytes, int] = {}  # only those with a question open
        labels = (("direction", direction),)
        self.timeouts = registry.counter(
            "meshproxy_detect_timeouts_total",
            "Connections whose client said nothing for server_first_s, or one word for detect_timeout_s.",
            labels,
        )
        self.learnt = self.counter(registry, direction, "learnt")
        self.used = self.counter(registry, direction, "used")
        self.forgotten = self.counter(registry, direction, "forgotten")

    def counter(self, registry: Registry, direction: str, event: str) -> Counter:
        return registry.counter(
            "meshproxy_server_first_total",
            "Destinations whose server speaks first: learnt, used for a connection without a wait, forgotten.",
            (("direction", direction), ("event", event)),
        )

    def speaks_first(self, destination: bytes) -> bool:
        known = self.known
        if destination not in known:
            return False
        del known[destination]  # to the end: the front is the one not used for longest
        known[destination] = None
        self.used.value += 1
        return True

    def ask(self, destination: bytes) -> bool:
        """May one more tunnel be opened to hear whether the server speaks?  If so, `over` must follow."""
        open_now = self.asked.get(destination, 0)
        if open_now >= ASKED:
            return False
        self.asked[destination] = open_now + 1
        return True

    def over(self, destination: bytes) -> None:
        """The question is answered, or nobody asks any more."""
        left = self.asked.pop(destination) - 1
        if left:
            self.asked[destination] = left

    def learn(self, destination: bytes) -> None:
        known = self.known
        if destination in known:
            return
        if len(known) >= DESTINATIONS:
            del known[next(iter(known))]
        known[destination] = None
        self.learnt.value += 1

    def forget(self, destination: bytes) -> None:
        if destination in self.known:
            del self.known[destination]
            self.forgotten.value += 1

"""Who may call what on this pod: the TrafficTargets that select it, asked once a request (a tunnel: once, when it opens).

    (client, port, request) --> probe?  (the caller's to know)
       client "" ------------------------------------------------> denied  access_no_identity
       no rule names the client ---------------------------------> denied  access_client
       ... for this port ----------------------------------------> denied  access_port
       a rule without HTTP conditions ---------------------------> allowed
       all have conditions: bytes that are no HTTP --------------> denied  access_not_http
                            a path without one safe spelling ----> denied  access_path     (policy/path.py)
                            one of their matches fits -----------> allowed
                            none --------------------------------> denied  access_request

Rules only allow: one is enough, none can take back what another gave (SMI, "additive, default deny").  Within a rule all that
is given must fit; its HTTP matches are alternatives, and within a match path, method and every header must fit.

What depends on client and port alone is worked out when they first meet and kept; a request pays the look-up and, where its
rules have HTTP conditions, a memo of (method, path) or the matches themselves.
"""

from __future__ import annotations

from typing import Final

from meshproxy.policy.path import normal_path
from meshproxy.policy.regex import Regex
from meshproxy.wire.message import CACHES, Head

NO_IDENTITY: Final = "access_no_identity"
CLIENT: Final = "access_client"
PORT: Final = "access_port"
NOT_HTTP: Final = "access_not_http"
PATH: Final = "access_path"
REQUEST: Final = "access_request"

# reason -> what it says to people
REASONS: Final[dict[str, str]] = {
    NO_IDENTITY: "a TrafficTarget selects this pod, and a client without a mesh identity is none of its sources",
    CLIENT: "no TrafficTarget that selects this pod names this client as a source",
    PORT: "no TrafficTarget allows this client this port",
    NOT_HTTP: "this client is allowed certain HTTP requests on this port, and this is no HTTP",
    PATH: "rules on paths apply, and this path can be read in more than one way",
    REQUEST: "no rule allows this client this method, path and headers",
}

MEMO: Final = 1024  # (client, port, method, path) whose verdict is remembered; then all are forgotten
MEMO_BYTES: Final = 256  # of a method and path: longer ones are judged anew


class HeaderMatch:
    """A header that must be there and fit, whole.  Several lines of one name are one value, joined by "," (RFC 9110 5.2).
    `host` is what the request names as its authority: lower case, without port and final dot."""

    def __init__(self, name: bytes, value: Regex) -> None:
        self.name = name
        self.value = value

    def fits(self, head: Head) -> bool:
        if self.name == b"host":
            return self.value.matches(host_of(head.authority))
        values = [field.value for field in head.fields if field.name == self.name]
        if not values:
            return False
        return self.value.matches(values[0] if len(values) == 1 else b",".join(values))


class HttpMatch:
    """One kind of request.  methods: none: any; path: of the normal form, without the query, None: any."""

    def __init__(
        self, methods: tuple[bytes, ...] = (), path: Regex | None = None, headers: tuple[HeaderMatch, ...] = ()
    ) -> None:
        self.methods = methods
        self.path = path
        self.headers = headers

    def misfit(self, method: bytes, path: bytes, head: Head) -> str:
        """What does not fit: "method", "path" or "header <name>"; "" if all does."""
        if self.methods and method not in self.methods:
            return "method"
        if self.path is not None and not self.path.matches(path):
            return "path"
        for header in self.headers:
            if not header.fits(head):
                return "header " + header.name.decode("ascii", "replace")
        return ""


class AccessRule:
    """One TrafficTarget.  ports: none: every port; http: none: no conditions, and then also what is not HTTP.
    `allowed`: requests and tunnels let in by it and not yet put into a metric; its owner counts."""

    def __init__(
        self, name: str, clients: tuple[str, ...], ports: tuple[int, ...] = (), http: tuple[HttpMatch, ...] = ()
    ) -> None:
        self.name = name
        self.clients = clients
        self.ports = ports
        self.http = http
        self.allowed = 0


class Decision:
    """rule    of an allowed request: the name of what allowed it, which is `by`
    reason  of a denied one: a key of REASONS
    path    of an allowed one: its path in normal form, where it came in another spelling; None where it did not, or no rule is
            on paths.  The app must be given this one, or it would decide by another path than we did.
    """

    def __init__(self, by: AccessRule | None, reason: str, path: bytes | None = None) -> None:
        self.allowed = by is not None
        self.by = by
        self.rule = by.name if by is not None else ""
        self.reason = reason
        self.path = path

    def __repr__(self) -> str:
        return f"Decision({'allowed by ' + self.rule if self.allowed else 'denied: ' + self.reason})"


def _denied(reason: str) -> Decision:
    return Decision(None, reason)


_NO_IDENTITY: Final = _denied(NO_IDENTITY)
_CLIENT: Final = _denied(CLIENT)
_PORT: Final = _denied(PORT)
_NOT_HTTP: Final = _denied(NOT_HTTP)
_PATH: Final = _denied(PATH)
_REQUEST: Final = _denied(REQUEST)


class Grant:
    """What one client may do on one port.  `always`: the decision, if it is the same for every request."""

    def __init__(self, number: int, always: Decision | None) -> None:
        self.key = b"%d " % number  # of its entries in the memo
        self.always = always
        self.matches: list[HttpMatch] = []
        self.allowing: list[Decision] = []  # what each of `matches` leads to
        self.on_paths = False
        self.on_headers = False

    def add(self, rule: AccessRule) -> None:
        allowed = Decision(rule, "")
        for match in rule.http:
            self.matches.append(match)
            self.allowing.append(allowed)
            self.on_paths = self.on_paths or match.path is not None
            self.on_headers = self.on_headers or len(match.headers) > 0


class Access:
    """All rules for one pod.  `audit`: what they deny is to be reported, not refused (the caller's to do)."""

    def __init__(self, rules: tuple[AccessRule, ...], audit: bool = False) -> None:
        self.rules = rules
        self.audit = audit
        self._rules: dict[str, list[AccessRule]] = {}  # by client
        for rule in rules:
            for client in rule.clients:
                self._rules.setdefault(client, []).append(rule)
        self._grants: dict[int, dict[str, Grant]] = {}  # by port and client: of clients that rules name only
        self._made = 0
        self._memo: dict[bytes, Decision] = {}

    def decide(self, client: str, port: int, head: Head) -> Decision:
        """client: its verified identity, "" without one.  port: of the pod, one that it lists (what is kept is kept by it)."""
        grants = self._grants.get(port)
        if grants is None:
            grants = self._grants[port] = {}
        grant = grants.get(client)
        if grant is None:
            rules = self._rules.get(client)
            if rules is None:
                return _CLIENT if client else _NO_IDENTITY
            grant = grants[client] = self._grant(rules, port)
        always = grant.always
        if always is not None:
            return always
        method = request_method(head)
        if not method:
            return _NOT_HTTP
        if grant.on_headers or len(head.path) > MEMO_BYTES or not CACHES.enabled:
            return self._judge(grant, method, head)
        key = grant.key + method + (b" grpc " if head.grpc else b" ") + head.path
        decision = self._memo.get(key)
        if decision is None:
            decision = self._judge(grant, method, head)
            if len(self._memo) >= MEMO:
                self._memo.clear()
            self._memo[key] = decision
        return decision

    def _grant(self, rules: list[AccessRule], port: int) -> Grant:
        self._made += 1
        serving = [rule for rule in rules if not rule.ports or port in rule.ports]
        if not serving:
            return Grant(self._made, _PORT)
        for rule in serving:
            if not rule.http:
                return Grant(self._made, Decision(rule, ""))
        grant = Grant(self._made, None)
        for rule in serving:
            grant.add(rule)
        return grant

    def _judge(self, grant: Grant, method: bytes, head: Head) -> Decision:
        path = head.path
        if grant.on_paths:
            normal = normal_path(path)
            if normal is None:
                return _PATH
            end = path.find(b"?")
            if normal == (path if end < 0 else path[:end]):
                path = normal
                respelt = False
            elif head.grpc:
                return _PATH  # gRPC compares the bytes of a path; another spelling of it is another method
            else:
                path = normal
                respelt = True
        else:
            respelt = False
        for index in range(len(grant.matches)):
            if not grant.matches[index].misfit(method, path, head):
                allowed = grant.allowing[index]
                return Decision(allowed.by, "", path) if respelt else allowed
        return _REQUEST

    def explain(self, client: str, port: int, head: Head) -> list[tuple[str, str]]:
        """(rule, why it does not allow this request; "" if it does) of every rule, for people."""
        return [(rule.name, _why_not(rule, client, port, head)) for rule in self.rules]


def _why_not(rule: AccessRule, client: str, port: int, head: Head) -> str:
    if client not in rule.clients:
        return f"{client or 'a client without an identity'} is none of its sources"
    if rule.ports and port not in rule.ports:
        return f"port {port} is none of {', '.join(str(number) for number in rule.ports)}"
    if not rule.http:
        return ""
    method = request_method(head)
    if not method:
        return REASONS[NOT_HTTP]
    path = normal_path(head.path)
    if path is None:
        return REASONS[PATH]
    misfits = [match.misfit(method, path, head) for match in rule.http]
    return "" if "" in misfits else "does not fit: " + ", ".join(dict.fromkeys(misfits))


def request_method(head: Head) -> bytes:
    """The method that the app sees, b"" if what is asked for is a way for requests or bytes past us.  An upgrade is a GET, also
    where it came as extended CONNECT (RFC 8441 4)."""
    protocol = head.protocol
    if protocol:
        if protocol[:3].lower() == b"h2c" or protocol[:4].lower() == b"http" or protocol[:3].lower() == b"tls":
            return b""
        return b"GET" if head.method == b"CONNECT" else head.method
    return b"" if head.method == b"CONNECT" else head.method


def host_of(authority: bytes) -> bytes:
    """The host in one spelling: lower case, no port, no final dot."""
    host = authority.lower()
    if host[:1] == b"[":
        return host[: host.find(b"]") + 1]
    host = host.partition(b":")[0]
    return host[:-1] if host[-1:] == b"." else host

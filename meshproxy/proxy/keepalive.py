"""TCP's own timers: how a peer that vanished without FIN or RST is found (its link is down, its machine lost power).

    silent connection     --tcp_keepalive_s--> probe --unanswered, tcp_user_timeout_s since the last sign--> ETIMEDOUT
    bytes under way       --unacknowledged for tcp_user_timeout_s------------------------------------------> ETIMEDOUT

Without them the kernel resends for 15 minutes, and a silent connection stays for ever.  Accepted sockets inherit the options
of their listener (Linux), so accepting costs nothing more.
"""

from __future__ import annotations

import logging
import socket
from typing import Any, Final

from meshproxy.proxy.settings import Settings

log: Final = logging.getLogger("meshproxy.proxy")

PROBE_EVERY_S: Final = 5  # once the first was sent


def keep_alive(sock: Any, settings: Settings) -> None:
    """Set them on a socket, or on what an event loop shows of one."""
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    idle_s = max(1, round(settings.tcp_keepalive_s))
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle_s)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, min(idle_s, PROBE_EVERY_S))
        # Where it is set this alone says when to give up, for keepalive too (tcp(7)); TCP_KEEPCNT is then not looked at.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(settings.tcp_user_timeout_s * 1000))
    except (OSError, AttributeError) as error:  # not Linux, or the peer is gone already: the proxy's own timeouts remain
        log.debug("TCP keepalive is not set: %s", error)

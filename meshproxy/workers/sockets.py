"""Listening sockets of a proxy with several workers: one for each worker and address, all bound by the parent.

    bind(host, port, N) --> N sockets, SO_REUSEPORT --fd i--> worker i          the kernel picks one by the connection's hash

Why a socket for each.  With one socket that all workers wait on, every connection wakes every worker (libuv does not set
EPOLLEXCLUSIVE, and through a nested epoll it has no effect), and whoever was idle last gets most of them: with EPOLLEXCLUSIVE
too, which wakes the newest waiter.  A parent that accepts and hands connections on balances best, but costs two system
calls and a wake-up of two processes more for each connection.  The hash costs nothing and is even where it matters, with many
connections; two of them share a worker half of the time.

What SO_REUSEPORT is blamed for is a process that dies with connections in its queue.  Here the parent keeps every socket, so
a queue outlives its worker, and somebody else accepts from it until the worker is back (supervisor.py).
"""

from __future__ import annotations

import socket

from meshproxy.proxy.listener import BACKLOG, listen_error


def bind(host: str, port: int, count: int) -> list[list[socket.socket]]:
    """`count` lists of listening sockets, one list for each worker, a socket for each address of `host`.
    Raises ListenError."""
    found: list[list[socket.socket]] = [[] for _ in range(count)]
    try:
        for family, kind, protocol, _name, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            # First as a server that has the address to itself: with SO_REUSEPORT alone a second proxy on the same port would
            # not be refused, it would quietly get half of the connections.
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((address[0], port, *address[2:]))
            for sockets in found:
                made = socket.socket(family, kind, protocol)
                sockets.append(made)
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                if family == socket.AF_INET6:
                    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                made.bind((address[0], port, *address[2:]))
                port = made.getsockname()[1]  # of port 0: the others take what the first was given
        for sockets in found:
            for made in sockets:
                made.listen(BACKLOG)
                made.setblocking(False)
    except OSError as error:
        for sockets in found:
            for made in sockets:
                made.close()
        raise listen_error(host, port, error) from error
    return found

"""A peer's own network: connections in it are redirected, nothing of it is seen outside, and it leaves nothing behind."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import threading

import pytest

from benchmarks import measure, network
from benchmarks.network import Network

SO_ORIGINAL_DST = 80  # linux/netfilter_ipv4.h
RULES = "table ip pods {\n chain output {\n type nat hook output priority -100\n tcp dport 80 redirect to :%d\n }\n }\n"
why = network.missing(RULES % 4140)
needs_network = pytest.mark.skipif(bool(why), reason=why)


def here() -> str:
    return os.readlink("/proc/thread-self/ns/net")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@needs_network
def test_a_redirected_connection_still_knows_where_it_was_going() -> None:
    port = measure.free_port()
    with Network() as net, net.inside(), socket.create_server(("127.0.0.1", port)) as proxy:
        net.load(RULES % port)
        with socket.create_connection(("10.3.2.1", 80), 10), proxy.accept()[0] as accepted:
            going = accepted.getsockopt(socket.IPPROTO_IP, SO_ORIGINAL_DST, 16)  # a sockaddr_in
    _, to_port, to_host = struct.unpack("!HH4s8x", going)
    assert (socket.inet_ntoa(to_host), to_port) == ("10.3.2.1", 80)


@needs_network
def test_what_listens_in_a_network_is_reached_from_inside_it_alone() -> None:
    with Network() as net:
        with net.inside():
            listening = socket.create_server(("127.0.0.1", 0))
        with listening:
            address = listening.getsockname()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address, 10)
            with net.inside():
                socket.create_connection(address, 10).close()


@needs_network
def test_processes_and_threads_begun_inside_are_inside() -> None:
    seen: list[str] = []
    with Network() as net, net.inside():
        thread = threading.Thread(target=lambda: seen.append(here()))
        thread.start()
        thread.join()
        with measure.process(["sleep", "60"]) as running:
            seen.append(os.readlink(f"/proc/{running.pid}/ns/net"))
        assert seen == [here(), here()]
    assert here() not in seen


def interrupted_in(net: Network) -> None:
    with net.inside():
        raise KeyboardInterrupt


@needs_network
def test_the_thread_comes_back_out_and_nothing_stays_open_whatever_happens() -> None:
    outside, before = here(), descriptors()
    with Network() as net, pytest.raises(KeyboardInterrupt):
        interrupted_in(net)
    with Network() as net, pytest.raises(OSError, match="nft -f -: /dev/stdin:1"):
        net.load("no rules\n")
    assert (here(), descriptors()) == (outside, before)


def test_without_the_right_to_make_networks_that_is_the_reason() -> None:
    words = [sys.executable, "-c", "from benchmarks import network; print(network.missing(''))"]
    if os.geteuid() == 0:
        words = ["setpriv", "--bounding-set=-sys_admin", *words]
    said = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout
    assert said == (
        "connections are redirected in a network namespace, which needs root ([Errno 1] unshare: Operation not permitted)\n"
    )

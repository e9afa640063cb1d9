"""The channel between parent and worker: whole messages, their descriptors, and an end to whatever is wrong."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from meshproxy.workers.channel import MAX_FDS, MAX_UNSENT, Channel
from meshproxy.workers.messages import MAX_MESSAGE, Ask, Configure, Drain, Listen, Ready, ToParent, ToWorker

DEADLINE_S = 20.0


class End:
    """One end of a channel, and what came out of it."""

    def __init__(self, sock: socket.socket, kind: Any) -> None:
        self.messages: list[Any] = []
        self.descriptors: list[int] = []
        self.ended: list[str] = []
        self.channel = Channel(asyncio.get_running_loop(), sock, kind, self.take, self.ended.append)

    def take(self, message: Any, descriptors: list[int]) -> None:
        self.messages.append(message)
        self.descriptors += descriptors


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110  (sockets are watched, not events)
            await asyncio.sleep(0.001)


@pytest.fixture
def ends():
    made: list[End] = []

    def make() -> tuple[End, End]:
        ours, theirs = socket.socketpair()
        made.extend((End(ours, ToParent), End(theirs, ToWorker)))
        return made[-2], made[-1]

    yield make
    for end in made:
        end.channel.close()
        for descriptor in end.descriptors:
            os.close(descriptor)


async def test_messages_larger_than_any_socket_buffer_arrive_whole_and_in_order(ends) -> None:
    parent, worker = ends()
    updates = [os.urandom(5_000_000), b"", os.urandom(10), os.urandom(300_000)]
    for update in updates:
        parent.channel.send(Configure(update))
    worker.channel.send(Ready("the other way too"))
    await until(lambda: len(worker.messages) == len(updates) and parent.messages)
    assert [message.update for message in worker.messages] == updates
    assert parent.messages == [Ready("the other way too")]
    assert parent.channel.unsent == 0


async def test_each_message_has_its_own_descriptors_however_the_bytes_come(ends, tmp_path: Path) -> None:
    parent, worker = ends()
    seen: list[tuple[str, list[str]]] = []
    files = []
    for number in range(6):
        path = tmp_path / str(number)
        path.write_text(f"file {number}")
        files.append(path.open())
    fds = [file.fileno() for file in files]

    def take(message: Any, descriptors: list[int]) -> None:
        if isinstance(message, Listen):
            seen.append((message.key, [os.read(descriptor, 100).decode() for descriptor in descriptors]))
            for descriptor in descriptors:
                os.close(descriptor)

    worker.channel.take = take
    parent.channel.send(Configure(os.urandom(1_000_000)))  # the others wait behind it
    for key, mine in (("none", []), ("two", fds[:2]), ("also none", []), ("four", fds[2:])):
        parent.channel.send(Listen(key, "outbound", "h", 1), mine)
    for file in files:
        file.close()  # they were on their way already
    await until(lambda: len(seen) == 4)
    assert seen == [
        ("none", []),
        ("two", ["file 0", "file 1"]),
        ("also none", []),
        ("four", [f"file {n}" for n in (2, 3, 4, 5)]),
    ]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (struct.pack("!IH", MAX_MESSAGE + 1, 0), "a message of"),
        (struct.pack("!IH", 1, MAX_FDS + 1), "a message of"),
        (struct.pack("!IH", 3, 0) + b"\xc1\xc1\xc1", "not a message"),
        (struct.pack("!IH", 5, 0) + b"\xa4none", "not a message"),
        (struct.pack("!IH", 12, 2) + b"\x81\xa4type\xa5drain", "0 descriptors came with a message that has 2"),
    ],
)
async def test_what_is_no_message_ends_the_channel(ends, data: bytes, why: str) -> None:
    parent, worker = ends()
    parent.channel.sock.send(data)
    await until(lambda: worker.ended)
    assert why in worker.ended[0]
    assert worker.messages == []
    parent.channel.send(Drain())
    await until(lambda: parent.ended)
    parent.channel.send(Drain())  # and what is sent afterwards is nobody's concern
    assert len(worker.ended) == len(parent.ended) == 1


async def test_a_message_of_the_wrong_direction_is_no_message(ends) -> None:
    parent, worker = ends()
    worker.channel.send(Ask(1))
    await until(lambda: parent.ended)
    assert "not a message" in parent.ended[0]


async def test_what_a_peer_does_not_read_is_kept_up_to_a_bound(ends) -> None:
    parent, worker = ends()
    asyncio.get_running_loop().remove_reader(worker.channel.sock.fileno())
    chunk = Configure(bytes(MAX_MESSAGE // 2))
    for _ in range(MAX_UNSENT // (MAX_MESSAGE // 2)):
        parent.channel.send(chunk)
    assert parent.ended == []
    parent.channel.send(chunk)
    assert "were not read" in parent.ended[0]


async def test_descriptors_of_a_closed_channel_are_closed(ends, tmp_path: Path) -> None:
    parent, worker = ends()
    asyncio.get_running_loop().remove_reader(worker.channel.sock.fileno())
    parent.channel.send(Configure(bytes(1_000_000)))  # does not fit, so what follows waits
    before = len(os.listdir("/proc/self/fd"))
    with (tmp_path / "a").open("w") as file:
        parent.channel.send(Listen("a", "outbound", "h", 1), [file.fileno()] * 5)
        assert len(os.listdir("/proc/self/fd")) == before + 6
    parent.channel.close()
    assert len(os.listdir("/proc/self/fd")) == before - 1
    assert parent.ended == ["closed"]

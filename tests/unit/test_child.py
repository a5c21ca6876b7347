"""The line between a controller and its children, whom packets may have made say anything."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest

from engine import supervisor
from engine.child import Channel
from engine.control.methods import RpcError

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def ends() -> Iterator[tuple[Channel, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Channel(ours), theirs


def test_messages_arrive_whole(ends: tuple[Channel, socket.socket]) -> None:
    channel, other = ends
    other.sendall(b'{"id": 1, "result": {}}\n\n{"state": "run')
    assert channel.receive() == [{"id": 1, "result": {}}]
    other.sendall(b'ning"}\n')
    assert channel.receive() == [{"state": "running"}]
    assert not channel.ended


def test_what_comes_with_the_configuration_is_not_lost(ends: tuple[Channel, socket.socket]) -> None:
    """A child that is slow to begin is asked before it has read its first line."""
    channel, other = ends
    other.sendall(b'{"task": "t"}\n{"id": 1, "method": "query"}\n{"id": 2}\n')
    assert channel.first() == {"task": "t"}
    assert channel.wait(5.0)
    assert channel.receive() == [{"id": 1, "method": "query"}, {"id": 2}]
    assert not channel.wait(0.0)
    assert channel.receive() == []


@pytest.mark.parametrize(
    "line", [b"no JSON", b"[1]", b'"text"', b'{"id": [1]}', b"\xff\xfe", b"[" * 100_000, b"NaN"]
)
def test_a_line_that_is_no_message_ends_the_channel(ends: tuple[Channel, socket.socket], line: bytes) -> None:
    channel, other = ends
    other.sendall(b'{"id": 1}\n')
    assert channel.receive() == [{"id": 1}]
    other.sendall(line + b'\n{"id": 2}\n')
    assert channel.receive() == []
    assert channel.ended


@pytest.mark.parametrize(
    ("error", "text"),
    [("broken", "broken"), ({"code": "x", "data": "y"}, "failed"), ({"message": 3, "data": [1]}, "3")],
)
def test_an_odd_error_is_an_error(error: Any, text: str) -> None:
    async def ask() -> None:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        supervisor._resolve(future, {"id": 1, "error": error})
        await future

    with pytest.raises(RpcError, match=text):
        asyncio.run(ask())


def test_a_successor_that_cannot_be_started_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "BACK_OFF", (0.0, 0.01))
    asked = []

    def configure() -> tuple[dict[str, Any], list[int]]:
        asked.append(1)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def run() -> None:
        child = supervisor.Child("worker 0", "engine.pipeline.worker", configure)
        child.start_again()
        assert child.state == "restarting"
        while len(asked) < 3:
            await asyncio.sleep(0.005)
        await child.stop(1)
        assert child.state == "stopped"
        seen = len(asked)
        await asyncio.sleep(0.05)
        assert len(asked) == seen

    asyncio.run(asyncio.wait_for(run(), 5))

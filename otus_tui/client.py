"""How a front end speaks to an engine: one connection on asyncio, calls and snapshots.

The command line uses the blocking twin in `otus_tui.control_client`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from typing import TYPE_CHECKING, Any

from engine.control.methods import MAX_LINE, PROTOCOL
from otus_tui.control_client import (
    ClientError,
    ControlClient,
    PrivateConnection,
    answer_result,
    check_hello,
    connect_error,
    default_socket_path,
    request_line,
    start_engine,
    start_private_engine,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.snapshot import Snapshot

__all__ = [
    "Client",
    "ClientError",
    "ControlClient",
    "PrivateConnection",
    "default_socket_path",
    "start_engine",
    "start_private_engine",
]

CALL_TIMEOUT = 10.0


class Client:
    """A connection to an engine.

    Callbacks run in the event loop and must be quick. When the connection ends other than by
    `close()`, every waiting call raises ClientError and the `on_lost` callbacks get the reason, once.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._number = 0
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._on_snapshot: list[Callable[[Snapshot], None]] = []
        self._on_lost: list[Callable[[str], None]] = []
        self._closing = False
        self.lost: str | None = None
        """Why the connection ended; None while it stands."""
        self.hello: dict[str, Any] = {}
        """The engine's answer to `hello`: protocol, version, pid, node, started, mode."""
        self._task = asyncio.create_task(self._read())

    @classmethod
    async def connect(cls, where: str | socket.socket | None = None) -> Client:
        """Connect to a socket's path (None: the default), or speak over a connected socket, and say hello.

        ClientError if nobody answers, this user may not, or the engine speaks another protocol.
        """
        if isinstance(where, socket.socket):
            where.setblocking(False)
            reader, writer = await asyncio.open_unix_connection(sock=where, limit=MAX_LINE)
        else:
            path = where or default_socket_path()
            try:
                reader, writer = await asyncio.open_unix_connection(path, limit=MAX_LINE)
            except OSError as error:
                raise connect_error(path, error) from error
        client = cls(reader, writer)
        try:
            client.hello = await client.call("hello", protocol=PROTOCOL)
            check_hello(client.hello)
        except ClientError as error:
            reason = where.error() if isinstance(where, PrivateConnection) else None
            await client.close()
            if reason is not None:
                raise reason from error
            raise
        return client

    async def call(self, method: str, /, **params: Any) -> Any:
        """The result of a method of engine.control.methods; ClientError with message, hint and rpc_code."""
        if self.lost is not None:
            raise ClientError(self.lost)
        self._number += 1
        number = self._number
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            self._writer.write(request_line(number, method, params))
            await self._writer.drain()
            return await asyncio.wait_for(future, CALL_TIMEOUT)
        except TimeoutError as error:
            raise ClientError(f"the engine gave no answer to {method} within {CALL_TIMEOUT:.0f} s") from error
        except OSError as error:
            raise ClientError(f"the connection to the engine broke: {error.strerror or error}") from error
        finally:
            self._waiting.pop(number, None)

    def on_snapshot(self, callback: Callable[[Snapshot], None]) -> None:
        """Call `callback` with each `snapshot` notification; `subscribe` asks for them."""
        self._on_snapshot.append(callback)

    def on_lost(self, callback: Callable[[str], None]) -> None:
        """Call `callback` with the reason when the engine is gone."""
        self._on_lost.append(callback)

    async def close(self) -> None:
        """Hang up; no callback is called any more."""
        self._closing = True
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._end("the connection is closed")
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def _read(self) -> None:
        reason = "the engine closed the connection"
        try:
            while line := await self._reader.readline():
                self._take(json.loads(line))
        except (OSError, ValueError) as error:
            reason = f"the connection to the engine broke: {error}"
        except Exception as error:
            # Nobody else reads: who waits for an answer must hear that none will come.
            reason = f"the engine's answer was not understood: {type(error).__name__}: {error}"
        self._end(reason)

    def _take(self, message: dict[str, Any]) -> None:
        method = message.get("method")
        if method is not None:
            params: Any = message.get("params")
            if method == "snapshot":
                for show in self._on_snapshot:
                    show(params)
            return
        future = self._waiting.get(message.get("id", 0))
        if future is None or future.done():
            return
        try:
            future.set_result(answer_result(message))
        except ClientError as error:
            future.set_exception(error)

    def _end(self, reason: str) -> None:
        if self.lost is not None:
            return
        self.lost = reason
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ClientError(reason))
        if not self._closing:
            for callback in self._on_lost:
                callback(reason)

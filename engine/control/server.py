"""The control socket: JSON-RPC 2.0, one object a line, for the methods of `engine.control.methods`.

A connection's requests are answered in their order. A client that does not read loses snapshots
(counted), never delays another one, and is hung up on when even an answer does not get through.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import grp
import inspect
import json
import os
import pwd
import socket
import stat
import struct
from typing import TYPE_CHECKING, Any

import orjson

from engine.control.methods import (
    ERROR_INVALID,
    ERROR_NOT_PERMITTED,
    ERROR_REFUSED,
    INTERNAL,
    MAX_LINE,
    METHOD,
    METHODS,
    PARAMS,
    PARSE,
    REQUEST,
    RpcError,
)
from engine.control.paths import SERVICE_SOCKET
from engine.errors import NotPermittedError, OtusError, UsageError
from engine.log import log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

MAX_CONNECTIONS = 64
ANSWER_TIMEOUT = 10.0
REFUSAL_TIMEOUT = 1.0
PROBE_TIMEOUT = 1.0
"""For who listens already at the socket's place to say hello."""
SNAPSHOT_BACKLOG = 262_144
"""Octets that may wait for a client before snapshots for it are left out."""
_SO_PEERGROUPS = 59
_CREDENTIALS = struct.Struct("3i")


class Connection:
    """One client."""

    def __init__(self, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self.reader = reader
        self.writer = writer
        self.lost = 0
        """Snapshots that this client was too slow for."""
        self.subscription: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Answer requests until the client hangs up."""
        while True:
            try:
                line = await self.reader.readuntil(b"\n")
            except asyncio.IncompleteReadError:
                return
            except asyncio.LimitOverrunError:
                await self.send(_error(None, REQUEST, f"a line is longer than {MAX_LINE} octets"))
                return
            if line.strip():
                answer = await self.answer(line)
                if answer is not None and not await self.send(answer):
                    return

    async def answer(self, line: bytes) -> dict[str, Any] | None:
        """The answer to one line; None to a notification."""
        try:
            request = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            return _error(None, PARSE, f"no JSON: {error}")
        if not isinstance(request, dict):
            return _error(None, REQUEST, "a request is one JSON object a line")
        number = request.get("id")
        if not isinstance(number, str | int | float | None):
            return _error(None, REQUEST, "id must be a string or a number")
        method, params = request.get("method"), request.get("params")
        if not isinstance(method, str):
            return _error(number, REQUEST, "method is missing")
        if params is None:
            params = {}
        if not isinstance(params, dict):
            return _error(number, PARAMS, "params must be an object")
        try:
            result = await self.server.call(self, method, params)
        except OtusError as error:
            answer = _error(number, _code(error), error.message, error.hint, getattr(error, "data", {}))
        except Exception:
            log.exception("control", f"method {method} failed")
            answer = _error(number, INTERNAL, f"{method} failed inside the engine", "its log has the details")
        else:
            answer = {"jsonrpc": "2.0", "id": number, "result": result}
        return answer if "id" in request else None

    async def send(self, message: Mapping[str, Any]) -> bool:
        """Write one line and wait until the client takes it; False if it does not."""
        try:
            self.writer.write(_line(message))
            await asyncio.wait_for(self.writer.drain(), ANSWER_TIMEOUT)
        except (OSError, TimeoutError):
            return False
        return True

    def notify(self, method: str, params: Mapping[str, Any]) -> bool:
        """Send a notification if the client keeps up; else count it as lost."""
        transport = self.writer.transport
        if transport.is_closing():
            return False
        if transport.get_write_buffer_size() > SNAPSHOT_BACKLOG:
            self.lost += 1
            self.server.notifications_lost += 1
            return False
        self.writer.write(_line({"jsonrpc": "2.0", "method": method, "params": params}))
        return True

    def subscribe(self, period: float, make: Callable[[], Awaitable[Mapping[str, Any]]]) -> None:
        """From now on send what `make` returns as `snapshot`, every `period` seconds; the first one now."""
        self.unsubscribe()
        self.subscription = asyncio.create_task(self._publish(period, make))

    def unsubscribe(self) -> None:
        """Stop the snapshots."""
        if self.subscription is not None:
            self.subscription.cancel()
            self.subscription = None

    async def _publish(self, period: float, make: Callable[[], Awaitable[Mapping[str, Any]]]) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            try:
                self.notify("snapshot", await make())
            except OSError:
                return
            except Exception:
                log.exception("control", "no snapshot")
            due = max(due + period, loop.time())
            await asyncio.sleep(due - loop.time())

    def close(self) -> None:
        """Hang up."""
        self.unsubscribe()
        self.writer.close()


class Server:
    """Listens, checks who calls, and calls `handlers`: coroutine functions of (connection, **params)."""

    def __init__(self, handlers: Mapping[str, Callable[..., Awaitable[Any]]]) -> None:
        self.handlers = handlers
        self.connections: set[Connection] = set()
        self.notifications_lost = 0
        self.refused = 0
        self.on_empty: Callable[[], None] | None = None
        """Called when the last client has left."""
        self._group: int | None = None
        self._path = ""
        self._identity = (0, 0)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def bind(self, path: str, group: str = "") -> socket.socket:
        """Take the socket at `path`, 0660, for `group` where it exists; OtusError if somebody has it.

        Clients wait in its queue until `serve()`.
        """
        try:
            self._group = grp.getgrnam(group).gr_gid if group else None
        except KeyError:
            self._group = None
        listener = bind_socket(path, self._group)
        state = os.stat(path)
        self._path, self._identity = path, (state.st_dev, state.st_ino)
        return listener

    async def serve(self, listener: socket.socket) -> None:
        """Accept clients from now on."""
        self._server = await asyncio.start_unix_server(self._accept, sock=listener, limit=MAX_LINE)

    async def adopt(self, connected: socket.socket) -> None:
        """Serve a client over a socket that is already connected."""
        connected.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=connected, limit=MAX_LINE)
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def call(self, connection: Connection, method: str, params: dict[str, Any]) -> Any:
        """Call a method by name; RpcError for a method or a parameter that there is not."""
        handler = self.handlers.get(method)
        if handler is None or method not in METHODS:
            raise RpcError(METHOD, f"no method {method!r}", f"known: {', '.join(self.handlers)}")
        try:
            inspect.signature(handler).bind(connection, **params)
        except TypeError as error:
            raise RpcError(PARAMS, f"{method}: {error}", f"params: {METHODS[method].params}") from error
        return await handler(connection, **params)

    async def close(self) -> None:
        """Hang up on everybody and remove the socket, if it is still ours."""
        if self._server is not None:
            self._server.close()
        if self._path:
            with contextlib.suppress(OSError):
                state = os.stat(self._path)
                if (state.st_dev, state.st_ino) == self._identity:
                    os.unlink(self._path)
        for connection in list(self.connections):
            connection.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=1.0)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("socket")
        reason = self._refusal(peer)
        if reason is not None:
            self.refused += 1
            log.warning("control", reason.message)
            with contextlib.suppress(
                OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError
            ):
                writer.write(_line(_error(None, _code(reason), reason.message, reason.hint)))
                writer.write_eof()
                # Closing with its request unread would take the answer away from it.
                await asyncio.wait_for(reader.readuntil(b"\n"), REFUSAL_TIMEOUT)
            writer.close()
            return
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        await self._serve(reader, writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(self, reader, writer)
        self.connections.add(connection)
        try:
            await connection.run()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            connection.close()
            self.connections.discard(connection)
            if not self.connections and self.on_empty is not None:
                self.on_empty()

    def _refusal(self, peer: socket.socket) -> OtusError | None:
        if len(self.connections) >= MAX_CONNECTIONS:
            return RpcError(ERROR_REFUSED, f"{MAX_CONNECTIONS} clients are connected", "close one of them")
        pid, uid, gid = _CREDENTIALS.unpack(
            peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        if uid in (0, os.geteuid()):
            return None
        if self._group is not None and (gid == self._group or self._group in _peer_groups(peer, uid, gid)):
            return None
        return NotPermittedError(
            f"user {uid} (pid {pid}) may not control this engine",
            "use sudo, or be a member of the socket's group",
        )


def _peer_groups(peer: socket.socket, uid: int, gid: int) -> list[int]:
    """Supplementary groups of the process behind a socket, as the kernel kept them at connect()."""
    try:
        packed = peer.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 1024)
        return [number[0] for number in struct.iter_unpack("I", packed)]
    except OSError:  # more than 256 groups, or a kernel before 4.13
        try:
            return os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)
        except (KeyError, OSError):
            return []


def _line(message: Mapping[str, Any]) -> bytes:
    """One object and its newline; orjson refuses the name of a file that holds octets which are no UTF-8."""
    try:
        return orjson.dumps(message, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def _code(error: OtusError) -> int:
    if isinstance(error, RpcError):
        return error.rpc_code
    if isinstance(error, UsageError):
        return ERROR_INVALID
    return ERROR_NOT_PERMITTED if isinstance(error, NotPermittedError) else ERROR_REFUSED


def _error(
    number: Any, code: int, message: str, hint: str = "", data: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    error = {"code": code, "message": message, "data": {"hint": hint, **(data or {})}}
    return {"jsonrpc": "2.0", "id": number, "error": error}


def bind_socket(path: str, group: int | None) -> socket.socket:
    """A listening socket at `path`, mode 0660; a stale socket file is replaced, a live one refused.

    OtusError: somebody listens, the file is no socket, or another user's.
    """
    if len(os.fsencode(path)) > 107:
        raise UsageError(
            f"the socket's path is longer than 107 octets: {path}", "name a shorter one: --socket PATH"
        )
    try:
        folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise _taken(path, error) from error
    try:
        # Two engines that start at once must not take each other's socket for a stale one.
        fcntl.flock(folder, fcntl.LOCK_EX)
        _remove_stale(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            listener.bind(path)
            if group is not None:
                _give_to_group(path, group)
                if os.path.dirname(path) == os.path.dirname(SERVICE_SOCKET):
                    _give_to_group(os.path.dirname(path), group)
            os.chmod(path, 0o660)
            listener.listen(16)
        except OSError as error:
            listener.close()
            raise _taken(path, error) from error
        finally:
            os.umask(before)
        return listener
    finally:
        os.close(folder)


def _give_to_group(path: str, group: int) -> None:
    try:
        os.chown(path, -1, group)
    except PermissionError:
        log.warning("control", f"{path} cannot be given to group {group}: only this user and root may use it")


def _remove_stale(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise UsageError(f"{path} is there and is no socket", "name another place: --socket PATH")
    except FileNotFoundError:
        return
    except OSError as error:
        raise _taken(path, error) from error
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            pass
        except FileNotFoundError:
            return
        except OSError as error:
            raise _taken(path, error) from error
        else:
            pid = _CREDENTIALS.unpack(
                probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            )[0]
            raise _refuse_listener(path, probe, pid)
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise _taken(path, error) from error


def _refuse_listener(path: str, probe: socket.socket, pid: int) -> OtusError:
    """Who listens already, by its answer to hello. An engine that starts its first task answers later."""
    hint = "use it: otus-tui attach; or start another one: --socket PATH"
    probe.settimeout(PROBE_TIMEOUT)
    answer: Any = None
    with contextlib.suppress(OSError, ValueError):
        probe.sendall(b'{"jsonrpc":"2.0","id":1,"method":"hello","params":{}}\n')
        with probe.makefile("rb") as reader:
            answer = orjson.loads(reader.readline(MAX_LINE))
    if isinstance(answer, dict) and answer.get("jsonrpc") == "2.0":
        return OtusError(f"an engine already runs at {path} (pid {pid})", hint)
    words = _command(pid)
    if answer is None and any(b"otus" in word or word == b"engine.daemon" for word in words):
        return OtusError(f"an engine already runs at {path} (pid {pid}), but gives no answer yet", hint)
    name = os.path.basename(words[0].decode("utf-8", "replace")) if words else ""
    who = f"{name}, pid {pid}" if name.isprintable() and name else f"pid {pid}"
    return OtusError(
        f"something that is no engine listens at {path} ({who})",
        "end it, or name another place: --socket PATH, or OTUS_SOCKET=PATH",
    )


def _command(pid: int) -> list[bytes]:
    """The command line of a process; empty if it cannot be seen."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read(65536).split(b"\0")[:-1]
    except OSError:
        return []


def _owner(path: str) -> int | None:
    try:
        return os.lstat(path).st_uid
    except OSError:
        return None


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def _taken(path: str, error: OSError) -> OtusError:
    hint = "name another place: --socket PATH, or OTUS_SOCKET=PATH"
    if isinstance(error, PermissionError):
        owner = _owner(path)
        if owner is not None and owner != os.geteuid():
            return NotPermittedError(f"the socket {path} is taken by {_user(owner)}", hint)
        folder = os.path.dirname(os.path.abspath(path))
        keeper = _owner(folder)
        whose = "" if keeper is None else f", which belongs to {_user(keeper)}"
        return NotPermittedError(f"this user may not write in {folder}{whose}: {error.strerror}", hint)
    return OtusError(
        f"cannot listen at {path}: {error.strerror or error}", "name another place: --socket PATH"
    )

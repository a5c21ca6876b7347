"""The observer of an engine, seen by its controller: started when somebody looks, restarted when it dies,
tried again when it could not start: what was missing may have been mended.
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import struct
import time
from typing import TYPE_CHECKING, Any

from engine.errors import OtusError
from engine.shm.region import memory_file
from engine.supervisor import Child

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from engine.config import Tcp
    from engine.supervisor import Supervisor

METHODS = (
    "tcp_connections", "tcp_connection", "tcp_groups", "tcp_listeners", "tcp_events", "tcp_history",
)  # fmt: skip
"""Methods of the control socket that the observer answers."""
PATIENCE_NS = 8_000_000_000
"""A look at a hundred thousand sockets takes seconds: so much longer than others it may be silent."""
START_S = 20.0
FRESH_S = 0.1
RETRY_S = (10.0, 20.0, 60.0)
"""Seconds after which one that could not start is tried again, by the number of times; the last one from then
on."""


class TcpService:
    """Owns the child; `config.start` says when it runs: always, on demand, never."""

    def __init__(self, config: Tcp, supervisor: Supervisor) -> None:
        self.config = config
        self.supervisor = supervisor
        self.child: Child | None = None
        self.allowed = False
        self._beat_fd = -1
        self._beat: mmap.mmap | None = None
        self._error: OtusError | None = None
        self._cached: tuple[float, dict[str, Any]] = (0.0, {})
        self._starting: asyncio.Task[None] | None = None
        self._failures = 0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """The engine serves more than one capture file: observers may run from now on."""
        self.allowed = True
        if self.config.start == "always":
            self.want()

    def handlers(self) -> dict[str, Callable[..., Awaitable[Any]]]:
        """Of the control socket, by method."""

        def handler(method: str) -> Callable[..., Awaitable[Any]]:
            async def ask(_: object, **params: Any) -> Any:
                return await self.request(method, params)

            return ask

        return {name: handler(name) for name in METHODS} | {"tcp_retry": self._ask_retry}

    def want(self) -> None:
        """Somebody looks: have it run. One that could not start is tried again by itself, or by retry()."""
        if not self.allowed or self.config.start == "never":
            return
        if self.child is not None or self._starting is not None or self._timer is not None:
            return
        self._starting = asyncio.create_task(self._start())

    def retry(self) -> None:
        """Try again now, if it could not start."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._starting is not None:
            return
        if self.child is not None and self.child.state == "failed":
            self.supervisor.remove(self.child)
            self.child = None
        self.want()

    async def _ask_retry(self, _: object) -> dict[str, Any]:
        """Of the control socket: try again now, and say what came of it."""
        if not self.allowed or self.config.start == "never":
            await self.request("", {})
        self.retry()
        await self._settled()
        section = await self.section()
        return {name: section[name] for name in ("state", "error", "hint")}

    async def _settled(self) -> None:
        if self._starting is not None:
            await asyncio.wait({self._starting}, timeout=START_S)

    async def section(self) -> dict[str, Any]:
        """The section `tcp` of the snapshot: always state, error and hint; figures while it runs."""
        found: dict[str, Any] = {"state": self.state(), "error": "", "hint": "", "restarts": 0}
        if self.config.start == "never":
            found["hint"] = "otus.tcp.start in the node file: demand or always"
        if self._error is not None:
            found["error"], found["hint"] = self._error.message, self._error.hint
        elif found["state"] == "off" and self.allowed and self.config.start == "demand":
            found["hint"] = "it begins when its screens or the metrics are read; or otus.tcp.start: always"
        child = self.child
        if child is None or child.state != "running":
            return found
        found["restarts"] = child.restarts
        now = time.monotonic()
        if now - self._cached[0] >= FRESH_S:
            try:
                self._cached = (now, await child.request("figures", {}))
            except OtusError:
                # It is being restarted: the last figures stay until it answers.
                return found
        return {**found, **self._cached[1]}

    async def request(self, method: str, params: dict[str, Any]) -> Any:
        """An answer of the observer; OtusError with the reason where there is none."""
        if not self.allowed:
            raise OtusError("a capture file says nothing of this host's TCP", "live: sudo otus-tui")
        if self.config.start == "never":
            raise OtusError("the TCP observer is switched off", "otus.tcp.start: demand")
        self.want()
        await self._settled()
        if self._error is not None:
            raise self._error
        if self.child is None:
            raise OtusError("the TCP observer does not run yet", "try again")
        return await self.child.request(method, params)

    def state(self) -> str:
        """off (nobody has looked), starting, running, restarting, stopping, stopped or failed."""
        if self.child is None:
            return "failed" if self._error is not None else "off"
        return self.child.state

    async def close(self) -> None:
        """End it, with the engine."""
        self.allowed = False
        if self._timer is not None:
            self._timer.cancel()
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        if self.child is not None:
            await self.child.stop(1.0)
            self.supervisor.remove(self.child)
            self.child = None
        if self._beat is not None:
            self._beat.close()
            os.close(self._beat_fd)
            self._beat = None

    async def _start(self) -> None:
        if self._beat is None:
            self._beat_fd = memory_file("tcp-beat", mmap.PAGESIZE)
            self._beat = mmap.mmap(self._beat_fd, mmap.PAGESIZE)
        child = Child("tcp observer", "engine.tcp.process", self._configure, self._heartbeat)
        child.on_state = self._child_is
        self.child = self.supervisor.add(child)
        try:
            child.start()
            await child.ready()
        except OSError as error:
            self._error = OtusError(f"the TCP observer cannot be started: {error.strerror}")
            self.supervisor.remove(child)
            self.child = None
            self._retry_later()
        except OtusError as error:
            self._error = error
        finally:
            self._starting = None

    def _child_is(self, state: str) -> None:
        if state == "running":
            self._error, self._failures = None, 0
        elif state == "failed" and self.child is not None:
            why = self.child.last_error or "it ended at once"
            self._error = self.child.failure or OtusError(f"the TCP observer cannot start: {why}")
            self._retry_later()

    def _retry_later(self) -> None:
        if not self.allowed:
            return
        delay = RETRY_S[min(self._failures, len(RETRY_S) - 1)]
        self._failures += 1
        self._timer = asyncio.get_running_loop().call_later(delay, self.retry)

    def _configure(self) -> tuple[dict[str, Any], Sequence[int]]:
        assert self._beat is not None
        struct.pack_into("=Q", self._beat, 0, 0)
        words = self.config.words()
        file = {
            "events_file": self.config.events_file,
            "events_size": self.config.events_size,
            "events_backups": self.config.events_backups,
        }
        return {"options": words, **file, "heartbeat_fd": self._beat_fd}, (self._beat_fd,)

    def _heartbeat(self) -> int:
        with contextlib.suppress(ValueError, TypeError, struct.error):
            beat: int = struct.unpack_from("=Q", self._beat or b"", 0)[0]
            return beat + PATIENCE_NS if beat else 0
        return 0

"""Starting children, watching them, replacing what dies.

A child is a Python module started with `subprocess` (never forked: this process has threads) and
inherited descriptors. It is dead when its pid says so (pidfd), and taken for dead when it gives no
heartbeat for HANG seconds; then it is killed. Whatever it shared lives on in the controller's
descriptors, so that its successor goes on where it stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from engine import usage
from engine.child import END, GROUP_SIGNALS, Channel
from engine.control.methods import INTERNAL, RpcError
from engine.errors import ExitCode, NotPermittedError, OtusError, UsageError
from engine.log import log
from engine.privileges import unprivileged

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HANG = 1.5
"""Seconds without a heartbeat after which a running child is killed: with the start of a successor, 0.2 s, it
is back within 2."""
WATCH = 0.25
BOOT = 15.0
"""Seconds that a child may take to say that it runs."""
BACK_OFF = (0.0, 0.1, 0.3, 1.0, 1.0, 2.0, 5.0)
"""Seconds before a restart, by the number of deaths in a row; the last one from then on."""
STORM = 4
"""Deaths in a row from which on a child is a trouble that people are told of."""
HEALTHY = 10.0
"""A child that has run so long starts again without delay."""
REQUEST_TIMEOUT = 5.0
_LINE = 4096


class Child:
    """One supervised process.

    `state`: starting, running, restarting, stopping, stopped, finished (left by itself, exit code 0),
    failed (could not start twice in a row). `configure()` is called for each start and returns the
    configuration for the child and the descriptors that it inherits; `parent`, and `user`, whom it shall
    become (engine.privileges), are added. `heartbeat()` returns
    CLOCK_MONOTONIC ns, 0 before the first.
    """

    def __init__(
        self,
        name: str,
        module: str,
        configure: Callable[[], tuple[dict[str, Any], Sequence[int]]],
        heartbeat: Callable[[], int] | None = None,
    ) -> None:
        self.name = name
        self.module = module
        self.configure = configure
        self.heartbeat = heartbeat
        self.state = "stopped"
        self.pid: int | None = None
        self.restarts = 0
        self.last_error = ""
        """The last line that it wrote to standard error before it died."""
        self.restartable = True
        """False: its first death is its last, because a successor could not go on."""
        self.failure: OtusError | None = None
        """The error for people with which it refused to start."""
        self.on_message: Callable[[dict[str, Any]], None] | None = None
        self.on_state: Callable[[str], None] | None = None
        """Called with each new state."""
        self.on_restart: Callable[[], None] | None = None
        """Called when it has died, before its successor starts."""
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._pidfd = -1
        self._memory = -1
        self._stderr = -1
        self._partial = b""
        self._lines: deque[str] = deque(maxlen=20)
        self._started = 0.0
        self._deaths = 0
        self._hung = False
        self._boot_failures = 0
        self._gone = asyncio.Event()
        self._settled = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._requests: dict[int, asyncio.Future[Any]] = {}
        self._number = 0

    def start(self) -> None:
        """Start the process; it runs when `state` says so."""
        loop = asyncio.get_running_loop()
        configuration, descriptors = self.configure()
        ours, theirs = socket.socketpair()
        read_end, write_end = os.pipe()
        # Before a child comes to ignore them, they must not end it either.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, GROUP_SIGNALS)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", self.module, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stderr=write_end,
                pass_fds=(theirs.fileno(), *descriptors),
            )
        except OSError:
            ours.close()
            os.close(read_end)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()
            os.close(write_end)
        self.pid = self._process.pid
        self._memory = usage.open_memory(self.pid)
        self._started = time.monotonic()
        self._gone.clear()
        self._settled.clear()
        self._lines.clear()
        self._partial = b""
        ours.setblocking(False)
        os.set_blocking(read_end, False)
        self._channel = Channel(ours)
        self._stderr = read_end
        self._pidfd = os.pidfd_open(self.pid)
        self._set_state("starting")
        self._send({**configuration, "parent": os.getpid(), "user": unprivileged()})
        loop.add_reader(self._pidfd, self._exited)
        loop.add_reader(self._stderr, self._read_stderr)
        loop.add_reader(ours.fileno(), self._read_channel)

    def start_again(self) -> None:
        """start() a successor; later, where the system has no process or descriptor for it just now."""
        self._timer = None
        try:
            self.start()
        except OSError as error:
            log.error("supervisor", f"{self.name} cannot be started: {error}")
            self._set_state("restarting")
            self._timer = asyncio.get_running_loop().call_later(BACK_OFF[-1], self.start_again)

    async def ready(self) -> None:
        """Wait until it runs; OtusError with what it said if it cannot."""
        await self._settled.wait()
        if self.state == "failed":
            raise self.failure or OtusError(
                f"{self.name} cannot start: {self.last_error or 'it ended at once'}"
            )

    async def stop(self, seconds: float) -> None:
        """Ask it to finish; kill it after `seconds`. Returns when it is gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._process is None:
            if self.state not in ("finished", "failed"):
                self._set_state("stopped")
            return
        if self.state not in ("finished", "failed"):
            self._set_state("stopping")
        self._be_eager()
        self.signal(END)
        self.signal(signal.SIGCONT)
        try:
            await asyncio.wait_for(self._gone.wait(), seconds)
        except TimeoutError:
            log.warning(
                "supervisor", f"{self.name} did not end within {seconds} s and was killed", pid=self.pid
            )
            self.signal(signal.SIGKILL)
            await self._gone.wait()

    def _be_eager(self) -> None:
        """It has little time left: it gives way to nothing of ours any more, if the kernel lets us say so."""
        if self.pid is not None:
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, self.pid, os.getpriority(os.PRIO_PROCESS, 0))

    async def settle(self, seconds: float) -> None:
        """If it is on its way back, wait up to `seconds` until it runs: it has work to finish."""
        if self.state == "restarting" and self._timer is not None:
            self._timer.cancel()
            self.start_again()
        if self.state == "starting":
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._settled.wait(), seconds)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def send(self, message: dict[str, Any]) -> bool:
        """Send a message over its control socket; False if it does not take any."""
        return self._send(message)

    async def request(self, method: str, params: dict[str, Any], timeout: float = REQUEST_TIMEOUT) -> Any:
        """The child's answer to {"id", "method", "params"}; OtusError if it has none in time."""
        if self._channel is None or self.state not in ("starting", "running", "finished"):
            raise OtusError(f"{self.name} does not run just now", "it is being restarted: try again")
        self._number += 1
        number = self._number
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._requests[number] = future
        try:
            if not self._send({"id": number, "method": method, "params": params}):
                raise OtusError(f"{self.name} is too busy to answer", "try again")
            return await asyncio.wait_for(future, timeout)
        except TimeoutError as error:
            raise OtusError(f"{self.name} gave no answer within {timeout:g} s", "try again") from error
        finally:
            self._requests.pop(number, None)

    def check_heartbeat(self) -> None:
        """Kill it if it hangs; called by the supervisor's watch."""
        if self.state == "starting" and time.monotonic() - self._started > BOOT:
            self.last_error = f"did not start within {BOOT:.0f} s"
            self.signal(signal.SIGKILL)
        if self.state != "running" or self.heartbeat is None:
            return
        last = max(self.heartbeat() / 1e9, self._started)
        if time.monotonic() - last > HANG:
            log.error("supervisor", f"{self.name} gives no heartbeat and is killed", pid=self.pid)
            self._hung = True
            self.signal(signal.SIGKILL)

    def memory(self) -> int | None:
        """Octets that it holds, its part of what is shared; None: unknown. 0 while it does not run."""
        return usage.memory(self._memory) if self.pid is not None else 0

    def trouble(self) -> str:
        """What people must know of a child that dies again and again; empty if all is well."""
        alive = self.state == "running" and time.monotonic() - self._started > HEALTHY
        if self._deaths < STORM or alive or self.state not in ("starting", "running", "restarting"):
            return ""
        wait = BACK_OFF[min(self._deaths, len(BACK_OFF)) - 1]
        return f"{self.name} ended {self._deaths} times in a row, {wait:g} s between: {self.last_error}"

    def _send(self, message: dict[str, Any]) -> bool:
        channel = self._channel
        if channel is None or not channel.send(message):
            return False
        if not channel.flush():
            asyncio.get_running_loop().add_writer(channel.fileno(), self._write_channel)
        return True

    def _write_channel(self) -> None:
        if self._channel is not None and self._channel.flush():
            asyncio.get_running_loop().remove_writer(self._channel.fileno())

    def _read_channel(self) -> None:
        channel = self._channel
        if channel is None:
            return
        for message in channel.receive():
            if message.get("state") in ("running", "finished") and self.state in ("starting", "running"):
                self._boot_failures = 0
                self._set_state(message["state"])
                self._settled.set()
            future = self._requests.get(message.get("id", 0))
            if future is not None and not future.done():
                _resolve(future, message)
            elif self.on_message is not None:
                self.on_message(message)
        if channel.ended:
            asyncio.get_running_loop().remove_reader(channel.fileno())

    def _read_stderr(self) -> None:
        try:
            chunk = os.read(self._stderr, 65536)
        except BlockingIOError:
            return
        if not chunk:
            asyncio.get_running_loop().remove_reader(self._stderr)
            return
        *lines, rest = (self._partial + chunk).split(b"\n")
        self._partial = rest[-_LINE:]
        texts = [line[:_LINE].decode("utf-8", "replace").rstrip() for line in lines]
        texts = [text for text in texts if text]
        self._lines.extend(texts)
        log.pass_on(texts, self.name)

    def _exited(self) -> None:
        """The process is gone: take leave, then start a successor unless it was meant to go."""
        process, channel = self._process, self._channel
        if process is None or channel is None:
            return
        code = process.wait()
        loop = asyncio.get_running_loop()
        self._read_channel()
        self._read_stderr()
        for descriptor in (self._pidfd, self._stderr, channel.fileno()):
            loop.remove_reader(descriptor)
        loop.remove_writer(channel.fileno())
        channel.close()
        os.close(self._pidfd)
        os.close(self._stderr)
        if self._memory >= 0:
            os.close(self._memory)
            self._memory = -1
        self._pidfd = self._stderr = -1
        self._process = self._channel = None
        self.pid = None
        for future in self._requests.values():
            if not future.done():
                future.set_exception(OtusError(f"{self.name} ended while it answered", "try again"))
        self._gone.set()
        if self.state == "stopping":
            self._set_state("stopped")
        elif self.state == "starting":
            self._boot_failed(code)
        elif self.state != "finished":
            self._died(code)
        if self.state in ("failed", "stopped", "finished"):
            self._settled.set()

    def _boot_failed(self, code: int) -> None:
        self._boot_failures += 1
        self.last_error = _error_line(self._lines) or self.last_error or _how(code)
        self.failure = _refusal(self._lines, code)
        # Killed by a signal, it may yet start another time; with an error of its own, it will not.
        if self.failure is not None or self._boot_failures >= (2 if code >= 0 else 5):
            self._set_state("failed")
        else:
            self._restart(code)

    def _died(self, code: int) -> None:
        self.last_error = "no heartbeat" if self._hung else _error_line(self._lines) or _how(code)
        self._hung = False
        if self.restartable:
            self._restart(code)
        else:
            self._set_state("failed")

    def _restart(self, code: int) -> None:
        if time.monotonic() - self._started > HEALTHY:
            self._deaths = 0
        delay = BACK_OFF[min(self._deaths, len(BACK_OFF) - 1)]
        self._deaths += 1
        self.restarts += 1
        again = f" {self._deaths} times in a row" if self._deaths >= STORM else ""
        log.error("supervisor", f"{self.name} ended{again} ({_how(code)}) and is restarted", delay_s=delay)
        self._set_state("restarting")
        if self.on_restart is not None:
            self.on_restart()
        self._timer = asyncio.get_running_loop().call_later(delay, self.start_again)

    def _set_state(self, state: str) -> None:
        if state != self.state:
            self.state = state
            if self.on_state is not None:
                self.on_state(state)


def _how(code: int) -> str:
    """How a process ended, in words."""
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _resolve(future: asyncio.Future[Any], message: dict[str, Any]) -> None:
    """Give the answer to who waits for it; a child that parses hostile packets may say anything."""
    error = message.get("error")
    if error is None:
        future.set_result(message.get("result"))
        return
    if not isinstance(error, dict):
        error = {"message": str(error)}
    data, code = error.get("data"), error.get("code")
    data = dict(data) if isinstance(data, dict) else {}
    text, hint = str(error.get("message", "failed")), str(data.pop("hint", ""))
    future.set_exception(RpcError(code if isinstance(code, int) else INTERNAL, text, hint, data))


def _error_line(lines: Sequence[str] | deque[str]) -> str:
    """What a dead child said last: its error for people, else the last line of a traceback."""
    for line in lines:
        if line.startswith("otus: "):
            return line.removeprefix("otus: ")
    return lines[-1] if lines else ""


def _refusal(lines: Sequence[str] | deque[str], code: int) -> OtusError | None:
    """The error of a child that knows why it cannot run: another start would not help."""
    for position, line in enumerate(lines):
        if line.startswith("otus: ") and code in (ExitCode.FAILED, ExitCode.USAGE, ExitCode.NOT_PERMITTED):
            kind = {ExitCode.USAGE: UsageError, ExitCode.NOT_PERMITTED: NotPermittedError}.get(
                ExitCode(code), OtusError
            )
            return kind(line.removeprefix("otus: "), lines[position + 1] if position + 1 < len(lines) else "")
    return None


class Supervisor:
    """Watches the heartbeats of all children of one controller."""

    def __init__(self) -> None:
        self.children: list[Child] = []
        self._task: asyncio.Task[None] | None = None

    def add(self, child: Child) -> Child:
        """Watch a child from now on."""
        self.children.append(child)
        if self._task is None:
            self._task = asyncio.create_task(self._watch())
        return child

    def remove(self, child: Child) -> None:
        """Watch it no longer."""
        if child in self.children:
            self.children.remove(child)

    async def close(self) -> None:
        """End the watch."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _watch(self) -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(WATCH)
            now = time.monotonic()
            # If this process was stopped itself, so were its children, perhaps: let them breathe first.
            if now - last < HANG / 2:
                for child in list(self.children):
                    child.check_heartbeat()
            last = now

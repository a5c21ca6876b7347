"""How a child of the supervisor lives: its configuration, its control socket, its end.

The control socket is one end of a socketpair with one JSON object a line in each direction. The
first line is the configuration, in which descriptors are the numbers that the child inherited.
A child ends when it is told to (END), and when its supervisor is gone: the kernel says so by
a signal (PR_SET_PDEATHSIG), and the control socket by its end. Signals that a terminal, a service
manager or `timeout` sends to the whole group (GROUP_SIGNALS) are for the controller alone.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import socket
import time
from typing import Any

END = signal.SIGUSR1
"""From the supervisor: finish."""
GROUP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""A child is started with these blocked, and ignores them."""
_PR_SET_PDEATHSIG = 1
_CHUNK = 65536
BACKLOG = 1024 * 1024
MAX_LINE = 64 * 1024 * 1024


class Channel:
    """The control socket, from either end. Sending never waits: what does not fit is left out."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.ended = False
        self._buffer = bytearray()
        self._pending = bytearray()
        self._early: list[dict[str, Any]] = []
        """What came together with the configuration."""

    @classmethod
    def inherited(cls, descriptor: int) -> Channel:
        """The child's end, by its number."""
        return cls(socket.socket(fileno=descriptor))

    def fileno(self) -> int:
        """For select()."""
        return self.connection.fileno()

    def first(self) -> dict[str, Any]:
        """Wait for the configuration; SystemExit if the supervisor leaves before it has sent one."""
        self.connection.setblocking(True)
        while True:
            messages = self._take(self.connection.recv(_CHUNK))
            if messages:
                self.connection.setblocking(False)
                self._early = messages[1:]
                return messages[0]
            if self.ended:
                raise SystemExit(0)

    def receive(self) -> list[dict[str, Any]]:
        """What has arrived; sets `ended` when the other end is closed."""
        messages, self._early = self._early, []
        while not self.ended:
            try:
                messages += self._take(self.connection.recv(_CHUNK, socket.MSG_DONTWAIT))
            except BlockingIOError:
                break
            except OSError:
                self.ended = True
        return messages

    def send(self, message: dict[str, Any]) -> bool:
        """Queue a line for the other end; False if it takes nothing and BACKLOG octets wait already."""
        if not self.flush() and len(self._pending) > BACKLOG:
            return False
        self._pending += json.dumps(message, separators=(",", ":")).encode() + b"\n"
        self.flush()
        return True

    def flush(self) -> bool:
        """Whether all that was queued is out."""
        while self._pending and not self.ended:
            try:
                sent = self.connection.send(self._pending, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            except BlockingIOError:
                return False
            except OSError:
                self.ended = True
                break
            del self._pending[:sent]
        return True

    def finish(self, seconds: float = 1.0) -> None:
        """Give the other end time to take what is queued, before a process leaves."""
        end = time.monotonic() + seconds
        while not self.flush() and (left := end - time.monotonic()) > 0:
            self._poll(select.POLLOUT, left)

    def wait(self, seconds: float) -> bool:
        """Sleep until a message arrives, what is queued can leave or the time is over; whether one has."""
        if self._early:
            return True
        try:
            events = self._poll(select.POLLIN | (select.POLLOUT if self._pending else 0), seconds)
        except OSError:
            self.ended = True
            return True
        if events & select.POLLOUT:
            self.flush()
        return bool(events & ~select.POLLOUT)

    def _poll(self, wanted: int, seconds: float) -> int:
        # poll() and not select(), which knows no descriptor above 1023.
        poll = select.poll()
        poll.register(self.connection, wanted)
        found = poll.poll(seconds * 1000)
        return found[0][1] if found else 0

    def close(self) -> None:
        """Hang up."""
        self.connection.close()

    def _take(self, chunk: bytes) -> list[dict[str, Any]]:
        if not chunk:
            self.ended = True
            return []
        self._buffer += chunk
        if b"\n" not in chunk:
            if len(self._buffer) > MAX_LINE:
                self.ended = True
            return []
        *lines, rest = bytes(self._buffer).split(b"\n")
        self._buffer = bytearray(rest)
        messages = []
        for line in filter(None, lines):
            message = _message(line)
            if message is None:
                self.ended = True
                break
            messages.append(message)
        return messages


def _message(line: bytes) -> dict[str, Any] | None:
    """An object whose `id`, if it has one, is a number; None: anything else."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) and isinstance(message.get("id", 0), int) else None


class Stop:
    """Set by END; true from then on."""

    def __init__(self) -> None:
        self.asked = False

    def __bool__(self) -> bool:
        return self.asked

    def ask(self, *_: object) -> None:
        """Signal handler."""
        self.asked = True


def begin(
    descriptor: int, parent_death: signal.Signals = signal.SIGKILL
) -> tuple[Channel, dict[str, Any], Stop]:
    """Called first in a child: (control socket, configuration, stop flag)."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, int(parent_death), 0, 0, 0)
    stop = Stop()
    signal.signal(END, stop.ask)
    for number in GROUP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, GROUP_SIGNALS)
    channel = Channel.inherited(descriptor)
    configuration = channel.first()
    if configuration.get("parent") not in (None, os.getppid()):
        raise SystemExit(0)  # it died before prctl() was called
    return channel, configuration, stop

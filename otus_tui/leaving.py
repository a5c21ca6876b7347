"""The ways out that do not depend on the screens: a signal, or a terminal that is gone."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from typing import TYPE_CHECKING

from engine.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

GRACE = 1.0
"""Seconds for the screens to end by themselves: they may wait for a terminal that takes nothing any more."""
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


class WayOut:
    """Ends the program within GRACE seconds of a signal or the terminal's hang-up, whatever it waits for."""

    def __init__(self, leave: Callable[[], object]) -> None:
        """`leave` asks the screens to end; it is called from a signal handler or another thread."""
        self._leave = leave
        self._begun = threading.Lock()

    def watch(self, terminal: int) -> None:
        """Take the signals (main thread), and have a thread wait for the hang-up of descriptor `terminal`."""
        for number in SIGNALS:
            # Not the event loop's handlers: the loop stands still while a write to the terminal waits.
            signal.signal(number, self._signalled)
        threading.Thread(target=self._wait, args=(terminal,), name="otus-hangup", daemon=True).start()

    def begin(self) -> None:
        """Leave, and be gone in any case when the grace is over; once."""
        if not self._begun.acquire(blocking=False):
            return
        timer = threading.Timer(GRACE, os._exit, (int(ExitCode.DONE),))
        timer.daemon = True
        timer.start()
        # The event loop may be closed: the program is ending already.
        with contextlib.suppress(RuntimeError):
            self._leave()

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        self.begin()

    def _wait(self, terminal: int) -> None:
        poll = select.poll()
        # No event asked for: only a hang-up or an error wakes it.
        poll.register(terminal, 0)
        for _, event in poll.poll():
            if event & (select.POLLHUP | select.POLLERR):
                self.begin()

"""The console reporter: JSON Lines on the engine's standard output."""

from __future__ import annotations

import os
import select
import time
from typing import TYPE_CHECKING, Any

from engine.plugin import Reporter
from engine.reporters.lines import json_lines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from engine.packet import OutputPacket

_PIPE_BUF = 4096
"""What a pipe that is ready takes without waiting (pipe(7))."""


class ConsoleReporter(Reporter):
    """Writes to a descriptor that may be slow or gone: TimeoutError and OSError tell the sender."""

    name = "console"

    def __init__(self, descriptor: int = 1) -> None:
        self.descriptor = descriptor
        self.timeout = 3.0
        self._rest = b""
        """The unwritten end of a line whose beginning is out: it goes first, so that lines stay whole."""

    def init(self, config: Mapping[str, Any]) -> None:
        """Take `send_timeout`."""
        self.timeout = float(config.get("send_timeout", 3.0))

    def report(self, batch: Sequence[OutputPacket]) -> int:
        """Write the batch; the number of whole lines that are out when the reader stops reading."""
        lines = json_lines(batch)
        data = self._rest + b"".join(lines)
        sent = self._write(data)
        if sent < len(self._rest):
            self._rest = self._rest[sent:]
            raise TimeoutError("standard output is not read")
        position, accepted = len(self._rest), 0
        self._rest = b""
        for line in lines:
            if position + len(line) > sent:
                if position < sent:
                    # Half of it is out: the rest must follow, so it counts as accepted.
                    self._rest = line[sent - position :]
                    accepted += 1
                break
            position += len(line)
            accepted += 1
        if not accepted and lines:
            raise TimeoutError("standard output is not read")
        return accepted

    def _write(self, data: bytes) -> int:
        deadline = time.monotonic() + self.timeout
        view, sent = memoryview(data), 0
        poller = select.poll()
        poller.register(self.descriptor, select.POLLOUT)
        while sent < len(view):
            left = deadline - time.monotonic()
            if left <= 0 or not poller.poll(left * 1000):
                break
            sent += os.write(self.descriptor, view[sent : sent + _PIPE_BUF])
        return sent

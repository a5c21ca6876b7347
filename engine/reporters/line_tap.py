"""SIP records of this process as JSON Lines: stands where a worker has its send ring."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.reporters.line_writer import LineWriter
from engine.reporters.lines import json_lines
from engine.reporters.output import OutputMaker
from engine.shm.tap import Tap

if TYPE_CHECKING:
    from collections.abc import Callable

SIP = 1
FULL = 1 << 17
"""Octets that are written at once."""


class LineTap(Tap):
    """Gives whole lines, many at a time, to `write`."""

    def __init__(self, task: str, write: Callable[[memoryview], object]) -> None:
        super().__init__()
        self.writer = LineWriter(task, {})
        self.writer.attach(self.record)
        self.maker = OutputMaker(task, {})
        self.write_out = write
        self.lines = 0

    def take(self, kind: int, timestamp: int, length: int) -> int:
        """One record; what is not SIP has no line."""
        if kind != SIP:
            return 0
        if not self.writer.write(timestamp, length) and not self.make(timestamp, length):
            return 0
        self.lines += 1
        if self.writer.end >= FULL:
            self.flush()
        return 0

    def make(self, timestamp: int, length: int) -> bool:
        """A record that LineWriter leaves to the cold code."""
        packet = self.maker.make(SIP, timestamp, bytes(self.record[:length]))
        if packet is None:
            return False
        for line in json_lines([packet]):
            self.writer.put(line)
        return True

    def flush(self) -> int:
        """Write what waits; what `write` raises goes to whoever runs the pipeline."""
        return self.writer.give(self.write_out)

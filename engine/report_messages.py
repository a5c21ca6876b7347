"""Every SIP message of one capture file as a line of JSON (`otus-tui report --messages`).

The lines are those of a task's file reporter, in the order of the packets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.capture.pcap_file import PcapFile
from engine.decode.classifier import ALL_TUNNELS, Decoder
from engine.decode.fragments import Reassembly
from engine.pipeline.loop import Pipeline
from engine.reporters.line_tap import LineTap
from engine.shm.counters import Counters
from engine.shm.flows import FlowTable
from engine.shm.streams import StreamTable

if TYPE_CHECKING:
    from collections.abc import Callable

TASK = "report"
BATCH = 20_000


class MessageLines:
    """One file; `run()` writes its messages."""

    def __init__(self, path: str) -> None:
        """Open the file; UsageError if it is no capture."""
        self.counters = Counters.create(TASK, 0)
        self.tap = LineTap(TASK, self._write)
        self.write: Callable[[memoryview], object] = len
        self.pipeline = Pipeline(
            self.counters,
            FlowTable.create(TASK, 0, 64),
            StreamTable.create(TASK, 0, 64),
            self.tap,
            None,
            Reassembly(self.counters.words),
            Decoder(self.counters.words, ALL_TUNNELS),
            {"parse_rtp": False, "track_media": False},
        )
        self.file = PcapFile(path, self.pipeline)

    def run(self, write: Callable[[memoryview], object]) -> int:
        """Read the file to its end and close it; `write` takes whole lines. Returns how many there were."""
        self.write = write
        try:
            while self.file.run(BATCH):
                pass
        finally:
            self.file.close()
        self.tap.flush()
        return int(self.tap.lines)

    def _write(self, lines: memoryview) -> None:
        self.write(lines)

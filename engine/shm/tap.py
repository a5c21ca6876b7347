"""Records that go no further than this process: composed as for a ring, and taken at once.

Where one process does the whole work (`otus-tui report`), a record needs no ring: it is written into
one buffer, which stays in the processor's cache, and `take()` sees it there before the next one is.
"""

from __future__ import annotations

from engine.shm.ring import RingWriter

LONGEST = 262_144 + 1024
"""Octets of the longest record: the longest packet of a file, with what stands in front of it."""


class Tap(RingWriter):
    """A RingWriter without a ring; a subclass has `take()`."""

    def __init__(self) -> None:
        self.record = bytearray(LONGEST)
        self.region = None  # type: ignore[assignment]
        view = memoryview(self.record)
        self.memory = view
        self.words = view.cast("Q")
        self.written = 0
        self.refused = 0

    def reserve(self, length: int) -> int:
        """Where a body of `length` octets goes, always the front; -1 (and counted) if it is too long."""
        if length < 0 or length > LONGEST:
            self.refused += 1
            return -1
        self.body = length
        return 0

    def commit(self, kind: int, flags: int, timestamp: int) -> int:
        """Hand the record over."""
        self.written += 1
        return self.take(kind, timestamp, self.body)

    def take(self, kind: int, timestamp: int, length: int) -> int:
        """The record of `length` octets in front of `record`, valid during the call."""
        return 0

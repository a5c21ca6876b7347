"""What the processors said of media: kept for each flow and payload type, or stream where rules read SSRCs.

One octet a payload type: 0 nobody was asked, else 1 + the reason (engine.processors.chain), its top bit set
where the packet is dropped. A worker keeps its own: what another one was told is asked once more.
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.shm.slots import SlotTable

DROP_BIT = 0x80


class Verdicts:
    """Verdicts by the entries of a table, and by a key that changes with what the processors would see."""

    def __init__(self, table: SlotTable) -> None:
        self.table = table
        self.keys = memoryview(mmap.mmap(-1, 8 * table.slots)).cast("Q")
        self.codes = memoryview(mmap.mmap(-1, 128 * table.slots))

    def get(self, slot: int, key: int, payload_type: int) -> int:
        """The code that is kept for this key, 0 where there is none."""
        index = (self.table.place(slot) - self.table.first) // self.table.width
        if self.keys[index] != key:
            return 0
        return self.codes[(index << 7) + (payload_type & 127)]

    def keep(self, slot: int, key: int, payload_type: int, code: int) -> int:
        """Remember a code; another key forgets what stood there."""
        index = (self.table.place(slot) - self.table.first) // self.table.width
        if self.keys[index] != key:
            self.keys[index] = key
            for place in range(128):
                self.codes[(index << 7) + place] = 0
        self.codes[(index << 7) + (payload_type & 127)] = code
        return 0

"""Where the messages of all calls are kept: octets in a ring, a cell for each, signatures of recent ones.

    arena    octets of the messages, a ring: the newest overwrite the oldest, which are then `gone`
    cells    CELL words for each kept message, linked per Call-ID
    seen     (signature, time) of recent messages, two to a bucket: what is known again within
             REPEAT_NS is a retransmission (same octets, same path: RFC 3261 section 17.1)

Words of a cell: 0 time; 1 arena position + 1, 0 where never kept; 2 signature; 3-6 addresses;
7 ports and length; 8 status, error and CSeq number; 9 method, flags (C_*), protocol, copies on other
interfaces and next cell; 10 frame, in the upper 16 bits the number of the tunnel.
The pools are private mappings that take memory only where they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.calls.record_view import RecordView
from engine.calls.states import Dialog
from engine.shm.region import pool

if TYPE_CHECKING:
    from collections.abc import Iterable

CELL = 11
C_RETRANSMISSION = 1
FLAG_RETRANSMISSION = 1
"""C_*, for readers of a cell's flags."""
FIRST_WORD = 50
"""Word of 64 bits where the message begins in a record."""
MOST_COPIES = 255
REPEAT_NS = 40_000_000_000
SEEN_BUCKETS = 131_072
MIX = 0x9E3779B97F4A7C15
MASK_EIGHT = -8
MASK64 = 0xFFFFFFFFFFFFFFFF
MASK32 = 0xFFFFFFFF
MASK48 = 0xFFFFFFFFFFFF
MOST_TUNNELS = 16_384
"""Different ones that are told apart; messages in others have none to show."""


class Arena:
    """At most `message_bytes` octets and `cells` messages."""

    def __init__(self, view: RecordView, message_bytes: int, cells: int, buckets: int = 0) -> None:
        self.view = view
        self.capacity = max(8192, message_bytes & ~7)
        self.octets = pool(self.capacity).cast("Q")
        self.head = 0
        self.placed = 0
        self.most_cells = cells
        self.cells = pool(8 * CELL * (cells + 1)).cast("Q")
        self.used_cells = 0
        self.free_cell = 0
        self.buckets = buckets or SEEN_BUCKETS
        self.seen = pool(32 * self.buckets).cast("Q")
        self.numbers: dict[bytes, int] = {}
        self.tunnels: list[bytes] = []

    def place(self) -> int:
        """Word in the arena for the message's octets; -1 where they are not kept."""
        need = (self.view.size + 7) & MASK_EIGHT
        if need > self.capacity >> 2:
            return -1
        offset = self.head % self.capacity
        if offset + need > self.capacity:
            self.head += self.capacity - offset
            offset = 0
        self.placed = self.head
        self.head += need
        return offset >> 3

    def sign(self, position: int) -> int:
        """Hash of path and octets; the octets go to word `position` of the arena on the way."""
        view = self.view
        h = view.seed
        for word in range(5):
            h = ((h ^ (view.words[word] if word < 4 else view.ints[8])) * MIX) & MASK64
            h ^= h >> 32
        whole = view.size >> 3
        rest = view.size & 7
        word = 0
        while word < whole:
            value = view.words[FIRST_WORD + word]
            if position >= 0:
                self.octets[position + word] = value
            h = ((h ^ value) * MIX) & MASK64
            h ^= h >> 32
            word += 1
        if rest:
            one = 1
            value = view.words[FIRST_WORD + whole] & ((one << (8 * rest)) - 1)
            if position >= 0:
                self.octets[position + whole] = value
            h = ((h ^ value) * MIX) & MASK64
            h ^= h >> 32
        return h

    def repeated(self, signature: int, timestamp: int) -> bool:
        """Whether the same octets took the same way within REPEAT_NS."""
        bucket = 4 * (signature % self.buckets)
        older = bucket
        if self.seen[bucket + 3] < self.seen[bucket + 1]:
            older = bucket + 2
        for place in (bucket, bucket + 2):
            if self.seen[place] == signature and self.seen[place + 1]:
                last = self.seen[place + 1]
                self.seen[place + 1] = timestamp
                return timestamp < last + REPEAT_NS
        self.seen[older] = signature
        self.seen[older + 1] = timestamp
        return False

    def full(self) -> bool:
        """Whether there is no cell for one more message."""
        return self.free_cell == 0 and self.used_cells >= self.most_cells

    def keep(self, dialog: Dialog, timestamp: int, position: int, signature: int, repeated: bool) -> bool:
        """A cell for the message of the view; False where there is none."""
        view = self.view
        cell = self.free_cell
        if cell:
            self.free_cell = self.cells[cell * CELL + 9] >> 32
        elif self.used_cells < self.most_cells:
            self.used_cells += 1
            cell = self.used_cells
        else:
            return False
        base = cell * CELL
        self.cells[base] = timestamp
        self.cells[base + 1] = self.placed + 1 if position >= 0 else 0
        self.cells[base + 2] = signature
        for word in range(4):
            self.cells[base + 3 + word] = view.words[word]
        wide = view.size
        self.cells[base + 7] = view.ints[8] | (wide << 32)
        wide = view.ints[34]
        self.cells[base + 8] = view.status | (view.error << 16) | (wide << 32)
        flags = C_RETRANSMISSION if repeated else 0
        self.cells[base + 9] = view.method | (flags << 8) | ((view.ints[9] & 0xFF) << 16)
        self.cells[base + 10] = (view.words[14] & MASK48) | (self.tunnel_number() << 48)
        if dialog.last_cell:
            self.link(dialog.last_cell, cell)
        else:
            dialog.first_cell = cell
        dialog.last_cell = cell
        dialog.kept += 1
        return True

    def tunnel_number(self) -> int:
        """Of the tunnel around the message of the view, from 1; 0 without, and beyond MOST_TUNNELS."""
        view = self.view
        if view.words[4] >> 56 == 0:
            return 0
        key = bytes(view.record[39:40]) + bytes(view.record[44:48]) + bytes(view.record[80:112])
        number = self.numbers.get(key, 0)
        if number == 0 and len(self.numbers) < MOST_TUNNELS:
            number = len(self.numbers) + 1
            self.numbers[key] = number
            self.tunnels.append(key)
        return number

    def link(self, cell: int, after: int) -> int:
        """The cell behind `cell` is `after`."""
        self.cells[cell * CELL + 9] = self.cells[cell * CELL + 9] & MASK32 | (after << 32)
        return 0

    def mark_copied(self, dialog: Dialog, signature: int) -> int:
        """The newest message of a call with this signature was seen on another interface too."""
        found = dialog.last_cell
        if not found:
            return 0
        if self.cells[found * CELL + 2] != signature:
            found = 0
            cell = dialog.first_cell
            for _ in range(dialog.kept):
                if self.cells[cell * CELL + 2] == signature:
                    found = cell
                cell = self.cells[cell * CELL + 9] >> 32
        if found and (self.cells[found * CELL + 9] >> 24) & 0xFF < MOST_COPIES:
            self.cells[found * CELL + 9] += 1 << 24
        return 0

    def release(self, dialog: Dialog) -> int:
        """Take the cells of a call back."""
        if dialog.last_cell:
            self.link(dialog.last_cell, self.free_cell)
            self.free_cell = dialog.first_cell
        return 0

    def cells_of(self, dialog: Dialog, start: int, count: int) -> list[tuple[int, ...]]:
        """Messages `start` to `start + count` as the words of their cells."""
        found: list[tuple[int, ...]] = []
        cell = dialog.first_cell
        position = 0
        while position < dialog.kept and len(found) < count:
            base = cell * CELL
            if position >= start:
                found.append(tuple([int(self.cells[base + word]) for word in range(CELL)]))
            cell = self.cells[base + 9] >> 32
            position += 1
        return found

    def octets_of(self, words: Iterable[int]) -> bytes | None:
        """The octets of a cell; None when they had to make room."""
        values = [*words]
        position = values[1] - 1
        length = values[7] >> 32
        if position < 0 or position + self.capacity < self.head:
            return None
        start = (position % self.capacity) >> 3
        return bytes(self.octets[start : start + ((length + 7) >> 3)])[:length]

    def held_octets(self) -> int:
        """Octets of messages in the arena."""
        return int(min(self.head, self.capacity))

"""Behind the entries of the stream table: a unit of engine.shm.quality and one of engine.shm.signals for
each, and an index by SSRC. How they are found, and how a reader takes a stream with all that belongs to it.
"""

from __future__ import annotations

from typing import Any

from engine.shm import atomics
from engine.shm.quality import UNIT, Quality
from engine.shm.region import Region
from engine.shm.rows import stream_row
from engine.shm.signals import Signals
from engine.shm.slots import SlotTable
from engine.shm.stream_figures import figures

FACTS, PORTS, KEY, DOMAIN, STAMP, CALL, VERSION_WORD = 1, 2, 3, 7, 30, 48, 33
"""Places of engine.shm.slots and engine.shm.streams."""
USED, SOURCE = 0, 16
"""Words of a unit of engine.shm.quality."""
MASK32 = 0xFFFFFFFF
TRIES = 1000
SOURCES = 8
"""How many places of the index by SSRC are looked at."""
UNIT_WORDS = UNIT
MORE_WORDS = 2 * UNIT + 1
"""Words a slot behind the entries."""


class StreamUnits(SlotTable):
    """What StreamTable has behind its entries."""

    def __init__(self, region: Region, writer: int, tags: int) -> None:
        """As SlotTable."""
        super().__init__(region, writer, tags)
        self.units = self.first + (self.slots << 6)
        self.sources = self.units + 2 * UNIT * self.slots
        self.quality = Quality(region.memory)
        self.signals = Signals(region.memory)
        self.scratch = memoryview(bytearray(512 + 16 * UNIT))
        self.view = Quality(self.scratch)

    def enter_source(self, slot: int, ssrc: int, domain: int) -> int:
        """Let a stream be found by its SSRC; the newest ones win where many streams have one."""
        tag = self.hash(ssrc, domain, 0, 0, 0, 0)
        index = tag & self.mask
        best = index
        tag = (tag >> 32) << 32
        for _ in range(SOURCES):
            word = self.words[self.sources + index]
            if word == 0 or not self.words[self.place((word & MASK32) - 1) + FACTS] & 0xFF:
                best = index
                break
            index = (index + 1) & self.mask
        self.words[self.sources + best] = tag | (slot + 1)
        return 0

    def find_source(
        self,
        ssrc: int,
        domain: int,
        src0: int,
        src1: int,
        dst0: int,
        dst1: int,
        words: memoryview,
        call: int,
    ) -> int:
        """The stream with an SSRC between two addresses, or of the call in `words[call:call + 16]`; or -1."""
        tag = self.hash(ssrc, domain, 0, 0, 0, 0)
        index = tag & self.mask
        for _ in range(SOURCES):
            found = self.words[self.sources + index]
            if found == 0:
                return -1
            slot = (found & MASK32) - 1
            word = self.place(slot)
            if (
                found >> 32 == tag >> 32
                and word
                and self.words[word + FACTS] & 0xFF
                and self.words[word + PORTS] >> 32 == ssrc
                and self.words[word + DOMAIN] == domain
            ):
                if (
                    self.words[word + KEY] == src0
                    and self.words[word + KEY + 1] == src1
                    and self.words[word + KEY + 2] == dst0
                    and self.words[word + KEY + 3] == dst1
                ):
                    return slot
                if self.is_of_call(word, words, call):
                    return slot
            index = (index + 1) & self.mask
        return -1

    def is_of_call(self, word: int, words: memoryview, call: int) -> bool:
        """Whether the entry at `word` has the Call-ID in `words[call:call + 16]`, which is not empty."""
        if words[call] == 0:
            return False
        for place in range(16):
            if words[call + place] != self.words[word + CALL + place]:
                return False
            if words[call + place] >> 56 == 0:
                break
        return True

    def unit(self, word: int) -> int:
        """Word index of the unit of engine.shm.quality of the entry at `word`."""
        return self.units + ((word - self.first) << 1)

    def follows(self, slot: int, ssrc: int) -> int:
        """The flow of this stream had packets of another SSRC just now."""
        word = self.place(slot)
        if self.lock(word):
            unit = self.unit(word)
            self.words[unit + SOURCE] = (((self.words[unit + SOURCE] & MASK32) + 1) & MASK32) | (ssrc << 32)
            self.unlock(word)
        return 0

    def open_signals(self, slot: int) -> int:
        """Lock a stream to write into its unit of engine.shm.signals, whose word this is; 0: not possible."""
        word = self.place(slot)
        if not self.lock(word):
            return 0
        if not self.words[word + FACTS] & 0xFF:
            self.unlock(word)
            return 0
        self.words[word + STAMP] = atomics.peek(self.words, VERSION_WORD)
        rest = self.unit(word) + (self.slots << 7)
        if not self.words[self.unit(word) + USED]:
            self.words[self.unit(word) + USED] = 1
            for index in range(UNIT_WORDS):
                self.words[rest + index] = 0
        return rest

    def close_signals(self, slot: int) -> int:
        """Behind open_signals()."""
        return self.unlock(self.place(slot))

    # ---- cold readers ----

    def read(self, slot: int, detail: bool = False) -> dict[str, Any] | None:
        """The figures of one stream (engine.control.methods.STREAM_ROW and more); None where there is none.

        Unknown is None. `id` is unique while the table lives; `ssrc` is a number. Lists come with `detail`.
        """
        octets = self.copy_whole(slot)
        if octets is None or not int.from_bytes(octets[64:72], "little"):
            return None
        return figures(slot, octets, self.view, self.scratch, detail)

    def read_entry(self, slot: int) -> dict[str, Any] | None:
        """What stands in the entry alone (engine.shm.rows.stream_row): several times faster than read()."""
        octets = self.copy(slot)
        if octets is None or not int.from_bytes(octets[64:72], "little"):
            return None
        return stream_row(slot, octets)

    def copy_whole(self, slot: int) -> bytes | None:
        """A consistent entry, and its units in `scratch` behind the entry's place; None as copy() says."""
        if not 0 <= slot < self.slots:
            return None
        word = self.place(slot)
        if not word:
            return None
        unit = 8 * self.unit(word)
        rest = unit + (self.slots << 10)
        size = 8 * UNIT_WORDS
        memory = self.region.memory
        for _ in range(TRIES):
            state = atomics.load(self.words, word)
            if state & 0xFFFF:
                continue
            octets = bytes(memory[8 * word : 8 * word + 512])
            self.scratch[512 : 512 + size] = memory[unit : unit + size]
            if memory[unit]:
                self.scratch[512 + size : 512 + 2 * size] = memory[rest : rest + size]
            atomics.fence()
            if atomics.load(self.words, word) == state:
                return octets if octets[8] else None
        return None

    def rows(self, detail: bool = False) -> list[dict[str, Any]]:
        """All streams, in no order."""
        return [row for slot in self.taken() if (row := self.read(slot, detail)) is not None]

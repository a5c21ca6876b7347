"""Open addressing in shared memory: what the flow registry and the table of media streams have in common.

Many writers, lock-free readers. A tag for each slot is probed, beside it stands where the slot's entry is:
entries are given out in order, to a slot that is used for the first time, and stay with it. So a table takes
memory for what it held at most, not for its size. An entry begins with its lock word: the low 16 bits name
the worker that is writing (index + 1), the others count its changes, so a reader sees that what it copied was
changed meanwhile, and the successor of a killed worker frees what that one held. Nobody waits: a lock that is
not let go is counted.

The hash is SipHash-1-3 with a random seed of each table, and a probe looks at no more than PROBES tags, so
chosen keys can neither slow a lookup nor crowd a place of the table unnoticed.

Words behind the region header (index of the 64-bit word):

    16 slots     17, 18 seed     24 used     25 added     26 expired     27 not changed: locked, or gone
    28 entries given out     29 words of an entry

For each slot two words: its tag, and the word index of its entry (0: none yet). A tag is EMPTY, REMOVED,
CLAIMED + writer, or the hash of the key with its top bit set. An entry begins with

     0 lock: changes << 16 | writer + 1 while written         1 generation << 32 | kind (0: none)
     2 ports, and what else tells the key     3 source address, 2 words     5 destination address, 2 words
     7 domain (VLAN, VNI)
"""

from __future__ import annotations

import os
from array import array

from engine.shm import atomics
from engine.shm.region import Region
from engine.shm.siphash import SipHash

SLOTS, SEED0, SEED1, USED, ADDED, EXPIRED, BUSY, ENTRIES, WIDTH = 16, 17, 18, 24, 25, 26, 27, 28, 29
LOCK, FACTS, PORTS, KEY, DOMAIN, REST = 0, 1, 2, 3, 7, 8
PROBES = 32
SPINS = 1000
"""How often a lock is tried before the change is given up: the holder may have been killed."""
EMPTY, REMOVED, CLAIMED = 0, 1, 0x10000
REMOVED_TAG = REMOVED
"""The same, visible from Python where this module is compiled."""
TOP = 0x8000000000000000
MASK64 = 0xFFFFFFFFFFFFFFFF
MASK32 = 0xFFFFFFFF
ENTRY_WORDS = 64


def create_region(
    kind: str,
    version: int,
    task: str,
    writer: int,
    slots: int,
    tags: int,
    width: int = ENTRY_WORDS,
    more: int = 0,
) -> Region:
    """A region for at least `slots` entries (a power of two), whose tags begin at word `tags`.

    `width`: words of an entry; `more`: words for each slot behind all entries, for whoever wants them.
    """
    size = 1 << max(6, (slots - 1).bit_length())
    region = Region.create(kind, version, 8 * (tags + (2 + width + more) * size), task, writer)
    region.words[SLOTS] = size
    region.words[WIDTH] = width
    region.words[SEED0], region.words[SEED1] = array("Q", os.urandom(16))
    return region


class SlotTable:
    """The table as one worker writes it, or as a reader maps it."""

    def __init__(self, region: Region, writer: int, tags: int) -> None:
        """`writer`: the worker's index, below 65,535; `tags`: word index of the tags."""
        self.region = region
        self.words = region.words
        self.slots = self.words[SLOTS]
        self.mask = self.slots - 1
        self.keyed = SipHash(bytes(region.memory[8 * SEED0 : 8 * SEED0 + 16]))
        self.tags = tags
        self.first = tags + 2 * self.slots
        self.width = self.words[WIDTH]
        self.writer = writer
        self.cursor = 0
        self.generation = 0
        self.fresh = False
        self.yielded = 0
        self.shift = 0
        self.limit = MASK64

    def steady(self, timestamp: int) -> int:
        """The time of a packet on the clock of the entries, which no step of the wall clock moves.

        `shift`: by how many ns the wall clock was stepped since the task began; `limit`: now, on the steady
        clock, which no packet can be beyond. In files both stay as they are made: packet time is the clock.
        """
        timestamp = (timestamp - self.shift) & MASK64
        return timestamp if timestamp < self.limit else self.limit  # noqa: FURB136 -- compiled

    def hash(self, a: int, b: int, c: int, d: int, e: int, f: int) -> int:
        """The keyed hash of six words, with the top bit set."""
        return self.keyed.hash(a, b, c, d, e, f) | TOP

    def probe(self, tag: int, ports: int, src0: int, src1: int, dst0: int, dst1: int, domain: int) -> int:
        """The slot of a key, or -1; look() has seen the entry as it was at one moment."""
        index = tag & self.mask
        for _ in range(PROBES):
            found = atomics.load(self.words, self.tags + 2 * index)
            if found == EMPTY:
                return -1
            if found == tag:
                word = self.words[self.tags + 2 * index + 1]
                for spin in range(SPINS):
                    state = atomics.load(self.words, word + LOCK)
                    # Keys do not change under a lock: behind a writer that was stopped in the middle, go on.
                    if state & 0xFFFF and spin < SPINS - 1:
                        continue
                    if (
                        self.words[word + PORTS] != ports
                        or self.words[word + KEY] != src0
                        or self.words[word + KEY + 1] != src1
                        or self.words[word + KEY + 2] != dst0
                        or self.words[word + KEY + 3] != dst1
                        or self.words[word + DOMAIN] != domain
                        or not self.words[word + FACTS] & 0xFF
                    ):
                        break
                    self.look(word)
                    atomics.fence()
                    if atomics.peek(self.words, word + LOCK) == state or spin == SPINS - 1:
                        return index
            index = (index + 1) & self.mask
        return -1

    def look(self, word: int) -> int:
        """Take what the caller of probe() needs of the entry at `word`: here its generation."""
        self.generation = self.words[word + FACTS] >> 32
        return 0

    def expired(self, slot: int, now: int) -> bool:
        """Whether an entry may make room at `now`, ns."""
        return False

    def yields(self, slot: int, now: int) -> bool:
        """Whether an entry that has not expired makes room where all others would be refused."""
        return False

    def take_yielded(self) -> int:
        """How many entries of this process's made room so since the last call."""
        count = self.yielded
        self.yielded = 0
        return count

    def claim(self, tag: int, now: int) -> int:
        """A free slot for a key, else one that has expired or yields; -1 where PROBES slots are taken."""
        for turn in range(3):
            index = tag & self.mask
            for _ in range(PROBES):
                found = atomics.load(self.words, self.tags + 2 * index)
                if turn and found >= TOP:
                    if turn == 1 and self.expired(index, now):
                        self.expire(index)
                    elif turn == 2 and self.yields(index, now) and self.remove(index):
                        self.yielded += 1
                    found = atomics.load(self.words, self.tags + 2 * index)
                if found <= REMOVED and atomics.swap(
                    self.words, self.tags + 2 * index, found, CLAIMED + self.writer
                ):
                    atomics.add(self.words, USED, 1)
                    if self.words[self.tags + 2 * index + 1] or self.give_entry(index):
                        return index
                    atomics.store(self.words, self.tags + 2 * index, found)
                    atomics.add(self.words, USED, MASK64)
                    return -1
                index = (index + 1) & self.mask
        return -1

    def give_entry(self, slot: int) -> bool:
        """The next unused entry for a claimed slot without one; False where killed writers took the last."""
        number = atomics.add(self.words, ENTRIES, 1)
        if number >= self.slots:
            atomics.add(self.words, ENTRIES, MASK64)
            return False
        self.words[self.tags + 2 * slot + 1] = self.first + number * self.width
        return True

    def place(self, slot: int) -> int:
        """Word index of a slot's entry; 0 where it never had one."""
        return self.words[self.tags + 2 * slot + 1]

    def enter(
        self, tag: int, kind: int, ports: int, a0: int, a1: int, b0: int, b1: int, domain: int, now: int
    ) -> int:
        """A cleared slot with this key, locked; fill it, unlock() and publish(). -1: there is no room.

        Where another worker has entered the key meanwhile it is that one's slot, and `fresh` is False.
        """
        slot = self.claim(tag, now)
        if slot < 0:
            return -1
        other = self.probe(tag, ports, a0, a1, b0, b1, domain)
        if other >= 0:
            atomics.store(self.words, self.tags + 2 * slot, REMOVED)
            atomics.add(self.words, USED, MASK64)
            self.fresh = False
            return other
        self.fresh = True
        self.begin(slot, kind, ports, a0, a1, b0, b1, domain)
        return slot

    def begin(self, slot: int, kind: int, ports: int, a0: int, a1: int, b0: int, b1: int, domain: int) -> int:
        """Lock a claimed slot, clear it and write its key."""
        word = self.place(slot)
        state = self.words[word + LOCK] & ~0xFFFF & MASK64
        atomics.store(self.words, word + LOCK, state | (self.writer + 1))
        atomics.fence()
        generation = ((self.words[word + FACTS] >> 32) + 1) & MASK32
        for index in range(REST, self.width):
            self.words[word + index] = 0
        self.words[word + FACTS] = (generation << 32) | kind
        self.words[word + PORTS] = ports
        self.words[word + KEY] = a0
        self.words[word + KEY + 1] = a1
        self.words[word + KEY + 2] = b0
        self.words[word + KEY + 3] = b1
        self.words[word + DOMAIN] = domain
        return 0

    def publish(self, slot: int, tag: int) -> int:
        """Let an entry be found; its slot, or that of another worker which was first with the same key."""
        atomics.swap(self.words, self.tags + 2 * slot, CLAIMED + self.writer, tag)
        atomics.add(self.words, ADDED, 1)
        # Of two workers with the same key the one whose slot is probed first stays: wait for what it writes.
        index = tag & self.mask
        for _ in range(PROBES):
            if index == slot:
                break
            for _spin in range(SPINS):
                found = atomics.load(self.words, self.tags + 2 * index)
                if found < CLAIMED or found >= TOP:
                    break
            index = (index + 1) & self.mask
        word = self.place(slot)
        other = self.probe(
            tag,
            self.words[word + PORTS],
            self.words[word + KEY],
            self.words[word + KEY + 1],
            self.words[word + KEY + 2],
            self.words[word + KEY + 3],
            self.words[word + DOMAIN],
        )
        if other >= 0 and other != slot:
            self.remove(slot)
            return other
        return slot

    def lock(self, word: int) -> bool:
        """Begin a change of the entry at `word`; False (and counted): another worker does not let go."""
        for _ in range(SPINS):
            state = atomics.load(self.words, word)
            if not state & 0xFFFF and atomics.swap(self.words, word, state, state | (self.writer + 1)):
                atomics.fence()
                return True
        atomics.add(self.words, BUSY, 1)
        return False

    def unlock(self, word: int) -> int:
        """End a change."""
        atomics.store(self.words, word, (((self.words[word] >> 16) + 1) << 16) & MASK64)
        return 0

    def remove(self, slot: int) -> bool:
        """Forget an entry; False where it is locked."""
        word = self.place(slot)
        if not self.lock(word):
            return False
        if self.words[word + FACTS] & 0xFF:
            self.words[word + FACTS] &= ~0xFF & MASK64
            atomics.store(self.words, self.tags + 2 * slot, REMOVED)
            atomics.add(self.words, USED, MASK64)
        self.unlock(word)
        return True

    def expire(self, slot: int) -> int:
        """remove() an entry whose time is over, and count it."""
        if self.remove(slot):
            atomics.add(self.words, EXPIRED, 1)
        return 0

    def sweep(self, now: int, budget: int) -> int:
        """Remove what has expired among the next `budget` slots; returns how many."""
        gone = 0
        for _ in range(min(budget, self.slots)):
            slot = self.cursor
            self.cursor = (slot + 1) & self.mask
            if self.words[self.tags + 2 * slot] >= TOP and self.expired(slot, now) and self.remove(slot):
                gone += 1
        if gone:
            atomics.add(self.words, EXPIRED, gone)
        return gone

    def break_locks(self, writer: int) -> int:
        """Free what a killed worker was writing; returns how many entries that were."""
        broken = 0
        for slot in range(self.slots):
            tag = self.words[self.tags + 2 * slot]
            if tag == EMPTY:
                continue
            word = self.place(slot)
            held = word > 0 and self.words[word + LOCK] & 0xFFFF == writer + 1
            if held:
                self.mend(slot)
                self.unlock(word)
            if tag == CLAIMED + writer or (held and tag != REMOVED and not self.words[word + FACTS] & 0xFF):
                if word:
                    self.words[word + FACTS] &= ~0xFF & MASK64
                atomics.store(self.words, self.tags + 2 * slot, REMOVED)
                atomics.add(self.words, USED, MASK64)
                held = True
            broken += held
        return broken

    def mend(self, slot: int) -> int:
        """A killed worker was changing this entry: it is forgotten."""
        self.words[self.place(slot) + FACTS] &= ~0xFF & MASK64
        return 0

    # ---- cold readers ----

    def copy(self, slot: int) -> bytes | None:
        """One consistent entry, or None where there is none or it does not hold still."""
        if not 0 <= slot < self.slots:
            return None
        word = self.place(slot)
        if not word:
            return None
        for _ in range(SPINS):
            state = atomics.load(self.words, word)
            if state & 0xFFFF:
                continue
            octets = bytes(self.region.memory[8 * word : 8 * (word + self.width)])
            atomics.fence()
            if atomics.load(self.words, word) == state:
                return octets if octets[8] else None
        return None

    def taken(self) -> list[int]:
        """Slots with an entry."""
        return [slot for slot in range(self.slots) if self.words[self.tags + 2 * slot] >= TOP]

    def figures(self) -> dict[str, int]:
        """slots, used, added, expired and busy, cumulative but for the first two."""
        return {
            "slots": self.slots,
            "used": self.words[USED],
            "added": self.words[ADDED],
            "expired": self.words[EXPIRED],
            "busy": self.words[BUSY],
        }

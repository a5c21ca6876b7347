"""One ring format for sending, evidence and frames: variable records, one writer, one reader, drop-head.

The writer never waits: it moves `tail` over the oldest records, then overwrites them. The reader
copies a record and looks at `tail` again; what was overtaken meanwhile is lost, and the gap in
the records' sequence numbers counts it exactly. Records become visible when `head` moves, so a
half-written one does not exist for anybody; `recover()` lets the successor of a killed writer go on.

Words behind the region header (index of the 64-bit word):

    17 most unread records (0: no limit)
    24 head: octets ever written   25 written: records ever written
    32 tail: where the oldest whole record begins
    40 reader's position   42 records lost before they were read   43 next sequence: all below are settled
    41, 44: what 42 and 43 are about to be, when both change
    48 refused: records longer than the ring takes

A record starts on a multiple of 8: u32 octets with this header, u16 kind, u16 flags; u64 sequence;
u64 time, ns; u64 octets of the body. Kind 0 is padding up to the end of the data area and has
only its first 8 octets.
"""

from __future__ import annotations

from engine.shm import atomics
from engine.shm.region import Region

VERSION = 1
LIMIT, HEAD, WRITTEN, TAIL = 17, 24, 25, 32
READ_POSITION, NEW_LOST, LOST, NEXT_SEQUENCE, NEW_NEXT, REFUSED = 40, 41, 42, 43, 44, 48
DATA = 512
RECORD_HEADER = 32
PADDING = 0
MASK32 = 0xFFFFFFFF
MASK64 = 0xFFFFFFFFFFFFFFFF


def create(task: str, writer: int, octets: int, limit: int = 0) -> Region:
    """A ring with room for about `octets` of records and at most `limit` unread ones (0: no limit)."""
    region = Region.create("ring", VERSION, DATA + max(octets, 262_144), task, writer)
    region.words[LIMIT] = limit
    return region


def open_ring(fd: int) -> Region:
    """Map the ring behind an inherited descriptor."""
    return Region(fd, "ring", VERSION)


def room(region: Region) -> int:
    """Octets of the data area, by the size of the memory: a word in it, the other end could change."""
    return len(region.memory) - int(DATA)


class RingWriter:
    """The writing end. `reserve()`, fill `memory` from there, `commit()`; or `write()` for both."""

    def __init__(self, region: Region) -> None:
        """Take the ring over from whoever wrote before."""
        self.region = region
        self.memory = region.memory
        self.words = region.words
        self.capacity = room(region)
        self.limit = region.words[LIMIT]
        self.head = region.words[HEAD]
        self.tail = region.words[TAIL]
        self.written = region.words[WRITTEN]
        self.body = 0
        self.length = 0
        self.start = 0
        self.need = 0
        self.head_at = self.head % self.capacity
        self.tail_at = self.tail % self.capacity
        self.recover()

    def recover(self) -> None:
        """Make `written` agree with the last record in the ring, whatever a killed writer left."""
        if self.tail > self.head or self.head - self.tail > self.capacity:
            raise ValueError("a record ring is broken: it holds more than it has room for")
        position = self.tail
        while position < self.head:
            word = (DATA + position % self.capacity) >> 3
            first = self.words[word]
            if (first >> 32) & 0xFFFF:
                self.written = (self.words[word + 1] + 1) & MASK64
            if not first & MASK32:
                raise ValueError("a record ring is broken: a record without a length")
            position += first & MASK32
        if position != self.head:
            raise ValueError("a record ring is broken: its last record ends behind the head")
        atomics.store(self.words, WRITTEN, self.written)

    def reserve(self, length: int) -> int:
        """Octet offset in `memory` for a body of `length` octets; -1 (and counted) if it can never fit."""
        total = (length + RECORD_HEADER + 7) & ~7
        if length < 0 or total > self.capacity >> 2:
            self.words[REFUSED] += 1
            return -1
        place = self.head_at
        need = total
        if place + total > self.capacity:
            need = self.capacity - place + total
        self.make_room(need)
        if need != total:
            self.words[(DATA + place) >> 3] = need - total
            place = 0
        self.start = DATA + place
        self.length = total
        self.body = length
        self.need = need
        return self.start + RECORD_HEADER

    def make_room(self, need: int) -> int:
        """Move `tail` until `need` more octets and one more unread record fit."""
        tail = self.tail
        while self.head + need - tail > self.capacity:
            tail += self.behind(self.words[(DATA + self.tail_at) >> 3] & MASK32)
        if self.limit and self.written - atomics.peek(self.words, NEXT_SEQUENCE) >= self.limit:
            # Unread records are at the limit: give up the oldest one, with all that were read before it.
            oldest = self.written - self.limit
            while tail < self.head:
                word = (DATA + self.tail_at) >> 3
                first = self.words[word]
                if (first >> 32) & 0xFFFF and self.words[word + 1] > oldest:
                    break
                tail += self.behind(first & MASK32)
        if tail != self.tail:
            self.tail = tail
            atomics.store(self.words, TAIL, tail)
            atomics.fence()
        return 0

    def behind(self, octets: int) -> int:
        """Let `tail_at` go on by a record of so many octets, which is returned."""
        self.tail_at += octets
        if self.tail_at >= self.capacity:
            self.tail_at -= self.capacity
        return octets

    def commit(self, kind: int, flags: int, timestamp: int) -> int:
        """Publish what was reserved and filled: `kind` 1 to 65535, `timestamp` in ns."""
        word = self.start >> 3
        self.words[word] = self.length | (kind << 32) | (flags << 48)
        self.words[word + 1] = self.written
        self.words[word + 2] = timestamp
        self.words[word + 3] = self.body
        self.head += self.need
        self.head_at = self.start - DATA + self.length
        if self.head_at == self.capacity:
            self.head_at = 0
        self.written += 1
        atomics.store(self.words, HEAD, self.head)
        atomics.store(self.words, WRITTEN, self.written)
        return 0

    def write(self, kind: int, flags: int, timestamp: int, body: bytes) -> bool:
        """Append one record; False if it can never fit."""
        place = self.reserve(len(body))
        if place < 0:
            return False
        self.memory[place : place + len(body)] = body
        self.commit(kind, flags, timestamp)
        return True


class RingReader:
    """The reading end: `next()` copies one record into `record` and sets the fields beside it."""

    def __init__(self, region: Region) -> None:
        """Go on where the reader before stopped, wherever it was killed."""
        self.region = region
        self.memory = region.memory
        self.words = region.words
        if region.words[NEW_NEXT] > region.words[NEXT_SEQUENCE]:
            region.words[LOST] = region.words[NEW_LOST]
            region.words[NEXT_SEQUENCE] = region.words[NEW_NEXT]
        self.capacity = room(region)
        self.position = region.words[READ_POSITION]
        self.expected = region.words[NEXT_SEQUENCE]
        self.end = len(region.memory)
        self.longest = self.capacity >> 2
        self.record = bytearray(self.longest)
        self.scratch = memoryview(self.record)
        self.kind = 0
        self.flags = 0
        self.timestamp = 0
        self.length = 0
        self.sequence = 0

    def next(self) -> bool:
        """Take the oldest unread record: `kind`, `flags`, `timestamp`, `sequence`, body `record[:length]`."""
        while True:
            head = self.reach()
            if self.position >= head:
                return self.settle()
            place = DATA + self.position % self.capacity
            word = place >> 3
            first = self.words[word]
            total = first & MASK32
            kind = (first >> 32) & 0xFFFF
            if kind == PADDING and total > 0:
                self.go(self.position + total)
                continue
            if total < RECORD_HEADER or place + total > self.end or total > self.longest:
                # Overwritten while we looked, else the ring is broken: then nothing in it can be trusted.
                self.go(head)
                continue
            sequence = self.words[word + 1]
            timestamp = self.words[word + 2]
            length = self.words[word + 3]
            if length > total - RECORD_HEADER:
                length = total - RECORD_HEADER
            self.copy(place + RECORD_HEADER, length)
            atomics.fence()
            if atomics.load(self.words, TAIL) > self.position:
                continue
            self.position += total
            if sequence < self.expected:
                # Taken by a reader that was killed before it stored its position.
                continue
            if sequence > self.expected and sequence > atomics.load(self.words, WRITTEN):
                # No such record was written yet; to believe it would be to skip all that come.
                self.position = head
                continue
            self.kind = kind
            self.flags = first >> 48
            self.timestamp = timestamp
            self.length = length
            return self.taken(sequence)

    def reach(self) -> int:
        """Where the writer's head is; `position` moves over what was given up, at most to there."""
        tail = atomics.load(self.words, TAIL)
        head = atomics.load(self.words, HEAD)
        if self.position < tail:
            self.position = tail
        if self.position > head or (
            head > tail
            and head - tail > self.capacity
            and head - atomics.load(self.words, TAIL) > self.capacity
        ):
            # Not because the writer went on in between: the ring is broken, and would not end.
            self.position = head
        return head

    def go(self, position: int) -> int:
        """Read on at `position`, unless what stood where we are was given up meanwhile."""
        atomics.fence()
        if atomics.load(self.words, TAIL) <= self.position:
            self.position = position
        return 0

    def taken(self, sequence: int) -> bool:
        """The record with this sequence number is read, whatever its reader does with it; returns True."""
        self.sequence = sequence
        if sequence > self.expected:
            self.lose(sequence - self.expected, (sequence + 1) & MASK64)
        self.expected = (sequence + 1) & MASK64
        atomics.store(self.words, NEXT_SEQUENCE, self.expected)
        atomics.store(self.words, READ_POSITION, self.position)
        return True

    def settle(self) -> bool:
        """Nothing to read: book records that were given up with no newer one behind them; returns False."""
        written = atomics.load(self.words, WRITTEN)
        if written > self.expected and self.position >= atomics.load(self.words, HEAD):
            # `head` moves before `written`: all of them stood before the head, and none is there any more.
            self.lose(written - self.expected, written)
            self.expected = written
            atomics.store(self.words, NEXT_SEQUENCE, written)
        return False

    def lose(self, count: int, following: int) -> int:
        """Book `count` lost records; the caller then stores `following` as the next sequence."""
        lost = (self.words[LOST] + count) & MASK64
        self.words[NEW_LOST] = lost
        atomics.store(self.words, NEW_NEXT, following)
        atomics.store(self.words, LOST, lost)
        return 0

    def copy(self, place: int, length: int) -> int:
        """Copy a body out of the ring."""
        self.scratch[:length] = self.memory[place : place + length]
        return 0

    def read(self, most: int) -> list[tuple[int, int, int, bytes]]:
        """Up to `most` records as (kind, flags, timestamp, body)."""
        batch: list[tuple[int, int, int, bytes]] = []
        while len(batch) < most and self.next():
            batch.append((self.kind, self.flags, self.timestamp, bytes(self.record[: self.length])))
        return batch


def recovered(region: Region) -> int:
    """How many records the writer of a ring, which is gone, has written; 0 where it left the ring broken."""
    try:
        return int(RingWriter(region).written)
    except ValueError:
        return 0


_ATTEMPTS = 8


def figures(region: Region) -> dict[str, int]:
    """A ring's counters (written, read, lost, refused) and fill (unread, octets) with limit and capacity."""
    words = region.words
    written = int(words[WRITTEN])
    lost, following = _consumed(words)
    for _ in range(_ATTEMPTS):
        before, (lost, following) = (lost, following), _consumed(words)
        if before == (lost, following):
            break
    return {
        "written": written,
        "read": following - lost,
        "lost": lost,
        "refused": int(words[REFUSED]),
        "unread": max(0, written - following),
        "octets": max(0, int(words[HEAD]) - max(int(words[READ_POSITION]), int(words[TAIL]))),
        "limit": int(words[LIMIT]),
        "capacity": room(region),
    }


def _consumed(words: memoryview[int]) -> tuple[int, int]:
    """(lost, next sequence), also between the two stores with which a reader changes both."""
    if words[NEW_NEXT] > words[NEXT_SEQUENCE]:
        return int(words[NEW_LOST]), int(words[NEW_NEXT])
    return int(words[LOST]), int(words[NEXT_SEQUENCE])

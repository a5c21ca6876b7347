"""What incomplete datagrams carry: pieces in chunks of one arena of fixed size, and lists by age.

A piece is a run of octets of a datagram; it is named by its first chunk. The pieces of a datagram are a
list in order and without overlap. Memory is taken from the system as it is first used and is never more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.shm.region import pool

if TYPE_CHECKING:
    from engine.decode.classifier import Decoder

CHUNK = 512
CHUNK_OCTETS = CHUNK
"""The same, visible from Python where this module is compiled."""


class PieceStore:
    """Chunks for all datagrams of one worker."""

    def __init__(self, octets: int) -> None:
        """`octets` of memory for what fragments carry."""
        self.chunks = max(1, octets // CHUNK)
        self.free = self.chunks
        """Chunks that can be taken."""
        self.arena = pool(self.chunks * CHUNK)
        self.following = memoryview(bytearray(4 * self.chunks)).cast("i")
        self.next = memoryview(bytearray(4 * self.chunks)).cast("i")
        self.start = memoryview(bytearray(4 * self.chunks)).cast("i")
        self.length = memoryview(bytearray(4 * self.chunks)).cast("i")
        self.unused = 0
        self.given_back = -1
        self.first = -1
        self.kept = 0
        self.differs = False

    def take(self) -> int:
        """A chunk; there must be a free one."""
        chunk = self.given_back
        if chunk >= 0:
            self.given_back = self.following[chunk]
        else:
            chunk = self.unused
            self.unused += 1
        self.following[chunk] = -1
        self.free -= 1
        return chunk

    def put(self, decoder: Decoder, at: int, start: int, length: int) -> int:
        """A new piece from octet `start` of the datagram on: `length` octets of the packet from `at` on."""
        first = self.take()
        self.start[first] = start
        self.length[first] = length
        self.next[first] = -1
        chunk = first
        while True:
            size = min(CHUNK, length)
            place = chunk * CHUNK
            self.arena[place : place + size] = decoder.buf[at : at + size]
            length -= size
            if length == 0:
                return first
            at += size
            following = self.take()
            self.following[chunk] = following
            chunk = following

    def fill(self, first: int, decoder: Decoder, offset: int) -> int:
        """Take from the fragment in `decoder` what is missing at `offset` of the datagram; the octets kept.

        `first`: its first piece or -1. Sets `first`, `kept`, and `differs`: an octet that was there is
        another one in this fragment. There must be a free chunk for each started 512 octets of each gap.
        """
        self.first = first
        self.kept = 0
        self.differs = False
        shift = decoder.fragment_start - offset
        end = decoder.fragment_end - shift
        position = offset
        before = -1
        piece = first
        while piece >= 0 and position < end:
            begin = self.start[piece]
            stop = begin + self.length[piece]
            if stop > position:
                if begin > position:
                    size = min(begin, end)
                    before = self.insert(before, decoder, position + shift, position, size - position)
                    position = size
                if begin < end:
                    size = min(stop, end)
                    if not self.differs and self.differ(piece, decoder, shift, position, size):
                        self.differs = True
                    position = size
            before = piece
            piece = self.next[piece]
        if position < end:
            self.insert(before, decoder, position + shift, position, end - position)
        return self.kept

    def insert(self, before: int, decoder: Decoder, at: int, start: int, length: int) -> int:
        """A new piece behind `before` (-1: as the first); returns it."""
        piece = self.put(decoder, at, start, length)
        self.kept += length
        if before < 0:
            self.next[piece] = self.first
            self.first = piece
        else:
            self.next[piece] = self.next[before]
            self.next[before] = piece
        return piece

    def differ(self, piece: int, decoder: Decoder, shift: int, start: int, end: int) -> bool:
        """Whether octets start..end of the datagram, all in `piece`, are others in the packet."""
        position = self.start[piece]
        chunk = piece
        while position + CHUNK <= start:
            chunk = self.following[chunk]
            position += CHUNK
        place = chunk * CHUNK - position
        for index in range(start, end):
            if index - position == CHUNK:
                chunk = self.following[chunk]
                position = index
                place = chunk * CHUNK - position
            if self.arena[place + index] != decoder.buf[shift + index]:
                return True
        return False

    def conflict(self, first: int, decoder: Decoder, offset: int) -> bool:
        """Whether the fragment has other octets than what is there; takes nothing."""
        shift = decoder.fragment_start - offset
        end = decoder.fragment_end - shift
        piece = first
        while piece >= 0:
            begin = self.start[piece]
            stop = begin + self.length[piece]
            if begin < offset:
                begin = offset
            if stop > end:
                stop = end
            if begin < stop and self.differ(piece, decoder, shift, begin, stop):
                return True
            piece = self.next[piece]
        return False

    def copy(self, first: int, into: memoryview, at: int) -> int:
        """Write all pieces behind each other into `into`, from `at` on; returns the end."""
        piece = first
        while piece >= 0:
            left = self.length[piece]
            chunk = piece
            while left > 0:
                size = min(CHUNK, left)
                place = chunk * CHUNK
                into[at : at + size] = self.arena[place : place + size]
                at += size
                left -= size
                chunk = self.following[chunk]
            piece = self.next[piece]
        return at

    def release(self, first: int) -> int:
        """Give all chunks of these pieces back; returns how many."""
        before = self.free
        piece = first
        while piece >= 0:
            chunk = piece
            piece = self.next[piece]
            while chunk >= 0:
                following = self.following[chunk]
                self.following[chunk] = self.given_back
                self.given_back = chunk
                self.free += 1
                chunk = following
        return self.free - before


class AgeLists:
    """Numbered items, each in at most one of some lists, the oldest first; a list knows its weight."""

    def __init__(self, lists: int, items: int) -> None:
        """All lists empty. Items and lists stand as numbers + 1, so 0 is none."""
        self.oldest = memoryview(bytearray(4 * lists)).cast("i")
        self.newest = memoryview(bytearray(4 * lists)).cast("i")
        self.count = memoryview(bytearray(4 * lists)).cast("i")
        self.weight = memoryview(bytearray(4 * lists)).cast("i")
        self.before = memoryview(bytearray(4 * items)).cast("i")
        self.after = memoryview(bytearray(4 * items)).cast("i")

    def first(self, number: int) -> int:
        """The oldest item of a list, or -1."""
        return self.oldest[number] - 1

    def append(self, number: int, item: int) -> int:
        """Make an item the newest of a list."""
        last = self.newest[number]
        self.before[item] = last
        self.after[item] = 0
        if last:
            self.after[last - 1] = item + 1
        else:
            self.oldest[number] = item + 1
        self.newest[number] = item + 1
        self.count[number] += 1
        return 0

    def remove(self, number: int, item: int, weight: int) -> int:
        """Take an item, and its weight, out of the list that it is in."""
        before, after = self.before[item], self.after[item]
        if before:
            self.after[before - 1] = after
        else:
            self.oldest[number] = after
        if after:
            self.before[after - 1] = before
        else:
            self.newest[number] = before
        self.count[number] -= 1
        self.weight[number] -= weight
        return 0

"""The flow registry: who announced which endpoint by SDP, and the media flows found so far.

A table of engine.shm.slots with two kinds of keys: a whole five-tuple in one direction, and one side of it
(address and port) as SDP announces it. `find()` looks for the five-tuple; at the first packet of a
flow it looks for the receiving and then the sending side and makes a five-tuple entry with a copy
of their labels, so media from behind a NAT is known, and every later packet costs one probe. When
a side changes, an epoch changes with it, and the copies are made anew at their next packet.

Words behind those of engine.shm.slots (index of the 64-bit word):

    512 ended calls, 2048 words: hash of a Call-ID that may lose its endpoints to another call
    2560 epochs, 2048 words: changes of the sides that hash there
    4608 tags and places of the entries, then the entries:

     1 generation << 32 | kind (1 five-tuple, 2 side)
     2 source port | destination port << 16 | protocol << 32
     8 last use, ns                   9 epoch of the copy << 32 | its two places in the epochs
    10 newest stream: slot + 1 | word of its entry << 32 (five-tuple); 1 where it had media (side)
    11 labels (see below)
    12 domain where its sides are (five-tuple; FlowLookup.nearest())     13 free, 3 words
    16 Call-ID, 127 octets, zero padded, 16 words
    32 codecs, 16 of 2 words: u8 payload type, 11 octets name, u32 clock rate

Labels: u8 found by (1 SDP, 2 heuristic), u8 flags (engine.shm.rows.F_*), u8 media index, 5 bits codecs, from
bit 32 the time to live in ms. A side has address and port in the source's place.
"""

from __future__ import annotations

from typing import Any

from engine.shm import atomics
from engine.shm.flow_lookup import ANY_VLAN
from engine.shm.flow_staging import FlowStaging
from engine.shm.region import Region
from engine.shm.rows import F_FAX, F_SHARED, flow_row
from engine.shm.slots import create_region

VERSION = 4
ENDED, EPOCHS, TAGS = 512, 2560, 4608
FACTS, PORTS, KEY, DOMAIN, LAST, EPOCH, STREAM, LABELS, AROUND, CALL, CODECS = (
    1, 2, 3, 7, 8, 9, 10, 11, 12, 16, 32,
)  # fmt: skip
MASK64 = 0xFFFFFFFFFFFFFFFF
MASK32 = 0xFFFFFFFF
TOUCH = 1_000_000_000
"""A flow in use is marked so once a second."""
IDLE = 10_000_000_000
"""A flow that is quiet for this long gives its place in a flood."""
UNPROVEN = 2_000_000_000
"""Longer than this an announced endpoint without media is in nobody's way where the table is full."""
MILLISECOND = 1_000_000
KEPT = 0xFFFFFFFFE0FFFFFF
NO_EPOCH = 0x8000000000000000
FIVE_TUPLE_KIND, SIDE_KIND = 1, 2
UDP, FAX, SHARED = 17, F_FAX << 8, F_SHARED << 8
VLANS = ANY_VLAN
HEURISTIC = 2
PLACE_STREAM, PLACE_CALL = STREAM, CALL
"""The same, visible from Python where this module is compiled."""


class FlowTable(FlowStaging):
    """The registry as one worker writes it, or as a reader maps it."""

    def __init__(self, region: Region, writer: int = 0) -> None:
        """Map the table; `writer` is the worker's index, below 65,535."""
        super().__init__(region, writer, TAGS)

    @classmethod
    def create(cls, task: str, writer: int, slots: int) -> FlowTable:
        """A new table for at least `slots` entries (a power of two; 528 octets each, touched when used)."""
        return cls(create_region("flows", VERSION, task, writer, slots, TAGS), writer)

    @classmethod
    def open(cls, fd: int, writer: int = 0) -> FlowTable:
        """Map the table behind an inherited descriptor."""
        return cls(Region(fd, "flows", VERSION), writer)

    # ---- lookup ----

    def find(
        self,
        src0: int,
        src1: int,
        dst0: int,
        dst1: int,
        sport: int,
        dport: int,
        protocol: int,
        domain: int,
        now: int,
    ) -> int:
        """The slot of a packet's flow, or -1 where neither it nor one of its sides is known at `now`.

        Addresses are little-endian words of the 16 octets. Sets what look() says, and `tag` in vain.
        """
        ports = sport | (dport << 16) | (protocol << 32)
        slot = self.recall(ports, src0, src1, dst0, dst1, domain)
        if slot < 0:
            self.tag = self.hash(src0, src1, dst0, dst1, ports, domain)
            slot = self.probe(self.tag, ports, src0, src1, dst0, dst1, domain)
            if slot < 0:
                return self.adopt(src0, src1, dst0, dst1, ports, domain, now)
            self.remember(slot)
        word = self.word
        if now > self.words[word + LAST] + TOUCH:
            if self.expired(slot, now):
                self.expire(slot)
                self.tag = self.hash(src0, src1, dst0, dst1, ports, domain)
                return self.adopt(src0, src1, dst0, dst1, ports, domain, now)
            atomics.store(self.words, word + LAST, now)
            self.touch_sides(src0, src1, dst0, dst1, ports, self.words[word + AROUND], now)
            self.look(word)
        last = self.words[EPOCHS + ((self.epoch >> 16) & 2047)] + self.words[EPOCHS + (self.epoch & 2047)]
        if (last & MASK32) != self.epoch >> 32:
            self.refresh(slot)
        return slot

    def expired(self, slot: int, now: int) -> bool:
        """Whether an entry was last used longer ago than it may live."""
        word = self.place(slot)
        labels = self.words[word + LABELS]
        return now > self.words[word + LAST] + (labels >> 32) * MILLISECOND

    def yields(self, slot: int, now: int) -> bool:
        """In a flood: an endpoint that never saw media, and a quiet flow, which its sides make anew."""
        word = self.place(slot)
        if self.words[word + FACTS] & 0xFF == SIDE_KIND:
            return self.words[word + STREAM] == 0 and now > self.words[word + LAST] + UNPROVEN
        return now > self.words[word + LAST] + IDLE

    def adopt(self, src0: int, src1: int, dst0: int, dst1: int, ports: int, domain: int, now: int) -> int:
        """Make a five-tuple entry, whose hash is `tag`, where a side is known; its slot, or -1."""
        tag = self.tag
        if not self.nearest(src0, src1, dst0, dst1, ports, domain, now):
            return -1
        self.prove(now)
        slot = self.enter(tag, FIVE_TUPLE_KIND, ports, src0, src1, dst0, dst1, domain, now)
        if slot < 0 or not self.fresh:
            return slot
        word = self.place(slot)
        self.words[word + EPOCH] = self.sides_epoch()
        self.words[word + AROUND] = self.around
        self.words[word + LAST] = now
        self.copy_labels(slot)
        self.unlock(word)
        slot = self.publish(slot, tag)
        self.probe(tag, ports, src0, src1, dst0, dst1, domain)
        return slot

    def sides_epoch(self) -> int:
        """The epoch of the last sides(), and its two places, as they stand in an entry."""
        places = ((self.receiver_tag & 2047) << 16) | (self.sender_tag & 2047)
        epoch = self.words[EPOCHS + (places >> 16)] + self.words[EPOCHS + (places & 2047)]
        return ((epoch & MASK32) << 32) | places

    # ---- writing ----

    def add(
        self,
        src0: int,
        src1: int,
        dst0: int,
        dst1: int,
        sport: int,
        dport: int,
        protocol: int,
        domain: int,
        now: int,
        ttl: int,
    ) -> int:
        """Enter a flow found without SDP; its slot, or -1 where the table is full there. `ttl` in ns."""
        ports = sport | (dport << 16) | (protocol << 32)
        tag = self.hash(src0, src1, dst0, dst1, ports, domain)
        slot = self.probe(tag, ports, src0, src1, dst0, dst1, domain)
        if slot >= 0:
            return slot
        slot = self.enter(tag, FIVE_TUPLE_KIND, ports, src0, src1, dst0, dst1, domain, now)
        if slot < 0 or not self.fresh:
            return slot
        word = self.place(slot)
        # With a tag, a later SDP on whichever VLAN is news for it.
        self.around = domain | VLANS if domain & VLANS else domain
        self.sides(src0, src1, dst0, dst1, ports, self.around)
        self.words[word + EPOCH] = self.sides_epoch()
        self.words[word + AROUND] = self.around
        self.words[word + LAST] = now
        self.words[word + LABELS] = HEURISTIC | (((ttl // MILLISECOND) & MASK32) << 32)
        self.unlock(word)
        slot = self.publish(slot, tag)
        self.probe(tag, ports, src0, src1, dst0, dst1, domain)
        return slot

    def copy_labels(self, slot: int) -> int:
        """Labels and codecs of a five-tuple from its sides(); the receiver's come first. Within a change.

        An endpoint that several calls announce says less about a packet than one that a single call has.
        """
        word = self.place(slot)
        first, second = self.receiver, self.sender
        if first < 0 or (second >= 0 and self.shared(first) and not self.shared(second)):
            first, second = second, first
        place = self.place(first)
        labels = self.words[place + LABELS]
        for index in range(CALL, CALL + 16):
            self.words[word + index] = self.words[place + index]
        own = self.merge_codecs(slot, first, 0)
        if second >= 0:
            own = self.merge_codecs(slot, second, own)
        self.words[word + LABELS] = (labels & KEPT) | (own << 24)
        atomics.fence()
        if (self.receiver >= 0 and self.words[self.tags + 2 * self.receiver] != self.receiver_tag) or (
            self.sender >= 0 and self.words[self.tags + 2 * self.sender] != self.sender_tag
        ):
            # The place of a side was given to another one meanwhile: take nothing, look at the next packet.
            self.words[word + EPOCH] ^= NO_EPOCH
            self.words[word + LABELS] = labels & KEPT
            for index in range(CALL, CALL + 16):
                self.words[word + index] = 0
        return 0

    def merge_codecs(self, slot: int, source: int, count: int) -> int:
        """Append the codecs of `source` whose payload types a slot does not have; the new count."""
        word = self.place(slot) + CODECS
        place = self.place(source)
        more = (self.words[place + LABELS] >> 24) & 31
        if more > 16:
            more = 16
        place += CODECS
        for index in range(more):
            payload_type = self.words[place + 2 * index] & 0xFF
            for other in range(count):
                if self.words[word + 2 * other] & 0xFF == payload_type:
                    break
            else:
                if count < 16:
                    self.words[word + 2 * count] = self.words[place + 2 * index]
                    self.words[word + 2 * count + 1] = self.words[place + 2 * index + 1]
                    count += 1
        return count

    def refresh(self, slot: int) -> int:
        """A side may have changed: take its labels again."""
        word = self.place(slot)
        place = self.words[word + EPOCH]
        epoch = self.words[EPOCHS + ((place >> 16) & 2047)] + self.words[EPOCHS + (place & 2047)]
        epoch = ((epoch & MASK32) << 32) | (place & MASK32)
        found = self.nearest(
            self.words[word + KEY],
            self.words[word + KEY + 1],
            self.words[word + KEY + 2],
            self.words[word + KEY + 3],
            self.words[word + PORTS],
            self.words[word + DOMAIN],
            0,
        )
        if found and self.around != self.words[word + AROUND]:
            epoch = self.sides_epoch()
        tag = self.hash(
            self.words[word + KEY],
            self.words[word + KEY + 1],
            self.words[word + KEY + 2],
            self.words[word + KEY + 3],
            self.words[word + PORTS],
            self.words[word + DOMAIN],
        )
        if self.lock(word):
            if atomics.load(self.words, self.tags + 2 * slot) == tag:
                self.words[word + EPOCH] = epoch
                if found:
                    self.words[word + AROUND] = self.around
                    self.copy_labels(slot)
            self.unlock(word)
        return self.look(word)

    def shared(self, slot: int) -> bool:
        """Whether several calls announced this side at a time; that stays so while it is known."""
        return self.words[self.place(slot) + LABELS] & SHARED != 0

    def share(self, slot: int, tag: int) -> int:
        """Another call announces this side, too; flows of it look for their sides again the first time."""
        word = self.place(slot)
        if not self.shared(slot) and self.lock(word):
            if atomics.load(self.words, self.tags + 2 * slot) == tag:
                self.words[word + LABELS] |= SHARED
            self.unlock(word)
            atomics.add(self.words, EPOCHS + (tag & 2047), 1)
        return 1

    def stir(self) -> int:
        """Flows of the side that register() was last asked for look for their sides again."""
        atomics.add(self.words, EPOCHS + (self.tag & 2047), 1)
        return 0

    def register(
        self,
        address0: int,
        address1: int,
        port: int,
        rtcp: bool,
        media: int,
        protocol: int,
        domain: int,
        now: int,
        ttl: int,
    ) -> int:
        """Announce one endpoint of the staged call with the staged codecs for `ttl` ns.

        Returns 0 done, 1 the endpoint belongs to another call that is alive, 2 the table is full there.
        """
        slot = self.side(address0, address1, port, protocol, domain)
        ports = port | (protocol << 32)
        tag = self.tag
        if self.words[ENDED + (self.call_hash & 2047)] == self.call_hash:
            atomics.store(self.words, ENDED + (self.call_hash & 2047), 0)
        labels = self.staged_labels(rtcp, media, ttl)
        if slot >= 0:
            if not self.may_take(slot, rtcp, now):
                return 1 if self.same_call(slot) else self.share(slot, tag)
            word = self.place(slot)
            labels |= self.words[word + LABELS] & SHARED
            if self.words[word + LABELS] == labels and self.same_call(slot) and self.same_codecs(word):
                # As in a retransmission: no flow needs to look at it again.
                atomics.store(self.words, word + LAST, now)
                return 0
            if not self.lock(word):
                return 2
            if atomics.load(self.words, self.tags + 2 * slot) != tag:
                # Another worker found it expired just now.
                self.unlock(word)
                return self.register(address0, address1, port, rtcp, media, protocol, domain, now, ttl)
        else:
            slot = self.enter(tag, SIDE_KIND, ports, address0, address1, 0, 0, domain, now)
            if slot < 0:
                return 2
            if not self.fresh:
                return 1
            word = self.place(slot)
        self.write_staged(word, labels, now)
        self.unlock(word)
        if atomics.load(self.words, self.tags + 2 * slot) != tag:
            self.publish(slot, tag)
        atomics.add(self.words, EPOCHS + (tag & 2047), 1)
        return 0

    def turn_to_fax(self, address0: int, address1: int, port: int, domain: int) -> int:
        """An endpoint of the staged call is UDPTL's (T.38) until it is registered again; 1: it was known.

        What it was registered with stays: the offer may be refused, and RTP under way may still come.
        """
        slot = self.side(address0, address1, port, UDP, domain)
        tag = self.tag
        if slot < 0 or not self.same_call(slot):
            return 0
        word = self.place(slot)
        if self.lock(word):
            if atomics.load(self.words, self.tags + 2 * slot) == tag:
                self.words[word + LABELS] |= FAX
            self.unlock(word)
        atomics.add(self.words, EPOCHS + (tag & 2047), 1)
        return 1

    # ---- what stands in an entry ----

    def codec(self, slot: int, payload_type: int) -> int:
        """Word index of the codec of a payload type in a slot, or -1."""
        word = self.place(slot)
        count = (self.words[word + LABELS] >> 24) & 31
        word += CODECS
        for index in range(16):
            if index >= count:
                break
            if self.words[word + 2 * index] & 0xFF == payload_type:
                return word + 2 * index
        return -1

    # ---- cold readers ----

    def read(self, slot: int) -> dict[str, Any] | None:
        """One entry by name of what stands in it; None where there is none."""
        entry = self.copy(slot)
        return None if entry is None else flow_row(slot, entry)

    def labels(self, slot: int, generation: int, payload_type: int) -> dict[str, str] | None:
        """Labels `call-id` and `codec` of a flow, where known; None where the slot is another's by now."""
        row = self.read(slot)
        if row is None or row["generation"] != generation:
            return None
        labels = {}
        if row["call_id"]:
            labels["call-id"] = row["call_id"]
        for number, name, _ in row["codecs"]:
            if number == payload_type and name:
                labels["codec"] = name
        return labels

    def rows(self) -> list[dict[str, Any]]:
        """Every entry; a snapshot entry by entry, not of the table."""
        return [row for slot in self.taken() if (row := self.read(slot)) is not None]

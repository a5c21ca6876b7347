"""How a packet finds its flow: the five-tuple in one direction, or what SDP said of one of its sides, on its
own VLAN or elsewhere (docs/adr/0006-tunnel-domains.md).

Flows that a process found lately are remembered by a mix of their key that needs no secret: whoever makes
keys collide there only sends packets to the keyed hash.
"""

from __future__ import annotations

from array import array

from engine.shm import atomics
from engine.shm.region import Region
from engine.shm.slots import SlotTable

LOCK, FACTS, PORTS, KEY, DOMAIN, LAST, EPOCH, STREAM, LABELS = 0, 1, 2, 3, 7, 8, 9, 10, 11
"""Words of an entry, as engine.shm.flows says."""
VLANS = ANY_VLAN = 0xFFFFFF
"""In a domain, both places of VLAN ids, and all of them: any VLAN. The second name is for Python."""
MASK64 = 0xFFFFFFFFFFFFFFFF
SPREAD = 0x9E3779B97F4A7C15
SIDE_MARK = 0x10000000000
"""In the hash of a side beside its port, so that it is not that of a five-tuple."""
FIVE_TUPLE_KIND = 1
RECENT_BITS = 13
RECENT_SHIFT = 64 - RECENT_BITS
RECENT_MASK = 0xFFFFFF
"""What is remembered of a flow: 16 bits of the mix of its key, 24 of its entry's number, 24 of slot + 1."""


class FlowLookup(SlotTable):
    """What FlowTable finds."""

    def __init__(self, region: Region, writer: int, tags: int) -> None:
        """As SlotTable."""
        super().__init__(region, writer, tags)
        self.recent = memoryview(array("Q", bytes(8 << RECENT_BITS)))
        self.mix = 0
        self.tag = 0
        self.word = 0
        self.labels_word = 0
        self.epoch = 0
        self.receiver = self.sender = -1
        self.receiver_tag = self.sender_tag = 0
        self.around = 0

    def look(self, word: int) -> int:
        """What the packet road needs of an entry: `word`, `generation`, `labels_word`, `epoch`."""
        self.word = word
        self.generation = self.words[word + FACTS] >> 32
        self.labels_word = self.words[word + LABELS]
        self.epoch = self.words[word + EPOCH]
        return 0

    def recall(self, ports: int, src0: int, src1: int, dst0: int, dst1: int, domain: int) -> int:
        """The slot of a key that was found lately, without a keyed hash; -1 where it is not remembered."""
        mix = ((src1 ^ ports) * SPREAD) & MASK64
        mix = (((mix ^ (mix >> 32)) + dst1 + (src0 ^ domain)) * SPREAD) & MASK64
        mix = (((mix ^ (mix >> 29)) + dst0) * SPREAD) & MASK64
        self.mix = mix
        recent = self.recent[mix >> RECENT_SHIFT]
        if recent >> 48 != (mix >> 32) & 0xFFFF or recent == 0:
            return -1
        word = self.first + ((recent >> 24) & RECENT_MASK) * self.width
        state = atomics.load(self.words, word + LOCK)
        if (
            state & 0xFFFF
            or self.words[word + PORTS] != ports
            or self.words[word + KEY + 1] != src1
            or self.words[word + KEY + 3] != dst1
            or self.words[word + KEY] != src0
            or self.words[word + KEY + 2] != dst0
            or self.words[word + DOMAIN] != domain
            or self.words[word + FACTS] & 0xFF != FIVE_TUPLE_KIND
        ):
            return -1
        self.look(word)
        atomics.fence()
        if atomics.peek(self.words, word + LOCK) != state:
            return -1
        return (recent & RECENT_MASK) - 1

    def remember(self, slot: int) -> int:
        """Let recall() find the key that it did not know in this slot, whose entry is at `word` for ever."""
        mix = self.mix
        number = slot
        if number < RECENT_MASK:
            number = (self.word - self.first) // self.width
            self.recent[mix >> RECENT_SHIFT] = (
                (((mix >> 32) & 0xFFFF) << 48) | ((number & RECENT_MASK) << 24) | (slot + 1)
            )
        return 0

    def tag_of(
        self, src0: int, src1: int, dst0: int, dst1: int, sport: int, dport: int, protocol: int, domain: int
    ) -> int:
        """The keyed hash of a five-tuple."""
        return self.hash(src0, src1, dst0, dst1, sport | (dport << 16) | (protocol << 32), domain)

    def side_tag(self, address0: int, address1: int, ports: int, domain: int) -> int:
        """The keyed hash of one side; `ports` is port | protocol << 32."""
        return self.hash(address0, address1, ports | SIDE_MARK, domain, 0, 0)

    def side(self, address0: int, address1: int, port: int, protocol: int, domain: int) -> int:
        """The slot of one side, or -1; `tag` becomes its hash."""
        ports = port | (protocol << 32)
        self.tag = self.side_tag(address0, address1, ports, domain)
        return self.probe(self.tag, ports, address0, address1, 0, 0, domain)

    def sides(self, src0: int, src1: int, dst0: int, dst1: int, ports: int, domain: int) -> int:
        """Find both sides of a five-tuple: slots `receiver` and `sender` (-1: unknown), and their tags."""
        tag = self.tag
        self.receiver = self.side(dst0, dst1, (ports >> 16) & 0xFFFF, ports >> 32, domain)
        self.receiver_tag = self.tag
        self.sender = self.side(src0, src1, ports & 0xFFFF, ports >> 32, domain)
        self.sender_tag = self.tag
        self.tag = tag
        return 0

    def nearest(self, src0: int, src1: int, dst0: int, dst1: int, ports: int, domain: int, now: int) -> bool:
        """sides() on the VLAN itself, else of signalling on any other one, else of signalling without a tag.

        Whether there is one that has not expired at `now`; `around` is the domain where.
        """
        self.around = domain
        if self.live_sides(src0, src1, dst0, dst1, ports, now):
            return True
        self.around = domain | VLANS
        if self.live_sides(src0, src1, dst0, dst1, ports, now):
            return True
        self.around = (domain | VLANS) ^ VLANS
        return self.around != domain and self.live_sides(src0, src1, dst0, dst1, ports, now)

    def live_sides(self, src0: int, src1: int, dst0: int, dst1: int, ports: int, now: int) -> bool:
        """Whether one of the sides() in the domain `around` has not expired; those that have are no more."""
        self.sides(src0, src1, dst0, dst1, ports, self.around)
        if self.receiver >= 0 and self.expired(self.receiver, now):
            self.expire(self.receiver)
            self.receiver = -1
        if self.sender >= 0 and self.expired(self.sender, now):
            self.expire(self.sender)
            self.sender = -1
        return self.receiver >= 0 or self.sender >= 0

    def touch_sides(
        self, src0: int, src1: int, dst0: int, dst1: int, ports: int, domain: int, now: int
    ) -> int:
        """Media of a flow keeps its sides alive, too."""
        self.sides(src0, src1, dst0, dst1, ports, domain)
        return self.prove(now)

    def prove(self, now: int) -> int:
        """The sides that were found have media."""
        if self.receiver >= 0:
            atomics.store(self.words, self.place(self.receiver) + STREAM, 1)
            atomics.store(self.words, self.place(self.receiver) + LAST, now)
        if self.sender >= 0:
            atomics.store(self.words, self.place(self.sender) + STREAM, 1)
            atomics.store(self.words, self.place(self.sender) + LAST, now)
        return 0

"""IPv4 and IPv6 reassembly in user space, in memory of fixed size, bounded in datagrams, fragments and time.

The kernel's own reassembly (PACKET_FANOUT_FLAG_DEFRAG) is not used: its memory is the host's, so a
flood of first fragments on a monitored port would stop the host's own traffic.

Overlaps (ADR 7): the copy that came first wins, octet by octet; a later fragment only fills what is still
missing. A fragment that contradicts a datagram older than REUSE_NS begins it anew: the sender has used the
identification again (RFC 4963). A datagram that was put together is remembered as long, so that a second
copy of its fragments (a mirrored port) is a duplicate and no new datagram.

Shares: one source (an IPv4 address, an IPv6 /64) has no more than 1/16 of the table and one network (/16,
/32) no more than half, each by a keyed hash: a flood evicts itself before it evicts others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.decode.pieces import CHUNK_OCTETS, AgeLists, PieceStore
from engine.shm.counters import index
from engine.shm.siphash import SipHash

if TYPE_CHECKING:
    from engine.decode.classifier import Decoder

LARGEST_PACKET = 65_535
IPV6_HEADER = 40
IPV6_FRAGMENT = 44
REUSE_NS = 1_000_000_000
"""Sooner than this no sender uses an identification again, later no copy of a fragment arrives."""
KEY_WORDS = 8
HEADER_ROOM = 256
"""Octets of a datagram's IP header; when it is whole, of what it began with."""
MOST_LINK = 512
SOURCES, NETWORKS = 4096, 1024
"""Lists that sources and networks share by their hash."""
NETWORK_V4, NETWORK_V6 = 0x0000FFFFFFFFFFFF, 0x00000000FFFFFFFF
"""A /16 of the second word of a mapped address, a /32 of the first word of another."""
PENDING, DONE = 0, 1

REASSEMBLED, INCOMPLETE = index("reassembled"), index("datagrams_incomplete")
MERGED, HELD = index("fragments_merged"), index("fragments_held")
OVERLAPPING, DUPLICATE = index("fragments_overlapping"), index("fragments_duplicate")
TIMED_OUT, EVICTED = index("fragments_timed_out"), index("fragments_evicted")
OVER_LIMIT, OVERSIZE = index("fragments_over_limit"), index("fragments_oversize")
SNAPPED, CONTRADICTING = index("fragments_snapped"), index("fragments_contradicting")
REPLACED, UNFINISHED = index("fragments_replaced"), index("fragments_unfinished")


class Reassembly:
    """Puts the fragments of one worker together; time is the task's clock in ns.

    Counted under FACTS, each fragment once: `fragments_merged`, `fragments_duplicate` (nothing new in it),
    `fragments_held`, which is how many are waiting now, or one of FRAGMENT_LOSSES: `_timed_out`,
    `_evicted` (the oldest datagram goes when the table or its octets are full), `_over_limit` (the oldest
    of a source or network that holds more than its share, or a datagram of more than `max_fragments`),
    `_oversize` (beyond 65,535 octets), `_snapped` (cut by the snap length, so of no use),
    `_contradicting` (another end than the one that is known), `_replaced` (the identification came again),
    `_unfinished` (the capture or its worker ended first). Beside these: `fragments_overlapping`; of
    datagrams `reassembled` and `datagrams_incomplete`.
    """

    def __init__(
        self,
        counters_words: memoryview,
        timeout_ns: int = 30_000_000_000,
        max_datagrams: int = 10_000,
        max_bytes: int = 16 << 20,
        per_source_share: float = 1 / 16,
        max_fragments: int = 64,
        seed: bytes = b"",
        per_network_share: float = 1 / 2,
    ) -> None:
        """`max_bytes` of memory for what fragments carry, in chunks of 512; `seed`: 16 octets, of tests."""
        self.counters = counters_words
        self.timeout_ns = timeout_ns
        self.max_datagrams = size = max(1, max_datagrams)
        self.max_fragments = max_fragments
        self.store = PieceStore(max_bytes)
        self.max_per_source = _share(size, per_source_share, 1)
        self.max_per_network = _share(size, per_network_share, 1)
        # The largest datagram in the most pieces shall fit whatever the share.
        least = LARGEST_PACKET // CHUNK_OCTETS + 2 * max_fragments
        self.source_chunks = _share(self.store.chunks, per_source_share, least)
        self.network_chunks = _share(self.store.chunks, per_network_share, least)
        self.siphash = SipHash(seed)
        buckets = 1 << max(4, size.bit_length())
        self.mask = buckets - 1
        self.heads = memoryview(bytearray(4 * buckets)).cast("i")
        self.keys = memoryview(bytearray(8 * KEY_WORDS * size)).cast("Q")
        self.headers = memoryview(bytearray(HEADER_ROOM * size))
        (
            self.chain, self.bucket, self.source, self.network_of, self.state, self.pieces, self.held,
            self.have, self.total, self.reach, self.chunks, self.header_octets, self.following,
        ) = (memoryview(bytearray(4 * size)).cast("i") for _ in range(13))  # fmt: skip
        self.by_age = AgeLists(2, size)
        self.by_source = AgeLists(SOURCES, size)
        self.by_network = AgeLists(NETWORKS, size)
        self.unused = 0
        self.given_back = -1
        # The 65,535 octets of an IPv6 packet are those behind its header.
        self.octets = bytearray(MOST_LINK + IPV6_HEADER + LARGEST_PACKET)
        self.scratch = memoryview(self.octets)
        self.network = 0
        """Where the IP header begins in what add() returned last."""

    @property
    def datagrams(self) -> int:
        """Incomplete ones."""
        return self.by_age.count[PENDING]

    def add(self, decoder: Decoder, now_ns: int) -> bytes | None:
        """Take the fragment that `decoder.decode()` just reported; the whole packet when it is complete.

        The octets are the link header of this last fragment (of one in a tunnel: everything before its
        IP header, at most 512 octets) and, from `network` on, an IP packet with the header of the first
        fragment (IPv6 without extension headers before the fragment header):

            decoder.attach(packet)
            verdict = decoder.decode_network(reassembly.network, len(packet))
        """
        self.expire(now_ns)
        offset = decoder.fragment_offset
        end = offset + decoder.fragment_end - decoder.fragment_start
        header = decoder.fragment_start - decoder.network
        if decoder.clipped or end <= offset or header < 20:
            return self.refuse(SNAPPED)
        version = decoder.buf[decoder.network] >> 4
        if version != 4:
            header = 0
        if end > LARGEST_PACKET - header:
            return self.refuse(OVERSIZE)
        # IPv6 fragments of one packet may name different next headers (RFC 8200 section 4.5).
        identity = decoder.fragment_id
        identity = identity << 16 | (decoder.protocol if version == 4 else IPV6_FRAGMENT)
        group = self.find(decoder, identity, end, now_ns)
        if group < 0 or not self.make_room(group, end - offset) or not self.keep(group, decoder, end):
            return None
        if self.have[group] != self.total[group]:
            return None
        return self.complete(group, decoder)

    def refuse(self, counter: int) -> bytes | None:
        """Count a fragment that is not taken."""
        self.counters[counter] += 1
        return None

    def find(self, decoder: Decoder, identity: int, end: int, now_ns: int) -> int:
        """The datagram that a fragment which ends at `end` belongs to; -1: to none, and that is counted."""
        tag = self.siphash.hash(
            decoder.src0, decoder.src1, decoder.dst0, decoder.dst1, identity, decoder.domain
        )
        group = self.look(decoder, identity, tag & self.mask)
        if group >= 0 and self.state[group] == DONE:
            if not self.used_again(group, decoder, now_ns):
                self.counters[DUPLICATE] += 1
                return -1
            self.forget(group)
            group = -1
        elif group >= 0 and self.age(group, now_ns) > REUSE_NS and self.conflicts(group, decoder, end):
            self.drop(group, REPLACED)
            group = -1
        if group < 0:
            return self.open(decoder, identity, tag & self.mask, now_ns)
        if self.contradicts(group, end, decoder.fragment_more):
            self.counters[OVERLAPPING] += 1
            self.counters[CONTRADICTING] += 1
            return -1
        return group

    def look(self, decoder: Decoder, identity: int, bucket: int) -> int:
        """The datagram with this key, or -1."""
        group = self.heads[bucket] - 1
        while group >= 0:
            word = group * KEY_WORDS
            if (
                self.keys[word + 4] == identity
                and self.keys[word] == decoder.src0
                and self.keys[word + 1] == decoder.src1
                and self.keys[word + 2] == decoder.dst0
                and self.keys[word + 3] == decoder.dst1
                and self.keys[word + 5] == decoder.domain
            ):
                return group
            group = self.chain[group] - 1
        return -1

    def age(self, group: int, now_ns: int) -> int:
        """Nanoseconds since its first fragment; the clock may have been set back."""
        born = self.keys[group * KEY_WORDS + 6]
        return now_ns - born if now_ns >= born else born - now_ns

    def used_again(self, group: int, decoder: Decoder, now_ns: int) -> bool:
        """Whether this is another datagram than the one that was put together under its identification."""
        if self.age(group, now_ns) > REUSE_NS:
            return True
        if decoder.fragment_offset:
            return False
        size = decoder.fragment_end - decoder.fragment_start
        if size > self.total[group]:
            return True
        if size > HEADER_ROOM:
            size = HEADER_ROOM
        shift = decoder.fragment_start - group * HEADER_ROOM
        for place in range(group * HEADER_ROOM, group * HEADER_ROOM + size):
            if self.headers[place] != decoder.buf[place + shift]:
                return True
        return False

    def contradicts(self, group: int, end: int, more: bool) -> bool:
        """Whether a fragment that ends there cannot belong to the same datagram."""
        total = self.total[group]
        if total >= 0 and (end > total or (not more and end != total)):
            return True
        return not more and self.reach[group] > end

    def conflicts(self, group: int, decoder: Decoder, end: int) -> bool:
        """Whether the fragment says anything else than what is there."""
        return self.contradicts(group, end, decoder.fragment_more) or self.store.conflict(
            self.pieces[group], decoder, decoder.fragment_offset
        )

    # ---- the table ----

    def open(self, decoder: Decoder, identity: int, bucket: int, now_ns: int) -> int:
        """A new datagram, at the cost of the oldest of its source, of its network or of all."""
        address0, address1 = decoder.src0, decoder.src1
        if address0:
            # IPv6, with the address within its /64 left out.
            address1 = 0
        source = self.siphash.hash(address0, address1, decoder.domain, 1, 0, 0) & (SOURCES - 1)
        address0 &= NETWORK_V6
        address1 &= NETWORK_V4
        network = self.siphash.hash(address0, address1, decoder.domain, 2, 0, 0) & (NETWORKS - 1)
        if self.by_source.count[source] >= self.max_per_source:
            self.drop(self.by_source.first(source), OVER_LIMIT)
        elif self.by_network.count[network] >= self.max_per_network:
            self.drop(self.by_network.first(network), OVER_LIMIT)
        group = self.slot()
        word = group * KEY_WORDS
        self.keys[word] = decoder.src0
        self.keys[word + 1] = decoder.src1
        self.keys[word + 2] = decoder.dst0
        self.keys[word + 3] = decoder.dst1
        self.keys[word + 4] = identity
        self.keys[word + 5] = decoder.domain
        self.keys[word + 6] = now_ns
        self.bucket[group] = bucket
        self.chain[group] = self.heads[bucket]
        self.heads[bucket] = group + 1
        self.state[group] = PENDING
        self.pieces[group] = self.total[group] = -1
        self.held[group] = self.have[group] = self.reach[group] = self.chunks[group] = 0
        self.header_octets[group] = 0
        self.source[group] = source
        self.network_of[group] = network
        self.by_age.append(PENDING, group)
        self.by_source.append(source, group)
        self.by_network.append(network, group)
        return group

    def slot(self) -> int:
        """A free place of the table: of a datagram that is only remembered, else of the oldest."""
        if self.given_back < 0 and self.unused >= self.max_datagrams:
            oldest = self.by_age.first(DONE)
            if oldest >= 0:
                self.forget(oldest)
            else:
                self.drop(self.by_age.first(PENDING), EVICTED)
        group = self.given_back
        if group >= 0:
            self.given_back = self.chain[group] - 1
        else:
            group = self.unused
            self.unused += 1
        return group

    def forget(self, group: int) -> int:
        """Take a datagram off its list by age and its place out of the table."""
        self.by_age.remove(self.state[group], group, 0)
        bucket = self.bucket[group]
        other = self.heads[bucket] - 1
        if other == group:
            self.heads[bucket] = self.chain[group]
        else:
            while self.chain[other] != group + 1:
                other = self.chain[other] - 1
            self.chain[other] = self.chain[group]
        self.chain[group] = self.given_back + 1
        self.given_back = group
        return 0

    def release(self, group: int) -> int:
        """Give back what a datagram carries, and what it takes of its shares."""
        self.by_source.remove(self.source[group], group, self.chunks[group])
        self.by_network.remove(self.network_of[group], group, self.chunks[group])
        self.store.release(self.pieces[group])
        self.pieces[group] = -1
        self.chunks[group] = 0
        self.counters[HELD] -= self.held[group]
        return 0

    def drop(self, group: int, counter: int) -> int:
        """Give up an incomplete datagram and count its fragments."""
        self.counters[counter] += self.held[group]
        self.counters[INCOMPLETE] += 1
        self.release(group)
        self.forget(group)
        return 0

    def make_room(self, group: int, octets: int) -> bool:
        """Free chunks for one more fragment; False where its own datagram had to go for it."""
        # A fragment that fills several gaps starts a chunk in each; a gap is between two pieces.
        need = octets // CHUNK_OCTETS + 2 + self.held[group]
        source, network = self.source[group], self.network_of[group]
        while True:
            if self.by_source.weight[source] + need > self.source_chunks:
                oldest, counter = self.by_source.first(source), OVER_LIMIT
            elif self.by_network.weight[network] + need > self.network_chunks:
                oldest, counter = self.by_network.first(network), OVER_LIMIT
            elif self.store.free < need:
                oldest, counter = self.by_age.first(PENDING), EVICTED
            else:
                return True
            self.drop(oldest, counter)
            if oldest == group:
                self.counters[counter] += 1
                return False

    def keep(self, group: int, decoder: Decoder, end: int) -> bool:
        """Put one fragment into its datagram; False where that has too many and is given up."""
        if self.held[group] >= self.max_fragments:
            self.drop(group, OVER_LIMIT)
            self.counters[OVER_LIMIT] += 1
            return False
        offset = decoder.fragment_offset
        free = self.store.free
        kept = self.store.fill(self.pieces[group], decoder, offset)
        self.pieces[group] = self.store.first
        if self.store.differs or 0 < kept < end - offset:
            self.counters[OVERLAPPING] += 1
        if kept:
            taken = free - self.store.free
            self.have[group] += kept
            self.held[group] += 1
            self.counters[HELD] += 1
            self.chunks[group] += taken
            self.by_source.weight[self.source[group]] += taken
            self.by_network.weight[self.network_of[group]] += taken
        else:
            self.counters[DUPLICATE] += 1
        if end > self.reach[group]:
            self.reach[group] = end
        if not decoder.fragment_more:
            self.total[group] = end
        if offset == 0 and not self.header_octets[group]:
            self.keep_header(group, decoder)
        return True

    def keep_header(self, group: int, decoder: Decoder) -> int:
        """The first fragment's IP header; of IPv6 the fixed one, and what follows the fragment header."""
        size = decoder.fragment_start - decoder.network
        if decoder.buf[decoder.network] >> 4 != 4:
            size = IPV6_HEADER
            self.following[group] = decoder.protocol
        place = group * HEADER_ROOM
        self.headers[place : place + size] = decoder.buf[decoder.network : decoder.network + size]
        self.header_octets[group] = size
        return 0

    # ---- the whole packet ----

    def complete(self, group: int, decoder: Decoder) -> bytes | None:
        """The whole packet behind the link header of its last fragment."""
        header, total = self.header_octets[group], self.total[group]
        version = self.headers[group * HEADER_ROOM] >> 4
        if version == 4 and header + total > LARGEST_PACKET:
            # The header of the first fragment has options that those of the others had not.
            self.drop(group, OVERSIZE)
            return None
        link = decoder.network - decoder.frame
        if link > MOST_LINK:
            link = MOST_LINK
        self.network = link
        if link > 0:
            self.scratch[:link] = decoder.buf[decoder.frame : decoder.frame + link]
        place = group * HEADER_ROOM
        self.scratch[link : link + header] = self.headers[place : place + header]
        end = self.store.copy(self.pieces[group], self.scratch, link + header)
        if version == 4:
            self.finish_v4(link, header, end - link)
        else:
            self.scratch[link + 4] = total >> 8
            self.scratch[link + 5] = total & 0xFF
            self.scratch[link + 6] = self.following[group]
        self.counters[REASSEMBLED] += 1
        self.counters[MERGED] += self.held[group]
        self.remember(group, link + header, total)
        return bytes(self.octets[:end])

    def finish_v4(self, at: int, header: int, length: int) -> int:
        """Write total length, no fragment, and the checksum (RFC 791, RFC 1071)."""
        self.scratch[at + 2] = length >> 8
        self.scratch[at + 3] = length & 0xFF
        for place in (6, 7, 10, 11):
            self.scratch[at + place] = 0
        total = 0
        for place in range(at, at + header, 2):
            total += self.scratch[place] << 8 | self.scratch[place + 1]
        total = (total & 0xFFFF) + (total >> 16)
        total = ~(total + (total >> 16)) & 0xFFFF
        self.scratch[at + 10] = total >> 8
        self.scratch[at + 11] = total & 0xFF
        return 0

    def remember(self, group: int, at: int, octets: int) -> int:
        """Keep the place of a datagram that is whole, to know further copies of its fragments."""
        self.release(group)
        self.by_age.remove(PENDING, group, 0)
        self.by_age.append(DONE, group)
        self.state[group] = DONE
        size = min(HEADER_ROOM, octets)
        place = group * HEADER_ROOM
        self.headers[place : place + size] = self.scratch[at : at + size]
        return 0

    # ---- time ----

    def expire(self, now_ns: int) -> int:
        """Give up what is older than the timeout, also after a jump of the clock; returns how many."""
        given_up = 0
        while True:
            oldest = self.by_age.first(PENDING)
            if oldest < 0 or self.age(oldest, now_ns) <= self.timeout_ns:
                break
            self.drop(oldest, TIMED_OUT)
            given_up += 1
        while True:
            oldest = self.by_age.first(DONE)
            if oldest < 0 or self.age(oldest, now_ns) <= REUSE_NS:
                break
            self.forget(oldest)
        return given_up

    def finish(self) -> int:
        """The capture is over: what is incomplete stays so; returns how many datagrams."""
        given_up = 0
        while self.by_age.first(PENDING) >= 0:
            self.drop(self.by_age.first(PENDING), UNFINISHED)
            given_up += 1
        return given_up


def _share(whole: int, share: float, least: int) -> int:
    """What one may have of `whole`; a share of 1 is no limit."""
    return max(least, int(whole * share)) if share < 1 else whole + 1

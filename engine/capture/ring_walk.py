"""The reading end of a TPACKET_V3 ring: walks ready blocks and hands each packet to the sink.

Layouts are those of include/uapi/linux/if_packet.h: `tpacket_block_desc`, `tpacket3_hdr`, and the
`sockaddr_ll` behind each packet header. The worker maps the ring that the supervisor made; where
it stands is kept in its counters, so that the successor of a killed worker goes on behind the
packet that was in work.
"""

from __future__ import annotations

import mmap
import select
import socket
import time
from typing import TYPE_CHECKING

from engine.capture.packet_filter import PacketFilter
from engine.capture.sink import PacketSink
from engine.shm import atomics, counters

if TYPE_CHECKING:
    from engine.capture.cbpf import Program
    from engine.shm.counters import Counters

BLOCK_HEADER = 48
PACKET_HEADER = 68
"""tpacket3_hdr and the sockaddr_ll behind it."""
CACHE_LINE, HEADERS = 64, 192
STATUS_USER = 1
CSUM_NOT_READY = 8
VLAN_VALID = 0x10
VLAN_TPID_VALID = 0x40
GSO_TCP = 0x100
TPID_8021Q = 0x8100
LARGEST_FRAME = 9216
"""What is longer is counted as merged by the decoder, which sees it in files, too."""
NANOSECONDS = 1_000_000_000
MASK16 = 0xFFFF
HARDWARE_ETHERNET = 1
HARDWARE_LOOPBACK = 772
WIRE_IPV4 = socket.htons(0x0800)
WIRE_IPV6 = socket.htons(0x86DD)
LINK_ETHERNET = 1
LINK_RAW = 101
LINK_UNKNOWN = 0xFFFF
STEP = 250_000_000
"""The wall clock was stepped when it moved so many ns more or less than the monotonic one between two looks;
what is less is slewed, and followed."""
ALWAYS = 0xFFFF_FFFF_FFFF_FFFF
SEQUENCE_WORD = counters.BLOCK_SEQUENCE
BASE_WORD = counters.BLOCK_BASE
INDEX_WORD = counters.BLOCK_INDEX
RECEIVED_WORD = counters.RECEIVED
FILTERED_WORD = counters.index("filtered")
RECHECKED_WORD = counters.index("filter_rechecked")
SKIPPED_WORD = counters.index("skipped")
BLOCKS_WORD = counters.index("blocks")
NOT_READY_WORD = counters.index("checksum_not_ready")
GRO_WORD = counters.index("gro")
LATENCY_WORD, LATENCIES = counters.FIRST_LATENCY, counters.LATENCY_BUCKETS


def map_ring(fd: int, block_size: int, block_count: int) -> mmap.mmap:
    """Map the ring behind an inherited capture socket, for reading and for giving blocks back."""
    return mmap.mmap(fd, block_size * block_count, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)


def forget_progress(of: Counters) -> None:
    """The next RingWalk on these counters starts on another ring than the one before."""
    of.words[counters.BLOCK_SEQUENCE] = 0
    of.words[counters.BLOCK_INDEX] = 0


class RingPoll:
    """Waits until a block is ready; takes socket errors off the shared socket, so that poll does not spin.

    What an error meant (link down, device gone) is seen by the supervisor: `RingSocket.check()`.
    """

    def __init__(self, fd: int, other: int = -1) -> None:
        """`fd` stays with its owner; this keeps a duplicate until close(). `other`: wakes wait(), too."""
        self.socket = socket.fromfd(fd, socket.AF_PACKET, socket.SOCK_RAW)
        self.errors = 0
        self.called = False
        """Set by wait() when `other` was ready."""
        self._other = other
        self._poll = select.poll()
        self._poll.register(self.socket, select.POLLIN)
        if other >= 0:
            self._poll.register(other, select.POLLIN)

    def wait(self, timeout_ms: int) -> bool:
        """True when a block may be ready; False after `timeout_ms` or when only an error was pending."""
        ready = False
        self.called = False
        for descriptor, events in self._poll.poll(timeout_ms):
            if descriptor == self._other:
                self.called = True
                continue
            if events & select.POLLERR:
                self.errors += 1
                self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            ready = bool(events & select.POLLIN)
        return ready

    def close(self) -> None:
        """Close the duplicate."""
        self.socket.close()


class RingWalk:
    """Walks the ring for one worker: `run()` as long as it returns blocks, then wait.

    `received` is counted by the sink as the first act of `packet()`. Words BLOCK_* of the counters say
    which block is in work and what `received` was when it began; they are written before its first packet.
    """

    def __init__(
        self,
        ring_map: mmap.mmap | memoryview,
        block_size: int,
        block_count: int,
        of: Counters,
        sink: PacketSink,
        max_waiting: int = 0,
        clock_offset: int = 0,
    ) -> None:
        """Find the oldest unread block. `max_waiting`: most blocks that may wait (0: all of the ring).

        When more wait, the oldest is given back unread: its packets are `received` and `skipped`.
        `clock_offset`: CLOCK_REALTIME - CLOCK_MONOTONIC in ns when the task began (0: as they are now).
        """
        octets = memoryview(ring_map)
        if len(octets) < block_size * block_count or block_size < 4096 or block_count < 1:
            raise ValueError(f"a ring of {len(octets)} octets has no {block_count} blocks of {block_size}")
        self.octets = octets
        self.ring = octets.cast("I")
        self.counters = of.words
        self.sink = sink
        self.block_size = block_size
        self.block_count = block_count
        self.max_waiting = max_waiting if 0 < max_waiting < block_count else 0
        self.ring_errors = 0
        """Blocks in which a length did not fit; what was left of them is `skipped`."""
        self.filter: PacketFilter | None = None
        self.recheck_until = 0
        self.offset = clock_offset or time.time_ns() - time.monotonic_ns()
        self.shift = 0
        self.now = 0
        self.known = 0
        self.known_at = 0
        self.index = 0
        sink.attach(octets)
        self.index = self.find_start()
        self.moment(time.monotonic_ns())

    def moment(self, monotonic: int) -> int:
        """Keep `now`, the task's clock, through steps of the wall clock, and tell the sink."""
        real = time.time_ns()
        ahead = real - monotonic - self.offset
        self.offset += ahead
        if ahead > STEP or ahead < -STEP:
            self.shift += ahead
        self.now = real - self.shift
        return self.sink.moment(self.now, self.shift)

    # ---- a new filter ----

    def recheck(self, program: Program) -> None:
        """Hold every packet against a new filter, until kernel_filters(): those it leaves out are `filtered`.

        The kernel judges a packet as it puts it into the ring, so the ring holds what the old filter let in.
        """
        self.filter = PacketFilter(program)
        self.filter.attach(self.octets)
        self.recheck_until = ALWAYS

    def kernel_filters(self) -> None:
        """The socket has the new filter from now on: only blocks that were opened before are rechecked."""
        self.recheck_until = max(self.sequence(block) for block in range(self.block_count))

    def passes(self, start: int, end: int, wire: int, word: int, vlan: int, network: int) -> bool:
        """Whether the new filter takes the packet with the header at `word`."""
        one = self.filter
        if one is None:
            return True
        hardware = self.ring[word + 14]
        protocol = self.ring[word + 12] >> 16
        one.wire_length = wire
        one.protocol = ((protocol & 0xFF) << 8) | (protocol >> 8)
        one.packet_type = (hardware >> 16) & 0xFF
        one.interface = self.ring[word + 13]
        one.hardware = hardware & MASK16
        one.vlan = vlan
        one.network = network
        self.counters[RECHECKED_WORD] += 1
        return one.match(start, end) != 0

    # ---- the walk ----

    def status(self, block: int) -> int:
        """block_status; what the kernel wrote before it is visible behind this call."""
        return atomics.load32(self.ring, (block * self.block_size + 8) >> 2)

    def sequence(self, block: int) -> int:
        """seq_num of a block: from 1, +1 for each block that the kernel opens."""
        word = (block * self.block_size + 24) >> 2
        low = self.ring[word]
        high = self.ring[word + 1]
        return (high << 32) | low

    def find_start(self) -> int:
        """Index of the oldest unread block, or of the one that the kernel closes next."""
        found = -1
        oldest = 0
        for block in range(self.block_count):
            if self.status(block) & STATUS_USER:
                number = self.sequence(block)
                if found < 0 or number < oldest:
                    found = block
                    oldest = number
        if found >= 0:
            # The kernel may have closed blocks that the scan had already passed: step back to the first.
            while True:
                before = found - 1
                if before < 0:
                    before = self.block_count - 1
                if not self.status(before) & STATUS_USER or self.sequence(before) != oldest - 1:
                    return found
                found = before
                oldest -= 1
        block = self.counters[INDEX_WORD]
        if block >= self.block_count or block < 0:
            block = 0
        if self.counters[SEQUENCE_WORD] and self.sequence(block) == self.counters[SEQUENCE_WORD]:
            block += 1
        return block if block < self.block_count else 0

    def waiting(self) -> int:
        """How many blocks are ready and unread."""
        count = 0
        for block in range(self.block_count):
            if self.status(block) & STATUS_USER:
                count += 1
        return count

    def run(self, max_blocks: int) -> int:
        """Walk up to `max_blocks` ready blocks, oldest first, and give them back; returns how many.

        Booked as a block's latency: the time from when it was found ready, also by an earlier call, to its
        return, when all of its packets are in the rings behind.
        """
        walked = 0
        while walked < max_blocks:
            if self.known == 0:
                self.known = self.ready()
                if self.known == 0:
                    break
                self.known_at = time.monotonic_ns()
            self.moment(time.monotonic_ns())
            self.walk(self.index)
            self.latency(time.monotonic_ns() - self.known_at)
            self.known -= 1
            self.index += 1
            if self.index == self.block_count:
                self.index = 0
            walked += 1
        return walked

    def ready(self) -> int:
        """How many blocks from the current one on can be walked now."""
        count = 0
        block = self.index
        while count < self.block_count and self.status(block) & STATUS_USER:
            count += 1
            block += 1
            if block == self.block_count:
                block = 0
        return count

    def latency(self, nanoseconds: int) -> int:
        """Count one block in the bucket of engine.shm.counters.latency_bounds()."""
        power = 0
        rest = nanoseconds
        while rest > 1:
            rest >>= 1
            power += 1
        bucket = 4 * power
        if power >= 2:
            bucket += (nanoseconds >> (power - 2)) & 3
        if bucket >= LATENCIES:
            bucket = LATENCIES - 1
        self.counters[LATENCY_WORD + bucket] += 1
        return 0

    def lagging(self, block: int, number: int) -> bool:
        """Whether more than `max_waiting` blocks are ready from this one on."""
        other = block + self.max_waiting
        if other >= self.block_count:
            other -= self.block_count
        return self.status(other) & STATUS_USER != 0 and self.sequence(other) == number + self.max_waiting

    def walk(self, block: int) -> int:
        """Hand every packet of one block to the sink, then give the block back to the kernel."""
        base = block * self.block_size
        limit = base + self.block_size
        number = self.sequence(block)
        packets = self.ring[(base + 12) >> 2]
        done = 0
        if number > self.recheck_until:
            self.recheck_until = 0
        if self.counters[SEQUENCE_WORD] == number:
            done = self.counters[RECEIVED_WORD] - self.counters[BASE_WORD]
        else:
            self.counters[BASE_WORD] = self.counters[RECEIVED_WORD]
            self.counters[INDEX_WORD] = block
            atomics.store(self.counters, SEQUENCE_WORD, number)
            atomics.fence()
        taken = 0
        if self.max_waiting and self.lagging(block, number):
            taken = done
        else:
            place = base + self.ring[(base + 16) >> 2]
            while taken < packets:
                if place & 3 or place < base + BLOCK_HEADER or place + PACKET_HEADER > limit:
                    break
                step = self.ring[place >> 2]
                self.fetch(place + step, limit)
                if taken >= done and not self.packet(place, limit):
                    break
                taken += 1
                if step == 0:
                    break
                place += step
            if taken < packets:
                self.ring_errors += 1
        if taken < done:
            taken = done
        if taken < packets:
            self.counters[RECEIVED_WORD] += packets - taken
            self.counters[SKIPPED_WORD] += packets - taken
        self.counters[BLOCKS_WORD] += 1
        atomics.store32(self.ring, (base + 8) >> 2, 0)
        return 0

    def fetch(self, place: int, limit: int) -> int:
        """Bring the headers of the packet at `place` near while the one before it is worked on.

        The kernel wrote them on another CPU. Three cache lines reach from the ring's own header into the
        payload of RTP over IPv4 and UDP.
        """
        if place + HEADERS <= limit:
            atomics.prefetch32(self.ring, place >> 2)
            atomics.prefetch32(self.ring, (place + CACHE_LINE) >> 2)
            atomics.prefetch32(self.ring, (place + 2 * CACHE_LINE) >> 2)
        return 0

    def packet(self, place: int, limit: int) -> int:
        """Hand one packet to the sink; 0 if its offsets leave the block."""
        word = place >> 2
        captured = self.ring[word + 3]
        wire = self.ring[word + 4]
        status = self.ring[word + 5]
        offsets = self.ring[word + 6]
        start = place + (offsets & MASK16)
        network = place + (offsets >> 16)
        end = start + captured
        if start < place + PACKET_HEADER or end > limit:
            return 0
        timestamp = self.ring[word + 1]
        timestamp = timestamp * NANOSECONDS + self.ring[word + 2]
        if status & CSUM_NOT_READY:
            # The sender's interface would fill it in: no fault of the packet.
            self.counters[NOT_READY_WORD] += 1
        if status & GSO_TCP and wire <= LARGEST_FRAME:
            self.counters[GRO_WORD] += 1
        vlan = 0
        if status & VLAN_VALID:
            tpid = TPID_8021Q
            if status & VLAN_TPID_VALID:
                tpid = self.ring[word + 9] & MASK16
            vlan = (tpid << 16) | (self.ring[word + 8] & MASK16)
        if self.recheck_until and not self.passes(start, end, wire, word, vlan, network):
            atomics.store(self.counters, RECEIVED_WORD, self.counters[RECEIVED_WORD] + 1)
            atomics.store(self.counters, FILTERED_WORD, self.counters[FILTERED_WORD] + 1)
            return 1
        hardware = self.ring[word + 14]
        link = LINK_ETHERNET
        if hardware & MASK16 != HARDWARE_ETHERNET and hardware & MASK16 != HARDWARE_LOOPBACK:
            # Tunnels, PPP and the like: what stands before the network header differs and is left out.
            protocol = self.ring[word + 12] >> 16
            link = LINK_UNKNOWN
            if protocol in (WIRE_IPV4, WIRE_IPV6) and start <= network <= end:
                link = LINK_RAW
                wire -= network - start
                start = network
        self.sink.packet(
            start, end, wire, timestamp, self.ring[word + 13], link, vlan, (hardware >> 16) & 0xFF
        )
        return 1

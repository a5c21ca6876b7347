"""IPv4 and IPv6 reassembly in user space, bounded in datagrams, fragments, octets and time.

The kernel's own reassembly (PACKET_FANOUT_FLAG_DEFRAG) is not used: its memory is the host's, so a
flood of first fragments on a monitored port would stop the host's own traffic.

Overlaps: the copy that came first wins, octet by octet; a later fragment only fills what is
still missing. A last fragment that contradicts an earlier one is left out.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from typing import TYPE_CHECKING

from engine.shm.counters import index

if TYPE_CHECKING:
    from engine.decode.classifier import Decoder

LARGEST_PACKET = 65_535
DATAGRAM_COST = 1024
FRAGMENT_COST = 160
"""Octets of memory that a datagram and a fragment take beside what they carry (CPython 3.11, measured)."""

_KEY = struct.Struct("<QQQQBIQ")
_SOURCE = struct.Struct("<QQ")
IPV6_FRAGMENT = 44

REASSEMBLED = index("reassembled")
TIMED_OUT = index("fragments_timed_out")
EVICTED = index("fragments_evicted")
OVER_LIMIT = index("fragments_over_limit")
OVERLAPPING = index("fragments_overlapping")
OVERSIZE = index("fragments_oversize")
DUPLICATE = index("fragments_duplicate")
SNAPPED = index("fragments_snapped")


class Datagram:
    """One incomplete packet: the pieces that are there, in order and without overlap."""

    __slots__ = ("born", "cost", "fragments", "have", "header", "pieces", "source", "total")

    def __init__(self, source: bytes, born: int) -> None:
        self.source = source
        self.born = born
        self.pieces: list[tuple[int, bytes]] = []
        self.fragments = 0
        self.have = 0
        self.total = -1
        """Octets of the whole payload; -1 until the last fragment is there."""
        self.header = b""
        self.cost = DATAGRAM_COST

    def insert(self, start: int, octets: bytes) -> tuple[int, bool]:
        """Fill what is missing at `start`: (octets kept, whether one that was there differs)."""
        end = start + len(octets)
        pieces: list[tuple[int, bytes]] = []
        missing: list[tuple[int, bytes]] = []
        position = start
        differs = False
        for piece_start, piece in self.pieces:
            piece_end = piece_start + len(piece)
            if piece_end > start and piece_start < end:
                if position < piece_start:
                    missing.append((position, octets[position - start : piece_start - start]))
                low, high = max(start, piece_start), min(end, piece_end)
                if octets[low - start : high - start] != piece[low - piece_start : high - piece_start]:
                    differs = True
                position = max(position, piece_end)
            pieces.append((piece_start, piece))
        if position < end:
            missing.append((position, octets[position - start :]))
        self.pieces = sorted(pieces + missing) if missing else pieces
        kept = sum(len(piece) for _, piece in missing)
        self.have += kept
        return kept, differs


class Reassembly:
    """Puts the fragments of one worker together; time is the task's clock in ns.

    Counted under FACTS, per datagram: `reassembled`, `fragments_timed_out`, `fragments_evicted` (the
    oldest goes when the table or its octets are full), `fragments_over_limit` (the oldest of one source
    that holds more than its share, or a datagram of more than `max_fragments`). Per fragment:
    `fragments_duplicate`, `fragments_overlapping`, `fragments_oversize` (beyond 65,535 octets) and
    `fragments_snapped` (cut by the snap length, so of no use).
    """

    def __init__(
        self,
        counters_words: memoryview,
        timeout_ns: int = 5_000_000_000,
        max_datagrams: int = 4096,
        max_bytes: int = 16 << 20,
        per_source_share: float = 1 / 16,
        max_fragments: int = 64,
    ) -> None:
        """`max_bytes` counts what is carried and a fixed cost of each datagram and fragment."""
        self.counters = counters_words
        self.timeout_ns = timeout_ns
        self.max_datagrams = max(1, max_datagrams)
        self.max_bytes = max_bytes
        self.max_per_source = max(1, int(max_datagrams * per_source_share))
        self.max_fragments = max_fragments
        self.datagrams: OrderedDict[bytes, Datagram] = OrderedDict()
        self.sources: dict[bytes, OrderedDict[bytes, None]] = {}
        self.bytes = 0
        self.network = 0
        """Where the IP header begins in what add() returned last."""

    def add(self, decoder: Decoder, now_ns: int) -> bytes | None:
        """Take the fragment that `decoder.decode()` just reported; the whole packet when it is complete.

        The octets are the link header of this last fragment and, from `network` on, an IP packet with the
        header of the first fragment (IPv6 without extension headers before the fragment header):

            decoder.attach(packet)
            verdict = decoder.decode_network(reassembly.network, len(packet))
        """
        self.expire(now_ns)
        offset = decoder.fragment_offset
        octets = decoder.octets(decoder.fragment_start, decoder.fragment_end)
        header = decoder.octets(decoder.network, decoder.fragment_start)
        if decoder.clipped or not octets or len(header) < 20:
            self.counters[SNAPPED] += 1
            return None
        if offset + len(octets) > LARGEST_PACKET - (len(header) if header[0] >> 4 == 4 else 0):
            self.counters[OVERSIZE] += 1
            return None
        key, source = _key(decoder, header)
        datagram = self.datagrams.get(key)
        if datagram is None:
            datagram = self._open(key, source, now_ns)
        whole = self._store(datagram, offset, octets, decoder.fragment_more, header)
        if datagram.fragments > self.max_fragments:
            self._drop(key, OVER_LIMIT)
            return None
        if not whole:
            while self.bytes > self.max_bytes:
                self._drop(next(iter(self.datagrams)), EVICTED)
            return None
        packet = _rebuild(datagram)
        self._drop(key, OVERSIZE if packet is None else REASSEMBLED)
        if packet is None:
            return None
        link = decoder.octets(decoder.frame, decoder.network)
        self.network = len(link)
        return link + packet

    def expire(self, now_ns: int) -> int:
        """Give up what is older than the timeout, also after a jump of the clock; returns how many."""
        given_up = 0
        while self.datagrams:
            key = next(iter(self.datagrams))
            if abs(now_ns - self.datagrams[key].born) <= self.timeout_ns:
                break
            self._drop(key, TIMED_OUT)
            given_up += 1
        return given_up

    def _open(self, key: bytes, source: bytes, now_ns: int) -> Datagram:
        """A new datagram, at the cost of the oldest of its source or of all where the table is full."""
        own = self.sources.get(source)
        if own is not None and len(own) >= self.max_per_source:
            self._drop(next(iter(own)), OVER_LIMIT)
        elif len(self.datagrams) >= self.max_datagrams:
            self._drop(next(iter(self.datagrams)), EVICTED)
        datagram = Datagram(source, now_ns)
        self.datagrams[key] = datagram
        self.sources.setdefault(source, OrderedDict())[key] = None
        self.bytes += datagram.cost
        return datagram

    def _drop(self, key: bytes, counter: int) -> None:
        """Take a datagram out of the table and count why."""
        datagram = self.datagrams.pop(key)
        own = self.sources[datagram.source]
        del own[key]
        if not own:
            del self.sources[datagram.source]
        self.bytes -= datagram.cost
        self.counters[counter] += 1

    def _store(self, datagram: Datagram, offset: int, octets: bytes, more: bool, header: bytes) -> bool:
        """Put one fragment into its datagram; whether that is complete now."""
        counters = self.counters
        end = offset + len(octets)
        reach = max((start + len(piece) for start, piece in datagram.pieces), default=0)
        beyond = datagram.total >= 0 and (end > datagram.total or (not more and end != datagram.total))
        if beyond or (not more and reach > end):
            counters[OVERLAPPING] += 1
            return False
        datagram.fragments += 1
        kept, differs = datagram.insert(offset, octets)
        cost = kept + FRAGMENT_COST
        datagram.cost += cost
        self.bytes += cost
        if differs or 0 < kept < len(octets):
            counters[OVERLAPPING] += 1
        elif kept == 0:
            counters[DUPLICATE] += 1
        if not more:
            datagram.total = end
        if offset == 0 and not datagram.header:
            datagram.header = header
        return datagram.have == datagram.total and bool(datagram.header)


def _key(decoder: Decoder, header: bytes) -> tuple[bytes, bytes]:
    """The datagram's key and its source's, as octets: Python's hash of those is keyed, of integers not.

    IPv6 fragments of one packet may name different next headers (RFC 8200 section 4.5), so the protocol is
    no part of their key.
    """
    protocol = decoder.protocol if header[0] >> 4 == 4 else IPV6_FRAGMENT
    key = _KEY.pack(
        decoder.src0,
        decoder.src1,
        decoder.dst0,
        decoder.dst1,
        protocol,
        decoder.fragment_id,
        decoder.domain,
    )
    return key, _SOURCE.pack(decoder.src0, decoder.src1)


def _rebuild(datagram: Datagram) -> bytes | None:
    """The whole packet; None if its header makes it longer than an IP packet can be."""
    payload = b"".join(piece for _, piece in datagram.pieces)
    header = bytearray(datagram.header)
    if header[0] >> 4 == 4:
        if len(header) + len(payload) > LARGEST_PACKET:
            return None
        header[2:4] = (len(header) + len(payload)).to_bytes(2, "big")
        header[6:8] = header[10:12] = b"\0\0"
        header[10:12] = checksum(header).to_bytes(2, "big")
        return bytes(header) + payload
    # The fragment header is the last 8 octets; its next header becomes the packet's.
    following = header[-8]
    del header[40:]
    header[4:6] = len(payload).to_bytes(2, "big")
    header[6] = following
    return bytes(header) + payload


def checksum(header: bytes | bytearray) -> int:
    """The Internet checksum of an even number of octets (RFC 1071)."""
    total: int = sum(struct.unpack(f">{len(header) // 2}H", header))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF

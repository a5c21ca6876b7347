"""One packet seen on several interfaces: its copies are known by what does not change on the way."""

from __future__ import annotations

import os
from array import array
from typing import TYPE_CHECKING

from engine.decode import classifier

if TYPE_CHECKING:
    from engine.decode.classifier import Decoder

V_MALFORMED, V_NON_IP, V_FRAGMENT, V_UNKNOWN_LINK = (
    classifier.MALFORMED,
    classifier.NON_IP,
    classifier.FRAGMENT,
    classifier.UNKNOWN_LINK,
)
SPREAD = 0x9E3779B97F4A7C15
MASK64 = 0xFFFFFFFFFFFFFFFF
COPY_TIME = 1_000_000
"""Within 1 ms on another interface a packet is the same one."""
PLACES = 4096


class CopyTable:
    """The newest packets, one in each place; a copy of one that another pushed out is not known."""

    def __init__(self) -> None:
        self.places = memoryview(array("Q", bytes(24 * PLACES)))
        self.seed = int.from_bytes(os.urandom(8), "little")

    def seen(self, decoder: Decoder, verdict: int, interface: int, now: int) -> bool:
        """Whether the packet that was just decoded came within COPY_TIME on another interface.

        Compared are addresses, length, IP identification and fragment fields (of IPv6 the lower flow label,
        length and next header) and the first 24 octets behind the IP header; TTL, hop limit and IP checksum
        differ where the host routes.
        """
        at = decoder.network
        end = decoder.frame_end
        if verdict in (V_MALFORMED, V_NON_IP, V_UNKNOWN_LINK) or end - at < 24:
            return False
        mixed = decoder.src0 ^ self.seed
        mixed = ((mixed ^ (mixed >> 29)) * SPREAD + decoder.src1) & MASK64
        mixed = ((mixed ^ (mixed >> 29)) * SPREAD + decoder.dst0) & MASK64
        mixed = ((mixed ^ (mixed >> 29)) * SPREAD + decoder.dst1) & MASK64
        # Of IPv6 flow label, length and next header: its hop limit is the last of the six.
        count = 5 if decoder.buf[at] >> 4 == 6 else 6
        mixed = ((mixed ^ (mixed >> 29)) * SPREAD + self.octets(decoder, at + 2, count)) & MASK64
        at = decoder.fragment_start if verdict == V_FRAGMENT else decoder.transport
        for step in range(3):
            if end - at < 8:
                break
            mixed = ((mixed ^ (mixed >> 29)) * SPREAD + self.octets(decoder, at, 8) + step) & MASK64
            at += 8
        mixed = ((mixed ^ (mixed >> 32)) * SPREAD) & MASK64
        at = 3 * (mixed >> 52)
        origin = interface
        origin += 1
        if (
            self.places[at] == mixed
            and self.places[at + 2] != origin
            and self.places[at + 1] <= now <= self.places[at + 1] + COPY_TIME
        ):
            return True
        self.places[at] = mixed
        self.places[at + 1] = now
        self.places[at + 2] = origin
        return False

    def octets(self, decoder: Decoder, at: int, count: int) -> int:
        """Up to 8 octets of the packet as a number."""
        value = 0
        for index in range(count):
            value = (value << 8) | decoder.buf[at + index]
        return value

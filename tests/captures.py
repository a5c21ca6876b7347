"""Writers of capture files in every form that the reader knows; the calls in them come from bench.captures.

A packet is (time in ns, octets) or (time in ns, octets, octets on the wire).
"""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterable
from pathlib import Path

from bench.captures import mix_capture, sip_capture

__all__ = [
    "block",
    "enhanced",
    "interface",
    "mix_capture",
    "obsolete",
    "pcap",
    "pcapng",
    "section",
    "simple",
    "sip_capture",
    "write",
]

Packet = tuple[int, bytes] | tuple[int, bytes, int]
LITTLE, BIG = "<", ">"


def _wire(packet: Packet) -> int:
    return packet[2] if len(packet) == 3 else len(packet[1])


def pcap(
    packets: Iterable[Packet],
    order: str = LITTLE,
    nanoseconds: bool = False,
    link_type: int = 1,
    modified: bool = False,
    version: tuple[int, int] = (2, 4),
) -> bytes:
    """A pcap file; `modified` is the format of 1999 with 8 more octets in each record header."""
    magic = 0xA1B2CD34 if modified else 0xA1B23C4D if nanoseconds else 0xA1B2C3D4
    parts = [struct.pack(order + "IHHiIII", magic, *version, 0, 0, 262_144, link_type)]
    for packet in packets:
        seconds, fraction = divmod(packet[0], 1_000_000_000)
        if not nanoseconds:
            fraction //= 1000
        parts.append(struct.pack(order + "IIII", seconds, fraction, len(packet[1]), _wire(packet)))
        if modified:
            parts.append(struct.pack(order + "IHBB", 3, 0x0800, 0, 0))
        parts.append(packet[1])
    return b"".join(parts)


def block(kind: int, body: bytes, order: str = LITTLE) -> bytes:
    """A pcapng block around `body`, which is padded to 4 octets."""
    body += bytes(-len(body) % 4)
    length = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + length + body + length


def option(code: int, value: bytes, order: str = LITTLE) -> bytes:
    """One option of a pcapng block."""
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def section(order: str = LITTLE, version: tuple[int, int] = (1, 0)) -> bytes:
    """A Section Header Block of unknown length."""
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, *version, -1), order)


def interface(
    order: str = LITTLE,
    link_type: int = 1,
    resolution: int | None = None,
    offset: int | None = None,
    snap_length: int = 0,
    name: str = "",
) -> bytes:
    """An Interface Description Block; `resolution` is the octet of if_tsresol, `offset` if_tsoffset in s."""
    body = struct.pack(order + "HHI", link_type, 0, snap_length)
    if name:
        body += option(2, name.encode(), order)
    if resolution is not None:
        body += option(9, bytes([resolution]), order)
    if offset is not None:
        body += option(14, struct.pack(order + "q", offset), order)
    return block(1, body + option(0, b"", order), order)


def enhanced(
    units: int,
    octets: bytes,
    number: int = 0,
    order: str = LITTLE,
    wire: int | None = None,
    options: bytes = b"",
) -> bytes:
    """An Enhanced Packet Block; `units` since 1970 in the interface's resolution."""
    wire = len(octets) if wire is None else wire
    head = struct.pack(order + "IIIII", number, units >> 32, units & 0xFFFFFFFF, len(octets), wire)
    return block(6, head + octets + bytes(-len(octets) % 4) + options, order)


def obsolete(units: int, octets: bytes, number: int = 0, order: str = LITTLE) -> bytes:
    """The obsolete Packet Block."""
    head = struct.pack(order + "HHIIII", number, 0, units >> 32, units & 0xFFFFFFFF, len(octets), len(octets))
    return block(2, head + octets, order)


def simple(octets: bytes, order: str = LITTLE, wire: int | None = None) -> bytes:
    """A Simple Packet Block."""
    return block(3, struct.pack(order + "I", len(octets) if wire is None else wire) + octets, order)


def pcapng(
    packets: Iterable[Packet], order: str = LITTLE, nanoseconds: bool = False, link_type: int = 1
) -> bytes:
    """A pcapng file of one section and one interface."""
    parts = [section(order), interface(order, link_type, 9 if nanoseconds else None)]
    for packet in packets:
        units = packet[0] if nanoseconds else packet[0] // 1000
        parts.append(enhanced(units, packet[1], order=order, wire=_wire(packet)))
    return b"".join(parts)


def write(path: Path, octets: bytes, compressed: bool = False) -> Path:
    """Put the octets into a file, gzipped on request; returns the path."""
    path.write_bytes(gzip.compress(octets, 1, mtime=0) if compressed else octets)
    return path

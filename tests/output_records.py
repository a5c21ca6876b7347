"""Packets as reporters get them, and records as the sender reads them from a ring."""

from __future__ import annotations

from ipaddress import ip_address

from engine.packet import FiveTuple, NetworkMeta, OutputPacket
from engine.shm import records
from engine.shm.records import METHODS, PACKET, SIP_FIXED, SLOTS

SIDES = (ip_address("10.0.0.1"), ip_address("10.0.0.2"))
INVITE = b"INVITE sip:b@x SIP/2.0\r\nCall-ID: c1\r\nFrom:  <sip:a@x>;tag=1\r\n\r\n"


def packet(number: int = 0, text: str = "") -> OutputPacket:
    labels = {"sip.call-id": str(number), "text": text}
    return OutputPacket(number, "sip", FiveTuple(*SIDES, 1, 2, 17), NetworkMeta(*SIDES, 1, 2), "t", labels)


def header(flags: int = 0) -> bytes:
    sides = [b"\0" * 10 + b"\xff\xff" + side.packed for side in SIDES]
    macs = (b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02")
    return PACKET.pack(
        *sides, 5060, 5062, 17, flags, 1, 0, 7, 0, 0, *macs, 2, 100, 100, 0, 64, 1, bytes(16), bytes(16),
        9, records.NO_SLOT, 0,
    )  # fmt: skip


def sip_body(message: bytes = INVITE, **slots: bytes) -> bytes:
    places = []
    for name in SLOTS:
        start = message.find(slots[name]) if name in slots else -1
        places += [start, start + len(slots[name])] if start >= 0 else [-1, -1]
    fixed = SIP_FIXED.pack(0, 0, 2, METHODS.index("INVITE"), 0, 1, len(message))
    return (
        header(records.P_ETHERNET)
        + fixed
        + b"".join(p.to_bytes(4, "little", signed=True) for p in places)
        + message
    )

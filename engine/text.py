"""Times, addresses and protocols as people read them; imports next to nothing."""

from __future__ import annotations

import time
from functools import lru_cache

MAPPED = b"\0" * 10 + b"\xff\xff"
"""In front of an IPv4 address in a 16-octet field (RFC 4291 section 2.5.5.2)."""

RTCP_TYPES = {200: "SR", 201: "RR", 202: "SDES", 203: "BYE", 204: "APP", 205: "RTPFB", 206: "PSFB", 207: "XR"}
PROTOCOL_NAMES = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp"}

LAST_SECOND = 253_402_300_799
"""9999-12-31T23:59:59Z."""


def format_timestamp(timestamp_ns: int) -> str:
    """RFC 3339, UTC, microseconds: `2026-11-21T22:40:01.113000Z`. Years 1970 to 9999, else clamped."""
    seconds, nanoseconds = divmod(max(0, timestamp_ns), 1_000_000_000)
    return f"{_format_second(min(seconds, LAST_SECOND))}.{nanoseconds // 1000:06d}Z"


@lru_cache(maxsize=256)
def _format_second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def address_text(octets: bytes) -> str:
    """The address in a 16-octet field as text (RFC 5952); quicker than an address object."""
    if octets[:12] == MAPPED:
        return f"{octets[12]}.{octets[13]}.{octets[14]}.{octets[15]}"
    import socket  # which takes longer to import than most captures have IPv6 for

    return socket.inet_ntop(socket.AF_INET6, octets)


def share_text(share: float) -> str:
    """A share of 0 to 1 in percent; what is not nothing never looks like it: `50%`, `1.6%`, `0.05%`."""
    return f"{share:.0%}" if share >= 0.1 else f"{100 * share:.2g}%"


def unread_sip_text(packets: int) -> str:
    """What a report warns of where there were TCP packets on SIP ports."""
    return f"{packets:,} TCP {'packet' if packets == 1 else 'packets'} on SIP ports: SIP over TCP is not read"


def rtcp_type(number: int) -> str:
    """The label `rtcp.type` of an RTCP packet type: `SR`, or the number."""
    return RTCP_TYPES.get(number, str(number))

"""Community ID version 1 (corelight/community-id-spec): one name for a flow in every tool."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import struct

PROTO_TCP = 6


def community_id(
    source: str,
    source_port: int,
    destination: str,
    destination_port: int,
    proto: int = PROTO_TCP,
    seed: int = 0,
) -> str:
    """The id of a flow, the same for both of its directions; `1:` and base64 of a SHA-1.

    Addresses in print, IPv4 or IPv6. ValueError where one is none.
    """
    ends = [
        (ipaddress.ip_address(source).packed, source_port),
        (ipaddress.ip_address(destination).packed, destination_port),
    ]
    (first, first_port), (second, second_port) = sorted(ends)
    data = struct.pack("!H", seed) + first + second + struct.pack("!BBHH", proto, 0, first_port, second_port)
    return "1:" + base64.b64encode(hashlib.sha1(data, usedforsecurity=False).digest()).decode("ascii")

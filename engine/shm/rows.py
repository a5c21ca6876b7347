"""Entries of the flow registry and of the stream table as dictionaries, for the cold side."""

from __future__ import annotations

import struct
from typing import Any

from engine.shm.records import FOUND_BY, domain_tunnel
from engine.text import address_text

FIVE_TUPLE = 1
F_RTCP, F_CUT, F_FAX, F_SHARED = 1, 2, 4, 8
"""Flags of a flow: the port was announced for RTCP; the Call-ID is longer than what is kept; UDPTL; the
endpoint was announced by several calls at a time."""
MAX_CODECS = 16
JITTER_KNOWN = 1 << 63
COMFORT_NOISE = {13, 19}
"""Payload types that leave a stream's codec name alone (RFC 3551 table 4; 19 is older)."""
_KEPT = 11
"""Octets of a codec's name that an entry of the flow registry has."""
_WHOLE_NAMES = {
    name[:_KEPT].encode(): name
    for name in ("TELEPHONE-EVENT", "MPEG4-GENERIC", "VND.ONVIF.METADATA", "1D-INTERLEAVED-PARITYFEC")
}
_FLOW = struct.Struct("<Q B3x I HH B3x 16s 16s Q Q Q Q BBBB I 32s 128s 256s")
_STREAM = struct.Struct("<Q I I HHI 16s16s Q 8Q Q Q Q 9d Q Q Q 3Q 2I 2I 2Q II 16s Q 48x 128s")


def flow_row(slot: int, octets: bytes) -> dict[str, Any]:
    """An entry of engine.shm.flows by name; a side has no `dst` and `dport`."""
    (
        _, kind, generation, sport, dport, protocol, src, dst, domain, last, _, _, found_by, flags, media,
        count, ttl, _, call, codecs,
    ) = _FLOW.unpack(octets)  # fmt: skip
    row = {
        "slot": slot,
        "generation": generation,
        "kind": "flow" if kind == FIVE_TUPLE else "side",
        "src": address_text(src),
        "sport": sport,
        "protocol": protocol,
        "domain": domain,
        "call_id": call.rstrip(b"\0").decode("utf-8", "replace"),
        "cut": bool(flags & F_CUT),
        "rtcp": bool(flags & F_RTCP),
        "media": media,
        "found_by": FOUND_BY[found_by] if found_by < len(FOUND_BY) else "",
        "last_ns": last,
        "ttl_ms": ttl,
        "codecs": [_codec(codecs[16 * index :]) for index in range(min(count & 31, MAX_CODECS))],
    }
    if kind == FIVE_TUPLE:
        row["dst"] = address_text(dst)
        row["dport"] = dport
    return row


def _codec(octets: bytes) -> tuple[int, str, int]:
    """Payload type, name, clock rate."""
    return octets[0], codec_name(octets[1:12]), int.from_bytes(octets[12:16], "little")


def codec_name(octets: bytes) -> str:
    """A codec's name in an entry, upper case; one of the registered names that are longer is whole."""
    kept = octets.rstrip(b"\0")
    return _WHOLE_NAMES.get(kept) or kept.decode("ascii", "replace")


def bits(mask: int) -> list[int]:
    """The numbers of the bits that are set, rising."""
    numbers = []
    while mask:
        lowest = mask & -mask
        numbers.append(lowest.bit_length() - 1)
        mask ^= lowest
    return numbers


def stream_row(slot: int, octets: bytes) -> dict[str, Any]:
    """An entry of engine.shm.streams: engine.control.methods.STREAM_ROW and more; unknown is None."""
    (
        lock, facts, generation, sport, dport, ssrc, src, dst, domain, packets, payload, first, latest, start,
        stop, highest, _, cycles, _, _, _, jitter, mean_jitter, max_jitter, _, _, max_delta, _, mean_delta,
        _, _, _,
        out_of_order, duplicates, resets, noise, markers, backward, events, seen0, seen1, flow_slot,
        flow_generation, name, changes, call,
    ) = _STREAM.unpack(octets)  # fmt: skip
    expected = (stop & 0xFFFF) + ((cycles & ~JITTER_KNOWN) >> 1) * 65536 - start + 1
    types = bits(seen0 | seen1 << 64)
    found_by = facts >> 8 & 0xFF
    known_jitter = cycles & JITTER_KNOWN
    codec = codec_name(name)
    if not codec and not COMFORT_NOISE.isdisjoint(types):
        codec = "CN"
    return {
        "id": f"{slot}.{generation}",
        "call_id": call.rstrip(b"\0").decode("utf-8", "replace"),
        "src": address_text(src),
        "sport": sport,
        "dst": address_text(dst),
        "dport": dport,
        "ssrc": ssrc,
        "codec": codec or None,
        "payload_types": types,
        "packets": packets,
        "bytes": payload,
        "expected": expected,
        "lost": expected - packets,
        "lost_pct": 100 * (expected - packets) / expected if expected > 0 else None,
        "out_of_order": out_of_order,
        "duplicates": duplicates,
        "resets": resets,
        "max_delta_ms": max_delta if packets > 1 else None,
        "mean_delta_ms": mean_delta if packets > 1 else None,
        "mean_jitter_ms": mean_jitter if known_jitter else None,
        "max_jitter_ms": max_jitter if known_jitter else None,
        "jitter_ms": jitter if known_jitter else None,
        "start_ns": first,
        "last_ns": latest,
        "duration_s": (latest - first) / 1e9,
        "found_by": FOUND_BY[found_by] if found_by < len(FOUND_BY) else "",
        "active": None,
        "markers": markers,
        "comfort_noise": noise,
        "telephone_events": events,
        "backward_timestamps": backward,
        "type_changes": changes,
        "highest_sequence": highest & 0xFFFF,
        "domain": domain,
        "tunnel": domain_tunnel(domain),
        "flow_slot": flow_slot,
        "flow_generation": flow_generation,
        "changes": lock >> 16,
    }

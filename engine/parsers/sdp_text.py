"""What a scanned SDP says, for people and for JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.parsers.address import address_text
from engine.parsers.sdp_grammar import (
    DIRECTIONS,
    M_HELD,
    M_RECV,
    M_REJECTED,
    M_RTCP_MUX,
    M_SECURE,
    M_SEND,
    MAX_CODECS,
    NO_TYPE,
    name_text,
)

if TYPE_CHECKING:
    from engine.parsers.sdp import SdpParser

MAX_NAMES = 6
"""Codecs that a summary names."""


def media_dicts(parser: SdpParser) -> list[dict[str, Any]]:
    """The media descriptions that `parser` holds as dictionaries of plain values; unknown is None."""
    return [_media_dict(parser, media) for media in range(parser.count)]


def _media_dict(parser: SdpParser, media: int) -> dict[str, Any]:
    flags = parser.flags[media]
    first = media * MAX_CODECS
    return {
        "type": _text(parser, parser.type_start[media], parser.type_end[media]),
        "port": parser.port[media],
        "port_count": parser.port_count[media],
        "rtcp_port": parser.rtcp_port[media] or None,
        "address": address_text(parser.address0[media], parser.address1[media]),
        "rtcp_address": address_text(parser.rtcp_address0[media], parser.rtcp_address1[media]),
        "transport": _text(parser, parser.transport_start[media], parser.transport_end[media]),
        "direction": DIRECTIONS[flags & (M_SEND | M_RECV)],
        "rejected": bool(flags & M_REJECTED),
        "held": bool(flags & M_HELD),
        "secure": bool(flags & M_SECURE),
        "rtcp_mux": bool(flags & M_RTCP_MUX),
        "ptime": parser.ptime[media] or None,
        "codecs": [_codec_dict(parser, codec) for codec in range(first, first + parser.codecs[media])],
    }


def _codec_dict(parser: SdpParser, codec: int) -> dict[str, Any]:
    payload_type = parser.codec_type[codec]
    return {
        "type": None if payload_type == NO_TYPE else payload_type,
        "name": name_text(parser.codec_name0[codec], parser.codec_name1[codec]),
        "clock": parser.codec_clock[codec] or None,
    }


def _text(parser: SdpParser, begin: int, stop: int) -> str:
    return bytes(parser.buf[begin:stop]).decode("utf-8", "replace")


def media_summary(media_list: list[dict[str, Any]], over_limit: int) -> str:
    """One line: `audio 40012 PCMA PCMU sendrecv`, media parted by `, `."""
    parts = []
    for media in media_list:
        names = [codec["name"] or str(codec["type"]) for codec in media["codecs"]]
        more = [f"+{len(names) - MAX_NAMES}"] if len(names) > MAX_NAMES else []
        state = "rejected" if media["rejected"] else media["direction"]
        held = ["held"] if media["address"] is None and media["held"] else []
        parts.append(" ".join([media["type"], str(media["port"]), *names[:MAX_NAMES], *more, state, *held]))
    if over_limit:
        parts.append(f"and {over_limit} more")
    return ", ".join(parts)

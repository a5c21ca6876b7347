"""Numbers and names of the SDP scanner: flags of a media description, static payload types, defects."""

from __future__ import annotations

from array import array

MAX_MEDIA = 16
"""Media descriptions kept of one SDP; the others are counted."""
MAX_CODECS = 48
"""Formats kept of one media description, more than browsers list; the others are counted."""

M_AUDIO, M_VIDEO, M_IMAGE, M_APPLICATION, M_TEXT = 0x1, 0x2, 0x4, 0x8, 0x10
M_RTP, M_SECURE, M_FEEDBACK, M_TCP, M_UDPTL = 0x20, 0x40, 0x80, 0x100, 0x200
"""Of the transport: RTP; SRTP, TLS or DTLS; early RTCP feedback (RFC 4585); over TCP; T.38 over UDPTL."""
M_RTCP_MUX, M_RTCP = 0x400, 0x800
"""RTCP may share the media's port (RFC 5761); a port for RTCP is given (RFC 3605)."""
M_REJECTED, M_HELD = 0x1000, 0x2000
"""Port 0; sendonly, inactive or the unspecified address (RFC 3264 section 8.4)."""
M_SEND, M_RECV = 0x4000, 0x8000
"""The direction: both is sendrecv, none inactive."""
M_MULTICAST, M_NO_ADDRESS, M_UNSPECIFIED = 0x10000, 0x20000, 0x40000
"""Multicast; no address that can be used (none, a host name, nonsense, unspecified): the words are 0; 0.0.0.0
or ::, on hold in the old way."""

DIRECTIONS = {M_SEND | M_RECV: "sendrecv", M_SEND: "sendonly", M_RECV: "recvonly", 0: "inactive"}

NO_TYPE = 255
"""The payload type of a format that is none: T.38, WebRTC data channels."""

STATIC_CODECS: dict[int, tuple[str, int]] = {
    0: ("PCMU", 8000),
    2: ("G721", 8000),
    3: ("GSM", 8000),
    4: ("G723", 8000),
    5: ("DVI4", 8000),
    6: ("DVI4", 16000),
    7: ("LPC", 8000),
    8: ("PCMA", 8000),
    9: ("G722", 8000),
    10: ("L16", 44100),
    11: ("L16", 44100),
    12: ("QCELP", 8000),
    13: ("CN", 8000),
    14: ("MPA", 90000),
    15: ("G728", 8000),
    16: ("DVI4", 11025),
    17: ("DVI4", 22050),
    18: ("G729", 8000),
    19: ("CN", 8000),
    25: ("CELB", 90000),
    26: ("JPEG", 90000),
    28: ("NV", 90000),
    31: ("H261", 90000),
    32: ("MPV", 90000),
    33: ("MP2T", 90000),
    34: ("H263", 90000),
}
"""Name and clock rate, Hz, of the static payload types (RFC 3551 section 6; 2 and 19 are older)."""


def name_words(name: str) -> tuple[int, int]:
    """A codec name as two little-endian words of 8 octets, upper case, zero padded, cut at 16 octets."""
    octets = name.upper().encode("ascii", "replace")[:16].ljust(16, b"\0")
    return int.from_bytes(octets[:8], "little"), int.from_bytes(octets[8:], "little")


_SPELLINGS = {
    name.upper(): name for name in ("telephone-event", "opus", "speex", "iLBC", "red", "rtx", "ulpfec")
}


def name_text(word0: int, word1: int) -> str:
    """The name in two words as its RFC spells it; what is not printable ASCII becomes `?`."""
    octets = (word0.to_bytes(8, "little") + word1.to_bytes(8, "little")).rstrip(b"\0")
    name = "".join(chr(octet) if 32 < octet < 127 else "?" for octet in octets)
    return _SPELLINGS.get(name, name)


def static_codec(payload_type: int) -> tuple[str, int]:
    """Name and clock rate, Hz, of a static payload type; ("", 0) for all others."""
    return STATIC_CODECS.get(payload_type, ("", 0))


def static_clocks() -> memoryview:
    """Clock rate of every payload type, 0 where RFC 3551 assigns none (L16 and video as in its tables)."""
    clocks = array("I", bytes(4 * 128))
    for number, (_, clock) in STATIC_CODECS.items():
        clocks[number] = clock
    return memoryview(clocks).toreadonly()


def static_names() -> memoryview:
    """Names of the static payload types, two words each."""
    names = array("Q", bytes(16 * 128))
    for number, (name, _) in STATIC_CODECS.items():
        names[2 * number], names[2 * number + 1] = name_words(name)
    return memoryview(names).toreadonly()


ERRORS: tuple[str, ...] = (
    "",
    "no line v=0 in front",
    "a line that is no type=value",
    "a media description without port and transport",
    "a port that is no number from 0 to 65535",
    "an RTP payload type that is no number from 0 to 127",
    "an address that is none",
    "an rtpmap that cannot be read",
    "more media descriptions or formats than are kept",
)
"""A sentence for every error number; 0 is an SDP without a defect."""
E_VERSION, E_LINE, E_MEDIA, E_PORT, E_FORMAT, E_ADDRESS, E_RTPMAP, E_LIMIT = range(1, len(ERRORS))

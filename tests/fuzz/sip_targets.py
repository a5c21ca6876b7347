"""Fuzzed on SIP messages and session descriptions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from engine.parsers.sdp_text import media_dicts
from engine.shm.records import SLOTS
from tests.fuzz import frames
from tests.fuzz.target import Target, must
from tests.messages import BODIES, MESSAGES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.builds import Build

SIP_PIECES = (
    b"SIP/2.0 ",
    b" SIP/2.0\r\n",
    b"\r\nCall-ID: ",
    b"\r\ni:",
    b"\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK",
    b"\r\nCSeq: 1 ",
    b"\r\nContent-Length: ",
    b"\r\nl: 5",
    b"\r\nContent-Type: multipart/mixed;boundary=x",
    b"\r\n--x\r\n",
    b"\r\n--x--",
    b"\r\nContent-Type: application/sdp",
    b"\r\n\r\nv=0\r\n",
    b"\r\n \t",
    b"\r\nContact: <sip:",
    b"\r\nWarning:",
    b"\r\nDate: ",
    b'\r\nTo: "\\" <sip:a@b>;tag=',
    b"\r\nExpires: ",
    b"\r\nX-Call-ID: ",
    b'boundary=""',
    b";expires=",
    b"sip:a@b?x=y",
)
SDP_PIECES = (
    b"\r\nm=audio 4000 RTP/AVP 0 8 101\r\n",
    b"m=",
    b"c=IN IP4 ",
    b"c=IN IP6 ::ffff:1.2.3.4",
    b"a=rtpmap:96 ",
    b"a=rtcp:",
    b"a=rtcp-mux\r\n",
    b"a=sendonly\r\n",
    b"a=ptime:",
    b"/65535",
    b"127.0.0.1",
    b"0.0.0.0",
    b"224.2.1.1/127/3",
    b"::1",
    b"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:",
    b"a=fmtp:101 0-16",
    b"a=group:BUNDLE 0 1",
    b"telephone-event/8000",
)


class Sip(Target):
    """One message between other octets."""

    name = "sip"
    about = "SIP scanner: first line, headers, multipart, where the SDP is"
    longest = 8192
    patience_ms = 5.0
    pieces = SIP_PIECES

    def __init__(self, build: Build) -> None:
        super().__init__(build)
        self.parser = build.module("engine.parsers.sip").SipParser()

    @classmethod
    def corpus(cls) -> Iterable[bytes]:
        torture = [path.read_bytes() for path in sorted((frames.CAPTURES / "torture-rfc4475").glob("*.dat"))]
        seen = [one.octets[42:] for one in frames.captured() if b"SIP/2.0" in one.octets[:600]]
        return [*MESSAGES, *torture, *seen, b"\r\n\r\n", b"jaK", bytes(4)]

    def run(self, octets: bytes) -> Any:
        parser = self.parser
        before, behind = b"INVITE ", b"\r\n\r\nv=0\r\n"
        parser.attach(before + octets + behind)
        start, end = len(before), len(before) + len(octets)
        kept, looks = bool(parser.is_keepalive(start, end)), bool(parser.looks_like(start, end))
        kind = parser.parse(start, end)
        slots = tuple(parser.slots)
        for begin, stop in zip(slots[::2], slots[1::2], strict=True):
            must((begin, stop) == (-1, -1) or 0 <= begin <= stop <= len(octets), f"slot {begin}..{stop}")
        must(looks == (kind != 0), "looks_like() and parse() differ")
        if kind:
            must(start <= parser.end <= end, "the message ends outside")
            within = -1 <= parser.sdp_start <= parser.sdp_end <= parser.end - parser.start
            must(within, f"the SDP is {parser.sdp_start}..{parser.sdp_end}")
        return (
            kept, kind, parser.status, parser.method, parser.error, parser.headers, parser.flags, parser.cseq,
            parser.start, parser.end, parser.sdp_start, parser.sdp_end, slots, parser.method_name,
            parser.error_text, tuple(parser.slot(name) for name in SLOTS),
        )  # fmt: skip

    def features(self, view: Any) -> Any:
        filled = sum(begin >= 0 for begin in view[12][::2])
        return view[:2], view[3], view[4], view[6], view[10] >= 0, filled


class Sdp(Target):
    """One description between others."""

    name = "sdp"
    about = "SDP scanner: media, addresses, codecs, RTCP, direction"
    patience_ms = 5.0
    pieces = SDP_PIECES

    def __init__(self, build: Build) -> None:
        super().__init__(build)
        self.parser = build.module("engine.parsers.sdp").SdpParser()
        self.summarise = build.module("engine.parsers.sdp").summarise

    @classmethod
    def corpus(cls) -> Iterable[bytes]:
        seen = [one.octets.partition(b"\r\n\r\n")[2] for one in frames.captured() if b"\nm=" in one.octets]
        return [*BODIES, *seen]

    def run(self, octets: bytes) -> Any:
        parser = self.parser
        before, behind = b"v=0\r\nm=audio 1 RTP/AVP 0\r\n", b"\r\nm=video 2 RTP/AVP 31\r\n"
        parser.attach(before + octets + behind)
        count = parser.parse(len(before), len(before) + len(octets))
        must(0 <= count == parser.count <= 16, f"{count} media")
        must(all(0 <= codecs <= 48 for codecs in list(parser.codecs)), "too many codecs")
        return (
            count,
            parser.over_limit,
            parser.codecs_over_limit,
            parser.error,
            parser.session_version,
            parser.summary(),
            json.dumps(media_dicts(parser), default=str),
            list(parser.flags[:count]),
            list(parser.address0[:count]),
            list(parser.address1[:count]),
            json.dumps(self.summarise(octets), default=str),
        )

    def features(self, view: Any) -> Any:
        return view[0], min(view[1], 3), min(view[2], 3), view[3], tuple(view[7])


TARGETS: tuple[type[Target], ...] = (Sip, Sdp)

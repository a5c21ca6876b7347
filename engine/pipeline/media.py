"""The media part of the packet road: RTP of known flows, media from SDP, media found without it.

Without SDP a flow may be RTP that has unprivileged ports of which one is even, RTP's version, a payload type
that RFC 3551 assigns or leaves dynamic, and an SSRC other than 0; engine.pipeline.candidates finds out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.parsers.rtp import RtpParser
from engine.parsers.sdp_grammar import (
    M_NO_ADDRESS,
    M_REJECTED,
    M_RTCP_MUX,
    M_RTP,
    M_TCP,
    M_UDPTL,
    MAX_CODECS,
    static_clocks,
    static_names,
)
from engine.pipeline.candidates import Candidates
from engine.pipeline.rtcp import RtcpPath
from engine.shm import flow_lookup, records
from engine.shm import flows as flow_layout
from engine.shm import streams as stream_layout
from engine.shm.counters import index as counter
from engine.shm.rows import F_FAX

if TYPE_CHECKING:
    from engine.decode.classifier import Decoder
    from engine.parsers.sdp import SdpParser
    from engine.parsers.sip import SipParser
    from engine.shm.flows import FlowTable
    from engine.shm.streams import StreamTable

C_STREAMS_FULL = counter("streams_full")
C_FLOWS_FULL = counter("flows_full")
C_FLOW_CONFLICTS = counter("flow_conflicts")
C_SDP_MEDIA = counter("sdp_media")
C_SDP_REJECTED = counter("sdp_rejected")
C_SDP_OVER_LIMIT = counter("sdp_over_limit")
C_RTP_PACKETS = counter("rtp_packets")
C_RTP_BY_HEURISTIC = counter("rtp_by_heuristic")
NOT_FOR_MEDIA = M_REJECTED | M_NO_ADDRESS | M_TCP
RTP_MEDIA = M_RTP
UDPTL = M_UDPTL
FAX = F_FAX << 8
RTCP_MUX = M_RTCP_MUX
DISCARD = 9
CODECS_OF_MEDIA = MAX_CODECS
CALL_ID_SLOT = 2 * records.SLOTS.index("call_id")
SNAPPED = records.P_SNAPPED
BYE = records.METHODS.index("BYE")
INVITE = records.METHODS.index("INVITE")
NEGOTIATING = sum(1 << records.METHODS.index(method) for method in ("INVITE", "ACK", "PRACK", "UPDATE"))
ANY_VLAN = flow_lookup.ANY_VLAN
"""Where media is looked for that is on another VLAN than its signalling."""
EVENT_NAME = int.from_bytes(b"\0TELEPHO", "little")
"""First octets of the encoding name telephone-event, behind one octet."""
MASK32 = 0xFFFFFFFF
MASK64 = 0xFFFFFFFFFFFFFFFF
FLOW_STREAM = flow_layout.PLACE_STREAM
FLOW_CALL = flow_layout.PLACE_CALL
STREAM_CODEC = stream_layout.PLACE_CODEC
STREAM_CODEC_OF = stream_layout.PLACE_CODEC_OF
STREAM_PORTS = stream_layout.PLACE_PORTS
EVENT_KIND = stream_layout.EVENT_KIND
CLOCKS = static_clocks()
NAMES = static_names()


class MediaPath:
    """What the pipeline asks about a UDP payload that begins like RTP or RTCP (version 2)."""

    def __init__(
        self, counters: memoryview, flows: FlowTable, streams: StreamTable, ttl_ns: int, heuristic: bool
    ) -> None:
        """`ttl_ns`: how long an endpoint lives without media; `heuristic`: find media without SDP, too."""
        self.counters = counters
        self.flows = flows
        self.streams = streams
        self.parser = RtpParser()
        self.rtcp = RtcpPath(counters, flows, streams)
        self.ttl = ttl_ns
        self.heuristic = heuristic
        self.candidates = Candidates(counters)
        self.flow = self.stream = -1
        self.entry = 0
        self.flow_generation = self.stream_generation = self.found_by = 0

    def attach(self, buf: memoryview) -> None:
        """All following offsets are into `buf`."""
        self.buf = buf
        self.parser.attach(buf)
        self.rtcp.attach(buf)

    def packet(self, decoder: Decoder, slot: int, now: int) -> int:
        """A packet of the flow that FlowTable.find() just found: a result of RtpParser.classify()."""
        kind = self.parser.classify(decoder.payload, decoder.payload_end, (decoder.flags & SNAPPED) != 0)
        self.flow = slot
        self.flow_generation = self.flows.generation
        self.found_by = self.flows.labels_word & 0xFF
        if self.flows.labels_word & FAX and not self.beside_fax(decoder, kind):
            return 0
        if kind != 1:
            return kind
        if self.flows.labels_word & 0x100:
            # The port was announced for RTCP.
            return 0
        self.stream = self.stream_of(decoder, slot, now)
        if self.stream < 0:
            self.counters[C_STREAMS_FULL] += 1
            self.stream_generation = 0
            return 1
        self.stream_generation = self.streams.generation
        self.streams.count(
            self.entry,
            now,
            self.parser.sequence,
            self.parser.timestamp,
            self.parser.marker,
            self.parser.octets,
            decoder.tos >> 2,
        )
        codec = self.streams.words[self.entry + STREAM_CODEC]
        if (codec >> 8) & 0xFF == EVENT_KIND:
            self.telephone_event(codec >> 32, now)
        return 1

    def beside_fax(self, decoder: Decoder, kind: int) -> bool:
        """Whether a packet to a UDPTL endpoint, whose sequence number may look like RTP's version, is RTP."""
        if kind != 1:
            return kind == 2 and self.parser.rtcp_compound(decoder.payload, decoder.payload_end)
        ports = self.parser.ssrc
        ports = (ports << 32) | (decoder.dport << 16) | decoder.sport
        tag = self.flow_tag(decoder)
        return (
            self.streams.find(
                tag, decoder.src0, decoder.src1, decoder.dst0, decoder.dst1, ports, decoder.domain
            )
            >= 0
        )

    def telephone_event(self, clock: int, now: int) -> int:
        """The event of a packet (RFC 4733 section 2.3); other lengths are encrypted, or several events."""
        at = self.parser.payload
        if self.parser.octets != 4 or at + 4 > len(self.buf):
            return 0
        unit = self.streams.open_signals(self.stream)
        if unit:
            self.streams.signals.event(
                unit,
                now,
                self.parser.timestamp,
                clock,
                self.buf[at],
                self.buf[at + 1] >> 7,
                (self.buf[at + 2] << 8) | self.buf[at + 3],
            )
            self.streams.close_signals(self.stream)
        return 0

    def control(self, decoder: Decoder, now: int) -> int:
        """RTCP of a known flow, for the figures of the streams that it speaks of."""
        if decoder.flags & SNAPPED:
            return 0
        return self.rtcp.packet(decoder, self.flow, now)

    def stream_of(self, decoder: Decoder, slot: int, now: int) -> int:
        """The stream of the packet, labelled for its payload type, at `entry`; -1: the table is full."""
        ports = self.parser.ssrc
        ports = (ports << 32) | (decoder.dport << 16) | decoder.sport
        word = self.flows.word + FLOW_STREAM
        cached = self.flows.words[word]
        stream = (cached & MASK32) - 1
        entry = cached >> 32
        if not self.streams.is_stream(
            entry, decoder.src0, decoder.src1, decoder.dst0, decoder.dst1, ports, decoder.domain
        ):
            stream = self.enter(decoder, ports, now)
            if stream < 0:
                return -1
            entry = self.streams.place(stream)
            before = cached & MASK32
            cached = entry
            self.flows.words[word] = (cached << 32) | (stream + 1)
            if before:
                self.another(stream, before - 1, ports)
        codec_of = (self.flow_generation << 32) | (self.flows.epoch >> 32)
        self.entry = entry
        if (
            self.streams.words[entry + STREAM_CODEC_OF] != codec_of
            or (self.streams.words[entry + STREAM_CODEC] & 0xFF) != self.parser.payload_type
        ):
            self.relabel(slot, stream, self.parser.payload_type, codec_of)
        return stream

    def enter(self, decoder: Decoder, ports: int, now: int) -> int:
        """The slot of the packet's stream, which may be a new one; -1: the table is full."""
        tag = self.flow_tag(decoder)
        stream = self.streams.find(
            tag, decoder.src0, decoder.src1, decoder.dst0, decoder.dst1, ports, decoder.domain
        )
        if stream >= 0:
            return stream
        return self.streams.add(
            tag, decoder.src0, decoder.src1, decoder.dst0, decoder.dst1, ports, decoder.domain, now
        )

    def flow_tag(self, decoder: Decoder) -> int:
        """The keyed hash of the packet's five-tuple."""
        return self.flows.tag_of(
            decoder.src0,
            decoder.src1,
            decoder.dst0,
            decoder.dst1,
            decoder.sport,
            decoder.dport,
            decoder.protocol,
            decoder.domain,
        )

    def another(self, stream: int, before: int, ports: int) -> int:
        """The flow goes on with another SSRC than that of stream `before`, if that is still there."""
        place = self.streams.place(before)
        if before != stream and place and self.streams.words[place + STREAM_PORTS] & MASK32 == ports & MASK32:
            self.streams.follows(stream, self.streams.words[place + STREAM_PORTS] >> 32)
        return 0

    def relabel(self, slot: int, stream: int, payload_type: int, codec_of: int) -> int:
        """Tell the stream what the flow knows: Call-ID, and the codec of this payload type."""
        place = self.flows.codec(slot, payload_type)
        clock = CLOCKS[payload_type]
        name0 = NAMES[2 * payload_type]
        name1 = NAMES[2 * payload_type + 1]
        kind = 0
        if place >= 0:
            word = self.flows.words[place]
            name0 = word >> 8
            word = self.flows.words[place + 1]
            name0 |= (word & 0xFF) << 56
            name1 = (word & MASK32) >> 8
            if payload_type >= 96 or clock == 0:
                # The rate of a static type is RFC 3551's, whatever the SDP says of it (as Wireshark has it).
                clock = word >> 32
        if payload_type == 13 or payload_type == 19:  # noqa: PLR1714 -- compiled
            kind = 1
        elif payload_type >= 96 and (name0 << 8) & MASK64 == EVENT_NAME:
            kind = 2
        self.streams.label(
            stream,
            self.found_by,
            (self.flow_generation << 32) | slot,
            codec_of,
            payload_type,
            clock,
            kind,
            name0,
            name1,
            self.flows.words,
            self.flows.place(slot) + FLOW_CALL,
        )
        return 0

    # ---- media without SDP ----

    def guess(self, decoder: Decoder, now: int) -> int:
        """A packet of no known flow: 0 nobody's, 1 RTP by the heuristic, 2 RTCP beside a known flow."""
        if not self.heuristic or decoder.sport < 1024 or decoder.dport < 1024:
            return 0
        kind = self.parser.classify(decoder.payload, decoder.payload_end, (decoder.flags & SNAPPED) != 0)
        if kind == 2:
            if not self.parser.rtcp_compound(decoder.payload, decoder.payload_end):
                return 0
            slot = self.flows.find(
                decoder.src0,
                decoder.src1,
                decoder.dst0,
                decoder.dst1,
                decoder.sport - 1,
                decoder.dport - 1,
                decoder.protocol,
                decoder.domain,
                self.flows.steady(now),
            )
            if slot < 0:
                return 0
            self.flow = slot
            self.flow_generation = self.flows.generation
            self.found_by = self.flows.labels_word & 0xFF
            return 2
        if kind != 1 or self.parser.ssrc == 0 or (decoder.sport & 1 and decoder.dport & 1):
            return 0
        if self.parser.payload_type < 96 and CLOCKS[self.parser.payload_type] == 0:
            return 0
        tag = self.streams.tag_of(self.flows.tag, self.parser.ssrc)
        place = self.candidates.hold(tag, self.parser, decoder.tos >> 2, now)
        self.stream = self.promote(decoder, place, now) if place >= 0 else -1
        return 1 if self.stream >= 0 else 0

    def promote(self, decoder: Decoder, place: int, now: int) -> int:
        """Make flow and stream of a candidate and count what was held; the stream, -1 in a full table."""
        slot = self.flows.add(
            decoder.src0,
            decoder.src1,
            decoder.dst0,
            decoder.dst1,
            decoder.sport,
            decoder.dport,
            decoder.protocol,
            decoder.domain,
            self.flows.steady(now),
            self.ttl,
        )
        if slot < 0:
            self.counters[C_FLOWS_FULL] += 1
            return -1
        self.flow = slot
        self.flow_generation = self.flows.generation
        self.found_by = self.flows.labels_word & 0xFF
        stream = self.stream_of(decoder, slot, now)
        if stream < 0:
            self.counters[C_STREAMS_FULL] += 1
            return -1
        self.stream_generation = self.streams.generation
        self.count_held(place)
        return stream

    def count_held(self, place: int) -> int:
        """Count the packets of a candidate, from `place` on, at `entry`."""
        count = self.candidates.count
        for _ in range(count):
            word = self.candidates.words[place + 1]
            self.streams.count(
                self.entry,
                self.candidates.words[place],
                word & 0xFFFF,
                word >> 32,
                (word >> 23) & 1,
                self.candidates.words[place + 2],
                (word >> 24) & 0x3F,
            )
            place += 3
        # The last one is counted by the caller, as every packet.
        self.counters[C_RTP_PACKETS] += count - 1
        self.counters[C_RTP_BY_HEURISTIC] += count - 1
        return 0

    # ---- media from SDP ----

    def negotiates(self, sip: SipParser) -> bool:
        """Whether SDP of this message, or of the request that it answers, opens media of a call.

        Offers and answers are those of RFC 3264 in RFC 6337 table 1; SDP in the answer to OPTIONS only says
        what somebody could do (RFC 3261 section 11.2).
        """
        return (NEGOTIATING >> sip.method) & 1 == 1

    def register(self, sip: SipParser, sdp: SdpParser, domain: int, now: int) -> int:
        """Announce the endpoints of a message's SDP; returns how many."""
        self.counters[C_SDP_OVER_LIMIT] += sdp.over_limit
        if not sdp.count or not self.stage_call(sip):
            return 0
        outcome = 0
        for index in range(sdp.count):
            port = sdp.port[index]
            if not self.wanted(sdp, index):
                self.counters[C_SDP_REJECTED] += 1
                if sdp.flags[index] & UDPTL:
                    self.flows.turn_to_fax(sdp.address0[index], sdp.address1[index], port, domain)
                    self.flows.turn_to_fax(sdp.address0[index], sdp.address1[index], port, domain | ANY_VLAN)
                continue
            if self.stage_codecs(sdp, index):
                self.counters[C_SDP_MEDIA] += 1
                continue
            outcome += self.endpoint(
                sdp.address0[index], sdp.address1[index], port, False, index, domain, now
            )
            if self.own_rtcp(sdp, index):
                self.flows.codec_count = 0
                self.endpoint(
                    sdp.rtcp_address0[index],
                    sdp.rtcp_address1[index],
                    sdp.rtcp_port[index],
                    True,
                    index,
                    domain,
                    now,
                )
        return outcome

    def wanted(self, sdp: SdpParser, index: int) -> bool:
        """Whether a media description announces RTP over UDP at a known place."""
        flags = sdp.flags[index]
        return not flags & NOT_FOR_MEDIA and flags & RTP_MEDIA != 0 and sdp.port[index] != 0

    def stage_codecs(self, sdp: SdpParser, index: int) -> int:
        """Those of a media description and of others at the same place, as in a bundle (RFC 9143).

        1: one in front of it is at this place, and has them.
        """
        self.flows.codec_count = 0
        for other in range(sdp.count):
            if other != index and (
                sdp.port[other] != sdp.port[index]
                or sdp.address0[other] != sdp.address0[index]
                or sdp.address1[other] != sdp.address1[index]
                or not self.wanted(sdp, other)
            ):
                continue
            if other < index:
                return 1
            for codec in range(sdp.codecs[other]):
                place = other * CODECS_OF_MEDIA + codec
                if sdp.codec_type[place] < 128:
                    self.flows.stage_codec(
                        sdp.codec_type[place],
                        sdp.codec_clock[place],
                        sdp.codec_name0[place],
                        sdp.codec_name1[place],
                    )
        return 0

    def own_rtcp(self, sdp: SdpParser, index: int) -> bool:
        """Whether RTCP of a media description goes to another place than RTP.

        With rtcp-mux, port 9 (discard) says that there is none (RFC 8829 section 5.2.1).
        """
        port = sdp.rtcp_port[index]
        if port == 0 or (port == DISCARD and sdp.flags[index] & RTCP_MUX):
            return False
        return (
            port != sdp.port[index]
            or sdp.rtcp_address0[index] != sdp.address0[index]
            or sdp.rtcp_address1[index] != sdp.address1[index]
        )

    def endpoint(
        self, address0: int, address1: int, port: int, rtcp: bool, index: int, domain: int, now: int
    ) -> int:
        """Register one endpoint of media description `index`; 1 where it is in the table now."""
        steady = self.flows.steady(now)
        outcome = self.flows.register(address0, address1, port, rtcp, index, 17, domain, steady, self.ttl)
        if outcome == 1:
            self.counters[C_FLOW_CONFLICTS] += 1
        elif outcome == 2:
            self.counters[C_FLOWS_FULL] += 1
        elif not rtcp:
            self.counters[C_SDP_MEDIA] += 1
        if domain & ANY_VLAN:
            domain |= ANY_VLAN
            if self.flows.register(address0, address1, port, rtcp, index, 17, domain, steady, self.ttl) == 1:
                # Another call has it there: those that took it for this one shall look again.
                self.flows.stir()
        return 1 if outcome == 0 else 0

    def stage_call(self, sip: SipParser) -> bool:
        """The message's Call-ID for the registry; False where it has none."""
        first = sip.slots[CALL_ID_SLOT]
        if first < 0:
            return False
        self.flows.stage_call(sip.buf, sip.start + first, sip.start + sip.slots[CALL_ID_SLOT + 1])
        return True

    def end_of_call(self, sip: SipParser) -> int:
        """After BYE, or a final refusal of the INVITE, another call may have the endpoints of this one."""
        over = sip.status == 0 and sip.method == BYE
        if 300 <= sip.status < 700 and sip.method == INVITE:
            over = sip.status not in (401, 407, 491)
        if over and self.stage_call(sip):
            self.flows.end_call()
        return 0

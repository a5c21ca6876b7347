"""The packet road of one worker: a frame in, records in the rings and one outcome in the counters.

UDP that begins like RTP (version 2) goes to the flow registry first; everything else is SIP by its port or by
its first line; what nobody wants is forwarded or dropped. No object is made for RTP of a known flow.
"""

from __future__ import annotations

from engine.capture.sink import PACKET_OUTGOING
from engine.decode import classifier
from engine.pipeline import stage
from engine.pipeline.stage import Stage
from engine.shm import atomics, records
from engine.shm import counters as layout

V_MALFORMED, V_UDP, V_TCP, V_ICMP, V_FRAGMENT = (
    classifier.MALFORMED,
    classifier.UDP,
    classifier.TCP,
    classifier.ICMP,
    classifier.FRAGMENT,
)
OUTGOING = PACKET_OUTGOING
DUPLICATE = records.P_DUPLICATE
TRUNCATED = records.S_TRUNCATED
LF = 10
K_RTCP = records.RTCP
RTCP_VERDICT = stage.RTCP_VERDICT_TYPE
W_PACKET_TIME, W_LEFT_OUT = layout.PACKET_TIME, layout.LEFT_OUT_SHARE
MOST_NESTED = 4
"""Reassemblies behind one packet: tunnels in fragments that carry fragments."""
(
    C_RECEIVED, C_OUTPUT, C_HANDLED, C_FILTERED, C_MALFORMED, C_FRAGMENTS, C_DUPLICATES, C_BYTES,
    C_WIRE_BYTES, C_SIP_MESSAGES, C_SIP_REQUESTS, C_SIP_RESPONSES, C_SIP_MALFORMED, C_SIP_TRUNCATED,
    C_SIP_KEEPALIVES, C_RTP_PACKETS, C_RTP_BY_SDP, C_RTP_BY_HEURISTIC, C_RTP_MALFORMED, C_RTCP_PACKETS,
    C_RTCP_MALFORMED, C_EVIDENCE, C_EVIDENCE_OVERSIZE, C_OUTPUT_OVERSIZE, C_OUTPUT_SIP, C_OUTPUT_RTP,
    C_OUTPUT_RTCP, C_TCP_SIP_PORT, C_RTP_HANDLED, C_RTCP_HANDLED, C_TUNNEL_DEPTH, C_SAMPLED,
) = (
    layout.index(name)
    for name in (
        "received", "output", "handled", "filtered", "malformed", "fragments", "duplicates", "bytes",
        "wire_bytes", "sip_messages", "sip_requests", "sip_responses", "sip_malformed", "sip_truncated",
        "sip_keepalives", "rtp_packets", "rtp_by_sdp", "rtp_by_heuristic", "rtp_malformed", "rtcp_packets",
        "rtcp_malformed", "evidence", "evidence_oversize", "output_oversize", "output_sip", "output_rtp",
        "output_rtcp", "tcp_sip_port", "rtp_handled", "rtcp_handled", "tunnel_depth_exceeded", "sampled",
    )
)  # fmt: skip


class Pipeline(Stage):
    """One worker's packet road; options as in engine.pipeline.stage.DEFAULTS."""

    def packet(
        self,
        start: int,
        end: int,
        wire_length: int,
        timestamp: int,
        interface: int,
        link_type: int,
        vlan: int,
        packet_type: int,
    ) -> int:
        """One frame, as PacketSink.packet() says."""
        atomics.store(self.words, C_RECEIVED, self.words[C_RECEIVED] + 1)
        self.words[C_BYTES] += end - start
        self.words[C_WIRE_BYTES] += wire_length
        self.words[W_PACKET_TIME] = timestamp
        self.facts.timestamp = timestamp
        self.facts.interface = interface
        self.facts.wire_length = wire_length
        self.facts.captured = end - start
        if self.frame_numbers:
            self.facts.frame_number = self.words[C_RECEIVED]
        if packet_type == OUTGOING and interface == self.loopback:
            # Everything on loopback is seen twice: as it is sent and as it arrives.
            return self.outcome(C_DUPLICATES)
        verdict = self.decoder.decode(start, end, wire_length, link_type, vlan)
        if self.deduplicate and self.copies.seen(self.decoder, verdict, interface, timestamp):
            return self.copy_seen(verdict)
        if verdict == V_UDP:
            return self.udp()
        return self.route(verdict)

    def route(self, verdict: int) -> int:
        """Everything but UDP that came in one piece."""
        if verdict == V_FRAGMENT:
            return self.fragment()
        if verdict == V_UDP:
            return self.udp()
        if verdict == V_ICMP:
            return self.icmp()
        if verdict == V_MALFORMED:
            return self.outcome(C_MALFORMED)
        if verdict == V_TCP and self.parse_sip and self.on_sip_port():
            # SIP over TCP is not read: whoever looks for it shall hear that it is there.
            self.words[C_TCP_SIP_PORT] += 1
        return self.unmatched()

    def fragment(self) -> int:
        """Keep a fragment; the whole packet that it completes takes its place in the books."""
        if self.reassembly is None:
            return self.outcome(C_FRAGMENTS)
        now = self.flows.steady(self.facts.timestamp)
        whole = self.reassembly.add(self.decoder, now)
        if whole is None:
            return self.outcome(C_FRAGMENTS)
        buffer = self.buffer
        try:
            for _ in range(MOST_NESTED):
                # What was in a tunnel is not what the filter spoke of: it saw the packet around it.
                if (
                    self.filters is not None
                    and not self.decoder.tunnel_type
                    and not self.matches(whole, self.reassembly.network)
                ):
                    return self.outcome(C_FILTERED)
                self.facts.captured = len(whole)
                self.facts.wire_length = len(whole)
                self.attach(memoryview(whole))
                verdict = self.decoder.decode_network(self.reassembly.network, len(whole))
                if verdict != V_FRAGMENT:
                    return self.route(verdict)
                # A tunnel in fragments, and a fragment in the tunnel.
                whole = self.reassembly.add(self.decoder, now)
                if whole is None:
                    return self.outcome(C_FRAGMENTS)
            self.words[C_TUNNEL_DEPTH] += 1
            return self.outcome(C_MALFORMED)
        finally:
            self.attach(buffer)

    # ---- UDP ----

    def udp(self) -> int:
        """A whole UDP datagram."""
        if self.decoder.payload >= self.decoder.payload_end:
            return self.unmatched()
        first = self.buf[self.decoder.payload]
        if first >> 6 == 2:
            if self.parse_rtp:
                slot = self.flows.find(
                    self.decoder.src0,
                    self.decoder.src1,
                    self.decoder.dst0,
                    self.decoder.dst1,
                    self.decoder.sport,
                    self.decoder.dport,
                    self.decoder.protocol,
                    self.decoder.domain,
                    self.flows.steady(self.facts.timestamp),
                )
                if slot >= 0:
                    kind = self.media.packet(self.decoder, slot, self.facts.timestamp)
                else:
                    kind = self.media.guess(self.decoder, self.facts.timestamp)
                if kind:
                    return self.media_result(kind)
        elif self.parse_sip and (
            self.on_sip_port() or self.sip.looks_like(self.decoder.payload, self.decoder.payload_end)
        ):
            return self.sip_message()
        return self.unmatched()

    def media_result(self, kind: int) -> int:
        """What RtpParser.classify() said of a packet of a media flow."""
        if kind == 1:
            return self.rtp()
        if kind == 2:
            return self.rtcp()
        if 192 <= self.buf[self.decoder.payload + 1] <= 223:
            self.words[C_RTCP_MALFORMED] += 1
        else:
            self.words[C_RTP_MALFORMED] += 1
        return self.outcome(C_MALFORMED)

    def rtp(self) -> int:
        """An RTP packet that the media path counted: into the send ring, where there is one."""
        self.words[C_RTP_PACKETS] += 1
        if self.media.found_by == 1:
            self.words[C_RTP_BY_SDP] += 1
        else:
            self.words[C_RTP_BY_HEURISTIC] += 1
        if self.sending:
            if self.filtering and not self.passes(self.media.parser.payload_type):
                return self.outcome(C_FILTERED)
            if self.summing and not self.reports.due(self.media, self.facts.timestamp):
                self.words[C_RTP_HANDLED] += 1
                return self.outcome(C_HANDLED)
            if self.words[W_LEFT_OUT] and self.left_out():
                return self.outcome(C_SAMPLED)
            if self.output.rtp(self.media, self.figures, self.rtp_raw):
                self.words[C_OUTPUT_RTP] += 1
                return self.outcome(C_OUTPUT)
            self.words[C_OUTPUT_OVERSIZE] += 1
        self.words[C_RTP_HANDLED] += 1
        return self.outcome(C_HANDLED)

    def rtcp(self) -> int:
        """An RTCP packet of a known flow."""
        self.words[C_RTCP_PACKETS] += 1
        self.media.control(self.decoder, self.facts.timestamp)
        if self.sending:
            if self.filtering and not self.passes(RTCP_VERDICT):
                return self.outcome(C_FILTERED)
            if self.output.octets(
                K_RTCP,
                self.decoder.payload,
                self.decoder.payload_end,
                self.media.flow,
                self.media.flow_generation,
            ):
                self.words[C_OUTPUT_RTCP] += 1
                return self.outcome(C_OUTPUT)
            self.words[C_OUTPUT_OVERSIZE] += 1
        self.words[C_RTCP_HANDLED] += 1
        return self.outcome(C_HANDLED)

    # ---- SIP ----

    def sip_message(self) -> int:
        """A datagram on a SIP port or with the first line of a SIP message."""
        kind = self.scan()
        if kind == 0:
            if self.sip.is_keepalive(self.decoder.payload, self.decoder.payload_end):
                self.words[C_SIP_KEEPALIVES] += 1
                return self.outcome(C_HANDLED)
            return self.unmatched()
        self.sip_seen(kind)
        if self.witnessing:
            if self.evidence.sip(self.sip, 0):
                self.words[C_EVIDENCE] += 1
            else:
                self.words[C_EVIDENCE_OVERSIZE] += 1
        if self.sending:
            if self.filtering and not self.ask_sip():
                return self.outcome(C_FILTERED)
            if self.output.sip(self.sip, 0):
                self.words[C_OUTPUT_SIP] += 1
                return self.outcome(C_OUTPUT)
            self.words[C_OUTPUT_OVERSIZE] += 1
        return self.outcome(C_HANDLED)

    def scan(self) -> int:
        """SipParser.parse() of the datagram.

        Of one that the snap length cut, the whole lines are read, and what is missing is no defect.
        """
        first, end = self.decoder.payload, self.decoder.payload_end
        if not self.decoder.clipped:
            return self.sip.parse(first, end)
        last = end
        while last > first and self.buf[last - 1] != LF:
            last -= 1
        kind = self.sip.parse(first, last)
        if kind == 0:
            kind = self.sip.parse(first, end)
        self.sip.end = end
        self.sip.error = 0
        self.sip.flags |= TRUNCATED
        return kind

    def sip_seen(self, kind: int) -> int:
        """Count a message and learn the media that it announces."""
        self.words[C_SIP_MESSAGES] += 1
        if kind == 1:
            self.words[C_SIP_REQUESTS] += 1
        else:
            self.words[C_SIP_RESPONSES] += 1
        if self.sip.error:
            self.words[C_SIP_MALFORMED] += 1
        if self.sip.flags & TRUNCATED:
            self.words[C_SIP_TRUNCATED] += 1
        if self.track_media:
            if self.sip.sdp_start >= 0 and self.media.negotiates(self.sip):
                self.sdp.parse(self.sip.start + self.sip.sdp_start, self.sip.start + self.sip.sdp_end)
                self.media.register(self.sip, self.sdp, self.decoder.domain, self.facts.timestamp)
            self.media.end_of_call(self.sip)
        return 0

    def copy_seen(self, verdict: int) -> int:
        """Book a copy; the calls process learns of one that is SIP, to mark the message."""
        if (
            self.witnessing
            and self.parse_sip
            and verdict == V_UDP
            and self.sip.looks_like(self.decoder.payload, self.decoder.payload_end)
            and self.scan()
        ):
            if self.evidence.sip(self.sip, DUPLICATE):
                self.words[C_EVIDENCE] += 1
            else:
                self.words[C_EVIDENCE_OVERSIZE] += 1
        return self.outcome(C_DUPLICATES)

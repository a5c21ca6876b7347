"""The packet road of one worker: a frame in, records in the rings and one outcome in the counters.

UDP that begins like RTP (version 2) goes to the flow registry first; everything else is SIP by its port or by
its first line; what nobody wants is forwarded or dropped. No object is made for RTP of a known flow.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

from engine.capture.sink import PACKET_OUTGOING, PacketSink
from engine.decode import classifier
from engine.parsers.sdp import SdpParser
from engine.parsers.sip import SipParser
from engine.pipeline.copies import CopyTable
from engine.pipeline.media import MediaPath
from engine.pipeline.plugins import ForeignParsers, sip_labels
from engine.pipeline.writer import PacketFacts, RecordWriter
from engine.shm import atomics, records
from engine.shm import counters as layout

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.capture.packet_filter import PacketFilter
    from engine.decode.classifier import Decoder
    from engine.decode.fragments import Reassembly
    from engine.shm.counters import Counters
    from engine.shm.flows import FlowTable
    from engine.shm.ring import RingWriter
    from engine.shm.streams import StreamTable

V_MALFORMED, V_UDP, V_TCP, V_ICMP, V_FRAGMENT = (
    classifier.MALFORMED,
    classifier.UDP,
    classifier.TCP,
    classifier.ICMP,
    classifier.FRAGMENT,
)
OUTGOING = PACKET_OUTGOING
HARDWARE_ETHERNET, HARDWARE_NONE = 1, 0xFFFE
DUPLICATE = records.P_DUPLICATE
TRUNCATED = records.S_TRUNCATED
NO_FLOW = records.NO_SLOT
K_RTCP, K_RAW, K_ICMP, K_PLUGIN = records.RTCP, records.RAW, records.ICMP, records.PLUGIN
RTCP_VERDICT = 72
"""Where the verdict of a flow's RTCP is kept: a payload type that RTP cannot have beside RTCP (RFC 5761)."""
W_PACKET_TIME = layout.PACKET_TIME
FLOW_SWEEP, STREAM_SWEEP = 1024, 512
"""Slots looked at in one idle()."""
DEFAULTS: dict[str, Any] = {
    "sip_ports": (5060, 5061),
    "parse_sip": True,
    "parse_rtp": True,
    "track_media": True,
    "media_ttl_ns": 300_000_000_000,
    "rtp_heuristic": True,
    "rtp_raw": False,
    "unmatched_forward": False,
    "deduplicate": False,
    "loopback_index": 0,
    "frame_numbers": False,
    "chain": None,
    "filters": None,
    "plugins": (),
}
"""Options of the pipeline. `chain` has verdict_sip(labels) and verdict_flow(labels) and is there only where
something can be dropped; `filters`: the capture filter as {link type: PacketFilter}, for datagrams put
together from fragments, which pass it unseen; `deduplicate`: the capture is on several interfaces;
`loopback_index` 0: none."""

(
    C_RECEIVED, C_OUTPUT, C_HANDLED, C_FILTERED, C_UNMATCHED, C_MALFORMED, C_FRAGMENTS, C_DUPLICATES, C_BYTES,
    C_WIRE_BYTES, C_ICMP_ERRORS, C_ICMP_QUOTED_SIP, C_SIP_MESSAGES, C_SIP_REQUESTS, C_SIP_RESPONSES,
    C_SIP_MALFORMED, C_SIP_TRUNCATED, C_SIP_KEEPALIVES, C_RTP_PACKETS, C_RTP_BY_SDP, C_RTP_BY_HEURISTIC,
    C_RTP_MALFORMED, C_RTCP_PACKETS, C_RTCP_MALFORMED, C_FLOWS_EXPIRED, C_STREAMS_EXPIRED, C_EVIDENCE,
    C_EVIDENCE_OVERSIZE, C_OUTPUT_OVERSIZE, C_OUTPUT_SIP, C_OUTPUT_RTP, C_OUTPUT_RTCP, C_OUTPUT_RAW,
    C_PLUGIN_ERRORS, C_FILTER_RECHECKED, C_TCP_SIP_PORT, C_RTP_HANDLED, C_RTCP_HANDLED, C_OUTPUT_PLUGIN,
) = (
    layout.index(name)
    for name in (
        "received", "output", "handled", "filtered", "unmatched", "malformed", "fragments", "duplicates",
        "bytes", "wire_bytes", "icmp_errors", "icmp_quoted_sip", "sip_messages", "sip_requests",
        "sip_responses", "sip_malformed", "sip_truncated", "sip_keepalives", "rtp_packets", "rtp_by_sdp",
        "rtp_by_heuristic", "rtp_malformed", "rtcp_packets", "rtcp_malformed", "flows_expired",
        "streams_expired", "evidence", "evidence_oversize", "output_oversize", "output_sip", "output_rtp",
        "output_rtcp", "output_raw", "plugin_errors", "filter_rechecked", "tcp_sip_port", "rtp_handled",
        "rtcp_handled", "output_plugin",
    )
)  # fmt: skip


class Pipeline(PacketSink):
    """One worker's packet road; `options` as in DEFAULTS."""

    def __init__(
        self,
        counters: Counters,
        flows: FlowTable,
        streams: StreamTable,
        send: RingWriter | None,
        evidence: RingWriter | None,
        reassembly: Reassembly | None,
        decoder: Decoder,
        options: Mapping[str, Any],
    ) -> None:
        unknown = options.keys() - DEFAULTS.keys()
        if unknown:
            raise ValueError(f"unknown pipeline options: {', '.join(sorted(unknown))}")
        chosen = {**DEFAULTS, **options}
        self.words = counters.words
        self.decoder = decoder
        self.flows = flows
        self.streams = streams
        self.media = MediaPath(
            counters.words, flows, streams, int(chosen["media_ttl_ns"]), bool(chosen["rtp_heuristic"])
        )
        self.sip = SipParser()
        self.sdp = SdpParser()
        self.facts = PacketFacts()
        self.output: Any = None if send is None else RecordWriter(send, decoder, self.facts)
        self.evidence: Any = None if evidence is None else RecordWriter(evidence, decoder, self.facts)
        self.sending = send is not None
        self.witnessing = evidence is not None
        self.reassembly = reassembly
        self.chain = chosen["chain"]
        self.filtering = self.chain is not None
        self.by_ssrc = self.filtering and "rtp.ssrc" in getattr(self.chain, "reads", ())
        self.filters = chosen["filters"]
        self.foreign = ForeignParsers(chosen["plugins"], self.sending, self.chain)
        self.asking = bool(chosen["plugins"])
        self.ports = memoryview(array("Q", bytes(8192)))
        for port in chosen["sip_ports"]:
            self.ports[port >> 6] |= 1 << (port & 63)
        self.parse_sip = bool(chosen["parse_sip"])
        self.parse_rtp = bool(chosen["parse_rtp"])
        self.track_media = bool(chosen["track_media"])
        self.rtp_raw = bool(chosen["rtp_raw"])
        self.forward = bool(chosen["unmatched_forward"])
        self.deduplicate = bool(chosen["deduplicate"])
        self.frame_numbers = bool(chosen["frame_numbers"])
        self.loopback = int(chosen["loopback_index"] or 0)
        self.copies = CopyTable()
        self.buffer: Any = None
        self.buf: Any = b""

    def attach(self, buf: memoryview) -> None:
        """All following offsets are into `buf`."""
        self.buffer = buf
        self.buf = buf
        self.decoder.attach(buf)
        self.media.attach(buf)
        self.sip.attach(buf)
        self.sdp.attach(buf)

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

    def on_sip_port(self) -> bool:
        """Whether one of the packet's ports is a SIP port."""
        return bool(
            (self.ports[self.decoder.dport >> 6] >> (self.decoder.dport & 63)) & 1
            or (self.ports[self.decoder.sport >> 6] >> (self.decoder.sport & 63)) & 1
        )

    def outcome(self, counter: int) -> int:
        """Book where the packet ended."""
        atomics.store(self.words, counter, self.words[counter] + 1)
        return 0

    def fragment(self) -> int:
        """Keep a fragment; the whole packet that it completes takes its place in the books."""
        if self.reassembly is None:
            return self.outcome(C_FRAGMENTS)
        whole = self.reassembly.add(self.decoder, self.facts.timestamp)
        if whole is None:
            return self.outcome(C_FRAGMENTS)
        if self.filters is not None and not self.matches(whole, self.reassembly.network):
            return self.outcome(C_FILTERED)
        self.facts.captured = len(whole)
        self.facts.wire_length = len(whole)
        buffer = self.buffer
        try:
            self.attach(memoryview(whole))
            self.route(self.decoder.decode_network(self.reassembly.network, len(whole)))
        finally:
            self.attach(buffer)
        return 0

    def matches(self, whole: bytes, network: int) -> bool:
        """Whether the capture filter lets a whole datagram pass; its fragments it could not judge."""
        one: PacketFilter | None = self.filters.get(self.decoder.link_type)
        if one is None:
            return True
        self.words[C_FILTER_RECHECKED] += 1
        one.attach(memoryview(whole))
        one.wire_length = len(whole)
        one.network = network
        one.hardware = HARDWARE_ETHERNET if self.decoder.link_type == 1 else HARDWARE_NONE
        passes = one.match(0, len(whole)) != 0
        one.attach(self.buffer)
        return passes

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
                    self.facts.timestamp,
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
            if self.output.rtp(self.media, self.rtp_raw):
                self.words[C_OUTPUT_RTP] += 1
                return self.outcome(C_OUTPUT)
            self.words[C_OUTPUT_OVERSIZE] += 1
        self.words[C_RTP_HANDLED] += 1
        return self.outcome(C_HANDLED)

    def rtcp(self) -> int:
        """An RTCP packet of a known flow."""
        self.words[C_RTCP_PACKETS] += 1
        self.witness(
            K_RTCP,
            self.decoder.payload,
            self.decoder.payload_end,
            self.media.flow,
            self.media.flow_generation,
        )
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

    def witness(self, kind: int, start: int, end: int, slot: int, generation: int) -> int:
        """Octets start..end for the calls process."""
        if self.witnessing:
            if self.evidence.octets(kind, start, end, slot, generation):
                self.words[C_EVIDENCE] += 1
            else:
                self.words[C_EVIDENCE_OVERSIZE] += 1
        return 0

    def passes(self, payload_type: int) -> bool:
        """What the processors say of this flow and payload type, asked once."""
        verdict = self.flows.verdict(self.media.flow, payload_type)
        if verdict == 0:
            known = self.flows.labels(self.media.flow, self.media.flow_generation, payload_type)
            labels = known or {}
            if payload_type != RTCP_VERDICT:
                labels["rtp.pt"] = str(payload_type)
                labels["rtp.ssrc"] = str(self.media.parser.ssrc)
            verdict = 1 if self.ask_flow(labels) else 2
            if known is not None and not self.by_ssrc:
                self.flows.keep_verdict(self.media.flow, payload_type, verdict)
        return verdict == 1

    def ask_flow(self, labels: dict[str, str]) -> bool:
        """The processors' verdict of a flow; one that raises lets it pass."""
        try:
            return bool(self.chain.verdict_flow(labels))
        except Exception:
            self.words[C_PLUGIN_ERRORS] += 1
            return True

    # ---- SIP ----

    def sip_message(self) -> int:
        """A datagram on a SIP port or with the first line of a SIP message."""
        kind = self.sip.parse(self.decoder.payload, self.decoder.payload_end)
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

    def ask_sip(self) -> bool:
        """The processors' verdict of a message; one that raises lets it pass."""
        try:
            return bool(self.chain.verdict_sip(sip_labels(self.sip, self.decoder)))
        except Exception:
            self.words[C_PLUGIN_ERRORS] += 1
            return True

    # ---- what is left ----

    def icmp(self) -> int:
        """An ICMP message: an error that quotes SIP is evidence."""
        at = self.decoder.payload
        end = self.decoder.payload_end
        if end - at >= 8 and self.icmp_error(self.buf[at]):
            self.words[C_ICMP_ERRORS] += 1
            if self.quotes_sip(at + 8, end):
                self.words[C_ICMP_QUOTED_SIP] += 1
                self.witness(K_ICMP, at, end, NO_FLOW, 0)
                return self.outcome(C_HANDLED)
        return self.unmatched()

    def icmp_error(self, kind: int) -> bool:
        """Whether this type is an error message (RFC 792, RFC 4443 section 2.1)."""
        if self.decoder.protocol == 58:
            return 1 <= kind <= 4
        return 3 <= kind <= 5 or 11 <= kind <= 12

    def quotes_sip(self, at: int, end: int) -> bool:
        """Whether the packet quoted from `at` on is UDP with the beginning of a SIP message."""
        if end - at < 28:
            return False
        if self.buf[at] >> 4 == 4:
            if self.buf[at + 9] != 17 or self.buf[at + 6] & 0x1F or self.buf[at + 7]:
                return False
            at += 4 * (self.buf[at] & 15)
        else:
            if self.buf[at] >> 4 != 6 or end - at < 48 or self.buf[at + 6] != 17:
                return False
            at += 40
        return at + 8 < end and self.sip.looks_like(at + 8, end)

    def unmatched(self) -> int:
        """Nobody's packet so far: the plugins', else forwarded or dropped."""
        place = self.ask_plugins() if self.asking else 0
        if place:
            return self.outcome(place)
        if self.forward and self.sending:
            if self.output.octets(K_RAW, self.decoder.frame, self.decoder.frame_end, NO_FLOW, 0):
                self.words[C_OUTPUT_RAW] += 1
                return self.outcome(C_OUTPUT)
            self.words[C_OUTPUT_OVERSIZE] += 1
        return self.outcome(C_UNMATCHED)

    def ask_plugins(self) -> int:
        """Offer the packet to the parsers of others: its outcome where one took it, else 0."""
        place = self.foreign.ask(self.decoder, self.facts)
        self.words[C_PLUGIN_ERRORS] += self.foreign.take_errors()
        if place == C_OUTPUT:
            if self.output.made(K_PLUGIN, self.foreign.octets):
                self.words[C_OUTPUT_PLUGIN] += 1
            else:
                self.words[C_OUTPUT_OVERSIZE] += 1
                place = C_HANDLED
        return place

    def copy_seen(self, verdict: int) -> int:
        """Book a copy; the calls process learns of one that is SIP, to mark the message."""
        if (
            self.witnessing
            and self.parse_sip
            and verdict == V_UDP
            and self.sip.looks_like(self.decoder.payload, self.decoder.payload_end)
            and self.sip.parse(self.decoder.payload, self.decoder.payload_end)
        ):
            if self.evidence.sip(self.sip, DUPLICATE):
                self.words[C_EVIDENCE] += 1
            else:
                self.words[C_EVIDENCE_OVERSIZE] += 1
        return self.outcome(C_DUPLICATES)

    # ---- time ----

    def idle(self, now: int) -> int:
        """Expire what is due at `now`, ns since 1970: fragments, and a share of the flows and streams."""
        if self.reassembly is not None:
            self.reassembly.expire(now)
        self.words[C_FLOWS_EXPIRED] += self.flows.sweep(now, FLOW_SWEEP)
        self.words[C_STREAMS_EXPIRED] += self.streams.sweep(now, STREAM_SWEEP)
        return 0

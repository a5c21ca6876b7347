"""What every stage of the packet road shares: its parts, its options, the evidence, and where a packet ends.

`engine.pipeline.loop` is the road itself; here stand the ends of it that few packets come to.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

from engine.capture.sink import PacketSink
from engine.decode import classifier
from engine.parsers.sdp import SdpParser
from engine.parsers.sip import SipParser
from engine.pipeline.copies import CopyTable
from engine.pipeline.media import MediaPath
from engine.pipeline.reports import EVERYBODY, MODES, RtpReports
from engine.pipeline.verdicts import DROP_BIT, Verdicts
from engine.pipeline.writer import PacketFacts, RecordWriter
from engine.shm import atomics, records
from engine.shm import counters as layout
from engine.text import rtcp_type

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from engine.capture.packet_filter import PacketFilter
    from engine.decode.classifier import Decoder
    from engine.decode.fragments import Reassembly
    from engine.shm.counters import Counters
    from engine.shm.flows import FlowTable
    from engine.shm.ring import RingWriter
    from engine.shm.streams import StreamTable

V_UDP, V_FRAGMENT = classifier.UDP, classifier.FRAGMENT
HARDWARE_ETHERNET, HARDWARE_NONE = 1, 0xFFFE
NO_FLOW = records.NO_SLOT
K_RAW, K_ICMP, K_PLUGIN = records.RAW, records.ICMP, records.PLUGIN
RTCP_VERDICT = RTCP_VERDICT_TYPE = 128
"""Beside the payload types: RTCP. What is said of it is kept by the type of the datagram's first packet, at
that less 128: a payload type that RTP cannot have beside RTCP (RFC 5761)."""
MASK64 = 0xFFFFFFFFFFFFFFFF
W_LEFT_OUT, FIRST_RULE = layout.LEFT_OUT_SHARE, layout.FIRST_RULE
DROP = DROP_BIT
ALL = EVERYBODY
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
    "rtp_report": "every",
    "rtp_every": 1,
    "rtp_interval_ns": 5_000_000_000,
    "unmatched_forward": False,
    "deduplicate": False,
    "loopback_index": 0,
    "frame_numbers": False,
    "chain": None,
    "filters": None,
    "plugins": (),
    "silent_sweep": 4096,
}
"""Options of the pipeline. `rtp_report`: a name of engine.pipeline.reports.MODES. `chain`: the processors
(engine.processors.chain), only where something can be dropped. `filters`: the capture filter as
{link type: PacketFilter}, for datagrams put together from fragments, which pass it unseen. `deduplicate`: the
capture is on several interfaces. `loopback_index` 0: none. `silent_sweep`: streams that one idle() or
finish() looks at to report their last figures."""

(
    C_OUTPUT, C_HANDLED, C_UNMATCHED, C_ICMP_ERRORS, C_ICMP_QUOTED_SIP, C_FLOWS_EXPIRED, C_STREAMS_EXPIRED,
    C_EVIDENCE, C_EVIDENCE_OVERSIZE, C_OUTPUT_OVERSIZE, C_OUTPUT_RAW, C_PLUGIN_ERRORS, C_FILTER_RECHECKED,
    C_OUTPUT_PLUGIN, C_SAMPLED, C_LABELS_REFUSED, C_FLOWS_YIELDED, C_NOT_WANTED,
) = (
    layout.index(name)
    for name in (
        "output", "handled", "unmatched", "icmp_errors", "icmp_quoted_sip", "flows_expired",
        "streams_expired", "evidence", "evidence_oversize", "output_oversize", "output_raw",
        "plugin_errors", "filter_rechecked", "output_plugin", "sampled", "labels_refused", "flows_yielded",
        "filtered",
    )
)  # fmt: skip


class Stage(PacketSink):
    """The parts of one worker's packet road; `options` as in DEFAULTS."""

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
        self.quoted = decoder.twin()
        self.flows = flows
        self.streams = streams
        self.reassembly = reassembly
        self.facts = PacketFacts()
        self.output: Any = None if send is None else RecordWriter(send, decoder, self.facts)
        self.evidence: Any = None if evidence is None else RecordWriter(evidence, decoder, self.facts)
        self.sending = send is not None
        self.witnessing = evidence is not None
        self.copies = CopyTable()
        self.stepped = 0
        self.stream_ttl = streams.ttl
        self.buffer: Any = None
        self.buf: Any = b""
        self.take_parsers(counters.words, chosen)
        self.take_chain(chosen["chain"])
        self.take_plugins(chosen["plugins"])
        self.take_switches(chosen)

    def take_parsers(self, words: memoryview, chosen: Mapping[str, Any]) -> None:
        """SIP, its ports, and media with what is reported of it."""
        self.sip = SipParser()
        self.sdp = SdpParser()
        self.ports = memoryview(array("Q", bytes(8192)))
        for port in chosen["sip_ports"]:
            self.ports[port >> 6] |= 1 << (port & 63)
        heuristic = bool(chosen["rtp_heuristic"])
        self.media = MediaPath(words, self.flows, self.streams, int(chosen["media_ttl_ns"]), heuristic)
        mode, every, interval = MODES[chosen["rtp_report"]], chosen["rtp_every"], chosen["rtp_interval_ns"]
        self.reports = RtpReports(words, self.flows, self.streams, mode, int(every), int(interval))

    def take_chain(self, chain: Any) -> None:
        """The processors, and what they said of flows or, where they read the SSRC, of streams."""
        self.chain = chain
        self.filtering = chain is not None
        self.by_ssrc = self.filtering and "rtp.ssrc" in chain.reads
        self.verdicts = Verdicts(self.streams if self.by_ssrc else self.flows)
        self.raw_code = 0

    def take_plugins(self, parsers: Sequence[Any]) -> None:
        """Parsers of other packages; most of what runs has none, and no use for what they import."""
        self.asking = bool(parsers)
        self.views: Any = None
        self.foreign: Any = None
        if self.filtering or self.asking:
            from engine.pipeline import plugins

            self.views = plugins
            self.foreign = plugins.ForeignParsers(parsers, self.sending, self.chain)

    def take_switches(self, chosen: Mapping[str, Any]) -> None:
        """What is parsed, reported and left out."""
        self.filters = chosen["filters"]
        self.parse_sip = bool(chosen["parse_sip"])
        self.parse_rtp = bool(chosen["parse_rtp"])
        self.track_media = bool(chosen["track_media"])
        self.rtp_raw = bool(chosen["rtp_raw"])
        self.summing = chosen["rtp_report"] != "every"
        self.figures = chosen["rtp_report"] == "interval"
        self.forward = bool(chosen["unmatched_forward"])
        self.deduplicate = bool(chosen["deduplicate"])
        self.frame_numbers = bool(chosen["frame_numbers"])
        self.loopback = int(chosen["loopback_index"] or 0)
        self.silent_sweep = int(chosen["silent_sweep"])

    def attach(self, buf: memoryview) -> None:
        """All following offsets are into `buf`."""
        self.buffer = buf
        self.buf = buf
        self.decoder.attach(buf)
        self.media.attach(buf)
        self.sip.attach(buf)
        self.sdp.attach(buf)

    def outcome(self, counter: int) -> int:
        """Book where the packet ended."""
        atomics.store(self.words, counter, self.words[counter] + 1)
        return 0

    def on_sip_port(self) -> bool:
        """Whether one of the packet's ports is a SIP port."""
        return bool(
            (self.ports[self.decoder.dport >> 6] >> (self.decoder.dport & 63)) & 1
            or (self.ports[self.decoder.sport >> 6] >> (self.decoder.sport & 63)) & 1
        )

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

    def witness(self, kind: int, start: int, end: int, slot: int, generation: int) -> int:
        """Octets start..end for the calls process."""
        if self.witnessing:
            if self.evidence.octets(kind, start, end, slot, generation):
                self.words[C_EVIDENCE] += 1
            else:
                self.words[C_EVIDENCE_OVERSIZE] += 1
        return 0

    def passes(self, payload_type: int) -> bool:
        """What the processors say of this flow, or stream, and payload type: asked once, counted always."""
        slot = self.media.flow
        key = (self.media.flow_generation << 32) | (self.flows.epoch >> 32)
        if self.by_ssrc:
            # RTCP is of no stream: it is asked about each time.
            slot = -1 if payload_type == RTCP_VERDICT else self.media.stream
            key ^= (self.media.stream_generation << 48) & MASK64
        if payload_type == RTCP_VERDICT:
            payload_type |= self.buf[self.decoder.payload + 1]
        code = 0
        if slot >= 0:
            code = self.verdicts.get(slot, key, payload_type)
        if code == 0:
            code = self.ask_flow(slot, key, payload_type)
        return self.decided(code)

    def decided(self, code: int) -> bool:
        """Count the packet for the rule that decided; whether it passes (engine.pipeline.verdicts)."""
        reason = code & 0x7F
        if reason > 1:
            self.words[FIRST_RULE + reason - 2] += 1
        return code < DROP

    def ask_flow(self, slot: int, key: int, payload_type: int) -> int:
        """Ask the processors about a flow, and keep what they say where it will not change."""
        known = self.flows.labels(self.media.flow, self.media.flow_generation, payload_type)
        labels = known or {}
        if payload_type >= RTCP_VERDICT:
            protocol = "rtcp"
            labels["rtcp.type"] = rtcp_type(payload_type)
        else:
            protocol = "rtp"
            labels["rtp.pt"] = str(payload_type)
            labels["rtp.ssrc"] = str(self.media.parser.ssrc)
        envelope = None
        if self.chain.wants_envelope:
            envelope = self.views.envelope_of(protocol, self.decoder, self.facts)
        code: int = 1 if self.chain.verdict_flow(labels, envelope) else 1 | DROP
        code += self.chain.reason
        if known is not None and slot >= 0 and self.chain.pure:
            self.verdicts.keep(slot, key, payload_type, code)
        return code

    def ask_sip(self) -> bool:
        """The processors' verdict of a message."""
        reads = None if self.chain.foreign else self.chain.reads
        labels = self.views.sip_labels(self.sip, self.decoder, reads)
        envelope = None
        if self.chain.wants_envelope:
            envelope = self.views.envelope_of("sip", self.decoder, self.facts)
        code = 1 if self.chain.verdict_sip(labels, envelope) else 1 | DROP
        return self.decided(code + self.chain.reason)

    def passes_raw(self) -> bool:
        """The processors' verdict of a packet that no parser wanted: it has no labels of its own."""
        code: int = self.raw_code
        if code == 0:
            envelope = None
            if self.chain.wants_envelope:
                envelope = self.views.envelope_of("raw", self.decoder, self.facts)
            code = 1 if self.chain.verdict({}, envelope) else 1 | DROP
            code += self.chain.reason
            if self.chain.pure and envelope is None:
                self.raw_code = code
        return self.decided(code)

    def left_out(self) -> bool:
        """Whether sampling leaves out the conversation of the packet in work."""
        return self.reports.left_out(self.decoder, ALL - self.words[W_LEFT_OUT])

    # ---- ICMP ----

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
        """Whether the packet quoted from `at` on, or what it has in a tunnel, begins a SIP message over UDP.

        What is quoted is cut somewhere, and nothing of it counts as a packet.
        """
        self.quoted.attach(self.buffer)
        verdict = self.quoted.decode(at, end, end - at + 1, 101, 0)
        if verdict == V_UDP:
            first, last = self.quoted.payload, self.quoted.payload_end
        elif verdict == V_FRAGMENT and self.quoted.protocol == 17 and self.quoted.fragment_offset == 0:
            first, last = self.quoted.fragment_start + 8, self.quoted.fragment_end
        else:
            return False
        return first < last and self.sip.looks_like(first, last)

    # ---- what is left ----

    def unmatched(self) -> int:
        """Nobody's packet so far: the plugins', else forwarded or dropped."""
        place = self.ask_plugins() if self.asking else 0
        if place:
            return self.outcome(place)
        if self.forward and self.sending:
            if self.filtering and not self.passes_raw():
                return self.outcome(C_NOT_WANTED)
            if self.words[W_LEFT_OUT] and not self.on_sip_port() and self.left_out():
                return self.outcome(C_SAMPLED)
            if self.output.octets(K_RAW, self.decoder.frame, self.decoder.frame_end, NO_FLOW, 0):
                self.words[C_OUTPUT_RAW] += 1
                return self.outcome(C_OUTPUT)
            self.words[C_OUTPUT_OVERSIZE] += 1
        return self.outcome(C_UNMATCHED)

    def ask_plugins(self) -> int:
        """Offer the packet to the parsers of others: its outcome where one took it, else 0."""
        place: int = self.foreign.ask(self.decoder, self.facts)
        self.words[C_PLUGIN_ERRORS] += self.foreign.faults.take()
        self.words[C_LABELS_REFUSED] += self.foreign.take_refused()
        if self.filtering and place != 0:
            self.decided(self.foreign.code)
        if place == C_OUTPUT:
            if self.output.made(K_PLUGIN, self.foreign.octets):
                self.words[C_OUTPUT_PLUGIN] += 1
            else:
                self.words[C_OUTPUT_OVERSIZE] += 1
                place = C_HANDLED
        return place

    def moment(self, now: int, shift: int) -> int:
        """As PacketSink.moment() says."""
        if shift != self.flows.shift:
            self.flows.shift = shift
            self.stepped = now
        self.flows.limit = now
        return 0

    def idle(self, now: int) -> int:
        """Expire what is due at `now` on the task's clock: fragments, a share of the flows and streams."""
        if self.reassembly is not None:
            self.reassembly.expire(now)
        self.words[C_FLOWS_EXPIRED] += self.flows.sweep(now, FLOW_SWEEP)
        self.words[C_FLOWS_YIELDED] += self.flows.take_yielded()
        if self.figures and self.sending:
            self.reports.silent(
                now + self.flows.shift, self.silent_sweep, self.output, ALL - self.words[W_LEFT_OUT]
            )
        # Streams bear the wall clock's time, for people. After a step their ages mean nothing until those
        # that live were counted again.
        if not self.stepped or now > self.stepped + self.stream_ttl:
            self.words[C_STREAMS_EXPIRED] += self.streams.sweep(now + self.flows.shift, STREAM_SWEEP)
        return 0

    def finish(self) -> bool:
        """Behind the last packet: report the figures of streams that came after their last record.

        A share of them, so that who waits for the reader of the ring can; False when that was all.
        """
        if not self.figures or not self.sending:
            return False
        return self.reports.last(self.silent_sweep, self.output, ALL - self.words[W_LEFT_OUT])

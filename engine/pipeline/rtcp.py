"""RTCP on the packet road: what it says goes to the figures of the stream that it speaks of.

What a sender says of itself belongs to the stream with its SSRC in the direction of the packet; what a
receiver says of a stream to the one that comes the other way. RTCP is on the ports of RTP (RFC 5761) or one
above them; where an SDP named another place for it (RFC 3605) the SSRC is looked for between the same
addresses, then in the same call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.parsers import rtcp as items
from engine.parsers.rtcp import RtcpParser
from engine.shm import flows as flow_layout
from engine.shm import signals as signal_layout
from engine.shm.counters import index as counter

if TYPE_CHECKING:
    from engine.decode.classifier import Decoder
    from engine.shm.flows import FlowTable
    from engine.shm.streams import StreamTable

SENDER, RECEIVER, BLOCK, CNAME, BYE, APP, EXTENDED, REFERENCE, ANSWER, METRICS = (
    items.SENDER_ITEM, items.RECEIVER_ITEM, items.BLOCK_ITEM, items.CNAME_ITEM, items.BYE_ITEM,
    items.APP_ITEM, items.EXTENDED_ITEM, items.REFERENCE_ITEM, items.ANSWER_ITEM, items.METRICS_ITEM,
)  # fmt: skip
FLOW_CALL = flow_layout.PLACE_CALL
PROTOCOL = 17 << 32
"""UDP, where it stands among the ports in engine.shm.flows."""
FAR_TRIP, NEAR_TRIP = signal_layout.FAR_TRIP, signal_layout.NEAR_TRIP
C_RTCP_UNREAD, C_RTCP_DEFECTS, C_RTCP_STRANGERS = (
    counter("rtcp_unread"),
    counter("rtcp_defects"),
    counter("rtcp_strangers"),
)


class RtcpPath:
    """One worker's RTCP."""

    def __init__(self, counters: memoryview, flows: FlowTable, streams: StreamTable) -> None:
        self.counters = counters
        self.flows = flows
        self.streams = streams
        self.parser = RtcpParser()
        self.buf: memoryview | bytes = b""
        self.call = 0
        self.now = 0
        self.reported = -1

    def attach(self, buf: memoryview) -> None:
        """All following offsets are into `buf`."""
        self.buf = buf
        self.parser.attach(buf)

    def packet(self, decoder: Decoder, flow: int, now: int) -> int:
        """A payload that looks like RTCP, of the flow in slot `flow`; 0 where it is encrypted, or broken."""
        if not self.parser.begin(decoder.payload, decoder.payload_end):
            self.counters[C_RTCP_UNREAD] += 1
            return 0
        self.call = self.flows.place(flow) + FLOW_CALL
        self.now = now
        self.reported = -1
        item = self.parser.next()
        while item:
            if item == BLOCK:
                self.block(decoder)
            elif item == METRICS or item == REFERENCE or item == ANSWER:  # noqa: PLR1714, SIM109 -- compiled
                self.extended(decoder, item)
            else:
                self.own(decoder, item)
            item = self.parser.next()
        self.counters[C_RTCP_DEFECTS] += self.parser.defects
        return 1

    def own(self, decoder: Decoder, item: int) -> int:
        """What a source says of itself; most receivers send nothing that it could be noted at."""
        slot = self.stream(decoder, self.parser.ssrc, True)
        if slot < 0:
            return 0
        unit = self.streams.open_signals(slot)
        if not unit:
            return 0
        signals = self.streams.signals
        if item == SENDER:
            signals.sender(
                unit,
                self.now,
                self.parser.ntp,
                self.parser.timestamp,
                self.parser.packets,
                self.parser.octets,
            )
        elif item == RECEIVER:
            signals.receiver(unit)
        elif item == CNAME:
            signals.cname(unit, self.buf, self.parser.text, self.parser.text_end)
        elif item == BYE:
            signals.bye(unit, self.now)
        elif item == APP:
            signals.app(unit, self.parser.name)
        else:
            signals.other(unit, item == EXTENDED)
        self.streams.close_signals(slot)
        return 0

    def block(self, decoder: Decoder) -> int:
        """What the receiver of a stream says of it, and the round trip to it."""
        slot = self.stream(decoder, self.parser.about, False)
        if slot < 0:
            self.counters[C_RTCP_STRANGERS] += 1
            return 0
        unit = self.streams.open_signals(slot)
        if not unit:
            return 0
        signals = self.streams.signals
        self.reported = slot
        signals.block(
            unit,
            self.now,
            self.parser.ssrc,
            self.parser.fraction,
            self.parser.lost,
            self.parser.highest,
            self.parser.jitter,
        )
        trip = signals.trip_of_report(unit, self.now, self.parser.last, self.parser.delay)
        if trip >= 0:
            signals.trip(unit + FAR_TRIP, trip)
        self.streams.close_signals(slot)
        if trip >= 0:
            # The receiver of this stream is the sender of the one that comes back.
            self.note_trip(self.stream(decoder, self.parser.ssrc, True), trip, NEAR_TRIP)
        return 0

    def note_trip(self, slot: int, trip: int, which: int) -> int:
        """Note a round trip at a stream, where there is one."""
        if slot >= 0:
            unit = self.streams.open_signals(slot)
            if unit:
                self.streams.signals.trip(unit + which, trip)
                self.streams.close_signals(slot)
        return 0

    def extended(self, decoder: Decoder, item: int) -> int:
        """Blocks of an extended report."""
        if item == REFERENCE:
            # It belongs to a receiver: that of the stream which this packet reported on.
            slot = self.reported
        elif item == METRICS:
            slot = self.stream(decoder, self.parser.about, False)
        else:
            # The answer to a receiver of this sender's stream.
            slot = self.stream(decoder, self.parser.ssrc, True)
        if slot < 0:
            self.counters[C_RTCP_STRANGERS] += 1
            return 0
        unit = self.streams.open_signals(slot)
        if not unit:
            return 0
        trip = -1
        signals = self.streams.signals
        if item == REFERENCE:
            signals.reference(unit, self.now, self.parser.ntp)
        elif item == METRICS:
            signals.metrics(unit, self.now, self.buf, self.parser.text)
        else:
            trip = signals.trip_of_reference(unit, self.now, self.parser.last, self.parser.delay)
            if trip >= 0:
                signals.trip(unit + NEAR_TRIP, trip)
        self.streams.close_signals(slot)
        if trip >= 0:
            self.note_trip(self.stream(decoder, self.parser.about, False), trip, FAR_TRIP)
        return 0

    def stream(self, decoder: Decoder, ssrc: int, own: bool) -> int:
        """The stream with an SSRC in the direction of the packet (`own`), or the other way; -1: not known."""
        if own:
            return self.find(
                decoder,
                decoder.src0,
                decoder.src1,
                decoder.dst0,
                decoder.dst1,
                decoder.sport,
                decoder.dport,
                ssrc,
            )
        return self.find(
            decoder,
            decoder.dst0,
            decoder.dst1,
            decoder.src0,
            decoder.src1,
            decoder.dport,
            decoder.sport,
            ssrc,
        )

    def find(
        self, decoder: Decoder, src0: int, src1: int, dst0: int, dst1: int, sport: int, dport: int, ssrc: int
    ) -> int:
        """A stream by its SSRC, on these ports or one below them, or wherever it is."""
        for less in range(2):
            if sport < less or dport < less:
                break
            ports = ((dport - less) << 16) | (sport - less)
            tag = self.flows.hash(src0, src1, dst0, dst1, PROTOCOL | ports, decoder.domain)
            slot = self.streams.find(tag, src0, src1, dst0, dst1, (ssrc << 32) | ports, decoder.domain)
            if slot >= 0:
                return slot
        return self.streams.find_source(
            ssrc, decoder.domain, src0, src1, dst0, dst1, self.flows.words, self.call
        )

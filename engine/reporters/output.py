"""OutputPackets from the records of a send ring: envelope, labels, payload."""

from __future__ import annotations

import importlib
import socket
import struct
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

from engine.packet import DictPayload, OutputPacket, envelope_fields
from engine.shm import records
from engine.shm.rows import stream_row
from engine.text import rtcp_type

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from engine.packet import FiveTuple, NetworkMeta
    from engine.shm.records import PacketHeader, SipRecord

MOST_KNOWN = 4096
LABELS_AGE = 1.0
_NOT_FIGURES = frozenset(
    (
        "id", "call_id", "src", "sport", "dst", "dport", "ssrc", "domain", "flow_slot", "flow_generation",
        "found_by", "active",
    )
)  # fmt: skip
"""Of a stream's row: what envelope and labels say already, and what is of this process only."""
BEHIND = (
    "late", "burst_count", "burst_lost", "burst_density_pct", "burst_ms", "gap_lost", "gap_density_pct",
    "gap_ms", "longest_loss", "skew_ppm", "clock_jumps", "pauses", "paused_s", "longest_pause_s",
    "longest_pause_ns", "silence_s", "talk_spurts", "dscp", "dscp_first", "dscp_changes", "ssrc_changes",
    "previous_ssrc", "codec_changes", "mos", "mos_now", "mos_min", "delay_ms", "dtmf_count", "digits",
    "rtcp", "far", "sender", "xr",
)  # fmt: skip
"""Figures of a stream behind its entry (docs/fields.md)."""
MOST_AHEAD = 64
"""Packets by which a stream may have gone on between the making of a record and its sending."""
_RTCP = struct.Struct("!BBHI")
_SIP_FIELDS = {
    "call_id": "call_id",
    "from": "from",
    "to": "to",
    "via": "via",
    "via_branch": "via_branch",
    "contact": "contact",
    "content_type": "content_type",
    "user_agent": "user_agent",
    "expires": "expires",
    "event": "event",
    "subscription_state": "subscription_state",
    "x_call_id": "x_call_id",
    "reason_header": "reason",
}


class OutputMaker:
    """Makes packets of one task; `labels` are the static ones of the label processor."""

    def __init__(
        self,
        task: str,
        labels: Mapping[str, str],
        flows: int | None = None,
        live: bool = False,
        streams: int | None = None,
    ) -> None:
        """`flows`, `streams`: descriptors of the tables. `live`: interfaces are those of this host."""
        self.task = task
        self._live = live
        self._names: dict[int, str] = {}
        self.static = dict(labels)
        self._known: dict[tuple[Any, ...], tuple[FiveTuple, NetworkMeta, dict[str, Any]]] = {}
        self._flows: dict[tuple[int, int, int], tuple[float, dict[str, str]]] = {}
        self._flow_labels: Callable[[int, int, int], Any] | None = None
        if flows is not None:
            self._flow_labels = importlib.import_module("engine.shm.flows").FlowTable.open(flows).labels
        self.read_stream: Callable[[int], dict[str, Any] | None] = lambda slot: None
        if streams is not None:
            self.read_stream = importlib.import_module("engine.shm.streams").StreamTable.open(streams).read

    def make(self, kind: int, timestamp: int, body: bytes) -> OutputPacket | None:
        """The packet in a record; None if it is none."""
        try:
            if kind == records.SIP:
                return self._sip(timestamp, body)
            if kind == records.RTP:
                return self._rtp(timestamp, body)
            if kind == records.RTCP:
                return self._rtcp(timestamp, body)
            if kind == records.PLUGIN:
                return self._plugin(timestamp, body)
            return self._raw(kind, timestamp, body)
        except (ValueError, struct.error, IndexError, KeyError, TypeError, RecursionError):
            return None

    def _packet(self, header: PacketHeader, timestamp: int, protocol: str) -> OutputPacket:
        # Packets of one flow differ in few fields of their header: the rest is made once.
        key = (*header[:14], header.outer_src, header.outer_dst)
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            network = header.network()
            if self._live:
                network = replace(network, interface_name=self._name(network.interface))
            flow_id = header.flow_id()
            known = self._known[key] = (flow_id, network, envelope_fields(flow_id, network))
        flow_id, network, fields = known
        return OutputPacket(
            timestamp, protocol, flow_id, network, self.task, dict(self.static), None, None, fields
        )

    def _name(self, index: int) -> str:
        """The name of the interface with this kernel index, also when it went meanwhile; empty if unknown."""
        name = self._names.get(index)
        if name is None:
            try:
                name = socket.if_indextoname(index) if index else ""
            except OSError:
                return ""
            if len(self._names) >= MOST_KNOWN:
                self._names.clear()
            self._names[index] = name
        return name

    def _flow(self, header: PacketHeader, payload_type: int) -> dict[str, str]:
        """`call-id` and `codec` of the flow, where signalling named them."""
        if self._flow_labels is None or header.flow_slot == records.NO_SLOT:
            return {}
        key = (header.flow_slot, header.flow_generation, payload_type)
        now = time.monotonic()
        known = self._flows.get(key)
        if known is None or known[0] < now:
            if len(self._flows) >= MOST_KNOWN:
                self._flows.clear()
            # A re-INVITE may change them; for the packets of the next second they are good enough.
            labels = self._flow_labels(*key) or {}
            known = self._flows[key] = (now + (LABELS_AGE if labels else LABELS_AGE / 20), labels)
        return known[1]

    def _sip(self, timestamp: int, body: bytes) -> OutputPacket:
        record = records.sip_record(body)
        packet = self._packet(record.header, timestamp, "sip")
        packet.labels.update(sip_labels(record))
        packet.payload = DictPayload("sip", sip_payload(record), record.message)
        return packet

    def _rtp(self, timestamp: int, body: bytes) -> OutputPacket:
        record = records.rtp_record(body)
        packet = self._packet(record.header, timestamp, "rtp")
        labels = packet.labels
        labels["rtp.ssrc"] = str(record.ssrc)
        labels["rtp.pt"] = str(record.payload_type)
        labels.update(self._flow(record.header, record.payload_type))
        fields: dict[str, Any] = {
            "ssrc": record.ssrc,
            "sequence": record.sequence,
            "timestamp": record.timestamp,
            "payload_type": record.payload_type,
            "marker": bool(record.marker),
            "payload_octets": record.payload_length,
            "found_by": records.FOUND_BY[record.found_by] if record.found_by < len(records.FOUND_BY) else "",
        }
        if record.figures:
            if record.flags & records.R_LAST:
                fields.update(timestamp=None, marker=None, payload_octets=None)
            row = stream_row(record.stream_slot, record.figures)
            if abs(row["lost"]) >> 63:
                raise ValueError("figures that no stream has")
            fields["last"] = bool(record.flags & records.R_LAST)
            fields["stream"] = {key: value for key, value in row.items() if key not in _NOT_FIGURES}
            fields["stream"].update(self._behind(record.stream_slot, row))
        packet.payload = DictPayload("rtp", fields, record.frame)
        if record.frame:
            packet.raw_bytes = record.frame
        return packet

    def _behind(self, slot: int, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Figures that do not stand in the record: those of the stream now, if it went not on."""
        found = self.read_stream(slot) or {}
        ahead = found.get("packets", 0) - entry["packets"]
        if found.get("id") != entry["id"] or not 0 <= ahead <= MOST_AHEAD:
            found = {}
        return {key: found.get(key) for key in BEHIND}

    def _rtcp(self, timestamp: int, body: bytes) -> OutputPacket:
        header = records.packet_header(body)
        packet = self._packet(header, timestamp, "rtcp")
        compound = body[records.PACKET_SIZE :]
        packets = rtcp_packets(compound)
        if packets:
            packet.labels["rtcp.type"] = packets[0]["type"]
        labels = self._flow(header, 0xFF)
        if "call-id" in labels:
            packet.labels["call-id"] = labels["call-id"]
        packet.payload = DictPayload("rtcp", {"packets": packets}, compound)
        return packet

    def _plugin(self, timestamp: int, body: bytes) -> OutputPacket:
        """What a parser of another package made; its labels do not hide those of the label processor."""
        made = orjson.loads(body[records.PACKET_SIZE :])
        protocol, labels, payload = made["protocol"], made["labels"], made["payload"]
        if (
            not isinstance(protocol, str)
            or not isinstance(labels, dict)
            or not isinstance(payload, dict | None)
        ):
            raise ValueError("nothing that a parser makes")
        packet = self._packet(records.packet_header(body), timestamp, protocol)
        packet.labels = {**labels, **packet.labels}
        if payload is not None:
            packet.payload = DictPayload(protocol, payload)
        return packet

    def _raw(self, kind: int, timestamp: int, body: bytes) -> OutputPacket:
        header = records.packet_header(body)
        packet = self._packet(header, timestamp, records.KINDS.get(kind, "raw"))
        packet.raw_bytes = body[records.PACKET_SIZE :]
        return packet


def sip_labels(record: SipRecord) -> dict[str, str]:
    """The labels of a message, and the status code of a response."""
    labels = {
        "sip.method": record.method_name(),
        "sip.call-id": record.text("call_id"),
        "sip.from": record.text("from_uri") or record.text("from"),
        "sip.to": record.text("to_uri") or record.text("to"),
    }
    if record.status:
        labels["sip.status-code"] = str(record.status)
    return labels


def sip_payload(record: SipRecord) -> dict[str, Any]:
    """A message as plain values: what its first line and headers say, the media offered, the text itself."""
    fields: dict[str, Any] = {
        "method": record.method_name(),
        "request_uri": record.text("uri") or None,
        "status": record.status or None,
        "reason_phrase": record.text("reason_phrase") if record.status else None,
        "cseq": {"number": record.cseq, "method": record.text("cseq_method") or record.method_name()},
        "from_tag": record.text("from_tag") or None,
        "to_tag": record.text("to_tag") or None,
    }
    for key, slot in _SIP_FIELDS.items():
        value = record.slot(slot)
        fields[key] = None if value is None else " ".join(value.decode("utf-8", "replace").split())
    body = record.slot("body")
    fields["media"] = sdp_media(body) if body and record.flags & records.S_SDP else []
    fields["truncated"] = bool(record.flags & records.S_TRUNCATED)
    fields["error"] = record.error or None
    fields["message"] = record.message.decode("utf-8", "replace")
    return fields


def sdp_media(body: bytes) -> list[dict[str, Any]]:
    """The m= lines of a session description (RFC 8866): type, address, port, formats, codecs, direction."""
    session = {"address": None, "direction": "sendrecv"}
    media: list[dict[str, Any]] = []
    for line in body.decode("utf-8", "replace").splitlines()[:500]:
        key, _, value = line.partition("=")
        current: dict[str, Any] = media[-1] if media else session
        if key == "m":
            words = value.split()
            if len(words) >= 3 and len(media) < 32:
                port = words[1].partition("/")[0]
                media.append(
                    {
                        "type": words[0],
                        "address": session["address"],
                        "port": int(port) if port.isdecimal() and len(port) < 6 else None,
                        "profile": words[2],
                        "formats": words[3:],
                        "codecs": {},
                        "direction": session["direction"],
                    }
                )
        elif key == "c":
            words = value.split()
            current["address"] = words[2].partition("/")[0] if len(words) > 2 else None
        elif key == "a" and value in ("sendrecv", "sendonly", "recvonly", "inactive"):
            current["direction"] = value
        elif key == "a" and value.startswith("rtpmap:") and media:
            number, _, codec = value[7:].partition(" ")
            if len(media[-1]["codecs"]) < 64:
                media[-1]["codecs"][number] = codec.strip()
    return media


def rtcp_packets(compound: bytes) -> list[dict[str, Any]]:
    """The packets of a compound one (RFC 3550 section 6.1): type, SSRC, report count, octets."""
    packets: list[dict[str, Any]] = []
    position = 0
    while position + 8 <= len(compound) and len(packets) < 32:
        first, number, words, ssrc = _RTCP.unpack_from(compound, position)
        if first >> 6 != 2:
            break
        length = 4 * (words + 1)
        packets.append(
            {
                "type": rtcp_type(number),
                "ssrc": ssrc,
                "count": first & 31,
                "octets": min(length, len(compound) - position),
            }
        )
        position += length
    return packets

"""Layouts of ring records, and reading them back."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.packet import FiveTuple, TunnelInfo
from engine.shm import records

V4 = bytes(10) + b"\xff\xff" + bytes([10, 0, 0, 1])
V6 = bytes.fromhex("20010db8000000000000000000000002")
A, B = ip_address("10.0.0.1"), ip_address("2001:db8::2")
MESSAGE = b"INVITE sip:bob@example.com SIP/2.0\r\nSubject: a\r\n b\r\n\r\n"


def packet(**changed: object) -> bytes:
    fields: dict[str, object] = dict.fromkeys(records.PacketHeader._fields, 0)
    fields |= {"src": V4, "dst": V6, "src_mac": bytes(6), "dst_mac": bytes(6)}
    fields |= {"outer_src": bytes(16), "outer_dst": bytes(16), "sport": 5060, "dport": 5062, "protocol": 17}
    return records.PACKET.pack(*(fields | changed).values())


def sip(slots: dict[str, tuple[int, int]], method: int = 1, status: int = 0) -> bytes:
    places = [-1] * (2 * records.SIP_SLOTS)
    for name, place in slots.items():
        position = 2 * records.SLOTS.index(name)
        places[position : position + 2] = place
    fixed = records.SIP_FIXED.pack(status, 0, 1, method, 0, 9, len(MESSAGE))
    return packet() + fixed + b"".join(p.to_bytes(4, "little", signed=True) for p in places) + MESSAGE


def test_sizes_are_the_documented_ones() -> None:
    assert records.PACKET.size == records.PACKET_SIZE == 128
    assert records.SIP_MESSAGE == 400
    assert records.RTP_FRAME == 160
    assert len(records.SLOTS) == len(set(records.SLOTS)) == records.SIP_SLOTS


def test_packet_header_names_flow_and_network() -> None:
    header = records.packet_header(packet(vlan_count=1, outer_vlan=7, inner_vlan=9, interface=3))
    assert header.flow_id() == FiveTuple(A, B, 5060, 5062, 17)
    network = header.network()
    assert (network.vlans, network.interface, network.tunnel) == ((7,), 3, None)
    assert (network.src_mac, network.fragmented) == ("", False)


def test_flags_and_tunnel() -> None:
    flags = records.P_ETHERNET | records.P_REASSEMBLED
    header = records.packet_header(
        packet(flags=flags, src_mac=bytes(range(6)), tunnel_type=1, vni=99, outer_src=V4, outer_dst=V6)
    )
    network = header.network()
    assert (network.src_mac, network.fragmented) == ("00:01:02:03:04:05", True)
    assert network.tunnel == TunnelInfo("vxlan", A, B, 99)


def test_sip_slots() -> None:
    place = MESSAGE.index(b"a\r\n b")
    record = records.sip_record(sip({"method": (0, 6), "reason_phrase": (place, place + 5)}))
    assert (record.method_name(), record.cseq, record.message) == ("INVITE", 9, MESSAGE)
    assert record.slot("reason_phrase") == b"a\r\n b"
    assert record.text("reason_phrase") == "a b"
    assert (record.slot("contact"), record.text("contact")) == (None, "")


def test_method_outside_the_table_is_named_by_its_slot() -> None:
    assert records.sip_record(sip({"method": (0, 6)}, method=0)).method_name() == "INVITE"
    assert records.sip_record(sip({"cseq_method": (0, 6)}, method=0, status=200)).method_name() == "INVITE"


def test_rtp_record() -> None:
    fixed = records.RTP_FIXED.pack(0x1A2B3C4D, 160, 65_535, 8, 1, 172, 4, 5, 1, 0, 2)
    body = packet() + fixed + b"figures " * 2 + b"frame"
    record = records.rtp_record(body)
    assert (record.ssrc, record.timestamp, record.sequence, record.payload_type) == (
        0x1A2B3C4D,
        160,
        65_535,
        8,
    )
    assert (record.marker, record.payload_length, record.stream_slot, record.stream_generation) == (
        1,
        172,
        4,
        5,
    )
    assert (records.FOUND_BY[record.found_by], record.frame) == ("sdp", b"frame")
    assert record.figures == b"figures figures "
    with pytest.raises(ValueError, match="lacks the figures"):
        records.rtp_record(packet() + fixed + b"figures ")


@given(st.binary(max_size=700))
def test_any_octets_are_a_record_or_a_value_error(body: bytes) -> None:
    for read in (records.packet_header, records.sip_record, records.rtp_record):
        try:
            record = read(body)
        except ValueError:
            # RTP: fewer octets than the words of figures that it names.
            assert len(body) < records.SIP_MESSAGE or read is records.rtp_record
            continue
        if isinstance(record, records.SipRecord):
            record.method_name()
            for name in records.SLOTS:
                record.text(name)


@pytest.mark.parametrize("length", [0, 127])
def test_a_cut_header_is_named(length: int) -> None:
    with pytest.raises(ValueError, match=f"{length} octets"):
        records.packet_header(bytes(length))

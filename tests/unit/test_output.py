"""Records to packets: labels, payload, figures of streams."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest

from engine.reporters.output import BEHIND, MOST_AHEAD, OutputMaker, rtcp_packets, sdp_media
from engine.shm import records
from engine.shm.records import RTP_FIXED
from tests.builds import Build
from tests.output_records import INVITE, header, sip_body

if TYPE_CHECKING:
    pass


# ---- figures of streams ----


def stream_of(build: Build, packets: int) -> tuple[Any, int]:
    """A table with one stream, and its slot; packet 9 is lost, and two of 20."""
    table = build.module("engine.shm.streams").StreamTable.create("t", 0, 64)
    ports = 40012 | 50000 << 16 | 0x1234 << 32
    slot = table.add(1, 1, 2, 3, 4, ports, 0, 1_000_000_000)
    table.label(
        slot,
        1,
        0,
        1,
        8,
        8000,
        0,
        int.from_bytes(b"PCMA", "little"),
        0,
        memoryview(bytearray(128)).cast("Q"),
        0,
    )
    go_on(table, slot, 0, packets)
    return table, slot


def go_on(table: Any, slot: int, start: int, end: int) -> None:
    for n in range(start, end):
        if n not in (9, 20, 21):
            table.count(table.place(slot), 1_000_000_000 + 20_000_000 * n, n, 160 * n, 0, 160)


def record_of(table: Any, slot: int) -> bytes:
    """The body of an RTP record with the figures of a stream."""
    entry = table.copy(slot)
    generation = int.from_bytes(entry[12:16], "little")
    fixed = RTP_FIXED.pack(0x1234, 1, 1, 8, 0, 160, slot, generation, 1, 0, len(entry) // 8)
    return header() + fixed + bytes(entry)


def test_records_of_a_stream_have_all_its_figures(build: Build) -> None:
    table, slot = stream_of(build, 100)
    maker = OutputMaker("t", {}, streams=table.region.fd)
    packet = maker.make(records.RTP, 0, record_of(table, slot))
    assert packet is not None
    assert packet.payload is not None
    figures = packet.payload.as_dict()["stream"]
    known = table.read(slot)
    assert (figures["packets"], figures["lost"], figures["longest_loss"]) == (97, 3, 2)
    assert figures["mos"] == pytest.approx(known["mos"])
    assert figures["far"] is None
    assert {key: known[key] for key in figures} == figures
    behind = set(known) - set(table.read_entry(slot))
    assert behind == set(BEHIND), "every figure that the table has"


def test_figures_of_a_stream_that_went_on_are_unknown(build: Build) -> None:
    """A file is read faster than its lines are written: then they are of another moment."""
    table, slot = stream_of(build, 100)
    maker = OutputMaker("t", {}, streams=table.region.fd)
    body = record_of(table, slot)
    for end, known in ((100 + MOST_AHEAD, True), (101 + MOST_AHEAD, False)):
        go_on(table, slot, table.read(slot)["packets"] + 3, end)
        packet = maker.make(records.RTP, 0, body)
        assert packet is not None
        assert packet.payload is not None
        figures = packet.payload.as_dict()["stream"]
        assert figures["packets"] == 97
        assert (figures["mos"] is not None) is known
        assert set(BEHIND) <= set(figures)
    without = OutputMaker("t", {}).make(records.RTP, 0, body)
    assert without is not None
    assert without.payload is not None
    assert without.payload.as_dict()["stream"]["mos"] is None


# ---- records to packets ----


def test_interfaces_of_this_host_have_names() -> None:
    index = socket.if_nametoindex("lo")

    def shown(number: int, live: bool) -> Any:
        body = bytearray(sip_body(call_id=b"c1"))
        body[60:64] = number.to_bytes(4, "little")
        packet = OutputMaker("t", {}, live=live).make(records.SIP, 1_500_000_000, bytes(body))
        assert packet is not None
        return packet.as_dict()["network"]["interface"]

    assert shown(index, True) == "lo"
    assert shown(2_000_000_000, True) == 2_000_000_000
    assert shown(index, False) == index
    assert shown(0, True) is None


def test_sip_packet() -> None:
    body = sip_body(
        method=b"INVITE", uri=b"sip:b@x", call_id=b"c1", from_uri=b"sip:a@x", **{"from": b"<sip:a@x>;tag=1"}
    )
    found = OutputMaker("t", {"node": "n"}).make(records.SIP, 1_500_000_000, body)
    assert found is not None
    assert found.labels == {
        "node": "n",
        "sip.method": "INVITE",
        "sip.call-id": "c1",
        "sip.from": "sip:a@x",
        "sip.to": "",
    }
    line = found.as_dict()
    assert line["timestamp"] == "1970-01-01T00:00:01.500000Z"
    assert (line["src_ip"], line["dest_port"], line["proto"]) == ("10.0.0.1", 5062, "udp")
    assert line["network"]["src_mac"] == "02:00:00:00:00:01"
    assert line["network"]["vlans"] == [7]
    assert line["payload"]["message"] == INVITE.decode()
    assert line["payload"]["user_agent"] is None


@pytest.mark.parametrize("kind", [*records.KINDS, 99])
@pytest.mark.parametrize("length", [0, 1, 127, 128, 150, 399])
def test_cut_records_are_no_packets_or_packets(kind: int, length: int) -> None:
    OutputMaker("t", {}).make(kind, 0, sip_body()[:length])
    assert OutputMaker("t", {}).make(records.SIP, 0, sip_body()[:length]) is None


def test_rtcp() -> None:
    report = bytes([0x81, 201, 0, 7]) + bytes(28)
    assert rtcp_packets(report + bytes([0x81, 202, 0, 2]) + bytes(8))[1] == {
        "type": "SDES", "ssrc": 0, "count": 1, "octets": 12,
    }  # fmt: skip
    for cut in range(len(report)):
        rtcp_packets(report[:cut])


def test_sdp() -> None:
    media = sdp_media(
        b"v=0\r\nc=IN IP4 10.0.0.1\r\nm=audio 4000 RTP/AVP 8 101\r\na=rtpmap:8 PCMA/8000\r\na=sendonly\r\n"
        b"m=video 0 RTP/AVP 96\r\nc=IN IP6 ::1\r\n"
    )
    assert [one["port"] for one in media] == [4000, 0]
    assert media[0]["codecs"] == {"8": "PCMA/8000"}
    assert [one["direction"] for one in media] == ["sendonly", "sendrecv"]
    assert [one["address"] for one in media] == ["10.0.0.1", "::1"]
    for garbage in (
        b"m=",
        b"m=audio 99999999 x",
        b"a=rtpmap:\nm=a b c\na=rtpmap:",
        b"\xff\xfe=",
        b"c=IN\nm=a 1 b",
    ):
        sdp_media(garbage)

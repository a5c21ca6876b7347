"""RTCP figures, round trips, telephone events and the clock of real streams, against what tshark decodes."""

from __future__ import annotations

import os
import shutil
import statistics
import struct
import subprocess
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from engine.report import Analysis
from tests import captures
from tests.unit.test_streams import frame

ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("OTUS_CAPTURES") or ROOT.parent / "shared" / "captures")
RTCP_CAPTURES = (
    "sipcapture+hepagent/rtp_rtcp_sip.pcap",
    "goffinet+sip_captures/sip.pcapng",
    "goffinet+sip_captures/test_voip.pcap.pcapng",
    "gprshome+wireshark/sip.pcap",
    "andistroie+EIM-Laborator9/sip.pcap",
    "vitalybupt+wireshark_samples/cisco.pcap",
    "vitalybupt+wireshark_samples/cisco_callout.pcap",
    "vitalybupt+wireshark_samples/ctcloud_cvi.pcap",
    "vitalybupt+wireshark_samples/opus.pcap",
)
pytestmark = [
    pytest.mark.skipif(
        not FOLDER.is_dir(), reason=f"no captures: {FOLDER} (OTUS_CAPTURES names another folder)"
    ),
    pytest.mark.skipif(shutil.which("tshark") is None, reason="needs tshark"),
]


def there(name: str) -> Path:
    path = FOLDER / name
    if not path.is_file():
        pytest.skip(f"{name} is not in the collection")
    return path


def tshark(path: Path, display: str, *fields: str, options: tuple[str, ...] = ()) -> list[list[str]]:
    """One list of fields a packet; several values of a field stand with commas between them."""
    command = ["tshark", *options, "-r", str(path), "-Y", display, "-T", "fields", "-E", "occurrence=a"]
    for field in fields:
        command += ["-e", field]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return [line.split("\t") for line in done.stdout.splitlines()]


@cache
def rows(name: str) -> list[dict[str, Any]]:
    analysis = Analysis(str(there(name)))
    analysis.run()
    return list(analysis.streams.rows(detail=True))


RTCP_FIELDS = (
    "frame.time_epoch", "ip.src", "ip.dst", "rtcp.pt", "rtcp.senderssrc", "rtcp.sender.packetcount",
    "rtcp.sender.octetcount", "rtcp.timestamp.ntp.msw", "rtcp.timestamp.ntp.lsw", "rtcp.ssrc.identifier",
    "rtcp.ssrc.fraction", "rtcp.ssrc.cum_nr", "rtcp.ssrc.ext_high", "rtcp.ssrc.jitter", "rtcp.ssrc.lsr",
    "rtcp.ssrc.dlsr",
)  # fmt: skip
Key = tuple[str, str, int]


def values(text: str) -> list[int]:
    return [int(value, 0) for value in text.split(",") if value]


class Reports:
    """What tshark says of each stream; round trips are computed from that (RFC 3550 section 6.4.1)."""

    def __init__(self, path: Path) -> None:
        self.senders: dict[Key, list[tuple[int, int]]] = defaultdict(list)
        self.blocks: dict[Key, list[tuple[int, ...]]] = defaultdict(list)
        self.trips: dict[Key, list[float]] = defaultdict(list)
        self.sent: dict[Key, list[tuple[int, float]]] = defaultdict(list)
        for line in tshark(path, "rtcp && ip", *RTCP_FIELDS):
            if "," not in line[1]:
                self.take(float(line[0]), line[1], line[2], *map(values, line[3:]))

    def take(self, time: float, src: str, dst: str, kinds: list[int], *columns: list[int]) -> None:
        own, packets, octets, high, low, *blocks = columns
        for about, fraction, lost, highest, jitter, last, delay in (
            zip(*blocks, strict=True) if len({*map(len, blocks)}) == 1 else ()
        ):
            self.blocks[dst, src, about].append((fraction, lost, highest, jitter))
            for middle, when in self.sent[dst, src, about][-2:]:
                trip = (time - when - delay / 65536) * 1000
                if middle == last and trip > -5:
                    self.trips[dst, src, about].append(max(0.0, trip))
        if kinds[:1] == [200] and len(packets) == 1:
            self.senders[src, dst, own[0]].append((packets[0], octets[0]))
            self.sent[src, dst, own[0]].append(((high[0] & 0xFFFF) << 16 | low[0] >> 16, time))


@pytest.mark.parametrize("name", RTCP_CAPTURES)
def test_reports_of_both_ends(name: str) -> None:
    """The newest sender report and report block of each stream, how many there were, and all round trips."""
    truth = Reports(there(name))
    checked = 0
    for row in rows(name):
        key = row["src"], row["dst"], row["ssrc"]
        sender, far = row["sender"], row["far"]
        if key in truth.senders and sender and sender["reports"]:
            # The first ones may come before the stream is known.
            assert 0 <= len(truth.senders[key]) - sender["reports"] <= 2, key
            assert (sender["packets"], sender["bytes"]) == truth.senders[key][-1], key
            checked += 1
        if key in truth.blocks and far:
            fraction, lost, highest, jitter = truth.blocks[key][-1]
            assert far["reports"] == len(truth.blocks[key]), key
            assert far["lost_pct"] == pytest.approx(100 * fraction / 256)
            assert (far["lost"], far["highest_sequence"]) == (lost, highest), key
            if row["codec"] == "PCMU":
                assert far["jitter_ms"] == pytest.approx(jitter / 8)
            checked += 1
        trips = truth.trips.get(key, [])
        if trips and far and far["rtt_ms"] is not None and sender["reports"] == len(truth.senders[key]):
            assert far["rtt_ms"] == pytest.approx(trips[-1], abs=0.1), key
            assert far["rtt_min_ms"] == pytest.approx(min(trips), abs=0.1), key
            assert far["rtt_max_ms"] == pytest.approx(max(trips), abs=0.1), key
            assert far["rtt_mean_ms"] == pytest.approx(sum(trips) / len(trips), abs=0.1), key
            checked += 1
    assert checked


def test_round_trips_are_those_that_tshark_shows() -> None:
    name = "vitalybupt+wireshark_samples/opus.pcap"
    shown = tshark(
        there(name), "rtcp.roundtrip-delay", "rtcp.roundtrip-delay",
        options=("-o", "rtcp.show_roundtrip_calculation:TRUE"),
    )  # fmt: skip
    (row,) = (row for row in rows(name) if row["far"] and row["far"]["rtt_ms"] is not None)
    assert row["far"]["rtt_ms"] == pytest.approx(int(shown[-1][0]), abs=1)
    assert row["far"]["rtt_max_ms"] == pytest.approx(max(int(line[0]) for line in shown), abs=1)


# ---- the sender's clock ----


@pytest.mark.parametrize(
    "name",
    [
        "goffinet+sip_captures/sip.pcapng",
        "NormB+sipnab/g711a.pcap",
        "lundgrel+sipp-scenarios/Erica_ssrc0x576392e0.pcap",
        "lundgrel+sipp-scenarios/sipp_uac_ssrc_change.pcap",
        "vitalybupt+wireshark_samples/cisco.pcap",
    ],
)
def test_skew_equals_a_line_through_the_fastest_packets(name: str) -> None:
    """Least squares through the smallest transit of each second, of what tshark decodes."""
    checked = 0
    for row in rows(name):
        if row["skew_ppm"] is None or row["duration_s"] < 14 or row["codec"] not in ("PCMU", "PCMA"):
            continue
        packets = tshark(
            there(name),
            f"rtp.ssrc == {row['ssrc']} && ip.src == {row['src']} && ip.dst == {row['dst']}",
            "frame.time_epoch",
            "rtp.timestamp",
            options=("--enable-heuristic", "rtp_udp"),
        )
        start, stamp = float(packets[0][0]), int(packets[0][1])
        least: dict[int, tuple[float, float]] = {}
        for time, timestamp in packets:
            at = float(time) - start
            transit = at - (int(timestamp) - stamp) % (1 << 32) / 8000
            least[int(at)] = min(least.get(int(at), (9.0, 0.0)), (transit, at))
        slope = statistics.linear_regression(
            [at for _, at in least.values()], [t for t, _ in least.values()]
        )[0]
        # Both lines may be 0.3 ms apart at the end of the stream.
        allowed = 15 + 300 / row["duration_s"]
        assert row["skew_ppm"] == pytest.approx(-slope * 1e6, abs=allowed), row["ssrc"]
        checked += 1
    assert checked


# ---- telephone events ----


def frames(path: Path) -> list[tuple[int, bytes]]:
    """Packets of a little-endian pcap file, as (ns, frame)."""
    octets, found, place = path.read_bytes(), [], 24
    while place < len(octets):
        seconds, micros, length, _ = struct.unpack_from("<IIII", octets, place)
        found.append((seconds * 10**9 + micros * 1000, octets[place + 16 : place + 16 + length]))
        place += 16 + length
    return found


@pytest.mark.parametrize(
    ("digit", "code"), [("1", 1), ("3", 3), ("5", 5), ("6", 6), ("8", 8), ("9", 9), ("pound", 11)]
)
def test_digits_that_others_sent(digit: str, code: int, tmp_path: Path) -> None:
    """Real packets of one key, behind an offer that names their payload type, as tshark reads them."""
    packets = frames(there(f"SIPp+sipp/dtmf_2833_{digit}.pcap"))
    time, first = packets[0]
    head = 14 + 4 * (first[14] & 15)
    host = ".".join(map(str, first[30:34]))
    port = int.from_bytes(first[head + 2 : head + 4], "big")
    number = first[head + 9] & 127
    invite = offer(host, port, number)
    path = tmp_path / "digit.pcap"
    path.write_bytes(captures.pcap([(time - 10**9, invite), *packets]))
    decoded = tshark(path, "rtpevent", "rtpevent.event_id", "rtpevent.duration", "rtp.timestamp")
    assert {int(line[0], 0) for line in decoded} == {code}
    analysis = Analysis(str(path))
    analysis.run()
    (row,) = analysis.streams.rows(detail=True)
    assert row["digits"] == ("#" if code == 11 else str(code))
    (event,) = row["dtmf"]
    longest = max(int(line[1], 0) for line in decoded)
    assert event["duration_ms"] == longest // 8
    assert (event["time_ns"], event["ended"]) == (time, True)
    assert row["telephone_events"] == len(decoded) == len(packets)


def offer(host: str, port: int, number: int) -> bytes:
    """A frame with an INVITE whose SDP opens `host:port`."""
    sdp = (
        f"v=0\r\no=- 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\n"
        f"m=audio {port} RTP/AVP 8 {number}\r\n"
        f"a=rtpmap:8 PCMA/8000\r\na=rtpmap:{number} telephone-event/8000\r\n"
    )
    text = (
        f"INVITE sip:b@{host} SIP/2.0\r\nVia: SIP/2.0/UDP {host};branch=z9hG4bK1\r\n"
        f"From: <sip:a@{host}>;tag=1\r\n"
        f"To: <sip:b@{host}>\r\nCall-ID: digit@test\r\nCSeq: 1 INVITE\r\n"
        f"Content-Type: application/sdp\r\nContent-Length: {len(sdp)}\r\n\r\n{sdp}"
    ).encode()
    return frame(1, 2, 5060, 5060, text)

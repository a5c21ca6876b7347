"""The figures of media streams: against RFC 3550, against tshark, between the two builds."""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.shm.counters import Counters
from tests.builds import COMPILED, PURE, Build

START = 1_700_000_000_000_000_000
MS = 1_000_000
KEY = (0, 0x0100000AFFFF0000, 0, 0x0200000AFFFF0000)
PORTS = 4000 | 5000 << 16 | 0x1234 << 32
NO_CALL = memoryview(bytearray(128)).cast("Q")


class Stream:
    """One stream in a table of its own."""

    def __init__(self, build: Build, slots: int = 64, ttl: int = 0) -> None:
        self.table: Any = build.module("engine.shm.streams").StreamTable.create("test", 0, slots, ttl)
        self.slot = self.add(PORTS)
        self.time = START

    def add(self, ports: int, now: int = START) -> int:
        return int(self.table.add(99, *KEY, ports, 0, now))

    def label(
        self, payload_type: int = 0, clock: int = 8000, kind: int = 0, found_by: int = 1, name: str = "PCMU"
    ) -> None:
        word = int.from_bytes(name.encode().ljust(8, b"\0"), "little")
        self.table.label(self.slot, found_by, 7, 1, payload_type, clock, kind, word, 0, NO_CALL, 0)

    def packet(self, sequence: int, timestamp: int, gap_ms: float = 20, marker: int = 0) -> None:
        self.time += int(gap_ms * MS)
        self.table.count(
            self.table.place(self.slot),
            self.time,
            sequence & 0xFFFF,
            timestamp & 0xFFFFFFFF,
            marker,
            160,
        )

    def row(self) -> dict[str, Any]:
        row = self.table.read(self.slot)
        assert row is not None
        return dict(row)


def test_a_stream_without_loss(build: Build) -> None:
    stream = Stream(build)
    stream.label()
    for number in range(100):
        stream.packet(65500 + number, 160 * number)
    row = stream.row()
    assert (row["packets"], row["expected"], row["lost"], row["bytes"]) == (100, 100, 0, 16000)
    assert (row["out_of_order"], row["duplicates"], row["resets"]) == (0, 0, 0)
    assert row["mean_jitter_ms"] == pytest.approx(0, abs=1e-6)
    assert row["max_delta_ms"] == pytest.approx(20)
    assert (row["src"], row["sport"], row["dst"], row["dport"], row["ssrc"]) == (
        "10.0.0.1",
        4000,
        "10.0.0.2",
        5000,
        0x1234,
    )
    assert (row["codec"], row["payload_types"], row["found_by"]) == ("PCMU", [0], "sdp")
    assert row["duration_s"] == pytest.approx(1.98)


def test_streams_are_found_by_their_whole_key(build: Build) -> None:
    stream = Stream(build)
    other = stream.add(PORTS + (1 << 32))
    assert other != stream.slot
    assert stream.table.find(99, *KEY, PORTS, 0) == stream.slot
    assert stream.table.find(99, *KEY, PORTS + (1 << 32), 0) == other
    assert stream.table.find(99, *KEY, PORTS + (2 << 32), 0) == -1
    assert stream.table.find(99, *KEY, PORTS, 1) == -1
    assert stream.table.figures()["added"] == 2


def test_loss_disorder_and_duplicates_are_told_apart(build: Build) -> None:
    stream = Stream(build)
    stream.label()
    for number in (0, 1, 2, 5, 4, 5, 6, 6, 9, 10):
        stream.packet(number, 160 * number)
    row = stream.row()
    assert (row["packets"], row["expected"], row["lost"]) == (10, 11, 1)
    assert (row["out_of_order"], row["duplicates"]) == (1, 2)


def test_a_new_sequence_is_neither_loss_nor_disorder_to_us(build: Build) -> None:
    stream = Stream(build)
    stream.label()
    for number in (*range(10), *range(40000, 40010)):
        stream.packet(number, 160 * number)
    assert stream.row()["resets"] == 1


def test_jitter_is_that_of_rfc_3550(build: Build) -> None:
    stream = Stream(build)
    stream.label()
    jitter = 0.0
    for number, gap in enumerate([20, 25, 15, 40, 0.5, 20, 21, 19]):
        stream.packet(number, 160 * number, gap)
        if number:
            jitter += (abs(gap - 20) - jitter) / 16
    assert stream.row()["jitter_ms"] == pytest.approx(jitter, abs=1e-6)


def test_marker_noise_and_events_stay_out_of_the_jitter(build: Build) -> None:
    stream = Stream(build)
    for number in range(20):
        kind = {5: 1, 10: 2}.get(number, 0)
        payload_type = {5: 13, 10: 101}.get(number, 0)
        stream.label(payload_type, 8000, kind, name="PCMU" if kind == 0 else "CN")
        stream.packet(number, 160 * number, 200 if number in (5, 6, 15) else 20, int(number == 15))
    row = stream.row()
    assert row["max_delta_ms"] == pytest.approx(20)
    assert (row["comfort_noise"], row["telephone_events"], row["markers"]) == (1, 1, 1)
    assert row["payload_types"] == [0, 13, 101]
    assert row["codec"] == "PCMU"


def test_unknown_clock_rate_means_unknown_jitter(build: Build) -> None:
    stream = Stream(build)
    stream.label(96, 0, name="")
    for number in range(5):
        stream.packet(number, 160 * number)
    row = stream.row()
    assert (row["jitter_ms"], row["mean_jitter_ms"], row["max_jitter_ms"], row["codec"]) == (None,) * 4


def test_the_call_of_the_first_sdp_stays(build: Build) -> None:
    stream = Stream(build)
    stream.label(found_by=2)
    stream.packet(1, 0)
    first, second = (
        memoryview(bytearray(text.ljust(128, b"\0"))).cast("Q") for text in (b"first", b"second")
    )
    assert stream.row()["found_by"] == "heuristic"
    stream.table.label(stream.slot, 1, 7, 2, 0, 8000, 0, 0, 0, first, 0)
    stream.table.label(stream.slot, 1, 7, 3, 0, 8000, 0, 0, 0, second, 0)
    assert (stream.row()["call_id"], stream.row()["found_by"]) == ("first", "sdp")


def test_changed_gives_what_had_packets(build: Build) -> None:
    stream = Stream(build)
    stream.label()
    stream.packet(1, 0)
    version, slots = stream.table.changed(0)
    assert slots == [stream.slot]
    for _ in range(3):
        version, slots = stream.table.changed(version)
    assert slots == []
    stream.packet(2, 160)
    assert stream.table.changed(version)[1] == [stream.slot]


def test_a_full_table_refuses_until_streams_expire(build: Build) -> None:
    stream = Stream(build, 64, 60_000 * MS)
    slots = [stream.add(PORTS + (number << 32)) for number in range(1, 200)]
    assert -1 in slots
    assert stream.table.figures()["used"] <= 64
    assert stream.add(PORTS + (500 << 32), START + 61_000 * MS) >= 0
    stream.table.sweep(START + 200_000 * MS, 64)
    assert stream.table.figures()["used"] == 0
    assert stream.table.rows() == []


def test_a_killed_worker_leaves_no_lock(build: Build) -> None:
    stream = Stream(build)
    stream.label()
    stream.packet(1, 0)
    words = stream.table.region.words
    entry = words[64 + 2 * stream.slot + 1]
    words[entry] |= 9
    assert stream.table.read(stream.slot) is None
    assert stream.table.count(entry, START, 2, 160, 0, 160) == 1
    assert stream.table.figures()["busy"] == 1
    assert stream.table.break_locks(3) == 0
    assert stream.table.break_locks(8) == 1
    stream.packet(2, 160)
    assert stream.row()["packets"] == 2


packets = st.lists(
    st.tuples(
        st.integers(-70000, 70000), st.integers(-(1 << 33), 1 << 33), st.floats(-100, 5000),
        st.sampled_from([0, 13, 101]), st.integers(0, 1),
    ),
    max_size=40,
)  # fmt: skip


@given(packets=packets)
@settings(max_examples=100, deadline=None)
def test_both_builds_compute_the_same(packets: list[tuple[int, int, float, int, int]]) -> None:
    """Bit by bit, whatever the sequence numbers, timestamps and times are."""
    twins = [Stream(build) for build in (COMPILED, PURE)]
    for stream in twins:
        for sequence, timestamp, gap, payload_type, marker in packets:
            stream.label(payload_type, 8000, {13: 1, 101: 2}.get(payload_type, 0))
            stream.packet(sequence, timestamp, gap, marker)
    rows = [stream.table.rows(True) for stream in twins]
    for row in (*rows[0], *rows[1]):
        row.pop("id")
    assert rows[0] == rows[1]


# ---- against tshark ----


def frame(src: int, dst: int, sport: int, dport: int, payload: bytes) -> bytes:
    datagram = struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload
    header = struct.pack(
        "!BBHHHBBH4B4B", 0x45, 0, 20 + len(datagram), 1, 0, 64, 17, 0, 10, 0, 0, src, 10, 0, 0, dst
    )
    return bytes(12) + b"\x08\0" + header + datagram


def sip(first: str, host: int, port: int) -> bytes:
    sdp = (
        f"v=0\r\no=- 1 1 IN IP4 10.0.0.{host}\r\ns=-\r\nc=IN IP4 10.0.0.{host}\r\nt=0 0\r\n"
        f"m=audio {port} RTP/AVP 0 8 13 101 97 98\r\na=rtpmap:101 telephone-event/8000\r\n"
        "a=rtpmap:97 opus/48000/2\r\na=rtpmap:98 iLBC/8000\r\n"
    )
    return (
        f"{first}\r\nVia: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bK1\r\nFrom: <sip:a@10.0.0.1>;tag=1\r\n"
        "To: <sip:b@10.0.0.2>;tag=2\r\nCall-ID: random@test\r\nCSeq: 1 INVITE\r\n"
        f"Content-Type: application/sdp\r\nContent-Length: {len(sdp)}\r\n\r\n{sdp}"
    ).encode()


def disturbed_call(path: Path, seed: int) -> None:
    """A call whose media has loss, disorder, duplicates, jumps, wraps, noise, events and changes of codec."""
    dice = random.Random(seed)
    packets = [
        (1_000_000, frame(1, 2, 5060, 5060, sip("INVITE sip:b@10.0.0.2 SIP/2.0", 1, 4000))),
        (1_050_000, frame(2, 1, 5060, 5060, sip("SIP/2.0 200 OK", 2, 5000))),
    ]
    media = []
    for src, dst, sport, dport in ((1, 2, 4000, 5000), (2, 1, 5000, 4000)):
        for _ in range(dice.choice([1, 1, 2])):
            ssrc = dice.getrandbits(32)
            sequence = dice.choice([0, 1, dice.getrandbits(16), 65300, 65535])
            timestamp = dice.choice([0, dice.getrandbits(32), 0xFFFFFFF0, 0xFFFF0000])
            usual, time = dice.choice([0, 8, 97, 98]), 1_100_000 + dice.randrange(20_000)
            for _ in range(300):
                chance, payload_type = dice.random(), usual
                if chance < 0.05:
                    payload_type = dice.choice([13, 101, 0, 98])
                elif chance < 0.06:
                    usual = dice.choice([0, 8, 97, 98])
                sequence += dice.choice([-2000, -3, 2, 5, 20]) if dice.random() < 0.03 else 0
                timestamp += dice.choice([-9000, 1 << 18, 4000]) if dice.random() < 0.01 else 0
                marker = int(dice.random() < 0.03)
                at = time + dice.randrange(3000) + (dice.randrange(90_000) if dice.random() < 0.04 else 0)
                head = struct.pack(
                    "!BBHII",
                    0x80,
                    marker << 7 | payload_type,
                    sequence & 0xFFFF,
                    timestamp & 0xFFFFFFFF,
                    ssrc,
                )
                media.append((at, frame(src, dst, sport, dport, head + bytes(160))))
                if dice.random() < 0.02:
                    media.append((at + dice.randrange(1, 30_000), media[-1][1]))
                sequence, timestamp, time = sequence + 1, timestamp + 160, time + 20_000
    with path.open("wb") as file:
        file.write(struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for at, octets in packets + sorted(media, key=lambda packet: packet[0]):
            file.write(
                struct.pack("<IIII", at // 1_000_000, at % 1_000_000, len(octets), len(octets)) + octets
            )


def tshark_streams(path: Path) -> dict[Any, tuple[float, ...]]:
    """Packets, lost, largest delta, mean and largest jitter by stream, as tshark prints them."""
    command = ["tshark", "-n", "-q", "-z", "rtp,streams", "-r", str(path)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    streams = {}
    for line in lines:
        parts = line.split()
        if len(parts) > 10 and parts[6].startswith("0x"):
            figures = [part for part in parts[7:] if part.replace(".", "").replace("-", "").isdigit()]
            packets, lost, _, _, max_delta, _, mean_jitter, max_jitter = map(float, figures[:8])
            key = (parts[2], int(parts[3]), parts[4], int(parts[5]), int(parts[6], 16))
            streams[key] = (packets, lost, max_delta, mean_jitter, max_jitter)
    return streams


@pytest.mark.skipif(shutil.which("tshark") is None, reason="needs tshark (Debian package tshark)")
@pytest.mark.parametrize("seed", range(4))
def test_figures_equal_those_of_tshark(tmp_path: Path, seed: int) -> None:
    """Through the whole road: file, decoder, SIP and SDP, registry, figures."""
    from engine.capture.pcap_file import PcapFile
    from engine.decode.classifier import Decoder
    from engine.pipeline.loop import Pipeline
    from engine.shm.flows import FlowTable
    from engine.shm.streams import StreamTable

    path = tmp_path / "call.pcap"
    disturbed_call(path, seed)
    counters = Counters.create("test", 0)
    streams = StreamTable.create("test", 0, 64)
    flows = FlowTable.create("test", 0, 64)
    road = Pipeline(counters, flows, streams, None, None, None, Decoder(counters.words), {})
    file = PcapFile(path, road)
    while file.run(1000):
        pass
    file.close()
    assert counters.balance() == 0
    found = {
        (row["src"], row["sport"], row["dst"], row["dport"], row["ssrc"]): pytest.approx(
            (row["packets"], row["lost"], row["max_delta_ms"], row["mean_jitter_ms"], row["max_jitter_ms"]),
            abs=0.0011,
        )
        for row in streams.rows()
    }
    assert tshark_streams(path) == found

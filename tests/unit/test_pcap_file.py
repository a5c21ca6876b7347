"""The reader of capture files, in both builds."""

from __future__ import annotations

import gzip
import os
import random
import struct
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.utils import wrpcap, wrpcapng

from engine.errors import OtusError, UsageError
from tests import captures
from tests.builds import BUILDS, COMPILED, PURE, Build
from tests.pace import within

PACKETS = [(1_700_000_000_123_456_789 + 1_000_001 * n, bytes([n]) * n) for n in range(40)]
MICRO = [(time // 1000 * 1000, octets) for time, octets in PACKETS]
ORDERS = (captures.LITTLE, captures.BIG)


def make_sink(build: Build) -> Any:
    """A sink of this build that keeps what it is given."""

    class Kept(build.module("engine.capture.sink").PacketSink):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rows: list[tuple[Any, ...]] = []
            self.buffer = memoryview(b"")

        def attach(self, buf: Any) -> None:
            self.buffer = memoryview(buf)

        def packet(self, start: int, end: int, *facts: int) -> int:
            self.rows.append((bytes(self.buffer[start:end]), *facts))
            return 0

    return Kept()


def read(build: Build, source: str | Path | int, most: int = 7) -> tuple[Any, Any]:
    """The file and the sink after the whole run."""
    sink = make_sink(build)
    file = build.module("engine.capture.pcap_file").PcapFile(source, sink)
    total = 0
    while count := file.run(most):
        assert count <= most
        total += count
    assert file.run(most) == 0
    assert file.packets == total == len(sink.rows)
    file.close()
    return file, sink


def outcome(build: Build, path: Path) -> tuple[Any, ...]:
    """Everything that a file gives, an error included."""
    try:
        file, sink = read(build, path)
    except OtusError as error:
        return type(error).__name__, error.message, error.hint
    facts = (file.format, file.packets, file.first_ns, file.last_ns, file.truncated, file.link_types)
    return *facts, file.interface_names, file.octets_read, sink.rows


def rows(packets: list[tuple[int, bytes]], number: int = 0, link_type: int = 1) -> list[tuple[Any, ...]]:
    """What the sink gets for these packets."""
    return [(octets, len(octets), time, number, link_type, 0, 0) for time, octets in packets]


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("nanoseconds", [False, True])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("form", ["pcap", "pcapng"])
def test_every_form(
    build: Build, tmp_path: Path, form: str, order: str, nanoseconds: bool, compressed: bool
) -> None:
    octets = getattr(captures, form)(PACKETS, order, nanoseconds, 113)
    path = captures.write(tmp_path / "a", octets, compressed)
    file, sink = read(build, path)
    expected = PACKETS if nanoseconds else MICRO
    assert sink.rows == rows(expected, link_type=113)
    assert file.format == form + (" gzip" if compressed else "")
    assert (file.first_ns, file.last_ns) == (expected[0][0], expected[-1][0])
    assert file.truncated == ""
    assert file.link_types == [113]
    assert file.size == file.octets_read == path.stat().st_size


@pytest.mark.parametrize("order", ORDERS)
def test_older_forms_of_pcap(build: Build, tmp_path: Path, order: str) -> None:
    modified = captures.write(tmp_path / "a", captures.pcap(PACKETS, order, modified=True))
    assert read(build, modified)[1].rows == rows(MICRO)
    # Before version 2.3 the two lengths stood in the other order.
    whole = [(0, b"abcd", 9)]
    swapped = bytearray(captures.pcap(whole, order, version=(2, 2)))
    swapped[32:40] = swapped[36:40] + swapped[32:36]
    path = captures.write(tmp_path / "b", bytes(swapped))
    assert read(build, path)[1].rows == [(b"abcd", 9, 0, 0, 1, 0, 0)]
    # The upper half of the link type says how long a checksum is behind each frame.
    path = captures.write(tmp_path / "c", captures.pcap(PACKETS, order, link_type=0x14000071))
    assert read(build, path)[0].link_types == [113]


def test_scapy_writes_what_we_read(build: Build, tmp_path: Path) -> None:
    frames = [Ether(dst="02:00:00:00:00:01") / IP() / UDP() / Raw(octets) for _, octets in PACKETS]
    wrpcap(str(tmp_path / "a.pcap"), frames)
    wrpcapng(str(tmp_path / "a.pcapng"), frames)
    for name in ("a.pcap", "a.pcapng"):
        assert [row[0] for row in read(build, tmp_path / name)[1].rows] == [bytes(frame) for frame in frames]


def test_several_sections_and_interfaces(build: Build, tmp_path: Path) -> None:
    big = captures.BIG
    octets = b"".join(
        (
            captures.section(),
            captures.interface(name="eth0"),
            captures.interface(link_type=113, resolution=9, name="any"),
            captures.block(0x0000000B, bytes(700_000)),
            captures.enhanced(5, b"one", 0, options=captures.option(1, b"a comment")),
            captures.enhanced(7, b"two", 1, wire=1500),
            captures.block(5, bytes(20)),
            captures.section(big),
            captures.interface(big, link_type=101, resolution=0x80 | 10, offset=100),
            captures.enhanced(1536, b"three", 0, order=big),
            captures.obsolete(2048, b"four", 0, order=big),
            captures.simple(b"five", order=big),
        )
    )
    file, sink = read(build, captures.write(tmp_path / "a", octets))
    assert sink.rows == [
        (b"one", 3, 5000, 0, 1, 0, 0),
        (b"two", 1500, 7, 1, 113, 0, 0),
        (b"three", 5, 101_500_000_000, 2, 101, 0, 0),
        (b"four", 4, 102_000_000_000, 2, 101, 0, 0),
        (b"five", 4, 102_000_000_000, 2, 101, 0, 0),
    ]
    assert file.interface_names == ["eth0", "any", ""]
    assert file.link_types == [1, 113, 101]
    assert (file.first_ns, file.last_ns) == (7, 102_000_000_000)


@pytest.mark.parametrize("resolution", [0, 3, 6, 9, 10, 12, 18, 28, 127, *range(0x80, 0x100, 7), 0xFF])
def test_resolutions(build: Build, tmp_path: Path, resolution: int) -> None:
    units = [0, 1, 999, 123_456_789_012, 0xFFFF_FFFF, 1 << 63, (1 << 64) - 1]
    octets = captures.section() + captures.interface(resolution=resolution)
    octets += b"".join(captures.enhanced(value, b"x") for value in units)
    power = resolution & 0x7F
    unit = (1 << power) if resolution & 0x80 else 10**power
    for value, row in zip(units, read(build, captures.write(tmp_path / "a", octets))[1].rows, strict=True):
        exact = value * 10**9 // unit
        # Powers of two beyond 2**34 to a second are cut to that, 0.06 ns.
        assert (exact - row[2]) % (1 << 64) <= (1 if resolution & 0x80 and power > 34 else 0)


def test_snap_length_of_a_simple_packet(build: Build, tmp_path: Path) -> None:
    octets = captures.section() + captures.interface(snap_length=5) + captures.simple(b"12345", wire=100)
    assert read(build, captures.write(tmp_path / "a", octets))[1].rows == [(b"12345", 100, 0, 0, 1, 0, 0)]


def test_many_interfaces(build: Build, tmp_path: Path) -> None:
    octets = captures.section() + captures.interface(link_type=101) * 40
    octets += b"".join(captures.enhanced(n, b"x", n) for n in range(40))
    assert [row[3] for row in read(build, captures.write(tmp_path / "a", octets))[1].rows] == list(range(40))


def test_each_interface_with_a_link_type_of_its_own(build: Build, tmp_path: Path) -> None:
    """The most interfaces that are taken, in a time that grows as their number does."""
    octets = captures.section() + b"".join(captures.interface(link_type=number) for number in range(65_536))
    path = captures.write(tmp_path / "a", octets + captures.enhanced(65_535, b"x"))

    def load() -> None:
        file = read(build, path)[0]
        assert (len(file.link_types), file.packets) == (65_536, 1)

    assert within(10_000, load, tries=2)


def test_no_more_octets_than_there_is_room_for(build: Build, tmp_path: Path) -> None:
    for form in (captures.pcap, captures.pcapng):
        path = captures.write(tmp_path / "a", form([(number, bytes(1000)) for number in range(10)]))
        file = build.module("engine.capture.pcap_file").PcapFile(path, make_sink(build))
        assert [file.run(7, room) for room in (0, 1000, 1500, 2500, 9999, 9999)] == [1, 1, 2, 3, 3, 0]
        file.close()


@pytest.mark.parametrize("compressed", [False, True])
def test_longer_than_the_buffer(build: Build, tmp_path: Path, compressed: bool) -> None:
    chance = random.Random(1)
    packets = [(n * 1000, chance.randbytes(chance.choice((0, 60, 1500, 65_536, 262_144)))) for n in range(60)]
    for form in (captures.pcap, captures.pcapng):
        path = captures.write(tmp_path / "a", form(packets), compressed)
        assert read(build, path)[1].rows == rows(packets)


def test_gzip_of_several_members(build: Build, tmp_path: Path) -> None:
    octets = captures.pcap(PACKETS)
    path = tmp_path / "a"
    path.write_bytes(gzip.compress(octets[:100]) + gzip.compress(octets[100:]) + bytes(40))
    file, sink = read(build, path)
    assert sink.rows == rows(MICRO)
    assert file.truncated == ""


def test_every_cut_of_a_file(build: Build, tmp_path: Path) -> None:
    for form, header in ((captures.pcap, 24), (captures.pcapng, 28)):
        octets = form(PACKETS[:6])
        path = tmp_path / "a"
        whole = 0
        for cut in range(len(octets)):
            path.write_bytes(octets[:cut])
            if cut < header:
                with pytest.raises(UsageError):
                    read(build, path)
                continue
            file, sink = read(build, path)
            assert sink.rows == rows(MICRO[: len(sink.rows)])
            assert len(sink.rows) >= whole
            whole = len(sink.rows)
            assert not file.truncated or file.truncated.endswith(f"at octet {cut}")
        assert whole >= 5
    file, _ = read(build, captures.write(path, captures.pcap(PACKETS)[:-1]))
    assert file.truncated == f"cut in the middle of packet 40 at octet {len(captures.pcap(PACKETS)) - 1}"


def test_cut_gzip(build: Build, tmp_path: Path) -> None:
    packets = [(n, random.Random(n).randbytes(900)) for n in range(300)]
    octets = gzip.compress(captures.pcap(packets))
    path = captures.write(tmp_path / "a", octets[: len(octets) // 2])
    file, sink = read(build, path)
    assert 100 < len(sink.rows) < 200
    assert file.truncated.startswith(f"the gzip stream is cut at octet {len(octets) // 2}, cut in the middle")
    file, sink = read(build, captures.write(path, octets[:-8] + bytes(8)))
    assert len(sink.rows) == 300
    assert "the gzip stream is damaged near octet" in file.truncated
    assert file.truncated.endswith(", behind packet 300")
    with pytest.raises(UsageError, match="gzip stream is cut"):
        read(build, captures.write(path, octets[:8]))


@pytest.mark.parametrize(
    ("octets", "message", "hint"),
    [
        (b"", "is empty", "give a pcap"),
        (b"\xd4", "begins with d4", "d4 c3 b2 a1"),
        (b"hello, world\n", "begins with 68 65 6c 6c 6f 2c 20 77", "0a 0d 0d 0a"),
        (b"\x28\xb5\x2f\xfd....", "zstd", "zstd -d"),
        (b"PK\x03\x04....", "zip archive", "unzip"),
        (gzip.compress(b"hello", mtime=0), "begins with 68", "pcap"),
        (gzip.compress(b"", mtime=0), "is empty", "give a pcap"),
        (captures.pcap([])[:23], "is cut in its header, after 23 of 24", "incomplete"),
        (captures.pcap([], version=(5, 0)), "version 5.0", "version 2"),
        (captures.section(version=(2, 0)), "a section of version 2.0", ""),
        (b"\n\r\r\n" + struct.pack("<I", 28) + bytes(20), "byte order 00 00 00 00", ""),
        (captures.section()[:4] + b"\x1d\0\0\0" + captures.section()[8:], "header of 29 octets", ""),
        (captures.section()[:-4] + b"\x20\0\0\0", "ends with the length 32", "at its begin and end"),
        (captures.section() + struct.pack("<III", 6, 8, 8), "a block of 8 octets", ""),
        (captures.section() + captures.enhanced(0, b"x"), "interface 0, which was not described", ""),
        (captures.section() + captures.block(1, b""), "interface description of 12", ""),
        (captures.section() + captures.interface() + captures.block(6, b"abc"), "packet block of 16", ""),
    ],
)
def test_what_is_no_capture(build: Build, tmp_path: Path, octets: bytes, message: str, hint: str) -> None:
    path = captures.write(tmp_path / "a.pcap", octets)
    with pytest.raises(UsageError) as caught:
        read(build, path)
    assert str(path) in caught.value.message
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.hint


def test_no_such_file(build: Build, tmp_path: Path) -> None:
    captures.write(tmp_path / "morning.pcap", captures.pcap([]))
    with pytest.raises(UsageError, match="no such file") as caught:
        read(build, tmp_path / "moning.pcap")
    assert caught.value.hint == f"did you mean {tmp_path}/morning.pcap?"
    with pytest.raises(UsageError, match="no such file"):
        read(build, tmp_path / "none" / "a.pcap")
    with pytest.raises(UsageError, match="is a directory"):
        read(build, tmp_path)
    (tmp_path / "linked.pcap").symlink_to("gone.pcap")
    with pytest.raises(UsageError, match=r"leads to gone\.pcap, which is not there"):
        read(build, tmp_path / "linked.pcap")


def test_hostile_lengths_end_the_file(build: Build, tmp_path: Path) -> None:
    good = captures.pcap(MICRO[:3])
    path = captures.write(tmp_path / "a", good + struct.pack("<IIII", 0, 0, 0x7FFFFFFF, 60) + bytes(100))
    file, sink = read(build, path)
    assert sink.rows == rows(MICRO[:3])
    assert file.truncated.startswith(f"damaged in packet 4 at octet {len(good)}: it claims 2147483647 octets")
    good = captures.pcapng(MICRO[:3])
    for tail, text in (
        (struct.pack("<II", 6, 0x7FFFFFF0) + bytes(40), "it claims 2147483632 octets"),
        (struct.pack("<II", 99, 0x7FFFFFF0) + bytes(40), "cut in the middle of a block behind packet 3"),
        (struct.pack("<II", 6, 7) + bytes(40), "a block of 7 octets"),
        (captures.block(6, struct.pack("<IIIII", 0, 0, 0, 5, 5) + b"abcd"), "a packet of 5 octets"),
        (captures.block(6, struct.pack("<IIIII", 0, 0, 0, 1 << 31, 5) + b"abcd"), "claims 2147483648"),
    ):
        file, sink = read(build, captures.write(path, good + tail))
        assert sink.rows == rows(MICRO[:3])
        assert text in file.truncated


def test_empty_capture(build: Build, tmp_path: Path) -> None:
    for octets in (captures.pcap([]), captures.pcapng([]), captures.section()):
        file, _ = read(build, captures.write(tmp_path / "a", octets))
        assert (file.packets, file.truncated, file.first_ns, file.last_ns) == (0, "", 0, 0)


def test_a_slow_pipe_gives_what_it_has(build: Build) -> None:
    reading, writing = os.pipe()
    octets = captures.pcap(MICRO)
    os.write(writing, octets[:500])
    sink = make_sink(build)
    file = build.module("engine.capture.pcap_file").PcapFile(reading, sink)
    assert file.size is None
    first = file.run(1000)
    assert 0 < first < len(MICRO)
    assert not file.ready(0)
    threading.Timer(0.05, lambda: (os.write(writing, octets[500:]), os.close(writing))).start()
    assert file.ready(5)
    while file.run(1000):
        pass
    assert sink.rows == rows(MICRO)
    assert file.octets_read == len(octets)
    file.close()
    os.close(reading)


def test_standard_input(build: Build, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = captures.write(tmp_path / "a", captures.pcapng(MICRO), compressed=True)
    keep = os.dup(0)
    with path.open("rb") as file:
        os.dup2(file.fileno(), 0)
    try:
        file, sink = read(build, "-")
    finally:
        os.dup2(keep, 0)
        os.close(keep)
    assert sink.rows == rows(MICRO)
    assert file.name == "standard input"


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_both_builds_are_equal_on_any_octets(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    seeds = [
        captures.pcap(MICRO[:9]),
        captures.pcap(MICRO[:9], captures.BIG, modified=True),
        captures.pcapng(MICRO[:9]),
        captures.section(captures.BIG)
        + captures.interface(captures.BIG, resolution=0x93, offset=-3, name="x")
        + captures.enhanced(99, b"abc", order=captures.BIG)
        + captures.simple(b"abcdef", captures.BIG)
        + captures.obsolete(3, b"xyz", order=captures.BIG),
    ]
    octets = bytearray(data.draw(st.sampled_from(seeds)))
    for _ in range(data.draw(st.integers(0, 6))):
        place = data.draw(st.integers(0, len(octets) - 1))
        new = data.draw(st.binary(min_size=1, max_size=4))
        octets[place : place + len(new)] = new
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(octets + data.draw(st.binary(max_size=64)))
    assert outcome(COMPILED, path) == outcome(PURE, path)


@pytest.mark.parametrize("value", [0, 1, 4, 0x7FFFFFFF, 0xFFFFFFFF])
def test_every_word_0_1_and_most(tmp_path: Path, value: int) -> None:
    for octets in (captures.pcap(MICRO[:4]), captures.pcapng(MICRO[:4])):
        for place in range(0, len(octets) - 3, 4):
            changed = octets[:place] + struct.pack("<I", value) + octets[place + 4 :]
            path = captures.write(tmp_path / "a", changed)
            assert outcome(COMPILED, path) == outcome(PURE, path)


def test_calls_that_are_made_here(tmp_path: Path) -> None:
    path = tmp_path / "a"
    assert captures.sip_capture(path, 3) == read(BUILDS[0], path)[0].packets == 21
    assert captures.mix_capture(path, 2, 10) == read(BUILDS[0], path)[0].packets == 54

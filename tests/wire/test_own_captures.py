"""The report of captures made here, in every form: needs no collection, no root, no other program."""

from __future__ import annotations

import gzip
import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import UsageError
from tests import captures
from tests.analysis import analyse
from tests.captures import BIG, LITTLE, mix_capture

CALLS, PACKETS = 3, 40


@pytest.fixture(scope="module")
def packets(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, bytes]]:
    """Three calls with media as (time in ns, Ethernet frame)."""
    path = tmp_path_factory.mktemp("mix") / "mix.pcap"
    mix_capture(path, CALLS, PACKETS)
    octets = path.read_bytes()
    found, offset = [], 24
    while offset < len(octets):
        seconds, micros, length, _ = struct.unpack_from("<IIII", octets, offset)
        found.append((seconds * 1_000_000_000 + micros * 1000, octets[offset + 16 : offset + 16 + length]))
        offset += 16 + length
    return found


def check(document: dict) -> None:
    """What every form of the same traffic must come to."""
    expected = CALLS * (7 + 2 * PACKETS)
    assert document["file"]["packets"] == expected
    assert document["books"]["received"] == document["books"]["reported"] == expected
    assert set(document["books"]["dropped"].values()) == {0}
    assert document["sip"]["requests"] == {"INVITE": CALLS, "ACK": CALLS, "BYE": CALLS}
    assert [row["state"] for row in document["sip"]["dialogs"]] == ["completed"] * CALLS
    for row in document["sip"]["dialogs"]:
        assert row["methods"] == {"INVITE": 1, "ACK": 1, "BYE": 1}
        assert row["codes"] == {"100": 1, "180": 1, "200": 2}
    assert len(document["rtp"]["streams"]) == 2 * CALLS
    for row in document["rtp"]["streams"]:
        assert (row["packets"], row["lost"], row["codec"], row["found_by"]) == (PACKETS, 0, "PCMU", "sdp")
        assert row["call_id"]


@pytest.mark.parametrize("order", [LITTLE, BIG])
@pytest.mark.parametrize("nanoseconds", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_pcap(packets, tmp_path: Path, order: str, nanoseconds: bool, packed: bool) -> None:
    octets = captures.pcap(packets, order, nanoseconds)
    path = tmp_path / "calls.pcap"
    path.write_bytes(gzip.compress(octets) if packed else octets)
    check(analyse(str(path)))


@pytest.mark.parametrize("order", [LITTLE, BIG])
def test_pcapng(packets, tmp_path: Path, order: str) -> None:
    path = tmp_path / "calls.pcapng"
    path.write_bytes(captures.pcapng(packets, order))
    check(analyse(str(path)))


LINKS = {
    "vlan": (1, lambda frame: frame[:12] + b"\x81\x00\x00\x64" + frame[12:]),
    "qinq": (1, lambda frame: frame[:12] + b"\x88\xa8\x00\xc8\x81\x00\x00\x64" + frame[12:]),
    "pppoe": (
        1,
        lambda frame: (
            frame[:12] + struct.pack("!HBBHHH", 0x8864, 0x11, 0, 7, len(frame) - 12, 0x21) + frame[14:]
        ),
    ),
    "cooked v1": (
        113,
        lambda frame: struct.pack("!HHH8sH", 0, 1, 6, frame[6:12] + bytes(2), 0x0800) + frame[14:],
    ),
    "cooked v2": (
        276,
        lambda frame: struct.pack("!HHIHBB8s", 0x0800, 0, 2, 1, 0, 6, frame[6:12] + bytes(2)) + frame[14:],
    ),
    "raw IP": (101, lambda frame: frame[14:]),
    "null": (0, lambda frame: struct.pack("=I", 2) + frame[14:]),
    "loop": (108, lambda frame: struct.pack("!I", 2) + frame[14:]),
}


@pytest.mark.parametrize("name", LINKS)
def test_link_types(packets, tmp_path: Path, name: str) -> None:
    link_type, wrap = LINKS[name]
    path = tmp_path / "calls.pcap"
    path.write_bytes(captures.pcap([(time, wrap(frame)) for time, frame in packets], link_type=link_type))
    check(analyse(str(path)))


def fragments(frame: bytes, size: int, number: int) -> list[bytes]:
    """An IPv4 frame cut into fragments of `size` octets of payload, last one first."""
    header, payload = frame[14:34], frame[34:]
    cut = []
    for offset in range(0, len(payload), size):
        part = payload[offset : offset + size]
        flags = (0x2000 if offset + size < len(payload) else 0) | offset >> 3
        fresh = (
            header[:2]
            + struct.pack("!HHH", 20 + len(part), number, flags)
            + header[8:10]
            + bytes(2)
            + header[12:]
        )
        cut.append(frame[:14] + fresh + part)
    return cut[::-1]


def test_fragmented_messages_are_put_together(packets, tmp_path: Path) -> None:
    pieces, extra = [], 0
    for number, (time, frame) in enumerate(packets):
        parts = fragments(frame, 256, number + 1) if len(frame) > 300 else [frame]
        extra += len(parts) - 1
        pieces += [(time, part) for part in parts]
    path = tmp_path / "fragments.pcap"
    path.write_bytes(captures.pcap(pieces))
    document = analyse(str(path))
    assert document["books"]["dropped"]["fragments"] == extra > 0
    assert document["books"]["received"] == document["books"]["reported"] + extra
    assert [row["state"] for row in document["sip"]["dialogs"]] == ["completed"] * CALLS
    assert [row["packets"] for row in document["rtp"]["streams"]] == [PACKETS] * 2 * CALLS


def run_report(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "otus_tui", "report", *arguments],
        input=stdin,
        capture_output=True,
        check=False,
    )


def test_standard_input(packets) -> None:
    result = run_report("-", "--json", stdin=captures.pcap(packets))
    assert (result.returncode, result.stderr) == (0, b"")
    check(json.loads(result.stdout))


def test_a_cut_capture_shows_what_is_there(packets, tmp_path: Path) -> None:
    path = tmp_path / "cut.pcap"
    path.write_bytes(captures.pcap(packets)[:-20])
    result = run_report(str(path), "--json")
    document = json.loads(result.stdout)
    assert result.returncode == 0
    assert document["file"]["packets"] == len(packets) - 1
    assert document["file"]["truncated"]
    assert f"packet {len(packets)}" in result.stderr.decode()


@pytest.mark.parametrize("kept", [96, 300])
def test_what_the_snap_length_cut_is_not_malformed(packets, tmp_path: Path, kept: int) -> None:
    path = tmp_path / "snapped.pcap"
    octets = bytearray(captures.pcap([(time, frame[:kept]) for time, frame in packets]))
    offset = 24
    for _, frame in packets:
        struct.pack_into("<I", octets, offset + 12, len(frame))
        offset += 16 + min(kept, len(frame))
    path.write_bytes(octets)
    result = run_report(str(path), "--json")
    document = json.loads(result.stdout)
    whole = sum(1 for _, frame in packets if len(frame) <= kept)
    assert document["decode"]["snapped"] == len(packets) - whole
    assert document["sip"]["messages"] == 7 * CALLS
    assert document["sip"]["malformed"] == document["decode"]["malformed"] == 0
    assert document["sip"]["malformed_messages"] == []
    assert document["decode"]["sip_truncated"] > 0
    assert b" malformed, %d cut, " % document["decode"]["sip_truncated"] in run_report(str(path)).stdout


@pytest.mark.parametrize(
    ("name", "octets"),
    [("empty", b""), ("text", b"hello, this is no capture\n" * 4), ("zip", b"PK\x03\x04" + bytes(60))],
)
def test_what_is_no_capture_is_refused_in_one_line(tmp_path: Path, name: str, octets: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(octets)
    with pytest.raises(UsageError):
        analyse(str(path))
    result = run_report(str(path))
    assert result.returncode == 2
    assert result.stdout == b""
    assert str(path) in result.stderr.decode().splitlines()[0]
    assert b"Traceback" not in result.stderr


def test_no_such_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "call.pcap").write_bytes(b"")
    result = run_report(str(tmp_path / "cal.pcap"))
    assert result.returncode == 2
    assert "call.pcap" in result.stderr.decode()


def test_the_table_survives_a_closed_pipe_and_control_codes(packets, tmp_path: Path) -> None:
    path = tmp_path / "calls.pcap"
    path.write_bytes(
        captures.pcap([(time, frame.replace(b"User 1", b"U\x1b[2Jr")) for time, frame in packets])
    )
    result = run_report(str(path))
    assert result.returncode == 0
    assert b"\x1b" not in result.stdout
    command = f"{sys.executable} -m otus_tui report {path} | head -1"
    piped = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, check=False)
    assert piped.stderr == b""


def test_stamps_that_are_all_the_same(packets: list[tuple[int, bytes]], tmp_path: Path) -> None:
    """A recorder without a clock: the order is that of the file, and nothing expires."""
    usual = analyse(str(captures.write(tmp_path / "usual.pcap", captures.pcap(packets))))
    found = analyse(
        str(captures.write(tmp_path / "zero.pcap", captures.pcap([(0, one) for _, one in packets])))
    )
    for result in (usual, found):
        result["calls"] = [
            (one["call_id"], one["state"], one["messages"]) for one in result["sip"]["dialogs"]
        ]
        result["media"] = {(one["ssrc"], one["packets"], one["lost"]) for one in result["rtp"]["streams"]}
    assert found["file"]["duration_s"] == 0
    assert found["calls"] == usual["calls"]
    assert len(found["calls"]) == CALLS
    assert found["media"] == usual["media"]
    # One report of a file is as the next one, octet by octet.
    ends = [(one["src"], one["sport"], one["dst"], one["dport"]) for one in found["rtp"]["streams"]]
    assert ends == sorted(ends)

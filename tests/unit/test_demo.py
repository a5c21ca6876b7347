"""The demonstration capture: the same octets every time, and a file that others read."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from otus_tui import demo


def test_the_same_octets_every_time() -> None:
    assert demo.capture() == demo.capture()


def test_is_a_pcap_file_in_order() -> None:
    octets = demo.capture()
    assert int.from_bytes(octets[:4], "little") == demo.MAGIC_NANOSECONDS
    position, last, packets = 24, 0, 0
    while position < len(octets):
        seconds, rest, captured, wire = (
            int.from_bytes(octets[position + 4 * word :][:4], "little") for word in range(4)
        )
        assert captured == wire > 28
        assert octets[position + 16] == 0x45
        now = seconds * 1_000_000_000 + rest
        assert last <= now
        last, position, packets = now, position + 16 + captured, packets + 1
    assert position == len(octets)
    assert 1_400 < packets < 1_500


@pytest.mark.skipif(shutil.which("tshark") is None, reason="needs tshark")
def test_tshark_finds_three_calls_and_the_loss(tmp_path: Path) -> None:
    file = tmp_path / "demo.pcap"
    file.write_bytes(demo.capture())
    show = [
        "tshark",
        "-r",
        str(file),
        "-o",
        "udp.check_checksum:TRUE",
        "-o",
        "ip.check_checksum:TRUE",
        "-T",
        "ek",
        "-Y",
    ]
    bad = "udp.checksum.status != 1 or ip.checksum.status != 1 or _ws.malformed"
    assert subprocess.run([*show, bad], capture_output=True, text=True, check=True).stdout.strip() == ""
    calls = subprocess.run(
        ["tshark", "-r", str(file), "-Y", "sip.Method == INVITE", "-T", "json", "-e", "sip.Call-ID"],
        capture_output=True,
        text=True,
        check=True,
    )
    ids = {packet["_source"]["layers"]["sip.Call-ID"][0] for packet in json.loads(calls.stdout)}
    assert len(ids) == 3
    streams = subprocess.run(
        ["tshark", "-r", str(file), "-q", "-z", "rtp,streams"], capture_output=True, text=True, check=True
    )
    assert "21 (3.0%)" in streams.stdout

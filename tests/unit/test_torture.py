"""The 49 messages of RFC 4475: each is listed, none raises, what is malformed says what is wrong."""

from __future__ import annotations

import csv
import io
import os
import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from engine.parsers.sdp_text import media_dicts
from engine.report import write_table
from tests.analysis import analyse
from tests.captures import pcap, write

if TYPE_CHECKING:
    from tests.builds import Build

ROOT = Path(__file__).resolve().parent.parent.parent
CAPTURES = Path(os.environ.get("OTUS_CAPTURES") or ROOT.parent / "shared" / "captures")
TORTURE = CAPTURES / "torture-rfc4475"

DEFECTS = {
    "badinv01.dat": "an empty parameter in Via",
    "clerr.dat": "Content-Length is larger than the message",
    "ncl.dat": "negative Content-Length",
    "scalar02.dat": "the CSeq number is not below 2**31",
    "scalarlg.dat": "the CSeq number is not below 2**31",
    "quotbal.dat": "unterminated quoted string in To",
    "ltgtruri.dat": "the Request-URI stands in angle brackets",
    "lwsruri.dat": "white space in the Request-URI",
    "lwsstart.dat": "more than one space between the parts of the first line",
    "trws.dat": "white space behind the version of the request line",
    "escruri.dat": "the Request-URI carries header fields",
    "baddate.dat": "Date is not in GMT",
    "regbadct.dat": "the URI in Contact needs angle brackets",
    "badaspec.dat": "white space inside the angle brackets of To",
    "baddn.dat": "the display name in From needs quotes",
    "badvers.dat": "the version is not SIP/2.0",
    "mismatch01.dat": "CSeq method differs from the request's method",
    "mismatch02.dat": "CSeq method differs from the request's method",
    "bigcode.dat": "the status code is no number from 100 to 699",
    # Sound by the grammar, and still what a person wants to be told.
    "badbranch.dat": "the branch of Via has nothing behind its magic cookie",
    "insuf.dat": "no From",
    "multi01.dat": "more than one CSeq",
    "mcl01.dat": "more than one Content-Length",
}


def torture() -> list[dict[str, str]]:
    """The rows of the manifest, one without a file where the collection is not at hand."""
    manifest = TORTURE / "manifest.tsv"
    if not manifest.exists():
        return []
    with manifest.open(encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


ROWS = torture()
pytestmark = pytest.mark.skipif(
    not ROWS, reason=f"{TORTURE} is not there (OTUS_CAPTURES names another folder)"
)


def test_the_collection_is_whole() -> None:
    assert len(ROWS) == 49


def test_the_report_has_every_message_and_says_what_is_wrong(tmp_path: Path) -> None:
    packets = [
        (1_700_000_000_000_000_000 + number * 1_000_000_000, udp((TORTURE / row["file"]).read_bytes()))
        for number, row in enumerate(ROWS)
    ]
    found = analyse(str(write(tmp_path / "torture.pcap", pcap(packets))))["sip"]
    assert found["messages"] == len(ROWS)
    wrong = {row["frame"]: row for row in found["malformed_messages"]}
    assert {ROWS[frame - 1]["file"]: row["error"] for frame, row in wrong.items()} == DEFECTS
    assert found["malformed"] == len(DEFECTS)
    listed = {row["call_id"] for row in found["dialogs"]}
    for frame, row in enumerate(ROWS, 1):
        message = (TORTURE / row["file"]).read_bytes()
        call_id = re.search(rb"(?im)^(?:call-id|i)[ \t]*:\s*(.*?)\s*$", message)
        if call_id is None:
            assert row["file"] == "insuf.dat"
            assert wrong[frame]["call_id"] is None
            assert (wrong[frame]["method"], wrong[frame]["src"]) == ("INVITE", "10.0.0.1:5060")
        else:
            assert call_id[1].decode() in listed, row["file"]
    text = io.StringIO()
    write_table(analyse(str(tmp_path / "torture.pcap")), text)
    assert all(error in text.getvalue() for error in DEFECTS.values())
    assert "no Call-ID" in text.getvalue()


def udp(payload: bytes) -> bytes:
    """The payload in a frame between two hosts."""
    datagram = struct.pack("!HHHH", 5060, 5060, 8 + len(payload), 0) + payload
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(datagram), 1, 0, 64, 17, 0)
    return bytes(12) + b"\x08\0" + header + bytes([10, 0, 0, 1, 10, 0, 0, 2]) + datagram


@pytest.mark.parametrize("row", ROWS, ids=[row["file"] for row in ROWS])
def test_torture_message(build: Build, row: dict[str, str]) -> None:
    message = (TORTURE / row["file"]).read_bytes()
    parser = build.module("engine.parsers.sip").SipParser()
    parser.attach(message)
    assert parser.looks_like(0, len(message))
    response = row["start_line"].startswith("SIP/")
    assert parser.parse(0, len(message)) == (2 if response else 1)
    assert (parser.status != 0) == response
    assert parser.error_text == DEFECTS.get(row["file"], "")
    if row["class"] == "valid":
        assert parser.error == 0
    if row["class"] == "invalid":
        assert parser.error != 0
    sdp = build.module("engine.parsers.sdp").SdpParser()
    sdp.attach(message)
    if parser.sdp_start >= 0:
        assert sdp.parse(parser.start + parser.sdp_start, parser.start + parser.sdp_end) >= 1
        assert media_dicts(sdp)[0]["port"] == 49217


@pytest.mark.parametrize(
    ("file", "slot", "value"),
    [
        ("wsinv.dat", "to_tag", b"1918181833n"),
        ("wsinv.dat", "from_uri", b"sip:jdrosen@example.com"),
        ("wsinv.dat", "from_tag", b"98asjd8"),
        ("wsinv.dat", "via_branch", b"390skdjuw"),
        ("wsinv.dat", "cseq_method", b"INVITE"),
        ("intmeth.dat", "from_tag", b"_token~1'+`*%!-."),
        ("intmeth.dat", "method", b"!interesting-Method0123456789_*+`.%indeed'~"),
        ("intmeth.dat", "call_id", b"intmeth.word%ZK-!.*_+'@word`~)(><:\\/\"][?}{"),
        ("esc02.dat", "method", b"RE%47IST%45R"),
        ("esc02.dat", "contact", b"<sip:alias1@host1.example.com>"),
        ("lwsdisp.dat", "from_uri", b"sip:caller@example.com"),
        ("quotbal.dat", "to_uri", b"sip:j.user@example.com"),
        ("badaspec.dat", "to_uri", b"sip:t.watson@example.org"),
        ("lwsruri.dat", "uri", b"sip:user@example.com; lr"),
        ("bigcode.dat", "status", b"4294967301"),
        ("noreason.dat", "reason_phrase", b""),
        ("dblreq.dat", "body", None),
        ("mcl01.dat", "body", b"There's no wa"),
        ("inv2543.dat", "from_tag", None),
        ("unksm2.dat", "to_uri", b"isbn:2983792873"),
    ],
)
def test_what_is_read_of_it(build: Build, file: str, slot: str, value: bytes | None) -> None:
    message = (TORTURE / file).read_bytes()
    parser = build.module("engine.parsers.sip").SipParser()
    parser.attach(message)
    parser.parse(0, len(message))
    assert parser.slot(slot) == value

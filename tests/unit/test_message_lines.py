"""Lines and dialogs composed as text are octet for octet what the objects make."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.reporters.lines import json_lines
from engine.reporters.output import OutputMaker
from engine.shm import records
from tests.builds import Build
from tests.packet_road import ALICE, BOB, frame, sdp

NOW = 1_700_000_000_123_456_789
SLOW = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def pcap(path: Path, frames: list[bytes]) -> str:
    """A file of these frames, 1 ms apart."""
    octets = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262_144, 1)
    for number, one in enumerate(frames):
        octets += struct.pack("<IIII", 1_700_000_000, 1_000_123 * number, len(one), len(one)) + one
    path.write_bytes(octets)
    return str(path)


def message(
    first: str = "INVITE sip:bob@example.com SIP/2.0",
    more: str = "",
    body: str = "",
    kind: str = "application/sdp",
) -> bytes:
    return (
        f"{first}\r\nVia: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bKx\r\n"
        f'From: "A \\"q\\"" <sip:alice@10.0.0.1>;tag=f\r\nTo: <sip:bob@example.com>\r\n'
        f"Call-ID: one@10.0.0.1\r\nCSeq: 7 INVITE\r\n{more}"
        + (f"Content-Type: {kind}\r\n" if body else "")
        + f"Content-Length: {len(body.encode())}\r\n\r\n{body}"
    ).encode()


def slow_and_quick(build: Build, path: str) -> tuple[bytes, bytes]:
    """The lines that the objects make, and those of LineWriter."""
    lines = build.module("engine.report_messages").MessageLines(path)
    taken: list[bytes] = []
    lines.run(lambda octets: taken.append(bytes(octets)))

    ring = build.module("engine.shm.ring")
    counters = build.module("engine.shm.counters").Counters.create("report", 0)
    classifier = build.module("engine.decode.classifier")
    region = ring.create("report", 0, 1 << 22)
    pipeline = build.module("engine.pipeline.loop").Pipeline(
        counters,
        build.module("engine.shm.flows").FlowTable.create("report", 0, 64),
        build.module("engine.shm.streams").StreamTable.create("report", 0, 64),
        ring.RingWriter(region),
        None,
        build.module("engine.decode.fragments").Reassembly(counters.words),
        classifier.Decoder(counters.words, classifier.ALL_TUNNELS),
        {"parse_rtp": False, "track_media": False},
    )
    file = build.module("engine.capture.pcap_file").PcapFile(path, pipeline)
    while file.run(1000):
        pass
    maker = OutputMaker("report", {})
    packets = [
        packet
        for kind, _, timestamp, body in ring.RingReader(region).read(100_000)
        if kind == records.SIP and (packet := maker.make(kind, timestamp, body)) is not None
    ]
    return b"".join(json_lines(packets)), b"".join(taken)


def same(build: Build, tmp_path: Path, payloads: list[bytes], *ends: str) -> bytes:
    src, dst = ends or (ALICE, BOB)
    path = pcap(tmp_path / "x.pcap", [frame(payload, src, 5060, dst, 5061) for payload in payloads])
    slow, quick = slow_and_quick(build, path)
    assert quick == slow
    return quick


def test_messages_of_every_kind(build: Build, tmp_path: Path) -> None:
    payloads = [
        message(body=sdp()),
        message("SIP/2.0 200 Fine  and\tgood", body=sdp(more="a=sendonly\r\na=rtpmap:8 again/8000\r\n")),
        message("SIP/2.0 200 "),
        message("FROBNICATE sip:x SIP/2.0", "Reason: Q.850;cause=16\r\nUser-Agent: \x7fé  ü\r\nContact:\r\n"),
        message(more="Contact: <sip:a@b>,\r\n\t <sip:c@d>\r\nUser-Agent: a\x01b\x1cc\\d\r\n"),
        message(body="v=0\nm=audio\nc=IN IP4\nm=audio x/2 RTP/AVP\nm=video 70000 y \t0  1\nc=a b c/d\r\n"),
        message(body='{"no": "sdp"}\x00\x1f', kind="application/json"),
        message(
            body="--b\r\nContent-Type: application/sdp\r\n\r\n" + sdp() + "--b--", kind="multipart/mixed"
        ),
        b"INVITE sip:x SIP/2.0\r\n\r\n",
        message()[:-30],
    ]
    lines = same(build, tmp_path, payloads).splitlines()
    assert len(lines) == len(payloads)
    assert json.loads(lines[0])["payload"]["media"][0]["codecs"] == {
        "8": "PCMA/8000",
        "101": "telephone-event/8000",
    }


def test_the_file_is_closed(build: Build, tmp_path: Path) -> None:
    lines = build.module("engine.report_messages").MessageLines(
        pcap(tmp_path / "a.pcap", [frame(message(), ALICE, 5060, BOB, 5060)])
    )
    assert os.path.samestat(os.fstat(lines.file.source.fd), (tmp_path / "a.pcap").stat())
    assert lines.run(len) == 1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(lines.file.source.fd)


def test_ipv6_goes_the_long_way(build: Build, tmp_path: Path) -> None:
    line = json.loads(same(build, tmp_path, [message()], "2001:db8::1", "2001:db8::2"))
    assert line["src_ip"] == "2001:db8::1"


@SLOW
@given(st.data())
def test_any_header_values(build: Build, tmp_path: Path, data: st.DataObject) -> None:
    value = st.text(st.characters(blacklist_characters="\r\n", blacklist_categories=("Cs",)), max_size=40)
    more = "".join(
        f"{name}: {data.draw(value)}\r\n"
        for name in ("User-Agent", "Contact", "Event", "Expires", "X-Call-ID", "Reason", "Subscription-State")
    )
    same(build, tmp_path, [message(more=more), message(f"SIP/2.0 200 {data.draw(value)}")])


SDP_LINE = st.one_of(
    st.sampled_from(
        ["v=0", "m=audio 4000 RTP/AVP 0", "m=video 5/2 RTP/SAVP 96 97", "m=x", "c=IN", "",
         "c=IN IP4 1.2.3.4/127",
         "a=sendonly", "a=inactive", "a=recvonlyx", "a=rtpmap:0 PCMU/8000", "a=rtpmap:0",
         "a=rtpmap:96  H264/90000 ",
         "a=rtpmap:97 \"x\\y\"", "m", "a=", "m=audio 00099 UDP", "m=audio 123456 UDP 1 2\t3"]
    ),
    st.text(st.characters(min_codepoint=1, max_codepoint=255, blacklist_characters="\n"), max_size=12),
)  # fmt: skip


@SLOW
@given(st.lists(SDP_LINE, max_size=40), st.sampled_from(["\r\n", "\n"]))
def test_any_sdp(build: Build, tmp_path: Path, lines: list[str], end: str) -> None:
    same(build, tmp_path, [message(body=end.join(lines))])


def test_sdp_beyond_every_bound(build: Build, tmp_path: Path) -> None:
    media = "".join(f"m=audio {port} RTP/AVP 0\r\na=sendonly\r\n" for port in range(40))
    same(build, tmp_path, [message(body=media), message(body="a=x\r\n" * 600 + media)])
    maps = "".join(f"a=rtpmap:{number} X/{number}\r\n" for number in range(80))
    same(build, tmp_path, [message(body="m=audio 1 RTP/AVP 0\r\n" + maps)])


def test_static_labels_and_interfaces(build: Build) -> None:
    module = build.module("engine.reporters.line_writer")
    body = bytearray(records.SIP_MESSAGE + 64)
    body[8:16], body[24:32] = b"\0\0\xff\xff\x0a\0\0\1", b"\0\0\xff\xff\x0a\0\0\2"
    body[36], body[60] = 17, 3
    struct.pack_into("<64i", body, records.PACKET_SIZE + 16, *([-1] * 64))
    for labels in ({}, {"node": "a", "dc": 'b"'}, {"sip.method": "x"}):
        writer: Any = module.LineWriter("task é", labels, lambda index: f"eth{index}")
        writer.attach(body)
        taken: list[bytes] = []
        written = writer.write(NOW, records.SIP_MESSAGE)
        writer.give(lambda octets, taken=taken: taken.append(bytes(octets)))
        assert written == ("sip.method" not in labels)
        packet = OutputMaker("task é", labels).make(records.SIP, NOW, bytes(body[: records.SIP_MESSAGE]))
        assert packet is not None
        slow = json.loads(json_lines([packet])[0])
        slow["network"]["interface"] = "eth3"
        assert [orjson.dumps(slow) + b"\n"] * written == taken
    assert not writer.write(NOW, 100)


@pytest.mark.parametrize("step", [1000, 1_000_500, 99_000, 3, 1_234_567_000])
def test_dialogs_as_text(build: Build, tmp_path: Path, step: int) -> None:
    """Setup times of all sizes, odd URIs, an unknown method, IPv6, no dialog at all."""
    call = [
        message(), message("SIP/2.0 180 Ringing"), message("SIP/2.0 200 OK"),
        message("FROB sip:x SIP/2.0").replace(b"7 INVITE", b'8 FR"OB').replace(b"one@", b"tw\xc3\xa9o\xff@"),
        message().replace(b"one@", b"three@").replace(b"sip:alice@10.0.0.1", b"SIPS:al:pw@[::1]:5060;x=y"),
        message().replace(b"one@", b"four@").replace(b"<sip:bob@example.com>", b"tel:+49;x"),
        message().replace(b"one@", b"five@").replace(b'"A \\"q\\"" <sip:alice@10.0.0.1>', b"<>"),
        message("SIP/2.0 486 Busy  h\xe9re").replace(b"one@", b"three@"),
    ]  # fmt: skip
    frames = [frame(one, ALICE, 5060, BOB, 5060) for one in call]
    frames.append(frame(message().replace(b"one@", b"six@"), "2001:db8::1", 5060, "2001:db8::2", 5060))
    octets = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262_144, 1)
    for number, one in enumerate(frames):
        second, rest = divmod(number * step, 10**9)
        octets += struct.pack("<IIII", 1_700_000_000 + second, rest, len(one), len(one)) + one
    report = build.module("engine.report")
    for content in (octets, octets[:24]):
        path = tmp_path / "calls.pcap"
        path.write_bytes(content)
        analysis = report.Analysis(str(path))
        analysis.run()
        taken: list[bytes] = []
        analysis.write_json(lambda piece, taken=taken: taken.append(bytes(piece)))
        options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
        assert b"".join(taken) == orjson.dumps(analysis.document(), option=options)


def otus(*words: str) -> subprocess.CompletedProcess[bytes]:
    """The command line as a process of its own."""
    return subprocess.run([sys.executable, "-m", "otus_tui", *words], capture_output=True, check=False)


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "call.pcap"
    return pcap(path, [frame(message(body=sdp()), ALICE, 5060, BOB, 5060)] * 2)


def test_report_messages_and_output(capture: str, tmp_path: Path) -> None:
    shown = otus("report", capture, "--messages")
    assert (shown.returncode, shown.stderr) == (0, b"")
    lines = [json.loads(line) for line in shown.stdout.splitlines()]
    assert [line["payload"]["call_id"] for line in lines] == ["one@10.0.0.1"] * 2
    # `--output=PATH` is read by click, `--output PATH` without it.
    for words in (
        ["--messages", f"--output={tmp_path / 'a'}"],
        ["--messages", "--output", str(tmp_path / "a")],
    ):
        (tmp_path / "a").write_bytes(b"longer than before" * 1000)
        done = otus("report", capture, *words)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
        assert (tmp_path / "a").read_bytes() == shown.stdout
    for words in (["--json"], []):
        done = otus("report", capture, "--output", str(tmp_path / "b"), *words)
        assert done.returncode == 0
        assert (tmp_path / "b").read_bytes() == otus("report", capture, *words).stdout


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["CAPTURE", "--json", "--messages"], 2, "exclude each other"),
        (["CAPTURE", "--messages", "--output", "CAPTURE"], 2, "is the capture itself"),
        (["CAPTURE", "--output", "/nowhere/x"], 2, "No such file or directory"),
        (["CAPTURE", "--output", "/"], 2, "Is a directory"),
        (["CAPTURE", "--messages", "--output", "/dev/full"], 1, "/dev/full: No space left on device"),
        (["CAPTURE", "--output"], 2, "requires an argument"),
        (["CAPTURE", "--jsn"], 2, "No such option"),
        (["CAPTURE", "CAPTURE"], 2, "unexpected extra argument"),
        ([], 2, "Missing argument"),
        (["/nowhere.pcap", "--messages"], 2, "no such file"),
    ],
)
def test_report_says_what_is_wrong(capture: str, words: list[str], code: int, said: str) -> None:
    before = Path(capture).read_bytes()
    done = otus("report", *(capture if word == "CAPTURE" else word for word in words))
    assert done.returncode == code
    assert said in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert Path(capture).read_bytes() == before


def test_a_plain_report_needs_no_click(capture: str) -> None:
    code = "import sys; from otus_tui.cli import run; c = run(sys.argv[1:]); print(c, 'click' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, "report", capture, "--output", "/dev/null"],
        capture_output=True,
        check=True,
    )
    assert done.stdout.split() == [b"0", b"False"]

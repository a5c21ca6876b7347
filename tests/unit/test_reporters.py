"""The sender: whole lines whatever happens, bounded queues, exact figures over a kill."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from engine.errors import UsageError
from engine.packet import DictPayload, FiveTuple, NetworkMeta, OutputPacket, seal
from engine.plugin import Reporter
from engine.reporters.console import ConsoleReporter
from engine.reporters.figures import SenderFigures
from engine.reporters.file import LINK_HINT, FileReporter
from engine.reporters.lines import json_lines
from engine.reporters.output import BEHIND, MOST_AHEAD, OutputMaker, rtcp_packets, sdp_media
from engine.reporters.queue import Item, ReporterQueue
from engine.shm import records, ring
from engine.shm.records import METHODS, PACKET, RTP_FIXED, SIP_FIXED, SLOTS
from tests.builds import Build

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

SIDES = (ip_address("10.0.0.1"), ip_address("10.0.0.2"))
INVITE = b"INVITE sip:b@x SIP/2.0\r\nCall-ID: c1\r\nFrom:  <sip:a@x>;tag=1\r\n\r\n"


def packet(number: int = 0, text: str = "") -> OutputPacket:
    labels = {"sip.call-id": str(number), "text": text}
    return OutputPacket(number, "sip", FiveTuple(*SIDES, 1, 2, 17), NetworkMeta(*SIDES, 1, 2), "t", labels)


def header(flags: int = 0) -> bytes:
    sides = [b"\0" * 10 + b"\xff\xff" + side.packed for side in SIDES]
    macs = (b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02")
    return PACKET.pack(
        *sides, 5060, 5062, 17, flags, 1, 0, 7, 0, 0, *macs, 2, 100, 100, 0, 64, 1, bytes(16), bytes(16),
        9, records.NO_SLOT, 0,
    )  # fmt: skip


def sip_body(message: bytes = INVITE, **slots: bytes) -> bytes:
    places = []
    for name in SLOTS:
        start = message.find(slots[name]) if name in slots else -1
        places += [start, start + len(slots[name])] if start >= 0 else [-1, -1]
    fixed = SIP_FIXED.pack(0, 0, 2, METHODS.index("INVITE"), 0, 1, len(message))
    return (
        header(records.P_ETHERNET)
        + fixed
        + b"".join(p.to_bytes(4, "little", signed=True) for p in places)
        + message
    )


# ---- file ----


def file_reporter(path: Path, **options: Any) -> FileReporter:
    reporter = FileReporter()
    reporter.init({"path": str(path), **options})
    reporter.start()
    return reporter


def numbers(path: Path) -> list[int]:
    return [int(json.loads(line)["labels"]["sip.call-id"]) for line in path.read_bytes().splitlines()]


def test_file_rotates(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    reporter = file_reporter(path, max_size=1000, max_backups=2)
    for number in range(12):
        assert reporter.report([packet(number)]) == 1
    reporter.stop()
    names = sorted(found.name for found in tmp_path.iterdir())
    assert names == ["p.jsonl", "p.jsonl.1", "p.jsonl.2"]
    kept = [*numbers(tmp_path / "p.jsonl.2"), *numbers(tmp_path / "p.jsonl.1"), *numbers(path)]
    assert kept == list(range(kept[0], 12))


def test_file_takes_half_a_line_of_a_killed_predecessor_back(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(b'{"a":1}\n{"b":')
    reporter = file_reporter(path)
    reporter.report([packet(3)])
    reporter.stop()
    first, second = path.read_bytes().splitlines()
    assert first == b'{"a":1}'
    assert json.loads(second)["labels"]["sip.call-id"] == "3"


@contextmanager
def small_files() -> Iterator[None]:
    """No file of this process grows above 2,000 octets: a disk that is full, without being root.

    Only around what is tried: the output of the tests may be a file, too.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    reporter = file_reporter(path)
    with small_files():
        accepted = reporter.report([packet(number) for number in range(20)])
    assert 0 < accepted < 20
    assert numbers(path) == list(range(accepted))
    with small_files(), pytest.raises(OSError, match="File too large"):
        reporter.report([packet(20, "x" * 2000)])
    assert numbers(path) == list(range(accepted))
    os.truncate(path, 0)
    reporter._size = 0
    assert reporter.report([packet(21)]) == 1
    assert numbers(path) == [21]


def test_file_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file or directory") as caught:
        file_reporter(tmp_path / "no" / "p.jsonl")
    assert caught.value.hint == f"mkdir -p {tmp_path / 'no'}"
    with pytest.raises(UsageError, match="Is a directory") as caught:
        file_reporter(tmp_path)
    assert caught.value.hint == "name a file in a folder that may be written"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_root_gives_only_files_of_its_own_making_to_the_owner_of_the_folder(tmp_path: Path) -> None:
    """Who owns the folder may have put there what leads to a file of root's."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"root's\n")
    folder = tmp_path / "of another"
    folder.mkdir()
    os.chown(folder, 1234, 1234)
    for name in ("secret", "new"):
        (folder / f"link to {name}").symlink_to(tmp_path / name)
        with pytest.raises(UsageError, match="cannot write") as caught:
            file_reporter(folder / f"link to {name}")
        assert caught.value.hint == LINK_HINT
    os.link(secret, folder / "hard.jsonl")
    for name in ("hard.jsonl", "made.jsonl"):
        reporter = file_reporter(folder / name)
        assert reporter.report([packet()]) == 1
        reporter.stop()
    assert (secret.stat().st_uid, (folder / "made.jsonl").stat().st_uid) == (0, 1234)
    assert not (tmp_path / "new").exists()
    (tmp_path / "link").symlink_to(secret)
    file_reporter(tmp_path / "link").stop()


def test_device_is_never_renamed() -> None:
    reporter = FileReporter()
    reporter.init({"path": "/dev/full", "max_size": 1, "max_backups": 1})
    reporter.start()
    for _ in range(3):
        with pytest.raises(OSError, match="No space left") as caught:
            reporter.report([packet()])
        assert caught.value.errno == errno.ENOSPC
    assert os.path.exists("/dev/full")


# ---- console ----


def test_console_keeps_lines_whole_when_nobody_reads() -> None:
    read_end, write_end = os.pipe()
    reporter = ConsoleReporter(write_end)
    reporter.init({"send_timeout": 0.05})
    sent = reporter.report([packet(number, "x" * 500) for number in range(200)])
    assert 0 < sent < 200
    with pytest.raises(TimeoutError):
        reporter.report([packet(999)])
    data = os.read(read_end, 1 << 20)
    assert reporter.report([packet(1000)]) == 1
    data += os.read(read_end, 1 << 20)
    found = [int(json.loads(line)["labels"]["sip.call-id"]) for line in data.splitlines()]
    assert found == [*range(sent), 1000]
    os.close(read_end)
    with pytest.raises(BrokenPipeError):
        reporter.report([packet(1001)])
    os.close(write_end)


# ---- queues ----


class Fake(Reporter):
    name = "fake"

    def __init__(self) -> None:
        self.got: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.trouble: BaseException | None = None
        self.most = 1 << 30

    def report(self, batch: Sequence[OutputPacket]) -> int:
        self.gate.wait()
        if self.trouble is not None:
            raise self.trouble
        taken = batch[: self.most]
        self.got += [one.timestamp_ns for one in taken]
        return len(taken)


def make_queue(
    reporter: Fake,
    figures: SenderFigures,
    number: int = 0,
    lock: threading.Lock | None = None,
    **options: Any,
) -> ReporterQueue:
    options = {"capacity": 100, "timeout": 0.2, "retries": 1, **options}
    queue = ReporterQueue(number, reporter, figures, lock or threading.Lock(), **options)
    queue.start()
    return queue


def test_a_reporter_that_raises_at_its_stop_is_told() -> None:
    class Stubborn(Fake):
        def stop(self) -> None:
            raise ValueError("no")

    queue = make_queue(Stubborn(), SenderFigures.create("t"))
    finish(queue)
    assert queue.problem == "does not stop: ValueError: no"


def test_a_reporter_whose_last_batch_fails_is_stopped_all_the_same() -> None:
    class Broken(Fake):
        stopped = False

        def flush(self) -> None:
            raise OSError("no")

        def stop(self) -> None:
            self.stopped = True

    reporter = Broken()
    queue = make_queue(reporter, SenderFigures.create("t"))
    finish(queue)
    assert reporter.stopped
    assert queue.problem == "does not stop: OSError: no"


def test_a_reporter_that_gathers_gives_all_of_it_at_the_end() -> None:
    class Gathering(Fake):
        left: Sequence[int] = ()

        def flush(self) -> None:
            self.left = [*self.got]

        def stop(self) -> None:
            self.got.clear()

    reporter, figures = Gathering(), SenderFigures.create("t")
    queue = make_queue(reporter, figures)
    queue.put(items(3))
    finish(queue)
    assert (reporter.left, reporter.got) == ([0, 1, 2], [])


def finish(*queues: ReporterQueue) -> None:
    for queue in queues:
        queue.reporter.gate.set()  # type: ignore[attr-defined]
        queue.finish(time.monotonic() + 30)
    for queue in queues:
        queue.join()


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread or process does."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def items(count: int, waiting: int = 1) -> list[Item]:
    return [Item(packet(number), waiting) for number in range(count)]


def test_queue_drops_its_head() -> None:
    figures, reporter = SenderFigures.create("t"), Fake()
    queue = make_queue(reporter, figures, capacity=10)
    reporter.gate.clear()
    queue.put(items(1))
    until(lambda: len(queue._work) == 1)
    queue.put(items(25))
    finish(queue)
    assert reporter.got == [0, *range(15, 25)]
    assert figures.as_dict() == {
        "reported": 11, "queue_full": 15, "report_error": 0, "report_timeout": 0, "unreadable": 0,
        "lost_with_sender": 0,
    }  # fmt: skip
    assert figures.reporter(0)["queued"] == 0


@pytest.mark.parametrize(
    ("trouble", "name"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "report_error"),
        (TimeoutError("slow"), "report_timeout"),
        (RuntimeError("a plugin's own fault"), "report_error"),
        (SystemExit("a plugin that gives up"), "report_error"),
    ],
)
def test_queue_counts_what_a_reporter_loses(trouble: BaseException, name: str) -> None:
    figures, reporter = SenderFigures.create("t"), Fake()
    reporter.trouble = trouble
    problems: list[str] = []
    queue = make_queue(reporter, figures)
    queue.on_problem = problems.append
    queue.put(items(30))
    until(lambda: figures.as_dict()[name] == 30)
    reporter.trouble = None
    queue.put(items(5))
    finish(queue)
    assert figures.as_dict()[name] == 30
    assert figures.as_dict()["reported"] == 5
    assert figures.settled() == 35
    assert len(problems) == 2
    assert problems[1] == ""


def test_reporter_that_takes_a_part() -> None:
    figures, reporter = SenderFigures.create("t"), Fake()
    reporter.most = 4
    queue = make_queue(reporter, figures, retries=2)
    queue.put(items(20))
    finish(queue)
    assert figures.as_dict()["reported"] == 12
    assert figures.as_dict()["report_error"] == 8


def test_reporter_that_hangs_at_the_end() -> None:
    figures, reporter = SenderFigures.create("t"), Fake()
    queue = make_queue(reporter, figures, capacity=1000)
    reporter.gate.clear()
    queue.put(items(20))
    until(lambda: len(queue._work) == 20)
    queue.put(items(30))
    queue.finish(time.monotonic() + 0.1)
    queue.join()
    assert figures.as_dict()["report_timeout"] == figures.settled() == 50
    reporter.gate.set()
    time.sleep(0.05)
    assert figures.settled() == 50, "what comes back too late is not counted twice"


def test_reporter_that_hangs_loses_what_it_has_in_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.reporters.queue.GRACE", 0.0)
    figures, reporter = SenderFigures.create("t"), Fake()
    problems: list[str] = []
    queue = make_queue(reporter, figures, capacity=10, timeout=0.1)
    queue.on_problem = problems.append
    reporter.gate.clear()
    begun = time.monotonic()
    queue.put(items(7))
    until(lambda: len(queue._work) == 7)
    queue.watch(begun + 0.1)
    assert not figures.settled(), "not yet"
    queue.watch(time.monotonic() + 0.15)
    queue.watch(time.monotonic() + 0.15)
    assert figures.as_dict()["report_timeout"] == figures.settled() == 7
    assert problems == ["hangs: no answer for 0.1 s"]
    queue.put(items(25))
    assert (figures.as_dict()["queue_full"], queue.room()) == (15, 10), "nobody waits for one that hangs"
    reporter.gate.set()
    finish(queue)
    assert figures.as_dict()["reported"] == 10
    assert figures.settled() == 32
    assert problems[-1] == ""
    assert reporter.got[7:] == list(range(15, 25))


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


def test_reporters_get_packets_that_they_cannot_change() -> None:
    """What parsers and processors may touch is in test_processors.py."""
    sealed = seal(packet(3))
    for field in ("timestamp_ns", "protocol", "flow_id", "network", "task", "labels", "payload", "raw_bytes"):
        with pytest.raises(TypeError, match="read-only"):
            setattr(sealed, field, None)
        with pytest.raises(TypeError, match="read-only"):
            delattr(sealed, field)
    for change in (
        lambda labels: labels.update(a="b"),
        lambda labels: labels.pop("text"),
        lambda labels: labels.setdefault("a", "b"),
        lambda labels: labels.clear(),
        lambda labels: labels.__setitem__("a", "b"),
        lambda labels: labels.__delitem__("text"),
    ):
        with pytest.raises(TypeError, match="read-only"):
            change(sealed.labels)
    with pytest.raises(AttributeError):
        sealed.flow_id.src_port = 1  # type: ignore[misc]
    with pytest.raises(AttributeError):
        sealed.network.src_port = 1  # type: ignore[misc]
    payload = DictPayload("sip", {"method": "INVITE"})
    payload.as_dict()["method"] = "BYE"
    assert payload.as_dict() == {"method": "INVITE"}
    assert json.loads(json_lines([sealed])[0])["labels"] == {"sip.call-id": "3", "text": ""}


def test_packet_is_reported_when_one_of_two_took_it() -> None:
    figures, good, bad = SenderFigures.create("t"), Fake(), Fake()
    bad.trouble = OSError(errno.EIO, "Input/output error")
    lock = threading.Lock()
    queues = [make_queue(good, figures, 0, lock), make_queue(bad, figures, 1, lock)]
    batch = items(40, 2)
    for queue in queues:
        queue.put(batch)
    finish(*queues)
    assert figures.as_dict()["reported"] == 40
    assert figures.settled() == 40
    assert figures.reporter(0)["accepted"] == 40
    assert figures.reporter(1)["report_error"] == 40


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


# ---- the process ----


class SenderProcess:
    def __init__(self, path: Path, region: Any, figures: SenderFigures) -> None:
        ours, theirs = socket.socketpair()
        config = {
            "task": "t", "parent": os.getpid(), "rings": [region.fd], "figures": figures.region.fd,
            "flows": None,
            "reporters": [{"type": "file", "config": {"path": str(path)}}],
            "processors": [], "node": {}, "send_timeout": 1.0, "max_retries": 1,
        }  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-m", "engine.reporters.sender", str(theirs.fileno())],
            pass_fds=(theirs.fileno(), region.fd, figures.region.fd),
        )
        theirs.close()
        ours.sendall(json.dumps(config).encode() + b"\n")
        self.channel = ours

    def end(self) -> None:
        self.channel.close()
        assert self.process.wait(30) == 0


def test_process_goes_on_where_a_killed_one_stopped(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    region = ring.create("t", 0, 1 << 22, 16384)
    writer, figures = ring.RingWriter(region), SenderFigures.create("t")
    body = sip_body(method=b"INVITE", call_id=b"c1")
    sent = 0
    for _ in range(2):
        process = SenderProcess(path, region, figures)
        for _ in range(1500):
            writer.write(records.SIP, 0, sent, body)
            sent += 1
        while figures.as_dict()["reported"] < sent - 1400:
            time.sleep(0.005)
        process.process.kill()
        process.process.wait()
        process.channel.close()
    process = SenderProcess(path, region, figures)
    while ring.figures(region)["unread"]:
        time.sleep(0.005)
    process.end()
    found = figures.as_dict()
    assert figures.settled() + ring.figures(region)["lost"] == sent == ring.figures(region)["written"]
    lines = path.read_bytes().splitlines()
    assert all(json.loads(line)["labels"]["sip.call-id"] == "c1" for line in lines)
    assert found["reported"] <= len(lines) <= found["reported"] + found["lost_with_sender"]

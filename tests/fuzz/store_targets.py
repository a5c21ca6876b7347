"""Fuzzed on what is read from files and shared memory: capture files, kernel blocks, rings, records."""

from __future__ import annotations

import os
import struct
import tempfile
from typing import TYPE_CHECKING, Any

import orjson

from engine.capture.sink import PacketSink
from engine.errors import UsageError
from engine.shm.records import PACKET_SIZE, SIP_FIXED, SIP_MESSAGE, SIP_SLOTS
from tests import captures
from tests.fuzz import frames
from tests.fuzz.packet_targets import Stores
from tests.fuzz.target import Target, must, without_chance

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.builds import Build

NOW = 1_700_000_000_000_000_000


class _Sink(PacketSink):
    """Notes what a driver hands over, and checks that it lies in the buffer."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []
        self.buf = memoryview(b"")

    def attach(self, buf: memoryview) -> None:
        self.buf = buf

    def packet(self, start: int, end: int, *rest: int) -> int:
        must(0 <= start <= end <= len(self.buf), f"packet {start}..{end} leaves the buffer")
        self.seen.append((bytes(self.buf[start:end]), *rest))
        return 0


class CaptureFile(Target):
    """A whole file."""

    name = "pcap"
    about = "capture files: pcap in its forms, pcapng, gzip"
    patience_ms = 20.0
    longest = 8192
    pieces = (
        b"\xd4\xc3\xb2\xa1",
        b"\xa1\xb2\xc3\xd4",
        b"\x4d\x3c\xb2\xa1",
        b"\x0a\x0d\x0d\x0a",
        b"\x1a\x2b\x3c\x4d",
        b"\x4d\x3c\x2b\x1a",
        b"\x06\0\0\0\x20\0\0\0",
        b"\x01\0\0\0\x14\0\0\0",
        b"\x1f\x8b\x08\0",
        b"\x09\0\x01\0\x09\0\0\0",
        b"\x0e\0\x08\0",
        b"\0\0\x04\0",
    )

    def __init__(self, build: Build) -> None:
        super().__init__(build)
        self.file = build.module("engine.capture.pcap_file").PcapFile
        self.file_on_disk = tempfile.TemporaryFile()  # noqa: SIM115 -- as long as the target
        self.fd = self.file_on_disk.fileno()

    @classmethod
    def corpus(cls) -> Iterable[bytes]:
        packets = [(NOW + at * 10**7, one) for at, one in enumerate(frames.call()[:6])]
        made = [captures.pcap(packets, order, nano) for order in "<>" for nano in (False, True)]
        made += [
            captures.pcap(packets, modified=True),
            captures.pcapng(packets),
            captures.pcapng(packets, ">", True),
        ]
        parts = [
            captures.section(),
            captures.interface(resolution=0x8A, offset=-7, name="eth0", snap_length=60),
        ]
        parts += [
            captures.enhanced(1 << 40, packets[0][1]),
            captures.obsolete(7, packets[1][1]),
            captures.simple(packets[2][1]),
        ]
        parts += [
            captures.block(5, bytes(20)),
            captures.section(">"),
            captures.interface(">"),
            captures.enhanced(5, b"x", order=">"),
        ]
        import gzip

        return [*made, b"".join(parts), gzip.compress(made[0], mtime=0), gzip.compress(made[5], mtime=0) * 2]

    def run(self, octets: bytes) -> Any:
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, octets, 0)
        sink = _Sink()
        path = f"/proc/self/fd/{self.fd}"
        try:
            file = self.file(path, sink)
        except UsageError as error:
            return error.message.replace(path, ""), ()
        try:
            rounds = 0
            while file.run(7):
                rounds += 1
                must(rounds <= len(octets), "no end of the file")
            text = file.truncated
        except UsageError as error:
            text = "!" + error.message.replace(path, "")
        finally:
            file.close()
        must(file.packets == len(sink.seen), "packets and those handed over differ")
        return text, tuple(sink.seen), file.format, file.first_ns, file.last_ns, tuple(file.interface_names)

    def features(self, view: Any) -> Any:
        text = "".join(c for c in view[0] if not c.isdigit())
        return (text[:60], min(len(view[1]), 6), *view[2:3])


class Ring(Target):
    """u16 word, 8 octets, and so on: words of a ring to overwrite before it is read and written on."""

    name = "ring"
    about = "record rings: readers and successors of writers on broken shared memory"
    patience_ms = 50.0
    longest = 256
    records = 64
    """The word where records begin, behind those of the ring itself."""
    pieces = tuple(
        struct.pack("<H", word) for word in (16, 17, 24, 25, 32, 40, 41, 42, 43, 44, 64, 65, 66, 67, 72)
    )

    def __init__(self, build: Build) -> None:
        super().__init__(build)
        self.ring = build.module("engine.shm.ring")

    @classmethod
    def corpus(cls) -> Iterable[bytes]:
        return [
            struct.pack("<HQ", word, value)
            for word in (24, 25, 32, 40, 43, 64, 67, 80)
            for value in (0, 1, 1 << 63, 2**64 - 1)
        ]

    def run(self, octets: bytes) -> Any:
        with without_chance():
            region = self.ring.create("fuzz", 0, 1)
        writer = self.ring.RingWriter(region)
        for number in range(12):
            writer.write(1 + number % 3, number, NOW + number, b"%d" % number * (1 + number * 40))
        reader = self.ring.RingReader(region)
        reader.next()
        lowest = 1 << 16
        for place in range(0, len(octets) - 9, 10):
            word, value = struct.unpack_from("<HQ", octets, place)
            # The header of the region was checked when it was mapped, and who maps it knows its capacity.
            if word > 17:
                word = 18 + (word - 18) % (len(region.words) - 18)
                region.words[word] = value
                lowest = min(lowest, word)
        got = []
        while reader.next() and len(got) < 5000:
            must(0 <= reader.length <= len(reader.record), "a record longer than a ring has")
            got.append(
                (
                    reader.kind,
                    reader.flags,
                    reader.timestamp,
                    reader.sequence,
                    bytes(reader.record[: reader.length]),
                )
            )
        must(len(got) < 5000, "no end of records")
        if lowest >= self.records:
            self.goes_on(writer, reader)
        return tuple(got), self.writes_on(region), sorted(self.ring.figures(region).items())

    def goes_on(self, writer: Any, reader: Any) -> None:
        """Whatever stands in records, those that are written behind them are read.

        But for the next one: what is in its place may have taken its number.
        """
        for number in range(3):
            writer.write(3, 0, NOW, b"behind %d" % number)
        got = [body for *_, body in reader.read(9)]
        must(got[-2:] == [b"behind 1", b"behind 2"], f"{got} of what was written behind")

    def writes_on(self, region: Any) -> Any:
        """A successor refuses the ring, or goes on writing and is read."""
        try:
            writer = self.ring.RingWriter(region)
        except ValueError as error:
            return str(error)
        return [writer.write(3, 0, NOW, b"x" * 3000) for _ in range(40)]

    def features(self, view: Any) -> Any:
        return len(view[0]), str(view[1])[:20], tuple(one[0] for one in view[0][:3])


class Record(Target):
    """u8 kind, body: what stands behind the rings, given any record."""

    name = "records"
    about = "records behind the rings: the calls' store, packets, lines, answers"
    patience_ms = 20.0
    longest = 4096
    pieces = (
        b"\xff\xff\xff\xff",
        b"\0\0\0\x80",
        b"\xff\xff\0\0",
        b"\r\nCall-ID: a\r\n",
        b"\xed\xa0\x80",
        b'"\\\n',
        b"\x1c\x85 \xc2\xa0",
    )

    def __init__(self, build: Build) -> None:
        super().__init__(build)
        self.stores = Stores(build)
        self.messages = build.module("engine.calls.messages")
        self.json = build.module("engine.calls.dialog_json").DialogJson
        self.maker = build.module("engine.reporters.output").OutputMaker("fuzz", {})
        self.writer = build.module("engine.reporters.line_writer").LineWriter("fuzz", {})

    @classmethod
    def corpus(cls) -> Iterable[bytes]:
        from tests.builds import COMPILED
        from tests.fuzz.packet_targets import Media, Road

        made: dict[bytes, None] = {}
        for target in (Road(COMPILED), Media(COMPILED)):
            for octets in list(target.corpus())[:30]:
                _, sent, seen, _ = target.run(octets)
                made.update(
                    (bytes([kind]) + body, None) for kind, body in (*sent, *seen) if len(body) < cls.longest
                )
        by_shape = {(one[0], len(one) // 32, one[262:264]): one for one in made}
        return [
            *by_shape.values(),
            b"\x06" + bytes(PACKET_SIZE) + b'{"protocol": "x", "labels": {}, "payload": {"a": 1}}',
        ]

    def run(self, octets: bytes) -> Any:
        kind, body = (octets[:1] or b"\0")[0] % 8, octets[1:]
        with without_chance():
            calls = self.stores.fresh(4)
            for turn in range(2):
                calls.add(kind, NOW + turn, body)
            reports = calls.dialogs_report()
            answers = self.answers(calls)
        parts: list[bytes] = []
        self.json(calls.table, calls.rows).dialogs(lambda part: parts.append(bytes(part)))
        must(
            orjson.loads(b"".join(parts)) == orjson.loads(orjson.dumps(reports)),
            "the composed report differs",
        )
        return orjson.dumps(reports), answers, self.line(kind, body), orjson.dumps(calls.defects_report())

    def answers(self, calls: Any) -> Any:
        """What screens are told of each call."""
        answers = []
        for dialog in calls.table.dialogs.values():
            ladder = self.messages.message_rows(calls.table, dialog, 0, 100)
            shown = [self.messages.message_answer(calls.table, dialog, at) for at in range(dialog.kept)]
            answers.append(orjson.dumps([calls.rows.row(dialog), ladder, shown]))
        return answers

    def line(self, kind: int, body: bytes) -> Any:
        """The packet in the record; of a sound message the composed line is the same."""
        packet = self.maker.make(kind, NOW, body)
        line = None
        if packet is not None:
            line = orjson.dumps(packet.as_dict(), option=orjson.OPT_APPEND_NEWLINE)
        if kind != 1:
            return line
        record = bytearray(body + bytes(-len(body) % 8 or 8))
        self.writer.attach(record)
        made: list[bytes] = []
        if self.writer.write(NOW, len(body)):
            self.writer.give(lambda part: made.append(bytes(part)))
            orjson.loads(b"".join(made))
            if sound(body):
                must(b"".join(made) == line, f"lines differ: {made} and {line!r}")
        return line, made

    def features(self, view: Any) -> Any:
        report, answers, line, defects = view
        return len(report) // 64, len(answers), line is None or len(str(line)) // 64, len(defects) > 2


def sound(body: bytes) -> bool:
    """Whether every slot of a SIP record lies in its message, as the parser's do."""
    length = SIP_FIXED.unpack_from(body, PACKET_SIZE)[6]
    slots = struct.unpack_from(f"<{2 * SIP_SLOTS}i", body, PACKET_SIZE + SIP_FIXED.size)
    pairs = zip(slots[::2], slots[1::2], strict=True)
    return len(body) == SIP_MESSAGE + length and all(
        (begin, end) == (-1, -1) or 0 <= begin <= end <= length for begin, end in pairs
    )


TARGETS: tuple[type[Target], ...] = (CaptureFile, Ring, Record)

"""Fuzzed on single frames and sequences of frames: decoder, reassembly, media, the whole packet road."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any, ClassVar

import orjson

from engine.shm import counters as layout
from engine.shm.counters import Counters
from tests.fuzz import frames
from tests.fuzz.frames import LINKS, OTHER_INTERFACE, OUTGOING, SNAPPED, TAGGED, Frame
from tests.fuzz.target import Target, must, without_chance

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.builds import Build

NOW = 1_700_000_000_000_000_000
WORDS = 1024
FRAGMENT = 6
HELD = layout.index("fragments_held")
NAMES = (
    "frame", "frame_end", "network", "transport", "payload", "payload_end", "src0", "src1", "dst0", "dst1",
    "sport", "dport", "protocol", "tos", "ttl", "tcp_flags", "flags", "link_type", "mac", "vlan_count",
    "outer_vlan", "inner_vlan", "domain", "depth", "tunnel_type", "vni", "outer_src0", "outer_src1",
    "outer_dst0", "outer_dst1", "fragment_id", "fragment_offset", "fragment_more", "fragment_start",
    "fragment_end", "clipped",
)  # fmt: skip
ITEMS: dict[int, tuple[str, ...]] = {
    1: ("ssrc", "ntp", "timestamp", "packets", "octets"),
    2: ("ssrc",),
    3: ("ssrc", "about", "fraction", "lost", "highest", "jitter", "last", "delay"),
    4: ("ssrc", "text", "text_end"),
    5: ("ssrc",),
    6: ("ssrc", "name"),
    7: ("ssrc",),
    8: ("ssrc", "ntp"),
    9: ("ssrc", "about", "last", "delay"),
    10: ("ssrc", "about", "text", "text_end"),
    11: ("ssrc", "packet_type"),
}
"""Fields of engine.parsers.rtcp that are set with an item."""
PIECES = (
    b"\x08\0\x45",
    b"\x86\xdd\x60",
    b"\x81\0",
    b"\x88\xa8",
    b"\x88\x47",
    b"\x88\x64\x11\0",
    b"\x12\xb5",
    b"\x17\xc1",
    b"\x08\x68",
    b"\x11\xb4",
    b"\x9c\x4c",
    b"\x65\x58",
    b"\x88\x0b",
    b"\x88\xbe",
    b"\x22\xeb",
    b"\x45\0\0\x1c",
    b"\x11\0\0\0",
    b"\x2f",
    b"\x29",
    b"\x2c\0\0\1",
    b"\x08\0\0\0\0\0\x01\0",
    b"\x30\xff",
    b"\x20\0",
    b"\x80\xc8",
)


def words() -> memoryview:
    """Counters of one run."""
    return memoryview(array("Q", bytes(8 * WORDS)))


def counted(counters: memoryview) -> tuple[tuple[int, int], ...]:
    """Those that are not 0."""
    return tuple((place, value) for place, value in enumerate(counters) if value)


class Decode(Target):
    """One frame of any link type, all tunnels on."""

    name = "decode"
    about = "link layers, VLAN, PPPoE, MPLS, IPv4, IPv6, tunnels, UDP, TCP, ICMP"
    longest = 2048
    patience_ms = 1.0
    pieces = PIECES

    def __init__(self, build: Build) -> None:
        super().__init__(build)
        self.module = build.module("engine.decode.classifier")

    @classmethod
    def corpus(cls) -> Iterable[bytes]:
        return [bytes([one.how, 0]) + one.octets for one in frames.single()]

    def run(self, octets: bytes) -> Any:
        how, vlan = (octets[:2] + bytes(2))[:2]
        frame = octets[2:]
        counters = words()
        decoder = self.module.Decoder(counters, self.module.ALL_TUNNELS)
        buffer = b"\x45" * 7 + frame + b"\x60" * 9
        decoder.attach(memoryview(buffer))
        end = 7 + len(frame)
        wire = len(frame) + (100 if how & SNAPPED else 0)
        verdict = decoder.decode(7, end, wire, LINKS[how & 15], 0x81000000 | vlan if how & TAGGED else 0)
        view = tuple(int(getattr(decoder, name)) for name in NAMES if hasattr(decoder, name))
        must(0 <= verdict <= 7, f"verdict {verdict}")
        must(7 <= decoder.payload <= decoder.payload_end <= end, "the payload leaves the frame")
        must(7 <= decoder.network <= end and decoder.transport <= end, "a header leaves the frame")
        if verdict == FRAGMENT:
            must(
                decoder.network < decoder.fragment_start < decoder.fragment_end <= end,
                "the fragment leaves the frame",
            )
        must(decoder.depth <= 8, "too many tunnels")
        return verdict, view, counted(counters)

    def features(self, view: Any) -> Any:
        verdict, fields, counts = view
        return (
            verdict,
            fields[12],
            fields[16],
            fields[19],
            fields[23],
            fields[24],
            tuple(place for place, _ in counts),
        )

    def repair(self, octets: bytes) -> bytes:
        return (
            octets[:2] + bytes(frames.repaired(bytearray(octets[2:]), LINKS[octets[0] & 15]))
            if octets
            else octets
        )


class Rtp(Target):
    """u8: 0 whole, else cut by the snap length; then one payload between other octets."""

    name = "rtp"
    about = "headers of RTP, and everything in a compound RTCP packet"
    longest = 1024
    patience_ms = 1.0
    pieces = (
        b"\x81\xc8\0\x0c",
        b"\x81\xc9\0\x07",
        b"\x81\xca\0\x04",
        b"\x81\xcb\0\x01",
        b"\x80\xcc\0\x02",
        b"\x80\xcf\0\x12",
        b"\x04\0\0\x02",
        b"\x05\0\0\x03",
        b"\x07\0\0\x08",
        b"\x07\0\0\x07",
        b"\x01\x08",
        b"\xa0",
        b"\x9f",
        b"\xff\xff",
    )

    def __init__(self, build: Build) -> None:
        super().__init__(build)
        self.header = build.module("engine.parsers.rtp").RtpParser()
        self.items = build.module("engine.parsers.rtcp").RtcpParser()

    @classmethod
    def corpus(cls) -> Iterable[bytes]:
        payloads = [one[42:] for one in frames.call()[2:-1]] + [one.octets[42:] for one in frames.captured()]
        return [b"\0" + one for one in payloads if one[:1] and one[0] >> 6 == 2]

    def run(self, octets: bytes) -> Any:
        snapped, payload = octets[:1] > b"\0", octets[1:]
        buffer = b"\x81\xc9\0\x01" + payload + b"\x81\xc9\0\x01" * 2
        start, end = 4, 4 + len(payload)
        header, items = self.header, self.items
        header.attach(buffer)
        items.attach(buffer)
        kind = header.classify(start, end, snapped)
        found: list[tuple[Any, ...]] = []
        if items.begin(start, end):
            while item := items.next():
                must(len(found) < 2048, "no end of items")
                if item in (4, 10):
                    must(start <= items.text <= items.text_end <= end, "a text leaves the payload")
                found.append((item, *(getattr(items, name) for name in ITEMS[item])))
        view = [kind, bool(header.rtcp_compound(start, end)), items.defects, tuple(found)]
        if kind == 1:
            must(start <= header.payload and header.payload + header.octets <= end, "the payload leaves it")
            names = ("ssrc", "timestamp", "sequence", "payload_type", "marker", "octets", "payload")
            view += [getattr(header, name) for name in names]
        return tuple(view)

    def features(self, view: Any) -> Any:
        return view[:3], tuple(item[0] for item in view[3])[:12]


class Sequence(Target):
    """What takes a sequence of frames."""

    longest = 8192
    pieces = (
        *PIECES,
        b"INVITE sip:",
        b"\r\nContent-Length: 99999\r\n",
        b"\r\nm=audio 4000 RTP/AVP 8 101\r\n",
    )

    def repair(self, octets: bytes) -> bytes:
        return frames.joined(
            [
                Frame(one.how, one.gap, bytes(frames.repaired(bytearray(one.octets), one.link_type)))
                for one in frames.sequence(octets)
            ]
        )


class Fragments(Sequence):
    """Decoder and reassembly with small tables, so that all limits are reached."""

    name = "fragments"
    about = "IPv4 and IPv6 reassembly, also of tunnels and in tunnels"
    patience_ms = 5.0

    def __init__(self, build: Build) -> None:
        super().__init__(build)
        self.decode = build.module("engine.decode.classifier")
        self.fragments = build.module("engine.decode.fragments")

    @classmethod
    def corpus(cls) -> Iterable[bytes]:
        first, others = frames.call()[0], frames.others()
        whole = [frames.fragments(first, size, 7) for size in (8, 64, 200, 400)]
        tunnels = [frames.fragments(one, 160, 9) for one in frames.tunnelled() if one[12:14] == b"\x08\0"]
        found = [
            *whole,
            *tunnels,
            list(others),
            [one for half in zip(*whole[2:4], strict=False) for one in half],
        ]
        return [frames.joined(one) for one in found]

    def run(self, octets: bytes) -> Any:
        counters = words()
        decoder = self.decode.Decoder(counters, self.decode.ALL_TUNNELS)
        pool = self.fragments.Reassembly(
            counters,
            2_000_000_000,
            max_datagrams=8,
            max_bytes=160 << 10,
            max_fragments=16,
            seed=bytes(range(16)),
        )
        now, given, view = NOW, 0, []
        for one in frames.sequence(octets):
            now += one.gap_ns
            decoder.attach(memoryview(one.octets))
            wire = len(one.octets) + (100 if one.how & SNAPPED else 0)
            verdict = decoder.decode(0, len(one.octets), wire, one.link_type, 0)
            depth = 0
            while verdict == FRAGMENT:
                given += 1
                whole = pool.add(decoder, now)
                must(pool.store.chunks - pool.store.free <= 320, "more octets held than allowed")
                must(pool.datagrams <= 8, "more datagrams held than allowed")
                if whole is None:
                    break
                must(len(whole) - pool.network <= 65_535, "a packet of more than 65,535 octets")
                decoder.attach(memoryview(whole))
                verdict = decoder.decode_network(pool.network, len(whole))
                must(decoder.payload <= decoder.payload_end <= len(whole), "the payload leaves the datagram")
                view.append((verdict, bytes(whole)))
                depth += 1
                must(depth < 64, "no end of fragments in fragments")
        self.booked(counters, given)
        pool.finish()
        must(counters[HELD] == 0, "fragments are held behind the end")
        return tuple(view), counted(counters)

    def booked(self, counters: memoryview, given: int) -> None:
        """Every fragment is in one counter."""
        reasons = {
            name: int(counters[layout.index(name)]) for name in layout.NAMES if name.startswith("fragments_")
        }
        reasons.pop("fragments_overlapping")
        must(sum(reasons.values()) == given, f"{given} fragments, booked {reasons}")

    def features(self, view: Any) -> Any:
        wholes, counts = view
        return tuple(verdict for verdict, _ in wholes)[:4], tuple(place for place, _ in counts)


class Stores:
    """The calls' store, without what it takes to set up its columns each time."""

    def __init__(self, build: Build) -> None:
        limits = {"calls": 2, "messages_per_call": 8, "message_bytes": 1 << 16}
        self.calls = build.module("engine.calls.store").Calls(limits, "packet")
        self.table = build.module("engine.calls.dialogs").DialogTable
        self.rows = build.module("engine.calls.rows").CallRows
        self.streams = build.module("engine.calls.streams").StreamStore

    def fresh(self, calls: int, streams: Any = None) -> Any:
        """The store, empty."""
        store = self.calls
        store.table = self.table(calls, 8, 1 << 16)
        store.rows = self.rows(store.table, 0)
        store.streams = self.streams(streams, 64)
        store.packet_ns = 0
        return store


class Road(Sequence):
    """The whole pipeline: books balance after each frame, both builds write the same records."""

    name = "pipeline"
    about = (
        "frame in, records and books out: everything between capture and rings, with the calls' store behind"
    )
    patience_ms = 20.0
    options: ClassVar[dict[str, Any]] = {
        "frame_numbers": True,
        "unmatched_forward": True,
        "rtp_raw": True,
        "deduplicate": True,
        "loopback_index": 1,
    }
    before: ClassVar[tuple[bytes, ...]] = ()
    """Frames in front of the input's."""

    def __init__(self, build: Build) -> None:
        super().__init__(build)
        names = (
            "decode.classifier", "decode.fragments", "pipeline.loop", "shm.flows", "shm.streams", "shm.ring",
            "calls.store", "calls.witness", "calls.dialog_json", "reporters.output", "reporters.line_writer",
        )  # fmt: skip
        self.at = {name.rpartition(".")[2]: build.module(f"engine.{name}") for name in names}
        self.stores = Stores(build)
        self.shown: set[str] = set()
        """Figures of streams that the last input made other than 0."""
        self.maker = self.at["output"].OutputMaker("fuzz", {"a": "b"})
        self.writer = self.at["line_writer"].LineWriter("fuzz", {"a": "b"})

    @classmethod
    def corpus(cls) -> Iterable[bytes]:
        single = frames.single()
        found = [frames.joined(list(frames.call())), frames.joined(list(frames.others()))]
        found += [
            frames.joined(list(frames.tunnelled()[at : at + 6]))
            for at in range(0, len(frames.tunnelled()), 6)
        ]
        captured = frames.captured()
        found += [frames.joined(list(captured[at : at + 12])) for at in range(0, len(captured), 12)]
        return found + [frames.joined([one]) for one in single[:60]]

    def run(self, octets: bytes) -> Any:
        with without_chance():
            return self.drive(frames.sequence(octets))

    def drive(self, given: list[Frame]) -> Any:
        """Feed a new pipeline."""
        counters = Counters.create("fuzz", 0)
        ring = self.at["ring"]
        regions = [ring.create("fuzz", 0, 1 << 20) for _ in range(2)]
        writers = [ring.RingWriter(region) for region in regions]
        streams = self.at["streams"].StreamTable.create("fuzz", 0, 64)
        pool = self.at["fragments"].Reassembly(counters.words, max_datagrams=32, max_bytes=256 << 10)
        road = self.at["loop"].Pipeline(
            counters, self.at["flows"].FlowTable.create("fuzz", 0, 64), streams, *writers, pool,
            self.at["classifier"].Decoder(counters.words, self.at["classifier"].ALL_TUNNELS), self.options,
        )  # fmt: skip
        now, start = NOW, 16
        for one in [*(Frame(0, 20, octets) for octets in self.before), *given]:
            now += one.gap_ns
            buffer = bytearray(b"\x80" * start + one.octets + b"\x80" * 16)
            road.attach(memoryview(buffer))
            wire = len(one.octets) + (100 if one.how & SNAPPED else 0)
            vlan = 0x81000064 if one.how & TAGGED else 0
            kind = 4 if one.how & OUTGOING else 0
            number = 2 if one.how & OTHER_INTERFACE else 1
            road.packet(start, start + len(one.octets), wire, now, number, one.link_type, vlan, kind)
            must(counters.balance() == 0, "the books do not balance")
        road.idle(now)
        return self.behind(counters, regions, streams, now)

    def behind(self, counters: Counters, regions: list[Any], streams: Any, now: int) -> Any:
        """Records and figures, and what the processes behind the rings make of them."""
        ring = self.at["ring"]
        sent, seen = (
            [(kind, body) for kind, _, _, body in ring.RingReader(one).read(1 << 16)] for one in regions
        )
        values = counters.as_dict()
        must(values["output"] == len(sent), "not as many records as packets put out")
        calls = self.stores.fresh(16, streams)
        for kind, body in seen:
            calls.add(kind, now, body)
        reports = calls.dialogs_report()
        rows = streams.rows(detail=True)
        self.shown = {key for row in rows for key, value in row.items() if value}
        self.written(calls, reports)
        self.lines(sent, now)
        return (
            tuple((name, value) for name, value in values.items() if value),
            tuple(sent),
            tuple(seen),
            orjson.dumps([reports, rows, calls.defects_report()]),
        )

    def written(self, calls: Any, reports: list[dict[str, Any]]) -> None:
        """The report composed without objects is what the objects say."""
        parts: list[bytes] = []
        self.at["dialog_json"].DialogJson(calls.table, calls.rows).dialogs(
            lambda part: parts.append(bytes(part))
        )
        text = b"".join(parts)
        must(
            orjson.loads(text) == orjson.loads(orjson.dumps(reports)),
            f"the composed report differs: {text!r}",
        )

    def lines(self, sent: list[tuple[int, bytes]], now: int) -> None:
        """Each record becomes a packet, and its line is the same from both writers."""
        maker, writer = self.maker, self.writer
        for kind, body in sent:
            packet = maker.make(kind, now, body)
            must(packet is not None, f"a record of kind {kind} is no packet")
            line = orjson.dumps(packet.as_dict(), option=orjson.OPT_APPEND_NEWLINE)
            if kind == 1:
                record = bytearray(body + bytes(-len(body) % 8))
                writer.attach(record)
                if writer.write(now, len(body)):
                    made: list[bytes] = []
                    writer.give(lambda part, made=made: made.append(bytes(part)))
                    must(b"".join(made) == line, f"lines differ: {made} and {line!r}")

    def features(self, view: Any) -> Any:
        counts, sent, seen, _ = view
        shown = tuple(sorted(self.shown))
        return tuple(name for name, _ in counts), len({kind for kind, _ in sent}), min(len(seen), 3), shown


class Media(Road):
    """A call is up; the input is payloads of its media and RTCP, one behind the other."""

    name = "media"
    about = "RTP, telephone events, RTCP with extended reports, and the figures of streams"
    options: ClassVar[dict[str, Any]] = {
        "frame_numbers": True,
        "rtp_report": "interval",
        "rtp_interval_ns": 10**9,
    }
    before = frames.call()[:2]
    pieces = (
        b"\x80\xc8",
        b"\x80\xcf",
        b"\x80\x65",
        b"\x81\xc9\0\x07",
        b"\x04\0\0\x02",
        b"\x05\0\0\x03",
        b"\x07\0\0\x08",
    )

    @classmethod
    def corpus(cls) -> Iterable[bytes]:
        payloads = [one[42:] for one in frames.call()[2:-1]]
        found = [frames.joined([Frame(at & 1, 20, one) for at, one in enumerate(payloads)])]
        found += [frames.joined([Frame(0, 20, one)]) for one in payloads]
        for one in frames.captured():
            payload = one.octets[42:]
            if payload[:1] and payload[0] >> 6 == 2:
                found.append(frames.joined([Frame(0, 20, payload)] * 3))
        return found

    def repair(self, octets: bytes) -> bytes:
        return octets

    def run(self, octets: bytes) -> Any:
        def around(one: Frame) -> Frame:
            ends = (frames.BOB, frames.ALICE) if one.how & 1 else (frames.ALICE, frames.BOB)
            port = 40013 if one.how & 2 else 40012
            return Frame(one.how & SNAPPED, one.gap, frames.udp(one.octets, port, port, *ends))

        with without_chance():
            return self.drive([around(one) for one in frames.sequence(octets)])


TARGETS: tuple[type[Target], ...] = (Decode, Fragments, Rtp, Media, Road)

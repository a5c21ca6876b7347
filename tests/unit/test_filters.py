"""Capture filters: what they let through, held against libpcap and against the kernel, and what they say."""

from __future__ import annotations

import random
import socket
import struct
from contextlib import closing
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from engine.capture import cbpf, filters
from engine.capture.af_packet import attach
from engine.capture.filter_rules import Rules, RulesFilter
from engine.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.builds import Build

A, B, C = "10.0.1.7", "10.0.2.9", "192.0.2.1"
A6, B6 = "2001:db8:1::7", "2001:db8:2::9"
ETHERNET, RAW = cbpf.ETHERNET, 101

needs_libpcap = pytest.mark.skipif(not filters.libpcap_version(), reason="libpcap is not installed")


def ipv4(src: str, dst: str, protocol: int, body: bytes, fragment: int = 0, options: bytes = b"") -> bytes:
    words = 5 + len(options) // 4
    head = struct.pack(">BBHHHBBH", 0x40 | words, 0, 4 * words + len(body), 7, fragment, 64, protocol, 0)
    return head + ip_address(src).packed + ip_address(dst).packed + options + body


def ipv6(src: str, dst: str, header: int, body: bytes) -> bytes:
    return (
        struct.pack(">IHBB", 6 << 28, len(body), header, 64)
        + ip_address(src).packed
        + ip_address(dst).packed
        + body
    )


def udp(sport: int, dport: int, body: bytes = b"x" * 20) -> bytes:
    return struct.pack(">HHHH", sport, dport, 8 + len(body), 0) + body


def tcp(sport: int, dport: int) -> bytes:
    return struct.pack(">HHIIBBHHH", sport, dport, 1, 2, 0x50, 0x18, 100, 0, 0)


def ethernet(packet: bytes, *tags: int, kind: int = 0) -> bytes:
    kind = kind or (0x0800 if packet[0] >> 4 == 4 else 0x86DD)
    head = b"\2\0\0\0\0\1\2\0\0\0\0\2"
    for place, tag in enumerate(tags):
        head += struct.pack(">HH", 0x88A8 if place == 0 and len(tags) > 1 else 0x8100, tag)
    return head + struct.pack(">H", kind) + packet


def matcher(build: Build, program: cbpf.Program) -> Any:
    machine = build.module("engine.capture.packet_filter").PacketFilter(program)

    def run(frame: bytes, hardware: int = 1, network: int = 0, **facts: int) -> int:
        machine.attach(memoryview(frame))
        machine.hardware, machine.network = hardware, network
        for name, value in facts.items():
            setattr(machine, name, value)
        return int(machine.match(0, len(frame)))

    return run


def packets(seed: int, count: int) -> Iterator[bytes]:
    """IP packets around the addresses and ports that the tests filter for."""
    rng = random.Random(seed)
    for _ in range(count):
        ports = rng.choices([5060, 5061, 5062, 10000, 15000, 20000, 20001, 80, 9999], k=2)
        four = rng.random() < 0.6
        protocol = rng.choice([17, 17, 17, 6, 132, 1, 50])
        sport, dport = ports
        datagram = udp(sport, dport)
        body = {17: datagram, 6: tcp(sport, dport), 132: datagram}.get(protocol, rng.randbytes(24))
        src, dst = rng.choices([A, B, C, "10.0.1.8", "10.0.3.9"] if four else [A6, B6, "2001:db8:3::1"], k=2)
        if four:
            fragment = rng.choice([0, 0, 0, 0x2000, 0x2005, 0x4000])
            options = rng.choice([b"", b"", b"\1\1\1\1"])
            yield ipv4(src, dst, protocol, body, fragment, options)
        elif rng.random() < 0.2:
            yield ipv6(src, dst, 44, struct.pack(">BBHI", protocol, 0, rng.choice([1, 9, 16]), 7) + body)
        else:
            yield ipv6(src, dst, protocol, body)


RULES: list[dict[str, Any]] = [
    {"ports": [5060], "protocol": "udp"},
    {"ports": [5060, 5061], "port_range": "10000-20000", "protocol": "any"},
    {"protocol": "tcp"},
    {"src_ip": ["10.0.1.0/24"], "dst_ip": ["10.0.2.0/24"]},
    {"src_ip": [A, "2001:db8:1::/48"], "ports": [5060]},
    {"src_ip": [A6], "dst_ip": [B6, "10.0.0.0/8"], "protocol": "udp", "port_range": "5060-5061"},
    {"dst_ip": ["0.0.0.0/0"], "protocol": "udp"},
    {"dst_ip": ["::/0"], "ports": [80]},
    {"src_ip": ["10.0.1.0/24", "10.0.0.0/15", "192.0.2.1"], "dst_ip": ["10.0.3.9/32"]},
]


class TestStructured:
    @needs_libpcap
    @pytest.mark.parametrize("rules", RULES, ids=str)
    def test_same_packets_as_libpcap(self, rules: dict[str, Any]) -> None:
        from tests.builds import COMPILED

        expression = filters.expression_of(rules)
        for widen in (False, True):
            ours = filters.structured_filter(rules, ETHERNET, widen=widen)
            theirs = filters.compile_filter(expression, ETHERNET, widen=widen)
            first, second = matcher(COMPILED, ours), matcher(COMPILED, theirs)
            seen = set()
            for number, packet in enumerate(packets(1, 400)):
                frame = ethernet(packet, *((), (100,), (200, 100))[number % 3])
                assert bool(first(frame)) == bool(second(frame)), (expression, packet.hex())
                seen.add(bool(first(frame)))
            assert True in seen

    def test_takes_both_directions(self, build: Build) -> None:
        rules = {"src_ip": [A], "dst_ip": [B], "ports": [5060], "protocol": "udp"}
        match = matcher(build, filters.structured_filter(rules, ETHERNET))
        assert match(ethernet(ipv4(A, B, 17, udp(5060, 6000))))
        assert match(ethernet(ipv4(B, A, 17, udp(6000, 5060))))
        assert not match(ethernet(ipv4(A, C, 17, udp(5060, 6000))))
        assert not match(ethernet(ipv4(A, A, 17, udp(5060, 6000))))
        assert not match(ethernet(ipv4(A, B, 6, tcp(5060, 6000))))
        assert not match(ethernet(b"\0" * 40, kind=0x0806))

    def test_nothing_restricted_is_one_instruction(self) -> None:
        assert filters.live_program({}, 128) == [(cbpf.RET, 0, 0, 128)]
        assert filters.live_program({"bpf": "", "protocol": "any", "ports": []}) == cbpf.accept(262144)

    def test_hundreds_of_hosts_fit(self, build: Build) -> None:
        hosts = [f"10.1.{n // 250}.{n % 250}" for n in range(600)]
        match = matcher(build, filters.structured_filter({"src_ip": hosts}, ETHERNET))
        assert match(ethernet(ipv4("10.1.2.99", C, 17, udp(1, 2))))
        assert match(ethernet(ipv4(C, "10.1.2.99", 17, udp(1, 2))))
        assert not match(ethernet(ipv4(C, "10.1.3.99", 17, udp(1, 2))))

    def test_too_many_hosts_say_so(self) -> None:
        with pytest.raises(UsageError, match=r"\d+ instructions, the kernel takes 4096"):
            filters.structured_filter({"src_ip": [f"10.{n >> 8}.{n & 255}.1" for n in range(3000)]})

    @pytest.mark.parametrize(
        ("rules", "message"),
        [
            ({"port_range": "20000-10000"}, "filter.port_range: '20000-10000' is no range"),
            ({"port_range": "5060"}, "filter.port_range"),
            ({"src_ip": ["10.0.0.0/33"]}, "filter.src_ip: '10.0.0.0/33'"),
            ({"dst_ip": ["example.com"]}, "filter.dst_ip: 'example.com'"),
            ({"protocol": "sctp"}, "filter.protocol: 'sctp'"),
            ({"ports": [70000]}, "filter.ports: 70000"),
        ],
    )
    def test_names_the_key(self, rules: dict[str, Any], message: str) -> None:
        with pytest.raises(UsageError, match=message) as caught:
            filters.structured_filter(rules)
        assert caught.value.hint


class TestKernelAgrees:
    """The kernel runs a filter on any datagram socket, which makes it the oracle without root."""

    @staticmethod
    def kernel(program: cbpf.Program) -> Any:
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        attach(right, program)
        right.setblocking(False)

        def run(frame: bytes) -> int:
            left.send(frame)
            try:
                return len(right.recv(65536))
            except BlockingIOError:
                return 0

        return left, right, run

    @pytest.mark.parametrize("rules", RULES[:6], ids=str)
    def test_on_structured_filters(self, build: Build, rules: dict[str, Any]) -> None:
        self.compare(build, filters.structured_filter(rules, ETHERNET))

    @needs_libpcap
    @pytest.mark.parametrize(
        "expression",
        [
            "udp port 5060",
            "not udp port 5060",
            "ip[8] * 2 + 4 / 3 - 1 > 100 or tcp[tcpflags] & (tcp-syn|tcp-fin) = 0 and len % 7 < 3",
            "(ip[2:2] << 3 >> 1 ^ 5) | 1 != ip[4:2]",
            "portrange 10000-20000 and net 10.0.0.0/15",
        ],
    )
    def test_on_expressions(self, build: Build, expression: str) -> None:
        self.compare(build, filters.compile_filter(expression, ETHERNET))

    def compare(self, build: Build, program: cbpf.Program) -> None:
        left, right, kernel = self.kernel(program)
        match = matcher(build, program)
        with closing(left), closing(right):
            for number, packet in enumerate(packets(2, 150)):
                frame = ethernet(packet, *((), (100,), (200, 100))[number % 3])
                for cut in (frame, frame[: 14 + number % 30]):
                    expected = kernel(cut)
                    assert min(match(cut, wire_length=len(cut)), len(cut)) == expected, cut.hex()


class TestAroundTheFilter:
    @pytest.fixture
    def sip(self, build: Build) -> Any:
        return matcher(build, filters.structured_filter({"ports": [5060], "protocol": "udp"}))

    @needs_libpcap
    def test_expression_behaves_as_the_structured_filter(self, build: Build, sip: Any) -> None:
        other = matcher(build, filters.compile_filter("udp port 5060"))
        for packet in packets(3, 200):
            for frame, facts in (
                (ethernet(packet), {"hardware": 1}),
                (ethernet(packet, 5), {"hardware": 772}),
                (packet, {"hardware": 65534}),
                (b"\0" * 24 + packet, {"hardware": 778, "network": 24}),
            ):
                assert bool(sip(frame, **facts)) == bool(other(frame, **facts))

    def test_fragments_pass(self, sip: Any) -> None:
        body = b"y" * 64
        for frame in (
            ethernet(ipv4(A, B, 17, body, 0x2005)),
            ethernet(ipv4(A, B, 17, body, 0x0005), 100),
            ethernet(ipv4(A, B, 17, udp(1, 2), 0x2000)),
            ethernet(ipv6(A6, B6, 44, struct.pack(">BBHI", 17, 0, 9, 7) + body), 200, 100),
            ethernet(ipv6(A6, B6, 0, struct.pack(">BB6xBBHI", 44, 0, 17, 0, 9, 7) + body)),
        ):
            assert sip(frame)
        for unfragmented in (0, 0x4000):
            assert not sip(ethernet(ipv4(A, B, 17, udp(1, 2), unfragmented)))

    def test_not_widened(self, build: Build) -> None:
        rules = {"ports": [5060], "protocol": "udp"}
        match = matcher(build, filters.structured_filter(rules, ETHERNET, widen=False))
        assert not match(ethernet(ipv4(A, B, 17, b"y" * 64, 0x2005)))

    def test_tags_within_the_packet(self, sip: Any) -> None:
        packet = ipv4(A, B, 17, udp(5060, 5070))
        for tags in ((), (100,), (200, 100)):
            assert sip(ethernet(packet, *tags))
            assert not sip(ethernet(ipv4(A, B, 17, udp(1, 5070)), *tags))
        assert not sip(ethernet(packet, 1, 2, 3))

    def test_link_headers_by_hardware_type(self, sip: Any) -> None:
        packet = ipv4(A, B, 17, udp(5060, 5070))
        assert sip(ethernet(packet), hardware=1)
        assert sip(ethernet(packet), hardware=772)
        assert sip(packet, hardware=65534)
        assert sip(b"tunnel header" + packet, hardware=778, network=13)
        assert not sip(ethernet(packet), hardware=65534)

    @needs_libpcap
    def test_negation_looks_into_tagged_packets(self, build: Build) -> None:
        match = matcher(build, filters.compile_filter("not udp port 5060"))
        assert not match(ethernet(ipv4(A, B, 17, udp(5060, 1)), 100))
        assert match(ethernet(ipv4(A, B, 17, udp(5061, 1)), 100))
        assert match(ethernet(b"\0" * 40, kind=0x0806))

    @needs_libpcap
    def test_ethernet_addresses_only_where_there_are_any(self, build: Build) -> None:
        match = matcher(build, filters.compile_filter("ether src 02:00:00:00:00:02"))
        assert match(ethernet(ipv4(A, B, 17, udp(1, 2)), 7))
        assert not match(ipv4(A, B, 17, udp(1, 2)), hardware=65534)

    @needs_libpcap
    def test_files_of_other_link_types(self, build: Build) -> None:
        packet = ipv4(A, B, 17, udp(5060, 1))
        for link_type, head in (
            (101, b""),
            (113, struct.pack(">HHH8sH", 0, 1, 6, bytes(8), 0x0800)),
            (276, struct.pack(">HHIHBB8s", 0x0800, 0, 1, 1, 0, 6, bytes(8))),
            (0, struct.pack("=I", 2)),
        ):
            match = matcher(build, filters.compile_filter("udp port 5060", link_type))
            assert match(head + packet)
            assert match(head + ipv4(A, B, 17, b"y" * 64, 0x2005))
            assert not match(head + ipv4(A, B, 17, udp(5061, 1)))

    @needs_libpcap
    def test_vlan_in_files(self, build: Build) -> None:
        match = matcher(build, filters.compile_filter("vlan 100 and udp port 5060", ETHERNET))
        assert match(ethernet(ipv4(A, B, 17, udp(5060, 1)), 100))
        assert not match(ethernet(ipv4(A, B, 17, udp(5060, 1)), 101))

    def test_one_copy_on_loopback(self, build: Build) -> None:
        match = matcher(build, cbpf.once_on_loopback(cbpf.accept(100)))
        assert match(b"x" * 60, hardware=772, packet_type=0) == 100
        assert not match(b"x" * 60, hardware=772, packet_type=4)
        assert match(b"x" * 60, hardware=1, packet_type=4)

    def test_only_some_interfaces(self, build: Build) -> None:
        match = matcher(build, cbpf.only_interfaces(cbpf.accept(100), [3, 7, 900]))
        assert [match(b"x", interface=n) for n in (3, 7, 900, 1, 0)] == [100, 100, 100, 0, 0]

    def test_snap_length(self, build: Build) -> None:
        rules = {"ports": [5060]}
        match = matcher(build, filters.structured_filter(rules, ETHERNET, snaplen=128))
        assert match(ethernet(ipv4(A, B, 17, udp(5060, 1)))) == 128
        assert match(ethernet(ipv4(A, B, 17, udp(5060, 1), 0x2000))) == 128

    def test_labels_reach_over_long_lists(self, build: Build) -> None:
        body = RulesFilter(Rules.read({"ports": list(range(1, 900, 2))}))
        program = cbpf.frame(body, RAW, widen=True, tags=True, snaplen=1)
        match = matcher(build, program)
        assert match(ipv4(A, B, 17, udp(1000, 899)))
        assert not match(ipv4(A, B, 17, udp(1000, 898)))


class TestMessages:
    @pytest.mark.parametrize(
        ("expression", "message", "hint"),
        [
            ("udp prt 5060", "'prt' is a name or no keyword (column 5)", "did you mean 'port'?"),
            ("udp port sip", "'sip' is a name or no keyword (column 10)", "port 5060"),
            ("host example.com", "'example.com' is a name or no keyword (column 6)", "write the address"),
            ("host 3com.example", "'3com.example' is a name (column 6)", "write the address"),
            ("gateway 10.0.0.1", "'gateway' is a name or no keyword (column 1)", ""),
            ("udp; rm", "';' cannot stand in a filter (column 4)", ""),
            ("host 1:2:3", "'1:2:3' is no address (column 6)", ""),
            ("udp and vlan 5", "vlan cannot be tested on live traffic", "leave it out"),
            ("  ", "the expression is empty", "leave the filter out"),
            ("udp or " * 800, "5600 octets, the most is 4096", "src_ip"),
        ],
    )
    def test_before_libpcap(self, expression: str, message: str, hint: str) -> None:
        with pytest.raises(UsageError) as caught:
            filters.compile_filter(expression)
        assert message in caught.value.message
        assert hint in caught.value.hint

    @needs_libpcap
    @pytest.mark.parametrize(
        ("expression", "message"),
        [
            ("udp port port 5060", "syntax error (column 10)"),
            ("udp port 99999", "illegal port number 99999 > 65535 (column 10)"),
            ("(udp port 5060", "something is missing at the end (column 15)"),
            ("udp and", "something is missing at the end (column 8)"),
            ("host 1.2.3.400", "1.2.3.400"),
            ("port 5060 or or port 1", "(column 14)"),
            ("ip[6:2] & 0x1fff != 0 ) and udp", "(column 23)"),
        ],
    )
    def test_of_libpcap_with_the_place(self, expression: str, message: str) -> None:
        with pytest.raises(UsageError) as caught:
            filters.compile_filter(expression)
        assert message in caught.value.message
        shown, caret = caught.value.hint.splitlines()[:2]
        assert expression[:10] in shown
        assert caret.strip() == "^"

    def test_caret_stands_below_the_place_of_a_long_expression(self) -> None:
        expression = "udp port 5060 or " * 20 + "prt 1"
        with pytest.raises(UsageError) as caught:
            filters.compile_filter(expression)
        shown, caret = caught.value.hint.splitlines()[:2]
        assert shown[caret.index("^") :].startswith("prt")

    @pytest.mark.parametrize(
        "expression",
        [
            "udp port 5060 or udp portrange 10000-20000",
            "host fe80::1 or net 10.0.0.0/8 or ip6 host 2001:db8::7",
            "ether host 00:11:22:33:44:55 && ip[6:2] & 0x1fff != 0 || !arp",
            "ip proto \\udp and tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn",
            "src net 10.1 and dst host 192.0.2.1 and greater 100 and udp[8:4]=0x494e5649",
        ],
    )
    def test_right_expressions_pass_the_check(self, expression: str) -> None:
        assert filters.check_expression(expression)

    @needs_libpcap
    def test_time_limit(self) -> None:
        expression = " or ".join(f"port {number}" for number in range(1, 350))
        with pytest.raises(UsageError, match="needs more than 1 s") as caught:
            filters.compile_filter(expression, time_limit=1)
        assert "networks" in caught.value.hint

    def test_without_libpcap(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(filters, "_ask", lambda *_: [{"version": "", "results": []}])
        with pytest.raises(UsageError, match="libpcap is not installed") as caught:
            filters.compile_filter("udp port 5060")
        assert "src_ip" in caught.value.hint
        assert filters.structured_filter({"ports": [5060]})


class TestExpression:
    @pytest.mark.parametrize(
        ("rules", "expression"),
        [
            ({}, ""),
            ({"bpf": "udp port 1"}, "udp port 1"),
            ({"ports": [5060], "port_range": "1-9", "protocol": "udp"}, "udp port 5060 or udp portrange 1-9"),
            ({"src_ip": ["10.0.1.5/24"]}, "ip net 10.0.1.0/24"),
            ({"protocol": "tcp"}, "tcp"),
            (
                {"src_ip": [A], "dst_ip": [B6], "ports": [5060]},
                "(((ip src net 10.0.1.7/32) and (ip6 dst net 2001:db8:2::9/128)) or"
                " ((ip6 src net 2001:db8:2::9/128) and (ip dst net 10.0.1.7/32))) and (port 5060)",
            ),
        ],
    )
    def test_in_tcpdump_syntax(self, rules: dict[str, Any], expression: str) -> None:
        assert filters.expression_of(rules) == expression


class TestPacketFilter:
    @pytest.mark.parametrize(
        "program",
        [
            [],
            [(cbpf.LD_H, 0, 0, 12)],
            [(cbpf.JEQ, 1, 0, 5), (cbpf.RET, 0, 0, 1)],
            [(cbpf.JA, 0, 0, 9), (cbpf.RET, 0, 0, 1)],
            [(0xFF, 0, 0, 0), (cbpf.RET, 0, 0, 1)],
            [(0x02, 0, 0, 16), (cbpf.RET, 0, 0, 1)],
        ],
    )
    def test_refuses_what_could_run_away(self, build: Build, program: cbpf.Program) -> None:
        with pytest.raises(ValueError, match="filter"):
            build.module("engine.capture.packet_filter").PacketFilter(program)

    def test_any_program_on_any_octets_ends(self, build: Build) -> None:
        module = build.module("engine.capture.packet_filter")
        rng = random.Random(5)
        codes = sorted(module._KNOWN - {0x06, 0x16}) if hasattr(module, "_KNOWN") else []
        ran = 0
        for _ in range(300):
            size = rng.randint(1, 30)
            program = []
            for place in range(size):
                room = size - place - 1
                code = rng.choice(codes)
                small = code in (0x02, 0x03, 0x60, 0x61)
                k = (
                    rng.randint(0, room)
                    if code == 0x05
                    else rng.choice([0, 3, 15] if small else [0, 7, 2**32 - 1])
                )
                program.append((code, rng.randint(0, room), rng.randint(0, room), k))
            program.append((0x16, 0, 0, 0))
            machine = module.PacketFilter(program)
            machine.attach(memoryview(rng.randbytes(40)))
            assert 0 <= machine.match(4, 40) < 2**32
            ran += 1
        assert ran == 300


class TestFilterSink:
    def test_each_link_type_has_its_program(self, build: Build) -> None:
        seen: list[tuple[bytes, int]] = []

        class Sink(build.module("engine.capture.sink").PacketSink):  # type: ignore[misc]
            def attach(self, buf: memoryview) -> None:
                self.buf = buf

            def packet(self, start: int, end: int, *facts: int) -> int:
                seen.append((bytes(self.buf[start:end]), facts[3]))
                return 0

        packet = ipv4(A, B, 17, udp(5060, 1))
        frames = [(ethernet(packet), ETHERNET), (packet, RAW), (ethernet(packet, 9), ETHERNET)]
        frames += [(ethernet(ipv4(A, B, 17, udp(2, 1))), ETHERNET), (ipv4(A, B, 17, udp(2, 1)), RAW)]
        sink = build.module("engine.capture.file_filter").FilterSink(Sink(), {"ports": [5060]}, {})
        octets = b"".join(frame for frame, _ in frames)
        sink.attach(memoryview(octets))
        start = 0
        for frame, link_type in frames:
            assert sink.packet(start, start + len(frame), len(frame), 1, 0, link_type, 0, 0) == 0
            start += len(frame)
        assert seen == frames[:3]
        assert sink.left_out == 2

    def test_an_expression_without_a_meaning_for_a_link_type_matches_none_of_it(self, build: Build) -> None:
        nobody = build.module("engine.capture.sink").PacketSink()
        sink_class = build.module("engine.capture.file_filter").FilterSink
        packet = ipv4(A, B, 17, udp(5060, 1))
        for rules, link_type in (({"bpf": "ether src 02:00:00:00:00:01"}, RAW), ({"bpf": "udp"}, 9999)):
            sink = sink_class(nobody, rules, {})
            assert sink.packet(0, len(packet), len(packet), 1, 0, link_type, 0, 0) == 0
            assert sink.left_out == 1

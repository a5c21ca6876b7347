"""Fuzzed on text of people and programs: filters, configuration, requests."""

from __future__ import annotations

import asyncio
import json
import struct
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

import orjson

from engine.calls.filter import FilterError
from engine.calls.query import time_limit
from engine.capture import cbpf, filters
from engine.capture.filter_rules import Rules
from engine.config import NodeConfig
from engine.config_file import node_from_text, task_from_text, task_from_values
from engine.control.methods import METHODS
from engine.control.server import Connection, Server
from engine.errors import OtusError, UsageError
from tests.fuzz import frames
from tests.fuzz.target import Target, must

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.builds import Build


class Programs(Target):
    """u8 instructions, so many of 8 octets, then a packet: what the interpreter says of any program."""

    name = "bpf"
    about = "the interpreter of capture filters, on any program and packet"
    patience_ms = 5.0
    longest = 2048

    def __init__(self, build: Build) -> None:
        super().__init__(build)
        self.filter = build.module("engine.capture.packet_filter").PacketFilter

    @classmethod
    def corpus(cls) -> Iterable[bytes]:
        packet = frames.call()[0]
        made = []
        for rules in (
            {"ports": [5060]},
            {"src_ip": ["10.0.0.0/8"], "protocol": "udp"},
            {"port_range": "1-9"},
        ):
            for link in (cbpf.MIXED, 1, 101, 113):
                program = filters.structured_filter(rules, link)
                if len(program) < 256:
                    made.append(bytes([len(program)]) + cbpf.pack(program) + packet)
        return made

    def run(self, octets: bytes) -> Any:
        count = octets[0] if octets else 0
        code, packet = octets[1 : 1 + 8 * count], octets[1 + 8 * count :]
        program = [struct.unpack_from("=HBBI", code, place) for place in range(0, len(code) - 7, 8)]
        try:
            one = self.filter(program)
        except ValueError as error:
            return str(error)
        buffer = b"\x45" * 5 + packet + b"\x60" * 5
        one.attach(memoryview(buffer))
        one.wire_length, one.network, one.vlan, one.hardware = len(packet) + 3, 19, 0x81000064, 1
        found = [one.match(5, 5 + len(packet)), one.match(5, 5 + len(packet) // 2), one.match(5, 5)]
        must(all(0 <= value <= 0xFFFFFFFF for value in found), f"{found} is no length")
        return tuple(found)

    def features(self, view: Any) -> Any:
        if isinstance(view, str):
            return view.split()[0]
        return tuple(min(value, 0xFFFF).bit_length() for value in view)


class Expressions(Target):
    """What libpcap may see of any text, and the structured keys."""

    name = "filters"
    about = "capture filters: the check in front of libpcap, and the structured keys to programs"
    patience_ms = 50.0
    longest = 1024
    cold = True
    pieces = tuple(
        word.encode()
        for word in (
            "udp",
            "port",
            "5060",
            "and",
            "(",
            ")",
            "host",
            "1.2.3.4",
            "ip6",
            "[0]",
            "&",
            "vlan",
            "portrange",
            "1-2",
            "::1",
            "\\tcp",
            "gateway",
            "0x1F",
        )
    )

    @classmethod
    def corpus(cls) -> Iterable[bytes]:
        return [
            b"udp port 5060 and (host 192.0.2.1 or net 10.0.0.0/8)",
            b"ip6 and not tcp",
            b"udp[8:4] = 0x494e5649",
            b"portrange 10000-20000",
            b"ether host 02:00:00:00:00:01",
            b"host 2001:db8::1 and \\udp",
            b"vlan 100",
            b'{"src_ip": ["10.0.0.0/8"], "ports": [5060], "port_range": "1-65535", "protocol": "udp"}',
            b'{"dst_ip": ["2001:db8::/32", "1.2.3.4"], "protocol": "tcp"}',
        ]

    def run(self, octets: bytes) -> Any:
        text = octets.decode("utf-8", "surrogateescape" if octets[:1] == b"\xff" else "replace")
        try:
            if text.startswith("{"):
                return self.structured(text)
            tokens = filters.check_expression(text)
        except UsageError as error:
            must(error.message, "an error without a text")
            return error.message.partition(":")[0]
        must("".join(token.text for token in tokens) == "".join(text.split()), "tokens are not the text")
        return tuple(token.text for token in tokens[:8])

    def structured(self, text: str) -> Any:
        """The keys as they come from a configuration: types are checked before."""
        try:
            rules = json.loads(text)
        except (ValueError, RecursionError):
            return "no JSON"
        lists = {key: rules.get(key) for key in ("src_ip", "dst_ip") if _texts(rules.get(key))}
        ports = rules.get("ports")
        if isinstance(ports, list) and all(type(port) is int for port in ports):
            lists["ports"] = ports
        lists |= {key: rules[key] for key in ("port_range", "protocol") if isinstance(rules.get(key), str)}
        read = Rules.read(lists)
        programs = [filters.structured_filter(lists, link) for link in (cbpf.MIXED, 1, 101, 113, 0)]
        return len(read.ports), read.protocol, tuple(map(len, programs))


def _texts(value: Any) -> bool:
    return isinstance(value, list) and len(value) < 64 and all(isinstance(one, str) for one in value)


class Display(Target):
    """Any text on the columns of the calls; what takes too long is ended by the guard."""

    name = "display"
    about = "the filter language of the screens"
    patience_ms = 400.0
    longest = 1100
    cold = True
    pieces = tuple(
        word.encode()
        for word in (
            "state",
            "==",
            "!=",
            "~",
            "!~",
            "and",
            "or",
            "not",
            "(",
            ")",
            "failed",
            "messages",
            ">",
            "500ms",
            '"a b"',
            "lost_pct",
            "call_id",
            "[a-z]+",
            "\\d",
            "(?i)",
            "&&",
            "||",
        )
    )

    def __init__(self, build: Build) -> None:
        super().__init__(build)
        self.compile = build.module("engine.calls.filter").compile_filter
        store = build.module("engine.calls.store").Calls({"calls": 4}, "packet")
        from tests.sip_records import record, sip

        for number in range(3):
            store.add(
                1,
                10**18 + number,
                record(sip("INVITE", "1 INVITE", f"c{number}@x"), "10.0.0.7:5060", "10.0.0.9:5060"),
            )
        self.rows, self.names = list(store.table.dialogs.values()), store.rows.names
        self.search = store.rows.search

    @classmethod
    def corpus(cls) -> Iterable[bytes]:
        return [
            b'state == failed and from ~ "carol"',
            b"lost_pct > 1 or not (method == INVITE)",
            b"alice 10\\.0\\.",
            b"messages >= 3 && setup_s < 500ms",
            b"call_id !~ c[12]@",
            b"(((a)))",
            b"duration_s = 1.5% || !x",
        ]

    def run(self, octets: bytes) -> Any:
        text = octets.decode("utf-8", "replace")
        try:
            test = self.compile(text, self.names, self.search)
        except FilterError as error:
            must(0 <= error.position <= max(len(text), 1000) + 1, f"position {error.position} of {len(text)}")
            return error.message.partition(":")[2][:20]
        if test is None:
            must(not text.strip(), "a text that is no filter")
            return None
        try:
            with time_limit(0.2):
                return tuple(bool(test(row)) for row in self.rows)
        except UsageError:
            return "slow"


class Configuration(Target):
    """Node files, task files, and tasks that came as JSON."""

    name = "config"
    about = "configuration: YAML, variables, models, and where the fault stands"
    patience_ms = 400.0
    longest = 4096
    cold = True
    pieces = (
        b"otus:\n",
        b"task:\n",
        b"  id: x\n",
        b"  capture:\n",
        b"    interface: eth0\n",
        b"${node.id}",
        b"${HOME}",
        b"$${",
        b"&a ",
        b"*a",
        b"<<: ",
        b"!!python/object:os.system",
        b"- ",
        b"? ",
        b"---\n",
        b"  filter:\n",
        b"    ports: [5060]\n",
        b"1e999",
        b".nan",
        b"  reporters:\n    - type: console\n",
        b"  parsers:\n    - plugin: sip\n",
        b"config: {a: 1}",
        b"\xef\xbb\xbf",
        b"300s",
        b"128MB",
    )

    @classmethod
    def corpus(cls) -> Iterable[bytes]:
        shipped = [b"n" + (frames.ROOT / "configs/otus.yml").read_bytes()]
        shipped += [
            b"t" + path.read_bytes() for path in sorted((frames.ROOT / "configs/tasks").glob("*.yml"))
        ]
        return [
            *shipped,
            b'j{"id": "x", "capture": {"interface": "eth0"}, "reporters": [{"type": "console"}]}',
        ]

    def run(self, octets: bytes) -> Any:
        kind, text = octets[:1], octets[1:].decode("utf-8", "replace")
        node = NodeConfig()
        try:
            if kind == b"n":
                return node_from_text(text, "node.yml").model_dump_json()
            if kind == b"j":
                return task_from_values(json.loads(text), node).model_dump_json()
            return task_from_text(text, "task.yml", node).model_dump_json()
        except UsageError as error:
            must(error.message, "an error without a text")
            return error.message[:40]
        except (ValueError, RecursionError):
            # The text of a request was parsed before.
            must(kind == b"j", "a text raised")
            return "no JSON"

    def features(self, view: Any) -> Any:
        return view[:24]


class _Line:
    """Takes what a connection writes."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def write(self, octets: bytes) -> None:
        self.lines.append(octets)

    async def drain(self) -> None:
        return None

    def close(self) -> None:
        return None


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


class Requests(Target):
    """Lines of a client: each gets one answer, or none where it is a notification."""

    name = "rpc"
    about = "JSON-RPC: lines, requests, parameters"
    patience_ms = 50.0
    cold = True
    longest = 2048
    limit: ClassVar[int] = 1024
    pieces = (
        b'{"jsonrpc":"2.0","id":1,"method":"',
        b'"params":{',
        b'"id":',
        b"null",
        b"[]",
        b"\n",
        b"\\u0000",
        b"\\ud800",
        *(b'"method":"%s"' % name.encode() for name in list(METHODS)[:6]),
        b"1e400",
        b"-0",
        b"{}",
        b'"a":' * 4,
    )

    @classmethod
    def corpus(cls) -> Iterable[bytes]:
        return [
            *(
                b'{"jsonrpc":"2.0","id":%d,"method":"%s","params":{}}\n' % (at, name.encode())
                for at, name in enumerate(METHODS)
            ),
            b'{"id":"x","method":"query","params":{"store":"calls","count":3}}\n[]\n{"method":1}\n{"method":"status"}\n\n',
        ]

    def run(self, octets: bytes) -> Any:
        return _loop().run_until_complete(self.serve(octets))

    async def serve(self, octets: bytes) -> Any:
        """A connection from its first to its last octet."""

        async def echo(_: Any, **params: Any) -> Any:
            if "fail" in params:
                raise OtusError("no")
            return {"got": list(params)}

        reader, writer = asyncio.StreamReader(limit=self.limit), _Line()
        reader.feed_data(octets)
        reader.feed_eof()
        server = Server(dict.fromkeys(METHODS, echo))
        await Connection(server, reader, writer).run()  # type: ignore[arg-type]
        asked = [line for line in octets.split(b"\n")[:-1] if line.strip()]
        must(len(writer.lines) <= len(asked) + 1, "more answers than lines")
        kinds = []
        for line in writer.lines:
            must(line.endswith(b"\n") and line.count(b"\n") == 1, f"no line: {line!r}")
            answer = orjson.loads(line)
            must(("result" in answer) != ("error" in answer), f"neither result nor error: {line!r}")
            kinds.append(answer["error"]["code"] if "error" in answer else 0)
        return tuple(kinds)

    def features(self, view: Any) -> Any:
        return view[:4]


class Queries(Target):
    """u8 method, parameters as JSON: what a screen may ask of the stores."""

    name = "queries"
    about = "questions to the stores of calls and streams, with any parameters"
    patience_ms = 50.0
    longest = 512
    methods: ClassVar[tuple[str, ...]] = ("query", "call", "message", "clear", "section", "nothing")
    pieces = (
        *(
            b'"%s":' % name
            for name in (b"store", b"filter", b"sort", b"descending", b"anchor", b"offset", b"count")
        ),
        *(b'"%s":' % name for name in (b"ids", b"id", b"from", b"index", b"keep", b"keep_filter")),
        *(
            b"1e308",
            b"-1",
            b"null",
            b"true",
            b"[]",
            b"{}",
            b'"calls"',
            b'"streams"',
            b"18446744073709551616",
            b"[1,{}]",
        ),
    )

    def __init__(self, build: Build) -> None:
        super().__init__(build)
        self.calls = build.module("engine.calls.store").Calls
        from tests.sip_records import record, sip

        said = (("INVITE", "10.0.0.7:5060", "10.0.0.9:5060"), ("200 OK", "10.0.0.9:5060", "10.0.0.7:5060"))
        self.records = [
            record(sip(first, "1 INVITE", f"c{at}@x"), *ends) for at in range(3) for first, *ends in said
        ]

    @classmethod
    def corpus(cls) -> Iterable[bytes]:
        asked = (
            (
                0,
                {
                    "store": "calls",
                    "filter": "state == in_call",
                    "sort": "messages",
                    "descending": True,
                    "count": 2,
                },
            ),
            (0, {"store": "streams", "offset": 1, "count": 10, "anchor": "a", "ids": ["x", 1]}),
            (1, {"id": 1, "from": 0, "count": 5}),
            (2, {"id": 1, "index": 1}),
            (3, {"store": "calls", "keep": [1], "keep_filter": "c1"}),
            (4, {}),
        )
        return [bytes([method]) + json.dumps(params).encode() for method, params in asked]

    def run(self, octets: bytes) -> Any:
        try:
            params = orjson.loads(octets[1:])
        except orjson.JSONDecodeError:
            return "no JSON"
        if not isinstance(params, dict):
            return "no object"
        calls = self.calls({"calls": 10}, "packet")
        calls.rows.base = 0
        for at, body in enumerate(self.records):
            calls.add(1, 10**18 + at, body)
        try:
            with time_limit(0.2):
                answer = calls.answer(self.methods[octets[0] % len(self.methods)], params)
        except OtusError as error:
            return error.message[:40]
        answer.get("sip", {}).pop("version", None)
        return orjson.dumps(answer)

    def features(self, view: Any) -> Any:
        return view if isinstance(view, str) else len(view) // 32


TARGETS: tuple[type[Target], ...] = (Programs, Expressions, Display, Configuration, Requests, Queries)

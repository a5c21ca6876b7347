"""Plugins of other packages: found through their entry points, named in a task file like our own."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import plugin
from engine.config import NodeConfig
from engine.config_file import node_from_text, task_from_text
from engine.errors import UsageError
from engine.pipeline.plugins import load_parsers
from engine.processors.chain import build_chain
from engine.task_config import worker_config
from tests.captures import pcap, write
from tests.live.engines import lines_of, own_engine, wait_for
from tests.packet_road import ALICE, BOB, frame, sip

MODULE = """
from engine.packet import DictPayload, NetworkMeta, OutputPacket
from engine.plugin import Parser, Processor

class Dns(Parser):
    name = protocol = "dns"
    ports = (53,)
    labels = ("dns.id",)

    def init(self, config):
        self.least = config.get("least", 12)

    def can_handle(self, packet):
        return len(packet.payload) >= self.least

    def handle(self, packet):
        number = int.from_bytes(packet.payload[:2], "big")
        network = NetworkMeta(packet.src_ip, packet.dst_ip, packet.src_port, packet.dst_port)
        return OutputPacket(
            packet.raw.timestamp_ns, "dns", packet.five_tuple, network,
            labels={"dns.id": str(number)}, payload=DictPayload("dns", {"id": number}),
        )

class NeverStarts(Dns):
    def start(self):
        raise OSError("no resolver")

class NoPing(Processor):
    name = "no-ping"
    reads = ("sip.method",)

    def init(self, config):
        self.methods = config.get("methods", ["OPTIONS"])

    def process(self, labels):
        return labels.get("sip.method") not in self.methods

class Ill(NoPing):
    def start(self):
        if self.methods == ["not"]:
            raise OSError("no list")

    def process(self, labels):
        raise ValueError("no such method")

    def stop(self):
        raise ValueError("it cannot end, either")

class BadLabel(Processor):
    labels = ("not_allowed",)

    def process(self, labels):
        return True
"""
ENTRY_POINTS = """
[otus.parser]
dns = otus_plugin_under_test:Dns
never-starts = otus_plugin_under_test:NeverStarts

[otus.processor]
no-ping = otus_plugin_under_test:NoPing
ill = otus_plugin_under_test:Ill
bad-label = otus_plugin_under_test:BadLabel
missing = otus_plugin_that_is_not_there:Nothing
no-plugin = otus_plugin_under_test:__name__

[otus.reporter]
pigeon = otus_plugin_under_test:Pigeon
"""
TASK = """
task:
  id: t
  capture: {interface: lo}
  processors:
    - plugin: NAME
      config: {methods: [REGISTER]}
"""


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of somebody else, installed."""
    (tmp_path / "otus_plugin_under_test.py").write_text(MODULE)
    metadata = tmp_path / "otus_plugin_under_test-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: otus-plugin-under-test\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_it_is_named_in_a_task_and_works_in_the_chain() -> None:
    task = task_from_text(TASK.replace("NAME", "no-ping"), "task.yml", NodeConfig())
    reference = task.processors[0]
    chain = build_chain([{"plugin": reference.plugin, "config": reference.config}])
    assert not chain.verdict({"sip.method": "REGISTER"})
    assert chain.verdict({"sip.method": "OPTIONS"})


def test_a_processor_that_does_not_start_says_why() -> None:
    with pytest.raises(UsageError, match="processor 'ill' does not start: no list"):
        build_chain([{"plugin": "ill", "config": {"methods": ["not"]}}])


def test_faults_are_counted_and_the_first_is_a_line_of_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    chain = build_chain([{"plugin": "ill"}])
    assert all(chain.verdict({"sip.method": "INVITE"}) for _ in range(3))
    assert (chain.faults.take(), chain.faults.take()) == (3, 0)
    chain.stop()
    told = capfd.readouterr().err
    for why in ("no such method", "it cannot end, either"):
        assert told.count(f"ValueError: {why}\\n") == 1
    assert told.index("Ill failed") < told.index("Ill does not stop")


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(UsageError, match=r"task.yml:6:7") as caught:
        task_from_text(TASK.replace("NAME", "no-pin"), "task.yml", NodeConfig())
    assert "no-ping" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bad-label", "label key 'not_allowed'"),
        ("missing", "does not load"),
        ("no-plugin", "is no engine.plugin.Plugin"),
        ("nowhere", "no processor 'nowhere'"),
    ],
)
def test_what_cannot_be_loaded_says_why(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plugin.load("processor", name, {})


def test_a_reporter_gets_the_shared_options_of_the_node_file() -> None:
    node = node_from_text("otus:\n  reporters: {pigeon: {loft: roof, birds: 2}}\n", "otus.yml")
    text = "task: {id: t, capture: {interface: lo}, reporter: {type: pigeon, config: {birds: 3}}}"
    reporter = task_from_text(text, "task.yml", node).reporter
    assert reporter is not None
    assert reporter.config == {"loft": "roof", "birds": 3}
    with pytest.raises(UsageError, match="no reporter 'pigeom'") as caught:
        node_from_text("otus:\n  reporters: {pigeom: {}}\n", "otus.yml")
    assert "pigeon" in caught.value.hint


PARSERS = """
task:
  id: t
  capture: {interface: lo}
  parsers:
    - plugin: sip
    - plugin: NAME
      config: {least: 2}
"""


def test_a_parser_is_named_in_a_task_and_started_with_its_options() -> None:
    task = task_from_text(PARSERS.replace("NAME", "dns"), "task.yml", NodeConfig())
    specs = worker_config(task, NodeConfig())["parsers"]
    assert specs == [{"plugin": "dns", "config": {"least": 2}}]
    (parser,) = load_parsers(specs)
    assert (parser.name, parser.least) == ("dns", 2)  # type: ignore[attr-defined]


def test_an_unknown_parser_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(UsageError, match=r"task.yml:7:7.*no parser 'dms'") as caught:
        task_from_text(PARSERS.replace("NAME", "dms"), "task.yml", NodeConfig())
    assert "dns" in caught.value.hint


def test_a_parser_that_does_not_start_says_why() -> None:
    with pytest.raises(UsageError, match="'never-starts' does not start: no resolver"):
        load_parsers([{"plugin": "never-starts", "config": {}}])


def test_what_a_parser_makes_is_a_line_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through a whole engine: worker, send ring, sender, file."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0"
    packets = [
        (1_700_000_000_000_000_000 + number, frame(payload, ALICE, sport, BOB, port))
        for number, (payload, sport, port) in enumerate(
            [(query, 40_000, 53), (b"?", 40_000, 53), (query, 40_000, 54), (sip(), 5060, 5060)]
        )
    ]
    path = tmp_path / "lines.jsonl"
    with own_engine(tmp_path) as engine:
        engine.start()
        engine.create(
            capture={"driver": "pcap", "file": str(write(tmp_path / "a.pcap", pcap(packets)))},
            filter={},
            parsers=[{"plugin": "sip"}, {"plugin": "dns"}],
            processors=[{"plugin": "label", "config": {"labels": {"node": "n"}}}],
            reporter={"type": "file", "config": {"path": str(path)}},
        )
        wait_for(lambda: engine.task()["state"] == "finished")
        books = wait_for(lambda: (found := engine.task()["books"])["even"] and found)
        engine.call("stop_task", task_id="test")
        assert (books["received"], books["output"]) == (4, 2)
    lines = {line["protocol"]: line for line in lines_of(path)}
    assert set(lines) == {"dns", "sip"}
    assert lines["dns"]["labels"] == {"dns.id": str(0x1234), "node": "n"}
    assert lines["dns"]["payload"] == {"id": 0x1234}
    assert (lines["dns"]["src_ip"], lines["dns"]["dest_port"], lines["dns"]["proto"]) == (ALICE, 53, "udp")

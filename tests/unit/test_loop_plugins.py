"""Processors and parsers of others on the packet road."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from engine.packet import DictPayload, NetworkMeta, OutputPacket
from engine.plugin import Parser, Processor
from engine.processors.chain import Chain, build_chain
from engine.reporters.output import OutputMaker
from engine.shm import records
from tests.builds import Build
from tests.packet_road import ALICE, BOB, NOW, SR, Road, frame, rtp, sdp, sip


class Probe(Processor):
    """Drops by label and counts how often it is asked."""

    name = "probe"
    reads = ("codec", "sip.method", "chatty.text")
    wants_envelope = True

    def __init__(self, drop: str) -> None:
        self.drop = drop
        self.asked: list[dict[str, str]] = []
        self.envelopes: list[Any] = []

    def process(self, labels: dict[str, str]) -> bool:
        self.asked.append(dict(labels))
        self.envelopes.append(self.envelope)
        if self.drop == "raise" or "raise" in labels.values():
            raise RuntimeError("broken")
        labels["Not_Allowed"] = "x"
        return self.drop not in labels.values()


def rules(*found: dict[str, Any]) -> Chain:
    return build_chain([{"plugin": "filter", "config": {"rules": list(found)}}])


def decided(road: Road, count: int) -> list[int]:
    return road.counters.rules(count)


def test_processors_are_asked_once_for_a_flow_and_payload_type(build: Build) -> None:
    probe = Probe("PCMA")
    road = Road(build, chain=Chain([probe]))
    road.say(sip(body=sdp()))
    for number in range(5):
        road.udp(rtp(number), BOB, 5000, ALICE, 4000)
        road.udp(rtp(number, payload_type=101), BOB, 5000, ALICE, 4000)
    road.udp(SR, BOB, 5001, ALICE, 4001)
    assert len(probe.asked) == 4
    assert probe.asked[0] == {
        "sip.method": "INVITE", "sip.call-id": "a@b", "sip.from": f"sip:alice@{ALICE}",
        "sip.to": f"sip:bob@{BOB}",
    }  # fmt: skip
    assert probe.asked[1] == {"call-id": "a@b", "codec": "PCMA", "rtp.pt": "8", "rtp.ssrc": str(0x1234)}
    assert [envelope.protocol for envelope in probe.envelopes] == ["sip", "rtp", "rtp", "rtcp"]
    assert probe.envelopes[1].flow_id.dst_port == probe.envelopes[1].network.dst_port == 4000
    assert road.counted("filtered", "output_rtp", "output_rtcp") == (5, 5, 1)
    assert decided(road, 2) == [5, 0], "the packets, not the verdicts"
    assert road.streams.rows()[0]["packets"] == 10


def test_processors_that_drop_sip_and_that_raise(build: Build) -> None:
    road = Road(build, chain=Chain([Probe("INVITE")]))
    road.say(sip())
    road.say(sip("SIP/2.0 200 OK"))
    assert road.counted("filtered", "evidence") == (2, 2)
    chain = Chain([Probe("raise")])
    road = Road(build, chain=chain)
    road.say(sip(body=sdp()))
    road.udp(rtp(1), BOB, 5000, ALICE, 4000)
    assert (chain.faults.count, *road.counted("output_rtp")) == (2, 1)


@pytest.mark.parametrize("label", ["rtp.pt", "rtp.ssrc"])
def test_verdicts_end_with_the_labels_they_were_made_of(build: Build, label: str) -> None:
    chain = rules({"label": label, "values": ["9999"]}, {"label": "codec", "values": ["PCMA"]})
    road = Road(build, chain=chain)
    road.say(sip(body=sdp()))
    road.udp(rtp(1), BOB, 5000, ALICE, 4000)
    road.udp(rtp(2), BOB, 5000, ALICE, 4000)
    assert road.counted("filtered") == (2,)
    road.say(sip(body=sdp().replace("PCMA", "G.x")))
    for number in range(3, 6):
        road.udp(rtp(number), BOB, 5000, ALICE, 4000)
    assert road.counted("filtered", "output_rtp") == (2, 3)
    assert decided(road, 2) == [0, 2]


def test_a_rule_on_the_ssrc_is_asked_once_a_stream(build: Build) -> None:
    probe = Probe("no")
    probe.reads = ("rtp.ssrc",)
    chain = Chain([*rules({"label": "rtp.ssrc", "values": ["7"]}).processors, probe])
    road = Road(build, chain=chain)
    road.say(sip(body=sdp()))
    before = len(probe.asked)
    for number in range(10):
        for ssrc in (7, 8, 9):
            road.udp(rtp(number, ssrc), BOB, 5000, ALICE, 4000)
    road.udp(SR, BOB, 5001, ALICE, 4001)
    assert road.counted("filtered", "output_rtp", "output_rtcp") == (10, 20, 1)
    assert len(probe.asked) - before == 3, "8, 9 and the RTCP"
    assert decided(road, 2) == [10, 0]


@pytest.mark.parametrize("more", [(), ({"label": "rtp.ssrc", "values": ["7"]},)])
def test_rules_on_the_type_of_rtcp(build: Build, more: tuple[dict[str, Any], ...]) -> None:
    road = Road(build, chain=rules({"label": "rtcp.type", "values": ["SR"]}, *more))
    road.say(sip(body=sdp()))
    receiver_report = struct.pack("!BBHI", 0x80, 201, 1, 0x1234)
    for _ in range(3):
        road.udp(SR, BOB, 5001, ALICE, 4001)
        road.udp(receiver_report, BOB, 5001, ALICE, 4001)
    assert road.counted("filtered", "output_rtcp") == (3, 3)
    assert decided(road, 1) == [3]


@pytest.mark.parametrize("action", ["drop", "pass"])
def test_packets_that_are_forwarded_pass_the_processors(build: Build, action: str) -> None:
    chain = build_chain(
        [
            {"plugin": "label", "config": {"labels": {"env": "prod"}}},
            {
                "plugin": "filter",
                "config": {"rules": [{"label": "env", "values": ["prod"], "action": action}]},
            },
        ]
    )
    road = Road(build, chain=chain, unmatched_forward=True)
    for number in range(4):
        road.udp(b"nobody's", ALICE, 7, BOB, 9000 + number)
    dropped = 4 if action == "drop" else 0
    assert road.counted("filtered", "output_raw", "unmatched") == (dropped, 4 - dropped, 0)
    assert decided(road, 1) == [4]


def test_a_processor_sees_the_envelope_of_a_packet_that_is_forwarded(build: Build) -> None:
    probe = Probe("no")
    road = Road(build, chain=Chain([probe]), unmatched_forward=True)
    road.udp(b"nobody's", ALICE, 7, BOB, 9000)
    assert probe.asked == [{}]
    assert (probe.envelopes[0].protocol, probe.envelopes[0].flow_id.dst_port) == ("raw", 9000)


def test_an_impure_processor_is_asked_about_each_packet(build: Build) -> None:
    class Impure(Probe):
        pure = False

    probe = Impure("no")
    road = Road(build, chain=Chain([probe]))
    road.say(sip(body=sdp()))
    for number in range(4):
        road.udp(rtp(number), BOB, 5000, ALICE, 4000)
    assert len(probe.asked) == 5


def test_a_chain_of_filters_gets_no_label_that_it_does_not_read(build: Build) -> None:
    chain = rules(
        {"label": "sip.method", "values": ["OPTIONS"], "name": "pings"},
        {"label": "sip.from", "values": ["sip:alice*"], "action": "pass"},
        {"label": "sip.status-code", "values": ["/^5/"]},
    )
    road = Road(build, chain=chain)
    road.say(sip("OPTIONS sip:b SIP/2.0", cseq="1 OPTIONS"))
    road.say(sip("SIP/2.0 200 OK", cseq="1 OPTIONS"))
    road.say(sip())
    road.say(sip().replace(b"sip:alice", b"sip:carol"))
    road.say(sip("SIP/2.0 503 Busy").replace(b"sip:alice", b"sip:carol"))
    assert road.counted("filtered", "output_sip") == (3, 2)
    assert decided(road, 3) == [2, 1, 1]
    assert chain.reasons == ["pings", "2: pass sip.from", "3: drop sip.status-code"]


class Echo(Parser):
    """Takes port 7."""

    name = protocol = "echo"

    def can_handle(self, packet: Any) -> bool:
        return bool(packet.dst_port == 7)

    def handle(self, packet: Any) -> OutputPacket | None:
        if packet.payload == b"raise":
            raise RuntimeError("broken")
        if packet.payload == b"exit":
            raise SystemExit
        return None


def test_parsers_of_others_get_what_is_left(build: Build) -> None:
    road = Road(build, plugins=[Echo()])
    road.udp(b"ping", dport=7)
    road.udp(b"raise", dport=7)
    road.udp(b"exit", dport=7)
    road.udp(b"ping", dport=8)
    road.say(sip())
    assert road.counted("handled", "unmatched", "plugin_errors", "output") == (1, 3, 2, 1)


class Chatty(Parser):
    """Makes a packet of what comes from or to port 7, over UDP."""

    name = protocol = "chatty"
    ports = (7,)

    def can_handle(self, packet: Any) -> bool:
        return bool(packet.payload)

    def handle(self, packet: Any) -> OutputPacket | None:
        sides = packet.five_tuple
        network = NetworkMeta(sides.src_ip, sides.dst_ip, sides.src_port, sides.dst_port)
        text = bytes(packet.payload).decode()
        labels = {"chatty.text": text, "Not_Allowed": "x"}
        value: Any = {"nan": float("nan"), "set": {1}, "large": 1 << 64, "lone": "\ud800"}.get(text, text)
        payload: Any = ["no mapping"] if text == "list" else {"is": value}
        return OutputPacket(1, "chatty", sides, network, labels=labels, payload=DictPayload("x", payload))


def test_what_parsers_of_others_make_is_sent(build: Build) -> None:
    chain = Chain([Probe("drop")])
    road = Road(build, plugins=[Chatty()], chain=chain)
    for text in (b"ping", b"nan", b"set", b"drop", b"raise"):
        road.udp(text, sport=7)
    road.give(frame(struct.pack("!HHIIHHHH", 7, 7, 1, 1, 0x5000, 1, 0, 0) + b"ping", ALICE, 0, BOB, 0, 6))
    road.udp(b"", dport=7)
    assert road.counted("output", "output_plugin", "filtered", "unmatched") == (2, 2, 1, 4)
    assert road.counted("plugin_errors", "labels_refused") == (2, 5)
    assert (chain.faults.count, decided(road, 1)) == (1, [1])
    maker = OutputMaker("t", {"node": "n"})
    (kind, body), (_, _) = sent = road.sent()
    assert {kind for kind, _ in sent} == {records.PLUGIN}
    made = maker.make(kind, NOW, body)
    assert made is not None
    line = made.as_dict()
    assert (line["protocol"], line["payload"]) == ("chatty", {"is": "ping"})
    assert line["labels"] == {"chatty.text": "ping", "node": "n"}
    assert (line["src_ip"], line["src_port"], line["dest_port"]) == (ALICE, 7, 5000)
    assert line["timestamp"].startswith("2023-11-14T22:13:20")


def test_a_rule_is_not_counted_for_what_could_not_be_reported(build: Build) -> None:
    chain = rules({"label": "chatty.text", "values": ["nan", "ping"], "action": "pass"})
    road = Road(build, plugins=[Chatty(), Echo()], chain=chain)
    road.udp(b"nan", dport=7)
    assert road.counted("handled", "plugin_errors", "output") == (1, 1, 0)
    assert decided(road, 1) == [0]
    road.udp(b"ping", dport=7)
    assert decided(road, 1) == [1]


@pytest.mark.parametrize("text", ["nan", "set", "large", "lone", "list"])
def test_what_no_reporter_could_write_is_an_error_of_the_plugin(build: Build, text: str) -> None:
    road = Road(build, plugins=[Chatty()])
    road.udp(text.encode(), sport=7)
    assert road.counted("unmatched", "plugin_errors", "output") == (1, 1, 0)
    assert road.sent() == []


def test_without_a_send_ring_what_parsers_of_others_take_is_handled(build: Build) -> None:
    road = Road(build, sending=False, plugins=[Chatty()])
    road.udp(b"ping", sport=7)
    road.udp(b"ping", sport=8)
    assert road.counted("handled", "unmatched", "plugin_errors") == (1, 1, 0)
    large = Road(build, plugins=[Chatty()])
    large.udp(b"x" * 40_000, sport=7)
    assert large.counted("handled", "output_oversize") == (1, 1)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b'{"protocol":"a"}',
        b'{"protocol":"a","labels":3,"payload":1}',
        b'{"protocol":"a","labels":{},"payload":[1]}',
        b'{"protocol":5,"labels":{},"payload":null}',
        b'{"protocol":"\\ud800","labels":{},"payload":null}',
        b"\xff",
        b"[" * 9999,
    ],
    ids=lambda text: text[:40].decode("ascii", "replace"),
)
def test_a_record_of_a_plugin_that_is_none(build: Build, text: bytes) -> None:
    assert OutputMaker("t", {}).make(records.PLUGIN, NOW, bytes(records.PACKET_SIZE) + text) is None

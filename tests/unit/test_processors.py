"""The processors of a task: rules, labels, their order, what they may see, and plugins that do not behave."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import UsageError
from engine.packet import DictPayload, FiveTuple, NetworkMeta, OutputPacket
from engine.plugin import Envelope, Processor
from engine.processors.chain import MOST_REASONS, Chain, build_chain, drop_bad_labels
from engine.processors.pattern import MATCHED, MAX_LENGTH, check_pattern, pattern_problem
from tests.pace import within


def rule(label: str, *values: str, action: str = "drop") -> dict[str, object]:
    return {"label": label, "values": list(values), "action": action}


def chain(*rules: dict[str, object]) -> Chain:
    return build_chain([{"plugin": "filter", "config": {"rules": list(rules)}}])


@pytest.mark.parametrize(
    ("value", "labels", "passes"),
    [
        ("OPTIONS", {"sip.method": "OPTIONS"}, False),
        ("OPTIONS", {"sip.method": "INVITE"}, True),
        ("OPTIONS", {}, True),
        ("OPT*", {"sip.method": "OPTIONS"}, False),
        ("OPT*", {"sip.method": "XOPTIONS"}, True),
        ("/^(OPTIONS|REGISTER)$/", {"sip.method": "REGISTER"}, False),
        ("/NOTI/", {"sip.method": "NOTIFY"}, False),
        ("/", {"sip.method": "/"}, False),
        ("*", {"sip.method": "anything"}, False),
    ],
)
def test_values(value: str, labels: dict[str, str], passes: bool) -> None:
    assert chain(rule("sip.method", value)).verdict_sip(labels) is passes


def test_first_rule_that_matches_decides() -> None:
    found = chain(rule("sip.from", "sip:boss*", action="pass"), rule("sip.method", "OPTIONS"))
    assert found.verdict_sip({"sip.method": "OPTIONS", "sip.from": "sip:boss@x"})
    assert not found.verdict_sip({"sip.method": "OPTIONS", "sip.from": "sip:bob@x"})
    assert found.reads == {"sip.from", "sip.method"}


def test_flows() -> None:
    found = chain(rule("rtp.pt", "13"))
    assert not found.verdict_flow({"rtp.pt": "13", "rtp.ssrc": "1"})
    assert found.verdict_flow({"rtp.pt": "8", "rtp.ssrc": "1"})


def test_labels() -> None:
    node = {"node": "n1", "dc": "", "env": "test"}
    found = build_chain([{"plugin": "label", "config": {}}], node)
    assert found.static_labels() == {"node": "n1", "env": "test"}
    assert not found.filters, "nothing can be dropped, so no packet need be asked about"
    found = build_chain([{"plugin": "label", "config": {"labels": {"rack-row": "7"}}}], node)
    assert found.static_labels() == {"rack-row": "7"}
    with pytest.raises(UsageError, match="rack_row"):
        build_chain([{"plugin": "label", "config": {"labels": {"rack_row": "7"}}}])


def test_priority() -> None:
    specs = [
        {"plugin": "filter", "priority": 20, "config": {"rules": [rule("dc", "east")]}},
        {"plugin": "label", "priority": 10, "config": {"labels": {"dc": "east"}}},
    ]
    assert not build_chain(specs).verdict_sip({})
    specs[1]["priority"] = 30
    assert build_chain(specs).verdict_sip({})


def test_broken_rules() -> None:
    with pytest.raises(UsageError, match="regular expression"):
        chain(rule("sip.method", "/(/"))
    with pytest.raises(UsageError, match="no processor 'sampler'"):
        build_chain([{"plugin": "sampler"}])


@pytest.mark.parametrize("fault", [RuntimeError, SystemExit])
def test_a_processor_that_raises_is_counted_and_passed_over(fault: type[BaseException]) -> None:
    class Broken(Processor):
        name = "broken"
        reads = ("x",)

        def process(self, labels: dict[str, str]) -> bool:
            raise fault("no")

    found = Chain([Broken()])
    assert found.verdict_sip({"x": "1"})
    assert found.faults.count == 1


# ---- what a rule costs ----


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("(a+)+$", "a repetition inside a repetition"),
        ("(a|aa)+$", "a choice inside a repetition"),
        ("(a{1,5}){1,5}", "a repetition inside a repetition"),
        (r"(.)\1", "a reference back"),
        ("a*b*c*d", "steps"),
        ("a?" * 30, "steps"),
        (r"\ba*b*c", "steps"),
        ("a" * (MAX_LENGTH + 1), "characters"),
        ("((", "no regular expression"),
        ("[[a]", "no regular expression"),
        ("(" * 99, "no regular expression"),
    ],
)
def test_expressions_that_may_take_too_long(text: str, problem: str) -> None:
    assert problem in pattern_problem(text)
    with pytest.raises(UsageError):
        chain(rule("sip.from", f"/{text}/"))


@pytest.mark.parametrize(
    "text",
    [
        "^(OPTIONS|REGISTER)$",
        "sip:.*@example\\.com",
        "^[0-9]{1,3}\\.[0-9]{1,3}\\.[0-9]{1,3}\\.[0-9]{1,3}$",
        "^sip:.*@.*$",
        "(?i)bob.*x",
        "(?=a+)b",
        "a++b",
    ],
)
def test_expressions_that_are_quick_enough(text: str) -> None:
    pattern = check_pattern(text, "rule")
    for hostile in ("a" * 100_000, "sip:" * 25_000, "1." * 50_000, "ab" * 50_000):
        assert within(25, lambda hostile=hostile: pattern.search(hostile, 0, MATCHED))


@settings(max_examples=150, deadline=None)
@given(st.text("ab.*+?()|[]{}1,2^$\\", max_size=24), st.text("ab", min_size=200, max_size=300))
def test_no_expression_that_is_taken_takes_long(text: str, value: str) -> None:
    if not pattern_problem(text):
        assert within(125, lambda: check_pattern(text, "rule").search(value, 0, MATCHED)), text


# ---- counters ----


def test_each_rule_has_a_reason() -> None:
    found = build_chain(
        [
            {"plugin": "label", "config": {"labels": {"dc": "east"}}},
            {"plugin": "filter", "config": {"rules": [{**rule("sip.method", "OPTIONS"), "name": "pings"}]}},
            {
                "plugin": "filter",
                "config": {"rules": [rule("dc", "west"), rule("dc", "east", action="pass")]},
            },
        ]
    )
    assert found.reasons == ["pings", "1: drop dc", "2: pass dc"]
    assert not found.verdict_sip({"sip.method": "OPTIONS"})
    assert found.reason == 1
    assert found.verdict_sip({"sip.method": "INVITE"})
    assert found.reason == 3


def test_a_verdict_without_a_rule_has_no_reason() -> None:
    found = chain(rule("sip.method", "OPTIONS"))
    assert found.verdict_sip({"sip.method": "OPTIONS"}) is False
    assert found.verdict_sip({"sip.method": "INVITE"})
    assert found.reason == 0


def test_more_rules_than_counters_share_the_last_one() -> None:
    many = [rule("sip.method", f"M{number}") for number in range(100)]
    found = build_chain([{"plugin": "filter", "config": {"rules": many}}] * 2)
    assert len(found.reasons) == 200
    second = [rule("sip.from", f"F{number}") for number in range(100)]
    found = build_chain([{"plugin": "filter", "config": {"rules": rules}} for rules in (many, second)])
    assert not found.verdict_sip({"sip.from": "F99"})
    assert found.reason == MOST_REASONS


# ---- labels of other packages ----


class Writer(Processor):
    """Writes what it should and what it should not."""

    name = "writer"
    writes = ("vendor.size",)

    def process(self, labels: dict[str, str]) -> bool:
        labels["vendor.size"] = str(len(labels))
        labels["Vendor_Size"] = "x"
        labels[3] = "x"  # type: ignore[index]
        labels["vendor.number"] = 3  # type: ignore[assignment]
        labels["vendor.octets"] = "\udcff"
        return True


def test_labels_that_are_none_are_taken_out_and_counted() -> None:
    found = Chain([Writer()])
    labels = {"sip.method": "INVITE"}
    found.write(labels)
    assert labels == {"sip.method": "INVITE", "vendor.size": "1"}
    assert found.refused == 4
    assert found.writers().processors == found.processors
    assert not chain(rule("a", "b")).writers().processors


@given(st.dictionaries(st.one_of(st.text(max_size=8), st.integers()), st.one_of(st.text(), st.integers())))
def test_only_labels_are_left(labels: dict[Any, Any]) -> None:
    count = len(labels)
    assert drop_bad_labels(labels) + len(labels) == count
    for key, value in labels.items():
        assert isinstance(value, str)
        assert key[0] in "abcdefghijklmnopqrstuvwxyz0123456789"
        assert set(key) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-")


def test_a_processor_with_a_bad_declaration_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bad(Writer):
        writes = ("vendor_size",)

    class Point:
        value = "vendor:Bad"

        def load(self) -> type[Processor]:
            return Bad

    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: [Point()])
    with pytest.raises(UsageError, match="vendor_size"):
        build_chain([{"plugin": "bad"}])


# ---- who may touch what ----

SIDES = (ip_address("10.0.0.1"), ip_address("10.0.0.2"))


def output_packet() -> OutputPacket:
    return OutputPacket(
        1, "sip", FiveTuple(*SIDES, 1, 2, 17), NetworkMeta(*SIDES, 1, 2), "t", {"sip.method": "INVITE"},
        DictPayload("sip", {"method": "INVITE"}), b"frame",
    )  # fmt: skip


def test_parsers_write_every_field() -> None:
    packet = output_packet()
    for field in ("timestamp_ns", "protocol", "flow_id", "network", "labels", "payload", "raw_bytes"):
        setattr(packet, field, getattr(packet, field))
    packet.labels["sip.method"] = "BYE"


def test_processors_read_the_envelope_write_labels_and_see_nothing_else() -> None:
    seen: list[Any] = []

    class Nosy(Processor):
        name = "nosy"
        reads = ("sip.method",)
        wants_envelope = True

        def process(self, labels: dict[str, str]) -> bool:
            seen.append((type(labels), dict(labels), self.envelope))
            labels["nosy.was-here"] = "yes"
            return True

    packet = output_packet()
    labels = dict(packet.labels)
    envelope = Envelope(packet.timestamp_ns, packet.protocol, packet.flow_id, packet.network)
    assert Chain([Nosy()]).verdict(labels, envelope)
    ((kind, given_labels, given_envelope),) = seen
    assert labels["nosy.was-here"] == "yes"
    assert (kind, given_labels) == (dict, {"sip.method": "INVITE"})
    assert Envelope._fields == ("timestamp_ns", "protocol", "flow_id", "network")
    for field in Envelope._fields:
        with pytest.raises(AttributeError):
            setattr(given_envelope, field, None)
    for part, field in ((given_envelope.flow_id, "src_port"), (given_envelope.network, "src_ip")):
        with pytest.raises(AttributeError):
            setattr(part, field, None)
    assert not any("payload" in name or "raw" in name for name in dir(given_envelope))


def test_processors_that_do_not_ask_get_no_envelope() -> None:
    class Plain(Processor):
        name = "plain"
        reads = ("a",)

        def process(self, labels: dict[str, str]) -> bool:
            assert self.envelope is None
            return True

    found = Chain([Plain()])
    found.verdict({}, Envelope(1, "sip", FiveTuple(*SIDES, 1, 2, 17), NetworkMeta(*SIDES, 1, 2)))
    assert found.faults.count == 0
    assert not found.wants_envelope

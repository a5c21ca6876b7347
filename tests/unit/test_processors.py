"""The processors of a task: rules, static labels, their order, and a plugin that raises."""

from __future__ import annotations

import pytest

from engine.errors import UsageError
from engine.plugin import Processor
from engine.processors.chain import Chain, build_chain


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


def test_a_processor_that_raises_is_counted_and_passed_over() -> None:
    class Broken(Processor):
        name = "broken"
        reads = ("x",)

        def process(self, labels: dict[str, str]) -> bool:
            raise RuntimeError("no")

    found = Chain([Broken()])
    assert found.verdict_sip({"x": "1"})
    assert found.errors == 1

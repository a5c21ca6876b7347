"""A real call between two hosts: in the call list at once, and every packet a line with its labels."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.live.engines import lines_of, own_engine, wait_for
from tests.live.hosts import CALLEE, CALLER, ip, two_hosts

if TYPE_CHECKING:
    from pathlib import Path

PACKETS = 50


@pytest.mark.parametrize("interface", ["otus0", "any"])
def test_call_with_media(tmp_path: Path, interface: str) -> None:
    path = tmp_path / "packets.jsonl"
    with two_hosts() as hosts, own_engine(tmp_path) as engine:
        engine.start(prefix=["ip", "netns", "exec", hosts.caller])
        engine.create(
            capture={
                "driver": "af_packet_v3",
                "interface": interface,
                "workers": 2,
                "config": {"ring_mb": 4},
            },
            filter={},
            parsers=[{"plugin": "sip"}, {"plugin": "rtp", "config": {"report": "every"}}],
            reporter={"type": "file", "config": {"path": str(path)}},
        )
        hosts.answer(PACKETS)
        caller = hosts.call(calls=1, packets=PACKETS)
        wait_for(lambda: engine.call("query", store="calls", count=10)["total"])
        assert caller.wait(60) == 0
        row = wait_for(lambda: _completed(engine.call("query", store="calls", count=10)["rows"]))
        assert row["src"] == f"{CALLER}:5060"
        assert row["dst"] == f"{CALLEE}:5060"
        assert row["streams"] == 2
        streams = engine.call("query", store="streams", count=10)["rows"]
        assert {stream["codec"] for stream in streams} == {"PCMU"}
        assert {stream["packets"] for stream in streams} == {PACKETS}
        assert {stream["lost"] for stream in streams} == {0}
        assert {stream["call_id"] for stream in streams} == {row["call_id"]}
        ladder = engine.call("call", id=row["id"])
        assert [one["method"] for one in ladder["messages"] if one["status"] is None] == [
            "INVITE",
            "ACK",
            "BYE",
        ]
        books = engine.call("stop_task", task_id="test")["books"]
    assert books["even"], books
    lines = lines_of(path)
    kinds = Counter(line["protocol"] for line in lines)
    assert kinds["rtp"] == 2 * PACKETS, kinds
    assert kinds["sip"] == 6
    for line in lines:
        if line["protocol"] == "rtp":
            assert line["labels"]["call-id"] == row["call_id"]
            assert line["labels"]["codec"] == "PCMU"
            assert line["labels"]["rtp.pt"] == "0"


def test_one_packet_on_two_interfaces_counts_once_and_is_marked(tmp_path: Path) -> None:
    """The caller's host has its address on a bridge: `any` sees every packet there and on the port."""
    path = tmp_path / "packets.jsonl"
    with two_hosts() as hosts, own_engine(tmp_path) as engine:
        for words in (
            "addr flush dev otus0",
            "link add otusbr type bridge",
            "link set otus0 master otusbr",
            f"addr add {CALLER}/24 dev otusbr",
            "link set otusbr up",
        ):
            ip("-n", hosts.caller, *words.split())
        engine.start(prefix=["ip", "netns", "exec", hosts.caller])
        engine.create(
            capture={
                "driver": "af_packet_v3",
                "interface": "any",
                "workers": 2,
                "config": {"ring_mb": 4},
            },
            filter={"bpf": "udp and not port 5353"},
            reporter={"type": "file", "config": {"path": str(path)}},
        )
        hosts.answer(PACKETS)
        assert hosts.call(calls=1, packets=PACKETS).wait(60) == 0
        row = wait_for(lambda: _completed(engine.call("query", store="calls", count=10)["rows"]))
        assert row["messages"] == 6
        wait_for(lambda: all(one["copies"] for one in engine.call("call", id=row["id"])["messages"]))
        ladder = engine.call("call", id=row["id"])
        assert [one["copies"] for one in ladder["messages"]] == [1] * 6
        assert not any(one["retransmission"] for one in ladder["messages"])
        assert [stream["packets"] for stream in ladder["streams"]] == [PACKETS] * 2
        books = engine.call("stop_task", task_id="test")["books"]
    assert books["even"], books
    # Of each stream the first packet and the last one.
    assert Counter(line["protocol"] for line in lines_of(path)) == {"sip": 6, "rtp": 4}


def _completed(rows: list[dict[str, object]]) -> dict[str, object] | None:
    return rows[0] if rows and rows[0]["state"] == "completed" else None

"""Calls with media in one direction only: what is told, and what is not taken for one."""

from __future__ import annotations

from typing import Any

import pytest

from engine.calls import one_way
from engine.calls.store import Calls
from engine.shm.records import SIP
from tests.sip_records import SDP, SECOND, START, record, sip

A, B = "10.0.0.7:5060", "10.0.0.9:5060"
HOLD = SDP + "a=sendonly\n"
VIDEO = SDP + "m=video 50000 RTP/AVP 96\na=inactive\n"


class Feed:
    """Signalling and media of calls, judged 20 s after START."""

    def __init__(self, message_bytes: int = 1 << 20) -> None:
        self.calls = Calls({"message_bytes": message_bytes}, "packet")
        self.rows: list[dict[str, Any]] = []

    def call(self, name: str, offer: str = SDP, answer: str = SDP, number: int = 1) -> None:
        """A call that is answered at START."""
        branch = f"z9hG4bK{name}{number}"
        invite = sip("INVITE", f"{number} INVITE", name, branch, body=offer)
        answered = sip("200 OK", f"{number} INVITE", name, branch, to_tag="t", body=answer)
        ack = sip("ACK", f"{number} ACK", name, branch + "a", to_tag="t")
        for text, src, dst in ((invite, A, B), (answered, B, A), (ack, A, B)):
            self.calls.table.add(SIP, START, record(text, src, dst))

    def media(self, name: str, src: int, dst: int, seconds: int, ssrc: int = 7) -> None:
        """A stream from one host to another, or from one port of a host to another, until `seconds`."""
        hosts = (src, dst) if src != dst else (9, 9)
        ports = (40000, 50000) if ssrc % 2 else (50000, 40000)
        self.rows.append(
            {
                "call_id": name,
                "src": f"10.0.0.{hosts[0]}",
                "dst": f"10.0.0.{hosts[1]}",
                "sport": ports[0],
                "dport": ports[1],
                "last_ns": START + seconds * SECOND,
            }
        )

    def told(self) -> int | None:
        self.calls.one_way._until = 0.0
        return self.calls.one_way.count(self.rows, START + 20 * SECOND)


def test_calls_with_one_direction_are_counted() -> None:
    feed = Feed()
    assert feed.told() is None, "there is no call"
    feed.call("both")
    feed.media("both", 1, 2, 20)
    feed.media("both", 2, 1, 20, 8)
    assert feed.told() == 0
    feed.call("silent")
    feed.media("silent", 1, 2, 20, 9)
    assert feed.told() == 1
    feed.call("stopped")
    feed.media("stopped", 1, 2, 20, 10)
    feed.media("stopped", 2, 1, 14, 11)
    assert feed.told() == 2, "nothing came from there for 5 s and more"


def test_on_one_host_ports_tell_the_directions() -> None:
    feed = Feed()
    feed.call("a")
    feed.media("a", 1, 1, 20, 8)
    assert feed.told() == 1
    feed.media("a", 1, 1, 20, 9)
    assert feed.told() == 0


def test_a_call_that_was_just_answered_has_time() -> None:
    feed = Feed()
    feed.call("a")
    feed.media("a", 1, 2, 4)
    assert feed.calls.one_way.count(feed.rows, START + 4 * SECOND) is None
    feed.calls.one_way._until = 0.0
    assert feed.calls.one_way.count(feed.rows, START + 6 * SECOND) == 1
    feed.rows.clear()
    assert feed.calls.one_way.count(feed.rows, START + 6 * SECOND) == 1, "looked a moment ago"


def test_it_is_in_the_snapshot() -> None:
    assert Calls({}, "packet").section()["media"]["one_way"] is None


@pytest.mark.parametrize(
    ("offer", "answer", "expected"),
    [
        (HOLD, SDP.replace("40012", "40014") + "a=recvonly\n", 0),
        (HOLD, SDP, 0),
        (SDP.replace("IN IP4 10.0.0.7", "IN IP4 0.0.0.0"), SDP, 0),
        (VIDEO, VIDEO, 1),
    ],
)
def test_who_holds_wants_one_way(offer: str, answer: str, expected: int) -> None:
    feed = Feed()
    feed.call("held")
    feed.call("held", offer, answer, 2)
    feed.media("held", 1, 2, 20)
    assert feed.told() == expected
    feed.call("held", SDP, SDP, 3)
    assert feed.told() == 1, "taken back"


def test_what_nobody_knows_is_not_counted() -> None:
    feed = Feed(0)
    feed.call("unkept")
    feed.media("unkept", 1, 2, 20)
    feed.media("without-signalling", 2, 1, 20, 8)
    feed.media("", 2, 1, 20, 9)
    assert feed.told() is None


def test_a_look_reads_a_bounded_number_of_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_way, "MOST_READ", 2)
    monkeypatch.setattr(one_way, "MOST_KNOWN", 4)
    feed = Feed()
    for number in range(5):
        feed.call(f"c{number}")
        feed.media(f"c{number}", 1, 2, 20, number)
    assert [feed.told(), feed.told()] == [2, 4]
    assert feed.told() is not None
    assert len(feed.calls.one_way._agreed) <= 4

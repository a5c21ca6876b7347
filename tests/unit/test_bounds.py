"""Bounds of every table under floods, scaled down: `./dev bench bounds` runs them at full size."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import pytest

from bench import bounds
from bench.bounds import Host, bomb_times, bombs, dialog, flood, invites, sources, strangers
from engine import purity
from engine.pipeline import loop
from tests.builds import COMPILED, PURE
from tests.fuzz.targets import Pair
from tests.sip_records import SECOND, START, record, sip

if TYPE_CHECKING:
    from tests.builds import Build

MANY = 50_000 if purity.is_compiled(loop) else 3000
UP = 30
SMALL = {"calls": 500, "messages_per_call": 50, "message_bytes": 1 << 20, "streams": 512, "flows": 4096}
GROWTH = 6 << 20
"""Octets; the allocator of a test run takes and gives back some by itself."""
SLOWER = 4
"""Times; other processes share the caches here."""


def quiet(part: int) -> None:
    """Nothing between the parts of a flood."""


@pytest.fixture
def host() -> Host:
    made = Host(**SMALL)
    made.bring_up(UP)
    return made


def speaks(host: Host) -> Any:
    return lambda part: host.talk(UP, part + 1)


def flat(cost: bounds.Cost) -> bool:
    return cost.growth < GROWTH and cost.last_us < SLOWER * cost.first_us


def test_unique_call_ids(host: Host) -> None:
    cost = flood(host, invites(), MANY, speaks(host))
    assert flat(cost), cost
    assert host.still_up(UP) == UP
    table = host.calls.table
    assert len(table.dialogs) == 500
    # Nothing is lost between the worker and the list: what is not in it was counted out of it.
    assert table.removed == MANY + UP - 500
    assert host.get("sip_messages") == MANY + 3 * UP == table.messages
    assert host.flows.figures()["used"] <= 4096
    assert host.get("flows_full") > MANY / 2
    assert host.get("rtp_by_sdp") == host.get("rtp_packets") == 11 * 2 * UP


@pytest.mark.skipif(not purity.is_compiled(loop), reason="nothing is compiled here")
def test_a_call_in_the_middle_of_a_flood_has_its_media(host: Host) -> None:
    """Endpoints that nobody ever sent media to make room for those of a call that does."""
    more = invites()
    for _ in range(MANY // 2):
        host.give(next(more), gap_us=1500)
    assert host.get("flows_full") > 0
    ends = (30_000, 50_000)
    offer, answer = bounds.sdp(bounds.CALLER, ends[0]), bounds.sdp(bounds.CALLEE, ends[1])
    say = bounds.message("INVITE sip:b@x.test SIP/2.0", "late@x.test", "1 INVITE", offer)
    host.give(bounds.udp(say, bounds.CALLER, bounds.CALLEE, 5060, 5060))
    for _ in range(20_000):
        # It rings for half a minute, while its own endpoint makes room, too.
        host.give(next(more), gap_us=1500)
    say = bounds.message("SIP/2.0 200 OK", "late@x.test", "1 INVITE", answer, to_tag=";tag=2")
    host.give(bounds.udp(say, bounds.CALLEE, bounds.CALLER, 5060, 5060))
    for turn in range(50):
        for _ in range(20):
            host.give(next(more), gap_us=1000)
        host.give(bounds.udp(bounds.rtp(turn, 77), bounds.CALLER, bounds.CALLEE, *ends))
        host.give(bounds.udp(bounds.rtp(turn, 78), bounds.CALLEE, bounds.CALLER, *ends[::-1]))
    host.road.idle(host.now)
    rows = [row for row in host.streams.rows() if row["ssrc"] in (77, 78)]
    assert [row["call_id"] for row in rows] == ["late@x.test"] * 2
    # All places where a hash may stand can be of endpoints too young to yield, for some packets.
    assert min(row["packets"] for row in rows) >= 40
    assert host.get("flows_yielded") > 1000
    assert host.flows.figures()["used"] <= 4096
    host.talk(UP, 1)
    assert host.still_up(UP) == UP


def test_endpoints_without_media_make_room(build: Build) -> None:
    flows = build.module("engine.shm.flows").FlowTable.create("test", 0, 64)
    ends = (
        struct.unpack("<QQ", bytes(10) + b"\xff\xff\x0a\0\0\1"),
        struct.unpack("<QQ", bytes(10) + b"\xff\xff\x0a\0\0\2"),
    )

    def announce(port: int, now: int) -> int:
        flows.stage_call(b"call %d" % port, 0, 9)
        return int(flows.register(*ends[0], port, False, 0, 17, 0, now, 300 * SECOND))

    def media(port: int, now: int) -> int:
        return int(flows.find(*ends[1], *ends[0], 5000, port, 17, 0, now))

    assert [announce(port, START) for port in range(1000, 1020)] == [0] * 20
    slots = [media(port, START) for port in range(1000, 1020)]
    assert min(slots) >= 0
    outcomes = [announce(port, START) for port in range(2000, 2100)]
    assert 2 in outcomes
    # Too young to be in the way.
    assert [announce(port, START + SECOND) for port in range(3000, 3100)].count(0) == 0
    later = [announce(port, START + 3 * SECOND) for port in range(4000, 4024)]
    # Of few slots some places are full of what is young or has media: the key decides how many.
    assert later.count(0) >= 12
    assert flows.take_yielded() == later.count(0)
    assert flows.take_yielded() == 0
    # Those with media are there, whether their flows were quiet or not.
    assert [media(port, START + 4 * SECOND) for port in range(1000, 1020)] == slots
    assert flows.figures()["used"] <= 64


def test_unique_ssrcs_in_one_flow(host: Host) -> None:
    cost = flood(host, sources(host), MANY, speaks(host))
    assert flat(cost), cost
    assert host.streams.figures()["used"] <= 512
    assert host.get("streams_full") >= MANY - 512
    assert host.get("rtp_by_sdp") == MANY + 11 * 2 * UP
    rows = [row for row in host.streams.rows() if row["ssrc"] <= 10_000 + UP]
    assert {(row["packets"], row["lost"]) for row in rows} == {(11, 0)}


def test_media_of_nobody(host: Host) -> None:
    before = host.streams.figures()["used"], host.flows.figures()["used"]
    assert flat(flood(host, strangers(), MANY, quiet))
    assert (host.streams.figures()["used"], host.flows.figures()["used"]) == before
    assert host.get("unmatched") == MANY
    assert host.get("candidates_full") > MANY / 2
    assert host.still_up(UP) == UP


def test_a_dialog_of_many_messages(host: Host) -> None:
    assert flat(flood(host, dialog("up0@x.test"), MANY // 2, quiet))
    host.settle()
    row = next(
        r for r in host.calls.answer("query", {"store": "calls"})["rows"] if r["call_id"] == "up0@x.test"
    )
    assert row["messages"] == MANY // 2 + 3
    ladder = host.calls.answer("call", {"id": row["id"], "count": 1000})
    assert (len(ladder["messages"]), ladder["more"]) == (50, False)
    assert host.calls.table.unkept == MANY // 2 + 3 - 50


def test_a_copy_is_looked_for_among_the_kept_messages_only(build: Build) -> None:
    table = build.module("engine.calls.dialogs").DialogTable(10, 20, 1 << 16)
    for number in range(200):
        table.add(1, START + number, record(sip("INFO", f"{number} INFO"), "10.0.0.7:5060", "10.0.0.9:5060"))
    copy = record(sip("INFO", "150 INFO"), "10.0.0.7:5060", "10.0.0.9:5060", flags=8)
    table.add(1, START + 200, copy)
    assert (table.copies, table.messages, table.unkept) == (1, 200, 180)


def test_calls_without_an_answer_make_room_first(build: Build) -> None:
    """A flood of INVITEs puts out itself: neither calls that are up nor those that ring."""
    table = build.module("engine.calls.dialogs").DialogTable(20, 20, 1 << 16)

    def say(first: str, cseq: str, call: str, back: bool = False) -> None:
        ends = ("10.0.0.9:5060", "10.0.0.7:5060") if back else ("10.0.0.7:5060", "10.0.0.9:5060")
        table.add(1, START, record(sip(first, cseq, call, to_tag="t" if back else ""), *ends))

    for call in ("up", "ringing", "over"):
        say("INVITE", "1 INVITE", call)
        say("180 Ringing" if call == "ringing" else "200 OK", "1 INVITE", call, back=True)
    say("REGISTER", "1 REGISTER", "registered")
    say("200 OK", "1 REGISTER", "registered", back=True)
    say("BYE", "2 BYE", "over")
    say("200 OK", "2 BYE", "over", back=True)
    for number in range(300):
        say(
            *[("INVITE", "1 INVITE"), ("REGISTER", "1 REGISTER"), ("MESSAGE", "1 MESSAGE")][number % 3],
            f"n{number}",
        )
    assert [name for name in table.dialogs if not name.startswith(b"n")] == [b"up", b"ringing", b"registered"]
    assert [name for name in table.dialogs if name.startswith(b"n")] == [b"n%d" % n for n in range(283, 300)]
    # Where nothing is left but calls that are up, the oldest of them goes.
    for number in range(40):
        say("INVITE", "1 INVITE", f"m{number}")
        say("200 OK", "1 INVITE", f"m{number}", back=True)
    assert list(table.dialogs) == [b"m%d" % number for number in range(20, 40)]


def test_what_was_cleared_is_kept_nowhere(build: Build) -> None:
    table = build.module("engine.calls.dialogs").DialogTable(100_000, 2, 1 << 16)
    for turn in range(4):
        for number in range(200):
            call = f"{turn}-{number}"
            table.add(1, START, record(sip("INVITE", "1 INVITE", call), "10.0.0.7:5060", "10.0.0.9:5060"))
            table.add(
                1,
                START,
                record(sip("486 Busy", "1 INVITE", call, to_tag="t"), "10.0.0.9:5060", "10.0.0.7:5060"),
            )
        for one in list(table.dialogs.values()):
            table.remove(one)
    table.add(1, START, record(sip("INVITE", "1 INVITE", "last"), "10.0.0.7:5060", "10.0.0.9:5060"))
    assert len(table.arrivals) + len(table.settled) + len(table.finished) <= 1024 + 3


@pytest.mark.parametrize("name", bombs(1))
def test_header_bombs(name: str) -> None:
    text = bombs(20_000)[name]
    view = Pair("sip").check(text)
    kind, error, headers = view[1], view[14], view[5]
    assert kind == 1
    assert headers <= 512
    if name in ("lines", "names", "Via", "no end"):
        assert error == "more headers than are read"


def test_header_bombs_take_time_by_their_length(host: Host) -> None:
    if not purity.is_compiled(loop):
        pytest.skip("nothing is compiled here")
    short, long = bomb_times(host, 6000), bomb_times(host, 60_000)
    for name, took in long.items():
        assert took < max(5.0, 30 * short[name]), (name, short[name], took)


def test_description_with_a_thousand_media(host: Host) -> None:
    text = bounds.message(
        "INVITE sip:b@x.test SIP/2.0", "many", "1 INVITE", bounds.sdp((10, 7, 7, 7), 1024, 1000)
    )
    used = host.flows.figures()["used"]
    host.give(bounds.udp(text, (10, 7, 7, 7), bounds.CALLEE, 5060, 5060))
    assert host.get("sdp_media") == 2 * UP + 16
    assert host.get("sdp_over_limit") == 984
    assert host.flows.figures()["used"] == used + 32


def test_description_as_large_as_a_datagram(build: Build) -> None:
    parser = build.module("engine.parsers.sdp").SdpParser()
    body = b"v=0\r\n" + b"m=a 1 RTP/AVP 0\r\n" * 3800
    parser.attach(body)
    assert parser.parse(0, len(body)) == 16
    assert parser.over_limit == 3784


@pytest.mark.parametrize(
    ("where", "port", "counter"),
    [
        ("10.7.7.7", 0, "sdp_rejected"),
        ("0.0.0.0", 4000, "sdp_rejected"),
        ("10.7.7.7", 65_536, "sdp_rejected"),
        ("127.0.0.1", 4000, "sdp_media"),
        ("224.2.1.1", 4000, "sdp_media"),
        ("10.0.0.1", 20_000, "flow_conflicts"),
    ],
)
def test_hostile_endpoints(host: Host, where: str, port: int, counter: str) -> None:
    """Nowhere is refused, somewhere is known; the endpoint of another call stays its own: counted."""
    body = f"v=0\r\nc=IN IP4 {where}\r\nm=audio {port} RTP/AVP 8\r\n"
    before, used = host.get(counter), host.flows.figures()["used"]
    hijack = bounds.message("INVITE sip:b@x.test SIP/2.0", "evil", "1 INVITE", body)
    host.give(bounds.udp(hijack, (10, 9, 9, 9), bounds.CALLEE, 5060, 5060))
    # The port of RTCP is the other call's as well.
    assert host.get(counter) - before == (2 if counter == "flow_conflicts" else 1)
    assert (host.flows.figures()["used"] > used) == (counter == "sdp_media")
    host.talk(UP, 1)
    assert host.still_up(UP) == UP


def test_keys_that_collide_without_a_seed() -> None:
    """Addresses and ports that a plain hash puts into one place are spread by a seed that nobody knows."""
    for build in (COMPILED, PURE):
        table = build.module("engine.shm.flows").FlowTable.create("test", 0, 4096)
        plain = [(number << 40) | (0xFFFF << 16) for number in range(1000)]
        homes = {table.hash(0, word, 4000 | 17 << 32, 0, 0, 0) & 4095 for word in plain}
        assert len(homes) > 800
        outcomes = []
        for word in plain:
            table.stage_call(b"call", 0, 4)
            outcomes.append(table.register(0, word, 4000, False, 0, 17, 0, START, SECOND))
        assert set(outcomes) == {0}

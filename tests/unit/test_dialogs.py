"""The table of Call-IDs: what it counts, what it holds, what makes room; any octets, in both builds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.calls.states import STATES
from engine.shm import records
from engine.shm.records import ICMP, P_DUPLICATE, SIP
from tests.builds import COMPILED, PURE, Build, both_builds
from tests.sip_records import SDP, SECOND, START, packet_header, record, sip

A, B = "10.0.0.7:5060", "10.0.0.9:5060"


def table(build: Build, calls: int = 100, messages: int = 500, octets: int = 65536, **more: Any) -> Any:
    return build.module("engine.calls.dialogs").DialogTable(calls, messages, octets, **more)


def put(dialogs: Any, text: str | bytes, at: float = 0, src: str = A, dst: str = B, **more: Any) -> None:
    dialogs.add(SIP, START + round(at * SECOND), record(text, src, dst, **more))


def option(number: int, cseq: str = "1 OPTIONS", **more: str) -> str:
    return sip(cseq.split()[1], cseq, call_id=f"o{number}@test", branch=f"z9hG4bK{number}", **more)


def entry(dialogs: Any, call_id: bytes = b"c1@test") -> Any:
    return dialogs.dialogs[call_id]


def bodies(dialogs: Any, dialog: Any) -> list[bytes | None]:
    return [dialogs.arena.octets_of(words) for words in dialogs.arena.cells_of(dialog, 0, 1000)]


@both_builds
def test_methods_and_codes_are_counted_with_retransmissions(build: Build) -> None:
    dialogs = table(build)
    invite, ok = sip("INVITE", "1 INVITE", body=SDP), sip("200 OK", "1 INVITE", to_tag="t", body=SDP)
    for at in (0, 0.5, 1.5):
        put(dialogs, invite, at)
    put(dialogs, ok, 2, B, A)
    put(dialogs, ok, 2.5, B, A)
    put(dialogs, sip("KDMQ", "7 KDMQ", branch="z9hG4bKk"), 3)
    dialog = entry(dialogs)
    assert dialogs.counts(dialog) == ({"INVITE": 3, "KDMQ": 1}, {"200": 2})
    assert dialogs.all_counts() == ({"INVITE": 3, "KDMQ": 1}, {"200": 2})
    assert (dialog.messages, dialog.retransmissions, dialogs.retransmissions) == (6, 3, 3)
    flags = [words[9] >> 8 & 1 for words in dialogs.arena.cells_of(dialog, 0, 10)]
    assert flags == [0, 1, 1, 0, 1, 0]


@both_builds
@pytest.mark.parametrize(
    ("again", "src", "dst"),
    [
        (sip("INVITE", "1 INVITE"), B, "10.0.0.10:5060"),
        (sip("INVITE", "1 INVITE"), "10.0.0.7:5070", B),
        (sip("INVITE", "1 INVITE", branch="z9hG4bKb"), A, B),
        (sip("INVITE", "2 INVITE"), A, B),
        (sip("INVITE", "1 INVITE", body=SDP), A, B),
        (sip("CANCEL", "1 CANCEL"), A, B),
    ],
    ids=["next hop", "other port", "other branch", "other CSeq", "other body", "other method"],
)
def test_what_is_no_retransmission(build: Build, again: str, src: str, dst: str) -> None:
    dialogs = table(build)
    put(dialogs, sip("INVITE", "1 INVITE"))
    put(dialogs, again, 0.5, src, dst)
    assert entry(dialogs).retransmissions == 0


@both_builds
def test_the_same_octets_a_minute_later_are_no_retransmission(build: Build) -> None:
    dialogs = table(build)
    for at in (0, 60, 120):
        put(dialogs, option(1), at)
    assert dialogs.retransmissions == 0


@both_builds
def test_a_copy_from_another_interface_is_marked_and_not_counted(build: Build) -> None:
    dialogs = table(build)
    put(dialogs, sip("INVITE", "1 INVITE"))
    put(dialogs, sip("INVITE", "1 INVITE"), 0.0005, flags=P_DUPLICATE)
    dialog = entry(dialogs)
    assert (dialog.messages, dialog.retransmissions, dialog.copies) == (1, 0, 1)
    assert [words[9] >> 24 & 0xFF for words in dialogs.arena.cells_of(dialog, 0, 9)] == [1]
    assert dialogs.counts(dialog) == ({"INVITE": 1}, {})


@both_builds
def test_a_copy_marks_its_own_message_also_when_another_came_before_it(build: Build) -> None:
    dialogs = table(build)
    texts = [sip("INVITE", "1 INVITE"), sip("100 Trying", "1 INVITE"), sip("180 Ringing", "1 INVITE")]
    for text, src, dst in zip(texts, (A, B, B), (B, A, A), strict=True):
        put(dialogs, text, 0, src, dst)
    put(dialogs, texts[0], 0.0005, flags=P_DUPLICATE)
    for _ in range(300):
        put(dialogs, texts[1], 0.0006, B, A, flags=P_DUPLICATE)
    put(dialogs, sip("CANCEL", "1 CANCEL"), 0.0007, flags=P_DUPLICATE)
    dialog = entry(dialogs)
    cells = dialogs.arena.cells_of(dialog, 0, 9)
    assert [words[9] >> 24 & 0xFF for words in cells] == [1, 255, 0]
    assert [words[8] & 0xFFFF for words in cells] == [0, 100, 180]
    assert (dialog.messages, dialog.copies) == (3, 302)


@both_builds
def test_malformed_messages_are_listed_as_far_as_there_is_room(build: Build) -> None:
    dialogs = table(build)
    broken = sip("INVITE", "1 INVITE").replace("Call-ID: c1@test\n", "")
    put(dialogs, broken, frame=7)
    for n in range(150):
        put(dialogs, option(n).replace("Max-Forwards: 70", "Max-Forwards: x"), n)
    assert len(dialogs.defects) == 100
    assert dialogs.malformed > 100
    call_id, at, error, method, status, head = dialogs.defects[0]
    assert (call_id, at, method, status) == (b"", START, 1, 0)
    assert error > 0
    assert records.packet_header(head).frame == 7


@both_builds
def test_messages_are_kept_as_they_were(build: Build) -> None:
    dialogs = table(build)
    texts = [option(1, f"{n} OPTIONS", extra=f"X-Pad: {'x' * n}\n") for n in range(1, 40)]
    for n, text in enumerate(texts):
        put(dialogs, text, n, frame=n + 1)
    dialog = entry(dialogs, b"o1@test")
    assert bodies(dialogs, dialog) == [text.replace("\n", "\r\n").encode() for text in texts]
    cells = dialogs.arena.cells_of(dialog, 3, 2)
    assert [(words[0], words[8] >> 32, words[10]) for words in cells] == [
        (START + 3 * SECOND, 4, 4),
        (START + 4 * SECOND, 5, 5),
    ]


@both_builds
def test_octets_make_room_before_rows(build: Build) -> None:
    dialogs = table(build, octets=8192)
    texts = [option(n, extra=f"X-Pad: {'x' * (n * 7 % 300)}\n") for n in range(100)]
    for n, text in enumerate(texts):
        put(dialogs, text, n)
    assert len(dialogs.dialogs) == 100
    found = [bodies(dialogs, dialog)[0] for dialog in dialogs.dialogs.values()]
    wanted = [text.replace("\n", "\r\n").encode() for text in texts]
    kept = sum(octets is not None for octets in found)
    assert 10 < kept < 40
    assert found == [None] * (100 - kept) + wanted[-kept:]
    assert dialogs.arena.held_octets() == 8192


@both_builds
def test_a_message_larger_than_the_arena_has_no_octets(build: Build) -> None:
    dialogs = table(build, octets=8192)
    put(dialogs, option(1, extra=f"X-Pad: {'x' * 9000}\n"))
    assert bodies(dialogs, entry(dialogs, b"o1@test")) == [None]


@both_builds
def test_messages_beyond_the_bound_are_counted_only(build: Build) -> None:
    dialogs = table(build, messages=5)
    for n in range(1, 13):
        put(dialogs, option(1, f"{n} OPTIONS"), n)
    dialog = entry(dialogs, b"o1@test")
    assert (dialog.messages, dialog.kept, dialogs.unkept) == (12, 5, 7)
    assert len(bodies(dialogs, dialog)) == 5
    assert dialogs.counts(dialog) == ({"OPTIONS": 12}, {})


@both_builds
def test_what_ended_first_makes_room_first(build: Build) -> None:
    dialogs = table(build, calls=3)
    for n in (1, 2, 3):
        put(dialogs, option(n), n)
    for at, n in ((4, 3), (5, 2)):
        put(
            dialogs,
            option(n, "1 OPTIONS").replace("OPTIONS sip:bob@example.com SIP/2.0", "SIP/2.0 200 OK"),
            at,
            B,
            A,
        )
    put(dialogs, option(4), 6)
    assert [*dialogs.dialogs] == [b"o1@test", b"o2@test", b"o4@test"]
    put(dialogs, option(5), 7)
    assert [*dialogs.dialogs] == [b"o1@test", b"o4@test", b"o5@test"]
    put(dialogs, option(6), 8)
    assert [*dialogs.dialogs] == [b"o4@test", b"o5@test", b"o6@test"]
    assert dialogs.removed == 3
    assert sum(dialogs.state_counts()) == 3


@both_builds
def test_what_ended_and_went_on_does_not_make_room_for_the_old_end(build: Build) -> None:
    dialogs = table(build, calls=2)
    ok = "SIP/2.0 200 OK"
    put(dialogs, option(1), 0)
    put(dialogs, option(2), 1)
    put(dialogs, option(1).replace("OPTIONS sip:bob@example.com SIP/2.0", ok), 2, B, A)
    put(dialogs, sip("INVITE", "2 INVITE", call_id="o1@test", branch="z9hG4bKnew"), 3)
    put(dialogs, option(3), 4)
    assert [*dialogs.dialogs] == [b"o2@test", b"o3@test"]


@pytest.mark.parametrize(("build", "count"), [(COMPILED, 200_000), (PURE, 2_000)], ids=str)
def test_a_flood_of_call_ids_stays_in_its_bounds(build: Build, count: int) -> None:
    dialogs = table(build, calls=200)
    body = record(option(1), A, B)
    place = body.index(b"o1@test")
    for n in range(count):
        dialogs.add(SIP, START + n * 1000, body[:place] + b"%07x" % n + body[place + 7 :])
    assert len(dialogs.dialogs) == 200
    assert dialogs.removed == count - 200
    assert len(dialogs.arrivals) <= 2 * 200 + 1025
    assert len(dialogs.finished) <= 200
    assert dialogs.arena.used_cells <= 201
    assert dialogs.used_tallies <= 201


@both_builds
def test_cells_run_out_before_calls(build: Build) -> None:
    """Calls with many messages push out others, never themselves."""
    dialogs = table(build, calls=2, messages=500)
    assert dialogs.arena.most_cells == 164
    for n in range(1, 101):
        put(dialogs, option(1, f"{n} OPTIONS"), n)
    for n in range(1, 201):
        put(dialogs, option(2, f"{n} OPTIONS"), 100 + n)
    assert [*dialogs.dialogs] == [b"o2@test"]
    dialog = entry(dialogs, b"o2@test")
    assert dialog.messages == 200
    assert dialog.kept == 164
    assert [words[8] >> 32 for words in dialogs.arena.cells_of(dialog, 0, 500)] == [*range(1, 165)]


@both_builds
def test_invented_methods_and_codes_are_bounded(build: Build) -> None:
    dialogs = table(build)
    for n in range(200):
        put(dialogs, sip(f"M{n}", f"{n + 1} M{n}", branch=f"z9hG4bKm{n}"), n)
    for status in range(100, 700):
        put(dialogs, sip(f"{status} X", "1 INVITE", branch=f"z9hG4bKs{status}"), 300 + status, B, A)
    dialog = entry(dialogs)
    methods, codes = dialogs.counts(dialog)
    assert methods["M0"] == 1
    assert methods["other"] == 200 - 48
    assert len(methods) + len(codes) == 96
    assert dialogs.untallied == 600 - len(codes)
    assert dialog.messages == 800


@both_builds
def test_a_long_call_id_is_cut_and_stays_one_call(build: Build) -> None:
    dialogs = table(build)
    for n in (1, 2):
        put(dialogs, sip("OPTIONS", f"{n} OPTIONS", call_id="x" * 5000 + "a"), n)
    put(dialogs, sip("OPTIONS", "1 OPTIONS", call_id="x" * 5000 + "b"), 3)
    assert sorted(dialog.messages for dialog in dialogs.dialogs.values()) == [1, 2]
    assert all(len(call_id) < 520 for call_id in dialogs.dialogs)


@both_builds
def test_a_message_without_call_id_is_listed(build: Build) -> None:
    dialogs = table(build)
    put(dialogs, sip("OPTIONS", "1 OPTIONS").replace("Call-ID: c1@test\n", ""))
    dialog = entry(dialogs, b"")
    assert dialog.messages == 1
    assert dialog.malformed == 1


@both_builds
def test_sip_quoted_in_icmp_is_evidence_and_no_message(build: Build) -> None:
    dialogs = table(build)
    put(dialogs, sip("INVITE", "1 INVITE"))
    quoted = b"\x03\x03\0\0\0\0\0\0" + bytes(28) + sip("INVITE", "1 INVITE").replace("\n", "\r\n").encode()
    dialogs.add(ICMP, START + SECOND, packet_header(B, A, protocol=1) + quoted)
    dialogs.add(ICMP, START + SECOND, packet_header(B, A, protocol=1) + quoted[:60])
    dialogs.add(ICMP, START + SECOND, packet_header(B, A, protocol=1))
    dialog = entry(dialogs)
    assert (dialog.messages, dialog.evidence, dialogs.quotes) == (1, 1, 3)
    assert dialog.reason == b"ICMP port unreachable"
    dialogs.sweep(START + 40 * SECOND)
    assert STATES[dialog.state] == "timeout"
    assert dialog.reason == b"ICMP port unreachable"


@both_builds
@pytest.mark.parametrize("by", [3600, -3600])
def test_timers_do_not_follow_a_step_of_the_wall_clock(build: Build, by: int) -> None:
    dialogs = table(build)
    put(dialogs, sip("INVITE", "1 INVITE"))
    due = entry(dialogs).deadline_ns
    dialogs.stepped(by * SECOND)
    dialogs.sweep(due + by * SECOND - 1)
    assert STATES[entry(dialogs).state] == "call_setup"
    dialogs.sweep(due + by * SECOND)
    assert STATES[entry(dialogs).state] == "timeout"


@both_builds
def test_figures_only(build: Build) -> None:
    """What a report of a large file uses: nothing is kept of messages, everything is counted."""
    dialogs = table(build, store_messages=False)
    for at in (0, 0.5):
        put(dialogs, sip("INVITE", "1 INVITE"), at)
    dialog = entry(dialogs)
    assert (dialog.messages, dialog.kept, dialog.retransmissions) == (2, 0, 1)
    assert bodies(dialogs, dialog) == []
    assert dialogs.counts(dialog) == ({"INVITE": 2}, {})


MESSAGE = record(sip("INVITE", "1 INVITE", extra="Reason: x\nExpires: 1\nX-Call-ID: y\n", body=SDP), A, B)
REGISTER = record(
    sip("REGISTER", "1 REGISTER", extra="Contact: <a>;expires=99999999999999\nExpires: 1\n"), A, B
)
NOTIFY = record(sip("NOTIFY", "1 NOTIFY", extra="Subscription-State: active;expires=9\n"), A, B)


@st.composite
def bent(draw: st.DrawFn) -> tuple[int, int, bytes]:
    """A record with some octets changed, cut or long; or no record at all."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.integers(0, 9)), draw(st.integers(0, 2**63)), draw(st.binary(max_size=600))
    body = bytearray(draw(st.sampled_from([MESSAGE, REGISTER, NOTIFY])))
    for _ in range(draw(st.integers(0, 8))):
        place = draw(st.integers(0, len(body) - 1) | st.integers(128, 400))
        body[place] = draw(st.integers(0, 255))
    return (
        SIP,
        draw(st.sampled_from([0, START, START + SECOND, 2**63 - 1])),
        bytes(body[: draw(st.integers(0, 2000))]),
    )


@given(st.lists(bent(), max_size=30))
@settings(deadline=None, max_examples=150)
def test_no_octets_raise_and_both_builds_agree(sequence: list[tuple[int, int, bytes]]) -> None:
    views = []
    for build in (COMPILED, PURE):
        calls = build.module("engine.calls.store").Calls(
            {"calls": 8, "message_bytes": 8192, "messages_per_call": 4}, "packet"
        )
        for kind, timestamp, body in sequence:
            calls.add(kind, timestamp, body)
        answer = calls.answer("query", {"count": 100})
        ladders = [calls.answer("call", {"id": row["id"]}) for row in answer["rows"]]
        for row, ladder in zip(answer["rows"], ladders, strict=True):
            for message in ladder["messages"]:
                calls.answer("message", {"id": row["id"], "index": message["index"]})
        views.append(([_stable(row) for row in answer["rows"]], [ladder["messages"] for ladder in ladders],
                      calls.section(), [_stable(row) for row in calls.dialogs_report()]))  # fmt: skip
        assert len(answer["rows"]) <= 8
    assert views[0] == views[1]


def _stable(row: dict[str, Any]) -> dict[str, Any]:
    """Without what a process draws by lot: the base of ids, the hash behind a cut Call-ID."""
    return {key: value for key, value in row.items() if key != "id"}


def test_slots_and_methods_are_those_of_the_records() -> None:
    """The hot modules name slots and kinds by number."""
    for module in ("dialogs", "record_view"):
        pure = PURE.module(f"engine.calls.{module}")
        for place, name in enumerate(records.SLOTS):
            found = getattr(pure, f"SLOT_{name.upper()}", None) if module == "dialogs" else None
            assert found in (None, place)
    view = PURE.module("engine.calls.record_view")
    names = {"REASON_PHRASE": "reason_phrase", "TO_TAG": "to_tag", "FROM_TAG": "from_tag", "VIA": "via",
             "BRANCH": "via_branch", "CONTACT": "contact", "REASON": "reason", "EXPIRES": "expires",
             "SUBSCRIPTION_STATE": "subscription_state"}  # fmt: skip
    assert {name: getattr(view, name) for name in names} == {
        name: records.SLOTS.index(slot) for name, slot in names.items()
    }
    dialogs = PURE.module("engine.calls.dialogs")
    assert (dialogs.SIP, dialogs.ICMP, dialogs.P_DUPLICATE) == (SIP, ICMP, P_DUPLICATE)
    assert records.SIP_MESSAGE == dialogs.MESSAGE == view.MESSAGE
    states = PURE.module("engine.calls.states")
    for name in ("INVITE", "ACK", "BYE", "CANCEL", "REGISTER", "PRACK", "SUBSCRIBE", "NOTIFY", "UPDATE"):
        assert records.METHODS[getattr(states, name)] == name
    assert [STATES[getattr(states, name.upper())] for name in STATES[1:]] == [*STATES[1:]]
